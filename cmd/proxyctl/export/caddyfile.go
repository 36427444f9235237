package export

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"proxyctl/proxy"
)

// The Caddyfile. Everything stands in route blocks, which keep its order: Caddy
// would sort it otherwise. Each of them ends in something that answers, so that
// the first that matches is the last that is asked. Paths are matched by
// expressions, for Caddy's own path matcher does not tell capital letters apart.

func (w *writer) caddyfile(p *proxy.Plan) {
	w.line("", "{")
	w.line("", "\tauto_https disable_redirects")
	w.line("", "}")
	ports := map[uint16]bool{}
	for _, d := range doors(p) {
		switch {
		case ports[d.address.Port()]:
			w.missing("listen", d.address.String(), d.servers[0].Place, "Caddy tells sites apart by their ports, not by their addresses", false)
			continue
		case !d.tls:
			w.caddySite(d, fmt.Sprintf("http://:%d", d.address.Port()))
		case slices.ContainsFunc(d.servers, func(s *proxy.PlanServer) bool { return len(plainNames(s)) == 0 }):
			w.caddyAnyName(d)
		default:
			w.caddyTLS(d)
		}
		ports[d.address.Port()] = true
	}
}

// opening writes a line that opens a block. Its source stands above it, unless the
// line there has the same: "caddy fmt" lets no comment stand behind a brace.
func (w *writer) opening(place, format string, args ...any) {
	if place != "" && place != w.last {
		w.line("", "# %s", printable(w.place(place)))
		w.last = place
	}
	w.line("", format+" {", args...)
	w.depth++
}

func (w *writer) closing() {
	w.depth--
	w.line("", "}")
}

// caddySite writes a site for all names of an address.
func (w *writer) caddySite(d *door, address string) {
	w.line("", "")
	w.opening(d.servers[0].Place, "%s", address)
	w.caddyBind(d)
	if d.tls {
		for _, s := range d.servers {
			w.caddyCertificate(s)
		}
	}
	w.opening("", "route")
	names := d.inOrder()
	for i, n := range names {
		if n.server == d.chosen && !strings.HasPrefix(n.name, "~") {
			if !slices.ContainsFunc(names[i+1:], func(o nameOf) bool { return o.server != d.chosen }) {
				continue // it comes last, for all that are left
			}
		}
		w.caddyHost(n)
	}
	if d.chosen != nil {
		w.caddyRoutes(d.chosen, matched{})
	}
	w.closing()
	w.closing()
}

func (w *writer) caddyBind(d *door) {
	if !d.address.Addr().IsUnspecified() {
		w.line(d.servers[0].Place, "bind %s", d.address.Addr())
	}
}

// caddyCertificate names the files of a server, if it has some, and the versions
// of TLS, if they are not those of Caddy.
func (w *writer) caddyCertificate(s *proxy.PlanServer) {
	words := "tls"
	if s.Certificate != "" {
		words += " " + quote(s.Certificate) + " " + quote(s.Key)
	}
	if s.Modern {
		w.opening(s.Place, "%s", words)
		w.line(s.Place, "protocols tls1.3")
		w.closing()
	} else if s.Certificate != "" {
		w.line(s.Place, "%s", words)
	}
}

// caddyHost writes one name and what its server does.
func (w *writer) caddyHost(n nameOf) {
	w.hosts++
	name := fmt.Sprintf("s%d", w.hosts)
	host := matched{name: name}
	if strings.ContainsAny(n.name, "*~") {
		pattern, ok := w.goPattern(hostPattern(n.name), "server_name", n.server.Place)
		if !ok {
			return
		}
		host.pattern = pattern
		w.line(n.server.Place, "@%s vars_regexp %s {http.request.host} %s", name, name, quote(pattern))
	} else {
		w.line(n.server.Place, "@%s host %s", name, quote(n.name))
	}
	w.opening(n.server.Place, "route @%s", name)
	w.caddyRoutes(n.server, host)
	w.closing()
}

// plainNames are the names of a server that Caddy can have certificates for.
func plainNames(s *proxy.PlanServer) []string {
	var out []string
	for _, n := range s.Names {
		switch {
		case strings.ContainsAny(n, "*~") || strings.HasPrefix(n, "."):
			return nil
		case n != "" && n != "_":
			out = append(out, strings.ToLower(n))
		}
	}
	return out
}

// caddyAnyName writes a site over TLS for servers whose names are not all whole:
// the certificates are those of files.
func (w *writer) caddyAnyName(d *door) {
	for _, s := range d.servers {
		if s.Certificate == "" {
			w.missing("server_name", strings.Join(s.Names, " "), s.Place, "only for whole names Caddy can obtain certificates by itself", false)
			return
		}
	}
	w.caddySite(d, fmt.Sprintf("https://:%d", d.address.Port()))
}

// caddyTLS writes a site for each server: its names choose the certificate.
func (w *writer) caddyTLS(d *door) {
	for _, s := range d.servers {
		var sites []string
		for _, n := range plainNames(s) {
			sites = append(sites, fmt.Sprintf("https://%s:%d", n, d.address.Port()))
		}
		w.line("", "")
		w.opening(s.Place, "%s", strings.Join(sites, ", "))
		w.caddyBind(d)
		w.caddyCertificate(s)
		w.opening("", "route")
		w.caddyRoutes(s, matched{})
		w.closing()
		w.closing()
	}
}

// goPattern makes an expression of nginx one of Go's.
func (w *writer) goPattern(pattern, directive, place string) (string, bool) {
	pattern = withoutLookahead(namedGroup.ReplaceAllString(pattern, "(?P<$1>"))
	if _, err := regexp.Compile(pattern); err != nil {
		w.missing(directive, pattern, place, "Caddy's expressions know no look-around and no back references", directive != "location" && directive != "server_name")
		return "", false
	}
	return pattern, true
}

// lastLookahead is what must not follow, at the end of an expression.
var lastLookahead = regexp.MustCompile(`\(\?!((?:[\w/-]|\\[/.])+)\)(?:\.\*)?$`)

// withoutLookahead says in other words that a text must not follow at the end of
// an expression: what follows ends or differs at its first letter, or its second,
// and so on.
func withoutLookahead(pattern string) string {
	m := lastLookahead.FindStringSubmatchIndex(pattern)
	if m == nil {
		return pattern
	}
	text := strings.ReplaceAll(pattern[m[2]:m[3]], `\`, "")
	out := ""
	for _, c := range slices.Backward([]byte(text)) {
		letter := regexp.QuoteMeta(string(c))
		if out == "" {
			out = "(?:$|[^" + letter + "])"
		} else {
			out = "(?:$|[^" + letter + "]|" + letter + out + ")"
		}
	}
	return pattern[:m[0]] + out
}

var namedGroup = regexp.MustCompile(`\(\?<([A-Za-z_]\w*)>`)

// matched is a matcher whose captures there are.
type matched struct{ name, pattern string }

func (w *writer) caddyRoutes(s *proxy.PlanServer, host matched) {
	for i := range s.Routes {
		w.caddyRoute(&s.Routes[i], fmt.Sprintf("%sr%d", host.name, i+1), host)
	}
}

// caddyRoute writes a route with its matcher.
func (w *writer) caddyRoute(r *proxy.PlanRoute, name string, host matched) {
	m := &caddyMatcher{writer: w, route: r, name: name, captures: []matched{host}}
	if !m.read() {
		return
	}
	if r.Rewrite != nil && r.Kind == proxy.Nameless {
		if m.pathMatches(r.Rewrite.Expression, "rewrite", r.Rewrite.Place) {
			m.write()
			w.caddyRewrite(r.Rewrite, m)
		}
		return
	}
	if m.write() {
		w.opening(r.Place, "route @%s", name)
		w.caddyBody(r, name, caddyWords(m.captures))
		w.closing()
		return
	}
	w.caddyBody(r, name, caddyWords(m.captures))
}

// caddyMatcher collects what a request must be like.
type caddyMatcher struct {
	*writer
	route       *proxy.PlanRoute
	name        string
	lines       []placed
	expressions []string // of Caddy's own language, for a second expression about the path
	captures    []matched
	path        bool // path_regexp is taken
	outer       bool // what is read now is asked before the route's own expression
}

type placed struct{ text, place string }

func (m *caddyMatcher) add(place, format string, args ...any) {
	m.lines = append(m.lines, placed{fmt.Sprintf(format, args...), place})
}

func (m *caddyMatcher) read() bool {
	r := m.route
	if pattern := pathPattern(r); pattern != "" && pattern != "^/" {
		if !m.pathMatches(pattern, lost(r), r.Place) {
			return false
		}
	}
	if r.Within != "" && r.Kind == proxy.RegexLocation {
		m.expressions = append(m.expressions, "path_regexp("+strconv.Quote("^"+regexp.QuoteMeta(r.Within))+")")
	}
	if r.Except != nil {
		m.add(r.Place, "not path_regexp %s", quote(beginnings(r.Except)))
	}
	for i, c := range r.When {
		m.outer = c.Outer && m.path
		if !m.condition(c, fmt.Sprintf("%sc%d", m.name, i+1)) {
			return false
		}
	}
	return true
}

// beginnings is an expression for paths that begin with one of some names.
func beginnings(names []string) string {
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, regexp.QuoteMeta(n))
	}
	if len(quoted) == 1 {
		return "^" + quoted[0]
	}
	return "^(?:" + strings.Join(quoted, "|") + ")"
}

// pathMatches adds an expression for the path; of them a matcher has one, the
// others are functions.
func (m *caddyMatcher) pathMatches(pattern, directive, place string) bool {
	pattern, ok := m.goPattern(pattern, directive, place)
	if !ok {
		return false
	}
	name := m.name
	if m.path {
		name += "x"
		m.expressions = append(m.expressions, fmt.Sprintf("path_regexp(%q, %s)", name, strconv.Quote(pattern)))
	} else {
		m.add(place, "path_regexp %s %s", name, quote(pattern))
	}
	m.path = true
	m.captured(matched{name, pattern})
	return true
}

func (m *caddyMatcher) condition(c proxy.PlanCondition, name string) bool {
	not := ""
	op, negative := strings.CutPrefix(c.Op, "!")
	if negative {
		not = "not "
	}
	directive := lost(m.route)
	fail := func(why string) bool {
		m.missing(statement(m.route), m.route.Text, c.Place, why, directive != "location")
		return false
	}
	word, ok := caddyWords(m.captures)(c.Variable)
	if !ok || strings.Contains(c.Value, "$") && op == "=" {
		return fail("a variable in it has no equivalent")
	}
	pattern := c.Value
	if op == "~*" || c.Variable == "host" {
		pattern = "(?i)" + pattern
	}
	switch {
	case op == "":
		m.add(c.Place, `not vars %s "" 0`, word)
	case op == "=" && c.Variable == "host":
		m.add(c.Place, "%shost %s", not, quote(c.Value))
	case op == "=":
		m.add(c.Place, "%svars %s %s", not, word, quote(caddyText(c.Value)))
	case isPath(c.Variable) && !negative:
		return m.pathMatches(pattern, directive, c.Place)
	default:
		pattern, ok := m.goPattern(pattern, directive, c.Place)
		if !ok {
			return false
		}
		if isPath(c.Variable) {
			m.add(c.Place, "not path_regexp %s", quote(pattern))
		} else if negative {
			m.add(c.Place, "not vars_regexp %s %s", word, quote(pattern))
		} else {
			m.add(c.Place, "vars_regexp %s %s %s", name, word, quote(pattern))
			m.captured(matched{name, pattern})
		}
	}
	return true
}

// captured notes an expression: the last that is asked stands last.
func (m *caddyMatcher) captured(c matched) {
	if m.outer {
		m.captures = slices.Insert(m.captures, len(m.captures)-1, c)
		return
	}
	m.captures = append(m.captures, c)
}

func isPath(variable string) bool { return variable == "uri" || variable == "document_uri" }

// write writes the matcher; false when every request matches.
func (m *caddyMatcher) write() bool {
	if m.expressions != nil {
		m.add(m.route.Place, "expression %s", quote(strings.Join(m.expressions, " && ")))
	}
	switch len(m.lines) {
	case 0:
		return false
	case 1:
		m.line(m.lines[0].place, "@%s %s", m.name, m.lines[0].text)
	default:
		m.opening(m.route.Place, "@%s", m.name)
		for _, l := range m.lines {
			m.line(l.place, "%s", l.text)
		}
		m.closing()
	}
	return true
}

// caddyWords gives Caddy's placeholders for variables. Of the matchers whose
// captures there are the last counts.
func caddyWords(captures []matched) func(string) (string, bool) {
	known := map[string]string{
		"host": "{host}", "http_host": "{hostport}", "remote_addr": "{remote_host}", "scheme": "{scheme}", "request_method": "{method}",
		"request_uri": "{orig_uri}", "uri": "{path}", "document_uri": "{path}", "args": "{query}", "query_string": "{query}", addedArguments: "{?query}",
		"upstream_addr": "{http.reverse_proxy.upstream.hostport}", "proxy_add_x_forwarded_for": "{remote_host}", "remote_port": "{remote_port}",
		"server_port": "{port}", "remote_user": "{http.auth.user.id}",
	}
	return func(name string) (string, bool) {
		if said, ok := known[name]; ok {
			return said, true
		}
		if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
			return "{header." + strings.ReplaceAll(field, "_", "-") + "}", true
		}
		if cookie, ok := strings.CutPrefix(name, "cookie_"); ok && cookie != "" {
			return "{cookie." + cookie + "}", true
		}
		for _, m := range slices.Backward(captures) {
			switch n, err := strconv.Atoi(name); {
			case m.pattern == "":
			case err == nil:
				return "{re." + m.name + "." + name + "}", regexp.MustCompile(m.pattern).NumSubexp() >= n
			case strings.Contains(m.pattern, "(?P<"+name+">"):
				return "{re." + m.name + "." + name + "}", true
			}
		}
		return "", false
	}
}

// caddyText keeps braces from being read as placeholders.
func caddyText(s string) string { return strings.NewReplacer("{", `\{`, "}", `\}`).Replace(s) }

// quote makes one word of a text.
func quote(s string) string {
	if s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:*+^$?=@{}") == "" && !strings.ContainsAny(s[:1], "}@*") && s != "{" {
		return s
	}
	if !strings.ContainsAny(s, "`") {
		return "`" + s + "`"
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}
