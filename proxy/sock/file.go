package sock

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Writev writes two pieces as if they were one, by writev(2), and returns how
// many bytes of both went out.
func (c *Conn) Writev(a, b []byte) (int, error) {
	if c.raw == nil || len(a) == 0 || len(b) == 0 {
		return c.writeRest(0, a, b)
	}
	c.pair[0], c.pair[1] = a, b
	c.pairSent, c.werr = 0, nil
	var err error
	if c.looping {
		c.pairStep(uintptr(c.fd))
	} else {
		err = c.raw.Control(c.pairFunc)
	}
	c.pair[0], c.pair[1] = nil, nil
	if err == nil {
		err = c.werr
	}
	if err != nil {
		return c.pairSent, c.reason(err)
	}
	return c.writeRest(c.pairSent, a, b)
}

// pairStep writes what the socket takes.
func (c *Conn) pairStep(fd uintptr) {
	n, err := unix.Writev(int(fd), c.pair[:])
	c.pairSent = max(n, 0)
	if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
		c.werr = os.NewSyscallError("writev", err)
	}
}

// writeRest writes two pieces but for their first n bytes.
func (c *Conn) writeRest(n int, a, b []byte) (int, error) {
	if n < len(a) {
		m, err := c.Write(a[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	m, err := c.Write(b[n-len(a):])
	return n + m, err
}

// transfer is a SendFile in progress.
type transfer struct {
	conn        *Conn
	fd          int
	offset, end int64
	err         error
	step        func(fd uintptr) bool
}

// sendfileMost is the most bytes for one sendfile(2): the time of the write
// begins again after each.
const sendfileMost = 1 << 20

// SendFile sends size bytes of f from offset, by sendfile(2) where it can, and
// returns how many went out. io.ErrUnexpectedEOF says that the file is shorter.
func (c *Conn) SendFile(f *os.File, offset, size int64) (int64, error) {
	if c.raw == nil {
		n, err := io.Copy(c, io.NewSectionReader(f, offset, size))
		if err == nil && n < size {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if c.file == nil {
		c.file = &transfer{conn: c}
		c.file.step = c.file.send
	}
	t := c.file
	t.fd, t.offset, t.end, t.err = int(f.Fd()), offset, offset+size, nil
	if c.looping && t.send(uintptr(c.fd)) {
		c.writes.deadline.Store(0)
		return t.offset - offset, t.err
	}
	c.begin(&c.writes)
	err := c.wait(&c.writes, c.raw.Write, t.step)
	c.writes.deadline.Store(0)
	if err == nil {
		err = t.err
	}
	return t.offset - offset, err
}

// send sends until the socket is full; true says that it is over.
func (t *transfer) send(fd uintptr) bool {
	for t.offset < t.end {
		n, err := unix.Sendfile(int(fd), t.fd, &t.offset, int(min(t.end-t.offset, sendfileMost)))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			t.err = os.NewSyscallError("sendfile", err)
			return true
		case n == 0:
			t.err = io.ErrUnexpectedEOF
			return true
		default:
			t.conn.begin(&t.conn.writes)
		}
	}
	return true
}
