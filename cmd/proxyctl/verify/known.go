package verify

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"

	"proxyctl/proxy"
)

func newGunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// change is a way in which versions of nginx differ.
type change struct {
	since string
	what  string // prefix of difference.what
	text  string
	is    func(r *request, d *difference) bool // nil: all of them
}

func changes() []change {
	return []change{
		{"1.29.5", "upstream field HTTP_HOST", "it is the name that the request is for, in small letters, also for requests without a Host", nil},
		{"1.29.7", "upstream version", "requests to upstreams are HTTP/1.1 by default, not HTTP/1.0", func(_ *request, d *difference) bool { return d.want == "HTTP/1.0" }},
		{"1.23.4", "TLS version", "TLSv1.3 is on by default", func(_ *request, d *difference) bool { return strings.HasPrefix(d.want, "TLS 1.2") }},
		{"1.25.1", "status", "HTTP/1.1 is spoken too where \"listen http2\" has no ssl", func(r *request, d *difference) bool {
			return r.To.HTTP2 && !r.To.TLS && !strings.HasPrefix(d.want, "HTTP/")
		}},
		{"1.31.4", "upstream field Host", "requests to upstreams by HTTP/1.1 always have a Host, and one only", func(_ *request, d *difference) bool {
			return d.how == "added" || strings.Contains(d.want, " | ")
		}},
		{"1.31.0", "status", "CONNECT is answered with 405 instead of 400", func(r *request, _ *difference) bool { return r.Method == http.MethodConnect }},
		{"1.31.4", "upstream field order", "Host comes first, also where proxy_set_header does not name it", func(_ *request, d *difference) bool { return strings.HasPrefix(d.got, "Host, ") }},
		{"1.29.7", "upstream field Connection", "connections to upstreams are kept by default: no \"Connection: close\"", func(_ *request, d *difference) bool { return d.how == "missing" }},
	}
}

// stricter says why this server refuses what nginx takes, "" when it should not.
func stricter(r *request, d *difference) string {
	refused := strings.Contains(d.got, " 400 ") || d.what == "upstream requests" && d.got == "(none)"
	switch {
	case r.what == whatOld:
		return "HTTP/0.9 is not served"
	case r.what == "a field without a colon" && refused:
		return "a field without a colon is refused: two servers may see different fields"
	case d.what == whatLength:
		return "subrequests without a body do not announce its length: upstreams would wait for it"
	case r.script == scriptGarbage:
		return "an upstream that does not answer in HTTP is a bad one: nginx takes its words for HTTP/0.9"
	}
	return ""
}

// knownChange finds the version since which nginx itself does what we do.
func knownChange(r *request, d *difference, version string) *change {
	for _, c := range changes() {
		if strings.HasPrefix(d.what, c.what) && proxy.OlderVersion(version, c.since) && (c.is == nil || c.is(r, d)) {
			return &c
		}
	}
	return nil
}
