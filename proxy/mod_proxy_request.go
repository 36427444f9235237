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

// fieldSet is a set of field names.
type fieldSet struct {
	ids   [4]uint64 // by http1.HeaderID
	names []string  // those without an id
}

func (s *fieldSet) add(name string) {
	if id := http1.Identify([]byte(name)); id != 0 {
		s.ids[id>>6] |= 1 << (id & 63)
		return
	}
	s.names = append(s.names, name)
}

func (s *fieldSet) remove(name string) {
	if id := http1.Identify([]byte(name)); id != 0 {
		s.ids[id>>6] &^= 1 << (id & 63)
		return
	}
	for i, n := range s.names {
		if strings.EqualFold(n, name) {
			s.names = append(s.names[:i:i], s.names[i+1:]...)
			return
		}
	}
}

func (s *fieldSet) has(f *http1.Field) bool {
	if f.ID != 0 {
		return s.ids[f.ID>>6]&(1<<(f.ID&63)) != 0
	}
	for _, n := range s.names {
		if len(n) == len(f.Name) && equalFold(f.Name, n) {
			return true
		}
	}
	return false
}

// equalFold compares a field name without regard to the case of ASCII letters.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		x, y := b[i], s[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}

// proxyHead compiles the head for a level. nginx sends Host first, then
// proxy_set_header in its order, then what nobody set
// (ngx_http_proxy_init_headers).
func (l *Level) proxyHead() *headTemplate {
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

// safeName keeps line ends out of a field name.
func safeName(name string) string {
	return string(guardLine([]byte(name)))
}

// guardLine blanks what would end a line or a string. Unlike nginx, which
// passes line ends on when a variable holds them.
func guardLine(b []byte) []byte {
	for i, c := range b {
		if c == '\r' || c == '\n' || c == 0 {
			b[i] = ' '
		}
	}
	return b
}

// buildRequest makes the head of the request in x.upstream.head, with the body
// of proxy_set_body behind it. False when there is nothing to ask for.
func (x *Exchange) buildRequest(c *proxyConf) bool {
	u := &x.upstream
	x.measureBody(c)
	h := u.head[:0]
	start := len(h)
	if c.method != nil {
		h = c.method.Append(h, x)
	} else {
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
	for i := range c.head.pieces {
		h = c.head.pieces[i].append(h, x, c)
	}
	if c.passHeaders {
		h = x.appendClientFields(h, &c.head.skip)
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
	u.chunked, u.bodyLength, u.setBody = false, x.contentLength(), nil
	switch {
	case c.body != nil:
		u.setBody = c.body.Bytes(x)
		u.bodyLength = int64(len(u.setBody))
	case x.inner.level > 0 && x.body.size == 0: // Unlike nginx, which announces the body that the main request has.
		u.bodyLength = -1
	case !c.passBody: // Unlike nginx, which announces a body that it does not send.
		u.bodyLength = -1
	case u.streaming && x.Req.Chunked:
		u.chunked, u.bodyLength = !c.http2, -1
	case !u.streaming && (x.Req.Chunked || x.body.discarded):
		u.bodyLength = x.body.size
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

// hasToken looks for a word in a list separated by commas.
func hasToken(list []byte, word string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, comma)
		if equalFold(bytes.Trim(item, " \t"), word) {
			return true
		}
	}
	return false
}

func hasTokenBytes(list, word []byte) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, comma)
		if item = bytes.Trim(item, " \t"); len(item) == len(word) && bytes.EqualFold(item, word) {
			return true
		}
	}
	return false
}

var comma = []byte(",")

// hiddenFields makes the set of fields of answers that are not passed on.
func hiddenFields(defaults, hide, pass []string) fieldSet {
	var s fieldSet
	for _, name := range defaults {
		s.add(name)
	}
	for _, name := range hide {
		s.add(name)
	}
	for _, name := range pass {
		s.remove(name)
	}
	return s
}
