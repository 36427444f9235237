package export

import (
	"fmt"
	"regexp"
	"strings"

	"proxyctl/proxy"
)

// HAProxy's configuration. HAProxy runs http-request rules in one phase and
// chooses backends in the next, so a route is chosen first and remembered in the
// variable txn.route; everything else asks for it.

func (w *writer) haproxy(p *proxy.Plan) {
	for _, l := range []string{
		"global", "\tmaxconn 4096", "",
		"defaults", "\tmode http", "\toption httplog", "\ttimeout connect 60s", "\ttimeout client 60s", "\ttimeout server 60s", "\ttimeout tunnel 1h",
	} {
		w.line("", "%s", l)
	}
	for _, d := range doors(p) {
		w.haproxyFrontend(d)
	}
	for i := range p.Servers {
		s := &p.Servers[i]
		for j := range s.Routes {
			if r := &s.Routes[j]; r.Pass != nil {
				w.haproxyBackend(r, routeName(s, j))
			}
		}
	}
}

func (w *writer) haproxyFrontend(d *door) {
	w.line("", "")
	name := fmt.Sprintf("port_%d", d.address.Port())
	host := "*"
	if !d.address.Addr().IsUnspecified() {
		host = d.address.Addr().String()
		name = strings.NewReplacer(".", "_", ":", "_").Replace(host) + "_" + name
	}
	w.line("", "frontend %s", name)
	w.depth++
	secure := ""
	if d.tls {
		for _, s := range d.servers {
			if s.Certificate == "" {
				w.missing("ssl_certificate", "", s.Place, "HAProxy obtains no certificates", false)
				continue
			}
			w.line(s.Place, "# cat %s %s > %s", s.Certificate, s.Key, pemOf(s.Certificate))
			secure += " crt " + haQuote(pemOf(s.Certificate))
		}
		secure = " ssl" + secure + " alpn h2,http/1.1"
	}
	w.line(d.servers[0].Place, "bind %s:%d%s", host, d.address.Port(), secure)
	w.line("", `http-request deny status 400 if { path,url_dec -m reg (^|/)\.\.(/|$) }`)
	w.line("", "http-request set-var(txn.host) req.hdr(host),field(1,:),lower")
	w.line("", "http-request set-var(txn.path) path,url_dec,regsub(//+,/,g)")
	w.line("", `http-request set-var-fmt(txn.args) "?%%[query]" if { query -m found }`)
	for _, n := range d.inOrder() {
		match := "-m str " + haQuote(n.name)
		if strings.ContainsAny(n.name, "*~") {
			match = "-m reg " + haQuote(hostPattern(n.name))
		}
		w.line(n.server.Place, "http-request set-var(txn.site) str(%s) if { var(txn.host) %s } !{ var(txn.site) -m found }", siteOf(n.server), match)
	}
	if d.chosen != nil {
		w.line(d.chosen.Place, "http-request set-var(txn.site) str(%s) if !{ var(txn.site) -m found }", siteOf(d.chosen))
	}
	for _, s := range d.servers {
		w.haproxyChoice(s)
	}
	for _, s := range d.servers {
		for j := range s.Routes {
			w.haproxyRoute(s, &s.Routes[j], "{ var(txn.route) -m str "+routeName(s, j)+" }")
		}
	}
	for _, s := range d.servers {
		for j, r := range s.Routes {
			if r.Pass != nil {
				w.line(r.Pass.Place, "use_backend %s if { var(txn.route) -m str %s }", routeName(s, j), routeName(s, j))
			}
		}
	}
	w.depth--
}

// siteOf and routeName are how servers and routes are called.
func siteOf(s *proxy.PlanServer) string { return "s" + fmt.Sprint(s.Number) }

func routeName(s *proxy.PlanServer, route int) string {
	return fmt.Sprintf("s%dr%d", s.Number, route+1)
}

func pemOf(certificate string) string {
	return strings.TrimSuffix(strings.TrimSuffix(certificate, ".pem"), ".crt") + ".haproxy.pem"
}

// haproxyChoice writes which route takes a request.
func (w *writer) haproxyChoice(s *proxy.PlanServer) {
	for j := range s.Routes {
		r := &s.Routes[j]
		condition := ""
		switch pattern := pathPattern(r); {
		case pattern == "" && r.Host != "":
			condition = fmt.Sprintf(" { var(txn.host) -m str %s }", haQuote(r.Host))
		case pattern == "" || pattern == "^/":
		case r.Kind == proxy.ExactLocation:
			condition = fmt.Sprintf(" { var(txn.path) -m str %s }", haQuote(r.Name))
		case r.Kind == proxy.PrefixLocation:
			condition = fmt.Sprintf(" { var(txn.path) -m beg %s }", haQuote(r.Name))
		default:
			condition = fmt.Sprintf(" { var(txn.path) -m reg %s }", haQuote(pattern))
		}
		w.line(r.Place, "http-request set-var(txn.route) str(%s) if { var(txn.site) -m str %s } !{ var(txn.route) -m found }%s", routeName(s, j), siteOf(s), condition)
	}
}

// haproxyRoute writes what becomes of the requests of a route.
func (w *writer) haproxyRoute(s *proxy.PlanServer, r *proxy.PlanRoute, when string) {
	switch {
	case r.Allow != nil:
		w.line(r.Place, "http-request deny status 403 if %s !{ src %s }", when, strings.Join(r.Allow, " "))
	case len(r.Deny) == 1 && r.Deny[0] == "all":
		w.line(r.Place, "http-request deny status 403 if %s", when)
	case r.Deny != nil:
		w.line(r.Place, "http-request deny status 403 if %s { src %s }", when, strings.Join(r.Deny, " "))
	}
	word := haWords(s, r)
	for _, f := range r.Fields {
		value, ok := expand(f.Value, haText, word)
		if !ok || strings.Contains(f.Value, "$upstream") {
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
			continue
		}
		w.line(f.Place, "http-after-response add-header %s %s if %s", haQuote(f.Name), haQuote(value), when)
	}
	switch {
	case r.Answer != nil:
		w.haproxyAnswer(r, when, word)
	case r.Files != nil:
		w.missing("root", r.Files.Root, r.Files.Place, "HAProxy serves no files", false)
	case r.Pass != nil && r.MaxBody > 0:
		w.line(r.Place, "http-request deny status 413 if %s { req.hdr_val(content-length) gt %d } # where the length is announced", when, r.MaxBody)
	}
}

func (w *writer) haproxyAnswer(r *proxy.PlanRoute, when string, word func(string) (string, bool)) {
	a := r.Answer
	text, ok := expand(a.Text, haText, word)
	switch {
	case !ok:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "a variable in it has no equivalent", false)
	case a.Status == 444:
		w.line(a.Place, "http-request reject if %s", when)
	case a.Redirect:
		if a.Arguments {
			text += "%[var(txn.args)]"
		}
		w.line(a.Place, "http-request redirect location %s code %d if %s", haQuote(text), a.Status, when)
	case text == "":
		w.line(a.Place, "http-request return status %d if %s", a.Status, when)
	default:
		w.line(a.Place, "http-request return status %d content-type %s lf-string %s if %s", a.Status, haQuote(a.Type), haQuote(text), when)
	}
}

func (w *writer) haproxyBackend(r *proxy.PlanRoute, name string) {
	p := r.Pass
	w.line("", "")
	w.line(p.Place, "backend %s", name)
	w.depth++
	switch p.Balanced {
	case "ip_hash":
		w.line(p.Place, "balance source")
	case "least_conn":
		w.line(p.Place, "balance leastconn")
	default:
		w.line(p.Place, "balance roundrobin")
	}
	if p.Replace {
		w.line(p.Place, "http-request replace-path %s %s", haQuote("^"+regexp.QuoteMeta(r.Name)+"(.*)$"), haQuote(haText(p.Path)+`\1`))
	}
	word := haWords(nil, r)
	for _, f := range p.Fields {
		switch value, ok := expand(f.Value, haText, word); {
		case isUpgrade(f):
		case strings.EqualFold(f.Name, "X-Forwarded-For") && f.Value == "$proxy_add_x_forwarded_for":
			w.line(f.Place, `http-request set-header X-Forwarded-For "%%[req.hdr(x-forwarded-for)], %%[src]" if { req.hdr(x-forwarded-for) -m found }`)
			w.line(f.Place, `http-request set-header X-Forwarded-For "%%[src]" if !{ req.hdr(x-forwarded-for) -m found }`)
		case !ok:
			w.missing("proxy_set_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
		case value == "":
			w.line(f.Place, "http-request del-header %s", haQuote(f.Name))
		default:
			w.line(f.Place, "http-request set-header %s %s", haQuote(f.Name), haQuote(value))
		}
	}
	for i, t := range p.Servers {
		text := fmt.Sprintf("server s%d %s", i+1, t.Address)
		if t.Weight != 1 {
			text += fmt.Sprintf(" weight %d", t.Weight)
		}
		if t.Backup {
			text += " backup"
		}
		switch {
		case p.TLS && p.Verify:
			text += " ssl verify required ca-file @system-ca"
		case p.TLS:
			text += " ssl verify none"
		}
		w.line(t.Place, "%s", text)
	}
	w.depth--
}

// haWords gives HAProxy's expressions for variables. s is the server whose names
// have captures, if any.
func haWords(s *proxy.PlanServer, r *proxy.PlanRoute) func(string) (string, bool) {
	known := map[string]string{
		"host": "%[var(txn.host)]", "http_host": "%[req.hdr(host)]", "remote_addr": "%[src]", "request_method": "%[method]",
		"scheme": "%[ssl_fc,iif(https,http)]", "request_uri": "%[url]", "uri": "%[var(txn.path)]", "document_uri": "%[var(txn.path)]",
		"args": "%[query]", "query_string": "%[query]", "server_port": "%[dst_port]",
	}
	return func(name string) (string, bool) {
		if said, ok := known[name]; ok {
			return said, true
		}
		if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
			return "%[req.hdr(" + strings.ReplaceAll(field, "_", "-") + ")]", true
		}
		if r.Kind == proxy.RegexLocation {
			if group := groupOf(r.Name, name); group > 0 {
				return captured("var(txn.path)", pathPattern(r), group)
			}
		}
		if s != nil {
			for _, n := range s.Names {
				if group := groupOf(n, name); strings.HasPrefix(n, "~") && group > 0 {
					return captured("var(txn.host)", hostPattern(n), group)
				}
			}
		}
		return "", false
	}
}

// captured is an expression for a group of a pattern that is anchored in front.
func captured(from, pattern string, group int) (string, bool) {
	if bare := strings.TrimPrefix(pattern, "(?i)"); !strings.HasPrefix(bare, "^") || strings.Contains(pattern, "'") || group > 9 {
		return "", false
	}
	return fmt.Sprintf(`%%[%s,regsub('%s.*$','\%d')]`, from, strings.TrimSuffix(pattern, "$"), group), true
}

// groupOf gives the number of a group by its number or name; 0 when there is none.
func groupOf(pattern, name string) int {
	re, err := regexp.Compile(namedGroup.ReplaceAllString(strings.TrimPrefix(pattern, "~"), "(?P<$1>"))
	if err != nil {
		return 0
	}
	for i, n := range re.SubexpNames() {
		if i > 0 && (n == name || fmt.Sprint(i) == name) {
			return i
		}
	}
	return 0
}

// haText keeps a percent sign from beginning an expression.
func haText(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// haQuote makes one word of a text, in double quotes where it needs them.
func haQuote(s string) string {
	if s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:") == "" {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "$", `\$`).Replace(s) + `"`
}
