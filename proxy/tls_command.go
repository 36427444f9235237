package proxy

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
)

// ssl_conf_command and its like: OpenSSL's own configuration commands
// (SSL_CONF_cmd). Those are done that Go's TLS library can do; others are refused
// by name.

// tlsCommands are the commands of a level.
type tlsCommands struct {
	level *Level
	items []tlsCommand
}

type tlsCommand struct {
	name, value string
	place       parser.Arg
}

func setConfCommand(field func(*Conf) **tlsCommands) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		p := field(l.Conf)
		if *p == nil || (*p).level != l {
			*p = &tlsCommands{level: l}
		}
		(*p).items = append((*p).items, tlsCommand{d.Args[0].Value, d.Args[1].Value, d.Args[0]})
		return nil
	}
}

// tlsSettings is what commands change.
type tlsSettings struct {
	versions        uint32
	ciphers, curves string
	tickets         bool
	serverChooses   bool
	pair            CertPair // in place of one of its type of key
	opts            *Options
}

// apply runs the commands. The error is nginx's, without a place.
func (c *tlsCommands) apply(s *tlsSettings) error {
	if c == nil {
		return nil
	}
	for i := range c.items {
		if err := c.items[i].apply(s); err != nil {
			return err
		}
	}
	return nil
}

func (c *tlsCommand) apply(s *tlsSettings) error {
	ok := true
	switch strings.ToLower(c.name) {
	case "minprotocol", "maxprotocol":
		ok = s.limit(strings.ToLower(c.name) == "minprotocol", c.value)
	case "protocol":
		ok = s.protocols(c.value)
	case "cipherstring":
		if _, err := cipherList(c.value); err != nil {
			return fmt.Errorf("SSL_CONF_cmd(%q, %q) failed (%w error:0A000180:SSL routines::bad value:cmd=%s, value=%s)", c.name, c.value, err, c.name, c.value)
		}
		s.ciphers = c.value
	case "ciphersuites":
		return c.suites()
	case "curves", "groups":
		s.curves = c.value
	case "certificate":
		s.pair.Certificate = s.opts.certificateFile(c.value)
	case "privatekey":
		s.pair.Key = s.opts.certificateFile(c.value)
	case "options":
		for word := range strings.SplitSeq(c.value, ",") {
			if err := c.option(s, strings.TrimSpace(word)); err != nil {
				return err
			}
		}
	case "ecdhparameters":
		if !strings.EqualFold(c.value, "auto") && !strings.EqualFold(c.value, "automatic") {
			s.curves = c.value
		}
	case "dhparameters":
		// no cipher needs them
	case "signaturealgorithms", "clientsignaturealgorithms", "recordpadding", "numtickets", "serverinfofile", "verifymode", "chaincapath", "chaincafile",
		"verifycapath", "verifycafile", "requestcapath", "requestcafile", "clientcapath", "clientcafile":
		return c.unsupported(c.name)
	default:
		return fmt.Errorf("SSL_CONF_cmd(%q, %q) failed (SSL: error:0A000182:SSL routines::unknown cmd name:cmd=%s)", c.name, c.value, c.name)
	}
	if !ok {
		return c.failed()
	}
	return nil
}

func (c *tlsCommand) failed() error {
	return fmt.Errorf("SSL_CONF_cmd(%q, %q) failed (SSL: error:0A000180:SSL routines::bad value:cmd=%s, value=%s)", c.name, c.value, c.name, c.value)
}

func (c *tlsCommand) unsupported(what string) error {
	return fmt.Errorf("%q of SSL_CONF_cmd(%q, %q) is not supported by proxyctl", what, c.name, c.value)
}

// versionWords are OpenSSL's names of versions, by their bits.
func versionWords() map[string]uint32 {
	return map[string]uint32{
		"sslv3": 1 << 1, "tlsv1": protocolTLS10, "tlsv1.0": protocolTLS10, "tlsv1.1": protocolTLS11,
		"tlsv1.2": protocolTLS12, "tlsv1.3": protocolTLS13, "all": protocolsServed | 1<<1,
	}
}

// limit takes versions away: ssl_protocols has turned on what there is.
func (s *tlsSettings) limit(least bool, value string) bool {
	bit, known := versionWords()[strings.ToLower(value)]
	switch {
	case strings.EqualFold(value, "none"):
		return true
	case !known || strings.EqualFold(value, "all"):
		return false
	}
	if least {
		s.versions &^= bit - 1
	} else {
		s.versions &= bit<<1 - 1
	}
	return true
}

func (s *tlsSettings) protocols(value string) bool {
	for word := range strings.SplitSeq(value, ",") {
		word = strings.ToLower(strings.TrimSpace(word))
		name := strings.TrimLeft(word, "+-")
		bit, known := versionWords()[name]
		if !known {
			return false
		}
		if strings.HasPrefix(word, "-") {
			s.versions &^= bit
		} else {
			s.versions |= bit
		}
	}
	return true
}

// suites accepts a list of ciphers of TLS 1.3 if it has all that Go's TLS library
// serves: which of them is taken cannot be said to it.
func (c *tlsCommand) suites() error {
	names := strings.Split(c.value, ":")
	for _, s := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
		if !slices.Contains(names, s) {
			return c.unsupported("leaving out " + s)
		}
	}
	return nil
}

// option does one of Options, which a sign may turn off.
func (c *tlsCommand) option(s *tlsSettings, word string) error {
	on := !strings.HasPrefix(word, "-")
	switch name := strings.ToLower(strings.TrimLeft(word, "+-")); name {
	case "sessionticket":
		s.tickets = on
	case "serverpreference":
		s.serverChooses = on
	case "bugs", "emptyfragments", "middleboxcompat", "norenegotiation", "noresumptiononrenegotiation", "encryptthenmac",
		"extendedmastersecret", "canames", "ecdhsingle", "dhsingle", "prioritizechacha", "ktls":
		// nothing that Go's TLS library would do differently
	case "compression", "unsafelegacyrenegotiation", "unsafelegacyserverconnect", "legacyserverconnect", "allownodhekex", "preferncodhekex", "antireplay":
		if on {
			return c.unsupported(word)
		}
	default:
		return c.failed()
	}
	return nil
}

// protocolLimits gives the lowest and the highest version of a set for a client,
// whose side cannot have gaps.
func protocolLimits(set uint32) (least, most uint16) {
	least, most = protocolRange(set)
	if least == 0 {
		return tls.VersionTLS13, tls.VersionTLS12
	}
	return least, most
}
