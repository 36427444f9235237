package proxy

import (
	"slices"
	"strings"
	"time"

	"proxyctl/parser"
)

// TLS towards clients: ngx_http_ssl_module, and most of ngx_stream_ssl_module. The
// rows are here; what a level comes to is in mod_ssl_finish.go, the variables are
// in mod_ssl_variable.go. Cipher names, sessions, client certificates and the
// handshake itself are in the tls_ files.

// sslConf is what the module knows at a level.
type sslConf struct {
	certificates                    List[string]
	keys                            List[string]
	passwordFile                    string
	certificateCache                *certCache
	commands                        *tlsCommands
	serverChooses                   bool
	ocsp                            int // one of the ocsp constants
	ocspResponder                   string
	ocspCache                       ocspCache
	stapling, staplingVerify        bool
	staplingFile, staplingResponder string
	earlyData, compression          bool
	echFiles                        List[string]
	protocols                       uint32 // bits, one for each name of setProtocols
	protocolsOf                     *Level // that set them
	ciphers                         string
	curves                          string
	dhparam                         string
	cache                           sessionCache
	timeout                         time.Duration
	tickets                         bool
	ticketKeys                      List[ticketKey]
	bufferSize                      int64
	rejectHandshake                 bool
	Verify                          int // one of the verify constants
	verifyDepth                     int
	clientCA                        string
	trusted                         string
	crl                             string
	alpn                            List[string]  // of sessions; servers of HTTP have their own
	handshakeTimeout                time.Duration // of sessions

	server *tlsServer // made of all this; nil without certificates
}

// The words of ssl_verify_client, by index.
const (
	verifyOff = iota
	verifyOn
	verifyOptional
	verifyOptionalNoCA
)

// Bits of protocols. Versions before TLS 1.0 are in no library any more.
const (
	protocolTLS10 = 1 << (iota + 2)
	protocolTLS11
	protocolTLS12
	protocolTLS13
	protocolsServed = protocolTLS10 | protocolTLS11 | protocolTLS12 | protocolTLS13
)

func sslModule() Module {
	return Module{
		Name: "ngx_http_ssl_module", Stream: "ngx_stream_ssl_module",
		Commands: sslCommands(), Variables: sslVariables(), StreamVariables: sessionTLSVariables(),
		Init: func(c *Conf) {
			c.SSL = sslConf{
				protocols: protocolTLS12 | protocolTLS13, ciphers: defaultCiphers, curves: "auto",
				timeout: 300 * time.Second, tickets: true, bufferSize: 16 << 10, verifyDepth: 1, handshakeTimeout: time.Minute,
			}
		},
		Finish: finishSSL,
	}
}

// inTLSLevels is where most directives about TLS towards clients may stand.
const inTLSLevels = InHTTP | InServer | inStreamLevels

func sslCommands() []Command {
	const in = inTLSLevels
	text := func(f func(s *sslConf) *string) func(*Conf) *string {
		return func(c *Conf) *string { return f(&c.SSL) }
	}
	flag := func(f func(s *sslConf) *bool) func(*Conf) *bool {
		return func(c *Conf) *bool { return f(&c.SSL) }
	}
	rows := []Command{
		{
			Name: "ssl_certificate", In: in, Args: "1", Repeat: true, Syntax: "file", Differs: "a name that a variable makes leave its folder is not opened", DiffersIn: hasVariable, Doc: "Sets the certificate of the server; once for each type of key.",
			Set: setCertificate(func(s *sslConf) *List[string] { return &s.certificates }),
		},
		{
			Name: "ssl_certificate_key", In: in, Args: "1", Repeat: true, Syntax: "file", Differs: "a name that a variable makes leave its folder is not opened", DiffersIn: hasVariable, Doc: "Sets the key of the certificate.",
			Set: setCertificate(func(s *sslConf) *List[string] { return &s.keys }),
		},
		{Name: "ssl_password_file", In: in, Args: "1", Syntax: "file", Doc: "Sets the file with the passphrases of keys.", Set: setPasswordFile(text(func(s *sslConf) *string { return &s.passwordFile }))},
		{Name: "ssl_protocols", In: in, Args: "1+", Repeat: true, Syntax: "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]", Default: "TLSv1.2 TLSv1.3", Differs: "SSL itself is in no library any more", DiffersIn: hasWord("SSLv2", "SSLv3"), Doc: "Sets the versions of TLS.", Set: setProtocols},
		Text(Command{Name: "ssl_ciphers", In: in, Syntax: "ciphers", Default: defaultCiphers, Differs: "of the ciphers named, those count that Go's TLS library has and that run in constant time: ECDHE and RSA with GCM, ChaCha20 or CBC with SHA-1", DiffersIn: namesOtherCiphers, Doc: "Sets the ciphers of TLS 1.2 and before, as OpenSSL names them."}, text(func(s *sslConf) *string { return &s.ciphers })),
		Text(Command{Name: "ssl_ecdh_curve", In: in, Syntax: "curve", Default: "auto", Differs: "of the groups named, those count that Go's TLS library has; in TLS 1.3 their order is the library's where the client has guessed none of them", DiffersIn: namesOtherGroups, Doc: "Sets the groups for the exchange of keys."}, text(func(s *sslConf) *string { return &s.curves })),
		{Name: "ssl_session_cache", In: in, Args: "1,2", Repeat: true, Syntax: "off | none | [builtin[:size]] [shared:name:size]", Default: "none", Doc: "Sets where sessions are kept.", Set: setSessionCache},
		Seconds(Command{Name: "ssl_session_timeout", In: in, Default: "5m", Doc: "Sets how long a session may be resumed."}, func(c *Conf) *time.Duration { return &c.SSL.timeout }),
		Flag(Command{Name: "ssl_session_tickets", In: in, Default: "on", Doc: "Lets clients keep their sessions, encrypted."}, flag(func(s *sslConf) *bool { return &s.tickets })),
		{Name: "ssl_session_ticket_key", In: in, Args: "1", Repeat: true, Syntax: "file", Doc: "Sets the keys that sessions kept by clients are encrypted with.", Set: setTicketKey},
		Flag(Command{Name: "ssl_reject_handshake", In: in, Default: "off", Doc: "Refuses handshakes for the server."}, flag(func(s *sslConf) *bool { return &s.rejectHandshake })),
		Enum(Command{Name: "ssl_verify_client", In: in, Default: "off", Differs: "the certificate of a resumed session is verified again: what has been revoked or has expired since is refused", DiffersIn: hasWord("on", "optional"), Doc: "Asks clients for a certificate."}, []string{"off", "on", "optional", "optional_no_ca"}, func(c *Conf) *int { return &c.SSL.Verify }),
		Number(Command{Name: "ssl_verify_depth", In: in, Default: "1", Doc: "Sets how long a client's chain of certificates may be."}, func(c *Conf) *int { return &c.SSL.verifyDepth }),
		Text(Command{Name: "ssl_client_certificate", In: in, Syntax: "file", Doc: "Sets the authorities of client certificates, whose names clients are told."}, text(func(s *sslConf) *string { return &s.clientCA })),
		Text(Command{Name: "ssl_trusted_certificate", In: in, Syntax: "file", Doc: "Sets the authorities of client certificates, whose names clients are not told."}, text(func(s *sslConf) *string { return &s.trusted })),
		Text(Command{Name: "ssl_crl", In: in, Syntax: "file", Doc: "Sets the lists of revoked client certificates."}, text(func(s *sslConf) *string { return &s.crl })),
		{
			Name: "ssl_certificate_cache", In: in, Args: "1-3", Syntax: "off | max=N [inactive=time] [valid=time]", Default: "off", Doc: "Keeps certificates whose names hold variables.",
			Set: setCertificateCache(func(c *Conf) **certCache { return &c.SSL.certificateCache }),
		},
		{
			Name: "ssl_conf_command", In: in, Args: "2", Repeat: true, Syntax: "name value", Doc: "Runs a configuration command of OpenSSL.",
			Set: setConfCommand(func(c *Conf) **tlsCommands { return &c.SSL.commands }),
		},
		Flag(Command{Name: "ssl_prefer_server_ciphers", In: in, Default: "off", Doc: "Takes ciphers of TLS 1.2 and before in the server's order, not the client's."}, flag(func(s *sslConf) *bool { return &s.serverChooses })),
		Size(Command{Name: "ssl_buffer_size", In: InHTTP | InServer, Default: "16k", Doc: "Sets how much is sent in one record."}, func(c *Conf) *int64 { return &c.SSL.bufferSize }),
	}
	return slices.Concat(rows, stapleCommands(), ocspCommands(), sslIgnored())
}

func stapleCommands() []Command {
	const in = inTLSLevels
	text := func(f func(s *sslConf) *string) func(*Conf) *string {
		return func(c *Conf) *string { return f(&c.SSL) }
	}
	return []Command{
		Flag(Command{Name: "ssl_stapling", In: in, Default: "off", Doc: "Proves to clients that the certificate has not been revoked."}, func(c *Conf) *bool { return &c.SSL.stapling }),
		Text(Command{Name: "ssl_stapling_file", In: in, Syntax: "file", Doc: "Sets the file with the proof."}, text(func(s *sslConf) *string { return &s.staplingFile })),
		Text(Command{Name: "ssl_stapling_responder", In: in, Syntax: "url", Doc: "Sets who is asked for the proof, instead of whom the certificate names."}, text(func(s *sslConf) *string { return &s.staplingResponder })),
		Flag(Command{Name: "ssl_stapling_verify", In: in, Default: "off", Doc: "Verifies who made the proof."}, func(c *Conf) *bool { return &c.SSL.staplingVerify }),
	}
}

// sslIgnored are the directives that need do nothing here.
func sslIgnored() []Command {
	const in = inTLSLevels
	return []Command{
		Text(Command{
			Name: "ssl_dhparam", In: in, Syntax: "file", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "no cipher with finite field Diffie-Hellman is served; clients use elliptic curves",
		}, func(c *Conf) *string { return &c.SSL.dhparam }),
		Flag(Command{
			Name: "ssl_early_data", In: InHTTP | InServer, Default: "off", Doc: "Accepts early data over QUIC.",
			Differs: "over TCP no early data is accepted, as Go's TLS library has none there: clients send it again after the handshake",
		}, func(c *Conf) *bool { return &c.SSL.earlyData }),
		Strings(Command{
			Name: "ssl_ech_file", In: in, Syntax: "file", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "names in handshakes are not decrypted; clients send them in the clear then, as with nginx where OpenSSL lacks it",
		}, func(c *Conf) *List[string] { return &c.SSL.echFiles }),
		Flag(Command{
			Name: "ssl_certificate_compression", In: in, Default: "off", Doc: "Accepted without effect.", Status: NoEffect,
			Reason: "Go's TLS library does not compress certificates; clients do without, as with nginx where OpenSSL lacks it",
		}, func(c *Conf) *bool { return &c.SSL.compression }),
	}
}

// setProtocols adds to what the level has said before.
func setProtocols(l *Level, d *parser.Directive) error {
	names := []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
	s := &l.Conf.SSL
	if s.protocolsOf != l {
		s.protocols, s.protocolsOf = 0, l
	}
	for _, a := range d.Args {
		i, err := parseWord(a, names)
		if err != nil {
			return err
		}
		if s.protocols&(1<<i) != 0 {
			l.warnAt(d, a, "duplicate value %q", a.Value)
		}
		s.protocols |= 1 << i
	}
	return nil
}

// setCertificate adds a file name, or the certificate or key itself.
func setCertificate(field func(*sslConf) *List[string]) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		name := d.Args[0].Value
		for _, kind := range []string{"engine:", "store:"} {
			if strings.HasPrefix(name, kind) {
				return sayAt(d.Args[0], "U001", "keys are read from files", "%q in %q is not supported by proxyctl", kind, d.Name.Value)
			}
		}
		field(&l.Conf.SSL).Add(l, name)
		return nil
	}
}

// setSessionCache reads off, none, builtin and shared
// (ngx_http_ssl_session_cache).
func setSessionCache(l *Level, d *parser.Directive) error {
	cache := &l.Conf.SSL.cache
	said := false
	for _, a := range d.Args {
		name, rest, sized := strings.Cut(a.Value, ":")
		invalid := sayAt(a, "", "off, none, builtin:SIZE, shared:NAME:SIZE", "invalid session cache %q", a.Value)
		switch {
		case a.Value == "off":
			cache.kind, said = cacheOff, true
		case a.Value == "none":
			cache.kind, said = cacheNone, true
		case name == "builtin":
			cache.builtin = defaultBuiltin
			if n, ok := parseNumber(rest); sized {
				if !ok {
					return invalid
				}
				cache.builtin = n
			}
			cache.kind, said = cacheOn, true
		case name == "shared" && rest != "":
			if err := cache.share(l, a, rest, invalid); err != nil {
				return err
			}
		default:
			return invalid
		}
	}
	if cache.zone != "" && !said {
		cache.kind = cacheOn
	}
	return nil
}

// leastZone is eight pages, what nginx asks of shared memory.
const leastZone = 8 * 4096

// share reads NAME:SIZE.
func (s *sessionCache) share(l *Level, a parser.Arg, text string, invalid error) error {
	name, size, found := strings.Cut(text, ":")
	n, ok := parseSize(size)
	if name == "" || !found || !ok {
		return invalid
	}
	if n < leastZone {
		return sayAt(a, "", "at least 32k", "session cache %q is too small", a.Value)
	}
	if err := l.sharedZone(a, name, n, l.c.names.use("session cache")); err != nil {
		return err
	}
	s.zone, s.size = name, n
	return nil
}

// setTicketKey reads a key file. nginx reads it when it merges levels.
func setTicketKey(l *Level, d *parser.Directive) error {
	name := l.c.opts.confRelative(d.Args[0].Value)
	k, err := readTicketKey(name)
	if err != nil {
		return err
	}
	l.Conf.SSL.ticketKeys.Add(l, k)
	return nil
}
