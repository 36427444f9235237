package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/crypto/ocsp"
)

// A certificate can demand that it is shown together with a proof that it has
// not been revoked, an OCSP response (RFC 7633, "must-staple"): browsers refuse it
// without. Such certificates are always stapled.
//
// Unlike nginx, which staples only if ssl_stapling says so, and not before a
// first client has gone without.

// mustStaple says whether a certificate demands it.
func mustStaple(leaf *x509.Certificate) bool {
	for _, e := range leaf.Extensions {
		var features []int
		if e.Id.Equal(tlsFeature()) {
			_, err := asn1.Unmarshal(e.Value, &features)
			return err == nil && slices.Contains(features, statusRequest)
		}
	}
	return false
}

// tlsFeature is the extension of certificates that says so.
func tlsFeature() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24} }

const (
	// statusRequest is the extension by which clients ask for a proof.
	statusRequest = 5

	proofsFolder = "proofs"
	proofTimeout = 10 * time.Second // of a responder
	proofWait    = 5 * time.Second  // of a handshake that comes before the first proof
	proofSize    = 64 << 10
	proofAge     = time.Hour // of a proof that does not say when there is a new one
	maxProving   = 8         // responders asked at once
	maxProofWait = time.Hour // after failures
)

// stapler has proofs for the certificates that demand them.
type stapler struct {
	o       *Options
	proofs  *folder // kept over restarts: responders may be away
	changed func()  // there is a new proof
	client  *http.Client
	slots   chan struct{}

	mu    sync.Mutex
	begun bool
	of    map[string]*staple // by fingerprint
	ended sync.WaitGroup
}

// staple is the proof for one certificate.
type staple struct {
	id     string
	cert   *tls.Certificate // with the proof, if there is one
	ready  chan struct{}    // closed when there is a proof, or the first question is over
	cancel context.CancelFunc
	wanted bool

	proof    *proof // nil: none
	failures int
}

// proof is an OCSP response that says "good".
type proof struct {
	raw            []byte
	valid, refresh time.Time
}

func newStapler(o *Options, proofs *folder, changed func()) *stapler {
	return &stapler{
		o: o, proofs: proofs, changed: changed, slots: make(chan struct{}, maxProving), of: map[string]*staple{},
		client: &http.Client{Timeout: proofTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}},
	}
}

// begin has responders asked from now on.
func (s *stapler) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
	for _, st := range s.of {
		s.start(st)
	}
}

func (s *stapler) close() {
	s.mu.Lock()
	s.begun = false
	for _, st := range s.of {
		st.stop()
	}
	s.mu.Unlock()
	s.ended.Wait()
}

func (st *staple) stop() {
	if st.cancel != nil {
		st.cancel()
	}
}

// staple puts their proofs on the certificates of all sites that demand it. Those
// that none is known for yet are noted in the site.
func (s *stapler) staple(sites map[string]*served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.of {
		st.wanted = false
	}
	for _, site := range sites {
		site.unproved = nil
		for i, cert := range site.certs {
			if cert.Leaf == nil || !mustStaple(cert.Leaf) {
				continue
			}
			site.certs = slices.Clone(site.certs) // they may be another's, too
			st := s.want(cert)
			site.certs[i] = st.cert
			if st.proof == nil {
				site.unproved = append(site.unproved, st.ready)
			}
		}
	}
	for id, st := range s.of {
		if !st.wanted {
			st.stop()
			delete(s.of, id)
			_ = s.proofs.Delete(context.Background(), id)
		}
	}
}

// prove puts a proof on the certificate; nil takes it away.
func (st *staple) prove(p *proof) {
	cert := *st.cert
	if cert.OCSPStaple = nil; p != nil {
		cert.OCSPStaple = p.raw
	}
	st.cert, st.proof = &cert, p
}

// want finds or makes the proof for a certificate.
func (s *stapler) want(cert *tls.Certificate) *staple {
	id := proofName(cert)
	st := s.of[id]
	if st == nil {
		st = &staple{id: id, cert: cert, ready: make(chan struct{})}
		if p := keptProof(s.proofs, cert, s.o.Now()); p != nil {
			st.prove(p)
			close(st.ready)
		}
		s.of[id] = st
		if s.begun {
			s.start(st)
		}
	}
	st.wanted = true
	return st
}

// keptProof reads the proof for a certificate that was kept, nil without one.
func keptProof(proofs *folder, cert *tls.Certificate, now time.Time) *proof {
	raw, err := proofs.Load(context.Background(), proofName(cert))
	if err != nil {
		return nil
	}
	p, err := readProof(raw, cert, now)
	if err != nil {
		return nil
	}
	return p
}

func proofName(cert *tls.Certificate) string {
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:16])
}

// start keeps the proof for a certificate fresh.
func (s *stapler) start(st *staple) {
	ctx, cancel := context.WithCancel(context.Background())
	st.cancel = cancel
	var wait time.Duration
	if st.proof != nil {
		wait = st.proof.refresh.Sub(s.o.Now())
	}
	s.ended.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = s.renew(ctx, st)
		}
	})
}

// renew asks the responder, and says when to ask it again.
func (s *stapler) renew(ctx context.Context, st *staple) time.Duration {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	cert := st.cert // changed here only
	p, err := s.ask(ctx, cert)
	<-s.slots
	if ctx.Err() != nil {
		return 0
	}
	now := s.o.Now()
	s.mu.Lock()
	old := st.proof
	first := old == nil && st.failures == 0
	if err == nil {
		st.prove(p)
		st.failures = 0
	} else {
		st.failures++
		if old != nil && !now.Before(old.valid) {
			st.prove(nil)
		}
	}
	wait := min(10*time.Second<<min(st.failures, 10), maxProofWait)
	changed := st.proof != old
	s.mu.Unlock()
	if err == nil {
		_ = s.proofs.Store(ctx, st.id, p.raw)
		wait = p.refresh.Sub(now)
	} else {
		if old != nil && now.Before(old.valid) {
			wait = min(wait, old.valid.Sub(now)+time.Second) // then it is taken away
		}
		s.o.Log("error", fmt.Sprintf("certificate for %s: no proof that it is not revoked: %v; %s", nameOf(cert), err, outlook(old, now)))
	}
	if changed {
		s.changed()
	}
	if first {
		close(st.ready)
	}
	return max(wait, time.Second)
}

// outlook says what a failure means.
func outlook(old *proof, now time.Time) string {
	if old != nil && now.Before(old.valid) {
		return "browsers refuse it from " + old.valid.UTC().Format(time.DateTime) + " UTC on, for it demands one (must-staple)"
	}
	return "browsers refuse it, for it demands one (must-staple)"
}

// nameOf is the name that people know a certificate by.
func nameOf(cert *tls.Certificate) string {
	if names := certificateNames(cert); len(names) > 0 {
		return names[0]
	}
	return cert.Leaf.Subject.CommonName
}

// ask has the responder of a certificate make a proof (RFC 6960).
func (s *stapler) ask(ctx context.Context, cert *tls.Certificate) (*proof, error) {
	issuer, err := responds(cert)
	if err != nil {
		return nil, err
	}
	request, err := ocsp.CreateRequest(cert.Leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	responder := cert.Leaf.OCSPServer[0]
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	answer, err := s.client.Do(r)
	if err != nil {
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("asking %s: %w", responder, err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, proofSize))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	var p *proof
	if err == nil {
		p, err = readProof(raw, cert, s.o.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", responder, err)
	}
	return p, nil
}

// responds finds the issuer of a certificate whose proofs can be asked for.
func responds(cert *tls.Certificate) (issuer *x509.Certificate, err error) {
	if len(cert.Leaf.OCSPServer) == 0 {
		return nil, errors.New("it does not say whom to ask for one (OCSP responder)")
	}
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil && cert.Leaf.CheckSignatureFrom(c) == nil {
			return c, nil
		}
	}
	return nil, errors.New("the certificate of its issuer does not follow it in the file")
}

// readProof sees that a response is genuine, of today, and good news.
func readProof(raw []byte, cert *tls.Certificate, now time.Time) (*proof, error) {
	issuer, err := responds(cert)
	if err != nil {
		return nil, err
	}
	r, err := ocsp.ParseResponseForCert(raw, cert.Leaf, issuer)
	switch {
	case err != nil:
		return nil, err
	case r.Status == ocsp.Revoked:
		return nil, fmt.Errorf("it was revoked at %s UTC", r.RevokedAt.UTC().Format(time.DateTime))
	case r.Status != ocsp.Good:
		return nil, errors.New("the responder does not know it")
	case r.Certificate != nil && !bytes.Equal(r.Certificate.Raw, issuer.Raw) && !slices.Contains(r.Certificate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, errors.New("it is signed by somebody who may not")
	case !r.NextUpdate.IsZero() && !now.Before(r.NextUpdate):
		return nil, errors.New("it is out of date")
	}
	if r.NextUpdate.IsZero() {
		return &proof{raw, cert.Leaf.NotAfter, now.Add(proofAge)}, nil
	}
	return &proof{raw, r.NextUpdate, r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2)}, nil
}

// proved waits a little for the first proofs, if the client asks for one, and
// gives what the site shows then.
func (m *Manager) proved(siteID string, s *served, hello *tls.ClientHelloInfo) *served {
	if !slices.Contains(hello.Extensions, statusRequest) {
		return s
	}
	over := time.NewTimer(proofWait)
	defer over.Stop()
	for _, ready := range s.unproved {
		select {
		case <-ready:
		case <-over.C:
			return s
		}
	}
	if now := (*m.served.Load())[siteID]; now != nil {
		return now
	}
	return s
}

// issued has a certificate issued. Where the old one demanded proofs the new one
// does, unless the authority does not make such certificates (any more), or
// cannot answer for them.
func (k *keeper) issued(ctx context.Context, r request) ([]byte, error) {
	chain, err := k.issue(ctx, r)
	if !r.mustStaple {
		return chain, err
	}
	var problem acme.Problem
	switch {
	case err == nil:
		_, cert, bad := bundle(r.key, chain)
		if bad != nil || !mustStaple(cert.Leaf) {
			return chain, bad
		}
		if _, err = responds(cert); err == nil {
			return chain, nil
		}
	case !errors.As(err, &problem), problem.Type != acme.ProblemTypeBadCSR && !strings.Contains(strings.ToLower(problem.Detail), "staple"):
		return nil, err
	}
	k.o.Log("warn", fmt.Sprintf("certificate for %s: %s does not make one that demands OCSP proofs (must-staple): asking for one that does not: %v",
		r.order, hostOf(r.directory), err))
	r.mustStaple = false
	return k.issue(ctx, r)
}
