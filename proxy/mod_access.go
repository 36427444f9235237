package proxy

import (
	"net/netip"
	"strings"

	"proxyctl/parser"
)

// ngx_http_access_module: allow and deny by the client's address. The first
// rule that matches decides.

func accessModule() Module {
	const in = inHTTPLevels | InLimitExcept
	return Module{
		Name: "ngx_http_access_module",
		Commands: []Command{
			{Name: "allow", In: in, Args: "1", Repeat: true, Syntax: "address | CIDR | unix: | all", Doc: "Allows access from a network.", Set: setAccess},
			{Name: "deny", In: in, Args: "1", Repeat: true, Syntax: "address | CIDR | unix: | all", Doc: "Denies access from a network.", Set: setAccess},
		},
		Phase: Access,
		Handler: func(c *Conf) Handler {
			if len(c.Access.Rules.Items) == 0 {
				return nil
			}
			return c.Access.handle
		},
	}
}

// accessConf is what the module knows at a level.
type accessConf struct {
	Rules List[accessRule]
}

// accessRule is one allow or deny.
type accessRule struct {
	deny bool
	all  bool
	unix bool
	net  netip.Prefix
}

func setAccess(l *Level, d *parser.Directive) error {
	a := d.Args[0]
	r := accessRule{deny: d.Name.Value == "deny"}
	switch a.Value {
	case "all":
		r.all = true
	case "unix:":
		r.unix = true
	default:
		p, exact, ok := parseCIDR(a.Value)
		if !ok {
			return sayAt(a, "", "an address, address/bits, unix: or all", "invalid parameter \"%s\"", a.Value)
		}
		if !exact {
			l.warnAt(d, a, "low address bits of %s are meaningless", a.Value)
		}
		r.net = p
	}
	l.Conf.Access.Rules.Add(l, r)
	return nil
}

// handle runs in the access phase.
func (c *accessConf) handle(x *Exchange) Code {
	addr := x.RemoteAddr()
	for i := range c.Rules.Items {
		if c.Rules.Items[i].matches(addr) {
			return x.accessRuled(c.Rules.Items[i].deny)
		}
	}
	if !addr.Is4() || !x.overIPv6() || c.ruleIPv4() {
		return Declined
	}
	// A client by IPv4 on an IPv6 socket is held against the IPv6 rules when
	// there are none for IPv4 (ngx_http_access_handler).
	addr = netip.AddrFrom16(addr.As16())
	for i := range c.Rules.Items {
		if c.Rules.Items[i].net.Contains(addr) {
			return x.accessRuled(c.Rules.Items[i].deny)
		}
	}
	return Declined
}

// matches holds an address against a rule; an invalid one is that of a unix
// socket.
func (r *accessRule) matches(addr netip.Addr) bool {
	switch {
	case r.all:
		return true
	case r.unix:
		return !addr.IsValid()
	}
	return r.net.Contains(addr.Unmap())
}

func (c *accessConf) ruleIPv4() bool {
	for i := range c.Rules.Items {
		if r := &c.Rules.Items[i]; r.all || r.net.Addr().Is4() {
			return true
		}
	}
	return false
}

func (x *Exchange) accessRuled(deny bool) Code {
	if !deny {
		return OK
	}
	if x.loc.Conf.Core.Satisfy == satisfyAll {
		x.Logf(logError, "access forbidden by rule")
	}
	return 403
}

// overIPv6 says whether the client came in by a socket of IPv6.
func (x *Exchange) overIPv6() bool {
	s := x.client.socket
	return s != nil && s.first != nil && s.first.network == "tcp6"
}

// parseCIDR reads an address or address/bits; exact is false when bits beyond
// the mask are set, which are dropped (ngx_ptocidr).
func parseCIDR(s string) (p netip.Prefix, exact, ok bool) {
	text, mask, masked := strings.Cut(s, "/")
	addr, ok := parseIP([]byte(text))
	if !ok {
		return p, false, false
	}
	bits := addr.BitLen()
	if masked {
		if bits, ok = parseNumber(mask); !ok || bits > addr.BitLen() {
			return p, false, false
		}
	}
	p = netip.PrefixFrom(addr, bits).Masked()
	return p, p.Addr() == addr, true
}

// parseIP reads an IPv4 or IPv6 address without zone. It allocates for IPv6
// only.
func parseIP(s []byte) (netip.Addr, bool) {
	if a, ok := parseIPv4(s); ok {
		return a, true
	}
	a, err := netip.ParseAddr(string(s))
	if err != nil || !a.Is6() || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, true
}

// parseIPv4 reads four decimal numbers; leading zeros are no octal numbers, as
// in ngx_inet_addr.
func parseIPv4(s []byte) (netip.Addr, bool) {
	var octets [4]byte
	n, value, digits := 0, 0, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if digits == 0 || n == len(octets) {
				return netip.Addr{}, false
			}
			octets[n] = byte(value)
			n, value, digits = n+1, 0, 0
			continue
		}
		c := s[i] - '0'
		if c > 9 {
			return netip.Addr{}, false
		}
		if value = value*10 + int(c); value > 255 {
			return netip.Addr{}, false
		}
		digits++
	}
	return netip.AddrFrom4(octets), n == len(octets)
}
