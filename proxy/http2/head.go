package http2

import (
	"proxyctl/proxy/head"
	"proxyctl/proxy/http1"
)

// block is the header block that is being read.
type block struct {
	open     bool
	end      bool // it ends the client's side of its stream
	trailers bool
	bad      bool    // trailers that are malformed
	stream   *Stream // nil: it is decoded, for the sake of the tables, and forgotten
	id       uint32
	held     []byte // what has come of it, unless it came whole
	limit    int    // bytes of names and values that may come yet
	frames   int    // how many CONTINUATION frames may come yet
}

// smallFragment is how much at least a CONTINUATION frame should carry. Unlike
// nginx, which takes any number of empty ones, there may be no more of them than
// a head of the largest size needs.
const smallFragment = 1 << 10

// fragment takes a piece of a header block, in HEADERS or CONTINUATION.
func (c *Conn) fragment() (bool, error) {
	f, b := &c.frame, &c.block
	if !f.begun {
		if f.kind == frameHeaders {
			if ready, err := c.beginHeaders(); !ready || err != nil {
				return false, err
			}
		}
		f.begun = true
		if s := b.stream; s != nil {
			s.Req.HeadSize += f.rest
		}
	}
	p := (*c.in)[c.start:c.end]
	p = p[:min(len(p), f.rest)]
	c.start += len(p)
	f.rest -= len(p)
	last := f.rest == 0 && f.has(flagEndHeaders)
	if err := c.decode(p, last); err != nil || f.rest > 0 {
		return false, err
	}
	if last {
		if err := c.endBlock(); err != nil {
			return false, err
		}
	}
	return c.pad()
}

// decode takes the next piece of a block. A field that is not whole yet is held
// back.
func (c *Conn) decode(p []byte, last bool) error {
	b := &c.block
	if len(b.held) > 0 {
		b.held = append(b.held, p...)
		p = b.held
	}
	arena := &c.arena
	if b.stream != nil {
		arena = &b.stream.Arena
	}
	rest, err := c.dec.decode(p, arena, c.takeFunc)
	if err != nil && (last || err != errTruncated) {
		return err
	}
	b.held = append(b.held[:0], rest...)
	return nil
}

// beginHeaders reads what stands before the fragment of HEADERS. False: more
// must come.
func (c *Conn) beginHeaders() (bool, error) {
	f := &c.frame
	before := 0
	if f.has(flagPadded) {
		before++
	}
	if f.has(flagPriority) {
		before += 5
	}
	if f.size < before {
		return false, broken(FrameSizeError, "client sent HEADERS frame with incorrect length %d", f.size)
	}
	if f.size == before {
		return false, broken(FrameSizeError, "client sent HEADERS frame with empty header block")
	}
	if c.end-c.start < before {
		return false, nil
	}
	b := (*c.in)[c.start : c.start+before]
	c.start += before
	f.rest -= before
	if f.has(flagPadded) {
		f.padding = int(b[0])
		if f.padding > f.rest {
			return false, broken(ProtocolError, "client sent padded HEADERS frame with incorrect length: %d, padding: %d", f.rest, f.padding)
		}
		f.rest -= f.padding
		b = b[1:]
	}
	return true, c.openBlock(b)
}

// openBlock begins a header block: a request or the trailers of one.
func (c *Conn) openBlock(priority []byte) error {
	f := &c.frame
	c.dec.begun = false
	c.block = block{
		open: true, end: f.has(flagEndStream), id: f.id,
		limit: c.cfg.HeadSize, frames: 32 + c.cfg.HeadSize/smallFragment,
	}
	if f.id > c.seen && f.id%2 == 1 {
		if len(priority) > 0 {
			if err := c.checkDependency(priority); err != nil {
				return err
			}
		}
		return c.openStream()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[f.id]; s != nil && !s.inClosed && !s.dead {
		c.block.trailers = true
		c.block.bad = !c.block.end
		return nil
	}
	if c.wasLeft(f.id) {
		return nil
	}
	return broken(ProtocolError, "client sent HEADERS frame with incorrect identifier %d, the last was %d", f.id, c.seen)
}

// openStream begins a stream, unless there are too many.
func (c *Conn) openStream() error {
	c.seen = c.frame.id
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return nil
	}
	c.last = c.seen
	reason := ""
	switch {
	case len(c.streams) >= c.cfg.Streams:
		reason = "concurrent streams exceeded"
	case c.fresh >= 2*c.cfg.Streams:
		reason = "client sent too many streams at once"
	case !c.acked && !c.block.end && c.cfg.Window < defaultWindow:
		reason = "client sent stream with data before settings were acknowledged"
	default:
		s := newStream(c, c.seen)
		s.inClosed = c.block.end
		c.block.stream = s
		c.streams[s.id] = s
		c.fresh++
		c.requests++
		c.priorities += c.cfg.Streams
		c.headUntil = c.ahead(c.cfg.HeadTimeout)
		if c.cfg.IdleTimeout == 0 || c.requests >= c.cfg.Requests || c.cfg.Age > 0 && c.sock.Now()-c.began > int64(c.cfg.Age) {
			c.goAway(NoError)
		}
		return nil
	}
	c.note(reason)
	if c.refused++; c.refused > max(c.cfg.Streams, 100)+1 {
		return broken(NoError, "client sent too many refused streams")
	}
	c.leave(c.seen)
	return c.reset(c.seen, RefusedStream)
}

// checkContinuation looks at the head of a CONTINUATION frame.
func (c *Conn) checkContinuation() error {
	b := &c.block
	switch {
	case !b.open:
		return broken(ProtocolError, "client sent unexpected CONTINUATION frame")
	case b.id != c.frame.id:
		return broken(ProtocolError, "client sent CONTINUATION frame with incorrect identifier")
	}
	if b.frames--; b.frames < 0 {
		return broken(EnhanceYourCalm, "client sent too many CONTINUATION frames")
	}
	return nil
}

// take is given every field of a block, by the decoder.
func (c *Conn) take(e *head.Field) error {
	b := &c.block
	if b.limit -= len(e.Name) + len(e.Value); b.limit < 0 {
		return broken(EnhanceYourCalm, "client sent too large header")
	}
	if b.trailers {
		b.bad = b.bad || e.Name[0] == ':' || e.Bad != head.Fine
	} else if s := b.stream; s != nil && s.Err == nil {
		s.Err = s.Field(e)
	}
	return nil
}

// endBlock ends a header block.
func (c *Conn) endBlock() error {
	b := &c.block
	b.open, b.held, c.arena = false, nil, c.arena[:0]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headUntil = 0
	if s := b.stream; s != nil {
		b.stream = nil
		c.payload += int64(s.Req.HeadSize)
		s.complete(b.end)
		c.ready = append(c.ready, s)
		return nil
	}
	s := c.streams[b.id]
	if !b.trailers || s == nil || s.dead {
		return nil
	}
	// Unlike nginx, which takes trailers for a stream that begins anew, they are
	// checked and dropped (RFC 9113, section 8.1).
	if b.bad {
		s.die()
		return c.reset(s.id, ProtocolError)
	}
	s.arrive(nil, true)
	return nil
}

// expire gives up the head that has not come in time. The rest of its block is
// decoded when it comes.
func (c *Conn) expire() {
	s := c.block.stream
	c.block.stream = nil
	c.mu.Lock()
	c.headUntil = 0
	c.mu.Unlock()
	if s == nil {
		return
	}
	s.Err = &http1.ParseError{Status: 408, Reason: "client timed out"}
	c.ready = append(c.ready, s)
}

// complete ends the head of a request; the caller holds the lock.
func (s *Stream) complete(ended bool) {
	if s.Err == nil {
		s.Err = s.Complete(ended)
	}
	if s.Err != nil {
		s.discard = true
	}
}
