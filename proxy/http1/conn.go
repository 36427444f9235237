package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"proxyctl/proxy/sock"
)

// ConnConfig is what a server's connections have in common. It must not change
// while connections use it.
type ConnConfig struct {
	Limits        Limits
	HeadTimeout   time.Duration // for a whole head
	IdleTimeout   time.Duration // between requests
	BodyTimeout   time.Duration // between two reads of a body
	SendTimeout   time.Duration // between two writes
	LingerTime    time.Duration // how long unread input is discarded at the end; 0: not at all
	LingerTimeout time.Duration // how long to wait for more of it
	LingerAlways  bool
}

// Handler answers one request. When c.Err is set the head was refused, and the
// connection ends after the answer.
type Handler func(c *Conn)

// Conn is the server's side of a connection. A handler and the Conn itself run
// in one goroutine; Shutdown and the watch function are for others.
type Conn struct {
	Req       Request
	Err       error  // why the head was refused; a *ParseError
	Out       []byte // the answer so far; Flush sends it
	KeepAlive bool   // whether the connection goes on after this request
	Requests  int    // including this one
	BytesIn   int64
	BytesOut  int64

	cfg     *ConnConfig
	handler Handler
	nc      net.Conn
	sock    *sock.Conn // under nc; for timeouts
	raw     bool       // nc is sock: requests are served inside its Loop

	pooledBuf  *[]byte // what buf came from; nil for one of its own
	pooledOut  *[]byte
	buf        []byte
	start, end int // what has been read and not used
	bodyAt     int // where the body may be read to: the head before it is in use

	body      bodyState
	left      int64
	chunked   Chunked
	expecting bool // the client waits for 100 Continue

	bodyTimeout, sendTimeout time.Duration

	slow     bool // this request needs reads: it is served outside of Loop
	done     bool
	hijacked bool
	sent     bool // something of the answer is on the wire
	headFrom int64
	state    atomic.Int32
	step     func() bool
}

type bodyState uint8

const (
	noBody bodyState = iota
	fixedBody
	chunkedBody
)

// The states that Shutdown looks at.
const (
	stateIdle int32 = iota
	stateBusy
	stateClosing
)

// bufferSize is the size of a pooled read buffer: most heads with a small body.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

var outputs = sync.Pool{New: func() any { b := make([]byte, 0, 24<<10); return &b }}

// maxKeptOutput is how large an output buffer may be to go back to the pool.
const maxKeptOutput = 64 << 10

// NewConn makes the server's side of nc, a *sock.Conn or a connection over one.
func NewConn(nc net.Conn, s *sock.Conn, cfg *ConnConfig, h Handler) *Conn {
	c := &Conn{cfg: cfg, handler: h, nc: nc, sock: s}
	c.raw = net.Conn(s) == nc && s.Raw()
	c.step = c.readStep
	return c
}

// Prefill gives the connection bytes that were read before it was made.
func (c *Conn) Prefill(b []byte) {
	c.acquire()
	c.end += copy(c.buf[c.end:], b)
}

// Serve answers requests until the connection ends, then closes it.
func (c *Conn) Serve() {
	defer c.finish()
	if c.end > 0 && !c.process() && !c.resume() {
		return
	}
	for !c.done {
		if !c.raw {
			c.readPlain()
			continue
		}
		if err := c.sock.Loop(c.step); err != nil {
			c.expired(err)
			return
		}
		if !c.resume() {
			return
		}
	}
}

// resume serves the request for which the Loop was left.
func (c *Conn) resume() bool {
	for c.slow && !c.done {
		c.slow = false
		c.dispatch()
		c.process()
	}
	return !c.done
}

// readStep serves everything that has arrived; it runs inside the socket's
// Loop and returns true to leave it.
func (c *Conn) readStep() bool {
	for {
		c.acquire()
		if !c.room() {
			return true
		}
		free := len(c.buf) - c.end
		n, err := c.sock.TryRead(c.buf[c.end:])
		if errors.Is(err, sock.ErrAgain) {
			return c.wait()
		}
		if err != nil {
			c.ended(err)
			return true
		}
		c.sock.Busy()
		c.end += n
		c.BytesIn += int64(n)
		if !c.process() {
			return true
		}
		if n < free {
			return c.wait()
		}
	}
}

// wait prepares for the time until more arrives.
func (c *Conn) wait() bool {
	if c.start < c.end {
		if c.headFrom == 0 {
			c.headFrom = time.Now().UnixNano()
		}
		c.sock.Idle(max(c.cfg.HeadTimeout-time.Duration(time.Now().UnixNano()-c.headFrom), time.Millisecond))
		return false
	}
	c.release()
	if !c.state.CompareAndSwap(stateBusy, stateIdle) && c.state.Load() == stateClosing {
		c.done = true
		return true
	}
	if c.Requests == 0 {
		c.sock.Idle(c.cfg.HeadTimeout)
	} else {
		c.sock.Idle(c.cfg.IdleTimeout)
	}
	return false
}

// readPlain reads and serves over a transport that is not a plain socket.
func (c *Conn) readPlain() {
	if c.wait() {
		return
	}
	c.acquire()
	if !c.room() {
		return
	}
	c.sock.SetTimeout(c.headWait())
	n, err := c.nc.Read(c.buf[c.end:])
	c.end += n
	c.BytesIn += int64(n)
	if n > 0 {
		c.process()
		c.resume()
		return
	}
	if err != nil {
		c.expired(err)
	}
}

func (c *Conn) headWait() time.Duration {
	if c.Requests == 0 || c.start < c.end {
		return c.cfg.HeadTimeout
	}
	return c.cfg.IdleTimeout
}

// room makes space for more of a head, or refuses one that is too large.
func (c *Conn) room() bool {
	if c.end < len(c.buf) {
		return true
	}
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
		return true
	}
	if len(c.buf) > c.cfg.Limits.Head {
		c.refuse(&ParseError{494, "client sent too large request"})
		return false
	}
	larger := make([]byte, c.cfg.Limits.Head+bufferSize)
	c.end = copy(larger, c.buf[:c.end])
	c.putBuffer()
	c.buf = larger
	return true
}

func (c *Conn) acquire() {
	if c.buf == nil {
		c.pooledBuf = buffers.Get().(*[]byte)
		c.buf = *c.pooledBuf
		c.start, c.end = 0, 0
	}
}

// release gives the buffers back while nothing is going on.
func (c *Conn) release() {
	c.putBuffer()
	if c.pooledOut != nil {
		if cap(c.Out) <= maxKeptOutput {
			*c.pooledOut = c.Out[:0]
		}
		outputs.Put(c.pooledOut)
	}
	c.Out, c.pooledOut = nil, nil
}

func (c *Conn) putBuffer() {
	if c.pooledBuf != nil {
		buffers.Put(c.pooledBuf)
	}
	c.buf, c.pooledBuf = nil, nil
}

// process answers the requests in the buffer. False: leave the Loop.
func (c *Conn) process() bool {
	for c.start < c.end && !c.done {
		n, err := c.Req.Parse(c.buf[c.start:c.end], &c.cfg.Limits)
		if err == ErrMore {
			return true
		}
		c.headFrom = 0
		if err != nil {
			c.refuse(err)
			return false
		}
		c.start += n
		c.bodyAt = c.start
		c.begin()
		if c.raw && c.needsReads() {
			c.slow = true
			return false
		}
		c.dispatch()
	}
	return !c.done
}

// begin prepares the body and the fate of the connection.
func (c *Conn) begin() {
	r := &c.Req
	c.Err = nil
	c.Requests++
	c.KeepAlive = !r.Close && (r.Minor >= 1 || r.KeepAlive)
	c.body, c.left = noBody, 0
	switch {
	case r.Chunked:
		c.body = chunkedBody
		c.chunked.Reset()
	case r.ContentLength > 0:
		c.body, c.left = fixedBody, r.ContentLength
	}
	c.expecting = r.Expect100 && c.body != noBody && r.Minor >= 1
}

// needsReads says whether a handler may have to read from the client.
func (c *Conn) needsReads() bool {
	if c.Req.Upgrade || string(c.Req.Method) == "CONNECT" {
		return true
	}
	switch c.body {
	case fixedBody:
		return c.left > int64(c.end-c.start)
	case chunkedBody:
		return true
	}
	return false
}

// dispatch runs the handler for the current request and ends it.
func (c *Conn) dispatch() {
	if c.state.Load() == stateClosing {
		c.KeepAlive = false
	} else {
		c.state.CompareAndSwap(stateIdle, stateBusy)
	}
	c.bodyTimeout, c.sendTimeout = c.cfg.BodyTimeout, c.cfg.SendTimeout
	c.sent = false
	if c.Out == nil {
		c.pooledOut = outputs.Get().(*[]byte)
		c.Out = *c.pooledOut
	}
	c.handler(c)
	if c.hijacked {
		c.done = true
		return
	}
	if len(c.Out) > 0 && c.Flush() != nil {
		c.KeepAlive = false
	}
	if !c.KeepAlive || c.state.Load() == stateClosing || !c.skipBody() {
		c.done = true
	}
}

// refuse answers a head that cannot be served; the connection ends.
func (c *Conn) refuse(err error) {
	c.Err = err
	c.Requests++
	c.KeepAlive = false
	c.body = noBody
	c.start = c.end
	c.dispatch()
	c.done = true
}

// maxSkipped is how much of an unwanted body is read to keep a connection.
const maxSkipped = 256 << 10

// skipBody reads what the handler left of the body, within bounds.
func (c *Conn) skipBody() bool {
	if c.body == noBody {
		return true
	}
	if c.expecting { // never asked for: it does not come
		return false
	}
	if c.raw && c.looping() {
		return c.discardBuffered()
	}
	var scratch [4 << 10]byte
	for skipped := 0; skipped < maxSkipped; {
		n, err := c.ReadBody(scratch[:])
		if err == io.EOF {
			return true
		}
		if err != nil {
			return false
		}
		skipped += n
	}
	return false
}

// looping says whether the handler ran inside the socket's Loop.
func (c *Conn) looping() bool { return !c.needsReads() }

// discardBuffered drops a body that lies in the buffer whole.
func (c *Conn) discardBuffered() bool {
	c.start += int(c.left)
	c.body, c.left = noBody, 0
	return true
}

// Buffered returns the whole body if it has arrived, without copying it; it
// then counts as read.
func (c *Conn) Buffered() ([]byte, bool) {
	switch c.body {
	case noBody:
		return nil, true
	case fixedBody:
		if n := int64(c.end - c.start); n >= c.left {
			b := c.buf[c.start : c.start+int(c.left)]
			c.discardBuffered()
			c.expecting = false
			return b, true
		}
	}
	return nil, false
}

// ReadBody reads decoded bytes of the body; io.EOF at its end. The client is
// asked to send it if it waits for that.
func (c *Conn) ReadBody(p []byte) (int, error) {
	for {
		switch {
		case c.body == noBody:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		case c.body == fixedBody && c.start == c.end:
			return c.readFixed(p)
		case c.start == c.end:
			if err := c.more(); err != nil {
				return 0, err
			}
		}
		if c.body == fixedBody {
			n := copy(p[:min(int64(len(p)), c.left)], c.buf[c.start:c.end])
			c.take(n)
			return n, nil
		}
		data, used, err := c.chunked.Next(c.buf[c.start:min(c.end, c.start+len(p))])
		if err != nil {
			return 0, &BodyError{400, err}
		}
		n := copy(p, data)
		c.start += used
		if c.chunked.Done() {
			c.body = noBody
		}
		if n > 0 {
			return n, nil
		}
	}
}

// take counts bytes of a fixed body that lay in the buffer.
func (c *Conn) take(n int) {
	c.start += n
	if c.left -= int64(n); c.left == 0 {
		c.body = noBody
	}
}

// readFixed reads past the buffer.
func (c *Conn) readFixed(p []byte) (int, error) {
	if err := c.Continue(); err != nil {
		return 0, err
	}
	c.sock.SetTimeout(c.bodyTimeout)
	n, err := c.nc.Read(p[:min(int64(len(p)), c.left)])
	c.BytesIn += int64(n)
	if c.left -= int64(n); c.left == 0 {
		c.body = noBody
	}
	if n > 0 {
		return n, nil
	}
	return 0, bodyError(err)
}

// more reads the next piece of a chunked body into the buffer.
func (c *Conn) more() error {
	if err := c.Continue(); err != nil {
		return err
	}
	if len(c.buf)-c.bodyAt < 4<<10 {
		c.moveHead()
	}
	c.start, c.end = c.bodyAt, c.bodyAt
	c.sock.SetTimeout(c.bodyTimeout)
	n, err := c.nc.Read(c.buf[c.bodyAt:])
	c.end += n
	c.BytesIn += int64(n)
	if n > 0 {
		return nil
	}
	return bodyError(err)
}

// moveHead makes room behind a head that fills the buffer. The head stays where
// it is: only the Conn lets go of that memory.
func (c *Conn) moveHead() {
	c.buf, c.pooledBuf = make([]byte, bufferSize), nil
	c.bodyAt = 0
}

// BodyError is a body that cannot be read. Status is 400 for a malformed one or
// one that ended early, 408 when it did not come in time.
type BodyError struct {
	Status int
	Err    error
}

func (e *BodyError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BodyError) Unwrap() error { return e.Err }

func bodyError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &BodyError{408, err}
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &BodyError{400, err}
}

// Trailers returns the fields after a chunked body.
func (c *Conn) Trailers(fields []Field) ([]Field, error) { return c.chunked.Trailers(fields) }

// Continue asks a client that waits for it to send its body.
func (c *Conn) Continue() error {
	if !c.expecting {
		return nil
	}
	c.expecting = false
	if c.sent || len(c.Out) > 0 || c.start < c.end {
		return nil
	}
	return c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// Flush sends Out.
func (c *Conn) Flush() error {
	if len(c.Out) == 0 {
		return nil
	}
	err := c.write(c.Out)
	c.Out = c.Out[:0]
	return err
}

// WriteThrough sends Out and p as one piece.
func (c *Conn) WriteThrough(p []byte) error {
	if !c.raw {
		if err := c.Flush(); err != nil {
			return err
		}
		return c.write(p)
	}
	c.sent = true
	c.sock.SetTimeout(c.sendTimeout)
	err := c.sock.Writev(c.Out, p)
	c.BytesOut += int64(len(c.Out) + len(p))
	c.Out = c.Out[:0]
	return err
}

func (c *Conn) write(p []byte) error {
	c.sent = true
	c.sock.SetTimeout(c.sendTimeout)
	n, err := c.nc.Write(p)
	c.BytesOut += int64(n)
	return err
}

// TryFlush sends what the socket takes of Out without waiting; done says that
// nothing is left.
func (c *Conn) TryFlush() (done bool, err error) {
	if !c.raw {
		return true, c.Flush()
	}
	c.sent = true
	n, err := c.sock.TryWrite(c.Out)
	c.BytesOut += int64(n)
	c.Out = c.Out[:copy(c.Out, c.Out[n:])]
	return len(c.Out) == 0, err
}

// SendFile sends Out and then a part of a file.
func (c *Conn) SendFile(f *os.File, offset, size int64) (int64, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	c.sock.SetTimeout(c.sendTimeout)
	n, err := c.sock.SendFile(f, offset, size)
	c.BytesOut += n
	return n, err
}

// SetTimeouts changes the times for this request.
func (c *Conn) SetTimeouts(body, send time.Duration) { c.bodyTimeout, c.sendTimeout = body, send }

// Pipelined says whether the next request has begun to arrive.
func (c *Conn) Pipelined() bool { return c.body == noBody && c.start < c.end }

// Hijack gives the connection to the handler, with what was read beyond the
// request. Serve ends after the handler does.
func (c *Conn) Hijack() (net.Conn, []byte) {
	c.hijacked = true
	rest := append([]byte(nil), c.buf[c.start:c.end]...)
	c.start = c.end
	return c.nc, rest
}

// Watch calls gone, from another goroutine, when the client goes away.
func (c *Conn) Watch(gone func()) { c.sock.Watch(gone) }

// Unwatch ends Watch.
func (c *Conn) Unwatch() { c.sock.Unwatch() }

// Shutdown ends the connection: at once when it is idle, else after the current
// answer. Safe from any goroutine.
func (c *Conn) Shutdown() {
	if c.state.Swap(stateClosing) == stateIdle {
		c.sock.Abort()
	}
}

// Abort ends the connection without waiting for the current answer. Safe from
// any goroutine.
func (c *Conn) Abort() { c.sock.Abort() }

// ended notes that the client has closed.
func (c *Conn) ended(error) { c.done = true }

// expired answers a head that did not come in time, and ends the connection.
func (c *Conn) expired(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.start < c.end && !c.sock.Aborted() {
		c.Req.Reset()
		c.Req.Line = firstLine(c.buf[c.start:c.end])
		c.refuse(&ParseError{408, "client timed out"})
	}
	c.done = true
}

// finish closes the connection so that the client can read the last answer.
func (c *Conn) finish() {
	if !c.hijacked {
		if c.sent && c.cfg.LingerTime > 0 && (c.body != noBody || c.start < c.end || c.Err != nil || c.cfg.LingerAlways) {
			c.linger()
		}
		_ = c.nc.Close()
	}
	c.release()
}

// linger ends the answer and discards what still arrives: closing a socket with
// unread input would reset it, and the answer could be lost.
func (c *Conn) linger() {
	if err := c.sock.CloseWrite(); err != nil {
		return
	}
	var scratch [4 << 10]byte
	end := time.Now().Add(c.cfg.LingerTime)
	for time.Now().Before(end) {
		c.sock.SetTimeout(c.cfg.LingerTimeout)
		if _, err := c.sock.Read(scratch[:]); err != nil {
			return
		}
	}
}
