package proxy

import (
	"crypto/md5"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/upstream"
)

// ngx_http_upstream_sticky_module: requests of one session go to one server,
// which a cookie names, the request itself, or the memory of sessions.

// stickyConf is the sticky directive of a group.
type stickyConf struct {
	lookup, create []*variable // the first that is not empty counts
	cookie         *stickyCookie
	sessions       *upstream.Sessions // learn
	zone           *zone
	zoneName       string
	timeout        time.Duration
	afterHead      bool
}

// stickyCookie is the cookie that names the server.
type stickyCookie struct {
	name             string
	domain, samesite *Value
	path             string // "; path=/"
	expires          time.Duration
	hasExpires, max  bool
	httpOnly, secure bool
}

// stickySize is how much of a zone one session takes.
const stickySize = 128

// maxRoute is the longest name of a server for sticky.
const maxRoute = 32

func upstreamStickyModule() Module {
	return Module{Name: "ngx_http_upstream_sticky_module", Commands: []Command{
		{Name: "sticky", In: InUpstream, Args: "2+", Repeat: true, Syntax: "cookie name [parameter ...] | route $variable ... | learn create=$variable lookup=$variable zone=name:size [parameter ...]", Doc: "Keeps the requests of a session with one server.", Set: setSticky},
	}}
}

func checkRoute(a parser.Arg, route string) error {
	switch {
	case route == "":
		return sayAt(a, "", "route=a", "route is empty")
	case len(route) > maxRoute:
		return sayAt(a, "", "", "route is longer than %d", maxRoute)
	}
	return nil
}

// stickyID is the name of a server without a route.
func stickyID(name string) string {
	sum := md5.Sum([]byte(name))
	return hex.EncodeToString(sum[:])
}

func setSticky(l *Level, d *parser.Directive) error {
	g := l.Group
	if g.stuck {
		return errDuplicate
	}
	g.stuck = true
	g.sticky = &stickyConf{}
	switch a := d.Args[0]; a.Value {
	case "cookie":
		return g.sticky.setCookie(l, d.Args[1:])
	case "route":
		return g.sticky.setRoute(l, d.Args[1:])
	case "learn":
		return g.sticky.setLearn(l, d.Args[1:])
	default:
		return sayAt(a, "", "cookie, route or learn", "unknown parameter %q", a.Value)
	}
}

func (s *stickyConf) setRoute(l *Level, args []parser.Arg) error {
	for _, a := range args {
		name, ok := strings.CutPrefix(a.Value, "$")
		if !ok {
			return sayAt(a, "", "a variable: $cookie_route", "invalid variable name %q", a.Value)
		}
		s.lookup = append(s.lookup, l.c.names.vars.use(name))
	}
	return nil
}

func (s *stickyConf) setCookie(l *Level, args []parser.Arg) error {
	if args[0].Value == "" {
		return errAt(args[0], "", "", "empty cookie name")
	}
	c := &stickyCookie{name: args[0].Value}
	for _, a := range args[1:] {
		if err := c.parameter(l, a); err != nil {
			return err
		}
	}
	s.cookie = c
	s.lookup = []*variable{l.c.names.vars.use("cookie_" + c.name)}
	return nil
}

// parameter reads one parameter of "sticky cookie".
func (c *stickyCookie) parameter(l *Level, a parser.Arg) (err error) {
	name, value, hasValue := strings.Cut(a.Value, "=")
	again := func(given bool) error {
		if given {
			return errAt(a, "", "", "parameter \""+name+"\" is duplicate")
		}
		if hasValue && value == "" && name != "samesite" && name != "expires" {
			return errAt(a, "", "", "no value for \""+name+"\"")
		}
		return nil
	}
	switch {
	case name == "domain" && hasValue:
		if err = again(c.domain != nil); err == nil {
			c.domain, err = l.value(value)
		}
	case name == "path" && hasValue:
		err = again(c.path != "")
		c.path = "; path=" + value
	case name == "expires" && hasValue:
		if err = again(c.hasExpires); err != nil {
			return err
		}
		ok := true
		if c.hasExpires, c.max = true, value == "max"; !c.max {
			c.expires, ok = parseTime(value, true)
		}
		if !ok {
			return errAt(a, "Y010", "a time or max", "invalid \"expires\" parameter value")
		}
	case a.Value == "httponly":
		err = again(c.httpOnly)
		c.httpOnly = true
	case a.Value == "secure":
		err = again(c.secure)
		c.secure = true
	case name == "samesite" && hasValue:
		if err = again(c.samesite != nil); err != nil {
			return err
		}
		if c.samesite, err = l.value(value); err != nil {
			return err
		}
		if text, static := c.samesite.Static(); static && !isSameSite([]byte(text)) {
			return errAt(a, "", "strict, lax or none", "invalid \"samesite\" parameter value")
		}
	default:
		err = sayAt(a, "", "domain= path= expires= httponly secure samesite=", "unknown parameter %q", a.Value)
	}
	return err
}

func isSameSite(b []byte) bool {
	return equalFold(b, "strict") || equalFold(b, "lax") || equalFold(b, "none")
}

func (s *stickyConf) setLearn(l *Level, args []parser.Arg) error {
	variableOf := func(a parser.Arg, name, value string) (*variable, error) {
		text, ok := strings.CutPrefix(value, "$")
		if !ok {
			return nil, errAt(a, "", "a variable: "+name+"=$cookie_id", "missing variable in the \""+name+"\" parameter")
		}
		return l.c.names.vars.use(text), nil
	}
	for _, a := range args {
		var v *variable
		var err error
		name, value, hasValue := strings.Cut(a.Value, "=")
		switch {
		case name == "zone" && hasValue:
			err = s.setZone(a, value)
		case name == "timeout" && hasValue && s.timeout != 0:
			err = errAt(a, "", "", "duplicate timeout")
		case name == "timeout" && hasValue:
			var ok bool
			if s.timeout, ok = parseTime(value, false); !ok || s.timeout == 0 {
				err = errAt(a, "Y010", "units are ms s m h d w", "invalid timeout")
			}
		case name == "create" && hasValue:
			v, err = variableOf(a, name, value)
			s.create = append(s.create, v)
		case name == "lookup" && hasValue:
			v, err = variableOf(a, name, value)
			s.lookup = append(s.lookup, v)
		case a.Value == "header":
			s.afterHead = true
		default:
			err = sayAt(a, "", "create= lookup= zone= timeout= header", "unknown parameter %q", a.Value)
		}
		if err != nil {
			return err
		}
	}
	return s.finishLearn(l, args[0])
}

// setZone reads "name:size".
func (s *stickyConf) setZone(a parser.Arg, value string) error {
	if s.zone != nil {
		return errAt(a, "", "", "duplicate zone")
	}
	name, text, hasSize := strings.Cut(value, ":")
	size, ok := parseSize(text)
	problem := ""
	switch {
	case !hasSize:
		problem = "zone size is not specified"
	case name == "":
		problem = "zone name is not specified"
	case !ok:
		problem = "invalid zone size"
	case size < minZoneSize:
		problem = "zone is too small"
	}
	if problem != "" {
		return errAt(a, "", "zone=sessions:1m", problem)
	}
	s.zoneName, s.zone = name, &zone{size: size}
	return nil
}

// finishLearn checks that nothing is missing.
func (s *stickyConf) finishLearn(l *Level, a parser.Arg) error {
	for _, missing := range []struct {
		name string
		is   bool
	}{{"lookup", len(s.lookup) == 0}, {"create", len(s.create) == 0}, {"zone", s.zone == nil}} {
		if missing.is {
			return errAt(a, "", "", "\""+missing.name+"\" parameter is not specified")
		}
	}
	if s.timeout == 0 {
		s.timeout = 10 * time.Minute
	}
	for _, g := range l.c.names.groups {
		if o := g.sticky; o != nil && o != s && o.zoneName == s.zoneName {
			return sayAt(a, "", "choose another name", "sticky zone %q is already used in upstream %q", s.zoneName, g.name)
		}
	}
	if err := l.sharedZone(a, s.zoneName, s.zone.size, "sticky"); err != nil {
		return err
	}
	s.sessions = upstream.NewSessions(int(s.zone.size/stickySize), s.timeout)
	return nil
}

// inherit goes on with the sessions of before a reload.
func (s *stickyConf) inherit(old *stickyConf) {
	if s == nil || old == nil || s.sessions == nil || old.sessions == nil || s.zoneName != old.zoneName || s.zone.size != old.zone.size {
		return
	}
	s.sessions = old.sessions
	s.sessions.SetTimeout(s.timeout)
}

// sessionOf gives what the first of some variables says.
func sessionOf(x *Exchange, variables []*variable) []byte {
	for _, v := range variables {
		b, found := v.get(x.borrow(), x)
		var out []byte
		if found && len(b) > 0 {
			out = x.keep(b)
		}
		x.giveBack(b)
		if out != nil {
			return out
		}
	}
	return nil
}

// prefer gives the ID of the server that the request belongs to, if any.
func (s *stickyConf) prefer(x *Exchange) []byte {
	u := &x.upstream
	u.session = sessionOf(x, s.lookup)
	if s.sessions == nil || len(u.session) == 0 {
		return u.session
	}
	return s.sessions.Lookup(nil, u.session, nanos())
}

// learn notes which server a session belongs to.
func (s *stickyConf) learn(x *Exchange, p *upstream.Peer) {
	if s.sessions == nil {
		return
	}
	name, create := sessionOf(x, s.create), true
	if name == nil {
		name, create = x.upstream.session, false
	}
	if len(name) > 0 && s.sessions.Learn(name, p.ID, create, nanos()) {
		x.table.Main.ErrorLog.logf(logWarn, "could not allocate node in sticky session zone %q, expiring least recently used session", s.zoneName)
	}
}

// mark puts the cookie that names the server into the answer, in the place of
// that for a server which was asked before.
func (c *stickyCookie) mark(x *Exchange, p *upstream.Peer) {
	u, out := &x.upstream, &x.Out
	value := c.value(x, p)
	if i := u.cookieAt - 1; i >= 0 && i < len(out.Fields) && out.Fields[i].ID == http1.SetCookie {
		out.Fields[i].Value = value
		return
	}
	out.Add(setCookieName, value)
	u.cookieAt = len(out.Fields)
}

var setCookieName = []byte("Set-Cookie")

// value makes the cookie. The order of its attributes is nginx's.
func (c *stickyCookie) value(x *Exchange, p *upstream.Peer) []byte {
	b := append(x.borrow(), c.name...)
	b = append(append(b, '='), p.ID...)
	switch {
	case c.max:
		b = append(b, "; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000"...)
	case c.hasExpires:
		b = appendCookieTime(append(b, "; expires="...), time.Now().Add(c.expires))
		b = strconv.AppendInt(append(b, "; max-age="...), int64(c.expires/time.Second), 10)
	}
	b = appendAttribute(b, x, "; domain=", c.domain)
	if c.httpOnly {
		b = append(b, "; httponly"...)
	}
	if c.secure {
		b = append(b, "; secure"...)
	}
	start := len(b)
	b = appendAttribute(b, x, "; samesite=", c.samesite)
	if at := start + len("; samesite="); len(b) > at && !isSameSite(b[at:]) {
		b = append(b[:at], "strict"...)
	}
	b = guardLine(append(b, c.path...))
	out := x.keep(b)
	x.giveBack(b)
	return out
}

// appendAttribute appends an attribute whose value is not empty.
func appendAttribute(b []byte, x *Exchange, name string, v *Value) []byte {
	if v == nil {
		return b
	}
	if value := v.Bytes(x); len(value) > 0 {
		return append(append(b, name...), value...)
	}
	return b
}

// appendCookieTime appends a time as cookies have it since Netscape: years up
// to 2037 with two digits.
func appendCookieTime(b []byte, t time.Time) []byte {
	layout := "Mon, 02-Jan-06 15:04:05 GMT"
	if t = t.UTC(); t.Year() > 2037 {
		layout = "Mon, 02-Jan-2006 15:04:05 GMT"
	}
	return t.AppendFormat(b, layout)
}
