package http1

import (
	"errors"
	"io"
	"os"
)

type bodyState uint8

const (
	noBody      bodyState = iota
	readyBody             // the rest of it is in memory, decoded
	fixedBody             // as many bytes as are left
	chunkedBody           //
	endlessBody           // up to the end of the connection; answers only
)

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

// beginBody finds out how the body of the request comes. One that has arrived
// whole is made ready.
func (c *Conn) beginBody() {
	arrived := c.buf[c.start:c.end]
	if n := c.Req.ContentLength; !c.Req.Chunked {
		if int64(len(arrived)) >= n {
			c.body, c.ready, c.wire = readyBody, arrived[:n], n
			c.start += int(n)
			return
		}
		c.body, c.left = fixedBody, n
	} else {
		c.chunked.Reset()
		if c.gather(arrived) {
			return
		}
		c.body = chunkedBody
	}
}

// gather decodes a chunked body in place if all of it has arrived.
func (c *Conn) gather(b []byte) bool {
	used := 0
	for used < len(b) && !c.chunked.Done() {
		_, n, err := c.chunked.Next(b[used:])
		if err != nil {
			c.malformed = true
			break
		}
		used += n
	}
	whole := c.chunked.Done()
	if !whole {
		c.chunked.Reset()
		return false
	}
	var again Chunked
	size := 0
	for at := 0; at < used; {
		data, n, _ := again.Next(b[at:used])
		size += copy(b[size:], data)
		at += n
	}
	c.body, c.ready, c.wire = readyBody, b[:size], int64(used)
	c.start += used
	return true
}

// Buffered returns the rest of the body if it has arrived whole, without
// copying it; it then counts as read. The bytes are valid until the handler
// returns.
func (c *Conn) Buffered() ([]byte, bool) {
	if c.body > readyBody {
		return nil, false
	}
	b := c.ready
	c.body, c.ready = noBody, nil
	return b, true
}

// Malformed says whether what had come of a chunked body when the request began
// is malformed.
func (c *Conn) Malformed() bool { return c.malformed }

// BodyAtHand says whether ReadBody has something without waiting for the client.
func (c *Conn) BodyAtHand() bool { return c.body == readyBody || c.body != noBody && c.start < c.end }

// ReadBody reads decoded bytes of the body, as many as are at hand; io.EOF comes
// with the last of them, else the error is a *BodyError. A client that waits for
// 100 Continue gets it first.
func (c *Conn) ReadBody(p []byte) (int, error) {
	n, err := c.readBody(p)
	for before := c.end; err == nil && n < len(p) && c.body > readyBody && c.start < c.end && c.start != before; {
		before = c.start
		var m int
		m, err = c.take(p[n:])
		n += m
	}
	if err == nil && n > 0 && c.body == noBody {
		err = io.EOF
	}
	return n, err
}

// readBody reads what can be had in one step.
func (c *Conn) readBody(p []byte) (int, error) {
	for {
		switch {
		case c.body == noBody:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		case c.body == readyBody:
			n := copy(p, c.ready)
			if c.ready = c.ready[n:]; len(c.ready) == 0 {
				c.body = noBody
			}
			if n > 0 {
				return n, nil
			}
			continue
		case c.start < c.end:
		case c.body == fixedBody:
			return c.readFixed(p)
		default:
			if err := c.more(); err != nil {
				return 0, err
			}
		}
		if n, err := c.take(p); n > 0 || err != nil {
			return n, err
		}
	}
}

// take copies body bytes out of the buffer.
func (c *Conn) take(p []byte) (int, error) {
	b := c.buffer()[c.start:c.end]
	if c.body == fixedBody {
		n := copy(p[:min(int64(len(p)), c.left)], b)
		c.start += n
		c.count(n)
		return n, nil
	}
	data, used, err := c.chunked.Next(b[:min(len(b), len(p))])
	if err != nil {
		return 0, &BodyError{400, err}
	}
	c.start += used
	c.wire += int64(used)
	if c.chunked.Done() {
		c.body = noBody
	}
	return copy(p, data), nil
}

func (c *Conn) count(n int) {
	c.wire += int64(n)
	if c.left -= int64(n); c.left == 0 {
		c.body = noBody
	}
}

// readFixed reads past the buffer.
func (c *Conn) readFixed(p []byte) (int, error) {
	n, err := c.readSome(p[:min(int64(len(p)), c.left)])
	c.count(n)
	return n, err
}

// readSome reads for a body.
func (c *Conn) readSome(p []byte) (int, error) {
	if err := c.Continue(); err != nil {
		return 0, bodyError(err)
	}
	c.sock.SetTimeout(c.bodyTimeout)
	n, err := c.nc.Read(p)
	c.BytesIn += int64(n)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut.Store(true)
	}
	return 0, bodyError(err)
}

// Split says that another goroutine reads the body from now on, while the answer
// is written; it must have ended before the handler does. StopBody ends its
// reading.
func (c *Conn) Split() { c.split = true }

// StopBody makes the reading of the body fail, in another goroutine, too. The
// connection ends with the answer.
func (c *Conn) StopBody() { c.sock.StopReads() }

// join ends Split.
func (c *Conn) join() {
	if c.split {
		c.split = false
		c.sock.SetWriteTimeout(0)
		c.sock.AllowReads()
	}
}

// minBody is the least room behind a head for a chunked body.
const minBody = 4 << 10

// buffer is where c.start and c.end count.
func (c *Conn) buffer() []byte {
	if c.spare != nil {
		return c.spare.data[:]
	}
	return c.buf
}

// more reads the next piece of a chunked body behind the head, which the handler
// still needs, or to another buffer when there is little room.
func (c *Conn) more() error {
	if c.spare == nil {
		if head := c.headEnd(); len(c.buf)-head >= minBody {
			c.start, c.end = head, head
		} else {
			c.spare = inputs.Get().(*input)
		}
	}
	b := c.buffer()
	if c.spare != nil {
		c.start, c.end = 0, 0
	}
	n, err := c.readSome(b[c.end:])
	c.end += n
	return err
}

// headEnd is an offset in the buffer that lies behind the head.
func (c *Conn) headEnd() int {
	if c.spare == nil && c.bodyAt == 0 {
		c.bodyAt = c.start
	}
	return c.bodyAt
}

// unspare moves what follows the body to the buffer proper.
func (c *Conn) unspare() {
	c.bodyAt = 0
	if c.spare == nil {
		return
	}
	c.end = copy(c.buf, c.spare.data[c.start:c.end])
	c.start = 0
	inputs.Put(c.spare)
	c.spare = nil
}

// Trailers appends the fields after a chunked body, which must have been read
// to its end, to fields. The error is ErrTrailers. They are valid until the
// handler returns.
func (c *Conn) Trailers(fields []Field) ([]Field, error) {
	if !c.Req.Chunked || c.body != noBody {
		return fields, nil
	}
	return c.chunked.Trailers(fields)
}

// Expecting says whether the client has asked for 100 Continue and not got it.
// If nobody reads a body of which nothing has come, the connection ends after the
// answer, for nobody can know whether it will come.
func (c *Conn) Expecting() bool { return c.expecting }

// WithholdContinue has nobody asked any more for the body of this request: a
// client that waits for that gets an answer in its place.
func (c *Conn) WithholdContinue() { c.withheld = true }

// Continue asks a client that waits for it to send its body.
func (c *Conn) Continue() error {
	if !c.expecting {
		return nil
	}
	c.expecting = false
	if c.withheld || c.sent || len(c.Out) > 0 {
		return nil
	}
	const line = "HTTP/1.1 100 Continue\r\n\r\n"
	c.Out = append(c.Out, line...)
	err := c.Flush()
	c.sent = false
	return err
}

// RequestLength is how many bytes of the request have been used so far, with
// head and framing ($request_length).
func (c *Conn) RequestLength() int64 { return int64(c.Req.HeadSize) + c.wire }

// maxSkipped is how much of an unwanted body is read to keep a connection.
const maxSkipped = 256 << 10

// skipBody reads what the handler left of the body, within bounds. False: the
// connection cannot be used again.
func (c *Conn) skipBody() bool {
	if c.body <= readyBody {
		return true
	}
	if c.expecting && c.start == c.end || c.body == fixedBody && c.left > maxSkipped {
		return false
	}
	p := c.Out[:cap(c.Out)]
	if len(p) == 0 {
		return false
	}
	c.bodyTimeout = c.times.LingerTimeout
	for skipped := 0; skipped < maxSkipped; {
		n, err := c.ReadBody(p)
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
