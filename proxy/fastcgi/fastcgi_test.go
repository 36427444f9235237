package fastcgi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

func record(kind byte, padding int, content string) string {
	return string(appendHeader(nil, kind, len(content), padding)) + content + strings.Repeat("p", padding)
}

// script is a connection that says what it is told to.
type script struct {
	net.Conn
	r io.Reader
}

// quiet is a socket that nothing comes from.
func quiet(t *testing.T) *sock.Conn {
	t.Helper()
	a, b := net.Pipe()
	sweeper := sock.NewSweeper()
	s := sock.New(a, sweeper)
	t.Cleanup(func() {
		_, _ = s.Close(), b.Close()
		sweeper.Stop()
	})
	return s
}

func (s script) Read(p []byte) (int, error) { return s.r.Read(p) }

// heard is a log, and refuses what contains "fatal".
type heard struct{ text string }

func (h *heard) Stderr(p []byte) bool {
	h.text += string(p)
	return !bytes.Contains(p, []byte("fatal"))
}

const ok = "Content-Type: a/b\r\n\r\n"

// TestAnswers holds whole answers, read at once and byte by byte, against what
// is to come of them: the body, or the error behind it.
func TestAnswers(t *testing.T) {
	over := record(typeStdout, 0, "") + record(typeEnd, 0, "\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, test := range []struct {
		name, wire string
		keep       bool
		want       string // body, or error
		stderr     string
		reusable   bool
	}{
		{"plain", record(typeStdout, 3, ok+"body") + over, true, "body", "", true},
		{"not to keep", record(typeStdout, 0, ok+"body") + over, false, "body", "", false},
		{"records", record(typeStdout, 7, "Content-Ty") + record(typeStderr, 1, "warn") + record(typeStdout, 0, "pe: a/b\r\n\r\nbo") + record(typeStderr, 0, "ing") + record(typeStdout, 255, "dy") + over, true, "body", "warning", true},
		{"no body", record(typeStdout, 0, ok) + over, true, "", "", true},
		{"empty stderr", record(typeStderr, 0, "") + record(typeStdout, 0, ok+"x") + over, true, "x", "", true},
		{"status", record(typeStdout, 0, "Status: 204\r\n\r\nnothing") + over, true, "", "", false},
		{"length", record(typeStdout, 0, "Content-Length: 4\r\n\r\nbody") + over, true, "body", "", true},
		{"surplus", record(typeStdout, 0, "Content-Length: 3\r\n\r\nbody") + over, true, "bod", "", false},
		{"short", record(typeStdout, 0, "Content-Length: 5\r\n\r\nbody") + over, true, "upstream prematurely closed FastCGI stdout", "", false},
		{"short, no end of output", record(typeStdout, 0, "Content-Length: 5\r\n\r\nbody") + over[8:], true, "upstream prematurely closed FastCGI request", "", false},
		{"closed", record(typeStdout, 0, ok+"body"), false, "body", "", false},
		{"closed in a kept one", record(typeStdout, 0, ok+"body"), true, "body: unexpected EOF", "", false},
		{"closed before the end", record(typeStdout, 0, ok+"body") + over[:8], true, "body", "", false},
		{"closed in a record", record(typeStdout, 0, ok+"body")[:30], false, "body: unexpected EOF", "", false},
		{"closed in padding", strings.TrimSuffix(record(typeStdout, 4, ok+"body"), "p"), false, "body: unexpected EOF", "", false},
		{"more behind", record(typeStdout, 0, ok+"body") + over + "x", true, "body", "", false},
		{"nothing", "", false, "head: EOF", "", false},
		{"no output", over, true, "upstream prematurely closed FastCGI stdout", "", false},
		{"end only", over[8:], true, "upstream sent unexpected FastCGI record: 3", "", false},
		{"caught", record(typeStderr, 0, "fatal") + record(typeStdout, 0, ok+"body") + over, true, "", "fatal", false},
		{"too late to catch", record(typeStdout, 0, ok+"body") + record(typeStderr, 0, "fatal") + over, true, "body", "fatal", true},
		{"version", "\x02\x06\x00\x01\x00\x00\x00\x00", false, "upstream sent unsupported FastCGI protocol version: 2", "", false},
		{"type", "\x01\x09\x00\x01\x00\x00\x00\x00", false, "upstream sent invalid FastCGI record type: 9", "", false},
		{"id", "\x01\x06\x01\x01\x00\x00\x00\x00", false, "upstream sent unexpected FastCGI request id high byte: 1", "", false},
		{"low id", "\x01\x06\x00\x02\x00\x00\x00\x00", false, "upstream sent unexpected FastCGI request id low byte: 2", "", false},
	} {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(test.wire), "by bytes": iotest.OneByteReader(strings.NewReader(test.wire))} {
			log := &heard{}
			got, reusable := answer(t, r, test.keep, log)
			if how == "by bytes" && (test.name == "caught" || test.name == "more behind") {
				continue // what is looked for comes in one piece
			}
			if got != test.want || log.text != test.stderr || reusable != test.reusable {
				t.Errorf("%s, %s: got %q, stderr %q, reusable %v", test.name, how, got, log.text, reusable)
			}
		}
	}
}

// answer reads one answer: its body, or the error that ended it.
func answer(t *testing.T, r io.Reader, keep bool, log Log) (string, bool) {
	t.Helper()
	c := NewClientConn(script{r: r}, quiet(t))
	c.Set(keep, log)
	c.Begin()
	defer c.Rest()
	var head http1.Response
	if err := c.ReadResponse(nil, &head, &http1.Limits{Line: 4096, Head: 4096}, false, nil); err != nil {
		return text(err), c.Reusable()
	}
	var body []byte
	for {
		p, err := c.Next()
		body = append(body, p...)
		switch {
		case errors.Is(err, io.EOF):
			return string(body), c.Reusable()
		case err != nil:
			return text(err), c.Reusable()
		}
	}
}

func text(err error) string {
	var refused *http1.ParseError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return err.Error()
}

func TestRequest(t *testing.T) {
	b := AppendBegin(nil, true)
	at := len(b)
	b = AppendPair(OpenParams(b), []byte("A"), []byte("b"))
	b = AppendPair(b, []byte("LONG"), bytes.Repeat([]byte("x"), 128))
	b, _, fits := CloseParams(b, at)
	b = AppendStdin(AppendStdin(b, []byte("body"), false), nil, true)
	want := "\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00" +
		"\x01\x04\x00\x01\x00\x8d\x03\x00\x01\x01Ab\x04\x80\x00\x00\x80LONG" + strings.Repeat("x", 128) + "\x00\x00\x00\x01\x04\x00\x01\x00\x00\x00\x00" +
		"\x01\x05\x00\x01\x00\x04\x04\x00body\x00\x00\x00\x00\x01\x05\x00\x01\x00\x00\x00\x00"
	if string(b) != want || !fits {
		t.Errorf("got\n%q, %v, want\n%q", b, fits, want)
	}
	b = AppendPair(OpenParams(nil), []byte("A"), make([]byte, MaxRecord))
	if _, size, fits := CloseParams(b, 0); fits {
		t.Errorf("a record of %d bytes", size)
	}
	piece := append(make([]byte, Frame), "in place"...)
	if got := AppendStdin(piece[:0], piece[Frame:], true); string(got[8:16]) != "in place" {
		t.Errorf("got %q", got)
	}
}

// FuzzRecords reads any bytes in two ways, which must come to the same.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(record(typeStdout, 3, "abc")+record(typeStderr, 0, "x")+record(typeEnd, 1, "12345678")), uint8(3))
	f.Add([]byte("\x01\x06\x00\x01\xff\xff\xff\x00abc"), uint8(1))
	f.Fuzz(func(t *testing.T, wire []byte, size uint8) {
		read := func(step int) (string, string, error) {
			log := &heard{}
			r := &records{Conn: script{r: bytes.NewReader(wire)}, log: log}
			r.begin()
			var out []byte
			buf := make([]byte, step)
			for {
				n, err := r.Read(buf)
				out = append(out, buf[:n]...)
				if err != nil {
					return string(out), log.text, err
				}
			}
		}
		out, stderr, err := read(len(wire) + 1)
		out2, stderr2, err2 := read(int(size) + 1)
		if out != out2 || stderr != stderr2 || text(err) != text(err2) {
			t.Errorf("%q %q %v, by %d: %q %q %v", out, stderr, err, size, out2, stderr2, err2)
		}
	})
}
