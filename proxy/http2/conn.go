package http2

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"proxyctl/proxy/head"
	"proxyctl/proxy/sock"
)

// Conn is the server's side of a connection. One goroutine reads; every stream
// has a worker's goroutine from the end of its head to the end of its answer, and
// whoever has something to send writes for all.
//
// A request that comes alone is answered by the reader itself, which spares
// waking another goroutine. As soon as its handler has to wait for anything, or
// takes long, a new goroutine reads on.
type Conn struct {
	cfg     *Config
	handler Handler
	note    func(reason string)
	nc      net.Conn
	sock    *sock.Conn // under nc; for timeouts
	raw     bool       // nc is sock: it is read inside its Loop
	step    func() bool

	// the reader's own
	in         *[]byte // nil while there is nothing to read
	start, end int     // what has been read and not used
	frame      frame
	block      block
	dec        decoder
	arena      []byte // memory of fields that nobody keeps
	takeFunc   func(*head.Field) error
	seen       uint32    // highest identifier that the client used
	ready      []*Stream // whose heads are complete; they begin with the end of a round
	fresh      int       // streams begun in this round
	refused    int
	priorities int // how many PRIORITY frames are tolerated yet
	fruitless  int // how often something came that began no stream
	own        *Stream
	relief     *time.Timer
	requests   int
	total      int64 // bytes of frames

	over chan struct{} // closed when the connection is finished

	mu         sync.Mutex
	streams    map[uint32]*Stream
	last       uint32 // highest identifier that was taken up
	left       [16]uint32
	leftAt     int   // where in left the next stream goes that was ended before its client did
	recvWindow int64 // of the connection
	sendWindow int64
	initWindow int64 // of streams, to the client
	peerFrame  int   // largest payload the client takes
	acked      bool  // the client knows the settings
	resize     bool  // the next block must say that the dynamic table has no room
	leaving    bool  // GOAWAY was sent
	dead       bool  // nothing can be sent any more
	lent       bool  // the reader serves its own request; nobody reads
	loans      uint  // how often it has been
	headUntil  int64 // when the head that is being read must be complete; 0: there is none
	idleUntil  int64 // when the connection ends unless a stream begins; 0: never
	began      int64
	payload    int64     // bytes of frames that carried messages
	sent       int64     // bytes of all frames sent
	ended      sync.Cond // a stream has
	filled     sync.Cond // a body that is too large to wait has been read from
	output
}

// inputSize is the size of a read buffer.
const inputSize = 16 << 10

var inputs = sync.Pool{New: func() any { b := make([]byte, inputSize); return &b }}

// NewConn makes the server's side of nc, which is s or a connection over it.
// note is given the reasons for which a connection ends or refuses something; it
// is called from the goroutine of Serve.
func NewConn(nc net.Conn, s *sock.Conn, cfg *Config, h Handler, note func(reason string)) *Conn {
	c := &Conn{
		cfg: cfg, handler: h, note: note, nc: nc, sock: s, streams: map[uint32]*Stream{}, over: make(chan struct{}),
		recvWindow: maxWindow, sendWindow: defaultWindow, initWindow: defaultWindow, peerFrame: defaultFrameSize,
		priorities: max(cfg.Streams, 100), began: s.Now(),
	}
	c.raw = net.Conn(s) == nc && s.Raw()
	if c.raw {
		s.Share()
		c.step = c.readStep
	}
	c.written.L, c.ended.L, c.filled.L = &c.mu, &c.mu, &c.mu
	c.frame.preface = Preface
	c.dec = decoder{fieldSize: cfg.FieldSize, most: tableSize, table: tableSize}
	c.takeFunc = c.take
	return c
}

// Serve serves the connection to its end and closes it. read is what has been
// read of it already.
func (c *Conn) Serve(read []byte) {
	c.sock.SetTimeout(0)
	c.sock.SetWriteTimeout(c.cfg.SendTimeout)
	c.idleUntil = c.ahead(c.cfg.HeadTimeout)
	c.greet()
	for len(read) > 0 {
		c.acquire()
		n := copy((*c.in)[c.end:], read)
		read = read[n:]
		if !c.received(n) {
			c.finish()
			return
		}
	}
	c.run()
	<-c.over
}

// run reads until the connection ends, which it then finishes, or until another
// goroutine reads on.
func (c *Conn) run() {
	if c.loop() {
		c.finish()
		close(c.over)
	}
}

// loop reads and serves. False: another goroutine reads on.
func (c *Conn) loop() bool {
	if c.pause() && c.own == nil {
		return true
	}
	for {
		var err error
		if c.own == nil {
			err = c.read()
		}
		switch {
		case c.own != nil:
			if !c.serveOwn() {
				return false
			}
		case err == nil || !c.goesOn(err): // err is nil when a round has ended the connection
			return true
		}
		if c.pause() && c.own == nil {
			return true
		}
	}
}

// patience is how long the handler of a request that came alone may keep its
// connection from being read.
const patience = 20 * time.Millisecond

// takeOwn says whether the reader itself is to answer: a request that came alone
// and whole.
func (c *Conn) takeOwn() bool {
	if len(c.ready) != 1 || c.start < c.end || c.block.open {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) != 1 || !c.ready[0].inClosed || c.dead {
		return false
	}
	c.own = c.ready[0]
	c.ready[0] = nil
	c.ready = c.ready[:0]
	return true
}

// serveOwn answers the reader's own request. False: another goroutine reads on.
func (c *Conn) serveOwn() bool {
	s := c.own
	c.own = nil
	if c.relief == nil {
		c.relief = time.AfterFunc(patience, c.relieve)
	} else {
		c.relief.Reset(patience)
	}
	c.mu.Lock() // from here on another may read, and use what is the reader's own
	c.lent = true
	c.loans++
	loan := c.loans
	c.mu.Unlock()
	s.serve()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lent || c.loans != loan { // another reads, or serves a request of its own already
		return false
	}
	c.lent = false
	c.relief.Stop()
	return true
}

// relieve is readOn for those who do not hold c.mu.
func (c *Conn) relieve() {
	c.mu.Lock()
	c.readOn()
	c.mu.Unlock()
}

// readOn has a new goroutine read if the reader is about to wait in a handler;
// the caller holds c.mu.
func (c *Conn) readOn() {
	if c.lent {
		c.lent = false
		go c.run()
	}
}

// read waits and reads until the connection ends, there is an error, or the
// reader has a request of its own.
func (c *Conn) read() error {
	if c.raw {
		return c.sock.Loop(c.step)
	}
	for {
		n, err := c.readPlain()
		if n > 0 && (!c.received(n) || c.pause()) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readStep takes everything that has arrived; it runs inside the socket's Loop
// and returns true to leave it.
func (c *Conn) readStep() bool {
	for {
		c.acquire()
		room := (*c.in)[c.end:]
		n, err := c.sock.TryRead(room)
		if errors.Is(err, sock.ErrAgain) {
			return c.pause()
		}
		if err != nil {
			c.lost()
			return true
		}
		if !c.received(n) {
			return true
		}
		if n < len(room) {
			return c.pause()
		}
	}
}

// readPlain reads once over a transport that is not a plain socket.
func (c *Conn) readPlain() (int, error) {
	if c.in != nil {
		return c.nc.Read((*c.in)[c.end:])
	}
	// Wait for the first byte without holding a buffer. It is no loss: crypto/tls
	// has the rest of the record at hand.
	var first [1]byte
	n, err := c.nc.Read(first[:])
	if n == 0 || err != nil {
		return n, err
	}
	c.acquire()
	(*c.in)[0] = first[0]
	n, err = c.nc.Read((*c.in)[1:])
	return n + 1, err
}

func (c *Conn) acquire() {
	if c.in == nil {
		c.in = inputs.Get().(*[]byte)
		c.start, c.end = 0, 0
	}
}

// received takes n bytes at the end of the buffer. False: the connection is to
// end.
func (c *Conn) received(n int) bool {
	c.end += n
	c.total += int64(n)
	err := c.consume()
	if c.fresh == 0 {
		c.fruitless++
	}
	c.mu.Lock()
	flood := (c.total+c.sent)/8 > c.payload+1<<20 || len(c.streams) == 0 && c.fruitless > 10*max(c.cfg.Requests, 1)
	c.mu.Unlock()
	if err == nil && flood {
		err = broken(NoError, "http2 flood detected")
	}
	if err != nil {
		c.fail(err)
		return false
	}
	return true
}

// fail ends the connection for a reason that the client is told.
func (c *Conn) fail(err error) {
	var e *connError
	if !errors.As(err, &e) {
		return
	}
	if e.reason != "" {
		c.note(e.reason)
	}
	c.startReady() // what came before is served, if there is time
	c.mu.Lock()
	c.goAway(e.code)
	c.mu.Unlock()
}

// lost gives up when the client's direction has ended.
func (c *Conn) lost() {
	c.mu.Lock()
	busy := len(c.streams) > 0 || c.frame.open || c.start < c.end
	c.die()
	c.mu.Unlock()
	if busy && !c.sock.Aborted() {
		c.note("client prematurely closed connection")
	}
}

// pause ends a round of reading: the handlers of its requests begin, and what
// the round itself has to say is sent. True: the connection is to end, or c.own is
// to be served.
func (c *Conn) pause() bool {
	c.fresh = 0
	if c.start == c.end && c.in != nil {
		inputs.Put(c.in)
		c.in = nil
	}
	if c.takeOwn() {
		return true
	}
	c.startReady()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeLater()
	return !c.await()
}

// startReady has the requests of a round served.
func (c *Conn) startReady() {
	for i, s := range c.ready {
		c.ready[i] = nil
		c.cfg.Workers.run(s)
	}
	c.ready = c.ready[:0]
}

// ahead is the point in time that lies d ahead; 0 for no time.
func (c *Conn) ahead(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return c.sock.Now() + int64(d)
}

// await sets how long the next bytes may take. False: the connection is to end.
// The caller holds c.mu.
func (c *Conn) await() bool {
	if c.dead || c.leaving && len(c.streams) == 0 {
		return false
	}
	until := c.headUntil
	if len(c.streams) == 0 && c.idleUntil > 0 && (until == 0 || c.idleUntil < until) {
		until = c.idleUntil
	}
	var d time.Duration
	if until > 0 {
		d = max(time.Duration(until-c.sock.Now()), 1)
	}
	c.sock.ReadUntil(d)
	c.sock.Idle(d)
	return true
}

// goesOn says after a failed read whether the connection goes on: it was a time
// that ran out, and not the connection's.
func (c *Conn) goesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.sock.Aborted() {
		c.lost()
		return false
	}
	now := c.sock.Now()
	c.mu.Lock()
	late := c.headUntil > 0 && now >= c.headUntil
	c.mu.Unlock()
	if late {
		c.expire()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) > 0 || c.leaving || c.idleUntil == 0 || now < c.idleUntil {
		return true
	}
	if c.requests > 0 {
		c.goAway(NoError)
	} else {
		c.note("client timed out")
		c.goAway(ProtocolError)
	}
	return true
}

// closed is called when a stream has ended; the caller holds c.mu. Without
// streams the connection waits for the next, or ends.
func (c *Conn) closed() {
	c.ended.Signal()
	if len(c.streams) > 0 {
		return
	}
	if c.leaving || c.dead {
		c.sock.Expire()
		return
	}
	c.idleUntil = c.ahead(c.cfg.IdleTimeout)
	c.await()
}

// Shutdown ends the connection gracefully: streams that have begun are answered,
// further ones are not taken. Safe from any goroutine.
func (c *Conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAway(NoError)
	if len(c.streams) == 0 {
		c.sock.Expire()
	} else {
		c.writeLater()
	}
}

// Abort ends the connection at once. Safe from any goroutine.
func (c *Conn) Abort() {
	c.mu.Lock()
	c.die()
	c.mu.Unlock()
	c.sock.Abort()
}

// finish closes the connection so that the client can read what was sent last.
// Streams that have not ended are given up; their handlers are waited for.
func (c *Conn) finish() {
	c.startReady()
	c.mu.Lock()
	if s := c.block.stream; s != nil { // has no handler yet
		delete(c.streams, s.id)
	}
	for _, s := range c.streams {
		s.die()
	}
	c.write()
	for c.writing {
		c.written.Wait()
	}
	linger := !c.dead && c.cfg.LingerTime > 0 && !c.sock.Aborted()
	c.die()
	c.mu.Unlock()
	if linger {
		c.linger()
	}
	_ = c.nc.Close()
	c.mu.Lock()
	for len(c.streams) > 0 {
		c.ended.Wait()
	}
	c.mu.Unlock()
	if c.in != nil {
		inputs.Put(c.in)
		c.in = nil
	}
}

// die gives everything up; the caller holds c.mu.
func (c *Conn) die() {
	c.dead = true
	for _, s := range c.streams {
		s.die()
	}
	c.drop()
}

// linger ends the server's direction and discards what still arrives: closing a
// socket with unread input resets it, and the client could lose the last frames.
func (c *Conn) linger() {
	if !c.raw {
		t, ok := c.nc.(interface{ CloseWrite() error })
		if !ok || t.CloseWrite() != nil {
			return
		}
	}
	if c.sock.CloseWrite() != nil {
		return
	}
	c.acquire()
	c.sock.SetTimeout(c.cfg.LingerTimeout)
	c.sock.ReadUntil(c.cfg.LingerTime)
	for end := c.sock.Now() + int64(c.cfg.LingerTime); c.sock.Now() < end; {
		if _, err := c.sock.Read(*c.in); err != nil {
			return
		}
	}
}
