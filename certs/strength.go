package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
)

// OpenSSL asks for a strength of 112 bits unless the security level is lowered
// in ssl_ciphers ("@SECLEVEL=1"): ssl/t1_lib.c, ssl_security_cert.

// minRSABits is the smallest RSA key that OpenSSL's estimate takes for 112
// bits strong; measured.
const minRSABits = 1963

// checkStrength says of a chain what SSL_CTX_use_certificate and
// SSL_CTX_set0_chain say.
func checkStrength(path string, chain [][]byte) error {
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		call, small := "SSL_CTX_set0_chain(", "error:0A00018D:SSL routines::ca key too small"
		if i == 0 {
			call, small = "SSL_CTX_use_certificate(", "error:0A00018F:SSL routines::ee key too small"
		}
		reason := ""
		switch {
		case weakKey(cert):
			reason = small
		case weakSignature(cert):
			reason = "error:0A00018E:SSL routines::ca md too weak"
		default:
			continue
		}
		return &loadError{path: path, text: call + quoteCert(path) + ") failed" + inSSL(reason)}
	}
	return nil
}

func weakKey(cert *x509.Certificate) bool {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() < minRSABits
	case *ecdsa.PublicKey:
		return key.Curve.Params().BitSize < 224
	}
	return false
}

// weakSignature is about others' signatures: a certificate's own proves
// nothing.
func weakSignature(cert *x509.Certificate) bool {
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return false
	}
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}
