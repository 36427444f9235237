package proxy

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Certificates of clients. As in nginx the handshake succeeds whatever the
// client shows; what is found is answered with 400 when a request comes
// (ngx_http_process_request).

// clientAuthorities are whom clients' certificates are held against.
type clientAuthorities struct {
	trusted  *x509.CertPool // those that sign themselves
	between  *x509.CertPool // the others: OpenSSL wants chains to end in the former
	named    *x509.CertPool // those that clients are told
	revoked  []*x509.RevocationList
	checkCRL bool
	depth    int
}

// clientAuthorities reads the files; nil when clients are not asked.
func (s *sslConf) clientAuthorities(l *Level) (*clientAuthorities, error) {
	if s.Verify != verifyOff && s.Verify != verifyOptionalNoCA && s.clientCA == "" && s.trusted == "" {
		return nil, errors.New("no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client")
	}
	a := &clientAuthorities{trusted: x509.NewCertPool(), between: x509.NewCertPool(), named: x509.NewCertPool(), depth: s.verifyDepth}
	if s.clientCA != "" && s.Verify != verifyOff {
		if err := a.read(l.c.opts.confRelative(s.clientCA), a.named); err != nil {
			return nil, err
		}
	}
	if s.trusted != "" {
		if err := a.read(l.c.opts.confRelative(s.trusted), nil); err != nil {
			return nil, err
		}
	}
	if s.crl != "" {
		if err := a.readRevoked(l.c.opts.confRelative(s.crl)); err != nil {
			return nil, err
		}
	}
	if s.Verify == verifyOff {
		return nil, nil //nolint:nilnil // nobody is asked
	}
	return a, nil
}

func (a *clientAuthorities) read(name string, named *x509.CertPool) error {
	blocks, err := readPEMFile(name, "TRUSTED CERTIFICATE", "CERTIFICATE", "X509 CERTIFICATE")
	if err != nil {
		return loadError("certificate", name, "PEM_read_bio_X509_AUX", err)
	}
	for _, der := range blocks {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("cannot load certificate %q: PEM_read_bio_X509() failed (%w)", name, err)
		}
		if isSelfSigned(cert) {
			a.trusted.AddCert(cert)
		} else {
			a.between.AddCert(cert)
		}
		if named != nil {
			named.AddCert(cert)
		}
	}
	return nil
}

func (a *clientAuthorities) readRevoked(name string) error {
	blocks, err := readPEMFile(name, "X509 CRL")
	if err != nil {
		return loadError("CRL", name, "PEM_read_bio_X509_CRL", err)
	}
	for _, der := range blocks {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return fmt.Errorf("cannot load CRL %q: PEM_read_bio_X509_CRL() failed (%w)", name, err)
		}
		a.revoked = append(a.revoked, list)
	}
	a.checkCRL = true
	return nil
}

// verifyResult is what OpenSSL finds out about a chain: 0 and "ok", or else a
// number and its text.
type verifyResult struct {
	code int
	text string
}

// The results that occur here (openssl/x509_vfy.h).
var (
	verifyOK            = verifyResult{0, "ok"}
	verifyNoCRL         = verifyResult{3, "unable to get certificate CRL"}
	verifyNotYet        = verifyResult{9, "certificate is not yet valid"}
	verifyExpired       = verifyResult{10, "certificate has expired"}
	verifyCRLExpired    = verifyResult{12, "CRL has expired"}
	verifySelfSigned    = verifyResult{18, "self-signed certificate"}
	verifySelfSignedTop = verifyResult{19, "self-signed certificate in certificate chain"}
	verifyNoIssuer      = verifyResult{20, "unable to get local issuer certificate"}
	verifyUnverified    = verifyResult{21, "unable to verify the first certificate"}
	verifyTooLong       = verifyResult{22, "certificate chain too long"}
	verifyRevoked       = verifyResult{23, "certificate revoked"}
	verifyPurpose       = verifyResult{26, "unsuitable certificate purpose"}
	verifyOther         = verifyResult{1, "unspecified certificate verification error"}
)

// optional says whether ssl_verify_client optional_no_ca lets the result pass
// (ngx_ssl_verify_error_optional).
func (r verifyResult) optional() bool { return r.code >= 18 && r.code <= 21 }

// verify looks at what a client has shown. Unlike nginx, which keeps the result
// with the session, it is done again when a session is resumed: what has been
// revoked or has expired since is refused.
func (a *clientAuthorities) verify(chain []*x509.Certificate, now time.Time) verifyResult {
	if a == nil || len(chain) == 0 {
		return verifyOK
	}
	leaf := chain[0]
	between := a.between.Clone()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.trusted, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return a.reason(err, chain, now)
	}
	result := verifyTooLong
	for _, c := range chains {
		if len(c)-2 > a.depth {
			continue
		}
		if result = a.revocation(c, now); result == verifyOK {
			return result
		}
	}
	return result
}

// reason words what crypto/x509 says as OpenSSL does.
func (a *clientAuthorities) reason(err error, chain []*x509.Certificate, now time.Time) verifyResult {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return unknownIssuer(chain)
	case !errors.As(err, &invalid):
		return verifyOther
	}
	switch invalid.Reason {
	case x509.Expired:
		if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
			return verifyNotYet
		}
		return verifyExpired
	case x509.IncompatibleUsage:
		return verifyPurpose
	case x509.TooManyIntermediates:
		return verifyTooLong
	default:
		return verifyOther
	}
}

// unknownIssuer tells how a chain ends that leads to nobody who is trusted.
func unknownIssuer(chain []*x509.Certificate) verifyResult {
	top := chain[0]
	for _, c := range chain[1:] {
		if top.CheckSignatureFrom(c) == nil {
			top = c
		}
	}
	self := isSelfSigned(top)
	switch {
	case self && top == chain[0]:
		return verifySelfSigned
	case self:
		return verifySelfSignedTop
	case len(chain) == 1:
		return verifyUnverified
	}
	return verifyNoIssuer
}

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// revocation looks for each certificate of a chain in the list of its issuer,
// which must be there (X509_V_FLAG_CRL_CHECK_ALL).
func (a *clientAuthorities) revocation(chain []*x509.Certificate, now time.Time) verifyResult {
	if !a.checkCRL {
		return verifyOK
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		result := verifyNoCRL
		for _, list := range a.revoked {
			if list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			result = verifyOK
			if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
				result = verifyCRLExpired
			}
			if isRevoked(list, c) {
				return verifyRevoked
			}
		}
		if result != verifyOK {
			return result
		}
	}
	return verifyOK
}

func isRevoked(list *x509.RevocationList, c *x509.Certificate) bool {
	for i := range list.RevokedCertificateEntries {
		if list.RevokedCertificateEntries[i].SerialNumber.Cmp(c.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

// checkClient refuses requests to a listener with ssl that came in without TLS,
// or without the certificate that the server asks for
// (ngx_http_process_request).
func (x *Exchange) checkClient() Code {
	h := x.client.secure
	if h == nil {
		x.Logf(logInfo, "client sent plain HTTP request to HTTPS port while reading client request headers")
		return statusToHTTPS
	}
	want := x.server.Level.Conf.SSL.Verify
	if want == verifyOff {
		return OK
	}
	if h.verify != verifyOK && (want != verifyOptionalNoCA || !h.verify.optional()) {
		x.Logf(logInfo, "client SSL certificate verify error: (%d:%s) while reading client request headers", h.verify.code, h.verify.text)
		h.sessions.forget()
		return statusCertError
	}
	if want == verifyOn && len(h.state.PeerCertificates) == 0 {
		x.Logf(logInfo, "client sent no required SSL certificate while reading client request headers")
		h.sessions.forget()
		return statusNoCert
	}
	return OK
}
