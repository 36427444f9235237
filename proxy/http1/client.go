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
	BytesIn, BytesOut int64 // since Begin

	nc   net.Conn
	sock *sock.Conn
	raw  bool

	pooled     *[]byte // what buf came from; nil for one of its own
	buf        []byte
	start, end int
	body       bodyState
	untilEOF   bool
	left       int64
	chunked    Chunked
	persistent bool
	read, send time.Duration
}

// Error is a failed operation with an upstream.
type Error struct {
	Op    string // "send", "head", "body"
	Fresh bool   // no byte of an answer has arrived
	Err   error
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// NewClientConn makes the client's side of nc, s or a connection over it.
func NewClientConn(nc net.Conn, s *sock.Conn) *ClientConn {
	return &ClientConn{nc: nc, sock: s, raw: net.Conn(s) == nc && s.Raw()}
}

// Begin prepares for a request: what a kept connection read before is gone.
func (c *ClientConn) Begin() {
	c.BytesIn, c.BytesOut = 0, 0
	c.body, c.left, c.untilEOF, c.persistent = noBody, 0, false, false
}

// SetTimeouts sets the times between two reads and between two writes.
func (c *ClientConn) SetTimeouts(read, send time.Duration) { c.read, c.send = read, send }

// Send writes a part of a request.
func (c *ClientConn) Send(p []byte) error {
	c.sock.SetTimeout(c.send)
	n, err := c.nc.Write(p)
	c.BytesOut += int64(n)
	if err != nil {
		return &Error{"send", true, err}
	}
	return nil
}

// maxInterim bounds the 1xx answers before the final one.
const maxInterim = 16

// ReadResponse sends req, which may be empty, and reads the head of the final
// answer. interim sees the 1xx answers before it and may be nil. head says that
// the request was HEAD.
func (c *ClientConn) ReadResponse(req []byte, r *Response, l *Limits, head bool, interim func(*Response)) error {
	if c.buf == nil {
		c.pooled = buffers.Get().(*[]byte)
		c.buf = *c.pooled
		c.start, c.end = 0, 0
	}
	for interims := 0; ; {
		n, err := r.Parse(c.buf[c.start:c.end], l)
		switch {
		case c.end == c.start || errors.Is(err, ErrMore):
			if err := c.fill(req); err != nil {
				return &Error{"head", c.BytesIn == 0, err}
			}
			req = nil
			continue
		case err != nil:
			return &Error{"head", false, err}
		}
		c.start += n
		if r.Status >= 200 || r.Status == 101 {
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

// fill reads more into the buffer, after sending req if there is one.
func (c *ClientConn) fill(req []byte) error {
	if c.start == c.end {
		c.start, c.end = 0, 0
	}
	if c.end == len(c.buf) {
		if c.start == 0 {
			larger := make([]byte, 2*len(c.buf))
			copy(larger, c.buf)
			c.putBuffer()
			c.buf = larger
		} else {
			c.end = copy(c.buf, c.buf[c.start:c.end])
			c.start = 0
		}
	}
	n, err := 0, error(nil)
	if len(req) > 0 && c.raw {
		c.sock.SetTimeout(c.read)
		n, err = c.sock.Exchange(req, c.buf[c.end:])
		c.BytesOut += int64(len(req))
	} else {
		if len(req) > 0 {
			if err := c.Send(req); err != nil {
				return err
			}
		}
		c.sock.SetTimeout(c.read)
		n, err = c.nc.Read(c.buf[c.end:])
	}
	c.end += n
	c.BytesIn += int64(n)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// frame decides how the body ends (RFC 9112, section 6.3).
func (c *ClientConn) frame(r *Response, head bool) {
	c.persistent = r.Persistent()
	c.body, c.left, c.untilEOF = noBody, 0, false
	switch {
	case head || r.Status == 204 || r.Status == 304 || r.Status == 101:
	case r.Chunked:
		c.body = chunkedBody
		c.chunked.Reset()
	case r.ContentLength > 0:
		c.body, c.left = fixedBody, r.ContentLength
	case r.ContentLength < 0:
		c.body, c.untilEOF, c.persistent = fixedBody, true, false
	}
}

// Next returns the next run of decoded body bytes, valid until the next call;
// io.EOF after the last, io.ErrUnexpectedEOF when the answer was cut short.
func (c *ClientConn) Next() ([]byte, error) {
	for {
		if c.body == noBody {
			return nil, io.EOF
		}
		if c.start == c.end {
			err := c.fill(nil)
			if err != nil {
				return nil, c.bodyEnded(err)
			}
		}
		if data, err := c.decode(len(c.buf)); err != nil || len(data) > 0 {
			return data, err
		}
	}
}

// Buffered says whether body bytes have arrived that Next gives without waiting.
func (c *ClientConn) Buffered() bool { return c.body != noBody && c.start < c.end }

// ReadBody reads decoded body bytes into p. Errors are those of Next.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	for {
		switch {
		case c.body == noBody:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		case c.start == c.end && c.body == fixedBody && len(p) >= len(c.buf)/2:
			return c.readDirect(p)
		case c.start == c.end:
			if err := c.fill(nil); err != nil {
				return 0, c.bodyEnded(err)
			}
		}
		data, err := c.decode(len(p))
		if err != nil {
			return 0, err
		}
		if len(data) > 0 {
			return copy(p, data), nil
		}
	}
}

// readDirect reads a fixed body past the buffer.
func (c *ClientConn) readDirect(p []byte) (int, error) {
	if !c.untilEOF {
		p = p[:min(int64(len(p)), c.left)]
	}
	c.sock.SetTimeout(c.read)
	n, err := c.nc.Read(p)
	c.BytesIn += int64(n)
	if n > 0 {
		c.count(n)
		return n, nil
	}
	if err == nil {
		err = io.EOF
	}
	return 0, c.bodyEnded(err)
}

func (c *ClientConn) count(n int) {
	if c.untilEOF {
		return
	}
	if c.left -= int64(n); c.left == 0 {
		c.body = noBody
	}
}

// decode takes up to limit bytes of body from the buffer.
func (c *ClientConn) decode(limit int) ([]byte, error) {
	b := c.buf[c.start:min(c.end, c.start+limit)]
	if c.body == fixedBody {
		if !c.untilEOF {
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
func (c *ClientConn) bodyEnded(err error) error {
	if c.untilEOF && err == io.EOF {
		c.body = noBody
		return io.EOF
	}
	c.persistent = false
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &Error{"body", false, err}
}

// Trailers appends the fields after a chunked body.
func (c *ClientConn) Trailers(fields []Field) ([]Field, error) { return c.chunked.Trailers(fields) }

// Reusable says whether another request may be sent: the answer was read whole,
// allows it, and nothing came after it.
func (c *ClientConn) Reusable() bool {
	return c.persistent && c.body == noBody && c.start == c.end && !c.sock.Aborted()
}

// Rest gives the buffer back while the connection is kept.
func (c *ClientConn) Rest() {
	c.putBuffer()
	c.sock.SetTimeout(0)
}

func (c *ClientConn) putBuffer() {
	if c.pooled != nil {
		buffers.Put(c.pooled)
	}
	c.buf, c.pooled = nil, nil
	c.start, c.end = 0, 0
}

// Stale says whether a kept connection has been closed by its peer, or has said
// something that nobody asked for.
func (c *ClientConn) Stale() bool { return c.sock.Readable() }

// Detach gives the connection to a tunnel, with what was read beyond the head.
func (c *ClientConn) Detach() (net.Conn, []byte) {
	rest := append([]byte(nil), c.buf[c.start:c.end]...)
	c.putBuffer()
	return c.nc, rest
}

// Abort wakes whoever waits for the connection. Safe from any goroutine.
func (c *ClientConn) Abort() { c.sock.Abort() }

// Close closes the connection.
func (c *ClientConn) Close() error {
	c.putBuffer()
	if err := c.nc.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
