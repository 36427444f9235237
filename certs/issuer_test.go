package certs

import (
	"context"
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
			dir := t.TempDir()
			root := filepath.Join(dir, "root.pem")
			if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			logger := newLogger(func(string, string) {})
			cache := certmagic.NewCache(certmagic.CacheOptions{
				GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errNoCertificate }, Logger: logger,
			})
			defer cache.Stop()
			data := newFolder(dir, func(f func() error) error { return f() })
			i := &issuer{cache, data, logger}
			key, err := newKey(defaultKey)
			if err != nil {
				t.Fatal(err)
			}
			o := order{names: []string{"site.test"}, from: authority{directory: server.URL + "/dir", rootFile: root}}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_, err = i.issue(ctx, request{order: &o, directory: o.from.directory, method: byHTTP, key: key})
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
