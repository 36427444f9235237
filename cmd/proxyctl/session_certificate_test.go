package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// sessionConf writes a configuration whose stream block serves TLS.
func sessionConf(t *testing.T, dir string, port int) string {
	t.Helper()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log notice;
events {}
stream {
    server {
        listen 127.0.0.1:%[2]d ssl;
        server_name one.test;
        ssl_certificate %[1]s/c.pem;
        ssl_certificate_key %[1]s/k.pem;
        return served;
    }
}
`, dir, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

// awaitShown waits until a server shows a certificate that is right.
func awaitShown(t *testing.T, port int, right func(cert *x509.Certificate) bool) {
	t.Helper()
	var cert *x509.Certificate
	err := os.ErrDeadlineExceeded
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if cert, err = shown(port, "one.test"); err == nil && right(cert) {
			return
		}
	}
	t.Fatalf("%v, %v", cert, err)
}

// TestSessionCertificateRenewed: a certificate of the stream block that has been
// renewed is shown, though nobody asks for a reload.
func TestSessionCertificateRenewed(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), unusedPort(t)
	writeTestPair(t, dir, "one.test")
	startServer(t, dir, "nginx", nil, "-c", sessionConf(t, dir, port))
	named := func(name string) func(*x509.Certificate) bool {
		return func(cert *x509.Certificate) bool { return slices.Contains(cert.DNSNames, name) }
	}
	awaitShown(t, port, named("one.test"))
	writeTestPair(t, dir, "two.test")
	awaitShown(t, port, named("two.test"))
}

// TestSessionCertificateMissing: one that is not there is made on the spot, as for
// servers of HTTP.
func TestSessionCertificateMissing(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), unusedPort(t)
	startServer(t, dir, "proxyctl", nil, "serve", "--local", "--data", filepath.Join(dir, "data"), sessionConf(t, dir, port))
	awaitShown(t, port, func(cert *x509.Certificate) bool { return cert.VerifyHostname("one.test") == nil })
}
