package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The head of a request to a server that speaks HTTP.

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
	maybe bool // Host is left out without a value
}

type pieceKind uint8

const (
	pieceText     pieceKind = iota
	pieceField              // left out when its value is empty
	pieceHost               // the Host field; value may be nil
	pieceLength             // Content-Length
	pieceChunked            // Transfer-Encoding
	pieceUpgrade            // Upgrade, which must not ask for HTTP/2
	pieceTrailers           // TE, if the client takes trailers
)

// passField is a field that the configuration sets.
type passField struct {
	name  string
	value *Value
}

// setPassField makes the setter of a directive that sets a field.
func setPassField(of func(*Conf) *List[passField]) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		v, err := l.value(d.Args[1].Value)
		if err != nil {
			return err
		}
		of(l.Conf).Add(l, passField{d.Args[0].Value, v})
		return nil
	}
}

// compileHead compiles the head of requests to a target. nginx sends Host first,
// then the fields of the configuration in their order, then what nobody set
// (ngx_http_proxy_init_headers): own, and the conditions for the cache, which
// stand for those of the client. Without a name for it, HTTP/1.0 has no Host.
func compileHead(fields []passField, target *passTarget, http10 bool, own []headPiece, conditions []passField) *headTemplate {
	t := &headTemplate{}
	host := headPiece{kind: pieceHost, text: "Host: ", maybe: http10}
	set := map[string]bool{}
	var pieces []headPiece
	for _, h := range fields {
		set[lower(h.name)] = true
		t.skip.add(h.name)
		if strings.EqualFold(h.name, "Host") {
			host.value = h.value
			continue
		}
		pieces = append(pieces, fieldPiece(h))
	}
	t.personal = set["authorization"] || set["proxy-authorization"] || set["content-length"] || set["transfer-encoding"]
	t.add(host.static(target))
	for _, p := range pieces {
		t.add(p)
	}
	for _, p := range own {
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

func lengthPiece() headPiece { return headPiece{kind: pieceLength, text: "Content-Length: "} }

func fieldPiece(h passField) headPiece {
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
func (p headPiece) static(target *passTarget) headPiece {
	text := ""
	if p.value != nil {
		var static bool
		if text, static = p.value.Static(); !static {
			return p
		}
		if text == "" && p.maybe {
			return headPiece{}
		}
	}
	if text == "" {
		if target.value != nil {
			return headPiece{kind: pieceHost, text: p.text}
		}
		text = string(target.vars.host)
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

// append appends one piece.
func (p *headPiece) append(h []byte, x *Exchange) []byte {
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
			if p.value != nil && p.maybe {
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
	case pieceTrailers:
		if te, _ := x.Header(http1.TE); indexFold(te, "trailers") < 0 {
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
