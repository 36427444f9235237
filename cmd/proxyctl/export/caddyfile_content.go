package export

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"proxyctl/proxy"
)

// What stands in a route of a Caddyfile: who may come in, what is changed, who
// answers.

type wording = func(string) (string, bool)

func (w *writer) caddyBody(r *proxy.PlanRoute, name string, word wording) {
	switch {
	case r.Allow != nil:
		w.line(r.Place, "@%sdenied not remote_ip %s", name, strings.Join(r.Allow, " "))
		w.line(r.Place, "respond @%sdenied 403", name)
	case !hasContent(r):
		w.caddyFields(&proxy.PlanRoute{Fields: r.Fields, Answer: &proxy.PlanAnswer{Status: 403}}, word)
		w.line(r.Place, "respond 403")
		return
	case r.Deny != nil:
		w.line(r.Place, "@%sdenied remote_ip %s", name, strings.Join(r.Deny, " "))
		w.line(r.Place, "respond @%sdenied 403", name)
	}
	if r.Login != nil {
		w.caddyLogin(r.Login)
	}
	if r.Files != nil && !w.caddyElsewhere(r.Files, name, word) {
		return
	}
	w.caddyFields(r, word)
	if c := r.Compress; c != nil && r.Answer == nil {
		w.opening(c.Place, "encode")
		w.line(c.Place, "gzip %s", c.Level)
		w.line(c.Place, "minimum_length %s", c.Least)
		types := "*"
		if !slices.Contains(c.Types, "*") {
			types = strings.Join(c.Types, "* ") + "*"
		}
		w.opening(c.Place, "match")
		for t := range strings.FieldsSeq(types) {
			w.line(c.Place, "header Content-Type %s", quote(t))
		}
		w.closing()
		w.closing()
	}
	if r.MaxBody > 0 && (r.Pass != nil || r.App != nil) {
		w.opening(r.Place, "request_body")
		w.line("", "max_size %d", r.MaxBody)
		w.closing()
	}
	switch {
	case r.Answer != nil:
		w.caddyAnswer(r.Answer, name, word)
	case r.Pass != nil:
		w.caddyPass(r, name, word)
	case r.App != nil:
		w.caddyApp(r.App, name, word)
	case r.Files != nil:
		w.caddyFiles(r, name)
	}
}

// caddyLogin asks for passwords, if Caddy can check them.
func (w *writer) caddyLogin(l *proxy.PlanLogin) {
	var users []proxy.PlanUser
	for _, u := range l.Users {
		if strings.HasPrefix(u.Hash, "$2") {
			users = append(users, u)
			continue
		}
		w.missing("auth_basic_user_file", "user "+u.Name, u.Place, "Caddy knows hashes of bcrypt only: this one must be made anew (caddy hash-password, or htpasswd -B)", true)
	}
	if users == nil {
		w.line(l.Place, "respond 401 # nobody can come in")
		return
	}
	w.opening(l.Place, "basic_auth bcrypt %s", quote(l.Realm))
	for _, u := range users {
		w.line(u.Place, "%s %s", quote(u.Name), u.Hash)
	}
	w.closing()
}

// successes are the statuses with which add_header counts without "always".
const successes = "200 201 204 206 301 302 303 304 307 308"

// caddyFields adds fields to answers.
func (w *writer) caddyFields(r *proxy.PlanRoute, word wording) {
	var always, others []placed
	for _, f := range r.Fields {
		value, ok := expand(f.Value, caddyText, word)
		switch {
		case !ok:
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", isProtection(f.Name))
		case f.Value == "":
		case r.Answer != nil:
			if f.Always || strings.Contains(successes, strconv.Itoa(r.Answer.Status)) {
				w.line(f.Place, "header %s %s", quote("+"+f.Name), quote(value))
			}
		case f.Always:
			always = append(always, placed{quote("+"+f.Name) + " " + quote(value), f.Place})
		default:
			others = append(others, placed{quote("+"+f.Name) + " " + quote(value), f.Place})
		}
	}
	for i, list := range [2][]placed{always, others} {
		if list == nil {
			continue
		}
		w.opening(list[0].place, "header")
		for _, f := range list {
			w.line(f.place, "%s", f.text)
		}
		if i == 0 {
			w.line("", "defer")
		} else {
			w.line("", "match status %s", successes)
		}
		w.closing()
	}
}

func (w *writer) caddyAnswer(a *proxy.PlanAnswer, name string, word wording) {
	text, ok := expand(a.Text, caddyText, word)
	switch {
	case !ok:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "a variable in it has no equivalent", a.Status >= 400)
		w.line(a.Place, "respond 503")
	case a.Status == 444:
		w.line(a.Place, "abort")
	case a.Redirect:
		if a.Arguments && strings.Contains(a.Text, "?") {
			w.line(a.Place, "@%smore not vars {query} \"\"", name)
			w.line(a.Place, "redir @%smore %s %d", name, quote(text+"&{query}"), a.Status)
		} else if a.Arguments {
			text += "{?query}"
		}
		w.line(a.Place, "redir %s%s %d", anything(text), quote(text), a.Status)
	case text == "":
		w.line(a.Place, "respond %d", a.Status)
	default:
		w.line(a.Place, "header Content-Type %s", quote(a.Type))
		w.line(a.Place, "respond %s%s %d", anything(text), quote(text), a.Status)
	}
}

// anything is the matcher of all requests, where the word that follows would be
// taken for one.
func anything(word string) string {
	if word != "" && strings.Contains("/@*", word[:1]) {
		return "* "
	}
	return ""
}

// caddyRewrite writes a rewrite for the requests of a matcher that is written.
// Captures stay as they were sent: decoded ones could begin arguments.
func (w *writer) caddyRewrite(r *proxy.PlanRewrite, m *caddyMatcher) {
	path, arguments, more := strings.Cut(r.To, "?")
	pattern, ok := w.goPattern(r.Expression, "rewrite", r.Place)
	switch {
	case !ok:
		return
	case strings.Contains(captureOnly.ReplaceAllString(path, ""), "$") || strings.ContainsAny(arguments, "$"):
		w.missing("rewrite", r.Expression+" "+r.To, r.Place, "in the new path there can be captures only", false)
		return
	case more && r.Arguments:
		w.missing("rewrite", r.Expression+" "+r.To, r.Place, "arguments cannot be added to those of the request", false)
		return
	}
	w.opening(r.Place, "route @%s", m.name)
	w.caddyPath(r.Place, "^.*?(?:"+pattern+").*$", caddyText(path))
	if more || !r.Arguments {
		w.line(r.Place, "rewrite * %s", quote("{path}?"+arguments))
	}
	w.closing()
}

// captureOnly is a capture by number that nothing follows that could belong to it.
var captureOnly = regexp.MustCompile(`\$\d\b`)

// caddyPath changes the path by an expression, once it is written in the usual way.
func (w *writer) caddyPath(place, pattern, to string) {
	w.line(place, "rewrite * {path}")
	w.line(place, "uri path_regexp /{2,} /")
	w.line(place, "uri path_regexp %s %s", quote(pattern), quote(to))
}

// caddyURI is a URI to rewrite to: Caddy keeps the arguments where it has none.
func caddyURI(to string, arguments bool) string {
	to = strings.ReplaceAll(to, "{?query}", "?{query}")
	if !strings.Contains(to, "?") && !arguments {
		return to + "?"
	}
	return to
}

func (w *writer) caddyPass(r *proxy.PlanRoute, name string, word wording) {
	p := r.Pass
	if r.Rewrite != nil {
		m := &caddyMatcher{writer: w, name: name + "rewritten", route: r}
		if m.pathMatches(r.Rewrite.Expression, "rewrite", r.Rewrite.Place) {
			m.write()
			w.caddyRewrite(r.Rewrite, m)
		}
	}
	if p.Replace {
		w.caddyReplace(r)
	}
	if p.Whole {
		w.line(p.Place, "rewrite * %s", quote(caddyText(p.Path)+"?"))
	}
	var to, weights []string
	weighted := false
	for _, t := range p.Servers {
		if t.Backup {
			w.missing("server", t.Address+" backup", t.Place, "Caddy has no backup servers", false)
			continue
		}
		to, weights = append(to, caddyServer(t.Address)), append(weights, strconv.Itoa(t.Weight))
		weighted = weighted || t.Weight != 1
	}
	w.opening(p.Place, "reverse_proxy %s", strings.Join(to, " "))
	if len(to) > 1 {
		policy := "round_robin"
		switch {
		case p.Balanced != "":
			policy = p.Balanced
		case weighted:
			policy = "weighted_round_robin " + strings.Join(weights, " ")
		}
		w.line(p.Place, "lb_policy %s", policy)
		w.line("", "lb_retries %d", len(to)-1)
	}
	w.caddyUp(p, word)
	for _, f := range p.Hidden {
		w.line(f.Place, "header_down %s", quote("-"+f.Name))
	}
	for _, m := range p.Moved {
		w.line(m[0].Place, "header_down Location %s %s", quote("^"+regexp.QuoteMeta(m[0].Value)), quote(m[1].Value))
	}
	if p.TLS {
		w.opening(p.Place, "transport http")
		w.line(p.Place, "tls")
		if !p.Verify {
			w.line(p.Place, "tls_insecure_skip_verify")
		}
		if !slices.ContainsFunc(p.Servers, func(t proxy.PlanTarget) bool { return strings.HasPrefix(t.Address, p.ServerName+":") }) {
			w.line(p.Place, "tls_server_name %s", quote(p.ServerName))
		}
		w.closing()
	}
	w.closing()
}

func caddyServer(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return quote("unix/" + path)
	}
	return address
}

// caddyReplace puts a path in the place of the route's name.
func (w *writer) caddyReplace(r *proxy.PlanRoute) {
	p := r.Pass
	from, slash := strings.CutSuffix(r.Name, "/")
	to, whole := strings.CutSuffix(p.Path, "/")
	switch {
	case r.Kind == proxy.ExactLocation:
		w.line(p.Place, "rewrite * %s", quote(p.Path))
	case !slash || !whole:
		w.caddyPath(p.Place, "^"+regexp.QuoteMeta(r.Name), caddyText(p.Path))
	default:
		if from != "" {
			w.line(p.Place, "uri strip_prefix %s", quote(from))
		}
		if to != "" {
			w.line(p.Place, "rewrite * %s", quote(to+"{path}"))
		}
	}
}

// caddyUp writes the fields of requests.
func (w *writer) caddyUp(p *proxy.PlanPass, word wording) {
	for _, f := range p.Fields {
		switch value, ok := expand(f.Value, caddyText, word); {
		case isUpgrade(f):
		case f.Value != "" && forwarded[strings.ToLower(f.Name)] == f.Value:
			w.line(f.Place, "# %s: Caddy sets it by itself, and trusts none that clients send", f.Name)
		case !ok:
			w.missing("proxy_set_header", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
			w.line(f.Place, "header_up %s", quote("-"+f.Name)) // nobody may send it in its place
		case value == "":
			w.line(f.Place, "header_up %s", quote("-"+f.Name))
		default:
			w.line(f.Place, "header_up %s %s", quote(f.Name), quote(value))
		}
	}
}

// forwarded are the fields that Caddy sets as these values would.
var forwarded = map[string]string{
	"x-forwarded-for": "$proxy_add_x_forwarded_for", "x-forwarded-proto": "$scheme", "x-forwarded-host": "$http_host",
}

// caddyApp writes an application of FastCGI.
func (w *writer) caddyApp(a *proxy.PlanApp, name string, word wording) {
	if a.Check {
		w.opening(a.Place, "@%snone not file", name)
		w.line(a.Place, "root %s", quote(a.Root))
		w.line(a.Place, "try_files {path}")
		if a.Split {
			w.line(a.Place, "split_path .php")
		}
		w.closing()
		w.line(a.Place, "respond @%snone 404", name)
	}
	var to []string
	for _, t := range a.Servers {
		to = append(to, caddyServer(t.Address))
	}
	w.opening(a.Place, "reverse_proxy %s", strings.Join(to, " "))
	w.opening(a.Place, "transport fastcgi")
	w.line(a.Place, "root %s", quote(a.Root))
	w.line(a.Place, "split .php")
	if a.Resolve {
		w.line(a.Place, "resolve_root_symlink")
	}
	for _, f := range a.Params {
		if value, ok := expand(f.Value, caddyText, word); ok {
			w.line(f.Place, "env %s %s", f.Name, quote(value))
		} else {
			w.missing("fastcgi_param", f.Name+" "+f.Value, f.Place, "a variable in it has no equivalent", false)
		}
	}
	w.closing()
	w.closing()
}

// caddyElsewhere writes what is not served from files: an index that is a script,
// and what answers when there is no file. The fields of answers are not theirs.
func (w *writer) caddyElsewhere(f *proxy.PlanFiles, name string, word wording) bool {
	if f.Strip != "" {
		w.line(f.Place, "uri strip_prefix %s", quote(f.Strip))
	}
	w.line(f.Place, "root * %s", quote(f.Root))
	if f.Run != nil && lookedFor(f, "$uri/") {
		w.caddyIndex(f, name)
	}
	last, ok := expand(f.Last, caddyText, word)
	tries, triable := caddyTries(f, word)
	if !ok || !triable {
		w.missing("try_files", strings.Join(append(f.Tries, f.Last), " "), f.Place, "a variable in it has no equivalent", false)
		w.line(f.Place, "respond 503")
		return false
	}
	if f.Tries != nil {
		w.caddyNone(f, name, tries)
	}
	switch {
	case f.Else != nil:
		w.opening(f.Place, "route @%snone", name)
		if to, ok := expand(f.To, caddyText, word); ok && to != "" {
			w.line(f.Place, "rewrite * %s", quote(caddyURI(to, false)))
		}
		w.caddyBody(f.Else, name+"else", caddyWords(nil))
		w.closing()
	case f.Tries != nil && f.Last != "=404":
		w.line(f.Place, "rewrite @%snone %s", name, quote(caddyURI(last, false)))
	}
	if f.Run != nil {
		m := &caddyMatcher{writer: w, route: f.Run, name: name + "run"}
		if m.read() && m.write() {
			w.opening(f.Run.Place, "route @%s", m.name)
			w.caddyBody(f.Run, m.name, caddyWords(m.captures))
			w.closing()
		}
	}
	return true
}

// caddyNone writes the matcher for what is not there. For Caddy's matcher the
// root is no folder of its own.
func (w *writer) caddyNone(f *proxy.PlanFiles, name, tries string) {
	if !lookedFor(f, "$uri/") {
		w.line(f.Place, "@%snone not file %s", name, tries)
		return
	}
	w.opening(f.Place, "@%snone", name)
	w.line(f.Place, "not file %s", tries)
	w.line(f.Place, "not path /")
	w.closing()
}

// lookedFor reports whether a word is among those of try_files; without it $uri/
// is, too.
func lookedFor(f *proxy.PlanFiles, word string) bool {
	return f.Tries == nil || slices.Contains(f.Tries, word)
}

// caddyTries gives what is looked for.
func caddyTries(f *proxy.PlanFiles, word wording) (string, bool) {
	var tries []string
	for _, t := range f.Tries {
		text, ok := expand(t, caddyText, word)
		if !ok {
			return "", false
		}
		tries = append(tries, quote(text))
	}
	if tries == nil {
		return "{path} {path}/", true
	}
	return strings.Join(tries, " "), true
}

// caddyIndex runs an index that is a script.
func (w *writer) caddyIndex(f *proxy.PlanFiles, name string) {
	var names []string
	for _, n := range f.Index {
		names = append(names, quote("{path}"+n))
	}
	w.opening(f.Place, "@%sindex", name)
	w.line(f.Place, "path */")
	w.line(f.Place, "file %s", strings.Join(names, " "))
	w.closing()
	w.line(f.Place, "rewrite @%sindex {file_match.relative}", name)
}

// caddyFiles writes files.
func (w *writer) caddyFiles(r *proxy.PlanRoute, name string) {
	f := r.Files
	if lookedFor(f, "$uri/") { // folders have a slash behind them
		w.opening(f.Place, "@%sfolder", name)
		w.line(f.Place, "file {path}/")
		w.line(f.Place, "not path */")
		w.closing()
		w.line(f.Place, "redir @%sfolder {orig_path}/{?query} 301", name)
	}
	tries, _ := caddyTries(f, caddyWords(nil))
	others := slices.ContainsFunc(f.Tries, func(t string) bool { return t != "$uri" && t != "$uri/" })
	always := slices.ContainsFunc(r.Fields, func(f proxy.PlanField) bool { return f.Always })
	if f.Last == "=404" && (f.Tries != nil || always) { // a plain answer, so that it has the fields, too
		if f.Tries == nil {
			w.caddyNone(f, name, tries)
		}
		w.line(f.Place, "respond @%snone 404", name)
	}
	if others {
		w.line(f.Place, "try_files %s", tries)
	}
	w.opening(f.Place, "file_server")
	w.line(f.Place, "index %s", strings.Join(f.Index, " "))
	w.closing()
}
