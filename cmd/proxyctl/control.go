package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy"
)

// control tells those who asked for a reload how it went. nginx's -s reload
// returns before anything has happened; here the sender first connects to an
// abstract socket named after the process, then sends the signal, then reads
// the outcome.
type control struct {
	listener net.Listener
	mu       sync.Mutex
	waiting  []net.Conn
}

// maxWaiting bounds how many senders are kept.
const maxWaiting = 64

func controlName(pid int) string { return fmt.Sprintf("@proxyctl/%d", pid) }

// listenControl opens the socket. A server without one works all the same.
func listenControl(log func(proxy.LogLevel, string, ...any)) *control {
	c := &control{}
	l, err := net.Listen("unix", controlName(unix.Getpid()))
	if err != nil {
		log(proxy.LogNotice, "reload cannot report its outcome: %v", err)
		return c
	}
	c.listener = l
	go c.accept()
	return c
}

func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		if len(c.waiting) == maxWaiting {
			_ = c.waiting[0].Close()
			c.waiting = c.waiting[1:]
		}
		c.waiting = append(c.waiting, conn)
		c.mu.Unlock()
		_, _ = conn.Write([]byte("ready\n"))
	}
}

// finished tells everybody who waits how the reload went.
func (c *control) finished(err error) {
	line := "ok\n"
	if err != nil {
		line = "error " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
	}
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, conn := range waiting {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(line))
		_ = conn.Close()
	}
}

func (c *control) close() {
	if c.listener != nil {
		_ = c.listener.Close()
	}
	c.finished(errors.New("the server has ended"))
}

// reloadAnswer is the sender's end; nil when the process has no control socket
// (a real nginx, another network namespace).
type reloadAnswer struct {
	conn   *net.UnixConn
	reader *bufio.Reader
}

// awaitReload connects to the server with that pid before it is told to reload.
func awaitReload(pid int) *reloadAnswer {
	conn, err := net.Dial("unix", controlName(pid))
	if err != nil {
		return nil
	}
	a := &reloadAnswer{conn: conn.(*net.UnixConn)}
	a.reader = bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := a.reader.ReadString('\n')
	if err != nil || line != "ready\n" || a.peer() != pid {
		a.close()
		return nil
	}
	return a
}

// peer is the process at the other end: a name can be taken by anybody.
func (a *reloadAnswer) peer() int {
	raw, err := a.conn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// wait gives the outcome of the reload.
func (a *reloadAnswer) wait(limit time.Duration) error {
	if a == nil {
		return nil
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(limit))
	line, err := a.reader.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the server has not reloaded within %v", limit)
	}
	if text, failed := strings.CutPrefix(line, "error "); failed {
		return errors.New(strings.TrimSpace(text))
	}
	return nil
}

func (a *reloadAnswer) close() {
	if a != nil {
		_ = a.conn.Close()
	}
}
