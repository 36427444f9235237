package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"proxyctl/proxy/sock"
)

// upstream listens on loopback and gives each connection to h.
func upstream(t testing.TB, plain bool, h func(c net.Conn)) *ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(8 * time.Second))
		h(c)
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sweeper := sock.NewSweeper()
	s := sock.New(nc, sweeper)
	over := net.Conn(s)
	if plain {
		over = &wrapped{s}
	}
	c := NewClientConn(over, s)
	c.SetTimeouts(5*time.Second, 5*time.Second)
	t.Cleanup(func() {
		_ = c.Close()
		_ = l.Close()
		<-done
		sweeper.Stop()
	})
	return c
}

// readHead reads up to an empty line.
func readHead(r *bufio.Reader) (string, error) {
	head := ""
	for {
		line, err := r.ReadString('\n')
		head += line
		if err != nil || line == "\r\n" {
			return head, err
		}
	}
}

const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// says answers one request with text, in pieces, and closes or waits.
func says(text string, pieces int, closes bool) func(c net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := readHead(r); err != nil {
			return
		}
		size := max(len(text)/pieces, 1)
		for at := 0; at < len(text); at += size {
			if _, err := io.WriteString(c, text[at:min(at+size, len(text))]); err != nil {
				return
			}
			if pieces > 1 {
				time.Sleep(time.Millisecond)
			}
		}
		if !closes {
			_, _ = r.ReadByte()
		}
	}
}

// readAll reads a body in one of the ways.
func readAll(c *ClientConn, next bool) ([]byte, error) {
	var body []byte
	p := make([]byte, 6000)
	for {
		var b []byte
		var err error
		if next {
			b, err = c.Next()
		} else {
			var n int
			n, err = c.ReadBody(p)
			b = p[:n]
		}
		body = append(body, b...)
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
}

func TestClientConn(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 10000)
	for _, tt := range []struct {
		name, answer string
		status       int
		body         string
		head         bool
		closes       bool
		kept         bool
		err          error // of the body
	}{
		{name: "length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", kept: true},
		{name: "long", answer: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + long, status: 200, body: long, kept: true},
		{name: "large head", answer: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nA: " + long[:7000] + "\r\nB: " + long[:7000] + "\r\n\r\n" + long, status: 200, body: long, kept: true},
		{name: "larger head", answer: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nA: " + long[:8000] + "\r\nB: " + long[:8000] + "\r\nC: " + long[:8000] + "\r\n\r\n" + long, status: 200, body: long, kept: true},
		{name: "chunked", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n186a0\r\n" + long + "\r\n0\r\nX: y\r\n\r\n", status: 200, body: "hello" + long, kept: true},
		{name: "chunked in 1.0", answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 200, body: "hello"},
		{name: "to the end", answer: "HTTP/1.1 200 OK\r\n\r\n" + long, status: 200, body: long, closes: true},
		{name: "no body", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, kept: true},
		{name: "not modified", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, kept: true},
		{name: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, head: true, kept: true},
		{name: "HEAD with a body", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, head: true},
		{name: "more than announced", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", status: 200, body: "hello"},
		{name: "close", answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		{name: "1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		{name: "1.0 kept", answer: "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", kept: true},
		{name: "interim", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", kept: true},
		{name: "upgrade", answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nrest", status: 101},
		{name: "cut short", answer: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", status: 200, body: "hello", closes: true, err: io.ErrUnexpectedEOF},
		{name: "chunk cut short", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello", status: 200, body: "hello", closes: true, err: io.ErrUnexpectedEOF},
		{name: "no last chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", status: 200, body: "hello", closes: true, err: io.ErrUnexpectedEOF},
		{name: "last line missing", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", status: 200, body: "hello", closes: true, err: io.ErrUnexpectedEOF},
		{name: "bad chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello5\r\nhello\r\n0\r\n\r\n", status: 200, body: "hello", err: ErrChunk},
		{name: "bad trailer", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\n\r\n\r\n", status: 200, err: ErrTrailers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, way := range []struct {
				plain, next bool
				pieces      int
			}{{false, true, 1}, {false, false, 1}, {true, true, 3}, {true, false, 1}, {false, true, 40}} {
				c := upstream(t, way.plain, says(tt.answer, way.pieces, tt.closes))
				var r Response
				c.Begin()
				if err := c.ReadResponse([]byte(get), &r, &testLimits, tt.head, nil); err != nil || r.Status != tt.status {
					t.Fatalf("%+v: status %d, %v", way, r.Status, err)
				}
				line := string(r.Line)
				body, err := readAll(c, way.next)
				if string(body) != tt.body || !errors.Is(err, tt.err) {
					t.Errorf("%+v: %d bytes, %v", way, len(body), err)
				}
				if way.pieces == 1 && c.Reusable() != tt.kept {
					t.Errorf("%+v: reusable is %v", way, c.Reusable())
				}
				if string(r.Line) != line {
					t.Errorf("%+v: the head was overwritten", way)
				}
				if _, rest := c.Detach(); tt.status == 101 && way.pieces == 1 && string(rest) != "rest" {
					t.Errorf("%+v: rest is %q", way, rest)
				}
			}
		})
	}
}

func TestClientConnRefuses(t *testing.T) {
	for _, answer := range []string{
		"hello\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20) + "HTTP/1.1 200 OK\r\n\r\n",
	} {
		c := upstream(t, false, says(answer, 1, false))
		var r Response
		c.Begin()
		err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil)
		var e *Error
		var refused *ParseError
		if !errors.As(err, &e) || e.Op != "head" || e.Fresh || !errors.As(err, &refused) || refused.Status != 502 {
			t.Errorf("%.30q: %v", answer, err)
		}
	}
}

// TestClientConnReuse: several exchanges on a connection, which is then closed
// by the other side.
func TestClientConnReuse(t *testing.T) {
	for _, plain := range []bool{false, true} {
		closed := make(chan struct{})
		c := upstream(t, plain, func(c net.Conn) {
			r := bufio.NewReader(c)
			for i := range 3 {
				if _, err := readHead(r); err != nil {
					t.Error(err)
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i)
			}
			_ = c.Close()
			close(closed)
		})
		var r Response
		for i := range 3 {
			c.Begin()
			if err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil); err != nil {
				t.Fatal(err)
			}
			if body, err := readAll(c, true); string(body) != fmt.Sprint(i) || err != nil || !c.Reusable() {
				t.Fatalf("%d: %q, %v", i, body, err)
			}
			c.Rest()
		}
		<-closed
		time.Sleep(10 * time.Millisecond)
		if !c.Stale() {
			t.Error("not stale")
		}
		c.Begin()
		err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil)
		var e *Error
		if !errors.As(err, &e) || !e.Fresh || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// TestClientConnHalfClosed: an end that came before the request was sent is
// noticed although nothing else comes.
func TestClientConnHalfClosed(t *testing.T) {
	t.Parallel()
	ready := make(chan struct{})
	c := upstream(t, false, func(c net.Conn) {
		_ = c.(*net.TCPConn).CloseWrite()
		close(ready)
		_, _ = io.Copy(io.Discard, c)
	})
	<-ready
	time.Sleep(20 * time.Millisecond)
	var r Response
	c.Begin()
	began := time.Now()
	err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil)
	if !errors.Is(err, io.EOF) || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestClientConnTimeout(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"} {
		c := upstream(t, false, says(answer, 1, false))
		c.SetTimeouts(150*time.Millisecond, time.Second)
		var r Response
		c.Begin()
		began := time.Now()
		err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil)
		if err == nil {
			_, err = readAll(c, true)
		}
		var e *Error
		if d := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &e) || e.Fresh != (answer == "") || d < 150*time.Millisecond || d > 2*time.Second {
			t.Errorf("%q: %v after %v", answer, err, d)
		}
	}
}

// TestClientConnLargeRequest does not fit into the socket's buffers at once.
func TestClientConnLargeRequest(t *testing.T) {
	for _, plain := range []bool{false, true} {
		req := append([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n"), make([]byte, 8000000)...)
		c := upstream(t, plain, func(c net.Conn) {
			time.Sleep(50 * time.Millisecond)
			n, _ := io.CopyN(io.Discard, c, int64(len(req)))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d", n)
		})
		var r Response
		c.Begin()
		if err := c.ReadResponse(req, &r, &testLimits, false, nil); err != nil {
			t.Fatal(err)
		}
		if body, err := readAll(c, false); string(body) != fmt.Sprint(len(req)) || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestClientConnSend(t *testing.T) {
	for _, plain := range []bool{false, true} {
		c := upstream(t, plain, func(c net.Conn) {
			r := bufio.NewReader(c)
			head, _ := readHead(r)
			body := make([]byte, 200004)
			_, _ = io.ReadFull(r, body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%v", map[bool]string{true: "ok", false: "no"}[head == get && bytes.HasSuffix(body, []byte("zend"))])
		})
		c.Begin()
		part := bytes.Repeat([]byte("z"), 100000)
		for _, err := range []error{c.Send([]byte(get)), c.SendThrough(part, part), c.Send([]byte("end")), c.Send([]byte("x"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		var r Response
		if err := c.ReadResponse(nil, &r, &testLimits, false, nil); err != nil {
			t.Fatal(err)
		}
		if c.BytesOut != int64(len(get)+200004) {
			t.Errorf("counted %d bytes", c.BytesOut)
		}
	}
}

// TestClientConnAbort wakes a reader up.
func TestClientConnAbort(t *testing.T) {
	c := upstream(t, false, says("", 1, false))
	go func() {
		time.Sleep(30 * time.Millisecond)
		c.Abort()
	}()
	var r Response
	c.Begin()
	if err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil); !errors.Is(err, sock.ErrAborted) {
		t.Errorf("got %v", err)
	}
	if c.Reusable() {
		t.Error("reusable")
	}
}

func TestTrailers(t *testing.T) {
	c := upstream(t, false, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y \r\nContent-Length: 5\r\nZ:\r\n\r\n", 1, false))
	var r Response
	c.Begin()
	if err := c.ReadResponse([]byte(get), &r, &testLimits, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(c, true); err != nil {
		t.Fatal(err)
	}
	fields, err := c.Trailers(nil)
	if err != nil || len(fields) != 2 || string(fields[0].Name) != "X" || string(fields[0].Value) != "y" || string(fields[1].Name) != "Z" {
		t.Errorf("%v, %v", fields, err)
	}
}

// TestClientConnAllocs: an exchange on a kept connection allocates nothing.
func TestClientConnAllocs(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	c := upstream(t, false, func(c net.Conn) {
		p := make([]byte, 1000)
		for {
			if _, err := c.Read(p); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	var r Response
	req := []byte(get)
	if n := testing.AllocsPerRun(200, func() {
		c.Begin()
		if err := c.ReadResponse(req, &r, &testLimits, false, nil); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := c.Next(); err != nil {
				break
			}
		}
		if !c.Reusable() || c.Stale() {
			t.Fatal("not reusable")
		}
		c.Rest()
	}); n >= 1 && !racing {
		t.Errorf("%v allocations an exchange", n)
	}
}

// TestPassBody: a long body goes through without being copied, and requests
// follow on both connections.
func TestPassBody(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 200000)
	for _, tt := range []struct {
		name, body string
		cut        int
	}{{"long", long, 0}, {"short", "hello", 0}, {"cut short", long, 7}} {
		t.Run(tt.name, func(t *testing.T) {
			u := upstream(t, false, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					if _, err := readHead(r); err != nil {
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(tt.body))
					if _, err := io.WriteString(c, tt.body[:len(tt.body)-tt.cut]); err != nil || tt.cut > 0 {
						return
					}
				}
			})
			s := serve(t, testConfig(), false, func(c *Conn) {
				var r Response
				u.Begin()
				if err := u.ReadResponse([]byte(get), &r, &testLimits, false, nil); err != nil {
					t.Error(err)
				}
				c.Out = append(c.Out, "HTTP/1.1 200 OK\r\n\r\n"...)
				n, ok, err := c.PassBody(u)
				var e *Error
				if tt.cut > 0 && (!errors.As(err, &e) || !errors.Is(err, io.ErrUnexpectedEOF)) || tt.cut == 0 && err != nil {
					t.Error(err)
				}
				if !ok || n != int64(len(tt.body)-tt.cut) || u.Reusable() != (tt.cut == 0) {
					t.Errorf("passed %d, %v, reusable is %v", n, ok, u.Reusable())
				}
				c.KeepAlive = c.KeepAlive && err == nil
			})
			want := "HTTP/1.1 200 OK\r\n\r\n" + tt.body[:len(tt.body)-tt.cut]
			requests := "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
			if tt.cut == 0 {
				want, requests = want+want, requests+requests
			}
			if got := ask(t, s, requests); got != want {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
		})
	}
}
