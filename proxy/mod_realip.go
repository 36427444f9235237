package proxy

import (
	"bytes"
	"net"
	"net/netip"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_realip_module: takes the client's address from a field that a
// trusted proxy has set.

func realipModule() Module {
	return Module{
		Name: "ngx_http_realip_module", Stream: "ngx_stream_realip_module",
		Commands: []Command{
			{
				Name: "set_real_ip_from", In: inHTTPLevels | inStreamLevels, Args: "1", Repeat: true, Syntax: "address | CIDR | unix:",
				Doc: "Sets the proxies that are believed.", Set: setRealIPFrom,
			},
			{
				Name: "real_ip_header", In: inHTTPLevels, Args: "1", Syntax: "field | X-Real-IP | X-Forwarded-For | proxy_protocol",
				Default: "X-Real-IP", Doc: "Sets the field that holds the client's address.", Set: setRealIPHeader,
			},
			Flag(Command{Name: "real_ip_recursive", In: inHTTPLevels, Default: "off", Doc: "Looks past addresses of trusted proxies."},
				func(c *Conf) *bool { return &c.RealIP.Recursive }),
		},
		Variables: realipVariables(), StreamVariables: realipVariables(),
		Init: func(c *Conf) {
			if c.Stream.is { // there the PROXY protocol is the only one to tell
				c.RealIP.Header.kind = realipProxyProtocol
			}
		},
		Phase:   PostRead,
		Handler: realipHandler,
	}
}

func realipVariables() []Variable {
	return []Variable{
		always("realip_remote_addr", func(dst []byte, x *Exchange) []byte { return append(dst, x.client.address()...) }),
		always("realip_remote_port", func(dst []byte, x *Exchange) []byte { return appendPort(dst, x.client.remote.Port()) }),
	}
}

// realipLateModule is the module's second turn: for what only a location says.
func realipLateModule() Module {
	return Module{Name: "ngx_http_realip_module", Phase: PreAccess, Handler: realipHandler}
}

func realipHandler(c *Conf) Handler {
	if len(c.RealIP.From.Items) == 0 {
		return nil
	}
	return c.RealIP.handle
}

// realipConf is what the module knows at a level.
type realipConf struct {
	From      List[trustedProxy]
	Header    realipHeader
	Recursive bool
}

// trustedProxy is one set_real_ip_from; without a network it stands for all
// clients of unix sockets.
type trustedProxy struct {
	net netip.Prefix
}

// realipHeader says where the address is. The zero value is X-Real-IP.
type realipHeader struct {
	kind realipKind
	name []byte // of any other field
}

type realipKind uint8

const (
	realipXRealIP realipKind = iota
	realipForwardedFor
	realipProxyProtocol
	realipField
)

func setRealIPFrom(l *Level, d *parser.Directive) error {
	a := d.Args[0]
	from := &l.Conf.RealIP.From
	if a.Value == "unix:" {
		from.Add(l, trustedProxy{})
		return nil
	}
	if p, exact, ok := parseCIDR(a.Value); ok {
		if !exact {
			l.warnAt(d, a, "low address bits of %s are meaningless", a.Value)
		}
		from.Add(l, trustedProxy{p})
		return nil
	}
	var ips []net.IP
	if !l.c.opts.Offline {
		var err error
		if ips, err = net.LookupIP(a.Value); err != nil || len(ips) == 0 {
			return sayAt(a, "", "an address, address/bits, unix: or a host name", "host not found in set_real_ip_from \"%s\"", a.Value)
		}
	}
	for _, ip := range ips {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addr = addr.Unmap()
			from.Add(l, trustedProxy{netip.PrefixFrom(addr, addr.BitLen())})
		}
	}
	return nil
}

func setRealIPHeader(l *Level, d *parser.Directive) error {
	h := &l.Conf.RealIP.Header
	switch name := d.Args[0].Value; name {
	case "X-Real-IP":
		h.kind = realipXRealIP
	case "X-Forwarded-For":
		h.kind = realipForwardedFor
	case "proxy_protocol":
		h.kind = realipProxyProtocol
	default:
		h.kind, h.name = realipField, []byte(lower(name))
	}
	return nil
}

// handle replaces the client's address for this request, once
// (ngx_http_realip_handler).
func (c *realipConf) handle(x *Exchange) Code {
	if x.realip.IsValid() {
		return Declined
	}
	s := realipSearch{conf: c, addr: netip.AddrPortFrom(x.client.remote.Addr(), x.client.remote.Port())}
	switch c.Header.kind {
	case realipForwardedFor:
		s.forwarded(x)
	case realipXRealIP:
		if v, ok := x.Header(http1.XRealIP); ok {
			s.field(v)
		}
	case realipField:
		for i := range x.Req.Fields {
			if f := &x.Req.Fields[i]; bytes.EqualFold(f.Name, c.Header.name) {
				s.field(f.Value)
				break
			}
		}
	case realipProxyProtocol:
		if f := x.client.forwarded; f != nil && c.trusts(s.addr.Addr()) {
			s.addr, s.found = f.from, true
		}
	}
	if s.found {
		x.realip = s.addr
	}
	return Declined
}

// realipSearch walks from the connection's address towards the client as long
// as the addresses on the way are trusted.
type realipSearch struct {
	conf  *realipConf
	addr  netip.AddrPort
	found bool
}

// forwarded reads all X-Forwarded-For fields, the last first
// (ngx_http_get_forwarded_addr).
func (s *realipSearch) forwarded(x *Exchange) {
	for i := len(x.Req.Fields) - 1; i >= 0; i-- {
		f := &x.Req.Fields[i]
		if f.ID == http1.XForwardedFor && (!s.field(f.Value) || !s.conf.Recursive) {
			return
		}
	}
}

// field reads a list of addresses, the last first. It says whether all of it
// was trusted and the search can go on (ngx_http_get_forwarded_addr_internal).
func (s *realipSearch) field(list []byte) bool {
	for {
		if !s.conf.trusts(s.addr.Addr()) {
			return false
		}
		list = bytes.TrimRight(list, " ,")
		start := bytes.LastIndexAny(list, " ,") + 1
		addr, ok := parseAddrPort(list[start:])
		if !ok {
			return false
		}
		s.addr, s.found = addr, true
		list = list[:start]
		if !s.conf.Recursive || start == 0 {
			return true
		}
	}
}

func (c *realipConf) trusts(addr netip.Addr) bool {
	for i := range c.From.Items {
		p := c.From.Items[i].net
		if !p.IsValid() && !addr.IsValid() || p.IsValid() && p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}
