package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	inflight  bool // for least_time
	byConnect bool // likewise: a session is under way when it is connected
	sticky    *stickyConf
	stuck     bool // sticky was given
	names     nameService
	resolving []*resolving

	mu       sync.Mutex // guards what resolving finds, and changing the group
	fixed    []upstream.Peer
	group    atomic.Pointer[upstream.Group]
	idle     *upstream.Cache[*upstreamConn]
	expiring atomic.Bool // a timer will look for connections idle for too long
	queue    queue       // of a group without a block
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
	drain     bool   // down but for sessions that are there
	route     string // the name of the server for sticky
	resolve   bool   // resolved while serving
	service   string // resolved as the servers of a service
}

func upstreamModule() Module {
	return Module{
		Name: "ngx_http_upstream_module", Stream: "ngx_stream_upstream_module", Variables: upstreamVariables(), StreamVariables: sessionUpstreamVariables(),
		Commands: []Command{
			{Name: "upstream", In: InHTTP | InStream, Args: "1", Block: true, Repeat: true, Syntax: "name", Doc: "Defines a group of servers.", Set: setUpstream},
			{Name: "server", In: InUpstream, Args: "1+", Repeat: true, Syntax: "address [weight=number] [max_conns=number] [max_fails=number] [fail_timeout=time] [backup] [down] [drain] [route=string] [resolve] [service=name]", Doc: "Defines a server of the group.", Set: setUpstreamServer},
			{Name: "server", In: InStreamUpstream, Args: "1+", Repeat: true, Syntax: "address [weight=number] [max_conns=number] [max_fails=number] [fail_timeout=time] [backup] [down] [resolve] [service=name]", Doc: "Defines a server of the group.", Set: setUpstreamServer},
			{Name: "resolver", In: InUpstream | InStreamUpstream, Args: "1+", Syntax: resolverSyntax, Doc: "Sets the DNS servers that are asked for the group's names.", Set: func(l *Level, d *parser.Directive) error {
				return l.setResolver(d, &l.Group.names)
			}},
			Time(Command{Name: "resolver_timeout", In: InUpstream | InStreamUpstream, Default: "30s", Doc: "Sets how long resolving a name of the group may take."}, nil).of(func(g *upstreamBlock, v string) bool {
				t, ok := parseTime(v, false)
				g.names.timeout, g.names.given = t, true
				return ok
			}, "invalid value"),
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

// setUpstream opens a group. Its body is read at once: the pass directives of
// all servers come later.
func setUpstream(l *Level, d *parser.Directive) error {
	g := &upstreamBlock{name: d.Args[0].Value, explicit: true, noPort: true, place: d.End}
	if old := l.c.names.groups[lower(g.name)]; old != nil {
		return sayAt(d.Args[0], "Y012", "", "duplicate upstream %q", g.name)
	}
	g.keepalive = upstream.Keepalive{Max: 32, Requests: 1000, Time: time.Hour, Timeout: time.Minute}
	l.c.names.groups[lower(g.name)] = g
	context := InUpstream
	if l.c.names.stream {
		context = InStreamUpstream
	}
	in := l.c.level(context, l, l.Conf)
	in.Group = g
	before := l.c.errors
	l.c.body(in, d.Block)
	if len(g.servers) == 0 {
		if l.c.errors == before {
			l.c.report(reading, parser.Error, say("no servers are inside upstream"), d, d.Block.Close)
		}
		return nil
	}
	l.AtFinish(func() { g.start(l.c, d, &l.Conf.Core.Names) })
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
	port := uint16(80)
	if l.c.names.stream {
		if port = 0; s.drain || s.route != "" {
			i := slices.IndexFunc(d.Args, func(a parser.Arg) bool { return a.Value == "drain" || strings.HasPrefix(a.Value, "route=") })
			return sayAt(d.Args[i], "", "it belongs to sticky, which is of HTTP", "invalid parameter %q", d.Args[i].Value)
		}
	}
	text := d.Args[0].Value
	if s.service != "" && !s.resolve {
		return sayAt(d.Args[0], "", "add it", "service upstream %q requires \"resolve\" parameter", text)
	}
	u, problem := parseUpstreamURL(text, port, false)
	isAddress := u.unix || u.addr.IsValid()
	if problem == "" && u.noPort && port == 0 && s.service == "" {
		problem = "no port"
	}
	if problem == "" && (!s.resolve || isAddress) {
		if s.addresses = u.resolve(l.c.opts.Offline); len(s.addresses) == 0 {
			problem = "host not found"
		}
	}
	switch {
	case problem != "":
		return sayAt(d.Args[0], "", "an address: 127.0.0.1:8080, backend.example.com, unix:/path", "%s in upstream %q", problem, text)
	case s.service != "" && !u.noPort:
		return sayAt(d.Args[0], "", "the service says the ports", "service upstream %q may not have port", text)
	case s.service != "" && isAddress:
		return sayAt(d.Args[0], "", "a service belongs to a name", "service upstream %q requires domain name", text)
	}
	u.host = strings.TrimSuffix(u.host, ".")
	s.url, s.resolve = u, s.resolve && !isAddress
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
	case a.Value == "drain":
		s.drain = true
	case name == "route" && hasValue:
		s.route = value
		return checkRoute(a, value)
	case a.Value == "resolve":
		s.resolve = true
	case name == "service" && hasValue:
		if s.service = value; value == "" {
			return sayAt(a, "", "service=http", "service is empty")
		}
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

// peer makes a peer of an address of the server.
func (s *upstreamServer) peer(a peerAddress) upstream.Peer {
	p := upstream.Peer{
		Name: a.name, Network: a.network, Address: a.address, Server: s.url.text,
		Weight: s.weight, MaxFails: s.maxFails, MaxConns: s.maxConns, FailTimeout: s.timeout,
		Backup: s.backup, Down: s.down, Drain: s.drain, ID: s.route,
	}
	if p.ID == "" {
		p.ID = stickyID(a.name)
	}
	return p
}

// start builds the group once the whole configuration has been read. level is
// what the http level says about resolving.
func (g *upstreamBlock) start(c *compiler, d *parser.Directive, level *nameService) {
	for i := range g.servers {
		s := &g.servers[i]
		if s.backup && g.noBackup {
			continue // such a method never turns to them
		}
		if s.resolve {
			g.resolving = append(g.resolving, &resolving{server: s})
		}
		for _, a := range s.addresses {
			g.fixed = append(g.fixed, s.peer(a))
		}
	}
	if !g.checkResolving(c, d, level) {
		return
	}
	newGroup := upstream.NewGroup
	if slices.ContainsFunc(g.resolving, func(r *resolving) bool { return !r.server.backup }) {
		newGroup = upstream.NewOpenGroup
	}
	group, err := newGroup(g.name, g.fixed, g.method)
	if err != nil {
		where := d.Args[0].Range
		if errors.Is(err, upstream.ErrNoServers) {
			c.failLater(parser.Error, where, parser.Range{}, "", "", "no servers in upstream %q in %s", g.name, placeText(g.place))
			return
		}
		c.failLater(parser.Error, where, d.End, "", "", "%s in upstream %q", err, g.name)
		return
	}
	group.Inflight = g.inflight
	g.group.Store(group)
	g.local = g.local || g.explicit && !g.kept
	g.cache(c.table)
	g.beginResolving(c.table)
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
	wait := g.keepalive.Timeout + time.Second
	if !g.explicit {
		wait = patience
	}
	time.AfterFunc(wait, func() {
		now := nanos()
		g.idle.Expire(now)
		if g.queue.stuck(now) {
			g.idle.Clear()
		}
		g.expiring.Store(false)
		if g.idle.Len() > 0 {
			g.expire()
		}
	})
}

// inheritUpstreams takes over from the table that was in use before: which
// servers have failed, and connections to those that are still there.
func (t *Table) inheritUpstreams(old *Table) {
	t.http.inheritUpstreams(old.http)
	t.stream.inheritUpstreams(old.stream)
}

func (n *names) inheritUpstreams(old *names) {
	for name, g := range n.groups {
		o := old.groups[name]
		if o == nil || g.group.Load() == nil || o.group.Load() == nil || g.explicit != o.explicit {
			continue
		}
		g.inheritResolved(o)
		g.group.Load().Inherit(o.group.Load())
		g.sticky.inherit(o.sticky)
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
	groups := l.c.names.groups
	if g := groups[lower(u.host)]; g != nil && g.explicit {
		if u.noPort {
			return g, nil
		}
		return nil, sayAt(d.Args[0], "", "the upstream block says the ports", "upstream %q may not have port %d", u.host, u.port)
	}
	key := implicitKey(lower(u.host), u.port)
	if g := groups[key]; g != nil {
		return g, nil
	}
	g := &upstreamBlock{name: u.host, noPort: u.noPort, port: u.port, place: d.End, keepalive: reuse()}
	groups[key] = g
	l.AtFinish(func() {
		if !u.unix && u.port == 0 {
			l.c.failLater(parser.Error, d.Args[0].Range, parser.Range{}, "", "add it: "+u.host+":9000", "no port in upstream %q in %s", u.host, placeText(d.End))
			return
		}
		addresses := u.resolve(l.c.opts.Offline)
		if len(addresses) == 0 {
			l.c.failLater(parser.Error, d.Args[0].Range, parser.Range{}, "C022", "the name cannot be resolved now; nginx needs it when it starts",
				"host not found in upstream %q in %s", u.host, placeText(d.End))
			return
		}
		g.servers = []upstreamServer{{url: *u, addresses: addresses, weight: 1, maxFails: 1, timeout: 10 * time.Second}}
		g.start(l.c, d, &l.Conf.Core.Names)
	})
	return g, nil
}
