// Package certs decides which certificate a server shows. Certificates come
// from files, as nginx serves them; where a file is missing, from the local CA
// if that was asked for. certmagic's cache belongs to the Manager, for
// certificates that are obtained.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// Site is one server block's certificates.
type Site struct {
	ID     string   // stable name of the server block
	Names  []string // of server_name
	Listen []string // addresses with ssl
	Pairs  []Pair
	Place  string // file:line, for messages
}

// Pair is a certificate and its key: absolute paths, or "data:" and the text.
type Pair struct {
	Cert, Key, PasswordFile string
}

// Options configure a Manager.
type Options struct {
	DataDir string // for the local CA and what is obtained
	Local   bool   // issue from a local CA where files are missing
	Log     func(level, message string)
	Now     func() time.Time
}

// Problem is a certificate that cannot be served.
type Problem struct {
	Site, Path, Message string
	Warning             bool
}

// DefaultDataDir is $PROXYCTL_DATA, /var/lib/proxyctl for root, else a folder
// of the user.
func DefaultDataDir() string {
	if dir := os.Getenv("PROXYCTL_DATA"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/proxyctl"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "proxyctl")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "share", "proxyctl")
}

// Manager holds the certificates of all sites. It is safe for concurrent use.
type Manager struct {
	options Options
	cache   *certmagic.Cache
	config  *certmagic.Config
	ca      *localCA
	sites   atomic.Pointer[map[string]*siteCerts]
	mu      sync.Mutex // one Update at a time
	last    []Site
	stop    chan struct{}
	ended   chan struct{}
}

type siteCerts struct {
	certs []*tls.Certificate
	stamp []string // of the files
}

// checkPeriod is how often files are looked at, so that a renewal is served
// even if nobody sends a reload.
const checkPeriod = 10 * time.Second

// NewManager makes a Manager without sites.
func NewManager(o Options) (*Manager, error) {
	if o.Log == nil {
		o.Log = func(string, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Manager{options: o, stop: make(chan struct{}), ended: make(chan struct{})}
	m.sites.Store(&map[string]*siteCerts{})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		Logger:           zap.NewNop(),
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: filepath.Join(o.DataDir, "certmagic")},
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		Logger:  zap.NewNop(),
	})
	if o.Local {
		ca, err := openLocalCA(filepath.Join(o.DataDir, "local-ca"), o.Now)
		if err != nil {
			m.cache.Stop()
			return nil, err
		}
		m.ca = ca
	}
	go m.follow()
	return m, nil
}

// Close ends the Manager.
func (m *Manager) Close() {
	if m == nil {
		return
	}
	close(m.stop)
	<-m.ended
	m.cache.Stop()
}

// LocalRoot is the file of the local CA's certificate, "" without one.
func (m *Manager) LocalRoot() string {
	if m.ca == nil {
		return ""
	}
	return m.ca.rootFile
}

// Check says what nginx -t would refuse.
func Check(sites []Site, o Options) []Problem {
	var out []Problem
	for i := range sites {
		for _, p := range sites[i].Pairs {
			if o.Local && missing(p) {
				continue
			}
			if _, err := loadPair(p); err != nil {
				out = append(out, Problem{Site: sites[i].ID, Path: p.Cert, Message: err.Error()})
			}
		}
	}
	return out
}

// missing says whether a file of the pair does not exist.
func missing(p Pair) bool {
	_, cert := os.Stat(p.Cert)
	_, key := os.Stat(p.Key)
	return errors.Is(cert, os.ErrNotExist) || errors.Is(key, os.ErrNotExist)
}

// Update reads the certificates of the sites and begins to serve them. A pair
// that cannot be read keeps what was served before, and is a warning.
func (m *Manager) Update(_ context.Context, sites []Site) []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = sites
	return m.read()
}

// read loads what has changed.
func (m *Manager) read() []Problem {
	var problems []Problem
	old := *m.sites.Load()
	next := make(map[string]*siteCerts, len(m.last))
	for i := range m.last {
		s := &m.last[i]
		before := old[s.ID]
		stamp := stamps(s.Pairs)
		if before != nil && equal(before.stamp, stamp) && !m.due(before) {
			next[s.ID] = before
			continue
		}
		now, err := m.load(s)
		switch {
		case err == nil:
			next[s.ID] = &siteCerts{now, stamp}
		case before != nil:
			next[s.ID] = before
			problems = append(problems, Problem{Site: s.ID, Message: fmt.Sprintf("%v; the certificate read before is kept", err), Warning: true})
		default:
			problems = append(problems, Problem{Site: s.ID, Message: err.Error()})
		}
	}
	m.sites.Store(&next)
	return problems
}

// load reads the pairs of a site, or issues what is missing.
func (m *Manager) load(s *Site) ([]*tls.Certificate, error) {
	var out []*tls.Certificate
	for _, p := range s.Pairs {
		c, err := loadPair(p)
		if err != nil && m.ca != nil && missing(p) {
			c, err = m.ca.issue(s.Names)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// due says whether a certificate of the local CA wants renewal.
func (m *Manager) due(s *siteCerts) bool {
	if m.ca == nil {
		return false
	}
	for _, c := range s.certs {
		if c.Leaf.Issuer.CommonName == localCAName && m.options.Now().After(c.Leaf.NotAfter.Add(-localLifetime/3)) {
			return true
		}
	}
	return false
}

// stamps tells one state of the files from another, through links.
func stamps(pairs []Pair) []string {
	var out []string
	for _, p := range pairs {
		for _, name := range []string{p.Cert, p.Key} {
			target, err := filepath.EvalSymlinks(name)
			if err != nil {
				out = append(out, "missing")
				continue
			}
			info, err := os.Stat(target)
			if err != nil {
				out = append(out, "missing")
				continue
			}
			out = append(out, fmt.Sprint(target, info.ModTime().UnixNano(), info.Size()))
		}
	}
	return out
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// follow looks at the files from time to time.
func (m *Manager) follow() {
	defer close(m.ended)
	t := time.NewTicker(checkPeriod)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
		}
		m.mu.Lock()
		problems := m.read()
		m.mu.Unlock()
		text := fmt.Sprint(problems)
		if text != said {
			for _, p := range problems {
				m.options.Log("warn", p.Message)
			}
		}
		said = text
	}
}

// Certificate chooses among the certificates of a site the first that the
// client can use.
func (m *Manager) Certificate(site string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := (*m.sites.Load())[site]
	if s == nil || len(s.certs) == 0 {
		return nil, fmt.Errorf("no certificate for %s", site)
	}
	if len(s.certs) > 1 {
		for _, c := range s.certs {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return s.certs[0], nil
}
