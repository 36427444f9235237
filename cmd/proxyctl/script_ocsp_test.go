package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ocsp"
)

// ocsp PORT ISSUER [NAME...]: answers who asks whether certificates of the issuer
// are revoked; the named ones are. ocsp FILE ISSUER NAME writes what is said of one
// certificate, which is not revoked.
func scriptOCSP(ts *testscript.TestScript, _ bool, args []string) {
	h := harnessOf(ts)
	issuer := loadPair(ts, args[1])
	if !filePorts.MatchString(args[0]) {
		answer, err := ocspAnswer(issuer, ocsp.Good, loadPair(ts, args[2]).Leaf)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), answer, 0o644))
		return
	}
	revoked := map[string]bool{}
	for _, name := range args[2:] {
		revoked[loadPair(ts, name).Leaf.SerialNumber.String()] = true
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+h.translate(args[0]))
	ts.Check(err)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, err := ocspQuestion(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		status := ocsp.Good
		if revoked[question.SerialNumber.String()] {
			status = ocsp.Revoked
		}
		answer, err := ocspAnswer(issuer, status, &x509.Certificate{SerialNumber: question.SerialNumber})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(answer)
	})}
	h.closeLater(server)
	go func() { _ = server.Serve(l) }()
}

// ocspQuestion reads a question from the path, as nginx asks, or from the body.
func ocspQuestion(r *http.Request) (*ocsp.Request, error) {
	der, err := io.ReadAll(r.Body)
	if r.Method == http.MethodGet {
		var path string
		if path, err = url.PathUnescape(strings.TrimLeft(r.URL.EscapedPath(), "/")); err == nil {
			der, err = base64.StdEncoding.DecodeString(path)
		}
	}
	if err != nil {
		return nil, err
	}
	return ocsp.ParseRequest(der)
}

func ocspAnswer(issuer tls.Certificate, status int, of *x509.Certificate) ([]byte, error) {
	signer, ok := issuer.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return ocsp.CreateResponse(issuer.Leaf, issuer.Leaf, ocsp.Response{
		Certificate: issuer.Leaf, Status: status, SerialNumber: of.SerialNumber, RevokedAt: time.Now().Add(-time.Hour),
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}, signer)
}

// stapled [!] URL: a handshake comes with a word of the certificate's issuer about
// it. nginx asks for that at the first handshake and does not wait.
func scriptStapled(ts *testscript.TestScript, neg bool, args []string) {
	h := harnessOf(ts)
	name, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(args[0], "https://"), "/"))
	ts.Check(err)
	for range 200 {
		c, err := net.Dial("tcp", "127.0.0.1:"+h.translate(port))
		ts.Check(err)
		conn := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		ts.Check(conn.Handshake())
		said := len(conn.ConnectionState().OCSPResponse) > 0
		_ = conn.Close()
		switch {
		case said && neg:
			ts.Fatalf("there is a word of the issuer")
		case said:
			return
		}
		time.Sleep(10 * time.Millisecond)
		if neg {
			return
		}
	}
	ts.Fatalf("no word of the issuer came")
}

func loadPair(ts *testscript.TestScript, name string) tls.Certificate {
	pair, err := tls.LoadX509KeyPair(ts.MkAbs(name+".crt"), ts.MkAbs(name+".key"))
	ts.Check(err)
	return pair
}
