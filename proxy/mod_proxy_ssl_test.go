package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate for a name, and the file that holds it.
func selfSigned(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// TestProxyTLS speaks TLS with servers, verified or not.
func TestProxyTLS(t *testing.T) {
	cert, trusted := selfSigned(t, "backend.test")
	_, other := selfSigned(t, "other.test")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for readRequestOf(r) != "" {
					name := c.(*tls.Conn).ConnectionState().ServerName
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Sni: "+name+"\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	plain := newBackend(t, func(c net.Conn, _ *bufio.Reader, _ int64) { _, _ = io.WriteString(c, "no TLS here\r\n") })
	tests := []struct {
		name, addr, directives string
		status                 int
		sni, log               string
	}{
		{"unverified", l.Addr().String(), "", 200, "", ""},
		{"name sent", l.Addr().String(), "proxy_ssl_server_name on; proxy_ssl_name backend.test:443;", 200, "backend.test", ""},
		{"verified", l.Addr().String(), "proxy_ssl_verify on; proxy_ssl_name backend.test; proxy_ssl_trusted_certificate " + trusted + ";", 200, "", ""},
		{"wrong name", l.Addr().String(), "proxy_ssl_verify on; proxy_ssl_name x.test; proxy_ssl_trusted_certificate " + trusted + ";", 502, "", `upstream SSL certificate does not match "x.test" while SSL handshaking to upstream`},
		{"untrusted", l.Addr().String(), "proxy_ssl_verify on; proxy_ssl_name backend.test; proxy_ssl_trusted_certificate " + other + ";", 502, "", "upstream SSL certificate verify error: (18:self-signed certificate) while SSL handshaking to upstream"},
		{"no TLS", plain.addr, "", 502, "", "SSL_do_handshake() failed (SSL: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProxyTest(t, "upstream u { server "+tt.addr+"; }", "location / { proxy_pass https://u; "+tt.directives+" }")
			for range 2 { // the second time over the kept connection
				x, s := p.exchange("GET /")
				p.do(x)
				if s.status != tt.status || s.fields["x-sni"] != tt.sni {
					t.Errorf("status %d, name %q; %s", s.status, s.fields["x-sni"], p.logged())
				}
				x.release()
			}
			if !strings.Contains(p.logged(), tt.log) {
				t.Errorf("log %q lacks %q", p.logged(), tt.log)
			}
		})
	}
}
