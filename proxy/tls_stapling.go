package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"proxyctl/parser"
)

// OCSP stapling (ngx_event_openssl_stapling.c): with its certificate the server
// sends a proof that it has not been revoked. It comes from a file, or from the
// responder, which is asked when the first client wants to see a proof; until it
// has answered there is none.

// staples are the proofs of a server block.
type staples struct {
	responder string // ssl_stapling_responder; "" is whom the certificate names
	verify    bool
	file      []byte              // ssl_stapling_file, read
	issuers   []*x509.Certificate // beside those in the certificate's own chain
	client    *ocspClient

	mu sync.Mutex
	of map[*tls.Certificate]*staple
}

// staple is the proof for one certificate.
type staple struct {
	query   *ocspQuery // nil: nobody can be asked
	with    *tls.Certificate
	valid   time.Time
	refresh time.Time
	loading bool
}

// mostStaples is how many certificates are remembered: those of a site, and of
// its last renewals.
const mostStaples = 32

// newStaples prepares stapling for a server, and warns where it cannot work.
func (s *sslConf) newStaples(l *Level, t *tlsServer) (*staples, error) {
	st := &staples{responder: s.staplingResponder, verify: s.staplingVerify, issuers: t.trusted, client: newOCSPClient(l.Conf.Core.Names, true), of: map[*tls.Certificate]*staple{}}
	if s.staplingFile != "" {
		return st, st.readFile(l.c.opts.confRelative(s.staplingFile))
	}
	for _, pair := range t.pairs {
		cert, err := l.c.opts.loadCertificate(pair, t.lax)
		if err != nil {
			continue // it is reported where certificates are checked
		}
		if _, err := st.queryFor(cert); err != nil {
			l.c.failLater(parser.Warning, l.Server.Place, parser.Range{}, "", "", "\"ssl_stapling\" ignored, %s certificate %q", err, pair.Certificate)
		}
	}
	return st, nil
}

func (s *staples) readFile(name string) error {
	der, err := readTLSFile(name)
	if err != nil {
		return fmt.Errorf("BIO_new_file(%q) failed (%w)", name, err)
	}
	var response asn1.RawValue
	if _, err := asn1.Unmarshal(der, &response); err != nil || response.Tag != asn1.TagSequence {
		return fmt.Errorf("d2i_OCSP_RESPONSE_bio(%q) failed (SSL: error:0688010A:asn1 encoding routines::nested asn1 error:Type=OCSP_RESPONSE)", name)
	}
	s.file = response.FullBytes
	return nil
}

// queryFor makes the question about a certificate. The error is what nginx warns
// of, up to the certificate's name.
func (s *staples) queryFor(cert *tls.Certificate) (*ocspQuery, error) {
	leaf := cert.Leaf
	if leaf == nil {
		return nil, fmt.Errorf("issuer certificate not found for")
	}
	var chain []*x509.Certificate
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	q := &ocspQuery{cert: leaf, issuer: issuerOf(leaf, slices.Concat(chain, s.issuers)), verify: s.verify}
	if q.issuer == nil {
		return nil, fmt.Errorf("issuer certificate not found for")
	}
	responder := s.responder
	if responder == "" {
		if len(leaf.OCSPServer) == 0 {
			return nil, fmt.Errorf("no OCSP responder URL in the")
		}
		responder = leaf.OCSPServer[0]
	}
	var err error
	if q.responder, err = responderURL(responder); err != nil {
		return nil, fmt.Errorf("%w in OCSP responder %q in the", err, strings.TrimPrefix(responder, "http://"))
	}
	return q, nil
}

// statusRequest is the extension by which clients ask for a proof.
const statusRequest = 5

// add gives the certificate with its proof, if the client asks for one and it is
// at hand.
func (s *staples) add(cert *tls.Certificate, hello *tls.ClientHelloInfo, r *Runtime) *tls.Certificate {
	if s == nil || cert == nil || !slices.Contains(hello.Extensions, statusRequest) {
		return cert
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.of[cert]
	if st == nil {
		st = s.remember(cert)
	}
	if st.query != nil && !st.loading && now.After(st.refresh) {
		st.loading = true
		go s.load(cert, st, r)
	}
	if st.with != nil && !now.After(st.valid) {
		return st.with
	}
	return cert
}

// forever is when the proof of a file ends to be valid: it is not looked at.
const forever = 100 * 365 * 24 * time.Hour

func (s *staples) remember(cert *tls.Certificate) *staple {
	st := &staple{}
	if s.file != nil {
		st.with, st.valid = withStaple(cert, s.file), time.Now().Add(forever)
	} else {
		st.query, _ = s.queryFor(cert)
	}
	if len(s.of) >= mostStaples {
		clear(s.of)
	}
	s.of[cert] = st
	return st
}

func withStaple(cert *tls.Certificate, proof []byte) *tls.Certificate {
	with := *cert
	with.OCSPStaple = proof
	return &with
}

// load asks the responder. Good news are renewed before they end, but not more
// often than every five minutes and at least every hour.
func (s *staples) load(cert *tls.Certificate, st *staple, r *Runtime) {
	const least, most = 5 * time.Minute, time.Hour
	raw, response, err := s.client.ask(context.Background(), st.query)
	if err == nil && response.Status != ocsp.Good {
		err = fmt.Errorf("certificate status \"%s\" in the OCSP response", statusName(response.Status))
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.loading = false
	if st.refresh = now.Add(least); err != nil {
		r.Logf(logError, "%v while requesting certificate status, responder: %s", err, st.query.responder)
		return
	}
	st.with, st.valid = withStaple(cert, raw), now.Add(forever)
	if next := response.NextUpdate; !next.IsZero() {
		st.valid = next
		if soon := next.Add(-least); soon.After(st.refresh) {
			st.refresh = soon
		}
	} else {
		st.refresh = now.Add(most)
	}
	if limit := now.Add(most); st.refresh.After(limit) {
		st.refresh = limit
	}
}

func statusName(status int) string {
	switch status {
	case ocsp.Good:
		return "good"
	case ocsp.Revoked:
		return "revoked"
	}
	return "unknown"
}
