package fastcgi

import (
	"errors"
	"io"
	"net"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// ClientConn is a connection to an application. What goes for one of
// http1.ClientConn goes for it: the answer is one of CGI inside the records.
// Requests are sent as they are to go out.
type ClientConn struct {
	*http1.ClientConn
	records *records
	sock    *sock.Conn
	rest    int64 // of the body as announced; -1: not announced
	ifAny   int64 // rest, once there is a body at all: after HEAD; -1: it is not announced
	surplus bool  // more came
	broken  bool  // the answer has been refused
}

// NewClientConn makes the client's side of nc, s or a connection over it.
func NewClientConn(nc net.Conn, s *sock.Conn) *ClientConn {
	r := &records{Conn: nc}
	c := &ClientConn{ClientConn: http1.NewClientConn(r, s), records: r, sock: s}
	c.SetForm(http1.CGIEndless)
	return c
}

// Set says for a request whether its AppendBegin asked for the connection to be
// left open, and who gets what comes on standard error.
func (c *ClientConn) Set(keep bool, log Log) { c.records.keep, c.records.log = keep, log }

// Begin prepares for a request.
func (c *ClientConn) Begin() {
	c.ClientConn.Begin()
	c.records.begin()
	c.rest, c.ifAny, c.surplus, c.broken = 0, -1, false, false
}

// ReadResponse is that of http1.ClientConn.
func (c *ClientConn) ReadResponse(req []byte, r *http1.Response, l *http1.Limits, head bool, interim func(*http1.Response)) error {
	err := c.ClientConn.ReadResponse(req, r, l, head, interim)
	s := c.records
	c.broken = true
	switch {
	case s.refused >= 0 && (err != nil || s.refused < s.out-int64(c.Pending())):
		return errCaught
	case errors.Is(err, io.EOF) && s.outputOver:
		return refuse("upstream prematurely closed FastCGI stdout")
	case errors.Is(err, io.EOF) && s.requestOver:
		return refuse("upstream sent unexpected FastCGI record: %d", typeEnd)
	case err != nil:
		return err //nolint:wrapcheck // it is the wire's own
	}
	c.broken = false
	switch c.rest = r.ContentLength; {
	case r.Status == 204 || r.Status == 304:
		c.rest = 0
	case head: // only a cache reads on
		c.rest, c.ifAny = -1, c.rest
	}
	return nil
}

// errCaught refuses an answer for what came on standard error: there is nothing
// more to say about it.
var errCaught error = &http1.ParseError{Status: 502}

// Next returns the next piece of the body.
func (c *ClientConn) Next() ([]byte, error) {
	if c.surplus {
		return nil, io.EOF
	}
	p, err := c.ClientConn.Next()
	n, err := c.counted(len(p), err)
	return p[:n], err
}

// ReadBody reads body bytes into p.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	switch {
	case c.surplus:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	return c.counted(c.ClientConn.ReadBody(p))
}

// counted holds what was read against the length that was announced.
func (c *ClientConn) counted(n int, err error) (int, error) {
	if n > 0 && c.ifAny >= 0 {
		c.rest, c.ifAny = c.ifAny, -1
	}
	switch {
	case err == nil && c.rest >= 0 && int64(n) > c.rest:
		n = int(c.rest)
		c.surplus = true
		if n == 0 {
			err = io.EOF
		}
	case !errors.Is(err, io.EOF) || c.rest <= 0:
	case c.records.outputOver:
		err = refuse("upstream prematurely closed FastCGI stdout")
	case c.records.requestOver:
		err = refuse("upstream prematurely closed FastCGI request")
	default:
		err = &http1.Error{Op: "body", Err: io.ErrUnexpectedEOF}
	}
	if c.rest >= 0 {
		c.rest -= int64(n)
	}
	c.broken = err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// Excess says whether more has come than the answer announced.
func (c *ClientConn) Excess() (more, chunked bool) { return c.surplus, false }

// Traffic gives the bytes received and sent since Begin.
func (c *ClientConn) Traffic() (in, out int64) { return c.records.in, c.BytesOut }

// Reusable says whether another request may be sent: the request ended, was to
// leave the connection open, and nothing came behind it.
func (c *ClientConn) Reusable() bool {
	r := c.records
	return r.keep && r.requestOver && !r.more && !c.surplus && !c.broken && c.Pending() == 0 && !c.sock.Aborted()
}

// Waits says whether Next would wait for the application.
func (c *ClientConn) Waits() bool { return !c.records.requestOver && c.ClientConn.Waits() }

// Rest lets go of the request while the connection is kept.
func (c *ClientConn) Rest() {
	c.ClientConn.Rest()
	c.records.log = nil
}
