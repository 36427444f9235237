package proxy

import (
	"encoding/binary"
	"math"

	"proxyctl/parser"
)

// ngx_http_uwsgi_module: passes requests to an application that speaks uWSGI's
// own protocol: a packet of parameters, and the body behind it.

// uwsgiConf is what the module knows at a level.
type uwsgiConf struct {
	cgiConf

	modifier1, modifier2 int
	packet               string // uwsgi_string
}

func uwsgiModule() Module {
	const in = inHTTPLevels
	of := func(c *Conf) *uwsgiConf { return c.UWSGI.own(c) }
	up := func(c *Conf) *upstreamConf { return &of(c).upstreamConf }
	rows := append(cgiRows("uwsgi", up, func(c *Conf) *List[passParam] { return &of(c).params }), upstreamTLSRows("uwsgi", "host from uwsgi_pass", up)...)
	return Module{
		Name: "ngx_http_uwsgi_module",
		Commands: append(rows,
			Command{Name: "uwsgi_pass", In: InLocation | InLocationIf, Args: "1", Syntax: "[protocol://]address", Differs: "the field Proxy is not passed on, nor is NUL in a parameter", Doc: "Passes requests to a uwsgi server.", Set: setPass(up, serveUWSGI, uwsgiTarget)},
			NumberIn(Command{Name: "uwsgi_modifier1", In: in, Default: "0", Doc: "Sets the first modifier of packets."}, 0, math.MaxUint8, func(c *Conf) *int { return &of(c).modifier1 }),
			NumberIn(Command{Name: "uwsgi_modifier2", In: in, Default: "0", Doc: "Sets the second modifier of packets."}, 0, math.MaxUint8, func(c *Conf) *int { return &of(c).modifier2 }),
			Text(Command{Name: "uwsgi_string", In: in, Doc: "Sets what ends packets, as it is."}, func(c *Conf) *string { return &of(c).packet }),
		),
		Init: func(c *Conf) {
			c.UWSGI = lent[uwsgiConf]{conf: &uwsgiConf{cgiConf: cgiConf{upstreamConf: upstreamDefaults(wireCGI)}}}
		},
		Finish: func(l *Level) error {
			if s := &l.Conf.UWSGI; !s.changed(l.Conf) && s.conf.target == nil {
				return nil
			}
			c := of(l.Conf)
			if err := c.finish(l, "uwsgi", accelFields()); err != nil {
				return err
			}
			c.finishTLS(l, "uwsgi")
			return nil
		},
	}
}

// uwsgiTarget reads an address with or without a scheme.
func uwsgiTarget(l *Level, d *parser.Directive, t *passTarget) error {
	scheme, address := splitAddress(t.url, "uwsgi://", "suwsgi://")
	t.vars = uwsgiVars(scheme)
	return l.addressTarget(d, t, address)
}

func uwsgiVars(scheme string) passVars {
	return passVars{scheme: []byte(scheme), tls: scheme[0]|0x20 == 's'}
}

// serveUWSGI is the handler of uwsgi_pass.
func serveUWSGI(x *Exchange) Code {
	c := x.loc.Conf.UWSGI.conf
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	var url upstreamURL
	if c.target.value == nil {
		u.vars, u.block = c.target.vars, c.target.group
	} else {
		scheme, address := splitAddress(c.target.value.String(x), "uwsgi://", "suwsgi://")
		if !x.evalAddress(address, uwsgiVars(scheme), &url) {
			return 500
		}
	}
	if code := x.bodyToPass(!x.Req.Chunked); code != OK {
		return code
	}
	return x.passCGI(&url, (*Exchange).buildUWSGI)
}

// buildUWSGI makes the packet (ngx_http_uwsgi_create_request).
func (x *Exchange) buildUWSGI() bool {
	const header = 4
	c, u := x.loc.Conf.UWSGI.conf, &x.upstream
	u.isHead = x.isMethod("HEAD") && !u.cacheable() // some applications answer as if it were GET
	h := append(u.head[:0], byte(c.modifier1), 0, 0, byte(c.modifier2))
	h = append(x.appendParams(h, &c.cgiConf, appendUWSGIPair), c.packet...)
	u.head = h
	size := len(h) - header
	if size > math.MaxUint16 {
		x.Logf(logAlert, "uwsgi request is too big: %d", size)
		return false
	}
	binary.LittleEndian.PutUint16(h[1:], uint16(size))
	return true
}

// appendUWSGIPair appends a parameter; what is too long for it is too long for
// a packet.
func appendUWSGIPair(dst, name, value []byte) []byte {
	dst = append(binary.LittleEndian.AppendUint16(dst, uint16(len(name))), name...)
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(value))), value...)
}
