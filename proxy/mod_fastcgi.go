package proxy

import (
	"bytes"

	"proxyctl/parser"
	"proxyctl/proxy/fastcgi"
	"proxyctl/proxy/pcre"
)

// ngx_http_fastcgi_module: passes requests to an application that speaks
// FastCGI, PHP-FPM above all. Records are put together and taken apart in
// package fastcgi, parameters are made in upstream_param.go.

// fastcgiConf is what the module knows at a level.
type fastcgiConf struct {
	cgiConf

	index string
	split *pcre.Regexp // fastcgi_split_path_info; nil without
	catch List[string]
}

// fastcgiScratch is the URI of an exchange in two parts, once somebody has asked
// for them.
type fastcgiScratch struct {
	done             bool
	script, pathInfo []byte
}

func fastcgiModule() Module {
	return Module{
		Name: "ngx_http_fastcgi_module", Commands: fastcgiCommands(), Variables: fastcgiVariables(),
		Init: func(c *Conf) {
			c.FastCGI = lent[fastcgiConf]{conf: &fastcgiConf{cgiConf: cgiConf{upstreamConf: upstreamDefaults(wireFastCGI)}}}
		},
		Finish: finishFastCGI,
	}
}

func fastcgiCommands() []Command {
	const in = inHTTPLevels
	of := func(c *Conf) *fastcgiConf { return c.FastCGI.own(c) }
	up := func(c *Conf) *upstreamConf { return &of(c).upstreamConf }
	return append(cgiRows("fastcgi", up, func(c *Conf) *List[passParam] { return &of(c).params }),
		Command{Name: "fastcgi_pass", In: InLocation | InLocationIf, Args: "1", Syntax: "address", Differs: "the field Proxy is not passed on, nor is NUL in a parameter; an answer that ends in the middle of a record is cut off", Doc: "Passes requests to a FastCGI server.", Set: setPass(up, serveFastCGI, plainTarget("fastcgi://"))},
		Command{Name: "fastcgi_split_path_info", In: in, Args: "1", Syntax: "regex", Doc: "Takes $fastcgi_script_name and $fastcgi_path_info apart.", Set: setSplitPathInfo},
		Text(Command{Name: "fastcgi_index", In: in, Syntax: "name", Doc: "Sets what follows a $fastcgi_script_name that ends in a slash."}, func(c *Conf) *string { return &of(c).index }),
		Strings(Command{Name: "fastcgi_catch_stderr", In: in, Doc: "Refuses an answer when its application says this on standard error."}, func(c *Conf) *List[string] { return &of(c).catch }),
		Flag(Command{Name: "fastcgi_keep_conn", In: in, Default: "off", Doc: "Asks FastCGI servers to keep connections open."}, func(c *Conf) *bool { return &of(c).keepConn }),
		sendLowatRow("fastcgi", up),
	)
}

// setSplitPathInfo reads an expression with two captures.
func setSplitPathInfo(l *Level, d *parser.Directive) error {
	re, err := l.c.expression(d.Args[0].Value, false)
	if err != nil {
		return sayAt(d.Args[0], "Y013", "", "%s", err.Error())
	}
	if re.Captures() != 2 {
		return sayAt(d.Args[0], "", `one for the script, one for the rest: "^(.+?\.php)(/.*)$"`, "pattern %q must have 2 captures", d.Args[0].Value)
	}
	l.Conf.FastCGI.own(l.Conf).split = re
	return nil
}

// finishFastCGI derives what depends on several directives
// (ngx_http_fastcgi_merge_loc_conf).
func finishFastCGI(l *Level) error {
	if s := &l.Conf.FastCGI; !s.changed(l.Conf) && s.conf.target == nil {
		return nil
	}
	return l.Conf.FastCGI.own(l.Conf).finish(l, "fastcgi", append(accelFields(), "Status"))
}

// serveFastCGI is the handler of fastcgi_pass.
func serveFastCGI(x *Exchange) Code {
	c := x.loc.Conf.FastCGI.conf
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	x.fastcgi = fastcgiScratch{}
	u.frame, u.stderr = fastcgi.AppendStdin, (*fastcgiLog)(x)
	var url upstreamURL
	if !x.aim("fastcgi://", &url) {
		return 500
	}
	if code := x.bodyToPass(true); code != OK {
		return code
	}
	return x.passCGI(&url, (*Exchange).buildFastCGI)
}

// buildFastCGI makes the records that go before the body
// (ngx_http_fastcgi_create_request).
func (x *Exchange) buildFastCGI() bool {
	c, u := x.loc.Conf.FastCGI.conf, &x.upstream
	u.isHead = x.isMethod("HEAD") && !u.cacheable() // some applications answer as if it were GET
	h := fastcgi.AppendBegin(u.head[:0], c.keepConn)
	at := len(h)
	h = x.appendParams(fastcgi.OpenParams(h), &c.cgiConf, fastcgi.AppendPair)
	h, size, ok := fastcgi.CloseParams(h, at)
	u.head = h
	if !ok {
		x.Logf(logAlert, "fastcgi request record is too big: %d", size)
	}
	return ok
}

// fastcgiLog is an exchange that gets what its application writes to standard
// error.
type fastcgiLog Exchange

// Stderr logs a piece, and refuses the answer if it is one to catch.
func (l *fastcgiLog) Stderr(p []byte) bool {
	x := (*Exchange)(l)
	if x.upstream.action == sending { // the last piece goes out with the wait for the answer
		x.upstream.action = readingHead
	}
	text := p[:1+len(bytes.TrimRight(p[1:], "\n\r. "))]
	x.logUpstream(logError, "FastCGI sent in stderr: \"%s\"", text)
	for _, pattern := range x.loc.Conf.FastCGI.conf.catch.Items {
		if bytes.Contains(text, []byte(pattern)) {
			return false
		}
	}
	return true
}

func fastcgiVariables() []Variable {
	return []Variable{
		{Name: "fastcgi_script_name", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			s := x.splitPathInfo()
			dst = append(dst, s.script...)
			if bytes.HasSuffix(s.script, []byte("/")) {
				dst = append(dst, x.loc.Conf.FastCGI.conf.index...)
			}
			return dst, true
		}},
		{Name: "fastcgi_path_info", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			return append(dst, x.splitPathInfo().pathInfo...), true
		}},
	}
}

// splitPathInfo takes the URI apart. As in nginx, what it was when it was asked
// for first counts until the request is passed on.
func (x *Exchange) splitPathInfo() *fastcgiScratch {
	s := &x.fastcgi
	if s.done {
		return s
	}
	s.script, s.pathInfo = x.uri, nil
	if re := x.loc.Conf.FastCGI.conf.split; re != nil {
		caps, matched, err := re.Search(x.uri, x.spare[:0])
		if x.spare = caps[:0]; err != nil {
			x.Logf(logAlert, "splitting %q failed: %s", x.uri, err)
		} else if matched {
			s.script, s.pathInfo = group(x.uri, caps, 1), group(x.uri, caps, 2)
		}
	}
	s.done = len(s.script) > 0
	return s
}

// group gives a capture; nil for one that took no part.
func group(s []byte, caps []int, n int) []byte {
	if caps[2*n] < 0 {
		return nil
	}
	return s[caps[2*n]:caps[2*n+1]]
}
