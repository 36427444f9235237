package proxy

import "proxyctl/parser"

// ngx_http_mirror_module: copies of requests go elsewhere in the background;
// nobody looks at the answers.

func mirrorModule() Module {
	return Module{
		Name: "ngx_http_mirror_module",
		Commands: []Command{
			{
				Name: "mirror", In: inHTTPLevels, Args: "1", Repeat: true, Syntax: "uri | off", Default: "off",
				Doc: "Sets a URI to which requests are copied.", Set: setMirror,
			},
			Flag(Command{Name: "mirror_request_body", In: inHTTPLevels, Default: "on", Doc: "Copies the request body, too."},
				func(c *Conf) *bool { return &c.Mirror.body }),
		},
		Init:  func(c *Conf) { c.Mirror.body = true },
		Phase: PreContent,
		Handler: func(c *Conf) Handler {
			if len(c.Mirror.uris.Items) == 0 {
				return nil
			}
			return c.Mirror.handle
		},
	}
}

// mirrorConf is what the module knows at a level.
type mirrorConf struct {
	uris List[string]
	off  *Level // that said off
	body bool
}

func setMirror(l *Level, d *parser.Directive) error {
	c := &l.Conf.Mirror
	off := d.Args[0].Value == "off"
	if c.off == l || off && c.uris.level == l {
		return errDuplicate
	}
	if off {
		c.off, c.uris = l, List[string]{}
		return nil
	}
	c.uris.Add(l, d.Args[0].Value)
	return nil
}

// handle runs in the precontent phase (ngx_http_mirror_handler).
func (c *mirrorConf) handle(x *Exchange) Code {
	if x.inner.level > 0 {
		return Declined
	}
	if c.body {
		if code := x.readBody(); code != OK {
			return code
		}
	}
	for _, uri := range c.uris.Items {
		if x.inBackground([]byte(uri), x.args) != nil {
			return 500
		}
	}
	return Declined
}
