package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"proxyctl/proxy/sock"
)

// Sessions of UDP: the datagrams of one client, and what a server answers
// (ngx_event_udp.c, and what ngx_stream_proxy_module does with them).

// serveDatagrams serves a session of UDP to its end. Its first datagram is there.
func (c *client) serveDatagrams(conn *sock.DatagramConn) {
	defer func() { _ = conn.Close() }()
	t := c.table
	if !t.acquire() {
		if t = c.rt.acquire(); !c.follow(t) {
			t.release()
			return
		}
	}
	s := &session{udp: true, conn: conn, datagrams: conn}
	s.preread = <-conn.Received()
	s.in.Store(int64(len(s.preread)))
	x := newExchange(c, noStream{}, t)
	x.begins(s)
	c.life.onEnd(conn.Abort, func() { s.abort(nil) }) // without its socket it cannot go on
	if c.rt.closing.Load() {
		conn.Abort()
	}
	x.serveSession()
	c.life.onEnd(nil, conn.Abort)
	x.release()
}

// datagramProxy is a session on its way to one server.
type datagramProxy struct {
	x      *Exchange
	conn   *sock.DatagramConn
	server *net.UDPConn
	begun  time.Time // of the session with its servers
	up     int64     // bytes a second, 0 for any number
	down   int64

	over chan struct{}
	once sync.Once
	done bool // as many answers have come as are expected

	mu                  sync.Mutex
	requests, responses int
	final               []byte // the last answer that is expected; nil while it has not come
	last                time.Time
	held                int   // directions that wait for their rate
	readErr             error // of the server
}

// exchangeDatagrams lets the session have the chosen server. next asks for
// another one.
func (x *Exchange) exchangeDatagrams() (code Code, next bool) {
	u, s := &x.upstream, x.session
	server, err := x.dialDatagrams()
	if err != nil {
		x.dialFailed(err)
		return 0, true
	}
	defer func() { _ = server.Close() }()
	x.serverConnected(server, "udp ")
	p := &datagramProxy{x: x, conn: s.datagrams, server: server, begun: time.Unix(0, u.start), last: time.Now(), over: make(chan struct{})}
	p.up, p.down = x.rates()
	first := s.preread
	s.preread = nil
	if header := x.proxyHeader(); header != nil {
		first = append(header, first...)
	}
	code, ok := p.run(first)
	x.leaveSessionServer(ok)
	p.finish()
	return code, false
}

// dialDatagrams makes a socket for the chosen server.
func (x *Exchange) dialDatagrams() (*net.UDPConn, error) {
	c, peer := x.upstream.conf, x.upstream.peer
	if peer.Network == "unix" { // Unlike nginx, which can send datagrams there.
		return nil, os.NewSyscallError("connect", syscall.EPROTOTYPE)
	}
	to, err := netip.ParseAddrPort(peer.Address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{}
	if c.bind != nil {
		if local := x.localAddress(c); local.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		}
	}
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = c.socketOptions(int(fd), to.Addr().Is6()) })
		return errors.Join(err, set)
	}
	conn, err := d.Dial("udp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// run passes datagrams on until the session ends. ok says that the server did not
// fail.
func (p *datagramProxy) run(first []byte) (code Code, ok bool) {
	x := p.x
	x.upstream.action = proxying
	p.requests = 1
	if err := p.pass(first); err != nil {
		return p.sendFailed(err)
	}
	var wg sync.WaitGroup
	failed := make(chan struct{})
	wg.Go(func() {
		if p.answers() != nil {
			close(failed)
		}
	})
	p.rest(p.up, len(first))
	code, ok = p.serve(failed)
	p.stop()
	wg.Wait()
	return code, ok
}

// serve passes the client's datagrams on, and keeps the time.
func (p *datagramProxy) serve(failed <-chan struct{}) (code Code, ok bool) {
	x := p.x
	idle := x.loc.Conf.StreamProxy.timeout
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case d := <-p.conn.Received():
			x.session.in.Add(int64(len(d)))
			p.count(&p.requests)
			if err := p.pass(d); err != nil {
				return p.sendFailed(err)
			}
			p.rest(p.up, len(d))
		case <-timer.C:
			rest, answered := p.idleFor(idle)
			if rest > 0 {
				timer.Reset(rest)
				continue
			}
			return p.timedOut(answered)
		case <-failed:
			failed = nil
			x.upstream.action = fromServer
			x.Logf(logError, "%v", errorWithCode("recv() failed", p.readErr))
			x.upstream.action = proxying
			p.count(&p.responses)
			p.check()
		case <-p.over:
			p.done = true
			return sessionOK, p.readErr == nil
		case <-p.conn.Done():
			if p.conn.Shut() || x.client.rt.closing.Load() {
				x.logInfo("disconnected on shutdown")
			} else {
				x.Logf(logInfo, "shutdown timeout")
			}
			return sessionOK, true
		}
	}
}

// pass sends a datagram of the client to the server.
func (p *datagramProxy) pass(d []byte) error {
	n, err := p.server.Write(d)
	p.x.session.toServer.Add(int64(n))
	p.touch()
	if err == nil {
		p.check()
	}
	return err
}

func (p *datagramProxy) sendFailed(err error) (Code, bool) {
	p.x.upstream.action = toServer
	p.x.Logf(logError, "%v", errorWithCode("send() failed", err))
	return sessionOK, false
}

// timedOut ends a session in which nothing has moved for too long: as it should,
// or because the server has not answered.
func (p *datagramProxy) timedOut(answered bool) (Code, bool) {
	if answered {
		p.x.logInfo("udp timed out%s", p.summary())
		return sessionOK, p.readErr == nil
	}
	p.x.Logf(logError, "upstream timed out (110: Connection timed out)")
	return sessionNoServer, false
}

// answers passes what the server sends to the client. The error is one of the
// server's side.
func (p *datagramProxy) answers() error {
	pooled := datagramBuffers.Get().(*[sock.MaxDatagram]byte)
	defer datagramBuffers.Put(pooled)
	buf, s := pooled[:], p.x.session
	for {
		if p.ended() || !p.allow(p.down, s.fromServer.Load()) {
			return nil
		}
		n, err := p.server.Read(buf)
		if err != nil {
			if p.ended() {
				return nil
			}
			p.mu.Lock()
			p.readErr = err
			p.mu.Unlock()
			return err
		}
		if s.fromServer.Add(int64(n)) == int64(n) {
			p.x.beginsAnswer()
		}
		p.touch()
		p.count(&p.responses)
		if p.complete() {
			p.final = append([]byte{}, buf[:n]...)
			p.stop()
			return nil
		}
		p.answer(buf[:n])
		p.rest(p.down, n)
	}
}

// answer sends a datagram of the server to the client. Whether it can be sent is
// the network's business.
func (p *datagramProxy) answer(d []byte) {
	if n, err := p.conn.Write(d); err == nil {
		p.x.session.out.Add(int64(n))
	}
}

// finish sends the last answer: who has it can expect that its server is free
// again.
func (p *datagramProxy) finish() {
	if p.final != nil {
		p.answer(p.final)
	}
	if p.done {
		p.x.logInfo("udp done%s", p.summary())
	}
}

var datagramBuffers = sync.Pool{New: func() any { return new([sock.MaxDatagram]byte) }}

// check ends the session when it is complete.
func (p *datagramProxy) check() {
	if p.complete() {
		p.stop()
	}
}

// complete says whether all that is expected has come, and lets the client begin
// another session when it has sent what belongs to this one
// (ngx_stream_proxy_test_finalize).
func (p *datagramProxy) complete() bool {
	c := &p.x.loc.Conf.StreamProxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.requests > 0 {
		if p.requests < c.requests {
			return false
		}
		p.conn.Leave()
	}
	return c.responses != anyResponses && p.responses >= c.responses*p.requests && p.conn.Finish()
}

func (p *datagramProxy) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

func (p *datagramProxy) stop() {
	p.once.Do(func() {
		close(p.over)
		_ = p.server.SetReadDeadline(time.Unix(1, 0))
	})
}

func (p *datagramProxy) count(n *int) {
	p.mu.Lock()
	*n++
	p.mu.Unlock()
}

func (p *datagramProxy) touch() {
	p.mu.Lock()
	p.last = time.Now()
	p.mu.Unlock()
}

// idleFor says how long nothing may move still, and whether all answers that are
// expected have come.
func (p *datagramProxy) idleFor(idle time.Duration) (rest time.Duration, answered bool) {
	c := &p.x.loc.Conf.StreamProxy
	p.mu.Lock()
	defer p.mu.Unlock()
	answered = c.responses == anyResponses || p.responses >= c.responses*p.requests
	if p.held > 0 {
		return idle, answered
	}
	return idle - time.Since(p.last), answered
}

// summary is what the log says of a session that has ended.
func (p *datagramProxy) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.x.appendTraffic(appendPackets(nil, p.requests, p.responses)))
}

// allow waits until a rate lets the next datagram pass, whatever its size. False
// when the session has ended meanwhile.
func (p *datagramProxy) allow(rate, passed int64) bool {
	for rate > 0 {
		allowed := rate*(int64(time.Since(p.begun)/time.Second)+1) - passed
		if allowed > 0 {
			break
		}
		if !p.hold(time.Duration(-allowed)*time.Second/time.Duration(rate) + time.Millisecond) {
			return false
		}
	}
	return true
}

// rest waits for the time that n bytes take at a rate.
func (p *datagramProxy) rest(rate int64, n int) {
	if rate > 0 {
		p.hold((time.Duration(n) * time.Second / time.Duration(rate)).Truncate(time.Millisecond))
	}
}

func (p *datagramProxy) hold(d time.Duration) bool {
	p.mu.Lock()
	p.held++
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer func() {
		timer.Stop()
		p.mu.Lock()
		p.held--
		p.last = time.Now()
		p.mu.Unlock()
	}()
	select {
	case <-timer.C:
		return true
	case <-p.over:
	case <-p.conn.Done():
	}
	return false
}
