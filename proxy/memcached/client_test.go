package memcached

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// answering is a connection that an answer comes from.
type answering struct {
	net.Conn
	io.Reader
}

func (a answering) Read(p []byte) (int, error) { return a.Reader.Read(p) }

// notes are what the log is told.
type notes struct{ missing, trailer int }

func (n *notes) Missing()    { n.missing++ }
func (n *notes) BadTrailer() { n.trailer++ }

// TestValues: answers however they come.
func TestValues(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: "
	for answer, want := range map[string]string{
		"VALUE k 0 5\r\nhello\r\nEND\r\n":            ok + "5\r\n\r\nhello",
		"VALUE k 2 0\r\n\r\nEND\r\n":                 ok + "0\r\nContent-Encoding: gzip\r\n\r\n",
		"END\r\n":                                    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"VALUE k 0 5\nhello":                         `memcached sent invalid response: "VALUE k 0 5"`,
		"VALUE other 0 5\r\n":                        `memcached sent invalid key in response "VALUE other 0 5" for key "k"`,
		"VALUE k 0\r\n":                              `memcached sent invalid response: "VALUE k 0"`,
		"VALUE k 0 -1\r\n":                           `memcached sent invalid length in response "VALUE k 0 -1" for key "k"`,
		"VALUE k x 1\r\n":                            `memcached sent invalid flags in response "VALUE k x 1" for key "k"`,
		"VALUE k 0 9223372036854775807\r\n":          `memcached sent invalid length in response "VALUE k 0 9223372036854775807" for key "k"`,
		"SERVER_ERROR out of memory\r\n":             `memcached sent invalid response: "SERVER_ERROR out of memory"`,
		"VALUE k 0 " + strings.Repeat("1", 200) + "": "upstream sent too big header",
	} {
		for _, slow := range []bool{false, true} {
			var in io.Reader = strings.NewReader(answer)
			if slow {
				in = iotest.OneByteReader(in)
			}
			v := &values{Conn: answering{Reader: in}, Request: Request{Key: []byte("k"), Gzip: 2, Limit: 100, Log: &notes{}}}
			b, err := io.ReadAll(v)
			got := string(b)
			if err != nil {
				got += err.Error()
			}
			if got != want {
				t.Errorf("%q: %q, want %q", answer, got, want)
			}
		}
	}
}

// FuzzValues: no answer gives more of a value than it announces.
func FuzzValues(f *testing.F) {
	f.Add("VALUE k 0 5\r\nhello\r\nEND\r\n")
	f.Add("END\r\n")
	f.Fuzz(func(t *testing.T, answer string) {
		v := &values{Conn: answering{Reader: strings.NewReader(answer)}, Request: Request{Key: []byte("k"), Limit: 100, Log: &notes{}}}
		b, _ := io.ReadAll(v)
		if v.left < 0 || len(b) > len(answer)+100 {
			t.Errorf("%q: %q", answer, b)
		}
		v.finish()
	})
}
