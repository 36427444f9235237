package proxy

import (
	"proxyctl/parser"
	"proxyctl/proxy/memcached"
)

// ngx_http_memcached_module: answers with values of a memcached server.

// memcachedConf is what the module knows at a level.
type memcachedConf struct {
	upstreamConf

	gzipFlag int
	value    *Value // $memcached_key
}

func memcachedModule() Module {
	of := func(c *Conf) *memcachedConf { return c.Memcached.own(c) }
	up := func(c *Conf) *upstreamConf { return &of(c).upstreamConf }
	rows := someUpstreamRows("memcached", up, "bind", "socket_keepalive", "connect_timeout", "send_timeout", "read_timeout", "buffer_size",
		"next_upstream_tries", "next_upstream_timeout")
	return Module{
		Name: "ngx_http_memcached_module",
		Commands: append(rows,
			Command{Name: "memcached_pass", In: InLocation | InLocationIf, Args: "1", Syntax: "address", Doc: "Answers with values of a memcached server.", Set: setMemcachedPass(setPass(up, serveMemcached, plainTarget("memcached://")))},
			nextUpstreamRow("memcached", []string{"error", "timeout", "invalid_response", "not_found", "off"},
				[]uint32{nextError, nextTimeout, nextInvalidHeader, next404, nextOff}, up),
			Number(Command{Name: "memcached_gzip_flag", In: inHTTPLevels, Syntax: "flag", Default: "0", Doc: "Sets the flag of values that are compressed."}, func(c *Conf) *int { return &of(c).gzipFlag }),
		),
		Init: func(c *Conf) {
			u := upstreamDefaults(wireMemcached)
			u.buffering, u.unbuffered, u.passBody, u.intercept404 = false, true, false, true
			c.Memcached = lent[memcachedConf]{conf: &memcachedConf{upstreamConf: u}}
		},
		Finish: func(l *Level) error {
			if s := &l.Conf.Memcached; !s.changed(l.Conf) && s.conf.target == nil {
				return nil
			}
			return up(l.Conf).finish(l, "memcached", nil)
		},
	}
}

// setMemcachedPass wants the variable of the key to be known.
func setMemcachedPass(set func(*Level, *parser.Directive) error) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		if err := set(l, d); err != nil {
			return err
		}
		var err error
		c := l.Conf.Memcached.own(l.Conf)
		c.value, err = l.value("$memcached_key")
		return err
	}
}

// serveMemcached is the handler of memcached_pass.
func serveMemcached(x *Exchange) Code {
	if !x.isMethod("GET") && !x.isMethod("HEAD") {
		return 405
	}
	if code := x.discardBody(); code != OK {
		return code
	}
	c := x.loc.Conf.Memcached.conf
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	x.Out.ContentType = x.contentType()
	var url upstreamURL
	if !x.aim("memcached://", &url) {
		return 500
	}
	key := c.value.Append(x.borrow(), x)
	defer func() { x.giveBack(key) }()
	if len(key) == 0 {
		x.Logf(logError, "the \"$memcached_key\" variable is not set")
		return 500
	}
	const get = "get "
	h := appendEscaped(append(u.head[:0], get...), key, &escapeMemcached)
	u.isHead = x.isMethod("HEAD")
	u.asked = &memcached.Request{Key: h[len(get):], Gzip: uint64(c.gzipFlag), Limit: int(c.bufferSize), Log: (*memcachedLog)(x)}
	u.head = append(h, "\r\n"...)
	return x.pass(&url)
}

// escapeMemcached is what cannot stand in a key, and what marks it.
var escapeMemcached = func() (e escapeSet) {
	for c := range 256 {
		e[c] = c <= ' ' || c == '%'
	}
	return e
}()

// memcachedLog is an exchange that is told about its value.
type memcachedLog Exchange

// Missing logs that there is none.
func (l *memcachedLog) Missing() {
	x := (*Exchange)(l)
	x.upstream.action = readingHead
	x.logUpstream(logInfo, "key: \"%s\" was not found by memcached", x.upstream.asked.Key)
}

// BadTrailer logs what follows it.
func (l *memcachedLog) BadTrailer() {
	(*Exchange)(l).logUpstream(logError, "memcached sent invalid trailer")
}
