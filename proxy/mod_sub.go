package proxy

import (
	"bytes"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_sub_filter_module: replaces text in answers. The search is in
// mod_sub_search.go.

func subModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_sub_filter_module",
		Commands: []Command{
			{Name: "sub_filter", In: in, Args: "2", Repeat: true, Syntax: "string replacement", Doc: "Replaces a text in answers.", Set: setSubFilter},
			MIMETypes(Command{Name: "sub_filter_types", In: in, Doc: "Sets the types in which text is replaced."}, func(c *Conf) *mimeTypes { return &c.Sub.types }, "text/html"),
			Flag(Command{Name: "sub_filter_once", In: in, Default: "on", Doc: "Replaces each text once."}, func(c *Conf) *bool { return &c.Sub.once }),
			Flag(Command{Name: "sub_filter_last_modified", In: in, Default: "off", Doc: "Keeps Last-Modified."}, func(c *Conf) *bool { return &c.Sub.lastModified }),
		},
		Init: func(c *Conf) {
			c.Sub = subConf{once: true, types: mimeTypes{names: []string{"text/html"}}}
		},
		Finish: func(l *Level) error {
			if c := &l.Conf.Sub; c.pairs.level == l {
				c.prepare()
			}
			return nil
		},
		Header: func(c *Conf) HeaderFilter {
			if len(c.Sub.pairs.Items) == 0 {
				return nil
			}
			return c.Sub.filter
		},
	}
}

// subConf is what the module knows at a level.
type subConf struct {
	pairs              List[subPair]
	types              mimeTypes
	once, lastModified bool
	search             *textSearch // for what has no variables; nil: some have
}

// subPair is one sub_filter.
type subPair struct {
	match *Value // in lower case
	value text
}

// maxSubFilters is how many there can be at a level.
const maxSubFilters = 255

func setSubFilter(l *Level, d *parser.Directive) error {
	if d.Args[0].Value == "" {
		return sayAt(d.Args[0], "", "", "empty search pattern")
	}
	pairs := &l.Conf.Sub.pairs
	if pairs.level == l && len(pairs.Items) == maxSubFilters {
		return sayAt(d.Args[0], "", "", "number of search patterns exceeds 255")
	}
	match, err := l.value(lower(d.Args[0].Value))
	if err != nil {
		return err
	}
	value, err := l.scriptText(d.Args[1].Value)
	if err != nil {
		return err
	}
	pairs.Add(l, subPair{match, value})
	return nil
}

// prepare makes the search of a level whose texts do not change.
func (c *subConf) prepare() {
	c.search = nil
	patterns := make([]searchPattern, 0, len(c.pairs.Items))
	for i := range c.pairs.Items {
		p := &c.pairs.Items[i]
		s, static := p.match.Static()
		if !static {
			return
		}
		patterns = append(patterns, searchPattern{[]byte(s), &p.value})
	}
	c.search = newTextSearch(patterns)
}

// filter prepares the head (ngx_http_sub_header_filter).
func (c *subConf) filter(x *Exchange) Code {
	if x.Out.ContentLength == 0 || !c.types.has(&x.Out) {
		return OK
	}
	search := c.search
	if search == nil {
		var patterns []searchPattern
		for i := range c.pairs.Items {
			p := &c.pairs.Items[i]
			if s := bytes.ToLower(p.match.Bytes(x)); len(s) > 0 {
				patterns = append(patterns, searchPattern{s, &p.value})
			}
		}
		if len(patterns) == 0 {
			return OK
		}
		search = newTextSearch(patterns)
	}
	if x.inner.level == 0 {
		x.Out.ContentLength = -1
		x.Out.Remove(http1.ContentLength)
		if c.lastModified {
			x.weakenETag()
		} else {
			x.Out.LastModified = -1
			x.Out.Remove(http1.LastModified)
			x.Out.Remove(http1.ETag)
		}
	}
	x.FilterBody(func(next bodyWriter) bodyWriter {
		s := &substitution{search: search, next: next, once: c.once, values: make([][]byte, len(search.patterns))}
		return s.write
	})
	return OK
}
