package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// One try to have an order fulfilled.

// attempt tries to have an order fulfilled, one try with all that belongs to
// it, and writes down how it went.
func (k *keeper) attempt(t *task) *tls.Certificate {
	now := k.o.Now()
	switch err := k.locks.tryLock(t.id); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		t.record.Next = now.Add(othersPause)
		return nil
	case err == nil:
		defer func() { _ = k.locks.Unlock(context.Background(), t.id) }()
	case !t.urgent(now):
		k.failed(t, storageError{err})
		return nil
	}
	if cert := k.adopt(t); cert != nil {
		return cert
	}
	t.record.Tried = now
	t.record.Begun++
	t.record.Next = now.Add(backOff(unreachable, t.record.Begun))
	// Written first: a process that ends in the middle, again and again, must
	// not ask ever more often.
	if err := k.storeOf(&t.order).saveRecord(t.id, &t.record); err != nil && !t.urgent(now) {
		k.failed(t, err)
		return nil
	}
	k.mu.Lock()
	k.starts[t.from.id()] = append(k.starts[t.from.id()], now)
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(k.ctx, tryLimit)
	defer cancel()
	var text []byte
	var cert *tls.Certificate
	var err error
	if t.cert != nil && t.allowed != nil {
		err = t.allowed(ctx, t.names[0])
	}
	if err == nil {
		text, cert, err = k.obtain(ctx, t)
	}
	if k.ctx.Err() != nil {
		t.record.Begun--
		t.record.Next = time.Time{}
		_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
		return nil // the server ends
	}
	if err != nil {
		k.failed(t, err)
		return nil
	}
	renewed := t.cert != nil
	t.cert = cert
	t.record.Begun, t.record.Failures, t.record.Doubtful, t.record.Error = 0, 0, false, ""
	t.record.Next, t.record.Renew, t.record.AskAgain = time.Time{}, time.Time{}, time.Time{}
	if cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore) < time.Hour {
		t.record.AskAgain = cert.Leaf.NotAfter // too short for wishes
	}
	if now := k.o.Now(); !now.Before(t.renewAt()) {
		t.record.Next = now.Add(askPeriod)
		k.o.Log("warn", fmt.Sprintf("certificate for %s is valid from %s until %s UTC: the clock of this machine, at %s UTC, must be wrong",
			&t.order, cert.Leaf.NotBefore.UTC().Format(time.DateTime), cert.Leaf.NotAfter.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime)))
	}
	what := "obtained"
	if renewed {
		what = "renewed"
	}
	k.o.Log("notice", fmt.Sprintf("certificate for %s was %s from %s by %s%s", &t.order, what, hostOf(t.from.directory), t.record.Method, until(cert)))
	err = k.storeOf(&t.order).saveBundle(t.id, text)
	if err == nil {
		t.unsaved = nil
		err = k.storeOf(&t.order).saveRecord(t.id, &t.record)
	} else {
		t.unsaved = text
		t.record.Next = now.Add(storagePause)
	}
	if err != nil {
		k.o.Log("error", fmt.Sprintf("certificate for %s is served but %v", &t.order, err))
	}
	return cert
}

// urgent says whether a certificate ends so soon that it is better renewed in
// memory than not at all.
func (t *task) urgent(now time.Time) bool {
	if t.cert == nil {
		return false
	}
	leaf := t.cert.Leaf
	return leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/6
}

// othersPause is how long an order is left to another process that works on it:
// the one before an upgrade, or one on another machine.
const othersPause = 15 * time.Second

// adopt takes over what another process has obtained meanwhile.
func (k *keeper) adopt(t *task) *tls.Certificate {
	if t.force {
		return nil
	}
	r, cert := k.storeOf(&t.order).load(t.id)
	if cert == nil || t.cert != nil && !cert.Leaf.NotBefore.After(t.cert.Leaf.NotBefore) {
		return nil
	}
	adopted := task{record: r, cert: cert}
	if !k.o.Now().Before(adopted.renewAt()) {
		return nil
	}
	t.record, t.cert = r, cert
	return cert
}

// failed writes down a failure and when to try again.
func (k *keeper) failed(t *task, err error) {
	kind := classify(err)
	t.record.Begun = 0
	t.record.Failures++
	t.record.Error = reason(err)
	t.record.Doubtful = t.record.Doubtful || judged(kind)
	t.record.Next = k.o.Now().Add(backOff(kind, t.record.Failures))
	if kind == limited {
		if at, ok := retryAfter(err); ok && at.After(t.record.Next) {
			t.record.Next = at
		}
	}
	_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
	what := "obtained"
	if t.cert != nil {
		what = "renewed"
	}
	k.o.Log("error", fmt.Sprintf("certificate for %s could not be %s from %s: %s; next try at %s UTC%s",
		&t.order, what, hostOf(t.from.directory), t.record.Error, t.record.Next.UTC().Format(time.DateTime), t.outlook()))
}

// outlook says until when the certificate that there is will do.
func (t *task) outlook() string {
	if t.cert == nil {
		return ""
	}
	return "; the one that is served is" + strings.TrimPrefix(until(t.cert), ",")
}

// backOff is how long to wait after the nth failure in a row. Proofs that fail
// are counted by authorities; a server that does not answer soon may.
func backOff(kind trouble, n int) time.Duration {
	first, factor, most := 5*time.Second, 2, time.Hour
	switch kind {
	case unproven, refused:
		first, factor, most = 30*time.Second, 3, 24*time.Hour
	case limited:
		first, factor, most = time.Hour, 2, 24*time.Hour
	case unkept:
		first, factor, most = 10*time.Second, 2, 10*time.Minute
	case unreachable:
	}
	wait := first
	for range n - 1 {
		if wait *= time.Duration(factor); wait >= most {
			return most
		}
	}
	return wait
}

// obtain has a certificate issued, by one way to prove the names after the
// other. After a failure it must work at the authority's staging directory
// before the real one is asked again.
func (k *keeper) obtain(ctx context.Context, t *task) (text []byte, cert *tls.Certificate, err error) {
	ways := k.ways(t)
	if len(ways) == 0 {
		return nil, nil, errors.New("no way to prove the names: nothing here listens on TCP, and no way to change the DNS is configured")
	}
	key, err := newKey(t.key)
	if err != nil {
		return nil, nil, err
	}
	stapled := t.mustStaple
	if t.cert != nil {
		stapled = mustStaple(t.cert.Leaf)
	}
	if t.record.Doubtful && t.from.staging != "" {
		_, left, err := k.oneWay(ctx, t, request{directory: t.from.staging, key: key, mustStaple: stapled}, ways)
		switch {
		case err == nil:
			ways = left
		case judged(classify(err)):
			return nil, nil, fmt.Errorf("tried at %s first: %w", hostOf(t.from.staging), err)
		}
		if key, err = newKey(t.key); err != nil {
			return nil, nil, err
		}
	}
	r := request{directory: t.from.directory, key: key, mustStaple: stapled}
	if t.cert != nil && t.record.Failures%2 == 0 { // the authority may not know what is replaced
		r.replaces = t.cert.Leaf
	}
	chain, _, err := k.oneWay(ctx, t, r, ways)
	if err != nil {
		return nil, nil, err
	}
	return bundle(key, chain)
}

// way is how the names of an order can be proved, and where we listen for it.
type way struct {
	method method
	at     addrPort
}

// oneWay tries ways until one works. It gives what is left of them, that one
// first.
func (k *keeper) oneWay(ctx context.Context, t *task, r request, ways []way) (chain []byte, left []way, err error) {
	var failures attempts
	for i, w := range ways {
		r.order, r.method, r.at = &t.order, w.method, w.at
		k.o.Log("notice", fmt.Sprintf("certificate for %s: asking %s by %s", &t.order, hostOf(r.directory), w.method))
		if chain, err = k.issued(ctx, r); err == nil {
			t.record.Method = w.method
			return chain, ways[i:], nil
		}
		err = fmt.Errorf("by %s: %w", w.method, err)
		failures = append(failures, err)
		if classify(err) != unproven || ctx.Err() != nil {
			break
		}
	}
	return nil, nil, failures
}

// attempts are the failures of one try, by one way after the other.
type attempts []error

func (a attempts) Error() string {
	text := make([]string, len(a))
	for i, err := range a {
		text[i] = err.Error()
	}
	return strings.Join(text, "; ")
}

// Unwrap gives the last failure: it says what is to be done.
func (a attempts) Unwrap() error { return a[len(a)-1] }

// ways lists how names can be proved: by HTTP before TLS, but what is served on
// its standard port before what needs somebody to forward it, and what worked
// last time before all.
func (k *keeper) ways(t *task) []way {
	if t.from.dns != (DNS{}) {
		return []way{{method: byDNS}}
	}
	k.mu.Lock()
	ports := k.ports
	k.mu.Unlock()
	var standard, other []way
	for _, w := range []struct {
		method method
		at     []addrPort
		port   uint16
	}{{byHTTP, ports.HTTP, 80}, {byTLS, ports.TLS, 443}} {
		if t.only != "" && t.only != w.method || len(w.at) == 0 {
			continue
		}
		i := slices.IndexFunc(w.at, func(a addrPort) bool { return a.Port() == w.port })
		if i >= 0 {
			standard = append(standard, way{w.method, w.at[i]})
		} else {
			other = append(other, way{w.method, w.at[0]})
		}
	}
	ways := append(standard, other...)
	if i := slices.IndexFunc(ways, func(w way) bool { return w.method == t.record.Method }); i > 0 {
		ways[0], ways[i] = ways[i], ways[0]
	}
	return ways
}
