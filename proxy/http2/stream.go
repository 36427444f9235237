package http2

import (
	"io"
	"os"
	"sync"
	"time"

	"proxyctl/proxy/head"
	"proxyctl/proxy/http1"
)

// Stream is a request and its answer. Its methods are for the goroutine of its
// handler, but for Watch's function, which the Conn calls, and ReadBody, which
// may have a goroutine of its own: Discard ends that.
type Stream struct {
	head.Request
	Err      *http1.ParseError // why the head was refused
	Requests int               // of the connection, this one included

	conn             *Conn
	id               uint32
	sending, reading waiter

	// under the connection's lock
	inClosed, outClosed bool
	dead                bool // the client has reset it, or the connection is over
	timedOut            bool
	discard             bool // nobody wants the rest of the body
	whole               bool // all of the body was admitted
	queued              bool
	body                []byte // of which bodyAt bytes are used
	bodyAt              int
	bodyErr             error
	received            int64 // bytes of the body
	recvWindow          int64
	granted             int64 // size of recvWindow when all of the body has been read
	sendWindow          int64
	turn                int // bytes sent since it was the stream's turn
	gone                func()

	bodyTimeout, sendTimeout time.Duration
	sent, heads              int64 // bytes of all frames, and of them but for the content of DATA
}

// maxHeld is how much of a body that is being stored may wait for that.
const maxHeld = 256 << 10

// maxKept is how large the memory of a stream may be that is kept for another.
const maxKept = 16 << 10

var streams = sync.Pool{New: func() any {
	return &Stream{sending: newWaiter(), reading: newWaiter(), Request: head.Request{Arena: make([]byte, 0, 1<<10)}}
}}

// waiter is somebody who waits for the client: to take more of the answer, or to
// send more of the body.
type waiter struct {
	wake  chan struct{}
	timer *time.Timer
}

func newWaiter() waiter { return waiter{wake: make(chan struct{}, 1)} }

// signal wakes who waits, if anybody does.
func (w *waiter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// forget drops a signal that nobody has waited for.
func (w *waiter) forget() {
	select {
	case <-w.wake:
	default:
	}
}

// newStream begins a stream; the caller holds c.mu.
func newStream(c *Conn, id uint32) *Stream {
	s := streams.Get().(*Stream)
	s.conn, s.id = c, id
	s.Reset(2, c.cfg.Fields)
	s.Requests = c.requests + 1
	s.recvWindow, s.granted, s.sendWindow = c.cfg.Window, c.cfg.Window, c.initWindow
	s.bodyTimeout, s.sendTimeout = 0, c.cfg.SendTimeout
	return s
}

// serve runs the handler and ends the stream.
func (s *Stream) serve() {
	s.conn.handler(s)
	s.end()
}

// end is the end of the stream: what the handler has left open is reset.
func (s *Stream) end() {
	c := s.conn
	c.mu.Lock()
	s.leaveQueue()
	switch {
	case s.dead:
	case !s.outClosed && (s.timedOut || s.Err != nil && s.Err.Status == 408):
		_ = c.reset(s.id, ProtocolError)
	case !s.outClosed:
		_ = c.reset(s.id, InternalError)
	case !s.inClosed:
		_ = c.reset(s.id, NoError)
	}
	if !s.inClosed {
		c.leave(s.id)
	}
	s.die()
	delete(c.streams, s.id)
	c.write()
	c.closed()
	c.mu.Unlock()
	s.recycle()
}

// recycle makes the stream's memory available to another.
func (s *Stream) recycle() {
	body := s.body[:0]
	if cap(body) > maxKept {
		body = nil
	}
	s.sending.forget()
	s.reading.forget()
	s.Recycle(maxKept)
	*s = Stream{Request: s.Request, sending: s.sending, reading: s.reading, body: body}
	streams.Put(s)
}

// die ends all waiting of the handler; the caller holds the lock.
func (s *Stream) die() {
	if s.dead {
		return
	}
	s.dead = true
	s.sending.signal()
	s.reading.signal()
	s.conn.filled.Signal()
	if f := s.gone; f != nil {
		s.gone = nil
		f()
	}
}

// wait gives the lock away until something has changed or the time has come.
func (s *Stream) wait(w *waiter, until int64) error {
	c := s.conn
	c.readOn()
	if until == 0 {
		c.mu.Unlock()
		<-w.wake
		c.mu.Lock()
		return nil
	}
	d := time.Duration(until - c.sock.Now())
	if d <= 0 {
		s.timedOut = true
		return os.ErrDeadlineExceeded
	}
	c.mu.Unlock()
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	select {
	case <-w.wake:
	case <-w.timer.C:
	}
	w.timer.Stop()
	c.mu.Lock()
	return nil
}

// Watch has gone called when the client resets the stream or goes away. gone
// must not wait.
func (s *Stream) Watch(gone func()) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readOn() // whoever watches is about to wait
	if s.dead {
		gone()
		return
	}
	s.gone = gone
}

// Wait says that the handler is about to wait for something else than the client:
// the connection is read meanwhile.
func (s *Stream) Wait() { s.conn.relieve() }

// Gone says whether the client has reset the stream or has gone away.
func (s *Stream) Gone() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.dead
}

// Unwatch ends Watch: gone neither runs nor will when it returns.
func (s *Stream) Unwatch() {
	s.conn.mu.Lock()
	s.gone = nil
	s.conn.mu.Unlock()
}

// SetTimeouts says how long the next piece of the body may take, and how long
// the client may take no more of the answer.
func (s *Stream) SetTimeouts(body, send time.Duration) {
	s.bodyTimeout, s.sendTimeout = body, send
}

// Sent gives the bytes sent so far, and how many of them were no body.
func (s *Stream) Sent() (all, heads int64) { return s.sent, s.heads }

// count counts a DATA frame against the window; the caller holds the lock.
func (s *Stream) count(size int64) {
	c := s.conn
	switch {
	case size > s.recvWindow:
		s.refuse(FlowControlError)
	case s.inClosed:
		s.refuse(StreamClosed)
	default:
		s.recvWindow -= size
		if s.whole && s.recvWindow < maxWindow/4 {
			_ = c.grant(s.id, maxWindow-s.recvWindow)
			s.recvWindow = maxWindow
		}
	}
}

// refuse resets the stream and gives it up; the caller holds the lock.
func (s *Stream) refuse(code ErrCode) {
	s.die()
	_ = s.conn.reset(s.id, code)
}

// arrive takes a piece of the body; the caller holds the lock.
func (s *Stream) arrive(p []byte, last bool) {
	if s.inClosed || s.dead {
		return
	}
	s.conn.payload += int64(len(p))
	s.received += int64(len(p))
	s.inClosed = last
	declared := s.Req.ContentLength
	switch {
	case s.bodyErr != nil || s.discard:
	case declared >= 0 && s.received > declared:
		s.bodyErr = head.ErrLong
	case last && declared >= 0 && s.received < declared:
		s.bodyErr = head.ErrShort
	default:
		s.body = append(s.body, p...)
	}
	s.reading.signal()
}

// Buffered returns the body if it has arrived whole; it then counts as read. The
// bytes are valid until the handler returns.
func (s *Stream) Buffered() ([]byte, bool) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if !s.inClosed || s.bodyErr != nil || s.dead {
		return nil, false
	}
	b := s.body[s.bodyAt:]
	s.bodyAt = len(s.body)
	return b, true
}

// AdmitAll lets the client send all of the body as fast as it can. The handler
// must then read it without waiting for anything else: the whole connection waits
// for that when too much has come.
func (s *Stream) AdmitAll() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.whole || !s.lacksRoom() {
		return
	}
	s.whole = true
	_ = c.grant(s.id, maxWindow-s.recvWindow)
	s.recvWindow = maxWindow
	c.writeLater()
}

// lacksRoom says whether the window is smaller than what may still come.
func (s *Stream) lacksRoom() bool {
	n := s.Req.ContentLength
	return !s.inClosed && !s.dead && (n < 0 || n-s.received > s.recvWindow)
}

// Admit lets n bytes of the body be on their way at a time, unless it is more
// already.
func (s *Stream) Admit(n int64) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if n = min(n, maxWindow); s.whole || n <= s.granted || !s.lacksRoom() {
		return
	}
	_ = c.grant(s.id, n-s.granted)
	s.recvWindow += n - s.granted
	s.granted = n
	c.writeLater()
}

// Discard says that nobody wants the rest of the body. Whoever waits for it gets
// ErrGone.
func (s *Stream) Discard() {
	s.conn.mu.Lock()
	s.discard = true
	s.body, s.bodyAt = s.body[:0], 0
	s.conn.filled.Signal()
	s.reading.signal()
	s.conn.mu.Unlock()
}

// ReadBody reads bytes of the body; io.EOF comes with the last of them. What the
// client sent before a mistake in its framing is not worth reading.
func (s *Stream) ReadBody(p []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	until := int64(0)
	for {
		switch {
		case s.bodyErr != nil:
			return 0, s.bodyErr
		case s.bodyAt < len(s.body):
			n := copy(p, s.body[s.bodyAt:])
			s.bodyAt += n
			s.used()
			if s.inClosed && s.bodyAt == len(s.body) {
				return n, io.EOF
			}
			return n, nil
		case s.inClosed:
			return 0, io.EOF
		case s.dead, s.discard:
			return 0, head.ErrGone
		case len(p) == 0:
			return 0, nil
		}
		if until == 0 {
			until = c.ahead(s.bodyTimeout)
		}
		c.write() // the client may wait for room
		if err := s.wait(&s.reading, until); err != nil {
			return 0, err
		}
	}
}

// BodyAtHand says whether ReadBody has something without waiting for the client.
func (s *Stream) BodyAtHand() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.bodyAt < len(s.body) || s.inClosed || s.bodyErr != nil
}

// used makes room for more of the body; the caller holds the lock.
func (s *Stream) used() {
	if s.bodyAt == len(s.body) {
		s.body, s.bodyAt = s.body[:0], 0
	}
	if s.whole {
		if len(s.body)-s.bodyAt <= maxHeld/2 {
			s.conn.filled.Signal()
		}
		return
	}
	missing := s.granted - s.recvWindow - int64(len(s.body)-s.bodyAt)
	if !s.inClosed && !s.dead && missing > 0 && missing >= s.granted/2 {
		_ = s.conn.grant(s.id, missing)
		s.recvWindow += missing
		s.conn.writeLater()
	}
}

// grow changes the room that the client grants; the caller holds the lock.
func (s *Stream) grow(n int64) error {
	if s.sendWindow+n > maxWindow {
		if s.dead {
			return nil
		}
		s.die()
		return s.conn.reset(s.id, FlowControlError)
	}
	before := s.sendWindow
	s.sendWindow += n
	if before <= 0 && s.sendWindow > 0 {
		s.sending.signal()
	}
	return nil
}
