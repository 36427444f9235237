package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// Manager holds the certificates of all sites. It is safe for concurrent use.
type Manager struct {
	options Options
	ca      *localCA // nil without Options.Local
	served  atomic.Pointer[map[string]*served]

	// What certmagic keeps in memory belongs to the Manager alone.
	cache    *certmagic.Cache
	onDemand *onDemand
	stapler  *stapler
	data     *folder
	store    store
	keeper   *keeper

	mu      sync.Mutex // below: Update and the look at the files
	sites   []Site
	ports   Ports
	entries map[pairKey]*entry
	wants   map[int][]order // what the keeper works on, by index of the site
	said    map[string]bool // about pairs that nobody has renewed in time

	stop  chan struct{}
	ended sync.WaitGroup
	close sync.Once
}

// served is what one site shows. It does not change.
type served struct {
	certs       []*tls.Certificate // of files, one of a type; or obtained
	bySNI       bool               // certs are for different names
	local       *tls.Certificate   // of the local CA
	placeholder func() *tls.Certificate
	names       []string        // the server_name values local or placeholder is for
	waiting     []order         // what is being obtained
	onDemand    bool            // other names may be obtained at handshakes
	unproved    []chan struct{} // closed when there is a proof for one of certs
}

// checkPeriod is how often files are looked at, so that a renewal is served
// even if nobody sends a reload.
const checkPeriod = 10 * time.Second

// demandPeriod is how often somebody at a terminal is looked for.
const demandPeriod = time.Second

// errNoCertificate ends a handshake with the alert "internal error"; nginx has
// no other answer for it either.
var errNoCertificate = errors.New("no certificate for this server")

// NewManager makes a Manager without sites. The error is about the folder of
// the local CA; without Options.Local nothing is written there.
func NewManager(o Options) (*Manager, error) {
	o.complete()
	m := &Manager{options: o, entries: map[pairKey]*entry{}, stop: make(chan struct{})}
	m.served.Store(&map[string]*served{})
	if o.Local {
		ca, err := openLocalCA(filepath.Join(o.DataDir, "local-ca"), o.Now)
		if err != nil {
			return nil, err
		}
		m.ca = ca
	}
	logger := newLogger(o.Log)
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errNoCertificate },
		Logger:           logger,
	})
	data := newFolder(o.DataDir, o.AsRoot)
	m.data = data
	m.onDemand = newOnDemand(&m.options)
	m.store = store{data.sub("certificates")}
	m.stapler = newStapler(&m.options, data.sub(proofsFolder), m.republish)
	m.keeper = newKeeper(&m.options, data, &issuer{m.cache, data.sub("accounts"), logger}, m.republish)
	m.ended.Go(m.follow)
	return m, nil
}

// Begin has the Manager obtain what is missing. Before, nobody is asked for
// anything: the process may still be giving up rights.
func (m *Manager) Begin() {
	_ = m.data.announce() // a folder that cannot be written shows when it is needed
	m.keeper.ended.Go(m.keeper.loop)
	m.stapler.begin()
}

// Update makes sites the ones that are served, on ports. Every file is read; a pair that
// cannot be served keeps the certificate that was read before, which is a
// warning, and files that are missing are replaced from the local CA. A site
// without anything to show is an error, and keeps what it had. If ctx ends
// first, nothing changes.
func (m *Manager) Update(ctx context.Context, sites []Site, ports Ports) []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries := make(map[pairKey]*entry, len(m.entries))
	for i := range sites {
		for _, k := range sites[i].keys() {
			if entries[k] != nil {
				continue
			}
			if err := ctx.Err(); err != nil {
				return []Problem{{Site: sites[i].ID, Message: err.Error()}}
			}
			e := load(k)
			e.after(m.entries[k], k)
			entries[k] = e
		}
	}
	m.sites, m.ports, m.entries = slices.Clone(sites), ports, entries
	issued := m.publish()
	return append(m.problems(), issued...)
}

// problems lists the pairs that are not served as they are on disk, each once,
// after publish.
func (m *Manager) problems() []Problem {
	var out []Problem
	said := map[pairKey]bool{}
	wanted := m.wants
	for i := range m.sites {
		for _, k := range m.sites[i].keys() {
			e := m.entries[k]
			if e.trouble == nil || said[k] || m.replaces(e) || k.Cert == Obtained {
				continue
			}
			said[k] = true
			p := Problem{Site: m.sites[i].ID, Path: e.trouble.path, Message: e.trouble.text}
			switch {
			case e.cert != nil:
				p.Message += keptSuffix
				p.Warning = true
			case len(wanted[i]) > 0:
				p.Message, p.Warning = awaited(p.Message, &m.sites[i], wanted[i]), true
			case e.trouble.missing && m.options.OnDemandAsk != "":
				p.Message, p.Warning = p.Message+"; certificates are obtained at handshakes", true
			}
			out = append(out, p)
		}
	}
	return append(out, m.neglected()...)
}

// neglected lists the pairs that nobody has renewed in time and about which
// nothing was said yet, after publish.
func (m *Manager) neglected() (fresh []Problem) {
	said := map[string]bool{}
	for _, n := range neglected(m.sites, m.entries, m.wants, m.options.Now()) {
		if said[n.Message] = true; !m.said[n.Message] {
			fresh = append(fresh, n.Problem)
		}
	}
	m.said = said
	return fresh
}

// replaces says whether the local CA stands in for a pair.
func (m *Manager) replaces(e *entry) bool {
	return m.ca != nil && e.cert == nil && e.trouble != nil && e.trouble.missing
}

// publish makes what the entries hold the answer to handshakes.
func (m *Manager) publish() (problems []Problem) {
	old := *m.served.Load()
	next := make(map[string]*served, len(m.sites))
	m.wants = m.options.ACME.wanted(m.sites, m.entries, m.options.Now())
	replaced := m.obtain(m.wants)
	kept := &keptCerts{store: m.store, now: m.options.Now()}
	for i := range m.sites {
		s := &m.sites[i]
		now := &served{}
		replace := false
		for _, k := range s.keys() {
			e := m.entries[k]
			replace = replace || m.replaces(e)
			if e.cert != nil {
				now.certs = put(now.certs, e.cert)
			}
		}
		before := old[s.ID]
		now.onDemand = m.options.OnDemandAsk != "" && len(now.certs) == 0 && len(s.Pairs) > 0
		if o, ok := replaced[i]; ok {
			m.replace(s, now, o, before, kept)
		}
		if len(now.certs) == 0 && replace {
			if err := m.issue(s, now, before); err != nil {
				problems = append(problems, Problem{Site: s.ID, Message: err.Error()})
			}
		}
		if len(now.certs) == 0 && now.local == nil && now.placeholder == nil && len(s.Pairs) > 0 && before != nil && !now.onDemand {
			again := *before
			now = &again
		}
		next[s.ID] = now
	}
	m.stapler.staple(next)
	m.served.Store(&next)
	return problems
}

// issue gives a site a certificate of the local CA, the one it has unless that
// has aged or is for other names.
func (m *Manager) issue(s *Site, now, before *served) error {
	if before != nil && before.local != nil && slices.Equal(before.names, s.Names) && !m.ca.due(before.local) {
		now.local, now.names = before.local, before.names
		return nil
	}
	cert, err := m.ca.issue(s.Names)
	if err != nil {
		return err
	}
	now.local, now.names = cert, s.Names
	return nil
}

// follow looks at the files, and for what commands ask, from time to time.
func (m *Manager) follow() {
	files, commands := time.NewTicker(checkPeriod), time.NewTicker(demandPeriod)
	defer files.Stop()
	defer commands.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-files.C:
			m.look()
		case <-commands.C:
			m.demands()
		}
	}
}

// look reads what has changed, and again what could not be read: a renewal
// flips links one after the other. What it finds is logged once.
func (m *Manager) look() {
	var all []news
	_ = m.options.AsRoot(func() error {
		all = m.refresh()
		return nil
	})
	for _, n := range all {
		m.options.Log(n.level, n.text)
	}
}

func (m *Manager) refresh() []news {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []news
	changed := false
	for k, old := range m.entries {
		if old.trouble == nil && stampOf(k.Pair) == old.stamp {
			continue
		}
		e := load(k)
		n := e.after(old, k)
		if n.text != "" && !m.replaces(e) && k.Cert != Obtained {
			all = append(all, n)
		}
		m.entries[k] = e
		changed = changed || e.cert != old.cert
	}
	if changed || m.localDue() || !sameOrders(m.options.ACME.wanted(m.sites, m.entries, m.options.Now()), m.wants) {
		for _, p := range m.publish() {
			all = append(all, news{"error", p.Message})
		}
	}
	for _, p := range m.neglected() {
		all = append(all, news{"warn", p.Message})
	}
	slices.SortFunc(all, func(a, b news) int { return strings.Compare(a.text, b.text) })
	return all
}

// localDue says whether a certificate of the local CA wants renewal.
func (m *Manager) localDue() bool {
	if m.ca == nil {
		return false
	}
	for _, s := range *m.served.Load() {
		if s.local != nil && m.ca.due(s.local) {
			return true
		}
	}
	return false
}

// Certificate chooses the certificate of a site for a handshake. It takes no
// lock, and for a site with one certificate allocates nothing.
func (m *Manager) Certificate(siteID string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := (*m.served.Load())[siteID]
	if s != nil && len(s.unproved) > 0 {
		s = m.proved(siteID, s, hello)
	}
	switch {
	case s == nil:
		return nil, errNoCertificate
	case s.onDemand && !shows(s.certs, hello.ServerName) && !s.awaits(hello.ServerName):
		return m.demand(hello)
	case s.bySNI:
		return bySNI(s.certs, hello.ServerName), nil
	case len(s.certs) > 0:
		return choose(s.certs, hello), nil
	case s.local != nil:
		return s.local, nil
	case s.placeholder != nil:
		if cert := s.placeholder(); cert != nil {
			return cert, nil
		}
	}
	return nil, errNoCertificate
}

// Put keeps something secret in the data folder, until it is taken.
func (m *Manager) Put(name string, value []byte) error {
	return m.data.Store(context.Background(), name, value)
}

// Take gives what was put there, once; nil is nothing.
func (m *Manager) Take(name string) []byte {
	value, err := m.data.Load(context.Background(), name)
	if err != nil || m.data.Delete(context.Background(), name) != nil {
		return nil
	}
	return value
}

// LocalRoot is the file of the local CA's certificate, "" without one.
func (m *Manager) LocalRoot() string {
	if m.ca == nil {
		return ""
	}
	return m.ca.rootFile
}

// Close ends what the Manager does in the background. Certificate goes on
// answering.
func (m *Manager) Close() {
	if m == nil {
		return
	}
	m.close.Do(func() {
		close(m.stop)
		m.ended.Wait()
		m.keeper.close()
		m.stapler.close()
		m.data.unannounce()
		m.cache.Stop()
	})
}
