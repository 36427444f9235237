package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/match"
)

// server, listen and server_name: who answers on which address under which name.

// setServer opens a server block. Its body is compiled when the http level is
// complete.
func setServer(l *Level, d *parser.Directive) error {
	s := &Server{ID: serverID(d), Place: d.Name.Range, block: d, named: map[string]*Location{}}
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

// serverID names a server block by its place; one that was put around a bare
// site file has none.
func serverID(d *parser.Directive) string {
	if d.End.Source == nil {
		return "server"
	}
	return d.End.Source.Name + ":" + strconv.Itoa(d.Name.Range.Line())
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

// addListen enters an address into the server being compiled, and the server
// into the address's list (ngx_http_add_addresses).
func (l *Level) addListen(d *parser.Directive, network string, addr netip.AddrPort, path string, o listenOptions) error {
	li := &listen{server: l.Server, network: network, address: addr, path: path, options: o, place: d}
	li.text = "unix:" + path
	if network != "unix" {
		li.text = addr.String()
	}
	l.Server.listens = append(l.Server.listens, li)
	endpoints := l.c.names.endpoints
	if len(endpoints) == 0 {
		l.AtFinish(l.c.linkServers)
	}
	key := network + li.text // of a socket: TCP and UDP have one each
	e := endpoints[key]
	if e == nil {
		endpoints[key] = &endpoint{address: li.text, stream: l.c.names.stream, options: o, servers: []*Server{l.Server}, fallback: l.Server, listens: []*listen{li}}
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
	e.options.quic = before.quic || o.quic
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
	endpoints := c.names.endpoints
	keys := slices.Sorted(maps.Keys(endpoints))
	for _, k := range keys {
		c.linkNames(endpoints[k])
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
		e := c.names.endpoints[k]
		if li := e.listens[0]; li.network != "unix" && li.address.Addr().IsUnspecified() {
			wildcards[li.network+fmt.Sprint(li.address.Port())] = add(li, e)
		}
	}
	for _, k := range keys {
		e := c.names.endpoints[k]
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
	c.table.sockets = append(c.table.sockets, sockets...)
}
