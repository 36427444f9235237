package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// managed reads a PEM file from the authority's management address.
func (p *pebble) managed(path string) []byte {
	p.t.Helper()
	resp, err := p.client().Get(p.management + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	block, _ := pem.Decode(text)
	if block == nil {
		p.t.Fatalf("%s: %s", path, text)
	}
	return block.Bytes
}

// responder answers for the authority's certificates: all are good.
func (p *pebble) responder(w http.ResponseWriter, r *http.Request) {
	issuer, err := x509.ParseCertificate(p.managed("/intermediates/0"))
	if err != nil {
		p.t.Error(err)
		return
	}
	key, err := x509.ParsePKCS1PrivateKey(p.managed("/intermediate-keys/0"))
	if err != nil {
		p.t.Error(err)
		return
	}
	text, _ := io.ReadAll(r.Body)
	asked, err := ocsp.ParseRequest(text)
	if err != nil {
		p.t.Error(err)
		return
	}
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: asked.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	der, err := ocsp.CreateResponse(issuer, issuer, answer, crypto.Signer(key))
	if err != nil {
		p.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(der)
}

// TestMustStaple: a lineage that demands proofs is served with them, from the
// first handshake on; taken over, its certificate still demands them; and they
// outlive a responder that is away.
func TestMustStaple(t *testing.T) {
	if program, err := exec.LookPath("pebble"); err == nil {
		// The name of the function that older versions do not have.
		if text, err := os.ReadFile(program); err != nil || !bytes.Contains(text, []byte("OCSPMustStaple")) {
			t.Skip("this version of pebble makes no such certificates")
		}
	}
	t.Parallel()
	var p *pebble
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.responder(w, r) }))
	defer responder.Close()
	p = newPebble(t, func(c map[string]any) { c["ocspResponderURL"] = responder.URL })
	dir := t.TempDir()
	le := filepath.Join(dir, "letsencrypt")
	p.certbot(le, "certonly", "--standalone", "--http-01-port", fmt.Sprint(p.httpPort), "-d", "site.test", "--must-staple")
	live := filepath.Join(le, "live/site.test")
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", live)
	roots := p.roots()
	env := append(p.environment(), "PROXYCTL_DATA="+filepath.Join(dir, "data"))

	stapled := func(what string) *x509.Certificate {
		t.Helper()
		leaf := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.tlsPort), &tls.Config{ServerName: "site.test", RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		state := c.ConnectionState()
		if r, err := ocsp.ParseResponseForCert(state.OCSPResponse, state.PeerCertificates[0], state.PeerCertificates[1]); err != nil || r.Status != ocsp.Good {
			t.Errorf("%s: no proof: %v", what, err)
		}
		return leaf
	}
	s := startServer(t, dir, "nginx", env, "-c", conf)
	byCertbot := stapled("file")
	if list := statuses(t, env, conf); len(list) != 1 || !list[0].MustStaple || list[0].Proof.IsZero() {
		t.Errorf("%+v", list)
	}
	if out, _ := proxyctl(t, env, "certs", "list", conf); !strings.Contains(out, "must-staple") {
		t.Errorf("list: %s", out)
	}
	if out, _ := proxyctl(t, env, "certs", "doctor", "-c", conf, "--resolver", p.names.address); !strings.Contains(out, "one is to be had, valid until") {
		t.Errorf("doctor: %s", out)
	}
	s.stop(syscall.SIGTERM)

	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir, "nginx", env, "-c", conf)
	ours := stapled("taken over")
	if ours.Equal(byCertbot) {
		t.Error("not taken over")
	}
	s.stop(syscall.SIGTERM)
	responder.Close()
	startServer(t, dir, "nginx", env, "-c", conf)
	if !stapled("the responder is away").Equal(ours) {
		t.Error("another certificate")
	}
	if out, code := proxyctl(t, env, "certs", "doctor", "-c", conf, "--resolver", p.names.address); code != 1 || !strings.Contains(out, "must-staple): asking") {
		t.Errorf("doctor: status %d, %s", code, out)
	}
}
