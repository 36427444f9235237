// Package sock drives stream sockets without the reads that only learn that
// nothing has arrived, and with deadlines that cost no timer.
//
// A Conn is read inside the callback of syscall.RawConn: the first read comes
// after the poller has been armed, so an answer that arrives in between is not
// missed and no read is spent on finding out that there is nothing to read.
// Deadlines are coarse numbers that one Sweeper looks at a few times a second.
package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAgain says that a read or write without waiting found the socket not ready.
var ErrAgain = errors.New("socket not ready")

// ErrAborted is what reads and writes fail with after Abort.
var ErrAborted = errors.New("connection aborted")

// Conn is a stream connection. One goroutine may read and one may write at a
// time; Close, Abort, StopReads, Gone, Readable, Watch, Unwatch and SetTimeout are
// safe from anywhere. It is a net.Conn, so that crypto/tls can lie over it.
type Conn struct {
	nc      net.Conn
	raw     syscall.RawConn // nil: plain Read and Write
	sweeper *Sweeper

	timeout       atomic.Int64 // nanoseconds that one operation may wait; 0: no limit
	writeTimeout  atomic.Int64 // instead of timeout, for writes; 0: timeout counts
	until         atomic.Int64 // when reads end at the latest; 0: no limit
	reads, writes side
	probe         atomic.Int32 // sweeps until a parked reader is looked after
	aborted       atomic.Bool
	stopped       atomic.Bool // reads are

	watching atomic.Bool // a hint for the Sweeper
	watchMu  sync.Mutex
	watch    func()

	shard *shard
	index int // in shard; -1: not there

	// one reader's state
	readFunc, exchangeFunc, loopFunc func(uintptr) bool
	in                               []byte
	n                                int
	err                              error
	step                             func() bool
	fd                               int  // valid while looping
	looping                          bool // step is running
	shared                           bool // others write meanwhile

	// one writer's state
	writeFunc func(uintptr) bool
	tryFunc   func(uintptr)
	pairFunc  func(uintptr)
	out       []byte
	pair      [2][]byte // of Writev
	pairSent  int
	werr      error
	file      *transfer // of SendFile; made when first needed
}

// side is the deadline of one direction.
type side struct {
	deadline atomic.Int64 // on the Sweeper's clock; 0: nothing is awaited
	exact    atomic.Bool  // SetDeadline is in force as well
}

// expired takes the place of a deadline that has passed.
const expired = -1

// New wraps a connection. One whose descriptor cannot be reached is read and
// written plainly. The connection belongs to the Sweeper until it is closed.
func New(nc net.Conn, s *Sweeper) *Conn {
	c := &Conn{nc: nc, sweeper: s}
	switch t := nc.(type) {
	case *net.TCPConn, *net.UnixConn, *dialed:
		c.raw, _ = t.(syscall.Conn).SyscallConn()
	}
	if c.raw != nil {
		c.readFunc, c.exchangeFunc, c.loopFunc = c.readStep, c.exchangeStep, c.loopStep
		c.writeFunc, c.tryFunc, c.pairFunc = c.writeStep, c.tryStep, c.pairStep
	}
	s.add(c)
	return c
}

// Now is the Sweeper's clock.
func (c *Conn) Now() int64 { return c.sweeper.Now() }

// Raw reports whether Loop and TryRead can be used.
func (c *Conn) Raw() bool { return c.raw != nil }

// SetTimeout sets how long each following read and write may wait, and one that
// is waiting now from now on; 0 for ever. The time is kept coarsely: an
// operation fails with os.ErrDeadlineExceeded up to three periods of the Sweeper
// late and never early. A write's time begins again whenever the socket takes
// some bytes.
func (c *Conn) SetTimeout(d time.Duration) {
	c.timeout.Store(int64(d))
	if c.reads.deadline.Load() > 0 {
		c.begin(&c.reads)
	}
	if c.writes.deadline.Load() > 0 {
		c.begin(&c.writes)
	}
}

// SetWriteTimeout is SetTimeout for writes alone, which SetTimeout then does not
// change.
func (c *Conn) SetWriteTimeout(d time.Duration) { c.writeTimeout.Store(int64(d)) }

// ReadUntil bounds all following reads together: after d none of them waits any
// more. 0 ends that.
func (c *Conn) ReadUntil(d time.Duration) { c.until.Store(c.ahead(d)) }

// ahead is the point on the clock that lies d ahead, 0 for no time. The clock may
// be a period behind, so two are added.
func (c *Conn) ahead(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return c.sweeper.Now() + int64(d+2*period)
}

// begin starts the time of an operation.
func (c *Conn) begin(s *side) {
	for {
		timeout := c.timeout.Load()
		d := c.ahead(time.Duration(timeout))
		if w := c.writeTimeout.Load(); w > 0 && s == &c.writes {
			d = c.ahead(time.Duration(w))
		}
		if s == &c.reads {
			if u := c.until.Load(); u > 0 && (d == 0 || u < d) {
				d = u
			}
		}
		s.deadline.Store(d)
		if c.timeout.Load() == timeout { // else SetTimeout may have come in between
			return
		}
	}
}

// Read reads at least one byte.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.begin(&c.reads)
	if c.raw == nil {
		return c.plain(&c.reads, c.nc.Read, p)
	}
	c.in, c.n, c.err = p, 0, nil
	err := c.wait(&c.reads, c.raw.Read, c.readFunc)
	c.reads.deadline.Store(0)
	c.in = nil
	if err != nil {
		return 0, err
	}
	return c.n, c.err
}

// Peek is Read that leaves what it reads to be read again. Only for a Conn that
// is Raw.
func (c *Conn) Peek(p []byte) (int, error) {
	if c.raw == nil {
		return 0, errors.ErrUnsupported
	}
	c.begin(&c.reads)
	c.in, c.n, c.err = p, 0, nil
	err := c.wait(&c.reads, c.raw.Read, c.peekStep)
	c.reads.deadline.Store(0)
	c.in = nil
	if err != nil {
		return 0, err
	}
	return c.n, c.err
}

// PeekMore is Peek that waits until there is more than the first bytes. An end
// that comes instead is io.EOF.
func (c *Conn) PeekMore(p []byte, first int) (int, error) {
	if c.raw == nil {
		return 0, errors.ErrUnsupported
	}
	c.begin(&c.reads)
	var n int
	var failed error
	err := c.wait(&c.reads, c.raw.Read, func(fd uintptr) bool {
		m, e := peek(int(fd), p)
		switch {
		case e == syscall.EAGAIN:
			return false
		case e == 0 && m > 0 && m <= first:
			if events(int(fd), unix.POLLRDHUP) == 0 {
				return false // the poller tells of what comes, not of what is there
			}
			n, failed = 0, io.EOF
		default:
			n, failed = readResult(m, e)
		}
		return true
	})
	c.reads.deadline.Store(0)
	if err != nil {
		return 0, err
	}
	return n, failed
}

func (c *Conn) peekStep(fd uintptr) bool {
	n, e := peek(int(fd), c.in)
	if e == syscall.EAGAIN {
		return false
	}
	c.n, c.err = readResult(n, e)
	return true
}

func (c *Conn) readStep(fd uintptr) bool {
	n, e := read(int(fd), c.in)
	if e == syscall.EAGAIN {
		return false
	}
	c.n, c.err = readResult(n, e)
	return true
}

func readResult(n int, e syscall.Errno) (int, error) {
	switch {
	case e != 0:
		return 0, os.NewSyscallError("read", e)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// wait runs a callback until it is done. The Sweeper's way to wake somebody is a
// deadline in the past, and it can come late, for an operation that has ended
// already, or as a nudge to look again: only the mark of expired makes it count.
func (c *Conn) wait(s *side, run func(func(uintptr) bool) error, step func(uintptr) bool) error {
	for {
		err := run(step)
		if err == nil || !c.spurious(s, err) {
			return c.reason(err)
		}
	}
}

// plain is wait for a connection without a descriptor. Bytes that were written
// before a false alarm count.
func (c *Conn) plain(s *side, do func([]byte) (int, error), p []byte) (int, error) {
	defer s.deadline.Store(0)
	total := 0
	for {
		n, err := do(p[total:])
		total += n
		if err == nil || !c.spurious(s, err) {
			return total, c.reason(err)
		}
		if s == &c.reads && total > 0 {
			return total, nil
		}
	}
}

// spurious says whether an operation must be started again, and prepares for it.
func (c *Conn) spurious(s *side, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.aborted.Load() || s.deadline.Load() == expired || s.exact.Load() {
		return false
	}
	if s == &c.reads && c.stopped.Load() {
		return false
	}
	if s == &c.reads {
		err = c.nc.SetReadDeadline(time.Time{})
	} else {
		err = c.nc.SetWriteDeadline(time.Time{})
	}
	if c.aborted.Load() { // Abort came in between
		_ = c.nc.SetDeadline(past)
		return false
	}
	if s == &c.reads && c.stopped.Load() { // or StopReads
		_ = c.nc.SetReadDeadline(past)
		return false
	}
	return err == nil && s.deadline.Load() != expired // or Expire, or the Sweeper
}

func (c *Conn) reason(err error) error {
	if err != nil && c.aborted.Load() {
		return ErrAborted
	}
	return err
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	total := len(p)
	if c.looping {
		n, e := write(c.fd, p)
		if e != 0 && e != syscall.EAGAIN {
			return n, os.NewSyscallError("write", e)
		}
		if p = p[n:]; len(p) == 0 {
			return total, nil
		}
	}
	c.begin(&c.writes)
	if c.raw == nil {
		return c.plain(&c.writes, c.nc.Write, p)
	}
	c.out, c.werr = p, nil
	err := c.wait(&c.writes, c.raw.Write, c.writeFunc)
	c.writes.deadline.Store(0)
	if err == nil {
		err = c.werr
	}
	total -= len(c.out)
	c.out = nil
	return total, err
}

func (c *Conn) writeStep(fd uintptr) bool {
	for len(c.out) > 0 {
		n, e := write(int(fd), c.out)
		c.out = c.out[n:]
		if n > 0 && len(c.out) > 0 {
			c.begin(&c.writes)
		}
		if e == syscall.EAGAIN {
			return false
		}
		if e != 0 {
			c.werr = os.NewSyscallError("write", e)
			return true
		}
	}
	return true
}

// TryWrite writes what the socket takes without waiting: 0 and no error when it
// takes nothing.
func (c *Conn) TryWrite(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case c.raw == nil:
		return c.Write(p)
	}
	c.out, c.werr = p, nil
	var err error
	if c.looping {
		c.tryStep(uintptr(c.fd))
	} else {
		err = c.raw.Control(c.tryFunc)
	}
	n := len(p) - len(c.out)
	c.out = nil
	if err == nil {
		err = c.werr
	}
	return n, err
}

func (c *Conn) tryStep(fd uintptr) {
	n, e := write(int(fd), c.out)
	c.out = c.out[n:]
	if e != 0 && e != syscall.EAGAIN {
		c.werr = os.NewSyscallError("write", e)
	}
}

// Abort makes every read and write fail from now on, those in progress too. It
// never waits.
func (c *Conn) Abort() {
	c.aborted.Store(true)
	_ = c.nc.SetDeadline(past)
}

// Expire ends the read that waits, or the next one, as if its time had run out.
// It never waits.
func (c *Conn) Expire() {
	c.reads.deadline.Store(expired)
	_ = c.nc.SetReadDeadline(past)
}

// StopReads makes the read in progress fail, and all that follow until AllowReads.
// It never waits.
func (c *Conn) StopReads() {
	c.stopped.Store(true)
	_ = c.nc.SetReadDeadline(past)
}

// AllowReads ends StopReads; nobody may be reading.
func (c *Conn) AllowReads() {
	c.stopped.Store(false)
	if !c.aborted.Load() {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	if c.aborted.Load() { // Abort came in between
		_ = c.nc.SetReadDeadline(past)
	}
}

// Aborted reports whether Abort has been called.
func (c *Conn) Aborted() bool { return c.aborted.Load() }

// Close closes the connection.
func (c *Conn) Close() error {
	c.sweeper.remove(c)
	return c.nc.Close()
}

// CloseWrite ends the direction to the peer.
func (c *Conn) CloseWrite() error {
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Reset makes the following Close send a reset.
func (c *Conn) Reset() {
	if t, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
}

// NetConn returns what was wrapped.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Under is c, for those who embed one.
func (c *Conn) Under() *Conn { return c }

// LocalAddr returns the address at this end.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the address at the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline sets an exact deadline beside the coarse one, for those who wrap
// a Conn. It costs a runtime timer.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline is SetDeadline for reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.reads.exact.Store(!t.IsZero())
	if c.aborted.Load() {
		return nil
	}
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline is SetDeadline for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writes.exact.Store(!t.IsZero())
	if c.aborted.Load() {
		return nil
	}
	return c.nc.SetWriteDeadline(t)
}
