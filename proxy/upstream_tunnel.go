package proxy

import (
	"net"
	"sync/atomic"
	"time"

	"proxyctl/proxy/sock"
)

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
	u.conn.sock.SetTimeout(0)
	if s, ok := client.(*sock.Conn); ok {
		s.SetTimeout(0)
	}
	t := tunnel{client: client, server: server, idle: u.conf.readTimeout}
	t.run(early, answer)
	x.bodySent += t.down.Load()
	if s, ok := x.stream.(*http1Stream); ok {
		s.conn.BytesOut += t.down.Load()
	}
	u.state().length += t.down.Load()
	u.conn.http1.BytesIn += t.down.Load()
	u.conn.http1.BytesOut += t.up.Load()
	u.countSent()
	u.drop() // not one to keep, whatever its answer said
	if t.timedOut.Load() {
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

// tunnel copies both ways.
type tunnel struct {
	client, server net.Conn
	idle           time.Duration // without a byte in either direction
	up, down       atomic.Int64
	last           atomic.Int64
	timedOut       atomic.Bool
	over           atomic.Bool
}

// run copies until one side ends, then closes both.
func (t *tunnel) run(early, answer []byte) {
	t.last.Store(nanos())
	done := make(chan struct{})
	go func() {
		t.pass(t.server, t.client, early, &t.up)
		t.stop()
		close(done)
	}()
	t.pass(t.client, t.server, answer, &t.down)
	t.stop()
	<-done
	_ = t.client.Close()
	_ = t.server.Close()
}

// stop makes reads and writes in progress fail.
func (t *tunnel) stop() {
	t.over.Store(true)
	past := time.Unix(1, 0)
	_ = t.client.SetDeadline(past)
	_ = t.server.SetDeadline(past)
}

func (t *tunnel) pass(to, from net.Conn, first []byte, count *atomic.Int64) {
	if len(first) > 0 && !t.write(to, first, count) {
		return
	}
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	for {
		_ = from.SetReadDeadline(time.Unix(0, t.last.Load()).Add(t.idle))
		if t.over.Load() { // stop's deadline may just have been overwritten
			return
		}
		n, err := from.Read(*pooled)
		if n > 0 {
			t.last.Store(nanos())
			if !t.write(to, (*pooled)[:n], count) {
				return
			}
		}
		if err == nil || isTimeout(err) && !t.over.Load() && nanos()-t.last.Load() < int64(t.idle) {
			continue // a timeout counts only if the other direction is idle too
		}
		if isTimeout(err) && !t.over.Load() {
			t.timedOut.Store(true)
		}
		return
	}
}

func (t *tunnel) write(to net.Conn, p []byte, count *atomic.Int64) bool {
	_ = to.SetWriteDeadline(time.Now().Add(t.idle))
	n, err := to.Write(p)
	count.Add(int64(n))
	return err == nil
}
