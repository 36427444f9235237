package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What operators look for in the error log: the messages and levels are those of
// nginx 1.31.5. Each case sends its pieces one after the other; the last may be
// "close" or "wait".
func TestClientLog(t *testing.T) {
	const (
		head   = "Host: a.test\r\n\r\n"
		about  = `, client: unix:, server: a.test, request: "`
		after  = ` HTTP/1.1", host: "a.test"`
		silent = ", client: unix:, server: unix:%dir%/s"
	)
	for _, tt := range []struct {
		name, request, end, log string
	}{
		{"nothing", "", "close", "[info] client closed connection while waiting for request" + silent},
		{"nothing in time", "", "wait", "[info] client timed out (110: Connection timed out) while waiting for request" + silent},
		{"half a line", "GET / HT", "close", "[info] client prematurely closed connection while reading client request line" + about + `GET / HT"`},
		{"half a line in time", "GET / HT", "wait", "[info] client timed out (110: Connection timed out) while reading client request line" + about + `GET / HT"`},
		{"half a head", "GET / HTTP/1.1\r\nHost: a.te", "close", "[info] client prematurely closed connection while reading client request headers" + about + `GET / HTTP/1.1"`},
		{"half a head in time", "GET / HTTP/1.1\r\nHost: a.test\r\n", "wait", "[info] client timed out (110: Connection timed out) while reading client request headers" + about + "GET /" + after},
		{"kept alive", "GET / HTTP/1.1\r\n" + head, "close", "[info] client unix: closed keepalive connection"},
		{"half a body", "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n" + head + "abc", "close", "[info] client prematurely closed connection" + about + "POST /echo" + after},
		{"half a chunk", "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + head + "9\r\nabc", "close", "[info] client prematurely closed connection" + about + "POST /echo" + after},
		{"bad chunk", "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + head + "x\r\n", "", "[error] client sent invalid chunked body" + about + "POST /echo" + after},
		{"bad chunk unread", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + head + "x\r\n", "", "[error] client sent invalid chunked body" + about + "POST /" + after},
		{"bad chunk streamed", "POST /stream HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + head + "x\r\n", "", "[error] client sent invalid chunked body" + about + "POST /stream" + after},
		{"large body", "POST / HTTP/1.1\r\nContent-Length: 11\r\n" + head, "", "[error] client intended to send too large body: 11 bytes" + about + "POST /" + after},
		{"large chunks", "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + head + "b\r\nhello world\r\n0\r\n\r\n", "", "[error] client intended to send too large chunked body: 0+11 bytes" + about + "POST /echo" + after},
		{"invalid field", "GET / HTTP/1.1\r\nX_Y: 1\r\n" + head, "", `[info] client sent invalid header line: "X_Y: 1" while reading client request headers` + about + "GET /" + after},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "", `[info] client sent HTTP/1.1 request without "Host" header while reading client request headers` + about + `GET / HTTP/1.1"`},
		{"invalid host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "", "[info] client sent invalid host header while reading client request headers" + about + `GET / HTTP/1.1", host: "a/b"`},
		{"invalid URI", "GET /../x HTTP/1.1\r\n" + head, "", "[info] client sent invalid request while reading client request line" + about + "GET /../x HTTP/1.1"},
		{"method", "get / HTTP/1.1\r\n" + head, "", "[info] client sent invalid method while reading client request line" + about + `get / HTTP/1.1"`},
		{"long URI", "GET /" + strings.Repeat("x", 9000), "", "[info] client sent too long URI while reading client request line" + about + "GET /xx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, `error_log logs/e.log info; events {} http { server { listen unix:%dir%/s; server_name a.test;
				client_header_timeout 100ms; client_body_timeout 100ms; client_max_body_size 10;
				location / { return 200 x; } location /echo { proxy_pass http://unix:%dir%/none; }
				location /stream { proxy_request_buffering off; proxy_pass http://unix:%dir%/none; } } }`)
			c := r.dial("s")
			defer c.Close()
			_, _ = io.WriteString(c, tt.request)
			switch tt.end {
			case "close":
				if strings.HasSuffix(tt.request, head) { // the answer comes first
					_, _ = c.Read(make([]byte, 1<<10))
				}
				time.Sleep(20 * time.Millisecond)
				_ = c.Close()
			case "wait":
				if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
					t.Errorf("answered %q, %v", b, err)
				}
			}
			r.await("logs/e.log", strings.ReplaceAll(tt.log[strings.IndexByte(tt.log, ' ')+1:], "%dir%", r.dir))
			if log := []byte(r.read("logs/e.log")); !bytes.Contains(log, []byte(tt.log[:strings.IndexByte(tt.log, ' ')])) {
				t.Errorf("level of %q in\n%s", tt.log, log)
			}
		})
	}
}

// Fields with invalid names are dropped, as the server that is known says.
func TestInvalidFields(t *testing.T) {
	r := run(t, `events {} http { server { listen unix:%dir%/s; return 200 "$http_x_y|$http_x_z"; }
		server { listen unix:%dir%/s; server_name under; underscores_in_headers on; return 200 "$http_x_y|$http_x_z"; }
		server { listen unix:%dir%/s; server_name all; ignore_invalid_headers off; return 200 "$http_x_y|$http_x_z"; } }`)
	for fields, want := range map[string]string{
		"Host: a\r\nX_Y: 1\r\nX-Z: 2\r\n":            "|2",
		"Host: under\r\nX_Y: 1\r\nX-Z: 2\r\n":        "1|2",
		"X_Y: 1\r\nHost: under\r\nX_Z: 2\r\n":        "|2",
		"Host: all\r\nX_Y: 1\r\nX.Q: 3\r\n":          "1|",
		"Host: under\r\nX_Y.: 1\r\nX-Z: 2\r\n":       "|2",
		"X_Y: 1\r\nHost: all\r\nX_Z: 2\r\nA.: 1\r\n": "|2",
	} {
		answer := r.ask("s", "GET / HTTP/1.1\r\nConnection: close\r\n"+fields+"\r\n")
		if _, body, _ := strings.Cut(answer, "\r\n\r\n"); body != want {
			t.Errorf("%q: %q, want %q", fields, body, want)
		}
	}
}

func TestResetTimedOut(t *testing.T) {
	l, err := net.Listen("tcp", unusedAddress)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	run(t, `events {} http { server { listen `+address+`; reset_timedout_connection on; client_header_timeout 100ms; client_body_timeout 100ms; tcp_nodelay off;
		location / { proxy_pass http://127.0.0.1:1; } location /closed { return 444; } location /off { reset_timedout_connection off; return 444; } } }`)
	for request, reset := range map[string]bool{
		"GET / HT": true,
		"POST / HTTP/1.0\r\nContent-Length: 9\r\n\r\nabc": true,
		"GET /closed HTTP/1.0\r\n\r\n":                    true,
		"GET /off HTTP/1.0\r\n\r\n":                       false,
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, request)
		if _, err := io.ReadAll(c); errors.Is(err, syscall.ECONNRESET) != reset {
			t.Errorf("%q: %v", request, err)
		}
		_ = c.Close()
	}
}
