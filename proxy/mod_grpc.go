package proxy

import "proxyctl/parser"

// ngx_http_grpc_module: passes requests to a gRPC server, which speaks HTTP/2.
// Bodies go both ways while they come, and nothing is kept back; trailers are
// passed on.

// grpcConf is what the module knows at a level.
type grpcConf struct {
	upstreamConf

	setHeaders List[passField]
	head       *headTemplate
}

func grpcModule() Module {
	return Module{
		Name: "ngx_http_grpc_module", Commands: grpcCommands(),
		Init: func(c *Conf) {
			u := upstreamDefaults(wireHTTP2)
			u.buffering, u.requestBuffering, u.unbuffered, u.passTrailers = false, false, true, true
			c.GRPC = lent[grpcConf]{conf: &grpcConf{upstreamConf: u}}
		},
		Finish: finishGRPC,
	}
}

func grpcCommands() []Command {
	const in = inHTTPLevels
	of := func(c *Conf) *grpcConf { return c.GRPC.own(c) }
	up := func(c *Conf) *upstreamConf { return &of(c).upstreamConf }
	rows := someUpstreamRows("grpc", up, "bind", "socket_keepalive", "socket_rcvbuf", "socket_sndbuf", "connect_timeout", "send_timeout",
		"read_timeout", "buffer_size", "intercept_errors", "next_upstream_tries", "next_upstream_timeout", "pass_header", "hide_header", "ignore_headers")
	return append(append(rows, upstreamTLSRows("grpc", "host from grpc_pass", up)...),
		Command{Name: "grpc_pass", In: InLocation | InLocationIf, Args: "1", Syntax: "[protocol://]address", Differs: "the field Proxy and fields that Connection names are not passed on; a request that the server has refused unseen is sent again", Doc: "Passes requests to a gRPC server.", Set: setPass(up, serveGRPC, grpcTarget)},
		Command{Name: "grpc_set_header", In: in, Args: "2", Repeat: true, Syntax: "field value", Differs: "line ends in what a variable holds become spaces", DiffersIn: hasDecoded, Doc: "Sets a field of the request that is passed on.", Set: setPassField(func(c *Conf) *List[passField] { return &of(c).setHeaders })},
		nextUpstreamRow("grpc",
			[]string{"error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_502", "http_503", "http_504", "http_403", "http_404", "http_429", "off"},
			[]uint32{nextError, nextTimeout, nextInvalidHeader, nextNonIdempotent, next500, next502, next503, next504, next403, next404, next429, nextOff}, up),
	)
}

// finishGRPC derives what depends on several directives
// (ngx_http_grpc_merge_loc_conf).
func finishGRPC(l *Level) error {
	if s := &l.Conf.GRPC; !s.changed(l.Conf) && s.conf.target == nil {
		return nil
	}
	c := l.Conf.GRPC.own(l.Conf)
	if err := c.finish(l, "grpc", append(accelFields(), "Date", "Server")); err != nil {
		return err
	}
	c.finishTLS(l, "grpc")
	if c.target != nil {
		trailers := headPiece{kind: pieceTrailers, text: "TE: trailers\r\n"}
		c.head = compileHead(c.setHeaders.Items, c.target, false, []headPiece{lengthPiece(), trailers}, nil)
	}
	return nil
}

// grpcTarget reads an address with or without a scheme (ngx_http_grpc_pass).
func grpcTarget(l *Level, d *parser.Directive, t *passTarget) error {
	scheme, address := splitAddress(t.url, "grpc://", "grpcs://")
	u, problem := parseUpstreamURL(address, 0, false)
	if problem != "" {
		return sayAt(d.Args[0], "", "an address: 127.0.0.1:50051, unix:/path, or the name of an upstream", "%s in upstream %q", problem, address)
	}
	var err error
	t.vars = grpcVars(scheme, &u)
	t.group, err = l.passGroup(d, &u)
	return err
}

// grpcVars is what an address comes to: the name of the server is as it was
// written.
func grpcVars(scheme string, u *upstreamURL) passVars {
	v := passVars{scheme: []byte(scheme), tls: len(scheme) == len("grpcs://")}
	switch {
	case u.unix:
		v.host = []byte("localhost")
	case u.noPort:
		v.host = []byte(u.host)
	default:
		v.host = []byte(u.host + ":" + u.portText)
	}
	return v
}

// serveGRPC is the handler of grpc_pass.
func serveGRPC(x *Exchange) Code {
	c := x.loc.Conf.GRPC.conf
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	var url upstreamURL
	if c.target.value == nil {
		u.vars, u.block = c.target.vars, c.target.group
	} else {
		scheme, address := splitAddress(c.target.value.String(x), "grpc://", "grpcs://")
		if !x.evalAddress(address, passVars{scheme: []byte(scheme)}, &url) {
			return 500
		}
		u.vars = grpcVars(scheme, &url)
		u.vars.dynamic = true
	}
	if code := x.bodyToPass(true); code != OK {
		return code
	}
	x.buildGRPC(c)
	return x.pass(&url)
}

// buildGRPC makes the head of the request, in the form of HTTP/1
// (ngx_http_grpc_create_request).
func (x *Exchange) buildGRPC(c *grpcConf) {
	u := &x.upstream
	u.bodyLength = x.passedLength()
	u.isHead = x.isMethod("HEAD")
	h := append(append(u.head[:0], x.method...), ' ')
	h = append(x.appendUpstreamURI(h), " HTTP/2.0\r\n"...)
	for i := range c.head.pieces {
		h = c.head.pieces[i].append(h, x)
	}
	h = append(x.appendClientFields(h, &c.head.skip), "\r\n"...)
	u.head, u.headEnd = h, len(h)
}
