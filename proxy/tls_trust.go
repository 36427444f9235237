package proxy

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// trust is whom certificates are held against, those of clients as those of
// upstream servers, by OpenSSL's rules.
type trust struct {
	roots   *x509.CertPool // those that sign themselves: OpenSSL wants chains to end in one
	between *x509.CertPool // the others
	revoked []*revocationList
	revokes bool // every certificate of a chain must have a list
	depth   int  // how many certificates may stand between the first and the root
	usage   x509.ExtKeyUsage
	known   []*x509.Certificate // all of them
}

func newTrust(depth int, usage x509.ExtKeyUsage) *trust {
	return &trust{roots: x509.NewCertPool(), between: x509.NewCertPool(), depth: depth, usage: usage}
}

// read adds the certificates of a file, and gives them back.
func (t *trust) read(name string) ([]*x509.Certificate, error) {
	blocks, err := readPEMFile(name, "TRUSTED CERTIFICATE", "CERTIFICATE", "X509 CERTIFICATE")
	if err != nil {
		return nil, loadError("certificate", name, "PEM_read_bio_X509_AUX", err)
	}
	var out []*x509.Certificate
	for _, der := range blocks {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("cannot load certificate %q: PEM_read_bio_X509() failed (%w)", name, err)
		}
		if isSelfSigned(cert) {
			t.roots.AddCert(cert)
		} else {
			t.between.AddCert(cert)
		}
		out = append(out, cert)
	}
	t.known = append(t.known, out...)
	return out, nil
}

// readRevoked adds the lists of a file. From then on every certificate is looked
// for in one.
func (t *trust) readRevoked(name string) error {
	blocks, err := readPEMFile(name, "X509 CRL")
	if err != nil {
		return loadError("CRL", name, "PEM_read_bio_X509_CRL", err)
	}
	for _, der := range blocks {
		list, err := parseRevocationList(der)
		if err != nil {
			return fmt.Errorf("cannot load CRL %q: PEM_read_bio_X509_CRL() failed (%w)", name, err)
		}
		for _, c := range t.known {
			if list.isBy(c) {
				list.by = append(list.by, c)
			}
		}
		t.revoked = append(t.revoked, list)
	}
	t.revokes = true
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
	verifyRevoked       = verifyResult{23, "certificate revoked"}
	verifyPathLength    = verifyResult{25, "path length constraint exceeded"}
	verifyPurpose       = verifyResult{26, "unsuitable certificate purpose"}
	verifyOther         = verifyResult{1, "unspecified certificate verification error"}
)

// verify looks at a chain as a peer has shown it, its own certificate first, and
// gives the one that leads to a root.
func (t *trust) verify(shown []*x509.Certificate, now time.Time) ([]*x509.Certificate, verifyResult) {
	between := t.between
	if len(shown) > 1 {
		between = between.Clone()
		for _, c := range shown[1:] {
			between.AddCert(c)
		}
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: t.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{t.usage},
	})
	if err != nil {
		return nil, whyUnverified(err, shown, now)
	}
	result := verifyNoIssuer // of chains that are too long: nginx lets OpenSSL go on to this one
	for _, chain := range chains {
		if len(chain)-2 > t.depth {
			continue
		}
		if result = t.revocation(chain, now); result == verifyOK {
			return chain, result
		}
	}
	return nil, result
}

// whyUnverified words what crypto/x509 says as OpenSSL does.
func whyUnverified(err error, chain []*x509.Certificate, now time.Time) verifyResult {
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
		return verifyPathLength
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
func (t *trust) revocation(chain []*x509.Certificate, now time.Time) verifyResult {
	if !t.revokes {
		return verifyOK
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		result := verifyNoCRL
		for _, list := range t.revoked {
			if !list.covers(c) || !list.madeBy(issuer) {
				continue
			}
			switch {
			case list.has(c.SerialNumber):
				return verifyRevoked
			case list.next.IsZero() || now.Before(list.next):
				result = verifyOK
			case result != verifyOK:
				result = verifyCRLExpired
			}
		}
		if result != verifyOK {
			return result
		}
	}
	return verifyOK
}

// hasName says whether a certificate is for a host name: by its alternative
// names, or by its common names where it has none (X509_check_host).
func hasName(cert *x509.Certificate, name string) bool {
	if name == "" {
		return false
	}
	if len(cert.DNSNames) > 0 {
		return slices.ContainsFunc(cert.DNSNames, func(pattern string) bool { return matchesName(pattern, name) })
	}
	for _, a := range attributes(cert.RawSubject) {
		if a.oid == "2.5.4.3" {
			if text, ok := a.utf8(); ok && matchesName(text, name) {
				return true
			}
		}
	}
	return false
}

// matchesName compares a name with one of a certificate, whose first label may be
// or begin or end with "*", if two more follow.
func matchesName(pattern, name string) bool {
	if strings.EqualFold(pattern, name) {
		return true
	}
	first, rest, _ := strings.Cut(pattern, ".")
	label, domain, dotted := strings.Cut(name, ".")
	before, after, wild := strings.Cut(first, "*")
	if !wild || !dotted || !strings.EqualFold(rest, domain) || !strings.Contains(rest, ".") || strings.ContainsAny(rest+after, "*") {
		return false
	}
	if before != "" && after != "" || len(first) > 1 && strings.HasPrefix(strings.ToLower(first), "xn--") {
		return false
	}
	return len(label) >= len(before)+len(after) && len(label) > 0 && hasEnds(label, before, after)
}

func hasEnds(s, before, after string) bool {
	return strings.EqualFold(s[:len(before)], before) && strings.EqualFold(s[len(s)-len(after):], after)
}
