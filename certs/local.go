package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// localCAName is how browsers show the local CA.
const localCAName = "proxyctl local CA"

// localLifetime is that of the certificates it issues.
const localLifetime = 90 * 24 * time.Hour

// localCA issues certificates for trying a site on a machine that is not its
// own. Its root is kept in the data folder and never installed anywhere.
type localCA struct {
	rootFile string
	root     *x509.Certificate
	key      *ecdsa.PrivateKey
	now      func() time.Time
}

// openLocalCA reads the root, or makes it on first use.
func openLocalCA(dir string, now func() time.Time) (*localCA, error) {
	ca := &localCA{rootFile: filepath.Join(dir, "root.pem"), now: now}
	pair := Pair{Cert: ca.rootFile, Key: filepath.Join(dir, "root.key")}
	c, err := loadPair(pair)
	if errors.Is(err, os.ErrNotExist) || missing(pair) {
		if err := ca.create(dir); err != nil {
			return nil, fmt.Errorf("local CA in %s: %w", dir, err)
		}
		c, err = loadPair(pair)
	}
	if err != nil {
		return nil, fmt.Errorf("local CA in %s: %w", dir, err)
	}
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("local CA in %s: not an ECDSA key", dir)
	}
	ca.root, ca.key = c.Leaf, key
	return ca, nil
}

func (ca *localCA) create(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := ca.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: localCAName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "root.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	return writeFile(ca.rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// writeFile puts a file in place whole or not at all.
func writeFile(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n.Add(n, big.NewInt(1))
}

// issue makes a certificate for the names of a server block, beside this
// machine's own.
func (ca *localCA) issue(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := ca.now()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(localLifetime),
		DNSNames: localNames(names), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.Subject.CommonName = template.DNSNames[0]
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, &key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.root.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// localNames makes DNS names of server names: ".x" stands for two, and those
// that no certificate can hold are left out.
func localNames(names []string) []string {
	var out []string
	for _, n := range names {
		switch {
		case n == "" || n == "_" || strings.HasPrefix(n, "~") || strings.HasSuffix(n, ".*") || strings.ContainsAny(n, "/ "):
		case strings.HasPrefix(n, "."):
			out = append(out, n[1:], "*"+n)
		default:
			out = append(out, n)
		}
	}
	return append(out, "localhost")
}
