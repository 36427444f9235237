package sock

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// channel is a pipe that bytes pass through between two sockets without being
// copied to this process.
type channel struct {
	r, w int
	held int // bytes in it
}

// channelSize is asked of the kernel; a smaller one works, too.
const channelSize = 256 << 10

// channels keeps pipes that are empty. What is in it is closed when the pool
// drops it.
type channels struct {
	mu   sync.Mutex
	idle []*channel
}

// maxChannels bounds the pipes that wait for use.
const maxChannels = 32

func (p *channels) take() (*channel, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, channelSize)
	return &channel{r: fds[0], w: fds[1]}, nil
}

// give takes a pipe back; one that is not empty is of no use.
func (p *channels) give(c *channel) {
	p.mu.Lock()
	kept := c.held == 0 && len(p.idle) < maxChannels
	if kept {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !kept {
		c.close()
	}
}

func (p *channels) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}

func (c *channel) close() {
	_ = unix.Close(c.r)
	_ = unix.Close(c.w)
}

// splicing is one direction between two sockets in progress.
type splicing struct {
	through *channel
	dst     *Conn
	most    int // bytes to read still
	ended   bool
	err     error
}

// SourceError is a failure of the connection that Splice reads.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// CanSplice says whether Splice works without copying.
func (c *Conn) CanSplice(src *Conn) bool { return c.raw != nil && src.raw != nil }

// Splice passes n bytes from src to c through a pipe, without copying them, and
// returns how many went out. Both connections must be raw; their timeouts hold
// for each wait. A failure to read is a *SourceError, with io.EOF when src ended
// before. src may not be read and c not be written by others meanwhile, and src
// must not be in Loop.
func (c *Conn) Splice(src *Conn, n int64) (int64, error) {
	if !c.CanSplice(src) {
		return 0, errors.ErrUnsupported
	}
	through, err := c.sweeper.pipes.take()
	if err != nil {
		return 0, err
	}
	defer func() { c.sweeper.pipes.give(through) }()
	s := &splicing{through: through, dst: c}
	fill, drain := s.fill, s.drain
	total := int64(0)
	for total < n {
		s.most = int(min(n-total, channelSize))
		src.begin(&src.reads)
		err := src.wait(&src.reads, src.raw.Read, fill)
		src.reads.deadline.Store(0)
		if err == nil {
			err = s.err
		}
		if err == nil && s.ended {
			err = io.EOF
		}
		if err != nil {
			return total, &SourceError{err}
		}
		got := through.held
		if !c.looping || !drain(uintptr(c.fd)) {
			c.begin(&c.writes)
			err = c.wait(&c.writes, c.raw.Write, drain)
		}
		c.writes.deadline.Store(0)
		total += int64(got - through.held)
		if err == nil {
			err = s.err
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// fill moves what has arrived into the pipe.
func (s *splicing) fill(fd uintptr) bool {
	n, e := splice(int(fd), s.through.w, s.most)
	switch {
	case e == syscall.EAGAIN:
		return false
	case e != 0:
		s.err = os.NewSyscallError("splice", e)
	case n == 0:
		s.ended = true
	default:
		s.through.held += n
	}
	return true
}

// drain moves what is in the pipe out.
func (s *splicing) drain(fd uintptr) bool {
	for s.through.held > 0 {
		n, e := splice(s.through.r, int(fd), s.through.held)
		switch {
		case e == syscall.EAGAIN:
			return false
		case e != 0:
			s.err = os.NewSyscallError("splice", e)
			return true
		}
		s.through.held -= n
		s.dst.begin(&s.dst.writes)
	}
	return true
}

// splice calls splice(2) without waiting.
func splice(from, to, n int) (int, syscall.Errno) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		var e syscall.Errno
		switch {
		case err == nil:
			return int(m), 0
		case !errors.As(err, &e):
			return 0, syscall.EINVAL
		case e != syscall.EINTR:
			return 0, e
		}
	}
}
