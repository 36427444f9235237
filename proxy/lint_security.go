package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// Rules about what clients can make the server do.

func securityRules() []lintRule {
	return []lintRule{
		{"S001", (*linter).aliasTraversal},
		{"S002", (*linter).splitting},
		{"S003", (*linter).splittingByCapture},
		{"S004", (*linter).clientChoosesUpstream},
		{"S005", (*linter).hostFromClient},
		{"S013", (*linter).weakProtocols},
		{"S014", (*linter).refererNone},
		{"S015", (*linter).originUnanchored},
		{"S016", (*linter).slashesKept},
		{"S017", (*linter).resolverPublic},
		{"S022", (*linter).realIPFromAll},
		{"S023", (*linter).upstreamTLSUnverified},
		{"S024", (*linter).clientCertificateUnchecked},
		{"S025", (*linter).limitByClientsWord},
	}
}

func (l *linter) aliasTraversal() {
	for _, u := range l.all("alias") {
		if u.in.in != InLocation {
			continue
		}
		r := routeOf(u.in.open)
		path := u.arg(0)
		if r.kind != PrefixLocation && r.kind != NoRegexLocation || strings.HasSuffix(r.name, "/") || !strings.HasSuffix(path, "/") {
			continue
		}
		d := l.say(u.whole(), fmt.Sprintf("end both with a slash: location %s/ { alias %s; }", r.name, path),
			"%q together with location %q lets %q leave the folder", u.said(), r.name, r.name+"../")
		d.Related = append(d.Related, related(u.in.open, "the prefix has no slash at its end"))
	}
}

// headerTexts are the statements whose text is sent as part of a head, with the
// index of the argument.
func (l *linter) headerTexts(f func(u *use, arg int)) {
	for _, u := range l.all("return") {
		if n := len(u.Args); n == 1 && isRedirect(u.arg(0)) || n == 2 && isRedirectStatus(u.arg(0)) {
			f(u, n-1)
		}
	}
	for _, u := range l.all("add_header", "add_trailer", "proxy_set_header", "grpc_set_header") {
		f(u, 1)
	}
	for _, u := range l.all("proxy_pass") {
		f(u, 0)
	}
}

func isRedirectStatus(s string) bool {
	switch s {
	case "301", "302", "303", "307", "308":
		return true
	}
	return false
}

// splitting finds the decoded path in heads.
func (l *linter) splitting() {
	l.headerTexts(func(u *use, i int) {
		if l.refusesLineEnds(u) {
			return
		}
		for _, r := range references(u.arg(i)) {
			via := ""
			if name := r.name; !isURI(name) {
				source := l.setFrom(name, u)
				if source == nil {
					continue
				}
				via = fmt.Sprintf(" (by %s)", source.said())
			}
			name := u.arg(i)[r.start:r.end]
			l.say(u.place(i), "$request_uri is the path as the client wrote it, still encoded",
				"%s is decoded%s: %%0d%%0a in the path becomes a line of %s", name, via, headOf(u))
			return
		}
	})
}

// refusesLineEnds says that the server of a statement answers with an error when
// the path has an encoded CR or LF.
func (l *linter) refusesLineEnds(u *use) bool {
	server := u.in.around(InServer)
	if server == nil {
		return false
	}
	return slices.ContainsFunc(server.own("if"), func(cond *use) bool {
		c, ok := conditionOf(cond)
		if !ok || cond.body == nil || c.variable != "request_uri" || c.op != "~" && c.op != "~*" {
			return false
		}
		returns := cond.body.own("return")
		if len(returns) == 0 || isRedirect(returns[0].arg(0)) || isRedirectStatus(returns[0].arg(0)) {
			return false
		}
		re, err := pcre.Compile(c.value, pcre.Options{Caseless: c.op == "~*"})
		if err != nil {
			return false
		}
		for _, path := range []string{"/%0d", "/%0D", "/%0a", "/%0A"} {
			if !re.Match([]byte(path)) {
				return false
			}
		}
		return true
	})
}

// setFrom finds a set directive of the same server that gives a variable the
// decoded path.
func (l *linter) setFrom(name string, at *use) *use {
	for _, s := range l.sets[name] {
		if s.in.around(InServer) != at.in.around(InServer) {
			continue
		}
		for _, r := range references(s.arg(1)) {
			if isURI(r.name) {
				return s
			}
		}
	}
	return nil
}

// headOf names the head that a statement's text becomes part of.
func headOf(u *use) string {
	switch u.Name.Value {
	case "proxy_pass", "proxy_set_header", "grpc_set_header":
		return "the request to the upstream"
	}
	return "the answer"
}

// splittingByCapture finds captures of the decoded path that can hold a line
// feed.
func (l *linter) splittingByCapture() {
	l.headerTexts(func(u *use, i int) {
		for _, r := range references(u.arg(i)) {
			for _, c := range l.capturesOf(r, u) {
				if !c.decoded || c.pattern.syntax() == nil || !c.pattern.syntax().GroupHas(c.group, '\n') {
					continue
				}
				l.say(u.place(i), `let the group exclude them, as in ([^\r\n]*), or use $request_uri`,
					"%s can hold a line feed: %q matches a decoded %%0a, which becomes a line of %s", u.arg(i)[r.start:r.end], c.pattern.regexp().String(), headOf(u))
				return
			}
		}
	})
}

// capturesOf finds the groups that a reference can take its text from.
func (l *linter) capturesOf(r reference, u *use) []capture {
	if r.capture == 0 {
		return l.captures[r.name]
	}
	if c := l.capturesAt(u); c != nil && c.pattern != nil {
		return []capture{{c.pattern, r.capture, c.decoded}}
	}
	return nil
}

// clientChoosesUpstream finds proxy_pass with a host that comes from the
// request.
func (l *linter) clientChoosesUpstream() {
	for _, u := range l.all("proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass") {
		loc := u.in.around(InLocation)
		if loc == nil || loc.one("internal") != nil {
			continue
		}
		text := u.arg(0)
		start := 0
		if i := strings.Index(text, "://"); i >= 0 {
			start = i + 3
		}
		end := len(text)
		if i := strings.IndexByte(text[start:], '/'); i >= 0 {
			end = start + i
		}
		for _, r := range references(text) {
			if r.start < start && r.end <= start || r.start >= end {
				continue
			}
			if why := l.clientControls(r, u, text[r.end:end], 0); why != "" {
				l.say(u.place(0), `map the names you allow to upstreams, or add "internal" to the location`,
					"the client chooses the host of %s by %s", u.Name.Value, why)
				break
			}
		}
	}
}

// clientControls says by which variable the client writes the text of a
// reference; "" when it does not, or cannot leave a domain that follows.
func (l *linter) clientControls(r reference, u *use, rest string, depth int) string {
	name := "$" + r.name
	switch {
	case r.capture != 0:
		c := l.capturesAt(u)
		if c == nil || c.pattern.syntax() == nil || c.pattern.syntax().GroupFixed(r.capture) || !c.decoded || confined(c, r.capture, rest) {
			return ""
		}
		return fmt.Sprintf("$%d of %q", r.capture, c.pattern.regexp().String())
	case strings.HasPrefix(r.name, "arg_"), strings.HasPrefix(r.name, "cookie_"),
		strings.HasPrefix(r.name, "http_") && r.name != "http_host" && r.name != "http_upgrade",
		isURI(r.name), r.name == "request_uri", r.name == "args", r.name == "query_string":
		return name
	}
	for _, c := range l.captures[r.name] {
		if c.decoded && c.pattern.syntax() != nil && !c.pattern.syntax().GroupFixed(c.group) && !confined(&c, c.group, rest) {
			return fmt.Sprintf("%s of %q", name, c.pattern.regexp().String())
		}
	}
	if depth > 4 {
		return ""
	}
	for _, s := range l.sets[r.name] {
		if s.in.around(InServer) != u.in.around(InServer) {
			continue
		}
		refs := references(s.arg(1))
		if len(refs) > 0 && refs[0].start == 0 {
			if why := l.clientControls(refs[0], s, s.arg(1)[refs[0].end:]+rest, depth+1); why != "" {
				return why
			}
		}
	}
	return ""
}

// confined reports whether a group cannot end the host name it begins: a domain
// follows, and nothing that could cut it off is matched.
func confined(c *capture, group int, rest string) bool {
	if !strings.HasPrefix(rest, ".") {
		return false
	}
	for _, b := range []byte("/?#@:\\") {
		if c.pattern.syntax().GroupHas(group, b) {
			return false
		}
	}
	return true
}

func (l *linter) hostFromClient() {
	for _, u := range l.all("proxy_set_header", "grpc_set_header") {
		if lower(u.arg(0)) == "host" && mentions(u.arg(1), "http_host") {
			l.say(u.place(1), "$host is the checked name, in lower case and without port; or write the name itself",
				"$http_host is whatever the client sent, even where the request line names another host")
		}
	}
}

func (l *linter) weakProtocols() {
	for _, u := range l.all("ssl_protocols", "proxy_ssl_protocols", "grpc_ssl_protocols", "uwsgi_ssl_protocols") {
		hint := u.Name.Value + " TLSv1.2 TLSv1.3;"
		for i := range u.Args {
			if p := lower(u.arg(i)); p == "tlsv1" || p == "tlsv1.1" || strings.HasPrefix(p, "sslv") {
				l.say(u.place(i), hint, "%s is broken, and enabled here", u.arg(i))
				break
			}
		}
	}
}

func (l *linter) refererNone() {
	for _, u := range l.all("valid_referers") {
		for i := range u.Args {
			if u.arg(i) == "none" {
				l.say(u.place(i), `drop "none"`, "\"none\" lets every request without a Referer pass: the check is avoided by sending none")
			}
		}
	}
}

// originUnanchored finds expressions for Origin that more than the meant sites
// satisfy.
func (l *linter) originUnanchored() {
	check := func(at parser.Range, text string, caseless bool) {
		p := l.pattern(text, caseless)
		if p.syntax() == nil {
			return
		}
		evil, open := l.strangerOf(p)
		if open {
			l.say(at, `name the whole origin: "^https://x\.test$"`, "%q also matches the origin %q", text, evil)
		}
	}
	for _, u := range l.all("if") {
		if c, ok := conditionOf(u); ok && c.variable == "http_origin" && (c.op == "~" || c.op == "~*") {
			check(u.place(len(u.Args)-1), c.value, c.op == "~*")
		}
	}
	for _, u := range l.all("map") {
		if u.arg(0) != "$http_origin" || u.body == nil {
			continue
		}
		for _, e := range u.body.uses {
			if text, ok := strings.CutPrefix(e.Name.Value, "~"); ok && e.arg(0) != "" && e.arg(0) != "0" {
				rest, caseless := strings.CutPrefix(text, "*")
				check(e.Name.Range, rest, caseless)
			}
		}
	}
}

// strangerOf makes up an origin of a stranger that the expression matches.
func (l *linter) strangerOf(p *pattern) (string, bool) {
	text, v := l.find(p, nil)
	if v != pcre.Found || text == "" {
		return "", false
	}
	after := text + ".evil.test"
	if p.matches(after) {
		return after, true
	}
	host := text
	if i := strings.Index(text, "://"); i >= 0 {
		return "", false // the scheme is part of it: what comes before cannot be a host
	}
	if host[0] != '.' && host[0] != '/' {
		if before := "https://evil" + host; p.matches(before) {
			return before, true
		}
	}
	return "", false
}

func (l *linter) slashesKept() {
	for _, u := range l.all("merge_slashes") {
		if lower(u.arg(0)) != "off" {
			continue
		}
		var file *use
		u.in.walk(func(f *use) {
			if file == nil && (f.Name.Value == "alias" || f.Name.Value == "root") {
				file = f
			}
		})
		if file != nil {
			d := l.say(u.whole(), "leave merge_slashes on", "with \"merge_slashes off\" the path //x reaches files and passes by location rules for /x")
			d.Related = append(d.Related, related(file, "files are served from here"))
		}
	}
}

func (l *linter) resolverPublic() {
	for _, u := range l.all("resolver") {
		if !l.resolves(u.in) {
			continue
		}
		for i := range u.Args {
			host := strings.Trim(u.arg(i), "[]")
			if h, _, ok := strings.Cut(host, "]:"); ok {
				host = h
			} else if strings.Count(host, ":") == 1 {
				host, _, _ = strings.Cut(host, ":")
			}
			a, err := netip.ParseAddr(host)
			if err == nil && a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace().Contains(a.Unmap()) {
				l.say(u.place(i), "use a resolver on this machine or in your network",
					"upstream names are asked from %s across the internet, where answers can be forged", u.arg(i))
				break
			}
		}
	}
}

func sharedSpace() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/10") }

// resolves reports whether names of upstreams are looked up at run time below a
// block: other uses of a resolver check what they get.
func (l *linter) resolves(s *scope) bool {
	found := false
	s.walk(func(u *use) {
		if strings.HasSuffix(u.Name.Value, "_pass") && strings.Contains(u.arg(0), "$") {
			found = true
		}
	})
	for _, u := range l.all("server") {
		for i := range u.Args {
			found = found || u.in.in&(InUpstream|InStreamUpstream) != 0 && u.arg(i) == "resolve"
		}
	}
	return found
}

func (l *linter) realIPFromAll() {
	for _, u := range l.all("set_real_ip_from") {
		if p, err := netip.ParsePrefix(u.arg(0)); err == nil && p.Bits() == 0 {
			l.say(u.place(0), "list the addresses of your proxies", "every client may choose the address it seems to come from")
		}
	}
}

func (l *linter) upstreamTLSUnverified() {
	for _, u := range l.all("proxy_pass", "grpc_pass", "uwsgi_pass") {
		verify := map[string]string{"proxy_pass": "proxy_ssl_verify", "grpc_pass": "grpc_ssl_verify", "uwsgi_pass": "uwsgi_ssl_verify"}[u.Name.Value]
		scheme, _, _ := strings.Cut(lower(u.arg(0)), "://")
		secure := scheme == "https" || scheme == "grpcs" || scheme == "suwsgi" || u.in.in == InStreamServer && u.in.setting("proxy_ssl", "off") == "on"
		if !secure || u.in.setting(verify, "off") == "on" {
			continue
		}
		trusted := strings.TrimSuffix(verify, "verify") + "trusted_certificate"
		d := l.say(u.place(0), fmt.Sprintf("%s on; %s /etc/ssl/certs/ca-certificates.crt;", verify, trusted),
			"whoever answers for %s is believed: nginx does not verify certificates of upstreams unless told", u.arg(0))
		if a, err := netip.ParseAddr(strings.Trim(targetOf(u.arg(0)).host, "[]")); err == nil && a.IsLoopback() {
			d.Severity = parser.Note // nobody stands between
		}
	}
}

func (l *linter) clientCertificateUnchecked() {
	for _, u := range l.all("ssl_verify_client") {
		if u.arg(0) != "optional_no_ca" && u.arg(0) != "optional" {
			continue
		}
		checked := false
		for _, other := range [2]*scope{u.in, l.root} {
			other.walk(func(o *use) {
				if other == l.root && o.in.around(InServer|InStreamServer) != nil {
					return
				}
				for _, a := range append([]parser.Arg{o.Name}, o.Args...) {
					checked = checked || mentions(a.Value, "ssl_client_verify")
				}
			})
		}
		if !checked && u.arg(0) == "optional_no_ca" {
			l.say(u.place(0), "test $ssl_client_verify, or pass it on", "any client certificate is accepted, and nothing here looks at $ssl_client_verify")
		}
	}
}

func (l *linter) limitByClientsWord() {
	for _, u := range l.all("limit_req_zone", "limit_conn_zone") {
		for _, r := range references(u.arg(0)) {
			switch r.name {
			case "http_x_forwarded_for", "http_x_real_ip", "http_forwarded", "http_x_client_ip", "http_client_ip", "proxy_add_x_forwarded_for":
				l.say(u.place(0), "use $binary_remote_addr, with set_real_ip_from for your proxies",
					"the client writes $%s itself: it gets a fresh limit with every value, and none with an empty one", r.name)
			}
		}
	}
}
