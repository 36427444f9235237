package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"proxyctl/proxy/sock"
)

// ClientConn is the client's side of a connection: requests to an upstream. One
// goroutine uses it at a time; Abort is for others.
type ClientConn struct {
	BytesIn, BytesOut int64 // since Begin, inside TLS

	nc   net.Conn
	sock *sock.Conn
	raw  bool

	in         *input // nil while idle
	buf        []byte // of in, or larger for a large head
	start, end int    // what has been read and not used
	floor      int    // where the head ends, which stays while the body is read
	spare      *input // takes the body after a head that left little room

	form       Form
	optional   bool // the body may be missing: it is that of an answer to HEAD
	body       bodyState
	left       int64
	chunked    Chunked
	persistent bool
	read, send time.Duration
}

// Error is a failed operation with an upstream.
type Error struct {
	Op    string // "send", "head", "body"
	Fresh bool   // no byte of an answer has arrived
	Err   error  // io.EOF when the upstream closed before an answer
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// NewClientConn makes the client's side of nc, s or a connection over it.
func NewClientConn(nc net.Conn, s *sock.Conn) *ClientConn {
	return &ClientConn{nc: nc, sock: s, raw: net.Conn(s) == nc && s.Raw()}
}

// Form is how the head of an answer is written.
type Form uint8

// The forms.
const (
	HTTP       Form = iota
	CGI             // of CGI: no status line, and no framing but Content-Length
	CGIOrHTTP       // of CGI, with or without the status line of HTTP
	CGIEndless      // of CGI, with a body that goes on to the end of the connection
)

// SetForm says how answers are written.
func (c *ClientConn) SetForm(f Form) { c.form = f }

// Begin prepares for a request: what a kept connection read before is gone.
func (c *ClientConn) Begin() {
	c.putBuffers()
	c.BytesIn, c.BytesOut = 0, 0
	c.body, c.left, c.persistent = noBody, 0, false
	c.chunked.Reset()
}

// SetTimeouts sets the times between two reads and between two writes.
func (c *ClientConn) SetTimeouts(read, send time.Duration) { c.read, c.send = read, send }

// Traffic gives the bytes received and sent since Begin, inside TLS.
func (c *ClientConn) Traffic() (in, out int64) { return c.BytesIn, c.BytesOut }

// Finish ends the body of a request, which says itself where it ends.
func (c *ClientConn) Finish() error { return nil }

// Answered says whether an answer comes before the request is out.
func (c *ClientConn) Answered() bool { return c.Stale() }

// Send writes a part of a request.
func (c *ClientConn) Send(p []byte) error {
	c.sock.SetTimeout(c.send)
	n, err := c.nc.Write(p)
	c.BytesOut += int64(n)
	return c.sending(err)
}

// SendThrough writes two parts of a request as one piece.
func (c *ClientConn) SendThrough(a, b []byte) error {
	if !c.raw {
		if err := c.Send(a); err != nil {
			return err
		}
		return c.Send(b)
	}
	c.sock.SetTimeout(c.send)
	n, err := c.sock.Writev(a, b)
	c.BytesOut += int64(n)
	return c.sending(err)
}

func (c *ClientConn) sending(err error) error {
	if err != nil {
		return &Error{"send", c.BytesIn == 0, err}
	}
	return nil
}

// maxInterim bounds the 1xx answers before the final one.
const maxInterim = 16

// ReadResponse sends req, which may be empty, and reads the head of the final
// answer, or of 101. interim sees the other 1xx answers before it and may be nil.
// head says that the request was HEAD. The error is an *Error, with a
// *ParseError in it for a head that is refused. What r holds is valid until
// Begin, Rest or Close.
func (c *ClientConn) ReadResponse(req []byte, r *Response, l *Limits, head bool, interim func(*Response)) error {
	if c.in == nil {
		c.in = inputs.Get().(*input)
		c.buf = c.in.data[:]
	}
	for interims := 0; ; {
		n, err := c.parse(r, l)
		switch {
		case len(req) > 0 || errors.Is(err, ErrMore):
			if err := c.moreHead(req, l); err != nil {
				return &Error{"head", c.BytesIn == 0, err}
			}
			req = nil
			continue
		case err != nil:
			return &Error{"head", false, err}
		}
		c.start += n
		if r.Status >= 200 || r.Status == 101 {
			c.floor = c.start
			c.frame(r, head)
			return nil
		}
		if interims++; interims > maxInterim {
			return &Error{"head", false, &ParseError{502, "upstream sent too many interim responses"}}
		}
		if interim != nil {
			interim(r)
		}
	}
}

// parse reads a head from what has arrived.
func (c *ClientConn) parse(r *Response, l *Limits) (int, error) {
	b := c.buf[c.start:c.end]
	if c.form == HTTP {
		return r.Parse(b, l)
	}
	return r.ParseCGI(b, l, c.form == CGIOrHTTP)
}

// moreHead reads more of a head, after sending req if there is one.
func (c *ClientConn) moreHead(req []byte, l *Limits) error {
	if c.end == len(c.buf) {
		if c.start == 0 {
			c.buf = append(make([]byte, 0, len(c.buf)+max(l.Head, bufferSize)), c.buf...)
			c.buf = c.buf[:cap(c.buf)]
		} else {
			c.end = copy(c.buf, c.buf[c.start:c.end])
			c.start = 0
		}
	}
	if len(req) > 0 && c.raw {
		c.sock.SetTimeout(c.read)
		n, err := c.sock.Exchange(req, c.buf[c.end:])
		c.BytesOut += int64(len(req))
		c.end += n
		c.BytesIn += int64(n)
		return ended(n, err)
	}
	if len(req) > 0 {
		if err := c.Send(req); err != nil {
			return errors.Unwrap(err)
		}
	}
	n, err := c.readSome(c.buf[c.end:])
	c.end += n
	return err
}

func (c *ClientConn) readSome(p []byte) (int, error) {
	c.sock.SetTimeout(c.read)
	n, err := c.nc.Read(p)
	c.BytesIn += int64(n)
	return n, ended(n, err)
}

// ended makes an error of reading nothing, and none of reading something.
func ended(n int, err error) error {
	switch {
	case n > 0:
		return nil
	case err == nil:
		return io.EOF
	}
	return err
}

// frame decides how the body ends (RFC 9112, section 6.3).
func (c *ClientConn) frame(r *Response, head bool) {
	c.persistent = r.Persistent() && c.form == HTTP
	c.body, c.left, c.optional = noBody, 0, head
	switch {
	case c.form == CGIEndless:
		c.body = endlessBody
	case head && c.form == HTTP || r.Status == 204 || r.Status == 304 || r.Status == 101:
	case r.Chunked && c.form == HTTP:
		c.body = chunkedBody
		c.chunked.Reset()
		if r.Minor == 0 { // RFC 9112, section 6.1
			c.persistent = false
		}
	case r.ContentLength > 0:
		c.body, c.left = fixedBody, r.ContentLength
	case r.ContentLength < 0:
		c.body, c.persistent = endlessBody, false
	}
}

// buffer is where c.start and c.end count.
func (c *ClientConn) buffer() []byte {
	if c.spare != nil {
		return c.spare.data[:]
	}
	return c.buf
}

// fill reads more of the body when all has been used.
func (c *ClientConn) fill() error {
	if c.spare == nil && len(c.buf)-c.floor < minBody {
		c.spare = inputs.Get().(*input)
		c.floor = 0
	}
	b := c.buffer()
	c.start, c.end = c.floor, c.floor
	n, err := c.readSome(b[c.end:])
	c.end += n
	if err != nil {
		return c.bodyEnded(err)
	}
	return nil
}

// Next returns the next run of decoded body bytes, valid until the next call;
// io.EOF after the last, an *Error with io.ErrUnexpectedEOF when the answer was
// cut short, with ErrChunk or ErrTrailers when it is malformed.
func (c *ClientConn) Next() ([]byte, error) {
	for {
		if c.body == noBody {
			return nil, io.EOF
		}
		if c.start == c.end {
			if err := c.fill(); err != nil {
				return nil, err
			}
		}
		if data, err := c.decode(c.end - c.start); err != nil || len(data) > 0 {
			return data, err
		}
	}
}

// Excess says whether more has come than the answer announced; chunked, that it
// came in chunks.
func (c *ClientConn) Excess() (more, chunked bool) {
	return c.body == noBody && c.start < c.end, c.chunked.Done()
}

// Waits says whether Next would wait for the server.
func (c *ClientConn) Waits() bool { return c.body != noBody && c.start == c.end }

// ReadBody reads decoded body bytes into p. Errors are those of Next.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	for {
		switch {
		case c.body == noBody:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		case c.start < c.end:
		case c.body != chunkedBody && len(p) >= minBody:
			return c.readDirect(p)
		default:
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
		data, err := c.decode(len(p))
		if err != nil || len(data) > 0 {
			return copy(p, data), err
		}
	}
}

// readDirect reads a body that is not chunked past the buffer.
func (c *ClientConn) readDirect(p []byte) (int, error) {
	if c.body == fixedBody {
		p = p[:min(int64(len(p)), c.left)]
	}
	n, err := c.readSome(p)
	if err != nil {
		return 0, c.bodyEnded(err)
	}
	c.count(n)
	return n, nil
}

func (c *ClientConn) count(n int) {
	c.optional = c.optional && n == 0
	if c.body != fixedBody {
		return
	}
	if c.left -= int64(n); c.left == 0 {
		c.body = noBody
	}
}

// decode takes up to limit bytes from the buffer and returns those of the body.
func (c *ClientConn) decode(limit int) ([]byte, error) {
	b := c.buffer()[c.start:min(c.end, c.start+limit)]
	if c.body != chunkedBody {
		if c.body == fixedBody {
			b = b[:min(int64(len(b)), c.left)]
		}
		c.start += len(b)
		c.count(len(b))
		return b, nil
	}
	data, used, err := c.chunked.Next(b)
	if err != nil {
		c.persistent = false
		return nil, &Error{"body", false, err}
	}
	c.start += used
	if c.chunked.Done() {
		c.body = noBody
	}
	return data, nil
}

// bodyEnded tells the proper end of a body from a truncated one.
//
// Over TLS, an end without a closing alert is io.ErrUnexpectedEOF from
// crypto/tls and stays one.
func (c *ClientConn) bodyEnded(err error) error {
	c.persistent = false
	if errors.Is(err, io.EOF) {
		if c.body == endlessBody || c.optional {
			c.body = noBody
			return io.EOF
		}
		err = io.ErrUnexpectedEOF
	}
	return &Error{"body", false, err}
}

// Trailers appends the fields after a chunked body to fields. The error is
// ErrTrailers. They are valid until Begin.
func (c *ClientConn) Trailers(fields []Field) ([]Field, error) { return c.chunked.Trailers(fields) }

// Reusable says whether another request may be sent: the answer was read whole,
// allows it, and nothing came after it.
func (c *ClientConn) Reusable() bool {
	return c.persistent && c.body == noBody && c.start == c.end && !c.sock.Aborted()
}

// Pending is how much has been read that nobody has asked for yet.
func (c *ClientConn) Pending() int { return c.end - c.start }

// Rest gives the buffers back while the connection is kept.
func (c *ClientConn) Rest() {
	c.putBuffers()
	c.chunked = Chunked{}
	c.sock.SetTimeout(0)
}

func (c *ClientConn) putBuffers() {
	if c.in != nil {
		inputs.Put(c.in)
		c.in, c.buf = nil, nil
	}
	if c.spare != nil {
		inputs.Put(c.spare)
		c.spare = nil
	}
	c.start, c.end, c.floor = 0, 0, 0
}

// Stale says whether a kept connection has been closed by its peer, or has said
// something that nobody asked for.
func (c *ClientConn) Stale() bool { return c.start < c.end || c.sock.Readable() }

// Detach gives the connection to a tunnel, with what was read beyond the head.
func (c *ClientConn) Detach() (net.Conn, []byte) {
	rest := append([]byte(nil), c.buffer()[c.start:c.end]...)
	c.start = c.end
	return c.nc, rest
}

// Abort wakes whoever waits for the connection. Safe from any goroutine.
func (c *ClientConn) Abort() { c.sock.Abort() }

// Close closes the connection.
func (c *ClientConn) Close() error {
	c.putBuffers()
	if err := c.nc.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
