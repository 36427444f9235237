package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// keeper has certificates issued and renewed, each in its time. It tries as
// often as helps and as seldom as an authority's limits ask for, and remembers
// over restarts what it has tried.
type keeper struct {
	o       *Options
	store   store
	locks   *folder // of orders that are worked on
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
	turn    int  // its place in the configuration
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

func newKeeper(o *Options, data *folder, i *issuer, changed func()) *keeper {
	k := &keeper{
		o: o, store: store{data.sub("certificates")}, locks: data, issue: i.issue, renewal: i.renewalTime, changed: changed, limit: limitOrders,
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
		t.wanted, t.turn = true, i
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
	var err error
	if t.record, t.cert, err = k.storeOf(o).read(id); err != nil {
		k.o.Log("error", fmt.Sprintf("certificate for %s: what is kept is broken, it is obtained anew: %v", o, err))
	}
	t.record.order(o)
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
		t.distrust(now)
		if t.running || t.idle(now) || !t.wanted && t.unsaved == nil && !t.force {
			continue
		}
		if wait := t.due().Sub(now); wait <= 0 {
			due = append(due, t)
		} else {
			pause = min(pause, wait)
		}
	}
	slices.SortFunc(due, func(a, b *task) int { return cmp.Or(a.due().Compare(b.due()), a.turn-b.turn) })
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

// distrust forgets times that were written down while the clock was ahead.
func (t *task) distrust(now time.Time) {
	if !t.running && t.record.Tried.After(now.Add(time.Hour)) {
		t.record.Tried, t.record.Next, t.record.AskAgain = now, time.Time{}, time.Time{}
	}
}

// mayBegin keeps orders apart that share a name, whose challenges would be in
// each other's way, and an account inside its limit.
func (k *keeper) mayBegin(t *task, now time.Time) bool {
	if slices.ContainsFunc(t.names, func(n string) bool { return k.busy[n] }) {
		return false
	}
	account := t.from.id()
	recent := slices.DeleteFunc(k.starts[account], func(at time.Time) bool { return now.Sub(at).Abs() >= limitWindow })
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

// renewAt is the time to renew: the authority's wish, else when a third of the
// lifetime is left, or half of a short one. A wish that lies in the past is for
// now, but not at once again and again.
func (t *task) renewAt() time.Time {
	leaf := t.cert.Leaf
	wish := t.record.Renew
	if wish.IsZero() || !wish.Before(leaf.NotAfter) {
		return renewalDue(leaf)
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	first, last := leaf.NotBefore.Add(min(askPeriod, life/4)), leaf.NotAfter.Add(-life/6)
	switch {
	case wish.Before(first):
		return first
	case wish.After(last):
		return last
	}
	return wish
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
	case work.unsaved != nil && !work.force && !work.urgent(now):
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
		k.o.Log("info", fmt.Sprintf("certificate for %s: %s does not say when to renew it: %s", &t.order, hostOf(t.from.directory), reason(err)))
	} else if !at.IsZero() {
		t.record.Renew = at
		if early := t.renewAt(); early.Before(renewalDue(t.cert.Leaf)) && !early.After(again) {
			k.o.Log("notice", fmt.Sprintf("certificate for %s: %s wants it to be renewed at %s UTC already", &t.order, hostOf(t.from.directory), early.UTC().Format(time.DateTime)))
		}
	}
	if again.Before(now.Add(time.Minute)) {
		again = now.Add(askPeriod)
	}
	t.record.AskAgain = again
	_ = k.storeOf(&t.order).saveRecord(t.id, &t.record)
}
