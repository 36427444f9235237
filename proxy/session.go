package proxy

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// A session of the stream block: what its client sends goes to a server, and what
// the server sends goes back (ngx_stream_handler.c). It is an exchange without a
// request, so that values, logs, limits and groups of servers are the same as
// those of HTTP.

// session is what an exchange of the stream block has instead of a request.
type session struct {
	// conn is the client's side: its socket, TLS over it, or its datagrams.
	conn net.Conn
	// preread is what has been read and not passed on yet.
	preread   []byte
	hello     *clientHello       // what ssl_preread has read; nil for nothing
	peeked    bool               // preread has not been taken out of the socket
	datagrams *sock.DatagramConn // of UDP
	udp       bool
	passed    *socket // that takes the connection over

	request http1.Request // an empty one
	// What has been counted beside the tunnel: bytes from and to the client, from
	// and to the server.
	in, out              atomic.Int64
	fromServer, toServer atomic.Int64

	mu      sync.Mutex
	tunnel  *sock.Tunnel
	server  *upstreamConn // that is connected or talked to
	aborted bool
}

// The actions of sessions beside those of requests, as nginx names them in its
// error log.
const (
	initializing = "initializing session"
	prereading   = "prereading client data"
	returning    = "returning text"
	fromClient   = "proxying and reading from client"
	fromServer   = "proxying and reading from upstream"
	toClient     = "proxying and sending to client"
	toServer     = "proxying and sending to upstream"
	proxying     = "proxying connection"
)

// The statuses of sessions (NGX_STREAM_OK and so on).
const (
	sessionOK       Code = 200
	sessionRefused  Code = 400
	sessionFailed   Code = 500
	sessionNoServer Code = 502
)

// received is how many bytes have come from the client.
func (s *session) received() int64 {
	n := s.in.Load()
	if t := s.current(); t != nil {
		n += t.AB.In()
	}
	return n
}

// sent is how many bytes have gone to the client.
func (s *session) sent() int64 {
	n := s.out.Load()
	if t := s.current(); t != nil {
		n += t.BA.Out()
	}
	return n
}

func (s *session) current() *sock.Tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tunnel
}

// protocol is $protocol.
func (s *session) protocol() string {
	if s.udp {
		return "UDP"
	}
	return "TCP"
}

// abort ends the session from another goroutine.
func (s *session) abort(c *sock.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	if s.tunnel != nil {
		s.tunnel.Abort()
	}
	if s.server != nil {
		s.server.Abort()
	}
	if c != nil {
		c.Abort()
	}
	if s.datagrams != nil {
		s.datagrams.Abort()
	}
}

// use makes a connection to a server the one that ends with the session. False
// when it has been ended already.
func (s *session) use(conn *upstreamConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = conn
	return !s.aborted
}

// begin makes a tunnel the session's. False when it has been ended already.
func (s *session) begin(t *sock.Tunnel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnel = t
	return !s.aborted
}

// ended says that somebody else ended the session.
func (s *session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted
}

// serveSession serves an accepted connection of the stream block to its end, or
// until another listener is to go on with it (true). It belongs to the
// generation that accepted it.
func (c *client) serveSession(s *sock.Conn) (passed bool) {
	t := c.table
	if !t.acquire() {
		if t = c.rt.acquire(); !c.follow(t) {
			t.release()
			return false
		}
	}
	x := newExchange(c, noStream{}, t)
	own := &session{conn: c.top(s)} // others may still have it in their hands when x is gone
	x.begins(own)
	c.life.onEnd(nil, func() { own.abort(s) })
	x.serveSession()
	c.life.onEnd(nil, s.Abort)
	if c.secure != nil { // its messages are no longer those of the session
		c.secure.session = nil
	}
	if to := x.session.passed; to != nil {
		passed = true
		c.life.session.Store(false)
		c.life.requests.Add(-1) // it was none
		c.socket, c.endpoint = to.bound, to.endpoint(c.local.Addr())
		c.sni, c.sniName = nil, "" // these are of that listener's servers
		if x.realip.IsValid() {    // for whoever gets it that is where it comes from
			c.remote, c.peerName = x.realip, x.realip.Addr().String()
		}
	}
	if conn := x.session.conn; conn != net.Conn(s) {
		if c.over = conn; !passed {
			_ = conn.Close() // TLS says that this is the end
		}
	}
	x.release()
	return passed
}

// top is what is read and written: s, or the TLS that a session left over it.
func (c *client) top(s *sock.Conn) net.Conn {
	if c.over != nil {
		return c.over
	}
	return s
}

// begins makes x an exchange of a session.
func (x *Exchange) begins(s *session) {
	x.session, x.Req = s, &s.request
	x.client.life.session.Store(true)
	x.server = x.client.endpoint.fallback
	x.loc = x.server.Level
	if e := x.loc.Conf.Core.ErrorLog; e != nil && e.most >= logInfo {
		udp := ""
		if s.udp {
			udp = "udp "
		}
		x.logInfo("%sclient %s connected to %s", udp, x.client.peerText(), x.client.socket.address)
	}
}

// serveSession takes the session through its phases and logs it.
func (x *Exchange) serveSession() {
	x.upstream.action = initializing
	code := x.sessionPhases()
	if code == Done { // another listener goes on
		return
	}
	x.Out.Status = int(code)
	x.resume = LogPhase
	for _, h := range x.loc.handlers[LogPhase] {
		h(x)
	}
}

// sessionPhases runs the phases of the session (ngx_stream_core_run_phases).
func (x *Exchange) sessionPhases() Code {
	c := x.client
	if s := x.session; c.endpoint.options.proxyProtocol && !s.udp {
		if code := c.readForwarded(c.sock); code != OK {
			return code
		}
	}
	for _, phase := range []Phase{PostRead, PreAccess, Access, Handshake, Preread} {
		if code := x.sessionPhase(phase); code != Declined {
			return code
		}
	}
	x.upstream.action = ""
	if x.session.peeked {
		x.session.preread = nil
	}
	if c.sock != nil {
		c.sock.ReadUntil(0)
	}
	x.setNoDelay()
	if content := x.loc.Conf.Own.Content; content != nil {
		return content(x)
	}
	return sessionFailed
}

// sessionPhase asks the handlers of a phase; Declined goes on with the next one.
// A handler of the preread phase returns Again when session.preread does not tell
// it enough yet.
func (x *Exchange) sessionPhase(phase Phase) Code {
	for _, h := range x.loc.handlers[phase] {
		code := h(x)
		for code == Again {
			if code = x.readPreread(); code == OK {
				code = h(x)
			}
		}
		switch code {
		case Declined:
		case OK:
			return Declined
		default:
			return code
		}
	}
	return Declined
}

// setNoDelay does what the server says that was found: the connection began
// with what the default server says.
func (x *Exchange) setNoDelay() {
	on := x.loc.Conf.Core.TCPNoDelay
	if on == x.client.endpoint.fallback.Level.Conf.Core.TCPNoDelay {
		return
	}
	if tcp, ok := x.client.conn.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(on)
	}
}

// describe appends what nginx adds to every message about a session
// (ngx_stream_log_error, ngx_stream_proxy_log_error).
func (s *session) describe(p []byte, x *Exchange) []byte {
	u := &x.upstream
	if u.action != "" {
		p = append(append(p, " while "...), u.action...)
	}
	p = append(p, ", "...)
	if s.udp {
		p = append(p, "udp "...)
	}
	p = x.appendRemoteAddr(append(p, "client: "...))
	p = append(append(p, ", server: "...), x.client.socket.address...)
	if !u.begun {
		return p
	}
	if u.name != "" {
		p = append(append(append(p, ", upstream: \""...), u.name...), '"')
	}
	return x.appendTraffic(p)
}

// appendPackets appends how many datagrams came from and went to the client.
func appendPackets(p []byte, requests, responses int) []byte {
	return fmt.Appendf(p, ", packets from/to client:%d/%d", requests, responses)
}

// appendTraffic appends how many bytes went where.
func (x *Exchange) appendTraffic(p []byte) []byte {
	in, out := x.serverTraffic()
	return fmt.Appendf(p, ", bytes from/to client:%d/%d, bytes from/to upstream:%d/%d", x.session.received(), x.session.sent(), in, out)
}

// logInfo logs a message about the connection without saying more about it.
func (x *Exchange) logInfo(format string, a ...any) {
	e := x.loc.Conf.Core.ErrorLog
	if e == nil || e.most < logInfo {
		return
	}
	b := lines.Get().(*line)
	times := e.logs.clock.at(time.Now())
	b.begin(times, logInfo, x.client.id)
	b.buf = fmt.Appendf(b.buf, format, a...)
	b.end()
	e.write(b, logInfo, times)
	b.free()
}

// send sends bytes to the client within a time that begins again with every
// byte that goes out.
func (x *Exchange) send(p []byte, timeout time.Duration) error {
	if s := x.client.sock; s != nil {
		s.SetTimeout(timeout)
	}
	n, err := x.session.conn.Write(p)
	x.session.out.Add(int64(n))
	return err
}

// peerText is the client's address with its port.
func (c *client) peerText() string {
	if c.remote.IsValid() {
		return c.remote.String()
	}
	return "unix:"
}

// readPreread reads more of what the client sends. It returns OK, or how the
// session ends: as by nginx quietly when the client sends nothing more.
func (x *Exchange) readPreread() Code {
	s, c := x.session, &x.loc.Conf.Stream
	x.upstream.action = prereading
	if int64(len(s.preread)) >= c.prereadSize {
		x.Logf(logError, "preread buffer full")
		return sessionRefused
	}
	if s.udp { // a datagram is all there is
		return sessionOK
	}
	if cap(s.preread) == 0 {
		s.preread = make([]byte, 0, c.prereadSize)
		x.client.sock.SetTimeout(0) // of a PROXY header
		x.client.sock.ReadUntil(c.prereadTimeout)
	}
	var n int
	var err error
	if s.peeked = s.conn == net.Conn(x.client.sock) && x.client.sock.Raw(); s.peeked {
		n, err = x.client.sock.PeekMore(s.preread[:c.prereadSize], len(s.preread))
		s.preread = s.preread[:max(n, len(s.preread))]
	} else {
		n, err = s.conn.Read(s.preread[len(s.preread):c.prereadSize])
		s.preread = s.preread[:len(s.preread)+n]
	}
	if n > 0 {
		return OK
	}
	if errnoOf(err) != 0 {
		x.Logf(logInfo, "%v", errorWithCode("recv() failed", err))
	}
	return sessionOK
}
