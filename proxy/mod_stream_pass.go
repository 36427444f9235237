package proxy

import (
	"net/netip"

	"proxyctl/parser"
)

// ngx_stream_pass_module: gives an accepted connection to whoever listens on
// another address, in the stream block or in that of http.

func streamPassModule() Module {
	return Module{Name: "ngx_stream_pass_module", Commands: []Command{
		{Name: "pass", In: InStreamServer, Args: "1", Syntax: "address", Doc: "Passes the connection to another listening address.", Set: setPassTo},
	}}
}

// maxPasses is how often a connection may be passed on.
const maxPasses = 10

// passing is what the session does then, in nginx's words.
const passing = "passing connection to port"

func setPassTo(l *Level, d *parser.Directive) error {
	text := d.Args[0].Value
	v, err := l.value(text)
	if err != nil {
		return err
	}
	if _, static := v.Static(); static {
		switch u, problem := parseUpstreamURL(text, 0, false); {
		case problem != "":
			return sayAt(d.Args[0], "", "an address that is listened on: 127.0.0.1:8443, unix:/path", "%s in %q of the \"pass\" directive", problem, text)
		case !u.unix && !u.addr.IsValid():
			return errAt(d.Args[0], "", "names are not resolved here", "has no addresses")
		case u.noPort && !u.unix:
			return errAt(d.Args[0], "", "add it: "+text+":443", "has no port")
		}
	}
	l.Conf.Own.Content = func(x *Exchange) Code { return x.passTo(v.String(x)) }
	return nil
}

// passTo finds the listener of an address and leaves the connection to it.
func (x *Exchange) passTo(text string) Code {
	c := x.client
	x.upstream.action = passing
	if x.session.udp {
		x.Logf(logError, "cannot pass udp connection")
		return sessionFailed
	}
	if len(x.session.preread) > 0 {
		x.Logf(logError, "cannot pass connection with preread data")
		return sessionFailed
	}
	u, problem := parseUpstreamURL(text, 0, false)
	switch {
	case problem == "" && !u.unix && !u.addr.IsValid():
		problem = "no addresses"
	case problem == "" && !u.unix && u.noPort:
		problem = "no port"
	}
	if problem != "" {
		x.Logf(logError, "%s in pass %q", problem, text)
		return sessionFailed
	}
	if c.passes++; c.passes > maxPasses {
		x.Logf(logError, "stream pass cycle")
		return sessionFailed
	}
	for _, s := range x.table.sockets {
		if !s.options.udp && s.bound != nil && s.takes(&u) {
			c.local = netip.AddrPortFrom(u.addr, u.port)
			if o := &s.endpoint(u.addr).options; c.secure != nil && (o.ssl || o.proxyProtocol) {
				// Unlike nginx, which reads below the TLS that is there.
				x.Logf(logError, "cannot pass TLS connection to %q", text)
				return sessionFailed
			}
			x.session.passed = s
			return Done
		}
	}
	x.Logf(logError, "port not found for %q", text)
	return sessionOK
}

// takes says whether the socket is that of an address, or of every address with
// its port.
func (s *socket) takes(u *upstreamURL) bool {
	switch {
	case u.unix || s.network == "unix":
		return u.unix && s.network == "unix" && s.path == u.host
	case s.address.Port() != u.port || s.address.Addr().Is4() != u.addr.Is4():
		return false
	}
	return s.address.Addr().IsUnspecified() || s.address.Addr() == u.addr
}
