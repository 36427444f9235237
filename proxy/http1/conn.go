// Package http1 is HTTP/1.x on the wire, both sides: heads, bodies and
// connections. It knows nothing of configuration.
//
// Framing is strict (RFC 9112): what is ambiguous is refused. Heads are parsed
// in place; nothing is copied and nothing allocated for a message.
package http1

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"proxyctl/proxy/sock"
)

// ConnConfig is what a server's connections have in common. It must not change
// while connections use it. A time of 0 means no limit.
type ConnConfig struct {
	Limits      Limits
	HeadTimeout time.Duration // for a whole head
	Timeouts                  // unless a request has its own
}

// Timeouts are what may differ from request to request. A time of 0 means no
// limit.
type Timeouts struct {
	IdleTimeout   time.Duration // until the next request
	BodyTimeout   time.Duration // between two reads of a body
	SendTimeout   time.Duration // between two writes
	Linger        Linger
	LingerTime    time.Duration // how long unread input is discarded at the end
	LingerTimeout time.Duration // how long to wait for more of it
}

// Linger says when input is discarded before the connection is closed. The rest
// of a body that nobody wanted always is.
type Linger uint8

// The reasons to linger.
const (
	LingerForBody Linger = iota
	LingerForInput
	LingerAlways
)

// Handler answers one request. When c.Err is set the head was refused, and the
// connection ends after the answer.
type Handler func(c *Conn)

// Conn is the server's side of a connection. A handler and the Conn itself run
// in one goroutine; Shutdown, Abort and the watch function are for others.
//
// Over a plain socket all requests are served inside sock.Conn.Loop, except for
// those whose handler has to read: for them the Loop is left and entered again.
// Handlers do not notice.
type Conn struct {
	Req       Request
	Err       error  // why the head was refused; a *ParseError
	Out       []byte // the answer so far; Flush sends it
	KeepAlive bool   // whether the connection goes on after this request
	Requests  int    // including this one
	BytesIn   int64  // since the beginning, inside TLS
	BytesOut  int64

	cfg     *ConnConfig
	handler Handler
	nc      net.Conn
	sock    *sock.Conn // under nc; for timeouts
	raw     bool       // nc is sock: requests are served inside its Loop

	in         *input // nil while idle
	out        *[]byte
	buf        []byte // of in, or larger for a large head
	start, end int    // what has been read and not used

	body      bodyState
	ready     []byte // the rest of a readyBody
	left      int64  // of a fixedBody
	wire      int64  // bytes of the body's framing and data used so far
	chunked   Chunked
	bodyAt    int    // where the buffer is free for a chunked body; 0: not known
	spare     *input // holds what follows a head that left no such room
	expecting bool   // the client waits for 100 Continue
	withheld  bool   // and does not get it
	malformed bool   // the body is

	times       *Timeouts
	bodyTimeout time.Duration

	slow     bool // the request needs reads: it is served outside of Loop
	done     bool
	ended    error // why, when no request was on its way
	timedOut atomic.Bool
	split    bool // another goroutine reads the body
	unsent   error
	hijacked bool
	sent     bool // something of the answer is on the wire
	mute     bool // the client is gone: nothing can be sent
	first    [1]byte
	headFrom int64
	partial  atomic.Bool // a head has begun to arrive
	state    atomic.Int32
	step     func() bool
}

// The states that Shutdown looks at. A connection without a request is not idle
// yet, as for nginx.
const (
	stateBusy int32 = iota
	stateIdle
	stateClosing
)

// bufferSize is the size of a pooled read buffer: most heads with a small body.
const bufferSize = 16 << 10

// input is what a connection needs while a request is being read.
type input struct {
	data   [bufferSize]byte
	fields []Field
}

// maxKeptFields and maxKeptOutput are how large pooled slices may have become.
const (
	maxKeptFields = 128
	maxKeptOutput = 64 << 10
)

var inputs = sync.Pool{New: func() any { return &input{fields: make([]Field, 0, 24)} }}

var outputs = sync.Pool{New: func() any { b := make([]byte, 0, 24<<10); return &b }}

// NewConn makes the server's side of nc, which is s or a connection over it.
func NewConn(nc net.Conn, s *sock.Conn, cfg *ConnConfig, h Handler) *Conn {
	c := &Conn{cfg: cfg, times: &cfg.Timeouts, handler: h, nc: nc, sock: s}
	c.raw = net.Conn(s) == nc && s.Raw()
	c.step = c.readStep
	return c
}

// Prefill gives the connection bytes that were read before it was made.
func (c *Conn) Prefill(b []byte) {
	c.acquire()
	if len(b) > len(c.buf)-c.end {
		c.buf = append(make([]byte, 0, c.end+len(b)), c.buf[:c.end]...)
		c.buf = c.buf[:cap(c.buf)]
	}
	c.end += copy(c.buf[c.end:], b)
	c.BytesIn += int64(len(b))
}

// Serve answers requests until the connection ends, then closes it.
func (c *Conn) Serve() {
	defer c.finish()
	if c.end > 0 && !c.process() {
		c.resume()
	}
	for !c.done {
		if !c.raw {
			c.readPlain()
			continue
		}
		if err := c.sock.Loop(c.step); err != nil {
			c.broken(err)
			return
		}
		c.resume()
	}
}

// resume serves the request for which the Loop was left.
func (c *Conn) resume() {
	for c.slow && !c.done {
		c.slow = false
		c.dispatch()
		c.process()
	}
}

// readStep serves everything that has arrived; it runs inside the socket's
// Loop and returns true to leave it.
func (c *Conn) readStep() bool {
	for {
		c.acquire()
		c.room()
		free := len(c.buf) - c.end
		n, err := c.sock.TryRead(c.buf[c.end:])
		if errors.Is(err, sock.ErrAgain) {
			return c.pause()
		}
		c.sock.Busy()
		if err != nil {
			c.broken(err)
			return true
		}
		c.received(n)
		if !c.process() {
			return true
		}
		if n < free {
			return c.pause()
		}
	}
}

// received counts bytes at the end of the buffer.
func (c *Conn) received(n int) {
	c.end += n
	c.BytesIn += int64(n)
	c.state.CompareAndSwap(stateIdle, stateBusy)
}

// pause prepares for the time until more arrives; true when the Loop must be
// left instead.
func (c *Conn) pause() bool {
	d, ok := c.patience()
	if !ok {
		c.done = true
		return true
	}
	c.sock.Idle(d)
	return false
}

// patience is how long the next bytes of a head may take. Between requests the
// buffers are given back. False: the connection is to end.
func (c *Conn) patience() (time.Duration, bool) {
	if c.start < c.end {
		now := c.sock.Now()
		if c.headFrom == 0 {
			c.headFrom = now
		}
		c.partial.Store(true)
		if c.cfg.HeadTimeout <= 0 {
			return 0, true
		}
		d := c.cfg.HeadTimeout - time.Duration(now-c.headFrom)
		if d <= 0 {
			c.broken(os.ErrDeadlineExceeded)
		}
		return d, !c.done
	}
	c.release()
	if c.Requests == 0 {
		if c.headFrom == 0 {
			c.headFrom = c.sock.Now()
		}
		return c.cfg.HeadTimeout, true
	}
	if !c.state.CompareAndSwap(stateBusy, stateIdle) && c.state.Load() == stateClosing {
		return 0, false
	}
	return c.times.IdleTimeout, true
}

// readPlain reads and serves once over a transport that is not a plain socket.
func (c *Conn) readPlain() {
	d, ok := c.patience()
	if !ok {
		c.done = true
		return
	}
	c.sock.SetTimeout(0)
	c.sock.ReadUntil(d)
	n, err := 0, error(nil)
	if c.in == nil {
		// Wait for the first byte without holding a buffer. It is no loss: crypto/tls
		// has the rest of the record at hand.
		if n, err = c.nc.Read(c.first[:]); n > 0 {
			c.acquire()
			c.buf[0] = c.first[0]
			c.received(n)
			if d, ok = c.patience(); !ok {
				return
			}
			c.sock.ReadUntil(d)
		}
	}
	if err == nil {
		c.room()
		n, err = c.nc.Read(c.buf[c.end:])
	}
	c.sock.ReadUntil(0)
	if n > 0 && c.in != nil {
		c.received(n)
		c.process()
		c.resume()
	}
	if err != nil && !c.done {
		c.broken(err)
	}
}

// room makes space for more of a head. One that is too large for the larger
// buffer, too, has been refused before that is full.
func (c *Conn) room() {
	if c.end < len(c.buf) {
		return
	}
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
		return
	}
	larger := make([]byte, len(c.buf)+c.cfg.Limits.Head+c.cfg.Limits.Line)
	copy(larger, c.buf[:c.end])
	c.buf = larger
}

func (c *Conn) acquire() {
	if c.in == nil {
		c.in = inputs.Get().(*input)
		c.buf = c.in.data[:]
		c.start, c.end = 0, 0
		c.Req.Fields = c.in.fields
	}
}

// release gives the buffers back while nothing is going on.
func (c *Conn) release() {
	if c.in != nil {
		c.Req.Reset()
		if fields := c.Req.Fields; cap(fields) <= maxKeptFields {
			c.in.fields = fields
		}
		c.Req.Fields = nil
		inputs.Put(c.in)
		c.in, c.buf, c.ready = nil, nil, nil
		c.start, c.end = 0, 0
	}
	if c.out != nil {
		if cap(c.Out) <= maxKeptOutput {
			*c.out = c.Out[:0]
		}
		outputs.Put(c.out)
		c.out, c.Out = nil, nil
	}
}

// process answers the requests in the buffer. False: leave the Loop.
func (c *Conn) process() bool {
	for c.start < c.end && !c.done {
		n, err := c.Req.Parse(c.buf[c.start:c.end], &c.cfg.Limits)
		if errors.Is(err, ErrMore) {
			return true
		}
		c.headFrom = 0
		if c.partial.Load() {
			c.partial.Store(false)
		}
		if err != nil {
			c.refuse(err)
			return false
		}
		c.start += n
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
	c.KeepAlive = !r.Close && (r.Minor >= 1 || r.KeepAlive) && c.state.Load() != stateClosing
	c.body, c.ready, c.left, c.wire, c.expecting = noBody, nil, 0, 0, r.Expect100
	c.malformed, c.withheld = false, false
	if r.Chunked || r.ContentLength > 0 {
		c.beginBody()
	}
}

// needsReads says whether a handler may have to read from the client. An
// upgraded connection is read by its handler; nginx allows the upgrade without a
// word in Connection.
func (c *Conn) needsReads() bool {
	return c.body > readyBody || c.Req.Upgrade || c.Req.Has(Upgrade) || string(c.Req.Method) == "CONNECT"
}

// dispatch runs the handler for the current request and ends it.
func (c *Conn) dispatch() {
	c.SetTimeouts(&c.cfg.Timeouts)
	c.sent = false
	if c.out == nil {
		c.out = outputs.Get().(*[]byte)
		c.Out = *c.out
	}
	c.handler(c)
	c.join()
	if c.hijacked {
		c.done = true
		return
	}
	if len(c.Out) > 0 && c.Flush() != nil {
		c.KeepAlive = false
	}
	if !c.KeepAlive || c.mute || c.state.Load() == stateClosing || !c.skipBody() {
		c.done = true
	}
	c.unspare()
}

// refuse has a head answered that cannot be served; the connection ends.
func (c *Conn) refuse(err error) {
	c.Err = err
	c.Requests++
	c.KeepAlive = false
	c.body, c.ready, c.wire, c.expecting = noBody, nil, 0, false
	c.dispatch()
	c.done = true
}

// broken ends a connection on which nothing can be read any more. A head that
// had begun to arrive is given to the handler for the log; nginx does not answer
// it either.
func (c *Conn) broken(err error) {
	c.done = true
	if c.sock.Aborted() {
		return
	}
	if c.start == c.end || c.in == nil {
		c.ended = err
		return
	}
	status := 400
	if errors.Is(err, os.ErrDeadlineExceeded) {
		status = 408
		c.timedOut.Store(true)
	}
	if len(c.Req.Line) == 0 {
		line := firstLine(c.buf[c.start:c.end])
		c.Req.Reset()
		c.Req.Line = line
	}
	c.mute = true
	c.refuse(&ParseError{status, lostReason(err)})
}

// lostReason words, as nginx does, why nothing more comes from a client.
func lostReason(err error) string {
	var e syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "client timed out (110: Connection timed out)"
	case errors.As(err, &e):
		return fmt.Sprintf("recv() failed (%d: %s)", int(e), capital(e.Error()))
	}
	return "client prematurely closed connection"
}

// capital begins the text of a system error as the C library does.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Ended gives the reason why the connection ended while no request was on its
// way: io.EOF, os.ErrDeadlineExceeded, or what reading failed with; nil when
// something else ended it. To be called after Serve.
func (c *Conn) Ended() error { return c.ended }
