package proxy

import (
	"net/netip"
	"strings"

	"proxyctl/parser"
)

// ngx_http_access_module: allow and deny by the client's address. The first
// rule that matches decides.

func accessModule() Module {
	const in = inHTTPLevels | InLimitExcept | inStreamLevels
	return Module{
		Name: "ngx_http_access_module", Stream: "ngx_stream_access_module",
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
	if !addr.Is4In6() && (!addr.Is4() || !x.overIPv6()) || c.ruleIPv4() {
		return Declined
	}
	// An IPv4 address that came as one of IPv6 is held against the IPv6 rules
	// when there are none for IPv4 (ngx_http_access_handler).
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
	return s != nil && s.first != nil && strings.HasSuffix(s.first.network, "6")
}
