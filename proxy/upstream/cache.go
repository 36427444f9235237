package upstream

import (
	"sync"
	"time"
)

// Keepalive is how long idle connections are kept (the keepalive directives of
// nginx's upstream block; its defaults are 32, 1000, 1h and 60s).
type Keepalive struct {
	Max      int           // idle connections kept; 0 keeps none
	Requests int           // a connection that served this many is not kept
	Time     time.Duration // a connection older than this is not kept
	Timeout  time.Duration // an idle connection is closed after this
}

// Cache keeps idle connections of type C, at most Keepalive.Max of them
// (ngx_http_upstream_keepalive_module.c). It is safe for concurrent use.
//
// Connections are given out last in, first out by address and key, and leave
// from the other end when there are too many or when their time is over. It is
// the caller who finds out that the other side closed a connection meanwhile.
type Cache[C any] struct {
	Keepalive
	close func(C)

	mu     sync.Mutex
	closed bool
	slots  []slot[C] // slots[0] is the head of the list of all, the latest first
	free   int32     // the first unused slot, chained by next
	used   int
	tops   map[idleKey]int32
}

type idleKey struct {
	network, address, key string
}

// slot is one idle connection in the list of all and in the stack of its key.
type slot[C any] struct {
	conn       C
	key        idleKey
	since      int64
	prev, next int32
	// above and below are the neighbours in the stack of the key, 0 for none.
	above, below int32
}

// NewCache returns an empty cache. closing is called without locks for every
// connection that the cache drops.
func NewCache[C any](k Keepalive, closing func(C)) *Cache[C] {
	return &Cache[C]{Keepalive: k, close: closing, slots: make([]slot[C], 1), tops: map[idleKey]int32{}}
}

// Get takes the latest connection to p's address that was put with the same
// key and has not been idle for too long.
func (c *Cache[C]) Get(p *Peer, key string, now int64) (conn C, ok bool) {
	if c.Max == 0 {
		return conn, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.tops[idleKey{p.Network, p.Address, key}]
	if !ok || c.late(i, now) {
		return conn, false // those below are later still: Expire closes them
	}
	return c.remove(i), true
}

// Put keeps a connection that served the given number of requests and was
// opened at born. If it returns false the connection was not kept and is the
// caller's to close. The key tells apart connections that must not be mixed:
// name and settings of TLS, and the location when the directive says local,
// as it does unless written (nginx 1.29.7).
func (c *Cache[C]) Put(p *Peer, key string, conn C, requests int, born, now int64) (kept bool) {
	if c.Max == 0 || requests >= c.Requests || now-born > int64(c.Time) {
		return false
	}
	var oldest C
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	full := c.used >= c.Max
	if full {
		oldest = c.remove(c.slots[0].prev)
	}
	c.insert(idleKey{p.Network, p.Address, key}, conn, now)
	c.mu.Unlock()
	if full {
		c.close(oldest)
	}
	return true
}

// Expire closes what has been idle for too long, and returns how many there
// were.
func (c *Cache[C]) Expire(now int64) int {
	return c.drop(func(i int32) bool { return c.late(i, now) })
}

// Shrink closes the connection that has been idle for the longest time.
func (c *Cache[C]) Shrink() {
	shrunk := false
	c.drop(func(int32) bool {
		shrunk = !shrunk
		return shrunk
	})
}

// CloseAll closes all idle connections and keeps none from now on.
func (c *Cache[C]) CloseAll() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.Clear()
}

// Clear closes all idle connections.
func (c *Cache[C]) Clear() { c.drop(func(int32) bool { return true }) }

// Len returns the number of idle connections.
func (c *Cache[C]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// Inherit moves the idle connections of old to c, as far as their addresses
// belong to g, and closes old.
func (c *Cache[C]) Inherit(old *Cache[C], g *Group) {
	addresses := make(map[idleKey]bool, len(g.peers))
	for i := range g.peers {
		p := &g.peers[i]
		addresses[idleKey{p.Network, p.Address, ""}] = true
	}
	var excess []C
	old.mu.Lock()
	old.closed = true
	c.mu.Lock()
	for old.used > 0 {
		i := old.slots[0].prev // the oldest first, to keep the order
		s := old.slots[i]
		old.remove(i)
		k := s.key
		k.key = ""
		if !addresses[k] || c.closed || c.Max == 0 {
			excess = append(excess, s.conn)
			continue
		}
		if c.used >= c.Max {
			excess = append(excess, c.remove(c.slots[0].prev))
		}
		c.insert(s.key, s.conn, s.since)
	}
	c.mu.Unlock()
	old.mu.Unlock()
	for _, conn := range excess {
		old.close(conn)
	}
}

// drop closes connections from the oldest on for as long as they match.
func (c *Cache[C]) drop(matches func(i int32) bool) int {
	for n := 0; ; n++ {
		c.mu.Lock()
		i := c.slots[0].prev
		if i == 0 || !matches(i) {
			c.mu.Unlock()
			return n
		}
		conn := c.remove(i)
		c.mu.Unlock()
		c.close(conn)
	}
}

func (c *Cache[C]) late(i int32, now int64) bool {
	return now-c.slots[i].since >= int64(c.Timeout)
}

// insert puts a connection at the front of the list and on top of its stack.
func (c *Cache[C]) insert(key idleKey, conn C, since int64) {
	i := c.free
	if i != 0 {
		c.free = c.slots[i].next
	} else {
		i = int32(len(c.slots))
		c.slots = append(c.slots, slot[C]{})
	}
	head, s := &c.slots[0], &c.slots[i]
	*s = slot[C]{conn: conn, key: key, since: since, next: head.next, below: c.tops[key]}
	c.slots[s.next].prev = i
	head.next = i
	if s.below != 0 {
		c.slots[s.below].above = i
	}
	c.tops[key] = i
	c.used++
}

// remove takes a connection out of list and stack.
func (c *Cache[C]) remove(i int32) C {
	s := &c.slots[i]
	conn := s.conn
	c.slots[s.prev].next = s.next
	c.slots[s.next].prev = s.prev
	if s.below != 0 {
		c.slots[s.below].above = s.above
	}
	switch {
	case s.above != 0:
		c.slots[s.above].below = s.below
	case s.below != 0:
		c.tops[s.key] = s.below
	default:
		delete(c.tops, s.key)
	}
	*s = slot[C]{next: c.free}
	c.free = i
	c.used--
	return conn
}
