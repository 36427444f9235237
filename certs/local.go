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
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// localCAName is how clients show the local CA.
const localCAName = "proxyctl local CA"

// localLifetime is that of the certificates it issues; they are replaced when
// a third of it is left.
const localLifetime = 90 * 24 * time.Hour

// localCA issues certificates for trying a site on a machine that is not its
// own. Its root is kept in the data folder and never installed anywhere. The
// keys of the certificates it issues are in memory only.
type localCA struct {
	rootFile string
	root     *x509.Certificate
	key      *ecdsa.PrivateKey
	now      func() time.Time
}

// openLocalCA reads the root, or makes it on first use and when it would not
// outlive what it issues. A lock makes one of two processes wait.
func openLocalCA(dir string, now func() time.Time) (*localCA, error) {
	ca := &localCA{rootFile: filepath.Join(dir, "root.pem"), now: now}
	if err := ca.open(dir); err != nil {
		return nil, fmt.Errorf("local CA in %s: %w", dir, err)
	}
	return ca, nil
}

func (ca *localCA) open(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil { // it may have been there
		return err
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer unlock()
	keyFile := filepath.Join(dir, "root.key")
	if !exists(ca.rootFile) || !exists(keyFile) {
		return ca.create(keyFile)
	}
	pair, err := loadPair(Pair{Cert: ca.rootFile, Key: keyFile}, false)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || pair.Leaf == nil || !pair.Leaf.IsCA {
		return errors.New("root.pem and root.key are not of a local CA")
	}
	if ca.now().Add(localLifetime).After(pair.Leaf.NotAfter) {
		return ca.create(keyFile)
	}
	ca.root, ca.key = pair.Leaf, key
	return nil
}

// exists is false only when a file is known not to be there.
func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// lockFolder waits until no other process has the folder.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return func() { f.Close() }, nil
}

// create makes a new root. The key comes first: without root.pem there is none.
func (ca *localCA) create(keyFile string) error {
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
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	ca.root, ca.key = root, key
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	return writeFile(ca.rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issue makes a certificate for the names of a server block and for this
// machine's own.
func (ca *localCA) issue(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := ca.now()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(localLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = localNames(names)
	if name := template.DNSNames[0]; len(name) <= 64 { // the bound of X.520
		template.Subject.CommonName = name
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, &key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// due says whether a certificate wants to be replaced.
func (ca *localCA) due(cert *tls.Certificate) bool {
	return ca.now().After(cert.Leaf.NotAfter.Add(-localLifetime / 3))
}

// localNames makes names for a certificate of values of server_name: ".x"
// stands for two; what no certificate can hold is left out (regular
// expressions, "x.*", "_"). This machine's names come last.
func localNames(names []string) (dns []string, addresses []net.IP) {
	add := func(name string) {
		if name != "" && isDNSName(strings.TrimPrefix(name, "*.")) && !slices.Contains(dns, name) {
			dns = append(dns, name)
		}
	}
	for _, n := range names {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if ip := net.ParseIP(strings.Trim(n, "[]")); ip != nil {
			addresses = append(addresses, ip)
			continue
		}
		if rest, both := strings.CutPrefix(n, "."); both {
			add(rest)
			add("*." + rest)
			continue
		}
		add(n)
	}
	add("localhost")
	return dns, append(addresses, net.IPv4(127, 0, 0, 1), net.IPv6loopback)
}

// isDNSName says whether a name can be in a certificate. Underscores are not
// of host names but in use; alone they are nginx's custom for "no name".
func isDNSName(name string) bool {
	if len(name) > 253 || strings.Trim(name, "_-") == "" {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// serial gives a positive number of 120 bits; of chance alone, so that none
// comes twice after the folder was removed.
func serial() *big.Int {
	b := make([]byte, 15)
	rand.Read(b) // never fails
	b[0] |= 1
	return new(big.Int).SetBytes(b)
}

// writeFile puts a file in place whole or not at all, readable by its owner
// alone.
func writeFile(name string, text []byte) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
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
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes a rename last.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
