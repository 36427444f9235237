package proxy

import (
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_charset_filter_module: names the charset of answers, and recodes
// them. The tables of charset_map and the recoding are in mod_charset_map.go.

func charsetModule() Module {
	const in = inHTTPLevels
	def := []string{"text/html", "text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"}
	return Module{
		Name: "ngx_http_charset_filter_module",
		Commands: []Command{
			{
				Name: "charset", In: in | InLocationIf, Args: "1", Syntax: "charset | off", Default: "off", Differs: "a variable without a value means no charset; nginx closes the connection", DiffersIn: hasVariable, Doc: "Sets the charset of answers.",
				Set: setCharset(func(c *Conf) *charsetName { return &c.Charset.to }, true),
			},
			{
				Name: "source_charset", In: in | InLocationIf, Args: "1", Syntax: "charset", Doc: "Sets the charset that answers have.",
				Set: setCharset(func(c *Conf) *charsetName { return &c.Charset.from }, false),
			},
			Flag(Command{Name: "override_charset", In: in | InLocationIf, Default: "off", Doc: "Recodes answers that name a charset, too."}, func(c *Conf) *bool { return &c.Charset.override }),
			MIMETypes(Command{Name: "charset_types", In: in, Doc: "Sets the types that have a charset."}, func(c *Conf) *mimeTypes { return &c.Charset.types }, def...),
			{
				Name: "charset_map", In: InHTTP, Args: "2", Block: true, Repeat: true, Syntax: "charset1 charset2",
				Doc: "Describes how to recode from one charset to another.", Set: setCharsetMap,
				Differs:   "towards UTF-8 a byte that the map does not have is always a question mark; nginx sends it as it is where none that the map has is near",
				DiffersIn: func(u *use) bool { return equalFold([]byte(u.arg(1)), "utf-8") },
			},
		},
		Init: func(c *Conf) {
			c.Charset = charsetConf{types: mimeTypes{names: def}, maps: &charsetMaps{}}
		},
		Finish: finishCharset,
		Header: func(c *Conf) HeaderFilter { return c.Charset.header() },
	}
}

// charsetConf is what the module knows at a level.
type charsetConf struct {
	to, from charsetName
	override bool
	types    mimeTypes
	maps     *charsetMaps // of the whole configuration
}

// charsetName is what charset or source_charset says.
type charsetName struct {
	name string // "": off
	v    *variable
}

func (n *charsetName) off() bool { return n.name == "" && n.v == nil }

func setCharset(field func(*Conf) *charsetName, mayBeOff bool) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		n, name := field(l.Conf), d.Args[0].Value
		*n = charsetName{}
		if mayBeOff && name == "off" {
			return nil
		}
		if name, isVariable := strings.CutPrefix(name, "$"); isVariable {
			if name == "" {
				return sayAt(d.Args[0], "", "", `invalid variable name "$"`)
			}
			n.v = l.c.names.vars.use(name)
			return nil
		}
		n.name = l.Conf.Charset.maps.spelling(name)
		return nil
	}
}

// finishCharset checks that what is to be recoded can be.
func finishCharset(l *Level) error {
	c := &l.Conf.Charset
	to, from := c.to.name, c.from.name
	if to == "" || from == "" || strings.EqualFold(to, from) {
		return nil
	}
	l.AtFinish(func() {
		if c.maps.find([]byte(from), []byte(to)) == nil && !c.maps.reported(from, to) {
			l.c.failLater(parser.Error, parser.Range{}, parser.Range{}, "", "add a charset_map block",
				"no \"charset_map\" between the charsets %q and %q", from, to)
		}
	})
	return nil
}

// header gives the header filter. Even where no charset is set it is needed:
// an upstream or the main request can ask for one.
func (c *charsetConf) header() HeaderFilter {
	if c.to.off() && len(c.maps.all) == 0 {
		return nil
	}
	return c.filter
}

// charsetScratch is the charset that the body of an exchange has in the end.
type charsetScratch struct{ name []byte }

// filter is the header filter (ngx_http_charset_header_filter).
func (c *charsetConf) filter(x *Exchange) Code {
	a := &x.Out
	destination := c.destination
	if x.inner.level > 0 {
		destination = (*Exchange).mainCharset
	}
	to, ok := destination(x)
	if !ok {
		return OK
	}
	from, known := a.Charset, len(a.Charset) > 0
	if !known {
		if from, known = c.from.value(x); !known {
			x.nameCharset(to, false)
			return OK
		}
	}
	if len(from) == len(to) && equalFold(from, string(to)) {
		x.nameCharset(to, c.maps.knows(to))
		return OK
	}
	if v, has := a.Find(http1.ContentEncoding); has && len(v) > 0 && c.maps.knows(to) && c.maps.knows(from) {
		return OK
	}
	m := c.maps.find(from, to)
	if m == nil {
		x.Logf(logError, "no \"charset_map\" between the charsets \"%s\" and \"%s\"", from, to)
		return OK
	}
	x.nameCharset(to, true)
	if m.unicode != nil && x.inner.level == 0 {
		a.ContentLength = -1
		a.Remove(http1.ContentLength)
	}
	x.FilterBody(newRecoder(m, from).install)
	return OK
}

// value gives the name that counts for an exchange.
func (n *charsetName) value(x *Exchange) ([]byte, bool) {
	if n.v == nil {
		return []byte(n.name), n.name != ""
	}
	b, found := n.v.get(x.borrow(), x)
	name := x.keep(b)
	x.giveBack(b)
	return name, found
}

// destination is the charset that the answer is to have.
//
// Unlike nginx, which closes the connection, a variable without a value asks
// for none.
func (c *charsetConf) destination(x *Exchange) ([]byte, bool) {
	a := &x.Out
	if len(a.ContentType) == 0 {
		return nil, false
	}
	if len(a.overrideCharset) > 0 {
		if !c.maps.knows(a.overrideCharset) {
			x.Logf(logError, "unknown charset \"%s\" to override", a.overrideCharset)
			return nil, false
		}
		return a.overrideCharset, true
	}
	if c.to.off() || len(a.Charset) > 0 && !c.override || len(a.Charset) == 0 && !c.types.has(a) {
		return nil, false
	}
	return c.to.value(x)
}

// mainCharset is the charset of the body that a subrequest is put into.
func (x *Exchange) mainCharset() ([]byte, bool) {
	r := x.root()
	if len(r.charset.name) > 0 {
		return r.charset.name, true
	}
	return r.Out.Charset, len(r.Out.Charset) > 0
}

// nameCharset says which charset the answer has, in place of the one that the
// type names if that is to be replaced. A redirect has none: old browsers took
// it for that of the next page.
func (x *Exchange) nameCharset(name []byte, replace bool) {
	x.charset.name = name
	if x.inner.level > 0 {
		return
	}
	a := &x.Out
	if a.Status == 301 || a.Status == 302 {
		name = nil
	}
	if replace || len(a.Charset) == 0 {
		a.ContentType, a.typeLength = a.mimeType(), 0
	}
	a.Charset = name
}
