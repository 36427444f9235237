package proxy

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// rawConn is a connection given away to a tunnel.
type rawConn = net.Conn

// client is one client connection.
type client struct {
	rt        *Runtime
	id        uint64 // $connection
	conn      net.Conn
	sock      *sock.Conn // under conn; nil in tests
	remote    netip.AddrPort
	local     netip.AddrPort
	unix      string // path of the unix socket it came in by; "" for TCP
	socket    *boundSocket
	endpoint  *endpoint
	table     *Table     // that endpoint belongs to
	tls       bool       // the handshake is over
	quic      bool       // it is a connection of QUIC; conn and sock are nil
	secure    *handshake // nil without TLS
	over      net.Conn   // TLS over sock that a session was passed on with; nil for none
	insecure  bool       // the listener has ssl, and the client does not speak it
	sni       *Server    // that has the name the client sent in its handshake; nil for none
	sniName   string
	began     time.Time
	requests  int
	forwarded *forwarded // what the PROXY protocol says; nil for nothing
	http1     http1Stream
	life      *life        // what others see of the connection and do to it
	watch     *clientWatch // what ends waiting for a server
	passes    int          // how often it was passed from one listener to another
	peerName  string       // text of remote, made once: $remote_addr
	trace     *Trace       // of what it asks, when that is explained
}

// age is how long the connection has existed.
func (c *client) age() time.Duration { return time.Since(c.began) }

// follow makes the connection's endpoint one of the table t: after a reload
// the next request of a connection is served by the new configuration. False
// when nothing listens on the connection's address any more.
func (c *client) follow(t *Table) bool {
	if c.table == t {
		return true
	}
	for _, s := range t.sockets {
		if s.key() == c.socket.key {
			if e := s.endpoint(c.local.Addr()); e != nil {
				c.table, c.endpoint = t, e
				if c.sniName != "" {
					c.sni = e.find([]byte(c.sniName), nil)
				}
				return true
			}
		}
	}
	return false
}

// serve answers one request that s delivers.
func (c *client) serve(req *http1.Request, s stream, keepAlive bool, bad *http1.ParseError) *Exchange {
	t := c.rt.acquire()
	c.requests++
	x := newExchange(c, s, t)
	x.Req = req
	x.keepAlive = keepAlive
	if !c.follow(t) {
		x.keepAlive = false
	}
	x.server = c.endpoint.fallback
	if c.sni != nil {
		x.server = c.sni
	}
	x.loc = x.server.Level
	x.method = methodName(req.Method)
	code := x.begin(bad)
	if code == OK && (c.secure != nil && c.over == nil || c.insecure) {
		code = x.checkClient()
	}
	if code != OK {
		x.keepAlive = false
		for code = x.finalize(code); code == Again; {
			code = x.finalize(x.phases())
		}
	} else if !x.answerChallenge() {
		x.run()
	}
	x.postAction()
	x.awaitBackground()
	x.end()
	return x
}

// begin reads the host and the URI of the request and chooses its server.
func (x *Exchange) begin(bad *http1.ParseError) Code {
	req := x.Req
	x.rawURI = req.Path
	if bad != nil {
		x.Logf(logInfo, "%s while %s", bad.Reason, refusedWhile(req, bad))
		return Code(bad.Status)
	}
	before := x.server
	if code := x.chooseServer(); code != OK {
		return code
	}
	x.dropFields(before)
	if x.trace != nil {
		x.trace.server(x)
	}
	if x.misdirected() {
		return 421
	}
	if req.Major > 1 {
		before = x.server // the name was there first
	}
	if !x.setURI(req.Path, before.Level.Conf.Core.MergeSlashes) {
		x.Logf(logInfo, "client sent invalid request while reading client request line")
		x.uri = []byte{} // empty, but known: the request line itself was read
		return 400
	}
	if x.isMethod("TRACE") {
		x.Logf(logInfo, "client sent TRACE method while reading client request headers")
		return 405
	}
	if code := x.takeConnect(); code != OK {
		return code
	}
	return x.readEarlyBody()
}

// dropFields takes the fields with invalid names out of the request
// (ignore_invalid_headers). As in nginx, what the server says counts from the
// Host field on, and before it what the server says that was known until then.
func (x *Exchange) dropFields(before *Server) {
	fields, core := x.Req.Fields, &before.Level.Conf.Core
	if !slices.ContainsFunc(fields, func(f http1.Field) bool { return f.Odd }) {
		return
	}
	kept := fields[:0]
	for i := range fields {
		f := &fields[i]
		if f.ID == http1.Host {
			core = &x.server.Level.Conf.Core
		}
		if f.Odd && core.IgnoreInvalidHeaders && (!f.Underscore || !core.Underscores) {
			if x.Req.Major > 1 {
				x.Logf(logInfo, "client sent invalid header: \"%s\" while reading client request headers", f.Name)
			} else {
				x.Logf(logInfo, "client sent invalid header line: \"%s: %s\" while reading client request headers", f.Name, f.Value)
			}
			continue
		}
		kept = append(kept, *f)
	}
	clear(fields[len(kept):])
	x.Req.Fields = kept
}

// refusedWhile says what nginx was doing when it refused a head: reading the
// line, or what follows it.
func refusedWhile(req *http1.Request, bad *http1.ParseError) string {
	if len(req.Fields) > 0 || req.Major != 0 && bad.Status != 505 {
		return "reading client request headers"
	}
	return "reading client request line"
}

// setURI takes a request target apart.
func (x *Exchange) setURI(target []byte, merge bool) bool {
	if len(target) == 0 { // absolute form without a path
		target = []byte("/")
		x.unparsedValid = false
	} else if target[0] == '?' {
		target = x.keep("/", target)
		x.unparsedValid = false
	}
	u, arena := parseURI(target, merge, x.arena)
	x.arena = arena
	if !u.ok {
		return false
	}
	x.uri, x.args, x.extension = u.path, u.args, u.extension
	if len(x.args) == 0 { // "/?" has none
		x.args = nil
	}
	x.quotedURI, x.plusURI = u.quoted, u.plus
	return true
}

// chooseServer finds the server block by the name in the request line, else by
// the Host field, among those that listen on the connection's address
// (ngx_http_set_virtual_server).
func (x *Exchange) chooseServer() Code {
	name := x.Req.Authority
	field, has := x.Header(http1.Host)
	if len(name) == 0 {
		name = field
	}
	if !has && x.Req.Minor == 1 && x.Req.Major == 1 {
		x.Logf(logInfo, "client sent HTTP/1.1 request without \"Host\" header while reading client request headers")
		return 400
	}
	if len(name) == 0 {
		if has {
			x.Logf(logInfo, "client sent invalid host header while reading client request headers")
			return 400
		}
	} else {
		var h validHost
		h, x.arena = parseHost(name, x.arena)
		if !h.ok {
			x.Logf(logInfo, "client sent invalid host header while reading client request headers")
			return 400
		}
		x.host, x.hostPort = h.name, h.port
	}
	if x.client.sni != nil && string(x.host) == x.client.sniName {
		x.captureSNI()
		return OK
	}
	s := x.client.endpoint.find(x.host, x)
	if x.client.tls && x.client.sniName != "" {
		if s == nil {
			s = x.client.endpoint.fallback
		}
		if s.Level.Conf.SSL.Verify != verifyOff {
			x.Logf(logInfo, "client attempted to request the server name different from the one that was negotiated while reading client request headers")
			return 421
		}
	}
	if s != nil {
		x.server, x.loc = s, s.Level
		x.stream.setTimeouts(&s.Level.Conf.Core.timeouts)
	}
	return OK
}

// captureSNI repeats the match of a regular server name, for its captures.
func (x *Exchange) captureSNI() {
	for i := range x.client.endpoint.regexes {
		if r := &x.client.endpoint.regexes[i]; r.server == x.server && x.matchRegex(r.regex, x.host) {
			return
		}
	}
}

// end runs the log phase. The exchange is still valid afterwards.
func (x *Exchange) end() {
	x.stream.unwatch()
	x.countSent()
	x.resume = LogPhase
	for _, h := range x.loc.handlers[LogPhase] {
		h(x)
	}
}

// countSent notes how many bytes the client got.
func (x *Exchange) countSent() {
	if s, ok := x.stream.(interface{ sent() (all, head int64) }); ok {
		x.bytesSent, x.headSize = s.sent()
	}
}

// methodName returns the name of a method without allocating for common ones.
func methodName(m []byte) string {
	switch string(m) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "OPTIONS":
		return "OPTIONS"
	case "PATCH":
		return "PATCH"
	}
	return string(m)
}

// methods are the names that limit_except and the like know, one bit each.
var methods = [...]string{
	"GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS",
	"PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "PATCH",
}

// methodSet is a set of methods.
type methodSet uint32

func (s methodSet) has(method []byte) bool {
	for i, m := range methods {
		if string(method) == m {
			return s&(1<<i) != 0
		}
	}
	return false
}
