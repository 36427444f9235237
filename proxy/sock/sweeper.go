package sock

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// shards spread the connections over several locks.
const shards = 16

// period is how often connections are looked at.
const period = 100 * time.Millisecond

// probeAfter is how many sweeps pass before a parked reader is looked after.
const probeAfter = 2

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)

// Sweeper keeps a coarse clock, ends what takes too long and tells who watches
// a connection that its peer has gone. One serves a process.
type Sweeper struct {
	now    atomic.Int64
	base   time.Time
	date   atomic.Pointer[dateLine]
	shards [shards]shard
	next   atomic.Uint32
	pipes  channels
	stop   chan struct{}
	once   sync.Once
}

type shard struct {
	mu    sync.Mutex
	conns []*Conn
}

type dateLine struct {
	second int64
	text   []byte
}

// NewSweeper starts a sweeper.
func NewSweeper() *Sweeper {
	s := &Sweeper{base: time.Now(), stop: make(chan struct{})}
	s.tick()
	go s.run()
	return s
}

// Stop ends the sweeper: its clock stands and deadlines no longer expire.
func (s *Sweeper) Stop() {
	s.once.Do(func() {
		close(s.stop)
		s.pipes.close()
	})
}

// Now is the coarse clock: nanoseconds since the start, monotonic, never 0, up to
// a tenth of a second behind.
func (s *Sweeper) Now() int64 { return s.now.Load() }

// AppendDate appends the current time as the Date field writes it (RFC 9110,
// section 5.6.7).
func (s *Sweeper) AppendDate(dst []byte) []byte { return append(dst, s.date.Load().text...) }

// Second is the time that AppendDate writes, in seconds since 1970.
func (s *Sweeper) Second() int64 { return s.date.Load().second }

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
		for _, c := range sh.conns {
			c.sweep(now)
		}
		sh.mu.Unlock()
	}
}

// sweep looks after one connection. Nothing in it waits.
func (c *Conn) sweep(now int64) {
	if d := c.reads.deadline.Load(); d > 0 && now > d && c.reads.deadline.CompareAndSwap(d, expired) {
		_ = c.nc.SetReadDeadline(past)
	}
	if d := c.writes.deadline.Load(); d > 0 && now > d && c.writes.deadline.CompareAndSwap(d, expired) {
		_ = c.nc.SetWriteDeadline(past)
	}
	if p := c.probe.Load(); p > 0 && c.probe.CompareAndSwap(p, p-1) && p == 1 && c.Readable() {
		_ = c.nc.SetReadDeadline(past) // a nudge: see Conn.wait
	}
	if c.watching.Load() && (c.aborted.Load() || c.Gone()) {
		c.gone()
	}
}

func (s *Sweeper) add(c *Conn) {
	c.shard = &s.shards[s.next.Add(1)%shards]
	c.shard.mu.Lock()
	c.index = len(c.shard.conns)
	c.shard.conns = append(c.shard.conns, c)
	c.shard.mu.Unlock()
}

func (s *Sweeper) remove(c *Conn) {
	sh := c.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c.index < 0 {
		return
	}
	last := len(sh.conns) - 1
	sh.conns[c.index] = sh.conns[last]
	sh.conns[c.index].index = c.index
	sh.conns[last] = nil
	sh.conns = sh.conns[:last]
	c.index = -1
}

// Watch has gone called once, from the Sweeper, when the peer has closed its
// direction or reset the connection, or Abort was called. gone must not wait, and must not call
// Unwatch or Close.
func (c *Conn) Watch(gone func()) {
	c.watchMu.Lock()
	c.watch = gone
	c.watching.Store(true)
	c.watchMu.Unlock()
}

// Unwatch ends Watch. Once it has returned, the function neither runs nor will.
func (c *Conn) Unwatch() {
	c.watchMu.Lock()
	c.watch = nil
	c.watching.Store(false)
	c.watchMu.Unlock()
}

func (c *Conn) gone() {
	c.watchMu.Lock()
	defer c.watchMu.Unlock()
	if f := c.watch; f != nil {
		c.watch = nil
		c.watching.Store(false)
		f()
	}
}

// asking is a question to poll(2) that can be asked without allocating.
type asking struct {
	which, got int16
	ask        func(fd uintptr)
}

var askings = sync.Pool{New: func() any {
	a := new(asking)
	a.ask = func(fd uintptr) { a.got = events(int(fd), a.which) }
	return a
}}

// ask reports whether one of the events holds. A connection that is closed has
// all of them.
func (c *Conn) ask(which int16) bool {
	if c.raw == nil {
		return false
	}
	a := askings.Get().(*asking)
	a.which, a.got = which, 0
	err := c.raw.Control(a.ask)
	got := a.got
	askings.Put(a)
	return err != nil || got != 0
}

// Gone reports whether the peer has closed its direction or reset the
// connection, even when there is something left to read. Without a descriptor
// it is false.
func (c *Conn) Gone() bool { return c.ask(unix.POLLRDHUP) }

// Readable reports whether a read would return at once: something has arrived,
// or the peer has closed. Without a descriptor it is false.
func (c *Conn) Readable() bool { return c.ask(unix.POLLIN | unix.POLLRDHUP) }
