package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// daemonEnv tells a started process that it is the daemon: the number of the
// descriptor on which it reports that it serves. daemonSockets hands it the
// listening sockets that the starting process had.
const (
	daemonEnv     = "PROXYCTL_DAEMON_READY"
	daemonSockets = "PROXYCTL_DAEMON_SOCKETS"
)

// detach starts the server again without a terminal and returns when it
// serves. Descriptors 0 to 2 of the daemon lead nowhere, so that nobody waits
// for a pipe it holds; what it has to say until it serves comes through the
// ready descriptor.
func (p *process) detach() int {
	read, write, err := os.Pipe()
	if err != nil {
		p.fatal(err)
		return 1
	}
	defer read.Close()
	self, err := ownPath()
	if err != nil {
		p.fatal(err)
		return 1
	}
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), daemonEnv+"=3")
	cmd.ExtraFiles = []*os.File{write}
	sockets := ""
	for _, fd := range p.inherited.fds {
		sockets += strconv.Itoa(3+len(cmd.ExtraFiles)) + ";"
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "socket"))
	}
	if sockets != "" {
		cmd.Env = append(cmd.Env, daemonSockets+"="+sockets)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		p.fatal(err)
		return 1
	}
	lines, said := bufio.NewScanner(read), false
	for lines.Scan() {
		if lines.Text() == "ready" {
			notify("MAINPID=" + strconv.Itoa(cmd.Process.Pid) + "\nREADY=1")
			return 0
		}
		fmt.Fprintln(p.stderr, lines.Text())
		said = true
	}
	if err := cmd.Wait(); err != nil && !said {
		p.fatal(fmt.Errorf("the server ended before it served: %w", err))
	}
	return 1
}

// ownPath is where this program is, by the name it was started by if it is
// still there: pidof(8) and pkill(1) know a process by that.
func ownPath() (string, error) {
	self, err := os.Stat("/proc/self/exe")
	if path, e := programPath(); err == nil && e == nil {
		if named, e := os.Stat(path); e == nil && os.SameFile(self, named) {
			return path, nil
		}
	}
	return os.Executable()
}

// readyPipe is where a daemon's messages go until it serves.
func readyPipe() *os.File {
	syscall.CloseOnExec(3)
	syscall.Umask(0)
	return os.NewFile(3, "ready")
}

// ready tells whoever started the process that it serves.
func (p *process) ready() {
	if p.origin.daemon {
		fmt.Fprintln(p.stderr, "ready")
		_ = p.stderr.(io.Closer).Close()
		return
	}
	notify("READY=1")
}
