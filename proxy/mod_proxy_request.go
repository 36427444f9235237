package proxy

import (
	"bytes"
	"strings"

	"proxyctl/proxy/http1"
)

// The request that goes to the server (ngx_http_proxy_create_request).

// headTemplate is the part of a request head that the configuration decides,
// compiled: pieces in the order they are sent.
type headTemplate struct {
	pieces []headPiece
	skip   fieldSet // the client's fields that are not passed on
	// personal says that the configuration sets who asks, or where the body ends.
	personal bool
}

// headPiece is literal text or one field.
type headPiece struct {
	kind  pieceKind
	text  string // literal lines, or "Name: "
	value *Value
}

type pieceKind uint8

const (
	pieceText    pieceKind = iota
	pieceField             // left out when its value is empty
	pieceHost              // the Host field; value may be nil
	pieceLength            // Content-Length
	pieceChunked           // Transfer-Encoding
	pieceUpgrade           // Upgrade, which must not ask for HTTP/2
)

// proxyHead compiles the head for a level. nginx sends Host first, then
// proxy_set_header in its order, then what nobody set
// (ngx_http_proxy_init_headers). conditions are the fields that ask for less
// than the whole answer, with what stands for those of the client.
func (l *Level) proxyHead(conditions []proxyHeader) *headTemplate {
	c := &l.Conf.Proxy
	t := &headTemplate{}
	host := headPiece{kind: pieceHost, text: "Host: "}
	set := map[string]bool{}
	var own []headPiece
	for _, h := range c.setHeaders.Items {
		set[lower(h.name)] = true
		t.skip.add(h.name)
		if strings.EqualFold(h.name, "Host") {
			host.value = h.value
			continue
		}
		own = append(own, fieldPiece(h))
	}
	t.personal = set["authorization"] || set["proxy-authorization"] || set["content-length"] || set["transfer-encoding"]
	t.add(host.static(c))
	for _, p := range own {
		t.add(p)
	}
	for _, p := range []headPiece{{kind: pieceLength, text: "Content-Length: "}, {kind: pieceChunked, text: "Transfer-Encoding: chunked\r\n"}} {
		name, _, _ := strings.Cut(p.text, ":")
		if !set[lower(name)] {
			t.add(p)
		}
	}
	for _, h := range conditions {
		if !set[lower(h.name)] {
			t.add(fieldPiece(h))
		}
		t.skip.add(h.name)
	}
	for _, name := range []string{
		"Host", "Connection", "Proxy-Connection", "Content-Length", "Transfer-Encoding", "TE", "Keep-Alive", "Expect", "Upgrade",
		"Proxy", // Unlike nginx, which lets a client set HTTP_PROXY of CGI programs.
	} {
		t.skip.add(name)
	}
	return t
}

func fieldPiece(h proxyHeader) headPiece {
	p := headPiece{kind: pieceField, text: safeName(h.name) + ": ", value: h.value}
	if strings.EqualFold(h.name, "Upgrade") {
		p.kind = pieceUpgrade
		return p
	}
	if text, static := h.value.Static(); static {
		p = headPiece{kind: pieceText}
		if text != "" {
			p.text = safeName(h.name) + ": " + string(guardLine([]byte(text))) + "\r\n"
		}
	}
	return p
}

// static makes Host literal text if it does not change with the request.
func (p headPiece) static(c *proxyConf) headPiece {
	text := ""
	if p.value != nil {
		var static bool
		if text, static = p.value.Static(); !static {
			return p
		}
		if text == "" && c.http10 {
			return headPiece{}
		}
	}
	if text == "" {
		if c.target.value != nil {
			return headPiece{kind: pieceHost, text: p.text}
		}
		text = string(c.target.vars.host)
	}
	return headPiece{text: p.text + string(guardLine([]byte(text))) + "\r\n"}
}

// add appends a piece, joining literal text.
func (t *headTemplate) add(p headPiece) {
	if p.kind == pieceText {
		if p.text == "" {
			return
		}
		if n := len(t.pieces); n > 0 && t.pieces[n-1].kind == pieceText {
			t.pieces[n-1].text += p.text
			return
		}
	}
	t.pieces = append(t.pieces, p)
}

// serveProxy is the handler of proxy_pass.
func serveProxy(x *Exchange) Code {
	c := &x.loc.Conf.Proxy
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	u.rewriter = c
	var url upstreamURL
	if c.target.value == nil {
		u.vars, u.block = c.target.vars, c.target.group
	} else if !x.evalTarget(c, &url) {
		return 500
	}
	if code := x.bodyToPass(c.body == nil && (!x.Req.Chunked || !c.http10)); code != OK {
		return code
	}
	defer x.leaveCache()
	if code, ok := x.fromCache((*Exchange).appendCacheKey); ok {
		return code
	}
	if !x.buildRequest(c) {
		return 500
	}
	return x.pass(&url)
}

// appendCacheKey appends what answers are kept under unless proxy_cache_key says
// otherwise: what is asked for, and where (ngx_http_proxy_create_key).
func (x *Exchange) appendCacheKey(dst []byte) []byte {
	v := &x.upstream.vars
	dst = append(dst, v.scheme...)
	if v.socket != nil {
		dst = append(dst, v.socket...)
	} else {
		dst = append(dst, v.host...)
	}
	return x.appendUpstreamURI(dst)
}

// evalTarget evaluates a proxy_pass with variables (ngx_http_proxy_eval).
func (x *Exchange) evalTarget(c *proxyConf, url *upstreamURL) bool {
	text := c.target.value.String(x)
	scheme, rest, port := splitScheme(text)
	if port == 0 || rest == "" {
		x.Logf(logError, "invalid URL prefix in %q", text)
		return false
	}
	u, problem := parseUpstreamURL(rest, port, true)
	if problem != "" {
		x.Logf(logError, "%s in upstream %q", problem, rest)
		return false
	}
	if len(u.uri) > 0 && u.uri[0] == '?' {
		u.uri = "/" + u.uri
	}
	v := &x.upstream.vars
	*v = passVars{dynamic: true, tls: port == 443, scheme: []byte(scheme)}
	v.set(&u, port)
	*url = u
	return true
}

// buildRequest makes the head of the request in x.upstream.head, with the body
// of proxy_set_body behind it. False when there is nothing to ask for.
func (x *Exchange) buildRequest(c *proxyConf) bool {
	u := &x.upstream
	x.measureBody(c)
	h := u.head[:0]
	start := len(h)
	switch {
	case u.asGET:
		h = append(h, "GET"...)
	case c.method != nil:
		h = c.method.Append(h, x)
	default:
		h = append(h, x.method...)
	}
	h = guardToken(h, start)
	u.isHead = len(h)-start == 4 && bytes.EqualFold(h[start:], []byte("HEAD"))
	h = append(h, ' ')
	u.uriStart = len(h)
	h = x.appendUpstreamURI(h)
	u.uriEnd = len(h)
	if u.uriEnd == u.uriStart {
		x.Logf(logError, "zero length URI to proxy")
		u.head = h
		return false
	}
	if c.http10 {
		h = append(h, " HTTP/1.0\r\n"...)
	} else {
		h = append(h, " HTTP/1.1\r\n"...)
	}
	head := c.head
	if u.cacheable() {
		head = c.cacheHead
	}
	u.personal = head.personal
	for i := range head.pieces {
		h = head.pieces[i].append(h, x, c)
	}
	if c.passHeaders {
		h = x.appendClientFields(h, &head.skip)
	}
	h = append(h, "\r\n"...)
	u.headEnd = len(h)
	if c.body != nil {
		h = append(h, u.setBody...)
	}
	u.head = h
	return true
}

// measureBody decides how the body of the request is announced.
func (x *Exchange) measureBody(c *proxyConf) {
	u := &x.upstream
	u.setBody, u.frame = nil, nil
	if c.body != nil {
		u.passBody = false
		u.setBody = c.body.Bytes(x)
		u.chunked, u.bodyLength = false, int64(len(u.setBody))
		return
	}
	u.bodyLength = x.passedLength()
	if u.chunked = u.streaming && x.Req.Chunked && c.wire == wireHTTP1; u.chunked {
		u.frame = frameChunk
	}
}

// guardToken cuts a method at its first byte that is no token, so that nothing
// can be added to the request line.
func guardToken(h []byte, start int) []byte {
	for i := start; i < len(h); i++ {
		if h[i] <= ' ' || h[i] >= 0x7f {
			return h[:i]
		}
	}
	return h
}

// appendUpstreamURI appends the request target: as the client sent it if
// proxy_pass has no URI part and the URI has not been changed, else the
// normalized URI with the location's part replaced.
func (x *Exchange) appendUpstreamURI(h []byte) []byte {
	v := &x.upstream.vars
	start := len(h)
	switch {
	case v.dynamic && len(v.uri) > 0:
		h = append(h, v.uri...)
	case len(v.uri) == 0 && x.unparsedValid:
		raw := x.rawURI
		if i := bytes.IndexByte(raw, '#'); i >= 0 {
			raw = raw[:i] // Unlike nginx: a fragment is not the server's business.
		}
		h = append(h, raw...)
	default:
		from := 0
		if x.locationValid && len(v.uri) > 0 {
			from = min(len(v.location), len(x.uri))
		}
		if x.locationValid {
			h = append(h, v.uri...)
		}
		if x.quotedURI || x.internal {
			h = appendEscaped(h, x.uri[from:], &escapeURI)
		} else {
			h = append(h, x.uri[from:]...)
		}
		if len(x.args) > 0 {
			h = append(append(h, '?'), x.args...)
		}
	}
	return guardTarget(h, start)
}

// guardTarget escapes what would end the request target. Unlike nginx, which
// sends spaces and line ends that a variable holds.
func guardTarget(h []byte, start int) []byte {
	for i := start; i < len(h); i++ {
		if h[i] <= ' ' || h[i] == 0x7f {
			tail := bytes.Clone(h[i:])
			return appendEscaped(h[:i], tail, &escapeControls)
		}
	}
	return h
}

var escapeControls = func() (e escapeSet) {
	for c := range 256 {
		e[c] = c <= ' ' || c == 0x7f
	}
	return e
}()

// append appends one piece.
func (p *headPiece) append(h []byte, x *Exchange, c *proxyConf) []byte {
	u := &x.upstream
	switch p.kind {
	case pieceText:
		return append(h, p.text...)
	case pieceHost:
		start := len(h)
		h = append(h, p.text...)
		value := len(h)
		if p.value != nil {
			h = p.value.Append(h, x)
		}
		if len(h) == value {
			if p.value != nil && c.http10 {
				return h[:start]
			}
			h = append(h, u.vars.host...)
		}
		guardLine(h[value:])
		return append(h, "\r\n"...)
	case pieceLength:
		if u.bodyLength < 0 {
			return h
		}
		return append(http1.AppendInt(append(h, p.text...), u.bodyLength), "\r\n"...)
	case pieceChunked:
		if !u.chunked {
			return h
		}
		return append(h, p.text...)
	case pieceField, pieceUpgrade:
	}
	start := len(h)
	h = append(h, p.text...)
	value := len(h)
	h = p.value.Append(h, x)
	if len(h) == value || p.kind == pieceUpgrade && hasToken(h[value:], "h2c") {
		return h[:start]
	}
	guardLine(h[value:])
	return append(h, "\r\n"...)
}

// appendClientFields appends the fields of the client that the configuration
// does not set. Unlike nginx, fields that Connection names end here (RFC 9110,
// section 7.6.1).
func (x *Exchange) appendClientFields(h []byte, skip *fieldSet) []byte {
	fields := x.Req.Fields
	named := x.namedByConnection()
	for i := range fields {
		f := &fields[i]
		if skip.has(f) || named && x.isNamedByConnection(f) {
			continue
		}
		h = http1.AppendField(h, f.Name, f.Value)
	}
	return h
}

// namedByConnection says whether Connection names anything but its own words.
func (x *Exchange) namedByConnection() bool {
	for i := range x.Req.Fields {
		f := &x.Req.Fields[i]
		if f.ID == http1.Connection && !equalFold(f.Value, "keep-alive") && !equalFold(f.Value, "close") {
			return true
		}
	}
	return false
}

func (x *Exchange) isNamedByConnection(f *http1.Field) bool {
	for i := range x.Req.Fields {
		c := &x.Req.Fields[i]
		if c.ID == http1.Connection && hasTokenBytes(c.Value, f.Name) {
			return true
		}
	}
	return false
}
