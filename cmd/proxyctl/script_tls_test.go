package main

import (
	"bytes"
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
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// certificate [-ca] NAME [ISSUER]: makes NAME.crt and NAME.key, signed by itself or
// by a certificate made before. With -ca it can sign others, as one without an
// issuer can. NAME.crt holds certificates in between, too.
func scriptCertificate(ts *testscript.TestScript, _ bool, args []string) {
	ca := len(args) == 1
	if args[0] == "-ca" {
		ca, args = true, args[1:]
	}
	name, issuer := args[0], args[len(args)-1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true,
	}
	if ca {
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	parent, by := template, key
	var chain []byte
	if len(args) > 1 {
		pair := loadPair(ts, issuer)
		parent, by = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
		if !bytes.Equal(parent.RawIssuer, parent.RawSubject) {
			chain = []byte(ts.ReadFile(issuer + ".crt"))
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".crt"), append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), chain...), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// revoke ISSUER [NAME...]: makes ISSUER.crl, which revokes the certificates.
func scriptRevoke(ts *testscript.TestScript, _ bool, args []string) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, name := range args[1:] {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: loadPair(ts, name).Leaf.SerialNumber, RevocationTime: time.Now().Add(-time.Minute),
		})
	}
	issuer := loadPair(ts, args[0])
	der, err := x509.CreateRevocationList(rand.Reader, list, issuer.Leaf, issuer.PrivateKey.(*ecdsa.PrivateKey))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crl"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o644))
}

// secure speaks TLS over a connection: it sends the name, shows the certificate
// that is asked for, and verifies nothing.
func (h *harness) secure(ts *testscript.TestScript, c net.Conn, host string, flags getFlags) (net.Conn, error) {
	conn := tls.Client(c, h.tlsConfig(ts, host, flags))
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return conn, conn.Handshake()
}

func (h *harness) tlsConfig(ts *testscript.TestScript, host string, flags getFlags) *tls.Config {
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: flags.alpn}
	if flags.resume {
		config.ClientSessionCache = h.sessions
	}
	if flags.cert != "" {
		pair := loadPair(ts, flags.cert)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config
}
