package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"proxyctl/parser"
)

// proxy_ssl_*: TLS towards servers. As in nginx nothing is verified unless
// proxy_ssl_verify is on.

// proxyTLS is what the directives say, and what they come to.
type proxyTLS struct {
	verify      bool
	serverName  bool
	reuse       bool
	name        *Value
	trusted     string
	crl         string
	certificate *Value
	key         *Value
	protocols   uint32
	ciphers     string
	depth       int

	client *upstreamTLS // made of all this, shared by the levels that say the same
}

// upstreamTLS is a client's side of TLS.
type upstreamTLS struct {
	from    proxyTLS // the settings it was made of
	config  *tls.Config
	pool    *x509.CertPool
	revoked *revocations
	verify  bool
	depth   int
	key     string // names the settings: connections kept under others are not taken
	dynamic bool   // the certificate's name holds variables
	folder  string
}

func defaultProxyTLS() proxyTLS {
	return proxyTLS{reuse: true, depth: 1, protocols: 1<<4 | 1<<5, ciphers: "DEFAULT"}
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
		Text(Command{Name: "proxy_ssl_crl", In: in, Syntax: "file", Doc: "Sets a list of revoked certificates."}, text(func(t *proxyTLS) *string { return &t.crl })),
		ValueOf(Command{Name: "proxy_ssl_certificate", In: in, Syntax: "file", Doc: "Sets the certificate shown to the server."}, func(c *Conf) **Value { return &c.Proxy.tls.certificate }),
		ValueOf(Command{Name: "proxy_ssl_certificate_key", In: in, Syntax: "file", Doc: "Sets the key of that certificate."}, func(c *Conf) **Value { return &c.Proxy.tls.key }),
		Bits(Command{Name: "proxy_ssl_protocols", In: in, Default: "TLSv1.2 TLSv1.3", Doc: "Sets the versions of TLS."}, tlsProtocolWords(), func(c *Conf) *uint32 { return &c.Proxy.tls.protocols }),
		Text(Command{Name: "proxy_ssl_ciphers", In: in, Syntax: "ciphers", Default: "DEFAULT", Doc: "Accepted without effect.", Status: NoEffect, Reason: "Go's TLS library offers its own list of safe ciphers"}, text(func(t *proxyTLS) *string { return &t.ciphers })),
		Number(Command{Name: "proxy_ssl_verify_depth", In: in, Default: "1", Doc: "Sets how long the chain of certificates may be."}, func(c *Conf) *int { return &c.Proxy.tls.depth }),
	}
}

// finishTLS makes the client's side of TLS for a level that passes requests on.
func (c *proxyConf) finishTLS(l *Level) error {
	t := &c.tls
	if c.target == nil || !c.target.vars.tls && c.target.value == nil {
		return nil
	}
	settings := *t
	settings.client = nil
	if t.client != nil && t.client.from == settings {
		return nil
	}
	u := &upstreamTLS{from: settings, verify: t.verify, depth: t.depth, folder: l.c.opts.ConfDir}
	u.config = &tls.Config{
		InsecureSkipVerify: true, // verification is done by check, in nginx's words
		MinVersion:         protocolVersion(t.protocols, false),
		MaxVersion:         protocolVersion(t.protocols, true),
	}
	if t.reuse {
		u.config.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	if err := u.loadCertificate(t); err != nil {
		return err
	}
	if t.verify {
		if err := u.loadTrusted(t); err != nil {
			return err
		}
	}
	u.key = fmt.Sprintf("%p", u)
	t.client = u
	return nil
}

// file makes a path of the configuration's folder absolute.
func (u *upstreamTLS) file(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(u.folder, name)
}

// protocolVersion gives the lowest or highest version of a set. Versions before
// TLS 1.0 exist in no library any more.
func protocolVersion(set uint32, highest bool) uint16 {
	versions := [...]uint16{0, 0, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}
	found := uint16(0)
	for i, v := range versions {
		if v != 0 && set&(1<<i) != 0 && (found == 0 || highest) {
			found = v
		}
	}
	return found
}

func (u *upstreamTLS) loadCertificate(t *proxyTLS) error {
	if t.certificate == nil {
		return nil
	}
	name, static := t.certificate.Static()
	if static && name == "" {
		return nil
	}
	if t.key == nil {
		return say("no \"proxy_ssl_certificate_key\" is defined for certificate %q", name)
	}
	key, staticKey := t.key.Static()
	if u.dynamic = !static || !staticKey; u.dynamic {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(u.file(name), u.file(key))
	if err != nil {
		return say("cannot load certificate %q: %s", u.file(name), err)
	}
	u.config.Certificates = []tls.Certificate{cert}
	return nil
}

func (u *upstreamTLS) loadTrusted(t *proxyTLS) error {
	if t.trusted == "" {
		return say("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
	}
	data, err := os.ReadFile(u.file(t.trusted))
	if err != nil {
		return say("cannot load certificate %q: %s", u.file(t.trusted), err)
	}
	u.pool = x509.NewCertPool()
	if !u.pool.AppendCertsFromPEM(data) {
		return say("no certificates in %q", u.file(t.trusted))
	}
	if t.crl == "" {
		return nil
	}
	u.revoked, err = loadRevocations(u.file(t.crl))
	if err != nil {
		return say("cannot load CRL %q: %s", u.file(t.crl), err)
	}
	return nil
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
	sni := t.serverName && name != "" && name[0] != '[' && !isAddress(name)
	if !sni && !u.dynamic {
		return config, name, nil
	}
	config = config.Clone()
	if sni {
		config.ServerName = name
	}
	if u.dynamic {
		if file := t.certificate.String(x); file != "" {
			cert, err := tls.LoadX509KeyPair(u.file(file), u.file(t.key.String(x)))
			if err != nil {
				return nil, name, fmt.Errorf("cannot load certificate %q: %w", u.file(file), err)
			}
			config.Certificates = []tls.Certificate{cert}
		}
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
	if !u.verify {
		return nil
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("upstream SSL certificate verify error: (-1:no certificate)")
	}
	leaf := state.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: u.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("upstream SSL certificate verify error: %s", verifyText(err))
	}
	if !u.goodChain(chains) {
		return errors.New("upstream SSL certificate verify error: (22:certificate chain too long)")
	}
	for _, chain := range chains {
		if u.revoked.any(chain) {
			return errors.New("upstream SSL certificate verify error: (23:certificate revoked)")
		}
	}
	if leaf.VerifyHostname(strings.Trim(name, "[]")) != nil {
		return fmt.Errorf("upstream SSL certificate does not match %q", name)
	}
	return nil
}

// goodChain says whether one chain has no more certificates between the
// server's and the root than proxy_ssl_verify_depth allows.
func (u *upstreamTLS) goodChain(chains [][]*x509.Certificate) bool {
	for _, chain := range chains {
		if len(chain)-2 <= u.depth {
			return true
		}
	}
	return false
}

// verifyText words a verification error as OpenSSL does.
func verifyText(err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "(10:certificate has expired)"
	case errors.As(err, &unknown):
		if unknown.Cert != nil && unknown.Cert.Issuer.String() == unknown.Cert.Subject.String() {
			return "(18:self-signed certificate)"
		}
		return "(20:unable to get local issuer certificate)"
	}
	return "(1:" + err.Error() + ")"
}

// revocations are the serial numbers that certificate authorities have taken
// back.
type revocations struct {
	lists []*x509.RevocationList
}

func loadRevocations(file string) (*revocations, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &revocations{}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		r.lists = append(r.lists, list)
	}
	if len(r.lists) == 0 {
		return nil, errors.New("no revocation list")
	}
	return r, nil
}

// any says whether a certificate of a chain has been revoked by its issuer.
func (r *revocations) any(chain []*x509.Certificate) bool {
	if r == nil {
		return false
	}
	for i := 0; i+1 < len(chain); i++ {
		for _, list := range r.lists {
			if list.CheckSignatureFrom(chain[i+1]) == nil && listed(list, chain[i].SerialNumber) {
				return true
			}
		}
	}
	return false
}

func listed(list *x509.RevocationList, serial *big.Int) bool {
	for i := range list.RevokedCertificateEntries {
		if list.RevokedCertificateEntries[i].SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
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
