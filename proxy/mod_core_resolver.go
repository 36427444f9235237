package proxy

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/resolver"
)

// resolver and resolver_timeout: who is asked for the addresses of names that
// are only known while serving.

// nameService is what the two directives say at a level.
type nameService struct {
	resolver *resolver.Resolver // nil: there is none
	timeout  time.Duration      // 0: no limit
	given    bool               // timeout was set
}

// defaultResolverTimeout is resolver_timeout where it is not given.
const defaultResolverTimeout = 30 * time.Second

func resolverRows() []Command {
	return []Command{
		{Name: "resolver", In: inHTTPLevels | inStreamLevels, Args: "1+", Syntax: resolverSyntax, Differs: "when a server of the list cannot be reached, the next one is asked at once", Doc: "Sets the DNS servers that are asked for names.", Set: func(l *Level, d *parser.Directive) error {
			return l.setResolver(d, &l.Conf.Core.Names)
		}},
		Time(Command{Name: "resolver_timeout", In: inHTTPLevels | inStreamLevels, Default: "30s", Doc: "Sets how long resolving a name may take."}, func(c *Conf) *time.Duration { return &c.Core.Names.timeout }),
	}
}

const resolverSyntax = "address ... [valid=time] [ipv4=on|off] [ipv6=on|off]"

// setResolver reads DNS servers and parameters (ngx_resolver_create).
func (l *Level) setResolver(d *parser.Directive, n *nameService) error {
	log := l.c.table
	c := resolver.Config{IPv4: true, IPv6: true, Log: func(format string, a ...any) {
		log.Main.ErrorLog.logf(logError, format, a...)
	}}
	named := false
	for _, a := range d.Args {
		name, value, _ := strings.Cut(a.Value, "=")
		ok := true
		switch name + "=" {
		case "valid=":
			c.Valid, ok = parseTime(value, true)
		case "ipv4=":
			c.IPv4, ok = value == "on", value == "on" || value == "off"
		case "ipv6=":
			c.IPv6, ok = value == "on", value == "on" || value == "off"
		default:
			servers, err := l.nameServers(a)
			if err != nil {
				return err
			}
			c.Servers, named = append(c.Servers, servers...), true
		}
		if !ok {
			return sayAt(a, "", resolverSyntax, "invalid parameter: %s", a.Value)
		}
	}
	if !c.IPv4 && !c.IPv6 {
		return sayAt(d.Name, "", "leave one of them on", "\"ipv4\" and \"ipv6\" cannot both be \"off\"")
	}
	if !named {
		return sayAt(d.Name, "", "name at least one: resolver 127.0.0.1;", "no name servers defined")
	}
	n.resolver = resolver.New(c)
	l.c.table.onClose(n.resolver.Close)
	return nil
}

// nameServers gives the addresses of one DNS server.
func (l *Level) nameServers(a parser.Arg) ([]netip.AddrPort, error) {
	u, problem := parseUpstreamURL(a.Value, 53, false)
	if problem == "" && u.unix {
		problem = "invalid host" // Unlike nginx, which finds out when it asks.
	}
	if problem == "" {
		if found := u.resolve(l.c.opts.Offline); len(found) > 0 {
			var out []netip.AddrPort
			for _, f := range found {
				if p, err := netip.ParseAddrPort(f.address); err == nil { // a name stays one offline
					out = append(out, p)
				}
			}
			return out, nil
		}
		problem = "host not found"
	}
	return nil, sayAt(a, "", "an address: 127.0.0.1, [::1]:5353, dns.example.com", "%s in resolver %q", problem, a.Value)
}

// context is the time that resolving may take.
func (n *nameService) context(parent context.Context) (context.Context, context.CancelFunc) {
	if n.timeout == 0 {
		return context.WithCancel(parent)
	}
	return context.WithTimeout(parent, n.timeout)
}

// resolveHost finds the addresses of a name that a variable gave. What is known
// costs nobody's time.
func (x *Exchange) resolveHost(c *upstreamConf, host string) ([]netip.Addr, Code) {
	names := &x.loc.Conf.Core.Names
	if !names.resolver.HasServers() {
		x.Logf(logError, "no resolver defined to resolve %s", host)
		return nil, 502
	}
	u := &x.upstream
	addrs, known := names.resolver.Cached(u.resolved[:0], host)
	if known {
		u.resolved = addrs
		return addrs, OK
	}
	ctx, cancel := names.context(context.Background())
	defer cancel()
	if !c.ignoreClientAbort && !u.streaming {
		x.stream.watch(cancel)
		defer x.stream.unwatch()
	}
	addrs, err := names.resolver.Lookup(ctx, u.resolved[:0], host)
	switch {
	case ctx.Err() == context.Canceled:
		x.Logf(logInfo, "client prematurely closed connection")
		return nil, statusClientClosed
	case err != nil:
		x.Logf(logError, "%s could not be resolved (%s)", strings.TrimSuffix(host, "."), err)
		return nil, 502
	}
	u.resolved = addrs
	return addrs, OK
}
