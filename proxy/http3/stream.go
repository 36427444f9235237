package http3

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyctl/proxy/head"
	"proxyctl/proxy/http1"
)

// Stream is a request and its answer. Its methods are for the goroutine of its
// handler, but for Watch's function, and ReadBody, which may have a goroutine of
// its own: Discard ends that.
type Stream struct {
	head.Request
	Err      *http1.ParseError // why the head was refused
	Requests int               // of the connection, this one included

	conn    *Conn
	quic    *quic.Stream
	id      int
	over    <-chan struct{} // closed when nobody waits for the answer any more
	in      reader
	section section
	limit   int // bytes of names and values that may come yet

	rest      uint64 // of the DATA frame that is being read
	received  int64  // bytes of the body
	noted     int64  // of in.total, for the connection
	bodyErr   error
	inClosed  bool // the body is complete
	outClosed bool
	reset     bool // the client has been told why
	failed    bool // the client's head cannot be read any more
	timedOut  atomic.Bool
	out       []byte // that has not been sent

	bodyTimeout, sendTimeout time.Duration
	sent, heads              int64 // bytes of all frames, and of them but for the content of DATA

	mu      sync.Mutex
	gone    func()
	watched bool
	unwatch func() bool
}

// outputSize is how much of an answer is kept back for more to come.
const outputSize = 16 << 10

// maxKept is how large the memory of a stream may be that is kept for another.
const maxKept = 16 << 10

var streams = sync.Pool{New: func() any {
	return &Stream{Request: head.Request{Arena: make([]byte, 0, 1<<10)}}
}}

func newStream(c *Conn, q *quic.Stream) *Stream {
	s := streams.Get().(*Stream)
	s.conn, s.quic, s.in.src = c, q, q
	s.id, s.over = int(q.StreamID()), q.Context().Done()
	s.Reset(3, c.cfg.Fields)
	s.Requests = s.id/4 + 1
	s.limit = c.cfg.HeadSize
	s.section.table = &c.table
	s.sendTimeout = c.cfg.SendTimeout
	return s
}

// serve reads the head, runs the handler and ends the stream.
func (s *Stream) serve() {
	if s.readHead() {
		s.conn.handler(s)
	}
	s.end()
}

// end is the end of the stream: what the handler has left open is reset.
func (s *Stream) end() {
	q := s.quic
	s.stopWatching()
	s.count()
	if !s.inClosed || s.failed {
		s.conn.cancel(s.id)
	}
	switch {
	case s.outClosed, s.reset:
	case s.timedOut.Load():
		q.CancelWrite(quic.StreamErrorCode(GeneralProtocolError))
	default:
		q.CancelWrite(quic.StreamErrorCode(InternalError))
	}
	if !s.in.ended {
		q.CancelRead(quic.StreamErrorCode(NoError))
	}
	q.ReleaseStreamCredit()
	s.recycle()
}

// recycle makes the stream's memory available to another.
func (s *Stream) recycle() {
	s.in.release()
	out := s.out[:0]
	if cap(out) > 2*outputSize {
		out = nil
	}
	s.Recycle(maxKept)
	s.mu.Lock()
	s.gone = nil
	s.mu.Unlock()
	if s.watched { // somebody may be on his way to call gone
		return
	}
	*s = Stream{Request: s.Request, out: out}
	streams.Put(s)
}

// count tells the connection how much has come since it was told last.
func (s *Stream) count() {
	s.conn.note(s.in.total - s.noted)
	s.noted = s.in.total
}

// readHead reads the head of the request. False: there is nobody to answer.
func (s *Stream) readHead() bool {
	patience(s.quic, s.conn.cfg.HeadTimeout)
	err := s.head()
	if err == nil {
		s.complete()
	}
	s.count()
	var bad *wireError
	switch {
	case err == nil:
		return true
	case errors.As(err, &bad):
		if bad.code != 0 {
			s.refuse(bad.code)
		}
		s.failed = true
		s.Err = &http1.ParseError{Status: cmp.Or(bad.status, 400), Reason: bad.reason}
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.timedOut.Store(true)
		if s.in.total == 0 {
			s.conn.log("client timed out (110: Connection timed out)")
			return false
		}
		s.failed = true
		s.Err = &http1.ParseError{Status: 408, Reason: "client timed out"}
	case errors.Is(err, io.EOF) && s.in.total == 0:
		s.conn.log("client closed connection")
		return false
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.failed = true
		s.Err = &http1.ParseError{Status: 400, Reason: "client prematurely closed connection"}
	case s.in.total == 0: // reset before it began
		return false
	default:
		s.failed = true
		s.Err = &http1.ParseError{Status: 400, Reason: head.ErrGone.Error()}
	}
	return true
}

// refuse resets the stream in both directions.
func (s *Stream) refuse(code ErrCode) {
	s.reset = true
	s.quic.CancelWrite(quic.StreamErrorCode(code))
}

// patience sets how long the next bytes may take.
func patience(q *quic.Stream, d time.Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	_ = q.SetReadDeadline(until)
}

// unexpected says whether a frame may not come on the stream of a request.
func unexpected(kind uint64) bool {
	switch kind {
	case framePriority, framePing, frameWindow, frameContinued,
		frameGoAway, frameSettings, frameMaxPush, frameCancelPush, framePush:
		return true
	}
	return false
}

// head reads frames up to the end of the first HEADERS.
func (s *Stream) head() error {
	for {
		kind, size, err := s.frame()
		switch {
		case err != nil:
			return err
		case kind == frameHeaders:
			return s.headers(size)
		case kind == frameData, unexpected(kind):
			return broken(FrameUnexpected, "client sent invalid header")
		}
		if err := s.in.skip(size); err != nil {
			return err
		}
	}
}

// frame reads the head of a frame. A client that has sent too much for what it
// says has no more of them.
func (s *Stream) frame() (kind, size uint64, err error) {
	if s.count(); s.conn.flooded() {
		return 0, 0, head.ErrGone
	}
	return s.in.frame()
}

// headers reads the HEADERS frame of the request.
func (s *Stream) headers(size uint64) error {
	b, err := s.block(size)
	if err != nil {
		return err
	}
	if err := s.decode(b, s.take); err != nil {
		return err
	}
	s.Req.HeadSize = int(s.in.total) - len(s.in.held())
	s.conn.worth(int64(s.Req.HeadSize))
	return nil
}

// complete ends the head. Whether a body follows is known if the client has ended
// its side by now.
func (s *Stream) complete() {
	if !s.in.ended {
		size := int64(-1)
		s.quic.SetReceiveFinalSizeCallback(func(n int64) { size = n })
		s.quic.SetReceiveFinalSizeCallback(nil)
		if size == s.in.total {
			_ = s.in.fill() // the end, or a reset
		}
	}
	s.inClosed = s.in.ended && len(s.in.held()) == 0
	if s.Err == nil {
		s.Err = s.Complete(s.inClosed)
	}
}

// block reads a field section. One that is much larger than what it may say in
// the end is not waited for.
func (s *Stream) block(size uint64) ([]byte, error) {
	switch most := uint64(2*s.conn.cfg.HeadSize) + 1<<10; {
	case size == 0:
		return nil, broken(FrameError, "client sent invalid header")
	case size > most:
		return nil, errTooLarge
	}
	return s.in.payload(int(size))
}

// decode decodes a field section, and tells the client what it has used.
func (s *Stream) decode(b []byte, take func(*head.Field) error) error {
	t := &s.conn.table
	b, err := s.section.prefix(b)
	if err == nil && s.section.required > 0 {
		err = t.await(s.section.required, s.conn.cfg.HeadTimeout, s.over)
	}
	if err == nil {
		err = s.section.fields(b, &s.Arena, take)
	}
	if err == nil && s.section.required > 0 {
		s.conn.acknowledge(s.id, s.section.required)
	}
	return err
}

// take is given every field of the head. Those behind a mistake are decoded all
// the same.
func (s *Stream) take(f *head.Field) error {
	if s.limit -= len(f.Name) + len(f.Value); s.limit < 0 {
		return errTooLarge
	}
	if s.Err == nil {
		s.Err = s.Field(f)
	}
	return nil
}

// errTooLarge refuses a head with an answer.
var errTooLarge = &wireError{reason: "client sent too large header", status: 494}

// Watch has gone called when the client gives the answer up or goes away. gone
// must not wait.
func (s *Stream) Watch(gone func()) {
	s.mu.Lock()
	s.gone = gone
	first := !s.watched
	s.watched = true
	s.mu.Unlock()
	ctx := s.quic.Context()
	if first {
		s.unwatch = context.AfterFunc(ctx, s.leave)
	} else if ctx.Err() != nil {
		s.leave()
	}
}

// stopWatching lets go of the client for good.
func (s *Stream) stopWatching() {
	if s.unwatch != nil && s.unwatch() {
		s.watched = false
	}
	s.unwatch = nil
}

// leave calls gone, unless it is the server that has ended the answer.
func (s *Stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.gone; f != nil && !errors.Is(context.Cause(s.quic.Context()), quic.ErrStreamClosed) {
		s.gone = nil
		f()
	}
}

// Unwatch ends Watch: gone neither runs nor will when it returns.
func (s *Stream) Unwatch() {
	s.mu.Lock()
	s.gone = nil
	s.mu.Unlock()
}

// Gone says whether the client has given the answer up or has gone away.
func (s *Stream) Gone() bool {
	ctx := s.quic.Context()
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), quic.ErrStreamClosed)
}

// SetTimeouts says how long the next piece of the body may take, and how long
// the client may take no more of the answer.
func (s *Stream) SetTimeouts(body, send time.Duration) {
	s.bodyTimeout, s.sendTimeout = body, send
}

// Sent gives the bytes sent so far, and how many of them were no body.
func (s *Stream) Sent() (all, heads int64) { return s.sent, s.heads }

// Buffered returns the body if it has arrived whole; it then counts as read. The
// bytes are valid until the handler returns.
func (s *Stream) Buffered() ([]byte, bool) {
	switch {
	case s.bodyErr != nil || s.failed:
		return nil, false
	case s.inClosed:
		return nil, true
	case !s.in.ended:
		return nil, false
	}
	b := make([]byte, len(s.in.held()))
	n := 0
	for {
		m, err := s.ReadBody(b[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return b[:n], true
		}
		if err != nil {
			return nil, false
		}
	}
}

// ReadBody reads bytes of the body; io.EOF comes with the last of them or by
// itself.
func (s *Stream) ReadBody(p []byte) (int, error) {
	switch {
	case s.bodyErr != nil:
		return 0, s.bodyErr
	case s.inClosed:
		return 0, io.EOF
	case s.failed:
		return 0, head.ErrGone
	}
	patience(s.quic, s.bodyTimeout)
	n, err := s.readBody(p)
	s.count()
	s.received += int64(n)
	s.conn.worth(int64(n))
	declared := s.Req.ContentLength
	var bad *wireError
	switch {
	case err == nil && declared >= 0 && s.received > declared:
		err = head.ErrLong
	case err == nil, errors.Is(err, head.ErrLong):
	case err == io.EOF:
		if s.inClosed = true; declared < 0 || s.received >= declared {
			return n, io.EOF
		}
		err = head.ErrShort
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.timedOut.Store(true)
		return n, os.ErrDeadlineExceeded
	case errors.As(err, &bad):
		s.refuse(cmp.Or(bad.code, ExcessiveLoad))
		s.conn.log(bad.reason)
		err = head.ErrGone
	default:
		err = head.ErrGone
	}
	s.bodyErr = err
	if err != nil {
		n = 0
	}
	return n, err
}

// Discard says that nobody wants the rest of the body.
func (s *Stream) Discard() { s.quic.CancelRead(quic.StreamErrorCode(NoError)) }

// readBody reads frames up to bytes of DATA or the end.
func (s *Stream) readBody(p []byte) (int, error) {
	for s.rest == 0 {
		kind, size, err := s.frame()
		switch {
		case err != nil:
		case kind == frameData:
			s.rest = size
			if n := s.Req.ContentLength; n >= 0 && size > uint64(n-s.received) {
				return 0, head.ErrLong
			}
			continue
		case kind == frameHeaders:
			if err = s.trailers(size); err == nil {
				err = io.EOF
			}
		case unexpected(kind):
			err = broken(FrameUnexpected, "client sent invalid body")
		default:
			err = s.in.skip(size)
		}
		if err != nil {
			return 0, err
		}
	}
	if uint64(len(p)) > s.rest {
		p = p[:s.rest]
	}
	n, err := s.in.body(p)
	s.rest -= uint64(n)
	return n, err
}

// trailers reads the fields behind the body and what may follow them. Unlike
// nginx, which does not look at them, they are checked and dropped (RFC 9114,
// section 4.1).
func (s *Stream) trailers(size uint64) error {
	b, err := s.block(size)
	if err != nil {
		return err
	}
	limit := s.conn.cfg.HeadSize
	malformed := false
	err = s.decode(b, func(f *head.Field) error {
		if limit -= len(f.Name) + len(f.Value); limit < 0 {
			return broken(ExcessiveLoad, "client sent too large header")
		}
		malformed = malformed || f.Name[0] == ':' || f.Bad != head.Fine
		return nil
	})
	if err == nil && malformed {
		err = broken(GeneralProtocolError, "client sent invalid trailers")
	}
	for err == nil {
		var kind, size uint64
		if kind, size, err = s.frame(); errors.Is(err, io.EOF) {
			return nil
		}
		switch {
		case err != nil:
		case kind == frameData, kind == frameHeaders, unexpected(kind):
			err = broken(FrameUnexpected, "client sent invalid body")
		default:
			err = s.in.skip(size)
		}
	}
	return err
}

// WriteHead sends a field section; with last nothing follows.
func (s *Stream) WriteHead(block []byte, last bool) error {
	s.appendFrame(frameHeaders, len(block))
	s.out = append(s.out, block...)
	s.heads += int64(len(block))
	s.sent += int64(len(block))
	return s.progress(last)
}

// appendFrame begins a frame.
func (s *Stream) appendFrame(kind uint64, size int) {
	before := len(s.out)
	s.out = quicvarint.Append(quicvarint.Append(s.out, kind), uint64(size))
	n := int64(len(s.out) - before)
	s.heads += n
	s.sent += n
}

// WriteData sends body bytes; with last nothing follows.
func (s *Stream) WriteData(p []byte, last bool) error {
	if s.outClosed {
		return nil
	}
	if len(p) > 0 {
		s.appendFrame(frameData, len(p))
		s.sent += int64(len(p))
	}
	for len(p) > 0 {
		n := min(len(p), max(outputSize-len(s.out), 0))
		s.out = append(s.out, p[:n]...)
		if p = p[n:]; len(s.out) >= outputSize {
			if err := s.Flush(); err != nil {
				return err
			}
		}
	}
	return s.progress(last)
}

// progress sends what has come together, and the end.
func (s *Stream) progress(last bool) error {
	if !last {
		if len(s.out) >= outputSize {
			return s.Flush()
		}
		return nil
	}
	if err := s.Flush(); err != nil {
		return err
	}
	s.outClosed = true
	s.stopWatching()
	_ = s.quic.Close()
	return nil
}

// Flush sends what the stream has to send.
func (s *Stream) Flush() error {
	if len(s.out) == 0 {
		return nil
	}
	var until time.Time
	if s.sendTimeout > 0 {
		until = time.Now().Add(s.sendTimeout)
	}
	_ = s.quic.SetWriteDeadline(until)
	n, err := s.quic.Write(s.out)
	s.sent -= int64(len(s.out) - n)
	s.out = s.out[:0]
	if err == nil {
		s.conn.sentBytes(int64(n))
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.timedOut.Store(true)
		return os.ErrDeadlineExceeded
	}
	return head.ErrGone
}
