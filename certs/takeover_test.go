package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func acmeManager(t *testing.T, a ACME) *Manager {
	t.Helper()
	m, err := NewManager(Options{DataDir: t.TempDir(), ACME: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestManySites: a thousand servers without files start at once, each with its
// placeholder; the one with files is as ever.
func TestManySites(t *testing.T) {
	dir := t.TempDir()
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	text, good, err := bundle(key, issueStub(t, []string{"good.com"}, key.Public(), time.Now(), time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"good.pem": string(text)})
	sites := []Site{{ID: "good", Names: []string{"good.com"}, Pairs: []Pair{{Cert: filepath.Join(dir, "good.pem"), Key: filepath.Join(dir, "good.pem")}}}}
	for i := range 1000 {
		name := fmt.Sprintf("s%d.com", i)
		sites = append(sites, Site{ID: name, Names: []string{name}, Pairs: []Pair{{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key")}}})
	}
	m := acmeManager(t, ACME{Takeover: TakeoverAll})
	begin := time.Now()
	problems := m.Update(context.Background(), sites, Ports{})
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(problems) != 1000 || slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning }) {
		t.Errorf("%d problems, first %+v", len(problems), problems[0])
	}
	show := func(id string) *tls.Certificate {
		cert, err := m.Certificate(id, &tls.ClientHelloInfo{ServerName: id})
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if !show("good").Leaf.Equal(good.Leaf) {
		t.Error("the good one is not served")
	}
	one := show("s7.com")
	if one.Leaf.Subject.CommonName != placeholderName || one.Leaf.VerifyHostname("s7.com") != nil {
		t.Errorf("placeholder %v", one.Leaf.Subject)
	}
	m.Update(context.Background(), sites, Ports{})
	if show("s7.com") != one {
		t.Error("another placeholder after a reload")
	}
}

// TestSharedFile: a server without a name to obtain for shows what another with
// its files shows; one that shares nothing is an error.
func TestSharedFile(t *testing.T) {
	pair := Pair{Cert: "/nowhere/a.pem", Key: "/nowhere/a.key"}
	sites := []Site{
		{ID: "default", Names: []string{"_"}, Pairs: []Pair{pair}},
		{ID: "named", Names: []string{"site.com"}, Pairs: []Pair{pair}},
		{ID: "lone", Names: []string{"_"}, Pairs: []Pair{{Cert: "/nowhere/b.pem", Key: "/nowhere/b.key"}}},
	}
	problems := Check(sites, Options{ACME: ACME{Takeover: TakeoverAll}})
	if len(problems) != 2 || !problems[0].Warning || problems[1].Warning || problems[1].Site != "lone" {
		t.Errorf("%+v", problems)
	}
	if p := Check(sites, Options{ACME: ACME{Takeover: TakeoverLineages}}); len(p) != 2 || p[0].Warning {
		t.Errorf("without a lineage: %+v", p)
	}
	m := acmeManager(t, ACME{Takeover: TakeoverAll})
	m.Update(context.Background(), sites, Ports{})
	cert, err := m.Certificate("default", &tls.ClientHelloInfo{})
	if err != nil || cert.Leaf.VerifyHostname("site.com") != nil {
		t.Errorf("%v", err)
	}
	if _, err := m.Certificate("lone", &tls.ClientHelloInfo{}); err == nil {
		t.Error("the lone one has a certificate")
	}
}

// TestNamesAdded: until the certificate with one more name is there, the one
// with the names before is shown.
func TestNamesAdded(t *testing.T) {
	a := ACME{Takeover: TakeoverAll, Directory: "https://ca.test/dir"}
	m := acmeManager(t, a)
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	text, old, err := bundle(key, issueStub(t, []string{"a.com", "b.com"}, key.Public(), time.Now(), time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	before := order{names: []string{"a.com", "b.com"}, from: a.defaultAuthority(), key: defaultKey}
	if err := m.store.saveBundle(before.id(), text); err != nil {
		t.Fatal(err)
	}
	site := Site{ID: "s", Names: []string{"a.com", "b.com", "c.com"}, Pairs: []Pair{{Cert: "/nowhere/a.pem", Key: "/nowhere/a.key"}}}
	m.Update(context.Background(), []Site{site}, Ports{})
	if cert, err := m.Certificate("s", &tls.ClientHelloInfo{ServerName: "b.com"}); err != nil || !cert.Leaf.Equal(old.Leaf) {
		t.Errorf("%v", err)
	}
}

// TestOwnOrder is what acme_certificate comes to.
func TestOwnOrder(t *testing.T) {
	site := Site{
		ID: "s", Names: []string{"x.internal"}, Pairs: []Pair{{Cert: Obtained, Key: ObtainedKey}},
		Order: &Order{Names: []string{"x.internal"}, Key: "rsa:2048", Challenge: "tls-alpn-01", Issuer: Issuer{
			Directory: "https://ca.test/dir", Contacts: []string{"mailto:me@x.com"}, AccountKey: "ecdsa:384", Folder: "/var/acme",
		}},
	}
	if p := Check([]Site{site}, Options{}); len(p) != 0 {
		t.Errorf("%+v", p)
	}
	orders := (&ACME{}).orders(&site, nil, time.Now())
	if len(orders) != 1 || orders[0].only != byTLS || orders[0].key != "rsa:2048" || orders[0].from.email != "me@x.com" || orders[0].from.keyKind != "ecdsa:384" || !orders[0].from.unagreed {
		t.Errorf("%+v", orders)
	}
	site.Order = nil
	if p := Check([]Site{site}, Options{}); len(p) != 1 || !p[0].Warning || !strings.Contains(p[0].Message, "acme_certificate") {
		t.Errorf("%+v", p)
	}
}

// TestNeglected: what nobody renews is said once, whether something is done
// about it or not.
func TestNeglected(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	var sites []Site
	for _, name := range []string{"site.com", "db.internal"} {
		text, _, err := bundle(key, issueStub(t, []string{name}, key.Public(), now, time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		writeFiles(t, dir, map[string]string{name: string(text)})
		file := filepath.Join(dir, name)
		sites = append(sites, Site{ID: name, Names: []string{name}, Pairs: []Pair{{Cert: file, Key: file}}})
	}
	var said []string
	o := Options{DataDir: filepath.Join(dir, "data"), ACME: ACME{Takeover: TakeoverAll}, Now: func() time.Time { return now }, Log: func(level, text string) {
		if level == "warn" {
			said = append(said, text)
		}
	}}
	m, err := NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if problems := m.Update(context.Background(), sites, Ports{}); len(problems) != 0 {
		t.Errorf("in time: %+v", problems)
	}
	now = now.Add(2 * time.Hour)
	m.look()
	m.look()
	want := []string{
		`certificate "` + dir + `/db.internal" has expired: it was valid until 2026-01-01 01:00:00 UTC`,
		`certificate "` + dir + `/site.com" has expired: it was valid until 2026-01-01 01:00:00 UTC; a certificate for site.com is obtained from acme-v02.api.letsencrypt.org`,
	}
	if !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	if problems := Check(sites, o); len(problems) != 1 || problems[0].Message != want[1] {
		t.Errorf("before a reload: %+v", problems)
	}
	m.Update(context.Background(), sites[:1], Ports{})
	if problems := m.Update(context.Background(), sites, Ports{}); len(problems) != 1 {
		t.Errorf("said anew: %+v", problems)
	}
}

// TestWildcardLeftOut: a name that cannot be proved is spoken of.
func TestWildcardLeftOut(t *testing.T) {
	pair := Pair{Cert: "/nowhere/a.pem", Key: "/nowhere/a.key"}
	sites := []Site{{ID: "s", Names: []string{".site.com", "www.site.com"}, Pairs: []Pair{pair}}}
	a := ACME{Takeover: TakeoverAll, Directory: "https://ca.test/dir"}
	const without = "a certificate for site.com, www.site.com is obtained from ca.test, but not for *.site.com: wildcards are proved by the DNS only"
	if p := Check(sites, Options{ACME: a}); len(p) != 1 || !p[0].Warning || !strings.Contains(p[0].Message, without) {
		t.Errorf("%+v", p)
	}
	a.DNS = DNS{Hook: "true"}
	if p := Check(sites, Options{ACME: a}); len(p) != 1 || !strings.HasSuffix(p[0].Message, "is obtained from ca.test") {
		t.Errorf("with a hook: %+v", p)
	}
}
