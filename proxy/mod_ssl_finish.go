package proxy

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"proxyctl/parser"
)

// tlsServer is the TLS side of a server block: what nginx keeps in an SSL_CTX.
type tlsServer struct {
	site          string // who asks for certificates
	pairs         []CertPair
	sources       []*certSource // instead of pairs, when a name holds variables
	reject        bool
	lax           bool   // what is shown may be as weak as the user likes
	versions      uint32 // protocol bits that exist in Go
	suites        []suite
	suiteIDs      []uint16
	serverChooses bool          // among suites, not the client
	curves        []tls.CurveID // nil: Go's own
	context       [16]byte      // sessions are resumed within it only
	verify        int
	authorities   *clientAuthorities // nil: clients are not asked for a certificate
	ocsp          *clientOCSP        // nil: nobody is asked about them
	trusted       []*x509.Certificate
	zone          atomic.Pointer[sessionZone] // found at first use
	cache         sessionCache
	tickets       bool
	keys          *ticketKeys // of ssl_session_ticket_key; nil without
	timeout       time.Duration
	alpn          []string // of sessions, in the order of preference; nil for none
	staples       *staples // nil: none
	recordSize    int      // 0: as large as can be
}

// finishSSL makes the TLS side of a server level. Where nginx names no place in
// its messages, there is none here.
func finishSSL(l *Level) error {
	switch l.Context {
	case InHTTP, InStream:
		if !l.c.checksCertificates { // of both blocks at once
			l.c.checksCertificates = true
			l.AtFinish(l.c.checkCertificates)
		}
		l.AtFinish(l.c.checkTLSListeners)
	case InServer, InStreamServer:
		s := &l.Conf.SSL
		s.server = nil
		if len(s.certificates.Items) == 0 && !s.rejectHandshake {
			return nil
		}
		t, err := s.compile(l)
		if err != nil {
			l.c.failLater(parser.Error, l.Server.Place, parser.Range{}, "", "", "%s", err)
			return nil
		}
		s.server = t
	}
	return nil
}

// compile checks in the order of ngx_http_ssl_merge_srv_conf, which that of
// streams has too.
func (s *sslConf) compile(l *Level) (*tlsServer, error) {
	t := &tlsServer{site: l.Server.ID, reject: s.rejectHandshake, verify: s.Verify, cache: s.cache, timeout: s.timeout, alpn: s.alpn.Items}
	if n := len(s.certificates.Items); len(s.keys.Items) < n {
		return nil, fmt.Errorf("no \"ssl_certificate_key\" is defined for certificate %q", s.certificates.Items[n-1])
	}
	tuned := tlsSettings{
		versions: s.protocols & protocolsServed, ciphers: s.ciphers, curves: s.curves, tickets: s.tickets,
		serverChooses: s.serverChooses, opts: l.c.opts,
	}
	if err := s.commands.apply(&tuned); err != nil {
		return nil, err
	}
	t.versions, t.tickets, t.serverChooses = tuned.versions, tuned.tickets, tuned.serverChooses
	t.lax = lowSecurityLevel(tuned.ciphers)
	var err error
	if t.suites, err = l.c.servedSuites(tuned.ciphers, t.versions); err != nil {
		return nil, err
	}
	for _, s := range t.suites {
		t.suiteIDs = append(t.suiteIDs, s.id)
	}
	if err = s.certificateNames(l, t, &tuned); err != nil {
		return nil, err
	}
	if err = s.readAuthorities(l, t); err != nil {
		return nil, err
	}
	if t.ocsp, err = s.newClientOCSP(l); err != nil {
		return nil, err
	}
	if err = s.checkDHParam(l); err != nil {
		return nil, err
	}
	if t.curves, err = curves(tuned.curves); err != nil {
		return nil, err
	}
	t.context = s.sessionContext(t)
	if len(s.ticketKeys.Items) > 0 {
		t.keys = newTicketKeys(s.ticketKeys.Items)
	}
	s.warnIgnored(l)
	if s.stapling {
		if s.compression {
			return nil, errors.New("\"ssl_stapling\" is incompatible with \"ssl_certificate_compression\"")
		}
		if t.staples, err = s.newStaples(l, t); err != nil {
			return nil, err
		}
	}
	if s.bufferSize < maxRecord {
		t.recordSize = int(max(s.bufferSize, 1))
	}
	return t, nil
}

// servedSuites reads a cipher string once.
func (c *compiler) servedSuites(text string, versions uint32) ([]suite, error) {
	if known, ok := c.suites[text]; ok && len(known) > 0 {
		return known, nil
	}
	suites, err := servedSuites(text, versions)
	if err != nil {
		return nil, err
	}
	if c.suites == nil {
		c.suites = map[string][]suite{}
	}
	c.suites[text] = suites
	return suites, nil
}

// warnIgnored says what nginx says where OpenSSL cannot do a thing.
func (s *sslConf) warnIgnored(l *Level) {
	for _, w := range []struct {
		name string
		on   bool
	}{{"ssl_certificate_compression", s.compression}, {"ssl_ech_file", len(s.echFiles.Items) > 0}, {"ssl_early_data", s.earlyData && !l.Server.overQUIC()}} {
		if w.on {
			l.c.failLater(parser.Warning, l.Server.Place, parser.Range{}, "", "", "%q is not supported on this platform, ignored", w.name)
		}
	}
}

// overQUIC says whether the server listens for QUIC, which has early data.
func (s *Server) overQUIC() bool {
	return slices.ContainsFunc(s.listens, func(li *listen) bool { return li.options.quic })
}

// certificateNames notes what is to be shown: files that are read when the
// configuration is, or for each connection if a name depends on it.
func (s *sslConf) certificateNames(l *Level, t *tlsServer, tuned *tlsSettings) error {
	dynamic := false
	for i, c := range s.certificates.Items {
		dynamic = dynamic || holdsVariables(c) || holdsVariables(s.keys.Items[i])
	}
	for i, c := range s.certificates.Items {
		if !dynamic {
			t.pairs = append(t.pairs, CertPair{l.c.opts.certificateFile(c), l.c.opts.certificateFile(s.keys.Items[i]), s.passwordFile})
			continue
		}
		source := &certSource{passwordFile: s.passwordFile, cache: s.certificateCache, lax: t.lax, opts: l.c.opts}
		var err error
		if source.certificate, err = l.value(c); err == nil {
			source.key, err = l.value(s.keys.Items[i])
		}
		if err != nil {
			return err
		}
		t.sources = append(t.sources, source)
	}
	if p := tuned.pair; p.Certificate != "" {
		t.pairs = append(t.pairs, CertPair{p.Certificate, cmp.Or(p.Key, p.Certificate), s.passwordFile})
	}
	return nil
}

// holdsVariables looks for a "$" that begins a name, other than those that stand
// for what is obtained.
func holdsVariables(text string) bool {
	return !obtained(text) && strings.IndexByte(text, '$') >= 0
}

// sessionContext names what a session depends on: the certificates and what is
// asked of clients. nginx takes the certificates themselves and the names of the
// authorities (ngx_ssl_session_id_context); here it is the files, and whether
// certificates are verified as well.
func (s *sslConf) sessionContext(t *tlsServer) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d %q %q %q", t.pairs, s.certificates.Items, s.Verify, s.verifyDepth, s.clientCA, s.trusted, s.crl))
	return [16]byte(sum[:16])
}

// mayMiss says whether a file that does not exist need not.
func (o *Options) mayMiss(name string) bool {
	if o.MayMiss == nil || !o.MayMiss(name) {
		return false
	}
	_, err := os.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// checkDHParam looks at the file only: what it holds is not needed.
func (s *sslConf) checkDHParam(l *Level) error {
	if s.dhparam == "" {
		return nil
	}
	name := l.c.opts.confRelative(s.dhparam)
	_, err := readPEMFile(name, "DH PARAMETERS")
	var pem *pemError
	switch {
	case err == nil, l.c.opts.mayMiss(name):
		return nil
	case errors.As(err, &pem):
		return fmt.Errorf("PEM_read_bio_DHparams(%q) failed (%w)", name, err)
	}
	return fmt.Errorf("BIO_new_file(%q) failed (%w)", name, err)
}

// checkCertificates asks whether the certificates can be read.
func (c *compiler) checkCertificates() {
	if c.opts.CheckCertificates == nil {
		return
	}
	sites := c.table.certSites()
	if len(sites) == 0 {
		return
	}
	servers := c.table.allServers()
	places := make(map[string]parser.Range, len(servers))
	for _, s := range servers {
		places[s.ID] = s.Place
	}
	for _, p := range c.opts.CheckCertificates(sites) {
		severity := parser.Error
		if p.Warning {
			severity = parser.Warning
		}
		c.failLater(severity, places[p.SiteID], parser.Range{}, "", "", "%s", p.Message)
	}
}

// certSites lists the servers that show certificates.
func (t *Table) certSites() []CertSite {
	var out []CertSite
	for _, s := range t.allServers() {
		ssl := s.Level.Conf.SSL.server
		if ssl == nil || len(ssl.pairs) == 0 {
			continue
		}
		site := CertSite{ID: s.ID, Pairs: ssl.pairs, Place: s.ID, Lax: ssl.lax, ACME: s.acme}
		for _, n := range s.Names {
			if n.regex == nil && n.text != "" {
				site.Names = append(site.Names, n.text)
			}
		}
		for _, li := range s.listens {
			if li.options.ssl && li.network != "unix" {
				site.Listen = append(site.Listen, li.address)
			}
		}
		out = append(out, site)
	}
	return out
}

// checkTLSListeners finds listeners with ssl or quic that have no certificate
// (ngx_http_ssl_init, ngx_stream_ssl_init): the default server must have one, or refuse handshakes;
// then the others are asked, too.
func (c *compiler) checkTLSListeners() {
	seen := map[*endpoint]bool{}
	var endpoints []*endpoint
	servers := c.table.Servers
	if c.names.stream {
		servers = c.table.Sessions
	}
	for _, s := range servers {
		for _, li := range s.listens {
			if e := c.names.endpoints[li.network+li.text]; e != nil && !seen[e] {
				seen[e] = true
				endpoints = append(endpoints, e)
			}
		}
	}
	for _, e := range endpoints {
		name, ssl := "ssl", &e.fallback.Level.Conf.SSL
		if e.options.quic {
			name = "quic"
		}
		if !e.options.ssl && !e.options.quic {
			continue
		}
		if len(ssl.certificates.Items) > 0 {
			if e.options.quic && ssl.protocols&protocolTLS13 == 0 {
				c.failLater(parser.Error, e.fallback.Place, e.fallback.block.End, "", "QUIC has TLS 1.3 built in",
					"\"ssl_protocols\" must enable TLSv1.3 for the \"listen ... quic\" directive")
				return
			}
			continue
		}
		servers := e.servers
		if !ssl.rejectHandshake {
			servers = []*Server{e.fallback}
		}
		if s := withoutTLS(servers); s != nil {
			c.failLater(parser.Error, s.Place, s.block.End, "", "add ssl_certificate and ssl_certificate_key, or ssl_reject_handshake on",
				"no \"ssl_certificate\" is defined for the \"listen ... %s\" directive", name)
			return
		}
	}
}

// withoutTLS finds the first server that has no certificate and does not refuse
// handshakes.
func withoutTLS(servers []*Server) *Server {
	for _, s := range servers {
		if ssl := &s.Level.Conf.SSL; len(ssl.certificates.Items) == 0 && !ssl.rejectHandshake {
			return s
		}
	}
	return nil
}
