package sock

import (
	"os"
	"syscall"
	"time"
)

// Loop calls step each time something may have arrived, from one callback that
// holds the right to read: step may use TryRead and every kind of write, and
// nothing else that reads. Loop returns nil when step returns true, or what
// ended the waiting. Only for a Conn that is Raw.
//
// A step that found less than it had room for may wait without reading again.
// An end that arrived together with that last piece would go unnoticed then, for
// it is reported once; therefore the Sweeper looks after those who wait.
func (c *Conn) Loop(step func() bool) error {
	c.step = step
	err := c.wait(&c.reads, c.raw.Read, c.loopFunc)
	c.step = nil
	return err
}

// Share lets another goroutine write while one is in Loop. It must be called
// before that.
func (c *Conn) Share() { c.shared = true }

func (c *Conn) loopStep(fd uintptr) bool {
	if c.fd = int(fd); c.shared {
		return c.step()
	}
	c.looping = true
	done := c.step()
	c.looping = false
	return done
}

// TryRead reads what has arrived, inside Loop; ErrAgain when nothing has.
func (c *Conn) TryRead(p []byte) (int, error) {
	n, e := read(c.fd, p)
	if e == syscall.EAGAIN {
		return 0, ErrAgain
	}
	return readResult(n, e)
}

// Idle starts the time in which the next bytes must arrive, for a step that is
// about to return false; 0 for ever.
func (c *Conn) Idle(d time.Duration) {
	c.reads.deadline.Store(c.ahead(d))
	c.probe.Store(probeAfter)
}

// Busy ends the time of Idle.
func (c *Conn) Busy() {
	c.reads.deadline.Store(0)
	c.probe.Store(0)
}

// Exchange writes req and reads the first bytes of the answer in one go: the
// poller is armed once and the answer is read when it is there.
func (c *Conn) Exchange(req, buf []byte) (int, error) {
	if c.raw == nil || len(buf) == 0 || len(req) == 0 {
		if _, err := c.Write(req); err != nil {
			return 0, err
		}
		return c.Read(buf)
	}
	c.begin(&c.reads)
	c.out, c.in, c.n, c.err = req, buf, 0, nil
	err := c.wait(&c.reads, c.raw.Read, c.exchangeFunc)
	c.Busy()
	rest := c.out
	c.in, c.out = nil, nil
	switch {
	case err != nil:
		return 0, err
	case len(rest) > 0 && c.err == nil: // the socket's buffer is full
		if _, err := c.Write(rest); err != nil {
			return 0, err
		}
		return c.Read(buf)
	}
	return c.n, c.err
}

// exchangeStep writes on its first call. The poller was armed before, so the
// answer cannot be missed.
func (c *Conn) exchangeStep(fd uintptr) bool {
	if len(c.out) == 0 {
		return c.readStep(fd)
	}
	n, e := write(int(fd), c.out)
	c.out = c.out[n:]
	if e != 0 && e != syscall.EAGAIN {
		c.err = os.NewSyscallError("write", e)
		return true
	}
	if len(c.out) > 0 {
		return true
	}
	c.probe.Store(probeAfter) // the end may have come before the poller was armed
	return false
}
