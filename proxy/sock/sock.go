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

// Conn is a stream connection. One goroutine may read and one may write at a
// time; Close, Abort, Gone and the Sweeper are safe from anywhere.
type Conn struct {
	nc      net.Conn
	raw     syscall.RawConn // nil: plain Read and Write
	sweeper *Sweeper

	timeout  atomic.Int64 // nanoseconds between two operations; 0: none
	deadline atomic.Int64 // on the Sweeper's clock; 0: nothing is awaited
	watch    atomic.Pointer[func()]
	aborted  atomic.Bool
	shard    uint32

	// one reader's state
	readFunc, exchangeFunc, loopFunc func(uintptr) bool
	in                               []byte
	n                                int
	err                              error
	step                             func() bool
	fd                               int // valid while looping
	looping                          bool

	// one writer's state
	writeFunc func(uintptr) bool
	out       []byte
	werr      error
}

// New wraps a connection. One whose descriptor cannot be reached is read and
// written plainly.
func New(nc net.Conn, s *Sweeper) *Conn {
	c := &Conn{nc: nc, sweeper: s}
	switch t := nc.(type) {
	case *net.TCPConn:
		c.raw, _ = t.SyscallConn()
	case *net.UnixConn:
		c.raw, _ = t.SyscallConn()
	}
	if c.raw != nil {
		c.readFunc, c.writeFunc, c.exchangeFunc, c.loopFunc = c.readStep, c.writeStep, c.exchangeStep, c.loopStep
	}
	s.add(c)
	return c
}

// Raw reports whether Loop, TryRead and TryWrite can be used.
func (c *Conn) Raw() bool { return c.raw != nil }

// SetTimeout sets how long each following read and write may wait, to about
// the Sweeper's period; 0 for ever.
func (c *Conn) SetTimeout(d time.Duration) {
	c.timeout.Store(int64(d))
	if c.deadline.Load() != 0 {
		c.await()
	}
}

// await starts the time of an operation.
func (c *Conn) await() {
	if t := c.timeout.Load(); t != 0 {
		c.deadline.Store(c.sweeper.Now() + t)
	} else {
		c.deadline.Store(0)
	}
}

// Read reads at least one byte.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.await()
	defer c.deadline.Store(0)
	if c.raw == nil {
		return c.nc.Read(p)
	}
	c.in, c.n, c.err = p, 0, nil
	if err := c.raw.Read(c.readFunc); err != nil {
		return 0, err
	}
	return c.n, c.err
}

func (c *Conn) readStep(fd uintptr) bool {
	n, err := read(int(fd), c.in)
	if err == unix.EAGAIN {
		return false
	}
	c.n, c.err = readResult(n, err)
	return true
}

func readResult(n int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// read calls read(2) again when a signal came in between.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func write(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Write(fd, p)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// Loop calls step each time something may have arrived, from one callback that
// holds the right to read: step may use TryRead and every write, and nothing
// else that reads. It returns when step returns true.
func (c *Conn) Loop(step func() bool) error {
	c.step = step
	return c.raw.Read(c.loopFunc)
}

func (c *Conn) loopStep(fd uintptr) bool {
	c.fd, c.looping = int(fd), true
	done := c.step()
	c.looping = false
	return done
}

// TryRead reads what has arrived, inside Loop; ErrAgain when nothing has.
func (c *Conn) TryRead(p []byte) (int, error) {
	n, err := read(c.fd, p)
	if err == unix.EAGAIN {
		return 0, ErrAgain
	}
	return readResult(n, err)
}

// Idle starts the time in which the next byte must arrive, for a step that is
// about to return false.
func (c *Conn) Idle(d time.Duration) {
	c.timeout.Store(int64(d))
	c.await()
}

// Busy stops the time of Idle.
func (c *Conn) Busy() { c.deadline.Store(0) }

// Exchange writes req and reads the first bytes of the answer in one go.
func (c *Conn) Exchange(req, buf []byte) (int, error) {
	if c.raw == nil || len(buf) == 0 {
		if _, err := c.Write(req); err != nil {
			return 0, err
		}
		return c.Read(buf)
	}
	c.await()
	defer c.deadline.Store(0)
	c.out, c.in, c.n, c.err = req, buf, 0, nil
	if err := c.raw.Read(c.exchangeFunc); err != nil {
		return 0, err
	}
	if rest := c.out; len(rest) > 0 && c.err == nil { // the socket's buffer is full
		c.out = nil
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
	n, err := write(int(fd), c.out)
	c.out = c.out[n:]
	if err != nil && err != unix.EAGAIN {
		c.err = os.NewSyscallError("write", err)
		return true
	}
	return len(c.out) > 0
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	total := len(p)
	if c.looping {
		n, err := write(c.fd, p)
		if err != nil && err != unix.EAGAIN {
			return n, os.NewSyscallError("write", err)
		}
		if p = p[n:]; len(p) == 0 {
			return total, nil
		}
	}
	c.await()
	defer c.deadline.Store(0)
	if c.raw == nil {
		return c.nc.Write(p)
	}
	c.out, c.werr = p, nil
	err := c.raw.Write(c.writeFunc)
	if err == nil {
		err = c.werr
	}
	return total - len(c.out), err
}

func (c *Conn) writeStep(fd uintptr) bool {
	for len(c.out) > 0 {
		n, err := write(int(fd), c.out)
		c.out = c.out[n:]
		if err == unix.EAGAIN {
			if n > 0 {
				c.await()
			}
			return false
		}
		if err != nil {
			c.werr = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// TryWrite writes what the socket takes without waiting.
func (c *Conn) TryWrite(p []byte) (int, error) {
	if c.raw == nil {
		return c.Write(p)
	}
	var n int
	var werr error
	err := c.raw.Control(func(fd uintptr) { n, werr = write(int(fd), p) })
	if err != nil {
		return 0, err
	}
	if werr == unix.EAGAIN {
		return n, nil
	}
	if werr != nil {
		return n, os.NewSyscallError("write", werr)
	}
	return n, nil
}

// Writev writes two pieces as if they were one.
func (c *Conn) Writev(a, b []byte) error {
	if c.raw == nil || len(a) == 0 || len(b) == 0 {
		if _, err := c.Write(a); err != nil {
			return err
		}
		_, err := c.Write(b)
		return err
	}
	n, err := 0, error(nil)
	if cerr := c.raw.Control(func(fd uintptr) {
		n, err = unix.Writev(int(fd), [][]byte{a, b})
	}); cerr != nil {
		return cerr
	}
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return os.NewSyscallError("writev", err)
	}
	n = max(n, 0)
	if n < len(a) {
		if _, err := c.Write(a[n:]); err != nil {
			return err
		}
		n = len(a)
	}
	_, err = c.Write(b[n-len(a):])
	return err
}

// SendFile sends size bytes of f from offset by sendfile(2) where it can.
func (c *Conn) SendFile(f *os.File, offset, size int64) (int64, error) {
	if c.raw == nil {
		return io.Copy(c, io.NewSectionReader(f, offset, size))
	}
	c.await()
	defer c.deadline.Store(0)
	start := offset
	end := offset + size
	var serr error
	err := c.raw.Write(func(fd uintptr) bool {
		for offset < end {
			n, err := unix.Sendfile(int(fd), int(f.Fd()), &offset, int(min(end-offset, 2<<20)))
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				c.await()
				return false
			case err != nil:
				serr = os.NewSyscallError("sendfile", err)
				return true
			case n == 0:
				serr = io.ErrUnexpectedEOF
				return true
			}
		}
		return true
	})
	if err == nil {
		err = serr
	}
	return offset - start, err
}

// Gone reports whether the peer has closed or reset the connection.
func (c *Conn) Gone() bool {
	if c.raw == nil {
		return false
	}
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return err != nil || gone
}

// Watch calls gone once, from the Sweeper, when the peer has gone away. Unwatch
// ends it.
func (c *Conn) Watch(gone func()) { c.watch.Store(&gone) }

// Unwatch ends Watch.
func (c *Conn) Unwatch() { c.watch.Store(nil) }

// Abort makes every read and write fail from now on. It never waits.
func (c *Conn) Abort() {
	c.aborted.Store(true)
	_ = c.nc.SetDeadline(time.Unix(1, 0))
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
	return nil
}

// Reset makes the following Close send a reset.
func (c *Conn) Reset() {
	if t, ok := c.nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}

// NetConn returns what was wrapped.
func (c *Conn) NetConn() net.Conn { return c.nc }

// LocalAddr returns the address at this end.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the address at the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline sets an exact deadline, for those who wrap a Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline is SetDeadline for reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline is SetDeadline for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// shards spread the connections over several locks.
const shards = 16

// Sweeper keeps a coarse clock and ends what takes too long. One serves a
// process.
type Sweeper struct {
	now    atomic.Int64
	base   time.Time
	date   atomic.Pointer[dateLine]
	shards [shards]shard
	next   atomic.Uint32
	stop   chan struct{}
	once   sync.Once
}

type shard struct {
	mu    sync.Mutex
	conns map[*Conn]struct{}
}

type dateLine struct {
	second int64
	text   []byte
}

// period is how often connections are looked at.
const period = 100 * time.Millisecond

// NewSweeper starts a sweeper.
func NewSweeper() *Sweeper {
	s := &Sweeper{base: time.Now(), stop: make(chan struct{})}
	for i := range s.shards {
		s.shards[i].conns = map[*Conn]struct{}{}
	}
	s.tick()
	go s.run()
	return s
}

// Stop ends the sweeper. Deadlines no longer expire.
func (s *Sweeper) Stop() { s.once.Do(func() { close(s.stop) }) }

// Now is the coarse clock: nanoseconds, monotonic, never 0.
func (s *Sweeper) Now() int64 { return s.now.Load() }

// AppendDate appends the current time as the Date field writes it.
func (s *Sweeper) AppendDate(dst []byte) []byte { return append(dst, s.date.Load().text...) }

func (s *Sweeper) run() {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.tick()
			s.sweep()
		}
	}
}

func (s *Sweeper) tick() {
	now := time.Now()
	s.now.Store(int64(now.Sub(s.base)) + 1)
	if d := s.date.Load(); d == nil || d.second != now.Unix() {
		s.date.Store(&dateLine{now.Unix(), now.UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT")})
	}
}

func (s *Sweeper) sweep() {
	now := s.Now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for c := range sh.conns {
			if d := c.deadline.Load(); d != 0 && now > d {
				_ = c.nc.SetDeadline(time.Unix(1, 0))
			}
			if w := c.watch.Load(); w != nil && c.Gone() && c.watch.CompareAndSwap(w, nil) {
				go (*w)()
			}
		}
		sh.mu.Unlock()
	}
}

func (s *Sweeper) add(c *Conn) {
	c.shard = s.next.Add(1) % shards
	sh := &s.shards[c.shard]
	sh.mu.Lock()
	sh.conns[c] = struct{}{}
	sh.mu.Unlock()
}

func (s *Sweeper) remove(c *Conn) {
	sh := &s.shards[c.shard]
	sh.mu.Lock()
	delete(sh.conns, c)
	sh.mu.Unlock()
}

// Readable reports whether a read would return at once: something has arrived,
// or the peer has closed.
func (c *Conn) Readable() bool {
	if c.raw == nil {
		return false
	}
	readable := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		readable = err != unix.EAGAIN
	})
	return err != nil || readable
}
