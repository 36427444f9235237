package http2

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// ClientConn is the client's side of a connection: requests to an upstream, one
// after the other, as nginx sends them. It does what http1.ClientConn does, and
// is used in the same way: one goroutine at a time, Abort is for others. The
// head of a request is handed over in the form of HTTP/1.
//
// A body can be sent by a second goroutine while the first reads the answer:
// Share begins that, Send, SendLast and Finish belong to the second then. Whoever
// reads takes the room that the other side grants, so nobody else may wait for
// it: what is sent by the one goroutine alone goes through SendNow.
//
// Answers are read where they arrive. They may be as large as the other side
// likes, so that how fast they are read is up to TCP alone.
type ClientConn struct {
	nc   net.Conn
	sock *sock.Conn

	in         *clientInput // nil while idle
	start, end int          // what has been read and not used
	read, send time.Duration
	bytesIn    int64 // since Begin

	dec      decoder
	arena    []byte // text of fields, since Begin
	greeted  bool
	leaving  bool  // GOAWAY has come: no other request
	broken   bool  // nothing more can be read
	received int64 // DATA that has not been granted again

	stream clientStream
	sender
}

// clientStream is the request of the moment and its answer.
type clientStream struct {
	id       uint32
	ended    bool // the answer is in, to its end
	head     bool // its head is
	received int64
	bodyless bool
	left     int64 // of the body, as announced; -1: unknown
	chunk    int   // of the current DATA frame
	pad      int
	last     bool // that frame ends the stream
	control  int  // frames that carry nothing of the answer, since the time
	since    int64
	block    fieldBlock
	trailers []http1.Field
}

// fieldBlock is a header block while it comes, and what it holds.
type fieldBlock struct {
	open   bool
	last   bool // it ends the stream
	frames int
	held   []byte // what has come of it, unless it came whole
	limit  int    // bytes of names and values that may come yet
	most   int    // fields that may come yet
	fields []http1.Field
	status int
	bad    string
	length int64
}

type clientInput struct {
	data [headerSize + defaultFrameSize]byte
}

var clientInputs = sync.Pool{New: func() any { return new(clientInput) }}

// ErrUnprocessed is a request that the other side has not looked at: it may be
// sent again whatever it is (RFC 9113, section 8.7).
var ErrUnprocessed = errors.New("upstream did not process the request")

const (
	// maxControl bounds the frames of a second that carry nothing of an answer.
	maxControl = 10_000
	// maxInterim bounds the 1xx answers before the final one.
	maxInterim = 16
	// grantFrom is how much is received before more is granted.
	grantFrom = 1 << 29
	// earlyHead bounds a head that comes before anybody waits for it.
	earlyHead = 32 << 10
	// lastStream is after which number a connection takes no other request.
	lastStream = 1 << 30
)

// NewClientConn makes the client's side of nc, s or a connection over it.
func NewClientConn(nc net.Conn, s *sock.Conn) *ClientConn {
	c := &ClientConn{nc: nc, sock: s, dec: decoder{fieldSize: maxWindow}}
	c.init()
	return c
}

// Begin prepares for a request.
func (c *ClientConn) Begin() {
	if c.in == nil {
		c.in = clientInputs.Get().(*clientInput)
	}
	id := uint32(1)
	if c.stream.id != 0 {
		id = c.stream.id + 2
	}
	c.bytesIn = 0
	c.arena = c.arena[:0]
	c.stream = clientStream{
		id: id, left: -1, trailers: c.stream.trailers[:0],
		block: fieldBlock{fields: c.stream.block.fields[:0], limit: earlyHead, most: earlyHead >> 5},
	}
	c.begin()
}

// SetTimeouts sets the times between two reads and between two writes. The
// former counts from when the request is out, if another goroutine sends it.
func (c *ClientConn) SetTimeouts(read, send time.Duration) {
	c.read, c.send = read, send
	c.sock.SetWriteTimeout(send)
}

// Traffic gives the bytes received and sent since Begin, inside TLS.
func (c *ClientConn) Traffic() (in, out int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytesIn, c.bytesOut
}

// ReadResponse reads the head of the final answer. interim sees the 1xx answers
// before it and may be nil. head says that the request was HEAD. The error is an
// *http1.Error, with an *http1.ParseError in it for an answer that is refused.
// What r holds is valid until Begin, Rest or Close.
func (c *ClientConn) ReadResponse(_ []byte, r *http1.Response, l *http1.Limits, head bool, interim func(*http1.Response)) error {
	s := &c.stream
	for interims := 0; ; interims++ {
		s.block.limit, s.block.most = l.Head, l.Fields
		for !s.head {
			if err := c.step(); err != nil {
				return &http1.Error{Op: "head", Fresh: c.bytesIn == 0, Err: err}
			}
		}
		r.Reset()
		r.Status, r.Minor, r.ContentLength = s.block.status, 1, s.block.length
		if s.ended && r.ContentLength < 0 {
			r.ContentLength = 0
		}
		r.Fields = append(r.Fields, s.block.fields...)
		if r.Status >= 200 {
			s.bodyless = head || r.Status == 204 || r.Status == 304
			if s.left = s.block.length; s.bodyless {
				s.left = 0
			}
			return nil
		}
		switch {
		case s.ended:
			return &http1.Error{Op: "head", Err: c.fail("upstream prematurely closed stream")}
		case interims == maxInterim:
			return &http1.Error{Op: "head", Err: c.fail("upstream sent no final response")}
		}
		s.head = false
		if interim != nil {
			interim(r)
		}
	}
}

// Next returns the next run of body bytes, valid until the next call; io.EOF
// after the last, an *http1.Error otherwise.
func (c *ClientConn) Next() ([]byte, error) {
	s := &c.stream
	for s.chunk == 0 {
		if s.ended {
			if s.left > 0 {
				return nil, c.bodyError(c.fail("upstream prematurely closed stream"))
			}
			return nil, io.EOF
		}
		if err := c.step(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, c.bodyError(err)
		}
	}
	if c.start == c.end {
		if err := c.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, c.bodyError(err)
		}
	}
	n := min(s.chunk, c.end-c.start)
	p := c.in.data[c.start : c.start+n]
	c.start += n
	s.chunk -= n
	if s.left > 0 {
		s.left -= int64(n)
	}
	return p, c.count(n)
}

func (c *ClientConn) bodyError(err error) error { return &http1.Error{Op: "body", Err: err} }

// count grants what has been received, once it is much, and ends the frame.
func (c *ClientConn) count(n int) error {
	s := &c.stream
	c.received += int64(n)
	s.received += int64(n)
	s.control = 0
	if s.chunk == 0 && s.pad == 0 && s.last {
		c.ends()
	}
	if c.received < grantFrom && (s.received < grantFrom || s.last) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.received >= grantFrom {
		c.grant(0, c.received)
		c.received = 0
	}
	if s.received >= grantFrom && !s.last {
		c.grant(s.id, s.received)
		s.received = 0
	}
	return c.push()
}

// ends notes that the answer is complete.
func (c *ClientConn) ends() {
	c.stream.ended = true
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.signal()
}

// ReadBody reads body bytes into p. Errors are those of Next.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := c.Next()
	n := copy(p, b)
	if n < len(b) { // the rest is for the next call
		c.start -= len(b) - n
		s := &c.stream
		s.chunk += len(b) - n
		s.ended = false
		if s.left >= 0 {
			s.left += int64(len(b) - n)
		}
		c.received -= int64(len(b) - n)
	}
	return n, err
}

// Waits says whether Next would wait for the server, other than for the end of
// a body that has arrived.
func (c *ClientConn) Waits() bool {
	s := &c.stream
	return !s.ended && s.left != 0 && (s.chunk == 0 || c.start == c.end)
}

// Trailers appends the fields after the body to fields.
func (c *ClientConn) Trailers(fields []http1.Field) ([]http1.Field, error) {
	return append(fields, c.stream.trailers...), nil
}

// Reusable says whether another request may be sent.
func (c *ClientConn) Reusable() bool {
	s := &c.stream
	return s.ended && s.left <= 0 && !c.broken && !c.leaving && s.id < lastStream && !c.sock.Aborted() && c.atRest()
}

// Excess says whether more has come than the answer announced; it is refused
// here before.
func (c *ClientConn) Excess() (more, chunked bool) { return false, false }

// Rest gives the buffer back while the connection is kept, unless there is
// something in it.
func (c *ClientConn) Rest() {
	if c.in != nil && c.start == c.end {
		clientInputs.Put(c.in)
		c.in, c.start, c.end = nil, 0, 0
	}
	c.sock.SetTimeout(0)
}

// Stale says whether a kept connection has been closed by its peer, or has said
// something.
func (c *ClientConn) Stale() bool { return c.start < c.end || c.sock.Readable() }

// Detach is for tunnels, which need a connection of HTTP/1.
func (c *ClientConn) Detach() (net.Conn, []byte) { return c.nc, nil }

// Abort wakes whoever waits for the connection. Safe from any goroutine.
func (c *ClientConn) Abort() {
	c.sock.Abort()
	c.signal()
}

// Close closes the connection. A request or an answer that is not complete is
// given up.
func (c *ClientConn) Close() error {
	c.cancel()
	if c.in != nil {
		clientInputs.Put(c.in)
		c.in = nil
	}
	c.broken = true
	if err := c.nc.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// fail refuses an answer; the connection is of no more use.
func (c *ClientConn) fail(format string, a ...any) error {
	c.broken = true
	return &http1.ParseError{Status: 502, Reason: fmt.Sprintf(format, a...)}
}

// fill reads more.
func (c *ClientConn) fill() error {
	if c.start > 0 {
		c.end = copy(c.in.data[:], c.in.data[c.start:c.end])
		c.start = 0
	}
	c.limitRead(c.read, c.stream.head)
	n, err := c.nc.Read(c.in.data[c.end:])
	c.end += n
	c.bytesIn += int64(n)
	switch {
	case n > 0:
		return nil
	case err == nil:
		err = io.EOF
	}
	c.broken = true
	return err
}

// need reads until n bytes are there; n is at most one frame.
func (c *ClientConn) need(n int) error {
	for c.end-c.start < n {
		if err := c.fill(); err != nil {
			return err
		}
	}
	return nil
}

// Answered says whether an answer comes before the request is out.
func (c *ClientConn) Answered() bool { return c.stream.head || c.stream.ended }
