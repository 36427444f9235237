package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// far is the upstream's side, frame by frame.
type far struct {
	*xhttp2.Framer
	conn net.Conn
}

// block encodes fields, given as name and value in turn.
func (p *far) block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func (p *far) head(id uint32, end bool, fields ...string) {
	_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndHeaders: true, EndStream: end})
}

// request reads frames up to the end of a request, and gives its head and body.
func (p *far) request() (id uint32, head, body string) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return 0, head, body
		}
		end := false
		switch f := f.(type) {
		case *xhttp2.HeadersFrame:
			id, end = f.StreamID, f.StreamEnded()
			d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { head += f.Name + ": " + f.Value + "\n" })
			_, _ = d.Write(f.HeaderBlockFragment())
		case *xhttp2.DataFrame:
			body += string(f.Data())
			end = f.StreamEnded()
			if n := uint32(len(f.Data())); n > 0 {
				_ = p.WriteWindowUpdate(0, n)
				_ = p.WriteWindowUpdate(f.StreamID, n)
			}
		}
		if end {
			return id, head, body
		}
	}
}

// talk makes a client whose other side does what serve says.
func talk(t testing.TB, serve func(p *far)) *ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	sweeper := sock.NewSweeper()
	s := sock.New(nc, sweeper)
	c := NewClientConn(s, s)
	c.SetTimeouts(5*time.Second, 5*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		preface := make([]byte, len(Preface))
		if _, err := io.ReadFull(server, preface); err != nil || string(preface) != Preface {
			return
		}
		p := &far{xhttp2.NewFramer(server, server), server}
		p.AllowIllegalWrites = true
		serve(p)
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
		sweeper.Stop()
	})
	return c
}

var limits = http1.Limits{Line: 4096, Head: 4096, Fields: 100}

// ask sends a request and reads its answer: status, fields, body, trailers.
func ask(c *ClientConn, head, body string) (string, error) {
	c.Begin()
	err := c.SendHead([]byte(head), "http", body == "")
	if err == nil && body != "" {
		var n int
		if n, err = c.SendNow([]byte(body), true); err == nil && n < len(body) {
			c.Share()
			var sending sync.WaitGroup
			sending.Go(func() { _ = c.SendLast([]byte(body[n:])) })
			defer sending.Wait()
			defer c.StopSending()
		}
	}
	if err != nil {
		return "", err
	}
	var r http1.Response
	if err := c.ReadResponse(nil, &r, &limits, strings.HasPrefix(head, "HEAD "), nil); err != nil {
		return "", err
	}
	out := http1.AppendInt(nil, int64(r.Status))
	fields := r.Fields
	for {
		for _, f := range fields {
			out = append(append(append(append(out, ' '), f.Name...), '='), f.Value...)
		}
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			fields, _ = c.Trailers(nil)
			for _, f := range fields {
				out = append(append(append(append(out, " trailer "...), f.Name...), '='), f.Value...)
			}
			return string(out), nil
		}
		if err != nil {
			return string(out), err
		}
		out, fields = append(append(out, '|'), p...), nil
	}
}

const plainGet = "GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nConnection: close\r\nTE: trailers\r\n\r\n"

func TestClientRequest(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789", 30_000)
	c := talk(t, func(p *far) {
		_ = p.WriteSettings()
		for {
			id, head, body := p.request()
			if id == 0 {
				return
			}
			p.head(id, false, ":status", "200", "x-id", string(rune('0'+id)), "head", strings.ReplaceAll(head, "\n", ";"))
			_ = p.WriteDataPadded(id, false, []byte("ok"), make([]byte, 7))
			_ = p.WriteData(id, false, nil)
			if body == big {
				_ = p.WriteData(id, false, []byte("whole"))
			}
			p.head(id, true, "x-sum", "5")
		}
	})
	got, err := ask(c, plainGet, "")
	if want := "200 x-id=1 head=:method: GET;:scheme: http;:path: /a?b;:authority: example.com;x-a: 1;te: trailers;|ok trailer x-sum=5"; got != want || err != nil {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
	if !c.Reusable() {
		t.Fatal("the connection cannot be used again")
	}
	c.Rest()
	got, err = ask(c, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n", big)
	if err != nil || !strings.Contains(got, "x-id=3") || !strings.Contains(got, "content-length: 300000") || !strings.HasSuffix(got, "|ok|whole trailer x-sum=5") {
		t.Errorf("%s, %v", got, err)
	}
}

// again does something until it fails.
func again(do func() error) {
	for err := error(nil); err == nil; {
		err = do()
	}
}

// TestClientRefuses: what is not HTTP/2 is refused, and what is cut short never
// looks complete.
func TestClientRefuses(t *testing.T) {
	t.Parallel()
	ok := func(p *far, end bool, more ...string) {
		p.head(1, end, append([]string{":status", "200"}, more...)...)
	}
	for name, tt := range map[string]struct {
		serve func(p *far)
		want  string // what came
		err   string
	}{
		"closed":       {func(*far) {}, "", "EOF"},
		"too short":    {func(p *far) { ok(p, false, "content-length", "5"); _ = p.WriteData(1, true, []byte("abc")) }, "200 content-length=5|abc", "upstream prematurely closed stream"},
		"no body":      {func(p *far) { ok(p, true, "content-length", "5") }, "200 content-length=5", "upstream prematurely closed stream"},
		"cut":          {func(p *far) { ok(p, false); _ = p.WriteData(1, false, []byte("abc")) }, "200|abc", "unexpected EOF"},
		"too long":     {func(p *far) { ok(p, false, "content-length", "2"); _ = p.WriteData(1, true, []byte("abc")) }, "200 content-length=2", "larger than indicated content length"},
		"reset":        {func(p *far) { ok(p, false); _ = p.WriteRSTStream(1, xhttp2.ErrCodeInternal) }, "200", "upstream rejected request with error 2"},
		"refused":      {func(p *far) { _ = p.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream) }, "", ErrUnprocessed.Error()},
		"gone":         {func(p *far) { _ = p.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }, "", ErrUnprocessed.Error()},
		"no status":    {func(p *far) { p.head(1, true, "a", "b") }, "", "upstream sent no :status header"},
		"two statuses": {func(p *far) { p.head(1, true, ":status", "200", ":status", "200") }, "", "upstream sent duplicate :status header"},
		"odd status":   {func(p *far) { p.head(1, true, ":status", "2000") }, "", `upstream sent invalid :status "2000"`},
		"switching":    {func(p *far) { p.head(1, true, ":status", "101") }, "", `upstream sent invalid :status "101"`},
		"only interim": {func(p *far) { p.head(1, true, ":status", "103") }, "", "upstream prematurely closed stream"},
		"upper case":   {func(p *far) { ok(p, true, "Abc", "x") }, "", "upstream sent invalid header"},
		"line end":     {func(p *far) { ok(p, true, "a", "x\r\nb: y") }, "", "upstream sent invalid header"},
		"pseudo":       {func(p *far) { ok(p, true, ":path", "/") }, "", "upstream sent invalid header"},
		"two lengths":  {func(p *far) { ok(p, true, "content-length", "1", "content-length", "1") }, "", "upstream sent invalid \"Content-Length\" header"},
		"large field":  {func(p *far) { ok(p, true, "a", strings.Repeat("b", 5000)) }, "", "upstream sent too big header"},
		"push": {func(p *far) {
			_ = p.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, "", "unexpected push promise"},
		"large frame":      {func(p *far) { ok(p, false); _ = p.WriteData(1, true, make([]byte, 1<<15)) }, "200", "too large http2 frame"},
		"unknown stream":   {func(p *far) { _ = p.WriteData(7, true, nil) }, "", "upstream sent data frame for unknown stream 7"},
		"data before head": {func(p *far) { _ = p.WriteData(1, true, nil) }, "", "unexpected http2 frame: 0"},
		"trailers go on":   {func(p *far) { ok(p, false); p.head(1, false, "a", "b") }, "200", "trailer without end stream"},
		"window":           {func(p *far) { _ = p.WriteWindowUpdate(0, 1<<31-1) }, "", "too large window update"},
		"broken block": {func(p *far) {
			_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}, "", "upstream sent header block"},
		"endless interims": {func(p *far) {
			again(func() error {
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(":status", "103"), EndHeaders: true})
			})
		}, "", "upstream sent no final response"},
		"endless pings": {func(p *far) {
			go func() { _, _ = io.Copy(io.Discard, p.conn) }()
			again(func() error { return p.WritePing(false, [8]byte{}) })
		}, "", "upstream sent too many http2 frames"},
		"endless head": {func(p *far) {
			_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: nil})
			again(func() error { return p.WriteContinuation(1, false, []byte{0x88}) })
		}, "", "upstream sent too big header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(p *far) {
				if id, _, _ := p.request(); id != 0 {
					tt.serve(p)
				}
			})
			got, err := ask(c, plainGet, "")
			if err == nil || got != tt.want || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %s", got, err, tt.want, tt.err)
			}
			if c.Reusable() {
				t.Error("the connection is used again")
			}
		})
	}
}

// TestClientEarly: an answer ends a body for which there is no room.
func TestClientEarly(t *testing.T) {
	t.Parallel()
	c := talk(t, func(p *far) {
		for {
			if f, err := p.ReadFrame(); err != nil || f.Header().Type == xhttp2.FrameHeaders {
				break
			}
		}
		p.head(1, true, ":status", "413")
		_, _ = io.Copy(io.Discard, p.conn)
	})
	got, err := ask(c, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", strings.Repeat("x", 1<<20))
	if got != "413" || err != nil || c.Reusable() {
		t.Errorf("%q, %v, reusable %v", got, err, c.Reusable())
	}
}

// TestClientHead: an answer to HEAD has a length and no body.
func TestClientHead(t *testing.T) {
	t.Parallel()
	c := talk(t, func(p *far) {
		id, _, _ := p.request()
		p.head(id, true, ":status", "200", "content-length", "10")
	})
	if got, err := ask(c, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", ""); got != "200 content-length=10" || err != nil || !c.Reusable() {
		t.Errorf("%q, %v", got, err)
	}
}

// TestClientReadBody reads in pieces of any size.
func TestClientReadBody(t *testing.T) {
	t.Parallel()
	want := strings.Repeat("0123456789", 5000)
	c := talk(t, func(p *far) {
		id, _, _ := p.request()
		p.head(id, false, ":status", "200", "content-length", "50000")
		for b := []byte(want); len(b) > 0; b = b[1000:] {
			_ = p.WriteDataPadded(id, len(b) == 1000, b[:1000], make([]byte, 3))
		}
	})
	c.Begin()
	if err := c.SendHead([]byte(plainGet), "https", true); err != nil {
		t.Fatal(err)
	}
	var r http1.Response
	if err := c.ReadResponse(nil, &r, &limits, false, nil); err != nil || r.ContentLength != 50000 {
		t.Fatal(r.ContentLength, err)
	}
	var got []byte
	for size := 1; ; size = size%97 + 1 {
		p := make([]byte, size)
		n, err := c.ReadBody(p)
		got = append(got, p[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != want || !c.Reusable() {
		t.Errorf("%d bytes, reusable %v", len(got), c.Reusable())
	}
}

// TestClientBothWays: the body is sent while its answer comes, and the other
// side's own frames are answered meanwhile.
func TestClientBothWays(t *testing.T) {
	t.Parallel()
	acks := make(chan bool, 1)
	c := talk(t, func(p *far) {
		acked := false
		for begun := false; ; {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *xhttp2.PingFrame:
				acked = acked || f.IsAck() && f.Data[0] == 7
			case *xhttp2.DataFrame:
				if !begun {
					begun = true
					p.head(1, false, ":status", "200")
				}
				_ = p.WritePing(false, [8]byte{7})
				n := len(f.Data())
				_ = p.WriteData(1, false, f.Data())
				if f.StreamEnded() {
					p.head(1, true, "a", "b")
					acks <- acked
					continue
				}
				if n > 0 {
					_ = p.WriteWindowUpdate(0, uint32(n))
					_ = p.WriteWindowUpdate(1, uint32(n))
				}
			}
		}
	})
	body := strings.Repeat("0123456789", 50_000)
	got, err := ask(c, "POST / HTTP/1.1\r\nHost: h\r\n\r\n", body)
	if text := strings.ReplaceAll(got, "|", ""); text != "200"+body+" trailer a=b" || err != nil {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if !<-acks {
		t.Error("pings are not answered")
	}
}

// TestClientCancel: a request that is given up is reset.
func TestClientCancel(t *testing.T) {
	t.Parallel()
	reset := make(chan xhttp2.ErrCode, 1)
	c := talk(t, func(p *far) {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				close(reset)
				return
			}
			switch f := f.(type) {
			case *xhttp2.HeadersFrame:
				p.head(1, false, ":status", "200")
			case *xhttp2.RSTStreamFrame:
				reset <- f.ErrCode
				return
			}
		}
	})
	c.Begin()
	if err := c.SendHead([]byte(plainGet), "http", false); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	var r http1.Response
	if err := c.ReadResponse(nil, &r, &limits, false, nil); err != nil {
		t.Fatal(err)
	}
	c.Abort()
	if _, err := c.Next(); err == nil {
		t.Error("nothing wakes who waits")
	}
	_ = c.Close()
	if code := <-reset; code != xhttp2.ErrCodeCancel {
		t.Errorf("code %d", code)
	}
}

// TestClientRoom: waiting for room ends with the answer, in time, or when the
// connection does.
func TestClientRoom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(c *ClientConn)
		want error
	}{
		"stopped": {(*ClientConn).StopSending, ErrAnswered},
		"aborted": {(*ClientConn).Abort, net.ErrClosed},
		"late":    {func(*ClientConn) {}, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := talk(t, func(p *far) { _, _ = io.Copy(io.Discard, p.conn) })
			c.SetTimeouts(5*time.Second, 200*time.Millisecond)
			c.Begin()
			if err := c.SendHead([]byte(plainGet), "http", false); err != nil {
				t.Fatal(err)
			}
			c.Share()
			sent := make(chan error, 1)
			go func() { sent <- c.SendLast(make([]byte, 1<<20)) }()
			tt.end(c)
			if err := <-sent; !errors.Is(err, tt.want) && !errors.Is(err, sock.ErrAborted) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// FuzzBothWays: whatever an upstream sends while it gets a body, both ways end.
func FuzzBothWays(f *testing.F) {
	frame := func(kind, flags byte, payload string) string {
		return string(appendHeader(nil, len(payload), kind, flags, 1)) + payload
	}
	room := frame(frameWindow, 0, "\x00\x00\x40\x00")
	f.Add([]byte(frame(frameHeaders, flagEndHeaders, "\x88") + room + frame(frameData, 0, "ab") + room + frame(frameHeaders, flagEndHeaders|flagEndStream, "\x00\x01a\x01b")))
	f.Add([]byte(frame(frameSettings, 0, "\x00\x04\x00\x00\x00\x01") + frame(framePing, 0, "01234567") + frame(frameHeaders, flagEndHeaders|flagEndStream, "\x88")))
	f.Add([]byte(frame(frameHeaders, flagEndHeaders, "\x88") + frame(frameReset, 0, "\x00\x00\x00\x00")))
	f.Add([]byte(frame(frameGoAway, 0, "\x00\x00\x00\x00\x00\x00\x00\x00")))
	body := strings.Repeat("0123456789", 10_000)
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := talk(t, func(p *far) {
			drained := make(chan struct{})
			go func() {
				_, _ = io.Copy(io.Discard, p.conn)
				close(drained)
			}()
			_, _ = p.conn.Write(answer)
			_ = p.conn.(*net.TCPConn).CloseWrite()
			<-drained
		})
		got, err := ask(c, plainGet, body)
		if err == nil && (len(got) < 3 || !c.stream.ended) {
			t.Errorf("%q is taken for whole", got)
		}
		_ = c.Close()
	})
}

// FuzzClient: whatever an upstream sends, a request ends, and an answer that is
// not whole is an error.
func FuzzClient(f *testing.F) {
	frame := func(kind, flags byte, payload string) string {
		return string(appendHeader(nil, len(payload), kind, flags, 1)) + payload
	}
	f.Add([]byte(frame(frameHeaders, flagEndHeaders|flagEndStream, "\x88")))
	f.Add([]byte(frame(frameSettings, 0, "") + frame(frameHeaders, flagEndHeaders, "\x88") + frame(frameData, flagEndStream|flagPadded, "\x01ab\x00")))
	f.Add([]byte(frame(frameHeaders, 0, "\x88") + frame(frameContinuation, flagEndHeaders, "\x00\x01a\x01b") + frame(frameWindow, 0, "\x00\x00\x00\x01")))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := talk(t, func(p *far) { _, _ = p.conn.Write(answer) })
		got, err := ask(c, plainGet, "")
		if err == nil && (len(got) < 3 || !c.stream.ended) {
			t.Errorf("%q is taken for whole", got)
		}
	})
}
