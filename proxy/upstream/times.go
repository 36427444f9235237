package upstream

import "time"

// times is how long a peer takes, in milliseconds: averages over its answers,
// and what is known about requests that wait for one
// (ngx_http_upstream_least_time_module.c). The group's mutex guards it.
type times struct {
	header, last int64 // averages: to the head of an answer, to its end
	waiting      int64 // average over the requests without an answer
	inflight     int64 // how many there are
	spent        int64 // how long all of them had waited at changed
	changed      int64
}

const (
	// slowest is the time from which on all peers are equally bad.
	slowest = 5000
	// cluster is within which times count as equal.
	cluster = 20
)

// average moves an average by one twentieth of the difference, rounded.
func average(avg *int64, v int64) {
	if *avg == 0 {
		*avg = v
		return
	}
	*avg = int64(0.5 + float64(v)*0.05 + float64(*avg)*0.95)
}

// begin counts a request that waits.
func (t *times) begin(now int64) {
	if t.inflight > 0 {
		t.spent += (now - t.changed) * t.inflight
	}
	t.changed = now
	t.inflight++
}

// end takes away a request that waited for so long.
func (t *times) end(now, waited int64) {
	if t.inflight == 1 {
		t.spent = 0
	} else {
		t.spent += (now-t.changed)*t.inflight - waited
		t.changed = now
	}
	t.inflight--
}

// leastTime finds the peer that is likely to be done first.
func (a *Attempt) leastTime(now int64) int {
	if a.group.Inflight {
		ms := milliseconds(a.began)
		for i, p := range a.ring.peers {
			if t := &p.times; t.inflight > 0 && a.free(i, now) {
				average(&t.waiting, t.spent/t.inflight+ms-t.changed)
			}
		}
	}
	byHeader := a.group.Method == LeastTimeHeader
	return a.least(now, func(p, q *Peer) int {
		x, y := p.expected(now, byHeader)*int64(q.Weight), q.expected(now, byHeader)*int64(p.Weight)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
}

// expected is how long the peer is likely to take for one request more. Once in
// fail_timeout a peer gets another chance: its time counts half.
func (p *Peer) expected(now int64, byHeader bool) int64 {
	t := p.times.last
	if byHeader {
		t = p.times.header
	}
	if idle := now - p.checked; idle > p.timeout() {
		t >>= min(idle/(p.timeout()+1), 62)
	}
	if p.times.inflight > 0 {
		t = max(t, p.times.waiting)
	}
	if t > slowest {
		t = slowest
	} else {
		t += cluster - t%cluster
	}
	return t * (1 + p.conns.Load())
}

// timed says whether the group's method asks for times.
func (g *Group) timed() bool {
	return !g.single && (g.Method == LeastTimeHeader || g.Method == LeastTimeLast)
}

// Head notes that the head of the answer has come.
func (a *Attempt) Head(now int64) { a.head = milliseconds(now - a.began) }

// Accept notes that the answer is the one the client gets.
func (a *Attempt) Accept(p *Peer, now int64) {
	if !a.group.timed() || !a.inflight || a.group.Method != LeastTimeHeader {
		return
	}
	a.group.mu.Lock()
	defer a.group.mu.Unlock()
	average(&p.times.header, a.head)
	a.landed(p, now, a.head)
}

// Complete notes that the exchange with the peer went well. Done must follow.
// Failures do not count, lest a peer that fails fast looks good.
func (a *Attempt) Complete(p *Peer, now int64) {
	if !a.group.timed() || a.head < 0 {
		return
	}
	a.group.mu.Lock()
	defer a.group.mu.Unlock()
	average(&p.times.last, milliseconds(now-a.began))
	if !a.group.Inflight || a.group.Method != LeastTimeHeader { // else Accept did it
		average(&p.times.header, a.head)
	}
}

// landed ends the waiting of the request.
func (a *Attempt) landed(p *Peer, now, waited int64) {
	if a.inflight {
		a.inflight = false
		p.times.end(milliseconds(now), waited)
	}
}

func milliseconds(ns int64) int64 { return ns / int64(time.Millisecond) }
