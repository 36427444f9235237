package proxy

import (
	"math"
	"time"

	"proxyctl/parser"
)

// ngx_stream_proxy_module: passes sessions on to servers. What it has in common
// with proxying of HTTP are the rows, the targets, the groups of servers and the
// connections; how a session goes on is in session_proxy.go.

// streamProxyConf is what the module knows at a level beside what Conf.Proxy
// says.
type streamProxyConf struct {
	timeout                  time.Duration
	uploadRate, downloadRate *Value
	requests, responses      int
	next                     bool
	header                   int // that is sent: index in proxyHeaderWords
	halfClose                bool
	ssl                      bool
	alpn                     List[*Value]
}

// proxyHeaderWords are the versions of the PROXY protocol.
func proxyHeaderWords() []string { return []string{"off", "on", "v2"} }

// anyResponses is what proxy_responses is when it is not given.
const anyResponses = math.MaxInt32

func streamProxyModule() Module {
	return Module{
		Name: "ngx_stream_proxy_module", Commands: streamProxyCommands(),
		Init: func(c *Conf) {
			if !c.Stream.is {
				return
			}
			c.StreamProxy = streamProxyConf{timeout: 10 * time.Minute, next: true, responses: anyResponses}
			c.Proxy.wire, c.Proxy.bufferSize, c.Proxy.ignoreClientAbort = wireStream, 16<<10, true
		},
		Finish: func(l *Level) error {
			if c := l.Conf; l.Context == InStreamServer && c.StreamProxy.ssl {
				c.Proxy.makeTLS(l, "proxy")
			}
			return nil
		},
	}
}

func streamProxyCommands() []Command {
	conf := func(c *Conf) *streamProxyConf { return &c.StreamProxy }
	row := func(name, defaults, doc string) Command {
		return Command{Name: "proxy_" + name, In: inStreamLevels, Default: defaults, Doc: doc}
	}
	rows := []Command{
		{Name: "proxy_pass", In: InStreamServer, Args: "1", Syntax: "address", Doc: "Passes sessions to a server.", Set: setPass(proxyUpstream, serveStreamProxy, plainTarget(""))},
		Time(row("timeout", "10m", "Sets how long nothing may move in either direction."), func(c *Conf) *time.Duration { return &conf(c).timeout }),
		row("upload_rate", "0", "Limits how fast the client is read, in bytes a second.").with("1", "rate", setRate(func(c *Conf) **Value { return &conf(c).uploadRate })),
		row("download_rate", "0", "Limits how fast the server is read, in bytes a second.").with("1", "rate", setRate(func(c *Conf) **Value { return &conf(c).downloadRate })),
		Number(row("requests", "0", "Sets after how many datagrams of a client a session of its own begins."), func(c *Conf) *int { return &conf(c).requests }),
		Number(row("responses", "", "Sets how many datagrams the server answers one of the client with."), func(c *Conf) *int { return &conf(c).responses }),
		Flag(row("next_upstream", "on", "Passes a session to the next server when one cannot be connected to."), func(c *Conf) *bool { return &conf(c).next }),
		Enum(row("protocol", "off", "Sends the PROXY protocol header to the server."), proxyHeaderWords(), func(c *Conf) *int { return &conf(c).header }),
		Flag(row("half_close", "off", "Lets each direction of a connection end by itself."), func(c *Conf) *bool { return &conf(c).halfClose }),
	}
	rows = append(rows,
		Flag(row("ssl", "off", "Speaks TLS with servers."), func(c *Conf) *bool { return &conf(c).ssl }),
		row("ssl_alpn", "", "Sets the protocols that servers are offered by ALPN.").with("1+", "protocol ...", setServerALPN))
	for _, c := range upstreamTLSRows("proxy", "host from proxy_pass", proxyUpstream) {
		c.In = inStreamLevels
		rows = append(rows, c)
	}
	for _, c := range someUpstreamRows("proxy", proxyUpstream, "bind", "connect_timeout", "next_upstream_timeout", "next_upstream_tries",
		"socket_keepalive", "socket_rcvbuf", "socket_sndbuf", "buffer_size") {
		if c.In = inStreamLevels; c.Name == "proxy_buffer_size" {
			c.Default, c.Doc = "16k", "Sets how much is read at once, up to 32k."
			rows = append(rows, deprecated(c, "proxy_downstream_buffer"), deprecated(c, "proxy_upstream_buffer"))
		}
		rows = append(rows, c)
	}
	return rows
}

func setServerALPN(l *Level, d *parser.Directive) error {
	for _, a := range d.Args {
		v, err := l.value(a.Value)
		if err != nil {
			return err
		}
		if _, static := v.Static(); static && len(a.Value) > longestProtocol {
			return errAt(a, "", "at most 255 bytes", "protocol too long")
		}
		l.Conf.StreamProxy.alpn.Add(l, v)
	}
	return nil
}

// deprecated makes the row of an older name (ngx_conf_deprecated).
func deprecated(c Command, name string) Command {
	set, now := c.Set, c.Name
	c.Name, c.Doc = name, "The former name of "+now+"."
	c.Set = func(l *Level, d *parser.Directive) error {
		l.warnAt(d, d.Name, "the %q directive is deprecated, use the %q directive instead", name, now)
		return set(l, d)
	}
	return c
}

// serveStreamProxy passes a session to one server after the other until one can
// be connected to (ngx_stream_proxy_handler).
func serveStreamProxy(x *Exchange) Code {
	c := &x.loc.Conf.Proxy.upstreamConf
	u, code := x.beginPass(c)
	if code != OK {
		return code
	}
	var url upstreamURL
	if !x.aim("", &url) {
		return sessionFailed
	}
	if u.vars.dynamic {
		if x.findGroup(&url) != OK {
			return sessionFailed
		}
	} else {
		u.group = u.block.group.Load()
	}
	if x.loc.Conf.StreamProxy.ssl && !x.session.udp {
		u.tls = &c.tls
	}
	u.start = nanos()
	u.attempt.Start(u.group, x.balanceKey())
	u.attempt.Limit(c.nextTries)
	for {
		code, next := x.serverSession()
		if !next {
			return code
		}
		if !x.nextSessionServer() {
			return sessionNoServer
		}
	}
}

// nextSessionServer counts a failure, and says whether another server is asked
// (ngx_stream_proxy_next_upstream).
func (x *Exchange) nextSessionServer() bool {
	u := &x.upstream
	u.endState()
	if u.attempt.Done(u.peer, false, nanos()) {
		x.Logf(logWarn, "upstream server temporarily disabled")
	}
	u.peer = nil
	x.closeServer()
	return u.attempt.Tries() > 0 && x.loc.Conf.StreamProxy.next && !x.session.ended() &&
		(u.conf.nextTimeout == 0 || nanos()-u.start < int64(u.conf.nextTimeout))
}
