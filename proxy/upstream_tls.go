package proxy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"proxyctl/parser"
)

// TLS towards servers: the directives whose names go on with ssl_ behind the prefix
// of their module. As in nginx nothing is verified unless ssl_verify is on.

// upstreamTLSConf is what the directives say, and what they come to.
type upstreamTLSConf struct {
	verify       bool
	serverName   bool
	reuse        bool
	name         *Value
	trusted      string
	crl          string
	certificate  *Value
	key          *Value
	cache        *certCache
	passwordFile string
	protocols    uint32
	ciphers      string
	commands     *tlsCommands
	depth        int

	client *upstreamTLS // made of all this, shared by the levels that say the same
}

// upstreamTLS is a client's side of TLS.
type upstreamTLS struct {
	prefix  string          // of the directives
	from    upstreamTLSConf // the settings it was made of
	config  *tls.Config
	trust   *trust      // nil: servers are not verified
	source  *certSource // of a certificate whose name holds variables; nil for others
	key     string      // names the settings: connections kept under others are not taken
	sending bool        // the name of the server is sent
}

func defaultUpstreamTLS() upstreamTLSConf {
	return upstreamTLSConf{reuse: true, depth: 1, protocols: protocolTLS12 | protocolTLS13, ciphers: "DEFAULT"}
}

func tlsProtocolWords() []string {
	return []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
}

// upstreamTLSRows makes the rows of TLS under the prefix of a module. fallback is
// the default of ssl_name.
func upstreamTLSRows(prefix, fallback string, of func(*Conf) *upstreamConf) []Command {
	row := func(name, defaults, doc string) Command {
		return Command{Name: prefix + "_ssl_" + name, In: inHTTPLevels, Default: defaults, Doc: doc}
	}
	flag := func(c Command, field func(t *upstreamTLSConf) *bool) Command {
		return Flag(c, func(c *Conf) *bool { return field(&of(c).tls) })
	}
	text := func(field func(t *upstreamTLSConf) *string) func(*Conf) *string {
		return func(c *Conf) *string { return field(&of(c).tls) }
	}
	file := func(c Command, field func(*Conf) *string) Command {
		c.Syntax = "file"
		return Text(c, field)
	}
	value := func(c Command, syntax string, field func(t *upstreamTLSConf) **Value) Command {
		c.Syntax = syntax
		return ValueOf(c, func(c *Conf) **Value { return field(&of(c).tls) })
	}
	commands := row("conf_command", "", "Runs a configuration command of OpenSSL.")
	commands.Repeat = true
	ciphers := row("ciphers", "DEFAULT", "Sets the ciphers of TLS 1.2 and before, as OpenSSL names them.")
	ciphers.Syntax = "ciphers"
	return []Command{
		flag(row("verify", "off", "Verifies the certificate of the server."), func(t *upstreamTLSConf) *bool { return &t.verify }),
		flag(row("server_name", "off", "Sends the name of the server in the handshake."), func(t *upstreamTLSConf) *bool { return &t.serverName }),
		flag(row("session_reuse", "on", "Resumes TLS sessions."), func(t *upstreamTLSConf) *bool { return &t.reuse }),
		value(row("name", fallback, "Sets the name that the certificate must have."), "name", func(t *upstreamTLSConf) **Value { return &t.name }),
		file(row("trusted_certificate", "", "Sets the certificates that are trusted."), text(func(t *upstreamTLSConf) *string { return &t.trusted })),
		file(row("crl", "", "Sets the lists of revoked certificates."), text(func(t *upstreamTLSConf) *string { return &t.crl })),
		value(row("certificate", "", "Sets the certificate shown to the server."), "file", func(t *upstreamTLSConf) **Value { return &t.certificate }),
		value(row("certificate_key", "", "Sets the key of that certificate."), "file", func(t *upstreamTLSConf) **Value { return &t.key }),
		row("certificate_cache", "off", "Keeps certificates whose names hold variables.").with("1-3", "off | max=N [inactive=time] [valid=time]",
			setCertificateCache(func(c *Conf) **certCache { return &of(c).tls.cache })),
		row("password_file", "", "Sets the file with the passphrases of keys.").with("1", "file",
			setPasswordFile(text(func(t *upstreamTLSConf) *string { return &t.passwordFile }))),
		Bits(row("protocols", "TLSv1.2 TLSv1.3", "Sets the versions of TLS."), tlsProtocolWords(), func(c *Conf) *uint32 { return &of(c).tls.protocols }),
		Text(ciphers, text(func(t *upstreamTLSConf) *string { return &t.ciphers })),
		Number(row("verify_depth", "1", "Sets how long the chain of certificates may be."), func(c *Conf) *int { return &of(c).tls.depth }),
		commands.with("2", "name value", setConfCommand(func(c *Conf) **tlsCommands { return &of(c).tls.commands })),
	}
}

// finishTLS makes the client's side of TLS for a level that passes requests on
// over it. As in nginx, mistakes have no place.
func (c *upstreamConf) finishTLS(l *Level, prefix string) {
	if c.target == nil || !c.target.vars.tls && c.target.value == nil {
		return
	}
	c.makeTLS(l, prefix)
}

// makeTLS makes it, unless the level has what another one made.
func (c *upstreamConf) makeTLS(l *Level, prefix string) {
	t := &c.tls
	settings := *t
	settings.client = nil
	if t.client != nil && t.client.from == settings {
		return
	}
	u := &upstreamTLS{prefix: prefix, from: settings, sending: t.serverName}
	u.key = fmt.Sprintf("%p", u)
	err := u.configure(l.c.opts, t)
	if err == nil && t.verify {
		err = u.readTrusted(l.c.opts, t)
	}
	if err != nil {
		l.c.failLater(parser.Error, l.Location.Place, parser.Range{}, "", "", "%s", err)
	}
	t.client = u
}

// configure checks in the order of ngx_http_proxy_set_ssl and its like.
func (u *upstreamTLS) configure(o *Options, t *upstreamTLSConf) error {
	tuned := tlsSettings{versions: t.protocols & protocolsServed, ciphers: t.ciphers, curves: "auto", tickets: true, opts: o}
	if err := t.commands.apply(&tuned); err != nil {
		return err
	}
	u.config = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // verification is done by check, in nginx's words
	u.config.MinVersion, u.config.MaxVersion = protocolLimits(tuned.versions)
	var err error
	if u.config.CipherSuites, err = cipherSuites(tuned.ciphers, tuned.versions); err != nil {
		return err
	}
	if u.config.CurvePreferences, err = curves(tuned.curves); err != nil {
		return err
	}
	if t.reuse && tuned.tickets {
		u.config.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	return u.readCertificate(o, t, &tuned)
}

// readCertificate reads what is shown to servers, or prepares for reading it.
func (u *upstreamTLS) readCertificate(o *Options, t *upstreamTLSConf, tuned *tlsSettings) error {
	pair := CertPair{PasswordFile: t.passwordFile}
	if v := t.certificate; v != nil {
		name, static := v.Static()
		if t.key == nil && (!static || name != "") {
			return fmt.Errorf("no \"%s_ssl_certificate_key\" is defined for certificate %q", u.prefix, v.source())
		}
		if !static || name != "" {
			key, staticKey := t.key.Static()
			if !static || !staticKey {
				u.source = &certSource{certificate: v, key: t.key, passwordFile: t.passwordFile, cache: t.cache, lax: lowSecurityLevel(tuned.ciphers), opts: o}
				return nil
			}
			pair.Certificate, pair.Key = o.certificateFile(name), o.certificateFile(key)
		}
	}
	if tuned.pair.Certificate != "" {
		pair.Certificate, pair.Key = tuned.pair.Certificate, cmp.Or(tuned.pair.Key, tuned.pair.Certificate)
	}
	if pair.Certificate == "" {
		return nil
	}
	cert, err := o.loadCertificate(pair, lowSecurityLevel(tuned.ciphers))
	if err != nil {
		return err
	}
	u.show(u.config, cert)
	return nil
}

// show has a certificate shown to every server that asks for one, whatever
// authorities it names, as OpenSSL does.
func (u *upstreamTLS) show(config *tls.Config, cert *tls.Certificate) {
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
}

func (u *upstreamTLS) readTrusted(o *Options, t *upstreamTLSConf) error {
	if t.trusted == "" {
		return fmt.Errorf("no %[1]s_ssl_trusted_certificate for %[1]s_ssl_verify", u.prefix)
	}
	u.trust = newTrust(t.depth, x509.ExtKeyUsageServerAuth)
	if _, err := u.trust.read(o.confRelative(t.trusted)); err != nil {
		return err
	}
	if t.crl == "" {
		return nil
	}
	return u.trust.readRevoked(o.confRelative(t.crl))
}

// connection gives the configuration of one connection: with its server name
// and its certificate.
func (u *upstreamTLS) connection(x *Exchange, t *upstreamTLSConf, fallback string) (*tls.Config, string, error) {
	name := fallback
	if t.name != nil {
		name = t.name.String(x)
	}
	name = withoutPort(name)
	config := u.config
	sni := u.sending && name != "" && name[0] != '[' && !isAddress(name)
	if !sni && u.source == nil {
		return config, name, nil
	}
	config = config.Clone()
	if sni {
		config.ServerName = name
	}
	if u.source != nil {
		cert, err := u.source.get(x)
		if err != nil {
			return nil, name, err
		}
		if cert != nil {
			u.show(config, cert)
		}
		// A session made under another certificate would bring that along.
		config.ClientSessionCache = nil
	}
	return config, name, nil
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// withoutPort cuts the port off a name that was taken from $proxy_host.
func withoutPort(name string) string {
	from := 0
	if strings.HasPrefix(name, "[") {
		from = max(strings.IndexByte(name, ']'), 0)
	}
	if i := strings.IndexByte(name[from:], ':'); i >= 0 {
		return name[:from+i]
	}
	return name
}

// check verifies what the server showed. The error is nginx's text.
func (u *upstreamTLS) check(state *tls.ConnectionState, name string, now time.Time) error {
	if u.trust == nil {
		return nil
	}
	if _, r := u.trust.verify(state.PeerCertificates, now); r != verifyOK {
		return fmt.Errorf("upstream SSL certificate verify error: (%d:%s)", r.code, r.text)
	}
	if !hasName(state.PeerCertificates[0], name) {
		return fmt.Errorf("upstream SSL certificate does not match \"%s\"", name)
	}
	return nil
}
