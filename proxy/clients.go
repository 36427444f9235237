package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// The connections of clients: where they are counted, limited and ended.

// clientSet are all connections of a runtime.
type clientSet struct {
	accepted atomic.Uint64 // also the source of $connection
	refused  atomic.Int64  // accepted beyond the limit
	open     atomic.Int64
	past     atomic.Int64 // requests of connections that have ended
	shards   [clientShards]clientShard
	warned   atomic.Int64 // second of the last warning about the limit
}

// clientShards spread the connections over several locks.
const clientShards = 16

type clientShard struct {
	mu  sync.Mutex
	all map[*client]struct{}
	_   [40]byte // a cache line of its own
}

func (s *clientSet) shard(c *client) *clientShard { return &s.shards[c.id%clientShards] }

func (s *clientSet) add(c *client) {
	sh := s.shard(c)
	sh.mu.Lock()
	if sh.all == nil {
		sh.all = map[*client]struct{}{}
	}
	sh.all[c] = struct{}{}
	sh.mu.Unlock()
}

func (s *clientSet) remove(c *client) {
	sh := s.shard(c)
	sh.mu.Lock()
	if _, known := sh.all[c]; known {
		delete(sh.all, c)
		if !c.life.session.Load() {
			s.past.Add(c.life.requests.Load())
		}
		s.open.Add(-1)
	}
	sh.mu.Unlock()
}

// each calls f for every connection. f must not wait.
func (s *clientSet) each(f func(*client)) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for c := range sh.all {
			f(c)
		}
		sh.mu.Unlock()
	}
}

// some calls f for connections until it returns false.
func (s *clientSet) some(f func(*client) bool) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for c := range sh.all {
			if !f(c) {
				sh.mu.Unlock()
				return
			}
		}
		sh.mu.Unlock()
	}
}

// wait returns true when no connection is left, false when ctx is done.
func (s *clientSet) wait(ctx context.Context) bool {
	pause := 5 * time.Millisecond
	for s.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
			pause = min(pause*9/8, 100*time.Millisecond)
		}
	}
	return true
}

func (s *clientSet) stats() Stats {
	st := Stats{Accepted: int64(s.accepted.Load()), Requests: s.past.Load()}
	st.Handled = st.Accepted - s.refused.Load()
	sessions := int64(0) // of the stream block: they are active, and that is all
	s.each(func(c *client) {
		st.Active++
		if c.life.session.Load() {
			sessions++
			return
		}
		st.Requests += c.life.requests.Load()
		switch conn := c.life.http1.Load(); {
		case c.life.active.Load() > 0:
			st.Writing++
		case conn != nil && conn.Reading():
			st.Reading++
		}
	})
	st.Waiting = st.Active - st.Writing - st.Reading - sessions
	return st
}

// life is what others may see and do to a connection while its own goroutine
// serves it.
type life struct {
	active   atomic.Int32          // requests being served
	requests atomic.Int64          // served so far, these included
	session  atomic.Bool           // what it serves is a session of the stream block
	table    atomic.Pointer[Table] // of the latest request
	spared   atomic.Int64          // until when, on the sweeper's clock, a shutdown leaves it alone while it is idle
	bound    atomic.Bool           // it ends with the generation it began under: HTTP/2
	http1    atomic.Pointer[http1.Conn]

	mu       sync.Mutex
	graceful func()
	abort    func()
	ending   ending
}

// ending says how far a connection has been asked to end.
type ending uint8

const (
	goesOn ending = iota
	endsGracefully
	endsAtOnce
)

// onEnd says how the connection is asked to end: graceful lets requests in
// flight end, abort does not. They are called from other goroutines, must not
// wait, and may be called when the connection has ended already. A nil graceful
// lets the connection go on until onEnd is called again.
func (f *life) onEnd(graceful, abort func()) {
	f.mu.Lock()
	f.graceful, f.abort = graceful, abort
	ending := f.ending
	f.mu.Unlock()
	switch ending {
	case endsGracefully:
		if graceful != nil {
			graceful()
		}
	case endsAtOnce:
		abort()
	case goesOn:
	}
}

// end asks the connection to end; false when it has been asked before.
func (f *life) end(atOnce bool) bool {
	how := endsGracefully
	if atOnce {
		how = endsAtOnce
	}
	f.mu.Lock()
	again := f.ending >= how
	f.ending = max(f.ending, how)
	call := f.graceful
	if atOnce {
		call = f.abort
	}
	f.mu.Unlock()
	if !again && call != nil {
		call()
	}
	return !again
}

// asked says whether the connection has been asked to end.
func (f *life) asked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ending != goesOn
}

// begins counts a request under a table.
func (f *life) begins(t *Table) {
	f.active.Add(1)
	f.requests.Add(1)
	f.table.Store(t)
}

// ends is the end of what begins began.
func (f *life) ends(spared int64) {
	f.spared.Store(spared)
	f.active.Add(-1)
}

// retire ends a connection at shutdown: at once when it is idle, or when it
// has been for keepalive_min_timeout, so that a request that is on its way does
// not meet a closed connection.
func (c *client) retire() {
	if c.quic && c.rt.heir.Load() { // its datagrams come to either process
		c.life.end(true)
		return
	}
	if c.life.requests.Load() > 0 && c.life.active.Load() == 0 {
		if rest := time.Duration(c.life.spared.Load() - c.rt.sweeper.Now()); rest > 0 {
			time.AfterFunc(rest, func() { c.life.end(false) })
			return
		}
	}
	c.life.end(false)
}

// admit lets a connection in, or says no. nginx counts for each worker the
// connections of clients and upstreams; here it is those of clients, and the
// process has the numbers of all its workers together.
func (r *Runtime) admit(c *client) bool {
	m := &c.table.Main
	limit := m.maxConnections()
	n := r.clients.open.Add(1)
	if n <= limit-limit/16 || r.dropIdle(c, int(limit)) || n <= limit {
		return true
	}
	r.clients.open.Add(-1)
	r.clients.refused.Add(1)
	m.ErrorLog.logf(logAlert, "%d worker_connections are not enough", m.WorkerConnections)
	return false
}

// dropIdle closes some idle connections for the sake of new ones, as nginx
// does when few are left (ngx_drain_connections). False: there were none.
func (r *Runtime) dropIdle(c *client, limit int) bool {
	most := min(32, max(limit/16, 1))
	n := most
	r.clients.some(func(other *client) bool {
		if other.life.active.Load() == 0 && other.life.end(other.life.requests.Load() == 0) {
			n--
		}
		return n > 0
	})
	if n == most {
		return false
	}
	now := time.Now().Unix()
	if last := r.clients.warned.Load(); last != now && r.clients.warned.CompareAndSwap(last, now) {
		m := &c.table.Main
		m.ErrorLog.logf(logWarn, "%d worker_connections are not enough, reusing connections", m.WorkerConnections)
	}
	return true
}

// handle serves an accepted connection to its end.
func (r *Runtime) handle(b *boundSocket, nc net.Conn) {
	c := r.newClient(b, nc)
	if !r.admit(c) {
		_ = nc.Close()
		return
	}
	r.clients.add(c)
	defer r.clients.remove(c)
	if d, ok := nc.(*sock.DatagramConn); ok {
		c.serveDatagrams(d)
		return
	}
	if tcp, ok := nc.(*net.TCPConn); ok && !c.endpoint.fallback.Level.Conf.Core.TCPNoDelay {
		_ = tcp.SetNoDelay(false)
	}
	s := sock.New(nc, r.sweeper)
	c.sock = s
	c.life.onEnd(nil, s.Abort) // a handshake is let through to its request
	if r.closing.Load() {
		c.life.end(false)
	}
	c.serveAccepted(s)
}

// serveAccepted serves a connection as its endpoint says.
func (c *client) serveAccepted(s *sock.Conn) {
	for c.endpoint.stream {
		if !c.serveSession(s) {
			_ = s.Close()
			return
		}
	}
	if c.endpoint.options.proxyProtocol && c.readForwarded(s) != OK {
		_ = s.Close()
		return
	}
	if c.endpoint.options.ssl {
		c.serveTLS(s)
		return
	}
	c.servePlain(s, nil)
}

// servePlain serves a connection without TLS; read is what has been read already.
func (c *client) servePlain(s *sock.Conn, read []byte) {
	if c.endpoint.speaksHTTP2() && !c.endpoint.options.ssl {
		var two, ok bool
		if read, two, ok = c.detectHTTP2(s, read); !ok {
			_ = s.Close()
			return
		}
		if two {
			c.serveHTTP2(c.top(s), s, read)
			return
		}
	}
	conn := http1.NewConn(c.top(s), s, c.endpoint.config(), c.serveHTTP1)
	if len(read) > 0 {
		conn.Prefill(read)
	}
	c.http1 = http1Stream{client: c, conn: conn}
	c.life.http1.Store(conn)
	c.life.onEnd(conn.Shutdown, conn.Abort)
	conn.Serve()
	c.logEnd(conn)
}

// logEnd logs why a connection ended while no request was on its way.
func (c *client) logEnd(conn *http1.Conn) {
	const waiting = "waiting for request"
	err := conn.Ended()
	switch first := conn.Requests == 0; {
	case err == nil:
	case !first && !errors.Is(err, os.ErrDeadlineExceeded):
		c.logBare(logInfo, errorWithCode("client "+c.address()+" closed keepalive connection", err).Error())
	case !first:
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.logf(logInfo, waiting, "client timed out (110: Connection timed out)")
	case errors.Is(err, io.EOF):
		c.logf(logInfo, waiting, "client closed connection")
	default:
		c.logf(logInfo, waiting, "%v", errorWithCode("recv() failed", err))
	}
}

// config gives what the connections of the endpoint have in common, made at
// the first use.
func (e *endpoint) config() *http1.ConnConfig {
	if cfg := e.connConfig.Load(); cfg != nil {
		return cfg
	}
	cfg := connConfig(&e.fallback.Level.Conf.Core)
	e.connConfig.Store(cfg)
	return cfg
}

// connConfig says how connections are read and written by the default server's
// configuration.
func connConfig(core *coreConf) *http1.ConnConfig {
	return &http1.ConnConfig{
		Limits: http1.Limits{
			Line:   int(core.LargeBuffers.Size),
			Head:   int(core.LargeBuffers.Size) * core.LargeBuffers.Number,
			Fields: core.MaxHeaders,
		},
		HeadTimeout: core.HeaderTimeout, Timeouts: core.timeouts,
	}
}

// addrPort gives the address of a connection over TCP, UDP or QUIC, IPv4 as IPv4.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
