package upstream

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func cache(maximum int, closed *[]int) *Cache[int] {
	return NewCache(Keepalive{Max: maximum, Requests: 100, Time: time.Hour, Timeout: time.Minute}, func(c int) {
		if closed != nil {
			*closed = append(*closed, c)
		}
	})
}

func TestCache(t *testing.T) {
	var closed []int
	c := cache(3, &closed)
	a, b := &Peer{Network: "tcp", Address: "a"}, &Peer{Network: "tcp", Address: "b"}
	same := &Peer{Network: "tcp", Address: "a"}
	put := func(p *Peer, key string, conn int) {
		t.Helper()
		if !c.Put(p, key, conn, 1, start, start) {
			t.Errorf("%d not kept", conn)
		}
	}
	get := func(p *Peer, key string, want int) {
		t.Helper()
		if conn, ok := c.Get(p, key, start); conn != want || ok != (want != 0) {
			t.Errorf("got %d %v, want %d", conn, ok, want)
		}
	}
	get(a, "", 0)
	put(a, "", 1)
	put(a, "", 2)
	put(b, "", 3)
	get(b, "x", 0)
	get(same, "", 2)
	put(a, "x", 4)
	put(a, "", 5) // the fourth: 1 is the oldest
	if !slices.Equal(closed, []int{1}) || c.Len() != 3 {
		t.Error(closed, c.Len())
	}
	get(a, "", 5)
	get(a, "", 0)
	get(a, "x", 4)
	get(b, "", 3)
	if len(c.tops) != 0 || c.Len() != 0 {
		t.Error("something is left")
	}
	put(a, "", 6)
	c.CloseAll()
	if c.Put(a, "", 7, 1, start, start) {
		t.Error("kept after the end")
	}
	if !slices.Equal(closed, []int{1, 6}) {
		t.Error(closed)
	}
}

func TestCacheLimits(t *testing.T) {
	var closed []int
	c := cache(10, &closed)
	p := &Peer{Address: "a"}
	if c.Put(p, "", 1, 100, start, start) || c.Put(p, "", 1, 1, start-3601*second, start) {
		t.Error("kept")
	}
	if !c.Put(p, "", 1, 99, start-3600*second, start) || !c.Put(p, "", 2, 1, start, start+30*second) {
		t.Error("not kept")
	}
	if n := c.Expire(start + 59*second); n != 0 {
		t.Error(n)
	}
	if n := c.Expire(start + 60*second); n != 1 || !slices.Equal(closed, []int{1}) {
		t.Error(n, closed)
	}
	if conn, ok := c.Get(p, "", start+90*second); ok {
		t.Error(conn)
	}
	if n := c.Expire(start + 90*second); n != 1 || c.Len() != 0 {
		t.Error(n, c.Len())
	}
	if off := cache(0, nil); off.Put(p, "", 1, 0, start, start) {
		t.Error("kept although off")
	}
}

func TestCacheInherit(t *testing.T) {
	var closed []int
	old, c := cache(10, &closed), cache(3, nil)
	a, b := &Peer{Network: "tcp", Address: "a"}, &Peer{Network: "tcp", Address: "b"}
	for i, p := range []*Peer{a, b, a, a, a} {
		old.Put(p, fmt.Sprint(i%2), i+1, 1, start, start)
	}
	c.Inherit(old, group(t, RoundRobin, Peer{Name: "x"}, Peer{Name: "a"}))
	if !slices.Equal(closed, []int{2, 1}) && !slices.Equal(closed, []int{1, 2}) {
		t.Error(closed)
	}
	var got []int
	for _, key := range []string{"0", "0", "1", "1"} {
		conn, _ := c.Get(a, key, start)
		got = append(got, conn)
	}
	if !slices.Equal(got, []int{5, 3, 4, 0}) {
		t.Error(got)
	}
	if old.Put(a, "", 9, 1, start, start) || old.Len() != 0 {
		t.Error("the old cache goes on")
	}
}

// TestCacheRace is for the race detector; no connection may be lost or be
// given out twice.
func TestCacheRace(t *testing.T) {
	var closed, made atomic.Int64
	c := NewCache(Keepalive{Max: 8, Requests: 100, Time: time.Hour, Timeout: time.Second}, func(u *atomic.Bool) {
		if u.Swap(true) {
			t.Error("in use")
		}
		closed.Add(1)
	})
	peers := []*Peer{{Address: "a"}, {Address: "b"}, {Address: "c"}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				now := start + int64(n)*second/100
				p := peers[(i+n)%3]
				u, ok := c.Get(p, "", now)
				if !ok {
					u = new(atomic.Bool)
					made.Add(1)
				}
				if u.Swap(true) {
					t.Error("in use")
				}
				u.Store(false)
				if !c.Put(p, "", u, 1, start, now) {
					t.Error("not kept")
				}
				if n%50 == 0 {
					c.Expire(now)
				}
			}
		})
	}
	wg.Wait()
	c.CloseAll()
	if made.Load() != closed.Load() {
		t.Error(made.Load(), closed.Load())
	}
}

func TestCacheAllocs(t *testing.T) {
	c := cache(32, nil)
	p := &Peer{Network: "tcp", Address: "127.0.0.1:80"}
	for i := range 33 {
		c.Put(p, "key", i, 1, start, start)
	}
	if n := testing.AllocsPerRun(1000, func() {
		conn, _ := c.Get(p, "key", start)
		c.Put(p, "key", conn, 1, start, start)
	}); n > 0 {
		t.Error(n)
	}
	for c.Len() > 0 {
		c.Get(p, "key", start)
	}
	if n := testing.AllocsPerRun(1000, func() {
		c.Put(p, "key", 1, 1, start, start)
		c.Get(p, "key", start)
	}); n > 0 {
		t.Error(n)
	}
}

func BenchmarkCache(b *testing.B) {
	c := cache(64, nil)
	p := &Peer{Network: "tcp", Address: "127.0.0.1:80"}
	for i := range 64 {
		c.Put(p, "", i, 1, start, start)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if conn, ok := c.Get(p, "", start); ok {
				c.Put(p, "", conn, 1, start, start)
			}
		}
	})
}
