package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echoing answers on a unix socket with what it gets.
func echoing(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// echoed sends a text on a connection and wants it back.
func echoed(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(text))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("%q came back as %q, %v", text, got, err)
	}
}

// awaitLog waits for a text in the error log.
func (r *running) awaitLog(text string) {
	r.t.Helper()
	var log []byte
	for range 1000 {
		if log, _ = os.ReadFile(filepath.Join(r.dir, "logs/error.log")); strings.Contains(string(log), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("no %q in the error log:\n%s", text, log)
}

const sessionConf = "events {} error_log logs/error.log info; worker_shutdown_timeout 50ms; stream { server { listen unix:%dir%/s; proxy_pass unix:%dir%/b; } }"

// TestSessionReload: a session goes on under the configuration that it began
// with, until the time for that is over.
func TestSessionReload(t *testing.T) {
	t.Parallel()
	r := run(t, strings.Replace(sessionConf, "50ms", "1h", 1))
	echoing(t, filepath.Join(r.dir, "b"))
	old := r.dial("s")
	echoed(t, old, "before")
	if s := r.Stats(); s != (Stats{Accepted: 1, Handled: 1, Active: 1}) {
		t.Errorf("a session counts as %+v", s)
	}
	if err := r.Reload(r.load("events {} error_log logs/error.log info; stream { server { listen unix:%dir%/s; return new; } }")); err != nil {
		t.Fatal(err)
	}
	fresh := r.dial("s")
	if got, err := io.ReadAll(fresh); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	echoed(t, old, "after")
	_ = old.Close()
	r.awaitLog("exited with code 0")
}

// TestSessionShutdown: worker_shutdown_timeout ends sessions.
func TestSessionShutdown(t *testing.T) {
	t.Parallel()
	r := run(t, sessionConf)
	echoing(t, filepath.Join(r.dir, "b"))
	c := r.dial("s")
	echoed(t, c, "hello")
	r.Shutdown(t.Context())
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the session goes on")
	}
	r.awaitLog("shutdown timeout while proxying connection, client: unix:, server: unix:" + r.dir + "/s, upstream: \"unix:" + r.dir + "/b\", bytes from/to client:5/5, bytes from/to upstream:5/5")
}

// TestAddressOfBothBlocks cannot be bound twice.
func TestAddressOfBothBlocks(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	err := r.Start(r.load("events {} http { server { listen unix:%dir%/s; } } stream { server { listen unix:%dir%/s; return x; } }"))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
}

// TestDatagramsInherited: the process that follows goes on with the sockets of
// UDP, and has what waited in them.
func TestDatagramsInherited(t *testing.T) {
	t.Parallel()
	free, err := net.ListenPacket("udp4", unusedAddress)
	if err != nil {
		t.Fatal(err)
	}
	at := free.LocalAddr()
	_ = free.Close()
	conf := "events {} stream { server { listen " + at.String() + " udp; return \"$remote_port of $server_port\"; } }"
	first := run(t, conf)
	client, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	ask := func() string {
		buf := make([]byte, 64)
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	_, _ = client.Write([]byte("x"))
	want := ask()
	fds, err := first.Sockets()
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	first.Pause()
	_, _ = client.Write([]byte("waits"))
	second := prepare(t)
	second.Inherit(fds, false)
	if err := second.Start(second.load(conf)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Stop)
	if got := ask(); got != want {
		t.Errorf("%q, before it was %q", got, want)
	}
}
