// Package resolver asks DNS servers for the addresses of names and for the
// servers of a service, and remembers the answers (nginx: ngx_resolver.c).
//
// A name is asked for once however many wait for it, over a socket of its own,
// so that the port is random like the number of the query. What is remembered
// is bounded in number and in time.
package resolver

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says whom to ask and for what.
type Config struct {
	Servers    []netip.AddrPort
	IPv4, IPv6 bool          // kinds of addresses to ask for
	Valid      time.Duration // how long answers count; 0: as long as they say
	// Log is told about answers that are of no use and servers that cannot be
	// reached. It may be called from any goroutine.
	Log func(format string, a ...any)
}

// Code is why a name has no address: a response code of DNS or one of nginx's
// own. It is an error with nginx's words: "3: Host not found".
type Code int

// The codes.
const (
	FormatError    Code = 1
	ServerFailure  Code = 2
	NotFound       Code = 3
	NotImplemented Code = 4
	Refused        Code = 5
	TimedOut       Code = 110
)

// Error gives number and text.
func (c Code) Error() string {
	text := "Unknown error"
	switch c {
	case FormatError:
		text = "Format error"
	case ServerFailure:
		text = "Server failure"
	case NotFound:
		text = "Host not found"
	case NotImplemented:
		text = "Unimplemented"
	case Refused:
		text = "Operation refused"
	case TimedOut:
		text = "Operation timed out"
	}
	return fmt.Sprintf("%d: %s", int(c), text)
}

const (
	// maxEntries bounds the names that are remembered or asked for.
	maxEntries = 8192
	// idleTime is after how many seconds without use a name is forgotten,
	// whatever its TTL.
	idleTime = 30
	// maxAliases bounds a chain of CNAMEs.
	maxAliases = 50
	// failedTime is for how many seconds the want of an address counts.
	failedTime = 10
)

// Resolver is a set of servers and what they have answered. It is safe for
// concurrent use.
type Resolver struct {
	conf   Config
	server atomic.Uint32 // whom the next look-up asks first

	mu      sync.Mutex
	entries map[key]*entry
	order   list.List // of *entry, the one used last in front
	closed  bool
}

// key is what is asked for: a name, or the servers of a service.
type key struct {
	name    string // lower case, without a dot at the end
	service bool
}

// entry is one question: being asked, or answered.
type entry struct {
	key
	done   chan struct{} // closed when result is there
	result result        // not written after that

	// Resolver.mu guards the rest.
	settled bool
	waiting int
	cancel  context.CancelFunc
	used    int64 // seconds
	place   *list.Element
}

// result is what a question came to.
type result struct {
	code  Code
	addrs []netip.Addr // IPv4 first
	four  int          // how many of them are IPv4
	cname string       // when there is no address: where to go on
	srvs  []target
	valid int64 // until when it counts, in seconds
}

// New makes a resolver. It asks nobody until it is used.
func New(c Config) *Resolver {
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	return &Resolver{conf: c, entries: map[key]*entry{}}
}

// Close ends all look-ups.
func (r *Resolver) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, e := range r.entries {
		if !e.settled {
			e.cancel()
		}
	}
}

// HasServers says whether there is anybody to ask.
func (r *Resolver) HasServers() bool { return r != nil && len(r.conf.Servers) > 0 }

// Cached appends the addresses of a name to dst if they are known: in turn from
// a random one on. It does not allocate unless dst has no room.
func (r *Resolver) Cached(dst []netip.Addr, name string) ([]netip.Addr, bool) {
	k := nameKey(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now().Unix()
	for range maxAliases + 1 {
		e := r.entries[k]
		if e == nil || !e.settled || e.result.valid < now {
			return dst, false
		}
		r.touch(e, now)
		if e.result.cname == "" {
			return e.result.appendRotated(dst), true
		}
		k.name = e.result.cname
	}
	return dst, false
}

// Lookup appends the addresses of a name to dst. The error is a Code, or that
// of ctx when it was canceled; its deadline gives TimedOut.
func (r *Resolver) Lookup(ctx context.Context, dst []netip.Addr, name string) ([]netip.Addr, error) {
	addrs, _, err := r.lookup(ctx, dst, name)
	return addrs, err
}

// lookup also says until when the answer counts.
func (r *Resolver) lookup(ctx context.Context, dst []netip.Addr, name string) ([]netip.Addr, int64, error) {
	if a, err := netip.ParseAddr(name); err == nil && a.Is4() {
		return append(dst, a), time.Now().Unix() + idleTime, nil
	}
	e, cached, err := r.follow(ctx, nameKey(name))
	switch {
	case err != nil:
		return dst, r.failedUntil(), err
	case cached:
		return e.result.appendRotated(dst), e.result.valid, nil
	}
	return append(dst, e.result.addrs...), e.result.valid, nil
}

func (r *Resolver) failedUntil() int64 {
	now := time.Now().Unix()
	if r.conf.Valid > 0 {
		return now + int64(r.conf.Valid/time.Second)
	}
	return now + failedTime
}

func nameKey(name string) key { return key{name: strings.ToLower(strings.TrimSuffix(name, "."))} }

// follow waits for the answer to a question, and goes on where aliases lead.
func (r *Resolver) follow(ctx context.Context, k key) (e *entry, cached bool, err error) {
	for range maxAliases + 1 {
		if e, cached, err = r.wait(ctx, k); err != nil {
			return nil, false, err
		}
		if e.result.code != 0 {
			return nil, false, e.result.code
		}
		if e.result.cname == "" {
			return e, cached, nil
		}
		k.name = e.result.cname
	}
	return nil, false, NotFound // a chain without an end
}

// wait gives the answer to a question, once there is one.
func (r *Resolver) wait(ctx context.Context, k key) (e *entry, cached bool, err error) {
	now := time.Now().Unix()
	r.mu.Lock()
	e = r.entries[k]
	if e != nil && e.settled {
		if e.result.valid >= now {
			r.touch(e, now)
			r.mu.Unlock()
			return e, true, nil
		}
		r.forget(e)
		e = nil
	}
	if e == nil {
		if e, err = r.begin(k, now); err != nil {
			r.mu.Unlock()
			return nil, false, err
		}
	}
	e.waiting++
	r.mu.Unlock()
	select {
	case <-e.done:
		return e, false, nil
	case <-ctx.Done():
		r.leave(e)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, false, TimedOut
		}
		return nil, false, ctx.Err()
	}
}

// begin asks a question that nobody has asked yet. The caller holds r.mu.
func (r *Resolver) begin(k key, now int64) (*entry, error) {
	r.expire(now)
	if r.closed || len(r.entries) >= maxEntries {
		return nil, ServerFailure
	}
	l, err := r.newLookup(k)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &entry{key: k, done: make(chan struct{}), cancel: cancel, used: now}
	e.place = r.order.PushFront(e)
	r.entries[k] = e
	go func() {
		defer cancel()
		r.settle(e, l.run(ctx))
	}()
	return e, nil
}

// settle keeps an answer and wakes those who wait. Failures are not kept.
func (r *Resolver) settle(e *entry, res result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.settled, e.result = true, res
	if res.code != 0 && r.entries[e.key] == e {
		r.forget(e)
	}
	close(e.done)
}

// leave ends waiting. A question in whose answer nobody is interested any more
// is given up.
func (r *Resolver) leave(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.waiting--; e.waiting == 0 && !e.settled && r.entries[e.key] == e {
		e.cancel()
		r.forget(e)
	}
}

func (r *Resolver) touch(e *entry, now int64) {
	e.used = now
	r.order.MoveToFront(e.place)
}

func (r *Resolver) forget(e *entry) {
	delete(r.entries, e.key)
	r.order.Remove(e.place)
}

// expire forgets what has not been used for long, and what has been used least
// when there is too much. Questions being asked stay.
func (r *Resolver) expire(now int64) {
	for at := r.order.Back(); at != nil; {
		e := at.Value.(*entry)
		at = at.Prev()
		if e.used+idleTime >= now && len(r.entries) < maxEntries {
			return
		}
		if e.settled {
			r.forget(e)
		}
	}
}

// appendRotated appends the addresses in turn: each kind from a random one on,
// and all of them from a random place on (ngx_resolver_export).
func (s *result) appendRotated(dst []netip.Addr) []netip.Addr {
	n := len(s.addrs)
	if n < 2 {
		return append(dst, s.addrs...)
	}
	four, six := s.addrs[:s.four], s.addrs[s.four:]
	start, i4, i6 := rand.IntN(n), randomIndex(len(four)), randomIndex(len(six))
	for k := range n {
		if at := (n - start + k) % n; at < len(four) {
			dst = append(dst, four[(i4+at)%len(four)])
		} else {
			dst = append(dst, six[(i6+at-len(four))%len(six)])
		}
	}
	return dst
}

func randomIndex(n int) int {
	if n == 0 {
		return 0
	}
	return rand.IntN(n)
}
