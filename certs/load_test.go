package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testPair is a certificate and its key, as PEM.
type testPair struct {
	cert, key string
	leaf      *x509.Certificate
	private   crypto.Signer
}

// makePair makes a certificate for a name, signed by itself.
func makePair(t testing.TB, name string, key crypto.Signer) testPair {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return testPair{encode("CERTIFICATE", der), encode("PRIVATE KEY", secret), leaf, key}
}

func encode(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is made once: it takes a while.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ed25519Key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// place writes a file whole, as renewals do.
func place(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := writeFile(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLoadPair reads what OpenSSL reads.
func TestLoadPair(t *testing.T) {
	ec, rs, ed := makePair(t, "ec", ecdsaKey(t)), makePair(t, "rsa", rsaKey()), makePair(t, "ed", ed25519Key(t))
	other := makePair(t, "other", ecdsaKey(t))
	sec1, err := x509.MarshalECPrivateKey(ec.private.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaKey())
	note := "some text\n"
	for _, tt := range []struct {
		name, cert, key string
		certs           int
	}{
		{"ECDSA", ec.cert, ec.key, 1},
		{"RSA", rs.cert, rs.key, 1},
		{"Ed25519", ed.cert, ed.key, 1},
		{"SEC 1", ec.cert, encode("EC PRIVATE KEY", sec1), 1},
		{"SEC 1 with parameters before", ec.cert, encode("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + encode("EC PRIVATE KEY", sec1), 1},
		{"PKCS#1", rs.cert, encode("RSA PRIVATE KEY", pkcs1), 1},
		{"PKCS#8 under an old name", rs.cert, strings.ReplaceAll(rs.key, "PRIVATE KEY", "RSA PRIVATE KEY"), 1},
		{"a chain", ec.cert + other.cert + rs.cert, ec.key, 3},
		{"text between", note + ec.cert + note + other.cert + note, note + ec.key, 2},
		{"the key in front", ec.key + ec.cert + other.cert, ec.key, 2},
		{"all in one", ec.cert + ec.key, ec.cert + ec.key, 1},
		{"the old name", strings.ReplaceAll(ec.cert, "CERTIFICATE", "X509 CERTIFICATE"), ec.key, 1},
		{"with OpenSSL's notes", encode("TRUSTED CERTIFICATE", append(bytes.Clone(ec.leaf.Raw), 0x30, 0)) + encode("TRUSTED CERTIFICATE", other.leaf.Raw), ec.key, 1},
		{"CRLF", strings.ReplaceAll(ec.cert, "\n", "\r\n"), strings.ReplaceAll(ec.key, "\n", "\r\n"), 1},
		{"a byte order mark", "\xef\xbb\xbf" + ec.cert, ec.key, 1},
		{"two keys", ec.cert, ec.key + other.key, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := Pair{Cert: place(t, dir, "cert.pem", tt.cert), Key: place(t, dir, "key.pem", tt.key)}
			for _, p := range []Pair{files, {Cert: "data:" + tt.cert, Key: "data:" + tt.key}} {
				cert, err := Load(p, false)
				if err != nil {
					t.Fatal(err)
				}
				if len(cert.Certificate) != tt.certs || cert.Leaf == nil || cert.PrivateKey == nil {
					t.Errorf("%d certificates, leaf %v", len(cert.Certificate), cert.Leaf)
				}
			}
		})
	}
}

// TestLoadErrors words mistakes as nginx with OpenSSL 3 does.
func TestLoadErrors(t *testing.T) {
	ec, other := makePair(t, "ec", ecdsaKey(t)), makePair(t, "other", ecdsaKey(t))
	p384, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rare := makePair(t, "rare", p384)
	half := ec.cert[:len(ec.cert)/2]
	for _, tt := range []struct{ name, cert, key, want string }{
		{"no certificate", "-", ec.key, `cannot load certificate "CERT": BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(CERT, r) error:10000080:BIO routines::no such file)`},
		{"no key", ec.cert, "-", `cannot load certificate key "KEY": BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(KEY, r) error:10000080:BIO routines::no such file)`},
		{"empty certificate", "", ec.key, `cannot load certificate "CERT": PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)`},
		{"half a certificate", half, ec.key, `cannot load certificate "CERT": PEM_read_bio_X509_AUX() failed (SSL: error:04800066:PEM routines::bad end line)`},
		{"half a chain", ec.cert + half, ec.key, `cannot load certificate "CERT": PEM_read_bio_X509() failed (SSL: error:04800066:PEM routines::bad end line)`},
		{"no base64", strings.Replace(ec.cert, "MII", "M*I", 1), ec.key, `cannot load certificate "CERT": PEM_read_bio_X509_AUX() failed (SSL: error:04800064:PEM routines::bad base64 decode)`},
		{"no certificate inside", encode("CERTIFICATE", []byte("hello")), ec.key, `cannot load certificate "CERT": PEM_read_bio_X509_AUX() failed (SSL: ` + errDER + `)`},
		{"cut off inside", encode("CERTIFICATE", ec.leaf.Raw[:100]), ec.key, `cannot load certificate "CERT": PEM_read_bio_X509_AUX() failed (SSL: ` + errShortDER + `)`},
		{"empty key", ec.cert, "", `cannot load certificate key "KEY": PEM_read_bio_PrivateKey() failed (SSL: error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM)`},
		{"a certificate for a key", ec.cert, ec.cert, `cannot load certificate key "KEY": PEM_read_bio_PrivateKey() failed (SSL: error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM)`},
		{"another key", ec.cert, other.key, `SSL_CTX_use_PrivateKey("KEY") failed (SSL: error:05800074:x509 certificate routines::key values mismatch)`},
		{"a rare curve", rare.cert, rare.key, `cannot load certificate key "KEY": elliptic curve P-224 is not supported`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			p := Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
			if tt.cert != "-" {
				place(t, dir, "cert.pem", tt.cert)
			}
			if tt.key != "-" {
				place(t, dir, "key.pem", tt.key)
			}
			want := strings.NewReplacer("CERT\"", p.Cert+"\"", "CERT,", p.Cert+",", "KEY\"", p.Key+"\"", "KEY,", p.Key+",").Replace(tt.want)
			_, err := loadPair(p, false)
			if err == nil || err.Error() != want {
				t.Errorf("\n got %v\nwant %s", err, want)
			}
			var l *loadError
			if missing := tt.cert == "-" || tt.key == "-"; !errors.As(err, &l) || l.missing != missing {
				t.Errorf("missing: not %t", missing)
			}
		})
	}
}

// TestLoadSecrets writes no key into a message.
func TestLoadSecrets(t *testing.T) {
	ec, other := makePair(t, "ec", ecdsaKey(t)), makePair(t, "other", ecdsaKey(t))
	for _, p := range []Pair{
		{Cert: "data:" + ec.cert, Key: "data:" + other.key},
		{Cert: "data:" + other.key, Key: "data:" + other.key},
		{Cert: "data:" + ec.cert, Key: "data:" + strings.Replace(ec.key, "\n", "\n*", 1)},
	} {
		_, err := loadPair(p, false)
		if err == nil || strings.Contains(err.Error(), "PRIVATE") || !strings.Contains(err.Error(), `"data:..."`) {
			t.Error(err)
		}
	}
	for _, scheme := range []string{"engine", "store"} {
		_, err := loadPair(Pair{Cert: "data:" + ec.cert, Key: scheme + ":x"}, false)
		if want := `cannot load certificate key "` + scheme + `:x": loading "` + scheme + `:..." certificate keys is not supported`; err == nil || err.Error() != want {
			t.Error(err)
		}
	}
}

// TestLoadOdd survives what is no file, and bounds what is read.
func TestLoadOdd(t *testing.T) {
	dir := t.TempDir()
	ec := makePair(t, "ec", ecdsaKey(t))
	cert := place(t, dir, "cert.pem", ec.cert)
	for _, name := range []string{dir, "/dev/null", filepath.Join(dir, "cert.pem", "x"), "nul\x00l"} {
		if _, err := loadPair(Pair{Cert: name, Key: cert}, false); err == nil {
			t.Errorf("%q was read", name)
		}
		if _, err := loadPair(Pair{Cert: cert, Key: name}, false); err == nil {
			t.Errorf("%q was read as a key", name)
		}
	}
	large := place(t, dir, "large.pem", ec.cert+strings.Repeat("x\n", maxFile))
	if _, err := loadPair(Pair{Cert: large, Key: place(t, dir, "key.pem", ec.key)}, false); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(cert, 0); err != nil {
			t.Fatal(err)
		}
		_, err := loadPair(Pair{Cert: cert, Key: cert}, false)
		var l *loadError
		if !errors.As(err, &l) || !l.missing {
			t.Error(err)
		}
	}
}

// TestMinimalStrength is OpenSSL's, unless the configuration lowers it.
func TestMinimalStrength(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err)
	}
	weak, ec := makePair(t, "weak", small), makePair(t, "ec", ecdsaKey(t))
	for _, tt := range []struct {
		name string
		pair Pair
		lax  bool
		want string
	}{
		{"small key", Pair{Cert: "data:" + weak.cert, Key: "data:" + weak.key}, false, "error:0A00018F:SSL routines::ee key too small"},
		{"small key, lax", Pair{Cert: "data:" + weak.cert, Key: "data:" + weak.key}, true, ""},
		{"small key above", Pair{Cert: "data:" + ec.cert + weak.cert, Key: "data:" + ec.key}, false, "error:0A00018D:SSL routines::ca key too small"},
		{"good", Pair{Cert: "data:" + ec.cert, Key: "data:" + ec.key}, false, ""},
	} {
		_, err := loadPair(tt.pair, tt.lax)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for algorithm, want := range map[x509.SignatureAlgorithm]bool{x509.SHA1WithRSA: true, x509.ECDSAWithSHA1: true, x509.MD5WithRSA: true, x509.SHA256WithRSA: false, x509.PureEd25519: false} {
		if got := weakSignature(&x509.Certificate{SignatureAlgorithm: algorithm, RawIssuer: []byte("x")}); got != want {
			t.Errorf("%s: %t", algorithm, got)
		}
		if weakSignature(&x509.Certificate{SignatureAlgorithm: algorithm}) {
			t.Errorf("%s: a certificate's own signature counts", algorithm)
		}
	}
}

// TestChoose takes what fits what the client names first.
func TestChoose(t *testing.T) {
	ec, rs, ed := cert(makePair(t, "ec", ecdsaKey(t))), cert(makePair(t, "rsa", rsaKey())), cert(makePair(t, "ed", ed25519Key(t)))
	all := []*tls.Certificate{rs, ec, ed}
	v13 := func(schemes ...tls.SignatureScheme) *tls.ClientHelloInfo {
		return &tls.ClientHelloInfo{ServerName: "x", SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12}, SignatureSchemes: schemes, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}, SupportedCurves: []tls.CurveID{tls.X25519, tls.CurveP256}}
	}
	v12 := func(suites ...uint16) *tls.ClientHelloInfo {
		return &tls.ClientHelloInfo{
			ServerName: "x", SupportedVersions: []uint16{tls.VersionTLS12}, CipherSuites: suites, SupportedCurves: []tls.CurveID{tls.X25519, tls.CurveP256}, SupportedPoints: []uint8{0},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256},
		}
	}
	for _, tt := range []struct {
		name  string
		hello *tls.ClientHelloInfo
		certs []*tls.Certificate
		want  *tls.Certificate
	}{
		{"one", v13(tls.Ed25519), []*tls.Certificate{rs}, rs},
		{"ECDSA first", v13(tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256), all, ec},
		{"RSA first", v13(tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256), all, rs},
		{"Ed25519 only", v13(tls.Ed25519), all, ed},
		{"the curve counts", v13(tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA512), all, rs},
		{"none fits", v13(tls.ECDSAWithP384AndSHA384), all, rs},
		{"TLS 1.2, ECDSA first", v12(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), all, ec},
		{"TLS 1.2, RSA first", v12(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), all, rs},
		{"TLS 1.2, unknown suites first", v12(0x1234, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), all, ec},
	} {
		if got := choose(tt.certs, tt.hello); got != tt.want {
			t.Errorf("%s: %s", tt.name, got.Leaf.Subject)
		}
	}
	second := cert(makePair(t, "second", ecdsaKey(t)))
	if list := put(put(put(nil, ec), rs), second); len(list) != 2 || list[0] != second || list[1] != rs {
		t.Error("of two certificates with one type of key, the later one counts")
	}
}

func cert(p testPair) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.leaf.Raw}, PrivateKey: p.private, Leaf: p.leaf}
}

// TestPEM walks blocks by OpenSSL's rules.
func TestPEM(t *testing.T) {
	line := strings.Repeat("QUFB", 16) + "\n"
	for _, tt := range []struct {
		name, text string
		want       []string // label and header of each block; or an error
	}{
		{"plain", "-----BEGIN A-----\nQUFB\n-----END A-----\n", []string{"A|"}},
		{"no newline at the end", "-----BEGIN A-----\nQUFB\n-----END A-----", []string{"A|"}},
		{"two", "x\n-----BEGIN A-----\nQUFB\n-----END A-----\ny\n-----BEGIN B-----\n-----END B-----\n", []string{"A|", "B|"}},
		{"spaces at ends", "-----BEGIN A----- \t\r\nQU FB \r\n-----END A----- \n", []string{"A|"}},
		{"a header", "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n" + line + "QUFB\n-----END A-----\n", []string{"A|Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n"}},
		{"cut off", "-----BEGIN A-----\nQUFB\n", []string{string(errBadEnd)}},
		{"another end", "-----BEGIN A-----\nQUFB\n-----END B-----\n", []string{string(errBadEnd)}},
		{"no base64", "-----BEGIN A-----\nQ?FB\n-----END A-----\n", []string{string(errBase64)}},
		{"half a group", "-----BEGIN A-----\nQUF\n-----END A-----\n", []string{string(errBase64)}},
		{"a short line before the last", "-----BEGIN A-----\nh: x\n\nQUFB\nQUFB\n-----END A-----\n", []string{string(errBadEnd)}},
		{"not at the start of a line", " -----BEGIN A-----\nQUFB\n-----END A-----\n", nil},
		{"a long beginning", "-----BEGIN " + strings.Repeat("A", 300) + "-----\nQUFB\n", nil},
		{"none", "hello", nil},
	} {
		var got []string
		for s := (pemScanner{rest: []byte(tt.text)}); ; {
			b, err := s.next()
			if errors.Is(err, errNoStart) {
				break
			}
			if err != nil {
				got = append(got, err.Error())
				break
			}
			got = append(got, b.label+"|"+b.header)
		}
		if strings.Join(got, "\n\n") != strings.Join(tt.want, "\n\n") {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// FuzzPEM reads files that are damaged in all ways.
func FuzzPEM(f *testing.F) {
	p := makePair(f, "x", ecdsaKey(f))
	f.Add([]byte(p.cert + p.key))
	f.Add([]byte("-----BEGIN A-----\nh: x\n\nQUFB\n-----END A-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		blocks := 0
		for s := (pemScanner{rest: text}); ; blocks++ {
			if _, err := s.next(); errors.Is(err, errNoStart) {
				break
			}
			if blocks > len(text) {
				t.Fatal("does not end")
			}
		}
		if cert, err := loadPair(Pair{Cert: "data:" + string(text), Key: "data:" + string(text)}, true); (cert == nil) == (err == nil) {
			t.Fatal(cert, err)
		}
	})
}

// TestSerial gives numbers that fit RFC 5280.
func TestSerial(t *testing.T) {
	if a, b := serial(), serial(); a.Cmp(b) == 0 || a.Sign() <= 0 || a.BitLen() > 159 || a.Cmp(big.NewInt(1)) <= 0 {
		t.Error(a, b)
	}
}
