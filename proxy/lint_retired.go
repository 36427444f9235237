package proxy

import (
	"fmt"
	"strings"

	"proxyctl/parser"
)

// Rules about forms that newer versions of nginx warn about, ignore or refuse.

func retiredRules() []lintRule {
	return []lintRule{
		{"D001", (*linter).listenHTTP2},
		{"D003", (*linter).serverPush},
		{"D004", (*linter).staplingWithoutResponder},
		{"D006", (*linter).listenDefault},
	}
}

func (l *linter) listenHTTP2() {
	for _, u := range l.all("listen") {
		for i := range u.Args {
			if u.arg(i) != "http2" {
				continue
			}
			for _, d := range l.known {
				if d.Code == "" && d.At == u.End && d.Range == u.place(i) {
					d.Code, d.Hint = l.rule, `remove the parameter and write "http2 on;" in the server (nginx 1.25.1)`
				}
			}
		}
	}
}

func (l *linter) listenDefault() {
	for _, u := range l.all("listen") {
		for i := range u.Args {
			if i > 0 && u.arg(i) == "default" {
				l.say(u.place(i), "write default_server", "\"default\" is the old name of default_server")
			}
		}
	}
}

func (l *linter) serverPush() {
	for _, u := range l.all("http2_push", "http2_push_preload", "http2_max_concurrent_pushes") {
		hint := "remove it; early_hints (nginx 1.29) announces what a page needs"
		if l.adopt(u, "obsolete", hint) == nil {
			l.say(u.whole(), hint, "server push was removed in nginx 1.25.1: %s does nothing", u.Name.Value)
		}
	}
}

// staplingWithoutResponder looks for the address that nginx would ask.
func (l *linter) staplingWithoutResponder() {
	for _, u := range l.all("ssl_stapling") {
		if lower(u.arg(0)) != "on" || u.in.inherited("ssl_stapling_responder") != nil || u.in.inherited("ssl_stapling_file") != nil {
			continue
		}
		why := "certificates of Let's Encrypt have had no OCSP responder since 2025"
		asked, silent := 0, 0
		for _, c := range l.certificatesBelow(u.in) {
			if cert := l.certificate(c.arg(0)); cert != nil {
				asked++
				if len(cert.OCSPServer) == 0 {
					silent++
					why = fmt.Sprintf("%s names no OCSP responder", c.arg(0))
				}
			}
		}
		if asked > 0 && silent == 0 {
			continue
		}
		l.say(u.whole(), "remove it", "stapling does nothing: %s", why)
	}
}

// certificatesBelow gives the certificates that count at a block or below it.
func (l *linter) certificatesBelow(s *scope) []*use {
	out := s.inherited("ssl_certificate")
	s.walk(func(u *use) {
		if u.Name.Value == "ssl_certificate" && u.in != s {
			out = append(out, u)
		}
	})
	return out
}

// retired gives the rule and a hint for names that nginx once knew; "" for
// others.
func retired(name parser.Arg) (code, hint string) {
	switch {
	case name.Value == "ssl":
		return "D002", "the directive was removed in nginx 1.25.1: write listen 443 ssl;"
	case strings.HasPrefix(name.Value, "if("):
		return "Y019", `write "if (" with a space`
	case strings.HasPrefix(name.Value, "spdy_"):
		return "D005", "SPDY was replaced by HTTP/2: http2 on;"
	case name.Value == "http2_max_requests", name.Value == "http2_idle_timeout", name.Value == "http2_recv_timeout",
		name.Value == "http2_max_field_size", name.Value == "http2_max_header_size":
		return "D005", "use the keepalive_ and client_header_ directives instead"
	}
	return "", ""
}
