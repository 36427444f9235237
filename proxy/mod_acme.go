package proxy

import (
	"encoding/base64"
	"net/netip"
	"os"
	"slices"
	"strings"

	"proxyctl/parser"
)

// ngx_http_acme_module: certificates that an ACME authority issues. Here it is
// said what is wanted; it is obtained and shown through Options.Certificate and
// its like.

// ACMEIssuer is an acme_issuer block.
type ACMEIssuer struct {
	Name         string
	Directory    string   // URL
	AccountKey   string   // file, or algorithm and size of a key to be made; "" for the usual
	Challenge    string   // "http-01" or "tls-alpn-01"; "" for the usual
	Contacts     []string // URLs
	EABKeyID     string
	EABKeyFile   string // file, or "data:" and the key
	Chain        string // name of the preferred issuer
	Profile      string
	NeedsProfile bool // no other will do
	TrustedFile  string
	Unverified   bool   // ssl_verify off
	StatePath    string // "" for the usual
	Agreed       bool   // to the terms of service

	place parser.Range
}

// ACMEOrder is what acme_certificate asks for.
type ACMEOrder struct {
	Issuer *ACMEIssuer
	Names  []string
	Key    string // algorithm and size; "" for the usual
}

// acmeConf is what the module knows at a level.
type acmeConf struct {
	issuer string // "" without acme_certificate
	names  []string
	key    string
	place  parser.Arg
}

func acmeModule() Module {
	const in = InACMEIssuer
	text := func(c Command, set func(i *ACMEIssuer, v string) error) Command {
		c.In = in
		if c.Args == "" {
			c.Args = "1"
		}
		c.Set = func(l *Level, d *parser.Directive) error {
			if d.Args[0].Value == "" {
				return say("invalid value")
			}
			return set(l.Issuer, d.Args[0].Value)
		}
		return c
	}
	commands := []Command{
		{Name: "acme_issuer", In: InHTTP, Args: "1", Block: true, Repeat: true, Syntax: "name { ... }", Doc: "Defines an authority that certificates are obtained from.", Set: setACMEIssuer},
		{Name: "acme_shared_zone", In: InHTTP, Args: "1", Syntax: "zone=name:size", Default: "zone=ngx_acme_shared:256k", Doc: "Accepted without effect.", Status: NoEffect, Reason: "one process needs no shared memory", Set: setACMEZone},
		{Name: "acme_certificate", In: InServer, Args: "1+", Syntax: "issuer [identifier ...] [key=alg[:size]]", Doc: "Has a certificate obtained for the server.", Set: setACMECertificate},
		text(Command{Name: "uri", Syntax: "uri", Doc: "Sets the directory URL of the authority."}, func(i *ACMEIssuer, v string) error {
			i.Directory = v
			return nil
		}),
		text(Command{Name: "challenge", Syntax: "http-01 | tls-alpn-01", Doc: "Sets how names are proved; by default whatever works."}, func(i *ACMEIssuer, v string) error {
			switch v {
			case "http", "http-01":
				i.Challenge = "http-01"
			case "tls-alpn", "tls-alpn-01":
				i.Challenge = "tls-alpn-01"
			default:
				return say("unsupported challenge: %s", v)
			}
			return nil
		}),
		text(Command{Name: "contact", Repeat: true, Syntax: "url", Doc: "Sets how the authority reaches the owner of the account."}, func(i *ACMEIssuer, v string) error {
			i.Contacts = append(i.Contacts, v)
			return nil
		}),
		text(Command{Name: "preferred_chain", Syntax: "name", Doc: "Prefers a chain with an issuer of that name."}, func(i *ACMEIssuer, v string) error {
			i.Chain = v
			return nil
		}),
		{Name: "account_key", In: in, Args: "1", Syntax: "alg[:size] | file", Doc: "Sets the key of the account.", Set: setACMEAccountKey},
		{Name: "external_account_key", In: in, Args: "2", Syntax: "kid file", Doc: "Binds the account to one that the authority knows.", Set: setACMEExternalAccount},
		{Name: "profile", In: in, Args: "1,2", Syntax: "name [require]", Doc: "Asks for a kind of certificate.", Set: setACMEProfile},
		{Name: "ssl_trusted_certificate", In: in, Args: "1", Syntax: "file", Doc: "Sets what the authority's own server is trusted by.", Set: func(l *Level, d *parser.Directive) error {
			l.Issuer.TrustedFile = l.c.opts.confRelative(d.Args[0].Value)
			return nil
		}},
		{Name: "ssl_verify", In: in, Args: "flag", Syntax: "on | off", Default: "on", Doc: "Verifies the authority's own server.", Set: func(l *Level, d *parser.Directive) error {
			on, err := parseFlag(d)
			l.Issuer.Unverified = !on
			return err
		}},
		{Name: "state_path", In: in, Args: "1", Syntax: "path", Doc: "Sets the folder of the account and the certificates; by default below the program's data folder.", Set: setACMEStatePath},
		{Name: "accept_terms_of_service", In: in, Args: "0", Doc: "Agrees to the authority's terms of service.", Set: func(l *Level, _ *parser.Directive) error {
			l.Issuer.Agreed = true
			return nil
		}},
	}
	return Module{Name: "ngx_http_acme_module", Commands: commands, Finish: func(l *Level) error {
		if l.Context == InHTTP {
			l.AtFinish(l.c.finishACME)
		}
		return nil
	}}
}

// setACMEIssuer opens a block. Its body is read at once.
func setACMEIssuer(l *Level, d *parser.Directive) error {
	i := &ACMEIssuer{Name: d.Args[0].Value, place: d.Name.Range}
	if l.c.table.issuers[i.Name] != nil {
		return say("\"acme_issuer\" directive is duplicate")
	}
	in := l.c.level(InACMEIssuer, l, l.Conf)
	in.Issuer = i
	before := l.c.errors
	l.c.body(in, d.Block)
	if l.c.errors == before && hostInURL(i.Directory) == "" {
		return sayAt(d.Args[0], "", "for example uri https://acme-v02.api.letsencrypt.org/directory;", "acme_issuer: \"uri\" is missing")
	}
	if l.c.errors == before && !strings.HasPrefix(i.Directory, "https://") {
		return sayAt(d.Args[0], "U001", "RFC 8555 allows HTTPS only", "acme_issuer: \"uri\" %q is not https", i.Directory)
	}
	l.c.table.issuers[i.Name] = i
	return nil
}

func hostInURL(text string) string {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func setACMEAccountKey(l *Level, d *parser.Directive) error {
	v := d.Args[0].Value
	if v == "" {
		return say("invalid value")
	}
	if algorithm, _, _ := strings.Cut(v, ":"); algorithm != "ecdsa" && algorithm != "rsa" {
		v = l.c.opts.confRelative(v)
		if _, err := os.Stat(v); err != nil {
			return say("acme_issuer: cannot load account key: %v", SystemError("open()", v, err))
		}
	} else if !isACMEKey(v) {
		return say("account_key: unsupported key %q", v)
	}
	l.Issuer.AccountKey = v
	return nil
}

// isACMEKey says whether a kind of key can be made.
func isACMEKey(v string) bool {
	return slices.Contains([]string{"ecdsa", "ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa", "rsa:2048", "rsa:3072", "rsa:4096"}, v)
}

func setACMEExternalAccount(l *Level, d *parser.Directive) error {
	id, file := d.Args[0].Value, d.Args[1].Value
	if id == "" || file == "" {
		return say("invalid value")
	}
	key, inline := strings.CutPrefix(file, "data:")
	if !inline {
		file = l.c.opts.confRelative(file)
		text, err := os.ReadFile(file)
		if err != nil {
			return say("external_account_key: %v", SystemError("open()", file, err))
		}
		key = string(text)
	}
	if _, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(key), "=")); err != nil {
		return say("\"external_account_key\" directive invalid base64url encoded value")
	}
	l.Issuer.EABKeyID, l.Issuer.EABKeyFile = id, file
	return nil
}

func setACMEProfile(l *Level, d *parser.Directive) error {
	l.Issuer.Profile = d.Args[0].Value
	if len(d.Args) > 1 {
		if d.Args[1].Value != "require" {
			return sayAt(d.Args[1], "", "require", "\"profile\" directive invalid value")
		}
		l.Issuer.NeedsProfile = true
	}
	return nil
}

// setACMEStatePath sets the folder.
//
// Unlike nginx, off is refused: an account that is forgotten with every start
// burns the authority's limits.
func setACMEStatePath(l *Level, d *parser.Directive) error {
	if d.Args[0].Value == "off" {
		return sayAt(d.Args[0], "U001", "name a folder", "\"state_path off\" is not supported by proxyctl")
	}
	l.Issuer.StatePath = l.c.opts.prefixed(d.Args[0].Value)
	return nil
}

func setACMEZone(_ *Level, d *parser.Directive) error {
	zone, ok := strings.CutPrefix(d.Args[0].Value, "zone=")
	if !ok {
		return say("\"acme_shared_zone\" must have \"zone\" parameter")
	}
	name, size, found := strings.Cut(zone, ":")
	n, valid := parseSize(size)
	switch {
	case !found || !valid:
		return say("acme_shared_zone: invalid zone size %q", zone)
	case n < leastZone:
		return say("acme_shared_zone: zone %s is too small", name)
	}
	return nil
}

func setACMECertificate(l *Level, d *parser.Directive) error {
	a := acmeConf{issuer: d.Args[0].Value, place: d.Args[0]}
	if a.issuer == "" {
		return say("\"acme_certificate\" directive \"issuer\" is missing")
	}
	for _, arg := range d.Args[1:] {
		if key, ok := strings.CutPrefix(arg.Value, "key="); ok {
			if !isACMEKey(key) {
				return sayAt(arg, "", "ecdsa:256, ecdsa:384, ecdsa:521, rsa:2048, rsa:3072 or rsa:4096", "acme_certificate: unsupported key %q", key)
			}
			a.key = key
			continue
		}
		names, err := acmeNames(arg)
		if err != nil {
			return err
		}
		a.names = append(a.names, names...)
	}
	l.Conf.ACME = a
	return nil
}

// acmeNames makes identifiers of a name: ".example.com" stands for two.
func acmeNames(arg parser.Arg) ([]string, error) {
	name := lower(arg.Value)
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return []string{a.String()}, nil
	}
	base, both := strings.CutPrefix(name, ".")
	for label := range strings.SplitSeq(strings.TrimPrefix(base, "*."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return nil, sayAt(arg, "", "", "acme_certificate: invalid server name: %q", arg.Value)
		}
	}
	if both {
		return []string{"www." + base, base}, nil
	}
	return []string{name}, nil
}

// finishACME finds the issuers and takes the names from server_name where none
// were given.
func (c *compiler) finishACME() {
	for _, s := range c.table.Servers {
		a := &s.Level.Conf.ACME
		if a.issuer == "" {
			continue
		}
		order := &ACMEOrder{Issuer: c.table.issuers[a.issuer], Names: a.names, Key: a.key}
		fail := func(at parser.Range, format string, args ...any) {
			c.failLater(parser.Error, at, parser.Range{}, "", "", format, args...)
		}
		if len(order.Names) == 0 {
			for _, n := range s.Names {
				if n.regex != nil {
					c.failLater(parser.Warning, n.arg.Range, parser.Range{}, "", "", "\"acme_certificate\": unsupported regular expression in server_name: %s", n.text)
					continue
				}
				if n.text == "" {
					continue
				}
				names, err := acmeNames(n.arg)
				if err != nil {
					fail(n.arg.Range, "\"acme_certificate\": invalid server name: %q", n.text)
					return
				}
				order.Names = append(order.Names, names...)
			}
		}
		switch {
		case len(order.Names) == 0:
			fail(a.place.Range, "\"acme_certificate\": no identifiers found in \"server_name\"")
			return
		case order.Issuer == nil:
			fail(a.place.Range, "issuer %q is missing", a.issuer)
			return
		}
		s.acme = order
	}
}
