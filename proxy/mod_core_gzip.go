package proxy

import (
	"bytes"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/pcre"
)

// Who gets compressed answers: what all modules that send or undo gzip have in
// common.

// gzipConf is what the core knows about compression at a level.
type gzipConf struct {
	Vary     bool
	Version  int
	Proxied  uint32
	MSIE6    bool // gets none
	Disabled List[*pcre.Regexp]

	proxiedIn *Level // that Proxied was set in
}

// The bits of gzip_proxied, in the order of gzipProxiedWords.
const (
	gzipProxiedOff = 1 << iota
	gzipProxiedExpired
	gzipProxiedNoCache
	gzipProxiedNoStore
	gzipProxiedPrivate
	gzipProxiedNoLastModified
	gzipProxiedNoETag
	gzipProxiedAuth
	gzipProxiedAny
)

func gzipProxiedWords() []string {
	return []string{"off", "expired", "no-cache", "no-store", "private", "no_last_modified", "no_etag", "auth", "any"}
}

func gzipCoreCommands() []Command {
	return []Command{
		Flag(Command{Name: "gzip_vary", In: inHTTPLevels, Default: "off", Doc: "Sends Vary with answers that may be compressed."}, func(c *Conf) *bool { return &c.Core.Gzip.Vary }),
		Enum(Command{Name: "gzip_http_version", In: inHTTPLevels, Default: "1.1", Doc: "Sets the least version of requests that get compressed answers."},
			[]string{"1.0", "1.1"}, func(c *Conf) *int { return &c.Core.Gzip.Version }),
		{
			Name: "gzip_proxied", In: inHTTPLevels, Args: "1+", Repeat: true, Default: "off",
			Syntax: "off | expired | no-cache | no-store | private | no_last_modified | no_etag | auth | any ...",
			Doc:    "Sets which answers to proxies are compressed.", Set: setGzipProxied,
		},
		{
			Name: "gzip_disable", In: inHTTPLevels, Args: "1+", Repeat: true, Syntax: "regex ... | msie6",
			Doc: "Sets the user agents that get no compressed answers.", Set: setGzipDisable,
		},
	}
}

func setGzipProxied(l *Level, d *parser.Directive) error {
	c := &l.Conf.Core.Gzip
	before := uint32(0)
	if c.proxiedIn == l {
		before = c.Proxied
	}
	err := Bits(Command{}, gzipProxiedWords(), func(*Conf) *uint32 { return &c.Proxied }).Set(l, d)
	c.proxiedIn, c.Proxied = l, c.Proxied|before
	return err
}

func setGzipDisable(l *Level, d *parser.Directive) error {
	c := &l.Conf.Core.Gzip
	for _, a := range d.Args {
		if a.Value == "msie6" {
			c.MSIE6 = true
			continue
		}
		re, err := pcre.Compile(a.Value, pcre.Options{Caseless: true})
		if err != nil {
			return sayAt(a, "Y013", "", "%s", err.Error())
		}
		c.Disabled.Add(l, re)
	}
	return nil
}

// takesGzip says whether the client is to get compressed answers
// (ngx_http_gzip_ok).
func (x *Exchange) takesGzip() bool {
	c := &x.loc.Conf.Core.Gzip
	accept, ok := x.Header(http1.AcceptEncoding)
	if x.inner.level > 0 || !ok || !acceptsGzip(accept) {
		return false
	}
	if c.MSIE6 && x.fromMSIE() && x.oldMSIE() {
		return false
	}
	if x.Req.Major == 0 || x.Req.Major == 1 && x.Req.Minor < c.Version {
		return false
	}
	if _, proxied := x.Header(http1.Via); proxied && !x.proxyTakesGzip(c.Proxied) {
		return false
	}
	if len(c.Disabled.Items) == 0 {
		return true
	}
	agent, ok := x.Header(http1.UserAgent)
	if !ok {
		return true
	}
	for _, re := range c.Disabled.Items {
		if matched, err := re.Test(agent); matched || err != nil {
			return false
		}
	}
	return true
}

// proxyTakesGzip applies gzip_proxied: what a proxy could give to a client that
// does not take it is not compressed.
func (x *Exchange) proxyTakesGzip(allowed uint32) bool {
	if allowed&gzipProxiedOff != 0 {
		return false
	}
	if allowed&gzipProxiedAny != 0 {
		return true
	}
	if _, has := x.Header(http1.Authorization); has && allowed&gzipProxiedAuth != 0 {
		return true
	}
	if v, has := x.Out.Find(http1.Expires); has {
		return allowed&gzipProxiedExpired != 0 && x.expired(v)
	}
	if _, has := x.Out.Find(http1.CacheControl); has {
		for i := range x.Out.Fields {
			f := &x.Out.Fields[i]
			if f.ID == http1.CacheControl && (allowed&gzipProxiedNoCache != 0 && hasToken(f.Value, "no-cache") ||
				allowed&gzipProxiedNoStore != 0 && hasToken(f.Value, "no-store") ||
				allowed&gzipProxiedPrivate != 0 && hasToken(f.Value, "private")) {
				return true
			}
		}
		return false
	}
	if _, has := x.Out.Find(http1.LastModified); has && allowed&gzipProxiedNoLastModified != 0 {
		return false
	}
	_, has := x.Out.Find(http1.ETag)
	return !has || allowed&gzipProxiedNoETag == 0
}

// expired compares Expires with Date, or with now.
func (x *Exchange) expired(expires []byte) bool {
	until, ok := parseHTTPTime(expires)
	if !ok {
		return false
	}
	now := time.Now().Unix()
	if v, has := x.Out.Find(http1.Date); has {
		if now, ok = parseHTTPTime(v); !ok {
			return false
		}
	}
	return until < now
}

// acceptsGzip reads Accept-Encoding (ngx_http_gzip_accept_encoding).
func acceptsGzip(v []byte) bool {
	if bytes.HasPrefix(v, []byte("gzip,")) {
		return true
	}
	rest, ok := behindGzip(v)
	if !ok {
		return false
	}
	rest = trimSpaces(rest)
	switch {
	case len(rest) == 0 || rest[0] == ',':
		return true
	case rest[0] != ';':
		return false
	}
	rest = trimSpaces(rest[1:])
	switch {
	case len(rest) == 0:
		return true
	case rest[0]|0x20 != 'q' || len(rest) < 3 || rest[1] != '=':
		return false
	}
	return weighsMore(rest[2:])
}

// behindGzip gives what follows the first "gzip" that begins a word.
func behindGzip(v []byte) ([]byte, bool) {
	for from := 0; ; {
		i := indexFold(v[from:], "gzip")
		if i < 0 {
			return nil, false
		}
		i += from
		from = i + len("gzip")
		if i == 0 || v[i-1] == ',' || v[i-1] == ' ' {
			return v[from:], true
		}
	}
}

// weighsMore says whether a quality is a valid one above 0
// (ngx_http_gzip_quantity).
func weighsMore(v []byte) bool {
	if v[0] != '0' && v[0] != '1' {
		return false
	}
	if end := bytes.IndexAny(v, ", "); end >= 0 {
		v = v[:end]
	}
	if len(v) == 1 {
		return v[0] == '1'
	}
	if v[1] != '.' || len(v) > len("0.000") {
		return false
	}
	sum := 100 * int(v[0]-'0')
	for _, c := range v[2:] {
		if c < '0' || c > '9' {
			return false
		}
		sum += int(c - '0')
	}
	return sum > 0 && sum <= 100
}
