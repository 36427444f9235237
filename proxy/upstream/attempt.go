package upstream

// Attempt is the walk of one request over the peers of a group. It is a value
// to embed and to start again; it is not safe for concurrent use and must not
// be copied between Start and the last Done.
type Attempt struct {
	group  *Group
	ring   *ring
	tries  int
	tried  uint64
	more   []uint64 // instead of tried with more than 64 peers
	missed int      // choices of a method that came to nothing
	key    []byte
	id     []byte // of the preferred peer
	hash   uint32
	rehash uint64
	digits [20]byte

	began    int64 // when the current peer was chosen
	head     int64 // milliseconds to the head of its answer, -1 without
	inflight bool  // it counts as one that waits for an answer
}

// maxMissed is after how many choices that come to nothing a method gives way
// to round robin.
const maxMissed = 20

// Start begins a walk. The key is what the group's method asks for; it is kept
// until the next Start. It allocates nothing, but for the first time with a
// group of more than 64 peers.
func (a *Attempt) Start(g *Group, key []byte) {
	a.group, a.ring, a.key, a.id = g, &g.rings[0], key, nil
	a.tries = g.rings[0].tries + g.rings[1].tries
	a.missed, a.hash, a.rehash = 0, 0, 0
	a.forget()
	switch g.Method {
	case IPHash:
		a.hash, a.key = ipSeed, a.network(key)
	case ConsistentHash:
		a.hash = findPoint(g.rings[0].points, checksum(key))
	default:
	}
}

// Prefer asks for the peer with an ID, as long as it can be had. The ID is kept
// until the next Start.
func (a *Attempt) Prefer(id []byte) { a.id = id }

// network returns the bytes of an address that are hashed.
func (a *Attempt) network(address []byte) []byte {
	switch len(address) {
	case 16:
		return address
	case 4:
		return address[:3]
	default: // a Unix socket hashes as 0.0.0
		clear(a.digits[:3])
		return a.digits[:3]
	}
}

// Tries returns how many peers can be tried still (nginx: peer.tries). At 0 a
// failure is final.
func (a *Attempt) Tries() int { return a.tries }

// Limit lowers the number of tries to n, if n is not 0
// (proxy_next_upstream_tries).
func (a *Attempt) Limit(n int) {
	if n > 0 && a.tries > n {
		a.tries = n
	}
}

// Retry gives back the try of a peer whose reused connection turned out dead
// (ngx_http_upstream_next).
func (a *Attempt) Retry() { a.tries++ }

// Next chooses a peer for the request. It returns ErrNoLive when all are tried,
// down, failed or at their limit of connections. Done must follow.
func (a *Attempt) Next(now int64) (*Peer, error) {
	g := a.group
	a.began, a.head = now, -1
	if g.single {
		p := a.ring.peers[0]
		if p.Down || p.Drain && p.ID != string(a.id) || !p.reserve() {
			return nil, ErrNoLive
		}
		return p, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	i := a.choose(seconds(now))
	if i < 0 {
		return nil, ErrNoLive
	}
	p := a.ring.peers[i]
	if g.Inflight {
		a.inflight = true
		p.times.begin(milliseconds(now))
	}
	p.take(seconds(now))
	a.mark(i)
	return p, nil
}

// choose returns the index of a peer in a.ring, after turning to the backup
// peers if need be, or -1.
func (a *Attempt) choose(now int64) int {
	for {
		i := a.chooseInRing(now)
		if i >= 0 || a.ring == &a.group.rings[1] || len(a.group.rings[1].peers) == 0 {
			return i
		}
		a.ring = &a.group.rings[1]
		a.forget()
	}
}

func (a *Attempt) chooseInRing(now int64) int {
	i := a.preferred(now)
	switch m := a.group.Method; {
	case m != RoundRobin && i >= 0:
		return i
	case m == LeastConn:
		return a.least(now, compareLoad)
	case m == LeastTimeHeader || m == LeastTimeLast:
		return a.leastTime(now)
	}
	if i < 0 && a.ring == &a.group.rings[0] && a.missed <= maxMissed {
		switch a.group.Method {
		case IPHash, Hash:
			i = a.hashed(now)
		case ConsistentHash:
			i = a.consistent(now)
		case Random:
			i = a.random(now)
		case RandomTwo:
			i = a.randomTwo(now)
		default:
		}
		if i >= 0 {
			return i
		}
	}
	return a.roundRobin(now, i)
}

// Done ends the use of a peer that Next returned. ok says that the peer did not
// fail; that it answered with a status which the next peer is asked for is no
// failure (nginx: NGX_PEER_NEXT). disabled reports that the peer is left out
// from now on, which nginx logs as "upstream server temporarily disabled".
func (a *Attempt) Done(p *Peer, ok bool, now int64) (disabled bool) {
	if a.group.single {
		p.conns.Add(-1)
		a.tries = 0
		return false
	}
	a.group.mu.Lock()
	defer a.group.mu.Unlock()
	a.landed(p, now, milliseconds(now-a.began))
	p.conns.Add(-1)
	if a.tries > 0 {
		a.tries--
	}
	if !ok {
		return p.fail(seconds(now))
	}
	if p.accessed < p.checked {
		p.fails = 0
	}
	return false
}

// Connected notes that a connection to the peer is there, for who learns no more
// than that: a peer that had failed is back
// (ngx_stream_upstream_notify_round_robin_peer).
func (a *Attempt) Connected(p *Peer) {
	if a.group.single {
		return
	}
	a.group.mu.Lock()
	defer a.group.mu.Unlock()
	if p.accessed < p.checked {
		p.fails = 0
	}
}

// fail counts a failure and takes weight from the peer, which it regains by
// one each time it takes part in a choice.
func (p *Peer) fail(now int64) (disabled bool) {
	p.fails++
	p.accessed, p.checked = now, now
	if p.MaxFails == 0 {
		return false
	}
	p.effective = max(0, p.effective-p.Weight/p.MaxFails)
	return p.fails >= p.MaxFails
}

// reserve counts a connection unless the peer is full.
func (p *Peer) reserve() bool {
	if p.conns.Add(1) > int64(p.MaxConns) && p.MaxConns != 0 {
		p.conns.Add(-1)
		return false
	}
	return true
}

func (a *Attempt) forget() {
	n := len(a.ring.peers)
	a.tried = 0
	if n <= 64 {
		a.more = a.more[:0]
		return
	}
	words := (n + 63) / 64
	if cap(a.more) < words {
		a.more = make([]uint64, words)
	}
	a.more = a.more[:words]
	clear(a.more)
}

func (a *Attempt) mark(i int) {
	if len(a.more) > 0 {
		a.more[i/64] |= 1 << (i % 64)
		return
	}
	a.tried |= 1 << i
}

func (a *Attempt) wasTried(i int) bool {
	if len(a.more) > 0 {
		return a.more[i/64]&(1<<(i%64)) != 0
	}
	return a.tried&(1<<i) != 0
}
