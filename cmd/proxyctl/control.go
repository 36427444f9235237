package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
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
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is left
			time.Sleep(100 * time.Millisecond)
			continue
		}
		// Whoever may send the signal may know how it went.
		if cred := peerOf(conn); cred == nil || cred.Uid != 0 && int(cred.Uid) != os.Getuid() {
			_ = conn.Close()
			continue
		}
		c.mu.Lock()
		if len(c.waiting) == maxWaiting {
			_ = c.waiting[0].Close()
			c.waiting = c.waiting[1:]
		}
		c.waiting = append(c.waiting, conn)
		c.mu.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte("ready\n"))
	}
}

// waiters wait for the outcome of one reload.
type waiters []net.Conn

// begin is the beginning of a reload. Its outcome is for those who wait now:
// who comes later may have changed the configuration once more.
func (c *control) begin() waiters {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting
	c.waiting = nil
	return w
}

// finished tells how the reload went.
func (w waiters) finished(err error) {
	line := "ok\n"
	if err != nil {
		line = "error " + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
	}
	for _, conn := range w {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(line))
		_ = conn.Close()
	}
}

// errEnding is what a reload of a server that ends comes to.
var errEnding = errors.New("the server is shutting down")

func (c *control) close() {
	if c.listener != nil {
		_ = c.listener.Close()
	}
	c.begin().finished(errEnding)
}

// reloadAnswer is the sender's end; nil when the process has no control socket
// (a real nginx, another network namespace).
type reloadAnswer struct {
	conn   net.Conn
	reader *bufio.Reader
}

// awaitReload connects to the server with that pid before it is told to reload.
func awaitReload(pid int) *reloadAnswer {
	conn, err := net.Dial("unix", controlName(pid))
	if err != nil {
		return nil
	}
	a := &reloadAnswer{conn: conn, reader: bufio.NewReader(conn)}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, err := a.reader.ReadString('\n')
	if cred := peerOf(conn); err != nil || line != "ready\n" || cred == nil || int(cred.Pid) != pid {
		a.close()
		return nil
	}
	return a
}

// peerOf tells who is at the other end: a name can be taken by anybody.
func peerOf(conn net.Conn) *unix.Ucred {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	_ = raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred
}

// reloadError is why a server goes on with its old configuration.
type reloadError struct{ reason string }

func (e *reloadError) Error() string {
	return "the new configuration is not served, the old one still is: " + e.reason
}

// wait gives the outcome of the reload.
func (a *reloadAnswer) wait(limit time.Duration) error {
	if a == nil {
		return nil
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(limit))
	line, err := a.reader.ReadString('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server has not reloaded within %v", limit)
	case err != nil:
		return errors.New("the server ended before it had reloaded")
	}
	if text, failed := strings.CutPrefix(line, "error "); failed {
		return &reloadError{strings.TrimSpace(text)}
	}
	return nil
}

func (a *reloadAnswer) close() {
	if a != nil {
		_ = a.conn.Close()
	}
}
