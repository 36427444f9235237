package http2

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"proxyctl/proxy/http1"
)

// What a client sends: the head of a request, its body within the windows of the
// other side, and answers to that side's own frames.

// sender is the sending half of a ClientConn. All of it is shared between the
// goroutine that reads the answer and the one that sends the body.
type sender struct {
	mu       sync.Mutex
	out      *buffer   // what is to be written; nil for nothing
	writing  bool      // somebody writes, without the lock
	written  sync.Cond // nobody does any more
	failed   error     // writing has, for good
	shared   bool      // the body has a goroutine of its own
	bytesOut int64     // since begin
	window   int64     // how much may be sent on all streams
	initial  int64     // on a new one
	room     int64     // on the stream
	sent     bool      // the request is out, to its end
	over     bool      // nobody wants the rest of it
	wake     chan struct{}
}

// ErrAnswered ends a body that nobody wants any more: the answer is complete
// before the request is.
var ErrAnswered = errors.New("the request has been answered already")

func (o *sender) init() {
	o.window, o.initial = defaultWindow, defaultWindow
	o.written.L, o.wake = &o.mu, make(chan struct{}, 1)
}

// begin prepares for a request.
func (o *sender) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.room = o.initial
	o.bytesOut = 0
	o.sent, o.over, o.shared = false, false, false
}

// buffer gives the buffer for what is to be written; the caller holds o.mu, as
// for all that follows in small letters.
func (o *sender) buffer() *buffer {
	if o.out == nil {
		o.out = buffers.Get().(*buffer)
	}
	return o.out
}

// frame appends a frame.
func (o *sender) frame(kind, flags uint8, id uint32, p []byte) {
	b := o.buffer()
	b.b = append(appendHeader(b.b, len(p), kind, flags, id), p...)
}

func (o *sender) grant(id uint32, n int64) {
	var p [4]byte
	binary.BigEndian.PutUint32(p[:], uint32(n))
	o.frame(frameWindow, 0, id, p[:])
}

// greet begins the connection: no table, no pushes, and room for everything.
func (o *sender) greet() {
	b := o.buffer()
	b.b = append(b.b, Preface...)
	var p []byte
	for _, s := range [...]struct {
		id    uint16
		value uint32
	}{{settingTableSize, 0}, {settingPush, 0}, {settingWindow, maxWindow}} {
		p = binary.BigEndian.AppendUint16(p, s.id)
		p = binary.BigEndian.AppendUint32(p, s.value)
	}
	o.frame(frameSettings, 0, 0, p)
	o.grant(0, maxWindow-defaultWindow)
}

// signal wakes the one who waits for room.
func (o *sender) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// grow takes room that the other side grants, on all streams or on the one. False
// when that is more than there can be.
func (o *sender) grow(all bool, n int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	window := &o.room
	if all {
		window = &o.window
	}
	if *window+n > maxWindow {
		return false
	}
	*window += n
	o.signal()
	return true
}

// resize changes the room that a stream begins with.
func (o *sender) resize(n int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.room+n-o.initial > maxWindow {
		return false
	}
	o.room += n - o.initial
	o.initial = n
	o.signal()
	return true
}

// SendHead sends the head of a request: a request line and fields as HTTP/1.1
// has them. end says that there is no body; else the head goes out with what
// SendNow sends, or with Flush.
func (c *ClientConn) SendHead(head []byte, scheme string, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.greeted {
		c.greeted = true
		c.greet()
	}
	block := appendRequest(nil, head, scheme)
	kind, flags := uint8(frameHeaders), uint8(0)
	if end {
		flags, c.sent = flagEndStream, true
	}
	for {
		n := min(len(block), defaultFrameSize)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		c.frame(kind, flags, c.stream.id, block[:n])
		if block = block[n:]; len(block) == 0 {
			break
		}
		kind, flags = frameContinuation, 0
	}
	if !end {
		return nil
	}
	return c.push()
}

// Flush sends a head that is held back.
func (c *ClientConn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.push()
}

// Share says that another goroutine sends the body from now on.
func (c *ClientConn) Share() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shared = true
}

// SendNow sends as much of a part of the body as there is room for, and returns
// how much that was. last says that the body ends with it.
func (c *ClientConn) SendNow(p []byte, last bool) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing { // frames of the one who reads
		c.written.Wait()
	}
	switch {
	case c.failed != nil:
		return 0, c.failed
	case c.over:
		return 0, ErrAnswered
	}
	n = int(min(int64(len(p)), max(0, min(c.window, c.room))))
	c.window -= int64(n)
	c.room -= int64(n)
	end := last && n == len(p) && !c.sent
	for left := p[:n]; len(left) > 0 || end; {
		piece := left[:min(len(left), defaultFrameSize)]
		left = left[len(piece):]
		flags := uint8(0)
		if end && len(left) == 0 {
			flags, end, c.sent = flagEndStream, false, true
		}
		c.frame(frameData, flags, c.stream.id, piece)
		if len(c.out.b) >= outputFull {
			if err := c.write(); err != nil {
				return n, err
			}
		}
	}
	err = c.write()
	if c.sent {
		c.sock.SetTimeout(c.read)
	}
	return n, err
}

// Send sends a part of the body, and waits for room.
func (c *ClientConn) Send(p []byte) error { return c.data(p, false) }

// SendLast sends the last part of the body.
func (c *ClientConn) SendLast(p []byte) error { return c.data(p, true) }

// Finish ends the body, unless SendLast has.
func (c *ClientConn) Finish() error { return c.data(nil, true) }

func (c *ClientConn) data(p []byte, last bool) error {
	for {
		n, err := c.SendNow(p, last)
		if p = p[n:]; err != nil || len(p) == 0 {
			return err
		}
		if err := c.AwaitRoom(); err != nil {
			return err
		}
	}
}

// AwaitRoom waits until SendNow has room, or no need for it any more.
func (c *ClientConn) AwaitRoom() error {
	timer := time.NewTimer(c.send)
	defer timer.Stop()
	for {
		c.mu.Lock()
		ready := c.over || c.failed != nil || c.window > 0 && c.room > 0
		c.mu.Unlock()
		switch {
		case c.sock.Aborted():
			return &http1.Error{Op: "send", Err: net.ErrClosed}
		case ready:
			return nil
		}
		select {
		case <-c.wake:
		case <-timer.C:
			return &http1.Error{Op: "send", Err: os.ErrDeadlineExceeded}
		}
	}
}

// StopSending makes SendNow and its like fail with ErrAnswered, also in another
// goroutine: nobody wants the rest of the request. The connection is of no more
// use then, so that a write in progress may fail, too, unless it is the last.
func (c *ClientConn) StopSending() {
	c.mu.Lock()
	c.over = true
	stuck := c.writing && !c.sent
	c.mu.Unlock()
	if stuck {
		c.sock.Abort()
	}
	c.signal()
}

// acknowledge answers a frame of the other side.
func (c *ClientConn) acknowledge(kind uint8, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frame(kind, flagAck, 0, p)
	if len(c.out.b) > outputMost {
		return c.fail("upstream sent too many http2 frames")
	}
	return c.push()
}

// push has what was collected beside the body sent; whoever writes already takes
// it along. It never waits while the body has a goroutine of its own: the other
// side may read no more before it can write, which takes somebody who reads.
func (c *ClientConn) push() error {
	switch {
	case c.out == nil || c.writing:
		return nil
	case !c.shared:
		return c.write()
	}
	c.writing = true
	go func() {
		c.mu.Lock()
		_ = c.writeOut()
		c.mu.Unlock()
	}()
	return nil
}

// write writes what has been collected.
func (c *ClientConn) write() error {
	if c.out == nil {
		return c.failed
	}
	c.writing = true
	return c.writeOut()
}

// writeOut writes until nothing is left. c.mu is released meanwhile.
func (c *ClientConn) writeOut() error {
	for c.out != nil && c.failed == nil {
		b := c.out
		c.out = nil
		c.mu.Unlock()
		n, err := c.nc.Write(b.b)
		b.free()
		c.mu.Lock()
		c.bytesOut += int64(n)
		if err != nil {
			c.failed = &http1.Error{Op: "send", Err: err}
		}
	}
	c.writing = false
	c.written.Broadcast()
	return c.failed
}

// whileSending is how long an answer may take while its request is not out: as
// long as that takes.
const whileSending = 365 * 24 * time.Hour

// limitRead sets how long the next read may take. What the answer is waited for
// from when the request is out; answered says that it has begun before.
func (c *ClientConn) limitRead(d time.Duration, answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared && !c.sent && !answered {
		d = whileSending
	}
	c.sock.SetTimeout(d)
}

// atRest says whether a request is out and nothing else is on its way.
func (c *ClientConn) atRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent && c.failed == nil && !c.writing && c.out == nil
}

// cancel tells the other side that the stream is given up, if that can be done
// without waiting; else it has to see it from the end of the connection.
func (c *ClientConn) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil && !c.writing {
		c.out.free()
		c.out = nil
	}
	open := c.greeted && (!c.sent || !c.stream.ended)
	if !open || c.failed != nil || c.writing || net.Conn(c.sock) != c.nc {
		return
	}
	var p [headerSize + 4]byte
	b := binary.BigEndian.AppendUint32(appendHeader(p[:0], 4, frameReset, 0, c.stream.id), uint32(Cancel))
	_, _ = c.sock.TryWrite(b)
}
