package proxy

// ngx_http_addition_filter_module: the answers of subrequests before and after
// a body.

func additionModule() Module {
	return Module{
		Name: "ngx_http_addition_filter_module",
		Commands: []Command{
			Text(Command{Name: "add_before_body", In: inHTTPLevels, Syntax: "uri", Doc: "Puts the answer of a subrequest before the body."},
				func(c *Conf) *string { return &c.Addition.before }),
			Text(Command{Name: "add_after_body", In: inHTTPLevels, Syntax: "uri", Doc: "Puts the answer of a subrequest behind the body."},
				func(c *Conf) *string { return &c.Addition.after }),
			MIMETypes(Command{Name: "addition_types", In: inHTTPLevels, Doc: "Sets the types that are added to."},
				func(c *Conf) *mimeTypes { return &c.Addition.types }, "text/html"),
		},
		Init: func(c *Conf) { c.Addition.types.names = []string{"text/html"} },
		Header: func(c *Conf) HeaderFilter {
			if c.Addition.before == "" && c.Addition.after == "" {
				return nil
			}
			return c.Addition.filter
		},
	}
}

// additionConf is what the module knows at a level.
type additionConf struct {
	before, after string
	types         mimeTypes
}

// filter prepares the head (ngx_http_addition_header_filter).
func (c *additionConf) filter(x *Exchange) Code {
	if x.Out.Status != 200 || x.inner.level > 0 || !c.types.has(&x.Out) {
		return OK
	}
	x.Out.changesBody()
	x.weakenETag()
	x.FilterBody(func(next bodyWriter) bodyWriter {
		before := c.before
		return func(x *Exchange, p []byte, last bool) error {
			if x.headerOnly {
				return next(x, p, last)
			}
			if uri := before; uri != "" {
				before = ""
				if err := x.include([]byte(uri), nil, nil); err != nil {
					return err
				}
			}
			if !last || c.after == "" {
				return next(x, p, last)
			}
			if err := x.writeUrged(next, p, partEnds); err != nil {
				return err
			}
			if err := x.include([]byte(c.after), nil, nil); err != nil {
				return err
			}
			return next(x, nil, true)
		}
	})
	return OK
}
