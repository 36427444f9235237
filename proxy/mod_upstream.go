package proxy

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/upstream"
)

// ngx_http_upstream_module and the modules that choose among its servers:
// groups of servers that the pass directives name. What happens on the way to a
// server is in upstream_run.go.

// upstreamBlock is an upstream block, or the group that a pass directive makes
// of an address.
type upstreamBlock struct {
	name     string
	explicit bool // made by an upstream block
	noPort   bool
	port     uint16
	place    parser.Range // where it was named first

	servers   []upstreamServer
	method    upstream.Method
	chosen    bool // a load balancing method was given
	noBackup  bool // which has no use for backup servers
	key       *Value
	keepalive upstream.Keepalive
	kept      bool // keepalive was given
	local     bool // kept connections belong to one location each
	zone      string

	group    *upstream.Group
	idle     *upstream.Cache[*upstreamConn]
	expiring atomic.Bool // a timer will look for connections idle for too long
}

// upstreamServer is one server directive.
type upstreamServer struct {
	url       upstreamURL
	addresses []peerAddress
	weight    int
	maxConns  int
	maxFails  int
	timeout   time.Duration
	backup    bool
	down      bool
}

func upstreamModule() Module {
	return Module{
		Name: "ngx_http_upstream_module", Variables: upstreamVariables(),
		Commands: []Command{
			{Name: "upstream", In: InHTTP, Args: "1", Block: true, Repeat: true, Syntax: "name", Doc: "Defines a group of servers.", Set: setUpstream},
			{Name: "server", In: InUpstream, Args: "1+", Repeat: true, Syntax: "address [weight=number] [max_conns=number] [max_fails=number] [fail_timeout=time] [backup] [down]", Doc: "Defines a server of the group.", Set: setUpstreamServer},
		},
	}
}

func upstreamKeepaliveModule() Module {
	return Module{
		Name: "ngx_http_upstream_keepalive_module",
		Commands: []Command{
			{Name: "keepalive", In: InUpstream, Args: "1,2", Syntax: "connections [local]", Default: "32 local", Doc: "Sets how many idle connections to the group's servers are kept.", Set: setUpstreamKeepalive},
			Number(Command{Name: "keepalive_requests", In: InUpstream, Default: "1000", Doc: "Sets how many requests one kept connection may carry."}, nil).of(func(g *upstreamBlock, v string) bool {
				n, ok := parseNumber(v)
				g.keepalive.Requests = n
				return ok
			}, "invalid number"),
			Time(Command{Name: "keepalive_time", In: InUpstream, Default: "1h", Doc: "Sets how long a connection may be used."}, nil).of(func(g *upstreamBlock, v string) bool {
				t, ok := parseTime(v, false)
				g.keepalive.Time = t
				return ok
			}, "invalid value"),
			Time(Command{Name: "keepalive_timeout", In: InUpstream, Default: "60s", Doc: "Sets how long an idle connection is kept."}, nil).of(func(g *upstreamBlock, v string) bool {
				t, ok := parseTime(v, false)
				g.keepalive.Timeout = t
				return ok
			}, "invalid value"),
		},
	}
}

// of makes the setter of a row write to the upstream block instead of Conf.
func (c Command) of(set func(g *upstreamBlock, v string) bool, problem string) Command {
	c.Set = func(l *Level, d *parser.Directive) error {
		if !set(l.Group, d.Args[0].Value) {
			return errAt(d.Args[0], "", "", problem)
		}
		return nil
	}
	return c
}

func upstreamZoneModule() Module {
	return Module{Name: "ngx_http_upstream_zone_module", Commands: []Command{
		{Name: "zone", In: InUpstream, Args: "1,2", Syntax: "name [size]", Doc: "Names the zone that holds the state of the group; one process needs no shared memory.", Set: setUpstreamZone},
	}}
}

func upstreamHashModule() Module {
	return Module{Name: "ngx_http_upstream_hash_module", Commands: []Command{
		{Name: "hash", In: InUpstream, Args: "1,2", Repeat: true, Syntax: "key [consistent]", Doc: "Chooses the server by the hash of a key.", Set: setHash},
	}}
}

func upstreamIPHashModule() Module {
	return Module{Name: "ngx_http_upstream_ip_hash_module", Commands: []Command{
		{Name: "ip_hash", In: InUpstream, Args: "0", Repeat: true, Doc: "Chooses the server by the client's address.", Set: func(l *Level, d *parser.Directive) error {
			l.choose(d, upstream.IPHash, true)
			return nil
		}},
	}}
}

func upstreamLeastConnModule() Module {
	return Module{Name: "ngx_http_upstream_least_conn_module", Commands: []Command{
		{Name: "least_conn", In: InUpstream, Args: "0", Repeat: true, Doc: "Chooses the server with the fewest connections.", Set: func(l *Level, d *parser.Directive) error {
			l.choose(d, upstream.LeastConn, false)
			return nil
		}},
	}}
}

func upstreamRandomModule() Module {
	return Module{Name: "ngx_http_upstream_random_module", Commands: []Command{
		{Name: "random", In: InUpstream, Args: "0-2", Repeat: true, Syntax: "[two [least_conn]]", Doc: "Chooses the server at random.", Set: setRandom},
	}}
}

// setUpstream opens a group. Its body is read at once: the pass directives of
// all servers come later.
func setUpstream(l *Level, d *parser.Directive) error {
	g := &upstreamBlock{name: d.Args[0].Value, explicit: true, noPort: true, place: d.End}
	if old := l.c.table.groups[lower(g.name)]; old != nil {
		return sayAt(d.Args[0], "Y012", "", "duplicate upstream %q", g.name)
	}
	g.keepalive = upstream.Keepalive{Max: 32, Requests: 1000, Time: time.Hour, Timeout: time.Minute}
	l.c.table.groups[lower(g.name)] = g
	in := l.c.level(InUpstream, l, l.Conf)
	in.Group = g
	before := l.c.errors
	l.c.body(in, d.Block)
	if len(g.servers) == 0 {
		if l.c.errors == before {
			l.c.report(reading, parser.Error, say("no servers are inside upstream"), d, d.Block.Close)
		}
		return nil
	}
	l.AtFinish(func() { g.start(l.c, d) })
	return nil
}

// setUpstreamServer reads an address and its parameters.
func setUpstreamServer(l *Level, d *parser.Directive) error {
	s := upstreamServer{weight: 1, maxFails: 1, timeout: 10 * time.Second}
	for _, a := range d.Args[1:] {
		if err := s.parameter(l.Group, a); err != nil {
			return err
		}
	}
	u, problem := parseUpstreamURL(d.Args[0].Value, 80, false)
	if problem == "" {
		if s.addresses = u.resolve(l.c.opts.Offline); len(s.addresses) == 0 {
			problem = "host not found"
		}
	}
	if problem != "" {
		return sayAt(d.Args[0], "", "an address: 127.0.0.1:8080, backend.example.com, unix:/path", "%s in upstream %q", problem, d.Args[0].Value)
	}
	s.url = u
	l.Group.servers = append(l.Group.servers, s)
	return nil
}

// parameter reads one parameter of server.
func (s *upstreamServer) parameter(g *upstreamBlock, a parser.Arg) error {
	name, value, hasValue := strings.Cut(a.Value, "=")
	invalid := sayAt(a, "", "", "invalid parameter %q", a.Value)
	ok := true
	switch {
	case name == "weight" && hasValue:
		s.weight, ok = parseNumber(value)
		ok = ok && s.weight > 0
	case name == "max_conns" && hasValue:
		s.maxConns, ok = parseNumber(value)
	case name == "max_fails" && hasValue:
		s.maxFails, ok = parseNumber(value)
	case name == "fail_timeout" && hasValue:
		s.timeout, ok = parseTime(value, true)
	case a.Value == "backup":
		if g.noBackup {
			return sayAt(a, "", "", "balancing method does not support parameter %q", a.Value)
		}
		s.backup = true
	case a.Value == "down":
		s.down = true
	case a.Value == "resolve" || name == "service" && hasValue || a.Value == "drain" || name == "route" && hasValue:
		return sayAt(a, "Y018", "nginx knows this parameter; it is not served yet", "parameter %q is not supported", a.Value)
	default:
		return invalid
	}
	if !ok {
		return invalid
	}
	return nil
}

func setUpstreamKeepalive(l *Level, d *parser.Directive) error {
	g := l.Group
	n, ok := parseNumber(d.Args[0].Value)
	if !ok {
		return sayAt(d.Args[0], "Y009", "write digits only", "invalid value %q in %q directive", d.Args[0].Value, d.Name.Value)
	}
	g.keepalive.Max, g.kept = n, true
	if len(d.Args) == 2 {
		if d.Args[1].Value != "local" {
			return sayAt(d.Args[1], "", `the only parameter is "local"`, "invalid parameter %q", d.Args[1].Value)
		}
		g.local = true
	}
	return nil
}

// minZoneSize is eight pages.
const minZoneSize = 8 * 4096

func setUpstreamZone(l *Level, d *parser.Directive) error {
	name := d.Args[0].Value
	if name == "" {
		return sayAt(d.Args[0], "", "", "invalid zone name %q", name)
	}
	if len(d.Args) == 2 {
		size, ok := parseSize(d.Args[1].Value)
		if !ok {
			return sayAt(d.Args[1], "Y009", "sizes are digits and end in k or m", "invalid zone size %q", d.Args[1].Value)
		}
		if size < minZoneSize {
			return sayAt(d.Args[1], "", "at least 32k", "zone %q is too small", name)
		}
	}
	l.Group.zone = name
	return nil
}

// choose sets the load balancing method. The last one counts.
func (l *Level) choose(d *parser.Directive, m upstream.Method, noBackup bool) {
	g := l.Group
	if g.chosen {
		l.warnAt(d, d.Name, "load balancing method redefined")
	}
	g.chosen, g.method, g.noBackup = true, m, noBackup
}

func setHash(l *Level, d *parser.Directive) error {
	v, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	method := upstream.Hash
	if len(d.Args) == 2 {
		if d.Args[1].Value != "consistent" {
			return sayAt(d.Args[1], "", `the only parameter is "consistent"`, "invalid parameter %q", d.Args[1].Value)
		}
		method = upstream.ConsistentHash
	}
	l.choose(d, method, true)
	l.Group.key = v
	return nil
}

func setRandom(l *Level, d *parser.Directive) error {
	method := upstream.Random
	for i, a := range d.Args {
		if a.Value != [...]string{"two", "least_conn"}[i] {
			return sayAt(a, "", "random [two [least_conn]]", "invalid parameter %q", a.Value)
		}
		method = upstream.RandomTwo
	}
	l.choose(d, method, true)
	return nil
}

// start builds the group once the whole configuration has been read.
func (g *upstreamBlock) start(c *compiler, d *parser.Directive) {
	var peers []upstream.Peer
	for i := range g.servers {
		s := &g.servers[i]
		if s.backup && g.noBackup {
			continue // such a method never turns to them
		}
		for _, a := range s.addresses {
			peers = append(peers, upstream.Peer{
				Name: a.name, Network: a.network, Address: a.address, Server: s.url.text,
				Weight: s.weight, MaxFails: s.maxFails, MaxConns: s.maxConns, FailTimeout: s.timeout,
				Backup: s.backup, Down: s.down,
			})
		}
	}
	group, err := upstream.NewGroup(g.name, peers, g.method)
	if err != nil {
		where := d.Args[0].Range
		if errors.Is(err, upstream.ErrNoServers) {
			c.failLater(parser.Error, where, parser.Range{}, "", "", "no servers in upstream %q in %s", g.name, placeText(g.place))
			return
		}
		c.failLater(parser.Error, where, d.End, "", "", "%s in upstream %q", err, g.name)
		return
	}
	g.group = group
	if !g.kept {
		g.local = true
	}
	g.cache(c.table)
}

// cache makes the store of idle connections.
func (g *upstreamBlock) cache(t *Table) {
	g.idle = upstream.NewCache(g.keepalive, (*upstreamConn).close)
	t.onClose(g.idle.CloseAll)
}

// expire makes sure that idle connections are closed in time. The timer runs
// only while there are any.
func (g *upstreamBlock) expire() {
	if !g.expiring.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(g.keepalive.Timeout+time.Second, func() {
		g.idle.Expire(nanos())
		g.expiring.Store(false)
		if g.idle.Len() > 0 {
			g.expire()
		}
	})
}

// inheritUpstreams takes over from the table that was in use before: which
// servers have failed, and connections to those that are still there.
func (t *Table) inheritUpstreams(old *Table) {
	for name, g := range t.groups {
		if o := old.groups[name]; o != nil && g.group != nil && o.group != nil && g.explicit == o.explicit {
			g.group.Inherit(o.group)
		}
	}
}

func placeText(r parser.Range) string {
	if r.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s:%d", r.Source.Name, r.Line())
}

// addresses lists what the group's servers resolve to.
func (g *upstreamBlock) addresses() []string {
	var out []string
	for i := range g.servers {
		for _, a := range g.servers[i].addresses {
			out = append(out, a.address)
		}
	}
	return out
}

// passGroup finds the group that a pass directive names, or makes one of the
// address (ngx_http_upstream_add).
func (l *Level) passGroup(d *parser.Directive, u *upstreamURL) (*upstreamBlock, error) {
	t := l.c.table
	if g := t.groups[lower(u.host)]; g != nil && g.explicit {
		if u.noPort {
			return g, nil
		}
		if parser.Compare(g.place, d.End) < 0 {
			return nil, sayAt(d.Args[0], "", "the upstream block says the ports", "upstream %q may not have port %d", u.host, u.port)
		}
		return nil, &confError{text: fmt.Sprintf("upstream %q may not have port %d in %s", u.host, u.port, placeText(d.End)), whole: true, arg: d.Args[0]}
	}
	key := implicitKey(lower(u.host), u.port)
	if g := t.groups[key]; g != nil {
		return g, nil
	}
	g := &upstreamBlock{name: u.host, noPort: u.noPort, port: u.port, place: d.End}
	t.groups[key] = g
	l.AtFinish(func() {
		addresses := u.resolve(l.c.opts.Offline)
		if len(addresses) == 0 {
			l.c.failLater(parser.Error, d.Args[0].Range, parser.Range{}, "", "the name cannot be resolved now; nginx needs it when it starts",
				"host not found in upstream %q in %s", u.host, placeText(d.End))
			return
		}
		g.servers = []upstreamServer{{url: *u, addresses: addresses, weight: 1, maxFails: 1, timeout: 10 * time.Second}}
		g.start(l.c, d)
	})
	return g, nil
}
