package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// keeper has certificates issued and renewed, each in its time. It tries as
// often as helps and as seldom as an authority's limits ask for, and remembers
// over restarts what it has tried.
type keeper struct {
	o       *Options
	store   store
	issue   func(context.Context, request) ([]byte, error)
	renewal func(context.Context, *order, *x509.Certificate) (at, again time.Time, err error)
	changed func() // there is a new certificate
	limit   int    // orders of an account within limitWindow

	ctx    context.Context //nolint:containedctx // of what runs in the background, ended by close
	cancel context.CancelFunc
	ended  sync.WaitGroup
	wake   chan struct{}

	mu      sync.Mutex
	ports   Ports
	tasks   map[string]*task
	busy    map[string]bool        // names that are being proved
	running int                    // tries under way
	starts  map[string][]time.Time // of tries, by account
	limited map[string]time.Time   // until when an account's orders wait
}

// task is the work on one order.
type task struct {
	order
	id      string
	record  record
	cert    *tls.Certificate // what is served; nil when there is none yet
	unsaved []byte           // a bundle that could not be kept yet
	running bool
	wanted  bool
	force   bool // try now, whatever there is

	// Of a certificate on demand: who says that its name is served here, when a
	// handshake last used it, and what a handshake waits for.
	allowed func(context.Context, string) error
	used    time.Time
	done    chan struct{} // closed when a try ends; nil if nobody waits
}

const (
	maxRunning = 8 // orders at once
	// What Let's Encrypt allows an account is 300 orders in 3 hours.
	limitOrders = 280
	limitWindow = 3 * time.Hour
	// askPeriod is how often an authority is asked when it wants a renewal,
	// unless it says so itself.
	askPeriod = 6 * time.Hour
	tryLimit  = 5 * time.Minute
)

func newKeeper(o *Options, s store, i *issuer, changed func()) *keeper {
	k := &keeper{
		o: o, store: s, issue: i.issue, renewal: i.renewalTime, changed: changed, limit: limitOrders,
		wake: make(chan struct{}, 1), tasks: map[string]*task{}, busy: map[string]bool{}, starts: map[string][]time.Time{}, limited: map[string]time.Time{},
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

func (k *keeper) close() {
	k.cancel()
	k.ended.Wait()
}

// want makes orders the ones that are worked on and gives the certificate of
// each, nil where there is none yet.
func (k *keeper) want(orders []order, ports Ports) []*tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports = ports
	for _, t := range k.tasks {
		t.wanted = t.allowed != nil
	}
	certs := make([]*tls.Certificate, len(orders))
	for i := range orders {
		t := k.task(&orders[i])
		t.wanted = true
		certs[i] = t.cert
	}
	for id, t := range k.tasks {
		if !t.wanted && !t.running && t.unsaved == nil && !t.force {
			delete(k.tasks, id)
		}
	}
	k.rouse()
	return certs
}

// task finds or makes the work on an order.
func (k *keeper) task(o *order) *task {
	id := o.id()
	if t := k.tasks[id]; t != nil {
		t.order = *o
		return t
	}
	t := &task{order: *o, id: id}
	t.record, t.cert = k.storeOf(o).load(id)
	t.record.Names, t.record.Directory = o.names, o.from.directory
	k.tasks[id] = t
	if tried := t.record.Tried; k.o.Now().Sub(tried) < limitWindow {
		account := o.from.id()
		k.starts[account] = append(k.starts[account], tried)
	}
	return t
}

// storeOf is where an order's certificate is kept.
func (k *keeper) storeOf(o *order) store {
	if o.from.folder != "" {
		return store{k.store.at(filepath.Join(o.from.folder, "certificates"))}
	}
	return k.store
}

// rouse has the loop look at the tasks again.
func (k *keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// maxPause bounds how long the loop sleeps, for clocks that are set.
const maxPause = time.Minute

func (k *keeper) loop() {
	timer := time.NewTimer(maxPause)
	defer timer.Stop()
	for {
		timer.Reset(k.begin())
		select {
		case <-k.ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
	}
}

// begin starts what is due and says how long nothing else is.
func (k *keeper) begin() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Now()
	pause := maxPause
	var due []*task
	for _, t := range k.tasks {
		if t.running || t.idle(now) || !t.wanted && t.unsaved == nil && !t.force {
			continue
		}
		if wait := t.due().Sub(now); wait <= 0 {
			due = append(due, t)
		} else {
			pause = min(pause, wait)
		}
	}
	slices.SortFunc(due, func(a, b *task) int { return a.due().Compare(b.due()) })
	for _, t := range due {
		if k.running == maxRunning {
			break // the end of one rouses
		}
		if !k.mayBegin(t, now) {
			continue
		}
		t.running = true
		k.running++
		for _, n := range t.names {
			k.busy[n] = true
		}
		k.ended.Go(func() { k.run(t) })
	}
	return max(pause, 10*time.Millisecond)
}

// mayBegin keeps orders apart that share a name, whose challenges would be in
// each other's way, and an account inside its limit.
func (k *keeper) mayBegin(t *task, now time.Time) bool {
	if slices.ContainsFunc(t.names, func(n string) bool { return k.busy[n] }) {
		return false
	}
	account := t.from.id()
	recent := slices.DeleteFunc(k.starts[account], func(at time.Time) bool { return now.Sub(at) >= limitWindow })
	k.starts[account] = recent
	if len(recent) >= k.limit && t.unsaved == nil && !t.asks(now) {
		free := slices.MinFunc(recent, time.Time.Compare).Add(limitWindow)
		if !k.limited[account].Equal(free) {
			k.limited[account] = free
			k.o.Log("warn", fmt.Sprintf("%d certificates were asked of %s within %v: further orders wait until %s UTC",
				len(recent), hostOf(t.from.directory), limitWindow, free.UTC().Format(time.DateTime)))
		}
		t.record.Next = free
		return false
	}
	return true
}

// due is when something is to be done for a task.
func (t *task) due() time.Time {
	switch {
	case t.force:
		return time.Time{}
	case t.cert == nil:
		return t.record.Next
	}
	at := t.renewAt()
	if ask := t.record.AskAgain; ask.Before(at) {
		at = ask
	}
	if at.Before(t.record.Next) {
		return t.record.Next
	}
	return at
}

// asks says whether what is due is only to ask the authority for its wish.
func (t *task) asks(now time.Time) bool {
	return t.cert != nil && !t.force && t.unsaved == nil && now.Before(t.renewAt())
}

// renewAt is the time to renew: the authority's wish, but no later than when a
// third of the lifetime is left, or half of a short one.
func (t *task) renewAt() time.Time {
	at := renewalDue(t.cert.Leaf)
	if wish := t.record.Renew; !wish.IsZero() && wish.Before(t.cert.Leaf.NotAfter) && wish.After(t.cert.Leaf.NotBefore) {
		return wish
	}
	return at
}

const shortLife = 10 * 24 * time.Hour

func renewalDue(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if life < shortLife {
		return leaf.NotAfter.Add(-life / 2)
	}
	return leaf.NotAfter.Add(-life / 3)
}

// run does what is due for a task.
func (k *keeper) run(t *task) {
	now := k.o.Now()
	k.mu.Lock()
	work := *t
	asks := t.asks(now)
	k.mu.Unlock()
	var cert *tls.Certificate
	switch {
	case work.unsaved != nil && !work.force:
		k.keep(&work)
	case asks:
		k.ask(&work)
	default:
		cert = k.attempt(&work)
	}
	k.mu.Lock()
	t.record, t.cert, t.unsaved, t.running, t.force = work.record, work.cert, work.unsaved, false, false
	for _, n := range t.names {
		delete(k.busy, n)
	}
	k.running--
	if t.done != nil {
		close(t.done)
		t.done = nil
	}
	k.mu.Unlock()
	if cert != nil && k.ctx.Err() == nil {
		k.changed()
	}
	k.rouse()
}

// keep tries again to write down a certificate that is served already.
func (k *keeper) keep(t *task) {
	if err := k.storeOf(&t.order).saveBundle(t.id, t.unsaved); err != nil {
		t.record.Next = k.o.Now().Add(storagePause)
		return
	}
	t.unsaved = nil
	t.record.Next = time.Time{}
	_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
	k.o.Log("notice", fmt.Sprintf("certificate for %s: kept in storage now", &t.order))
}

// storagePause is how long a storage that does not work is left alone.
const storagePause = time.Minute

// ask learns when the authority wants a certificate to be renewed.
func (k *keeper) ask(t *task) {
	ctx, cancel := context.WithTimeout(k.ctx, time.Minute)
	defer cancel()
	at, again, err := k.renewal(ctx, &t.order, t.cert.Leaf)
	now := k.o.Now()
	if err != nil {
		k.o.Log("info", fmt.Sprintf("certificate for %s: %s does not say when to renew it: %v", &t.order, hostOf(t.from.directory), err))
	} else if !at.IsZero() {
		t.record.Renew = at
	}
	if again.Before(now.Add(time.Minute)) {
		again = now.Add(askPeriod)
	}
	t.record.AskAgain = again
	_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
}

// attempt tries to have an order fulfilled, one try with all that belongs to
// it, and writes down how it went.
func (k *keeper) attempt(t *task) *tls.Certificate {
	now := k.o.Now()
	t.record.Tried = now
	t.record.Begun++
	t.record.Next = now.Add(backOff(unreachable, t.record.Begun))
	// Written first: a process that ends in the middle, again and again, must
	// not ask ever more often.
	if err := k.storeOf(&t.order).saveRecord(t.id, &t.record); err != nil {
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
	t.record.Begun, t.record.Failures, t.record.Error = 0, 0, ""
	t.record.Next, t.record.Renew, t.record.AskAgain = time.Time{}, time.Time{}, time.Time{}
	if cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore) < time.Hour {
		t.record.AskAgain = cert.Leaf.NotAfter // too short for wishes
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

// failed writes down a failure and when to try again.
func (k *keeper) failed(t *task, err error) {
	kind := classify(err)
	t.record.Begun = 0
	t.record.Failures++
	t.record.Error = err.Error()
	t.record.Next = k.o.Now().Add(backOff(kind, t.record.Failures))
	if kind == limited {
		if at, ok := retryAfter(err); ok && at.After(t.record.Next) {
			t.record.Next = at
		}
	}
	_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
	k.o.Log("error", fmt.Sprintf("certificate for %s could not be obtained from %s: %v; next try at %s UTC",
		&t.order, hostOf(t.from.directory), err, t.record.Next.UTC().Format(time.DateTime)))
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
	if t.record.Failures > 0 && t.from.staging != "" {
		if _, ways, err = k.oneWay(ctx, t, request{directory: t.from.staging, key: key}, ways); err != nil {
			return nil, nil, fmt.Errorf("tried at %s first: %w", hostOf(t.from.staging), err)
		}
		if key, err = newKey(t.key); err != nil {
			return nil, nil, err
		}
	}
	r := request{directory: t.from.directory, key: key}
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
		if chain, err = k.issue(ctx, r); err == nil {
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
