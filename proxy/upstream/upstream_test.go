package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

const second = int64(time.Second)

// start is an arbitrary time.
const start = 1_700_000_000 * second

func group(t testing.TB, m Method, peers ...Peer) *Group {
	t.Helper()
	for i := range peers {
		p := &peers[i]
		if p.Name == "" {
			p.Name = fmt.Sprintf("127.0.0.1:%d", 8000+i)
		}
		p.Address, p.Network = p.Name, "tcp"
		if p.Server == "" {
			p.Server = p.Name
		}
		if p.FailTimeout == 0 {
			p.FailTimeout = 10 * time.Second
		}
	}
	g, err := NewGroup("g", peers, m)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func mustNext(t testing.TB, a *Attempt, now int64) *Peer {
	t.Helper()
	p, err := a.Next(now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNewGroup(t *testing.T) {
	if _, err := NewGroup("g", nil, RoundRobin); !errors.Is(err, ErrNoServers) {
		t.Error(err)
	}
	if _, err := NewGroup("g", []Peer{{Backup: true}}, RoundRobin); !errors.Is(err, ErrNoServers) {
		t.Error(err)
	}
	for _, p := range []Peer{{Weight: -1}, {MaxFails: -1}, {MaxConns: -1}, {FailTimeout: -1}, {Weight: maxWeight + 1}} {
		if _, err := NewGroup("g", []Peer{p}, RoundRobin); err == nil {
			t.Errorf("%+v accepted", p)
		}
	}
	if _, err := NewGroup("g", []Peer{{Weight: maxRingWeight + 1}}, ConsistentHash); err == nil {
		t.Error("a huge ring accepted")
	}
}

// TestFailTimeout follows both meanings of fail_timeout.
func TestFailTimeout(t *testing.T) {
	g := group(t, RoundRobin, Peer{MaxFails: 2}, Peer{Backup: true})
	bad := &g.Peers()[0]
	var a Attempt
	attempt := func(now int64, ok bool) (used, disabled bool) {
		a.Start(g, nil)
		p := mustNext(t, &a, now)
		return p == bad, a.Done(p, ok || p != bad, now)
	}
	expect := func(at int64, ok, used, disabled bool) {
		t.Helper()
		if u, d := attempt(start+at*second, ok); u != used || d != disabled {
			t.Errorf("at %d: used %v disabled %v", at, u, d)
		}
	}
	expect(0, false, true, false)
	expect(3, true, true, false) // not forgiven: the window began with the failure
	expect(5, false, true, true)
	expect(6, true, false, false)
	expect(15, true, false, false)
	expect(16, false, true, true) // one failure is enough again
	expect(27, true, true, false) // and one success forgives
	expect(28, false, true, false)
	if s := g.Stats(bad, start+28*second); s.Fails != 1 || s.Conns != 0 || s.Expired {
		t.Errorf("%+v", s)
	}
}

func TestMaxConns(t *testing.T) {
	for _, m := range []Method{RoundRobin, LeastConn, IPHash, Hash, ConsistentHash, Random, RandomTwo} {
		g := group(t, m, Peer{MaxConns: 2}, Peer{MaxConns: 1})
		var as [4]Attempt
		var ps [4]*Peer
		for i := range 3 {
			as[i].Start(g, []byte("key!"))
			ps[i] = mustNext(t, &as[i], start)
		}
		as[3].Start(g, []byte("key!"))
		if _, err := as[3].Next(start); !errors.Is(err, ErrNoLive) {
			t.Errorf("method %d: %v", m, err)
		}
		as[1].Done(ps[1], true, start)
		as[3].Start(g, []byte("key!"))
		if p := mustNext(t, &as[3], start); p != ps[1] {
			t.Errorf("method %d: another peer is free", m)
		}
	}
	single := group(t, RoundRobin, Peer{MaxConns: 1})
	var a, b Attempt
	a.Start(single, nil)
	p := mustNext(t, &a, start)
	b.Start(single, nil)
	if _, err := b.Next(start); !errors.Is(err, ErrNoLive) {
		t.Error(err)
	}
	a.Done(p, false, start)
	mustNext(t, &b, start)
}

func TestTries(t *testing.T) {
	g := group(t, RoundRobin, Peer{}, Peer{Down: true}, Peer{}, Peer{Backup: true})
	var a Attempt
	a.Start(g, nil)
	if a.Tries() != 3 {
		t.Error(a.Tries())
	}
	a.Limit(0)
	a.Limit(5)
	if a.Tries() != 3 {
		t.Error(a.Tries())
	}
	a.Limit(2)
	a.Done(mustNext(t, &a, start), true, start)
	if a.Tries() != 1 {
		t.Error(a.Tries())
	}
	a.Retry()
	if a.Tries() != 2 {
		t.Error(a.Tries())
	}
}

// TestManyPeers tries more peers than a word has bits.
func TestManyPeers(t *testing.T) {
	g := group(t, RoundRobin, make([]Peer, 200)...)
	var a Attempt
	for range 2 {
		a.Start(g, nil)
		seen := map[*Peer]bool{}
		for range 200 {
			p := mustNext(t, &a, start)
			if seen[p] {
				t.Fatal("tried twice")
			}
			seen[p] = true
		}
		if _, err := a.Next(start); err == nil {
			t.Error("one more")
		}
		for p := range seen {
			a.Done(p, true, start)
		}
	}
}

// TestLeastConn holds connections, unlike the sequences of nginx.
func TestLeastConn(t *testing.T) {
	g := group(t, LeastConn, Peer{Weight: 2}, Peer{}, Peer{})
	count := map[string]int{}
	for range 8 {
		var a Attempt
		a.Start(g, nil)
		count[mustNext(t, &a, start).Name]++
	}
	if got := fmt.Sprint(count); got != "map[127.0.0.1:8000:4 127.0.0.1:8001:2 127.0.0.1:8002:2]" {
		t.Error(got)
	}
}

func TestRandom(t *testing.T) {
	for _, m := range []Method{Random, RandomTwo} {
		g := group(t, m, Peer{Weight: 6}, Peer{Weight: 3}, Peer{Weight: 1}, Peer{Down: true})
		count := map[string]int{}
		var a Attempt
		for range 5000 {
			a.Start(g, nil)
			p := mustNext(t, &a, start)
			count[p.Name]++
			a.Done(p, true, start)
		}
		x, y, z := count["127.0.0.1:8000"], count["127.0.0.1:8001"], count["127.0.0.1:8002"]
		if x+y+z != 5000 || x < 100 || y < 100 || z < 100 {
			t.Error(m, count)
		}
		// With no connections the second choice of two stands.
		if m == Random && (x <= y || y <= z) {
			t.Error(count)
		}
	}
}

// TestSharedServer has a name with several addresses: they are one on the ring.
func TestSharedServer(t *testing.T) {
	g := group(t, ConsistentHash, Peer{Server: "x.example:80"}, Peer{Server: "x.example:80"}, Peer{Server: "y.example:80"})
	if n := len(g.rings[0].points); n != 2*pointsPerWeight {
		t.Error(n)
	}
	count := map[string]int{}
	var a Attempt
	for range 100 {
		a.Start(g, []byte("key"))
		p := mustNext(t, &a, start)
		count[p.Name]++
		a.Done(p, true, start)
	}
	if got := fmt.Sprint(count); got != "map[127.0.0.1:8000:50 127.0.0.1:8001:50]" && got != "map[127.0.0.1:8002:100]" {
		t.Error(got)
	}
}

func TestHostPort(t *testing.T) {
	for server, want := range map[string]string{
		"a.b:80": "a.b 80", "a.b": "a.b ", "a.b:": "a.b ", "[::1]:8080": "[::1] 8080", "[::1]": "[::1] ", "unix:/a:1": "/a:1 ", "UNIX:x": "x ", "80": "80 ", "a:8x": "a:8x ",
	} {
		if host, port := hostPort(server); host+" "+port != want {
			t.Errorf("%q: %q %q", server, host, port)
		}
	}
}

func TestInherit(t *testing.T) {
	old := group(t, RoundRobin, Peer{Name: "a", MaxFails: 1}, Peer{Name: "b", MaxFails: 1}, Peer{Name: "c", MaxFails: 1})
	var a Attempt
	a.Start(old, nil)
	for range 3 {
		a.Done(mustNext(t, &a, start), false, start)
	}
	var held Attempt
	held.Start(old, nil)
	g := group(t, RoundRobin, Peer{Name: "c", MaxFails: 1}, Peer{Name: "b", MaxFails: 2}, Peer{Name: "d", MaxFails: 1})
	g.Inherit(old)
	var got []bool
	for i := range g.Peers() {
		got = append(got, g.Stats(&g.Peers()[i], start).Expired)
	}
	if fmt.Sprint(got) != "[true false false]" {
		t.Error(got)
	}
	// The old generation goes on, and the new one sees it.
	later := start + 20*second
	for range 3 {
		if p := mustNext(t, &held, later); p.Name == "c" {
			if s := g.Stats(&g.Peers()[0], later); s.Conns != 1 {
				t.Errorf("%+v", s)
			}
		}
	}
}

// TestRace is for the race detector; in the end nothing may be in use.
func TestRace(t *testing.T) {
	for _, m := range []Method{RoundRobin, LeastConn, IPHash, Hash, ConsistentHash, Random, RandomTwo} {
		g := group(t, m, Peer{Weight: 2, MaxFails: 1, FailTimeout: time.Second}, Peer{MaxConns: 3}, Peer{MaxFails: 2}, Peer{Backup: true})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				var a Attempt
				for n := range 200 {
					now := start + int64(n)*second/10
					a.Start(g, fmt.Append(nil, "k", i*n%50))
					for a.Tries() > 0 {
						p, err := a.Next(now)
						if err != nil {
							break
						}
						ok := rand.IntN(3) > 0
						a.Done(p, ok, now)
						if ok {
							break
						}
					}
				}
			})
		}
		wg.Wait()
		for i := range g.Peers() {
			if s := g.Stats(&g.Peers()[i], start); s.Conns != 0 {
				t.Errorf("method %d: %d connections", m, s.Conns)
			}
		}
	}
}

func TestAllocs(t *testing.T) {
	key := []byte("a key")
	var a Attempt
	for _, m := range []Method{RoundRobin, LeastConn, IPHash, Hash, ConsistentHash, Random, RandomTwo} {
		g := group(t, m, make([]Peer, 70)...)
		a.Start(g, key)
		if n := testing.AllocsPerRun(100, func() {
			a.Start(g, key)
			for range 2 {
				p, _ := a.Next(start)
				a.Done(p, false, start)
			}
		}); n > 0 {
			t.Errorf("method %d: %v allocations", m, n)
		}
	}
}

func BenchmarkAttempt(b *testing.B) {
	for _, n := range []int{1, 3, 20} {
		for _, m := range []Method{RoundRobin, LeastConn, ConsistentHash} {
			b.Run(fmt.Sprint(n, "/", m), func(b *testing.B) {
				g := group(b, m, make([]Peer, n)...)
				b.RunParallel(func(pb *testing.PB) {
					var a Attempt
					for pb.Next() {
						a.Start(g, []byte("key"))
						p, _ := a.Next(start)
						a.Done(p, true, start)
					}
				})
			})
		}
	}
}
