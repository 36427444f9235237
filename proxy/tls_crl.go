package proxy

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"
)

// revocationList holds the serial numbers that an issuer has taken back
// (RFC 5280, section 5). crypto/x509 reads version 2 only, but "openssl ca"
// writes version 1 unless told otherwise.
type revocationList struct {
	issuer    []byte // its name, DER
	signed    []byte
	algorithm x509.SignatureAlgorithm
	signature []byte
	next      time.Time // when a newer one is due; zero for never
	serials   map[string]struct{}
	by        []*x509.Certificate // known to have made it

	users, authorities bool // it is about certificates of these only
}

// The parts of RFC 5280 that are looked at.
type (
	derRevocationList struct {
		Signed    derSignedList
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	derSignedList struct {
		Raw        asn1.RawContent
		Version    int `asn1:"optional,default:0"`
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		ThisUpdate time.Time
		NextUpdate time.Time        `asn1:"optional"`
		Revoked    []derRevoked     `asn1:"optional"`
		Extensions []pkix.Extension `asn1:"tag:0,optional,explicit"`
	}
	derRevoked struct {
		Serial     *big.Int
		When       time.Time
		Extensions []pkix.Extension `asn1:"optional"`
	}
)

var errRevocationList = errors.New("SSL: error:0688010A:asn1 encoding routines::nested asn1 error:Type=X509_CRL")

// parseRevocationList reads a list of any version.
func parseRevocationList(der []byte) (*revocationList, error) {
	var d derRevocationList
	if rest, err := asn1.Unmarshal(der, &d); err != nil || len(rest) > 0 {
		return nil, errRevocationList
	}
	l := &revocationList{
		issuer: d.Signed.Issuer.FullBytes, signed: d.Signed.Raw, signature: d.Signature.RightAlign(),
		algorithm: signatureAlgorithm(d.Algorithm), next: d.Signed.NextUpdate,
		serials: make(map[string]struct{}, len(d.Signed.Revoked)),
	}
	for _, e := range append(d.Signed.Extensions, entryExtensions(d.Signed.Revoked)...) {
		if err := l.extension(e); err != nil {
			return nil, err
		}
	}
	for _, r := range d.Signed.Revoked {
		l.serials[string(r.Serial.Bytes())] = struct{}{}
	}
	return l, nil
}

// extension reads what a critical extension says. A list that is about some
// reasons only, or about certificates of others, must not be taken for a whole
// one.
func (l *revocationList) extension(e pkix.Extension) error {
	if !e.Critical {
		return nil
	}
	var scope struct {
		Point asn1.RawValue `asn1:"optional,tag:0"`
		Users bool          `asn1:"optional,tag:1"`
		CAs   bool          `asn1:"optional,tag:2"`
	}
	issuingPoint := asn1.ObjectIdentifier{2, 5, 29, 28}
	if e.Id.Equal(issuingPoint) {
		if rest, err := asn1.Unmarshal(e.Value, &scope); err == nil && len(rest) == 0 {
			l.users, l.authorities = scope.Users, scope.CAs
			return nil
		}
	}
	return errors.New("critical extension " + e.Id.String() + " is not supported by proxyctl")
}

// covers says whether the list is about certificates of this kind.
func (l *revocationList) covers(c *x509.Certificate) bool {
	if c.IsCA {
		return !l.users
	}
	return !l.authorities
}

func entryExtensions(entries []derRevoked) (out []pkix.Extension) {
	for i := range entries {
		out = append(out, entries[i].Extensions...)
	}
	return out
}

// signatureAlgorithm finds the algorithm of an identifier; 0 for one that is
// unknown or broken.
func signatureAlgorithm(id pkix.AlgorithmIdentifier) x509.SignatureAlgorithm {
	switch id.Algorithm.String() {
	case "1.2.840.113549.1.1.11":
		return x509.SHA256WithRSA
	case "1.2.840.113549.1.1.12":
		return x509.SHA384WithRSA
	case "1.2.840.113549.1.1.13":
		return x509.SHA512WithRSA
	case "1.2.840.10045.4.3.2":
		return x509.ECDSAWithSHA256
	case "1.2.840.10045.4.3.3":
		return x509.ECDSAWithSHA384
	case "1.2.840.10045.4.3.4":
		return x509.ECDSAWithSHA512
	case "1.3.101.112":
		return x509.PureEd25519
	}
	return x509.UnknownSignatureAlgorithm
}

// isBy checks the name and the signature of the issuer.
func (l *revocationList) isBy(issuer *x509.Certificate) bool {
	return bytes.Equal(l.issuer, issuer.RawSubject) &&
		(issuer.KeyUsage == 0 || issuer.KeyUsage&x509.KeyUsageCRLSign != 0) &&
		issuer.CheckSignature(l.algorithm, l.signed, l.signature) == nil
}

// madeBy is isBy, but quick for issuers that were known when the list was read.
func (l *revocationList) madeBy(issuer *x509.Certificate) bool {
	for _, c := range l.by {
		if c.Equal(issuer) {
			return true
		}
	}
	return l.isBy(issuer)
}

func (l *revocationList) has(serial *big.Int) bool {
	_, revoked := l.serials[string(serial.Bytes())]
	return revoked
}
