package proxy

import (
	"fmt"
	"strings"
	"time"

	"proxyctl/parser"
)

// ngx_http_proxy_module: passes requests to another server. The rows and the
// conf are here; the request is built in mod_proxy_request.go, the answer read
// in mod_proxy_response.go, Location and Set-Cookie are changed in
// mod_proxy_rewrite.go, TLS is set up in mod_proxy_ssl.go, and what is common
// to all pass directives is in upstream_run.go.

// proxyConf is what the module knows at a level.
type proxyConf struct {
	upstreamConf

	target   *proxyTarget // where proxy_pass points; if and limit_except keep their location's
	passedIn *Level       // the level of proxy_pass

	method      *Value
	setHeaders  List[proxyHeader]
	body        *Value
	http10      bool
	redirects   rewriteRules
	domains     rewriteRules
	paths       rewriteRules
	flags       cookieFlagRules
	hide, pass  List[string]
	hidden      fieldSet
	head        *headTemplate
	tls         proxyTLS
	hashMax     int
	hashBucket  int
	sendLowat   int64
	httpVersion int
}

// upstreamConf is what every module that passes requests on has: the directives
// that only differ in their prefix (nginx: ngx_http_upstream_conf_t).
type upstreamConf struct {
	connectTimeout, sendTimeout, readTimeout time.Duration
	nextTimeout                              time.Duration
	nextTries                                int
	next                                     uint32
	bufferSize                               int64
	buffers                                  Buffers
	busySize, tempWriteSize, maxTempSize     int64
	busySet, tempWriteSet, maxTempSet        bool
	tempPath                                 tempPath
	buffering, requestBuffering              bool
	passHeaders, passBody, passTrailers      bool
	interceptErrors, ignoreClientAbort       bool
	forceRanges, socketKeepalive             bool
	http2                                    bool // spoken with servers
	rcvbuf, sndbuf                           int64
	ignore                                   uint32
	limitRate                                *Value
	bind                                     *upstreamBind
	key                                      string // names the level: its kept connections are its own
}

// proxyTarget is what proxy_pass says.
type proxyTarget struct {
	value *Value // with variables; else nil, and the rest is known
	group *upstreamBlock
	vars  passVars
	url   string // all of it
}

// passVars is a target taken apart.
type passVars struct {
	tls      bool
	dynamic  bool   // evaluated for this request
	scheme   []byte // "http://"
	host     []byte // $proxy_host
	port     []byte // $proxy_port
	uri      []byte // the URI part
	location []byte // what the URI part replaces
}

// proxyHeader is one proxy_set_header.
type proxyHeader struct {
	name  string
	value *Value
}

// The bits of proxy_next_upstream, in the order of nextWords.
const (
	nextError = 1 << iota
	nextTimeout
	nextInvalidHeader
	nextNonIdempotent
	next500
	next502
	next503
	next504
	next403
	next404
	next429
	nextUpdating
	nextOff
	nextNoLive // never configured
)

func nextWords() []string {
	return []string{
		"error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_502", "http_503", "http_504",
		"http_403", "http_404", "http_429", "updating", "off",
	}
}

// The bits of proxy_ignore_headers, in the order of ignoreWords.
const (
	ignoreRedirect = 1 << iota
	ignoreAccelExpires
	ignoreLimitRate
	ignoreBuffering
	ignoreCharset
	ignoreExpires
	ignoreCacheControl
	ignoreSetCookie
	ignoreVary
)

func ignoreWords() []string {
	return []string{
		"X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset",
		"Expires", "Cache-Control", "Set-Cookie", "Vary",
	}
}

func proxyModule() Module {
	return Module{
		Name: "ngx_http_proxy_module", Commands: append(proxyCommands(), proxySSLCommands()...),
		Variables: proxyVariables(), Init: initProxy, Finish: finishProxy,
	}
}

func initProxy(c *Conf) {
	c.Proxy = proxyConf{
		upstreamConf: upstreamConf{
			connectTimeout: time.Minute, sendTimeout: time.Minute, readTimeout: time.Minute,
			next: nextError | nextTimeout, bufferSize: 4 << 10, buffers: Buffers{8, 4 << 10},
			buffering: true, requestBuffering: true, passHeaders: true, passBody: true,
		},
		httpVersion: 1, hashMax: 512, hashBucket: 64,
		tls: defaultProxyTLS(),
	}
}

func proxyCommands() []Command {
	const in = inHTTPLevels
	up := func(f func(u *upstreamConf) *bool) func(*Conf) *bool {
		return func(c *Conf) *bool { return f(&c.Proxy.upstreamConf) }
	}
	wait := func(f func(u *upstreamConf) *time.Duration) func(*Conf) *time.Duration {
		return func(c *Conf) *time.Duration { return f(&c.Proxy.upstreamConf) }
	}
	rows := []Command{
		{Name: "proxy_pass", In: InLocation | InLocationIf | InLimitExcept, Args: "1", Syntax: "URL", Doc: "Passes requests to another server.", Set: setProxyPass},
		{Name: "proxy_set_header", In: in, Args: "2", Repeat: true, Syntax: "field value", Default: "Host $proxy_host", Doc: "Sets a field of the request that is passed on.", Set: setProxyHeader},
		{Name: "proxy_redirect", In: in, Args: "1,2", Repeat: true, Syntax: "default | off | redirect replacement", Default: "default", Doc: "Changes Location and Refresh of answers.", Set: setProxyRedirect},
		{Name: "proxy_cookie_domain", In: in, Args: "1,2", Repeat: true, Syntax: "off | domain replacement", Default: "off", Doc: "Changes the domain of cookies.", Set: setCookieDomain},
		{Name: "proxy_cookie_path", In: in, Args: "1,2", Repeat: true, Syntax: "off | path replacement", Default: "off", Doc: "Changes the path of cookies.", Set: setCookiePath},
		{Name: "proxy_cookie_flags", In: in, Args: "1-4", Repeat: true, Syntax: "off | cookie [flag ...]", Default: "off", Doc: "Sets flags of cookies.", Set: setCookieFlags},
		{Name: "proxy_bind", In: in, Args: "1,2", Syntax: "address [transparent] | off", Doc: "Sets the local address of connections.", Set: setUpstreamBind(func(c *Conf) *upstreamConf { return &c.Proxy.upstreamConf })},
		{Name: "proxy_temp_path", In: in, Args: "1-4", Syntax: "path [level1 [level2 [level3]]]", Default: "proxy_temp", Doc: "Sets the folder for answers that do not fit in memory.", Set: setTempPath(func(c *Conf) *tempPath { return &c.Proxy.tempPath })},

		ValueOf(Command{Name: "proxy_method", In: in, Syntax: "method", Doc: "Sets the method of requests that are passed on."}, func(c *Conf) **Value { return &c.Proxy.method }),
		ValueOf(Command{Name: "proxy_set_body", In: in, Syntax: "value", Doc: "Replaces the body of requests that are passed on."}, func(c *Conf) **Value { return &c.Proxy.body }),
		Enum(Command{Name: "proxy_http_version", In: in, Default: "1.1", Doc: "Sets the version of HTTP spoken with the server."}, []string{"1.0", "1.1", "2"}, func(c *Conf) *int { return &c.Proxy.httpVersion }),
		Strings(Command{Name: "proxy_hide_header", In: in, Syntax: "field", Doc: "Hides a field of answers."}, func(c *Conf) *List[string] { return &c.Proxy.hide }),
		Strings(Command{Name: "proxy_pass_header", In: in, Syntax: "field", Doc: "Passes a field of answers that is hidden by default."}, func(c *Conf) *List[string] { return &c.Proxy.pass }),
		Bits(Command{Name: "proxy_ignore_headers", In: in, Doc: "Ignores fields of answers that have a meaning here."}, ignoreWords(), func(c *Conf) *uint32 { return &c.Proxy.ignore }),
		Bits(Command{Name: "proxy_next_upstream", In: in, Default: "error timeout", Doc: "Sets when the next server is asked."}, nextWords(), func(c *Conf) *uint32 { return &c.Proxy.next }),
		Number(Command{Name: "proxy_next_upstream_tries", In: in, Default: "0", Doc: "Limits how many servers are asked; 0 for all."}, func(c *Conf) *int { return &c.Proxy.nextTries }),
		Buffer(Command{Name: "proxy_buffers", In: in, Default: "8 4k", Doc: "Sets how much of an answer is kept in memory."}, func(c *Conf) *Buffers { return &c.Proxy.buffers }),
		Size(Command{Name: "proxy_buffer_size", In: in, Default: "4k", Doc: "Sets how large the head of an answer may be."}, func(c *Conf) *int64 { return &c.Proxy.bufferSize }),
		{Name: "proxy_limit_rate", In: in, Args: "1", Syntax: "rate", Default: "0", Doc: "Limits how fast answers are read, in bytes a second.", Set: setRate(func(c *Conf) **Value { return &c.Proxy.limitRate })},
		sizeOrUnset(Command{Name: "proxy_busy_buffers_size", In: in, Default: "8k", Doc: "Sets how much of the buffers may be busy with sending."}, func(u *upstreamConf) (*int64, *bool) { return &u.busySize, &u.busySet }),
		sizeOrUnset(Command{Name: "proxy_temp_file_write_size", In: in, Default: "8k", Doc: "Sets how much is written to a temporary file at once."}, func(u *upstreamConf) (*int64, *bool) { return &u.tempWriteSize, &u.tempWriteSet }),
		sizeOrUnset(Command{Name: "proxy_max_temp_file_size", In: in, Default: "1024m", Doc: "Limits the temporary file of an answer."}, func(u *upstreamConf) (*int64, *bool) { return &u.maxTempSize, &u.maxTempSet }),
		Size(Command{Name: "proxy_socket_rcvbuf", In: in, Default: "0", Doc: "Sets the receive buffer of connections."}, func(c *Conf) *int64 { return &c.Proxy.rcvbuf }),
		Size(Command{Name: "proxy_socket_sndbuf", In: in, Default: "0", Doc: "Sets the send buffer of connections."}, func(c *Conf) *int64 { return &c.Proxy.sndbuf }),
		Number(Command{Name: "proxy_headers_hash_max_size", In: in, Default: "512", Doc: "Accepted without effect.", Status: NoEffect, Reason: "tables size themselves"}, func(c *Conf) *int { return &c.Proxy.hashMax }),
		Number(Command{Name: "proxy_headers_hash_bucket_size", In: in, Default: "64", Doc: "Accepted without effect.", Status: NoEffect, Reason: "tables size themselves"}, func(c *Conf) *int { return &c.Proxy.hashBucket }),
		Size(Command{Name: "proxy_send_lowat", In: in, Default: "0", Doc: "Accepted without effect.", Status: NoEffect, Reason: "Linux has no such option, nginx ignores it there too"}, func(c *Conf) *int64 { return &c.Proxy.sendLowat }),

		Time(Command{Name: "proxy_connect_timeout", In: in, Default: "60s", Doc: "Sets how long connecting may take."}, wait(func(u *upstreamConf) *time.Duration { return &u.connectTimeout })),
		Time(Command{Name: "proxy_send_timeout", In: in, Default: "60s", Doc: "Sets the time between two writes to the server."}, wait(func(u *upstreamConf) *time.Duration { return &u.sendTimeout })),
		Time(Command{Name: "proxy_read_timeout", In: in, Default: "60s", Doc: "Sets the time between two reads from the server."}, wait(func(u *upstreamConf) *time.Duration { return &u.readTimeout })),
		Time(Command{Name: "proxy_next_upstream_timeout", In: in, Default: "0", Doc: "Limits how long servers are asked in turn; 0 for no limit."}, wait(func(u *upstreamConf) *time.Duration { return &u.nextTimeout })),

		Flag(Command{Name: "proxy_buffering", In: in, Default: "on", Doc: "Reads answers as fast as the server sends them."}, up(func(u *upstreamConf) *bool { return &u.buffering })),
		Flag(Command{Name: "proxy_request_buffering", In: in, Default: "on", Doc: "Reads the whole request body before it is passed on."}, up(func(u *upstreamConf) *bool { return &u.requestBuffering })),
		Flag(Command{Name: "proxy_pass_request_headers", In: in, Default: "on", Doc: "Passes on the fields of the client."}, up(func(u *upstreamConf) *bool { return &u.passHeaders })),
		Flag(Command{Name: "proxy_pass_request_body", In: in, Default: "on", Doc: "Passes on the body of the client."}, up(func(u *upstreamConf) *bool { return &u.passBody })),
		Flag(Command{Name: "proxy_pass_trailers", In: in, Default: "off", Doc: "Passes on the trailers of answers."}, up(func(u *upstreamConf) *bool { return &u.passTrailers })),
		Flag(Command{Name: "proxy_intercept_errors", In: in, Default: "off", Doc: "Answers errors of the server with error_page."}, up(func(u *upstreamConf) *bool { return &u.interceptErrors })),
		Flag(Command{Name: "proxy_ignore_client_abort", In: in, Default: "off", Doc: "Goes on when the client goes away."}, up(func(u *upstreamConf) *bool { return &u.ignoreClientAbort })),
		Flag(Command{Name: "proxy_force_ranges", In: in, Default: "off", Doc: "Answers Range for any answer."}, up(func(u *upstreamConf) *bool { return &u.forceRanges })),
		Flag(Command{Name: "proxy_socket_keepalive", In: in, Default: "off", Doc: "Turns on TCP keepalive for connections."}, up(func(u *upstreamConf) *bool { return &u.socketKeepalive })),
	}
	return rows
}

// sizeOrUnset is a size whose default depends on other directives.
func sizeOrUnset(c Command, field func(u *upstreamConf) (*int64, *bool)) Command {
	value := func(c *Conf) *int64 { v, _ := field(&c.Proxy.upstreamConf); return v }
	row := Size(c, value)
	set := row.Set
	row.Set = func(l *Level, d *parser.Directive) error {
		_, given := field(&l.Conf.Proxy.upstreamConf)
		*given = true
		return set(l, d)
	}
	return row
}

// setProxyPass reads where requests go (ngx_http_proxy_pass).
func setProxyPass(l *Level, d *parser.Directive) error {
	c, text := &l.Conf.Proxy, d.Args[0].Value
	t := &proxyTarget{url: text}
	if err := l.proxyTarget(d, t); err != nil {
		return err
	}
	c.target, c.passedIn = t, l
	l.Conf.Own.Content = serveProxy
	if strings.HasSuffix(l.Location.Name, "/") {
		l.Location.autoRedirect = true
	}
	return nil
}

func (l *Level) proxyTarget(d *parser.Directive, t *proxyTarget) error {
	v, err := l.value(t.url)
	if err != nil {
		return err
	}
	if _, static := v.Static(); !static {
		t.value = v
		return nil
	}
	scheme, rest, port := splitScheme(t.url)
	if port == 0 {
		return sayAt(d.Args[0], "", `begin with "http://" or "https://"`, "invalid URL prefix")
	}
	u, problem := parseUpstreamURL(rest, port, true)
	if problem != "" {
		return sayAt(d.Args[0], "", "http://host[:port][/uri]", "%s in upstream %q", problem, rest)
	}
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
		v.host = []byte("localhost")
	case u.noPort || u.port == defaultPort:
		v.host, v.port = []byte(u.host), []byte("80")
		if defaultPort == 443 {
			v.port = []byte("443")
		}
	default:
		v.host, v.port = []byte(u.host+":"+u.portText), []byte(u.portText)
	}
}

func setProxyHeader(l *Level, d *parser.Directive) error {
	v, err := l.value(d.Args[1].Value)
	if err != nil {
		return err
	}
	l.Conf.Proxy.setHeaders.Add(l, proxyHeader{d.Args[0].Value, v})
	return nil
}

// finishProxy derives what depends on several directives
// (ngx_http_proxy_merge_loc_conf).
func finishProxy(l *Level) error {
	c := &l.Conf.Proxy
	if c.next&nextOff != 0 {
		c.next = nextOff
	}
	if c.passedIn != l && l.Context&(InLocationIf|InLimitExcept) == 0 {
		c.target = nil
	}
	if err := c.finishBuffers("proxy"); err != nil {
		return err
	}
	if c.tempPath.path == "" {
		c.tempPath = tempPath{path: l.c.opts.prefixed("proxy_temp"), levels: []int{1, 2}}
	}
	l.c.table.temps[c.tempPath.path] = true
	c.http10, c.http2 = c.httpVersion == 0, c.httpVersion == 2
	if c.passedIn == l {
		c.defaultRedirect()
	}
	c.hidden = hiddenFields(proxyHidden(), c.hide.Items, c.pass.Items)
	c.finishTLS(l)
	if c.target != nil {
		c.head = l.proxyHead()
		c.key = fmt.Sprintf("%p", l.Conf)
	}
	return nil
}

// finishBuffers fills in the sizes that depend on others, and checks them.
func (u *upstreamConf) finishBuffers(prefix string) error {
	if u.buffers.Number < 2 {
		return say("there must be at least 2 \"%s_buffers\"", prefix)
	}
	size := max(u.bufferSize, u.buffers.Size)
	largest := "the maximum of the value of \"" + prefix + "_buffer_size\" and one of the \"" + prefix + "_buffers\""
	if !u.busySet {
		u.busySize = 2 * size
	}
	if u.busySize < size {
		return say("\"%s_busy_buffers_size\" must be equal to or greater than %s", prefix, largest)
	}
	if u.busySize > int64(u.buffers.Number-1)*u.buffers.Size {
		return say("\"%s_busy_buffers_size\" must be less than the size of all \"%s_buffers\" minus one buffer", prefix, prefix)
	}
	if !u.tempWriteSet {
		u.tempWriteSize = 2 * size
	}
	if u.tempWriteSize < size {
		return say("\"%s_temp_file_write_size\" must be equal to or greater than %s", prefix, largest)
	}
	if !u.maxTempSet {
		u.maxTempSize = 1 << 30
	}
	if u.maxTempSize != 0 && u.maxTempSize < size {
		return say("\"%s_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to or greater than %s", prefix, largest)
	}
	return nil
}

// proxyHidden are the fields of answers that are not passed on by default.
func proxyHidden() []string {
	return []string{
		"Date", "Server", "X-Pad", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate",
		"X-Accel-Buffering", "X-Accel-Charset",
	}
}
