package http1

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

var testLimits = Limits{Line: 8 << 10, Head: 32 << 10, Fields: 100}

// crlf writes heads with plain line ends.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// TestRequest holds the parser against what nginx answers to the same bytes;
// where it is stricter the name says so.
func TestRequest(t *testing.T) {
	long := strings.Repeat("a", 9<<10)
	for _, tt := range []struct {
		name, head string
		status     int // 0: accepted
	}{
		{"plain", "GET / HTTP/1.1\nHost: a\n\n", 0},
		{"1.0 without host", "GET / HTTP/1.0\n\n", 0},
		{"leading line", "\nGET / HTTP/1.1\nHost: a\n\n", 0},
		{"absolute form", "GET http://a/b HTTP/1.1\nHost: c\n\n", 0},
		{"absolute form without path", "GET http://a HTTP/1.1\nHost: a\n\n", 0},
		{"spaces between the parts", "GET   /   HTTP/1.1\nHost: a\n\n", 0},
		{"method with hyphen and underscore", "M-A_B / HTTP/1.1\nHost: a\n\n", 0},
		{"tab in value", "GET / HTTP/1.1\nHost: a\nX: a\tb\n\n", 0},
		{"empty value", "GET / HTTP/1.1\nHost: a\nX:\n\n", 0},
		{"bytes above ASCII", "GET /\xe4 HTTP/1.1\nHost: a\nX: \xe4\n\n", 0},
		{"expect", "POST / HTTP/1.1\nHost: a\nContent-Length: 1\nExpect: 100-continue\n\n", 0},
		{"chunked", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n", 0},

		{"lower case method", "get / HTTP/1.1\nHost: a\n\n", 400},
		{"no method", " / HTTP/1.1\nHost: a\n\n", 400},
		{"no target", "GET HTTP/1.1\nHost: a\n\n", 400},
		{"asterisk", "OPTIONS * HTTP/1.1\nHost: a\n\n", 400},
		{"space in target", "GET /a b HTTP/1.1\nHost: a\n\n", 400},
		{"control in target", "GET /a\x01b HTTP/1.1\nHost: a\n\n", 400},
		{"delete in target", "GET /a\x7fb HTTP/1.1\nHost: a\n\n", 400},
		{"stricter: HTTP/0.9", "GET /\n", 400},
		{"HTTP/2.0", "GET / HTTP/2.0\nHost: a\n\n", 505},
		{"stricter: HTTP/1.32", "GET / HTTP/1.32\nHost: a\n\n", 505},
		{"HTTP/0.1", "GET / HTTP/0.1\nHost: a\n\n", 400},
		{"no version number", "GET / HTTP/\nHost: a\n\n", 400},
		{"no host", "GET / HTTP/1.1\n\n", 400},
		{"two hosts", "GET / HTTP/1.1\nHost: a\nHost: a\n\n", 400},
		{"space before colon", "GET / HTTP/1.1\nHost : a\n\n", 400},
		{"folded line", "GET / HTTP/1.1\nHost: a\nX: a\n b\n\n", 400},
		{"folded by tab", "GET / HTTP/1.1\nHost: a\nX: a\n\tb\n\n", 400},
		{"NUL in value", "GET / HTTP/1.1\nHost: a\nX: a\x00b\n\n", 400},
		{"stricter: control in value", "GET / HTTP/1.1\nHost: a\nX: a\x01b\n\n", 400},
		{"stricter: bare CR in value", "GET / HTTP/1.1\nHost: a\nX: a\rb\n\n", 400},
		{"line without colon", "GET / HTTP/1.1\nHost: a\nX\n\n", 400},
		{"empty name", "GET / HTTP/1.1\nHost: a\n: b\n\n", 400},
		{"length +5", "POST / HTTP/1.1\nHost: a\nContent-Length: +5\n\n", 400},
		{"length -5", "POST / HTTP/1.1\nHost: a\nContent-Length: -5\n\n", 400},
		{"length 5,5", "POST / HTTP/1.1\nHost: a\nContent-Length: 5, 5\n\n", 400},
		{"length 0x5", "POST / HTTP/1.1\nHost: a\nContent-Length: 0x5\n\n", 400},
		{"empty length", "POST / HTTP/1.1\nHost: a\nContent-Length:\n\n", 400},
		{"huge length", "POST / HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999\n\n", 400},
		{"same length twice", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 5\n\n", 400},
		{"length and chunked", "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", 400},
		{"chunked and length", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 5\n\n", 400},
		{"chunked twice", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", 400},
		{"chunked, chunked", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, chunked\n\n", 501},
		{"gzip, chunked", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n", 501},
		{"identity", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n", 501},
		{"coding with a vertical tab", "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: \vchunked\n\n", 400},
		{"chunked in 1.0", "POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n", 400},
		{"long line", "GET /" + long + " HTTP/1.1\nHost: a\n\n", 414},
		{"long field", "GET / HTTP/1.1\nHost: a\nX: " + long + "\n\n", 494},
		{"many fields", "GET / HTTP/1.1\nHost: a\n" + strings.Repeat("X: y\n", 100) + "\n", 400},
	} {
		var r Request
		head := crlf(tt.head)
		n, err := r.Parse(head, &testLimits)
		var refused *ParseError
		switch {
		case tt.status == 0 && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.status == 0 && n != len(head):
			t.Errorf("%s: %d bytes of %d", tt.name, n, len(head))
		case tt.status != 0 && (!errors.As(err, &refused) || refused.Status != tt.status):
			t.Errorf("%s: %v, want status %d", tt.name, err, tt.status)
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
		var r Request
		n, err := r.Parse(b, &testLimits)
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
		encoded := append(AppendChunkHeader(nil, max(len(b), 1)), b...)
		if len(b) == 0 {
			encoded = append(encoded, 'x')
		}
		encoded = append(encoded, "\r\n0\r\n\r\n"...)
		if back, _, err := decodeAll(encoded); err != nil || len(b) > 0 && !bytes.Equal(back, b) {
			t.Errorf("%q comes back as %q (%v)", b, back, err)
		}
	})
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
		{in: "1000000000000000\r\n", bad: true},
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
