package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

var testLimits = Limits{Line: 8 << 10, Head: 32 << 10, Fields: 100}

// crlf writes heads with plain line ends.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// requests are held against what nginx answers to the same bytes, as TestNginx
// records it.
var requests = []struct {
	name, head string
	status     int    // 0: accepted
	nginx      int    // when it is another; 200: accepted
	reason     string // for the log
}{
	{name: "plain", head: "GET / HTTP/1.1\nHost: a\n\n"},
	{name: "1.0 without host", head: "GET / HTTP/1.0\n\n"},
	{name: "leading lines", head: "\n\n\nGET / HTTP/1.1\nHost: a\n\n"},
	{name: "many leading lines", head: strings.Repeat("\n", 2000) + "GET / HTTP/1.1\nHost: a\n\n"},
	{name: "bare LF", head: "\r\nGET / HTTP/1.1\nHost: a\nX: y\n\n"},
	{name: "absolute form", head: "GET http://a/b HTTP/1.1\nHost: c\n\n"},
	{name: "absolute form without path", head: "GET http://a HTTP/1.1\nHost: a\n\n"},
	{name: "absolute form with a query", head: "GET http://a?b=/c HTTP/1.1\nHost: a\n\n"},
	{name: "absolute form with a port", head: "GET HTTP://a:80/b HTTP/1.1\nHost: a\n\n"},
	{name: "absolute form with an empty port", head: "GET http://a:/b HTTP/1.1\nHost: a\n\n"},
	{name: "absolute form with an address", head: "GET http://[::1]:80/b HTTP/1.1\nHost: a\n\n"},
	{name: "absolute form with another scheme", head: "GET x+y-z.1://a/b HTTP/1.1\nHost: a\n\n"},
	{name: "spaces between the parts", head: "GET   /   HTTP/1.1  \nHost: a\n\n"},
	{name: "method with hyphen and underscore", head: "M-A_B / HTTP/1.1\nHost: a\n\n"},
	{name: "tab in value", head: "GET / HTTP/1.1\nHost: a\nX: a\tb\t\n\n"},
	{name: "empty value", head: "GET / HTTP/1.1\nHost: a\nX:\nY:   \n\n"},
	{name: "bytes above ASCII", head: "GET /\xe4 HTTP/1.1\nHost: a\nX: \xe4\n\n"},
	{name: "odd names", head: "GET / HTTP/1.1\nHost: a\nX_Y: z\nX(Y: z\n\xe4: z\n\"/: z\n\n"},
	{name: "expect", head: "GET / HTTP/1.1\nHost: a\nExpect: 100-continue\n\n", nginx: 100},
	{name: "length with zeros", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 0000000000000000000000000000000\n\n"},
	{name: "chunked", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked \n\n0\n\n"},
	{name: "HTTP/1.2", head: "GET / HTTP/1.2\nHost: a\n\n"},
	{name: "host with absolute form", head: "GET http://a/ HTTP/1.1\nHost: b\n\n"},
	{name: "long line that fits", head: "GET /" + strings.Repeat("a", 8192-16) + " HTTP/1.1\nHost: a\n\n"},
	{name: "long field that fits", head: "GET / HTTP/1.1\nHost: a\nX: " + strings.Repeat("a", 8192-5) + "\n\n"},
	{name: "as many fields as may be", head: "GET / HTTP/1.1\nHost: a\n" + strings.Repeat("X: y\n", 99) + "\n"},

	{name: "lower case method", head: "get / HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid method"},
	{name: "TLS", head: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", status: 400, reason: "client sent invalid method"},
	{name: "HTTP/2 preface", head: "PRI * HTTP/2.0\n\nSM\n\n", status: 400, reason: "client sent invalid request"},
	{name: "no method", head: " / HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid method"},
	{name: "tab after the method", head: "GET\t/ HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid method"},
	{name: "method alone", head: "GET\nHost: a\n\n", status: 400, reason: "client sent invalid method"},
	{name: "no target", head: "GET HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "asterisk", head: "OPTIONS * HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "relative target", head: "GET a HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "space in target", head: "GET /a b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "control in target", head: "GET /a\x01b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "tab in target", head: "GET /a\tb HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "delete in target", head: "GET /a\x7fb HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "NUL in target", head: "GET /a\x00b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "CR in target", head: "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, reason: "client sent invalid request"},
	{name: "CR before the method", head: "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", status: 400, nginx: 200},
	{name: "CR CR LF after the version", head: "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", status: 400, reason: "client sent invalid request"},
	{name: "absolute form without host", head: "GET http:///b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid host in request line"},
	{name: "absolute form with user", head: "GET http://u@a/b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "absolute form with underscore", head: "GET http://a_b/ HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "absolute form with a fragment", head: "GET http://a#b HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "absolute form with a bad port", head: "GET http://a:8x/ HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "one slash", head: "GET http:/a HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "CONNECT without port", head: "CONNECT a HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "CONNECT with an empty port", head: "CONNECT a: HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "CONNECT with a path", head: "CONNECT a:1/ HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "CONNECT with a slash", head: "CONNECT / HTTP/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "HTTP/0.9", head: "GET /\n\n", status: 400, nginx: 200},
	{name: "HTTP/2.0", head: "GET / HTTP/2.0\nHost: a\n\n", status: 505, reason: "client sent invalid version"},
	{name: "HTTP/10.1", head: "GET / HTTP/10.1\nHost: a\n\n", status: 505, reason: "client sent invalid version"},
	{name: "HTTP/1.32", head: "GET / HTTP/1.32\nHost: a\n\n", status: 400, nginx: 200},
	{name: "HTTP/1.10", head: "GET / HTTP/1.10\nHost: a\n\n", status: 400, nginx: 200},
	{name: "HTTP/01.1", head: "GET / HTTP/01.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "HTTP/0.1", head: "GET / HTTP/0.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "HTTP/1.x", head: "GET / HTTP/1.x\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "HTTP/1.", head: "GET / HTTP/1. \nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "HTTP/1", head: "GET / HTTP/1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "no version number", head: "GET / HTTP/\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "http/1.1", head: "GET / http/1.1\nHost: a\n\n", status: 400, reason: "client sent invalid request"},
	{name: "more after the version", head: "GET / HTTP/1.1 x\nHost: a\n\n", status: 400, reason: "client sent invalid request"},

	{name: "no host", head: "GET / HTTP/1.1\n\n", status: 400, reason: "client sent HTTP/1.1 request without \"Host\" header"},
	{name: "no host with absolute form", head: "GET http://a/ HTTP/1.1\n\n", status: 400, reason: "client sent HTTP/1.1 request without \"Host\" header"},
	{name: "two hosts", head: "GET / HTTP/1.1\nHost: a\nhOST: b\n\n", status: 400, reason: "client sent duplicate host header: \"hOST: b\", previous value: \"Host: a\""},
	{name: "two hosts in 1.0", head: "GET / HTTP/1.0\nHost: a\nHost: a\n\n", status: 400},
	{name: "space before colon", head: "GET / HTTP/1.1\nHost : a\n\n", status: 400, reason: "client sent invalid header line: \"Host\\x20...\""},
	{name: "tab before colon", head: "GET / HTTP/1.1\nHost: a\nX\t: a\n\n", status: 400, reason: "client sent invalid header line: \"X\\x09...\""},
	{name: "space before the first name", head: "GET / HTTP/1.1\n Host: a\n\n", status: 400, reason: "client sent invalid header line: \"\\x20...\""},
	{name: "folded line", head: "GET / HTTP/1.1\nHost: a\nX: a\n b\n\n", status: 400, reason: "client sent invalid header line: \"\\x20...\""},
	{name: "folded by tab", head: "GET / HTTP/1.1\nHost: a\nX: a\n\tb\n\n", status: 400, reason: "client sent invalid header line: \"\\x09...\""},
	{name: "NUL in value", head: "GET / HTTP/1.1\nHost: a\nX: a\x00b\n\n", status: 400, reason: "client sent invalid header line: \"X: a\\x00...\""},
	{name: "NUL in name", head: "GET / HTTP/1.1\nHost: a\nX\x00: b\n\n", status: 400, reason: "client sent invalid header line: \"X\\x00...\""},
	{name: "delete in name", head: "GET / HTTP/1.1\nHost: a\nX\x7f: b\n\n", status: 400, reason: "client sent invalid header line: \"X\\x7f...\""},
	{name: "control in value", head: "GET / HTTP/1.1\nHost: a\nX: a\x01b\n\n", status: 400, nginx: 200},
	{name: "delete in value", head: "GET / HTTP/1.1\nHost: a\nX: a\x7fb\n\n", status: 400, nginx: 200},
	{name: "bare CR in value", head: "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", status: 400},
	{name: "CR CR LF", head: "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", status: 400, nginx: 200},
	{name: "CR CR LF at the end", head: "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", status: 400},
	{name: "line without colon", head: "GET / HTTP/1.1\nHost: a\nX\n\n", status: 400, nginx: 200},
	{name: "empty name", head: "GET / HTTP/1.1\nHost: a\n: b\n\n", status: 400, reason: "client sent invalid header line: \"\\x3a...\""},

	{name: "length +5", head: "GET / HTTP/1.1\nHost: a\nContent-Length: +5\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "length -5", head: "GET / HTTP/1.1\nHost: a\nContent-Length: -5\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "length 5,5", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 5, 5\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "length 0x5", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 0x5\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "length 5 with a tab", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 5\t\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "empty length", head: "GET / HTTP/1.1\nHost: a\nContent-Length:\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "length 2^63", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 9223372036854775808\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "huge length", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999\n\n", status: 400, reason: "client sent invalid \"Content-Length\" header"},
	{name: "same length twice", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 5\n\n", status: 400, reason: "client sent duplicate header line: \"Content-Length: 5\", previous value: \"Content-Length: 5\""},
	{name: "length and chunked", head: "GET / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", status: 400, reason: "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time"},
	{name: "chunked and length", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 0\n\n", status: 400, reason: "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time"},
	{name: "chunked twice", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", status: 400, reason: "client sent duplicate header line: \"Transfer-Encoding: chunked\", previous value: \"Transfer-Encoding: chunked\""},
	{name: "chunked and identity", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n", status: 400},
	{name: "chunked, chunked", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, chunked\n\n", status: 501, reason: "client sent unknown \"Transfer-Encoding\": \"chunked, chunked\""},
	{name: "gzip, chunked", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n", status: 501},
	{name: "chunked with a parameter", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked;a=b\n\n", status: 501},
	{name: "chunked with a tab", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding:\tchunked\n\n", status: 501},
	{name: "identity and length", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\nContent-Length: 5\n\n", status: 501},
	{name: "empty coding", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding:\n\n", status: 501},
	{name: "coding with a vertical tab", head: "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: \vchunked\n\n", status: 400, nginx: 501},
	{name: "chunked in 1.0", head: "GET / HTTP/1.0\nTransfer-Encoding: chunked\n\n", status: 400, reason: "client sent HTTP/1.0 request with \"Transfer-Encoding\" header"},
	{name: "two of If-None-Match", head: "GET / HTTP/1.1\nHost: a\nIf-None-Match: a\nIf-None-Match: b\n\n", status: 400},
	{name: "two of Authorization", head: "GET / HTTP/1.1\nHost: a\nAuthorization: a\nAuthorization: b\n\n", status: 400},
	{name: "two of Expect", head: "GET / HTTP/1.1\nHost: a\nExpect: a\nExpect: b\n\n", status: 400},

	{name: "long line", head: "GET /" + strings.Repeat("a", 8192-15) + " HTTP/1.1\nHost: a\n\n", status: 414, reason: "client sent too long URI"},
	{name: "long method", head: strings.Repeat("A", 9000) + " / HTTP/1.1\nHost: a\n\n", status: 414, reason: "client sent too long URI"},
	{name: "long field", head: "GET / HTTP/1.1\nHost: a\nX: " + strings.Repeat("a", 8192-4) + "\n\n", status: 494, reason: "client sent too long header line: \"X: aaa"},
	{name: "large head", head: "GET / HTTP/1.1\nHost: a\n" + strings.Repeat("X: "+strings.Repeat("a", 8000)+"\n", 5) + "\n", status: 494, reason: "client sent too long header line: \"X: aaa"},
	{name: "many fields", head: "GET / HTTP/1.1\nHost: a\n" + strings.Repeat("X: y\n", 100) + "\n", status: 494, reason: "client sent too many header lines"},
}

// wire writes line ends as CR LF where no CR says that they are as they should
// be.
func wire(head string) []byte {
	if strings.Contains(head, "\r") {
		return []byte(head)
	}
	return crlf(head)
}

func TestRequest(t *testing.T) {
	for _, tt := range requests {
		var r Request
		head := wire(tt.head)
		n, err := r.Parse(head, &testLimits)
		var refused *ParseError
		switch {
		case tt.status == 0 && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.status == 0 && n != len(head) && !bytes.HasSuffix(head, []byte("0\r\n\r\n")):
			t.Errorf("%s: %d bytes of %d", tt.name, n, len(head))
		case tt.status != 0 && (!errors.As(err, &refused) || refused.Status != tt.status || !strings.HasPrefix(refused.Reason, tt.reason)):
			t.Errorf("%s: %v, want status %d, %s", tt.name, err, tt.status, tt.reason)
		}
	}
}

// TestNginx asks nginx, if the environment says where it is.
func TestNginx(t *testing.T) {
	binary := os.Getenv("NGINX")
	if binary == "" {
		t.Skip("NGINX is not set")
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	conf := "daemon off; master_process off; pid " + dir + "/pid; error_log " + dir + "/error.log info;\n" +
		"events {} http { access_log off; max_headers 100; server { listen " + address + "; return 200; } }"
	if err := os.WriteFile(dir+"/nginx.conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-p", dir, "-e", dir+"/error.log", "-c", dir+"/nginx.conf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, tt := range requests {
		_ = os.Truncate(dir+"/error.log", 0)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(wire(tt.head))
		_ = c.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c)
		_ = c.Close()
		status := 200
		if bytes.HasPrefix(got, []byte("HTTP/1.1 ")) {
			status, _ = strconv.Atoi(string(got[9:12]))
		}
		want := tt.nginx
		if want == 0 {
			want = max(tt.status, 200)
		}
		if want == 494 {
			want = 400 // on the wire
		}
		if status != want {
			t.Errorf("%s: nginx answers %d, recorded is %d", tt.name, status, want)
		}
		log, _ := os.ReadFile(dir + "/error.log")
		if tt.nginx == 0 && !strings.Contains(strings.ReplaceAll(string(log), "d...\"", "...\""), tt.reason) {
			t.Errorf("%s: nginx logs %.300q, recorded is %q", tt.name, log, tt.reason)
		}
	}
}

func TestRequestParts(t *testing.T) {
	var r Request
	head := crlf("POST http://Example.COM:80/a?b HTTP/1.1\nHost: x\nConnection: Keep-Alive, Upgrade\nX_Y: z\nX.Y:  z \nContent-Length: 3\n\nabc")
	n, err := r.Parse(head, &testLimits)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s|%s|%s|%s|%d|%v|%v|%v|%q", r.Method, r.Target, r.Authority, r.Path, r.ContentLength, r.KeepAlive, r.Upgrade, r.Close, head[n:])
	const want = `POST|http://Example.COM:80/a?b|Example.COM:80|/a?b|3|true|true|false|"abc"`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if f := r.Fields[2]; !f.Odd || !f.Underscore {
		t.Errorf("X_Y: %+v", f)
	}
	if f := r.Fields[3]; !f.Odd || f.Underscore || string(f.Value) != "z" {
		t.Errorf("X.Y: %+v", f)
	}
	if r.Fields[0].ID != Host || r.Fields[4].ID != ContentLength {
		t.Errorf("IDs: %+v", r.Fields)
	}
}

func TestResponse(t *testing.T) {
	for _, tt := range []struct {
		name, head string
		ok         bool
	}{
		{"plain", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", true},
		{"no reason", "HTTP/1.1 200\n\n", true},
		{"empty reason", "HTTP/1.1 200 \n\n", true},
		{"1.0", "HTTP/1.0 404 Not Found\n\n", true},
		{"odd name", "HTTP/1.1 200 OK\nX_Y: z\n\n", true},
		{"garbage", "hello\n\n", false},
		{"HTTP/2", "HTTP/2.0 200 OK\n\n", false},
		{"two digits", "HTTP/1.1 20 OK\n\n", false},
		{"four digits", "HTTP/1.1 2000 OK\n\n", false},
		{"two lengths", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", false},
		{"bad length", "HTTP/1.1 200 OK\nContent-Length: five\n\n", false},
		{"length and chunked", "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", false},
		{"unknown coding", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", false},
		{"folded", "HTTP/1.1 200 OK\nX: a\n b\n\n", false},
		{"NUL", "HTTP/1.1 200 OK\nX: a\x00\n\n", false},
		{"too big", "HTTP/1.1 200 OK\nX: " + strings.Repeat("a", 40<<10) + "\n\n", false},
	} {
		var r Response
		_, err := r.Parse(crlf(tt.head), &testLimits)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestResume: heads that come in pieces of every size, also in a buffer that moves,
// give what they give at once. A refusal may come earlier, with the same reason.
func TestResume(t *testing.T) {
	for _, tt := range requests {
		head := wire(tt.head)
		if len(head) > 3000 {
			continue
		}
		var whole Request
		n, err := whole.Parse(head, &testLimits)
		for step := 1; step < 40; step += 3 {
			var r Request
			m, got := 0, ErrMore
			buf := append([]byte(nil), head...)
			for end := step; got == ErrMore && end < len(head)+step; end += step {
				if end%7 == 0 {
					buf = append([]byte(nil), head...)
				}
				m, got = r.Parse(buf[:min(end, len(head))], &testLimits)
			}
			if m != n || fmt.Sprint(got) != fmt.Sprint(err) || err == nil && describe(&r) != describe(&whole) {
				t.Errorf("%s by %d: %d, %v, %s\nwhole: %d, %v, %s", tt.name, step, m, got, describe(&r), n, err, describe(&whole))
			}
		}
	}
}

func describe(r *Request) string {
	s := fmt.Sprintf("%s|%s|%s|%s|%s|%s|%d|%v|%v|%v|%v|%v|%d", r.Method, r.Target, r.Scheme, r.Authority, r.Path, r.Proto,
		r.ContentLength, r.Chunked, r.Close, r.KeepAlive, r.Upgrade, r.Expect100, r.HeadSize)
	for _, f := range r.Fields {
		s += fmt.Sprintf("|%s:%s:%d:%v:%v", f.Name, f.Value, f.ID, f.Odd, f.Underscore)
	}
	return s
}

// TestSplit feeds heads byte by byte: every prefix asks for more, the whole
// gives the same as at once.
func TestSplit(t *testing.T) {
	head := crlf("\nPOST /a HTTP/1.1\nHost: a\nX: y\nContent-Length: 1\n\n")
	var r Request
	for i := range head {
		if _, err := r.Parse(head[:i], &testLimits); !errors.Is(err, ErrMore) {
			t.Errorf("%q: %v", head[:i], err)
		}
	}
	if n, err := r.Parse(head, &testLimits); n != len(head) || err != nil {
		t.Errorf("whole: %d %v", n, err)
	}
}

// TestParseAllocates nothing once the field list has grown.
func TestParseAllocates(t *testing.T) {
	head := crlf("GET /path?query HTTP/1.1\nHost: example.com\nUser-Agent: test\nAccept: */*\nCookie: a=b\nConnection: keep-alive\n\n")
	var r Request
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Parse(head, &testLimits); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("request: %v allocations", n)
	}
	answer := crlf("HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 5\nConnection: keep-alive\n\n")
	var a Response
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Parse(answer, &testLimits); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("response: %v allocations", n)
	}
}

// FuzzRequest: no input panics; what is accepted has no byte that could be read
// differently further on.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\nHost: a\n\n", "POST http://a/b?c HTTP/1.0\nContent-Length: 5\n\nhello",
		"PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n", "CONNECT a:1 HTTP/1.1\nHost: a\n\n", "\n\n\nGET",
	} {
		f.Add(crlf(s))
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, half Request
		n, err := r.Parse(b, &testLimits)
		m, halfErr := half.Parse(b[:len(b)/2], &testLimits)
		if halfErr == ErrMore {
			m, halfErr = half.Parse(b, &testLimits)
		}
		if err != ErrMore && (m != n || (halfErr == nil) != (err == nil) || err == nil && describe(&r) != describe(&half)) {
			t.Fatalf("in halves: %d, %v, %s\nwhole: %d, %v, %s", m, halfErr, describe(&half), n, err, describe(&r))
		}
		if err != nil {
			return
		}
		if n <= 0 || n > len(b) {
			t.Fatalf("%d bytes of %d", n, len(b))
		}
		if r.Chunked && r.ContentLength >= 0 {
			t.Error("two framings")
		}
		if bytes.ContainsAny(r.Target, " \r\n\x00") {
			t.Errorf("target %q", r.Target)
		}
		for _, field := range r.Fields {
			if len(field.Name) == 0 || bytes.ContainsAny(field.Name, ": \t\r\n\x00") || bytes.ContainsAny(field.Value, "\r\n\x00") {
				t.Errorf("field %q: %q", field.Name, field.Value)
			}
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(crlf("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"))
	f.Add(crlf("HTTP/1.0 304 x\nConnection: close\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Response
		n, err := r.Parse(b, &testLimits)
		if err == nil && (n <= 0 || n > len(b) || r.Status < 100 || r.Status > 999 || r.Chunked && r.ContentLength >= 0) {
			t.Errorf("%d bytes, %+v", n, r)
		}
	})
}

// FuzzChunked: splitting the input anywhere gives the same body, and an encoded
// body decodes to itself.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nrest"), 7)
	f.Add([]byte("5\nhello\n0\n\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		whole, used, err := decodeAll(b)
		if at >= 0 && at <= len(b) {
			var c Chunked
			body, n, err2 := decodeInto(&c, nil, b[:at])
			if err2 == nil && !c.Done() {
				var more int
				body, more, err2 = decodeInto(&c, body, b[at:])
				n += more
			}
			if !bytes.Equal(body, whole) || n != used || (err == nil) != (err2 == nil) {
				t.Errorf("split at %d: %q %d %v, whole %q %d %v", at, body, n, err2, whole, used, err)
			}
		}
		if body, n, ok := naive(b); ok && (err != nil || !bytes.Equal(body, whole) || n != used) {
			t.Errorf("%q %d %v, naively %q %d", whole, used, err, body, n)
		}
		if len(b) == 0 {
			return
		}
		encoded := append(append(AppendChunkHeader(nil, len(b)), b...), "\r\n0\r\n\r\n"...)
		if back, n, err := decodeAll(encoded); err != nil || n != len(encoded) || !bytes.Equal(back, b) {
			t.Errorf("%q comes back as %q (%v)", b, back, err)
		}
	})
}

// naive decodes a chunked body without extensions and trailers.
func naive(b []byte) (body []byte, used int, ok bool) {
	for at := 0; ; {
		line, _, found := bytes.Cut(b[at:], []byte("\r\n"))
		if !found || len(line) == 0 || len(line) > 8 {
			return nil, 0, false
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return nil, 0, false
		}
		at += len(line) + 2
		if len(b)-at < int(size)+2 || string(b[at+int(size):at+int(size)+2]) != "\r\n" {
			return nil, 0, false
		}
		body = append(body, b[at:at+int(size)]...)
		at += int(size) + 2
		if size == 0 {
			return body, at, true
		}
	}
}

func decodeAll(b []byte) ([]byte, int, error) {
	var c Chunked
	return decodeInto(&c, nil, b)
}

func decodeInto(c *Chunked, body, b []byte) ([]byte, int, error) {
	total := 0
	for len(b) > 0 && !c.Done() {
		data, used, err := c.Next(b)
		body = append(body, data...)
		total += used
		b = b[used:]
		if err != nil {
			return body, total, err
		}
	}
	return body, total, nil
}

func TestChunked(t *testing.T) {
	for _, tt := range []struct {
		in, body string
		bad      bool
	}{
		{in: "5\r\nhello\r\n0\r\n\r\n", body: "hello"},
		{in: "5;a=b\r\nhello\r\n0\r\n\r\n", body: "hello"},
		{in: "5 \r\nhello\r\n0\r\n\r\n", body: "hello"},
		{in: "a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n", body: "01234567890123456789"},
		{in: "0\r\nX: y\r\n\r\n"},
		{in: "5\nhello\n0\n\n", bad: true},
		{in: "5\r\nhello0\r\n\r\n", bad: true},
		{in: "5\r\nhello\n0\r\n\r\n", bad: true},
		{in: "x\r\n", bad: true},
		{in: "\r\n", bad: true},
		{in: "-5\r\n", bad: true},
		{in: "0x5\r\n", bad: true},
		{in: "+5\r\n", bad: true},
		{in: "1000000000000000\r\n"},
		{in: "8000000000000000\r\n", bad: true},
		{in: "10000000000000000\r\n", bad: true},
		{in: "5 ;a=b\r\nhello\r\n0\r\n\r\n", body: "hello"},
		{in: "5 a\r\nhello\r\n0\r\n\r\n", bad: true},
		{in: "5\r\r\nhello\r\n0\r\n\r\n", bad: true},
		{in: "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", bad: true},
		{in: "5\r\nhello\r\n0\r\nX: y\n\r\n", bad: true},
		{in: "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n", bad: true},
		{in: "5;a=\x00\r\n", bad: true},
		{in: "5;" + strings.Repeat("a", 8<<10) + "\r\n", bad: true},
		{in: "0\r\n" + strings.Repeat("X: y\r\n", 4<<10), bad: true},
	} {
		body, _, err := decodeAll([]byte(tt.in))
		if (err != nil) != tt.bad || err == nil && string(body) != tt.body {
			t.Errorf("%.40q: %q %v", tt.in, body, err)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	head := crlf("GET /path?query HTTP/1.1\nHost: example.com\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\nAccept: */*\nAccept-Encoding: gzip\nCookie: a=b\nConnection: keep-alive\n\n")
	var r Request
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		if _, err := r.Parse(head, &testLimits); err != nil {
			b.Fatal(err)
		}
	}
}
