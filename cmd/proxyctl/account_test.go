package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAccount: a server that root starts serves as somebody else, but reads
// keys, binds low ports, opens logs and removes its files as root, at every
// reload and after an upgrade.
func TestAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	low := lowPort(t)
	conf := `user nobody nogroup; events {} http { access_log logs/access.log; server { root %dir%;
		listen 127.0.0.1:%port%; listen unix:%dir%/s; listen 127.0.0.1:%shared% ssl; ssl_certificate c.pem; ssl_certificate_key k.pem; } }`
	d := newDaemon(t, "ours", conf)
	for path := d.dir; path != os.TempDir(); path = filepath.Dir(path) {
		_ = os.Chmod(path, 0o755)
	}
	writePair(t, d.dir, "c.pem", "k.pem")
	writePair(t, d.dir, "c2.pem", "k2.pem")
	for name, mode := range map[string]os.FileMode{"public": 0o644, "private": 0o600} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	check := func(when string) {
		t.Helper()
		if got := d.ask("/public"); got != "public" {
			t.Errorf("%s: what everybody may read: %q", when, got)
		}
		if got := d.ask("/private"); !strings.Contains(got, "403") {
			t.Errorf("%s: what root may read: %q", when, got)
		}
	}
	check("at first")
	d.configure(strings.NewReplacer("%shared%", low, "c.pem", "c2.pem", "k.pem", "k2.pem", "%dir%/s", "%dir%/s2").Replace(conf))
	if err := sendSignal(filepath.Join(d.dir, "logs/nginx.pid"), "reload"); err != nil {
		t.Fatal(err)
	}
	check("after a reload")
	if c, err := net.Dial("tcp", "127.0.0.1:"+low); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if _, err := os.Stat(filepath.Join(d.dir, "s")); err == nil {
		t.Error("the file of a socket is left after a reload")
	}
	d.configure("user root; events {}")
	if err := sendSignal(filepath.Join(d.dir, "logs/nginx.pid"), "reload"); err == nil || !strings.Contains(err.Error(), `"user" directive cannot change`) {
		t.Errorf("another account: %v", err)
	}
	d.configure(conf)
	log := filepath.Join(d.dir, "logs/access.log")
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	d.kill(d.pid(""), syscall.SIGUSR1)
	d.await("a new log", func() bool {
		info, err := os.Stat(log)
		return err == nil && info.Sys().(*syscall.Stat_t).Uid == 65534
	})
	d.replace(d.ours)
	check("after an upgrade")
	d.kill(d.pid(""), syscall.SIGTERM)
	d.await("it ends", func() bool { return d.pid("") == 0 })
	if _, err := os.Stat(filepath.Join(d.dir, "s2")); err == nil {
		t.Error("the file of a socket is left at the end")
	}
}

// lowPort finds a free port that only root may bind.
func lowPort(t *testing.T) string {
	t.Helper()
	for port := range 100 {
		if l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 900 + port}); err == nil {
			_ = l.Close()
			_, text, _ := net.SplitHostPort(l.Addr().String())
			return text
		}
	}
	t.Skip("no low port is free")
	return ""
}

// writePair writes a certificate and a key that only its owner may read.
func writePair(t *testing.T, dir, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.test"}}
	c, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
