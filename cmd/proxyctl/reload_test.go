package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyReloads changes between configurations 200 times under load: no
// request fails, a WebSocket and a download that began under the first
// configuration go on, and neither memory nor descriptors grow.
func TestManyReloads(t *testing.T) {
	times := 200
	if testing.Short() {
		times = 40
	}
	app := newStreamingApp(t)
	conf := func(n int) string { return reloadConf(n, app.address) }
	d := startDaemon(t, "ours", conf(0))
	d.ask("/app")
	pid := d.pid("")
	idle := usageOf(t, pid).descriptors
	ws := dialWebSocket(t, d)
	file := startDownload(t, d)
	l := startLoad(d, "/", "/app")
	began := 0
	for n := 1; n <= times; n++ {
		d.configure(conf(n))
		if err := sendSignal(filepath.Join(d.dir, "logs/nginx.pid"), "reload"); err != nil {
			t.Fatal(err)
		}
		if got := d.ask("/generation"); got != strconv.Itoa(n) {
			t.Fatalf("after the reload to generation %d: %q", n, got)
		}
		ws.echo("generation " + strconv.Itoa(n))
		if n == times/4 {
			began = usageOf(t, pid).kilobytes
		}
	}
	l.check(t)
	close(app.end)
	file.check()
	ws.close()
	d.await("old generations end", func() bool { return d.logged("exited with code 0") == times })
	const kept = 8 // connections to the application
	d.await("descriptors are given back", func() bool { return usageOf(t, pid).descriptors <= idle+kept })
	ended := usageOf(t, pid).kilobytes
	t.Logf("%d kB after %d reloads, %d kB at the end", began, times/4, ended)
	if ended > began*5/4+8<<10 {
		t.Errorf("memory has grown from %d kB after %d reloads to %d kB at the end", began, times/4, ended)
	}
	if d.pid("") != pid {
		t.Error("another process")
	}
}

// reloadConf is one of four kinds of configuration: listeners, logs, upstreams
// and variables come and go.
func reloadConf(n int, app string) string {
	extra := [...]string{
		"server { listen unix:%dir%/a; }",
		"access_log logs/access.log combined buffer=8k; server { listen unix:%dir%/b; access_log logs/$host.log; }",
		`map $uri $m { default 1; ~^/x(?<y>.*) $y; } server { listen unix:%dir%/a; location ~ ^/(.*)$ { return 200 $m; } }`,
		"upstream more { server " + app + " weight=2; keepalive 4; } server { listen unix:%dir%/c; location / { proxy_pass http://more; } }",
	}[n%4]
	return `worker_processes 2; events {} http { access_log off; upstream app { server ` + app + `; keepalive 8; }
	server { listen 127.0.0.1:%port%; listen 127.0.0.1:%shared% reuseport; listen unix:%dir%/s;
		location / { return 200 answer; }
		location = /generation { return 200 ` + strconv.Itoa(n) + `; }
		location /app { proxy_pass http://app; }
		location /ws { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }
	` + extra + ` }`
}

// usage is what a process holds.
type usage struct{ descriptors, kilobytes int }

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	var u usage
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		// Pipes are kept for splice(2).
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); !strings.HasPrefix(to, "pipe:") {
			u.descriptors++
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.kilobytes, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	return u
}

// streamingApp answers /app at once, /app/long until end is closed, and echoes
// what comes over /ws.
type streamingApp struct {
	address string
	end     chan struct{}
	sent    atomic.Int64 // bytes of the long answer
}

func newStreamingApp(t *testing.T) *streamingApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &streamingApp{address: l.Addr().String(), end: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/app", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") })
	mux.HandleFunc("/app/long", a.long)
	mux.HandleFunc("/ws", func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
		_, _ = io.Copy(c, rw)
	})
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return a
}

func (a *streamingApp) long(w http.ResponseWriter, _ *http.Request) {
	out := http.NewResponseController(w)
	for {
		n, err := fmt.Fprintf(w, "%1023d\n", a.sent.Load())
		if err != nil || out.Flush() != nil {
			return
		}
		a.sent.Add(int64(n))
		select {
		case <-a.end:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// webSocket is a connection that has been upgraded.
type webSocket struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader
}

func dialWebSocket(t *testing.T, d *daemonServer) *webSocket {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+d.port)
	if err != nil {
		t.Fatal(err)
	}
	w := &webSocket{t, c, bufio.NewReader(c)}
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
	if head, _, err := readMessage(w.in); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("upgrade: %q %v", head, err)
	}
	return w
}

// echo sends a line, which must come back.
func (w *webSocket) echo(text string) {
	w.t.Helper()
	_ = w.c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(w.c, text+"\n")
	if got, err := w.in.ReadString('\n'); err != nil || got != text+"\n" {
		w.t.Fatalf("the WebSocket gave %q, %v", got, err)
	}
}

func (w *webSocket) close() { _ = w.c.Close() }

// download is a long answer on its way.
type download struct {
	t      *testing.T
	result chan error
}

func startDownload(t *testing.T, d *daemonServer) *download {
	t.Helper()
	l := &download{t, make(chan error, 1)}
	c, err := net.Dial("tcp", "127.0.0.1:"+d.port)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /app/long HTTP/1.0\r\n\r\n")
	lines := bufio.NewReader(c)
	if head, _, err := readMessage(lines); err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		t.Fatalf("download: %q %v", head, err)
	}
	go func() {
		defer c.Close()
		next := 0
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF && line == "" && next > 0 {
				l.result <- nil
				return
			}
			if n, _ := strconv.Atoi(strings.TrimSpace(line)); err != nil || n != next {
				l.result <- fmt.Errorf("after %d bytes: %w", next, err)
				return
			}
			next += len(line)
		}
	}()
	return l
}

// check waits for the end of the answer, which must be whole.
func (l *download) check() {
	l.t.Helper()
	select {
	case err := <-l.result:
		if err != nil {
			l.t.Errorf("the download: %v", err)
		}
	case <-time.After(5 * time.Second):
		l.t.Error("the download does not end")
	}
}
