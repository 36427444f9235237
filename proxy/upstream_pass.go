package proxy

import (
	"fmt"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/upstream"
)

// Where a pass directive points, and the steps that lead a request there.

// passTarget is what a pass directive says.
type passTarget struct {
	value *Value // with variables; else nil, and the rest is known
	group *upstreamBlock
	vars  passVars
	url   string // all of it
}

// passVars is a target taken apart. All but the first three are for HTTP.
type passVars struct {
	tls      bool
	dynamic  bool   // evaluated for this request
	scheme   []byte // "http://"
	host     []byte // $proxy_host
	socket   []byte // "unix:/path:", which stands for the host in a cache
	port     []byte // $proxy_port
	uri      []byte // the URI part
	location []byte // what the URI part replaces
}

// setPass makes the setter of a pass directive: read takes the target apart,
// serve is the handler of the location then.
func setPass(of func(*Conf) *upstreamConf, serve Handler, read func(*Level, *parser.Directive, *passTarget) error) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		t := &passTarget{url: d.Args[0].Value}
		v, err := l.value(t.url)
		if err != nil {
			return err
		}
		if _, static := v.Static(); !static {
			t.value = v
		} else if err := read(l, d, t); err != nil {
			return err
		}
		u := of(l.Conf)
		u.target, u.passedIn = t, l
		l.Conf.Own.Content = serve
		if strings.HasSuffix(l.Location.Name, "/") {
			l.Location.autoRedirect = true
		}
		return nil
	}
}

// splitAddress cuts one of the schemes off; the first of them when there is none.
func splitAddress(url string, schemes ...string) (scheme, rest string) {
	for _, s := range schemes {
		if len(url) >= len(s) && strings.EqualFold(url[:len(s)], s) {
			return url[:len(s)], url[len(s):]
		}
	}
	return schemes[0], url
}

// plainTarget reads a target that is nothing but an address. scheme is what logs
// call it by.
func plainTarget(scheme string) func(*Level, *parser.Directive, *passTarget) error {
	return func(l *Level, d *parser.Directive, t *passTarget) error {
		t.vars = passVars{scheme: []byte(scheme)}
		return l.addressTarget(d, t, t.url)
	}
}

// addressTarget finds the group of an address.
func (l *Level) addressTarget(d *parser.Directive, t *passTarget, address string) error {
	u, problem := parseUpstreamURL(address, 0, false)
	if problem != "" {
		return sayAt(d.Args[0], "", "an address: 127.0.0.1:9000, unix:/path, or the name of an upstream", "%s in upstream %q", problem, address)
	}
	var err error
	t.group, err = l.passGroup(d, &u)
	return err
}

// evalAddress takes an address apart that variables gave.
func (x *Exchange) evalAddress(text string, vars passVars, url *upstreamURL) bool {
	u, problem := parseUpstreamURL(text, 0, false)
	if problem != "" {
		level := logError
		if x.upstream.conf.wire == wireTunnel { // the client has said it
			level = logInfo
		}
		x.Logf(level, "%s in upstream %q", problem, text)
		return false
	}
	vars.dynamic = true
	x.upstream.vars, *url = vars, u
	return true
}

// aim finds out where the request goes. scheme is what logs call it by. False:
// variables gave no address, which has been logged.
func (x *Exchange) aim(scheme string, url *upstreamURL) bool {
	u := &x.upstream
	t := u.conf.target
	if t.value != nil {
		return x.evalAddress(t.value.String(x), passVars{scheme: []byte(scheme)}, url)
	}
	u.vars, u.block = t.vars, t.group
	return true
}

// lent is the conf of a module that few levels have anything to say about: a
// level shares its parent's until it writes to it.
type lent[T any] struct {
	conf  *T
	owner *Conf
}

// own gives what c may write to.
func (s *lent[T]) own(c *Conf) *T {
	if s.owner != c {
		own := *s.conf
		s.conf, s.owner = &own, c
	}
	return s.conf
}

// changed says whether c has to be finished: it is the first level, or has
// something of its own.
func (s *lent[T]) changed(c *Conf) bool { return s.owner == nil || s.owner == c }

// beginPass begins a pass under c.
func (x *Exchange) beginPass(c *upstreamConf) (*upstreamScratch, Code) {
	if c.target == nil { // an if block that matched later took over, and passes nothing on
		x.Logf(logAlert, "no upstream configuration")
		return nil, 500
	}
	x.upstream.begin(c)
	return &x.upstream, OK
}

// bodyToPass reads the body of the request, unless it can be passed on while it
// comes: stream says whether the protocol can do that.
func (x *Exchange) bodyToPass(stream bool) Code {
	c := x.upstream.conf
	if !stream || c.requestBuffering || !c.passBody || x.bodyRead || !x.hasBody() {
		return x.readBody()
	}
	var code Code
	x.upstream.streaming, code = x.streamBody()
	return code
}

// passedLength is the length of the body that is passed on; -1: none, or not
// known.
func (x *Exchange) passedLength() int64 {
	u := &x.upstream
	switch {
	case x.inner.level > 0 && x.body.size == 0: // Unlike nginx, which announces the body that the main request has.
		return -1
	case !u.conf.passBody: // Unlike nginx, which announces a body that it does not send.
		return -1
	case u.streaming && x.Req.Chunked:
		return -1
	case !u.streaming && (x.Req.Chunked || x.body.discarded):
		return x.body.size
	}
	return x.contentLength()
}

// pass asks the servers of the target, that of url when variables name it, for
// an answer to the request that has been built.
func (x *Exchange) pass(url *upstreamURL) Code {
	u := &x.upstream
	if u.vars.dynamic {
		if code := x.findGroup(url); code != OK {
			return code
		}
	} else {
		u.group = u.block.group.Load()
	}
	if u.vars.tls {
		u.tls = &u.conf.tls
	}
	defer x.leaveStore()
	return x.askServers()
}

// findGroup finds the group that a variable names, or makes one of an address.
func (x *Exchange) findGroup(url *upstreamURL) Code {
	u, groups := &x.upstream, x.names().groups
	host := lower(url.host)
	g := groups[host]
	if g == nil || !g.explicit || !url.noPort {
		g = groups[implicitKey(host, url.port)]
	}
	if g != nil {
		u.block, u.group = g, g.group.Load()
		return OK
	}
	if !url.unix && url.port == 0 {
		x.Logf(logError, "no port in upstream %q", url.host)
		return 500
	}
	addresses := []peerAddress{}
	if url.unix || url.addr.IsValid() {
		addresses = url.resolve(true)
	} else {
		found, code := x.resolveHost(u.conf, url.host)
		if code != OK {
			return code
		}
		for _, a := range found {
			addresses = append(addresses, inetAddress(a, url.port))
		}
	}
	var peers []upstream.Peer
	for _, a := range addresses {
		peers = append(peers, upstream.Peer{Name: a.name, Network: a.network, Address: a.address, Server: url.text, MaxFails: 1, FailTimeout: 10 * time.Second})
	}
	group, err := upstream.NewGroup(url.host, peers, upstream.RoundRobin)
	if err != nil {
		x.Logf(logError, "%s", err)
		return 500
	}
	u.group = group
	return OK
}

// implicitKey is the name of a group that a pass directive made of an address.
func implicitKey(host string, port uint16) string { return fmt.Sprintf("%s %d", host, port) }
