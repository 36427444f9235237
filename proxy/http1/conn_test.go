package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"proxyctl/proxy/sock"
)

func testConfig() *ConnConfig {
	return &ConnConfig{
		Limits: testLimits, HeadTimeout: 5 * time.Second, Timeouts: Timeouts{
			IdleTimeout: 5 * time.Second, BodyTimeout: 5 * time.Second, SendTimeout: 5 * time.Second,
			Linger: LingerForInput, LingerTime: 2 * time.Second, LingerTimeout: time.Second,
		},
	}
}

// server answers on loopback.
type server struct {
	address string
	sweeper *sock.Sweeper
	mu      sync.Mutex
	conns   []*Conn
	done    sync.WaitGroup
}

// serve starts a server. plain hides the sockets, so that the way over TLS is
// taken.
func serve(t testing.TB, cfg *ConnConfig, plain bool, h Handler) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: l.Addr().String(), sweeper: sock.NewSweeper()}
	s.done.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			sc := sock.New(nc, s.sweeper)
			over := net.Conn(sc)
			if plain {
				over = &wrapped{sc}
			}
			c := NewConn(over, sc, cfg, h)
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.done.Go(c.Serve)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Abort()
		}
		s.mu.Unlock()
		s.done.Wait()
		s.sweeper.Stop()
	})
	return s
}

// wrapped is a transport over a socket, as crypto/tls is.
type wrapped struct{ *sock.Conn }

func dial(t testing.TB, s *server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(8 * time.Second))
	return c.(*net.TCPConn)
}

// ways runs a test over a socket and over a wrapped one.
func ways(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("socket", func(t *testing.T) { f(t, false) })
	t.Run("wrapped", func(t *testing.T) { f(t, true) })
}

// tell answers with what was asked: "METHOD target body".
func tell(c *Conn) {
	if c.Err != nil {
		c.Out = fmt.Appendf(c.Out, "HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n%v", c.Err)
		return
	}
	var body []byte
	if b, ok := c.Buffered(); ok {
		body = b
	} else {
		p := make([]byte, 1000)
		for {
			n, err := c.ReadBody(p)
			body = append(body, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				body = fmt.Appendf(body, " (%v)", err)
				c.KeepAlive = false
				break
			}
		}
	}
	text := fmt.Appendf(nil, "%s %s %s", c.Req.Method, c.Req.Target, body)
	c.Out = AppendStatusLine(c.Out, 200, "OK")
	c.Out = append(AppendInt(append(c.Out, "Content-Length: "...), int64(len(text))), "\r\n\r\n"...)
	c.Out = append(c.Out, text...)
}

// ask sends text and returns all that comes back.
func ask(t *testing.T, s *server, text string) string {
	t.Helper()
	c := dial(t, s)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func answer(text string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
}

func TestServe(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70000)
	tests := []struct{ name, in, want string }{
		{"one", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", answer("GET /a ")},
		{"pipelined", "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /c HTTP/1.0\r\n\r\n", answer("GET /a ") + answer("GET /b ") + answer("GET /c ")},
		{"close ends it", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", answer("GET /a ")},
		{"1.0 ends it", "GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", answer("GET /a ")},
		{"1.0 kept", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("GET /a ") + answer("GET /b ")},
		{"body", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.0\r\n\r\n", answer("POST /a hello") + answer("GET /b ")},
		{"long body", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + long + "GET /b HTTP/1.0\r\n\r\n", answer("POST /a "+long) + answer("GET /b ")},
		{"chunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("POST /a hello!") + answer("GET /b ")},
		{"long chunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + long + "\r\n0\r\nA: b\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("POST /a "+long) + answer("GET /b ")},
		{"large head", "POST /a HTTP/1.1\r\nHost: x\r\nA: " + long[:8000] + "\r\nB: " + long[:7700] + "\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + long + "\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("POST /a "+long) + answer("GET /b ")},
		{"larger head", "GET /a HTTP/1.1\r\nHost: x\r\nA: " + long[:8000] + "\r\nB: " + long[:8000] + "\r\nC: " + long[:8000] + "\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("GET /a ") + answer("GET /b ")},
		{"refused", "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.0\r\n\r\n", "HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\nclient sent HTTP/1.1 request without \"Host\" header"},
		{"bad chunk", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\n", answer("POST /a hello (invalid chunked body)")},
		{"cut short", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhello", answer("POST /a hello (unexpected EOF)")},
		{"head cut short", "GET /a HTTP/1.1\r\nHost", ""},
		{"nothing", "", ""},
		{"expect", "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", answer("POST /a hi")},
	}
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, tell)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if got := ask(t, s, tt.in); got != tt.want {
					t.Errorf("got %.300q\nwant %.300q", got, tt.want)
				}
			})
		}
	})
}

func TestServeByteAtATime(t *testing.T) {
	t.Parallel()
	in := "\r\nPOST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\n"
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, tell)
		c := dial(t, s)
		_ = c.SetNoDelay(true)
		for i := range len(in) {
			if _, err := io.WriteString(c, in[i:i+1]); err != nil {
				t.Fatal(err)
			}
			if i%4 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		b, err := io.ReadAll(c)
		if want := answer("POST /a hello") + answer("GET /b "); string(b) != want || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}

// TestEndNoticed: a client that sends a request and ends its direction gets the
// answer and then the end, although both arrive together.
func TestEndNoticed(t *testing.T) {
	s := serve(t, testConfig(), false, tell)
	began := time.Now()
	ask(t, s, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the end was noticed after %v", d)
	}
}

func TestContinue(t *testing.T) {
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, tell)
		c := dial(t, s)
		_, _ = io.WriteString(c, "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
		want := "HTTP/1.1 100 Continue\r\n\r\n"
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v", b, err)
		}
		_, _ = io.WriteString(c, "hiGET /b HTTP/1.0\r\n\r\n")
		rest, err := io.ReadAll(c)
		if want := answer("POST /a hi") + answer("GET /b "); string(rest) != want || err != nil {
			t.Errorf("got %q, %v", rest, err)
		}
	})
}

// TestSkipBody: a body that nobody reads is passed over, or the connection ends
// without losing the answer.
func TestSkipBody(t *testing.T) {
	t.Parallel()
	ignore := func(c *Conn) { c.Out = append(c.Out, answer(string(c.Req.Target))...) }
	next := "GET /b HTTP/1.0\r\n\r\n"
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, ignore)
		for _, tt := range []struct {
			name, in string
			both     bool
		}{
			{"there", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + next, true},
			{"long", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000) + next, true},
			{"chunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("5\r\nhello\r\n", 5000) + "0\r\n\r\n" + next, true},
			{"too long", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3000000) + next, false},
			{"too many chunks", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("5\r\nhello\r\n", 200000) + "0\r\n\r\n" + next, false},
			{"expected", "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", false},
		} {
			want := answer("/a")
			if tt.both {
				want += answer("/b")
			}
			if got := ask(t, s, tt.in); got != want {
				t.Errorf("%s: got %q", tt.name, got)
			}
		}
	})
}

// TestBrokenBody: after a mistake in a body nothing that follows is taken for a
// request, even if the handler looks away.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, func(c *Conn) {
			p := make([]byte, 100)
			for range 5 {
				_, _ = c.ReadBody(p)
			}
			c.Out = append(c.Out, answer(string(c.Req.Target))...)
		})
		for _, body := range []string{
			"5\r\nhello!\r\n0\r\n\r\n", "0\r\nX\n\r\n", "x\r\n\r\n", "1;\n\r\n", "00000000000000000001\nx\r\n0\r\n\r\n",
		} {
			in := "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + strings.Repeat("0\r\n\r\n", 3) + "GET /b HTTP/1.0\r\n\r\n"
			if got := ask(t, s, in); got != answer("/a") {
				t.Errorf("%q: got %q", body, got)
			}
		}
	})
}

func TestHeadTimeout(t *testing.T) {
	t.Parallel()
	var reason atomic.Value
	cfg := testConfig()
	cfg.HeadTimeout = 300 * time.Millisecond
	ways(t, func(t *testing.T, plain bool) {
		reason.Store(error(&ParseError{}))
		s := serve(t, cfg, plain, func(c *Conn) {
			reason.Store(c.Err)
			tell(c)
		})
		c := dial(t, s)
		began := time.Now()
		var sent atomic.Bool
		go func() { // a byte now and then does not help
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 100)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(30 * time.Millisecond)
			}
			sent.Store(true)
		}()
		b, _ := io.ReadAll(c)
		d := time.Since(began)
		if len(b) > 0 || d < cfg.HeadTimeout || d > 2*time.Second || sent.Load() {
			t.Errorf("got %q after %v", b, d)
		}
		var bad *ParseError
		if err := reason.Load().(error); !errors.As(err, &bad) || bad.Status != 408 {
			t.Errorf("handler saw %v", err)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.IdleTimeout = 300 * time.Millisecond
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, cfg, plain, tell)
		c := dial(t, s)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		began := time.Now()
		b, err := io.ReadAll(c)
		if d := time.Since(began); err != nil || string(b) != answer("GET / ") || d < cfg.IdleTimeout || d > 2*time.Second {
			t.Errorf("got %q, %v after %v", b, err, d)
		}
	})
}

func TestBodyTimeout(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.BodyTimeout = 200 * time.Millisecond
	ways(t, func(t *testing.T, plain bool) {
		failed := make(chan error, 1)
		s := serve(t, cfg, plain, func(c *Conn) {
			_, err := c.ReadBody(make([]byte, 100))
			failed <- err
			c.KeepAlive = false
			c.Out = append(c.Out, answer("still")...)
		})
		c := dial(t, s)
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
		b, _ := io.ReadAll(c)
		var bad *BodyError
		if err := <-failed; !errors.As(err, &bad) || bad.Status != 408 {
			t.Errorf("got %v", err)
		}
		if string(b) != answer("still") {
			t.Errorf("got %q", b)
		}
	})
}

func TestSendTimeout(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.SendTimeout = 200 * time.Millisecond
	ways(t, func(t *testing.T, plain bool) {
		failed := make(chan error, 1)
		s := serve(t, cfg, plain, func(c *Conn) {
			err := error(nil)
			for p := make([]byte, 1<<20); err == nil; {
				err = c.WriteThrough(p)
			}
			failed <- err
		})
		c := dial(t, s)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		select {
		case err := <-failed:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("still sending")
		}
	})
}

// TestSlowReader: a client that reads slowly but steadily gets everything,
// however long the whole takes.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.SendTimeout = 500 * time.Millisecond
	const size = 12 << 20
	s := serve(t, cfg, false, func(c *Conn) {
		c.KeepAlive = false
		c.Out = append(c.Out, "HTTP/1.1 200 OK\r\n\r\n"...)
		_ = c.WriteThrough(bytes.Repeat([]byte("x"), size))
	})
	c := dial(t, s)
	_ = c.SetReadBuffer(64 << 10)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	total := 0
	p := make([]byte, 1<<20)
	for {
		n, err := c.Read(p)
		total += n
		if err != nil {
			break
		}
		if total < 4<<20 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if total < size {
		t.Errorf("got %d bytes", total)
	}
}

// TestLinger: an answer to a request whose body still comes is not lost to a
// reset.
func TestLinger(t *testing.T) {
	t.Parallel()
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, func(c *Conn) {
			c.KeepAlive = false
			c.Out = append(c.Out, answer("no")...)
		})
		for range 5 {
			c := dial(t, s)
			go func() {
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
				p := make([]byte, 100<<10)
				for range 20 {
					_, _ = c.Write(p)
					time.Sleep(time.Millisecond)
				}
				_ = c.CloseWrite()
			}()
			time.Sleep(10 * time.Millisecond)
			if b, err := io.ReadAll(c); string(b) != answer("no") || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
		}
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	ways(t, func(t *testing.T, plain bool) {
		gone := make(chan bool, 1)
		s := serve(t, testConfig(), plain, func(c *Conn) {
			left := make(chan struct{})
			c.Watch(func() { close(left) })
			defer c.Unwatch()
			select {
			case <-left:
				gone <- true
			case <-time.After(3 * time.Second):
				gone <- false
			}
		})
		c := dial(t, s)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\n")
		time.Sleep(20 * time.Millisecond)
		_ = c.Close()
		if !<-gone {
			t.Error("nobody told")
		}
	})
}

func TestHijack(t *testing.T) {
	ways(t, func(t *testing.T, plain bool) {
		for _, head := range []string{
			"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
			"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\n\r\n",
			"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			s := serve(t, testConfig(), plain, func(c *Conn) {
				c.Out = append(c.Out, "HTTP/1.1 101 Switching Protocols\r\n\r\n"...)
				_ = c.Flush()
				nc, rest := c.Hijack()
				_, _ = nc.Write(rest)
				_, _ = io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc})
				_ = nc.Close()
			})
			c := dial(t, s)
			_, _ = io.WriteString(c, head+"early ")
			time.Sleep(10 * time.Millisecond)
			_, _ = io.WriteString(c, "late")
			_ = c.CloseWrite()
			b, err := io.ReadAll(c)
			if want := "HTTP/1.1 101 Switching Protocols\r\n\r\nearly late"; string(b) != want || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
		}
	})
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	ways(t, func(t *testing.T, plain bool) {
		proceed := make(chan struct{})
		s := serve(t, testConfig(), plain, func(c *Conn) {
			if string(c.Req.Target) == "/wait" {
				<-proceed
			}
			tell(c)
		})
		idle, busy := dial(t, s), dial(t, s)
		for _, c := range []net.Conn{idle, busy} {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := io.ReadFull(c, make([]byte, len(answer("GET / ")))); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = io.WriteString(busy, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
		time.Sleep(50 * time.Millisecond)
		s.mu.Lock()
		for _, c := range s.conns {
			c.Shutdown()
		}
		s.mu.Unlock()
		if b, err := io.ReadAll(idle); len(b) > 0 || err != nil {
			t.Errorf("idle: %q, %v", b, err)
		}
		close(proceed)
		if b, err := io.ReadAll(busy); string(b) != answer("GET /wait ") || err != nil {
			t.Errorf("busy: %q, %v", b, err)
		}
	})
}

func TestSendFile(t *testing.T) {
	name := t.TempDir() + "/f"
	text := strings.Repeat("0123456789", 300000)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ways(t, func(t *testing.T, plain bool) {
		s := serve(t, testConfig(), plain, func(c *Conn) {
			c.KeepAlive = false
			c.Out = append(c.Out, "head "...)
			n, err := c.SendFile(f, 5, int64(len(text)-5))
			if n != int64(len(text)-5) || err != nil {
				t.Errorf("sent %d, %v", n, err)
			}
			if n, err := c.SendFile(f, int64(len(text)-3), 9); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("behind the end: %d, %v", n, err)
			}
		})
		want := "head " + text[5:] + text[len(text)-3:]
		if got := ask(t, s, "GET / HTTP/1.0\r\n\r\n"); got != want {
			t.Errorf("got %d bytes, want %d", len(got), len(want))
		}
	})
}

// TestServeAllocs: a request on a connection that exists allocates nothing.
func TestServeAllocs(t *testing.T) {
	out := []byte(answer("hello"))
	s := serve(t, testConfig(), false, func(c *Conn) { c.Out = append(c.Out, out...) })
	c := dial(t, s)
	req := []byte("GET /index.html?x=y HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n")
	buf := make([]byte, len(out))
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Write(req); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 && !racing {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkServe(b *testing.B) {
	out := []byte(answer("hello"))
	s := serve(b, testConfig(), false, func(c *Conn) { c.Out = append(c.Out, out...) })
	c := dial(b, s)
	_ = c.SetDeadline(time.Time{})
	req := []byte("GET /index.html?x=y HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test/1.0\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n")
	buf := make([]byte, len(out))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}
