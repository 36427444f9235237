package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challengePrefix is that of RFC 8555, section 8.3.
const challengePrefix = "/.well-known/acme-challenge/"

// Challenge gives the answer to an HTTP-01 challenge that this process has
// open, for a host without its port. Other tokens are none of ours: they may be
// Certbot's behind us.
func (m *Manager) Challenge(host, path string) (body string, ok bool) {
	if !strings.HasPrefix(path, challengePrefix) {
		return "", false
	}
	c, ok := certmagic.GetACMEChallenge(strings.ToLower(host))
	if !ok || c.Type != acme.ChallengeTypeHTTP01 || c.HTTP01ResourcePath() != path {
		return "", false
	}
	return c.KeyAuthorization, true
}

// ChallengeCertificate gives the certificate that answers a TLS-ALPN-01
// challenge (RFC 8737) that this process has open; nil for other names.
func (m *Manager) ChallengeCertificate(name string) *tls.Certificate {
	c, ok := certmagic.GetACMEChallenge(strings.ToLower(strings.TrimSuffix(name, ".")))
	if !ok || c.Type != acme.ChallengeTypeTLSALPN01 {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(c.Challenge)
	if err != nil {
		return nil
	}
	return cert
}

// placeholderName is how clients show a placeholder.
const placeholderName = "waiting for a certificate"

// placeholder makes a certificate that nobody trusts, for the handshakes before
// the first real one is there.
func placeholder(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: placeholderName}, DNSNames: names,
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// retryAfter finds the time that Let's Encrypt names in its rate limit errors.
func retryAfter(err error) (time.Time, bool) {
	var problem acme.Problem
	if !errors.As(err, &problem) {
		return time.Time{}, false
	}
	found := regexp.MustCompile(`retry after (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC`).FindStringSubmatch(problem.Detail)
	if found == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(time.DateTime, found[1])
	return at, err == nil
}
