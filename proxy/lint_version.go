package proxy

import (
	"strconv"
	"strings"
)

// Rules about what a file has meant to an older nginx, and means no more
// (nginx: CHANGES). They are asked when a version is given.

func versionRules() []lintRule {
	return []lintRule{
		{"V001", since("1.29.7", (*linter).proxyDefaults)},
		{"V002", since("1.27.3", (*linter).tlsDefaults)},
		{"V003", since("1.23.4", (*linter).tls13Default)},
		{"V004", since("1.23.0", (*linter).joinedFields)},
		{"V005", since("1.19.10", (*linter).keepaliveRequestsDefault)},
	}
}

// since runs a check for files that were written for an nginx before a version.
func since(version string, check func(*linter)) func(*linter) {
	return func(l *linter) {
		if l.Version != "" && OlderVersion(l.Version, version) {
			check(l)
		}
	}
}

// OlderVersion compares versions by their numbers; "1.22" is 1.22.0.
func OlderVersion(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		x, y := 0, 0
		if i < len(as) {
			x, _ = strconv.Atoi(as[i])
		}
		if i < len(bs) {
			y, _ = strconv.Atoi(bs[i])
		}
		if x != y {
			return x < y
		}
	}
	return false
}

// each groups what is said once for many places: the finding is at the first.
func (l *linter) each(uses []*use, hint, text string) {
	if len(uses) == 0 {
		return
	}
	if n := len(uses); n > 1 {
		text += " (here and at " + strconv.Itoa(n-1) + " more)"
	}
	l.say(uses[0].whole(), hint, "%s", text)
}

func (l *linter) proxyDefaults() {
	var uses []*use
	for _, u := range l.all("proxy_pass") {
		if u.row.In&(InLocation|InLocationIf|InLimitExcept) != 0 && u.in.inherited("proxy_http_version") == nil {
			uses = append(uses, u)
		}
	}
	l.each(uses, "write proxy_http_version 1.0; to keep what it was",
		"since nginx 1.29.7 requests to upstreams are HTTP/1.1 without \"Connection: close\", and connections are kept")
}

// tlsServers gives a listen of each server that leaves the protocols to nginx.
func (l *linter) tlsServers() []*use {
	var uses []*use
	for _, s := range l.serversIn(InServer | InStreamServer) {
		if s.inherited("ssl_protocols") != nil {
			continue
		}
		for _, u := range s.own("listen") {
			if u.hasArg("ssl") {
				uses = append(uses, u)
				break
			}
		}
	}
	return uses
}

func (l *linter) tlsDefaults() {
	l.each(l.tlsServers(), "clients that need them must be updated; this server never speaks them",
		"since nginx 1.27.3 TLSv1 and TLSv1.1 are off by default")
}

func (l *linter) tls13Default() {
	l.each(l.tlsServers(), "ssl_protocols TLSv1.2; keeps what it was", "since nginx 1.23.4 TLSv1.3 is on by default")
}

func (l *linter) joinedFields() {
	var uses []*use
	for _, u := range l.all("map", "if", "limit_req_zone", "limit_conn_zone") {
		for _, r := range references(u.arg(0)) {
			switch r.name {
			case "http_host", "http_cookie", "http_x_forwarded_for", "http_user_agent", "http_referer", "http_via", "http_upgrade":
			default:
				if strings.HasPrefix(r.name, "http_") {
					uses = append(uses, u)
				}
			}
		}
	}
	l.each(uses, "values may now hold a comma", "since nginx 1.23.0 fields that a client sends several times are joined with commas; before, the first counted")
}

func (l *linter) keepaliveRequestsDefault() {
	for _, u := range l.all("http") {
		if len(l.all("keepalive_requests")) == 0 {
			l.say(u.Name.Range, "keepalive_requests 100; keeps what it was", "since nginx 1.19.10 a connection carries 1000 requests by default; before, 100")
		}
	}
}
