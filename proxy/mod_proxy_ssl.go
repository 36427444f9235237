package proxy

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"proxyctl/parser"
)

// proxy_ssl_*: TLS towards servers. As in nginx nothing is verified unless
// proxy_ssl_verify is on.

// proxyTLS is what the directives say, and what they come to.
type proxyTLS struct {
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
	from    proxyTLS // the settings it was made of
	config  *tls.Config
	trust   *trust      // nil: servers are not verified
	source  *certSource // of a certificate whose name holds variables; nil for others
	key     string      // names the settings: connections kept under others are not taken
	sending bool        // the name of the server is sent
}

func defaultProxyTLS() proxyTLS {
	return proxyTLS{reuse: true, depth: 1, protocols: protocolTLS12 | protocolTLS13, ciphers: "DEFAULT"}
}

func tlsProtocolWords() []string {
	return []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
}

func proxySSLCommands() []Command {
	const in = inHTTPLevels
	set := func(f func(t *proxyTLS) *bool) func(*Conf) *bool {
		return func(c *Conf) *bool { return f(&c.Proxy.tls) }
	}
	text := func(f func(t *proxyTLS) *string) func(*Conf) *string {
		return func(c *Conf) *string { return f(&c.Proxy.tls) }
	}
	return []Command{
		Flag(Command{Name: "proxy_ssl_verify", In: in, Default: "off", Doc: "Verifies the certificate of the server."}, set(func(t *proxyTLS) *bool { return &t.verify })),
		Flag(Command{Name: "proxy_ssl_server_name", In: in, Default: "off", Doc: "Sends the name of the server in the handshake."}, set(func(t *proxyTLS) *bool { return &t.serverName })),
		Flag(Command{Name: "proxy_ssl_session_reuse", In: in, Default: "on", Doc: "Resumes TLS sessions."}, set(func(t *proxyTLS) *bool { return &t.reuse })),
		ValueOf(Command{Name: "proxy_ssl_name", In: in, Syntax: "name", Default: "$proxy_host", Doc: "Sets the name that the certificate must have."}, func(c *Conf) **Value { return &c.Proxy.tls.name }),
		Text(Command{Name: "proxy_ssl_trusted_certificate", In: in, Syntax: "file", Doc: "Sets the certificates that are trusted."}, text(func(t *proxyTLS) *string { return &t.trusted })),
		Text(Command{Name: "proxy_ssl_crl", In: in, Syntax: "file", Doc: "Sets the lists of revoked certificates."}, text(func(t *proxyTLS) *string { return &t.crl })),
		ValueOf(Command{Name: "proxy_ssl_certificate", In: in, Syntax: "file", Doc: "Sets the certificate shown to the server."}, func(c *Conf) **Value { return &c.Proxy.tls.certificate }),
		ValueOf(Command{Name: "proxy_ssl_certificate_key", In: in, Syntax: "file", Doc: "Sets the key of that certificate."}, func(c *Conf) **Value { return &c.Proxy.tls.key }),
		{
			Name: "proxy_ssl_certificate_cache", In: in, Args: "1-3", Syntax: "off | max=N [inactive=time] [valid=time]", Default: "off", Doc: "Keeps certificates whose names hold variables.",
			Set: setCertificateCache(func(c *Conf) **certCache { return &c.Proxy.tls.cache }),
		},
		{
			Name: "proxy_ssl_password_file", In: in, Args: "1", Syntax: "file", Doc: "Sets the file with the passphrases of keys.",
			Set: setPasswordFile(text(func(t *proxyTLS) *string { return &t.passwordFile })),
		},
		Bits(Command{Name: "proxy_ssl_protocols", In: in, Default: "TLSv1.2 TLSv1.3", Doc: "Sets the versions of TLS."}, tlsProtocolWords(), func(c *Conf) *uint32 { return &c.Proxy.tls.protocols }),
		Text(Command{Name: "proxy_ssl_ciphers", In: in, Syntax: "ciphers", Default: "DEFAULT", Doc: "Sets the ciphers of TLS 1.2 and before, as OpenSSL names them."}, text(func(t *proxyTLS) *string { return &t.ciphers })),
		Number(Command{Name: "proxy_ssl_verify_depth", In: in, Default: "1", Doc: "Sets how long the chain of certificates may be."}, func(c *Conf) *int { return &c.Proxy.tls.depth }),
		{
			Name: "proxy_ssl_conf_command", In: in, Args: "2", Repeat: true, Syntax: "name value", Doc: "Runs a configuration command of OpenSSL.",
			Set: setConfCommand(func(c *Conf) **tlsCommands { return &c.Proxy.tls.commands }),
		},
	}
}

// finishTLS makes the client's side of TLS for a level that passes requests on.
// As in nginx, mistakes have no place.
func (c *proxyConf) finishTLS(l *Level) {
	t := &c.tls
	if c.target == nil || !c.target.vars.tls && c.target.value == nil {
		return
	}
	settings := *t
	settings.client = nil
	if t.client != nil && t.client.from == settings {
		return
	}
	u := &upstreamTLS{from: settings, sending: t.serverName}
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

// configure checks in the order of ngx_http_proxy_set_ssl.
func (u *upstreamTLS) configure(o *Options, t *proxyTLS) error {
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
func (u *upstreamTLS) readCertificate(o *Options, t *proxyTLS, tuned *tlsSettings) error {
	pair := CertPair{PasswordFile: t.passwordFile}
	if v := t.certificate; v != nil {
		name, static := v.Static()
		if t.key == nil && (!static || name != "") {
			return fmt.Errorf("no \"proxy_ssl_certificate_key\" is defined for certificate %q", v.source())
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

func (u *upstreamTLS) readTrusted(o *Options, t *proxyTLS) error {
	if t.trusted == "" {
		return errors.New("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
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
func (u *upstreamTLS) connection(x *Exchange, t *proxyTLS, fallback string) (*tls.Config, string, error) {
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

// upstreamBind is proxy_bind.
type upstreamBind struct {
	value       *Value // with variables
	address     netip.AddrPort
	transparent bool
}

// setUpstreamBind reads "address [transparent]" or "off".
func setUpstreamBind(field func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		u, text := field(l.Conf), d.Args[0].Value
		if len(d.Args) == 1 && text == "off" {
			u.bind = nil
			return nil
		}
		v, err := l.value(text)
		if err != nil {
			return err
		}
		b := &upstreamBind{value: v}
		if _, static := v.Static(); static {
			b.value = nil
			var ok bool
			if b.address, ok = parseBind(text); !ok {
				return sayAt(d.Args[0], "", "an IP address of this machine, with or without port", "invalid address %q", text)
			}
		}
		if len(d.Args) == 2 {
			if d.Args[1].Value != "transparent" {
				return sayAt(d.Args[1], "", `the only parameter is "transparent"`, "invalid parameter %q", d.Args[1].Value)
			}
			b.transparent = true
		}
		u.bind = b
		return nil
	}
}

func parseBind(text string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(a, 0), true
	}
	a, err := netip.ParseAddrPort(text)
	return a, err == nil
}
