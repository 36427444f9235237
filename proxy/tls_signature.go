package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
)

// schemeNames are the names of signature schemes (RFC 8446, section 4.2.3).
var schemeNames = map[tls.SignatureScheme]string{
	tls.PKCS1WithSHA256: "rsa_pkcs1_sha256", tls.PKCS1WithSHA384: "rsa_pkcs1_sha384", tls.PKCS1WithSHA512: "rsa_pkcs1_sha512",
	tls.PSSWithSHA256: "rsa_pss_rsae_sha256", tls.PSSWithSHA384: "rsa_pss_rsae_sha384", tls.PSSWithSHA512: "rsa_pss_rsae_sha512",
	tls.ECDSAWithP256AndSHA256: "ecdsa_secp256r1_sha256", tls.ECDSAWithP384AndSHA384: "ecdsa_secp384r1_sha384",
	tls.ECDSAWithP521AndSHA512: "ecdsa_secp521r1_sha512", tls.Ed25519: "ed25519",
}

// schemeOfKey is the one scheme of TLS 1.3 that a key makes; 0 for RSA, which has
// three.
func schemeOfKey(key crypto.PublicKey) tls.SignatureScheme {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return tls.Ed25519
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return tls.ECDSAWithP256AndSHA256
		case elliptic.P384():
			return tls.ECDSAWithP384AndSHA384
		case elliptic.P521():
			return tls.ECDSAWithP521AndSHA512
		}
	}
	return 0
}

// signature names the scheme that the server has signed with. crypto/tls does
// not tell, but takes the first one of the client's that its key can do.
func (h *handshake) signature() string {
	if h.shown == nil || h.state.DidResume || h.state.Version < tls.VersionTLS12 {
		return ""
	}
	signer, ok := h.shown.PrivateKey.(crypto.Signer)
	if !ok {
		return ""
	}
	modern := h.state.Version >= tls.VersionTLS13
	if !modern && h.state.CurveID == 0 { // RSA encrypts then, and signs nothing
		return ""
	}
	only := schemeOfKey(signer.Public())
	_, isRSA := signer.Public().(*rsa.PublicKey)
	_, isEC := signer.Public().(*ecdsa.PublicKey)
	for _, s := range h.offered.sigalgs {
		switch s {
		case only:
			return schemeNames[s]
		case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
			if isRSA {
				return schemeNames[s]
			}
		case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
			if isRSA && !modern {
				return schemeNames[s]
			}
		case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512:
			if isEC && !modern { // before TLS 1.3 no curve belonged to a scheme
				return schemeNames[s]
			}
		}
	}
	return ""
}
