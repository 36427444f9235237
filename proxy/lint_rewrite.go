package proxy

import (
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// Rules about rewrite, return, if and map.

func rewritingRules() []lintRule {
	return []lintRule{
		{"C012", (*linter).redirectInTheWrongServer},
		{"C011", (*linter).redirectLoop},
		{"C008", (*linter).ifWithContent},
		{"C019", (*linter).mapWithoutDefault},
		{"C034", (*linter).rewriteNever},
		{"C035", (*linter).rewriteLoop},
	}
}

// redirectInTheWrongServer finds the block that Certbot writes for port 80 in a
// server that only speaks TLS.
func (l *linter) redirectInTheWrongServer() {
	for _, u := range l.all("if") {
		c, ok := conditionOf(u)
		if !ok || u.body == nil || u.in.in != InServer || !tlsOnly(u.in) || c.variable != "host" && c.variable != "http_host" || c.op != "=" {
			continue
		}
		answer := u.body.answers()
		if answer == nil {
			continue
		}
		scheme, host, same := redirectTarget(answer)
		if same && scheme == "https" && (isHostVariable(host) || strings.EqualFold(host, c.value)) {
			l.say(answer.whole(), "move the block to the server on port 80", "https://%s redirects to itself: this server speaks TLS already", c.value)
		}
	}
}

// redirectTarget takes a redirect apart; same tells that the path stays.
func redirectTarget(u *use) (scheme, host string, same bool) {
	url := u.arg(len(u.Args) - 1)
	if len(u.Args) == 2 && !isRedirectStatus(u.arg(0)) || len(u.Args) == 1 && !isRedirect(url) {
		return "", "", false
	}
	scheme, rest, found := strings.Cut(url, "://")
	if !found {
		return "", "", url == "$request_uri" || url == "$uri"
	}
	i := strings.Index(rest, "$request_uri")
	if i < 0 {
		i = strings.Index(rest, "$uri")
	}
	if i < 0 {
		return scheme, rest, false
	}
	path := rest[i:]
	return scheme, rest[:i], path == "$request_uri" || path == "$uri" || path == "$uri$is_args$args" || path == "$uri?$args"
}

func isHostVariable(s string) bool {
	switch lower(s) {
	case "$host", "$http_host", "$server_name", "${host}", "${http_host}":
		return true
	}
	return false
}

// redirectLoop finds redirects back to where they came from.
func (l *linter) redirectLoop() {
	for _, u := range l.all("return") {
		server := u.in.around(InServer)
		if server == nil || u.in.in == InServerIf || u.in.in == InLocationIf || u.in.answers() != u {
			continue
		}
		scheme, host, same := redirectTarget(u)
		if same && l.toItself(server, scheme, host) {
			l.say(u.whole(), "https:// or another host was meant, or the location of a single path", "%s redirects to itself", u.said())
			continue
		}
		l.pathLoop(u, server)
	}
}

// toItself reports whether a redirect with the same path comes back to a server.
func (l *linter) toItself(server *scope, scheme, host string) bool {
	ours := scheme == "" || scheme == "$scheme" || scheme == "https" && tlsOnly(server) || scheme == "http" && plainOnly(server)
	if !ours {
		return false
	}
	name, number, withPort := strings.Cut(host, ":")
	names := namesOf(server)
	known := host == "" || isHostVariable(name) || len(names) == 1 && strings.EqualFold(names[0], name)
	if name == "$server_name" && len(names) > 1 {
		return false // to the first of several names
	}
	if !known {
		return false
	}
	if withPort {
		return slices.ContainsFunc(server.own("listen"), func(u *use) bool { return port(u) == number })
	}
	return host == "" || scheme == "$scheme" || host == "$http_host" || !l.standardServer(server, scheme)
}

// standardServer reports whether another server of the file has the standard
// port of a scheme: a redirect without a port goes there.
func (l *linter) standardServer(not *scope, scheme string) bool {
	number := map[string]string{"http": "80", "https": "443"}[scheme]
	if slices.ContainsFunc(not.own("listen"), func(u *use) bool { return port(u) == number }) || not.one("listen") == nil {
		return false
	}
	for _, u := range l.all("listen") {
		if u.in != not && port(u) == number {
			return true
		}
	}
	return false
}

// pathLoop follows a redirect to a path on the same server.
func (l *linter) pathLoop(u *use, server *scope) {
	target := u.arg(len(u.Args) - 1)
	if len(u.Args) != 2 || !isRedirectStatus(u.arg(0)) || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return
	}
	if i := strings.IndexAny(target, "?#$"); i >= 0 {
		if target[i] == '$' {
			return
		}
		target = target[:i]
	}
	if s := l.locate(server, target); s == u.in || s.up == u.in && s.answers() == u {
		l.say(u.whole(), "write location = for the one path, or another target", "%s is answered by this same block: the redirect leads to itself", target)
	}
}

// ifWithContent finds if blocks in locations that do more than end the script.
func (l *linter) ifWithContent() {
	for _, u := range l.all("if") {
		if u.body == nil || u.in.in != InLocation || u.body.answers() != nil {
			continue
		}
		for _, inner := range u.body.uses {
			switch inner.Name.Value {
			case "return", "rewrite", "set", "break", "access_log", "limit_rate", "limit_rate_after", "error_page",
				"rewrite_log", "uninitialized_variable_warn", "include", "log_not_found":
				continue
			}
			d := l.say(inner.whole(), "decide by a map, or by locations of their own",
				"%s in an \"if\" of a location: the block replaces the location, and only return and rewrite are safe in it", inner.Name.Value)
			d.Related = append(d.Related, related(u, "the condition"))
			if l.worksAlone(u) {
				d.Severity, d.Message = parser.Note, inner.Name.Value+" in an \"if\" of a location works, until a second \"if\" or a try_files stands beside it"
			}
			break
		}
	}
}

// worksAlone reports whether a block of settings alone does what it reads like:
// the only condition beside one upstream, which the block inherits.
func (l *linter) worksAlone(u *use) bool {
	content := u.in.content()
	if content == nil || !strings.HasSuffix(content.Name.Value, "_pass") || u.in.one("try_files") != nil || u.body.content() != nil || u.body.one("try_files") != nil {
		return false
	}
	for _, other := range u.in.own("if") {
		if other != u && (other.body == nil || other.body.answers() == nil) {
			return false
		}
	}
	for _, inner := range u.body.uses { // a list here replaces that of the location
		if inner.row == nil || inner.row.Repeat && u.in.inherited(inner.Name.Value) != nil {
			return false
		}
	}
	return true
}

// mapWithoutDefault finds maps whose empty value ends up where it breaks
// something. Where nothing is sent for an empty value, none is needed.
func (l *linter) mapWithoutDefault() {
	for _, u := range l.all("map") {
		if u.body == nil || len(u.body.own("default")) > 0 || len(u.Args) != 2 {
			continue
		}
		name := lower(strings.TrimPrefix(u.arg(1), "$"))
		if slices.ContainsFunc(u.body.uses, func(e *use) bool {
			return e.Name.Value == "~.*" || e.Name.Value == "~*.*" || e.Name.Value == "~" || e.Name.Value == "include"
		}) {
			continue
		}
		var needs *use
		l.root.walk(func(o *use) {
			switch o.Name.Value {
			case "return", "rewrite", "proxy_pass", "fastcgi_pass", "uwsgi_pass", "grpc_pass", "scgi_pass", "root", "alias", "try_files", "proxy_redirect", "resolver":
				if needs == nil && slices.ContainsFunc(o.Args, func(a parser.Arg) bool { return mentions(a.Value, name) }) {
					needs = o
				}
			}
		})
		if needs != nil {
			d := l.say(u.whole(), "add a line: default value;", "map has no default: $%s is empty for all others", name)
			d.Related = append(d.Related, related(needs, "used here"))
		}
	}
}

// rewriteNever finds expressions that no URI satisfies.
func (l *linter) rewriteNever() {
	slash := l.pattern("^/", false)
	for _, u := range l.all("rewrite") {
		p := l.pattern(u.arg(0), false)
		if p.syntax() == nil {
			continue
		}
		if _, v := l.find(p, slash); v != pcre.None {
			continue
		}
		hint := ""
		if text, ok := strings.CutPrefix(u.arg(0), "^"); ok {
			hint = "write ^/" + text
		}
		l.say(u.place(0), hint, "%q never matches: URIs begin with \"/\"", u.arg(0))
	}
}

// rewriteLoop runs rewrites on URIs made up for them until they settle.
func (l *linter) rewriteLoop() {
	for _, u := range l.all("rewrite") {
		if u.in.in != InLocation || u.arg(2) != "last" && u.arg(2) != "" {
			continue
		}
		server := u.in.around(InServer)
		p := l.pattern(u.arg(0), false)
		if p.syntax() == nil || server == nil || u.in.answers() != nil {
			continue
		}
		uri, v := l.find(p, l.reaching(u.in))
		first := uri
		if v != pcre.Found || l.locate(server, uri) != u.in || l.firstRewrite(u.in, uri) != u {
			continue
		}
		for range maxRedirects {
			next, ok := rewritten(p, u.arg(1), uri)
			if !ok || l.locate(server, next) != u.in || l.firstRewrite(u.in, next) != u {
				uri = ""
				break
			}
			uri = next
		}
		if uri != "" {
			next, _ := rewritten(p, u.arg(1), first)
			l.say(u.whole(), `write "break" instead of "last", or leave the location`,
				"%s becomes %s, which comes here again: after %d rounds the answer is 500", first, next, maxRedirects)
		}
	}
}

// reaching is an expression for the URIs of a location.
func (l *linter) reaching(loc *scope) *pattern {
	r := routeOf(loc.open)
	text := "^" + quoteLiteral(r.name)
	caseless := false
	switch r.kind {
	case RegexLocation:
		text, caseless = r.name, r.caseless
	case ExactLocation:
		text += "$"
	case PrefixLocation, NoRegexLocation, NamedLocation, Nameless:
	}
	if p := l.pattern(text, caseless); p.syntax() != nil {
		return p
	}
	return l.pattern("^/", false)
}

// firstRewrite gives the rewrite of a block that changes a URI first, if
// nothing that cannot be told stands before it.
func (l *linter) firstRewrite(s *scope, uri string) *use {
	for _, u := range s.uses {
		switch u.Name.Value {
		case "if", "return", "break":
			return nil
		case "rewrite":
			if l.pattern(u.arg(0), false).matches(uri) {
				return u
			}
		}
	}
	return nil
}

// rewritten fills a replacement with captures; false when it holds variables or
// leads elsewhere.
func rewritten(p *pattern, replacement, uri string) (string, bool) {
	if isRedirect(replacement) || p.regexp() == nil {
		return "", false
	}
	replacement, _, _ = strings.Cut(replacement, "?")
	groups, matched, err := p.regexp().Search([]byte(uri), nil)
	if err != nil || !matched {
		return "", false
	}
	var b strings.Builder
	last := 0
	for _, r := range references(replacement) {
		if r.capture == 0 {
			return "", false
		}
		b.WriteString(replacement[last:r.start])
		if n := 2 * r.capture; n+1 < len(groups) && groups[n] >= 0 {
			b.WriteString(uri[groups[n]:groups[n+1]])
		}
		last = r.end
	}
	b.WriteString(replacement[last:])
	return b.String(), strings.HasPrefix(b.String(), "/")
}

// quoteLiteral makes an expression of a text.
func quoteLiteral(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < 0x80 && !isNameByte(c) {
			fmt.Fprintf(&b, `\x%02x`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
