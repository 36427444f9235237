package proxy

import (
	"slices"
	"strings"
)

// Rules about the fields of answers and of requests to upstreams.

func headerRules() []lintRule {
	return []lintRule{
		{"S009", (*linter).headersDropped},
		{"S010", (*linter).headerNotAlways},
		{"S011", (*linter).requestHeadersDropped},
		{"S012", (*linter).versionShown},
		{"C027", (*linter).webSocketHeaders},
		{"C040", (*linter).contentTypeAdded},
	}
}

// isSecurityHeader tells the fields that browsers take protection from.
func isSecurityHeader(name string) bool {
	switch lower(name) {
	case "strict-transport-security", "content-security-policy", "x-frame-options", "x-content-type-options",
		"referrer-policy", "permissions-policy", "cross-origin-opener-policy", "cross-origin-resource-policy",
		"cross-origin-embedder-policy":
		return true
	}
	return false
}

// dropped gives what a list directive of a block takes away from what it would
// inherit: the statements whose first argument is not repeated.
func (s *scope) dropped(name string) (own, lost []*use) {
	own = s.own(name)
	if own == nil || s.up == nil {
		return nil, nil
	}
	for _, outer := range s.up.inherited(name) {
		repeated := slices.ContainsFunc(own, func(u *use) bool { return strings.EqualFold(u.arg(0), outer.arg(0)) })
		if !repeated {
			lost = append(lost, outer)
		}
	}
	return own, lost
}

// scopesWith gives the blocks with a statement of the name, in reading order.
func (l *linter) scopesWith(names ...string) []*scope {
	var out []*scope
	seen := map[*scope]bool{}
	for _, u := range l.all(names...) {
		if !seen[u.in] {
			seen[u.in] = true
			out = append(out, u.in)
		}
	}
	return out
}

func (l *linter) headersDropped() {
	for _, s := range l.scopesWith("add_header") {
		if s.setting("add_header_inherit", "on") == "merge" {
			continue
		}
		own, lost := s.dropped("add_header")
		var names []string
		for _, u := range lost {
			if isSecurityHeader(u.arg(0)) && !slices.Contains(names, u.arg(0)) {
				names = append(names, u.arg(0))
			}
		}
		if len(names) == 0 {
			continue
		}
		d := l.say(own[0].whole(), `repeat it here, or write "add_header_inherit merge;" (nginx 1.29.3)`,
			"this add_header removes the inherited %s", strings.Join(names, ", "))
		for _, u := range lost {
			if isSecurityHeader(u.arg(0)) {
				d.Related = append(d.Related, related(u, "no longer sent from the block with the other add_header"))
			}
		}
	}
}

func (l *linter) headerNotAlways() {
	for _, u := range l.all("add_header") {
		if !isSecurityHeader(u.arg(0)) || u.arg(2) == "always" || len(u.Args) < 2 {
			continue
		}
		l.say(u.whole(), `add "always"`, "%s is missing from error pages: without \"always\" it is sent with 2xx and 3xx only", u.arg(0))
	}
}

// requestHeadersDropped looks at blocks that pass requests on: elsewhere the
// fields do not matter.
func (l *linter) requestHeadersDropped() {
	for directive, pass := range map[string]string{"proxy_set_header": "proxy_pass", "grpc_set_header": "grpc_pass"} {
		for _, s := range l.scopesWith(directive) {
			passes := false
			s.walk(func(u *use) { passes = passes || u.Name.Value == pass })
			own, lost := s.dropped(directive)
			if !passes || len(lost) == 0 || s.setting(directive+"_inherit", "on") == "merge" {
				continue
			}
			var names []string
			for _, u := range lost {
				value := u.arg(1)
				if value == "" {
					value = `""`
				}
				names = append(names, u.arg(0)+" "+value)
			}
			d := l.say(own[0].whole(), "repeat it in this block", "%s here drops the inherited %s", directive, short(strings.Join(names, ", ")))
			for _, u := range lost {
				d.Related = append(d.Related, related(u, "not sent from this block"))
			}
		}
	}
}

func (l *linter) versionShown() {
	for _, u := range l.all("server_tokens") {
		if v := u.arg(0); v == "on" || v == "build" {
			l.say(u.whole(), "server_tokens off;", "the version is sent to every client")
		}
	}
}

// webSocketHeaders finds upgrades that do not arrive.
func (l *linter) webSocketHeaders() {
	for _, u := range l.all("proxy_pass") {
		var upgrade, connection *use
		for _, h := range u.in.inherited("proxy_set_header") {
			switch lower(h.arg(0)) {
			case "upgrade":
				upgrade = h
			case "connection":
				connection = h
			}
		}
		if upgrade == nil || !mentions(upgrade.arg(1), "http_upgrade") {
			continue
		}
		version := u.in.setting("proxy_http_version", "")
		switch {
		case connection == nil:
			l.say(upgrade.whole(), `proxy_set_header Connection "upgrade";`, "Upgrade is passed on without Connection: the upstream does not switch protocols")
		case version == "":
			l.past("1.29.7", u.whole(), "proxy_http_version 1.1;", "before nginx 1.29.7 requests go out as HTTP/1.0, which cannot upgrade: WebSockets fail there")
		case version == "1.0":
			l.say(u.whole(), "proxy_http_version 1.1;", "HTTP/1.0 cannot upgrade: WebSockets fail")
		}
	}
}

func (l *linter) contentTypeAdded() {
	for _, u := range l.all("add_header") {
		if strings.EqualFold(u.arg(0), "content-type") {
			l.say(u.whole(), "default_type "+short(u.arg(1))+";", "answers get a second Content-Type beside their own")
		}
	}
}
