package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShutdownServesNewConnections: a connection that has just come in is not
// idle: its first request is answered, and says that it is the last.
func TestShutdownServesNewConnections(t *testing.T) {
	r := run(t, site("location / { return 200 ok; }"))
	c := r.dial("s")
	defer c.Close()
	r.awaitActive(1)
	ended := make(chan struct{})
	go func() {
		r.Shutdown(context.Background())
		close(ended)
	}()
	for !r.closing.Load() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), "\r\nConnection: close\r\n") || !strings.HasSuffix(string(got), "ok") {
		t.Errorf("answer %q, %v", got, err)
	}
	<-ended
}

// awaitActive waits until so many connections have been accepted.
func (r *running) awaitActive(n int64) {
	r.t.Helper()
	r.awaitStats(fmt.Sprintf("%d active connections", n), func(s Stats) bool { return s.Active == n })
}

// awaitStats waits until the numbers of connections are as wanted.
func (r *running) awaitStats(want string, as func(Stats) bool) {
	r.t.Helper()
	for range 1000 {
		if as(r.Stats()) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("%+v, want %s", r.Stats(), want)
}

// TestShutdownSaysClose: a request that was in flight when the server was told
// to end is answered with "Connection: close".
func TestShutdownSaysClose(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	r := run(t, site("location / { proxy_pass http://"+backend+"; }"))
	c := r.dial("s")
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-arrived
	go r.Shutdown(context.Background())
	for !r.closing.Load() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	close(answer)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(got), "\r\nConnection: close\r\n") {
		t.Errorf("answer %q, %v", got, err)
	}
}

// TestPause: while nobody accepts, connections wait; what is served in between
// ends as in a shutdown.
func TestPause(t *testing.T) {
	r := run(t, "error_log logs/e.log notice; worker_shutdown_timeout 30ms; "+site("location / { return 200 ok; }"))
	idle := r.dial("s")
	defer idle.Close()
	_, _ = io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	in := bufio.NewReader(idle)
	if _, err := in.ReadString('k'); err != nil { // "200 OK" comes before "ok"
		t.Fatal(err)
	}
	silent := r.dial("s")
	defer silent.Close()
	r.awaitActive(2)
	for range 3 { // once is enough
		r.Pause()
	}
	for _, c := range []net.Conn{idle, silent} {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("a connection of before: %v", err)
		}
	}
	r.await("logs/e.log", "exited with code 0")
	waiting := r.dial("s")
	defer waiting.Close()
	_, _ = io.WriteString(waiting, "GET / HTTP/1.0\r\n\r\n")
	_ = waiting.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := waiting.Read(make([]byte, 1)); err == nil {
		t.Error("somebody accepts")
	}
	r.Resume()
	_ = waiting.SetReadDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(waiting); err != nil || !strings.HasSuffix(string(got), "ok") {
		t.Errorf("the connection that waited: %q, %v", got, err)
	}
	time.Sleep(50 * time.Millisecond) // the limit of before does not count
	if got := r.get("s", "/"); !strings.HasSuffix(got, "ok") {
		t.Errorf("afterwards: %q", got)
	}
	r.Pause()
	if err := r.Reload(r.load(site("location / { return 200 new; }"))); err != nil {
		t.Fatal(err)
	}
	if got := r.get("s", "/"); !strings.HasSuffix(got, "new") {
		t.Errorf("after a reload: %q", got)
	}
}

// TestInheritedSockets: options of the configuration count for sockets that
// another process has opened, and what it does not name is closed.
func TestInheritedSockets(t *testing.T) {
	r := prepare(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	gone, err := net.Listen("unix", filepath.Join(r.dir, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	gone.(*net.UnixListener).SetUnlinkOnClose(false)
	var fds []int
	for _, l := range []net.Listener{tcp, gone} {
		fd, err := duplicate(l.(syscall.Conn))
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	r.Inherit(append(fds, 1<<20), false)
	conf := "error_log logs/e.log notice; events {} http { server { listen " + tcp.Addr().String() + " so_keepalive=77s::3; location / { return 200 ok; } } }"
	if err := r.Start(r.load(conf)); err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	res, err := http.Get("http://" + tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if _, err := os.Stat(filepath.Join(r.dir, "gone")); err == nil {
		t.Error("the file of a socket that is not named is left")
	}
	r.await("logs/e.log", "[warn] ")
	if s := r.read("logs/e.log"); !strings.Contains(s, "deleting socket "+r.dir+"/gone\n") {
		t.Error(s)
	}
	for _, conn := range []struct {
		conf           string
		on, idle, many int
	}{{conf, 1, 77, 3}, {strings.Replace(conf, " so_keepalive=77s::3", "", 1), 0, 0, 0}} {
		if err := r.Reload(r.load(conn.conf)); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		served := r.accepted(c)
		if got := option(t, served, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != conn.on {
			t.Errorf("SO_KEEPALIVE %d, want %d", got, conn.on)
		}
		if conn.on == 0 {
			continue
		}
		if idle, many := option(t, served, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(t, served, unix.IPPROTO_TCP, unix.TCP_KEEPCNT); idle != conn.idle || many != conn.many {
			t.Errorf("keep-alive after %d s, %d probes, want %d, %d", idle, many, conn.idle, conn.many)
		}
	}
}

// accepted finds the server's end of a connection.
func (r *running) accepted(c net.Conn) *net.TCPConn {
	r.t.Helper()
	for range 200 {
		var found *net.TCPConn
		r.clients.each(func(k *client) {
			if k.conn.RemoteAddr().String() == c.LocalAddr().String() {
				found = k.conn.(*net.TCPConn)
			}
		})
		if found != nil {
			return found
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatal("the connection is not accepted")
	return nil
}

func option(t *testing.T, c *net.TCPConn, level, name int) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), level, name) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}
