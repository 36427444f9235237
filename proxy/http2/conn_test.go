package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/head"
	"proxyctl/proxy/sock"
)

// peer is a client made of a framer.
type peer struct {
	*testing.T
	*xhttp2.Framer
	nc    net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	dec   *hpack.Decoder
	conn  *Conn
	notes chan string
	done  chan struct{}
}

func testConfig() *Config {
	return &Config{
		Streams: 128, Window: 64 << 10, FieldSize: 8 << 10, HeadSize: 32 << 10, Fields: 100,
		HeadTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, SendTimeout: 10 * time.Second,
		Requests: 1000, Workers: new(Workers),
	}
}

// begin starts a connection over loopback and sends the preface.
func begin(t *testing.T, cfg *Config, h Handler) *peer {
	t.Helper()
	return dial(t, false, cfg, h)
}

// dial is begin; plain hides the server's socket, as TLS does.
func dial(t *testing.T, plain bool, cfg *Config, h Handler) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if plain {
		server = struct{ net.Conn }{server}
	}
	sweeper := sock.NewSweeper()
	s := sock.New(server, sweeper)
	p := &peer{T: t, Framer: xhttp2.NewFramer(client, client), nc: client, notes: make(chan string, 1000), done: make(chan struct{})}
	p.AllowIllegalWrites, p.AllowIllegalReads = true, true
	p.enc = hpack.NewEncoder(&p.block)
	p.dec = hpack.NewDecoder(4096, nil)
	p.conn = NewConn(s, s, cfg, h, func(reason string) {
		select {
		case p.notes <- reason:
		default:
		}
	})
	go func() {
		p.conn.Serve(nil)
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = client.Close()
		<-p.done
		sweeper.Stop()
	})
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(client, Preface); err != nil {
		t.Fatal(err)
	}
	return p
}

// fields encodes a header block.
func (p *peer) fields(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		if err := p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			p.Fatal(err)
		}
	}
	return bytes.Clone(p.block.Bytes())
}

func get(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "example.com"}, more...)
}

func (p *peer) request(id uint32, end bool, pairs ...string) {
	p.Helper()
	if err := p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(pairs...), EndStream: end, EndHeaders: true}); err != nil {
		p.Fatal(err)
	}
}

// next reads the next frame but for settings and window updates, in one line.
func (p *peer) next() string {
	p.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.Fatal(err)
			}
			return "end"
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame, *xhttp2.WindowUpdateFrame:
			continue
		case *xhttp2.HeadersFrame:
			list, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				p.Fatal(err)
			}
			out := fmt.Sprintf("%d HEADERS", f.StreamID)
			for _, h := range list {
				out += " " + h.Name + "=" + h.Value
			}
			return out + ended(f.StreamEnded())
		case *xhttp2.DataFrame:
			return fmt.Sprintf("%d DATA %q", f.StreamID, f.Data()) + ended(f.StreamEnded())
		case *xhttp2.RSTStreamFrame:
			return fmt.Sprintf("%d RST_STREAM %v", f.StreamID, f.ErrCode)
		case *xhttp2.GoAwayFrame:
			return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
		case *xhttp2.PingFrame:
			return fmt.Sprintf("PING %s", f.Data[:])
		default:
			return f.Header().String()
		}
	}
}

func ended(end bool) string {
	if end {
		return " end"
	}
	return ""
}

func (p *peer) want(lines ...string) {
	p.Helper()
	for _, line := range lines {
		if got := p.next(); got != line {
			p.Errorf("got %s, want %s", got, line)
		}
	}
}

// answer is a handler that tells what it was asked.
func answer(s *Stream) {
	block := AppendStatus(nil, 200)
	text := ""
	if s.Err != nil {
		block = AppendStatus(nil, s.Err.Status)
		text = s.Err.Reason
	} else {
		body, err := readAll(s)
		text = fmt.Sprintf("%s %s", s.Req.Line, body)
		if err != nil {
			text += err.Error()
		}
	}
	_ = s.WriteHead(block, false)
	_ = s.WriteData([]byte(text), 8<<10, true)
}

func readAll(s *Stream) ([]byte, error) {
	if b, ok := s.Buffered(); ok {
		return b, nil
	}
	s.AdmitAll()
	var all []byte
	for {
		var p [4 << 10]byte
		n, err := s.ReadBody(p[:])
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), answer)
	f, err := p.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	_ = f.(*xhttp2.SettingsFrame).ForeachSetting(func(s xhttp2.Setting) error {
		got += s.String() + " "
		return nil
	})
	if want := "[MAX_CONCURRENT_STREAMS = 128] [INITIAL_WINDOW_SIZE = 65536] [MAX_FRAME_SIZE = 16777215] "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if f, _ = p.ReadFrame(); f.(*xhttp2.WindowUpdateFrame).Increment != 1<<31-1-65535 {
		t.Errorf("got %v", f)
	}
	_ = p.WritePing(false, [8]byte{'S', 'E', 'E', '-', 'T', 'H', 'I', 'S'})
	p.want("PING SEE-THIS")
}

func TestRequests(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		p := dial(t, plain, testConfig(), answer)
		p.request(1, true, get("/a")...)
		p.want("1 HEADERS :status=200", `1 DATA "GET /a HTTP/2.0 " end`)
		p.request(3, false, get("/b", "content-length", "5")...)
		_ = p.WriteData(3, false, []byte("he"))
		_ = p.WriteData(3, true, []byte("llo"))
		p.want("3 HEADERS :status=200", `3 DATA "GET /b HTTP/2.0 hello" end`)
		p.request(5, false, get("/c")...)
		_ = p.WriteDataPadded(5, false, []byte("hello"), make([]byte, 10))
		p.request(5, true, "trailer", "x")
		p.want("5 HEADERS :status=200", `5 DATA "GET /c HTTP/2.0 hello" end`)
	}
}

func TestLargeBody(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	p := begin(t, testConfig(), func(s *Stream) {
		b, err := readAll(s)
		_ = s.WriteHead(AppendStatus(nil, 200), false)
		_ = s.WriteData(fmt.Appendf(nil, "%d %v", len(b), err), 8<<10, true)
	})
	p.request(1, false, get("/")...)
	piece := make([]byte, 16<<10)
	window := 64 << 10
	for sent := 0; sent < size; sent += len(piece) {
		for window < len(piece) {
			f, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if w, ok := f.(*xhttp2.WindowUpdateFrame); ok && w.StreamID == 1 {
				window += int(w.Increment)
			}
		}
		window -= len(piece)
		_ = p.WriteData(1, sent+len(piece) == size, piece)
	}
	p.want("1 HEADERS :status=200", fmt.Sprintf(`1 DATA "%d <nil>" end`, size))
}

// TestMalformed: what is answered 400, in nginx's words and beyond them.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ fields, want string }{
		{":scheme http :path / :authority a", "client sent no :method header"},
		{":method GET :path / :authority a", "client sent no :scheme header"},
		{":method GET :scheme http :authority a", "client sent no :path header"},
		{":method GET :scheme http :path / x y", `client sent neither ":authority" nor "Host" header`},
		{":method GET :scheme http :path / x y :authority a", "client sent out of order pseudo-headers"},
		{":method GET :method GET :scheme http :path / :authority a", "client sent duplicate :method header"},
		{":method GET :scheme http :path _ :authority a", "client sent empty :path header"},
		{":method GET :scheme http :path x :authority a", `client sent invalid :path header: "x"`},
		{":method GET :scheme http :path * :authority a", `client sent invalid :path header: "*"`},
		{":method get :scheme http :path / :authority a", `client sent invalid :method header: "get"`},
		{":method GET :scheme 9 :path / :authority a", `client sent invalid :scheme header: "9"`},
		{":method GET :scheme http :path / :authority _", "client sent empty :authority header"},
		{":method GET :scheme http :path / :authority a :status 1", `client sent unknown pseudo-header ":status"`},
		{":method GET :scheme http :path / :authority a host b", `client sent ":authority" and "Host" headers with different values`},
		{":method GET :scheme http :path / :authority a X y", `client sent invalid header name: "X"`},
		{":method GET :scheme http :path / :authority a x\xc3 y", `client sent invalid header name: "x\xc3"`},
		{":method GET :scheme http :path / :authority a x:y z", `client sent invalid header name: "x:y"`},
		{":method GET :scheme http :path / :authority a x y\n", `client sent header "x" with invalid value: "y\x0a"`},
		{":method GET :scheme http :path / :authority a x y\t", `client sent header "x" with invalid value: "y\x09"`},
		{":method GET :scheme http :path / :authority a connection close", `client sent "Connection" header`},
		{":method GET :scheme http :path / :authority a keep-alive 5", `client sent "Keep-Alive" header`},
		{":method GET :scheme http :path / :authority a proxy-connection x", `client sent "Proxy-Connection" header`},
		{":method GET :scheme http :path / :authority a transfer-encoding chunked", `client sent "Transfer-Encoding" header`},
		{":method GET :scheme http :path / :authority a upgrade h2c", `client sent "Upgrade" header`},
		{":method GET :scheme http :path / :authority a te gzip", `client sent invalid "TE" header`},
		{":method GET :scheme http :path / :authority a te trailers te trailers", `client sent invalid "TE" header`},
		{":method GET :scheme http :path / :authority a content-length x", `client sent invalid "Content-Length" header`},
		{":method GET :scheme http :path / :authority a content-length 1", "client prematurely closed stream"},
		{":method GET :scheme http :path / :authority a te trailers host a content-length 0", "GET / HTTP/2.0 "},
	} {
		p := begin(t, testConfig(), answer)
		pairs := strings.Split(tt.fields, " ")
		for i := range pairs {
			if pairs[i] == "_" {
				pairs[i] = ""
			}
		}
		p.request(1, true, pairs...)
		status := "400"
		if strings.HasPrefix(tt.want, "GET") {
			status = "200"
		}
		p.want("1 HEADERS :status="+status, fmt.Sprintf("1 DATA %q end", tt.want))
		p.request(3, true, get("/")...)
		p.want("3 HEADERS :status=200", `3 DATA "GET / HTTP/2.0 " end`)
	}
}

// TestConnectionErrors: what ends the connection, and with which code.
func TestConnectionErrors(t *testing.T) {
	t.Parallel()
	head := func(size int, kind, flags uint8, id uint32) string {
		return string(appendHeader(nil, size, kind, flags, id))
	}
	request := string(AppendStatus(nil, 200)) // any block
	for _, tt := range []struct{ name, frames, want string }{
		{"PUSH_PROMISE", head(4, framePush, 0, 1) + "0000", "GOAWAY 0 PROTOCOL_ERROR"},
		{"PING size", head(7, framePing, 0, 0) + "0000000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"PING stream", head(8, framePing, 0, 1) + "00000000", "GOAWAY 0 PROTOCOL_ERROR"},
		{"SETTINGS size", head(5, frameSettings, 0, 0) + "00000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"SETTINGS ack", head(6, frameSettings, flagAck, 0) + "000000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"SETTINGS stream", head(0, frameSettings, 0, 1), "GOAWAY 0 PROTOCOL_ERROR"},
		{"SETTINGS frame size", head(6, frameSettings, 0, 0) + "\x00\x05\x00\x00\x00\x2a", "GOAWAY 0 PROTOCOL_ERROR"},
		{"SETTINGS window", head(6, frameSettings, 0, 0) + "\x00\x04\xff\xff\xff\xff", "GOAWAY 0 FLOW_CONTROL_ERROR"},
		{"SETTINGS push", head(6, frameSettings, 0, 0) + "\x00\x02\x00\x00\x00\x02", "GOAWAY 0 PROTOCOL_ERROR"},
		{"GOAWAY size", head(0, frameGoAway, 0, 0), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"GOAWAY stream", head(8, frameGoAway, 0, 1) + "00000000", "GOAWAY 0 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE zero", head(4, frameWindow, 0, 0) + "\x00\x00\x00\x00", "GOAWAY 0 PROTOCOL_ERROR"},
		{"WINDOW_UPDATE size", head(3, frameWindow, 0, 0) + "000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"WINDOW_UPDATE much", head(4, frameWindow, 0, 0) + "\x7f\xff\xff\xff", "GOAWAY 0 FLOW_CONTROL_ERROR"},
		{"WINDOW_UPDATE idle", head(4, frameWindow, 0, 1) + "\x00\x00\x00\x01", "GOAWAY 0 PROTOCOL_ERROR"},
		{"RST_STREAM size", head(3, frameReset, 0, 1) + "000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"RST_STREAM zero", head(4, frameReset, 0, 0) + "0000", "GOAWAY 0 PROTOCOL_ERROR"},
		{"RST_STREAM idle", head(4, frameReset, 0, 1) + "0000", "GOAWAY 0 PROTOCOL_ERROR"},
		{"PRIORITY size", head(4, framePriority, 0, 1) + "0000", "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"PRIORITY itself", head(5, framePriority, 0, 1) + "\x00\x00\x00\x010", "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA zero", head(0, frameData, 0, 0), "GOAWAY 0 PROTOCOL_ERROR"},
		{"DATA idle", head(0, frameData, 0, 1), "GOAWAY 0 PROTOCOL_ERROR"},
		{"CONTINUATION alone", head(1, frameContinuation, 0, 1) + "0", "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS zero", head(1, frameHeaders, 5, 0) + request, "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS even", head(1, frameHeaders, 5, 2) + request, "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS empty", head(0, frameHeaders, 5, 1), "GOAWAY 0 FRAME_SIZE_ERROR"},
		{"HEADERS padding", head(2, frameHeaders, 5|flagPadded, 1) + "\x02" + request, "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS itself", head(6, frameHeaders, 5|flagPriority, 1) + "\x00\x00\x00\x010" + request, "GOAWAY 0 PROTOCOL_ERROR"},
		{"HEADERS then PING", head(1, frameHeaders, 1, 1) + request + head(8, framePing, 0, 0) + "00000000", "GOAWAY 1 PROTOCOL_ERROR"},
		{"CONTINUATION of another", head(1, frameHeaders, 1, 1) + request + head(1, frameContinuation, 4, 3) + request, "GOAWAY 1 PROTOCOL_ERROR"},
		{"index zero", head(1, frameHeaders, 5, 1) + "\x80", "GOAWAY 1 COMPRESSION_ERROR"},
		{"index beyond", head(1, frameHeaders, 5, 1) + "\xbe", "GOAWAY 1 COMPRESSION_ERROR"},
		{"index long", head(5, frameHeaders, 5, 1) + "\xff\xff\xff\xff", "GOAWAY 1 COMPRESSION_ERROR"},
		{"index short", head(1, frameHeaders, 5, 1) + "\xff", "GOAWAY 1 FRAME_SIZE_ERROR"},
		{"no name", head(3, frameHeaders, 5, 1) + "\x00\x00\x00", "GOAWAY 1 PROTOCOL_ERROR"},
		{"table size", head(4, frameHeaders, 5, 1) + "\x3f\xe2\x1f" + request, "GOAWAY 1 COMPRESSION_ERROR"},
		{"table size late", head(2, frameHeaders, 5, 1) + "\x82\x20", "GOAWAY 1 COMPRESSION_ERROR"},
		{"huffman", head(5, frameHeaders, 5, 1) + "\x04\x83\xff\xff\xff", "GOAWAY 1 COMPRESSION_ERROR"},
		{"long value", head(4, frameHeaders, 5, 1) + "\x04\x7f\xff\x3f", "GOAWAY 1 ENHANCE_YOUR_CALM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := begin(t, testConfig(), answer)
			_, _ = io.WriteString(p.nc, tt.frames)
			p.want(tt.want, "end")
		})
	}
}

// TestHeadLimits: names, values and their sum are bounded.
func TestHeadLimits(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.FieldSize, cfg.HeadSize, cfg.Fields = 512, 512, 5
	long := strings.Repeat("x", 440)
	p := begin(t, cfg, answer)
	p.request(1, true, get("/", "a", long)...) // 498 with the others
	p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`)
	p.request(3, true, get("/", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "cookie", "a", "cookie", "b")...)
	p.want("3 HEADERS :status=200", `3 DATA "GET / HTTP/2.0 " end`)
	p.request(5, true, get("/", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6")...)
	p.want("5 HEADERS :status=494", `5 DATA "client sent too many header lines" end`)
	p.request(7, true, get("/", "a", long, "b", "c", "d", strings.Repeat("x", 30))...)
	p.want("GOAWAY 7 ENHANCE_YOUR_CALM", "end")
}

// TestCookies: the crumbs of a cookie become one field, behind the others.
func TestCookies(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), func(s *Stream) {
		text := ""
		for _, f := range s.Req.Fields {
			text += fmt.Sprintf("%s: %s\n", f.Name, f.Value)
		}
		_ = s.WriteHead(AppendStatus(nil, 200), false)
		_ = s.WriteData([]byte(text), 8<<10, true)
	})
	for id := uint32(1); id < 6; id += 2 { // the same from the dynamic table
		p.request(id, true, get("/", "cookie", "a=b", "x", "y", "cookie", "c=d")...)
		p.want(fmt.Sprintf("%d HEADERS :status=200", id), fmt.Sprintf("%d DATA %q end", id, "x: y\ncookie: a=b; c=d\nhost: example.com\n"))
	}
}

// TestFlowControl: a stream without room does not keep another from being
// answered.
func TestFlowControl(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), func(s *Stream) {
		_ = s.WriteHead(AppendStatus(nil, 200), false)
		_ = s.WriteData(bytes.Repeat([]byte("x"), 25), 10, true)
	})
	_ = p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 13})
	p.request(1, true, get("/")...)
	p.want("1 HEADERS :status=200", `1 DATA "xxxxxxxxxx"`, `1 DATA "xxx"`)
	p.request(3, true, get("/")...)
	p.want("3 HEADERS :status=200", `3 DATA "xxxxxxxxxx"`, `3 DATA "xxx"`)
	_ = p.WriteWindowUpdate(3, 11)
	p.want(`3 DATA "xxxxxxxxxx"`, `3 DATA "x"`)
	_ = p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 14}) // 14 more for neither but 1
	p.next()
	p.next()
	_ = p.WriteWindowUpdate(1, 100)
	p.want(`1 DATA "xxxxxxxxxx"`, `1 DATA "x" end`)
}

// TestContinuation: what is sent is split as the client wants, what comes may be
// split anywhere.
func TestContinuation(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), func(s *Stream) {
		block := AppendStatus(nil, 200)
		for range 3 {
			block = AppendField(block, []byte("X-Long"), bytes.Repeat([]byte("{"), 10<<10))
		}
		_ = s.WriteHead(block, true)
	})
	block := p.fields(get("/", "cookie", "a=b")...)
	_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1], EndStream: true})
	for i := 1; i < len(block); i++ {
		_ = p.WriteContinuation(1, i == len(block)-1, block[i:i+1])
	}
	size := 0
	for {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().Length > 16<<10 {
			t.Errorf("a frame of %d bytes", f.Header().Length)
		}
		switch f := f.(type) {
		case *xhttp2.HeadersFrame:
			if !f.StreamEnded() {
				t.Error("no end")
			}
			size += len(f.HeaderBlockFragment())
		case *xhttp2.ContinuationFrame:
			size += len(f.HeaderBlockFragment())
			if f.HeadersEnded() {
				if size != 1+3*(1+1+5+3+10<<10) {
					t.Errorf("%d bytes", size)
				}
				return
			}
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	left := make(chan error, 1)
	p := begin(t, testConfig(), func(s *Stream) {
		gone := make(chan struct{})
		s.Watch(func() { close(gone) })
		<-gone
		s.Unwatch()
		left <- s.WriteHead(AppendStatus(nil, 200), true)
	})
	p.request(1, true, get("/")...)
	_ = p.WriteRSTStream(1, xhttp2.ErrCodeCancel)
	if err := <-left; err != head.ErrGone {
		t.Errorf("got %v", err)
	}
	p.request(3, true, get("/")...)
	_ = p.nc.Close()
	if err := <-left; err != head.ErrGone {
		t.Errorf("got %v", err)
	}
}

// TestUnfinished: a handler that says nothing leaves a reset stream; one that
// does not want the body does, too, and what of it is under way is no mistake.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), func(s *Stream) {
		if string(s.Req.Path) == "/answer" {
			_ = s.WriteHead(AppendStatus(nil, 200), true)
		}
	})
	p.request(1, true, get("/")...)
	p.want("1 RST_STREAM INTERNAL_ERROR")
	p.request(3, false, get("/answer")...)
	p.want("3 HEADERS :status=200 end", "3 RST_STREAM NO_ERROR")
	_ = p.WriteData(3, false, []byte("too late"))
	p.request(3, true, "trailer", "x")
	p.request(5, true, get("/answer", "trailer", "x")...)
	p.want("5 HEADERS :status=200 end")
	p.request(3, true, get("/")...)
	p.request(5, true, get("/")...)
	p.want("GOAWAY 5 PROTOCOL_ERROR", "end")
}

func TestBodyLength(t *testing.T) {
	t.Parallel()
	p := begin(t, testConfig(), answer)
	p.request(1, false, get("/", "content-length", "3")...)
	_ = p.WriteData(1, false, []byte("four"))
	p.want("1 HEADERS :status=200", fmt.Sprintf("1 DATA %q end", "GET / HTTP/2.0 "+head.ErrLong.Error()), "1 RST_STREAM NO_ERROR")
	p.request(3, false, get("/", "content-length", "5")...)
	_ = p.WriteData(3, true, []byte("four"))
	p.want("3 HEADERS :status=200", fmt.Sprintf("3 DATA %q end", "GET / HTTP/2.0 "+head.ErrShort.Error()))
	p.request(5, false, get("/")...)
	p.request(5, false, "trailer", "without an end")
	p.want("5 RST_STREAM PROTOCOL_ERROR")
}

func TestWindowViolated(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Window = 10
	p := begin(t, cfg, func(s *Stream) {
		gone := make(chan struct{})
		s.Watch(func() { close(gone) })
		<-gone
	})
	_ = p.WriteSettingsAck()
	p.request(1, false, get("/")...)
	_ = p.WriteData(1, false, []byte("01234567890"))
	p.want("1 RST_STREAM FLOW_CONTROL_ERROR")
}

// TestUnreadBody: room comes back when the body is read, and no sooner.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	p := begin(t, testConfig(), func(s *Stream) {
		<-read
		s.Admit(16 << 10)
		b := make([]byte, 64<<10)
		total := 0
		for {
			n, err := s.ReadBody(b)
			total += n
			if err != nil {
				_ = s.WriteHead(AppendStatus(nil, 200), false)
				_ = s.WriteData(fmt.Appendf(nil, "%d %v", total, err), 8<<10, true)
				return
			}
		}
	})
	for range 2 { // settings, and the connection's window
		_, _ = p.ReadFrame()
	}
	p.request(1, false, get("/")...)
	piece := make([]byte, 16<<10)
	for range 4 {
		_ = p.WriteData(1, false, piece)
	}
	_ = p.WritePing(false, [8]byte{})
	p.want("PING \x00\x00\x00\x00\x00\x00\x00\x00")
	close(read)
	f, err := p.ReadFrame()
	if w, ok := f.(*xhttp2.WindowUpdateFrame); !ok || w.StreamID != 1 || w.Increment != 64<<10 {
		t.Errorf("got %v %v", f, err)
	}
	_ = p.WriteData(1, true, piece)
	p.want("1 HEADERS :status=200", `1 DATA "81920 EOF" end`)
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Streams = 1
	release := make(chan struct{})
	p := begin(t, cfg, func(s *Stream) {
		<-release
		answer(s)
	})
	p.request(1, true, get("/")...)
	p.request(3, true, get("/", "x", "y")...)
	p.want("3 RST_STREAM REFUSED_STREAM")
	close(release)
	p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`)
	p.request(5, true, get("/", "x", "y")...) // by the table that the refused one has filled
	p.want("5 HEADERS :status=200", `5 DATA "GET / HTTP/2.0 " end`)
}

func TestGraceful(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := begin(t, testConfig(), func(s *Stream) {
		<-release
		answer(s)
	})
	p.request(1, true, get("/")...)
	_ = p.WritePing(false, [8]byte{'1', '2', '3', '4', '5', '6', '7', '8'})
	p.want("PING 12345678")
	p.conn.Shutdown()
	p.want("GOAWAY 1 NO_ERROR")
	p.request(3, true, get("/")...)
	close(release)
	p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`, "end")

	p = begin(t, testConfig(), answer)
	p.request(1, true, get("/")...)
	p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`)
	p.conn.Shutdown()
	p.want("GOAWAY 1 NO_ERROR", "end")
}

func TestRequestsLimit(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Requests = 2
	p := begin(t, cfg, answer)
	p.request(1, true, get("/")...)
	p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`)
	p.request(3, true, get("/")...)
	p.want("GOAWAY 3 NO_ERROR", "3 HEADERS :status=200", `3 DATA "GET / HTTP/2.0 " end`, "end")
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	t.Run("head", func(t *testing.T) {
		t.Parallel()
		cfg := testConfig()
		cfg.HeadTimeout = 100 * time.Millisecond
		p := begin(t, cfg, func(s *Stream) {
			if s.Err == nil {
				answer(s)
			}
		})
		block := p.fields(get("/", "x", "y")...)
		_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5], EndStream: true})
		p.want("1 RST_STREAM PROTOCOL_ERROR")
		_ = p.WriteContinuation(1, true, block[5:])
		p.request(3, true, get("/", "x", "y")...)
		p.want("3 HEADERS :status=200", `3 DATA "GET / HTTP/2.0 " end`)
	})
	t.Run("first", func(t *testing.T) {
		t.Parallel()
		cfg := testConfig()
		cfg.HeadTimeout = 100 * time.Millisecond
		begin(t, cfg, answer).want("GOAWAY 0 PROTOCOL_ERROR", "end")
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		cfg := testConfig()
		cfg.IdleTimeout = 100 * time.Millisecond
		p := begin(t, cfg, answer)
		p.request(1, true, get("/")...)
		p.want("1 HEADERS :status=200", `1 DATA "GET / HTTP/2.0 " end`, "GOAWAY 1 NO_ERROR", "end")
	})
	t.Run("body", func(t *testing.T) {
		t.Parallel()
		p := begin(t, testConfig(), func(s *Stream) {
			s.SetTimeouts(100*time.Millisecond, 0)
			_, _ = readAll(s)
		})
		p.request(1, false, get("/")...)
		p.want("1 RST_STREAM PROTOCOL_ERROR")
	})
	t.Run("send", func(t *testing.T) {
		t.Parallel()
		p := begin(t, testConfig(), func(s *Stream) {
			s.SetTimeouts(0, 100*time.Millisecond)
			_ = s.WriteHead(AppendStatus(nil, 200), false)
			_ = s.WriteData([]byte("x"), 8<<10, true)
		})
		_ = p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		p.request(1, true, get("/")...)
		p.want("1 HEADERS :status=200", "1 RST_STREAM PROTOCOL_ERROR")
	})
}

// TestFloods: frames that cost the server more than the client end the
// connection.
func TestFloods(t *testing.T) {
	t.Parallel()
	ping := append(appendHeader(nil, 8, framePing, 0, 0), "12345678"...)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"PRIORITY", append(appendHeader(nil, 5, framePriority, 0, 1), 0, 0, 0, 0, 0), "client sent too many PRIORITY frames"},
		{"PING", ping, "http2 flood detected"},
		{"SETTINGS", appendHeader(nil, 0, frameSettings, 0, 0), "http2 flood detected"},
		{"DATA", append(append(appendHeader(nil, 1, frameHeaders, flagEndHeaders, 1), 0x82), bytes.Repeat(appendHeader(nil, 0, frameData, 0, 1), 1<<20)...), "http2 flood detected"},
		{"unknown", appendHeader(nil, 0, 0x42, 0, 0), "http2 flood detected"},
		{"reset", nil, "client sent too many refused streams"},
		{"CONTINUATION", append(append(appendHeader(nil, 1, frameHeaders, 0, 1), 0x82), bytes.Repeat(appendHeader(nil, 0, frameContinuation, 0, 1), 1000)...), "client sent too many CONTINUATION frames"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			defer close(release)
			p := begin(t, testConfig(), func(*Stream) { <-release })
			frames := bytes.Repeat(tt.frame, max(1, 64<<10/max(1, len(tt.frame))))
			block := p.fields(get("/")...)
			id := uint32(1)
			for {
				select {
				case got := <-p.notes:
					if got == "concurrent streams exceeded" || got == "client sent too many streams at once" {
						continue
					}
					if got != tt.want {
						t.Errorf("got %s", got)
					}
					return
				default:
				}
				if tt.frame == nil {
					frames = append(appendHeader(frames[:0], len(block), frameHeaders, 5, id), block...)
					frames = append(appendHeader(frames, 4, frameReset, 0, id), 0, 0, 0, 8)
					block, id = p.fields(get("/")...), id+2
				}
				if _, err := p.nc.Write(frames); err != nil && len(p.notes) == 0 {
					<-time.After(10 * time.Millisecond)
				}
			}
		})
	}
}

// TestAllocations: requests of fields that the tables know cost no memory.
func TestAllocations(t *testing.T) {
	if racing {
		t.Skip("the race detector allocates")
	}
	block := AppendField(AppendStatus(nil, 200), []byte("X-A"), []byte("b"))
	body := []byte("hello")
	cfg := testConfig()
	cfg.Requests = 1 << 30
	p := begin(t, cfg, func(s *Stream) {
		_ = s.WriteHead(block, false)
		_ = s.WriteData(body, 8<<10, true)
		_ = s.Flush()
	})
	for range 3 { // settings and their acknowledgement
		if f, err := p.ReadFrame(); err != nil || f.Header().Type == xhttp2.FramePing {
			break
		}
		_ = p.WritePing(false, [8]byte{})
	}
	p.request(1, true, get("/", "x", "y")...)
	for p.next() != `1 DATA "hello" end` {
		continue
	}
	request := p.fields(get("/", "x", "y")...)
	answer := make([]byte, headerSize+len(block)+headerSize+len(body))
	frame := make([]byte, 0, 100)
	id := uint32(1)
	ask := func() {
		id += 2
		frame = append(appendHeader(frame[:0], len(request), frameHeaders, flagEndHeaders|flagEndStream, id), request...)
		if _, err := p.nc.Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.nc, answer); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(500, ask); n >= 1 {
		t.Errorf("%v allocations a request", n)
	}
}

// TestTurns: streams with much to send take turns, and a small answer does not
// wait for large ones.
func TestTurns(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	p := begin(t, testConfig(), func(s *Stream) {
		n := size
		if string(s.Req.Path) == "/small" {
			n = 10
		}
		_ = s.WriteHead(AppendStatus(nil, 200), false)
		_ = s.WriteData(make([]byte, n), 8<<10, true)
	})
	_ = p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: size})
	p.request(1, true, get("/")...)
	p.request(3, true, get("/")...)
	got := map[uint32]int{}
	order := []uint32{}
	for grow := true; len(order) < 3; {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		d, ok := f.(*xhttp2.DataFrame)
		if !ok {
			continue
		}
		got[d.StreamID] += len(d.Data())
		if grow && got[1]+got[3] == 1<<16-1 { // all wait for the connection's window
			grow = false
			p.request(5, true, get("/small")...)
			_ = p.WriteWindowUpdate(0, 4<<20)
		}
		if d.StreamEnded() {
			order = append(order, d.StreamID)
			if len(order) < 3 && d.StreamID != 5 && got[4-d.StreamID] < size/2 {
				t.Errorf("%d is done and the other has %d bytes", d.StreamID, got[4-d.StreamID])
			}
		}
	}
	if order[0] != 5 {
		t.Errorf("the streams ended in the order %v", order)
	}
}

// TestLoans: a reader whose own request took long does not read on when the one
// who reads instead serves a request of its own.
func TestLoans(t *testing.T) {
	t.Parallel()
	sweeper := sock.NewSweeper()
	defer sweeper.Stop()
	nc := sock.New(&script{in: bytes.NewReader(nil), piece: 1}, sweeper)
	var c *Conn
	c = NewConn(nc, nc, testConfig(), func(s *Stream) {
		_ = s.WriteHead(AppendStatus(nil, 200), true)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lent = true
		c.loans++
	}, nil)
	c.mu.Lock()
	c.own = newStream(c, 1)
	c.streams[1] = c.own
	c.mu.Unlock()
	if c.serveOwn() {
		t.Error("two read")
	}
	c.mu.Lock()
	c.lent = false // whatever the timer does now
	c.mu.Unlock()
}
