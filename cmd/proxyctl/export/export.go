// Package export says in the words of other servers what a configuration does.
package export

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"proxyctl/proxy"
)

// Targets are the languages by name.
func Targets() []string { return []string{"caddyfile", "haproxy", "gateway-api"} }

// To writes a plan in a language. What the language has no words for comes back
// with what the plan had none for.
func To(target string, p *proxy.Plan, place func(string) string) ([]byte, []proxy.Unsaid) {
	w := &writer{place: place}
	w.unsaid = append(w.unsaid, p.Unsaid...)
	switch target {
	case "caddyfile":
		w.caddyfile(p)
	case "haproxy":
		w.haproxy(p)
	case "gateway-api":
		w.gateway(p)
	}
	slices.SortStableFunc(w.unsaid, func(a, b proxy.Unsaid) int { return proxy.ComparePlaces(a.Place, b.Place) })
	return w.Bytes(), slices.Compact(w.unsaid)
}

// writer collects lines, each with the place it comes from.
type writer struct {
	bytes.Buffer
	depth  int
	place  func(string) string
	last   string // the source that stands last in what is written
	unsaid []proxy.Unsaid
	usual  bool // a server of the Gateway API has the ports of its schemes
	late   bool // names are looked up while it serves
	hosts  int  // matchers for hosts so far
}

// line writes a line and, behind it, its source.
func (w *writer) line(place, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if place != "" {
		text += " # " + printable(w.place(place))
		w.last = place
	}
	if text != "" {
		text = strings.Repeat("\t", w.depth) + text
	}
	fmt.Fprintf(w, "%s\n", text)
}

// printable keeps a text on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// missing notes what the language has no words for.
func (w *writer) missing(directive, text, place, why string, security bool) {
	w.unsaid = append(w.unsaid, proxy.Unsaid{Directive: directive, Text: text, Place: place, Why: why, Security: security})
}

var reference = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`)

// expand puts the language's own words in the place of variables; false for a
// variable that it has no word for. literal makes other text safe.
func expand(text string, literal func(string) string, word func(name string) (string, bool)) (string, bool) {
	var b strings.Builder
	text = strings.ReplaceAll(text, "$is_args$args", "$"+addedArguments)
	last := 0
	for _, m := range reference.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(literal(text[last:m[0]]))
		name := strings.TrimLeft(text[m[0]:m[1]], "${")
		said, ok := word(strings.ToLower(strings.TrimSuffix(name, "}")))
		if !ok {
			return "", false
		}
		b.WriteString(said)
		last = m[1]
	}
	b.WriteString(literal(text[last:]))
	return b.String(), true
}

// addedArguments stands for $is_args$args.
const addedArguments = "is_args_args"

// door is an address with the servers behind it.
type door struct {
	address netip.AddrPort
	tls     bool
	servers []*proxy.PlanServer
	chosen  *proxy.PlanServer // for unknown names
}

// doors puts servers by their addresses, in the order of the file. The
// unspecified addresses of both families are one.
func doors(p *proxy.Plan) []*door {
	var out []*door
	for i := range p.Servers {
		s := &p.Servers[i]
		for _, l := range s.Listens {
			a := l.Address
			if a.Addr().IsUnspecified() {
				a = netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
			}
			var d *door
			for _, known := range out {
				if known.address == a {
					d = known
				}
			}
			if d == nil {
				d = &door{address: a}
				out = append(out, d)
			}
			d.tls = d.tls || l.TLS
			if len(d.servers) == 0 || d.servers[len(d.servers)-1] != s {
				d.servers = append(d.servers, s)
			}
			if l.Default && d.chosen == nil {
				d.chosen = s
			}
		}
	}
	return out
}

// inOrder lists the names of a door's servers in the order in which the first
// that matches is the one that counts: whole names, the longest wildcards,
// expressions.
func (d *door) inOrder() []nameOf {
	var exact, wild, regex []nameOf
	for _, s := range d.servers {
		for _, n := range s.Names {
			switch {
			case strings.HasPrefix(n, "~"):
				regex = append(regex, nameOf{n, s})
			case strings.HasPrefix(n, "."):
				exact = append(exact, nameOf{n[1:], s})
				wild = append(wild, nameOf{"*" + n, s})
			case strings.Contains(n, "*"):
				wild = append(wild, nameOf{n, s})
			case n != "" && n != "_":
				exact = append(exact, nameOf{strings.ToLower(n), s})
			}
		}
	}
	sortWildcards(wild)
	return append(append(exact, wild...), regex...)
}

type nameOf struct {
	name   string
	server *proxy.PlanServer
}

// hostPattern makes an expression for a wildcard or an expression of nginx.
func hostPattern(name string) string {
	switch {
	case strings.HasPrefix(name, "~"):
		return "(?i)" + name[1:]
	case strings.HasPrefix(name, "*."):
		return `(?i)^.+` + regexp.QuoteMeta(name[1:]) + `$`
	}
	return `(?i)^` + regexp.QuoteMeta(strings.TrimSuffix(name, "*")) + `.+$`
}

// pathPattern is the expression of a route's path.
func pathPattern(r *proxy.PlanRoute) string {
	switch r.Kind {
	case proxy.ExactLocation:
		return "^" + regexp.QuoteMeta(r.Name) + "$"
	case proxy.RegexLocation:
		if r.Caseless {
			return "(?i)" + r.Name
		}
		return r.Name
	case proxy.PrefixLocation:
		return "^" + regexp.QuoteMeta(r.Name)
	}
	return ""
}

// lost names what is given up with a route: a rule where it refuses, for without
// the route its requests would come to another.
func lost(r *proxy.PlanRoute) string {
	switch {
	case r.Deny != nil:
		return "deny"
	case r.Login != nil:
		return "auth_basic"
	case r.Answer != nil && r.Answer.Status >= 400:
		return "return"
	}
	return "location"
}

// statement names the directive that a route stands for.
func statement(r *proxy.PlanRoute) string {
	name, _, _ := strings.Cut(r.Text, " ")
	return name
}

// hasContent reports whether something answers a request that got through.
func hasContent(r *proxy.PlanRoute) bool {
	return r.Answer != nil || r.Pass != nil || r.App != nil || r.Files != nil
}

// isUpgrade tells the fields by which WebSockets are passed on: the others do so
// by themselves.
func isUpgrade(f proxy.PlanField) bool {
	switch strings.ToLower(f.Name) {
	case "upgrade":
		return strings.Contains(f.Value, "http_upgrade")
	case "connection":
		return f.Value == "" || strings.EqualFold(f.Value, "upgrade") || strings.Contains(f.Value, "upgrade")
	}
	return false
}

// sortWildcards puts longer wildcards first, those at the front of names before
// those at their end, as nginx asks them.
func sortWildcards(list []nameOf) {
	slices.SortStableFunc(list, func(a, b nameOf) int {
		front := func(n nameOf) int {
			if strings.HasPrefix(n.name, "*") {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(front(a), front(b)), cmp.Compare(len(b.name), len(a.name)))
	})
}

// isProtection tells fields by which pages are protected.
func isProtection(name string) bool {
	switch strings.ToLower(name) {
	case "strict-transport-security", "content-security-policy", "x-frame-options", "x-content-type-options", "referrer-policy", "permissions-policy":
		return true
	}
	return false
}
