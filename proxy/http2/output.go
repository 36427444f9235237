package http2

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"

	"proxyctl/proxy/head"
)

// output is what is to be sent. Frames of all streams are collected here, and
// written by whoever finds that nobody else does: answers that become ready
// together go out together.
type output struct {
	out     *buffer // nil: nothing
	writing bool
	written sync.Cond // writing has ended
	queue   []*Stream // which wait for room, in order; the first is next
}

type buffer struct{ b []byte }

const (
	// outputFull is from which size on streams wait until something was sent.
	outputFull = 32 << 10
	// outputMost is how much more frames may collect that cannot wait: answers to
	// the client's own frames. A client that does not read them is flooding.
	outputMost = outputFull + 128<<10
	// turnSize is how much a stream sends before others have their turn.
	turnSize = 16 << 10
)

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, outputFull+16<<10)} }}

// greet sends the server's settings.
func (c *Conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buffer()
	b.b = appendHeader(b.b, 3*6, frameSettings, 0, 0)
	for _, p := range [...]struct {
		id    uint16
		value uint32
	}{{settingStreams, uint32(c.cfg.Streams)}, {settingWindow, uint32(c.cfg.Window)}, {settingFrameSize, maxFrameSize}} {
		b.b = binary.BigEndian.AppendUint16(b.b, p.id)
		b.b = binary.BigEndian.AppendUint32(b.b, p.value)
	}
	_ = c.grant(0, maxWindow-defaultWindow)
	c.write()
}

// buffer gives the buffer for what is to be sent; the caller holds c.mu, as for
// all that follows.
func (c *Conn) buffer() *buffer {
	if c.out == nil {
		c.out = buffers.Get().(*buffer)
	}
	return c.out
}

func (c *Conn) drop() {
	if c.out != nil {
		c.out.free()
		c.out = nil
	}
}

func (b *buffer) free() {
	if cap(b.b) <= 2*outputFull {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

func appendHeader(dst []byte, size int, kind, flags uint8, id uint32) []byte {
	dst = append(dst, byte(size>>16), byte(size>>8), byte(size), kind, flags)
	return binary.BigEndian.AppendUint32(dst, id)
}

// answer sends a small frame, which does not wait for its turn.
func (c *Conn) answer(kind, flags uint8, id uint32, p []byte) error {
	if c.dead {
		return nil
	}
	b := c.buffer()
	if len(b.b) > outputMost {
		return broken(NoError, "http2 flood detected")
	}
	b.b = append(appendHeader(b.b, len(p), kind, flags, id), p...)
	c.sent += int64(headerSize + len(p))
	return nil
}

func (c *Conn) reset(id uint32, code ErrCode) error {
	return c.answer(frameReset, 0, id, binary.BigEndian.AppendUint32(nil, uint32(code)))
}

// grant lets the client send n bytes more.
func (c *Conn) grant(id uint32, n int64) error {
	if n <= 0 {
		return nil
	}
	return c.answer(frameWindow, 0, id, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// goAway says once that no more streams are taken.
func (c *Conn) goAway(code ErrCode) {
	if c.leaving || c.dead {
		return
	}
	c.leaving = true
	p := binary.BigEndian.AppendUint32(nil, c.last)
	_ = c.answer(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(p, uint32(code)))
}

// leave remembers a stream that was ended before its client did: what follows on
// it is no mistake.
func (c *Conn) leave(id uint32) {
	c.left[c.leftAt] = id
	c.leftAt = (c.leftAt + 1) % len(c.left)
}

func (c *Conn) wasLeft(id uint32) bool { return slices.Contains(c.left[:], id) }

// write sends what there is, unless somebody else does.
func (c *Conn) write() {
	if c.writing || c.out == nil {
		return
	}
	if c.lent {
		if c.raw && c.tryWrite() || c.out == nil {
			return
		}
		if c.raw || len(c.out.b) > turnSize {
			c.readOn()
		}
	}
	c.writing = true
	if len(c.streams) > 1 { // others may be about to add something
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeOut()
	if c.out != nil { // what came meanwhile is not for this goroutine to wait for
		go c.writeRest()
		return
	}
	c.writing = false
	c.written.Signal()
}

// tryWrite writes as much as the socket takes. False: something is left.
func (c *Conn) tryWrite() bool {
	b := c.out.b
	n, err := c.sock.TryWrite(b)
	switch {
	case err != nil:
		c.die()
		c.sock.Abort()
	case n < len(b):
		c.out.b = b[:copy(b, b[n:])]
		return false
	default:
		c.drop()
		c.signalQueue()
	}
	return true
}

// writeLater has what there is sent without waiting.
func (c *Conn) writeLater() {
	if c.writing || c.out == nil || c.raw && c.tryWrite() {
		return
	}
	c.writing = true
	go c.writeRest()
}

// writeRest is a goroutine that writes until nothing is left.
func (c *Conn) writeRest() {
	c.mu.Lock()
	for c.out != nil {
		c.writeOut()
	}
	c.writing = false
	c.written.Signal()
	c.mu.Unlock()
}

// writeOut writes what there is now. c.mu is released meanwhile.
func (c *Conn) writeOut() {
	b := c.out
	if c.out = nil; b == nil {
		return
	}
	c.mu.Unlock()
	_, err := c.nc.Write(b.b)
	b.free()
	c.mu.Lock()
	if err != nil {
		c.die()
		c.sock.Abort()
	}
	c.signalQueue()
}

// signalQueue wakes the stream whose turn it is.
func (c *Conn) signalQueue() {
	if len(c.queue) > 0 {
		c.queue[0].sending.signal()
	}
}

// leaveQueue ends the stream's turn.
func (s *Stream) leaveQueue() {
	s.turn = 0
	if !s.queued {
		return
	}
	c := s.conn
	s.queued = false
	i := slices.Index(c.queue, s)
	c.queue = slices.Delete(c.queue, i, i+1)
	if i == 0 {
		c.signalQueue()
	}
}

// await waits until the stream may add a frame: with data one that counts
// against the windows.
func (s *Stream) await(data bool) error {
	c := s.conn
	if s.turn >= turnSize {
		s.leaveQueue()
	}
	until := int64(0)
	for {
		if s.dead || c.dead || s.outClosed {
			return head.ErrGone
		}
		own := data && s.sendWindow <= 0
		full := c.out != nil && len(c.out.b) >= outputFull
		first := len(c.queue) == 0 || c.queue[0] == s
		if !own && !full && first && (!data || c.sendWindow > 0) {
			return nil
		}
		if own {
			s.leaveQueue()
		} else if !s.queued {
			s.queued = true
			c.queue = append(c.queue, s)
		}
		if !c.writing && c.out != nil {
			c.write()
			continue
		}
		if until == 0 {
			until = c.ahead(s.sendTimeout)
		}
		if err := s.wait(&s.sending, until); err != nil {
			return err
		}
	}
}

// WriteHead sends a header block: the head of the answer, an interim one, or,
// with last, one that ends the answer.
func (s *Stream) WriteHead(block []byte, last bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.await(false); err != nil {
		return err
	}
	defer s.leaveQueue()
	kind, flags := uint8(frameHeaders), uint8(0)
	if last {
		flags = flagEndStream
		s.outClosed = true
	}
	b := c.buffer()
	before := len(b.b)
	resize := 0
	if c.resize {
		c.resize = false
		resize = 1
	}
	for {
		n := min(len(block), c.peerFrame-resize)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		b.b = appendHeader(b.b, n+resize, kind, flags, s.id)
		if resize > 0 {
			b.b = append(b.b, tableSizeZero)
		}
		b.b = append(b.b, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			break
		}
		kind, flags, resize = frameContinuation, 0, 0
	}
	size := int64(len(b.b) - before)
	s.sent += size
	s.heads += size
	c.sent += size
	c.payload += size - headerSize
	return nil
}

// WriteData sends a piece of the body in frames of at most chunk bytes; last
// ends the answer.
func (s *Stream) WriteData(p []byte, chunk int, last bool) error {
	_, err := s.writeData(p, chunk, 0, last)
	return err
}

// WriteFrames sends as much of p as makes frames of chunk bytes, and returns how
// much that was: the rest goes out together with what follows it.
func (s *Stream) WriteFrames(p []byte, chunk int) (int, error) {
	return s.writeData(p, chunk, chunk, false)
}

// writeData sends frames as long as they can have least bytes.
func (s *Stream) writeData(p []byte, chunk, least int, last bool) (sent int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	defer s.leaveQueue()
	for len(p) > 0 || last {
		if err := s.await(len(p) > 0); err != nil {
			return sent, err
		}
		if len(p) < min(least, c.peerFrame) {
			break
		}
		n := min(len(p), chunk, c.peerFrame)
		if n > 0 {
			n = int(min(int64(n), s.sendWindow, c.sendWindow))
		}
		flags := uint8(0)
		if last && n == len(p) {
			flags, last = flagEndStream, false
			s.outClosed = true
		}
		b := c.buffer()
		b.b = append(appendHeader(b.b, n, frameData, flags, s.id), p[:n]...)
		p = p[n:]
		sent += n
		s.turn += n
		s.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		s.sent += int64(headerSize + n)
		s.heads += headerSize
		c.sent += int64(headerSize + n)
		c.payload += int64(n)
	}
	return sent, nil
}

// Flush sends what the stream has to send.
func (s *Stream) Flush() error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.dead {
		return head.ErrGone
	}
	c.write()
	return nil
}
