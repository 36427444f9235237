package certs

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// TestGarbageFromAuthority: whatever the other side of the line is, it is an
// error and nothing worse.
func TestGarbageFromAuthority(t *testing.T) {
	t.Parallel()
	directory := func(r *http.Request) string {
		base := "https://" + r.Host
		return fmt.Sprintf(`{"newNonce":"%s/nonce","newAccount":"%s/account","newOrder":"%s/order"}`, base, base, base)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"nothing":      func(http.ResponseWriter, *http.Request) {},
		"page":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>It works!</html>") },
		"unavailable":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) },
		"no directory": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[1, {"newNonce": 7}]`) },
		"abort":        func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirects":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x"+r.URL.Path, http.StatusFound) },
		"endless":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 64<<20)) },
		"no nonces":    func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, directory(r)) },
		"empty objects": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Replay-Nonce", "AAAA")
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "https://"+r.Host+r.URL.Path)
			if r.URL.Path == "/dir" {
				_, _ = io.WriteString(w, directory(r))
				return
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"status": "valid", "authorizations": [""], "finalize": "::"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(handler)
			server.Config.ErrorLog = nil
			defer server.Close()
			i, o := testIssuer(t, server)
			key, err := newKey(defaultKey)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_, err = i.issue(ctx, request{order: o, directory: o.from.directory, method: byHTTP, key: key})
			if err == nil || strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("%v", err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestStorage(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	f := newFolder(dir, func(f func() error) error { return f() })
	if err := f.Store(ctx, "../../a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a/b")); string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	if keys, err := f.List(ctx, "", true); err != nil || strings.Join(keys, " ") != "a a/b" {
		t.Errorf("%q, %v", keys, err)
	}
	if info, err := f.Stat(ctx, "a/b"); err != nil || info.Size != 1 || !info.IsTerminal {
		t.Errorf("%+v, %v", info, err)
	}
	if err := f.Lock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []*folder{f, newFolder(dir, f.asRoot)} {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		if err := other.Lock(short, "x"); err == nil {
			t.Error("locked twice")
		}
		cancel()
	}
	if err := f.Unlock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if err := f.Unlock(ctx, "x"); err == nil {
		t.Error("unlocked twice")
	}
	if err := f.Delete(ctx, "a"); err != nil || f.Exists(ctx, "a/b") {
		t.Errorf("%v", err)
	}
	if _, err := f.Load(ctx, "a/b"); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// TestRenewalInformation: when the authority wants a renewal is asked for, and
// the renewal says what it replaces (RFC 9773).
func TestRenewalInformation(t *testing.T) {
	t.Parallel()
	start := time.Now().Add(time.Hour).Truncate(time.Second)
	var replaces string
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		base := server.URL
		w.Header().Set("Replay-Nonce", "AAAA")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", base+r.URL.Path)
		switch {
		case r.URL.Path == "/dir":
			fmt.Fprintf(w, `{"newNonce":"%[1]s/nonce","newAccount":"%[1]s/account","newOrder":"%[1]s/order","renewalInfo":"%[1]s/ari"}`, base)
		case strings.HasPrefix(r.URL.Path, "/ari/"):
			w.Header().Set("Retry-After", "3600")
			fmt.Fprintf(w, `{"suggestedWindow":{"start":%q,"end":%q}}`, start.Format(time.RFC3339), start.Add(time.Hour).Format(time.RFC3339))
		case r.URL.Path == "/account":
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"status":"valid"}`)
		case r.URL.Path == "/order":
			var jws struct{ Payload string }
			if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
				t.Error(err)
			}
			payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
			var order struct{ Replaces string }
			if err := json.Unmarshal(payload, &order); err != nil {
				t.Error(err)
			}
			replaces = order.Replaces
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","status":403}`)
		}
	})
	i, o := testIssuer(t, server)
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(), DNSNames: o.names, NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour), AuthorityKeyId: []byte{1, 2, 3}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	at, again, err := i.renewalTime(context.Background(), o, leaf)
	if err != nil || at.Before(start) || at.After(start.Add(time.Hour)) || again.Before(time.Now().Add(50*time.Minute)) {
		t.Errorf("renewal at %v, ask again at %v, %v", at, again, err)
	}
	_, err = i.issue(context.Background(), request{order: o, directory: o.from.directory, method: byHTTP, key: key, replaces: leaf})
	if classify(err) != refused || !strings.HasPrefix(replaces, "AQID.") {
		t.Errorf("replaces %q, %v", replaces, err)
	}
}

// testIssuer asks a server of the test.
func testIssuer(t *testing.T, server *httptest.Server) (*issuer, *order) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	logger := newLogger(func(string, string) {})
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errNoCertificate }, Logger: logger,
	})
	t.Cleanup(cache.Stop)
	i := &issuer{cache, newFolder(dir, func(f func() error) error { return f() }), logger}
	return i, &order{names: []string{"site.test"}, from: authority{directory: server.URL + "/dir", rootFile: root}}
}
