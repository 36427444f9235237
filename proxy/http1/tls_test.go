package http1

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"proxyctl/proxy/sock"
)

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestTLS: crypto/tls over a sock.Conn, with idle times, bodies, unread input at
// the end, and heads that come too slowly inside one record.
func TestTLS(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.HeadTimeout = 400 * time.Millisecond
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	sweeper := sock.NewSweeper()
	defer sweeper.Stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ended := make(chan *Conn, 10)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				s := sock.New(nc, sweeper)
				over := tls.Server(s, config)
				c := NewConn(over, s, cfg, func(c *Conn) {
					if string(c.Req.Target) == "/ignore" {
						c.KeepAlive = false
						c.Out = append(c.Out, answer("ignored")...)
						return
					}
					tell(c)
				})
				c.Serve()
				ended <- c
			}()
		}
	}()
	open := func() (*tls.Conn, net.Conn) {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(8 * time.Second))
		return tls.Client(nc, &tls.Config{InsecureSkipVerify: true}), nc
	}

	c, _ := open()
	long := strings.Repeat("x", 50000)
	for _, tt := range []struct{ in, want string }{
		{"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", answer("GET /a ")},
		{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + long, answer("POST /a " + long)},
		{"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nc350\r\n" + long + "\r\n0\r\n\r\n", answer("POST /a " + long)},
	} {
		_, _ = io.WriteString(c, tt.in)
		got := make([]byte, len(tt.want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != tt.want {
			t.Fatalf("got %.100q, %v", got, err)
		}
	}
	_ = c.Close()
	<-ended

	c, _ = open()
	_, _ = io.WriteString(c, "POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
	go func(c *tls.Conn) {
		for range 30 {
			_, _ = io.WriteString(c, long)
		}
		_ = c.CloseWrite()
	}(c)
	if got, err := io.ReadAll(c); err != nil || string(got) != answer("ignored") {
		t.Errorf("got %.100q, %v", got, err)
	}
	<-ended

	c, raw := open()
	_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\n")
	began := time.Now()
	go func() { // an application data record of 1,000 bytes
		_, _ = raw.Write([]byte{23, 3, 3, 1000 >> 8, 1000 & 0xff})
		for range 100 {
			if _, err := raw.Write([]byte{0}); err != nil {
				return
			}
			time.Sleep(30 * time.Millisecond)
		}
	}()
	<-ended
	if d := time.Since(began); d < cfg.HeadTimeout || d > 2*time.Second {
		t.Errorf("a slow record was read for %v", d)
	}
}
