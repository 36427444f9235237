package proxy

import (
	"math/bits"
	"sync"
	"time"
)

// The buckets of a limit_req_zone.

// requestZone is one limit_req_zone. Its buckets survive reloads.
type requestZone struct {
	name    string
	key     *Value
	text    string // of key
	rate    int64  // thousandths of a request a second
	size    int64
	buckets *buckets
}

// buckets are the counters of a zone, the one used last in front.
type buckets struct {
	mu   sync.Mutex
	all  map[string]*bucket
	ends bucket // of the ring of all
	used int64  // bytes, as nginx would need
}

// bucket counts the requests of one key.
type bucket struct {
	key        string
	prev, next *bucket
	last       int64 // when excess was true, in milliseconds
	excess     int64 // thousandths of a request
	holds      int   // requests that wait for the verdict of another zone
}

func newBuckets() *buckets {
	b := &buckets{all: map[string]*bucket{}}
	b.ends.prev, b.ends.next = &b.ends, &b.ends
	return b
}

// bucketVerdict is what a zone says of a request.
type bucketVerdict uint8

const (
	bucketSkipped bucketVerdict = iota
	bucketHeld                  // there is room; to be taken or freed
	bucketCounted
	bucketBusy // the burst is exceeded
	bucketFull // the zone has no memory for another key
)

// processStart is what milliseconds count from.
var processStart = time.Now()

// millis is the time in milliseconds; it begins so late that a bucket that was
// last used at 0 is empty.
func millis() int64 { return (time.Since(processStart) + 24*time.Hour).Milliseconds() }

// nodeSize is the memory of a key in nginx's zones: a node of so many bytes and
// the key, in blocks of powers of two.
func nodeSize(node int, key int) int64 { return 1 << bits.Len(uint(node+key-1)) }

const requestNode = 80

// find looks for the bucket of a key and says whether it has room for one more
// request (ngx_http_limit_req_lookup). The request is counted, or the bucket
// held until others have said the same.
func (z *requestZone) find(key []byte, now, burst int64, count bool, held **bucket) (bucketVerdict, int64) {
	s := z.buckets
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[string(key)]
	if b != nil {
		b.unlink()
		s.front(b)
		excess := b.after(now, z.rate)
		switch {
		case excess > burst:
			return bucketBusy, excess
		case count:
			b.excess, b.last = excess, max(b.last, now)
			return bucketCounted, excess
		}
	} else {
		if b = s.add(key, now, z); b == nil {
			return bucketFull, 0
		}
		if count {
			b.last = now
			return bucketCounted, 0
		}
	}
	b.holds++
	*held = b
	return bucketHeld, 0
}

// after is the excess that one more request makes.
func (b *bucket) after(now, rate int64) int64 {
	passed := uint64(max(now-b.last, 0))
	hi, lo := bits.Mul64(passed, uint64(rate))
	if hi > 0 || lo/1000 > uint64(b.excess)+1000 {
		return 0
	}
	return max(b.excess-int64(lo/1000)+1000, 0)
}

// take counts a request in a bucket that was held.
func (z *requestZone) take(b *bucket, now int64) int64 {
	z.buckets.mu.Lock()
	defer z.buckets.mu.Unlock()
	b.excess, b.last = b.after(now, z.rate), max(b.last, now)
	b.holds--
	return b.excess
}

// free lets a bucket go that was held.
func (z *requestZone) free(b *bucket) {
	z.buckets.mu.Lock()
	b.holds--
	z.buckets.mu.Unlock()
}

// add makes a bucket; nil when there is no room for it.
func (s *buckets) add(key []byte, now int64, z *requestZone) *bucket {
	s.expire(now, z.rate, false)
	size := nodeSize(requestNode, len(key))
	if s.used+size > z.size {
		s.expire(now, z.rate, true)
	}
	if s.used+size > z.size {
		return nil
	}
	b := &bucket{key: string(key)}
	s.all[b.key] = b
	s.used += size
	s.front(b)
	return b
}

// quiet is how long a bucket must not have been used to be dropped, in
// milliseconds.
const quiet = 60000

// expire drops up to two empty buckets from the end, after the last one of all
// if need be.
func (s *buckets) expire(now, rate int64, force bool) {
	for range 2 {
		b := s.ends.prev
		if b == &s.ends || b.holds > 0 {
			return
		}
		if !force && (now-b.last < quiet || b.after(now, rate) > 1000) {
			return
		}
		if force {
			s.drop(b)
			s.expire(now, rate, false)
			return
		}
		s.drop(b)
	}
}

func (s *buckets) drop(b *bucket) {
	b.unlink()
	delete(s.all, b.key)
	s.used -= nodeSize(requestNode, len(b.key))
}

func (s *buckets) front(b *bucket) {
	b.prev, b.next = &s.ends, s.ends.next
	b.prev.next, b.next.prev = b, b
}

func (b *bucket) unlink() { b.prev.next, b.next.prev = b.next, b.prev }
