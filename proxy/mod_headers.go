package proxy

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_headers_filter_module: fields and trailers that the configuration
// adds to answers, Expires and Cache-Control.

func headersModule() Module {
	const in = inHTTPLevels | InLocationIf
	inherit := []string{"off", "on", "merge"}
	return Module{
		Name: "ngx_http_headers_filter_module",
		Commands: []Command{
			{
				Name: "expires", In: in, Args: "1,2", Syntax: "[modified] time | epoch | max | off", Default: "off",
				Doc: "Adds the Expires and Cache-Control fields.", Set: setExpires,
			},
			{
				Name: "add_header", In: in, Args: "2,3", Repeat: true, Syntax: "name value [always]", Doc: "Adds a field to answers.",
				Set: setAddHeader(func(c *Conf) *List[addedField] { return &c.Headers.Fields }),
			},
			{
				Name: "add_trailer", In: in, Args: "2,3", Repeat: true, Syntax: "name value [always]", Doc: "Adds a field to the end of answers.",
				Set: setAddHeader(func(c *Conf) *List[addedField] { return &c.Headers.Trailers }),
			},
			Enum(Command{Name: "add_header_inherit", In: in, Default: "on", Doc: "Says whether fields of the level above are added too."},
				inherit, func(c *Conf) *int { return &c.Headers.InheritFields }),
			Enum(Command{Name: "add_trailer_inherit", In: in, Default: "on", Doc: "Says whether trailers of the level above are added too."},
				inherit, func(c *Conf) *int { return &c.Headers.InheritTrailers }),
		},
		Init: func(c *Conf) {
			c.Headers.InheritFields, c.Headers.InheritTrailers = inheritOn, inheritOn
		},
		Finish: finishHeaders,
		Header: func(c *Conf) HeaderFilter {
			h := &c.Headers
			if h.Expires.kind == expiresOff && len(h.Fields.Items) == 0 && len(h.Trailers.Items) == 0 {
				return nil
			}
			return h.filter
		},
	}
}

// headersConf is what the module knows at a level.
type headersConf struct {
	Expires         expiry
	Fields          List[addedField]
	Trailers        List[addedField]
	InheritFields   int
	InheritTrailers int
}

// The words of add_header_inherit, by index.
const (
	inheritOff = iota
	inheritOn
	inheritMerge
)

// addedField is one add_header or add_trailer.
type addedField struct {
	name   []byte
	value  text
	id     http1.HeaderID
	always bool
}

// expiry is what expires says.
type expiry struct {
	kind  expiryKind
	time  int64  // seconds; negative: in the past
	value *Value // of a time with variables
}

type expiryKind uint8

const (
	expiresOff expiryKind = iota
	expiresEpoch
	expiresMax
	expiresAccess
	expiresModified
	expiresDaily
)

func setAddHeader(list func(*Conf) *List[addedField]) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		name := []byte(d.Args[0].Value)
		f := addedField{name: name, id: http1.Identify(name)}
		var err error
		if f.value, err = l.scriptText(d.Args[1].Value); err != nil {
			return err
		}
		if len(d.Args) == 3 {
			if d.Args[2].Value != "always" {
				return sayAt(d.Args[2], "", `the third argument can be "always"`, "invalid parameter \"%s\"", d.Args[2].Value)
			}
			f.always = true
		}
		switch f.id {
		case http1.CacheControl, http1.LastModified, http1.ETag:
		default:
			// Text like any other: neither the connection nor a filter that comes
			// later goes by it (ngx_http_set_headers).
			f.id = http1.Other
		}
		list(l.Conf).Add(l, f)
		return nil
	}
}

func setExpires(l *Level, d *parser.Directive) error {
	e := expiry{kind: expiresAccess}
	a := d.Args[0]
	if len(d.Args) == 2 {
		if a.Value != "modified" {
			return errAt(a, "", `the first of two arguments is "modified"`, "invalid value")
		}
		e.kind, a = expiresModified, d.Args[1]
	}
	v, err := l.value(a.Value)
	if err != nil {
		return err
	}
	if _, static := v.Static(); !static {
		e.value = v
	} else if problem := e.parse(a.Value); problem != "" {
		return errAt(a, "Y010", "a time, @time of the day, epoch, max or off", problem)
	}
	l.Conf.Headers.Expires = e
	return nil
}

// parse reads a time, or says what is wrong with it (ngx_http_parse_expires).
func (e *expiry) parse(s string) (problem string) {
	if e.kind != expiresModified {
		switch s {
		case "epoch":
			e.kind = expiresEpoch
			return ""
		case "max":
			e.kind = expiresMax
			return ""
		case "off":
			e.kind = expiresOff
			return ""
		}
	}
	minus := false
	switch {
	case strings.HasPrefix(s, "@"):
		if e.kind == expiresModified {
			return "daily time cannot be used with \"modified\" parameter"
		}
		e.kind, s = expiresDaily, s[1:]
	case strings.HasPrefix(s, "+"):
		s = s[1:]
	case strings.HasPrefix(s, "-"):
		minus, s = true, s[1:]
	}
	t, ok := parseTime(s, true)
	switch {
	case !ok:
		return "invalid value"
	case e.kind == expiresDaily && t > 24*time.Hour:
		return "daily time value must be less than 24 hours"
	}
	e.time = int64(t / time.Second)
	if minus {
		e.time = -e.time
	}
	return ""
}

// finishHeaders applies add_header_inherit: a level's own fields replace those
// of the level above, unless they are to be merged with them.
func finishHeaders(l *Level) error {
	if l.parent == nil {
		return nil
	}
	h, outer := &l.Conf.Headers, &l.parent.Conf.Headers
	inheritList(l, &h.Fields, &outer.Fields, h.InheritFields)
	inheritList(l, &h.Trailers, &outer.Trailers, h.InheritTrailers)
	return nil
}

func inheritList(l *Level, own, outer *List[addedField], how int) {
	switch {
	case own.level != l && how == inheritOff:
		own.Items = nil
	case own.level == l && how == inheritMerge:
		own.Items = slices.Concat(own.Items, outer.Items)
	}
}

// filter adds to the head of an answer (ngx_http_headers_filter).
func (h *headersConf) filter(x *Exchange) Code {
	if x.inner.level > 0 {
		return OK
	}
	safe := safeStatus(x.Out.Status)
	if h.Expires.kind != expiresOff && safe {
		h.Expires.apply(x)
	}
	for i := range h.Fields.Items {
		if f := &h.Fields.Items[i]; safe || f.always {
			f.apply(x)
		}
	}
	for i := range h.Trailers.Items {
		if safe || h.Trailers.Items[i].always {
			h.expectTrailers(x)
			break
		}
	}
	return OK
}

// safeStatus says whether fields without "always" are added.
func safeStatus(status int) bool {
	switch status {
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
		return true
	}
	return false
}

// apply adds the field, or replaces it where there can be only one. An empty
// value adds nothing, but removes such a one.
func (f *addedField) apply(x *Exchange) {
	value := f.value.plain(x)
	switch f.id {
	case http1.LastModified:
		if x.setLastModified(value) {
			return
		}
	case http1.ETag:
		if len(value) > 0 && x.Out.replace(http1.ETag, f.name, value) {
			return
		}
		x.Out.Remove(http1.ETag)
	}
	if len(value) > 0 {
		x.Out.Fields = append(x.Out.Fields, http1.Field{Name: f.name, Value: value, ID: f.id})
	}
}

// setLastModified takes a date over into the head's own field. False: it is no
// date, or the head would not show it, and has to be a field like others.
func (x *Exchange) setLastModified(value []byte) bool {
	x.Out.LastModified = -1
	x.Out.Remove(http1.LastModified)
	switch x.Out.Status {
	case 200, 206, 304:
	default:
		return false
	}
	t, ok := parseHTTPTime(value)
	if !ok {
		return false
	}
	b := http1.AppendTime(x.borrow(), t)
	same := bytes.Equal(b, value)
	x.giveBack(b)
	if same {
		x.Out.LastModified = t
	}
	return same
}

// replace gives the first field with id another name and value.
func (a *Answer) replace(id http1.HeaderID, name, value []byte) bool {
	for i := range a.Fields {
		if f := &a.Fields[i]; f.ID == id {
			f.Name, f.Value = name, value
			return true
		}
	}
	return false
}

// apply sets Expires and Cache-Control (ngx_http_set_expires).
func (e *expiry) apply(x *Exchange) {
	now := *e
	if e.value != nil {
		if problem := now.parse(string(e.value.Bytes(x))); problem != "" || now.kind == expiresOff {
			return
		}
	}
	var until, control []byte
	switch now.kind {
	case expiresEpoch:
		until, control = expiresLongAgo, noCache
	case expiresMax:
		until, control = expiresNever, maxAgeMax
	default:
		until, control = now.fromTime(x, e.time < 0)
	}
	x.Out.setFirst(http1.Expires, expiresName, until)
	x.Out.setFirst(http1.CacheControl, cacheControlName, control)
}

// Fields and values that never change.
var (
	expiresName      = []byte("Expires")
	cacheControlName = []byte("Cache-Control")
	expiresLongAgo   = []byte("Thu, 01 Jan 1970 00:00:01 GMT")
	expiresNever     = []byte("Thu, 31 Dec 2037 23:55:55 GMT")
	noCache          = []byte("no-cache")
	maxAgeMax        = []byte("max-age=315360000")
)

// fromTime gives the values for a time from now, from the last change, or of
// the day.
func (e *expiry) fromTime(x *Exchange, past bool) (until, control []byte) {
	now := time.Unix(x.client.rt.sweeper.Second(), 0) // that of the Date field
	at, age := now.Unix(), e.time
	switch {
	case e.kind == expiresDaily:
		at = nextTime(now, e.time)
		age = at - now.Unix()
	case e.time == 0: // nginx looks at nothing else then
	case e.kind == expiresAccess || x.Out.LastModified < 0:
		at += e.time
	default:
		at = x.Out.LastModified + e.time
		age = at - now.Unix()
	}
	b := http1.AppendTime(x.borrow(), at)
	until = x.keep(b)
	control = noCache
	if !past && age >= 0 {
		b = http1.AppendInt(append(b[:0], "max-age="...), age)
		control = x.keep(b)
	}
	x.giveBack(b)
	return until, control
}

// nextTime gives the next moment at which the local time of the day is
// seconds (ngx_next_time).
func nextTime(now time.Time, seconds int64) int64 {
	at := func(day int) int64 {
		return time.Date(now.Year(), now.Month(), day, int(seconds/3600), int(seconds/60%60), int(seconds%60), 0, time.Local).Unix()
	}
	if t := at(now.Day()); t > now.Unix() {
		return t
	}
	return at(now.Day() + 1)
}

// setFirst makes the answer hold one field with id, where the first of them
// stood and as it was written there.
func (a *Answer) setFirst(id http1.HeaderID, name, value []byte) {
	kept, found := a.Fields[:0], false
	for i, f := range a.Fields {
		if f.ID == id {
			if found {
				continue
			}
			f.Value, found = value, true
		}
		if i == a.location {
			a.location = len(kept)
		}
		kept = append(kept, f)
	}
	a.Fields = kept
	if !found {
		a.Add(name, value)
	}
}

// expectTrailers has an answer framed so that trailers can follow: in chunks,
// which HTTP/1.0 does not know (ngx_http_chunked_header_filter).
func (h *headersConf) expectTrailers(x *Exchange) {
	if s := x.Out.Status; s == 304 || s == 204 || s < 200 || x.headerOnly || x.isMethod("HEAD") {
		return
	}
	if x.Req.Major < 2 {
		if x.Req.Minor == 0 || !x.loc.Conf.Core.ChunkedTransferEncoding {
			return
		}
	}
	x.Out.expectTrailers = x.Req.Major != 2
	x.FilterBody(func(next bodyWriter) bodyWriter {
		return func(x *Exchange, p []byte, last bool) error {
			if last {
				h.addTrailers(x)
			}
			return next(x, p, last)
		}
	})
}

// addTrailers evaluates the trailers at the end of the body.
func (h *headersConf) addTrailers(x *Exchange) {
	safe := safeStatus(x.Out.Status)
	for i := range h.Trailers.Items {
		f := &h.Trailers.Items[i]
		if !safe && !f.always {
			continue
		}
		if value := f.value.plain(x); len(value) > 0 {
			x.Out.Trailers = append(x.Out.Trailers, http1.Field{Name: f.name, Value: value, ID: f.id})
		}
	}
}
