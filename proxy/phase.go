package proxy

import (
	"proxyctl/proxy/http1"
	"proxyctl/proxy/match"
)

// Phase is a step on the way of a request, or of a session of the stream block,
// in nginx's order.
type Phase uint8

// The phases that modules take part in. Finding the location, going back after
// a rewrite and the end of the access phase stand between them (see run).
const (
	PostRead Phase = iota
	ServerRewrite
	Rewrite
	PreAccess
	Access
	Handshake // of sessions alone
	Preread   // of sessions alone
	PreContent
	Content
	LogPhase
	phaseCount
)

// String names the phase.
func (p Phase) String() string {
	return [...]string{"post-read", "server rewrite", "rewrite", "preaccess", "access", "handshake", "preread", "precontent", "content", "log"}[p]
}

// Code is what a handler returns: an HTTP status to answer with, or one of the
// words below.
type Code int

// The words a handler can return beside a status.
const (
	OK       Code = 0  // this handler is content
	Declined Code = -1 // ask the next handler
	Done     Code = -2 // the answer is complete
	// Again starts over where x.resume says: after an internal redirect.
	Again Code = -3
	// Abort ends the exchange and the connection without another word: the
	// answer had begun and cannot be completed.
	Abort Code = -4
)

// Handler runs in a phase.
type Handler func(x *Exchange) Code

// HeaderFilter sees an answer before its head is written. A status instead of
// OK replaces the answer.
type HeaderFilter func(x *Exchange) Code

// maxRedirects is how often a URI may change in one request (nginx:
// NGX_HTTP_MAX_URI_CHANGES).
const maxRedirects = 10

// run takes the exchange through the phases to its answer.
func (x *Exchange) run() {
	x.resume = PostRead
	code := x.phases()
	for {
		code = x.finalize(code)
		if code != Again {
			return
		}
		code = x.phases()
	}
}

// phases runs from x.resume until something answers.
func (x *Exchange) phases() Code {
	if x.resume == PostRead {
		for _, h := range x.loc.handlers[PostRead] {
			if code := h(x); code != Declined {
				return code
			}
		}
		x.resume = ServerRewrite
	}
	if x.resume == ServerRewrite {
		if code := x.script(); code != Declined {
			return code
		}
		if code := x.findLocation(); code != Declined {
			return code
		}
	}
	if x.resume == Content {
		return x.produce()
	}
	for {
		// what no location takes does not run the server's script twice
		if x.loc != x.server.Level {
			if code := x.script(); code != Declined {
				return code
			}
		}
		if !x.uriChanged {
			break
		}
		if !x.countRedirect("while processing %q", x.uri) {
			return 500
		}
		x.loc = x.server.Level
		if code := x.findLocation(); code != Declined {
			return code
		}
	}
	return x.answer()
}

// script runs the rewrite directives of the current level.
func (x *Exchange) script() Code {
	if s := x.loc.Conf.Own.Script; s != nil {
		return s.run(x)
	}
	return Declined
}

// answer runs the phases after rewriting.
func (x *Exchange) answer() Code {
	for _, h := range x.loc.handlers[PreAccess] {
		if code := h(x); code != Declined && code != OK {
			return code
		}
	}
	if code := x.access(); code != Declined {
		return code
	}
	for _, h := range x.loc.handlers[PreContent] {
		if code := h(x); code != Declined {
			return code
		}
	}
	return x.produce()
}

// produce runs the content phase.
func (x *Exchange) produce() Code {
	if h := x.content; h != nil {
		return h(x)
	}
	for _, h := range x.loc.handlers[Content] {
		if code := h(x); code != Declined {
			return code
		}
	}
	return x.noContent()
}

// access asks the access handlers: all of them, or any one under "satisfy any"
// (ngx_http_core_access_phase).
func (x *Exchange) access() Code {
	if x.inner.level > 0 { // the main request has been let in
		return Declined
	}
	refused := Code(0)
	for _, h := range x.loc.handlers[Access] {
		code := h(x)
		switch {
		case code == Declined:
		case code == OK && x.loc.Conf.Core.Satisfy == satisfyAny:
			x.Out.Remove(http1.WWWAuthenticate) // of those who would not let it in
			x.Out.Remove(http1.ProxyAuthenticate)
			return Declined
		case code == OK:
		case x.loc.Conf.Core.Satisfy == satisfyAny && (code == 401 || code == 403 || code == 407):
			if refused != 401 && refused != 407 {
				refused = code
			}
		default:
			return x.delayRefusal(code)
		}
	}
	if refused == 0 {
		return Declined
	}
	if refused == 403 {
		x.Logf(logError, "access forbidden by rule")
	}
	return x.delayRefusal(refused)
}

// delayRefusal lets those who guess passwords wait (auth_delay).
func (x *Exchange) delayRefusal(code Code) Code {
	d := x.loc.Conf.Core.AuthDelay
	if d == 0 || code != 401 && code != 407 {
		return code
	}
	x.Logf(logInfo, "delaying unauthorized request")
	if ended := x.wait(d); ended != Declined {
		return ended
	}
	return code
}

// namesFolder says whether the URI ends in a slash.
func (x *Exchange) namesFolder() bool { return len(x.uri) > 0 && x.uri[len(x.uri)-1] == '/' }

// noContent answers when nothing produced content.
func (x *Exchange) noContent() Code {
	if x.namesFolder() {
		x.Logf(logError, "directory index of %q is forbidden", x.path())
		return 403
	}
	x.Logf(logError, "no handler found")
	return 404
}

// findLocation chooses the location of x.uri (ngx_http_core_find_config_phase).
func (x *Exchange) findLocation() Code {
	x.content = nil
	x.uriChanged = false
	x.locationValid = true
	level := x.loc
	redirect := x.locate(level) == foundRedirect
	if x.trace != nil {
		x.trace.location(x, level, redirect)
	}
	name := x.loc.escapedName
	if x.loc.Conf.Core.Internal && !x.internal {
		return 404
	}
	x.enter()
	if x.bodyTooLarge() {
		return 413
	}
	if redirect {
		value := x.keep(name)
		if len(x.args) > 0 {
			value = x.keep(value, "?", x.args)
		}
		x.Out.SetLocation(value)
		return 301
	}
	return Declined
}

// found is how a search for a location ended.
type found uint8

const (
	foundNothing  found = iota // x.loc may have changed to a prefix location
	foundFinal                 // nothing outside can take it over
	foundRedirect              // the URI lacks the trailing slash of x.loc
)

// locate walks the location tree below level: exact and longest prefix first,
// then what is nested in it, then regular expressions unless "^~" forbids them
// (ngx_http_core_find_location).
func (x *Exchange) locate(level *Location) found {
	noRegex := false
	if level.prefixes != nil {
		loc, kind := level.prefixes.Lookup(x.uri)
		switch kind {
		case match.Exact:
			x.loc = loc
			return foundFinal
		case match.Redirect:
			x.loc = loc
			return foundRedirect
		case match.Prefix:
			x.loc = loc
			noRegex = loc.Kind == NoRegexLocation
			if f := x.locate(loc); f != foundNothing {
				return f
			}
		case match.None:
		}
	}
	if noRegex {
		return foundNothing
	}
	for _, loc := range level.regexes {
		if x.matchRegex(loc.regex, x.uri) {
			x.loc = loc
			x.locate(loc)
			return foundFinal
		}
	}
	return foundNothing
}

// enter takes over what the chosen location says about the connection and the
// content (ngx_http_update_location_config).
func (x *Exchange) enter() {
	if x.loc.limitExcept != nil && !x.loc.limitAllowed.has(x.Req.Method) {
		x.loc = x.loc.limitExcept
	}
	core := &x.loc.Conf.Core
	x.stream.setTimeouts(&core.timeouts)
	if x.keepAlive && (core.KeepaliveTimeout == 0 || x.client.requests >= core.KeepaliveRequests ||
		x.client.age() > core.KeepaliveTime || x.keepAliveDisabled(core)) {
		x.keepAlive = false
	}
	if h := x.loc.Conf.Own.Content; h != nil {
		x.content = h
	}
}

// redirectTo starts the request over with another URI
// (ngx_http_internal_redirect).
func (x *Exchange) redirectTo(uri, args []byte) Code {
	if !x.countRedirect("while internally redirecting to %q", uri) {
		return 500
	}
	if len(uri) == 0 { // Unlike nginx, which goes on and reads what lies before it.
		x.Logf(logError, "empty URI in internal redirect")
		return 500
	}
	if len(args) == 0 {
		args = nil
	}
	x.uri, x.args, x.extension = uri, args, extension(uri)
	x.loc = x.server.Level
	x.enter()
	x.internal = true
	x.unparsedValid, x.addURIToAlias = false, false
	x.resume = ServerRewrite
	return Again
}

// redirectToNamed continues in a named location (ngx_http_named_location).
func (x *Exchange) redirectToNamed(name []byte) Code {
	if !x.countRedirect("while redirect to named location %q", name) {
		return 500
	}
	if len(x.uri) == 0 {
		x.Logf(logError, "empty URI in redirect to named location %q", name)
		return 500
	}
	loc := x.server.named[string(name)]
	if loc == nil {
		x.Logf(logError, "could not find named location %q", name)
		return 500
	}
	x.internal = true
	x.content = nil
	x.uriChanged = false
	x.loc = loc
	x.enter()
	x.resume = Rewrite
	return Again
}

// countRedirect says whether the URI may change once more.
func (x *Exchange) countRedirect(format string, what []byte) bool {
	x.redirects++
	x.fastcgi.done = false
	if x.redirects <= maxRedirects {
		return true
	}
	x.Logf(logError, "rewrite or internal redirection cycle "+format, what)
	return false
}
