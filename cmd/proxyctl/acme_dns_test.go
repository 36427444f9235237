package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestDNSHook: a wildcard, by a hook as people have them for Certbot. The
// server serves as nobody; the hook runs as who started it.
func TestDNSHook(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	zone := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p.names.mu.Lock()
		defer p.names.mu.Unlock()
		name := "_acme-challenge." + r.URL.Query().Get("domain") + "."
		if r.URL.Path == "/add" {
			p.names.txt[name] = append(p.names.txt[name], r.URL.Query().Get("text"))
		} else {
			delete(p.names.txt, name)
		}
	}))
	defer zone.Close()
	hook := filepath.Join(dir, "hook.sh")
	script := fmt.Sprintf("#!/bin/sh\nset -e\nid -u >> %[1]s/who\ncase $CERTBOT_ALL_DOMAINS in *site.test*) ;; *) exit 1;; esac\ncurl -sf \"%[2]s/$1?domain=$CERTBOT_DOMAIN&text=$CERTBOT_VALIDATION\"\necho \"made-$CERTBOT_DOMAIN\"\nif [ \"$1\" = remove ]; then echo \"$CERTBOT_AUTH_OUTPUT\" >> %[1]s/outputs; fi\n", dir, zone.URL)
	if err := os.WriteFile(hook, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test *.site.test", dir+"/live/site.test")
	dropRights(t, conf)
	env := append(p.environment(), "PROXYCTL_ACME_DNS_HOOK="+hook+" add", "PROXYCTL_ACME_DNS_CLEANUP_HOOK="+hook+" remove")
	startServer(t, dir, "nginx", env, "-c", conf)
	leaf := awaitTrusted(t, p.roots(), p.tlsPort, "any.site.test", startLimit)
	if got := slices.Sorted(slices.Values(leaf.DNSNames)); !slices.Equal(got, []string{"*.site.test", "site.test"}) {
		t.Errorf("names %q", got)
	}
	outputs, _ := os.ReadFile(filepath.Join(dir, "outputs"))
	if n := strings.Count(string(outputs), "made-site.test"); n != 2 {
		t.Errorf("%d cleanups got the output of their hook: %s", n, outputs)
	}
	who, _ := os.ReadFile(filepath.Join(dir, "who"))
	if strings.Trim(string(who), fmt.Sprint(os.Getuid())+"\n") != "" {
		t.Errorf("hooks ran as %q", who)
	}
}

// TestDNSUpdate: a wildcard, by dynamic update with Certbot's credentials file.
func TestDNSUpdate(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	host, port, _ := strings.Cut(p.names.address, ":")
	credentials := filepath.Join(dir, "rfc2136.ini")
	text := fmt.Sprintf("dns_rfc2136_server = %s\ndns_rfc2136_port = %s\ndns_rfc2136_name = key.\ndns_rfc2136_secret = c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0\ndns_rfc2136_algorithm = HMAC-SHA512\n", host, port)
	if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, ".site.test", dir+"/live/site.test")
	startServer(t, dir, "nginx", append(p.environment(), "PROXYCTL_ACME_DNS_RFC2136="+credentials), "-c", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "any.site.test", startLimit)
	p.names.mu.Lock()
	defer p.names.mu.Unlock()
	if left := p.names.txt["_acme-challenge.site.test."]; len(left) > 0 || p.names.updates < 4 {
		t.Errorf("records left %q, %d updates", left, p.names.updates)
	}
}

// TestOnDemand: a server without names, and somebody who knows them.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	var asked atomic.Int32
	ask := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !strings.HasSuffix(r.URL.Query().Get("domain"), ".customer.test") {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer ask.Close()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "_", dir+"/live/none")
	env := append(p.environment(), "PROXYCTL_ON_DEMAND_ASK="+ask.URL+"/ok")
	startServer(t, dir, "nginx", env, "-c", conf)
	roots := p.roots()
	awaitTrusted(t, roots, p.tlsPort, "a.customer.test", startLimit)
	begin := time.Now()
	awaitTrusted(t, roots, p.tlsPort, "a.customer.test", startLimit)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the second handshake took %v", took)
	}
	before := asked.Load()
	for _, name := range []string{"other.test", "other.test", "other.test", "localhost", "x.internal"} {
		if _, err := shown(p.tlsPort, name); err == nil {
			t.Errorf("%s has a certificate", name)
		}
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("asked %d times about what was refused", n)
	}
}
