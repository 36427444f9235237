package http3

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"proxyctl/proxy/head"
)

// FuzzRequest: whatever comes on the stream of a request, reading it ends, within
// the bounds, and without a panic.
func FuzzRequest(f *testing.F) {
	f.Add(slicesOf(request(get+"cookie a=b"), frame(frameData, []byte("body")), request("x y")), []byte("\x3f\xe1\x1f\x41a\x01b\x00"), 1)
	f.Add(slicesOf(frame(0x21, []byte("x")), frame(frameHeaders, append([]byte{2, 0, 0x80, 0x10, 0x40, 0}, fields(get)[2:]...))), []byte("\x3f\xe1\x1f\xc1\x02/y"), 5)
	f.Add(slicesOf(request(":method POST :scheme https :authority a :path /x content-length 3"), frame(frameData, []byte("abc"))), []byte("\x80"), 100)
	over := make(chan struct{})
	close(over)
	f.Fuzz(func(t *testing.T, b, instructions []byte, piece int) {
		c := &Conn{cfg: testConfig(), log: func(string) {}}
		c.table.fieldSize, c.table.waiters = c.cfg.FieldSize, c.cfg.Streams
		_, _ = c.table.instruct(instructions)
		if c.table.size > tableSize || len(c.table.held) > len(instructions) {
			t.Fatalf("a table of %d bytes, %d held", c.table.size, len(c.table.held))
		}
		s := &Stream{conn: c, over: over, limit: c.cfg.HeadSize}
		s.in.src = &pieces{bytes.NewReader(b), max(1, min(piece, 1<<12))}
		s.section.table = &c.table
		s.Reset(3, c.cfg.Fields)
		err := s.head()
		if err != nil {
			checkError(t, err)
			return
		}
		if err := s.Complete(false); s.Err == nil {
			s.Err = err
		}
		buf := make([]byte, 100)
		for received := 0; ; {
			n, err := s.readBody(buf)
			if received += n; received > len(b) {
				t.Fatalf("%d bytes of a body in %d", received, len(b))
			}
			if err != nil {
				checkError(t, err)
				return
			}
		}
	})
}

// pieces gives a few bytes at a time.
type pieces struct {
	*bytes.Reader
	most int
}

func (p *pieces) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.most)]) }

func checkError(t *testing.T, err error) {
	var bad *wireError
	if !errors.As(err, &bad) && err != io.EOF && err != io.ErrUnexpectedEOF && err != head.ErrGone && err != head.ErrLong {
		t.Fatal(err)
	}
}
