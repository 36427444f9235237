package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// error_page and the redirects that the server itself makes.

// errorPage is what one status of an error_page directive does.
type errorPage struct {
	status    int
	overwrite int // the answer's status: -1 keeps it, 0 takes that of the page
	uri       *Value
	args      string // of a uri without variables
}

func setErrorPage(l *Level, d *parser.Directive) error {
	n := len(d.Args)
	codes, overwrite := d.Args[:n-1], -1
	if last := d.Args[n-2]; strings.HasPrefix(last.Value, "=") {
		if n == 2 {
			return sayAt(last, "", "name the codes first: error_page 404 =200 /page", "invalid value %q", last.Value)
		}
		codes, overwrite = d.Args[:n-2], 0
		if text := last.Value[1:]; text != "" {
			var ok bool
			if overwrite, ok = parseNumber(text); !ok {
				return sayAt(last, "", "", "invalid value %q", last.Value)
			}
		}
	}
	page := errorPage{}
	text := d.Args[n-1].Value
	if !strings.Contains(text, "$") && strings.HasPrefix(text, "/") {
		text, page.args, _ = strings.Cut(text, "?")
	}
	var err error
	if page.uri, err = l.value(text); err != nil {
		return err
	}
	for _, a := range codes {
		status, ok := parseNumber(a.Value)
		if !ok || status == statusClientClosed {
			return sayAt(a, "", "", "invalid value %q", a.Value)
		}
		if status < 300 || status > 599 {
			return sayAt(a, "", "", "value %q must be between 300 and 599", a.Value)
		}
		page.status, page.overwrite = status, overwrite
		if overwrite == -1 && status >= statusHeaderTooLarge && status <= statusToHTTPS {
			page.overwrite = 400
		}
		l.Conf.Core.ErrorPages.Add(l, page)
	}
	return nil
}

// showErrorPage goes where error_page says (ngx_http_send_error_page).
func (x *Exchange) showErrorPage(p *errorPage) Code {
	if p.overwrite >= 0 {
		x.errorStatus = p.overwrite
	}
	if p.overwrite != 0 && p.overwrite != 200 {
		x.stream.withholdContinue()
	}
	uri := p.uri.Bytes(x)
	if len(uri) > 0 && uri[0] == '/' {
		args := []byte(p.args)
		if _, static := p.uri.Static(); !static {
			uri, args = splitArgs(uri)
		}
		if x.method != "HEAD" {
			x.method = "GET"
		}
		return x.redirectTo(uri, args)
	}
	if len(uri) > 0 && uri[0] == '@' {
		return x.redirectToNamed(uri)
	}
	x.discardBody()
	x.Out.SetLocation(uri)
	switch p.overwrite {
	case 301, 302, 303, 307, 308:
	default:
		x.errorStatus = 302
	}
	if x.loc.Conf.Core.MSIERefresh && x.fromMSIE() {
		return x.sendRefresh()
	}
	return x.sendSpecial(x.errorStatus)
}

// absoluteLocation says whether the Location field is a path that is to be
// made absolute.
func (x *Exchange) absoluteLocation() bool {
	i := x.Out.location
	if i < 0 || !x.loc.Conf.Core.AbsoluteRedirect {
		return false
	}
	v := x.Out.Fields[i].Value
	return len(v) > 0 && v[0] == '/'
}

// appendAbsoluteLocation appends the Location field's value with scheme, host
// and port in front.
func (x *Exchange) appendAbsoluteLocation(out []byte) []byte {
	f := &x.Out.Fields[x.Out.location]
	f.Value = x.keep(x.origin(), f.Value)
	return http1.AppendValue(out, f.Value)
}

// origin gives scheme, host and port for redirects to this server
// (ngx_http_header_filter).
func (x *Exchange) origin() []byte {
	core := &x.loc.Conf.Core
	tls := x.client.tls
	scheme, standard := "http://", uint16(80)
	if tls {
		scheme, standard = "https://", 443
	}
	host := x.host
	switch {
	case core.ServerNameInRedirect:
		host = []byte(x.server.Name())
	case len(host) == 0 && x.client.unix != "":
		host = x.keep("unix:", x.client.unix)
	case len(host) == 0:
		host = x.client.local.Addr().AppendTo(nil)
	}
	out := append(x.keep(scheme), host...)
	if port := x.redirectPort(); core.PortInRedirect && port != 0 && port != standard {
		out = http1.AppendInt(append(out, ':'), int64(port))
	}
	return out
}

// redirectPort is the port that clients know this server by.
func (x *Exchange) redirectPort() uint16 {
	port := x.client.local.Port()
	if f := x.table.opts.PublicPort; f != nil {
		return f(port)
	}
	return port
}

// sendRefresh redirects MSIE by a page (msie_refresh).
func (x *Exchange) sendRefresh() Code {
	target := []byte(nil)
	if i := x.Out.location; i >= 0 {
		target = x.Out.Fields[i].Value
	}
	x.Out.Remove(http1.Location)
	x.errorStatus = 200
	body := append([]byte(nil), `<html><head><meta http-equiv="Refresh" content="0; URL=`...)
	body = appendEscaped(body, target, &escapeRefresh)
	body = append(body, "\"></head><body></body></html>\r\n"...)
	return x.SendText(200, textHTML, body)
}

func (x *Exchange) userAgentHas(word string) bool {
	ua, _ := x.Header(http1.UserAgent)
	return bytes.Contains(ua, []byte(word))
}

func (x *Exchange) fromMSIE() bool     { return x.userAgentHas("MSIE ") && !x.userAgentHas("Opera") }
func (x *Exchange) wantsPadding() bool { return x.fromMSIE() || x.userAgentHas("Chrome/") }

// keepAliveDisabled applies keepalive_disable.
func (x *Exchange) keepAliveDisabled(core *coreConf) bool {
	const msie6, safari = 1 << 1, 1 << 2
	if core.KeepaliveDisable&msie6 != 0 && x.isMethod("POST") && x.fromMSIE() && x.oldMSIE() {
		return true
	}
	return core.KeepaliveDisable&safari != 0 && x.userAgentHas("Safari/") && !x.userAgentHas("Chrome/") &&
		x.userAgentHas("Mac OS X")
}

// oldMSIE recognizes versions 4 to 6, but 6 only before its SV1 update.
func (x *Exchange) oldMSIE() bool {
	return x.userAgentHas("MSIE 4.") || x.userAgentHas("MSIE 5.") || x.userAgentHas("MSIE 6.") && !x.userAgentHas("SV1")
}
