package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// loadError is why a pair cannot be served. The text is worded as nginx with
// OpenSSL 3 words it: operators and tools search for these.
type loadError struct {
	path    string // of the file at fault
	text    string
	missing bool // the file is not there, or not for us
}

func (e *loadError) Error() string { return e.text }

// maxFile bounds what is read of a file; chains are a few KiB.
const maxFile = 4 << 20

const (
	certVerb = "cannot load certificate "
	keyVerb  = "cannot load certificate key "

	errMismatch = "error:05800074:x509 certificate routines::key values mismatch"
	errDER      = "error:068000A8:asn1 encoding routines::wrong tag error:0688010A:asn1 encoding routines::nested asn1 error:Type=X509 error:0488000D:PEM routines::ASN1 lib"
	errShortDER = "error:0680009B:asn1 encoding routines::too long error:06800066:asn1 encoding routines::bad object header error:0688010A:asn1 encoding routines::nested asn1 error:Type=X509 error:0488000D:PEM routines::ASN1 lib"
	errNoKey    = "error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM"
	errNoPass   = "error:0480006D:PEM routines::problems getting password error:04800068:PEM routines::bad password read"
	errDecrypt  = "error:1C800064:Provider routines::bad decrypt"
	errPKCS12   = "error:11800074:PKCS12 routines::pkcs12 cipherfinal error:"
)

// Load reads a pair as nginx would, without keeping it. lax is Site.Lax. The
// error is worded as nginx with OpenSSL words it.
func Load(p Pair, lax bool) (*tls.Certificate, error) { return loadPair(p, lax) }

// loadPair reads a certificate chain and its key, in the order and with the
// checks of nginx's ngx_ssl_certificate. lax leaves out OpenSSL's minimum of
// strength. The Leaf is nil where only crypto/x509 finds fault with it: nginx
// serves such a certificate. The error is a *loadError.
func loadPair(p Pair, lax bool) (*tls.Certificate, error) {
	chain, err := loadChain(p.Cert)
	if err != nil {
		return nil, err
	}
	if !lax {
		if err := checkStrength(p.Cert, chain); err != nil {
			return nil, err
		}
	}
	key, err := loadKey(p)
	if err != nil {
		return nil, err
	}
	// Unlike nginx, a key of another type than the certificate's is an error
	// too: OpenSSL keeps it for a certificate that may follow, and every
	// handshake fails when none does.
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil || !samePublicKey(public, chain[0]) {
		return nil, &loadError{path: p.Key, text: "SSL_CTX_use_PrivateKey(" + quoteKey(p.Key) + ") failed (SSL: " + errMismatch + ")"}
	}
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key}
	cert.Leaf, _ = x509.ParseCertificate(chain[0])
	return cert, nil
}

// loadChain reads the certificates of a file in their order. The first may be
// a TRUSTED CERTIFICATE, which is one with OpenSSL's notes after it; later ones
// of this kind are passed over, as are blocks of other kinds.
func loadChain(path string) ([][]byte, error) {
	text, err := readPEM(path, certVerb+quoteCert(path))
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for s := (pemScanner{rest: text}); ; {
		b, err := s.next()
		if len(chain) > 0 && errors.Is(err, errNoStart) {
			return chain, nil
		}
		if err == nil && !isCertificate(b.label, len(chain) == 0) {
			continue
		}
		if err == nil {
			err = b.certificate()
		}
		if err != nil {
			return nil, chainError(path, len(chain) == 0, err)
		}
		chain = append(chain, b.der)
	}
}

func isCertificate(label string, first bool) bool {
	return label == "CERTIFICATE" || label == "X509 CERTIFICATE" || first && label == "TRUSTED CERTIFICATE"
}

// certificate leaves only the certificate in the block and sees that it has
// the shape of one.
func (b *pemBlock) certificate() error {
	if b.header != "" {
		if strings.HasPrefix(b.header, "Proc-Type:") {
			return pemError(errNoPass)
		}
		return errProcType
	}
	if len(b.der) == 0 {
		return errSilent
	}
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(b.der, &whole); err != nil {
		if b.der[0] == 0x30 {
			return pemError(errShortDER)
		}
		return pemError(errDER)
	}
	b.der = whole.FullBytes
	if publicKeyOf(b.der) == nil {
		return pemError(errDER)
	}
	return nil
}

func chainError(path string, first bool, err error) error {
	call := "PEM_read_bio_X509()"
	if first {
		call = "PEM_read_bio_X509_AUX()"
	}
	reason := err.Error()
	if errors.Is(err, errNoStart) {
		reason += ":Expecting: TRUSTED CERTIFICATE"
	}
	return &loadError{path: path, text: certVerb + quoteCert(path) + ": " + call + " failed" + inSSL(reason)}
}

func inSSL(reason string) string {
	if reason == "" {
		return ""
	}
	return " (SSL: " + reason + ")"
}

// publicKeyOf finds the SubjectPublicKeyInfo of a certificate (RFC 5280,
// section 4.1) without judging the rest, nil if it has not that shape.
func publicKeyOf(der []byte) []byte {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var tbs struct {
		Version   asn1.RawValue `asn1:"optional,tag:0"`
		Serial    asn1.RawValue
		Signature asn1.RawValue
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       asn1.RawValue
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil
	}
	if _, err := asn1.Unmarshal(outer.TBS.FullBytes, &tbs); err != nil {
		return nil
	}
	return tbs.Key.FullBytes
}

// samePublicKey compares a SubjectPublicKeyInfo with a certificate's. The bytes
// of one key can differ, in the parameters of the algorithm.
func samePublicKey(public, cert []byte) bool {
	info := publicKeyOf(cert)
	if bytes.Equal(public, info) {
		return true
	}
	key, err := x509.ParsePKIXPublicKey(info)
	if err != nil {
		return false
	}
	again, err := x509.MarshalPKIXPublicKey(key)
	return err == nil && bytes.Equal(public, again)
}

// loadKey reads the first private key of a file.
func loadKey(p Pair) (crypto.Signer, error) {
	for _, scheme := range []string{"engine", "store"} {
		if strings.HasPrefix(p.Key, scheme+":") {
			return nil, keyError(p.Key, fmt.Sprintf("loading \"%s:...\" certificate keys is not supported", scheme))
		}
	}
	var passwords [][]byte
	if p.PasswordFile != "" {
		var err error
		if passwords, err = readPasswords(p.PasswordFile); err != nil {
			return nil, err
		}
	}
	text, err := readPEM(p.Key, keyVerb+quoteKey(p.Key))
	if err != nil {
		return nil, err
	}
	for s := (pemScanner{rest: text}); ; {
		b, err := s.next()
		if errors.Is(err, errNoStart) {
			return nil, keyError(p.Key, "PEM_read_bio_PrivateKey() failed"+inSSL(errNoKey))
		}
		if err != nil {
			continue
		}
		key, reason := b.privateKey(passwords)
		if reason != "" {
			return nil, keyError(p.Key, reason)
		}
		if key != nil {
			return key, nil
		}
	}
}

func keyError(path, reason string) error {
	return &loadError{path: path, text: keyVerb + quoteKey(path) + ": " + reason}
}

// privateKey reads the key in a block. It is nil for a block without one that
// can be read; a reason ends the search.
func (b *pemBlock) privateKey(passwords [][]byte) (key crypto.Signer, reason string) {
	label := b.label
	var open func(password []byte) ([]byte, error)
	switch {
	case label == "ENCRYPTED PRIVATE KEY":
		label = "PRIVATE KEY"
		open = func(password []byte) ([]byte, error) { return decryptPKCS8(b.der, password) }
	case label != "PRIVATE KEY" && label != "RSA PRIVATE KEY" && label != "EC PRIVATE KEY":
		return nil, ""
	case strings.HasPrefix(b.header, "Proc-Type:"):
		open = func(password []byte) ([]byte, error) { return decryptBlock(*b, password) }
	default:
		return servable(parseKey(label, b.der))
	}
	if len(passwords) == 0 {
		// Unlike nginx, nobody is asked at the terminal.
		return nil, "PEM_read_bio_PrivateKey() failed" + inSSL(errNoPass)
	}
	for _, password := range passwords {
		der, err := open(password)
		if err == nil {
			if key := parseKey(label, der); key != nil {
				return servable(key)
			}
			continue // the padding of a wrong password may look right
		}
		if !errors.Is(err, errPassword) {
			return nil, ""
		}
	}
	return nil, "PEM_read_bio_PrivateKey() failed" + inSSL(wrongPassword(b.label, passwords))
}

func wrongPassword(label string, passwords [][]byte) string {
	if label != "ENCRYPTED PRIVATE KEY" {
		return errDecrypt + " error:04800065:PEM routines::bad decrypt"
	}
	hint := "maybe wrong password"
	if len(passwords[len(passwords)-1]) == 0 {
		hint = "empty password"
	}
	return errDecrypt + " " + errPKCS12 + hint + " " + errDecrypt + " " + errPKCS12 + hint
}

// parseKey reads a key in the encodings that OpenSSL tries under a label:
// PKCS#8 under all, PKCS#1 and SEC 1 under their own.
func parseKey(label string, der []byte) any {
	pkcs8, err := x509.ParsePKCS8PrivateKey(der)
	_, isRSA := pkcs8.(*rsa.PrivateKey)
	_, isEC := pkcs8.(*ecdsa.PrivateKey)
	switch label {
	case "PRIVATE KEY":
		if err == nil {
			return pkcs8
		}
	case "RSA PRIVATE KEY":
		if isRSA {
			return pkcs8
		}
		if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			return key
		}
	case "EC PRIVATE KEY":
		if isEC {
			return pkcs8
		}
		if key, err := x509.ParseECPrivateKey(der); err == nil {
			return key
		}
	}
	return nil
}

// servable gives the reason why crypto/tls cannot sign with a key.
//
// Unlike nginx, Ed448, RSA-PSS and the rarer curves are refused here: with them
// every handshake would fail.
func servable(key any) (crypto.Signer, string) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k, ""
	case ed25519.PrivateKey:
		return k, ""
	case *ecdsa.PrivateKey:
		if c := k.Curve; c == elliptic.P256() || c == elliptic.P384() || c == elliptic.P521() {
			return k, ""
		}
		return nil, "elliptic curve " + k.Curve.Params().Name + " is not supported"
	}
	return nil, ""
}

// readPEM reads a file, or gives the text after "data:".
func readPEM(name, verb string) ([]byte, error) {
	if text, inline := strings.CutPrefix(name, "data:"); inline {
		return []byte(text), nil
	}
	f, err := openFile(name)
	if err != nil {
		return nil, &loadError{path: name, text: verb + ": BIO_new_file() failed (SSL: " + openError(name, err) + ")", missing: absent(err)}
	}
	defer f.Close()
	// A folder can be opened and has nothing to read, as in OpenSSL.
	text, _ := io.ReadAll(io.LimitReader(f, maxFile))
	return text, nil
}

// openFile does not wait for somebody to write to a named pipe.
func openFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// absent says whether a file is not there, as far as we may see: /etc/letsencrypt
// is closed to all but root.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// openError words a failed open as OpenSSL's BIO_new_file does.
func openError(name string, err error) string {
	code, number := "10080002:BIO routines::system lib", syscall.Errno(0)
	errors.As(err, &number)
	if number == syscall.ENOENT || number == syscall.ENXIO {
		code = "10000080:BIO routines::no such file"
	}
	return fmt.Sprintf("error:%08X:system library::%s:calling fopen(%s, r) error:%s", 0x80000000|uint32(number), strerror(number), name, code)
}

// systemError words an error as nginx does: its number and the C library's
// text.
func systemError(err error) string {
	var number syscall.Errno
	errors.As(err, &number)
	return fmt.Sprintf("%d: %s", int(number), strerror(number))
}

// strerror is the C library's text for an error, which Go has in small letters.
func strerror(e syscall.Errno) string {
	s := e.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// quote puts quotes around a path as nginx does: without escapes.
func quote(path string) string { return `"` + path + `"` }

// quoteCert is quote, but that a key beside an inline certificate stays secret.
func quoteCert(path string) string {
	if strings.HasPrefix(path, "data:") && strings.Contains(path, "PRIVATE") {
		return `"data:..."`
	}
	return quote(path)
}

// quoteKey is quote for a key.
//
// Unlike nginx, which writes an inline key to its log, only that it is one.
func quoteKey(path string) string {
	if strings.HasPrefix(path, "data:") {
		return `"data:..."`
	}
	return quote(path)
}
