package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"proxyctl/parser"
)

// Rules about what is passed to upstreams.

func proxyRules() []lintRule {
	return []lintRule{
		{"C006", (*linter).slashMismatch},
		{"C007", (*linter).resolvedOnce},
		{"C020", (*linter).singleServer},
		{"C021", (*linter).upstreamUnused},
		{"C022", (*linter).upstreamUnknown},
		{"C023", (*linter).hashWithBackup},
		{"C028", (*linter).keepaliveUnused},
		{"C029", (*linter).cacheUnbuffered},
		{"C030", (*linter).cacheShared},
		{"C037", (*linter).eventsBuffered},
	}
}

// target takes the argument of a pass directive apart.
type target struct{ scheme, host, port, uri string }

func targetOf(text string) target {
	var t target
	rest := text
	if scheme, after, ok := strings.Cut(text, "://"); ok {
		t.scheme, rest = lower(scheme), after
	}
	if strings.HasPrefix(rest, "unix:") {
		t.host = "unix"
		if _, uri, ok := strings.Cut(rest[5:], ":"); ok {
			t.uri = uri
		}
		return t
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		t.uri, rest = rest[i:], rest[:i]
	}
	t.host = rest
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		t.host, t.port = rest[:i], rest[i+1:]
	}
	return t
}

func (l *linter) slashMismatch() {
	for _, u := range l.all("proxy_pass") {
		if u.in.in != InLocation || strings.Contains(u.arg(0), "$") {
			continue
		}
		r := routeOf(u.in.open)
		uri := targetOf(u.arg(0)).uri
		if r.kind != PrefixLocation && r.kind != NoRegexLocation || uri == "" || strings.Contains(uri, "?") {
			continue
		}
		from, to := strings.HasSuffix(r.name, "/"), strings.HasSuffix(uri, "/")
		switch {
		case from == to:
		case to:
			if !l.deeper(u.in.open) {
				d := l.say(u.whole(), fmt.Sprintf("location %s/ { proxy_pass %s; }", r.name, u.arg(0)),
					"%q becomes %q, and %q becomes %q", r.name+"/x", uri+"/x", r.name+"x", uri+"x")
				d.Related = append(d.Related, related(u.in.open, "no slash here, one there"))
			}
		case from:
			d := l.say(u.whole(), fmt.Sprintf("proxy_pass %s/;", u.arg(0)), "%q becomes %q", r.name+"x", uri+"x")
			d.Related = append(d.Related, related(u.in.open, "a slash here, none there"))
		}
	}
}

// deeper reports whether a sibling takes the folder below a location, so that
// only the bare name comes to it.
func (l *linter) deeper(loc *use) bool {
	name := routeOf(loc).name
	return slices.ContainsFunc(loc.in.locations(), func(u *use) bool {
		r := routeOf(u)
		return r.name == name+"/" && (r.kind == PrefixLocation || r.kind == NoRegexLocation)
	})
}

// upstreams gives the http upstream blocks by name.
func (l *linter) upstreams() map[string]*use { return l.upstreamsIn(InUpstream) }

func (l *linter) upstreamsIn(in Context) map[string]*use {
	out := map[string]*use{}
	for _, u := range l.all("upstream") {
		if u.body != nil && u.body.in == in {
			out[lower(u.arg(0))] = u
		}
	}
	return out
}

func (l *linter) resolvedOnce() {
	http, stream := l.upstreams(), l.upstreamsIn(InStreamUpstream)
	for _, u := range l.all("proxy_pass") {
		t, known := targetOf(u.arg(0)), http
		if u.in.in == InStreamServer {
			known = stream
		}
		if strings.Contains(u.arg(0), "$") || t.host == "unix" || t.host == "" || known[lower(t.host)] != nil || isIP(t.host) || l.failed(u) {
			continue
		}
		if t.host == "localhost" {
			l.say(u.place(0), "write 127.0.0.1 or [::1] for one of them", "localhost stands for every address that it has when the configuration is read, often two").Severity = parser.Note
			continue
		}
		l.say(u.place(0), fmt.Sprintf(`upstream name { zone name 64k; server %s resolve; } with a resolver (nginx 1.27.3)`, hostPort(t)),
			"%s is resolved once, when the configuration is read: nginx does not see it move", t.host)
	}
}

// failed reports whether Load refused a statement's argument.
func (l *linter) failed(u *use) bool {
	return slices.ContainsFunc(l.known, func(d *parser.Diagnostic) bool {
		return d.Severity == parser.Error && (d.At == u.End || d.Range == u.place(0))
	})
}

func hostPort(t target) string {
	if t.port == "" {
		return t.host
	}
	return t.host + ":" + t.port
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

func (l *linter) singleServer() {
	for _, u := range l.upstreams() {
		servers := u.body.own("server")
		if len(servers) != 1 || servers[0].hasArg("resolve") || isName(servers[0].arg(0)) {
			continue
		}
		for i := range servers[0].Args {
			if v := servers[0].arg(i); strings.HasPrefix(v, "max_fails=") && v != "max_fails=0" || strings.HasPrefix(v, "fail_timeout=") {
				l.say(servers[0].place(i), "remove it, or add a second server", "%s has no effect: the only server of an upstream is never left out", v)
				break
			}
		}
	}
}

// isName reports whether a server is a host name, which can have several
// addresses.
func isName(server string) bool {
	t := targetOf(server)
	return t.host != "unix" && t.host != "localhost" && !isIP(t.host)
}

// upstreamUnused finds upstreams that nothing names. A file without servers is
// a part of something larger.
func (l *linter) upstreamUnused() {
	known := l.upstreams()
	if len(l.servers()) == 0 || len(known) == 0 {
		return
	}
	used := map[string]bool{}
	var stems []string // what stands before a variable: http://app_$color
	note := func(a parser.Arg) {
		v := lower(a.Value)
		host := targetOf(v).host
		for _, name := range [2]string{v, host} {
			if known[name] != nil {
				used[name] = true
			}
		}
		if stem, _, found := strings.Cut(host, "$"); found && stem != "" && !slices.Contains(stems, stem) {
			stems = append(stems, stem)
		}
	}
	l.root.walk(func(u *use) {
		if u.Name.Value == "upstream" {
			return
		}
		note(u.Name) // of a line of map
		for _, a := range u.Args {
			note(a)
		}
	})
	for name, u := range known {
		if !used[name] && !slices.ContainsFunc(stems, func(stem string) bool { return strings.HasPrefix(name, stem) }) {
			l.say(u.whole(), "remove it, or look for a misspelt proxy_pass", "upstream %q is not used", u.arg(0))
		}
	}
}

// upstreamUnknown helps with names that are likely misspelt upstreams.
func (l *linter) upstreamUnknown() {
	known := map[string]bool{}
	var names []string
	for n, u := range l.upstreams() {
		known[n] = true
		names = append(names, u.arg(0))
	}
	slices.Sort(names)
	for _, d := range l.known {
		if d.Code != "C022" || len(names) == 0 {
			continue
		}
		host := targetOf(d.Range.Text()).host
		if best := nearest(lower(host), known); best != "" {
			d.Hint = fmt.Sprintf("did you mean the upstream %q?", best)
			continue
		}
		d.Hint = "no such host, and no upstream of that name: there are " + short(strings.Join(names, ", "))
	}
}

func (l *linter) hashWithBackup() {
	for _, u := range l.all("ip_hash", "hash", "random", "least_conn") {
		if u.in.in != InUpstream || u.Name.Value == "least_conn" {
			continue
		}
		for _, s := range u.in.own("server") {
			if s.hasArg("backup") && s.Name.Range.Source == u.Name.Range.Source && s.Name.Range.Start < u.Name.Range.Start {
				d := l.say(u.whole(), "put "+u.Name.Value+" first: nginx then refuses backup", "%s never uses the backup server", u.Name.Value)
				d.Related = append(d.Related, related(s, "the backup"))
				break
			}
		}
	}
	for _, d := range l.known {
		if d.Code == "" && strings.HasPrefix(d.Message, "balancing method does not support parameter \"backup\"") {
			d.Code, d.Hint = l.rule, "remove backup, or balance another way"
		}
	}
}

func (l *linter) keepaliveUnused() {
	known := l.upstreams()
	told := map[*use]bool{}
	for _, u := range l.all("proxy_pass") {
		up := known[lower(targetOf(u.arg(0)).host)]
		if up == nil || told[up] {
			continue
		}
		keep := up.body.one("keepalive")
		if keep == nil {
			continue
		}
		cleared := false
		for _, h := range u.in.inherited("proxy_set_header") {
			cleared = cleared || strings.EqualFold(h.arg(0), "connection")
		}
		version := u.in.setting("proxy_http_version", "")
		if version != "" && version != "1.0" && cleared {
			continue
		}
		told[up] = true
		d := l.past("1.29.7", keep.whole(), `proxy_http_version 1.1; proxy_set_header Connection "";`,
			"before nginx 1.29.7 no connection to %q is kept: requests go out as HTTP/1.0 with \"Connection: close\"", up.arg(0))
		d.Related = append(d.Related, related(u, "from here"))
	}
}

func (l *linter) cacheUnbuffered() {
	for _, u := range l.all("proxy_cache") {
		if u.arg(0) == "off" {
			continue
		}
		if list := u.in.inherited("proxy_buffering"); list != nil && list[0].arg(0) == "off" {
			d := l.say(u.whole(), "proxy_buffering on;", "nothing is cached: proxy_buffering is off")
			d.Related = append(d.Related, related(list[0], "turned off here"))
		}
	}
}

func (l *linter) cacheShared() {
	for _, prefix := range []string{"proxy", "fastcgi", "uwsgi", "scgi"} {
		for _, u := range l.all(prefix + "_ignore_headers") {
			i := slices.IndexFunc(u.Args, func(a parser.Arg) bool { return strings.EqualFold(a.Value, "set-cookie") })
			hidden := slices.ContainsFunc(u.in.inherited(prefix+"_hide_header"), func(h *use) bool { return strings.EqualFold(h.arg(0), "set-cookie") })
			if i < 0 || hidden || !l.caches(u.in, prefix+"_cache") {
				continue
			}
			l.say(u.place(i), "leave Set-Cookie out, or hide it with "+prefix+"_hide_header", "answers that set cookies are cached: one user's cookie goes to all")
		}
	}
}

// caches reports whether a cache counts at a block or below it.
func (l *linter) caches(s *scope, directive string) bool {
	if s.setting(directive, "off") != "off" {
		return true
	}
	found := false
	s.walk(func(u *use) { found = found || u.Name.Value == directive && u.arg(0) != "off" })
	return found
}

// eventsBuffered finds event streams that are held back and cut.
func (l *linter) eventsBuffered() {
	for _, u := range l.all("proxy_pass") {
		if u.in.in != InLocation {
			continue
		}
		r := routeOf(u.in.open)
		stream := slices.ContainsFunc(strings.FieldsFunc(lower(r.name), func(c rune) bool { return !isNameByte(byte(c)) && c != '-' }), func(w string) bool {
			return w == "events" || w == "sse" || w == "event-stream" || w == "eventsource"
		})
		timeout := u.in.inherited("proxy_read_timeout")
		if !stream || timeout == nil || u.in.setting("proxy_buffering", "on") == "off" {
			continue
		}
		if t, ok := parseTime(timeout[0].arg(0), false); ok && t.Seconds() < 60 {
			l.say(timeout[0].whole(), "proxy_buffering off; proxy_read_timeout 1h;", "an event stream that is quiet for %s is cut, and its events wait in a buffer", timeout[0].arg(0))
		}
	}
}
