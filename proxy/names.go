package proxy

import "slices"

// names is what a configuration defines by name. The http and the stream block
// have one each: neither knows the variables, upstreams, formats of logs and
// addresses of the other.
type names struct {
	stream    bool
	vars      *variables
	groups    map[string]*upstreamBlock
	formats   map[string]*logFormat
	endpoints map[string]*endpoint // the addresses of the listen directives read so far
}

func newNames(stream bool) *names {
	return &names{
		stream: stream, vars: newVariables(), groups: map[string]*upstreamBlock{},
		formats: map[string]*logFormat{}, endpoints: map[string]*endpoint{},
	}
}

// use names what a zone is for: those of http and stream are not the same.
func (n *names) use(what string) string {
	if n.stream {
		return "stream " + what
	}
	return what
}

// allGroups gives the groups of both blocks.
func (t *Table) allGroups() []*upstreamBlock {
	var out []*upstreamBlock
	for _, n := range []*names{t.http, t.stream} {
		for _, g := range n.groups {
			out = append(out, g)
		}
	}
	return out
}

// allServers gives the servers of both blocks.
func (t *Table) allServers() []*Server { return slices.Concat(t.Servers, t.Sessions) }

// names gives the names that the exchange's configuration knows.
func (x *Exchange) names() *names {
	if x.session != nil {
		return x.table.stream
	}
	return x.table.http
}
