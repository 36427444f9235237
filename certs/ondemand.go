package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Certificates at the first handshake, for servers that cannot say which names
// they have. Somebody must say of each name that it is served here: everybody
// can point names to this machine.

const (
	maxDemanded   = 10_000 // names with a certificate or on the way to one
	maxRefused    = 10_000 // names remembered as refused
	refusedTime   = time.Minute
	maxAsking     = 16 // questions at once
	askTimeout    = 5 * time.Second
	demandTimeout = 55 * time.Second // of a handshake that waits; http servers mostly give 60
	// demandIdle is how long after its last handshake a certificate is renewed.
	demandIdle = 14 * 24 * time.Hour
)

// onDemand decides about names.
type onDemand struct {
	ask    string // URL; "" is no certificates on demand
	client *http.Client
	slots  chan struct{}
	now    func() time.Time

	mu      sync.Mutex
	refused map[string]time.Time // until when
}

var errRefused = errors.New("no certificate for this name: it is not served here")

func newOnDemand(o *Options) *onDemand {
	return &onDemand{
		ask: o.OnDemandAsk, now: o.Now, slots: make(chan struct{}, maxAsking), refused: map[string]time.Time{},
		client: &http.Client{Timeout: askTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// allowed asks whether a name is served here.
func (d *onDemand) allowed(ctx context.Context, name string) error {
	d.mu.Lock()
	until := d.refused[name]
	d.mu.Unlock()
	if d.now().Before(until) {
		return errRefused
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	u, err := url.Parse(d.ask)
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("domain", name)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking whether %s is served here: %w", name, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.refused) >= maxRefused {
		clear(d.refused)
	}
	d.refused[name] = d.now().Add(refusedTime)
	return errRefused
}

// demand gives the certificate for the name of a handshake, obtained now if
// need be.
func (m *Manager) demand(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	from := m.options.ACME.defaultAuthority()
	if len(publicNames([]string{name}, false, from.public())) == 0 {
		return nil, errNoCertificate
	}
	ctx, cancel := context.WithTimeout(hello.Context(), demandTimeout)
	defer cancel()
	return m.keeper.demanded(ctx, order{names: []string{name}, from: from, key: defaultKey}, m.onDemand.allowed)
}

// demanded gives the certificate of an order, once somebody has allowed it.
func (k *keeper) demanded(ctx context.Context, o order, allowed func(context.Context, string) error) (*tls.Certificate, error) {
	if cert := k.have(&o); cert != nil {
		return cert, nil
	}
	if err := allowed(ctx, o.names[0]); err != nil {
		if !errors.Is(err, errRefused) {
			k.o.Log("error", err.Error())
		}
		return nil, err
	}
	done, err := k.begun(&o, allowed)
	if err != nil {
		return nil, err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if cert := k.have(&o); cert != nil {
		return cert, nil
	}
	return nil, errNoCertificate
}

// have gives a certificate in memory, and notes that it was used.
func (k *keeper) have(o *order) *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[o.id()]
	if t == nil || t.cert == nil || !k.o.Now().Before(t.cert.Leaf.NotAfter) {
		return nil
	}
	t.used = k.o.Now()
	return t.cert
}

// begun has an order worked on; done is closed when there is something to have.
func (k *keeper) begun(o *order, allowed func(context.Context, string) error) (done chan struct{}, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tasks[o.id()] == nil && len(k.tasks) >= maxDemanded {
		k.forgetIdle()
		if len(k.tasks) >= maxDemanded {
			return nil, errors.New("no certificate for this name: too many are in use")
		}
	}
	t := k.task(o)
	now := k.o.Now()
	t.wanted, t.used, t.allowed = true, now, allowed
	if t.cert != nil && now.Before(t.cert.Leaf.NotAfter) {
		done = make(chan struct{})
		close(done)
		return done, nil
	}
	if !t.running && t.due().After(now) {
		return nil, fmt.Errorf("no certificate for this name before %s UTC: %s", t.record.Next.UTC().Format(time.DateTime), t.record.Error)
	}
	if t.done == nil {
		t.done = make(chan struct{})
	}
	k.rouse()
	return t.done, nil
}

// forgetIdle makes room; what is kept on disk is found again.
func (k *keeper) forgetIdle() {
	for id, t := range k.tasks {
		if t.idle(k.o.Now()) && !t.running {
			delete(k.tasks, id)
		}
	}
}

// idle says whether a certificate on demand is not used any more.
func (t *task) idle(now time.Time) bool { return t.allowed != nil && now.Sub(t.used) > demandIdle }

// shows says whether one of the certificates is for the name of a handshake.
func shows(certs []*tls.Certificate, name string) bool {
	return slices.ContainsFunc(certs, func(c *tls.Certificate) bool { return c.Leaf != nil && c.Leaf.VerifyHostname(name) == nil })
}
