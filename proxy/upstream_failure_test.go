package proxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestUpstreamLog compares whole lines of the error log, from message to host,
// with those of nginx 1.31.5 for the same answers. BACK stands for the server's
// address. Where nginx takes what is no HTTP for an answer, it is refused here.
func TestUpstreamLog(t *testing.T) {
	t.Parallel()
	const (
		head = " while reading response header from upstream"
		body = " while reading upstream"
	)
	for name, tt := range map[string]struct {
		answer string
		status int
		log    string
	}{
		"closed":          {"", 502, "upstream prematurely closed connection" + head},
		"half a head":     {"HTTP/1.1 200 OK\r\nA: ", 502, "upstream prematurely closed connection" + head},
		"bad name":        {"HTTP/1.1 200 OK\r\nA B: 1\r\n\r\n", 502, `upstream sent invalid header: "A\x20..."` + head},
		"two lengths":     {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", 502, `upstream sent duplicate header line: "Content-Length: 3", previous value: "Content-Length: 2"` + head},
		"length, chunked": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, `upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time` + head},
		"bad length":      {"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab", 502, `upstream sent invalid "Content-Length" header: "Content-Length: 2x"` + head},
		"other coding":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab", 502, `upstream sent unknown "Transfer-Encoding": "gzip"` + head},
		"large field":     {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 5000) + "\r\n\r\n", 502, "upstream sent too big header" + head},
		"many fields":     {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 3000) + "\r\n", 502, "upstream sent too big header" + head},
		"two locations":   {"HTTP/1.1 302 OK\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 302, `upstream sent duplicate header line: "Location: /b", previous value: "Location: /a", ignored` + head},
		"short":           {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200, "upstream prematurely closed connection" + body},
		"cut chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 200, "upstream prematurely closed connection" + body},
		"bad chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n", 200, "upstream sent invalid chunked response" + body},
		"unsafe redirect": {"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /../x\r\nContent-Length: 0\r\n\r\n", 404, `unsafe URI "/../x" was detected` + head},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
				readRequestOf(r)
				_, _ = io.WriteString(c, tt.answer)
				if strings.Contains(tt.log, "too big") { // what is unread must not reset the connection
					time.Sleep(50 * time.Millisecond)
				}
			})
			p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; }")
			p.checkFailure("GET /x", tt.status, tt.log, "http://"+b.addr+"/x")
		})
	}
}

// TestUpstreamUnreachable is TestUpstreamLog for servers that do not answer.
func TestUpstreamUnreachable(t *testing.T) {
	t.Parallel()
	dead := closedPort(t)
	p := newProxyTest(t, "upstream down { server 127.0.0.1:1 down; server 127.0.0.1:2 down; } upstream dead { server "+dead+"; server "+dead+"; }", `
		location /refused { proxy_pass http://`+dead+`; }
		location /unix { proxy_pass http://unix:/nonexistent/socket; }
		location /down { proxy_pass http://down; }
		location /dead { proxy_pass http://dead; }
		location /var { proxy_pass http://$arg_h; }`)
	const connecting = " while connecting to upstream"
	for _, tt := range []struct {
		uri           string
		status        int
		log, upstream string
	}{
		{"/refused", 502, "connect() failed (111: Connection refused)" + connecting, "http://" + dead + "/refused"},
		{"/unix", 502, "connect() to unix:/nonexistent/socket failed (2: No such file or directory)" + connecting, "http://unix:/nonexistent/socket:/unix"},
		{"/down", 502, "no live upstreams" + connecting, "http://down/down"},
		{"/dead", 502, "upstream server temporarily disabled" + connecting, "http://" + dead + "/dead"},
		{"/dead", 502, "no live upstreams" + connecting, "http://dead/dead"},
		{"/var?h=", 500, `invalid URL prefix in "http://"`, ""},
		{"/var?h=a.b", 502, "no resolver defined to resolve a.b", ""},
		{"/var?h=127.0.0.1:x", 500, `invalid port in upstream "127.0.0.1:x"`, ""},
	} {
		p.checkFailure("GET "+tt.uri, tt.status, tt.log, tt.upstream)
	}
}

// checkFailure sends a request and looks for its line in the error log.
func (p *proxyTest) checkFailure(request string, status int, log, upstream string) {
	p.t.Helper()
	x, s := p.exchange(request, "Host: example.com")
	defer x.release()
	x.client.peerName = "192.0.2.7"
	p.do(x)
	line := log + `, client: 192.0.2.7, server: example.com, request: "` + request + `", `
	if upstream != "" {
		line += `upstream: "` + upstream + `", `
	}
	line += "host: \"example.com\"\n"
	if s.status != status || !strings.Contains(p.logged(), line) {
		p.t.Errorf("%s: %d, want %d\nlog  %s\nwant %s", request, s.status, status, p.logged(), line)
	}
	if s.ended && strings.HasSuffix(log, " while reading upstream") {
		p.t.Errorf("%s: the answer looks complete", request)
	}
}
