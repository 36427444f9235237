package proxy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// locationsOf reads the locations of a server, in the order in which the first
// that matches is the one that nginx would choose.
func (p *planner) locationsOf(s *scope) []PlanRoute {
	var exact, kept, expressions, prefixes []PlanRoute
	for _, u := range s.locations() {
		l := routeOf(u)
		if l.kind == NamedLocation {
			p.unsaid(u, "named locations are not carried over")
			continue
		}
		r, ok := p.route(u.body)
		if len(u.body.locations()) > 0 {
			p.unsaid(u, "locations within locations are not carried over")
			ok = false
		}
		if !ok { // what is left out is closed: its requests must not come to another
			r = PlanRoute{Place: r.Place, Answer: &PlanAnswer{Status: 503, Place: r.Place}}
		}
		r.Kind, r.Name, r.Caseless = l.kind, l.name, l.caseless
		switch l.kind {
		case ExactLocation:
			exact = append(exact, r)
		case RegexLocation:
			expressions = append(expressions, r)
		default:
			prefixes = append(prefixes, r)
		}
	}
	exact = append(exact, bareNames(exact, prefixes)...)
	longestFirst := func(a, b PlanRoute) int { return cmp.Compare(len(b.Name), len(a.Name)) }
	slices.SortStableFunc(prefixes, longestFirst)
	if len(expressions) > 0 { // ^~ comes before them, when no longer prefix leads back
		for _, r := range prefixes {
			if r.Kind != NoRegexLocation {
				continue
			}
			kept = append(kept, r)
			if i := slices.IndexFunc(prefixes, func(o PlanRoute) bool {
				return o.Kind == PrefixLocation && len(o.Name) > len(r.Name) && strings.HasPrefix(o.Name, r.Name)
			}); i >= 0 {
				p.Unsaid = append(p.Unsaid, Unsaid{
					Directive: "location", Text: "location ^~ " + r.Name, Place: r.Place, Security: r.Deny != nil,
					Why: "a longer prefix within it asks the expressions again",
				})
			}
		}
		prefixes = slices.DeleteFunc(prefixes, func(r PlanRoute) bool { return r.Kind == NoRegexLocation })
	}
	out := slices.Concat(exact, kept, expressions, prefixes)
	for i := range out {
		if out[i].Kind == NoRegexLocation {
			out[i].Kind = PrefixLocation
		}
	}
	if !slices.ContainsFunc(prefixes, func(r PlanRoute) bool { return r.Name == "/" }) {
		if r, ok := p.route(s); ok {
			r.Kind, r.Name = PrefixLocation, "/"
			out = append(out, r)
		}
	}
	return out
}

// bareNames makes the redirects by which nginx sends /x to /x/, where that is
// passed on and nothing else takes /x.
func bareNames(exact, prefixes []PlanRoute) []PlanRoute {
	var out []PlanRoute
	for _, r := range prefixes {
		bare, slash := strings.CutSuffix(r.Name, "/")
		taken := func(o PlanRoute) bool { return o.Name == bare }
		if r.Pass == nil || !slash || bare == "" || slices.ContainsFunc(exact, taken) || slices.ContainsFunc(prefixes, taken) {
			continue
		}
		out = append(out, PlanRoute{
			Kind: ExactLocation, Name: bare, Place: r.Place,
			Answer: &PlanAnswer{Status: 301, Text: r.Name, Redirect: true, Arguments: true, Place: r.Place},
		})
	}
	return out
}

// route reads what a block does with requests; false when it has no words for it.
func (p *planner) route(s *scope) (PlanRoute, bool) {
	r := PlanRoute{Place: linePlace(s.open.Name.Range), Fields: p.fields(s, "add_header"), MaxBody: 1 << 20}
	if size, ok := parseOffset(s.setting("client_max_body_size", "1m")); ok {
		r.MaxBody = size
	}
	p.access(s, &r)
	answer := s.answers()
	for _, u := range s.own("if", "rewrite") {
		if s.in == InLocation && (answer == nil || u.Name.Range.Start < answer.Name.Range.Start) {
			p.unsaid(u, "scripts of locations are not carried over")
		}
	}
	content := s.content()
	switch {
	case answer != nil:
		if s.in == InServer {
			return r, false // said before
		}
		if r.Answer = p.answer(answer, s); r.Allow != nil || r.Deny != nil {
			r.Allow, r.Deny = nil, nil // nginx answers before it asks them
		}
	case content != nil && content.Name.Value == "proxy_pass":
		r.Pass = p.pass(content)
		return r, r.Pass != nil
	case content != nil:
		p.unsaid(content, "there is no word for it")
		return r, false
	default:
		r.Files = p.files(s)
		return r, r.Files != nil
	}
	return r, true
}

// access reads allow and deny where they come to a list of who may, or may not.
func (p *planner) access(s *scope, r *PlanRoute) {
	outer := s
	for outer != nil && outer.own("allow", "deny") == nil {
		outer = outer.up
	}
	if outer == nil {
		return
	}
	closed := false
	for _, u := range outer.own("allow", "deny") {
		who := u.arg(0)
		switch {
		case who == "unix:" || closed || u.Name.Value == "allow" && r.Deny != nil && who != "all":
			p.unsaid(u, "the order of these rules has no equivalent")
		case u.Name.Value == "allow" && who == "all":
			closed = true
		case u.Name.Value == "allow":
			r.Allow = append(r.Allow, who)
		case who == "all":
			r.Deny, closed = append(r.Deny, who), true
		case r.Allow != nil:
			p.unsaid(u, "the order of these rules has no equivalent")
		default:
			r.Deny = append(r.Deny, who)
		}
	}
	if slices.Contains(r.Deny, "all") && len(r.Deny) > 1 {
		r.Deny = []string{"all"}
	}
	if !slices.Contains(r.Deny, "all") {
		r.Allow = nil // everybody is
	}
}

// pass reads a proxy_pass.
func (p *planner) pass(u *use) *PlanPass {
	t := targetOf(u.arg(0))
	if strings.Contains(u.arg(0), "$") || t.host == "unix" {
		p.unsaid(u, "the server must be named, by an address or a host")
		return nil
	}
	out := &PlanPass{Name: hostPort(t), TLS: t.scheme == "https", Replace: t.uri != "", Path: t.uri, Place: linePlace(u.Name.Range)}
	out.Verify = u.in.setting("proxy_ssl_verify", "off") == "on"
	port := map[bool]string{false: "80", true: "443"}[out.TLS]
	if group := p.upstreams()[lower(t.host)]; group != nil {
		p.group(out, group, port)
	} else {
		if t.port == "" {
			t.port = port
		}
		out.Servers = []PlanTarget{{Address: t.host + ":" + t.port, Weight: 1, Place: out.Place}}
	}
	out.Fields = p.fields(u.in, "proxy_set_header")
	if !slices.ContainsFunc(out.Fields, func(f PlanField) bool { return strings.EqualFold(f.Name, "Host") }) {
		out.Fields = append(out.Fields, PlanField{"Host", out.Name, out.Place})
	}
	return out
}

// group reads an upstream block.
func (p *planner) group(out *PlanPass, group *use, port string) {
	for _, u := range group.body.uses {
		switch u.Name.Value {
		case "server":
			t := PlanTarget{Address: u.arg(0), Weight: 1, Place: linePlace(u.Name.Range)}
			if at := targetOf(u.arg(0)); at.host == "unix" {
				p.unsaid(u, "sockets of the file system are not carried over")
				continue
			} else if at.port == "" {
				t.Address += ":" + port
			}
			down := false
			for i := 1; i < len(u.Args); i++ {
				word, value, _ := strings.Cut(u.arg(i), "=")
				switch word {
				case "weight":
					t.Weight, _ = strconv.Atoi(value)
				case "backup":
					t.Backup = true
				case "down":
					down = true
				case "max_fails", "fail_timeout", "resolve":
				default:
					p.unsaid(u, word+" has no equivalent")
				}
			}
			if !down {
				out.Servers = append(out.Servers, t)
			}
		case "ip_hash", "least_conn":
			out.Balanced = u.Name.Value
		case "hash", "random", "least_time":
			p.unsaid(u, "this way to choose is not carried over")
		}
	}
}

// files reads what serves files.
func (p *planner) files(s *scope) *PlanFiles {
	root := s.inherited("root")
	f := &PlanFiles{Root: "html", Index: []string{"index.html"}, Last: "=404", Place: linePlace(s.open.Name.Range)}
	if root != nil {
		f.Root, f.Place = root[0].arg(0), linePlace(root[0].Name.Range)
	}
	if strings.Contains(f.Root, "$") {
		p.unsaid(root[0], "the folder must be named")
		return nil
	}
	if list := s.inherited("index"); list != nil {
		f.Index = nil
		for i := range list[0].Args {
			f.Index = append(f.Index, list[0].arg(i))
		}
	}
	t := s.one("try_files")
	if t == nil {
		return f
	}
	f.Place = linePlace(t.Name.Range)
	last := len(t.Args) - 1
	for i := range last {
		if a := t.arg(i); a != "$uri" && a != "$uri/" {
			p.unsaid(t, "only $uri, $uri/ and a last resort are carried over")
			return nil
		}
	}
	if f.Last = t.arg(last); f.Last != "=404" && (!strings.HasPrefix(f.Last, "/") || strings.Contains(f.Last, "$")) {
		p.unsaid(t, "the last resort must be a path or =404")
		return nil
	}
	return f
}
