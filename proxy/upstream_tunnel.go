package proxy

import "proxyctl/proxy/sock"

// Upgraded connections: bytes pass both ways until one side ends
// (ngx_http_upstream_upgrade).

// openTunnel answers for a server that is connected to and has not been asked
// anything.
func (x *Exchange) openTunnel() verdict {
	u := &x.upstream
	u.conn.answered()
	u.answer = upstreamAnswer{status: 200, line: []byte("200 OK"), contentLength: -1}
	u.state().status = 200
	return verdict{}
}

// switchProtocols sends the head and makes a tunnel of the two connections.
func (x *Exchange) switchProtocols() Code {
	u := &x.upstream
	x.keepAlive = false
	x.Out.ContentLength = -1
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.stream.flush() != nil {
		return Abort
	}
	u.action = upgraded
	x.unwatchClient()
	client, early, err := x.stream.hijack()
	if err != nil {
		return Abort
	}
	server, answer := u.conn.Detach()
	t := sock.NewTunnel(client, server)
	t.FromA, t.FromB, t.Idle = early, answer, u.conf.readTimeout
	t.Run()
	_ = client.Close()
	_ = server.Close()
	up, down := t.AB.Out(), t.BA.Out()
	x.bodySent += down
	if s, ok := x.stream.(*http1Stream); ok {
		s.conn.BytesOut += down
	}
	u.state().length += down
	u.conn.http1.BytesIn += down
	u.conn.http1.BytesOut += up
	u.countSent()
	u.drop() // not one to keep, whatever its answer said
	if t.TimedOut() {
		x.logUpstream(logError, "upstream timed out (110: Connection timed out)")
	}
	return Abort
}

// refuseUpgrade is for an answer of 101 that nobody has asked for: its head is
// passed on, as by nginx, and nothing behind it, on either connection.
func (x *Exchange) refuseUpgrade() {
	x.logUpstream(logError, "upstream switched protocols without being asked")
	x.keepAlive, x.headerOnly = false, true
	x.upstream.drop()
}
