package http1

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAppend(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{string(AppendStatusLine(nil, 200, "OK")), "HTTP/1.1 200 OK\r\n"},
		{string(AppendStatusLine(nil, 999, "")), "HTTP/1.1 999 \r\n"},
		{string(AppendField([]byte("x"), []byte("A"), []byte("b c"))), "xA: b c\r\n"},
		{string(AppendField(nil, []byte("A"), nil)), "A: \r\n"},
		{string(AppendField(nil, []byte("A\r\nB"), []byte("b\r\nC: d\x00\n\r"))), "AB: bC: d\r\n"},
		{string(AppendField(nil, []byte("A"), []byte("\r\n\r\nGET / HTTP/1.1\r\n\r\n"))), "A: GET / HTTP/1.1\r\n"},
		{string(AppendValue(nil, []byte("tab\tand \x01 stay"))), "tab\tand \x01 stay"},
		{string(AppendChunkHeader(nil, 16)), "10\r\n"},
		{string(AppendTime(nil, 784111777)), "Sun, 06 Nov 1994 08:49:37 GMT"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	for _, n := range []int64{0, 1, 9, 10, 1234567890, math.MaxInt64, -1, math.MinInt64} {
		if got := string(AppendInt(nil, n)); got != strconv.FormatInt(n, 10) {
			t.Errorf("%d: %q", n, got)
		}
		if got := string(AppendHex(nil, uint64(n))); got != strconv.FormatUint(uint64(n), 16) {
			t.Errorf("%x: %q", n, got)
		}
	}
}

func TestAppendAllocs(t *testing.T) {
	dst := make([]byte, 0, 4096)
	name, value := []byte("Content-Type"), []byte("text/plain; charset=utf-8")
	if n := testing.AllocsPerRun(100, func() {
		b := AppendStatusLine(dst, 200, "OK")
		b = AppendField(b, name, value)
		b = AppendInt(b, 12345)
		b = AppendTime(b, 784111777)
		_ = AppendChunkHeader(b, len(value))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIdentify(t *testing.T) {
	for id := Other + 1; id < idCount; id++ {
		name := headerNames[id]
		if name == "" {
			t.Fatalf("%d has no name", id)
		}
		for _, s := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := Identify([]byte(s)); got != id {
				t.Errorf("%s: %d, want %d", s, got, id)
			}
		}
		for i := range name {
			b := []byte(name)
			b[i] ^= 0x80
			if got := Identify(b); got != Other {
				t.Errorf("%q: %d", b, got)
			}
		}
		if b := []byte(name + "x"); Identify(b) == id || Identify(b[:len(name)-1]) == id {
			t.Errorf("%s: longer or shorter", name)
		}
	}
	if Identify(nil) != Other || Identify([]byte("X-Unknown")) != Other || Identify([]byte("\x0dost")) != Other {
		t.Error("unknown names have an ID")
	}
}

func TestIsToken(t *testing.T) {
	for c := range 256 {
		want := c > ' ' && c < 0x7f && !strings.ContainsRune("\"(),/:;<=>?@[\\]{}", rune(c))
		if got := IsToken([]byte{'a', byte(c)}); got != want {
			t.Errorf("%#x: %v", c, got)
		}
	}
	if IsToken(nil) {
		t.Error("nothing is a token")
	}
}

// FuzzValue: nothing that ends a line gets out, everything else does, and the
// search for control characters agrees with a plain one.
func FuzzValue(f *testing.F) {
	f.Add([]byte("plain text of more than eight bytes"))
	f.Add([]byte("a\r\nb\x00c\x7f\x80\t"))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := bytes.IndexFunc(latin(b), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
		got := control(b)
		if (got < 0) != (plain < 0) || got >= 0 && (!isControl(b[got]) || control(b[:got]) >= 0) {
			t.Errorf("%q: control character at %d", b, got)
		}
		out := AppendValue(nil, b)
		if bytes.ContainsAny(out, "\r\n\x00") {
			t.Errorf("%q becomes %q", b, out)
		}
		want := strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(string(b))
		if string(out) != want {
			t.Errorf("%q becomes %q", b, out)
		}
	})
}

// latin makes each byte a rune.
func latin(b []byte) []byte {
	var out []rune
	for _, c := range b {
		out = append(out, rune(c))
	}
	return []byte(string(out))
}

func TestInterim(t *testing.T) {
	c := upstream(t, false, says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1, false))
	var r Response
	var seen []string
	c.Begin()
	err := c.ReadResponse([]byte(get), &r, &testLimits, false, func(r *Response) {
		seen = append(seen, string(r.Line))
		for _, f := range r.Fields {
			seen = append(seen, string(f.Name)+"="+string(f.Value))
		}
	})
	if got := strings.Join(seen, "|"); err != nil || r.Status != 200 || got != "100 Continue|103 Early Hints|Link=x" {
		t.Errorf("saw %q, %v", got, err)
	}
}

// TestSweeperDate belongs to the wire: the line is what AppendTime writes.
func TestSweeperDate(t *testing.T) {
	s := serve(t, testConfig(), false, tell)
	now := time.Now().Unix()
	got := string(s.sweeper.AppendDate(nil))
	for d := range int64(3) {
		if got == string(AppendTime(nil, now-d+1)) {
			return
		}
	}
	t.Errorf("got %q", got)
}
