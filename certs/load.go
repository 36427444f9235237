package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// loadPair reads a certificate chain and its key. Errors are worded as nginx
// with OpenSSL 3 words them: operators and tools search for these texts.
func loadPair(p Pair) (*tls.Certificate, error) {
	text, err := readPEM(p.Cert, "cannot load certificate")
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("cannot load certificate %q: PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)", p.Cert)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return nil, fmt.Errorf("cannot load certificate %q: PEM_read_bio_X509_AUX() failed (%w)", p.Cert, err)
	}
	key, err := loadKey(p)
	if err != nil {
		return nil, err
	}
	if !matches(cert.Leaf, key) {
		return nil, fmt.Errorf("SSL_CTX_use_PrivateKey(%q) failed (SSL: error:05800074:x509 certificate routines::key values mismatch)", p.Key)
	}
	cert.PrivateKey = key
	return cert, nil
}

// readPEM reads a file, or the text after "data:".
func readPEM(name, what string) ([]byte, error) {
	if text, inline := strings.CutPrefix(name, "data:"); inline {
		return []byte(text), nil
	}
	text, err := os.ReadFile(name)
	if err == nil {
		return text, nil
	}
	var e syscall.Errno
	errors.As(err, &e)
	reason := "no such file"
	if e != syscall.ENOENT {
		reason = "system lib"
	}
	system := e.Error()
	system = strings.ToUpper(system[:1]) + system[1:]
	code := map[string]string{"no such file": "10000080", "system lib": "10080002"}[reason]
	return nil, fmt.Errorf("%s %q: BIO_new_file() failed (SSL: error:8000%04X:system library::%s:calling fopen(%s, r) error:%s:BIO routines::%s)",
		what, name, int(e), system, name, code, reason)
}

func loadKey(p Pair) (crypto.PrivateKey, error) {
	text, err := readPEM(p.Key, "cannot load certificate key")
	if err != nil {
		return nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if key := parseKey(block.Bytes); key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("cannot load certificate key %q: PEM_read_bio_PrivateKey() failed (SSL: error:1E08010C:DECODER routines::unsupported)", p.Key)
	}
	return nil, fmt.Errorf("cannot load certificate key %q: PEM_read_bio_PrivateKey() failed (SSL: error:1E08010C:DECODER routines::unsupported)", p.Key)
}

// parseKey reads PKCS#8, PKCS#1 and SEC 1.
func parseKey(der []byte) crypto.PrivateKey {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// matches says whether the key belongs to the certificate.
func matches(leaf *x509.Certificate, key crypto.PrivateKey) bool {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	a, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return false
	}
	b, err := x509.MarshalPKIXPublicKey(leaf.PublicKey)
	return err == nil && bytes.Equal(a, b)
}
