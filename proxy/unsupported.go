package proxy

import (
	_ "embed"
	"strings"

	"proxyctl/parser"
)

// nginxDirectives lists what nginx itself knows. What has no row of its own
// becomes an Unsupported row here, so that a directive is never ignored and
// never called unknown when nginx knows it.
//
//go:embed nginx-directives.tsv
var nginxDirectives string

// unsupported makes the rows of the directives that served ones do not cover.
func unsupported(served []*Command) []*Command {
	have := map[[2]string]bool{}
	for _, c := range served {
		have[[2]string{c.Name, c.module}] = true
	}
	var out []*Command
	for _, c := range knownDirectives() {
		if !have[[2]string{c.Name, c.module}] {
			out = append(out, c)
		}
	}
	return out
}

// knownDirectives reads the embedded list.
func knownDirectives() []*Command {
	var out []*Command
	for line := range strings.Lines(nginxDirectives) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) < 5 {
			continue
		}
		c := &Command{
			Name: f[0], module: f[1], Args: Arity(f[3]), Block: f[4] != "", Repeat: true,
			Status: Unsupported, Reason: missingReason(f[0], f[1]),
		}
		for ctx := range strings.SplitSeq(f[2], ",") {
			c.In |= contextByName(ctx)
		}
		out = append(out, c)
	}
	return out
}

// contextByName reads the list's names of contexts.
func contextByName(s string) Context {
	switch s {
	case "main":
		return InMain
	case "events":
		return InEvents
	case "http":
		return InHTTP
	case "server":
		return InServer
	case "location":
		return InLocation
	case "if-in-server":
		return InServerIf
	case "if-in-location":
		return InLocationIf
	case "limit_except":
		return InLimitExcept
	case "upstream":
		return InUpstream
	case "mail":
		return InMail
	case "mail.server":
		return InMailServer
	case "stream":
		return InStream
	case "stream.server":
		return InStreamServer
	case "stream.upstream":
		return InStreamUpstream
	case "any":
		return inAnywhere
	}
	return 0
}

// missingReason says what would be missing if the directive were ignored.
func missingReason(name, module string) string {
	what := map[string]string{
		"ngx_http_geoip_module":        "GeoIP",
		"ngx_stream_geoip_module":      "GeoIP",
		"ngx_http_image_filter_module": "image conversion",
		"ngx_http_perl_module":         "embedded Perl",
		"ngx_http_xslt_filter_module":  "XSLT",
	}[module]
	switch {
	case strings.HasPrefix(module, "ngx_mail_"):
		what = "mail proxying"
	case what == "":
		what = name
	}
	return what + " (" + module + ") is not served yet; serving the file without it would change what it means"
}

// refuse is the setter of everything unsupported.
func refuse(c *Command, d *parser.Directive) error {
	return sayAt(d.Name, "U001", c.Reason, "directive %q is not supported by proxyctl", d.Name.Value)
}
