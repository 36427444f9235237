package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// backend is a server that does to each connection what serve says.
type backend struct {
	addr  string
	conns atomic.Int64
}

func newBackend(t *testing.T, serve func(c net.Conn, r *bufio.Reader, n int64)) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b := &backend{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := b.conns.Add(1)
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c), n)
			}()
		}
	}()
	return b
}

// readRequestOf reads one request, its body by Content-Length or chunks included.
func readRequestOf(r *bufio.Reader) string {
	var b strings.Builder
	length, chunked := 0, false
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String()
		}
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
		chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
		if line == "\r\n" {
			break
		}
	}
	for chunked {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "0\r\n" {
			chunked = false
		}
	}
	_, _ = io.CopyN(&b, r, int64(length))
	return b.String()
}

// answering is a backend that gives the same answer to every request.
func answering(t *testing.T, answer string) *backend {
	return newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		for readRequestOf(r) != "" {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// variableOf gives the value of a variable at the end of an exchange.
func variableOf(x *Exchange, name string) string {
	for _, v := range append(upstreamVariables(), proxyVariables()...) {
		if v.Name == name {
			b, ok := v.Get(nil, x, "")
			if !ok {
				return "<none>"
			}
			return string(b)
		}
	}
	return "<unknown>"
}

// TestUpstreamFailures holds status and log line of each kind of failure, as
// nginx has them.
func TestUpstreamFailures(t *testing.T) {
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	tests := []struct {
		name       string
		serve      func(c net.Conn, r *bufio.Reader, n int64)
		directives string
		status     int
		log        string
	}{
		{"refused", nil, "", 502, "connect() failed (111: Connection refused) while connecting to upstream"},
		{"closed", func(_ net.Conn, r *bufio.Reader, _ int64) { readRequestOf(r) }, "", 502, "upstream prematurely closed connection while reading response header from upstream"},
		{"half a head", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA: ")
		}, "", 502, "upstream prematurely closed connection while reading response header from upstream"},
		{"reset", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			reset(c)
		}, "", 502, "recv() failed (104: Connection reset by peer) while reading response header from upstream"},
		{"slow", func(_ net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			readRequestOf(r)
		}, "proxy_read_timeout 100ms;", 504, "upstream timed out (110: Connection timed out) while reading response header from upstream"},
		{"no HTTP", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "hello\r\n\r\n")
		}, "", 502, "upstream sent no valid HTTP/1.0 header while reading response header from upstream"},
		{"invalid field", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA B: 1\r\n\r\n")
		}, "", 502, "upstream sent invalid header: "},
		{"two lengths", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
		}, "", 502, "upstream sent duplicate header line: \"Content-Length: 2\""},
		{"length and chunks", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
		}, "", 502, "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time while reading"},
		{"too big", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA: "+strings.Repeat("a", 5000)+"\r\n\r\n")
		}, "", 502, "upstream sent too big header while reading response header from upstream"},
		{"unasked upgrade", func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		}, "", 101, "upstream switched protocols without being asked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := closedPort(t)
			if tt.serve != nil {
				addr = newBackend(t, tt.serve).addr
			}
			p := newProxyTest(t, "", "location / { proxy_pass http://"+addr+"; "+tt.directives+" }")
			x, s := p.exchange("GET /path")
			p.do(x)
			if s.status != tt.status {
				t.Errorf("status %d, want %d", s.status, tt.status)
			}
			if log := p.logged(); !strings.Contains(log, tt.log) || !strings.Contains(log, `upstream: "http://`+addr+`/path"`) {
				t.Errorf("log %q lacks %q", log, tt.log)
			}
			if got := variableOf(x, "upstream_status"); got != fmt.Sprint(tt.status) {
				t.Errorf("$upstream_status %q", got)
			}
			x.release()
		})
	}
}

// TestUpstreamTruncated: an answer that the server cuts short never ends well.
func TestUpstreamTruncated(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
	} {
		b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_, _ = io.WriteString(c, answer)
		})
		p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; }")
		x, s := p.exchange("GET /")
		p.do(x)
		if s.ended || x.keepAlive || !x.failed {
			t.Errorf("%q looks complete: ended %v, keepalive %v", answer, s.ended, x.keepAlive)
		}
		if !strings.Contains(p.logged(), "upstream prematurely closed connection while reading upstream") {
			t.Errorf("log: %s", p.logged())
		}
		x.release()
	}
}

// TestUpstreamNext asks the next server when, and only when, it may.
func TestUpstreamNext(t *testing.T) {
	bad := answering(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
	closes := newBackend(t, func(_ net.Conn, r *bufio.Reader, _ int64) { readRequestOf(r) })
	good := answering(t, okAnswer)
	dead := closedPort(t)
	tests := []struct {
		name, first, request, directives string
		status                           int
		states                           string
	}{
		{"refused", dead, "GET /", "", 200, "502, 200"},
		{"closed", closes.addr, "GET /", "", 200, "502, 200"},
		{"closed, POST", closes.addr, "POST /", "", 502, "502"},
		{"refused, POST", dead, "POST /", "", 200, "502, 200"},
		{"closed, POST allowed", closes.addr, "POST /", "proxy_next_upstream error non_idempotent;", 200, "502, 200"},
		{"status", bad.addr, "GET /", "", 503, "503"},
		{"status allowed", bad.addr, "GET /", "proxy_next_upstream http_503;", 200, "503, 200"},
		{"off", dead, "GET /", "proxy_next_upstream off;", 502, "502"},
		{"one try", dead, "GET /", "proxy_next_upstream_tries 1;", 502, "502"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProxyTest(t, "upstream u { server "+tt.first+"; server "+good.addr+" backup; }", "location / { proxy_pass http://u; "+tt.directives+" }")
			x, s := p.exchange(tt.request)
			p.do(x)
			if got := variableOf(x, "upstream_status"); s.status != tt.status || got != tt.states {
				t.Errorf("status %d after %q, want %d after %q; log %s", s.status, got, tt.status, tt.states, p.logged())
			}
			x.release()
		})
	}
	t.Run("none live", func(t *testing.T) {
		p := newProxyTest(t, "upstream u { server "+dead+" down; server "+dead+" down; }", "location / { proxy_pass http://u; }")
		x, s := p.exchange("GET /x")
		p.do(x)
		if s.status != 502 || !strings.Contains(p.logged(), "no live upstreams while connecting to upstream") || variableOf(x, "upstream_addr") != "u" {
			t.Errorf("status %d, addr %s, log %s", s.status, variableOf(x, "upstream_addr"), p.logged())
		}
		x.release()
	})
}

// TestUpstreamKeepalive reuses connections, and replaces one that the server
// has closed meanwhile.
func TestUpstreamKeepalive(t *testing.T) {
	b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		for range 3 { // then the connection is closed without a word
			if readRequestOf(r) == "" {
				return
			}
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	p := newProxyTest(t, "upstream u { server "+b.addr+"; }", "location / { proxy_pass http://u; }")
	for i := range 7 {
		x, s := p.exchange("GET /")
		p.do(x)
		if s.status != 200 || s.out.String() != "ok" || !s.ended {
			t.Fatalf("request %d: %d %q; %s", i, s.status, s.out.String(), p.logged())
		}
		if s.writes != 1 {
			t.Errorf("a small answer took %d writes", s.writes)
		}
		x.release()
		time.Sleep(5 * time.Millisecond) // the close arrives
	}
	if n := b.conns.Load(); n != 3 {
		t.Errorf("%d connections for 7 requests of 3 each", n)
	}
	x, s := p.exchange("POST /")
	p.do(x)
	if s.status != 200 {
		t.Errorf("POST: %d", s.status)
	}
	x.release()
}

// TestUpstreamBodies passes bodies of all kinds and sizes on.
func TestUpstreamBodies(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20_000)
	chunks := func(body string, n int) string {
		var b strings.Builder
		for len(body) > 0 {
			k := min(n, len(body))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", k, body[:k])
			body = body[k:]
		}
		return b.String() + "0\r\n\r\n"
	}
	answers := map[string]string{
		"length":  fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big),
		"chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(big, 1000),
		"close":   "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + big,
		"interim": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + big,
	}
	for name, answer := range answers {
		for _, directives := range []string{"", "proxy_buffering off;", "proxy_limit_rate 100m;"} {
			t.Run(name+" "+directives, func(t *testing.T) {
				b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
					readRequestOf(r)
					_, _ = io.WriteString(c, answer)
				})
				p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; "+directives+" }")
				x, s := p.exchange("GET /")
				p.do(x)
				if s.status != 200 || s.out.String() != big || !s.ended {
					t.Errorf("%d, %d bytes, ended %v; %s", s.status, s.out.Len(), s.ended, p.logged())
				}
				if got := variableOf(x, "upstream_response_length"); got != fmt.Sprint(len(big)) {
					t.Errorf("$upstream_response_length %s", got)
				}
				x.release()
			})
		}
	}
}

// TestUpstreamSlowClient: the server is free long before its slow client has
// taken the answer.
func TestUpstreamSlowClient(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 64<<10)
	for _, tt := range []struct {
		directives string
		free, file bool
	}{{"", true, true}, {"proxy_max_temp_file_size 0;", false, false}, {"proxy_buffers 2000 4k; proxy_busy_buffers_size 8k;", true, false}} {
		sent := make(chan struct{})
		b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
			readRequestOf(r)
			_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big)
			close(sent)
		})
		p := newProxyTest(t, "", "proxy_socket_rcvbuf 8k; location / { proxy_pass http://"+b.addr+"; "+tt.directives+" }")
		x, s := p.exchange("GET /")
		s.block = make(chan struct{})
		done := make(chan struct{})
		go func() { p.do(x); close(done) }()
		select {
		case <-sent:
			if !tt.free {
				t.Errorf("%q: the answer did not wait for its client", tt.directives)
			}
		case <-time.After(300 * time.Millisecond):
			if tt.free {
				t.Errorf("%q: the server waits for the client", tt.directives)
			}
		}
		close(s.block)
		<-done
		if s.out.String() != big || !s.ended {
			t.Errorf("%q: %d bytes of %d, ended %v", tt.directives, s.out.Len(), len(big), s.ended)
		}
		if file := strings.Contains(p.logged(), "an upstream response is buffered to a temporary file"); file != tt.file {
			t.Errorf("%q: file used: %v; %s", tt.directives, file, p.logged())
		}
		x.release()
	}
}

// TestUpstreamRequestBodies sends bodies in all the ways they can be kept.
func TestUpstreamRequestBodies(t *testing.T) {
	big := strings.Repeat("body", 50_000)
	for _, tt := range []struct {
		name, body, directives string
		chunked, arrived       bool
		want                   string
	}{
		{"arrived", "small", "", false, true, "Content-Length: 5\r\n\r\nsmall"},
		{"read", "small", "", false, false, "Content-Length: 5\r\n\r\nsmall"},
		{"chunked", "small", "", true, false, "Content-Length: 5\r\n\r\nsmall"},
		{"file", big, "", false, false, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(big), big)},
		{"memory", big, "client_body_buffer_size 1m;", false, false, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(big), big)},
		{"chunked file", big, "", true, false, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(big), big)},
		{"unbuffered", big, "proxy_request_buffering off;", false, false, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(big), big)},
		{"unbuffered chunks", "small", "proxy_request_buffering off;", true, false, "Transfer-Encoding: chunked\r\n\r\n2\r\nsm\r\n3\r\nall\r\n0\r\n"},
		{"set", "small", "proxy_set_body other;", false, false, "Content-Length: 5\r\n\r\nother"},
		{"not passed", "small", "proxy_pass_request_body off;", false, false, "\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan string, 1)
			b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
				got <- readRequestOf(r)
				_, _ = io.WriteString(c, okAnswer)
			})
			p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; "+tt.directives+" }")
			x, s := p.exchange("POST /")
			x.Req.Chunked = tt.chunked
			if !tt.chunked {
				x.Req.ContentLength = int64(len(tt.body))
			}
			s.body, s.whole, s.arrived = inHalves(tt.body), []byte(tt.body), tt.arrived
			p.do(x)
			if request := <-got; s.status != 200 || !strings.HasSuffix(request, tt.want) {
				t.Errorf("%d, sent %.200q, want %.200q; %s", s.status, request, tt.want, p.logged())
			}
			x.release()
		})
	}
}

// inHalves gives a body in two pieces.
func inHalves(body string) io.Reader {
	return io.MultiReader(strings.NewReader(body[:len(body)/2]), strings.NewReader(body[len(body)/2:]))
}

// TestBodyTooLarge refuses a chunked body that grows beyond the limit.
func TestBodyTooLarge(t *testing.T) {
	b := answering(t, okAnswer)
	for _, directives := range []string{"", "proxy_request_buffering off;"} {
		p := newProxyTest(t, "", "location / { client_max_body_size 10k; proxy_pass http://"+b.addr+"; "+directives+" }")
		x, s := p.exchange("POST /")
		x.Req.Chunked = true
		s.body = bytes.NewReader(make([]byte, 100<<10))
		p.do(x)
		if s.status != 413 || x.keepAlive || !strings.Contains(p.logged(), "client intended to send too large chunked body: ") {
			t.Errorf("%q: status %d; %s", directives, s.status, p.logged())
		}
		x.release()
	}
}

// TestBodyFile: $request_body_file names a file that goes with the exchange.
func TestBodyFile(t *testing.T) {
	b := answering(t, okAnswer)
	for mode, stays := range map[string]bool{"on": true, "clean": false} {
		p := newProxyTest(t, "", "location / { client_body_in_file_only "+mode+"; proxy_pass http://"+b.addr+"; }")
		x, s := p.exchange("POST /")
		x.Req.ContentLength = 5
		s.body = strings.NewReader("small")
		p.do(x)
		name, ok := x.appendRequestBodyFile(nil)
		data, err := os.ReadFile(string(name))
		if s.status != 200 || !ok || err != nil || string(data) != "small" {
			t.Errorf("%s: status %d, %q: %v", mode, s.status, name, err)
		}
		x.release()
		if _, err := os.Stat(string(name)); (err == nil) != stays {
			t.Errorf("%s: after the exchange: %v", mode, err)
		}
	}
}

// TestUpstreamClientGone: a client that goes away ends the wait for the server.
func TestUpstreamClientGone(t *testing.T) {
	b := newBackend(t, func(_ net.Conn, r *bufio.Reader, _ int64) {
		readRequestOf(r)
		readRequestOf(r)
	})
	p := newProxyTest(t, "upstream u { server "+b.addr+"; server "+b.addr+"; }", "location / { proxy_pass http://u; }")
	x, s := p.exchange("GET /")
	watched := make(chan struct{})
	s.watched = watched
	go func() {
		<-watched
		time.Sleep(20 * time.Millisecond)
		s.gone()
	}()
	p.do(x)
	if x.Out.Status != 499 || s.head || !strings.Contains(p.logged(), "client prematurely closed connection, so upstream connection is closed too while reading response header from upstream") {
		t.Errorf("status %d, head %v; %s", x.Out.Status, s.head, p.logged())
	}
	x.release()
}

// TestUpstreamAnswerFields: what is passed on, hidden, changed.
func TestUpstreamAnswerFields(t *testing.T) {
	answer := "HTTP/1.1 200 Fine\r\nServer: s\r\nDate: d\r\nX-Pad: p\r\nContent-Type: text/x; charset=utf-8\r\nConnection: close\r\nKeep-Alive: 5\r\n" +
		"Location: http://BACKEND/two/x\r\nRefresh: 5; url=http://BACKEND/two/y\r\nSet-Cookie: a=b; Path=/two/; Domain=.back.local; Secure\r\n" +
		"ETag: \"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-Secret: 1\r\nX-Accel-Limit-Rate: 5\r\nETag: \"2\"\r\nContent-Length: 0\r\n\r\n"
	l := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		readRequestOf(r)
		_, _ = io.WriteString(c, strings.ReplaceAll(answer, "BACKEND", c.LocalAddr().String()))
	})
	p := newProxyTest(t, "", "location /one/ { proxy_pass http://"+l.addr+"/two/; proxy_hide_header X-Secret; proxy_pass_header Server; proxy_cookie_domain back.local front.local; proxy_cookie_path /two/ /one/; proxy_cookie_flags ~ nosecure httponly samesite=lax; }")
	x, s := p.exchange("GET /one/a")
	p.do(x)
	want := map[string]string{
		"location": "/one/x", "refresh": "5; url=/one/y", "set-cookie": "a=b; Path=/one/; Domain=.front.local; HttpOnly; SameSite=Lax",
		"etag": `"1"`, "server": "s", "content-type": "text/x; charset=utf-8", "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT",
	}
	for name, value := range want {
		if s.fields[name] != value {
			t.Errorf("%s: %q, want %q", name, s.fields[name], value)
		}
	}
	if len(s.fields) != len(want) {
		t.Errorf("fields: %v", s.fields)
	}
	if string(x.Out.StatusLine) != "200 Fine" {
		t.Errorf("status line %q", x.Out.StatusLine)
	}
	if !strings.Contains(p.logged(), `upstream sent duplicate header line: "ETag: "2"", previous value: "ETag: "1"", ignored while reading`) {
		t.Errorf("log: %s", p.logged())
	}
	x.release()
}

// TestUpstreamElsewhere: proxy_intercept_errors and X-Accel-Redirect.
func TestUpstreamElsewhere(t *testing.T) {
	b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		request := readRequestOf(r)
		switch {
		case strings.HasPrefix(request, "GET /error"):
			_, _ = io.WriteString(c, "HTTP/1.1 404 Gone\r\nContent-Length: 3\r\n\r\nbad")
		case strings.HasPrefix(request, "GET /accel"):
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /internal/a%20b?c\r\nSet-Cookie: k=v\r\nX-Lost: 1\r\nContent-Length: 0\r\n\r\n")
		case strings.HasPrefix(request, "GET /unsafe"):
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /internal/%2e%2e/x\r\nContent-Length: 0\r\n\r\n")
		default:
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+strings.Fields(request)[1])
		}
	})
	p := newProxyTest(t, "", `location / { proxy_pass http://`+b.addr+`; proxy_intercept_errors on; error_page 404 =200 /internal/page; }
		location /internal/ { internal; proxy_pass http://`+b.addr+`; }`)
	for target, want := range map[string]string{"/error": "200 /internal/page", "/accel": "200 /internal/a%20b?c", "/unsafe": "200 /internal/page"} {
		x, s := p.exchange("GET " + target)
		p.do(x)
		got := strings.TrimSpace(fmt.Sprint(s.status, " ", s.out.String()))
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q; %s", target, got, want, p.logged())
		}
		if target == "/unsafe" && !strings.Contains(p.logged(), "unsafe URI \"/internal/%2e%2e/x\" was detected") {
			t.Errorf("log: %s", p.logged())
		}
		if target == "/accel" && (s.fields["set-cookie"] != "k=v" || s.fields["x-lost"] != "") {
			t.Errorf("fields %v", s.fields)
		}
		if target == "/accel" && variableOf(x, "upstream_status") != "200 : 200" {
			t.Errorf("$upstream_status %q", variableOf(x, "upstream_status"))
		}
		x.release()
	}
}

// TestUpstreamVariableTarget: names, addresses and what nobody resolves.
func TestUpstreamVariableTarget(t *testing.T) {
	b := answering(t, okAnswer)
	p := newProxyTest(t, "upstream named { server "+b.addr+"; }", "location / { proxy_pass http://$http_b; }")
	for target, want := range map[string]int{"named": 200, b.addr: 200, "nowhere.example": 502, "": 500} {
		x, s := p.exchange("GET /", "B: "+target)
		p.do(x)
		if s.status != want {
			t.Errorf("%q: %d, want %d", target, s.status, want)
		}
		x.release()
	}
	if !strings.Contains(p.logged(), "no resolver defined to resolve nowhere.example") {
		t.Errorf("log: %s", p.logged())
	}
}

// TestUpstreamUnix speaks over a unix socket.
func TestUpstreamUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			request := readRequestOf(bufio.NewReader(c))
			_, _ = fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\n%s", request)
			_ = c.Close()
		}
	}()
	p := newProxyTest(t, "", "location /a/ { proxy_pass http://unix:"+path+":/b/; } location /none { proxy_pass http://unix:"+path+".none; }")
	x, s := p.exchange("GET /a/x")
	p.do(x)
	if want := "GET /b/x HTTP/1.1\r\nHost: localhost\r\n\r\n"; s.out.String() != want {
		t.Errorf("%d %q, want %q", s.status, s.out.String(), want)
	}
	x.release()
	x, s = p.exchange("GET /none")
	p.do(x)
	if want := "connect() to unix:" + path + ".none failed (2: No such file or directory) while connecting to upstream"; s.status != 502 || !strings.Contains(p.logged(), want) {
		t.Errorf("%d %s", s.status, p.logged())
	}
	x.release()
}

// TestUpstreamTunnel passes bytes both ways after 101.
func TestUpstreamTunnel(t *testing.T) {
	b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		if strings.HasPrefix(readRequestOf(r), "GET /plain") {
			_, _ = io.WriteString(c, okAnswer)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello ")
		_, _ = io.Copy(c, r)
	})
	p := newProxyTest(t, "upstream u { server "+b.addr+"; }", "location / { proxy_pass http://u; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }")
	ours, theirs := net.Pipe()
	x, s := p.exchange("GET /", "Upgrade: echo", "Connection: upgrade")
	s.conn = theirs
	done := make(chan struct{})
	go func() { p.do(x); close(done) }()
	_ = ours.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 6)
	if _, err := io.ReadFull(ours, buf); err != nil || string(buf) != "hello " {
		t.Fatalf("%q %v", buf, err)
	}
	if _, err := io.WriteString(ours, "world"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ours, buf[:5]); err != nil || string(buf[:5]) != "world" {
		t.Fatalf("%q %v", buf, err)
	}
	_ = ours.Close()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("the tunnel does not end with its client")
	}
	if s.status != 101 {
		t.Errorf("status %d", s.status)
	}
	x.release()
	x, s = p.exchange("GET /plain") // the connection of a tunnel is not kept
	p.do(x)
	if states := variableOf(x, "upstream_status"); s.status != 200 || states != "200" {
		t.Errorf("after the tunnel: %d, %s; %s", s.status, states, p.logged())
	}
	x.release()
}

// TestUpstreamExcess: what comes after an answer is told about, and neither
// passed on nor taken for the answer to another request.
func TestUpstreamExcess(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil":                            `upstream sent more data than specified in "Content-Length" header while reading upstream, client: `,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil": "upstream sent data after final chunk while reading upstream, client: ",
	} {
		b := answering(t, answer)
		p := newProxyTest(t, "upstream u { server "+b.addr+"; }", "location / { proxy_pass http://u; }")
		for range 2 {
			x, s := p.exchange("GET /")
			p.do(x)
			if s.out.String() != "abc" || !s.ended || !strings.Contains(p.logged(), want) {
				t.Errorf("%q, ended %v; %s", s.out.String(), s.ended, p.logged())
			}
			x.release()
		}
		if n := b.conns.Load(); n != 2 {
			t.Errorf("%d connections for two answers with too much behind them", n)
		}
	}
}

// TestUpstreamEndless: what does not end is cut off, and costs no more memory
// than what does.
func TestUpstreamEndless(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		begin, again string
		log          string
	}{
		"fields":   {"HTTP/1.1 200 OK\r\n", "A: b\r\n", "upstream sent too big header"},
		"field":    {"HTTP/1.1 200 OK\r\nA: ", "b", "upstream sent too big header"},
		"line":     {"HTTP/1.1 200 ", "O", "upstream sent too big header"},
		"interims": {"", "HTTP/1.1 102 Processing\r\nA: b\r\n\r\n", "upstream sent too many interim responses"},
		"chunk":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", "0", "upstream sent invalid chunked response"},
		"trailers": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", "upstream sent invalid chunked response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
				readRequestOf(r)
				_, err := io.WriteString(c, tt.begin)
				for again := strings.Repeat(tt.again, 100); err == nil; {
					_, err = io.WriteString(c, again)
				}
			})
			p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; }")
			x, s := p.exchange("GET /")
			p.do(x)
			if s.ended && s.status != 502 || !strings.Contains(p.logged(), tt.log) {
				t.Errorf("%d, ended %v; %s", s.status, s.ended, p.logged())
			}
			x.release()
		})
	}
}

// TestUpstreamUnbufferedRate: limit_rate holds nothing back of what is not
// buffered.
func TestUpstreamUnbufferedRate(t *testing.T) {
	t.Parallel()
	b := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+strings.Repeat("x", 1000))
	p := newProxyTest(t, "", "limit_rate 1; proxy_buffering off; location / { proxy_pass http://"+b.addr+"; }")
	x, s := p.exchange("GET /", "Host: h")
	p.do(x)
	if s.out.Len() != 1000 || !s.ended {
		t.Errorf("%d bytes; %s", s.out.Len(), p.logged())
	}
	x.release()
}
