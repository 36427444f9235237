package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/crypto/ocsp"
)

// provingCA makes certificates that demand proofs, and the proofs.
type provingCA struct {
	t      *testing.T
	cert   *x509.Certificate
	key    crypto.Signer
	server *httptest.Server

	mu     sync.Mutex
	answer ocsp.Response // but for the serial number
	asked  int
}

func newProvingCA(t *testing.T) *provingCA {
	ca := &provingCA{t: t}
	var err error
	if ca.key, err = newKey(defaultKey); err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.cert = ca.sign(root, root, ca.key.Public())
	ca.answer = ocsp.Response{Status: ocsp.Good, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(3 * time.Hour)}
	ca.server = httptest.NewServer(ca)
	t.Cleanup(ca.server.Close)
	return ca
}

func (ca *provingCA) sign(template, parent *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func (ca *provingCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	asked, err := ocsp.ParseRequest(text)
	if err != nil {
		ca.t.Error(err)
		return
	}
	_, _ = w.Write(ca.response(asked.SerialNumber.Bytes()))
}

func (ca *provingCA) response(serial []byte) []byte {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.asked++
	answer := ca.answer
	answer.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := ocsp.CreateResponse(ca.cert, ca.cert, answer, ca.key)
	if err != nil {
		ca.t.Error(err)
	}
	return der
}

// bundle makes the file of a certificate.
func (ca *provingCA) bundle(name string, change func(*x509.Certificate)) (text []byte, cert *tls.Certificate) {
	ca.t.Helper()
	key, err := newKey(defaultKey)
	if err != nil {
		ca.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		OCSPServer: []string{ca.server.URL}, ExtraExtensions: []pkix.Extension{{Id: tlsFeature(), Value: []byte{0x30, 3, 2, 1, statusRequest}}},
	}
	if change != nil {
		change(template)
	}
	leaf := ca.sign(template, ca.cert, key.Public())
	text, cert, err = bundle(key, slices.Concat(pemOf(leaf), pemOf(ca.cert)))
	if err != nil {
		ca.t.Fatal(err)
	}
	return text, cert
}

func TestStapledFromTheFirst(t *testing.T) {
	ca := newProvingCA(t)
	dir := t.TempDir()
	demanding, cert := ca.bundle("a.com", nil)
	plain, _ := ca.bundle("b.com", func(c *x509.Certificate) { c.ExtraExtensions = nil })
	silent, _ := ca.bundle("c.com", func(c *x509.Certificate) { c.OCSPServer = nil })
	writeFiles(t, dir, map[string]string{"a.com": string(demanding), "b.com": string(plain), "c.com": string(silent)})
	var sites []Site
	for _, name := range []string{"a.com", "b.com", "c.com"} {
		file := filepath.Join(dir, name)
		sites = append(sites, Site{ID: name, Names: []string{name}, Pairs: []Pair{{Cert: file, Key: file}}})
	}
	var log sync.Map
	o := Options{DataDir: filepath.Join(dir, "data"), Log: func(level, text string) { log.Store(level+": "+text, true) }}
	start := func() *Manager {
		m, err := NewManager(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		m.Update(context.Background(), sites, Ports{})
		m.Begin()
		return m
	}
	proofFor := func(m *Manager, name string, extensions ...uint16) []byte {
		shown, err := m.Certificate(name, &tls.ClientHelloInfo{ServerName: name, Extensions: extensions})
		if err != nil {
			t.Fatal(err)
		}
		return shown.OCSPStaple
	}
	m := start()
	if _, err := ocsp.ParseResponseForCert(proofFor(m, "a.com", statusRequest), cert.Leaf, ca.cert); err != nil {
		t.Errorf("the first handshake: %v", err)
	}
	if proofFor(m, "b.com", statusRequest) != nil || proofFor(m, "c.com", statusRequest) != nil {
		t.Error("proofs of others")
	}
	want := "error: certificate for c.com: no proof that it is not revoked: it does not say whom to ask for one (OCSP responder); browsers refuse it, for it demands one (must-staple)"
	if _, said := log.Load(want); !said {
		t.Error("nothing is said about c.com")
	}
	before := ca.asked
	m.Update(context.Background(), sites, Ports{})
	if proofFor(m, "a.com") == nil {
		t.Error("after a reload")
	}
	m.Close()
	ca.server.Close()
	if m = start(); proofFor(m, "a.com") == nil || ca.asked != before {
		t.Errorf("after a restart, the responder being away; asked %d times", ca.asked)
	}
	list, err := List(sites, o)
	if err != nil || !list[0].MustStaple || list[0].Proof.IsZero() || list[1].MustStaple || !list[2].MustStaple || !list[2].Proof.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	m.Update(context.Background(), sites[1:], Ports{})
	if m.data.sub(proofsFolder).Exists(context.Background(), proofName(cert)) {
		t.Error("a proof that nobody needs is kept")
	}
}

func TestReadProof(t *testing.T) {
	ca := newProvingCA(t)
	_, cert := ca.bundle("a.com", nil)
	now := time.Now()
	good := ca.answer
	for _, tt := range []struct {
		name   string
		change func(*ocsp.Response)
		want   string
	}{
		{"good", func(*ocsp.Response) {}, ""},
		{"no end", func(r *ocsp.Response) { r.NextUpdate = time.Time{} }, ""},
		{"revoked", func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, now }, "it was revoked at"},
		{"unknown", func(r *ocsp.Response) { r.Status = ocsp.Unknown }, "the responder does not know it"},
		{"old", func(r *ocsp.Response) { r.NextUpdate = now.Add(-time.Minute) }, "it is out of date"},
	} {
		ca.answer = good
		tt.change(&ca.answer)
		p, err := readProof(ca.response(cert.Leaf.SerialNumber.Bytes()), cert, now)
		if tt.want == "" && (err != nil || !p.valid.After(now) || !p.refresh.After(now) || !p.refresh.Before(p.valid)) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
	ca.answer = good
	for name, raw := range map[string][]byte{"empty": nil, "nonsense": []byte("x"), "another's": ca.response([]byte{1})} {
		if _, err := readProof(raw, cert, now); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestMustStapleKept: what demanded proofs does so when it is issued anew,
// unless the authority will not, or cannot answer.
func TestMustStapleKept(t *testing.T) {
	ca := newProvingCA(t)
	refused := acme.Problem{Type: acme.ProblemTypeUnauthorized, Detail: "OCSP must-staple extension is no longer available"}
	for _, tt := range []struct {
		name  string
		asked func(stapled bool) (server string, err error)
		want  bool
	}{
		{"kept", func(bool) (string, error) { return ca.server.URL, nil }, true},
		{"refused", func(stapled bool) (string, error) {
			if stapled {
				return "", refused
			}
			return "", nil
		}, false},
		{"without a responder", func(bool) (string, error) { return "", nil }, false},
	} {
		a := newAuthorityStub(t)
		a.now = time.Now()
		a.keep.issue = func(_ context.Context, r request) ([]byte, error) {
			server, err := tt.asked(r.mustStaple)
			if err != nil {
				return nil, err
			}
			template := &x509.Certificate{SerialNumber: serial(), DNSNames: r.order.names, NotBefore: a.now, NotAfter: a.now.Add(time.Hour)}
			if server != "" {
				template.OCSPServer = []string{server}
			}
			csr, err := signingRequest(r.order.names, r.key, r.mustStaple)
			if err != nil {
				return nil, err
			}
			template.ExtraExtensions = slices.DeleteFunc(csr.Extensions, func(e pkix.Extension) bool { return !e.Id.Equal(tlsFeature()) })
			return slices.Concat(pemOf(ca.sign(template, ca.cert, r.key.Public())), pemOf(ca.cert)), nil
		}
		o := testOrder("a.com")
		o.mustStaple = true
		task, cert := a.work(o)
		if cert == nil || mustStaple(cert.Leaf) != tt.want || task.record.Failures != 0 {
			t.Errorf("%s: %v, %+v", tt.name, cert, task.record)
			continue
		}
		if warned := slices.ContainsFunc(a.log, func(s string) bool { return strings.Contains(s, "must-staple") }); warned == tt.want {
			t.Errorf("%s: %q", tt.name, a.log)
		}
	}
	if l := readINI([]byte("[renewalparams]\nmust_staple = True\n")); l["must_staple"] != "True" {
		t.Error("the renewal file is not read")
	}
}
