package http3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyctl/proxy/head"
)

// peer is a client that says what it is told.
type peer struct {
	*testing.T
	quic  *quic.Conn
	conn  *Conn
	notes chan string
	done  chan struct{}
}

func testConfig() *Config {
	return &Config{
		Streams: 16, FieldSize: 1 << 10, HeadSize: 4 << 10, Fields: 10,
		HeadTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, SendTimeout: 10 * time.Second, LingerTime: time.Second,
		Requests: 1000,
	}
}

var testCertificate = func() tls.Certificate {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}()

// begin starts a connection over loopback. The client has said nothing yet.
func begin(t *testing.T, cfg *Config, h Handler) *peer {
	t.Helper()
	qc := &quic.Config{MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: time.Minute}
	cfg.Tune(qc)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "1")
	l, err := quic.Listen(udp, &tls.Config{Certificates: []tls.Certificate{testCertificate}, NextProtos: []string{Protocol}}, qc)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{T: t, notes: make(chan string, 100), done: make(chan struct{})}
	p.quic, err = quic.DialAddr(t.Context(), l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}}, &quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	q, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.conn = NewConn(q, cfg, h, func(reason string) { p.notes <- reason })
	go func() {
		p.conn.Serve()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.quic.CloseWithError(0, "")
		<-p.done
		_ = l.Close()
		_ = udp.Close()
	})
	return p
}

// fields encodes a field section of names and values in turn.
func fields(pairs string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	words := strings.Fields(pairs)
	for i := 0; i+1 < len(words); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: words[i], Value: strings.ReplaceAll(words[i+1], "_", " ")})
	}
	return b.Bytes()
}

func frame(kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

func request(pairs string) []byte { return frame(frameHeaders, fields(pairs)) }

const get = ":method GET :scheme https :authority a :path /x "

// uni opens a stream in one direction.
func (p *peer) uni(kind uint64, b []byte) *quic.SendStream {
	p.Helper()
	s, err := p.quic.OpenUniStreamSync(p.Context())
	if err == nil {
		_, err = s.Write(append(quicvarint.Append(nil, kind), b...))
	}
	if err != nil {
		p.Fatal(err)
	}
	return s
}

// stream opens a request stream.
func (p *peer) stream(b []byte, end bool) *quic.Stream {
	p.Helper()
	s, err := p.quic.OpenStreamSync(p.Context())
	if err == nil {
		_, err = s.Write(b)
	}
	if err != nil {
		p.Fatal(err)
	}
	if end {
		_ = s.Close()
	}
	return s
}

// ask sends a request and gives the answer as text.
func (p *peer) ask(b []byte, end bool) string {
	p.Helper()
	return p.answer(p.stream(b, end))
}

// answer reads an answer: its fields, its body, and how it ended.
func (p *peer) answer(s *quic.Stream) string {
	p.Helper()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(s)
	out := ""
	for len(b) > 0 {
		kind, n, bad := quicvarint.Parse(b)
		if bad != nil {
			break
		}
		b = b[n:]
		size, n, bad := quicvarint.Parse(b)
		if bad != nil || uint64(len(b)-n) < size {
			break
		}
		payload := b[n : n+int(size)]
		b = b[n+int(size):]
		if kind == frameData {
			out += "[" + string(payload) + "]"
			continue
		}
		next := qpack.NewDecoder().Decode(payload)
		for {
			f, bad := next()
			if bad != nil {
				break
			}
			out += f.Name + "=" + f.Value + " "
		}
	}
	var reset *quic.StreamError
	var closed *quic.ApplicationError
	switch {
	case errors.As(err, &reset):
		out += fmt.Sprintf("reset %#x", int(reset.ErrorCode))
	case errors.As(err, &closed):
		out += fmt.Sprintf("closed %#x", int(closed.ErrorCode))
	case err != nil:
		out += err.Error()
	}
	return out
}

// closed waits for the end of the connection and gives its code.
func (p *peer) closed() string {
	p.Helper()
	select {
	case <-p.quic.Context().Done():
	case <-time.After(10 * time.Second):
		return "open"
	}
	var closed *quic.ApplicationError
	if err := context.Cause(p.quic.Context()); !errors.As(err, &closed) {
		return err.Error()
	}
	return fmt.Sprintf("%#x", int(closed.ErrorCode))
}

// echo answers with what was asked.
func echo(s *Stream) {
	if s.Err != nil {
		_ = s.WriteHead(AppendField(AppendStatus(AppendPrefix(nil), s.Err.Status), []byte("x-reason"), []byte(s.Err.Reason)), true)
		return
	}
	var body []byte
	buf := make([]byte, 7)
	for {
		n, err := s.ReadBody(buf)
		body = append(body, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			body = append(body, err.Error()...)
			break
		}
	}
	_ = s.WriteHead(AppendField(AppendStatus(AppendPrefix(nil), 200), []byte("X-Line"), s.Req.Line), false)
	_ = s.WriteData(body, true)
}

func TestAnswers(t *testing.T) {
	p := begin(t, testConfig(), echo)
	for _, tt := range []struct {
		name, want string
		send       []byte
	}{
		{"get", ":status=200 x-line=GET /x HTTP/3.0 ", request(get)},
		{"unknown frames", ":status=200 x-line=GET /x HTTP/3.0 ", append(frame(0x21, []byte("any")), request(get)...)},
		{"body", ":status=200 x-line=POST /x HTTP/3.0 [body of it]", slicesOf(request(":method POST :scheme https :authority a :path /x content-length 10"), frame(frameData, []byte("body of")), frame(0x21, nil), frame(frameData, nil), frame(frameData, []byte(" it")))},
		{"trailers", ":status=200 x-line=POST /x HTTP/3.0 [body]", slicesOf(request(":method POST :scheme https :authority a :path /x"), frame(frameData, []byte("body")), request("x-after y"))},
		{"short body", ":status=200 x-line=GET /x HTTP/3.0 [body" + head.ErrShort.Error() + "]", slicesOf(request(get+"content-length 10"), frame(frameData, []byte("body")))},
		{"long body", ":status=200 x-line=GET /x HTTP/3.0 [" + head.ErrLong.Error() + "]", slicesOf(request(get+"content-length 2"), frame(frameData, []byte("body")))},
		{"body in a cut frame", ":status=200 x-line=GET /x HTTP/3.0 [" + "bo" + head.ErrGone.Error() + "]", slicesOf(request(get), []byte{frameData, 5}, []byte("bo"))},
		{"no method", `:status=400 x-reason=client sent no ":method" header `, request(":scheme https :authority a :path /x")},
		{"upper case", `:status=400 x-reason=client sent invalid header name: "X" `, request(get + "X y")},
		{"connection field", `:status=400 x-reason=client sent "Connection" header `, request(get + "connection close")},
		{"other pseudo field", `:status=400 x-reason=client sent unknown pseudo-header ":status" `, request(get + ":status 200")},
		{"many fields", ":status=494 x-reason=client sent too many header lines ", request(get + strings.Repeat("a b ", 11))},
		{"large head", ":status=494 x-reason=client sent too large header ", request(get + strings.Repeat("a "+strings.Repeat("b", 1000)+" ", 5))},
		{"huge head", ":status=494 x-reason=client sent too large header ", append(quicvarint.Append([]byte{frameHeaders}, 1<<20), 0)},
		{"length", `:status=400 x-reason=client prematurely closed stream `, request(get + "content-length 10")},
		{"cut head", ":status=400 x-reason=client prematurely closed connection ", request(get)[:9]},
		{"nothing", "reset 0x102", nil},
		{"data first", "reset 0x105", frame(frameData, []byte("x"))},
		{"settings", "reset 0x105", frame(frameSettings, nil)},
		{"empty head", "reset 0x106", frame(frameHeaders, nil)},
		{"no such entry", "reset 0x200", frame(frameHeaders, []byte{0, 0, 0x80})},
		{"no such static entry", "reset 0x200", frame(frameHeaders, []byte{0, 0, 0xff, 100})},
		{"long field", "reset 0x107", request(get + "a " + strings.Repeat("b", 2000))},
		{"goaway in the body", "reset 0x105", slicesOf(request(get), frame(frameGoAway, []byte{0}))},
		{"data behind trailers", "reset 0x105", slicesOf(request(get), request("a b"), frame(frameData, nil))},
		{"bad trailers", "reset 0x101", slicesOf(request(get), request(":path /"))},
	} {
		if got := p.ask(tt.send, true); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestMistakes: what a client says about the connection must be right.
func TestMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"no settings":    {func(p *peer) { p.uni(streamControl, frame(frameGoAway, []byte{0})) }, "0x10a"},
		"settings again": {func(p *peer) { p.uni(streamControl, slicesOf(frame(frameSettings, nil), frame(frameSettings, nil))) }, "0x105"},
		"data":           {func(p *peer) { p.uni(streamControl, slicesOf(frame(frameSettings, nil), frame(frameData, nil))) }, "0x105"},
		"cancelled push": {func(p *peer) {
			p.uni(streamControl, slicesOf(frame(frameSettings, nil), frame(frameCancelPush, []byte{0})))
		}, "0x108"},
		"setting twice":     {func(p *peer) { p.uni(streamControl, frame(frameSettings, []byte{1, 0, 1, 0})) }, "0x109"},
		"setting of HTTP/2": {func(p *peer) { p.uni(streamControl, frame(frameSettings, []byte{2, 0})) }, "0x109"},
		"cut setting":       {func(p *peer) { p.uni(streamControl, frame(frameSettings, []byte{1})) }, "0x109"},
		"two controls":      {func(p *peer) { p.uni(streamControl, frame(frameSettings, nil)); p.uni(streamControl, nil) }, "0x103"},
		"another stream":    {func(p *peer) { p.uni(0x21, nil) }, "0x103"},
		"closed control":    {func(p *peer) { _ = p.uni(streamControl, frame(frameSettings, nil)).Close() }, "0x104"},
		"acknowledged":      {func(p *peer) { p.uni(streamDecoder, []byte{0x81}) }, "0x202"},
		"large table":       {func(p *peer) { p.uni(streamEncoder, head.AppendInt(nil, 0x20, 5, tableSize+1)) }, "0x201"},
		"no capacity":       {func(p *peer) { p.uni(streamEncoder, []byte("\x41a\x01b")) }, "0x201"},
		"duplicate of none": {func(p *peer) { p.uni(streamEncoder, []byte{0}) }, "0x201"},
		"name of none":      {func(p *peer) { p.uni(streamEncoder, []byte{0x80, 0}) }, "0x201"},
		"too long in table": {func(p *peer) { p.uni(streamEncoder, head.AppendInt(nil, 0x40, 5, 1<<10+1)) }, "0x107"},
		"too many requests": {func(p *peer) {
			for range 5 {
				p.stream(request(get), true)
			}
		}, "0x107"},
		"closed after it all": {func(p *peer) { p.ask(request(get), true); p.conn.Shutdown() }, "0x100"},
		"idle":                {func(p *peer) { p.ask(request(get), true) }, "0x100"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			cfg.Requests = 2
			if name == "idle" {
				cfg.IdleTimeout = time.Millisecond
			}
			p := begin(t, cfg, echo)
			tt.say(p)
			if got := p.closed(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestDynamicTable: a section waits for the entries it needs, and what was read is
// acknowledged.
func TestDynamicTable(t *testing.T) {
	p := begin(t, testConfig(), echo)
	section := append([]byte{3, 0, 0x80, 0x81}, fields(":method GET :scheme https :authority a")[2:]...) // newest and the one before
	waiting := p.stream(frame(frameHeaders, section), true)
	enc := p.uni(streamEncoder, head.AppendInt(nil, 0x20, 5, 200))
	if _, err := enc.Write([]byte("\xc1\x02/y\x43x-y\x01z")); err != nil {
		t.Fatal(err)
	}
	// pseudo-header fields must come first
	if got, want := p.answer(waiting), ":status=400 x-reason=client sent no \":method\" header "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	section = append([]byte{3, 0}, fields(":method GET :scheme https :authority a")[2:]...)
	section = append(section, 0x81, 0x80)
	if got, want := p.ask(frame(frameHeaders, section), true), ":status=200 x-line=GET /y HTTP/3.0 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var decoder []byte
	for len(decoder) < 3 {
		s, err := p.quic.AcceptUniStream(p.Context())
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(s, b); err != nil || b[0] != streamDecoder {
			continue
		}
		for len(decoder) < 3 {
			b := make([]byte, 16)
			n, err := s.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			decoder = append(decoder, b[:n]...)
		}
	}
	if got := fmt.Sprintf("%x", decoder); got != "028084" && got != "808084" { // either the entries or the section comes first
		t.Errorf("the client was told %s", got)
	}
}

// TestGoAway: with the last request come the farewell and no more answers.
func TestGoAway(t *testing.T) {
	cfg := testConfig()
	cfg.Requests = 1
	release := make(chan struct{})
	p := begin(t, cfg, func(s *Stream) {
		<-release
		echo(s)
	})
	first := p.stream(request(get), true)
	s, err := p.quic.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{streamControl, frameSettings, 5, settingTable, 0x50, 0x00, settingBlocked, 16, frameGoAway, 1, 4}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("control stream: %x %v, want %x", got, err, want)
	}
	if got := p.ask(request(get), true); got != "reset 0x10b" {
		t.Errorf("a late request: %q", got)
	}
	close(release)
	if got, want := p.answer(first), ":status=200 x-line=GET /x HTTP/3.0 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := p.closed(); got != "0x100" {
		t.Errorf("closed with %s", got)
	}
}

// TestWatch: a handler that waits learns that its client has gone.
func TestWatch(t *testing.T) {
	gone := make(chan struct{})
	watching := make(chan struct{})
	p := begin(t, testConfig(), func(s *Stream) {
		s.Watch(func() { close(gone) })
		close(watching)
		<-gone
		s.Unwatch()
		if !s.Gone() {
			t.Error("it has not gone")
		}
		if err := s.WriteHead(AppendPrefix(nil), true); err != head.ErrGone {
			t.Errorf("written: %v", err)
		}
	})
	s := p.stream(request(get), true)
	<-watching
	s.CancelRead(0x10c)
	<-gone
}

// TestTimeouts: heads and bodies have their time.
func TestTimeouts(t *testing.T) {
	cfg := testConfig()
	cfg.HeadTimeout = 50 * time.Millisecond
	p := begin(t, cfg, func(s *Stream) {
		if s.Err != nil {
			if s.Err.Status != 408 {
				t.Errorf("status %d", s.Err.Status)
			}
			return
		}
		s.SetTimeouts(time.Millisecond, time.Second)
		if _, err := s.ReadBody(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("body: %v", err)
		}
	})
	slow := p.stream(request(get)[:5], false)
	if got := p.answer(p.stream(request(get), false)); got != "reset 0x101" {
		t.Errorf("body: %q", got)
	}
	if got := p.answer(slow); got != "reset 0x101" {
		t.Errorf("head: %q", got)
	}
}

// TestBuffered: a body that has arrived whole need not be read piece by piece.
func TestBuffered(t *testing.T) {
	p := begin(t, testConfig(), func(s *Stream) {
		b, whole := s.Buffered()
		_ = s.WriteHead(AppendLength(AppendStatus(AppendPrefix(nil), 200), int64(len(b))), false)
		_ = s.WriteData(fmt.Appendf(nil, "%v %s", whole, b), true)
	})
	if got, want := p.ask(slicesOf(request(get), frame(frameData, []byte("ab")), frame(frameData, []byte("c"))), true), ":status=200 content-length=3 [true abc]"; got != want && got != ":status=200 content-length=0 [false ]" {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestStatic holds the static table and what is written against another's.
func TestStatic(t *testing.T) {
	for i, f := range staticTable {
		section := head.AppendInt([]byte{0, 0}, indexedStatic, 6, i)
		if got, err := qpack.NewDecoder().Decode(section)(); err != nil || got.Name != string(f.Name) || got.Value != string(f.Value) {
			t.Errorf("%d: %s=%s, want %v %v", i, f.Name, f.Value, got, err)
		}
	}
	if len(staticTable) != 99 {
		t.Errorf("%d entries", len(staticTable))
	}
	section := AppendStatus(AppendPrefix(nil), 404)
	section = AppendIndexed(section, IndexServer, []byte("s"))
	section = AppendIndexed(section, IndexDate, []byte("d"))
	section = AppendIndexed(section, IndexContentType, []byte("t"))
	section = AppendIndexed(section, IndexLastModified, []byte("m"))
	section = AppendIndexed(section, IndexLocation, []byte("l"))
	section = AppendVary(AppendLength(AppendLength(section, 0), 12))
	section = AppendField(AppendStatus(section, 103), []byte("X-Long-Name"), []byte(strings.Repeat("{", 200)))
	want := ":status=404 server=s date=d content-type=t last-modified=m location=l content-length=0 content-length=12 vary=accept-encoding :status=103 x-long-name=" + strings.Repeat("{", 200) + " "
	got, next := "", qpack.NewDecoder().Decode(section)
	for {
		f, err := next()
		if err != nil {
			break
		}
		got += f.Name + "=" + f.Value + " "
	}
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
