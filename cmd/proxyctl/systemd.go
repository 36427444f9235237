package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What systemd is told about a service (sd_notify(3)), and the sockets it
// starts one with (sd_listen_fds(3)).

// notify sends a message about the state of the service, if anybody listens.
func notify(state string) {
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
	_ = syscall.Sendto(fd, []byte(state), syscall.MSG_NOSIGNAL, &syscall.SockaddrUnix{Name: name})
}

// notifyReloading begins a reload of a Type=notify-reload service, which gives
// the time so that messages of two reloads are told apart.
func notifyReloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func notifyReloaded(err error) {
	status := "serving"
	if err != nil {
		status = "serving the old configuration: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	notify("READY=1\nSTATUS=" + status)
}

// notifyStopping says that the service ends, or who goes on with it.
func (p *process) notifyStopping() {
	if p.successor != nil {
		notify("MAINPID=" + strconv.Itoa(p.successor.pid))
		return
	}
	notify("STOPPING=1")
}

// systemdSockets are the sockets of socket activation.
func systemdSockets() []int {
	defer func() {
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
			_ = os.Unsetenv(name)
		}
	}()
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	if err != nil || pid != os.Getpid() {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	var fds []int
	for i := range min(n, 1024) {
		fds = append(fds, 3+i)
	}
	return fds
}
