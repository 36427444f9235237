package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// daemonEnv tells a started process that it is the daemon: the number of the
// descriptor on which it reports that it serves.
const daemonEnv = "PROXYCTL_DAEMON_READY"

func isDaemon() bool { return os.Getenv(daemonEnv) != "" }

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
	self, err := os.Executable()
	if err != nil {
		p.fatal(err)
		return 1
	}
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), daemonEnv+"=3")
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		p.fatal(err)
		return 1
	}
	status := 1
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		if lines.Text() == "ready" {
			status = 0
			break
		}
		fmt.Fprintln(p.stderr, lines.Text())
	}
	return status
}

// daemonWriter is where a daemon's messages go until it serves.
func daemonWriter() *os.File {
	if !isDaemon() {
		return os.Stderr
	}
	syscall.CloseOnExec(3)
	return os.NewFile(3, "ready")
}

// ready tells the starting process that the server serves.
func (p *process) ready() {
	if isDaemon() {
		if f, ok := p.stderr.(*os.File); ok {
			fmt.Fprintln(f, "ready")
			_ = f.Close()
		}
		return
	}
	notifySystemd()
}

// notifySystemd tells a Type=notify unit that the server serves (sd_notify(3)).
func notifySystemd() {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	_ = syscall.Sendto(fd, []byte("READY=1"), 0, &syscall.SockaddrUnix{Name: name})
}
