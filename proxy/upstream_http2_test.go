package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newHTTP2Backend is a server of the standard library that speaks HTTP/2
// without TLS.
func newHTTP2Backend(t *testing.T, h http.HandlerFunc) (addr string, conns *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = new(atomic.Int64)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: &p, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String(), conns
}

// TestHTTP2Upstream passes requests of all kinds on over HTTP/2, one after the
// other on one connection.
func TestHTTP2Upstream(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 20_000)
	addr, conns := newHTTP2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Got", fmt.Sprintf("%s %s %s %s %d %d", r.Proto, r.Method, r.Host, r.URL, r.ContentLength, len(body)))
		w.Header().Set("X-Fields", fmt.Sprint(r.Header["X-A"], r.Header["Connection"], r.Header["X-Set"]))
		if r.URL.Path == "/big" {
			_, _ = io.WriteString(w, big)
		}
		w.Header().Set("X-Sum", "5")
	})
	p := newProxyTest(t, "upstream u { server "+addr+"; keepalive 4; }", `
		proxy_http_version 2; proxy_pass_trailers on; proxy_set_header X-Set yes;
		location / { proxy_pass http://u; }
		location /stream { proxy_pass http://u; proxy_request_buffering off; }
		location /file { proxy_pass http://u; client_body_buffer_size 1k; }
		location /set { proxy_pass http://u; proxy_set_body "hello"; proxy_method PUT; proxy_set_header Host other.test; proxy_set_header X-Set yes; }
		location /none { proxy_pass http://u; proxy_pass_request_body off; }`)
	for _, tt := range []struct{ request, body, want string }{
		{"GET /a?b", "", "HTTP/2.0 GET u /a?b 0 0"},
		{"HEAD /a", "", "HTTP/2.0 HEAD u /a 0 0"},
		{"GET /big", "", "HTTP/2.0 GET u /big 0 0"},
		{"POST /a", "abc", "HTTP/2.0 POST u /a 3 3"},
		{"POST /a", big, "HTTP/2.0 POST u /a 320000 320000"},
		{"POST /file", big, "HTTP/2.0 POST u /file 320000 320000"},
		{"POST /stream", big, "HTTP/2.0 POST u /stream 320000 320000"},
		{"POST /set", "abc", "HTTP/2.0 PUT other.test /set 5 5"},
		{"POST /none", "abc", "HTTP/2.0 POST u /none 0 0"},
	} {
		x, s := p.exchange(tt.request, "Host: h", "X-A: 1", "Connection: keep-alive")
		if tt.body != "" {
			x.Req.ContentLength = int64(len(tt.body))
		}
		s.body = strings.NewReader(tt.body)
		p.do(x)
		if s.status != 200 || s.fields["x-got"] != tt.want || s.fields["x-fields"] != "[1] [] [yes]" || !s.ended && !x.isMethod("HEAD") {
			t.Errorf("%s with %d: %d %q %q\n%s", tt.request, len(tt.body), s.status, s.fields["x-got"], s.fields["x-fields"], p.logged())
		}
		if tt.request == "GET /big" && s.out.String() != big {
			t.Errorf("%d bytes of the body", s.out.Len())
		}
		if tt.request == "GET /a?b" && (len(x.Out.Trailers) != 1 || string(x.Out.Trailers[0].Value) != "5") {
			t.Errorf("trailers: %v", x.Out.Trailers)
		}
		x.release()
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTP2UpstreamGone: a kept connection that the server closes is replaced.
func TestHTTP2UpstreamGone(t *testing.T) {
	t.Parallel()
	addr, conns := newHTTP2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close") // the library says GOAWAY
		}
	})
	p := newProxyTest(t, "upstream u { server "+addr+"; }", "location / { proxy_pass http://u; proxy_http_version 2; }")
	for _, request := range []string{"GET /", "GET /last", "POST /", "GET /"} {
		x, s := p.exchange(request, "Host: h")
		p.do(x)
		if s.status != 200 {
			t.Errorf("%s: %d; %s", request, s.status, p.logged())
		}
		x.release()
		time.Sleep(5 * time.Millisecond) // GOAWAY arrives
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTP2UpstreamFails: what is no HTTP/2 gets nginx's answers.
func TestHTTP2UpstreamFails(t *testing.T) {
	t.Parallel()
	b := answering(t, "HTTP/1.1 400 Bad Request\r\n\r\n")
	p := newProxyTest(t, "", "proxy_http_version 2; location / { proxy_pass http://"+b.addr+"; }")
	x, s := p.exchange("GET /", "Host: h")
	p.do(x)
	if s.status != 502 || !strings.Contains(p.logged(), "upstream sent too large http2 frame: ") {
		t.Errorf("%d; %s", s.status, p.logged())
	}
	x.release()
}
