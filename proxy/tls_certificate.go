package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// Certificates that are read while connections are made, because their names
// hold variables.

// certSource reads a certificate and its key for every connection anew.
type certSource struct {
	certificate, key *Value
	passwordFile     string
	cache            *certCache // nil: files are read each time
	lax              bool
	opts             *Options
}

// get gives the certificate for an exchange; nil when its name is empty.
func (s *certSource) get(x *Exchange) (*tls.Certificate, error) {
	pair := CertPair{Certificate: s.certificate.String(x)}
	if pair.Certificate == "" {
		return nil, nil //nolint:nilnil // none is wanted
	}
	pair.Key, pair.PasswordFile = s.key.String(x), s.passwordFile
	for _, name := range []*string{&pair.Certificate, &pair.Key} {
		if err := checkFileName(*name); err != nil {
			return nil, fmt.Errorf("cannot load certificate %q: %w", pair.Certificate, err)
		}
		*name = s.opts.certificateFile(*name)
	}
	if s.cache != nil {
		return s.cache.get(pair, s.load)
	}
	return s.load(pair)
}

func (s *certSource) load(pair CertPair) (*tls.Certificate, error) {
	return s.opts.loadCertificate(pair, s.lax)
}

// checkFileName refuses names that leave the folder they seem to be in. Unlike nginx,
// which opens any: $ssl_server_name is whatever a client sends.
func checkFileName(name string) error {
	if strings.HasPrefix(name, "data:") {
		return nil
	}
	if strings.IndexByte(name, 0) >= 0 || slices.Contains(strings.Split(name, "/"), "..") {
		return errors.New("unsafe name")
	}
	return nil
}

// certificateFile makes a name absolute, unless it is the certificate itself.
func (o *Options) certificateFile(name string) string {
	if strings.HasPrefix(name, "data:") || obtained(name) {
		return name
	}
	return o.confRelative(name)
}

func (o *Options) loadCertificate(pair CertPair, lax bool) (*tls.Certificate, error) {
	if o.LoadCertificate == nil {
		return nil, fmt.Errorf("cannot load certificate %q: nobody reads certificates here", pair.Certificate)
	}
	return o.LoadCertificate(pair, lax)
}

// certCache is ssl_certificate_cache: certificates that have been read, until
// they have not been asked for for some time. Files are looked at again when they
// have counted for as long as valid says.
type certCache struct {
	most            int
	inactive, valid time.Duration

	mu      sync.Mutex
	entries map[CertPair]*cachedCert
}

type cachedCert struct {
	cert       *tls.Certificate
	files      [2]fileState
	read, used time.Time
}

// fileState tells one state of a file from another.
type fileState struct {
	modified time.Time
	inode    uint64
	size     int64
}

func stateOf(name string) fileState {
	info, err := os.Stat(name)
	if err != nil {
		return fileState{}
	}
	s := fileState{modified: info.ModTime(), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// get gives a certificate, reading it if it must.
func (c *certCache) get(pair CertPair, load func(CertPair) (*tls.Certificate, error)) (*tls.Certificate, error) {
	now := time.Now()
	c.mu.Lock()
	c.expire(now)
	e := c.entries[pair]
	if e != nil {
		e.used = now
		if now.Sub(e.read) < c.valid {
			c.mu.Unlock()
			return e.cert, nil
		}
	}
	c.mu.Unlock()
	files := [2]fileState{stateOf(pair.Certificate), stateOf(pair.Key)}
	if e != nil && e.files == files && files[0] != (fileState{}) {
		c.mu.Lock()
		e.read = now
		c.mu.Unlock()
		return e.cert, nil
	}
	cert, err := load(pair)
	if err != nil {
		return nil, err
	}
	if pair.PasswordFile != "" && isEncrypted(pair.Key) {
		return cert, nil // as in nginx, what took a passphrase is not kept
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// nginx counts certificates and keys.
	if c.entries[pair] == nil && 2*len(c.entries)+2 > c.most && len(c.entries) > 0 {
		c.dropOldest()
	}
	c.entries[pair] = &cachedCert{cert, files, now, now}
	return cert, nil
}

// expire forgets what nobody has asked for lately. There are few entries, and
// asking costs a public key operation anyway.
func (c *certCache) expire(now time.Time) {
	for pair, e := range c.entries {
		if now.Sub(e.used) > c.inactive {
			delete(c.entries, pair)
		}
	}
}

func isEncrypted(name string) bool {
	text, err := readTLSFile(name)
	return err != nil || bytes.Contains(text, []byte("ENCRYPTED"))
}

func (c *certCache) dropOldest() {
	var oldest CertPair
	var e *cachedCert
	for pair, other := range c.entries {
		if e == nil || other.used.Before(e.used) {
			oldest, e = pair, other
		}
	}
	delete(c.entries, oldest)
}

// setCertificateCache makes the setter of ssl_certificate_cache and its like:
// off, or max=N [inactive=time] [valid=time].
func setCertificateCache(field func(*Conf) **certCache) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		c := &certCache{inactive: 10 * time.Second, valid: time.Minute, entries: map[CertPair]*cachedCert{}}
		off := false
		for _, a := range d.Args {
			name, value, _ := strings.Cut(a.Value, "=")
			ok := false
			switch name {
			case "max":
				c.most, ok = parseNumber(value)
				ok = ok && c.most > 0
			case "inactive":
				c.inactive, ok = parseTime(value, true)
			case "valid":
				c.valid, ok = parseTime(value, true)
			case "off":
				off, ok = true, a.Value == "off"
			}
			if !ok {
				return sayAt(a, "", "off, or max=N with inactive=time and valid=time", "invalid parameter %q", a.Value)
			}
		}
		if *field(l.Conf) = nil; off {
			return nil
		}
		if c.most == 0 {
			return say("%q must have the \"max\" parameter", d.Name.Value)
		}
		*field(l.Conf) = c
		return nil
	}
}

// setPasswordFile makes the setter of ssl_password_file and its like. A pipe can
// be read only once, so what it holds takes the place of its name.
func setPasswordFile(field func(*Conf) *string) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		name := l.c.opts.confRelative(d.Args[0].Value)
		text, err := os.ReadFile(name)
		if err != nil {
			return sayAt(d.Args[0], "", "", "%s", SystemError("open()", name, err))
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			if len(line) >= longestPassword {
				return sayAt(d.Args[0], "", "", "too long line in %q", name)
			}
		}
		*field(l.Conf) = name
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
			*field(l.Conf) = "data:" + string(text)
		}
		return nil
	}
}

// longestPassword is how long a line of a password file may be.
const longestPassword = 4096

// noStream is the stream of an exchange that is there for the sake of variables
// only.
type noStream struct{}

func (noStream) buffered() ([]byte, bool)                         { return nil, true }
func (noStream) readBody([]byte) (int, error)                     { return 0, io.EOF }
func (noStream) sendContinue() error                              { return errNoStream }
func (noStream) withholdContinue()                                {}
func (noStream) writeInterim(*Exchange, int, []http1.Field) error { return errNoStream }
func (noStream) writeHead(*Exchange) error                        { return errNoStream }
func (noStream) writeBody(*Exchange, []byte, bool) error          { return errNoStream }
func (noStream) flush() error                                     { return errNoStream }
func (noStream) hijack() (rawConn, []byte, error)                 { return nil, nil, errNoStream }
func (noStream) watch(func())                                     {}
func (noStream) splitBody()                                       {}
func (noStream) stopBody()                                        {}
func (noStream) unwatch()                                         {}
func (noStream) setTimeouts(*http1.Timeouts)                      {}

var errNoStream = errors.New("no request yet")
