package http2

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/head"
	"proxyctl/proxy/sock"
)

// script is a connection whose client has said everything.
type script struct {
	net.Conn
	in    *bytes.Reader
	piece int // most bytes of one read
}

func (s *script) Read(p []byte) (int, error)     { return s.in.Read(p[:min(len(p), s.piece)]) }
func (*script) Write(p []byte) (int, error)      { return len(p), nil }
func (*script) Close() error                     { return nil }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// FuzzConn: whatever a client says, the connection ends and everything is given
// back.
func FuzzConn(f *testing.F) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/"},
		{Name: ":authority", Value: "a"},
		{Name: "cookie", Value: "a=b"},
	} {
		_ = enc.WriteField(h)
	}
	block := b.Bytes()
	frame := func(kind, flags uint8, id uint32, p string) string {
		return string(appendHeader(nil, len(p), kind, flags, id)) + p
	}
	for _, frames := range []string{
		frame(frameSettings, 0, 0, "\x00\x04\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00") + frame(frameHeaders, 5, 1, string(block)),
		frame(frameHeaders, 4, 1, string(block)) + frame(frameData, flagPadded, 1, "\x01ab") + frame(frameHeaders, 5, 1, "\x00\x01a\x01b"),
		frame(frameHeaders, flagPriority, 1, "\x00\x00\x00\x00\x10"+string(block[:3])) + frame(frameContinuation, 4, 1, string(block[3:])) + frame(frameReset, 0, 1, "\x00\x00\x00\x08"),
		frame(framePing, 0, 0, "01234567") + frame(frameWindow, 0, 0, "\x00\x00\x00\x01") + frame(frameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00"),
	} {
		f.Add([]byte(frames), 1<<14)
		f.Add([]byte(frames), 1)
	}
	sweeper := sock.NewSweeper()
	workers := new(Workers)
	f.Fuzz(func(_ *testing.T, frames []byte, piece int) {
		cfg := testConfig()
		cfg.Workers, cfg.SendTimeout = workers, 0
		nc := &script{in: bytes.NewReader(append([]byte(Preface), frames...)), piece: max(1, piece)}
		s := sock.New(nc, sweeper)
		NewConn(s, s, cfg, func(s *Stream) {
			_, err := readAll(s)
			if err != nil && err != head.ErrGone && err != head.ErrShort && err != head.ErrLong && err != io.EOF && err != os.ErrDeadlineExceeded {
				panic(err)
			}
			_ = s.WriteHead(AppendStatus(nil, 200), false)
			_ = s.WriteData(s.Req.Line, 3, true)
		}, func(string) {}).Serve(nil)
	})
}
