package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// certificate NAME [ISSUER]: makes NAME.crt and NAME.key, signed by itself or by
// a certificate made before.
func scriptCertificate(ts *testscript.TestScript, _ bool, args []string) {
	name, issuer := args[0], args[len(args)-1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: len(args) == 1, BasicConstraintsValid: true,
	}
	parent, by := template, key
	if len(args) > 1 {
		pair, err := tls.LoadX509KeyPair(ts.MkAbs(issuer+".crt"), ts.MkAbs(issuer+".key"))
		ts.Check(err)
		parent, by = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// secure speaks TLS over a connection: it sends the name, shows the certificate
// that -cert=NAME asks for, and verifies nothing.
func secure(ts *testscript.TestScript, c net.Conn, host, cert string) (net.Conn, error) {
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(ts.MkAbs(cert+".crt"), ts.MkAbs(cert+".key"))
		ts.Check(err)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	conn := tls.Client(c, config)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return conn, conn.Handshake()
}

// cutCert takes -cert=NAME off the front.
func cutCert(args []string) (cert string, rest []string) {
	if name, ok := strings.CutPrefix(args[0], "-cert="); ok {
		return name, args[1:]
	}
	return "", args
}
