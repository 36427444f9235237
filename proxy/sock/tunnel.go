package sock

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Tunnel is two connections that are copied to each other; NewTunnel makes one.
// Its fields are set before Run; what is said by methods may be asked for at any time.
type Tunnel struct {
	A, B net.Conn
	// FromA and FromB are bytes that have been read already.
	FromA, FromB []byte
	// Idle is how long nothing may move in either direction; 0 for ever. The
	// time that a rate holds a direction back does not count.
	Idle time.Duration
	// HalfClose passes the end of one direction on and lets the other go on.
	// Without it the end of one, once all of it has been written, is that of both.
	HalfClose bool
	// Buffer bounds what is read at once; 0 for the size of the pooled buffers,
	// which nothing exceeds.
	Buffer int
	// AB and BA are the directions from A to B and from B to A.
	AB, BA Flow

	began    time.Time
	last     atomic.Int64 // when a byte was moved, since began
	held     atomic.Int32 // directions that wait for their rate
	over     chan struct{}
	once     sync.Once
	timedOut atomic.Bool
	aborted  atomic.Bool
	watchdog *time.Timer
	halved   atomic.Bool          // one direction has ended, and its end was passed on
	deciding atomic.Pointer[Flow] // the direction that ended the tunnel
}

// NewTunnel makes a tunnel that does not run yet.
func NewTunnel(a, b net.Conn) *Tunnel {
	return &Tunnel{A: a, B: b, over: make(chan struct{})}
}

// Flow is one direction of a Tunnel.
type Flow struct {
	// Rate bounds the bytes in a second; 0 for no bound. Begun is since when it
	// counts, with a second's worth in advance; zero for when the tunnel begins.
	Rate  int64
	Begun time.Time
	// First, if not nil, is called before the first bytes are passed on.
	First func()

	in, out atomic.Int64
	started bool

	// ReadErr and WriteErr are what ended the direction, nil for a proper end
	// and for the end of the tunnel. They are there when Run has returned.
	ReadErr, WriteErr error
}

// In is how many bytes have been read.
func (f *Flow) In() int64 { return f.in.Load() }

// Out is how many bytes have been written.
func (f *Flow) Out() int64 { return f.out.Load() }

// TimedOut says that nothing moved for the time Idle.
func (t *Tunnel) TimedOut() bool { return t.timedOut.Load() }

// Aborted says that Abort ended the tunnel.
func (t *Tunnel) Aborted() bool { return t.aborted.Load() }

// Ended is the direction whose end was that of the tunnel: the first that ended,
// or with HalfClose the second.
func (t *Tunnel) Ended() *Flow { return t.deciding.Load() }

// Abort ends the tunnel. It never waits, and may be called from anywhere.
func (t *Tunnel) Abort() {
	t.aborted.Store(true)
	t.stop()
}

// halfCloser can end one direction.
type halfCloser interface{ CloseWrite() error }

// tunnelBuffer is the size of the pooled buffers.
const tunnelBuffer = 32 << 10

var tunnelBuffers = sync.Pool{New: func() any { return new([tunnelBuffer]byte) }}

// Run copies until the tunnel ends. The caller closes both connections, which
// can then no longer be read or written. A raw Conn holds no buffer while nothing
// arrives.
func (t *Tunnel) Run() {
	t.began = time.Now()
	for _, c := range []net.Conn{t.A, t.B} {
		if s := raw(c); s != nil { // Idle takes the place of its timeouts
			s.SetTimeout(0)
			s.SetWriteTimeout(0)
		}
	}
	if t.Idle > 0 {
		armed := make(chan struct{})
		t.watchdog = time.AfterFunc(t.Idle, func() {
			<-armed
			t.check()
		})
		close(armed)
	}
	var wg sync.WaitGroup
	wg.Go(func() { t.pump(&t.BA, t.A, t.B, t.FromB) })
	t.pump(&t.AB, t.B, t.A, t.FromA)
	wg.Wait()
	t.stop()
	if t.watchdog != nil {
		t.watchdog.Stop()
	}
}

// stop ends both directions without waiting.
func (t *Tunnel) stop() {
	t.once.Do(func() { close(t.over) })
	abort(t.A)
	abort(t.B)
}

func (t *Tunnel) stopped() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}

// check ends the tunnel if nothing has moved for too long.
func (t *Tunnel) check() {
	if t.stopped() {
		return
	}
	rest := t.Idle - (time.Since(t.began) - time.Duration(t.last.Load()))
	if t.held.Load() > 0 {
		rest = t.Idle
	}
	if rest > 0 {
		t.watchdog.Reset(rest)
		return
	}
	t.timedOut.Store(true)
	t.stop()
}

func (t *Tunnel) moved() { t.last.Store(int64(time.Since(t.began))) }

// pump copies one direction to its end.
func (t *Tunnel) pump(f *Flow, dst, src net.Conn, first []byte) {
	var rerr, werr error
	if len(first) > 0 {
		werr = t.pass(f, dst, first)
	}
	if werr == nil {
		if c, ok := src.(*Conn); ok && c.raw != nil {
			rerr, werr = t.pumpRaw(f, dst, c)
		} else {
			rerr, werr = t.pumpPlain(f, dst, src)
		}
	}
	if t.stopped() { // whatever it was, it is the end of the tunnel
		return
	}
	if !errors.Is(rerr, io.EOF) {
		f.ReadErr = rerr
	}
	f.WriteErr = werr
	if werr == nil && t.HalfClose && t.halved.CompareAndSwap(false, true) {
		if h, ok := dst.(halfCloser); ok && h.CloseWrite() == nil {
			t.moved()
			return
		}
	}
	if werr == nil && f.ReadErr == nil {
		sayEnd(dst)
	}
	t.deciding.CompareAndSwap(nil, f)
	t.stop()
}

// sayEnd tells a peer over TLS that nothing was cut off. To others the end of the
// connection says as much.
func sayEnd(c net.Conn) {
	if _, plain := c.(*Conn); plain {
		return
	}
	if h, ok := c.(halfCloser); ok {
		_ = h.CloseWrite()
	}
}

// pass writes what has been read.
func (t *Tunnel) pass(f *Flow, dst net.Conn, p []byte) error {
	f.in.Add(int64(len(p)))
	if !f.started && len(p) > 0 {
		f.started = true
		if f.First != nil {
			f.First()
		}
	}
	t.moved()
	if len(p) == 0 {
		return nil
	}
	n, err := dst.Write(p)
	f.out.Add(int64(n))
	t.moved()
	return err
}

// most is how much may be read now. It waits while the rate allows nothing, and
// returns 0 when the tunnel has ended meanwhile.
func (t *Tunnel) most(f *Flow) int {
	most := tunnelBuffer
	if t.Buffer > 0 {
		most = min(most, t.Buffer)
	}
	if f.Rate <= 0 {
		return most
	}
	begun := f.Begun
	if begun.IsZero() {
		begun = t.began
	}
	for {
		allowed := f.Rate*(int64(time.Since(begun)/time.Second)+1) - f.in.Load()
		if allowed > 0 {
			return int(min(allowed, int64(most)))
		}
		if !t.hold(time.Duration(-allowed)*time.Second/time.Duration(f.Rate) + time.Millisecond) {
			return 0
		}
	}
}

// rest waits for the time that n bytes take at the rate.
func (t *Tunnel) rest(f *Flow, n int) {
	if f.Rate > 0 {
		t.hold((time.Duration(n) * time.Second / time.Duration(f.Rate)).Truncate(time.Millisecond))
	}
}

// hold waits; false when the tunnel has ended meanwhile.
func (t *Tunnel) hold(d time.Duration) bool {
	if d <= 0 {
		return !t.stopped()
	}
	t.held.Add(1)
	timer := time.NewTimer(d)
	defer func() {
		timer.Stop()
		t.moved()
		t.held.Add(-1)
	}()
	select {
	case <-t.over:
		return false
	case <-timer.C:
		return true
	}
}

func (t *Tunnel) pumpPlain(f *Flow, dst, src net.Conn) (rerr, werr error) {
	buf := tunnelBuffers.Get().(*[tunnelBuffer]byte)
	defer tunnelBuffers.Put(buf)
	for {
		most := t.most(f)
		if most == 0 {
			return nil, nil
		}
		n, err := src.Read(buf[:most])
		if n > 0 {
			if werr := t.pass(f, dst, buf[:n]); werr != nil {
				return nil, werr
			}
			t.rest(f, n)
		}
		if err != nil {
			return err, nil
		}
	}
}

// pumpRaw takes a buffer when something has arrived.
func (t *Tunnel) pumpRaw(f *Flow, dst net.Conn, src *Conn) (rerr, werr error) {
	var buf *[tunnelBuffer]byte
	n, most, failed := 0, 0, syscall.Errno(0)
	step := func(fd uintptr) bool {
		buf = tunnelBuffers.Get().(*[tunnelBuffer]byte)
		n, failed = read(int(fd), buf[:most])
		if failed == syscall.EAGAIN {
			tunnelBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		if most = t.most(f); most == 0 {
			return nil, nil
		}
		src.begin(&src.reads)
		err := src.wait(&src.reads, src.raw.Read, step)
		src.reads.deadline.Store(0)
		if err == nil {
			_, err = readResult(n, failed)
		}
		if err == nil {
			werr = t.pass(f, dst, buf[:n])
		}
		if buf != nil {
			tunnelBuffers.Put(buf)
			buf = nil
		}
		if err == nil && werr == nil && n == most && n >= spliceFrom && f.Rate == 0 {
			err, werr = t.splice(f, dst, src)
		}
		if err != nil || werr != nil {
			return err, werr
		}
		t.rest(f, n)
	}
}

// spliceFrom is how much must have been read at once for more to be expected.
const spliceFrom = 16 << 10

// splice passes on what has arrived without copying it, as long as there is
// anything: nobody waits with a pipe in his hands.
func (t *Tunnel) splice(f *Flow, to net.Conn, src *Conn) (rerr, werr error) {
	dst, ok := to.(*Conn)
	if !ok || !dst.CanSplice(src) {
		return nil, nil
	}
	through, err := dst.sweeper.pipes.take()
	if err != nil {
		return nil, nil //nolint:nilerr // without a pipe bytes are copied
	}
	defer func() { dst.sweeper.pipes.give(through) }()
	s := &splicing{through: through, dst: dst, most: channelSize}
	ready := false
	fill, drain := func(fd uintptr) { ready = s.fill(fd) }, s.drain
	for {
		if err := src.raw.Control(fill); err != nil {
			return err, nil
		}
		switch {
		case !ready:
			return nil, nil
		case s.err != nil:
			return s.err, nil
		case s.ended:
			return io.EOF, nil
		}
		got := through.held
		f.in.Add(int64(got))
		t.moved()
		err := dst.wait(&dst.writes, dst.raw.Write, drain)
		if err == nil {
			err = s.err
		}
		f.out.Add(int64(got - through.held))
		t.moved()
		if err != nil {
			return nil, err
		}
	}
}

// abort ends both directions of a connection without waiting.
func abort(c net.Conn) {
	if s := raw(c); s != nil {
		s.Abort()
		return
	}
	_ = c.SetDeadline(past)
}

// raw gives the Conn that c is or lies over; nil for none.
func raw(c net.Conn) *Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		if s, ok := t.NetConn().(interface{ Under() *Conn }); ok {
			return s.Under()
		}
	}
	s, _ := c.(*Conn)
	return s
}
