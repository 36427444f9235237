package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// authorityStub stands for an authority: it issues, or fails as it is told.
type authorityStub struct {
	t     *testing.T
	now   time.Time
	life  time.Duration
	fails func(r request) error
	asked []string // method@directory
	log   []string
	keep  *keeper
	dir   string
}

func newAuthorityStub(t *testing.T) *authorityStub {
	a := &authorityStub{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), life: 90 * 24 * time.Hour, dir: t.TempDir()}
	a.restart()
	return a
}

// restart makes a keeper with nothing but what is on disk.
func (a *authorityStub) restart() {
	o := &Options{Now: func() time.Time { return a.now }, Log: func(level, text string) { a.log = append(a.log, level+": "+text) }}
	o.complete()
	k := newKeeper(o, newFolder(a.dir, o.AsRoot), &issuer{}, func() {})
	k.issue = a.issue
	k.renewal = func(context.Context, *order, *x509.Certificate) (at, again time.Time, err error) {
		return at, again, errors.New("it does not say")
	}
	k.ports = Ports{
		HTTP: []addrPort{netip.MustParseAddrPort("0.0.0.0:80")},
		TLS:  []addrPort{netip.MustParseAddrPort("0.0.0.0:443")},
	}
	a.keep = k
}

func (a *authorityStub) issue(_ context.Context, r request) ([]byte, error) {
	a.asked = append(a.asked, string(r.method)+"@"+r.directory)
	if a.fails != nil {
		if err := a.fails(r); err != nil {
			return nil, err
		}
	}
	return issueStub(a.t, r.order.names, r.key.Public(), a.now, a.life), nil
}

func issueStub(t *testing.T, names []string, key crypto.PublicKey, now time.Time, life time.Duration) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(), DNSNames: names, NotBefore: now, NotAfter: now.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, ca)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// work does what is due for an order and gives its certificate.
func (a *authorityStub) work(o order) (*task, *tls.Certificate) {
	a.t.Helper()
	a.keep.want([]order{o}, a.keep.ports)
	t := a.keep.tasks[o.id()]
	for range 3 {
		if t.due().After(a.now) || !a.keep.mayBegin(t, a.now) {
			break
		}
		a.keep.running++
		a.keep.run(t)
	}
	return t, t.cert
}

func testOrder(names ...string) order {
	return order{names: names, from: authority{directory: "https://ca.test/dir", staging: "https://staging.test/dir"}, key: defaultKey}
}

func TestKeeperWays(t *testing.T) {
	asked := 0
	proof := fmt.Errorf("solving challenge: %w", acme.Problem{Type: acme.ProblemTypeConnection})
	for _, tt := range []struct {
		name  string
		fails func(r request) error
		want  string // what was asked, in three tries an hour apart
	}{
		{"all is well", nil, "http-01@https://ca.test/dir"},
		{
			"port 80 is closed",
			func(r request) error {
				if r.method == byHTTP {
					return proof
				}
				return nil
			},
			"http-01@https://ca.test/dir tls-alpn-01@https://ca.test/dir",
		},
		{
			"away",
			func(request) error { return errors.New("no such host") },
			strings.Repeat("http-01@https://ca.test/dir ", 3),
		},
		{
			"nothing can be proved: only the staging directory is asked again",
			func(request) error { return proof },
			"http-01@https://ca.test/dir tls-alpn-01@https://ca.test/dir " +
				strings.Repeat("http-01@https://staging.test/dir tls-alpn-01@https://staging.test/dir ", 2),
		},
		{
			"the staging directory is away: the real one is asked all the same",
			func(r request) error {
				if r.directory == "https://staging.test/dir" {
					return acme.Problem{Type: acme.ProblemTypeServerInternal}
				}
				return acme.Problem{Type: acme.ProblemTypeCAA}
			},
			"http-01@https://ca.test/dir" + strings.Repeat(" http-01@https://staging.test/dir http-01@https://ca.test/dir", 2),
		},
		{
			"refused before, then right",
			func(r request) error {
				if r.directory == "https://ca.test/dir" && asked == 1 {
					return acme.Problem{Type: acme.ProblemTypeRejectedIdentifier}
				}
				return nil
			},
			"http-01@https://ca.test/dir http-01@https://staging.test/dir http-01@https://ca.test/dir",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthorityStub(t)
			asked = 0
			a.fails = func(r request) error {
				asked++
				if tt.fails == nil {
					return nil
				}
				return tt.fails(r)
			}
			for range 3 {
				a.work(testOrder("site.test"))
				a.now = a.now.Add(time.Hour)
			}
			if got := strings.Join(a.asked, " "); got != strings.TrimSpace(tt.want) {
				t.Errorf("asked\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestKeeperRemembers: failures count over restarts, and so does a process that
// ends in the middle.
func TestKeeperRemembers(t *testing.T) {
	a := newAuthorityStub(t)
	a.fails = func(request) error { return acme.Problem{Type: acme.ProblemTypeRejectedIdentifier} }
	o := testOrder("site.test")
	o.from.staging = ""
	var waits []time.Duration
	for range 5 {
		task, _ := a.work(o)
		waits = append(waits, task.due().Sub(a.now))
		a.restart()
		if a.work(o); len(a.asked) != len(waits) {
			t.Fatalf("asked again at once: %q", a.asked)
		}
		a.now = task.due()
	}
	if !slices.IsSorted(waits) || waits[0] < 30*time.Second || waits[4] < 30*time.Minute {
		t.Errorf("waits %v", waits)
	}
	a.fails = nil
	if _, cert := a.work(o); cert == nil {
		t.Fatal("no certificate when it works again")
	}
	a.restart()
	n := len(a.asked)
	if _, cert := a.work(o); cert == nil || len(a.asked) != n {
		t.Errorf("after a restart: %v, asked %q", cert, a.asked[n:])
	}

	killed := testOrder("killed.test")
	a.keep.want([]order{killed}, a.keep.ports)
	task := a.keep.tasks[killed.id()]
	task.record.Begun = 3
	if err := a.keep.store.saveRecord(task.id, &task.record); err != nil {
		t.Fatal(err)
	}
	a.fails = func(request) error { panic("the process ends") }
	func() {
		defer func() { _ = recover() }()
		a.keep.run(task)
	}()
	a.restart()
	a.keep.want([]order{killed}, a.keep.ports)
	if wait := a.keep.tasks[killed.id()].due().Sub(a.now); wait < 30*time.Second {
		t.Errorf("after the fourth death the wait is %v", wait)
	}
}

// TestKeeperRenews at two thirds of the lifetime, half of a short one, or when
// the authority wants it.
func TestKeeperRenews(t *testing.T) {
	for _, tt := range []struct{ life, wish, want time.Duration }{
		{90 * 24 * time.Hour, 0, 60 * 24 * time.Hour},
		{6 * 24 * time.Hour, 0, 3 * 24 * time.Hour},
		{time.Minute, 0, 30 * time.Second},
		{90 * 24 * time.Hour, 20 * 24 * time.Hour, 20 * 24 * time.Hour},
		{90 * 24 * time.Hour, -24 * time.Hour, 6 * time.Hour}, // at once, but not again and again
		{90 * 24 * time.Hour, 90*24*time.Hour - time.Second, 75 * 24 * time.Hour},
		{90 * 24 * time.Hour, 91 * 24 * time.Hour, 60 * 24 * time.Hour},
	} {
		a := newAuthorityStub(t)
		a.life = tt.life
		o := testOrder("site.test")
		a.work(o)
		if tt.wish != 0 {
			wish := a.now.Add(tt.wish)
			a.keep.renewal = func(context.Context, *order, *x509.Certificate) (at, again time.Time, err error) {
				return wish, a.now.Add(24 * time.Hour), nil
			}
			a.keep.tasks[o.id()].record.AskAgain = time.Time{}
			a.work(o)
		}
		_, first := a.work(o)
		begin := a.now
		a.now = begin.Add(tt.want - time.Second)
		if _, cert := a.work(o); cert != first {
			t.Errorf("%v: renewed too early", tt.life)
		}
		a.now = begin.Add(tt.want + time.Second)
		if _, cert := a.work(o); cert == first {
			t.Errorf("%v: not renewed", tt.life)
		}
	}
}

// TestKeeperFullDisk: what is issued is served though it cannot be kept, and
// nothing is asked for while nothing can be kept.
func TestKeeperFullDisk(t *testing.T) {
	a := newAuthorityStub(t)
	o := testOrder("site.test")
	certFile := filepath.Join(a.dir, "certificates", o.id(), bundleFile)
	if err := os.MkdirAll(filepath.Join(certFile, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	task, cert := a.work(o)
	if cert == nil || task.unsaved == nil {
		t.Fatalf("certificate %v, log %q", cert, a.log)
	}
	if err := os.RemoveAll(certFile); err != nil {
		t.Fatal(err)
	}
	a.now = a.now.Add(time.Hour)
	a.work(o)
	if task.unsaved != nil || len(a.asked) != 1 {
		t.Errorf("unsaved %v, asked %q", task.unsaved != nil, a.asked)
	}
	other := testOrder("other.test")
	if err := os.WriteFile(filepath.Join(a.dir, "certificates", other.id()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if a.work(other); len(a.asked) != 1 {
		t.Errorf("asked %q", a.asked)
	}
}

// TestKeeperWithoutStorage: what ends soon is renewed even if nothing can be
// written any more.
func TestKeeperWithoutStorage(t *testing.T) {
	a := newAuthorityStub(t)
	o := testOrder("site.test")
	_, first := a.work(o)
	if err := os.RemoveAll(a.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.now = a.now.Add(61 * 24 * time.Hour)
	task, cert := a.work(o)
	if cert != first || len(a.asked) != 1 || task.record.Error == "" {
		t.Errorf("in time: asked %q, %+v", a.asked, task.record)
	}
	a.now = a.now.Add(20 * 24 * time.Hour)
	task, cert = a.work(o)
	if cert == first || len(a.asked) != 2 || task.unsaved == nil {
		t.Errorf("late: asked %q, %+v", a.asked, task.record)
	}
	a.now = a.now.Add(80 * 24 * time.Hour)
	if _, again := a.work(o); again == cert || len(a.asked) != 3 {
		t.Errorf("late again: asked %q, %+v", a.asked, task.record)
	}
}

// TestKeeperClock: a clock that is wrong makes no endless orders, and is not
// remembered when it is right again.
func TestKeeperClock(t *testing.T) {
	a := newAuthorityStub(t)
	right := a.now
	a.now = right.AddDate(3, 0, 0)
	a.keep.issue = func(_ context.Context, r request) ([]byte, error) {
		a.asked = append(a.asked, "")
		return issueStub(t, r.order.names, r.key.Public(), right, a.life), nil
	}
	o := testOrder("site.test")
	for range 5 {
		a.work(o)
		a.now = a.now.Add(time.Hour)
	}
	if len(a.asked) != 1 || !slices.ContainsFunc(a.log, func(s string) bool {
		return strings.Contains(s, "the clock of this machine, at 2029-01-01 00:00:00 UTC, must be wrong")
	}) {
		t.Errorf("asked %d times, %q", len(a.asked), a.log)
	}
	a.now = right.Add(61 * 24 * time.Hour)
	a.keep.begin()
	a.keep.ended.Wait()
	if len(a.asked) != 2 {
		t.Errorf("asked %d times", len(a.asked))
	}
}

// TestKeeperLimit: a thousand orders stay inside what an account may have.
func TestKeeperLimit(t *testing.T) {
	a := newAuthorityStub(t)
	a.keep.limit = 20
	var orders []order
	for i := range 1000 {
		orders = append(orders, testOrder(fmt.Sprintf("n%d.test", i)))
	}
	a.keep.want(orders, a.keep.ports)
	begun := func() (n int) {
		for i := range orders {
			task := a.keep.tasks[orders[i].id()]
			if !task.due().After(a.now) && a.keep.mayBegin(task, a.now) && task.cert == nil {
				a.keep.running++
				a.keep.run(task)
				n++
			}
		}
		return n
	}
	if n := begun(); n != a.keep.limit {
		t.Errorf("%d orders at once", n)
	}
	if a.now = a.now.Add(time.Hour); begun() != 0 {
		t.Error("more within an hour")
	}
	if a.now = a.now.Add(limitWindow); begun() != a.keep.limit {
		t.Error("no more afterwards")
	}
}

func TestRateLimited(t *testing.T) {
	a := newAuthorityStub(t)
	a.fails = func(request) error {
		return acme.Problem{Type: acme.ProblemTypeRateLimited, Detail: "too many certificates (5) already issued, retry after 2026-01-03 10:11:12 UTC: see https://x"}
	}
	task, _ := a.work(testOrder("site.test"))
	if want := time.Date(2026, 1, 3, 10, 11, 12, 0, time.UTC); !task.due().Equal(want) {
		t.Errorf("next try at %v", task.due())
	}
}

// TestGarbage: an authority's answer that is no certificate for the key.
func TestGarbage(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, answer := range []string{"", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", string(issueStub(t, []string{"a.test"}, &other.PublicKey, now, time.Hour))} {
		key, err := newKey(defaultKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := bundle(key, []byte(answer)); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%.40q: %v", answer, err)
		}
	}
}

// TestKeeperShares: of two processes that keep the same order one asks, and the
// other takes over what it got.
func TestKeeperShares(t *testing.T) {
	a := newAuthorityStub(t)
	first := a.keep
	a.restart()
	o := testOrder("site.test")
	if err := first.locks.tryLock(o.id()); err != nil {
		t.Fatal(err)
	}
	if task, _ := a.work(o); len(a.asked) != 0 || task.due().Sub(a.now) != othersPause {
		t.Errorf("asked %q while another process works on it", a.asked)
	}
	if err := first.locks.Unlock(context.Background(), o.id()); err != nil {
		t.Fatal(err)
	}
	second := a.keep
	a.keep = first
	_, got := a.work(o)
	a.keep = second
	a.now = a.now.Add(time.Minute)
	_, taken := a.work(o)
	if taken == nil || got == nil || !taken.Leaf.Equal(got.Leaf) || len(a.asked) != 1 {
		t.Errorf("asked %q", a.asked)
	}
}
