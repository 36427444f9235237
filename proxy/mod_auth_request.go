package proxy

import (
	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_auth_request_module: access decided by the status of a subrequest.

func authRequestModule() Module {
	return Module{
		Name: "ngx_http_auth_request_module",
		Commands: []Command{
			{
				Name: "auth_request", In: inHTTPLevels, Args: "1", Syntax: "uri | off", Default: "off",
				Doc: "Asks a subrequest whether access is allowed.", Set: setAuthRequest,
			},
			{
				Name: "auth_request_set", In: inHTTPLevels, Args: "2", Repeat: true, Syntax: "$variable value",
				Doc: "Sets a variable when the authorization subrequest has ended.", Set: setAuthRequestSet,
			},
		},
		Phase: Access,
		Handler: func(c *Conf) Handler {
			if c.AuthRequest.uri == "" {
				return nil
			}
			return c.AuthRequest.handle
		},
	}
}

// authRequestConf is what the module knows at a level.
type authRequestConf struct {
	uri string // "": off
	set List[authRequestSet]
}

// authRequestSet is one auth_request_set.
type authRequestSet struct {
	v     *variable
	value *Value
}

func setAuthRequest(l *Level, d *parser.Directive) error {
	l.Conf.AuthRequest.uri = d.Args[0].Value
	if d.Args[0].Value == "off" {
		l.Conf.AuthRequest.uri = ""
	}
	return nil
}

func setAuthRequestSet(l *Level, d *parser.Directive) error {
	v, err := l.assigned(d.Args[0])
	if err != nil {
		return err
	}
	if v.fill == nil && v.slot >= 0 {
		v.fill = missing
	}
	value, err := l.value(d.Args[1].Value)
	if err != nil {
		return err
	}
	l.Conf.AuthRequest.set.Add(l, authRequestSet{v, value})
	return nil
}

// handle runs in the access phase (ngx_http_auth_request_handler).
func (c *authRequestConf) handle(x *Exchange) Code {
	s, err := x.subrequest([]byte(c.uri), nil, toNobody, nil)
	if err != nil {
		return 500
	}
	defer x.endSubrequest(s)
	for i := range c.set.Items {
		it := &c.set.Items[i]
		b := it.value.Append(x.borrow(), s)
		value := x.keep(b)
		x.giveBack(b)
		it.v.set(x, value)
	}
	switch status := s.Out.Status; {
	case status == 403:
		return 403
	case status == 401:
		x.askForPassword(s)
		return 401
	case status >= 200 && status < 300:
		return OK
	default:
		x.Logf(logError, "auth request unexpected status: %d", status)
		return 500
	}
}

// askForPassword takes over what the subrequest says about how to log in.
func (x *Exchange) askForPassword(s *Exchange) {
	fields := s.Out.Fields
	if _, has := s.Out.Find(http1.WWWAuthenticate); !has {
		fields = s.upstream.fields // hidden from clients of the subrequest, or replaced by an error page
	}
	for i := range fields {
		if f := fields[i]; f.ID == http1.WWWAuthenticate {
			x.Out.Add(x.keep(f.Name), x.keep(f.Value))
		}
	}
}
