package http2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"proxyctl/proxy/head"
	"proxyctl/proxy/http1"
)

// The frames of an upstream, and the header blocks to and from it.

// step reads the next frame, but of DATA only its beginning.
func (c *ClientConn) step() error {
	s := &c.stream
	if s.pad > 0 {
		return c.skipPad()
	}
	if err := c.need(headerSize); err != nil {
		return err
	}
	h := c.in.data[c.start : c.start+headerSize]
	size := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	kind, flags, id := h[3], h[4], binary.BigEndian.Uint32(h[5:])&maxWindow
	if size > defaultFrameSize {
		return c.fail("upstream sent too large http2 frame: %d", size)
	}
	if s.block.open && (kind != frameContinuation || id != s.id) {
		return c.fail("upstream sent unexpected http2 frame: %d", kind)
	}
	if kind == frameData {
		c.start += headerSize
		return c.beginData(size, flags, id)
	}
	if err := c.need(headerSize + size); err != nil {
		return err
	}
	p := c.in.data[c.start+headerSize : c.start+headerSize+size]
	c.start += headerSize + size
	if kind == frameHeaders || kind == frameContinuation {
		return c.headers(kind, flags, id, p)
	}
	if err := c.idle(); err != nil {
		return err
	}
	return c.controlFrame(kind, flags, id, p)
}

// idle counts a frame that carries nothing of the answer. Streams can go on for
// days with no other frames, so that only too many at a time are refused.
func (c *ClientConn) idle() error {
	s := &c.stream
	if now := c.sock.Now(); now-s.since >= int64(time.Second) {
		s.control, s.since = 0, now
	}
	if s.control++; s.control > maxControl {
		return c.fail("upstream sent too many http2 frames")
	}
	return nil
}

func (c *ClientConn) skipPad() error {
	s := &c.stream
	if c.start == c.end {
		if err := c.fill(); err != nil {
			return err
		}
	}
	n := min(s.pad, c.end-c.start)
	c.start += n
	s.pad -= n
	return c.count(n)
}

// beginData looks at the head of a DATA frame.
func (c *ClientConn) beginData(size int, flags uint8, id uint32) error {
	s := &c.stream
	switch {
	case id != s.id:
		return c.fail("upstream sent data frame for unknown stream %d", id)
	case !s.head:
		return c.fail("upstream sent unexpected http2 frame: %d", frameData)
	case s.ended:
		return c.fail("upstream sent frame for closed stream %d", id)
	}
	pad := 0
	if flags&flagPadded != 0 {
		if size == 0 {
			return c.fail("upstream sent too short http2 frame")
		}
		if err := c.need(1); err != nil {
			return err
		}
		pad = int(c.in.data[c.start])
		c.start++
		if size--; pad > size {
			return c.fail("upstream sent http2 frame with too long padding: %d in frame %d", pad, size)
		}
	}
	s.chunk, s.pad, s.last = size-pad, pad, flags&flagEndStream != 0
	if s.bodyless && s.chunk > 0 || s.left >= 0 && int64(s.chunk) > s.left {
		return c.fail("upstream sent response body larger than indicated content length")
	}
	if size > 0 {
		return nil
	}
	if s.last {
		c.ends()
	}
	return c.idle()
}

// controlFrame deals with a frame that is no part of the answer.
func (c *ClientConn) controlFrame(kind, flags uint8, id uint32, p []byte) error {
	s := &c.stream
	switch kind {
	case frameSettings:
		return c.settings(flags, p)
	case framePing:
		if len(p) != 8 {
			return c.fail("upstream sent ping frame with invalid length: %d", len(p))
		}
		if flags&flagAck == 0 {
			return c.acknowledge(framePing, p)
		}
	case frameWindow:
		if len(p) != 4 {
			return c.fail("upstream sent window update frame with invalid length: %d", len(p))
		}
		return c.windowUpdate(id, int64(binary.BigEndian.Uint32(p)&maxWindow))
	case frameReset:
		if len(p) != 4 {
			return c.fail("upstream sent rst stream frame with invalid length: %d", len(p))
		}
		if id != s.id {
			return nil // of a request that is over
		}
		code := ErrCode(binary.BigEndian.Uint32(p))
		c.broken = true
		if code == RefusedStream {
			return ErrUnprocessed
		}
		if s.ended && code == NoError {
			return nil
		}
		return c.fail("upstream rejected request with error %d", code)
	case frameGoAway:
		if len(p) < 8 {
			return c.fail("upstream sent goaway frame with invalid length: %d", len(p))
		}
		c.leaving = true
		if binary.BigEndian.Uint32(p)&maxWindow < s.id {
			c.broken = true
			return ErrUnprocessed
		}
	case framePush:
		return c.fail("upstream sent unexpected push promise frame")
	}
	return nil
}

func (c *ClientConn) settings(flags uint8, p []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	if len(p)%6 != 0 {
		return c.fail("upstream sent settings frame with invalid length: %d", len(p))
	}
	for ; len(p) > 0; p = p[6:] {
		value := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingWindow:
			if value > maxWindow || !c.resize(int64(value)) {
				return c.fail("upstream sent settings frame with too large initial window size: %d", value)
			}
		case settingFrameSize:
			if value < defaultFrameSize || value > maxFrameSize {
				return c.fail("upstream sent settings frame with invalid max frame size: %d", value)
			}
		}
	}
	return c.acknowledge(frameSettings, nil)
}

func (c *ClientConn) windowUpdate(id uint32, n int64) error {
	if id != 0 && id != c.stream.id {
		return nil // of a request that is over
	}
	if n == 0 {
		return c.fail("upstream sent zero window update")
	}
	if !c.grow(id == 0, n) {
		return c.fail("upstream sent too large window update")
	}
	return nil
}

// headers takes a piece of a header block.
func (c *ClientConn) headers(kind, flags uint8, id uint32, p []byte) error {
	s := &c.stream
	b := &s.block
	switch {
	case id != s.id:
		return c.fail("upstream sent frame for unknown stream %d", id)
	case s.ended:
		return c.fail("upstream sent frame for closed stream %d", id)
	case kind == frameContinuation && !b.open:
		return c.fail("upstream sent unexpected http2 frame: %d", kind)
	}
	if kind == frameHeaders {
		var err error
		if p, err = c.stripped(flags, p); err != nil {
			return err
		}
		*b = fieldBlock{
			open: true, last: flags&flagEndStream != 0, fields: b.fields[:0], length: -1,
			held: b.held[:0], limit: b.limit, most: b.most, frames: 2 + b.limit/smallFragment,
		}
	}
	if b.frames--; b.frames < 0 || len(b.held) > 2*b.limit {
		return c.fail("upstream sent too big header")
	}
	if flags&flagEndHeaders == 0 {
		b.held = append(b.held, p...)
		return nil
	}
	b.open = false
	if len(b.held) > 0 {
		p = append(b.held, p...)
		b.held = p[:0]
	}
	c.dec.begun = false
	if _, err := c.dec.decode(p, &c.arena, c.field); err != nil {
		return c.fail("%s", strings.Replace(err.Error(), "client", "upstream", 1))
	}
	return c.endBlock()
}

// stripped takes padding and priority off the payload of HEADERS.
func (c *ClientConn) stripped(flags uint8, p []byte) ([]byte, error) {
	pad := 0
	if flags&flagPadded != 0 && len(p) > 0 {
		pad, p = int(p[0]), p[1:]
	}
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return nil, c.fail("upstream sent headers frame with invalid length: %d", len(p))
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, c.fail("upstream sent http2 frame with too long padding: %d in frame %d", pad, len(p))
	}
	return p[:len(p)-pad], nil
}

// field takes one field of a block. What is wrong with it is told at the end.
func (c *ClientConn) field(e *head.Field) error {
	b := &c.stream.block
	if b.limit -= len(e.Name) + len(e.Value); b.limit < 0 || len(b.fields) > b.most {
		return broken(EnhanceYourCalm, "upstream sent too big header")
	}
	if b.bad != "" {
		return nil
	}
	switch {
	case string(e.Name) == ":status" && len(b.fields) == 0 && !c.stream.head:
		b.takeStatus(e.Value)
	case e.Bad != head.Fine || e.Name[0] == ':':
		b.bad = fmt.Sprintf("upstream sent invalid header: %q", string(e.Name)+": "+string(e.Value))
	case e.ID == http1.ContentLength:
		n, err := strconv.ParseUint(string(e.Value), 10, 63)
		if err != nil || b.length >= 0 {
			b.bad = fmt.Sprintf("upstream sent invalid \"Content-Length\" header: %q", e.Value)
		}
		b.length = int64(n)
		b.fields = append(b.fields, e.Field)
	default:
		b.fields = append(b.fields, e.Field)
	}
	return nil
}

func (b *fieldBlock) takeStatus(text []byte) {
	n, err := strconv.Atoi(string(text))
	switch {
	case b.status != 0:
		b.bad = "upstream sent duplicate :status header"
	case err != nil || len(text) != 3 || n < 100 || n == 101:
		b.bad = fmt.Sprintf("upstream sent invalid :status %q", text)
	}
	b.status = n
}

// endBlock puts a block that is whole where it belongs.
func (c *ClientConn) endBlock() error {
	s := &c.stream
	b := &s.block
	switch {
	case b.bad != "":
		return c.fail("%s", b.bad)
	case s.head && !b.last:
		return c.fail("upstream sent trailer without end stream flag")
	case s.head:
		s.trailers = append(s.trailers[:0], b.fields...)
	case b.status == 0:
		return c.fail("upstream sent no :status header")
	default:
		s.head = true
	}
	if b.last {
		c.ends()
	}
	return nil
}

// appendRequest makes the header block of a request out of its head in HTTP/1:
// without what only concerns a connection there (RFC 9113, section 8.2.2).
func appendRequest(dst, text []byte, scheme string) []byte {
	line, rest, _ := bytes.Cut(text, []byte("\r\n"))
	method, line, _ := bytes.Cut(line, []byte(" "))
	target, _, _ := bytes.Cut(line, []byte(" "))
	dst = appendMethod(dst, method)
	if scheme == "https" {
		dst = append(dst, indexed|7)
	} else {
		dst = append(dst, indexed|6)
	}
	if string(target) == "/" {
		dst = append(dst, indexed|4)
	} else {
		dst = AppendField(dst, []byte(":path"), target)
	}
	host := true
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(": "))
		if !ok || len(name) == 0 || head.MalformedName(bytes.ToLower(name)) || name[0] == ':' {
			continue
		}
		switch {
		case bytes.EqualFold(name, []byte("Host")):
			if host {
				dst = AppendField(dst, []byte(":authority"), value)
			}
			host = false
		case ofConnection(name, value):
		default:
			dst = AppendField(dst, name, bytes.Trim(value, " \t"))
		}
	}
	return dst
}

func appendMethod(dst, method []byte) []byte {
	switch string(method) {
	case "GET":
		return append(dst, indexed|2)
	case "POST":
		return append(dst, indexed|3)
	}
	return AppendField(dst, []byte(":method"), method)
}

// ofConnection says whether a field is about the connection alone.
func ofConnection(name, value []byte) bool {
	switch string(bytes.ToLower(name)) {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings":
		return true
	case "te":
		return !bytes.EqualFold(value, []byte("trailers"))
	}
	return false
}
