package proxy

import (
	"proxyctl/parser"
	"proxyctl/proxy/upstream"
)

// The modules that choose among the servers of a group.

func upstreamHashModule() Module {
	return Module{Name: "ngx_http_upstream_hash_module", Stream: "ngx_stream_upstream_hash_module", Commands: []Command{
		{Name: "hash", In: InUpstream | InStreamUpstream, Args: "1,2", Repeat: true, Syntax: "key [consistent]", Differs: "weights are bounded, for the ring has 160 points for each unit", DiffersIn: hasWord("consistent"), Doc: "Chooses the server by the hash of a key.", Set: setHash},
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
	return Module{Name: "ngx_http_upstream_least_conn_module", Stream: "ngx_stream_upstream_least_conn_module", Commands: []Command{
		{Name: "least_conn", In: InUpstream | InStreamUpstream, Args: "0", Repeat: true, Doc: "Chooses the server with the fewest connections.", Set: func(l *Level, d *parser.Directive) error {
			l.choose(d, upstream.LeastConn, false)
			return nil
		}},
	}}
}

func upstreamLeastTimeModule() Module {
	return Module{Name: "ngx_http_upstream_least_time_module", Stream: "ngx_stream_upstream_least_time_module", Commands: []Command{
		{Name: "least_time", In: InStreamUpstream, Args: "1,2", Syntax: "connect | first_byte | last_byte [inflight]", Doc: "Chooses the server that is likely to be ready first.", Set: setLeastTime},
		{Name: "least_time", In: InUpstream, Args: "1,2", Syntax: "header | last_byte [inflight]", Doc: "Chooses the server that is likely to answer first.", Set: setLeastTime},
	}}
}

func upstreamRandomModule() Module {
	return Module{Name: "ngx_http_upstream_random_module", Stream: "ngx_stream_upstream_random_module", Commands: []Command{
		{Name: "random", In: InUpstream | InStreamUpstream, Args: "0-2", Repeat: true, Syntax: "[two [least_conn]]", Doc: "Chooses the server at random.", Set: setRandom},
	}}
}

// choose sets the load balancing method. The last one counts, and takes sticky
// away, which must stand behind it.
func (l *Level) choose(d *parser.Directive, m upstream.Method, noBackup bool) {
	g := l.Group
	if g.chosen || g.sticky != nil {
		l.warnAt(d, d.Name, "load balancing method redefined")
	}
	g.chosen, g.method, g.noBackup, g.sticky = true, m, noBackup, nil
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

func setLeastTime(l *Level, d *parser.Directive) error {
	l.choose(d, upstream.LeastTimeHeader, false)
	if len(d.Args) == 2 {
		if d.Args[1].Value != "inflight" {
			return sayAt(d.Args[1], "", `the only parameter is "inflight"`, "invalid parameter %q", d.Args[1].Value)
		}
		l.Group.inflight = true
	}
	moments := []string{"header", "last_byte"}
	if l.c.names.stream {
		moments = []string{"connect", "first_byte", "last_byte"}
	}
	i, err := parseWord(d.Args[0], moments)
	if i == len(moments)-1 {
		l.Group.method = upstream.LeastTimeLast
	}
	l.Group.byConnect = l.c.names.stream && i != 1
	return err
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
