package proxy

import (
	"strings"

	"proxyctl/parser"
)

// ngx_http_proxy_module: passes requests to another server. The rows and the
// conf are here; the request is built in mod_proxy_request.go, Location and
// Set-Cookie are changed in mod_proxy_rewrite.go. What is common to all pass
// directives is in the files called upstream_.

// proxyConf is what the module knows at a level.
type proxyConf struct {
	upstreamConf

	method      *Value
	setHeaders  List[passField]
	body        *Value
	http10      bool
	redirects   rewriteRules
	domains     rewriteRules
	paths       rewriteRules
	flags       cookieFlagRules
	head        *headTemplate
	cacheHead   *headTemplate // of requests whose answers may be kept
	hashMax     int
	hashBucket  int
	httpVersion int
}

func proxyModule() Module {
	return Module{
		Name: "ngx_http_proxy_module", Commands: proxyCommands(),
		Variables: proxyVariables(), Init: initProxy, Finish: finishProxy,
	}
}

func initProxy(c *Conf) {
	c.Proxy = proxyConf{upstreamConf: upstreamDefaults(wireHTTP1), httpVersion: 1, hashMax: 512, hashBucket: 64}
	c.Proxy.cache.convertHead = true
}

func proxyUpstream(c *Conf) *upstreamConf { return &c.Proxy.upstreamConf }

func proxyCommands() []Command {
	const in = inHTTPLevels
	rows := append(upstreamRows("proxy", nextWords(), proxyUpstream), upstreamTLSRows("proxy", "$proxy_host", proxyUpstream)...)
	rows = append(append(rows, cacheRows("proxy", nextWords(), proxyUpstream)...), storeRows("proxy", proxyUpstream)...)
	return append(rows,
		Flag(Command{Name: "proxy_cache_convert_head", In: in, Default: "on", Doc: "Asks servers with GET for the cache when a client asks with HEAD."}, func(c *Conf) *bool { return &c.Proxy.cache.convertHead }),
		Command{Name: "proxy_pass", In: InLocation | InLocationIf | InLimitExcept, Args: "1", Syntax: "URL", Differs: "the field Proxy and fields that Connection names are not passed on; spaces and line ends in a URI that variables make are escaped; answers without a status line are refused; GET and HEAD requests that follow each other closely share connections to a server that is named by its address and says keep-alive", Doc: "Passes requests to another server.", Set: setPass(proxyUpstream, serveProxy, (*Level).proxyTarget)},
		Command{Name: "proxy_set_header", In: in, Args: "2", Repeat: true, Syntax: "field value", Default: "Host $proxy_host", Differs: "line ends in what a variable holds become spaces", DiffersIn: hasDecoded, Doc: "Sets a field of the request that is passed on.", Set: setPassField(func(c *Conf) *List[passField] { return &c.Proxy.setHeaders })},
		Command{Name: "proxy_redirect", In: in, Args: "1,2", Repeat: true, Syntax: "default | off | redirect replacement", Default: "default", Doc: "Changes Location and Refresh of answers.", Set: setProxyRedirect},
		Command{Name: "proxy_cookie_domain", In: in, Args: "1,2", Repeat: true, Syntax: "off | domain replacement", Default: "off", Doc: "Changes the domain of cookies.", Set: setCookieDomain},
		Command{Name: "proxy_cookie_path", In: in, Args: "1,2", Repeat: true, Syntax: "off | path replacement", Default: "off", Doc: "Changes the path of cookies.", Set: setCookiePath},
		Command{Name: "proxy_cookie_flags", In: in, Args: "1-4", Repeat: true, Syntax: "off | cookie [flag ...]", Default: "off", Doc: "Sets flags of cookies.", Set: setCookieFlags},

		ValueOf(Command{Name: "proxy_method", In: in, Syntax: "method", Doc: "Sets the method of requests that are passed on."}, func(c *Conf) **Value { return &c.Proxy.method }),
		ValueOf(Command{Name: "proxy_set_body", In: in, Syntax: "value", Doc: "Replaces the body of requests that are passed on."}, func(c *Conf) **Value { return &c.Proxy.body }),
		Enum(Command{Name: "proxy_http_version", In: in, Default: "1.1", Doc: "Sets the version of HTTP spoken with the server."}, []string{"1.0", "1.1", "2"}, func(c *Conf) *int { return &c.Proxy.httpVersion }),
		Flag(Command{Name: "proxy_pass_trailers", In: in, Default: "off", Doc: "Passes on the trailers of answers."}, func(c *Conf) *bool { return &c.Proxy.passTrailers }),
		Number(Command{Name: "proxy_headers_hash_max_size", In: in, Default: "512", Doc: "Accepted without effect.", Status: NoEffect, Reason: "tables size themselves"}, func(c *Conf) *int { return &c.Proxy.hashMax }),
		Number(Command{Name: "proxy_headers_hash_bucket_size", In: in, Default: "64", Doc: "Accepted without effect.", Status: NoEffect, Reason: "tables size themselves"}, func(c *Conf) *int { return &c.Proxy.hashBucket }),
		sendLowatRow("proxy", proxyUpstream),
	)
}

// proxyTarget reads where requests go (ngx_http_proxy_pass).
func (l *Level) proxyTarget(d *parser.Directive, t *passTarget) error {
	scheme, rest, port := splitScheme(t.url)
	if port == 0 {
		return sayAt(d.Args[0], "", `begin with "http://" or "https://"`, "invalid URL prefix")
	}
	u, problem := parseUpstreamURL(rest, port, true)
	if problem != "" {
		return sayAt(d.Args[0], "", "http://host[:port][/uri]", "%s in upstream %q", problem, rest)
	}
	var err error
	if t.group, err = l.passGroup(d, &u); err != nil {
		return err
	}
	t.vars = passVars{scheme: []byte(scheme), tls: port == 443}
	t.vars.set(&u, port)
	switch l.Location.Kind {
	case RegexLocation, NamedLocation, Nameless:
		if u.uri != "" {
			return sayAt(d.Args[0], "C005", "leave out everything behind the host and port: "+scheme+strings.TrimSuffix(rest, u.uri),
				"\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, or inside \"if\" statement, or inside \"limit_except\" block")
		}
	case PrefixLocation, ExactLocation, NoRegexLocation:
		t.vars.location = []byte(l.Location.Name)
	}
	return nil
}

// splitScheme cuts the scheme off a URL. The port is its default one, 0 when
// there is no known scheme.
func splitScheme(url string) (scheme, rest string, port uint16) {
	switch {
	case len(url) >= 7 && strings.EqualFold(url[:7], "http://"):
		return url[:7], url[7:], 80
	case len(url) >= 8 && strings.EqualFold(url[:8], "https://"):
		return url[:8], url[8:], 443
	}
	return "", "", 0
}

// set fills what the variables and the request line need
// (ngx_http_proxy_set_vars).
func (v *passVars) set(u *upstreamURL, defaultPort uint16) {
	v.uri = []byte(u.uri)
	switch {
	case u.unix:
		v.host, v.socket = []byte("localhost"), []byte("unix:"+u.host+":")
	case u.noPort || u.port == defaultPort:
		v.host, v.port = []byte(u.host), []byte("80")
		if defaultPort == 443 {
			v.port = []byte("443")
		}
	default:
		v.host, v.port = []byte(u.host+":"+u.portText), []byte(u.portText)
	}
}

// finishProxy derives what depends on several directives
// (ngx_http_proxy_merge_loc_conf).
func finishProxy(l *Level) error {
	c := &l.Conf.Proxy
	if err := c.finish(l, "proxy", append(accelFields(), "Date", "Server", "X-Pad")); err != nil {
		return err
	}
	c.http10, c.wire = c.httpVersion == 0, wireHTTP1
	if c.httpVersion == 2 {
		c.wire = wireHTTP2
	}
	if c.passedIn == l {
		c.defaultRedirect()
	}
	c.finishTLS(l, "proxy")
	if c.target != nil {
		c.head = c.compileHead(nil)
	}
	if c.target != nil && c.cache.on() {
		var conditions []passField
		for _, field := range cacheConditions() {
			v, err := l.value(field[1])
			if err != nil {
				return err
			}
			conditions = append(conditions, passField{field[0], v})
		}
		c.cacheHead = c.compileHead(conditions)
	}
	return nil
}
