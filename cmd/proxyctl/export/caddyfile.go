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
// would sort it otherwise. Paths are matched by expressions, for Caddy's own path
// matcher does not tell capital letters apart.

func (w *writer) caddyfile(p *proxy.Plan) {
	w.line("", "{")
	w.depth++
	w.line("", "auto_https disable_redirects")
	w.depth--
	w.line("", "}")
	ports := map[uint16]bool{}
	for _, d := range doors(p) {
		if ports[d.address.Port()] {
			w.missing("listen", d.address.String(), d.servers[0].Place, "Caddy tells sites apart by their ports, not by their addresses", false)
			continue
		}
		ports[d.address.Port()] = true
		if d.tls {
			w.caddyTLS(d)
			continue
		}
		w.line("", "")
		w.line(d.servers[0].Place, "http://:%d {", d.address.Port())
		w.depth++
		w.caddyBind(d)
		w.line("", "route {")
		w.depth++
		for i, n := range d.inOrder() {
			if n.server == d.chosen && !strings.HasPrefix(n.name, "~") {
				if !slices.ContainsFunc(d.inOrder()[i+1:], func(o nameOf) bool { return o.server != d.chosen }) {
					continue // it comes last, for all that are left
				}
			}
			w.caddyHost(n)
		}
		if d.chosen != nil {
			w.line(d.chosen.Place, "handle {")
			w.caddyRoutes(d.chosen, matched{})
			w.line("", "}")
		}
		w.depth--
		w.line("", "}")
		w.depth--
		w.line("", "}")
	}
}

func (w *writer) caddyBind(d *door) {
	if !d.address.Addr().IsUnspecified() {
		w.line(d.servers[0].Place, "bind %s", d.address.Addr())
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
	w.line("", "handle @%s {", name)
	w.caddyRoutes(n.server, host)
	w.line("", "}")
}

// caddyTLS writes a site for each server: its names choose the certificate.
func (w *writer) caddyTLS(d *door) {
	for _, s := range d.servers {
		var sites []string
		for _, n := range s.Names {
			switch {
			case n == "" || n == "_":
			case strings.ContainsAny(n, "*~") || strings.HasPrefix(n, "."):
				w.missing("server_name", n, s.Place, "over TLS only whole names are carried over: a * of Caddy's stands for one label", false)
			default:
				sites = append(sites, fmt.Sprintf("https://%s:%d", strings.ToLower(n), d.address.Port()))
			}
		}
		if len(sites) == 0 {
			w.missing("server_name", strings.Join(s.Names, " "), s.Place, "a site over TLS needs a name", false)
			continue
		}
		w.line("", "")
		w.line(s.Place, "%s {", strings.Join(sites, ", "))
		w.depth++
		w.caddyBind(d)
		if s.Certificate != "" {
			w.line(s.Place, "tls %s %s", quote(s.Certificate), quote(s.Key))
		}
		w.line("", "route {")
		w.caddyRoutes(s, matched{})
		w.line("", "}")
		w.depth--
		w.line("", "}")
	}
}

// goPattern makes an expression of nginx one of Go's.
func (w *writer) goPattern(pattern, directive, place string) (string, bool) {
	pattern = namedGroup.ReplaceAllString(pattern, "(?P<$1>")
	if _, err := regexp.Compile(pattern); err != nil {
		w.missing(directive, pattern, place, "Caddy's expressions know no look-around and no back references", directive == "deny" || directive == "return")
		return "", false
	}
	return pattern, true
}

var namedGroup = regexp.MustCompile(`\(\?<([A-Za-z_]\w*)>`)

// matched is a matcher whose captures there are.
type matched struct{ name, pattern string }

func (w *writer) caddyRoutes(s *proxy.PlanServer, host matched) {
	w.depth++
	for i := range s.Routes {
		w.caddyRoute(&s.Routes[i], fmt.Sprintf("%sr%d", host.name, i+1), host)
	}
	w.depth--
}

func (w *writer) caddyRoute(r *proxy.PlanRoute, name string, host matched) {
	matcher := ""
	pattern := pathPattern(r)
	if pattern == "^/" {
		pattern = ""
	}
	if pattern != "" {
		var ok bool
		if pattern, ok = w.goPattern(pattern, lost(r), r.Place); !ok {
			return
		}
	}
	switch {
	case pattern != "":
		w.line(r.Place, "@%s path_regexp %s %s", name, name, quote(pattern))
		matcher = " @" + name
	case r.Host != "":
		w.line(r.Place, "@%s host %s", name, quote(r.Host))
		matcher = " @" + name
	}
	w.line(r.Place, "handle%s {", matcher)
	w.depth++
	word := caddyWords(matched{name, pattern}, host)
	switch {
	case r.Allow != nil:
		w.line(r.Place, "@%sdenied not remote_ip %s", name, strings.Join(r.Allow, " "))
		w.line(r.Place, "respond @%sdenied 403", name)
	case len(r.Deny) == 1 && r.Deny[0] == "all":
		w.line(r.Place, "respond * 403")
	case r.Deny != nil:
		w.line(r.Place, "@%sdenied remote_ip %s", name, strings.Join(r.Deny, " "))
		w.line(r.Place, "respond @%sdenied 403", name)
	}
	for _, f := range r.Fields {
		if value, ok := expand(f.Value, caddyText, word); ok {
			w.line(f.Place, "header {")
			w.line("", "\t%s %s", quote("+"+f.Name), quote(value))
			w.line("", "\tdefer")
			w.line("", "}")
		} else {
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
		}
	}
	switch {
	case r.Answer != nil:
		w.caddyAnswer(r, name, word)
	case r.Pass != nil:
		w.caddyPass(r, word)
	case r.Files != nil:
		w.caddyFiles(r.Files)
	}
	w.depth--
	w.line("", "}")
}

func (w *writer) caddyAnswer(r *proxy.PlanRoute, name string, word func(string) (string, bool)) {
	a := r.Answer
	text, ok := expand(a.Text, caddyText, word)
	switch {
	case !ok:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "a variable in it has no equivalent", false)
	case a.Status == 444:
		w.line(a.Place, "abort")
	case a.Redirect && a.Arguments:
		w.line(a.Place, "@%sargs expression `{http.request.uri.query} != \"\"`", name)
		w.line(a.Place, "redir @%sargs %s %d", name, quote(text+"?{query}"), a.Status)
		w.line(a.Place, "redir * %s %d", quote(text), a.Status)
	case a.Redirect:
		w.line(a.Place, "redir * %s %d", quote(text), a.Status)
	case text == "":
		w.line(a.Place, "respond * %d", a.Status)
	default:
		w.line(a.Place, "header Content-Type %s", quote(a.Type))
		w.line(a.Place, "respond * %s %d", quote(text), a.Status)
	}
}

func (w *writer) caddyPass(r *proxy.PlanRoute, word func(string) (string, bool)) {
	p := r.Pass
	if r.MaxBody > 0 {
		w.line(p.Place, "request_body {")
		w.line("", "\tmax_size %d", r.MaxBody)
		w.line("", "}")
	}
	if p.Replace {
		w.line(p.Place, "uri path_regexp %s %s", quote("^"+regexp.QuoteMeta(r.Name)), quote(p.Path))
	}
	var to []string
	for _, t := range p.Servers {
		if t.Backup {
			w.missing("server", t.Address+" backup", t.Place, "Caddy has no backup servers", false)
			continue
		}
		for range t.Weight {
			to = append(to, t.Address) // as often as its weight says
		}
	}
	w.line(p.Place, "reverse_proxy %s {", strings.Join(to, " "))
	w.depth++
	if len(to) > 1 {
		policy := map[string]string{"ip_hash": "ip_hash", "least_conn": "least_conn"}[p.Balanced]
		if policy == "" {
			policy = "round_robin"
		}
		w.line(p.Place, "lb_policy %s", policy)
		w.line("", "lb_retries %d", len(to)-1)
	}
	for _, f := range p.Fields {
		switch value, ok := expand(f.Value, caddyText, word); {
		case isUpgrade(f):
		case strings.EqualFold(f.Name, "X-Forwarded-For") && f.Value == "$proxy_add_x_forwarded_for":
			w.line(f.Place, "# X-Forwarded-For: Caddy sets it, and keeps nothing that clients send")
		case !ok:
			w.missing("proxy_set_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
		case value == "":
			w.line(f.Place, "header_up %s", quote("-"+f.Name))
		default:
			w.line(f.Place, "header_up %s %s", quote(f.Name), quote(value))
		}
	}
	if p.TLS {
		w.line(p.Place, "transport http {")
		w.depth++
		w.line(p.Place, "tls")
		if !p.Verify {
			w.line(p.Place, "tls_insecure_skip_verify")
		}
		w.depth--
		w.line("", "}")
	}
	w.depth--
	w.line("", "}")
}

func (w *writer) caddyFiles(f *proxy.PlanFiles) {
	w.line(f.Place, "root * %s", quote(f.Root))
	if f.Last != "=404" {
		w.line(f.Place, "try_files {path} {path}/ %s", quote(f.Last))
	}
	w.line(f.Place, "file_server {")
	w.line(f.Place, "\tindex %s", strings.Join(f.Index, " "))
	w.line("", "}")
}

// caddyWords gives Caddy's placeholders for variables. route and host name the
// matchers whose captures there are.
func caddyWords(route, host matched) func(string) (string, bool) {
	known := map[string]string{
		"host": "{host}", "http_host": "{hostport}", "remote_addr": "{remote_host}", "scheme": "{scheme}", "request_method": "{method}",
		"request_uri": "{http.request.orig_uri}", "uri": "{path}", "document_uri": "{path}", "args": "{query}", "query_string": "{query}",
		"upstream_addr": "{http.reverse_proxy.upstream.hostport}", "proxy_add_x_forwarded_for": "{remote_host}",
	}
	return func(name string) (string, bool) {
		if said, ok := known[name]; ok {
			return said, true
		}
		if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
			return "{header." + strings.ReplaceAll(field, "_", "-") + "}", true
		}
		for _, m := range [2]matched{route, host} {
			_, err := strconv.Atoi(name)
			if strings.Contains(m.pattern, "(?P<"+name+">") || err == nil && strings.Contains(m.pattern, "(") {
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
	if s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:*+") == "" {
		return s
	}
	if !strings.ContainsAny(s, "`") {
		return "`" + s + "`"
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}
