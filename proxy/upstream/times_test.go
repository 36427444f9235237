package upstream

import (
	"fmt"
	"testing"
	"time"
)

// TestLeastTime: the peer that answers faster gets the requests, until its load
// makes up for the difference.
func TestLeastTime(t *testing.T) {
	for _, m := range []Method{LeastTimeHeader, LeastTimeLast} {
		for _, inflight := range []bool{false, true} {
			g := group(t, m, Peer{}, Peer{})
			g.Inflight = inflight
			now := start
			run := func(took func(p *Peer) time.Duration) *Peer {
				var a Attempt
				a.Start(g, nil)
				p := mustNext(t, &a, now)
				d := int64(took(p))
				a.Head(now + d)
				a.Accept(p, now+d)
				a.Complete(p, now+d)
				a.Done(p, true, now+d)
				now += d + int64(time.Millisecond)
				return p
			}
			slow := &g.peers[0]
			uneven := func(p *Peer) time.Duration {
				if p == slow {
					return 500 * time.Millisecond
				}
				return 50 * time.Millisecond
			}
			run(uneven)
			run(uneven)
			for i := range 8 {
				if p := run(uneven); p == slow {
					t.Errorf("method %d, inflight %v: request %d goes to the slow peer", m, inflight, i)
				}
			}
			chances := 0
			for range 10 { // its time counts less and less
				now += 6 * second
				if run(uneven) == slow {
					chances++
				}
			}
			if chances == 0 {
				t.Errorf("method %d: no other chance for the slow peer", m)
			}
			if slow.times.inflight != 0 || slow.conns.Load() != 0 {
				t.Error("requests are left over")
			}
		}
	}
}

// TestLeastTimeInflight: a peer that does not answer gets no more requests,
// though it is fast by what has been answered.
func TestLeastTimeInflight(t *testing.T) {
	g := group(t, LeastTimeLast, Peer{Weight: 10}, Peer{})
	g.Inflight = true
	hanging := make([]Attempt, 4)
	for i := range hanging {
		hanging[i].Start(g, nil)
		if p := mustNext(t, &hanging[i], start); p != &g.peers[0] {
			t.Fatal("request", i, "goes to the light peer")
		}
	}
	var a Attempt
	a.Start(g, nil)
	if p := mustNext(t, &a, start+3*second); p != &g.peers[1] {
		t.Error("the peer that hangs is asked again")
	}
}

// TestPrefer: a peer asked for by its ID wins with every method, unless it
// cannot be had, and others keep their share.
func TestPrefer(t *testing.T) {
	for m := RoundRobin; m <= LeastTimeLast; m++ {
		g := group(t, m, Peer{ID: "a"}, Peer{ID: "b", Drain: true}, Peer{ID: "c", Down: true})
		for _, tt := range []struct{ id, want string }{{"b", "b"}, {"b", "b"}, {"", "a"}, {"c", "a"}, {"x", "a"}, {"a", "a"}} {
			var a Attempt
			a.Start(g, []byte("key!"))
			a.Prefer([]byte(tt.id))
			p := mustNext(t, &a, start)
			if p.ID != tt.want {
				t.Errorf("method %d: %q gets %q", m, tt.id, p.ID)
			}
			a.Done(p, true, start)
		}
	}
	single := group(t, RoundRobin, Peer{ID: "a", Drain: true})
	var a Attempt
	a.Start(single, nil)
	if _, err := a.Next(start); err == nil {
		t.Error("the only peer drains, and gets a request")
	}
	a.Prefer([]byte("a"))
	a.Done(mustNext(t, &a, start), true, start)
}

// TestRenew: peers that stay keep their health, and there may be none.
func TestRenew(t *testing.T) {
	g, err := NewOpenGroup("g", nil, ConsistentHash)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Method{RoundRobin, IPHash, Hash, ConsistentHash, Random, RandomTwo, LeastConn, LeastTimeLast} {
		g.Method = m
		var a Attempt
		a.Start(g, []byte("key!"))
		if _, err := a.Next(start); err != ErrNoLive || a.Tries() != 0 {
			t.Errorf("method %d: %v, %d tries", m, err, a.Tries())
		}
	}
	g.Method = RoundRobin
	peers := []Peer{{Address: "1", MaxFails: 1, FailTimeout: 10 * time.Second}, {Address: "2", MaxFails: 1, FailTimeout: 10 * time.Second}}
	if g, err = g.Renew(peers); err != nil {
		t.Fatal(err)
	}
	var a Attempt
	a.Start(g, nil)
	failed := mustNext(t, &a, start)
	a.Done(failed, false, start)
	next, err := g.Renew(append(peers, Peer{Address: "3", Backup: true}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range next.peers {
		p := &next.peers[i]
		if expired := next.Stats(p, start).Expired; expired != (p.Address == failed.Address) {
			t.Errorf("%s: left out %v", p.Address, expired)
		}
	}
}

func TestSessions(t *testing.T) {
	s := NewSessions(3, 10*time.Second)
	for i := range 3 {
		if s.Learn(fmt.Append(nil, i), fmt.Sprint("peer", i), true, start) {
			t.Error("full too early")
		}
	}
	if s.Learn([]byte("other"), "x", false, start) || len(s.Lookup(nil, []byte("other"), start)) != 0 {
		t.Error("a session was made without being asked for")
	}
	s.Learn([]byte("0"), "peer9", false, start+5*second)
	if !s.Learn([]byte("3"), "peer3", true, start+5*second) {
		t.Error("no session had to go")
	}
	for name, want := range map[string]string{"0": "peer9", "1": "", "2": "peer2", "3": "peer3"} {
		if got := string(s.Lookup(nil, []byte(name), start+9*second)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := s.Lookup(nil, []byte("2"), start+10*second); len(got) != 0 {
		t.Error("an old session is known")
	}
	if len(s.known) != 2 || s.order.Len() != 2 {
		t.Errorf("%d sessions", len(s.known))
	}
}
