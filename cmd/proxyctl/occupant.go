package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"proxyctl/proxy"
)

// occupant says who listens on the address for want of which err happened, as
// far as /proc lets this process see; "" when that is not the trouble.
func occupant(err error) string {
	in := new(proxy.InUse)
	if !errors.As(err, &in) || !in.Address.IsValid() {
		return ""
	}
	inodes := listeners(in.Address.Port())
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		inode, ok := strings.CutPrefix(to, "socket:[")
		if !ok || !slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s is held by %s (process %s)", in.Address, bytes.TrimSpace(name), pid)
	}
	return fmt.Sprintf("%s is held by another process", in.Address)
}

// listeners gives the inodes of the sockets that listen on a TCP port.
func listeners(port uint16) []string {
	const stateListen = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	var inodes []string
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == stateListen && strings.HasSuffix(f[1], suffix) {
				inodes = append(inodes, f[9])
			}
		}
	}
	return inodes
}
