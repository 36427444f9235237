// Package upstream chooses the server of a group that gets a request, keeps
// account of failures, and keeps idle connections for reuse.
//
// The choices are those of nginx (ngx_http_upstream_round_robin.c and the
// least_conn, ip_hash, hash and random modules), so that a key, an address or
// a sequence of requests meets the same servers.
//
// Times are nanoseconds since the Unix epoch and come from the caller.
package upstream

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of NewGroup and Attempt.Next.
var (
	ErrNoServers = errors.New("no servers in upstream")
	ErrNoLive    = errors.New("no live upstreams while connecting to upstream")
)

// Method is how a group chooses among its peers.
type Method uint8

// The methods. nginx has no backup servers with IPHash, Hash, ConsistentHash,
// Random and RandomTwo; here they are used after the others, in round robin.
const (
	RoundRobin      Method = iota // smooth weighted round robin
	LeastConn                     // fewest connections for the weight, then round robin
	IPHash                        // the key is the client's address in network order: 4 or 16 bytes, or none
	Hash                          // the key is text; the hash of Cache::Memcached
	ConsistentHash                // the key is text; the ring of Cache::Memcached::Fast
	Random                        // by weight
	RandomTwo                     // two at random, then the one with fewer connections for its weight
	LeastTimeHeader               // the least time to the head of an answer, then round robin
	LeastTimeLast                 // the least time to the end of an answer, then round robin
)

// maxWeight bounds the sum of the weights of the primary or backup peers.
// Unlike nginx, ConsistentHash refuses more than maxRingWeight: its ring has
// 160 points of 8 bytes for each unit.
const (
	maxWeight     = 1 << 30
	maxRingWeight = 1 << 16
)

// Peer is one address of a group. The exported fields must not change once the
// peer belongs to a Group.
type Peer struct {
	Name             string // as in logs: "127.0.0.1:5000", "unix:/run/a"
	Network, Address string // for net.Dial
	Server           string // the argument of the server directive: the peer's place on the hash ring
	Weight           int    // 1 if 0
	MaxFails         int    // 0 keeps no account of failures
	MaxConns         int    // 0 for no limit
	// FailTimeout is the time in which MaxFails failures must happen, and the
	// time for which the peer is then left out. Whole seconds count.
	FailTimeout  time.Duration
	Backup, Down bool
	// Drain is Down but for requests that ask for the peer by its ID.
	Drain bool
	ID    string // what Attempt.Prefer may ask for

	site int // equal for the peers of a ring with equal Server
	*state
}

// state is what changes in a peer. The group's mutex guards all but conns.
type state struct {
	conns             atomic.Int64
	current           int // weight in the round
	effective         int // weight after failures
	fails             int
	accessed, checked int64 // seconds: last failure, start of the current window
	times             times
}

// Group is a set of peers. Its shape does not change; the health of its peers
// does. It is safe for concurrent use.
type Group struct {
	Name   string
	Method Method
	// Inflight makes the least time methods look at requests without an answer
	// too. It must be set before the group is used.
	Inflight bool

	peers  []Peer
	rings  [2]ring // the primary peers, then the backup peers
	single bool    // the group is one peer, which is never left out for its failures
	mu     *sync.Mutex
}

// ring is what is tried together: all primary or all backup peers.
type ring struct {
	peers  []*Peer
	ranges []int // by peer, the sum of the weights before it
	total  int   // the sum of all weights
	tries  int   // the number of peers that are not down
	points []point
}

// NewGroup makes a group of copies of the given peers, which keep their order.
// It returns ErrNoServers if no peer is primary.
func NewGroup(name string, peers []Peer, m Method) (*Group, error) {
	g, err := NewOpenGroup(name, peers, m)
	if err == nil && len(g.rings[0].peers) == 0 {
		return nil, ErrNoServers
	}
	return g, err
}

// NewOpenGroup is NewGroup for groups whose peers are found while serving: it
// may be without any.
func NewOpenGroup(name string, peers []Peer, m Method) (*Group, error) {
	g := &Group{Name: name, Method: m, peers: append([]Peer(nil), peers...), mu: new(sync.Mutex)}
	for i := range g.peers {
		p := &g.peers[i]
		if p.Weight == 0 {
			p.Weight = 1
		}
		if p.Weight < 0 || p.MaxFails < 0 || p.MaxConns < 0 || p.FailTimeout < 0 {
			return nil, fmt.Errorf("negative number in server %q", p.Server)
		}
		p.state = &state{effective: p.Weight}
		r := &g.rings[0]
		if p.Backup {
			r = &g.rings[1]
		}
		if err := r.add(p); err != nil {
			return nil, err
		}
	}
	g.single = len(g.rings[0].peers) == 1 && len(g.rings[1].peers) == 0
	if m == ConsistentHash {
		if g.rings[0].total > maxRingWeight {
			return nil, fmt.Errorf("sum of weights exceeds %d in upstream %q", maxRingWeight, name)
		}
		g.rings[0].points = points(g.rings[0].peers, g.rings[0].total)
	}
	return g, nil
}

func (r *ring) add(p *Peer) error {
	if p.Weight > maxWeight-r.total {
		return fmt.Errorf("sum of weights exceeds %d at server %q", maxWeight, p.Server)
	}
	p.site = len(r.peers)
	for _, q := range r.peers {
		if q.Server == p.Server {
			p.site = q.site
			break
		}
	}
	r.peers = append(r.peers, p)
	r.ranges = append(r.ranges, r.total)
	r.total += p.Weight
	if !p.Down && !p.Drain {
		r.tries++
	}
	return nil
}

// Renew makes a group of other peers that shares with g the health of those
// that stay.
func (g *Group) Renew(peers []Peer) (*Group, error) {
	n, err := NewOpenGroup(g.Name, peers, g.Method)
	if err != nil {
		return nil, err
	}
	n.Inflight = g.Inflight
	n.Inherit(g)
	return n, nil
}

// Peers returns the peers of the group in their order. The slice is the
// group's own.
func (g *Group) Peers() []Peer { return g.peers }

// Inherit makes the peers of g share the health and the connection counts of
// those peers of old that have the same address and settings. It must be called
// before g is used; old can remain in use.
func (g *Group) Inherit(old *Group) {
	g.mu = old.mu
	type identity struct {
		network, address, server        string
		weight, maxFails, maxConns, nth int
		failTimeout                     time.Duration
		backup, down, drain             bool
	}
	count := map[identity]int{}
	identify := func(p *Peer) identity {
		id := identity{p.Network, p.Address, p.Server, p.Weight, p.MaxFails, p.MaxConns, 0, p.FailTimeout, p.Backup, p.Down, p.Drain}
		count[id]++
		id.nth = count[id]
		return id
	}
	states := make(map[identity]*state, len(old.peers))
	for i := range old.peers {
		p := &old.peers[i]
		states[identify(p)] = p.state
	}
	clear(count)
	for i := range g.peers {
		p := &g.peers[i]
		if s := states[identify(p)]; s != nil {
			p.state = s
		}
	}
}

// Stats is the condition of a peer at one moment.
type Stats struct {
	Conns   int  // connections in use
	Fails   int  // failures in the current window
	Expired bool // left out because of its failures
}

// Stats returns the condition of a peer of g.
func (g *Group) Stats(p *Peer, now int64) Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{
		Conns:   int(p.conns.Load()),
		Fails:   p.fails,
		Expired: !g.single && p.failed(seconds(now)),
	}
}

// failed reports whether the peer is left out because of its failures.
func (p *Peer) failed(now int64) bool {
	return p.MaxFails != 0 && p.fails >= p.MaxFails && now-p.checked <= p.timeout()
}

// full reports whether the peer has all the connections it may have.
func (p *Peer) full() bool {
	return p.MaxConns != 0 && p.conns.Load() >= int64(p.MaxConns)
}

// usable reports whether the peer may be chosen.
func (p *Peer) usable(now int64) bool {
	return !p.Drain && p.serves(now)
}

// serves reports whether the peer may be chosen by its ID.
func (p *Peer) serves(now int64) bool {
	return !p.Down && !p.failed(now) && !p.full()
}

// take counts a connection, and opens a new window if the current one is over.
// A success in a window that opened after the last failure makes the peer good
// again.
func (p *Peer) take(now int64) {
	p.conns.Add(1)
	if now-p.checked > p.timeout() {
		p.checked = now
	}
}

func (p *Peer) timeout() int64 { return int64(p.FailTimeout / time.Second) }

func seconds(now int64) int64 { return now / int64(time.Second) }
