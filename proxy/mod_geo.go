package proxy

import (
	"bytes"
	"net/netip"
	"slices"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_geo_module: variables whose values depend on an address. Ranges are
// in mod_geo_range.go.

func geoModule() Module {
	return Module{
		Name: "ngx_http_geo_module", Stream: "ngx_stream_geo_module",
		Commands: []Command{{
			Name: "geo", In: InHTTP | InStream, Args: "1,2", Block: true, Repeat: true, Syntax: "[$address] $variable",
			Doc: "Defines a variable whose value depends on an address.", Set: setGeo,
		}},
	}
}

// geoMap is a geo block. It is never written after compiling.
type geoMap struct {
	address   *variable // nil: that of the client
	proxies   []netip.Prefix
	recursive bool

	networks map[netip.Prefix][]byte
	lengths  [2][]int // of the networks of IPv4 and of IPv6, the longest first

	ranges    map[uint32][]geoRange // by the upper half of the address; nil without "ranges"
	byDefault []byte
}

// geoBuilder reads the lines of a geo block.
type geoBuilder struct {
	*geoMap
	level      *Level
	v          *variable
	hasDefault bool
}

func setGeo(l *Level, d *parser.Directive) error {
	var names []string
	for _, a := range d.Args {
		name, err := variableName(a)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	g := &geoMap{networks: map[netip.Prefix][]byte{}}
	if len(names) == 2 {
		g.address = l.c.names.vars.use(names[0])
	}
	v, err := l.addVariable(names[len(names)-1], g.fill)
	if err != nil {
		return err
	}
	v.volatile = false
	b := &geoBuilder{geoMap: g, level: l, v: v}
	l.Entries(d, b.entry)
	for p := range g.networks {
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		if !slices.Contains(g.lengths[family], p.Bits()) {
			g.lengths[family] = append(g.lengths[family], p.Bits())
		}
	}
	for i := range g.lengths {
		slices.Sort(g.lengths[i])
		slices.Reverse(g.lengths[i])
	}
	return nil
}

// entry reads a line: a network and a value, or a word that changes how the
// block works (ngx_http_geo).
func (b *geoBuilder) entry(e *parser.Directive) error {
	key := e.Name.Value
	if len(e.Args) == 0 {
		switch key {
		case "ranges":
			if len(b.networks) > 0 {
				return sayAt(e.Name, "", "", "the \"ranges\" directive must be the first directive inside \"geo\" block")
			}
			b.ranges = map[uint32][]geoRange{}
			return nil
		case "proxy_recursive":
			if b.http() {
				b.recursive = true
				return nil
			}
		case "volatile":
			b.v.volatile = true
			return nil
		}
	}
	if len(e.Args) != 1 {
		return sayAt(e.Name, "Y007", "a line is: network value;", "invalid number of the geo parameters")
	}
	switch {
	case key == "proxy" && b.http():
		p, err := b.network(e, e.Args[0])
		b.proxies = append(b.proxies, p)
		return err
	case b.ranges != nil:
		return b.rangeEntry(e)
	case key == "default":
		value := []byte(e.Args[0].Value)
		b.add(e, netip.PrefixFrom(netip.IPv4Unspecified(), 0), value)
		b.add(e, netip.PrefixFrom(netip.IPv6Unspecified(), 0), value)
		return nil
	case key == "delete":
		p, err := b.network(e, e.Args[0])
		if _, has := b.networks[p]; err == nil && !has {
			b.level.warnAt(e, e.Args[0], "no network \"%s\" to delete", e.Args[0].Value)
		}
		delete(b.networks, p)
		return err
	}
	p, err := b.network(e, e.Name)
	if err != nil {
		return err
	}
	b.add(e, p, []byte(e.Args[0].Value))
	return nil
}

// http says whether there are proxies to be trusted: sessions have none.
func (b *geoBuilder) http() bool { return !b.level.c.names.stream }

// add enters a network; the last of several values counts.
func (b *geoBuilder) add(e *parser.Directive, p netip.Prefix, value []byte) {
	if old, has := b.networks[p]; has {
		b.level.warnAt(e, e.Name, "duplicate network \"%s\", value: \"%s\", old value: \"%s\"", e.Name.Value, value, old)
	}
	b.networks[p] = value
}

func (b *geoBuilder) network(e *parser.Directive, a parser.Arg) (netip.Prefix, error) {
	if a.Value == "255.255.255.255" { // without a mask geo takes it, unlike access
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32), nil
	}
	p, exact, ok := parseCIDR(a.Value)
	if !ok {
		return p, sayAt(a, "Y009", "an address or address/bits", "invalid network \"%s\"", a.Value)
	}
	if !exact {
		b.level.warnAt(e, a, "low address bits of %s are meaningless", a.Value)
	}
	return p, nil
}

// noAddress is what stands for an address that there is not (INADDR_NONE).
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// fill computes the variable.
func (g *geoMap) fill(x *Exchange, s *slot) {
	s.state = slotFilling
	addr := g.from(x)
	if !addr.IsValid() {
		addr = noAddress
	}
	s.value, s.state = g.find(addr.Unmap()), slotSet
}

// find looks an address up: the longest network that has it.
func (g *geoMap) find(addr netip.Addr) []byte {
	if g.ranges != nil {
		return g.inRange(addr)
	}
	family := 0
	if addr.Is6() {
		family = 1
	}
	for _, n := range g.lengths[family] {
		if p, err := addr.Prefix(n); err == nil {
			if v, has := g.networks[p]; has {
				return v
			}
		}
	}
	return nil
}

// from gives the address to look up; behind trusted proxies it is the one that
// they forward.
func (g *geoMap) from(x *Exchange) netip.Addr {
	addr := x.RemoteAddr()
	if g.address != nil {
		b, found := g.address.get(x.borrow(), x)
		addr, _ = parseIP(b)
		x.giveBack(b)
		if !found {
			return netip.Addr{}
		}
	}
	if len(g.proxies) == 0 || !addr.IsValid() {
		return addr
	}
	for i := len(x.Req.Fields) - 1; i >= 0; i-- {
		f := &x.Req.Fields[i]
		if f.ID != http1.XForwardedFor {
			continue
		}
		for list := f.Value; ; {
			if !g.trusts(addr) {
				return addr
			}
			list = bytes.TrimRight(list, " ,")
			start := bytes.LastIndexAny(list, " ,") + 1
			next, ok := parseAddrPort(list[start:])
			if !ok {
				return addr
			}
			if addr = next.Addr(); !g.recursive {
				return addr
			}
			if list = list[:start]; start == 0 {
				break
			}
		}
	}
	return addr
}

func (g *geoMap) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(g.proxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}
