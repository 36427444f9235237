package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/resolver"
	"proxyctl/proxy/upstream"
)

// ngx_http_upstream_zone_module: the zone that holds the state of a group, and
// the servers of it whose names are resolved again and again while serving. The
// group in use is replaced when addresses change; exchanges end under the one
// they began with, unlike nginx, where they get no other server then.

func upstreamZoneModule() Module {
	return Module{Name: "ngx_http_upstream_zone_module", Stream: "ngx_stream_upstream_zone_module", Commands: []Command{
		{Name: "zone", In: InUpstream | InStreamUpstream, Args: "1,2", Repeat: true, Syntax: "name [size]", Doc: "Names the zone that holds the state of the group; one process needs no shared memory.", Set: setUpstreamZone},
	}}
}

// minZoneSize is eight pages.
const minZoneSize = 8 * 4096

func setUpstreamZone(l *Level, d *parser.Directive) error {
	name, size := d.Args[0].Value, int64(0)
	if name == "" {
		return sayAt(d.Args[0], "", "", "invalid zone name %q", name)
	}
	if len(d.Args) == 2 {
		var ok bool
		if size, ok = parseSize(d.Args[1].Value); !ok {
			return sayAt(d.Args[1], "Y009", "sizes are digits and end in k or m", "invalid zone size %q", d.Args[1].Value)
		}
		if size < minZoneSize {
			return sayAt(d.Args[1], "", "at least 32k", "zone %q is too small", name)
		}
	}
	l.Group.zone = name
	return l.sharedZone(d.Args[0], name, size, l.c.names.use("upstream"))
}

// resolving is a server whose name is resolved while serving.
type resolving struct {
	server *upstreamServer // what its addresses have in common
	names  nameService

	// upstreamBlock.mu guards the rest.
	peers []upstream.Peer // found so far
	valid int64           // until when they count, in seconds
}

// checkResolving says whether names can be resolved at all.
func (g *upstreamBlock) checkResolving(c *compiler, d *parser.Directive, level *nameService) bool {
	problem, hint := "", ""
	if g.names.resolver == nil {
		g.names.resolver = level.resolver
	}
	if !g.names.given {
		g.names.timeout = level.timeout
	}
	switch place := placeText(g.place); {
	case len(g.resolving) == 0:
		return true
	case g.zone == "":
		problem = "resolving names at run time requires upstream \"" + g.name + "\" in " + place + " to be in shared memory"
		hint = "add a zone: zone " + g.name + " 64k;"
	case g.names.resolver == nil:
		problem = "no resolver defined to resolve names at run time in upstream \"" + g.name + "\" in " + place
		hint = "add a resolver to the block or to http"
	default:
		for _, r := range g.resolving {
			r.names = g.names
		}
		return true
	}
	c.failLater(parser.Error, d.Args[0].Range, parser.Range{}, "", hint, "%s", problem)
	return false
}

// beginResolving keeps the addresses of names up to date until the table is
// closed.
func (g *upstreamBlock) beginResolving(t *Table) {
	if len(g.resolving) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.onClose(cancel)
	t.onServe(func() {
		for _, r := range g.resolving {
			go g.keepResolved(ctx, t, r)
		}
	})
}

func (g *upstreamBlock) keepResolved(ctx context.Context, t *Table, r *resolving) {
	g.mu.Lock()
	wait := max(0, time.Until(time.Unix(r.valid, 0)))
	g.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = g.resolveAgain(ctx, t, r)
	}
}

// resolveAgain resolves a name and takes over what it stands for now. It says
// when to do so again. A failure other than that there is no such name leaves
// everything as it was.
func (g *upstreamBlock) resolveAgain(ctx context.Context, t *Table, r *resolving) time.Duration {
	found, err := r.find(ctx)
	if ctx.Err() != nil {
		return 0
	}
	s := r.server
	log := t.Main.ErrorLog
	for _, f := range found.Failed {
		log.logf(logError, "%s could not be resolved (%s) while resolving service %s of %s", f.Name, f.Err, s.service, s.url.host)
	}
	switch {
	case err != nil && s.service != "":
		log.logf(logError, "service %s of %s could not be resolved (%s)", s.service, s.url.host, err)
	case err != nil:
		log.logf(logError, "%s could not be resolved (%s)", s.url.host, err)
	}
	if err != nil && !errors.Is(err, resolver.NotFound) {
		return max(r.names.timeout, time.Second)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.valid = found.Valid
	if peers := r.merge(found.Targets, g.noBackup); !slices.EqualFunc(peers, r.peers, samePeer) {
		r.peers = peers
		if err := g.renew(); err != nil {
			log.logf(logError, "%s in upstream %q", err, g.name)
		}
	}
	return max(time.Until(time.Unix(found.Valid+1, 0)), time.Second)
}

// find asks for the addresses of the name, or for the servers of the service.
func (r *resolving) find(ctx context.Context) (resolver.Service, error) {
	limited := func() (context.Context, context.CancelFunc) { return r.names.context(ctx) }
	s := r.server
	if s.service != "" {
		return r.names.resolver.Service(limited, s.service, s.url.host)
	}
	once, cancel := limited()
	defer cancel()
	return r.names.resolver.Addresses(once, s.url.host, s.url.port)
}

// merge makes peers of what was found. Those that there were keep their place.
// Only servers of a service have a weight and a priority of their own: all but
// those of the first priority are backup servers.
func (r *resolving) merge(found []resolver.Target, noBackup bool) []upstream.Peer {
	s := r.server
	first := 0
	if len(found) > 0 {
		first = found[0].Priority
	}
	var fresh []upstream.Peer
	for _, t := range found {
		a := inetAddress(t.Address.Addr(), t.Address.Port())
		p := s.peer(a)
		if s.service != "" {
			p.Server = t.Name
			if s.weight == 1 {
				p.Weight = t.Weight
			}
			if t.Priority != first {
				if s.backup || noBackup {
					continue
				}
				p.Backup = true
			}
		}
		fresh = append(fresh, p)
	}
	var kept []upstream.Peer
	for _, p := range r.peers {
		if i := slices.IndexFunc(fresh, func(q upstream.Peer) bool { return samePeer(p, q) }); i >= 0 {
			kept = append(kept, p)
			fresh = slices.Delete(fresh, i, i+1)
		}
	}
	return append(kept, fresh...)
}

// samePeer compares what can differ between peers of one server.
func samePeer(p, q upstream.Peer) bool {
	return p.Address == q.Address && p.Server == q.Server && p.Weight == q.Weight && p.Backup == q.Backup
}

// renew puts the group together anew. The caller holds g.mu.
func (g *upstreamBlock) renew() error {
	peers := slices.Clone(g.fixed)
	for _, r := range g.resolving {
		peers = append(peers, r.peers...)
	}
	group, err := g.group.Load().Renew(peers)
	if err != nil {
		return err
	}
	g.group.Store(group)
	return nil
}

// inheritResolved takes over what names stood for in the table that was in use
// before, until they are resolved again.
func (g *upstreamBlock) inheritResolved(old *upstreamBlock) {
	if g.zone != old.zone || len(g.resolving) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old.mu.Lock()
	defer old.mu.Unlock()
	for _, r := range g.resolving {
		for _, o := range old.resolving {
			if r.server.service != o.server.service || r.server.url.host != o.server.url.host {
				continue
			}
			r.valid = o.valid
			r.peers = r.adopt(o)
			break
		}
	}
	_ = g.renew() // should it fail, the names are resolved soon
}

// adopt gives the addresses of another server the settings of r.
func (r *resolving) adopt(o *resolving) []upstream.Peer {
	var out []upstream.Peer
	for _, p := range o.peers {
		at, err := netip.ParseAddrPort(p.Address)
		if err != nil {
			continue
		}
		port := at.Port()
		if r.server.service == "" {
			port = r.server.url.port
		}
		n := r.server.peer(inetAddress(at.Addr(), port))
		if r.server.service != "" {
			n.Server, n.Backup = p.Server, p.Backup
			if r.server.weight == 1 {
				n.Weight = p.Weight
			}
		}
		out = append(out, n)
	}
	return out
}
