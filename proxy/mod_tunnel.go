package proxy

import "proxyctl/parser"

// ngx_http_tunnel_module: makes tunnels for clients that ask with CONNECT
// (RFC 9110, section 9.3.6). What a tunnel does is in upstream_tunnel.go.

func tunnelModule() Module {
	up := func(c *Conf) *upstreamConf { return c.Tunnel.own(c) }
	rows := someUpstreamRows("tunnel", up, "bind", "socket_keepalive", "socket_rcvbuf", "socket_sndbuf", "connect_timeout", "send_timeout",
		"read_timeout", "next_upstream_tries", "next_upstream_timeout")
	return Module{
		Name: "ngx_http_tunnel_module",
		Commands: append(rows,
			Command{Name: "tunnel_pass", In: InServer | InLocation | InLocationIf, Args: "0,1", Syntax: "[address]", Default: "$host:$request_port", Doc: "Makes tunnels to a server, by default to the one that the client names.", Set: setTunnelPass(up)},
			nextUpstreamRow("tunnel", []string{"error", "timeout", "off"}, []uint32{nextError, nextTimeout, nextOff}, up),
			sendLowatRow("tunnel", up),
			Size(Command{Name: "tunnel_buffer_size", In: inHTTPLevels, Default: "4k", Doc: "Accepted without effect.", Status: NoEffect, Reason: "the buffers of tunnels are pooled and of one size"},
				func(c *Conf) *int64 { return &up(c).bufferSize }),
		),
		Init: func(c *Conf) {
			u := upstreamDefaults(wireTunnel)
			u.buffering, u.unbuffered = false, true
			c.Tunnel = lent[upstreamConf]{conf: &u}
		},
		Finish: func(l *Level) error {
			if s := &l.Conf.Tunnel; !s.changed(l.Conf) && s.conf.target == nil {
				return nil
			}
			return up(l.Conf).finish(l, "tunnel", nil)
		},
	}
}

// setTunnelPass lets clients of the server ask with CONNECT, wherever in it the
// directive stands.
func setTunnelPass(up func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	set := setPass(up, serveTunnel, plainTarget(""))
	return func(l *Level, d *parser.Directive) error {
		l.Server.connects = true
		if len(d.Args) == 0 {
			asked := *d
			asked.Args = []parser.Arg{{Value: "$host:$request_port", Range: d.Name.Range}}
			d = &asked
		}
		redirects := l.Location.autoRedirect
		err := set(l, d)
		l.Location.autoRedirect = redirects // the one pass directive that says nothing about it
		return err
	}
}

// serveTunnel is the handler of tunnel_pass.
func serveTunnel(x *Exchange) Code {
	if !x.isMethod("CONNECT") {
		return 405
	}
	if _, code := x.beginPass(x.loc.Conf.Tunnel.conf); code != OK {
		return code
	}
	var url upstreamURL
	if !x.aim("", &url) {
		return 500
	}
	return x.pass(&url)
}

// takeConnect says whether the client may ask for tunnels
// (ngx_http_process_request_header).
func (x *Exchange) takeConnect() Code {
	if !x.isMethod("CONNECT") {
		return OK
	}
	x.keepAlive = false
	switch {
	case x.Req.Major != 1 || x.Req.Minor != 1 || !x.server.connects:
		x.Logf(logInfo, "client sent CONNECT method while reading client request headers")
		return 405
	case x.Req.ContentLength > 0 || x.Req.Chunked:
		x.Logf(logInfo, "client sent CONNECT request with body while reading client request headers")
		return 400
	}
	return OK
}
