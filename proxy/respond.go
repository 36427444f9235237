package proxy

import (
	"cmp"

	"proxyctl/proxy/http1"
)

// finalize ends the phases: it turns a status into an answer, follows
// error_page (then it returns Again), and sends what is still held back
// (ngx_http_finalize_request).
func (x *Exchange) finalize(code Code) Code {
	switch {
	case code == Again:
		return Again
	case x.inner.stream.instead != nil && x.bodySent == 0 && code != Abort && !x.failed:
		return x.sendInstead()
	case code == Abort || code == 408 || code == 444 || code == 499:
		x.terminate(code)
		return Done
	case x.headSent:
		if code >= 300 { // too late for another answer: the client must see the break
			x.terminate(Abort)
			return Done
		}
	case code >= 300 || code == 201 || code == 204:
		for code >= 300 || code == 201 || code == 204 { // an error page can fail, too
			if code = x.special(code); code == Again {
				return Again
			}
		}
	}
	if x.failed {
		return Done
	}
	if !x.headSent { // a handler was content without sending anything
		x.Out.ContentLength = 0
		if x.Out.Status == 0 {
			x.Out.Status = 200
		}
		if x.SendHead() == OK && !x.headerOnly {
			_ = x.WriteBody(nil, true)
		}
	}
	if x.inner.level == 0 && x.stream.flush() != nil {
		x.fail()
	}
	return Done
}

// terminate closes the connection without another byte.
func (x *Exchange) terminate(code Code) {
	if code > 0 && !x.headSent {
		x.Out.Status = int(code)
	}
	x.fail()
}

// fail marks the connection unusable.
func (x *Exchange) fail() {
	x.failed = true
	x.keepAlive = false
}

// special answers with a status: by the page that error_page names, or by the
// built-in one (ngx_http_special_response_handler).
func (x *Exchange) special(code Code) Code {
	x.errorStatus = int(code)
	switch code {
	case 400, 413, 414, statusToHTTPS, statusCertError, statusNoCert, 500, 501:
		x.keepAlive = false
	}
	x.Out.ContentType, x.Out.Charset, x.Out.typeLength = nil, nil, 0
	core := &x.loc.Conf.Core
	if !x.errorPage && x.redirects <= maxRedirects {
		if !core.RecursiveErrorPages {
			x.errorPage = len(core.ErrorPages.Items) > 0
		}
		for i := range core.ErrorPages.Items {
			if p := &core.ErrorPages.Items[i]; p.status == int(code) {
				return x.showErrorPage(p)
			}
		}
	}
	x.discardBody()
	if core.MSIERefresh && x.fromMSIE() && (code == 301 || code == 302) {
		return x.sendRefresh()
	}
	return x.sendSpecial(int(code))
}

// sendSpecial sends the built-in page of a status.
func (x *Exchange) sendSpecial(status int) Code {
	switch status {
	case statusToHTTPS, statusCertError, statusNoCert, statusHeaderTooLarge:
		x.errorStatus = 400
	}
	body := x.appendPage(x.borrow(), status)
	defer x.giveBack(body)
	x.Out.Remove(http1.ContentLength)
	x.Out.Remove(http1.ETag)
	x.Out.Remove(http1.AcceptRanges)
	x.Out.AcceptRanges = false
	x.Out.LastModified = -1
	x.Out.Remove(http1.LastModified)
	x.Out.ContentLength = int64(len(body))
	if len(body) > 0 {
		x.Out.ContentType = textHTML
		x.Out.Charset = nil
	}
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.headerOnly {
		return Done
	}
	if err := x.WriteBody(body, true); err != nil {
		return Abort
	}
	return Done
}

// SendHead runs the header filters and sends the head. A filter may replace
// the answer; the code is then what is to be returned instead of going on.
func (x *Exchange) SendHead() Code {
	if x.post != afterNothing {
		x.output, x.headSent = output{}, true
		return OK
	}
	if x.errorStatus != 0 {
		x.Out.Status = x.errorStatus
		x.Out.StatusLine = nil
	}
	x.output = output{}
	for _, f := range x.loc.filters {
		if code := f(x); code != OK {
			return code
		}
	}
	if x.method == "HEAD" || x.Out.Status == 304 || x.Out.Status == 204 {
		x.headerOnly = true
	}
	if x.Out.Status == 204 {
		x.Out.ContentType, x.Out.LastModified, x.Out.ContentLength = nil, -1, -1
		x.Out.Remove(http1.ContentLength)
		x.Out.Remove(http1.LastModified)
	}
	if s := x.Out.Status; x.Out.LastModified != -1 && s != 200 && s != 206 && s != 304 {
		x.Out.LastModified = -1
	}
	if i, move := x.Out.location, x.table.opts.Location; i >= 0 && move != nil {
		x.Out.Fields[i].Value = move(x.Out.Fields[i].Value)
	}
	x.headSent = true
	if err := x.stream.writeHead(x); err != nil {
		x.fail()
		return Abort
	}
	x.setPace()
	return OK
}

// SendText answers with a whole body of text in memory.
func (x *Exchange) SendText(status int, contentType, body []byte) Code {
	if code := x.discardBody(); code != OK {
		return code
	}
	x.Out.Status = status
	x.Out.ContentType, x.Out.typeLength = contentType, 0
	x.Out.ContentLength = int64(len(body))
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.headerOnly {
		return Done
	}
	if err := x.WriteBody(body, true); err != nil {
		return Abort
	}
	return Done
}

var textHTML = []byte("text/html")

// Statuses that nginx uses inside and shows as 400.
const (
	statusHeaderTooLarge = 494
	statusCertError      = 495
	statusNoCert         = 496
	statusToHTTPS        = 497
	statusClientClosed   = 499
)

// reasons are the texts of status lines, by status.
var reasons = [600]string{
	103: "Early Hints",
	200: "OK",
	201: "Created",
	202: "Accepted",
	204: "No Content",
	206: "Partial Content",
	301: "Moved Permanently",
	302: "Moved Temporarily",
	303: "See Other",
	304: "Not Modified",
	307: "Temporary Redirect",
	308: "Permanent Redirect",
	400: "Bad Request",
	401: "Unauthorized",
	402: "Payment Required",
	403: "Forbidden",
	404: "Not Found",
	405: "Not Allowed",
	406: "Not Acceptable",
	407: "Proxy Authentication Required",
	408: "Request Time-out",
	409: "Conflict",
	410: "Gone",
	411: "Length Required",
	412: "Precondition Failed",
	413: "Request Entity Too Large",
	414: "Request-URI Too Large",
	415: "Unsupported Media Type",
	416: "Requested Range Not Satisfiable",
	421: "Misdirected Request",
	429: "Too Many Requests",
	500: "Internal Server Error",
	501: "Not Implemented",
	502: "Bad Gateway",
	503: "Service Temporarily Unavailable",
	504: "Gateway Time-out",
	505: "HTTP Version Not Supported",
	507: "Insufficient Storage",
}

// reason gives the text of a status line, "" when nginx has none.
func reason(status int) string {
	if status < 0 || status >= len(reasons) {
		return ""
	}
	return reasons[status]
}

// pageText gives what the built-in page of a status says: the status that it
// shows, its reason and, for what nginx counts as a status inside, what it is
// about. Without a reason there is no page and the body stays empty.
func pageText(status int) (shown int, text, note string) {
	switch status {
	case statusHeaderTooLarge:
		return 400, "Bad Request", "Request Header Or Cookie Too Large"
	case statusCertError:
		return 400, "Bad Request", "The SSL certificate error"
	case statusNoCert:
		return 400, "Bad Request", "No required SSL certificate was sent"
	case statusToHTTPS:
		return 400, "Bad Request", "The plain HTTP request was sent to HTTPS port"
	case 302:
		return status, "Found", ""
	case 401:
		return status, "Authorization Required", ""
	case 503:
		return status, "Service Temporarily Unavailable", ""
	case 304:
		return status, "", ""
	}
	if status < 300 {
		return status, "", ""
	}
	return status, reason(status), ""
}

// appendPage appends the built-in page of a status as nginx shows it.
func (x *Exchange) appendPage(dst []byte, status int) []byte {
	shown, text, note := pageText(status)
	if text == "" {
		return dst
	}
	numbered := func(dst []byte, text string) []byte {
		return append(append(http1.AppendInt(dst, int64(shown)), ' '), text...)
	}
	dst = append(dst, "<html>\r\n<head><title>"...)
	dst = numbered(dst, cmp.Or(note, text))
	dst = append(dst, "</title></head>\r\n<body>\r\n<center><h1>"...)
	dst = numbered(dst, text)
	dst = append(dst, "</h1></center>\r\n"...)
	if note != "" {
		dst = append(append(append(dst, "<center>"...), note...), "</center>\r\n"...)
	}
	dst = append(dst, "<hr><center>"...)
	dst = x.appendProduct(dst)
	dst = append(dst, "</center>\r\n</body>\r\n</html>\r\n"...)
	if x.loc.Conf.Core.MSIEPadding && status >= 400 && x.wantsPadding() {
		for range 6 {
			dst = append(dst, "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n"...)
		}
	}
	return dst
}

// appendProduct appends the name of the server as server_tokens wants it.
func (x *Exchange) appendProduct(dst []byte) []byte {
	p := &x.table.opts.Product
	dst = append(dst, p.Name...)
	switch x.loc.Conf.Core.ServerTokens {
	case tokensOn:
		dst = append(append(dst, '/'), p.Version...)
	case tokensBuild:
		dst = append(append(dst, '/'), p.Version...)
		if p.Build != "" {
			dst = append(append(append(dst, " ("...), p.Build...), ')')
		}
	}
	return dst
}
