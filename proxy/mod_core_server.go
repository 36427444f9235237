package proxy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/match"
)

// server, listen and server_name: who answers on which address under which name.

// setServer opens a server block. Its body is compiled when the http level is
// complete.
func setServer(l *Level, d *parser.Directive) error {
	s := &Server{ID: d.End.Source.Name + ":" + fmt.Sprint(d.Name.Range.Line()), Place: d.Name.Range, block: d, named: map[string]*Location{}}
	s.Level = &Location{Kind: Nameless, Place: d.Name.Range, server: s}
	l.c.table.Servers = append(l.c.table.Servers, s)
	l.Later(func() {
		s.Level.Conf = l.Conf.child(InServer)
		in := l.c.level(InServer, l, &s.Level.Conf)
		in.Server, in.Location = s, s.Level
		l.c.body(in, d.Block)
		if len(s.Names) == 0 {
			s.Names = []serverName{{}}
		}
		if len(s.listens) == 0 {
			in.defaultListen(d)
		}
		s.Level.index()
	})
	return nil
}

// defaultListen is "listen 80", or 8000 for those who may not bind it.
func (l *Level) defaultListen(d *parser.Directive) {
	port := uint16(80)
	if os.Geteuid() != 0 {
		port = 8000
	}
	if err := l.addListen(d, "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port), "", defaultListenOptions()); err != nil {
		l.c.report(reading, parser.Error, err, d, d.End)
	}
}

func defaultListenOptions() listenOptions {
	return listenOptions{backlog: -1, fastopen: -1, ipv6only: true}
}

func setServerName(l *Level, d *parser.Directive) error {
	for _, a := range d.Args {
		name := a.Value
		if name != "" && (name[0] == '*' && (len(name) < 3 || name[1] != '.') || name == ".") {
			return sayAt(a, "", "a wildcard is *.example.com or www.example.*", "server name %q is invalid", name)
		}
		if strings.Contains(name, "/") {
			l.warnAt(d, a, "server name %q has suspicious symbols", name)
		}
		sn := serverName{text: lower(name), arg: a}
		if strings.EqualFold(name, "$hostname") {
			sn.text = lower(hostname())
		}
		if strings.HasPrefix(name, "~") {
			pattern := name[1:]
			if pattern == "" {
				return sayAt(a, "Y013", "", "empty regex in server name %q", name)
			}
			re, err := l.regex(pattern, strings.ToLower(pattern) != pattern, a)
			if err != nil {
				return err
			}
			sn.text, sn.regex = name, re
		}
		l.Server.Names = append(l.Server.Names, sn)
	}
	return nil
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

// setListen reads an address and its parameters.
func setListen(l *Level, d *parser.Directive) error {
	o := defaultListenOptions()
	for _, a := range d.Args[1:] {
		if err := o.parameter(l, d, a); err != nil {
			return err
		}
	}
	text := d.Args[0].Value
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return listenError(d, "no path in the unix domain socket")
		}
		return l.addListen(d, "unix", netip.AddrPort{}, path, o)
	}
	addrs, err := listenAddresses(d)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		network := "tcp4"
		if a.Addr().Is6() {
			network = "tcp6"
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

// listenAddresses reads address:port as ngx_parse_url does.
func listenAddresses(d *parser.Directive) ([]netip.AddrPort, error) {
	text := d.Args[0].Value
	host, port := text, ""
	switch {
	case strings.HasPrefix(text, "["):
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return nil, listenError(d, "invalid host")
		}
		host, port = text[1:end], strings.TrimPrefix(text[end+1:], ":")
		if rest := text[end+1:]; rest != "" && (rest[0] != ':' || port == "") {
			return nil, listenError(d, "invalid port")
		}
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() {
			return nil, listenError(d, "invalid IPv6 address")
		}
	case strings.Contains(text, ":"):
		host, port, _ = strings.Cut(text, ":")
		if port == "" {
			return nil, listenError(d, "invalid port")
		}
	default:
		if n, ok := digits(text); ok {
			if n < 1 || n > 65535 {
				return nil, listenError(d, "invalid port")
			}
			host, port = "*", text
		}
	}
	number := int64(80)
	if port != "" {
		var ok bool
		if number, ok = digits(port); !ok || number < 1 || number > 65535 {
			return nil, listenError(d, "invalid port")
		}
	}
	return resolveListen(d, host, uint16(number))
}

func resolveListen(d *parser.Directive, host string, port uint16) ([]netip.AddrPort, error) {
	switch host {
	case "":
		return nil, listenError(d, "no host")
	case "*":
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), port)}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.WithZone(""), port)}, nil
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return nil, listenError(d, "host not found")
	}
	var out []netip.AddrPort
	for _, ip := range ips {
		a, _ := netip.AddrFromSlice(ip)
		if ap := netip.AddrPortFrom(a.Unmap(), port); !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out, nil
}

// parameter reads one parameter after the address.
func (o *listenOptions) parameter(l *Level, d *parser.Directive, a parser.Arg) error {
	switch a.Value {
	case "default_server", "default":
		o.defaultServer = true
		return nil
	case "ssl":
		o.ssl = true
		return nil
	case "proxy_protocol":
		return sayAt(a, "U001", "the PROXY protocol is not read yet; without it client addresses would be those of the balancer",
			"the \"proxy_protocol\" parameter is not supported by proxyctl")
	case "http2":
		l.warnAt(d, a, "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead")
		o.http2 = true
		return nil
	case "quic":
		return sayAt(a, "U001", "HTTP/3 is not served yet; remove quic to serve HTTP/1.1 and HTTP/2", "the \"quic\" parameter requires ngx_http_v3_module")
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

// socketParameter reads the parameters of the form name=value.
func (o *listenOptions) socketParameter(a parser.Arg) error {
	name, value, _ := strings.Cut(a.Value, "=")
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
		if value != "on" && value != "off" {
			return sayAt(a, "Y008", "", "invalid ipv6only flags %q", strings.TrimPrefix(a.Value, "ipv6only="))
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

// addListen enters an address into the server being compiled, and the server
// into the address's list (ngx_http_add_addresses).
func (l *Level) addListen(d *parser.Directive, network string, addr netip.AddrPort, path string, o listenOptions) error {
	li := &listen{server: l.Server, network: network, address: addr, path: path, options: o, place: d}
	li.text = "unix:" + path
	if network != "unix" {
		li.text = addr.String()
	}
	l.Server.listens = append(l.Server.listens, li)
	if l.c.endpoints == nil {
		l.c.endpoints = map[string]*endpoint{}
		l.AtFinish(l.c.linkServers)
	}
	key := network + li.text
	e := l.c.endpoints[key]
	if e == nil {
		l.c.endpoints[key] = &endpoint{address: li.text, options: o, servers: []*Server{l.Server}, fallback: l.Server, listens: []*listen{li}}
		return nil
	}
	return e.add(l, d, li)
}

// add puts another server on a known address.
func (e *endpoint) add(l *Level, d *parser.Directive, li *listen) error {
	o := li.options
	if slices.Contains(e.servers, li.server) {
		return sayAt(d.Args[0], "Y011", "", "a duplicate listen %s", e.address)
	}
	e.servers = append(e.servers, li.server)
	e.listens = append(e.listens, li)
	before := e.options
	if o.set {
		if before.set {
			return sayAt(d.Args[0], "", "socket parameters belong to one listen of an address only", "duplicate listen options for %s", e.address)
		}
		e.options = o
	}
	if o.defaultServer {
		if before.defaultServer {
			return sayAt(d.Args[0], "", "", "a duplicate default server for %s", e.address)
		}
		e.fallback = li.server
	}
	if e.protocolsRedefined(before, o) {
		l.warnAt(d, d.Args[0], "protocol options redefined for %s", e.address)
	}
	e.options.defaultServer = before.defaultServer || o.defaultServer
	e.options.proxyProtocol = before.proxyProtocol || o.proxyProtocol
	e.options.ssl = before.ssl || o.ssl
	e.options.http2 = before.http2 || o.http2
	return nil
}

// protocolsRedefined decides whether nginx warns about ssl, http2 or
// proxy_protocol differing between the listens of an address: it tolerates one
// full and any number of reduced forms.
func (e *endpoint) protocolsRedefined(before, o listenOptions) bool {
	now, prev := o.protocols(), before.protocols()
	p := &e.protocols
	warn := false
	switch {
	case now|prev != prev: // options added
		warn = before.set && !o.set || p.changed || now|prev != now
		p.value, p.changed = prev, true
	case now|prev != now: // options removed
		warn = o.set || p.set && now != p.value
		p.value, p.changed = now, true
	default:
		warn = o.set && p.changed || p.set && now != p.value
		p.value = now
	}
	p.set = true
	return warn
}

// protocols gives the protocol parameters as bits.
func (o listenOptions) protocols() uint8 {
	var p uint8
	for i, on := range []bool{o.proxyProtocol, o.ssl, o.http2} {
		if on {
			p |= 1 << i
		}
	}
	return p
}

// linkServers makes the sockets of the table out of all listen directives.
func (c *compiler) linkServers() {
	keys := make([]string, 0, len(c.endpoints))
	for k := range c.endpoints {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		c.linkNames(c.endpoints[k])
	}
	c.linkSockets(keys)
}

// linkNames builds the look-up of the server names of an address. Names do not
// matter, and are not looked at, where there is one server only; but those with
// captures set variables.
func (c *compiler) linkNames(e *endpoint) {
	b := match.NewNames[*Server]()
	if len(e.servers) == 1 && !e.servers[0].captures() {
		e.names = b.Build()
		return
	}
	for _, s := range e.servers {
		for _, n := range s.Names {
			if n.regex != nil {
				e.regexes = append(e.regexes, regexServer{n.regex, s})
				continue
			}
			switch existed, err := b.Add(n.text, s); {
			case err != nil:
				c.failLater(parser.Error, n.arg.Range, parser.Range{}, "", "", "invalid server name or wildcard %q on %s", n.text, e.address)
			case existed:
				c.failLater(parser.Warning, n.arg.Range, parser.Range{}, "C001", "another server has this name on this address already",
					"conflicting server name %q on %s, ignored", n.text, e.address)
			}
		}
	}
	e.names = b.Build()
}

// captures says whether a name of the server sets variables.
func (s *Server) captures() bool {
	return slices.ContainsFunc(s.Names, func(n serverName) bool { return n.regex != nil && n.regex.Captures() > 0 })
}

// linkSockets decides what to bind: a wildcard address takes the specific
// addresses of its port along unless they ask for a socket of their own
// (ngx_http_init_listening).
func (c *compiler) linkSockets(keys []string) {
	wildcards := map[string]*socket{}
	var sockets []*socket
	add := func(li *listen, e *endpoint) *socket {
		s := &socket{network: li.network, address: li.address, path: li.path, options: e.options, exact: map[netip.Addr]*endpoint{}, fallback: e}
		sockets = append(sockets, s)
		return s
	}
	for _, k := range keys {
		e := c.endpoints[k]
		if li := e.listens[0]; li.network != "unix" && li.address.Addr().IsUnspecified() {
			wildcards[li.network+fmt.Sprint(li.address.Port())] = add(li, e)
		}
	}
	for _, k := range keys {
		e := c.endpoints[k]
		li := e.listens[0]
		if li.network != "unix" && li.address.Addr().IsUnspecified() {
			continue
		}
		if w := wildcards[li.network+fmt.Sprint(li.address.Port())]; w != nil && li.network != "unix" {
			w.exact[li.address.Addr()] = e
			if !e.options.bind {
				continue
			}
		}
		add(li, e)
	}
	slices.SortFunc(sockets, func(a, b *socket) int { return cmp.Compare(a.key(), b.key()) })
	c.table.sockets = sockets
}
