package proxy

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"proxyctl/parser"
)

// The form of geo that has ranges of IPv4 addresses. As in nginx, they are kept
// by the upper half of the address, so a range is several ones to its rules of
// what may overlap.

// geoRange is a range of lower halves.
type geoRange struct {
	start, end uint32
	value      []byte
}

// inRange looks an address up.
func (g *geoMap) inRange(addr netip.Addr) []byte {
	if !addr.Is4() {
		addr = noAddress
	}
	n := ipv4Number(addr)
	list := g.ranges[n>>16]
	i := sort.Search(len(list), func(i int) bool { return list[i].end >= n&0xffff })
	if i < len(list) && list[i].start <= n&0xffff {
		return list[i].value
	}
	return g.byDefault
}

func ipv4Number(addr netip.Addr) uint32 {
	b := addr.As4()
	return binary.BigEndian.Uint32(b[:])
}

// rangeEntry reads a line (ngx_http_geo_range).
func (b *geoBuilder) rangeEntry(e *parser.Directive) error {
	value := []byte(e.Args[0].Value)
	if e.Name.Value == "default" {
		if b.hasDefault {
			b.level.warnAt(e, e.Name, "duplicate default geo range value: \"%s\", old value: \"%s\"", value, b.byDefault)
		}
		b.byDefault, b.hasDefault = value, true
		return nil
	}
	net, remove := e.Name, e.Name.Value == "delete"
	if remove {
		net = e.Args[0]
	}
	start, end, ok := parseRange4(net.Value)
	if !ok {
		return sayAt(net, "Y009", "10.0.0.0-10.0.0.255", "invalid range \"%s\"", net.Value)
	}
	missing := false
	for h := start >> 16; h <= end>>16; h++ {
		r := geoRange{start: 0, end: 0xffff, value: value}
		if h == start>>16 {
			r.start = start & 0xffff
		}
		if h == end>>16 {
			r.end = end & 0xffff
		}
		if remove {
			missing = !b.removeRange(h, r) || missing
			continue
		}
		if err := b.addRange(e, h, r); err != nil {
			return err
		}
	}
	if missing {
		b.level.warnAt(e, net, "no address range \"%s\" to delete", net.Value)
	}
	return nil
}

// parseRange4 reads two addresses of IPv4.
func parseRange4(s string) (start, end uint32, ok bool) {
	from, to, dash := strings.Cut(s, "-")
	a, okFrom := parseIP([]byte(from))
	b, okTo := parseIP([]byte(to))
	if !dash || !okFrom || !okTo || !a.Is4() || !b.Is4() || a == noAddress || b == noAddress {
		return 0, 0, false
	}
	start, end = ipv4Number(a), ipv4Number(b)
	return start, end, start <= end
}

// addRange enters a range; it may lie inside of one that is there, which is cut
// then, but not across its ends.
func (b *geoBuilder) addRange(e *parser.Directive, h uint32, r geoRange) error {
	list := b.ranges[h]
	i := sort.Search(len(list), func(i int) bool { return list[i].end >= r.start })
	if i == len(list) || r.end < list[i].start {
		b.ranges[h] = slices.Insert(list, i, r)
		return nil
	}
	// the last one that it touches is the one that nginx looks at
	for i+1 < len(list) && list[i+1].start <= r.end {
		i++
	}
	old := list[i]
	if r.start == old.start && r.end == old.end {
		b.level.warnAt(e, e.Name, "duplicate range \"%s\", value: \"%s\", old value: \"%s\"", e.Name.Value, r.value, old.value)
		list[i].value = r.value
		return nil
	}
	if r.start < old.start || r.end > old.end {
		return sayAt(e.Name, "", "", "range \"%s\" overlaps \"%d.%d.%d.%d-%d.%d.%d.%d\"", e.Name.Value,
			h>>8, h&0xff, old.start>>8, old.start&0xff, h>>8, h&0xff, old.end>>8, old.end&0xff)
	}
	pieces := []geoRange{r}
	if old.start < r.start {
		pieces = slices.Insert(pieces, 0, geoRange{old.start, r.start - 1, old.value})
	}
	if old.end > r.end {
		pieces = append(pieces, geoRange{r.end + 1, old.end, old.value})
	}
	b.ranges[h] = slices.Replace(list, i, i+1, pieces...)
	return nil
}

// removeRange removes a range; false when there is none like it.
func (b *geoBuilder) removeRange(h uint32, r geoRange) bool {
	list := b.ranges[h]
	i := slices.IndexFunc(list, func(o geoRange) bool { return o.start == r.start && o.end == r.end })
	if i < 0 {
		return false
	}
	b.ranges[h] = slices.Delete(list, i, i+1)
	return true
}
