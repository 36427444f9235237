package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"os"
	"slices"
	"strings"
)

// locationsOf reads the locations of a server, in the order in which the first
// that matches is the one that nginx would choose.
func (p *planner) locationsOf(s *scope) []PlanRoute {
	l := p.level(s, false)
	out := append(l.final, l.rest...)
	if !slices.ContainsFunc(s.locations(), func(u *use) bool { o := routeOf(u); return o.kind.isPrefix() && o.name == "/" }) {
		r, _, ok := p.route(s)
		if !ok {
			r = closed(s.open, 503)
			r.Closed = true
		}
		if s.one("return") == nil { // else nothing gets here
			r.Kind, r.Name = PrefixLocation, "/"
			out = append(out, r)
		}
	}
	return out
}

// level is what the locations of a block come to: those whose choice stands, and
// those that count when no expression of the blocks around matches.
type level struct{ final, rest []PlanRoute }

// level reads them; asked says that expressions around are asked afterwards.
func (p *planner) level(s *scope, asked bool) level {
	var out level
	var prefixes []*use
	expressions := slices.ContainsFunc(s.locations(), func(u *use) bool { return routeOf(u).kind == RegexLocation })
	for _, u := range s.locations() {
		switch l := routeOf(u); l.kind {
		case ExactLocation:
			out.final = append(out.final, p.routes(u)...)
		case PrefixLocation, NoRegexLocation:
			prefixes = append(prefixes, u)
		case NamedLocation:
			p.named(u)
		case RegexLocation, Nameless:
		}
	}
	slices.SortStableFunc(prefixes, func(a, b *use) int { return cmp.Compare(len(routeOf(b).name), len(routeOf(a).name)) })
	out.final = append(out.final, bareNames(out.final, prefixes)...)
	for i, u := range prefixes {
		l := routeOf(u)
		own := p.routes(u)
		inner := p.level(u.body, asked || expressions && l.kind != NoRegexLocation)
		longer := func(keep func(LocationKind) bool) []string {
			var names []string
			for _, o := range prefixes[:i] {
				if other := routeOf(o); strings.HasPrefix(other.name, l.name) && keep(other.kind) {
					names = append(names, other.name)
				}
			}
			return names
		}
		for _, r := range inner.final {
			if r.Kind != ExactLocation {
				r.Within = cmp.Or(r.Within, l.name)
				r.Except = append(slices.Clone(r.Except), longer(LocationKind.isPrefix)...)
			}
			out.final = append(out.final, r)
		}
		own = append(inner.rest, own...)
		switch {
		case !expressions || l.kind != NoRegexLocation:
			out.rest = append(out.rest, own...)
		case asked:
			p.unsaid(u, "^~ in a location that expressions are asked after is not carried over")
			out.rest = append(out.rest, own...)
		default: // it comes before them, where no longer prefix leads back
			for _, r := range own {
				r.Except = append(slices.Clone(r.Except), longer(func(k LocationKind) bool { return k == PrefixLocation })...)
				out.final = append(out.final, r)
			}
		}
	}
	for _, u := range s.locations() {
		if l := routeOf(u); l.kind == RegexLocation {
			inner := p.level(u.body, false)
			op := "~"
			if l.caseless {
				op = "~*"
			}
			for _, r := range append(inner.final, inner.rest...) {
				r.When = append([]PlanCondition{{Variable: "uri", Op: op, Value: l.name, Place: linePlace(u.Name.Range), Outer: true}}, r.When...)
				out.final = append(out.final, r)
			}
			out.final = append(out.final, p.routes(u)...)
		}
	}
	return out
}

func (k LocationKind) isPrefix() bool { return k == PrefixLocation || k == NoRegexLocation }

// routes reads one location: what conditions single out, then the rest.
func (p *planner) routes(u *use) []PlanRoute {
	l := routeOf(u)
	var out []PlanRoute
	if i := u.body.one("internal"); i != nil {
		p.hidden = append(p.hidden, i)
		r := closed(u, 404)
		r.Fields = p.fields(u.body, "add_header")
		out = []PlanRoute{r}
	} else if r, before, ok := p.route(u.body); ok {
		out = append(before, r)
	} else { // what is left out is closed: its requests must not come to another
		r := closed(u, 503)
		r.Closed = true
		out = []PlanRoute{r}
	}
	for i := range out {
		out[i].Kind, out[i].Name, out[i].Caseless = l.kind, l.name, l.caseless
		if l.kind == NoRegexLocation {
			out[i].Kind = PrefixLocation
		}
	}
	return out
}

// closed is a route that nobody gets through.
func closed(u *use, status int) PlanRoute {
	place := linePlace(u.Name.Range)
	return PlanRoute{Text: u.said(), Place: place, Answer: &PlanAnswer{Status: status, Place: place}}
}

// named looks at a named location: what leads to it reads it.
func (p *planner) named(u *use) {
	if u.body.one("internal") != nil {
		return
	}
	for _, o := range p.all("try_files") {
		if o.in.around(InServer) == u.in.around(InServer) && o.arg(len(o.Args)-1) == u.arg(0) {
			return
		}
	}
	p.unsaid(u, "only try_files leads to named locations here")
}

// bareNames makes the redirects by which nginx sends /x to /x/, where that is
// passed on and nothing else takes /x.
func bareNames(exact []PlanRoute, prefixes []*use) []PlanRoute {
	var out []PlanRoute
	for _, u := range prefixes {
		l := routeOf(u)
		bare, slash := strings.CutSuffix(l.name, "/")
		if c := u.body.content(); c == nil || !strings.HasSuffix(c.Name.Value, "_pass") || !slash || bare == "" {
			continue
		}
		taken := slices.ContainsFunc(exact, func(o PlanRoute) bool { return o.Name == bare }) ||
			slices.ContainsFunc(prefixes, func(o *use) bool { return routeOf(o).name == bare })
		if taken {
			continue
		}
		place := linePlace(u.Name.Range)
		out = append(out, PlanRoute{
			Kind: ExactLocation, Name: bare, Text: u.said(), Place: place,
			Answer: &PlanAnswer{Status: 301, Text: l.name, Redirect: true, Arguments: true, Place: place},
		})
	}
	return out
}

// route reads what a block does with requests, and with those that conditions
// single out; false when it has no words for it.
func (p *planner) route(s *scope) (PlanRoute, []PlanRoute, bool) {
	r := PlanRoute{Text: s.open.said(), Place: linePlace(s.open.Name.Range), Fields: p.fields(s, "add_header"), MaxBody: 1 << 20}
	if size, ok := parseOffset(s.setting("client_max_body_size", "1m")); ok {
		r.MaxBody = size
	}
	var before []PlanRoute
	var variant *PlanRoute
	if s.in == InServer {
		if s.one("return") != nil {
			return r, nil, true // said before
		}
	} else {
		script, ok := p.scriptOf(s)
		if !ok {
			return r, nil, false
		}
		before, r.Rewrite, variant = script.routes, script.rewrite, script.variant
		if script.answer != nil { // before anybody is asked who he is
			r.Answer = script.answer
			return r, before, true
		}
		limits, ok := p.limited(s)
		if !ok {
			return r, nil, false
		}
		before = append(before, limits...)
	}
	p.access(s, &r)
	if r.refusesAll() { // nobody gets further
		return r, before, true
	}
	r.Login = p.login(s)
	r.Compress = p.compression(s)
	if !p.answers(s, &r) {
		return r, nil, false
	}
	if variant != nil { // the same with other fields
		other := r
		other.When, other.Fields, other.Text, other.Place = variant.When, variant.Fields, variant.Text, variant.Place
		before = append(before, other)
	}
	return r, before, true
}

// refusesAll tells a route that lets nobody in.
func (r *PlanRoute) refusesAll() bool {
	return r.Allow == nil && slices.Contains(r.Deny, "all")
}

// answers reads who answers.
func (p *planner) answers(s *scope, r *PlanRoute) bool {
	content := s.content()
	if content != nil && (content.Name.Value == "proxy_pass" || content.Name.Value == "fastcgi_pass") {
		return p.passes(s, content, r)
	}
	switch {
	case content != nil:
		p.unsaid(content, "there is no word for it")
		return false
	case r.Rewrite != nil:
		p.unsaid(s.one("rewrite"), "files under another name are not carried over")
		return false
	}
	if _, err := os.Stat(p.folder(s)); err != nil && s.inherited("root") == nil && s.inherited("alias") == nil && s.one("try_files") == nil {
		r.Answer = &PlanAnswer{Status: 404, Place: r.Place} // nginx's own folder, which is not there
		return true
	}
	r.Files = p.files(s)
	return r.Files != nil
}

// passes reads how a request is passed on.
func (p *planner) passes(s *scope, content *use, r *PlanRoute) bool {
	t := s.one("try_files")
	if content.Name.Value == "proxy_pass" {
		if r.Pass = p.pass(content); t != nil {
			p.unsaid(t, "before a request is passed on, files are not looked for: a named location could do it")
			return false
		}
		if r.Pass != nil && r.Rewrite != nil && (r.Pass.Replace || r.Pass.Whole) {
			p.unsaid(s.one("rewrite"), "both this and proxy_pass would change the path")
			return false
		}
		return r.Pass != nil
	}
	r.App = p.app(content)
	return r.App != nil
}

// login reads auth_basic.
func (p *planner) login(s *scope) *PlanLogin {
	realm := s.inherited("auth_basic")
	file := s.inherited("auth_basic_user_file")
	if realm == nil || file == nil || realm[0].arg(0) == "off" {
		return nil
	}
	out := &PlanLogin{Realm: realm[0].arg(0), Place: linePlace(realm[0].Name.Range)}
	if strings.Contains(out.Realm+file[0].arg(0), "$") {
		p.unsaid(realm[0], "realm and file must be named")
		return out
	}
	text, err := os.ReadFile(p.opts.confRelative(file[0].arg(0)))
	if err != nil {
		p.unsaid(file[0], SystemError("open()", file[0].arg(0), err).Error())
		return out
	}
	place := linePlace(file[0].Name.Range)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		if hash, _, _ := strings.Cut(rest, ":"); ok && !strings.HasPrefix(name, "#") {
			out.Users = append(out.Users, PlanUser{name, hash, place})
		}
	}
	return out
}

// compression reads gzip.
func (p *planner) compression(s *scope) *PlanCompression {
	list := s.inherited("gzip")
	if list == nil || list[0].arg(0) != "on" {
		return nil
	}
	out := &PlanCompression{
		Level: s.setting("gzip_comp_level", "1"), Least: s.setting("gzip_min_length", "20"),
		Types: []string{"text/html"}, Place: linePlace(list[0].Name.Range),
	}
	if types := s.inherited("gzip_types"); types != nil {
		for i := range types[0].Args {
			if t := types[0].arg(i); !slices.Contains(out.Types, t) {
				out.Types = append(out.Types, t)
			}
		}
	}
	return out
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
