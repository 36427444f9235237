package proxy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// Rules about which location takes which URI, and what it then serves.

func locationRules() []lintRule {
	return []lintRule{
		{"C002", (*linter).unreachableLocation},
		{"C003", (*linter).unreachableAfterReturn},
		{"C004", (*linter).serverReturn},
		{"C009", (*linter).tryFilesStatus},
		{"C010", (*linter).tryFilesAlias},
		{"C024", (*linter).errorPageMissing},
		{"C025", (*linter).rootRepeats},
		{"C031", (*linter).regexTakesOver},
		{"C032", (*linter).prefixLikeRegex},
	}
}

// stated is a location's modifier and name.
type stated struct {
	kind     LocationKind
	name     string
	caseless bool
}

func routeOf(u *use) stated {
	modifier, name := "", u.arg(len(u.Args)-1)
	if len(u.Args) == 2 {
		modifier = u.arg(0)
	} else {
		modifier, name = splitModifier(name)
	}
	switch modifier {
	case "=":
		return stated{kind: ExactLocation, name: name}
	case "^~":
		return stated{kind: NoRegexLocation, name: name}
	case "~", "~*":
		return stated{RegexLocation, name, modifier == "~*"}
	}
	if strings.HasPrefix(name, "@") {
		return stated{kind: NamedLocation, name: name}
	}
	return stated{kind: PrefixLocation, name: name}
}

// locations gives the location blocks of a level.
func (s *scope) locations() []*use {
	var out []*use
	for _, u := range s.own("location") {
		if u.body != nil && len(u.Args) > 0 {
			out = append(out, u)
		}
	}
	return out
}

// locate finds the block that serves a URI: a location, or the server itself
// (ngx_http_core_find_location).
func (l *linter) locate(level *scope, uri string) *scope {
	if s, _ := l.search(level, uri); s != nil {
		return s
	}
	return level
}

func (l *linter) search(level *scope, uri string) (best *scope, final bool) {
	longest, noRegex := -1, false
	for _, u := range level.locations() {
		switch r := routeOf(u); r.kind {
		case ExactLocation:
			if r.name == uri {
				return u.body, true
			}
		case PrefixLocation, NoRegexLocation:
			if len(r.name) > longest && strings.HasPrefix(uri, r.name) {
				best, longest, noRegex = u.body, len(r.name), r.kind == NoRegexLocation
			}
		case RegexLocation, NamedLocation, Nameless:
		}
	}
	if best != nil {
		inner, final := l.search(best, uri)
		if inner != nil {
			best = inner
		}
		if final {
			return best, true
		}
	}
	if noRegex {
		return best, false
	}
	for _, u := range level.locations() {
		if r := routeOf(u); r.kind == RegexLocation && l.pattern(r.name, r.caseless).matches(uri) {
			if inner, _ := l.search(u.body, uri); inner != nil {
				return inner, true
			}
			return u.body, true
		}
	}
	return best, false
}

// content gives the statement that answers requests of a block; nil where
// files are served.
func (s *scope) content() *use {
	for _, u := range s.uses {
		switch u.Name.Value {
		case "proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass", "tunnel_pass",
			"stub_status", "empty_gif", "api", "status", "perl", "js_content", "content_by_lua_block", "dav_methods", "mp4", "flv":
			return u
		}
	}
	return nil
}

// unreachableLocation compares the languages of expressions that are asked one
// after the other.
func (l *linter) unreachableLocation() {
	levels := l.scopesWith("location")
	for _, s := range levels {
		var before []*use
		for _, u := range s.locations() {
			r := routeOf(u)
			if r.kind != RegexLocation {
				continue
			}
			p := l.pattern(r.name, r.caseless)
			if p.syntax() == nil {
				continue
			}
			if l.endsTooEarly(p) {
				l.say(u.whole(), `leave out the "$", or what stands behind it`, "%q matches no URI: nothing comes behind the end", u.said())
				continue
			}
			if first := l.coveredBy(p, before); first != nil {
				d := l.say(u.whole(), "put it above the other: expressions are tried in the order of the file",
					"every URI for %q is taken by %q", u.said(), first.said())
				if sameBody(u.body, first.body) {
					d.Severity, d.Hint = parser.Note, "remove it: the other says the same"
				}
				d.Related = append(d.Related, related(first, "tried first"))
			}
			before = append(before, u)
		}
	}
}

// endsTooEarly finds expressions with a "$" that more of the path would have to
// follow.
func (l *linter) endsTooEarly(p *pattern) bool {
	for i := range len(p.text) - 1 {
		next := p.text[i+1]
		if p.text[i] != '$' || i > 0 && p.text[i-1] == '\\' || next != '/' && !isNameByte(next) {
			continue
		}
		_, v := l.find(p, nil)
		return v == pcre.None
	}
	return false
}

// sameBody reports whether two blocks say the same.
func sameBody(a, b *scope) bool {
	return slices.EqualFunc(a.uses, b.uses, func(u, v *use) bool {
		return u.said() == v.said() && (u.body == nil) == (v.body == nil) && (u.body == nil || sameBody(u.body, v.body))
	})
}

// coveredBy gives the first of some locations that takes all of a pattern.
func (l *linter) coveredBy(p *pattern, before []*use) *use {
	example, v := l.find(p, nil)
	if v != pcre.Found {
		return nil
	}
	for _, u := range before[max(0, len(before)-maxCompared):] {
		r := routeOf(u)
		other := l.pattern(r.name, r.caseless)
		// most pairs differ at once
		if other.syntax() != nil && other.matches(example) && l.cover(other, p) {
			return u
		}
	}
	return nil
}

// cover is pcre.Covers, asked once for two expressions.
func (l *linter) cover(a, b *pattern) bool {
	key := [2]*pattern{a, b}
	yes, known := l.covers[key]
	if !known {
		yes = pcre.Covers(a.syntax(), b.syntax())
		l.covers[key] = yes
	}
	return yes
}

// maxCompared bounds how many expressions one is compared with.
const maxCompared = 100

// unreachableAfterReturn finds content that an unconditional return forestalls.
func (l *linter) unreachableAfterReturn() {
	for _, s := range l.scopesWith("return") {
		answer := s.answers()
		if answer == nil || s.in&(InLocation|InServer) == 0 {
			continue
		}
		after := false
		for _, u := range s.uses {
			if u == answer {
				after = true
				continue
			}
			dead := u == s.content() || u.Name.Value == "try_files"
			switch u.Name.Value {
			case "rewrite", "set", "return", "if":
				dead = after
			}
			if !dead {
				continue
			}
			d := l.say(u.whole(), "remove one of them", "%s never runs: return always answers first", u.Name.Value)
			d.Related = append(d.Related, related(answer, "this answers every request"))
			break
		}
	}
}

func (l *linter) serverReturn() {
	for _, s := range l.servers() {
		answer := s.answers()
		locations := s.locations()
		if answer == nil || len(locations) == 0 {
			continue
		}
		what := "nothing reaches " + locations[0].said()
		for _, u := range locations {
			if strings.Contains(u.arg(len(u.Args)-1), "acme-challenge") {
				what = "ACME challenges are answered by it too"
			}
		}
		d := l.say(answer.whole(), `move it into "location / { ... }"`, "return at server level answers before any location: %s", what)
		d.Related = append(d.Related, related(locations[0], "never reached"))
	}
}

func (l *linter) tryFilesStatus() {
	for _, u := range l.all("try_files") {
		n := len(u.Args) - 1
		last := u.arg(n)
		if len(last) == 3 && strings.Trim(last, "0123456789") == "" {
			l.say(u.place(n), "write ="+last, "%q without \"=\" is a path: the request goes to the URI %s, and around again", last, last)
		}
	}
}

// tryFilesAlias finds paths that the two together do not look up where one
// expects: the location's name is cut off only where the path begins with it.
func (l *linter) tryFilesAlias() {
	for _, u := range l.all("alias") {
		t := u.in.one("try_files")
		if t == nil {
			continue
		}
		plain := u.in.in == InLocation && routeOf(u.in.open).kind != RegexLocation
		for i := range len(t.Args) - 1 {
			plain = plain && strings.HasPrefix(t.arg(i), "$uri")
		}
		if !plain {
			d := l.say(t.whole(), "use root instead of alias", "try_files with alias looks paths up below %q that do not begin with the location's name", u.arg(0))
			d.Related = append(d.Related, related(u, "the alias"))
		}
	}
}

// errorPageMissing finds pages that are looked for where they are not served
// for certain.
func (l *linter) errorPageMissing() {
	for _, u := range l.all("error_page") {
		server := u.in.around(InServer)
		n := len(u.Args) - 1
		page := u.arg(n)
		if server == nil || n < 1 || !strings.HasPrefix(page, "/") || strings.Contains(page, "$") || strings.HasPrefix(u.arg(n-1), "=") {
			continue
		}
		page, _, _ = strings.Cut(page, "?")
		loc := l.locate(server, page)
		t := loc.one("try_files")
		if t == nil || loc.open == server.open || routeOf(loc.open).kind == ExactLocation {
			continue
		}
		status, ok := strings.CutPrefix(t.arg(len(t.Args)-1), "=")
		if !ok {
			continue
		}
		for i := range n {
			if u.arg(i) == status {
				d := l.say(u.whole(), fmt.Sprintf("location = %s { internal; }", page),
					"%s is itself looked up by try_files: when it is missing, the built-in page is shown", page)
				d.Related = append(d.Related, related(t, "by this"))
				break
			}
		}
	}
}

// rootRepeats finds roots that end in the location's own name.
func (l *linter) rootRepeats() {
	for _, u := range l.all("root") {
		if u.in.in != InLocation {
			continue
		}
		r := routeOf(u.in.open)
		name := strings.Trim(r.name, "/")
		if r.kind == RegexLocation || r.kind == NamedLocation || name == "" {
			continue
		}
		root := path.Clean("/" + u.arg(0))
		if strings.HasSuffix(root, "/"+name) {
			d := l.say(u.whole(), fmt.Sprintf("alias %s; or root %s;", u.arg(0), path.Clean(strings.TrimSuffix(root, name))),
				"root comes before the whole URI: files are looked for in %s/%s/", root, name)
			d.Related = append(d.Related, related(u.in.open, "the URI holds the name already"))
		}
	}
}

// regexTakesOver finds URIs of prefixes that an expression takes although the
// prefix looks more specific. Each expression is named once.
func (l *linter) regexTakesOver() {
	for _, s := range l.scopesWith("location") {
		told := map[*use]*finding{}
		all := s.locations()
		for _, u := range all {
			r := routeOf(u)
			if r.kind != PrefixLocation || !strings.HasPrefix(r.name, "/") || r.name == "/" || !u.body.isTree() {
				continue
			}
			other, uri := l.takenOver(r.name, all)
			if other == nil {
				continue
			}
			if d := told[other]; d != nil {
				d.Related = append(d.Related, related(u, "and from this one"))
				continue
			}
			d := l.say(u.whole(), fmt.Sprintf("location ^~ %s keeps them, if that is meant", r.name), "%q is taken by %q: expressions win over prefixes", uri, other.said())
			d.Related = append(d.Related, related(other, "takes it"))
			told[other] = d
		}
	}
}

// isTree reports whether what a location serves has paths below it, for clients
// to ask for.
func (s *scope) isTree() bool {
	if len(s.locations()) > 0 || s.one("internal") != nil {
		return false
	}
	if answer := s.answers(); answer != nil && (isRedirectStatus(answer.arg(0)) || isRedirect(answer.arg(0))) {
		return false
	}
	content := s.content()
	return content == nil || strings.HasSuffix(content.Name.Value, "_pass")
}

// takenOver gives the first expression that takes something below a prefix
// although nobody may have meant it.
func (l *linter) takenOver(prefix string, all []*use) (*use, string) {
	inside := l.pattern("^"+regexp.QuoteMeta(prefix), false)
	compared := 0
	for _, u := range all {
		r := routeOf(u)
		if r.kind != RegexLocation || inside.syntax() == nil {
			continue
		}
		p := l.pattern(r.name, r.caseless)
		if p.syntax() == nil || meantToTake(u, r.name, prefix) {
			continue
		}
		if compared++; compared > maxCompared {
			break
		}
		text, v := l.find(inside, p)
		if v == pcre.Found && p.matches(text) {
			return u, readable(p, prefix, text)
		}
	}
	return nil, ""
}

// meantToTake tells the expressions that are there to take URIs of others: those
// that refuse, run programs, stand for any folder, or go on where the prefix ends.
func meantToTake(u *use, text, prefix string) bool {
	if answer := u.body.answers(); answer != nil && refuses(answer) || u.body.one("deny") != nil {
		return true
	}
	content := u.body.content()
	if content != nil && content.Name.Value != "proxy_pass" {
		return true
	}
	if strings.Contains(text, strings.TrimSuffix(prefix, "/")) || strings.HasPrefix(strings.TrimLeft(text, "^("), ".*") {
		return true
	}
	extension := strings.HasSuffix(text, "$") && strings.Contains(text, `\.`)
	return content == nil && !extension && !strings.HasPrefix(text, "^")
}

// readable makes a witness look like something a browser would ask for.
func readable(p *pattern, prefix, text string) string {
	rest := strings.TrimPrefix(text, prefix)
	if better := prefix + "a" + rest; p.matches(better) && strings.HasPrefix(rest, ".") {
		return better
	}
	return text
}

func (l *linter) prefixLikeRegex() {
	for _, u := range l.all("location") {
		r := routeOf(u)
		if r.kind != PrefixLocation && r.kind != ExactLocation && r.kind != NoRegexLocation {
			continue
		}
		marks := []string{".*", ".+", `\.`, "[^", "(?", `\d`, `\w`}
		looks := strings.HasPrefix(r.name, "^") || strings.HasSuffix(r.name, "$") && len(r.name) > 1 ||
			slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(r.name, m) }) ||
			strings.Contains(r.name, "(") && strings.Contains(r.name, "|")
		if looks {
			l.say(u.place(len(u.Args)-1), "location ~ "+strings.TrimPrefix(r.name, "~"), "%q looks like an expression, but is compared as text", r.name)
		}
	}
}
