package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Applications that speak HTTP/2 without TLS, frame by frame: "application http2".
// Without a file they answer with what they received; the lines of a file are
//
//	await          the end of the request
//	until TEXT     the request's body holds TEXT
//	field NAME VALUE    for the next head
//	head           the fields so far
//	data TEXT
//	end            goes before head or data, which then ends the answer
//	reset CODE     goaway LAST CODE     window N     ping
//	bytes HEX      as they are
//	drop           the connection is closed
//	hang           nothing until the stream is reset or the connection ends
//	only PATH ...  the rest of the line, if :path is PATH

// acceptHTTP2 serves the connections that come, until l is closed.
func acceptHTTP2(l net.Listener, steps []string) {
	for number := 1; ; number++ {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveHTTP2Conn(c, number, steps)
	}
}

// http2Player is a connection and its request of the moment.
type http2Player struct {
	*http2.Framer
	c      net.Conn
	number int
	steps  []string

	mu      sync.Mutex
	changed sync.Cond
	id      uint32
	path    string
	fields  string
	body    string
	ended   bool // the request has
	over    bool // nobody waits for an answer

	block bytes.Buffer
	enc   *hpack.Encoder
	last  bool
}

func serveHTTP2Conn(c net.Conn, number int, steps []string) {
	defer c.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	p := &http2Player{Framer: http2.NewFramer(c, c), c: c, number: number, steps: steps}
	p.changed.L = &p.mu
	p.enc = hpack.NewEncoder(&p.block)
	p.enc.SetMaxDynamicTableSize(0)
	p.AllowIllegalWrites = true
	if p.WriteSettings() != nil {
		return
	}
	var playing sync.WaitGroup
	defer playing.Wait()
	defer p.leave()
	decoder := hpack.NewDecoder(4096, nil)
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, err := decoder.DecodeFull(f.HeaderBlockFragment())
			if err != nil || !f.HeadersEnded() {
				return
			}
			playing.Wait()
			p.begin(f.StreamID, fields, f.StreamEnded())
			playing.Go(p.play)
		case *http2.DataFrame:
			p.take(string(f.Data()), f.StreamEnded())
		case *http2.RSTStreamFrame:
			p.leave()
		case *http2.SettingsFrame:
			if !f.IsAck() {
				p.mu.Lock()
				_ = p.WriteSettingsAck()
				p.mu.Unlock()
			}
		}
	}
}

// begin takes the head of a request.
func (p *http2Player) begin(id uint32, fields []hpack.HeaderField, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id, p.fields, p.body, p.ended, p.over, p.last = id, "", "", ended, false, false
	p.block.Reset()
	for _, f := range fields {
		p.fields += f.Name + ": " + f.Value + "\n"
		if f.Name == ":path" {
			p.path = f.Value
		}
	}
}

func (p *http2Player) take(data string, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body += data
	p.ended = ended
	if n := uint32(len(data)); n > 0 {
		_ = p.WriteWindowUpdate(0, n)
		_ = p.WriteWindowUpdate(p.id, n)
	}
	p.changed.Broadcast()
}

func (p *http2Player) leave() {
	p.mu.Lock()
	p.over = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

// await waits until something holds, false when it never will.
func (p *http2Player) await(holds func() bool) bool {
	for !holds() && !p.over {
		p.changed.Wait()
	}
	return !p.over
}

// play answers one request.
func (p *http2Player) play() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.steps == nil {
		if p.await(func() bool { return p.ended }) {
			p.field(":status", "200")
			p.field("content-type", "text/plain")
			p.head()
			p.data(p.fields + "body: " + p.body + "\n")
			p.last = true
			p.field("x-connection", strconv.Itoa(p.number))
			p.field("x-stream", strconv.Itoa(int(p.id)))
			p.head()
		}
		return
	}
	for _, step := range p.steps {
		verb, text, _ := strings.Cut(step, " ")
		if verb == "only" { // for one path alone
			path, rest, _ := strings.Cut(text, " ")
			if p.path != path {
				continue
			}
			verb, text, _ = strings.Cut(rest, " ")
		}
		if !p.do(verb, wireText(text)) {
			return
		}
	}
}

// do takes one step; false when there are no others.
func (p *http2Player) do(verb, text string) bool {
	var a, b uint32
	switch verb {
	case "await":
		return p.await(func() bool { return p.ended })
	case "until":
		return p.await(func() bool { return strings.Contains(p.body, text) })
	case "field":
		name, value, _ := strings.Cut(text, " ")
		p.field(name, value)
	case "end":
		p.last = true
	case "head":
		p.head()
	case "data":
		p.data(text)
	case "window":
		_, _ = fmt.Sscan(text, &a)
		_ = p.WriteWindowUpdate(p.id, a)
	case "ping":
		_ = p.WritePing(false, [8]byte{1, 2, 3})
	case "reset":
		_, _ = fmt.Sscan(text, &a)
		_ = p.WriteRSTStream(p.id, http2.ErrCode(a))
	case "goaway":
		_, _ = fmt.Sscan(text, &a, &b)
		_ = p.WriteGoAway(a, http2.ErrCode(b), nil)
	case "bytes":
		_, _ = fmt.Fprint(p.c, text)
	case "drop":
		_ = p.c.Close()
		return false
	case "hang":
		return p.await(func() bool { return false })
	}
	return true
}

func (p *http2Player) field(name, value string) {
	_ = p.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
}

func (p *http2Player) head() {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.id, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: p.last})
	p.block.Reset()
}

func (p *http2Player) data(text string) {
	_ = p.WriteData(p.id, p.last, []byte(text))
}
