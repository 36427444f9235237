package proxy

import (
	"bytes"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The parameters of CGI: what fastcgi_param and its like say, and the fields of
// the client as HTTP_NAME.

// cgiConf is what a level says about passing requests on as those of CGI.
type cgiConf struct {
	upstreamConf

	params      List[passParam]
	compiled    *passParams
	cacheParams *passParams // of requests whose answers may be kept
}

// passParam is one parameter.
type passParam struct {
	name       string
	value      *Value
	ifNotEmpty bool
}

// passParams is what a level passes on, compiled.
type passParams struct {
	list []passParam
	own  []string // the fields whose parameters the configuration sets: "x_name"
}

// cgiRows makes the rows that the pass directives for CGI share. up and list
// give their conf and their parameters of a level.
func cgiRows(prefix string, up func(*Conf) *upstreamConf, list func(*Conf) *List[passParam]) []Command {
	// the last two words are about answers of proxies
	next := nextWords()[:11]
	rows := append(upstreamRows(prefix, next, up), cacheRows(prefix, next, up)...)
	return append(append(rows, storeRows(prefix, up)...), paramRow(prefix, list))
}

// paramRow makes the row of the directive that sets a parameter.
func paramRow(prefix string, list func(*Conf) *List[passParam]) Command {
	c := Command{
		Name: prefix + "_param", In: inHTTPLevels, Args: "2,3", Repeat: true, Syntax: "parameter value [if_not_empty]",
		Doc: "Sets a parameter of the request that is passed on.",
	}
	c.Set = func(l *Level, d *parser.Directive) error {
		p := passParam{name: d.Args[0].Value}
		var err error
		if p.value, err = l.value(d.Args[1].Value); err != nil {
			return err
		}
		if len(d.Args) == 3 {
			if d.Args[2].Value != "if_not_empty" {
				return sayAt(d.Args[2], "", `the only parameter is "if_not_empty"`, "invalid parameter %q", d.Args[2].Value)
			}
			p.ifNotEmpty = true
		}
		list(l.Conf).Add(l, p)
		return nil
	}
	return c
}

// finish derives what depends on several directives.
func (c *cgiConf) finish(l *Level, prefix string, hidden []string) error {
	err := c.upstreamConf.finish(l, prefix, hidden)
	if err != nil || c.target == nil {
		return err
	}
	if c.compiled, err = l.compileParams(c.params.Items, defaultParams()); err != nil || !c.cache.on() {
		return err
	}
	if c.cache.key == nil {
		l.c.report(linking, parser.Warning, say("no \"%[1]s_cache_key\" for \"%[1]s_cache\"", prefix), nil, l.end)
	}
	defaults := defaultParams()
	for _, field := range cacheConditions() {
		defaults = append(defaults, [2]string{string(appendFieldName(nil, []byte(field[0]))), field[1]})
	}
	c.cacheParams, err = l.compileParams(c.params.Items, defaults)
	return err
}

// defaultParams are passed on unless the configuration sets them, as name and
// value: the host that the request was routed by.
func defaultParams() [][2]string {
	return [][2]string{{"HTTP_HOST", "$host$is_request_port$request_port"}}
}

// compileParams makes what is passed on of the parameters of a level.
func (l *Level) compileParams(list []passParam, defaults [][2]string) (*passParams, error) {
	p := &passParams{}
	for _, param := range list {
		p.add(param)
	}
	for _, d := range defaults {
		if slices.ContainsFunc(list, func(p passParam) bool { return strings.EqualFold(p.name, d[0]) }) {
			continue
		}
		v, err := l.value(d[1])
		if err != nil {
			return nil, err
		}
		p.add(passParam{name: d[0], value: v, ifNotEmpty: true})
	}
	return p, nil
}

// add takes one parameter. That of a field stands for the field, and an empty
// one keeps it back.
func (p *passParams) add(param passParam) {
	if name, ok := strings.CutPrefix(param.name, "HTTP_"); ok && name != "" {
		p.own = append(p.own, lower(name))
		if text, static := param.value.Static(); static && text == "" {
			return
		}
	}
	p.list = append(p.list, param)
}

// passCGI answers from the cache, or with what servers say to the request that
// build makes.
func (x *Exchange) passCGI(url *upstreamURL, build func(*Exchange) bool) Code {
	defer x.leaveCache()
	if code, ok := x.fromCache(nil); ok {
		return code
	}
	if !build(x) {
		return 500
	}
	return x.pass(url)
}

// appendPair appends a parameter in the way of a protocol.
type appendPair func(dst, name, value []byte) []byte

// appendParams appends the parameters of the request.
func (x *Exchange) appendParams(dst []byte, c *cgiConf, pair appendPair) []byte {
	p := c.compiled
	if x.upstream.cacheable() {
		p = c.cacheParams
	}
	for i := range p.list {
		param := &p.list[i]
		v := param.value.Append(x.borrow(), x)
		if len(v) > 0 || !param.ifNotEmpty {
			dst = x.appendParam(dst, append(x.borrow(), param.name...), v, pair)
		}
		x.giveBack(v)
	}
	if c.passHeaders {
		for i := range x.Req.Fields {
			dst = x.appendFieldParam(dst, p, i, pair)
		}
	}
	return dst
}

// appendParam appends a parameter whose name is in borrowed memory.
//
// Unlike nginx, no value holds NUL, which ends strings in SCGI and in many
// applications. The ends of lines mean nothing here and stay.
func (x *Exchange) appendParam(dst, name, value []byte, pair appendPair) []byte {
	for i, c := range value {
		if c == 0 {
			value[i] = ' '
		}
	}
	dst = pair(dst, name, value)
	if x.trace != nil {
		x.trace.params = append(x.trace.params, string(name)+"="+string(value))
	}
	x.giveBack(name)
	return dst
}

// appendFieldParam appends a field of the client as a parameter, together with
// the later ones of its name, unless it belongs to an earlier one.
func (x *Exchange) appendFieldParam(dst []byte, p *passParams, at int, pair appendPair) []byte {
	fields := x.Req.Fields
	f := &fields[at]
	for i := range at {
		if sameField(&fields[i], f) {
			return dst
		}
	}
	// Unlike nginx, which lets a client set HTTP_PROXY of CGI programs.
	if f.ID == http1.Proxy {
		return dst
	}
	for _, name := range p.own {
		if spelled(f.Name, name) {
			return dst
		}
	}
	separator := ", "
	if f.ID == http1.Cookie {
		separator = "; "
	}
	value := append(x.borrow(), f.Value...)
	for i := at + 1; i < len(fields); i++ {
		if sameField(&fields[i], f) {
			value = append(append(value, separator...), fields[i].Value...)
		}
	}
	dst = x.appendParam(dst, appendFieldName(x.borrow(), f.Name), value, pair)
	x.giveBack(value)
	return dst
}

// appendFieldName appends the parameter's name of a field.
func appendFieldName(dst, name []byte) []byte {
	dst = append(dst, "HTTP_"...)
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z':
			c &^= 0x20
		case c == '-':
			c = '_'
		}
		dst = append(dst, c)
	}
	return dst
}

// sameField says whether two fields have one name.
func sameField(a, b *http1.Field) bool {
	if a.ID != b.ID || len(a.Name) != len(b.Name) {
		return false
	}
	return a.ID != http1.Other || bytes.EqualFold(a.Name, b.Name)
}
