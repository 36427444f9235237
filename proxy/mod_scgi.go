package proxy

import (
	"strconv"

	"proxyctl/proxy/http1"
)

// ngx_http_scgi_module: passes requests to an application that speaks SCGI:
// parameters in one netstring, and the body behind it.

func scgiModule() Module {
	of := func(c *Conf) *cgiConf { return c.SCGI.own(c) }
	up := func(c *Conf) *upstreamConf { return &of(c).upstreamConf }
	return Module{
		Name: "ngx_http_scgi_module",
		Commands: append(cgiRows("scgi", up, func(c *Conf) *List[passParam] { return &of(c).params }),
			Command{Name: "scgi_pass", In: InLocation | InLocationIf, Args: "1", Syntax: "address", Differs: "the field Proxy is not passed on, nor is NUL in a parameter; CONTENT_LENGTH is that of the body that is sent", Doc: "Passes requests to an SCGI server.", Set: setPass(up, serveSCGI, plainTarget("scgi://"))},
		),
		Init: func(c *Conf) { c.SCGI = lent[cgiConf]{conf: &cgiConf{upstreamConf: upstreamDefaults(wireCGI)}} },
		Finish: func(l *Level) error {
			if s := &l.Conf.SCGI; !s.changed(l.Conf) && s.conf.target == nil {
				return nil
			}
			return of(l.Conf).finish(l, "scgi", append(accelFields(), "Status"))
		},
	}
}

// serveSCGI is the handler of scgi_pass.
func serveSCGI(x *Exchange) Code {
	if _, code := x.beginPass(&x.loc.Conf.SCGI.conf.upstreamConf); code != OK {
		return code
	}
	var url upstreamURL
	if !x.aim("scgi://", &url) {
		return 500
	}
	if code := x.bodyToPass(!x.Req.Chunked); code != OK {
		return code
	}
	return x.passCGI(&url, (*Exchange).buildSCGI)
}

// buildSCGI makes the netstring (ngx_http_scgi_create_request). Its length comes
// first, and is known last.
func (x *Exchange) buildSCGI() bool {
	const room = 20 // for the length
	u := &x.upstream
	u.isHead = x.isMethod("HEAD") && !u.cacheable() // some applications answer as if it were GET
	h := append(u.head[:0], make([]byte, room)...)
	length := http1.AppendInt(x.borrow(), max(x.passedLength(), 0))
	h = x.appendParam(h, append(x.borrow(), "CONTENT_LENGTH"...), length, appendSCGIPair)
	x.giveBack(length)
	h = x.appendParams(h, x.loc.Conf.SCGI.conf, appendSCGIPair)
	var digits [room]byte
	prefix := append(strconv.AppendInt(digits[:0], int64(len(h)-room), 10), ':')
	n := copy(h, prefix)
	u.head = append(append(h[:n], h[room:]...), ',')
	return true
}

func appendSCGIPair(dst, name, value []byte) []byte {
	return append(append(append(append(dst, name...), 0), value...), 0)
}
