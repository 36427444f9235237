package verify

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Upstreams that speak HTTP/2 from the first byte on, as those of gRPC do.

// http2Upstream is a connection to one.
type http2Upstream struct {
	*http2.Framer
	b    *backends
	c    net.Conn
	name string
	head string // of the request that is read, in the form of HTTP/1
	body []byte
}

// http2 answers the requests of a connection, one after the other.
func (b *backends) http2(c net.Conn, in *bufio.Reader, name string) {
	if _, err := in.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	u := &http2Upstream{Framer: http2.NewFramer(c, in), b: b, c: c, name: name}
	u.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if u.WriteSettings() != nil {
		return
	}
	for u.next() {
		b.leave()
	}
	b.leave()
}

// next reads and answers one request, which has been entered then; false when
// the connection ends.
func (u *http2Upstream) next() bool {
	entered := false
	defer func() {
		if !entered {
			u.b.enter()
		}
	}()
	for {
		f, err := u.ReadFrame()
		if err != nil {
			return false
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			entered = true
			u.b.enter()
			u.begin(f)
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if n := min(len(f.Data()), maxUpstreamBody-len(u.body)); n > 0 {
				u.body = append(u.body, f.Data()[:n]...)
			}
			if n := uint32(len(f.Data())); n > 0 {
				_ = u.WriteWindowUpdate(0, n)
				_ = u.WriteWindowUpdate(f.StreamID, n)
			}
			ended = f.StreamEnded()
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = u.WriteSettingsAck()
			}
		}
		if ended {
			return u.answer(f.Header().StreamID)
		}
	}
}

// begin takes the head of a request. A host says the same as an authority, which
// nginx has not always sent.
func (u *http2Upstream) begin(f *http2.MetaHeadersFrame) {
	host, rest := f.PseudoValue("authority"), ""
	for _, field := range f.RegularFields() {
		if field.Name == "host" && host == "" {
			host = field.Value
			continue
		}
		rest += field.Name + ": " + field.Value + "\r\n"
	}
	u.head = f.PseudoValue("method") + " " + f.PseudoValue("path") + " HTTP/2.0\r\nHost: " + host + "\r\n" + rest
	u.body = u.body[:0]
}

// answer answers as others would in HTTP/1.
func (u *http2Upstream) answer(id uint32) bool {
	text, _ := compose(u.b.saw(upstreamRequest{u.name, u.head, string(u.body)}), u.head, u.name)
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	status, fields, _ := strings.Cut(head, "\r\n")
	status, ok := strings.CutPrefix(status, "HTTP/1.1 ")
	if !ok {
		_, _ = io.WriteString(u.c, text)
		return false
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0)
	_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: status[:3]})
	for line := range strings.SplitSeq(fields, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			_ = enc.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: value})
		}
	}
	if u.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""}) != nil {
		return false
	}
	return body == "" || u.WriteData(id, true, []byte(body)) == nil
}
