package proxy

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"proxyctl/parser"
)

// listen: its address and its parameters (ngx_http_core_listen,
// ngx_stream_core_listen).

// setListen reads an address and its parameters.
func setListen(l *Level, d *parser.Directive) error {
	o := defaultListenOptions()
	for _, a := range d.Args[1:] {
		if err := o.parameter(l, d, a); err != nil {
			return err
		}
	}
	if problem, with := o.incompatible(); problem != "" {
		return errAt(d.Args[0], "", "leave one of them out", "\""+problem+"\" parameter is incompatible with \""+with+"\"")
	}
	text := d.Args[0].Value
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return listenError(d, "no path in the unix domain socket")
		}
		if o.udp || o.quic {
			return sayAt(d.Args[0], "U001", "listen on an IP address", "datagrams of unix sockets are not supported by proxyctl")
		}
		return l.addListen(d, "unix", netip.AddrPort{}, path, o)
	}
	port := uint16(80)
	if l.c.names.stream {
		port = 0
	}
	addrs, err := listenAddresses(d, port)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		network := o.protocol() + "4"
		if a.Addr().Is6() {
			network = o.protocol() + "6"
		}
		if err := l.addListen(d, network, a, "", o); err != nil {
			return err
		}
	}
	return nil
}

func listenError(d *parser.Directive, text string) error {
	return sayAt(d.Args[0], "", "an address, a port, or both: 127.0.0.1:8080, [::]:80, 8080, unix:/path",
		"%s in %q of the \"listen\" directive", text, d.Args[0].Value)
}

// portRange is a port, or several in a row.
type portRange struct{ first, last uint16 }

// listenAddresses reads "address", "address:port", "port" and, for a port,
// "first-last" (ngx_parse_url).
func listenAddresses(d *parser.Directive, defaultPort uint16) ([]netip.AddrPort, error) {
	text := d.Args[0].Value
	var host, port string
	hasPort, six := false, strings.HasPrefix(text, "[")
	if six {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return nil, listenError(d, "invalid host")
		}
		host = text[1:end]
		if rest := text[end+1:]; rest != "" {
			if port, hasPort = strings.CutPrefix(rest, ":"); !hasPort {
				return nil, listenError(d, "invalid host")
			}
		}
	} else {
		host, port, hasPort = strings.Cut(text, ":")
		if strings.Contains(text, "/") {
			return nil, listenError(d, "invalid host")
		}
	}
	ports := portRange{defaultPort, defaultPort}
	if !hasPort && isPorts(text) {
		host, port, hasPort = "*", text, true
	}
	if hasPort {
		var problem string
		if ports, problem = parsePorts(port); problem != "" {
			return nil, listenError(d, problem)
		}
	}
	if ports.first == 0 { // Unlike nginx, which takes any port that is free.
		return nil, listenError(d, "no port")
	}
	if six {
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return nil, listenError(d, "invalid IPv6 address")
		}
	}
	return resolveListen(d, host, ports)
}

// isPorts tells a port, or several, from a host.
func isPorts(s string) bool {
	first, last, several := strings.Cut(s, "-")
	_, ok := digits(first)
	if several && ok {
		_, ok = digits(last)
	}
	return ok
}

func parsePorts(s string) (r portRange, problem string) {
	first, last, several := strings.Cut(s, "-")
	if !several {
		last = first
	}
	from, ok := digits(first)
	to, okTo := digits(last)
	switch {
	case !ok || !okTo || from < 1 || from > 65535 || to < 1 || to > 65535:
		return r, "invalid port"
	case from > to:
		return r, "invalid port range"
	}
	return portRange{uint16(from), uint16(to)}, ""
}

// resolveListen gives every address of a host with every port.
func resolveListen(d *parser.Directive, host string, ports portRange) ([]netip.AddrPort, error) {
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a.WithZone("")}
	}
	switch {
	case host == "":
		return nil, listenError(d, "no host")
	case host == "*":
		addrs = []netip.Addr{netip.IPv4Unspecified()}
	case addrs == nil:
		ips, err := net.LookupIP(host)
		if err != nil || len(ips) == 0 {
			return nil, listenError(d, "host not found")
		}
		for _, ip := range ips {
			a, _ := netip.AddrFromSlice(ip)
			addrs = append(addrs, a.Unmap())
		}
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		for port := int(ports.first); port <= int(ports.last); port++ {
			if ap := netip.AddrPortFrom(a, uint16(port)); !slices.Contains(out, ap) {
				out = append(out, ap)
			}
		}
	}
	return out, nil
}

// parameter reads one parameter after the address.
func (o *listenOptions) parameter(l *Level, d *parser.Directive, a parser.Arg) error {
	switch a.Value {
	case "default_server":
		o.defaultServer = true
		return nil
	case "ssl":
		o.ssl = true
		return nil
	case "proxy_protocol":
		o.proxyProtocol = true
		return nil
	}
	if l.c.names.stream {
		if a.Value == "udp" {
			o.udp = true
			return nil
		}
	} else if o.httpParameter(l, d, a) {
		return nil
	}
	if strings.HasPrefix(a.Value, "accept_filter=") {
		l.warnAt(d, a, "accept filters %q are not supported on this platform, ignored", a.Value)
		return nil
	}
	o.set, o.bind = true, true
	switch a.Value {
	case "bind":
		return nil
	case "deferred":
		o.deferred = true
		return nil
	case "reuseport":
		o.reuseport = true
		return nil
	case "multipath":
		o.multipath = true
		return nil
	}
	return o.socketParameter(a)
}

// httpParameter reads the parameters that are about HTTP; false when it is none.
func (o *listenOptions) httpParameter(l *Level, d *parser.Directive, a parser.Arg) bool {
	switch a.Value {
	case "default":
		o.defaultServer = true
	case "http2":
		l.warnAt(d, a, "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead")
		o.http2 = true
	case "quic":
		o.quic = true
	default:
		return false
	}
	return true
}

// incompatible names a parameter that udp or quic rules out; "" for none.
func (o *listenOptions) incompatible() (problem, with string) {
	switch {
	case o.quic:
		with = "quic"
	case o.udp:
		with = "udp"
	default:
		return "", ""
	}
	for _, p := range []struct {
		given bool
		name  string
	}{
		{o.fastopen >= 0, "fastopen"},
		{o.backlog >= 0, "backlog"},
		{o.deferred, "deferred"},
		{o.multipath, "multipath"},
		{o.ssl, "ssl"},
		{o.http2, "http2"},
		{o.keepalive.set, "so_keepalive"},
		{o.proxyProtocol, "proxy_protocol"},
	} {
		if p.given {
			return p.name, with
		}
	}
	return "", ""
}

// protocol is what the socket speaks.
func (o *listenOptions) protocol() string {
	if o.udp || o.quic {
		return "udp"
	}
	return "tcp"
}

// socketParameter reads the parameters of the form name=value.
func (o *listenOptions) socketParameter(a parser.Arg) error {
	name, value, ok := strings.Cut(a.Value, "=")
	if !ok {
		return sayAt(a, "", "", "invalid parameter %q", a.Value)
	}
	number := func(into *int, least int) error {
		n, ok := parseNumber(value)
		if !ok || n < least {
			return sayAt(a, "", "", "invalid %s %q", name, a.Value)
		}
		*into = n
		return nil
	}
	size := func(into *int) error {
		n, ok := parseSize(value)
		if !ok {
			return sayAt(a, "Y009", "", "invalid %s %q", name, a.Value)
		}
		*into = int(n)
		return nil
	}
	switch name {
	case "backlog":
		return number(&o.backlog, 1)
	case "fastopen":
		return number(&o.fastopen, 0)
	case "rcvbuf":
		return size(&o.rcvbuf)
	case "sndbuf":
		return size(&o.sndbuf)
	case "ipv6only":
		if value == "" || value[0] != 'o' {
			break
		}
		if value != "on" && value != "off" {
			return sayAt(a, "Y008", "", "invalid ipv6only flags %q", value)
		}
		o.ipv6only = value == "on"
		return nil
	case "so_keepalive":
		return o.keepalive.parse(a, value)
	}
	return sayAt(a, "", "", "invalid parameter %q", a.Value)
}

// parse reads on, off or idle:interval:count.
func (k *keepaliveOption) parse(a parser.Arg, value string) error {
	bad := sayAt(a, "", "on, off, or idle:interval:count", "invalid so_keepalive value: %q", value)
	k.set, k.on = true, value != "off"
	if value == "on" || value == "off" {
		return nil
	}
	parts := strings.SplitN(value, ":", 3)
	for i, into := range []*int{&k.idle, &k.interval, &k.probes}[:len(parts)] {
		if parts[i] == "" {
			continue
		}
		n, ok := parseNumber(parts[i])
		if i < 2 {
			t, okTime := parseTime(parts[i], true)
			n, ok = int(t.Seconds()), okTime
		}
		if !ok {
			return bad
		}
		*into = n
	}
	if k.idle == 0 && k.interval == 0 && k.probes == 0 {
		return bad
	}
	return nil
}
