package certs

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLocalNames makes names for certificates of values of server_name.
func TestLocalNames(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		names, want string
		addresses   int
	}{
		{"a.test", "a.test localhost", 2},
		{"A.Test. a.test", "a.test localhost", 2},
		{".a.test", "a.test *.a.test localhost", 2},
		{"*.a.test www.a.*", "*.a.test localhost", 2},
		{"_ ~^x$ a_b.test", "a_b.test localhost", 2},
		{"10.0.0.1 [::2]", "localhost", 4},
		{"localhost", "localhost", 2},
		{long + ".test x..y", "localhost", 2},
		{"", "localhost", 2},
	} {
		dns, addresses := localNames(strings.Split(tt.names, " "))
		if got := strings.Join(dns, " "); got != tt.want || len(addresses) != tt.addresses {
			t.Errorf("%s: %s, %v", tt.names, got, addresses)
		}
	}
}

// TestLocalCA issues certificates that its root vouches for, and stays the same.
func TestLocalCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	now := time.Now()
	clock := func() time.Time { return now }
	ca, err := openLocalCA(dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.pem", "root.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(name, info, err)
		}
	}
	cert, err := ca.issue([]string{"a.test", strings.Repeat("x", 63) + ".test"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.root)
	for _, name := range []string{"a.test", "localhost", "127.0.0.1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Error(name, err)
		}
	}
	if ca.due(cert) {
		t.Error("due at once")
	}
	if now = now.Add(localLifetime * 3 / 4); !ca.due(cert) {
		t.Error("not due when a quarter is left")
	}
	again, err := openLocalCA(dir, clock)
	if err != nil || !again.root.Equal(ca.root) {
		t.Error("another root", err)
	}
	if now = now.AddDate(10, 0, 0); err != nil {
		t.Fatal(err)
	}
	if renewed, err := openLocalCA(dir, clock); err != nil || renewed.root.Equal(ca.root) {
		t.Error("the root outlives itself", err)
	}
}

// TestLocalCADamaged says what is wrong with its folder, and does not replace a
// root that somebody may trust.
func TestLocalCADamaged(t *testing.T) {
	ec := makePair(t, "x", ecdsaKey(t))
	rs := makePair(t, "x", rsaKey())
	for _, tt := range []struct{ name, cert, key, want string }{
		{"half a root", ec.cert[:100], ec.key, "PEM_read_bio_X509_AUX"},
		{"another key", ec.cert, rs.key, "key values mismatch"},
		{"not ours", rs.cert, rs.key, "are not of a local CA"},
	} {
		dir := t.TempDir()
		place(t, dir, "root.pem", tt.cert)
		place(t, dir, "root.key", tt.key)
		if _, err := openLocalCA(dir, time.Now); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	file := place(t, t.TempDir(), "file", "")
	if _, err := openLocalCA(file, time.Now); err == nil {
		t.Error("a file is no folder")
	}
}

// TestLocalCATogether lets two processes make one root.
func TestLocalCATogether(t *testing.T) {
	dir := t.TempDir()
	var roots [4]*x509.Certificate
	var w sync.WaitGroup
	for i := range roots {
		w.Go(func() {
			ca, err := openLocalCA(dir, time.Now)
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = ca.root
		})
	}
	w.Wait()
	for _, r := range roots[1:] {
		if r == nil || !r.Equal(roots[0]) {
			t.Error("several roots")
		}
	}
}
