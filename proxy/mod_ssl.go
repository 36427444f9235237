package proxy

import (
	"crypto/tls"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// ngx_http_ssl_module: TLS for clients.

// The values of ssl_verify_client.
const verifyOff = 0

// sslConf is what the module knows at a level.
type sslConf struct {
	Verify       int
	certificates List[string]
	keys         List[string]
	protocols    uint32
	curves       []tls.CurveID
	suites       []uint16
	tickets      bool
	timeout      time.Duration
	prefer       bool
	dhparam      string
}

type http2Conf struct{}

func http2Module() Module { return Module{Name: "ngx_http_v2_module"} }

func sslModule() Module {
	const in = InHTTP | InServer
	return Module{
		Name: "ngx_http_ssl_module",
		Commands: []Command{
			Strings(Command{Name: "ssl_certificate", In: in, Syntax: "file", Doc: "Sets the certificate of a server."}, func(c *Conf) *List[string] { return &c.SSL.certificates }),
			Strings(Command{Name: "ssl_certificate_key", In: in, Syntax: "file", Doc: "Sets the key of the certificate."}, func(c *Conf) *List[string] { return &c.SSL.keys }),
			Bits(Command{Name: "ssl_protocols", In: in, Default: "TLSv1.2 TLSv1.3", Doc: "Sets the versions of TLS."}, sslVersions(), func(c *Conf) *uint32 { return &c.SSL.protocols }),
			{Name: "ssl_ciphers", In: in, Args: "1", Syntax: "ciphers", Default: "HIGH:!aNULL:!MD5", Doc: "Sets the cipher suites of TLS 1.2.", Set: setSSLCiphers},
			{Name: "ssl_ecdh_curve", In: in, Args: "1", Syntax: "curve", Default: "auto", Doc: "Sets the curves.", Set: setSSLCurve},
			{Name: "ssl_session_cache", In: in, Args: "1,2", Syntax: "off | none | [builtin[:size]] [shared:name:size]", Default: "none", Doc: "Sets where sessions are kept.", Set: setSSLSessionCache, Status: NoEffect, Reason: "sessions are kept in tickets that only this process can read"},
			Seconds(Command{Name: "ssl_session_timeout", In: in, Default: "5m", Doc: "Sets how long a session can be resumed."}, func(c *Conf) *time.Duration { return &c.SSL.timeout }),
			Flag(Command{Name: "ssl_session_tickets", In: in, Default: "on", Doc: "Accepted without effect.", Status: NoEffect, Reason: "sessions are kept in tickets that only this process can read"}, func(c *Conf) *bool { return &c.SSL.tickets }),
			Flag(Command{Name: "ssl_prefer_server_ciphers", In: in, Default: "off", Doc: "Accepted without effect.", Status: NoEffect, Reason: "Go orders cipher suites by what both sides have hardware for"}, func(c *Conf) *bool { return &c.SSL.prefer }),
			Text(Command{Name: "ssl_dhparam", In: in, Syntax: "file", Doc: "Accepted without effect.", Status: NoEffect, Reason: "there are no DHE cipher suites"}, func(c *Conf) *string { return &c.SSL.dhparam }),
		},
		Init: func(c *Conf) {
			c.SSL = sslConf{protocols: 1<<4 | 1<<5, tickets: true, timeout: 5 * time.Minute}
		},
		Finish: finishSSL,
	}
}

func sslVersions() []string {
	return []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
}

func setSSLCiphers(l *Level, d *parser.Directive) error {
	known := map[string]uint16{
		"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	var suites []uint16
	for name := range strings.FieldsFuncSeq(d.Args[0].Value, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		if id, ok := known[name]; ok {
			suites = append(suites, id)
		}
	}
	list := d.Args[0].Value
	if len(suites) == 0 && !strings.Contains(list, "HIGH") && !strings.Contains(list, "DEFAULT") && !strings.Contains(list, "ALL") && !strings.Contains(list, "-") {
		l.AtFinish(func() {
			l.c.failLater(parser.Error, d.Args[0].Range, parser.Range{}, "", "", "SSL_CTX_set_cipher_list(%q) failed (SSL: error:0A0000B9:SSL routines::no cipher match)", list)
		})
	}
	l.Conf.SSL.suites = suites
	return nil
}

func setSSLCurve(l *Level, d *parser.Directive) error {
	known := map[string]tls.CurveID{
		"X25519": tls.X25519, "prime256v1": tls.CurveP256, "P-256": tls.CurveP256,
		"secp384r1": tls.CurveP384, "P-384": tls.CurveP384, "secp521r1": tls.CurveP521, "P-521": tls.CurveP521, "X25519MLKEM768": tls.X25519MLKEM768,
	}
	l.Conf.SSL.curves = nil
	for name := range strings.SplitSeq(d.Args[0].Value, ":") {
		if name == "auto" {
			continue
		}
		id, ok := known[name]
		if !ok {
			return sayAt(d.Args[0], "", "", "SSL_CTX_set1_curves_list(%q) failed", d.Args[0].Value)
		}
		l.Conf.SSL.curves = append(l.Conf.SSL.curves, id)
	}
	return nil
}

func setSSLSessionCache(_ *Level, d *parser.Directive) error {
	for _, a := range d.Args {
		v := a.Value
		switch {
		case v == "off", v == "none", v == "builtin":
			continue
		case strings.HasPrefix(v, "builtin:"):
			if _, ok := parseNumber(v[8:]); ok {
				continue
			}
		case strings.HasPrefix(v, "shared:"):
			_, size, ok := strings.Cut(v[7:], ":")
			if n, sized := parseSize(size); ok && sized && n >= 8*4096 {
				continue
			}
		}
		return sayAt(a, "", "shared:name:size, for example shared:SSL:10m", "invalid session cache %q", v)
	}
	return nil
}

// finishSSL checks that every certificate has its key.
func finishSSL(l *Level) error {
	s := &l.Conf.SSL
	if len(s.certificates.Items) > len(s.keys.Items) && l.Context == InServer {
		name := l.c.opts.confRelative(s.certificates.Items[len(s.certificates.Items)-1])
		at := parser.Range{}
		if len(s.keys.Items) == 0 {
			l.c.failLater(parser.Error, l.Server.Place, at, "", "", "no \"ssl_certificate_key\" is defined for certificate %q", name)
		}
	}
	if l.Context == InServer && l.Server.usesTLS() && !l.c.checksTLS {
		l.c.checksTLS = true
		l.AtFinish(l.c.checkTLS)
	}
	return nil
}

func (s *Server) usesTLS() bool {
	for _, li := range s.listens {
		if li.options.ssl {
			return true
		}
	}
	return false
}

// checkTLS looks at the certificates of everything that listens with ssl.
func (c *compiler) checkTLS() {
	for _, s := range c.table.Servers {
		s.tls = s.tlsConfig(c.opts)
		if s.usesTLS() && len(s.Level.Conf.SSL.certificates.Items) == 0 {
			c.failLater(parser.Error, s.Place, s.block.End, "C015", "name a certificate and its key", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive")
		}
	}
	if c.opts.CheckCertificates == nil {
		return
	}
	for _, p := range c.opts.CheckCertificates(c.table.certSites()) {
		sev := parser.Error
		if p.Warning {
			sev = parser.Warning
		}
		c.failLater(sev, parser.Range{}, parser.Range{}, "C016", "", "%s", p.Message)
	}
}

// certSites lists the servers that need certificates.
func (t *Table) certSites() []CertSite {
	var out []CertSite
	for _, s := range t.Servers {
		conf := &s.Level.Conf.SSL
		if !s.usesTLS() {
			continue
		}
		site := CertSite{ID: s.ID, Place: s.ID}
		for _, n := range s.Names {
			site.Names = append(site.Names, n.text)
		}
		for i, cert := range conf.certificates.Items {
			site.Pairs = append(site.Pairs, CertPair{Certificate: t.opts.confRelative(cert), Key: t.opts.confRelative(conf.keys.Items[i])})
		}
		out = append(out, site)
	}
	return out
}

// tlsConfig makes the configuration of a server.
func (s *Server) tlsConfig(o *Options) *tls.Config {
	conf := &s.Level.Conf.SSL
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, CipherSuites: conf.suites, CurvePreferences: conf.curves,
		NextProtos: []string{"http/1.1", "http/1.0", "http/0.9"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return o.Certificate(s.ID, hello)
		},
	}
	if conf.protocols&(1<<5) == 0 {
		c.MaxVersion = tls.VersionTLS12
	} else if conf.protocols&(1<<4) == 0 {
		c.MinVersion = tls.VersionTLS13
	}
	return c
}

// serveTLS shakes hands and serves what follows.
func (c *client) serveTLS(nc *sock.Conn) {
	t := c.rt.acquire()
	defer t.release()
	if !c.follow(t) {
		_ = nc.Close()
		return
	}
	core := &c.endpoint.fallback.Level.Conf.Core
	nc.SetTimeout(core.HeaderTimeout)
	conn := tls.Server(nc, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c.sniName = lower(hello.ServerName)
		c.sni = c.endpoint.serverOf([]byte(c.sniName))
		return c.sni.tls, nil
	}})
	if err := conn.Handshake(); err != nil {
		c.logf(logInfo, "SSL handshaking", "SSL_do_handshake() failed (SSL: %s)", err)
		_ = nc.Close()
		return
	}
	c.tls = conn
	h := http1.NewConn(conn, nc, c.endpoint.config(), c.serveHTTP1)
	c.http1 = http1Stream{client: c, conn: h}
	c.life.onEnd(h.Shutdown, h.Abort)
	h.Serve()
}
