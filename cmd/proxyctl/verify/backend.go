package verify

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// backends stand in the place of all upstreams: they write down what they get
// and answer as they are told.
type backends struct {
	tls      *tls.Config
	list     []net.Listener
	names    map[string]string // original address to new one
	original map[string]string

	mu      sync.Mutex
	idle    *sync.Cond
	busy    int
	conns   map[net.Conn]bool
	script  script
	seen    []upstreamRequest
	stopped bool
	linger  time.Duration // how long what goes on beside answers may take to begin
}

// upstreamRequest is what an upstream got.
type upstreamRequest struct {
	To   string // the original address
	Head string // lines, without the empty one
	Body string
}

// script is how upstreams answer.
type script string

// The scripts.
const (
	scriptPlain    script = "plain"
	scriptRedirect script = "redirect"
	scriptMissing  script = "404"
	scriptBroken   script = "500"
	scriptChunked  script = "chunked"
	scriptUnsized  script = "until the end"
	scriptEmpty    script = "204"
	scriptUpgrade  script = "101"
	scriptGarbage  script = "no HTTP"
)

func newBackends(cert *tls.Certificate) *backends {
	b := &backends{
		tls:   &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12},
		names: map[string]string{}, original: map[string]string{}, conns: map[net.Conn]bool{},
	}
	b.idle = sync.NewCond(&b.mu)
	return b
}

// maxBackends is how many addresses have a listener of their own.
const maxBackends = 200

// address gives the address that takes the place of another one.
func (b *backends) address(of string) string {
	if a := b.names[of]; a != "" {
		return a
	}
	if len(b.list) >= maxBackends {
		a := b.list[len(b.names)%maxBackends].Addr().String()
		b.names[of] = a
		return a
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:1" // nobody listens there
	}
	a := l.Addr().String()
	b.names[of], b.original[a] = a, of
	b.serve(l, of)
	return a
}

func (b *backends) unix(of, path string) (string, bool) {
	if a := b.names[of]; a != "" {
		return a, true
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", false
	}
	b.names[of], b.original["unix:"+path] = "unix:"+path, of
	openToAll(path)
	b.serve(l, of)
	return "unix:" + path, true
}

func (b *backends) serve(l net.Listener, name string) {
	b.list = append(b.list, l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = true
			stopped := b.stopped
			b.mu.Unlock()
			if stopped {
				_ = c.Close()
				continue
			}
			go b.connection(c, name)
		}
	}()
}

func (b *backends) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	for _, l := range b.list {
		_ = l.Close()
	}
	for c := range b.conns {
		_ = c.Close()
	}
}

// begin forgets what was seen.
func (b *backends) begin(s script) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.script, b.seen = s, nil
}

// take gives what was seen, when requests that go on beside the answer have
// ended too.
func (b *backends) take() []upstreamRequest {
	time.Sleep(b.linger)
	late := time.AfterFunc(timeToSettle, func() { b.idle.Broadcast() })
	defer late.Stop()
	end := time.Now().Add(timeToSettle)
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.busy > 0 && time.Now().Before(end) {
		b.idle.Wait()
	}
	return b.seen
}

const (
	timeToSettle = 300 * time.Millisecond
	timeToBegin  = 15 * time.Millisecond // of copies of requests
)

func (b *backends) connection(c net.Conn, name string) {
	defer func() {
		_ = c.Close()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	in := bufio.NewReaderSize(c, 64<<10)
	if first, err := in.Peek(1); err != nil {
		return
	} else if first[0] == 0x16 {
		t := tls.Server(&peeked{c, in}, b.tls)
		c, in = t, bufio.NewReaderSize(t, 64<<10)
	}
	if first, _ := in.Peek(4); string(first) == "PRI " {
		b.http2(c, in, name)
		return
	}
	for {
		again, known := b.cgiExchange(c, in, name)
		if !known {
			again = b.exchange(c, in, name)
		}
		if !again {
			return
		}
	}
}

// enter and leave count what is going on.
func (b *backends) enter() {
	b.mu.Lock()
	b.busy++
	b.mu.Unlock()
}

func (b *backends) leave() {
	b.mu.Lock()
	b.busy--
	b.idle.Broadcast()
	b.mu.Unlock()
}

// peeked is a connection of which something has been read ahead.
type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// maxUpstreamBody is how much of a request's body is kept.
const maxUpstreamBody = 1 << 20

// exchange answers one request; false when the connection ends.
func (b *backends) exchange(c net.Conn, in *bufio.Reader, name string) bool {
	if _, err := in.Peek(1); err != nil {
		return false
	}
	b.enter()
	defer b.leave()
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || head.Len() > 1<<20 {
			b.saw(upstreamRequest{name, head.String() + line, ""})
			return false
		}
		if strings.TrimRight(line, "\r\n") == "" {
			break
		}
		head.WriteString(line)
	}
	text := head.String()
	body, err := b.body(c, text, in)
	s := b.saw(upstreamRequest{name, text, body})
	if err != nil {
		return false
	}
	keep := strings.Contains(strings.ToLower(text), "\nconnection: keep-alive") || strings.Contains(text, " HTTP/1.1\r\n") && !strings.Contains(strings.ToLower(text), "\nconnection: close")
	answer, last := compose(s, text, name)
	if _, err := io.WriteString(c, answer); err != nil || last {
		return false
	}
	return keep
}

func (b *backends) saw(r upstreamRequest) script {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) < 100 {
		b.seen = append(b.seen, r)
	}
	return b.script
}

// bodyMissing stands for a body that was announced and did not come.
const bodyMissing = "(announced, and not sent)"

// body reads the body of a request. nginx announces one for some subrequests
// that have none: those are not waited for long.
func (b *backends) body(c net.Conn, head string, in *bufio.Reader) (string, error) {
	wait := time.Second
	if strings.HasPrefix(head, "GET ") || strings.HasPrefix(head, "HEAD ") {
		wait = timeToSettle / 2
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	body, err := readRequestBody(head, in)
	_ = c.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) && body == "" {
		return bodyMissing, nil
	}
	return body, err
}

func readRequestBody(head string, in *bufio.Reader) (string, error) {
	var body io.Reader
	lines := strings.Split(head, "\r\n")
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return "", fmt.Errorf("length %q", value)
			}
			body = io.LimitReader(in, n)
		case "transfer-encoding":
			return readChunked(in)
		}
	}
	if body == nil {
		return "", nil
	}
	text, err := io.ReadAll(io.LimitReader(body, maxUpstreamBody))
	if err == nil {
		_, err = io.Copy(io.Discard, body)
	}
	return string(text), err
}

func readChunked(in *bufio.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(httputil.NewChunkedReader(in), maxUpstreamBody))
	for err == nil { // trailers
		var line string
		if line, err = in.ReadString('\n'); strings.TrimRight(line, "\r\n") == "" {
			break
		}
	}
	return string(text), err
}

// compose writes an answer; last when the connection ends with it.
func compose(s script, head, name string) (answer string, last bool) {
	method, _, _ := strings.Cut(head, " ")
	body := "<html><head><title>upstream</title></head>\n<body>answered by http://" + name + "/ for you, and a few words more so that there is something to be compressed: " +
		strings.Repeat("some text ", 30) + "</body></html>\n"
	status, fields, sized := "200 OK", "", true
	switch s {
	case scriptPlain:
		fields = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"upstream-1\"\r\nX-Powered-By: upstream\r\nSet-Cookie: session=1; Path=/; HttpOnly\r\n"
	case scriptRedirect:
		status, fields = "302 Found", "Location: http://"+hostOf(head)+"/moved?to=1\r\nSet-Cookie: a=b; Domain="+hostOf(head)+"; Path=/app/\r\nSet-Cookie: c=d\r\n"
	case scriptMissing:
		status = "404 Not Found"
	case scriptBroken:
		status = "500 Internal Server Error"
	case scriptEmpty:
		return "HTTP/1.1 204 No Content\r\nX-Powered-By: upstream\r\n\r\n", false
	case scriptUpgrade:
		if strings.Contains(strings.ToLower(head), "\nupgrade: websocket") {
			return "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello", true
		}
	case scriptChunked:
		fields = "Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n"
		if sized = false; method != "HEAD" && strings.Contains(head, " HTTP/1.1\r\n") {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", fields, body[:5], len(body)-5, body[5:]), false
		}
	case scriptUnsized:
		sized = false
	case scriptGarbage:
		return "no HTTP at all\r\n\r\n", true
	}
	out := "HTTP/1.1 " + status + "\r\nContent-Type: text/html; charset=utf-8\r\n" + fields
	if sized {
		out += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	out += "\r\n"
	if method != "HEAD" {
		out += body
	}
	return out, !sized
}

func hostOf(head string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "host") {
			return strings.TrimSpace(value)
		}
	}
	return "upstream.invalid"
}
