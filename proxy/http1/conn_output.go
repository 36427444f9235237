package http1

import (
	"errors"
	"io"
	"net"
	"os"

	"proxyctl/proxy/sock"
)

// Flush sends Out.
func (c *Conn) Flush() error {
	if len(c.Out) == 0 {
		return nil
	}
	err := c.write(c.Out)
	c.Out = c.Out[:0]
	return err
}

// FlushPart sends the first n bytes of Out.
func (c *Conn) FlushPart(n int) error {
	err := c.write(c.Out[:n])
	c.Out = c.Out[:copy(c.Out, c.Out[n:])]
	return err
}

// largeWrite is from which size pieces are not copied to be sent together.
const largeWrite = 8 << 10

// WriteThrough sends Out and p as one piece.
func (c *Conn) WriteThrough(p []byte) error {
	if len(p) < largeWrite && len(c.Out)+len(p) <= cap(c.Out) {
		c.Out = append(c.Out, p...)
		return c.Flush()
	}
	if !c.raw || len(c.Out) == 0 || c.mute {
		if err := c.Flush(); err != nil {
			return err
		}
		return c.write(p)
	}
	c.sent = true
	c.limitWrites()
	n, err := c.sock.Writev(c.Out, p)
	c.BytesOut += int64(n)
	c.Out = c.Out[:0]
	return c.failed(err)
}

func (c *Conn) write(p []byte) error {
	if c.mute {
		return io.ErrClosedPipe
	}
	c.sent = true
	c.limitWrites()
	n, err := c.nc.Write(p)
	c.BytesOut += int64(n)
	return c.failed(err)
}

// limitWrites sets how long the next write may take, and, unless somebody else
// reads, the next read.
func (c *Conn) limitWrites() {
	if c.split {
		c.sock.SetWriteTimeout(c.times.SendTimeout)
	} else {
		c.sock.SetTimeout(c.times.SendTimeout)
	}
}

// failed notes that the connection cannot be written any more.
func (c *Conn) failed(err error) error {
	if err != nil {
		c.mute, c.unsent = true, err
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.timedOut.Store(true)
		}
	}
	return err
}

// TimedOut says whether the client did not read or send in time.
func (c *Conn) TimedOut() bool { return c.timedOut.Load() }

// Unsent says why an answer did not go out whole; nil when it did.
func (c *Conn) Unsent() error { return c.unsent }

// Reset makes the connection end with a reset instead of being closed in order.
func (c *Conn) Reset() {
	c.mute = true
	c.sock.Reset()
}

// TryFlush sends what the socket takes of Out without waiting; done says that
// nothing is left. Over TLS it waits.
func (c *Conn) TryFlush() (done bool, err error) {
	if !c.raw || c.mute {
		return true, c.Flush()
	}
	c.sent = true
	n, err := c.sock.TryWrite(c.Out)
	c.BytesOut += int64(n)
	c.Out = c.Out[:copy(c.Out, c.Out[n:])]
	return len(c.Out) == 0, c.failed(err)
}

// SendFile sends Out and then size bytes of a file from offset, and returns how
// many of those went out.
func (c *Conn) SendFile(f *os.File, offset, size int64) (int64, error) {
	if !c.raw {
		return c.copyFile(f, offset, size)
	}
	if err := c.Flush(); err != nil {
		return 0, err
	}
	c.sent = true
	c.limitWrites()
	n, err := c.sock.SendFile(f, offset, size)
	c.BytesOut += n
	return n, c.failed(err)
}

// copyFile sends a file through the output buffer: the head goes out with the
// first piece.
func (c *Conn) copyFile(f *os.File, offset, size int64) (int64, error) {
	total := int64(0)
	for total < size {
		free := c.Out[len(c.Out):cap(c.Out)]
		if len(free) == 0 {
			if err := c.Flush(); err != nil {
				return total, err
			}
			continue
		}
		n, err := f.ReadAt(free[:min(int64(len(free)), size-total)], offset+total)
		c.Out = c.Out[:len(c.Out)+n]
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return total, err
		}
		if err := c.Flush(); err != nil {
			return total, err
		}
		total += int64(n)
	}
	return total, nil
}

// PassBody sends Out and then the rest of the body that u is reading, without
// copying it to this process, and returns how many bytes of the body went out.
// False: this way is not open, and nothing was done; it takes plain sockets on
// both sides and a body of known length. The error is an *Error when the upstream
// failed, else the client did.
func (c *Conn) PassBody(u *ClientConn) (n int64, ok bool, err error) {
	if !c.raw || !u.raw || u.body != fixedBody || c.mute || !c.sock.CanSplice(u.sock) {
		return 0, false, nil
	}
	if u.start < u.end {
		first, err := u.Next()
		if err != nil {
			return 0, true, err
		}
		if err := c.WriteThrough(first); err != nil {
			return 0, true, err
		}
		n = int64(len(first))
	} else if err := c.Flush(); err != nil {
		return 0, true, err
	}
	if u.body != fixedBody {
		return n, true, nil
	}
	c.sent = true
	c.limitWrites()
	u.sock.SetTimeout(u.read)
	m, err := c.sock.Splice(u.sock, u.left)
	c.BytesOut += m
	u.BytesIn += m
	n += m
	var source *sock.SourceError
	switch {
	case err == nil:
		u.left, u.body = 0, noBody
		return n, true, nil
	case errors.As(err, &source):
		return n, true, u.bodyEnded(source.Err)
	}
	u.persistent = false
	return n, true, c.failed(err)
}

// SetTimeouts changes the times for this request and until the next one; t must
// not change meanwhile.
func (c *Conn) SetTimeouts(t *Timeouts) { c.times, c.bodyTimeout = t, t.BodyTimeout }

// Pipelined says whether the next request has begun to arrive.
func (c *Conn) Pipelined() bool { return c.body <= readyBody && c.start < c.end }

// Hijack gives the connection to the handler, with what was read beyond the
// request. Serve ends after the handler does and does not close it. Only for
// requests with Upgrade and for CONNECT.
func (c *Conn) Hijack() (net.Conn, []byte) {
	c.hijacked = true
	rest := append([]byte(nil), c.buffer()[c.start:c.end]...)
	c.start = c.end
	c.sock.SetTimeout(0)
	return c.nc, rest
}

// Watch calls gone, from another goroutine, when the client goes away. See
// sock.Conn.Watch.
func (c *Conn) Watch(gone func()) { c.sock.Watch(gone) }

// Unwatch ends Watch: gone neither runs nor will when it returns.
func (c *Conn) Unwatch() { c.sock.Unwatch() }

// Shutdown ends the connection: at once when it is idle, else after the current
// or first answer. Safe from any goroutine.
func (c *Conn) Shutdown() {
	if c.state.Swap(stateClosing) == stateIdle {
		c.sock.Abort()
	}
}

// Reading says whether a head has begun to arrive. Safe from any goroutine.
func (c *Conn) Reading() bool { return c.partial.Load() }

// Closing reports whether Shutdown has been called.
func (c *Conn) Closing() bool { return c.state.Load() == stateClosing }

// Aborted says whether Abort has been called.
func (c *Conn) Aborted() bool { return c.sock.Aborted() }

// Abort ends the connection without waiting for the current answer. Safe from
// any goroutine.
func (c *Conn) Abort() { c.sock.Abort() }

// finish closes the connection so that the client can read the last answer.
func (c *Conn) finish() {
	if !c.hijacked {
		if c.sent && !c.mute && !c.sock.Aborted() && c.moreToCome() {
			c.linger()
		}
		_ = c.nc.Close()
	}
	c.release()
}

// moreToCome says whether it is worth waiting for more of the client.
func (c *Conn) moreToCome() bool {
	switch {
	case c.times.Linger == LingerAlways, c.body > readyBody:
		return true
	case c.times.Linger == LingerForInput:
		return c.start < c.end || c.sock.Readable()
	}
	return false
}

// linger ends the answer and discards what still arrives, as nginx does
// (ngx_http_set_lingering_close): closing a socket with unread input resets it,
// and the client could lose the answer.
func (c *Conn) linger() {
	if !c.raw {
		t, ok := c.nc.(interface{ CloseWrite() error })
		if !ok || t.CloseWrite() != nil {
			return
		}
	}
	if err := c.sock.CloseWrite(); err != nil {
		return
	}
	c.acquire()
	c.sock.SetTimeout(c.times.LingerTimeout)
	c.sock.ReadUntil(c.times.LingerTime)
	for end := c.sock.Now() + int64(c.times.LingerTime); c.sock.Now() < end; {
		if _, err := c.sock.Read(c.buf); err != nil {
			return
		}
	}
}
