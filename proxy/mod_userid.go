package proxy

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_userid_filter_module: cookies that tell clients apart.

func useridModule() Module {
	const in = inHTTPLevels
	prefixed := func(field func(*Conf) *string, prefix string) func(*Level, *parser.Directive) error {
		return func(l *Level, d *parser.Directive) error {
			value := d.Args[0].Value
			*field(l.Conf) = prefix + value
			if value == "none" && prefix != "; path=" {
				*field(l.Conf) = ""
			}
			return nil
		}
	}
	return Module{
		Name: "ngx_http_userid_filter_module",
		Commands: []Command{
			Enum(Command{Name: "userid", In: in, Default: "off", Doc: "Sets and logs cookies that tell clients apart."}, []string{"off", "log", "v1", "on"}, func(c *Conf) *int { return &c.Userid.mode }),
			Number(Command{Name: "userid_service", In: in, Doc: "Sets the number of this server in cookies."}, func(c *Conf) *int { return &c.Userid.service }),
			Text(Command{Name: "userid_name", In: in, Default: "uid", Doc: "Sets the name of the cookie."}, func(c *Conf) *string { return &c.Userid.name }),
			{Name: "userid_domain", In: in, Args: "1", Syntax: "name | none", Default: "none", Doc: "Sets the domain of the cookie.", Set: prefixed(func(c *Conf) *string { return &c.Userid.domain }, "; domain=")},
			{Name: "userid_path", In: in, Args: "1", Syntax: "path", Default: "/", Doc: "Sets the path of the cookie.", Set: prefixed(func(c *Conf) *string { return &c.Userid.path }, "; path=")},
			{Name: "userid_p3p", In: in, Args: "1", Syntax: "string | none", Default: "none", Doc: "Sets the P3P field beside the cookie.", Set: prefixed(func(c *Conf) *string { return &c.Userid.p3p }, "")},
			{Name: "userid_expires", In: in, Args: "1", Syntax: "time | max | off", Default: "off", Doc: "Sets how long the cookie is kept.", Set: setUseridExpires},
			{Name: "userid_mark", In: in, Args: "1", Syntax: "letter | digit | = | off", Default: "off", Doc: "Marks cookies, so that changed settings renew them.", Set: setUseridMark},
			{Name: "userid_flags", In: in, Args: "1-3", Repeat: true, Syntax: "off | secure | httponly | samesite=strict | samesite=lax | samesite=none ...", Default: "off", Doc: "Sets the flags of the cookie.", Set: setUseridFlags},
		},
		Variables: []Variable{
			readOnly("uid_got", func(dst []byte, x *Exchange) ([]byte, bool) {
				x = x.root()
				c := &x.loc.Conf.Userid
				if c.mode == useridOff || !x.userID(c).got.set() {
					return dst, false
				}
				return x.userid.got.append(dst, c.name), true
			}),
			readOnly("uid_set", func(dst []byte, x *Exchange) ([]byte, bool) {
				x = x.root()
				c := &x.loc.Conf.Userid
				if c.mode < useridV1 || !x.newUserID(c).made.set() {
					return dst, false
				}
				return x.userid.made.append(dst, c.name), true
			}),
			{Name: "uid_reset", Changeable: true, Get: func(dst []byte, _ *Exchange, _ string) ([]byte, bool) { return dst, true }},
		},
		Init: func(c *Conf) { c.Userid = useridConf{name: "uid", path: "; path=/", service: -1} },
		Header: func(c *Conf) HeaderFilter {
			if c.Userid.mode < useridV1 {
				return nil
			}
			return c.Userid.filter
		},
	}
}

// The words of userid, by index.
const (
	useridOff = iota
	useridLog
	useridV1
	useridOn
)

// useridConf is what the module knows at a level.
type useridConf struct {
	mode, service      int
	name               string
	domain, path, p3p  string
	expires            time.Duration
	mark               byte // 0: off
	flags              string
	samesite           bool
	flagsIn            *Level
	secure, onlyByHTTP bool
}

// useridMax stands for "max".
const useridMax = -1

func setUseridExpires(l *Level, d *parser.Directive) error {
	switch a := d.Args[0]; a.Value {
	case "max":
		l.Conf.Userid.expires = useridMax
	case "off":
		l.Conf.Userid.expires = 0
	default:
		t, ok := parseTime(a.Value, true)
		if !ok {
			return errAt(a, "Y010", "a time, max or off", "invalid value")
		}
		l.Conf.Userid.expires = t
	}
	return nil
}

func setUseridMark(l *Level, d *parser.Directive) error {
	v := d.Args[0].Value
	switch {
	case v == "off":
		l.Conf.Userid.mark = 0
	case len(v) == 1 && v[0] != '_' && (isNameByte(v[0]) || v[0] == '='):
		l.Conf.Userid.mark = v[0]
	default:
		return errAt(d.Args[0], "", "", `value must be "off" or a single letter, digit or "="`)
	}
	return nil
}

func setUseridFlags(l *Level, d *parser.Directive) error {
	c := &l.Conf.Userid
	if c.flagsIn != l {
		c.flagsIn, c.secure, c.onlyByHTTP, c.samesite, c.flags = l, false, false, false, ""
	}
	for _, a := range d.Args {
		repeated := false
		switch a.Value {
		case "off":
		case "secure":
			repeated, c.secure = c.secure, true
		case "httponly":
			repeated, c.onlyByHTTP = c.onlyByHTTP, true
		case "samesite=strict", "samesite=lax", "samesite=none":
			if repeated = c.samesite; !repeated {
				c.samesite, c.flags = true, "; "+a.Value
			}
		default:
			return sayAt(a, "", "off, secure, httponly, samesite=...", "invalid value \"%s\"", a.Value)
		}
		if repeated {
			l.warnAt(d, a, "duplicate value \"%s\"", a.Value)
		}
	}
	return nil
}

// userID is what is in a cookie.
type userID [16]byte

// set says whether it is one: its counter is never 0.
func (u *userID) set() bool { return binary.LittleEndian.Uint32(u[12:]) != 0 }

// append writes "name=" and the four numbers, as a PC reads them.
func (u *userID) append(dst []byte, name string) []byte {
	n := binary.LittleEndian.Uint32
	return fmt.Appendf(dst, "%s=%08X%08X%08X%08X", name, n(u[:]), n(u[4:]), n(u[8:]), n(u[12:]))
}

// useridScratch is what an exchange knows about its cookie.
type useridScratch struct {
	read      bool
	cookie    []byte
	got, made userID
	reset     bool
}

// uidSource numbers the cookies of a process.
type uidSource struct {
	once   sync.Once
	start  uint32
	v1, v2 atomic.Uint32
}

// userID reads the client's cookie.
func (x *Exchange) userID(c *useridConf) *useridScratch {
	u := &x.userid
	if u.read {
		return u
	}
	u.read = true
	for i := range x.Req.Fields {
		f := &x.Req.Fields[i]
		if f.ID != http1.Cookie {
			continue
		}
		v, ok := findCookie(f.Value, lower(c.name))
		if !ok {
			continue
		}
		const digits = 22 // what follows may be a mark, and garbage
		if u.cookie = v; len(v) < digits {
			x.Logf(logError, "client sent too short userid cookie \"%s\"", f.Value)
			break
		}
		b, err := base64.RawStdEncoding.AppendDecode(nil, v[:digits])
		if err != nil {
			x.Logf(logError, "client sent invalid userid cookie \"%s\"", f.Value)
			break
		}
		copy(u.got[:], b)
		break
	}
	return u
}

// newUserID makes the identifier that the client is to have, if it has none, or
// one without the right mark, or one that $uid_reset resets
// (ngx_http_userid_create_uid).
func (x *Exchange) newUserID(c *useridConf) *useridScratch {
	u := x.userID(c)
	if u.made.set() {
		return u
	}
	if u.got.set() {
		reset, _ := x.appendVariable(nil, []byte("uid_reset"))
		if len(reset) == 0 || string(reset) == "0" {
			if c.mark != 0 && (len(u.cookie) <= 23 || u.cookie[22] != c.mark || u.cookie[23] != '=') {
				u.made = u.got
			}
			return u
		}
		u.reset = true
		if string(reset) == "log" {
			x.Logf(logNotice, "userid cookie \"%s\" was reset", u.got.append(nil, c.name))
		}
	}
	u.made = x.client.rt.uids.next(x, c)
	return u
}

// next makes an identifier: the server, the time, the process and a counter.
func (s *uidSource) next(x *Exchange, c *useridConf) (u userID) {
	const firstV2 = 0x03030302
	s.once.Do(func() {
		s.start = uint32(time.Now().Nanosecond()/1000/20)<<16 | uint32(os.Getpid())
		s.v1.Store(1)
		s.v2.Store(firstV2)
	})
	now := uint32(time.Now().Unix())
	if c.mode == useridV1 {
		put := binary.LittleEndian.PutUint32
		put(u[:], uint32(max(c.service, 0)))
		put(u[4:], now)
		put(u[8:], s.start)
		put(u[12:], s.v1.Add(0x100)-0x100)
		return u
	}
	put := binary.BigEndian.PutUint32
	if a := x.client.local.Addr(); c.service >= 0 {
		put(u[:], uint32(c.service))
	} else if a.IsValid() {
		b := a.As16()
		copy(u[:4], b[12:])
	}
	put(u[4:], now)
	put(u[8:], s.start)
	n := s.v2.Add(0x100) - 0x100
	if n+0x100 < firstV2 {
		s.v2.Store(firstV2)
	}
	put(u[12:], n)
	return u
}

var p3pName = []byte("P3P")

// filter sends the cookie (ngx_http_userid_set_uid).
func (c *useridConf) filter(x *Exchange) Code {
	if x.inner.level > 0 {
		return OK
	}
	u := x.newUserID(c)
	if !u.made.set() {
		return OK
	}
	b := append(append(x.borrow(), c.name...), '=')
	if !u.got.set() || u.reset {
		b = base64.StdEncoding.AppendEncode(b, u.made[:])
		if c.mark != 0 {
			b[len(b)-2] = c.mark
		}
	} else {
		b = append(append(b, u.cookie[:22]...), c.mark, '=')
	}
	switch {
	case c.expires == useridMax:
		b = append(b, "; expires=Thu, 31-Dec-37 23:55:55 GMT"...)
	case c.expires > 0:
		b = appendCookieTime(append(b, "; expires="...), time.Now().Add(c.expires).UTC())
	}
	b = append(append(b, c.domain...), c.path...)
	if c.secure {
		b = append(b, "; secure"...)
	}
	if c.onlyByHTTP {
		b = append(b, "; httponly"...)
	}
	b = append(b, c.flags...)
	x.Out.Add(setCookieName, x.keep(b))
	x.giveBack(b)
	if c.p3p != "" {
		x.Out.Add(p3pName, []byte(c.p3p))
	}
	return OK
}
