package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"slices"
)

// keyType is a slot for certificates in OpenSSL: of two with keys of one type
// the later one replaces the earlier.
type keyType uint8

const (
	typeRSA keyType = iota
	typeECDSA
	typeEd25519
)

func typeOf(cert *tls.Certificate) keyType {
	switch cert.PrivateKey.(type) {
	case *ecdsa.PrivateKey:
		return typeECDSA
	case ed25519.PrivateKey:
		return typeEd25519
	}
	return typeRSA
}

// put adds a certificate, or replaces the one of its type.
func put(certs []*tls.Certificate, cert *tls.Certificate) []*tls.Certificate {
	i := slices.IndexFunc(certs, func(c *tls.Certificate) bool { return typeOf(c) == typeOf(cert) })
	if i < 0 {
		return append(certs, cert)
	}
	certs[i] = cert
	return certs
}

// choose picks among certificates, one of a type, as OpenSSL does under nginx:
// the one that fits what the client names first, a signature scheme in TLS 1.3
// and a cipher suite before. Whether a name is in the certificate does not
// matter. If the client can use none the first is the answer, and the handshake
// fails with crypto/tls's alert.
func choose(certs []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	if len(certs) == 1 {
		return certs[0]
	}
	nameless := *hello
	nameless.ServerName = "" // else SupportsCertificate looks for it in the certificate
	rank := rankByCipher
	if slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		rank = rankByScheme
	}
	best, bestRank := certs[0], int(^uint(0)>>1)
	for _, cert := range certs {
		if r := rank(hello, cert); r < bestRank && nameless.SupportsCertificate(cert) == nil {
			best, bestRank = cert, r
		}
	}
	return best
}

// rankByScheme is the place of the first signature scheme for the certificate.
func rankByScheme(hello *tls.ClientHelloInfo, cert *tls.Certificate) int {
	for i, scheme := range hello.SignatureSchemes {
		if signs(cert, scheme) {
			return i
		}
	}
	return len(hello.SignatureSchemes)
}

// signs says whether a key makes signatures of a scheme in TLS 1.3, where a
// curve belongs to each (RFC 8446, section 4.2.3).
func signs(cert *tls.Certificate, scheme tls.SignatureScheme) bool {
	switch key := cert.PrivateKey.(type) {
	case *rsa.PrivateKey:
		return scheme == tls.PSSWithSHA256 || scheme == tls.PSSWithSHA384 || scheme == tls.PSSWithSHA512
	case ed25519.PrivateKey:
		return scheme == tls.Ed25519
	case *ecdsa.PrivateKey:
		switch scheme {
		case tls.ECDSAWithP256AndSHA256:
			return key.Curve == elliptic.P256()
		case tls.ECDSAWithP384AndSHA384:
			return key.Curve == elliptic.P384()
		case tls.ECDSAWithP521AndSHA512:
			return key.Curve == elliptic.P521()
		}
	}
	return false
}

// rankByCipher is the place of the first cipher suite for the certificate.
func rankByCipher(hello *tls.ClientHelloInfo, cert *tls.Certificate) int {
	isRSA := typeOf(cert) == typeRSA
	for i, suite := range hello.CipherSuites {
		if rsaSuite, known := suiteIsRSA(suite); known && rsaSuite == isRSA {
			return i
		}
	}
	return len(hello.CipherSuites)
}

// suiteIsRSA says whether a cipher suite that crypto/tls has wants an RSA
// certificate, else an elliptic one.
func suiteIsRSA(suite uint16) (isRSA, known bool) {
	switch suite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return false, true
	case tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA,
		tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_RC4_128_SHA:
		return true, true
	}
	return false, false
}
