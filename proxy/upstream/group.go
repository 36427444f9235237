// Package upstream chooses the server of a group that gets a request, keeps
// account of failures, and keeps idle connections for reuse.
//
// The choices are those of nginx: ngx_http_upstream_round_robin.c and the
// least_conn, ip_hash, hash and random modules, so that a key, an address or a
// sequence of requests meets the same servers.
package upstream

import (
	"errors"
	"sync"
	"time"
)

// Errors of NewGroup and Attempt.Next.
var (
	ErrNoServers = errors.New("no servers in upstream")
	ErrNoLive    = errors.New("no live upstreams while connecting to upstream")
)

// Method is how a group chooses among its peers.
type Method uint8

// The methods.
const (
	RoundRobin     Method = iota // smooth weighted round robin
	LeastConn                    // fewest connections for the weight, then round robin
	IPHash                       // the key is the client's address in network order: 4, 16 or other bytes
	Hash                         // the key is text; as Cache::Memcached
	ConsistentHash               // the key is text; ketama, as Cache::Memcached::Fast
	Random                       // by weight
	RandomTwo                    // two at random, then the one with fewer connections for its weight
)

// Peer is one address of a group. The exported fields do not change once the
// peer belongs to a Group.
type Peer struct {
	Name             string // as in logs: "127.0.0.1:5000", "unix:/run/a"
	Network, Address string // for net.Dial
	Server           string // the argument of the server directive; places the peer on the hash ring
	Weight           int    // 1 if 0
	MaxFails         int    // 0 keeps no account of failures
	MaxConns         int    // 0 for no limit
	// FailTimeout is the time in which MaxFails failures must happen, and the
	// time for which the peer is then left out. nginx counts whole seconds.
	FailTimeout  time.Duration
	Backup, Down bool

	index int
	*state
}

// state is what changes in a peer; the group's mutex guards it.
type state struct {
	current, effective int // weights
	conns, fails       int
	accessed, checked  int64 // seconds: last failure, start of the current window
}

// Group is a set of peers. Its shape does not change; the health of its peers
// does. It is safe for concurrent use.
type Group struct {
	Name    string
	Method  Method
	Primary []*Peer
	Backup  []*Peer

	mu *sync.Mutex
}
