package export

import (
	"fmt"
	"hash/fnv"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"proxyctl/proxy"
)

// HAProxy's configuration. HAProxy runs http-request rules in one phase and
// chooses backends in the next, so a route is chosen first and remembered in the
// variable txn.route; everything else asks for it.

func (w *writer) haproxy(p *proxy.Plan) {
	body := &writer{place: w.place}
	for _, d := range doors(p) {
		body.haproxyFrontend(d)
	}
	for i := range p.Servers {
		s := &p.Servers[i]
		for j := range s.Routes {
			if r := &s.Routes[j]; r.Pass != nil || r.App != nil {
				body.haproxyBackend(r, routeName(s, j))
			}
		}
	}
	for _, l := range []string{
		"global", "\tmaxconn 4096", "\tlog stdout format raw local0", "",
		"defaults", "\tmode http", "\tlog global", "\toption httplog", "\ttimeout connect 60s", "\ttimeout client 60s", "\ttimeout server 60s", "\ttimeout tunnel 1h",
	} {
		w.line("", "%s", l)
	}
	if body.late {
		w.line("", "\nresolvers system\n\tparse-resolv-conf")
	}
	w.haproxyUsers(p)
	w.unsaid = append(w.unsaid, body.unsaid...)
	for line := range strings.Lines(body.String()) {
		m := helper.FindStringSubmatch(line)
		if m == nil || strings.Contains(body.String(), "[var("+m[1]+")]") { // what nobody asks for is left out
			w.WriteString(line)
		}
	}
}

// helper is a line that sets a variable for others.
var helper = regexp.MustCompile(`^\thttp-request set-var(?:-fmt)?\((txn\.(?:uri|args|more))\)`)

// haproxyUsers writes the password files, each once.
func (w *writer) haproxyUsers(p *proxy.Plan) {
	seen := map[string]bool{}
	for i := range p.Servers {
		for j := range p.Servers[i].Routes {
			l := p.Servers[i].Routes[j].Login
			if l == nil || seen[usersOf(l)] {
				continue
			}
			seen[usersOf(l)] = true
			w.line("", "")
			w.line(l.Place, "userlist %s", usersOf(l))
			for _, u := range l.Users {
				switch plain, isPlain := strings.CutPrefix(u.Hash, "{PLAIN}"); {
				case isPlain:
					w.line(u.Place, "\tuser %s insecure-password %s", haQuote(u.Name), haQuote(plain))
				case strings.HasPrefix(u.Hash, "$apr1$") || strings.HasPrefix(u.Hash, "{"):
					w.missing("auth_basic_user_file", "user "+u.Name, u.Place, "HAProxy knows hashes of crypt(3) only: this one must be made anew (openssl passwd -6)", true)
				default:
					w.line(u.Place, "\tuser %s password %s", haQuote(u.Name), haQuote(u.Hash))
				}
			}
		}
	}
}

// usersOf names a list of users by what it holds.
func usersOf(l *proxy.PlanLogin) string {
	h := fnv.New32a()
	for _, u := range l.Users {
		_, _ = io.WriteString(h, u.Name+":"+u.Hash+"\n")
	}
	return fmt.Sprintf("users_%08x", h.Sum32())
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
		switch modern := slices.DeleteFunc(slices.Clone(d.servers), func(s *proxy.PlanServer) bool { return !s.Modern }); len(modern) {
		case 0:
		case len(d.servers):
			secure += " ssl-min-ver TLSv1.3"
		default:
			w.missing("ssl_protocols", "TLSv1.3", modern[0].Place, "an address has one least version of TLS", true)
		}
		secure = " ssl" + secure + " alpn h2,http/1.1"
	}
	w.line(d.servers[0].Place, "bind %s:%d%s", host, d.address.Port(), secure)
	w.line("", `http-request deny status 400 if { path,url_dec -m reg "[[:cntrl:]]|(^|/)\\.\\.(/|\$)" } # nothing that ends a line or leaves the root`)
	w.line("", "http-request set-var(txn.uri) pathq")
	w.line("", "http-request set-var(txn.host) req.hdr(host),field(1,:),lower")
	w.line("", "%s", haPath)
	w.line("", `http-request set-var-fmt(txn.args) "?%%[query]" if { query -m found }`)
	w.line("", `http-request set-var-fmt(txn.more) "&%%[query]" if { query -m found }`)
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
			if r.Pass != nil || r.App != nil {
				w.line(r.Place, "use_backend %s if { var(txn.route) -m str %s }", routeName(s, j), routeName(s, j))
			}
		}
	}
	w.depth--
}

// haPath is the path as nginx compares it.
const haPath = `http-request set-var(txn.path) "path,url_dec,regsub(//+,/,g),regsub('(/\\.)+(/|\$)',/,g)"`

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
		here := fmt.Sprintf("{ var(txn.site) -m str %s } !{ var(txn.route) -m found } ", siteOf(s))
		if r.Kind == proxy.Nameless && r.Rewrite != nil {
			w.haproxyRewrite(r.Rewrite, here, haWords(s, r))
			continue
		}
		if condition, ok := w.haproxyCondition(s, r); ok {
			w.line(r.Place, "http-request set-var(txn.route) str(%s) if %s", routeName(s, j), strings.TrimSpace(here+strings.TrimPrefix(condition, " ")))
		}
	}
}

// haproxyCondition says what a request must be like for a route.
func (w *writer) haproxyCondition(s *proxy.PlanServer, r *proxy.PlanRoute) (string, bool) {
	condition := ""
	switch pattern := pathPattern(r); {
	case pattern == "" || pattern == "^/":
	case r.Kind == proxy.ExactLocation:
		condition = fmt.Sprintf(" { var(txn.path) -m str %s }", haQuote(r.Name))
	case r.Kind == proxy.PrefixLocation:
		condition = fmt.Sprintf(" { var(txn.path) -m beg %s }", haQuote(r.Name))
	default:
		condition = fmt.Sprintf(" { var(txn.path) -m reg %s }", haQuote(pattern))
	}
	if r.Within != "" && r.Kind == proxy.RegexLocation {
		condition += fmt.Sprintf(" { var(txn.path) -m beg %s }", haQuote(r.Within))
	}
	for _, name := range r.Except {
		condition += fmt.Sprintf(" !{ var(txn.path) -m beg %s }", haQuote(name))
	}
	for _, c := range r.When {
		fetch, ok := haFetch(haWords(s, r), c.Variable)
		op, not := c.Op, ""
		if rest, negative := strings.CutPrefix(op, "!"); negative {
			op, not = rest, "!"
		}
		if !ok || op == "=" && strings.Contains(c.Value, "$") {
			w.missing(statement(r), r.Text, c.Place, "a variable in it has no equivalent", lost(r) != "location")
			return "", false
		}
		switch op {
		case "":
			condition += fmt.Sprintf(" { %s,length gt 0 } !{ %s -m str 0 }", fetch, fetch)
		case "=":
			if c.Value == "" { // an empty word cannot be written
				condition += fmt.Sprintf(" %s{ %s,length gt 0 }", map[string]string{"": "!", "!": ""}[not], fetch)
				continue
			}
			condition += fmt.Sprintf(" %s{ %s -m str %s }", not, fetch, haQuote(c.Value))
		case "~":
			condition += fmt.Sprintf(" %s{ %s -m reg %s }", not, fetch, haQuote(c.Value))
		default:
			condition += fmt.Sprintf(" %s{ %s -m reg %s }", not, fetch, haQuote("(?i)"+c.Value))
		}
	}
	return condition, true
}

// haFetch gives the sample of a variable.
func haFetch(word wording, variable string) (string, bool) {
	said, ok := word(variable)
	return strings.TrimSuffix(strings.TrimPrefix(said, "%["), "]"), ok
}

// haproxyRewrite gives requests another path.
func (w *writer) haproxyRewrite(r *proxy.PlanRewrite, when string, word wording) {
	to, ok := expand(r.To, haText, func(name string) (string, bool) {
		if _, err := strconv.Atoi(name); err == nil {
			return `\` + name, true
		}
		return word(name)
	})
	switch {
	case !ok:
		w.missing("rewrite", r.Expression+" "+r.To, r.Place, "a variable in it has no equivalent", false)
	case strings.Contains(to, "?") || !r.Arguments:
		w.missing("rewrite", r.Expression+" "+r.To, r.Place, "the arguments of requests are not changed", false)
	default:
		w.haproxyPath(r.Place, r.Expression, to, when)
	}
}

// haproxyRoute writes what becomes of the requests of a route.
func (w *writer) haproxyRoute(s *proxy.PlanServer, r *proxy.PlanRoute, when string) {
	switch {
	case r.Allow != nil:
		w.line(r.Place, "http-request deny status 403 if %s !{ src %s }", when, strings.Join(r.Allow, " "))
	case r.Allow == nil && slices.Contains(r.Deny, "all"):
		w.line(r.Place, "http-request deny status 403 if %s", when)
	case r.Deny != nil:
		w.line(r.Place, "http-request deny status 403 if %s { src %s }", when, strings.Join(r.Deny, " "))
	}
	if r.Login != nil {
		w.line(r.Login.Place, "http-request auth realm %s if %s !{ http_auth(%s) }", haQuote(r.Login.Realm), when, usersOf(r.Login))
	}
	word := haWords(s, r)
	for _, f := range r.Fields {
		value, ok := expand(f.Value, haText, word)
		if !ok || strings.Contains(value, "req.") || strings.Contains(value, "%[method") || strings.Contains(value, "%[query") {
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent where answers are looked at", isProtection(f.Name))
			continue
		}
		statuses := " { status " + successes + " }"
		if f.Always {
			statuses = ""
		}
		if f.Value != "" {
			w.line(f.Place, "http-after-response add-header %s %s if %s%s", haQuote(f.Name), haQuote(value), when, statuses)
		}
	}
	switch {
	case r.Answer != nil:
		w.haproxyAnswer(r, when, word)
	case r.Files != nil:
		w.missing("root", r.Files.Root, r.Files.Place, "HAProxy serves no files", false)
	case r.MaxBody > 0 && (r.Pass != nil || r.App != nil):
		w.line(r.Place, "http-request deny status 413 if %s { req.hdr_val(content-length) gt %d }", when, r.MaxBody)
		w.line(r.Place, "http-request deny status 411 if %s { req.hdr(transfer-encoding) -m found } # HAProxy cannot count what is not announced", when)
	}
}

func (w *writer) haproxyAnswer(r *proxy.PlanRoute, when string, word wording) {
	a := r.Answer
	text, ok := expand(a.Text, haText, word)
	switch {
	case !ok:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "a variable in it has no equivalent", a.Status >= 400)
	case a.Status == 444:
		w.line(a.Place, "http-request reject if %s", when)
	case a.Redirect:
		if a.Arguments && strings.Contains(a.Text, "?") {
			text += "%[var(txn.more)]"
		} else if a.Arguments {
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
	if r.App != nil {
		w.haproxyApp(r, name)
		return
	}
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
	w.haproxyCompression(r.Compress)
	if r.Rewrite != nil {
		w.haproxyRewrite(r.Rewrite, "", haWords(nil, r))
	}
	if p.Replace {
		w.haproxyReplace(r)
	}
	if p.Whole {
		w.line(p.Place, "http-request set-pathq %s", haQuote(haText(p.Path)))
	}
	w.haproxyFields(r)
	for _, f := range p.Hidden {
		w.line(f.Place, "http-response del-header %s", haQuote(f.Name))
	}
	for _, m := range p.Moved {
		w.line(m[0].Place, "http-response replace-header Location %s %s", haQuote("^"+regexp.QuoteMeta(m[0].Value)+"(.*)$"), haQuote(haText(m[1].Value)+`\1`))
	}
	secure := ""
	switch {
	case p.TLS && p.Verify:
		secure = " ssl verify required ca-file @system-ca verifyhost " + p.ServerName
	case p.TLS:
		secure = " ssl verify none"
	}
	if p.TLS && p.SNI {
		secure += " sni str(" + p.ServerName + ")"
	}
	if p.Late {
		w.late = true
		secure += " resolvers system init-addr last,libc,none"
	}
	w.haproxyServers(p.Servers, secure)
	w.depth--
}

func (w *writer) haproxyCompression(c *proxy.PlanCompression) {
	if c == nil {
		return
	}
	w.line(c.Place, "compression algo gzip")
	if !slices.Contains(c.Types, "*") {
		w.line(c.Place, "compression type %s", strings.Join(c.Types, " "))
	}
}

// haproxyReplace puts a path in the place of the route's name.
func (w *writer) haproxyReplace(r *proxy.PlanRoute) {
	p := r.Pass
	if r.Kind == proxy.ExactLocation {
		w.line(p.Place, "http-request set-path %s", haQuote(haText(p.Path)))
		return
	}
	w.haproxyPath(p.Place, "^"+regexp.QuoteMeta(r.Name)+"(.*)$", haText(p.Path)+`\1`, "")
}

// haproxyPath changes the path by an expression. HAProxy's own replacement keeps
// what is encoded; where slashes or letters are written in another way than the
// expression has them, the decoded path is changed and encoded again.
func (w *writer) haproxyPath(place, pattern, to, when string) {
	w.hosts++
	plain := fmt.Sprintf("txn.plain%d", w.hosts)
	w.line(place, "http-request set-var(%s) bool(1) if %s{ path -m reg %s }", plain, when, haQuote(pattern))
	w.line(place, "http-request replace-path %s %s if { var(%s) -m found }", haQuote(pattern), haQuote(to), plain)
	odd := fmt.Sprintf("%%[var(txn.path),regsub('^.*?(?:%s).*$','%s'),url_enc,regsub(%%2F,/,g)]", pattern, to)
	w.line(place, "http-request set-path %s if %s!{ var(%s) -m found } { var(txn.path) -m reg %s }", haQuote(odd), when, plain, haQuote(pattern))
	w.line(place, "%s", haPath)
}

// haproxyFields writes the fields of requests.
func (w *writer) haproxyFields(r *proxy.PlanRoute) {
	word := haWords(nil, r)
	for _, f := range r.Pass.Fields {
		switch value, ok := expand(f.Value, haText, word); {
		case isUpgrade(f):
		case strings.EqualFold(f.Name, "X-Forwarded-For") && f.Value == "$proxy_add_x_forwarded_for":
			w.line(f.Place, `http-request set-header X-Forwarded-For "%%[req.fhdr(x-forwarded-for)], %%[src]" if { req.hdr(x-forwarded-for) -m found }`)
			w.line(f.Place, `http-request set-header X-Forwarded-For "%%[src]" if !{ req.hdr(x-forwarded-for) -m found }`)
		case !ok:
			w.missing("proxy_set_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
			w.line(f.Place, "http-request del-header %s", haQuote(f.Name)) // nobody may send it in its place
		case value == "":
			w.line(f.Place, "http-request del-header %s", haQuote(f.Name))
		default:
			w.line(f.Place, "http-request set-header %s %s", haQuote(f.Name), haQuote(value))
		}
	}
}

func (w *writer) haproxyServers(list []proxy.PlanTarget, options string) {
	for i, t := range list {
		address := t.Address
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			address = "unix@" + haQuote(path)
		}
		text := fmt.Sprintf("server s%d %s", i+1, address)
		if t.Weight != 1 {
			text += fmt.Sprintf(" weight %d", t.Weight)
		}
		if t.Backup {
			text += " backup"
		}
		w.line(t.Place, "%s%s", text, options)
	}
}

// haproxyApp writes an application of FastCGI.
func (w *writer) haproxyApp(r *proxy.PlanRoute, name string) {
	a := r.App
	if a.Check {
		w.missing("try_files", "", a.Place, "HAProxy cannot ask whether a script exists", true)
	}
	w.line("", "")
	w.line(a.Place, "fcgi-app %s", name)
	w.depth++
	w.line(a.Place, "docroot %s", haQuote(a.Root))
	if a.Split {
		w.line(a.Place, "path-info %s", haQuote(`^(/.+\.php)(/.*)?$`))
	}
	for _, f := range a.Usual { // those that HAProxy does not tell by itself
		if said := map[string]string{"DOCUMENT_URI": "%[var(txn.path)]", "REQUEST_SCHEME": "%[ssl_fc,iif(https,http)]", "SERVER_ADDR": "%[dst]"}[f.Name]; said != "" {
			w.line(f.Place, "set-param %s %s", f.Name, haQuote(said))
		}
	}
	for _, f := range a.Params {
		if value, ok := expand(f.Value, haText, haWords(nil, r)); ok && value != "" {
			w.line(f.Place, "set-param %s %s", haQuote(f.Name), haQuote(value))
		} else {
			w.missing("fastcgi_param", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
		}
	}
	w.depth--
	w.line("", "")
	w.line(a.Place, "backend %s", name)
	w.depth++
	w.haproxyCompression(r.Compress)
	w.line(a.Place, "use-fcgi-app %s", name)
	w.haproxyServers(a.Servers, " proto fcgi")
	w.depth--
}

// haWords gives HAProxy's expressions for variables. s is the server whose names
// have captures, if any.
func haWords(s *proxy.PlanServer, r *proxy.PlanRoute) func(string) (string, bool) {
	known := map[string]string{
		"host": "%[var(txn.host)]", "http_host": "%[req.fhdr(host)]", "remote_addr": "%[src]",
		"scheme": "%[ssl_fc,iif(https,http)]", "request_uri": "%[var(txn.uri)]", addedArguments: "%[var(txn.args)]", "uri": "%[var(txn.path)]", "document_uri": "%[var(txn.path)]",
		"args": "%[query]", "query_string": "%[query]", "server_port": "%[dst_port]", "upstream_addr": "%[bc_dst]:%[bc_dst_port]", "remote_port": "%[src_port]", "request_method": "%[method]",
	}
	return func(name string) (string, bool) {
		if said, ok := known[name]; ok {
			return said, true
		}
		if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
			return "%[req.fhdr(" + strings.ReplaceAll(field, "_", "-") + ")]", true
		}
		if cookie, ok := strings.CutPrefix(name, "cookie_"); ok && cookie != "" {
			return "%[req.cook(" + cookie + ")]", true
		}
		if argument, ok := strings.CutPrefix(name, "arg_"); ok && argument != "" {
			return "%[url_param(" + argument + ")]", true
		}
		_, err := strconv.Atoi(name)
		for _, e := range haExpressions(s, r, known) {
			if group := groupOf(e.pattern, name); group > 0 {
				return captured(e.name, e.pattern, group)
			} else if err == nil {
				return "", false // the last expression counts
			}
		}
		return "", false
	}
}

// haExpressions lists the expressions that a request of a route has matched, with
// the samples that they were asked about, the last one first.
func haExpressions(s *proxy.PlanServer, r *proxy.PlanRoute, known map[string]string) []matched {
	var outer, own []matched
	for _, c := range slices.Backward(r.When) {
		if fetch := known[c.Variable]; fetch != "" && (c.Op == "~" || c.Op == "~*") {
			m := matched{strings.TrimSuffix(strings.TrimPrefix(fetch, "%["), "]"), c.Value}
			if c.Op == "~*" {
				m.pattern = "(?i)" + m.pattern
			}
			if c.Outer {
				outer = append(outer, m)
			} else {
				own = append(own, m)
			}
		}
	}
	if r.Kind == proxy.RegexLocation {
		own = append(own, matched{"var(txn.path)", pathPattern(r)})
	}
	own = append(own, outer...)
	if s != nil {
		for _, n := range s.Names {
			if strings.HasPrefix(n, "~") {
				own = append(own, matched{"var(txn.host)", hostPattern(n)})
			}
		}
	}
	return own
}

// captured is an expression for a group of a pattern where it first matches.
func captured(from, pattern string, group int) (string, bool) {
	if strings.Contains(pattern, "'") || group > 9 {
		return "", false
	}
	return fmt.Sprintf(`%%[%s,regsub('^.*?(?:%s).*$','\%d')]`, from, pattern, group), true
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
