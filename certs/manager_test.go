package certs

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testManager is a Manager whose news are kept.
func testManager(t *testing.T, o Options) (*Manager, *[]string) {
	t.Helper()
	var said []string
	o.DataDir = t.TempDir()
	o.Log = func(level, message string) {
		if level != "info" { // certmagic's own
			said = append(said, level+" "+message)
		}
	}
	m, err := NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, &said
}

// shown is the name in the certificate that a site shows.
func shown(t *testing.T, m *Manager, site string) string {
	t.Helper()
	cert, err := m.Certificate(site, &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256}})
	if err != nil {
		return err.Error()
	}
	return cert.Leaf.Subject.CommonName
}

func update(m *Manager, sites ...Site) []Problem {
	return m.Update(context.Background(), sites, Ports{})
}

// TestRenewal serves what is renewed on disk, and never half of it.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	first, second := makePair(t, "first", ecdsaKey(t)), makePair(t, "second", ecdsaKey(t))
	p := Pair{Cert: place(t, dir, "cert.pem", first.cert), Key: place(t, dir, "key.pem", first.key)}
	m, said := testManager(t, Options{})
	site := Site{ID: "a", Names: []string{"a.test"}, Pairs: []Pair{p}}
	if problems := update(m, site); len(problems) != 0 || shown(t, m, "a") != "first" {
		t.Fatal(problems, shown(t, m, "a"))
	}
	m.look()
	if len(*said) != 0 {
		t.Error(*said)
	}
	place(t, dir, "cert.pem", second.cert) // the key is still the old one
	for range 2 {
		m.look()
	}
	if shown(t, m, "a") != "first" {
		t.Error("half a renewal is served")
	}
	if len(*said) != 1 || !strings.HasSuffix((*said)[0], "key values mismatch)"+keptSuffix) || !strings.HasPrefix((*said)[0], "warn ") {
		t.Error(*said)
	}
	problems := update(m, site) // a reload in between
	if len(problems) != 1 || !problems[0].Warning || !strings.HasSuffix(problems[0].Message, keptSuffix) || shown(t, m, "a") != "first" {
		t.Error(problems)
	}
	place(t, dir, "key.pem", second.key)
	m.look()
	if shown(t, m, "a") != "second" {
		t.Error("the renewal is not served")
	}
	if last := (*said)[len(*said)-1]; !strings.HasPrefix(last, `notice certificate "`+p.Cert+`" is read again, valid until `) {
		t.Error(last)
	}
	place(t, dir, "cert.pem", first.cert)
	place(t, dir, "key.pem", first.key)
	m.look()
	if last := (*said)[len(*said)-1]; !strings.Contains(last, " was renewed, valid until ") || shown(t, m, "a") != "first" {
		t.Error(last)
	}
	for _, name := range []string{p.Cert, p.Key} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	m.look()
	if shown(t, m, "a") != "first" {
		t.Error("what is gone from disk is not served any more")
	}
}

// TestRenewalByLinks follows links that are turned one after the other, as
// Certbot does.
func TestRenewalByLinks(t *testing.T) {
	dir := t.TempDir()
	first, second := makePair(t, "first", ecdsaKey(t)), makePair(t, "second", ecdsaKey(t))
	for name, text := range map[string]string{"cert1": first.cert, "key1": first.key, "cert2": second.cert, "key2": second.key} {
		place(t, dir, name, text)
	}
	turn := func(link, to string) {
		_ = os.Remove(filepath.Join(dir, link))
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	turn("cert", "cert1")
	turn("key", "key1")
	m, _ := testManager(t, Options{})
	update(m, Site{ID: "a", Pairs: []Pair{{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}}})
	turn("key", "key2")
	m.look()
	if got := shown(t, m, "a"); got != "first" {
		t.Error(got)
	}
	turn("cert", "cert2")
	m.look()
	if got := shown(t, m, "a"); got != "second" {
		t.Error(got)
	}
}

// TestManagerSites shows each site its own.
func TestManagerSites(t *testing.T) {
	dir := t.TempDir()
	pair := func(p testPair) Pair {
		return Pair{Cert: place(t, dir, p.leaf.Subject.CommonName+".crt", p.cert), Key: place(t, dir, p.leaf.Subject.CommonName+".key", p.key)}
	}
	ec, rs := pair(makePair(t, "ec", ecdsaKey(t))), pair(makePair(t, "rsa", rsaKey()))
	lost := Pair{Cert: filepath.Join(dir, "lost.crt"), Key: filepath.Join(dir, "lost.key")}
	m, _ := testManager(t, Options{})
	problems := update(m,
		Site{ID: "both", Pairs: []Pair{rs, ec}},
		Site{ID: "rsa", Pairs: []Pair{rs}},
		Site{ID: "half", Pairs: []Pair{rs, lost}},
		Site{ID: "lost", Pairs: []Pair{lost}},
		Site{ID: "none"},
	)
	if len(problems) != 1 || problems[0].Site != "half" || problems[0].Path != lost.Cert || problems[0].Warning {
		t.Error(problems)
	}
	for site, want := range map[string]string{
		"both": "ec", "rsa": "rsa", "half": "rsa", "lost": errNoCertificate.Error(), "none": errNoCertificate.Error(), "unknown": errNoCertificate.Error(),
	} {
		if got := shown(t, m, site); got != want {
			t.Errorf("%s: %s", site, got)
		}
	}
	// a site that loses its files keeps what it had, one that goes is forgotten
	update(m, Site{ID: "rsa", Pairs: []Pair{lost}})
	if got := shown(t, m, "rsa"); got != "rsa" {
		t.Error(got)
	}
	if got := shown(t, m, "both"); got != errNoCertificate.Error() {
		t.Error(got)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if problems := m.Update(ended, []Site{{ID: "new", Pairs: []Pair{ec}}}, Ports{}); len(problems) != 1 || shown(t, m, "rsa") != "rsa" {
		t.Error(problems)
	}
}

// TestManagerLocal issues what is missing, and nothing else.
func TestManagerLocal(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	ec := makePair(t, "ec", ecdsaKey(t))
	good := Pair{Cert: place(t, dir, "ec.crt", ec.cert), Key: place(t, dir, "ec.key", ec.key)}
	bad := Pair{Cert: place(t, dir, "bad.crt", "x"), Key: good.Key}
	lost := Pair{Cert: filepath.Join(dir, "lost.crt"), Key: filepath.Join(dir, "lost.key")}
	m, _ := testManager(t, Options{Local: true, Now: func() time.Time { return now }})
	sites := []Site{
		{ID: "good", Names: []string{"good.test"}, Pairs: []Pair{good}},
		{ID: "lost", Names: []string{"lost.test"}, Pairs: []Pair{lost}},
		{ID: "bad", Names: []string{"bad.test"}, Pairs: []Pair{bad}},
	}
	problems := update(m, sites...)
	if len(problems) != 1 || problems[0].Site != "bad" {
		t.Error(problems)
	}
	if problems := Check(sites, Options{Local: true}); len(problems) != 1 || problems[0].Path != bad.Cert {
		t.Error(problems)
	}
	if problems := Check(sites, Options{}); len(problems) != 2 {
		t.Error(problems)
	}
	for site, want := range map[string]string{"good": "ec", "lost": "lost.test", "bad": errNoCertificate.Error()} {
		if got := shown(t, m, site); got != want {
			t.Errorf("%s: %s", site, got)
		}
	}
	leaf := func() string {
		cert, err := m.Certificate("lost", nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.String()
	}
	first := leaf()
	update(m, sites...)
	if leaf() != first {
		t.Error("a reload issues again")
	}
	now = now.Add(localLifetime * 3 / 4)
	m.look()
	if leaf() == first {
		t.Error("not renewed")
	}
	place(t, dir, "lost.crt", ec.cert) // Certbot has been there
	place(t, dir, "lost.key", ec.key)
	m.look()
	if got := shown(t, m, "lost"); got != "ec" {
		t.Error(got)
	}
	if m.LocalRoot() == "" {
		t.Error("no root")
	}
}

// TestCertificateAllocations keeps handshakes cheap.
func TestCertificateAllocations(t *testing.T) {
	p := makePair(t, "x", ecdsaKey(t))
	m, _ := testManager(t, Options{})
	update(m, Site{ID: "a", Pairs: []Pair{{Cert: "data:" + p.cert, Key: "data:" + p.key}}})
	hello := &tls.ClientHelloInfo{}
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Certificate("a", hello) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
