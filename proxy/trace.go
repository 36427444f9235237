package proxy

import (
	"bytes"
	"fmt"
	"strings"

	"proxyctl/parser"
)

// Trace is the way of one request through a table. The code that serves
// requests writes it: an exchange that is explained has one, all others have
// nil and pay for a comparison here and there.
type Trace struct {
	// Steps are what happened, in order.
	Steps []TraceStep `json:"steps"`
	// Passed is where the request would go; nil when it is answered here.
	Passed *TracePass `json:"passed,omitempty"`
	// Asked are subrequests to upstreams on the way. The trace goes on as if each
	// had been answered 200.
	Asked []*TracePass `json:"asked,omitempty"`
	// Logs are the lines for the access logs.
	Logs []string `json:"logs,omitempty"`

	entered int      // scripts of if blocks that ran
	params  []string // of the request that is built, where there is no head
}

// TraceStep is one decision.
type TraceStep struct {
	What string `json:"what"` // listen, server, location, rewrite, access, answer, log ...
	Text string `json:"text"`
	// Place is "file:line" of the directive behind it.
	Place string `json:"place,omitempty"`
	// Details say why, and what else there was.
	Details []string `json:"details,omitempty"`
}

// TracePass is a request to an upstream that was made and not sent.
type TracePass struct {
	Upstream string   `json:"upstream"` // as the configuration names it
	Server   string   `json:"server"`   // its address, chosen as for a real request
	TLS      bool     `json:"tls"`
	Head     []string `json:"head"` // lines; for FastCGI and its like "NAME=value" each
	// Action says that it is made when the client has its answer (post_action).
	Action bool `json:"action,omitempty"`
}

func (t *Trace) step(what string, at parser.Range, format string, a ...any) *TraceStep {
	t.Steps = append(t.Steps, TraceStep{What: what, Text: fmt.Sprintf(format, a...), Place: linePlace(at)})
	return &t.Steps[len(t.Steps)-1]
}

// linePlace is "file:line".
func linePlace(r parser.Range) string {
	if r.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s:%d", r.Source.Name, r.Line())
}

// server notes which server was chosen.
func (t *Trace) server(x *Exchange) {
	s := t.step("server", x.server.Place, "%s", serverTitle(x.server))
	e := x.client.endpoint
	s.Details = append(s.Details, whyServer(x.server, e, string(x.host)))
	for _, other := range e.servers {
		if other != x.server && len(s.Details) < maxLosers {
			s.Details = append(s.Details, fmt.Sprintf("not %s: no name of it is %q", serverTitle(other), x.host))
		}
	}
	if n := len(e.servers); n > maxLosers {
		s.Details = append(s.Details, fmt.Sprintf("and not %d more", n-maxLosers))
	}
}

// maxLosers is how many of those that were not chosen are named.
const maxLosers = 6

func serverTitle(s *Server) string {
	if n := s.Name(); n != "" {
		return n
	}
	return "the server without a name"
}

func whyServer(s *Server, e *endpoint, host string) string {
	for _, n := range s.Names {
		switch {
		case n.text == host && host != "":
			return fmt.Sprintf("its name is %q", host)
		case n.regex != nil && n.regex.Match([]byte(host)):
			return fmt.Sprintf("its name %q matches %q", n.text, host)
		}
	}
	if s == e.fallback {
		if found := e.find([]byte(host), nil); found == s {
			return fmt.Sprintf("a wildcard name of it covers %q", host)
		}
		if e.options.defaultServer {
			return fmt.Sprintf("nobody has the name %q: it is the default_server of %s", host, e.address)
		}
		return fmt.Sprintf("nobody has the name %q: it is the first server of %s", host, e.address)
	}
	return fmt.Sprintf("a wildcard name of it covers %q", host)
}

// location notes which location was found below a level, and why.
func (t *Trace) location(x *Exchange, level *Location, redirect bool) {
	chosen := x.loc
	if chosen == level {
		t.step("location", level.Place, "none: no location takes %q, what the server says counts", x.uri)
		return
	}
	s := t.step("location", chosen.Place, "%s", locationTitle(chosen))
	s.Details = append(s.Details, whyLocation(chosen))
	if redirect {
		s.Details = append(s.Details, "the URI lacks the slash at its end: the client is sent there")
	}
	var losers, strangers []string
	var walk func(level *Location, asked bool)
	walk = func(level *Location, asked bool) {
		for _, n := range level.nested {
			if n == chosen || n.Kind == NamedLocation {
				if n == chosen {
					asked = n.Kind != RegexLocation && asked
				}
				continue
			}
			if why := n.lost(x.uri, chosen, asked); why != "" {
				losers = append(losers, "not "+locationTitle(n)+": "+why)
			} else {
				strangers = append(strangers, "not "+locationTitle(n)+", which is for other URIs")
			}
			if n.prefixes != nil && n.Kind != RegexLocation && bytes.HasPrefix(x.uri, []byte(n.Name)) {
				walk(n, asked)
			}
		}
	}
	walk(level, chosen.Kind != ExactLocation && chosen.Kind != NoRegexLocation)
	losers = append(losers, strangers...)
	if n := len(losers) - maxLosers; n > 0 {
		losers = append(losers[:maxLosers], fmt.Sprintf("and not %d more", n))
	}
	s.Details = append(s.Details, losers...)
}

func locationTitle(l *Location) string {
	modifier := map[LocationKind]string{ExactLocation: "= ", NoRegexLocation: "^~ ", RegexLocation: "~ "}[l.Kind]
	return "location " + modifier + l.Name
}

func whyLocation(l *Location) string {
	switch l.Kind {
	case ExactLocation:
		return "it is the very URI"
	case NoRegexLocation:
		return "the longest prefix; ^~ asks no expressions"
	case RegexLocation:
		return "the first expression that matches"
	}
	return "the longest prefix, and no expression matches"
}

// lost says why a location was not chosen; "" for one that is plainly for other
// URIs.
func (l *Location) lost(uri []byte, chosen *Location, regexAsked bool) string {
	switch l.Kind {
	case RegexLocation:
		switch {
		case !regexAsked && chosen.Kind != RegexLocation:
			return "expressions are not asked"
		case l.regex.Match(uri):
			return "it matches, but stands below the first that does"
		}
		return "does not match"
	case PrefixLocation, NoRegexLocation:
		switch {
		case !bytes.HasPrefix(uri, []byte(l.Name)):
			return ""
		case chosen.Kind == RegexLocation:
			return "a prefix, but an expression matches"
		}
		return "a shorter prefix"
	}
	return ""
}

// begins notes a rewrite directive before it runs, and gives its number.
func (t *Trace) begins(d *parser.Directive) (step, entered int) {
	if d == nil {
		return -1, 0
	}
	u := use{Directive: d}
	t.step("rewrite", d.Name.Range, "%s", u.said())
	return len(t.Steps) - 1, t.entered
}

// ends notes what came of it.
func (t *Trace) ends(x *Exchange, step, entered int, before []byte, code Code, stop bool) {
	if step < 0 {
		return
	}
	s := &t.Steps[step]
	said := func(format string, a ...any) { s.Details = append(s.Details, fmt.Sprintf(format, a...)) }
	name, _, _ := strings.Cut(s.Text, " ")
	switch {
	case name == "if" && t.entered == entered:
		said("does not hold")
	case name == "if":
		said("holds")
	case name == "rewrite" && stop && code > 0:
		said("matches %q: answered with %d", before, code)
	case name == "rewrite" && !bytes.Equal(before, x.uri):
		said("matches: %q becomes %q", before, x.uri)
	case name == "rewrite" && !stop:
		said("does not match %q", before)
	case stop && code > 0:
		said("answers with %d", code)
	case stop && name == "return":
		said("answers")
	}
}

// handled notes what a handler of a phase decided, where it decided something.
func (t *Trace) handled(phase Phase, module string, at parser.Range, code Code) {
	name := strings.TrimSuffix(strings.TrimPrefix(module, "ngx_http_"), "_module")
	switch {
	case code > 0:
		t.step(phase.String(), at, "%s answers with %d", name, code)
	case code == OK && phase == Access:
		t.step(phase.String(), at, "%s lets it pass", name)
	case code == Done || code == OK && (phase == Content || phase == PreContent):
		t.step(phase.String(), at, "%s answers", name)
	case code == Again:
		t.step(phase.String(), at, "%s starts over with another URI", name)
	}
}

// logged notes what the error log would get.
func (t *Trace) logged(level logLevel, text string) {
	t.step("error log", parser.Range{}, "[%s] %s", level, text)
}

// cached notes what a cache would be asked for. That it has nothing is assumed.
func (t *Trace) cached(x *Exchange, key []byte) {
	u := &x.upstream
	c, prefix := &u.conf.cache, u.conf.prefix
	s := t.step("cache", x.loc.Place, "asked in zone %s for the key %q; let it be a MISS", u.cache.zone.name, key)
	if u.cache.status == cacheBypass {
		s.Text = fmt.Sprintf("not asked in zone %s for the key %q: a value of %s_cache_bypass is true", u.cache.zone.name, key, prefix)
	}
	said := func(format string, a ...any) { s.Details = append(s.Details, fmt.Sprintf(format, a...)) }
	if u.asGET {
		said("the server is asked with GET, so that the answer can be kept")
	}
	switch {
	case x.anyTrue(c.noCache.Items):
		said("the answer is not kept: a value of %s_no_cache is true", prefix)
	case !u.cache.cacheable:
		said("the answer is not kept: the range begins behind %s_cache_max_range_offset", prefix)
	case c.minUses > 1:
		said("the answer is kept when it has been asked for %d times, if it may be", c.minUses)
	default:
		said("the answer is kept, if it or %s_cache_valid says for how long", prefix)
	}
}

// again notes that post_action has the request processed once more.
func (t *Trace) again(x *Exchange) {
	t.step("post action", x.loc.Place, "the client has its answer; the request goes on as %s", x.loc.Conf.Core.PostAction)
}

// passed notes the request that a server would get, and gives what comes of it:
// a subrequest (auth_request, SSI) goes on as if it had brought an empty answer.
func (t *Trace) passed(x *Exchange) Code {
	u := &x.upstream
	p := &TracePass{Upstream: u.group.Name, Server: u.name, TLS: u.tls != nil, Action: x.post != afterNothing}
	if p.Head, t.params = t.params, nil; p.Head == nil {
		head, _, _ := bytes.Cut(u.head, []byte("\r\n\r\n"))
		for line := range bytes.SplitSeq(head, []byte("\r\n")) {
			p.Head = append(p.Head, string(line))
		}
	}
	if x.inner.level > 0 || p.Action {
		t.Asked = append(t.Asked, p)
		what := "subrequest"
		if p.Action {
			what = "post action"
		}
		t.step(what, x.loc.Place, "passed on to %s; let it answer 200", u.name)
		return x.SendText(200, []byte("text/plain"), nil)
	}
	t.Passed = p
	t.step("content", x.loc.Place, "passed on to %s", u.name)
	return Abort
}

// traced makes the handlers of a table report to the trace. The table must not
// serve anything else.
func (t *Table) traced() {
	if t.tracing {
		return
	}
	t.tracing = true
	known := modules()
	seen := map[*Location]bool{}
	var walk func(*Location)
	walk = func(l *Location) {
		if l == nil || seen[l] {
			return
		}
		seen[l] = true
		l.traced(known)
		for _, n := range l.nested {
			walk(n)
		}
		walk(l.limitExcept)
		if s := l.Conf.Own.Script; s != nil {
			for _, inner := range s.ifs {
				walk(inner)
			}
		}
	}
	for _, s := range t.Servers {
		walk(s.Level)
	}
}

// traced wraps the handlers of one level.
func (l *Location) traced(known []Module) {
	for phase := range l.handlers {
		names := handlerModules(known, &l.Conf, Phase(phase))
		for i, h := range l.handlers[phase] {
			l.handlers[phase][i] = l.wrapped(h, Phase(phase), names[i])
		}
	}
	if h := l.Conf.Own.Content; h != nil {
		l.Conf.Own.Content = l.wrapped(h, Content, "the content handler")
	}
}

func (l *Location) wrapped(h Handler, phase Phase, module string) Handler {
	if module == "ngx_http_log_module" {
		return func(x *Exchange) Code {
			x.trace.Logs = append(x.trace.Logs, x.loc.Conf.Log.lines(x)...)
			return OK
		}
	}
	return func(x *Exchange) Code {
		code := h(x)
		if x.trace.Passed == nil {
			x.trace.handled(phase, module, l.Place, code)
		}
		return code
	}
}

// handlerModules names the modules behind the handlers of a level in a phase.
func handlerModules(known []Module, c *Conf, phase Phase) []string {
	var names []string
	for i := range known {
		m := &known[i]
		if m.Handler != nil && m.Phase == phase && m.Handler(c) != nil {
			names = append(names, m.Name)
		}
	}
	return names
}
