package http3

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"proxyctl/proxy/head"
)

// table is the dynamic table that a client keeps here (RFC 9204, section 3.2).
// Fields are handed out as they are: what they point to is never written again.
type table struct {
	fieldSize int
	waiters   int // how many streams may wait for entries

	mu       sync.Mutex
	capacity int
	size     int
	entries  []head.Field
	gone     int           // how many entries have been dropped
	known    int           // how many entries the client knows have arrived
	waiting  int           // streams
	grown    chan struct{} // closed with the next entry; nil while nobody waits
	held     []byte        // of an instruction that has not come whole
	scratch  []byte
}

// staticTable holds the fields that both sides know (RFC 9204, appendix A).
var staticTable = func() []head.Field {
	var t []head.Field
	for line := range strings.SplitSeq(staticText, "\n") {
		name, value, _ := strings.Cut(line, "=")
		t = append(t, head.NewField([]byte(name), []byte(value)))
	}
	return t
}()

const staticText = `:authority
:path=/
age=0
content-disposition
content-length=0
cookie
date
etag
if-modified-since
if-none-match
last-modified
link
location
referer
set-cookie
:method=CONNECT
:method=DELETE
:method=GET
:method=HEAD
:method=OPTIONS
:method=POST
:method=PUT
:scheme=http
:scheme=https
:status=103
:status=200
:status=304
:status=404
:status=503
accept=*/*
accept=application/dns-message
accept-encoding=gzip, deflate, br
accept-ranges=bytes
access-control-allow-headers=cache-control
access-control-allow-headers=content-type
access-control-allow-origin=*
cache-control=max-age=0
cache-control=max-age=2592000
cache-control=max-age=604800
cache-control=no-cache
cache-control=no-store
cache-control=public, max-age=31536000
content-encoding=br
content-encoding=gzip
content-type=application/dns-message
content-type=application/javascript
content-type=application/json
content-type=application/x-www-form-urlencoded
content-type=image/gif
content-type=image/jpeg
content-type=image/png
content-type=text/css
content-type=text/html; charset=utf-8
content-type=text/plain
content-type=text/plain;charset=utf-8
range=bytes=0-
strict-transport-security=max-age=31536000
strict-transport-security=max-age=31536000; includesubdomains
strict-transport-security=max-age=31536000; includesubdomains; preload
vary=accept-encoding
vary=origin
x-content-type-options=nosniff
x-xss-protection=1; mode=block
:status=100
:status=204
:status=206
:status=302
:status=400
:status=403
:status=421
:status=425
:status=500
accept-language
access-control-allow-credentials=FALSE
access-control-allow-credentials=TRUE
access-control-allow-headers=*
access-control-allow-methods=get
access-control-allow-methods=get, post, options
access-control-allow-methods=options
access-control-expose-headers=content-length
access-control-request-headers=content-type
access-control-request-method=get
access-control-request-method=post
alt-svc=clear
authorization
content-security-policy=script-src 'none'; object-src 'none'; base-uri 'none'
early-data=1
expect-ct
forwarded
if-range
origin
purpose=prefetch
server
timing-allow-origin=*
upgrade-insecure-requests=1
user-agent
x-forwarded-for
x-frame-options=deny
x-frame-options=sameorigin`

// errMore says that the rest of an instruction or a field must come.
var errMore = broken(FrameError, "client sent truncated field section")

// number reads an integer with a prefix of some bits.
func number(b []byte, prefix uint8) (int, []byte, error) {
	n, rest, err := head.ReadInt(b, prefix)
	switch err {
	case nil:
		return n, rest, nil
	case head.ErrTruncated:
		return 0, b, errMore
	}
	return 0, b, broken(ExcessiveLoad, "client exceeded integer size limit")
}

// text reads a string whose length has a prefix of some bits, below the one that
// says whether it is in Huffman's code, and keeps it in *arena.
func (t *table) text(b []byte, prefix uint8, arena *[]byte) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, b, errMore
	}
	coded := b[0]&(1<<prefix) != 0
	n, b, err := number(b, prefix)
	switch {
	case err != nil:
		return nil, b, err
	case n > t.fieldSize:
		return nil, b, broken(ExcessiveLoad, "client sent too large field line")
	case n > len(b):
		return nil, b, errMore
	}
	start := len(*arena)
	if coded {
		var ok bool
		if *arena, ok = head.AppendDecoded(*arena, b[:n]); !ok {
			return nil, b, broken(DecompressionFailed, "client sent invalid encoded field line")
		}
	} else {
		*arena = append(*arena, b[:n]...)
	}
	return (*arena)[start:len(*arena):len(*arena)], b[n:], nil
}

// instruct takes what comes on the client's encoder stream (RFC 9204, section
// 4.3). It returns how many entries that was.
func (t *table) instruct(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.held) > 0 {
		t.held = append(t.held, b...)
		b = t.held
	}
	before := t.inserted()
	for len(b) > 0 {
		rest, err := t.instruction(b)
		if err == errMore {
			break
		}
		if err != nil {
			return 0, err
		}
		b = rest
	}
	t.held = append(t.held[:0], b...)
	if n := t.inserted() - before; n > 0 {
		if t.grown != nil {
			close(t.grown)
			t.grown = nil
		}
		return n, nil
	}
	return 0, nil
}

// instruction takes one instruction.
func (t *table) instruction(b []byte) (rest []byte, err error) {
	t.scratch = t.scratch[:0]
	switch c := b[0]; {
	case c&0x80 != 0:
		return t.insertNamed(b)
	case c&0x40 != 0:
		var name, value []byte
		if name, rest, err = t.text(b, 5, &t.scratch); err != nil {
			return b, err
		}
		if value, rest, err = t.text(rest, 7, &t.scratch); err != nil {
			return b, err
		}
		if len(name) == 0 {
			return b, broken(EncoderStreamError, "client sent zero header name length")
		}
		return rest, t.insert(head.NewField(bytes.Clone(name), bytes.Clone(value)))
	case c&0x20 != 0:
		n, rest, err := number(b, 5)
		if err != nil {
			return b, err
		}
		return rest, t.resize(n)
	}
	n, rest, err := number(b, 5)
	if err != nil {
		return b, err
	}
	f, err := t.recent(n)
	if err != nil {
		return b, err
	}
	return rest, t.insert(f)
}

// insertNamed inserts a field with the name of another.
func (t *table) insertNamed(b []byte) (rest []byte, err error) {
	n, rest, err := number(b, 6)
	if err != nil {
		return b, err
	}
	value, rest, err := t.text(rest, 7, &t.scratch)
	if err != nil {
		return b, err
	}
	var f head.Field
	if b[0]&0x40 == 0 {
		f, err = t.recent(n)
	} else if n < len(staticTable) {
		f = staticTable[n]
	} else {
		err = broken(EncoderStreamError, "client sent invalid table index")
	}
	if err != nil {
		return b, err
	}
	f.Renew(bytes.Clone(value))
	return rest, t.insert(f)
}

// recent gives the entry that is n older than the newest.
func (t *table) recent(n int) (head.Field, error) {
	if n >= len(t.entries) {
		return head.Field{}, broken(EncoderStreamError, "client sent invalid table index")
	}
	return t.entries[len(t.entries)-1-n], nil
}

// insert adds an entry. Entries share memory: an instruction of one byte may repeat
// the largest.
func (t *table) insert(f head.Field) error {
	if f.Size() > t.capacity {
		return broken(EncoderStreamError, "not enough dynamic table capacity")
	}
	t.evict(t.capacity - f.Size())
	t.entries = append(t.entries, f)
	t.size += f.Size()
	return nil
}

// resize sets the capacity.
func (t *table) resize(n int) error {
	if n > tableSize {
		return broken(EncoderStreamError, "client exceeded http3_max_table_capacity limit")
	}
	t.capacity = n
	t.evict(n)
	return nil
}

// evict drops the oldest entries until they take no more than n bytes.
func (t *table) evict(n int) {
	dropped := 0
	for t.size > n {
		t.size -= t.entries[dropped].Size()
		dropped++
	}
	if dropped > 0 {
		kept := copy(t.entries, t.entries[dropped:])
		clear(t.entries[kept:])
		t.entries = t.entries[:kept]
		t.gone += dropped
	}
}

// inserted is how many entries there have been.
func (t *table) inserted() int { return t.gone + len(t.entries) }

// at gives the entry with an absolute index.
func (t *table) at(index int) (head.Field, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if index < t.gone || index >= t.inserted() {
		return head.Field{}, errIndex
	}
	return t.entries[index-t.gone], nil
}

var errIndex = broken(DecompressionFailed, "client sent invalid table index")

// learned is how many entries the client has yet to be told about: up to count if
// that is not 0, because the client learns of those another way.
func (t *table) learned(count int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.known
	if count == 0 {
		count = t.inserted()
	}
	t.known = max(t.known, count)
	return t.known - before
}

// await waits until there have been so many entries, but no longer than timeout
// and no longer than the stream and its connection last.
func (t *table) await(count int, timeout time.Duration, over <-chan struct{}) error {
	var timer <-chan time.Time
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.inserted() < count {
		if t.waiting >= t.waiters {
			return broken(DecompressionFailed, "client exceeded http3_max_blocked_streams limit")
		}
		if timer == nil && timeout > 0 {
			timer = time.After(timeout)
		}
		if t.grown == nil {
			t.grown = make(chan struct{})
		}
		grown := t.grown
		t.waiting++
		t.mu.Unlock()
		var err error
		select {
		case <-grown:
		case <-over:
			err = head.ErrGone
		case <-timer:
			err = errTimeout
		}
		t.mu.Lock()
		t.waiting--
		if err != nil {
			return err
		}
	}
	return nil
}
