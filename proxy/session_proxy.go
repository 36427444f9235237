package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"proxyctl/proxy/sock"
)

// A session on its way to one server: connect, say who the client is, pass bytes
// in both directions (ngx_stream_proxy_connect and what follows).

// serverSession chooses a server and lets the session have it. next asks for the
// next server: this one could not be connected to.
func (x *Exchange) serverSession() (code Code, next bool) {
	u := &x.upstream
	if !u.chooseServer() {
		x.Logf(logError, "no live upstreams")
		u.endState()
		return sessionNoServer, false
	}
	if x.session.udp {
		return x.exchangeDatagrams()
	}
	if !x.connectServer() {
		return 0, true
	}
	greeted := x.greetServer()
	if greeted && u.tls != nil {
		switch v := x.handshake(u.conn); {
		case v.code != OK:
			x.leaveSessionServer(true)
			return sessionFailed, false
		case v.next != 0:
			return 0, true
		}
	}
	if greeted {
		x.serverConnected(u.conn.sock, "")
		x.tunnel()
	}
	x.leaveSessionServer(true)
	return sessionOK, false
}

// connectServer connects to the chosen server.
func (x *Exchange) connectServer() bool {
	u := &x.upstream
	conn, err := dialUpstream(x, u.conf, u.peer)
	if err == nil && !x.session.use(conn) {
		conn.close()
		err = sock.ErrAborted
	}
	if err != nil {
		if x.dialFailed(err).next == nextTimeout {
			x.Logf(logError, "upstream timed out (110: Connection timed out)")
		}
		return false
	}
	u.conn = conn
	return true
}

// serverALPN gives what is offered to the server by ALPN; those that cannot be are
// left out (ngx_stream_proxy_ssl_alpn).
func (x *Exchange) serverALPN() []string {
	var out []string
	for _, v := range x.loc.Conf.StreamProxy.alpn.Items {
		if name := v.String(x); name != "" && len(name) <= longestProtocol {
			out = append(out, name)
		}
	}
	return out
}

// greetServer sends what comes before everything else. False ends the session.
func (x *Exchange) greetServer() bool {
	u := &x.upstream
	if header := x.proxyHeader(); header != nil {
		u.action = toServer
		u.conn.sock.SetTimeout(x.loc.Conf.StreamProxy.timeout)
		n, err := u.conn.sock.Write(header)
		u.state().sent += int64(n)
		if err != nil {
			x.logServerError("send()", err)
			return false
		}
		u.action = connecting
	}
	return true
}

// serverConnected notes that the server can be talked to.
func (x *Exchange) serverConnected(conn net.Conn, udp string) {
	u := &x.upstream
	if e := x.loc.Conf.Core.ErrorLog; e != nil && e.most >= logInfo {
		local := conn.LocalAddr().String()
		if u.peer.Network == "unix" {
			local = "unix:"
		}
		x.logInfo("%sproxy %s connected to %s", udp, local, u.name)
	}
	now := nanos()
	u.state().connect = now - u.since
	if udp == "" { // of a datagram nobody knows whether it has arrived
		u.attempt.Connected(u.peer)
	}
	if u.block != nil && u.block.byConnect {
		x.underWay(now)
	}
}

// underWay notes how long the server took to be ready (least_time).
func (x *Exchange) underWay(now int64) {
	u := &x.upstream
	u.attempt.Head(now)
	u.attempt.Accept(u.peer, now)
}

// beginsAnswer notes that the server has begun to answer.
func (x *Exchange) beginsAnswer() {
	u := &x.upstream
	now := nanos()
	u.state().header = now - u.since
	if u.block != nil && !u.block.byConnect {
		x.underWay(now)
	}
}

// rates evaluates the rates of both directions.
func (x *Exchange) rates() (upload, download int64) {
	c := &x.loc.Conf.StreamProxy
	return rateLimit(x, c.uploadRate).bytes, rateLimit(x, c.downloadRate).bytes
}

// tunnel passes bytes in both directions until the session ends.
func (x *Exchange) tunnel() {
	u, s, c := &x.upstream, x.session, &x.loc.Conf.StreamProxy
	t := sock.NewTunnel(s.conn, u.conn.net)
	t.FromA, s.preread = s.preread, nil
	t.Idle, t.HalfClose, t.Buffer = c.timeout, c.halfClose, int(u.conf.bufferSize)
	t.AB.Rate, t.BA.Rate = x.rates()
	t.AB.Begun = time.Unix(0, u.start)
	t.BA.Begun = t.AB.Begun
	t.BA.First = x.beginsAnswer
	if !s.begin(t) {
		t.Abort()
	}
	u.action = proxying
	t.Run()
	x.logTunnel(t)
}

// logTunnel says why a tunnel ended.
func (x *Exchange) logTunnel(t *sock.Tunnel) {
	u := &x.upstream
	switch {
	case t.Aborted():
		x.Logf(logInfo, "shutdown timeout")
		return
	case t.TimedOut():
		x.Logf(logInfo, "connection timed out (110: Connection timed out)")
		return
	}
	for _, f := range []struct {
		err    error
		action string
		level  logLevel
		conn   net.Conn
		call   string
	}{
		{t.AB.ReadErr, fromClient, logInfo, t.A, "recv"},
		{t.BA.ReadErr, fromServer, logError, t.B, "recv"},
		{t.AB.WriteErr, toServer, logError, t.B, "send"},
		{t.BA.WriteErr, toClient, logInfo, t.A, "send"},
	} {
		if f.err != nil {
			u.action = f.action
			x.Logf(f.level, "%s", callProblem(f.call, f.conn, f.err))
		}
	}
	if t.AB.WriteErr != nil || t.BA.WriteErr != nil {
		return
	}
	who := "client"
	if t.Ended() == &t.BA {
		who = "upstream"
	}
	x.logInfo("%s disconnected%s", who, x.appendTraffic(nil))
}

// callProblem says how recv or send failed, or what takes their place over TLS.
func callProblem(call string, conn net.Conn, err error) string {
	text := call + "() failed"
	if _, secure := conn.(*tls.Conn); secure {
		if text = "SSL_read() failed"; call == "send" {
			text = "SSL_write() failed"
		}
		if errnoOf(err) == 0 {
			return text + " (" + opensslReason(err) + ")"
		}
	}
	return errorWithCode(text, err).Error()
}

// logServerError logs a failure to talk to the server.
func (x *Exchange) logServerError(call string, err error) {
	switch {
	case isTimeout(err):
		x.Logf(logError, "upstream timed out (110: Connection timed out)")
	case errors.Is(err, io.EOF):
		x.Logf(logError, "upstream prematurely closed connection")
	default:
		x.Logf(logError, "%v", errorWithCode(call+" failed", err))
	}
}

// serverTraffic is how many bytes have come from and gone to the present server.
func (x *Exchange) serverTraffic() (in, out int64) {
	u := &x.upstream
	if len(u.states) == 0 {
		return 0, 0
	}
	st := u.state()
	in, out = st.received+x.session.fromServer.Load(), st.sent+x.session.toServer.Load()
	if t := x.session.current(); t != nil {
		in, out = in+t.BA.In(), out+t.AB.Out()
	}
	return in, out
}

// leaveSessionServer ends the use of the server.
func (x *Exchange) leaveSessionServer(ok bool) {
	u, s := &x.upstream, x.session
	u.endState()
	st := u.state()
	st.received, st.sent = x.serverTraffic()
	s.mu.Lock()
	if t := s.tunnel; t != nil { // what it has counted is the session's from now on
		s.in.Add(t.AB.In())
		s.out.Add(t.BA.Out())
		s.tunnel = nil
	}
	s.fromServer.Store(0) // they are the attempt's now
	s.toServer.Store(0)
	s.mu.Unlock()
	now := nanos()
	if ok {
		u.attempt.Complete(u.peer, now)
	}
	u.attempt.Done(u.peer, ok, now)
	u.peer = nil
	x.closeServer()
}

// closeServer closes the connection to the server, if there is one.
func (x *Exchange) closeServer() {
	u := &x.upstream
	x.session.use(nil)
	if u.conn != nil {
		u.conn.close()
		u.conn = nil
	}
}

// proxyHeader makes the PROXY protocol header that the server gets; nil for none.
func (x *Exchange) proxyHeader() []byte {
	from, to := x.client.remote, x.client.local
	if x.realip.IsValid() {
		from = x.realip
	}
	switch x.loc.Conf.StreamProxy.header {
	case 0:
		return nil
	case 1:
		return appendProxyLine(nil, from, to)
	}
	return appendProxyBinary(nil, from, to, x.session.udp)
}
