package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"proxyctl/proxy/sock"
)

// testServer serves h on loopback until the test ends.
func testServer(t testing.TB, cfg ConnConfig, h Handler) string {
	t.Helper()
	if cfg.Limits == (Limits{}) {
		cfg.Limits = testLimits
	}
	for _, d := range []*time.Duration{&cfg.HeadTimeout, &cfg.IdleTimeout, &cfg.BodyTimeout, &cfg.SendTimeout} {
		if *d == 0 {
			*d = 5 * time.Second
		}
	}
	s := sock.NewSweeper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); s.Stop() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := sock.New(nc, s)
			go NewConn(c, c, &cfg, h).Serve()
		}
	}()
	return l.Addr().String()
}

// echo answers with method, target and body.
func echo(c *Conn) {
	body, whole := c.Buffered()
	if !whole {
		var err error
		if body, err = io.ReadAll(readerFunc(c.ReadBody)); err != nil {
			c.KeepAlive = false
			c.Out = AppendStatusLine(c.Out, 400, "Bad Request")
			c.Out = append(c.Out, "\r\n"...)
			return
		}
	}
	if c.Err != nil {
		var p *ParseError
		errors.As(c.Err, &p)
		c.Out = append(AppendStatusLine(c.Out, p.Status, "Refused"), "\r\n"...)
		return
	}
	answer := append(append(append([]byte(nil), c.Req.Method...), ' '), c.Req.Target...)
	answer = append(append(answer, ' '), body...)
	c.Out = AppendStatusLine(c.Out, 200, "OK")
	c.Out = append(AppendInt(append(c.Out, "Content-Length: "...), int64(len(answer))), "\r\n\r\n"...)
	c.Out = append(c.Out, answer...)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// talk sends pieces with pauses and returns all that comes back until the
// server closes.
func talk(t *testing.T, address string, pieces ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		for i, p := range pieces {
			if i > 0 {
				time.Sleep(20 * time.Millisecond)
			}
			_, _ = c.Write(crlf(p))
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	out, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("reading: %v", err)
	}
	return string(out)
}

func bodies(answers string) string {
	var out []string
	r := bufio.NewReader(strings.NewReader(answers))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return strings.Join(out, "|")
		}
		length := 0
		for strings.TrimSpace(line) != "" {
			if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				for _, d := range strings.TrimSpace(v) {
					length = length*10 + int(d-'0')
				}
			}
			line, _ = r.ReadString('\n')
		}
		body := make([]byte, length)
		_, _ = io.ReadFull(r, body)
		out = append(out, string(body))
	}
}

func TestServe(t *testing.T) {
	address := testServer(t, ConnConfig{}, echo)
	const last = "GET /z HTTP/1.1\nHost: a\nConnection: close\n\n"
	for _, tt := range []struct {
		name   string
		pieces []string
		want   string
	}{
		{"one", []string{last}, "GET /z "},
		{"pipelined", []string{"GET /a HTTP/1.1\nHost: a\n\nGET /b HTTP/1.1\nHost: a\n\n" + last}, "GET /a |GET /b |GET /z "},
		{"in two pieces", []string{"GET /a HTTP/1.1\nHo", "st: a\n\n" + last}, "GET /a |GET /z "},
		{"with a body", []string{"POST /a HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello" + last}, "POST /a hello|GET /z "},
		{"body later", []string{"POST /a HTTP/1.1\nHost: a\nContent-Length: 10\n\nhello", "world" + last}, "POST /a helloworld|GET /z "},
		{"chunked", []string{"POST /a HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\nhel", "lo\n0\n\n" + last}, "POST /a hello|GET /z "},
		{"1.0 closes", []string{"GET /a HTTP/1.0\n\n"}, "GET /a "},
		{"1.0 keeps alive", []string{"GET /a HTTP/1.0\nConnection: keep-alive\n\n" + last}, "GET /a |GET /z "},
	} {
		if got := bodies(talk(t, address, tt.pieces...)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestByteAtATime(t *testing.T) {
	address := testServer(t, ConnConfig{}, echo)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetNoDelay(true)
	for _, b := range crlf("POST /a HTTP/1.1\nHost: a\nConnection: close\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n") {
		_, _ = c.Write([]byte{b})
		time.Sleep(100 * time.Microsecond)
	}
	out, _ := io.ReadAll(c)
	if got := bodies(string(out)); got != "POST /a hello" {
		t.Errorf("%q", got)
	}
}

func TestContinue(t *testing.T) {
	address := testServer(t, ConnConfig{}, echo)
	got := talk(t, address, "POST /a HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue\nConnection: close\n\n", "hello")
	if !strings.HasPrefix(got, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "POST /a hello") {
		t.Errorf("%q", got)
	}
}

func TestRefused(t *testing.T) {
	address := testServer(t, ConnConfig{LingerTime: time.Second, LingerTimeout: 100 * time.Millisecond}, echo)
	for head, want := range map[string]string{
		"get / HTTP/1.1\n\n":                                                                         "HTTP/1.1 400 ",
		"GET / HTTP/3.0\nHost: a\n\n":                                                                "HTTP/1.1 505 ",
		"GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\n\n":                                      "HTTP/1.1 414 ",
		"GET / HTTP/1.1\nX: " + strings.Repeat("a", 20<<10) + "\n\n":                                 "HTTP/1.1 494 ",
		"GET / HTTP/1.1\nHost: a\n" + strings.Repeat("X: "+strings.Repeat("a", 7000)+"\n", 8) + "\n": "HTTP/1.1 494 ",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nx\n":                                "HTTP/1.1 400 ",
	} {
		if got := talk(t, address, head); !strings.HasPrefix(got, want) || strings.Count(got, "HTTP/1.1") != 1 {
			t.Errorf("%.60q: %q", head, got)
		}
	}
}

// TestUnreadBody: a handler that ignores the body must not make it the next
// request, and its answer must arrive although input was left unread.
func TestUnreadBody(t *testing.T) {
	ignore := func(c *Conn) {
		c.Out = append(AppendStatusLine(c.Out, 200, "OK"), "Content-Length: 1\r\n\r\n."...)
	}
	address := testServer(t, ConnConfig{LingerTime: time.Second, LingerTimeout: 200 * time.Millisecond}, ignore)
	const next = "GET /z HTTP/1.1\nHost: a\nConnection: close\n\n"
	if got := bodies(talk(t, address, "POST / HTTP/1.1\nHost: a\nContent-Length: 30\n\nGET /smuggled ", "HTTP/1.1\nHost: a\n"[:14]+next)); got != ".|." {
		t.Errorf("kept: %q", got)
	}
	huge := strings.Repeat("x", 1<<20)
	if got := bodies(talk(t, address, "POST / HTTP/1.1\nHost: a\nContent-Length: 10000000\n\n"+huge)); got != "." {
		t.Errorf("closed: %q", got)
	}
}

func TestTimeouts(t *testing.T) {
	address := testServer(t, ConnConfig{HeadTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond, BodyTimeout: 200 * time.Millisecond}, echo)
	for name, input := range map[string]string{
		"nothing":     "",
		"half a head": "GET / HTTP/1.1\nHo",
		"idle":        "GET / HTTP/1.1\nHost: a\n\n",
		"half a body": "POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhel",
	} {
		began := time.Now()
		talk(t, address, input)
		if d := time.Since(began); d < 190*time.Millisecond || d > 2*time.Second {
			t.Errorf("%s: ended after %v", name, d)
		}
	}
}

func TestWatch(t *testing.T) {
	gone := make(chan bool, 1)
	address := testServer(t, ConnConfig{}, func(c *Conn) {
		left := make(chan bool)
		c.Watch(func() { close(left) })
		select {
		case <-left:
			gone <- true
		case <-time.After(3 * time.Second):
			gone <- false
		}
		c.Unwatch()
		c.KeepAlive = false
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(crlf("GET / HTTP/1.1\nHost: a\n\n"))
	time.Sleep(50 * time.Millisecond)
	_ = c.Close()
	if !<-gone {
		t.Error("the handler was not told")
	}
}

func TestShutdown(t *testing.T) {
	var conn atomic.Pointer[Conn]
	address := testServer(t, ConnConfig{}, func(c *Conn) {
		conn.Store(c)
		echo(c)
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(crlf("GET / HTTP/1.1\nHost: a\n\n"))
	buf := make([]byte, 1024)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	conn.Load().Shutdown()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Read(buf); err != io.EOF {
		t.Errorf("idle connection: %v", err)
	}
}

// TestServeAllocates: a request on a kept connection costs no memory.
func TestServeAllocates(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.")
	address := testServer(t, ConnConfig{}, func(c *Conn) { c.Out = append(c.Out, answer...) })
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request, buf := crlf("GET / HTTP/1.1\nHost: a\n\n"), make([]byte, 1024)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations a request", n)
	}
}

// upstreamConn connects to a server that answers with pieces and closes.
func upstreamConn(t *testing.T, pieces ...string) *ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 1024)
		_, _ = c.Read(buf)
		for _, p := range pieces {
			_, _ = c.Write(crlf(p))
			time.Sleep(10 * time.Millisecond)
		}
		_ = c.Close()
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := sock.NewSweeper()
	t.Cleanup(s.Stop)
	c := sock.New(nc, s)
	u := NewClientConn(c, c)
	u.SetTimeouts(time.Second, time.Second)
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func TestClientConn(t *testing.T) {
	for _, tt := range []struct {
		name     string
		pieces   []string
		body     string
		head     error // of ReadResponse
		rest     error // of the body
		reusable bool
	}{
		{"length", []string{"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"}, "hello", nil, nil, true},
		{"in pieces", []string{"HTTP/1.1 20", "0 OK\nContent-Length: 5\n\nhe", "llo"}, "hello", nil, nil, true},
		{"chunked", []string{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhel", "lo\n0\n\n"}, "hello", nil, nil, true},
		{"until the end", []string{"HTTP/1.1 200 OK\n\nhel", "lo"}, "hello", nil, nil, false},
		{"1.0", []string{"HTTP/1.0 200 OK\nContent-Length: 5\n\nhello"}, "hello", nil, nil, false},
		{"close", []string{"HTTP/1.1 200 OK\nConnection: close\nContent-Length: 5\n\nhello"}, "hello", nil, nil, false},
		{"interim", []string{"HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: a\n\n", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"}, "hello", nil, nil, true},
		{"more than promised", []string{"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello!"}, "hello", nil, nil, false},
		{"no body", []string{"HTTP/1.1 204 No Content\n\n"}, "", nil, nil, true},
		{"cut length", []string{"HTTP/1.1 200 OK\nContent-Length: 10\n\nhello"}, "hello", nil, io.ErrUnexpectedEOF, false},
		{"cut chunk", []string{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhel"}, "hel", nil, io.ErrUnexpectedEOF, false},
		{"no last chunk", []string{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n"}, "hello", nil, io.ErrUnexpectedEOF, false},
		{"bad chunk", []string{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nx\n"}, "", nil, ErrChunk, false},
		{"nothing", nil, "", io.EOF, nil, false},
		{"half a head", []string{"HTTP/1.1 200 OK\nConte"}, "", io.EOF, nil, false},
	} {
		u := upstreamConn(t, tt.pieces...)
		u.Begin()
		var r Response
		err := u.ReadResponse(crlf("GET / HTTP/1.1\n\n"), &r, &testLimits, false, nil)
		if !errors.Is(err, tt.head) || tt.head != nil != (err != nil) {
			t.Errorf("%s: head %v", tt.name, err)
		}
		if err != nil {
			continue
		}
		var body bytes.Buffer
		_, err = io.Copy(&body, readerFunc(u.ReadBody))
		if !errors.Is(err, tt.rest) || body.String() != tt.body || u.Reusable() != tt.reusable {
			t.Errorf("%s: %q %v, reusable %v", tt.name, body.String(), err, u.Reusable())
		}
	}
}

func TestClientConnTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := sock.NewSweeper()
	defer s.Stop()
	c := sock.New(nc, s)
	u := NewClientConn(c, c)
	defer u.Close()
	u.SetTimeouts(200*time.Millisecond, time.Second)
	u.Begin()
	var r Response
	began := time.Now()
	err = u.ReadResponse(crlf("GET / HTTP/1.1\n\n"), &r, &testLimits, false, nil)
	var failed *Error
	if !errors.As(err, &failed) || failed.Op != "head" || !failed.Fresh {
		t.Errorf("%v", err)
	}
	if d := time.Since(began); d < 190*time.Millisecond || d > 2*time.Second {
		t.Errorf("after %v", d)
	}
}

func BenchmarkServe(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.")
	address := testServer(b, ConnConfig{}, func(c *Conn) { c.Out = append(c.Out, answer...) })
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request, buf := crlf("GET / HTTP/1.1\nHost: a\n\n"), make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Write(request)
		_, _ = c.Read(buf)
	}
}
