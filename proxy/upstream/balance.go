package upstream

import (
	"math/rand/v2"
	"sort"
	"strconv"
)

// The functions here return the index of a peer in a.ring, or -1. They run
// under the group's mutex.

// free reports whether peer i can be chosen in this walk.
func (a *Attempt) free(i int, now int64) bool {
	return !a.wasTried(i) && a.ring.peers[i].usable(now)
}

// join takes part in a round: the peer with the highest current weight wins
// and pays the sum of all effective weights.
func (p *Peer) join(total int) int {
	p.current += p.effective
	total += p.effective
	if p.effective < p.Weight {
		p.effective++
	}
	return total
}

// preferred finds the peer that the request asks for, if it is to be had
// (ngx_http_upstream_get_rr_peer_by_sid).
func (a *Attempt) preferred(now int64) int {
	if len(a.id) == 0 {
		return -1
	}
	for i, p := range a.ring.peers {
		if p.ID != string(a.id) {
			continue
		}
		if a.wasTried(i) || !p.serves(now) {
			return -1
		}
		return i
	}
	return -1
}

// roundRobin is smooth weighted round robin (ngx_http_upstream_get_peer). A
// preferred peer wins, and pays as if it had won by its weight, up to a debt of
// one round.
func (a *Attempt) roundRobin(now int64, preferred int) int {
	if preferred >= 0 {
		if p := a.ring.peers[preferred]; p.current <= p.Weight-a.ring.total {
			return preferred
		}
	}
	best, total := -1, 0
	for i, p := range a.ring.peers {
		if !a.free(i, now) {
			continue
		}
		total = p.join(total)
		if best < 0 || p.current > a.ring.peers[best].current {
			best = i
		}
	}
	if preferred >= 0 {
		best = preferred
	}
	if best >= 0 {
		a.ring.peers[best].current -= total
	}
	return best
}

// least finds the peer with the least of something, and asks round robin if
// there are several (ngx_http_upstream_get_least_conn_peer,
// ngx_http_upstream_get_least_time_peer).
func (a *Attempt) least(now int64, compare func(p, q *Peer) int) int {
	peers := a.ring.peers
	best, many := -1, false
	for i := range peers {
		if !a.free(i, now) {
			continue
		}
		c := -1
		if best >= 0 {
			c = compare(peers[i], peers[best])
		}
		if c < 0 {
			best, many = i, false
		} else if c == 0 {
			many = true
		}
	}
	if !many {
		return best
	}
	total := 0
	for i := best; i < len(peers); i++ {
		if !a.free(i, now) || compare(peers[i], peers[best]) != 0 {
			continue
		}
		total = peers[i].join(total)
		if peers[i].current > peers[best].current {
			best = i
		}
	}
	peers[best].current -= total
	return best
}

// compareLoad is negative if p has fewer connections for its weight than q.
func compareLoad(p, q *Peer) int {
	x, y := p.conns.Load()*int64(q.Weight), q.conns.Load()*int64(p.Weight)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// ipSeed is where the hash of an address begins.
const ipSeed = 89

// hashed walks the hashes of the key until one falls on a free peer
// (ngx_http_upstream_get_ip_hash_peer, ngx_http_upstream_get_hash_peer).
func (a *Attempt) hashed(now int64) int {
	if len(a.ring.peers) < 2 || len(a.key) == 0 {
		return -1
	}
	hash, byAddress := a.hash, a.group.Method == IPHash
	for {
		if byAddress {
			for _, c := range a.key {
				hash = (hash*113 + uint32(c)) % 6271
			}
		} else {
			a.hash += a.nextHash()
			hash = a.hash
		}
		if i := a.ring.at(int(hash) % a.ring.total); a.free(i, now) {
			a.hash = hash
			return i
		}
		if a.missed++; a.missed > maxMissed {
			return -1
		}
	}
}

// nextHash returns the hash of the key, preceded by a number from the second
// time on.
func (a *Attempt) nextHash() uint32 {
	sum := uint32(0)
	if a.rehash > 0 {
		sum = checksum(strconv.AppendUint(a.digits[:0], a.rehash, 10))
	}
	a.rehash++
	return update(sum, a.key) >> 16 & 0x7fff
}

// at returns the index of the peer that owns unit w of the weights.
func (r *ring) at(w int) int {
	return sort.SearchInts(r.ranges, w+1) - 1
}

// random chooses by weight (ngx_http_upstream_get_random_peer).
func (a *Attempt) random(now int64) int {
	if len(a.ring.peers) < 2 {
		return -1
	}
	for {
		if i := a.ring.at(rand.IntN(a.ring.total)); a.free(i, now) {
			return i
		}
		if a.missed++; a.missed > maxMissed {
			return -1
		}
	}
}

// randomTwo chooses two by weight and of them the one with fewer connections
// for its weight (ngx_http_upstream_get_random2_peer).
func (a *Attempt) randomTwo(now int64) int {
	if len(a.ring.peers) < 2 {
		return -1
	}
	first := -1
	for {
		i := a.ring.at(rand.IntN(a.ring.total))
		switch {
		case i == first || !a.free(i, now):
			if a.missed++; a.missed > maxMissed {
				return -1
			}
		case first < 0:
			first = i
		case compareLoad(a.ring.peers[i], a.ring.peers[first]) > 0:
			return first
		default:
			return i
		}
	}
}
