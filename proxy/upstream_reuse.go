package proxy

import (
	"bytes"
	"sync/atomic"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/upstream"
)

// Connections to a server that proxy_pass names by its address.
//
// Unlike nginx, which opens a connection for each request, one that is there
// already is used again while requests follow each other closely: opening it
// costs more than the request. Nobody asked for that with keepalive, so nobody
// but the clock may notice:
//
//   - It is for requests that change nothing and bring nothing along, GET and
//     HEAD without a body: what a server leaves unread is no next request, and
//     one that a closing server has not answered can be sent again.
//   - The server has said itself that it goes on listening: "keep-alive".
//   - No user's rights come with the connection, as with NTLM and Negotiate
//     (RFC 4559, section 5), and no TLS: what a server knows of a handshake is
//     about the request that made it.
//   - Servers that serve a few connections at a time get their places back when
//     others wait for one: see queue. reuse says how soon they do anyway.

// reuse bounds what is kept for a server.
func reuse() upstream.Keepalive {
	return upstream.Keepalive{Max: 256, Requests: 1000, Time: time.Second, Timeout: 50 * time.Millisecond}
}

// patience is how long all new connections to a server may wait before it is
// taken for one that has no place left.
const patience = 10 * time.Millisecond

// queue is the new connections to a server that have got no answer yet. Safe for
// concurrent use.
type queue struct {
	waiting atomic.Int32
	moved   atomic.Int64 // when the first came or one got its answer, whichever was later
}

func (q *queue) enter(now int64) {
	if q.waiting.Add(1) == 1 {
		q.moved.Store(now)
	}
}

func (q *queue) leave() { q.waiting.Add(-1) }

func (q *queue) answered(now int64) {
	q.moved.Store(now)
	q.leave()
}

// stuck says that a place should be made free: nothing has moved for too long.
func (q *queue) stuck(now int64) bool {
	return q.waiting.Load() > 0 && now-q.moved.Load() > int64(patience)
}

// mayReuse says whether the request may go over a connection that others used
// before, and be followed by others.
func (x *Exchange) mayReuse() bool {
	u := &x.upstream
	switch {
	case u.block == nil || u.block.idle == nil:
		return false
	case u.block.explicit:
		return true
	}
	return u.conf.wire == wireHTTP1 && u.conf.bind == nil && !u.personal && x.bringsNothing() && !x.bound() && u.tls == nil
}

// bringsNothing says whether the request is a GET or HEAD without a body.
func (x *Exchange) bringsNothing() bool {
	u := &x.upstream
	return !u.streaming && u.headEnd == len(u.head) && (!u.passBody || x.body.size == 0) &&
		(bytes.HasPrefix(u.head, []byte("GET ")) || bytes.HasPrefix(u.head, []byte("HEAD ")))
}

// bound says whether the client has credentials that may count for all that
// comes over the same connection: others than Basic and Bearer.
func (x *Exchange) bound() bool {
	v, has := x.Header(http1.Authorization)
	if !has {
		return false
	}
	scheme, _, _ := bytes.Cut(v, []byte(" "))
	return !equalFold(scheme, "basic") && !equalFold(scheme, "bearer")
}

// keeps says whether the connection may wait for another request.
func (s *upstreamScratch) keeps(conn *upstreamConn) bool {
	if !s.sentAll || !s.reusable || s.peer == nil || !conn.Reusable() {
		return false
	}
	return s.block.explicit || s.invited() && !s.block.queue.stuck(nanos())
}

// invited says whether the server has said that it goes on listening, and does
// not ask who is there.
func (s *upstreamScratch) invited() bool {
	invited := false
	for i, kind := range s.kinds {
		switch kind {
		case fieldConnection:
			invited = invited || equalFold(s.fields[i].Value, "keep-alive")
		case fieldWWWAuthenticate:
			return false
		default:
		}
	}
	return invited
}

// makeRoom closes a connection that is kept for nobody in particular when a new
// one is opened beside it, so that a server never has more of them than requests.
func (g *upstreamBlock) makeRoom() {
	if g != nil && !g.explicit && g.idle != nil {
		g.idle.Shrink()
	}
}

// waitsIn has the connection wait in the queue for its first answer.
func (c *upstreamConn) waitsIn(g *upstreamBlock) {
	if g != nil && !g.explicit && c.kind == wireHTTP1 {
		c.queue = &g.queue
		c.queue.enter(nanos())
	}
}

// answered ends the wait.
func (c *upstreamConn) answered() {
	if c.queue != nil {
		c.queue.answered(nanos())
		c.queue = nil
	}
}
