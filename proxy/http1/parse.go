// Package http1 is HTTP/1.x on the wire, both sides: heads, bodies and
// connections. It knows nothing of configuration.
//
// Framing is strict (RFC 9112): what is ambiguous is refused. Heads are parsed
// in place; nothing is copied and nothing allocated for a message.
package http1

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrMore says that a head is not complete yet.
var ErrMore = errors.New("incomplete head")

// ParseError is a head that is refused.
type ParseError struct {
	Status int    // to answer with; 494 for a head that is too large
	Reason string // for the log, as nginx words it
}

func (e *ParseError) Error() string { return e.Reason }

func refuse(status int, format string, args ...any) error {
	return &ParseError{status, fmt.Sprintf(format, args...)}
}

// Limits bound a head.
type Limits struct {
	Line   int // bytes of one line
	Head   int // bytes of all lines
	Fields int // number of fields
}

// Request is the head of a request. The slices belong to the read buffer.
type Request struct {
	Line           []byte // the request line as received
	Method, Target []byte
	Path           []byte // Target without scheme and authority
	Authority      []byte // of an absolute-form or CONNECT target
	Major, Minor   int
	Fields         []Field
	ContentLength  int64 // -1: none
	Chunked        bool
	Close          bool // tokens of Connection
	KeepAlive      bool
	Upgrade        bool
	Expect100      bool
	HeadSize       int // bytes on the wire
	hosts          int
}

func (r *Request) reset() {
	*r = Request{Fields: r.Fields[:0], ContentLength: -1}
}

// maxLeadingLines is how many empty lines may precede a request line.
const maxLeadingLines = 4

// Parse reads a head from the start of b and returns its length on the wire.
// ErrMore asks for more bytes; any other error is a *ParseError.
func (r *Request) Parse(b []byte, l *Limits) (int, error) {
	r.reset()
	start := 0
	for start < len(b) && (b[start] == '\r' || b[start] == '\n') {
		if start++; start > 2*maxLeadingLines {
			return 0, refuse(400, "client sent invalid request")
		}
	}
	end := bytes.IndexByte(b[start:], '\n')
	if end < 0 {
		if len(b)-start > l.Line {
			r.Line = firstLine(b[start:])
			return 0, refuse(414, "client sent too long URI")
		}
		return 0, r.early(b[start:])
	}
	line := trimCR(b[start : start+end])
	r.Line = line
	if len(line) > l.Line {
		return 0, refuse(414, "client sent too long URI")
	}
	if err := r.parseLine(line); err != nil {
		return 0, err
	}
	n, err := r.parseFields(b, start+end+1, l)
	if err != nil {
		return 0, err
	}
	r.HeadSize = n - start
	return n, r.check()
}

// early refuses a line that cannot become a request line, before it is whole.
func (r *Request) early(b []byte) error {
	for i, c := range b {
		if c == ' ' && i > 0 {
			return ErrMore
		}
		if classes[c]&isMethod == 0 {
			r.Line = firstLine(b)
			return refuse(400, "client sent invalid method")
		}
	}
	return ErrMore
}

func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return trimCR(b)
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

func (r *Request) parseLine(line []byte) error {
	m := 0
	for m < len(line) && classes[line[m]]&isMethod != 0 {
		m++
	}
	if m == 0 || m == len(line) || line[m] != ' ' {
		return refuse(400, "client sent invalid method")
	}
	r.Method = line[:m]
	rest := bytes.TrimLeft(line[m:], " ")
	end := bytes.IndexByte(rest, ' ')
	if end < 0 { // Unlike nginx, which serves HTTP/0.9.
		return refuse(400, "client sent invalid request")
	}
	r.Target = rest[:end]
	for _, c := range r.Target {
		if classes[c]&isURI == 0 {
			return refuse(400, "client sent invalid request")
		}
	}
	if err := r.parseVersion(bytes.Trim(rest[end:], " ")); err != nil {
		return err
	}
	return r.splitTarget()
}

func (r *Request) parseVersion(v []byte) error {
	if len(v) < 8 || string(v[:5]) != "HTTP/" || v[5] < '1' || v[5] > '9' {
		return refuse(400, "client sent invalid request")
	}
	if v[5] != '1' || v[6] != '.' || v[7] < '0' || v[7] > '9' || len(v) != 8 {
		for _, c := range v[6:] {
			if c != '.' && (c < '0' || c > '9') {
				return refuse(400, "client sent invalid request")
			}
		}
		return refuse(505, "client sent invalid version")
	}
	r.Major, r.Minor = 1, int(v[7]-'0')
	if r.Minor > 1 {
		r.Minor = 1 // HTTP/1.x with x > 1 is answered as HTTP/1.1
	}
	return nil
}

// splitTarget finds scheme, authority and path (RFC 9112, section 3.2).
func (r *Request) splitTarget() error {
	t := r.Target
	if string(r.Method) == "CONNECT" {
		r.Authority = t
		return nil
	}
	if t[0] == '/' {
		r.Path = t
		return nil
	}
	i := bytes.Index(t, []byte("://"))
	if i <= 0 || t[0]|0x20 < 'a' || t[0]|0x20 > 'z' {
		return refuse(400, "client sent invalid request")
	}
	for _, c := range t[:i] {
		if classes[c]&isPlain == 0 && c != '+' && c != '.' {
			return refuse(400, "client sent invalid request")
		}
	}
	rest := t[i+3:]
	end := bytes.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	r.Authority, r.Path = rest[:end], rest[end:]
	if len(r.Authority) == 0 {
		return refuse(400, "client sent invalid host in request line")
	}
	return nil
}

// parseFields reads field lines from b[p:] up to the empty line.
func (r *Request) parseFields(b []byte, p int, l *Limits) (int, error) {
	for {
		end := bytes.IndexByte(b[p:], '\n')
		if end < 0 {
			if len(b)-p > l.Line || len(b) > l.Head {
				return 0, tooLarge(b[p:])
			}
			return 0, ErrMore
		}
		line := trimCR(b[p : p+end])
		p += end + 1
		if len(line) == 0 {
			return p, nil
		}
		if len(line) > l.Line || p > l.Head {
			return 0, tooLarge(line)
		}
		if len(r.Fields) >= l.Fields {
			return 0, refuse(400, "client sent too many header lines")
		}
		f, ok := parseField(line)
		if !ok {
			return 0, refuse(400, "client sent invalid header line: \"%s\"", printable(line))
		}
		r.Fields = append(r.Fields, f)
		if f.ID != Other {
			if err := r.note(&f); err != nil {
				return 0, err
			}
		}
	}
}

func tooLarge(line []byte) error {
	if i := bytes.IndexByte(line, ':'); i >= 0 {
		line = line[:i]
	}
	return refuse(494, "client sent too long header line: \"%s...\"", printable(line))
}

// printable makes a piece of input fit for a log line.
func printable(b []byte) []byte {
	out := make([]byte, 0, min(len(b), 256))
	for _, c := range b[:min(len(b), 256)] {
		if c < ' ' || c >= 0x7f {
			out = fmt.Appendf(out, "\\x%02x", c)
			continue
		}
		out = append(out, c)
	}
	return out
}

// parseField reads "name: value".
func parseField(line []byte) (Field, bool) {
	var f Field
	i, all, odd := 0, uint8(isPlain), byte('_')
	for i < len(line) && line[i] != ':' {
		c := line[i]
		if classes[c]&isToken == 0 {
			return f, false
		}
		if classes[c]&isPlain == 0 && c != '_' {
			odd = c
		}
		all &= classes[c]
		i++
	}
	if i == 0 || i == len(line) {
		return f, false
	}
	f.Name = line[:i]
	f.Odd = all&isPlain == 0
	f.Underscore = f.Odd && odd == '_'
	f.Value = trimSpace(line[i+1:])
	for _, c := range f.Value {
		if classes[c]&isValue == 0 {
			return f, false
		}
	}
	f.ID = Identify(f.Name)
	return f, true
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// note takes what framing and the connection depend on from a field.
func (r *Request) note(f *Field) error {
	switch f.ID {
	case Host:
		if r.hosts++; r.hosts > 1 {
			return refuse(400, "client sent duplicate host header: \"%s\"", printable(f.Value))
		}
	case ContentLength:
		n, ok := parseLength(f.Value)
		if !ok {
			return refuse(400, "client sent invalid \"Content-Length\" header")
		}
		if r.ContentLength >= 0 {
			return refuse(400, "client sent duplicate header line: \"%s: %s\"", f.Name, f.Value)
		}
		r.ContentLength = n
	case TransferEncoding:
		if r.Chunked {
			return refuse(400, "client sent duplicate header line: \"%s: %s\"", f.Name, printable(f.Value))
		}
		if !equalFold(f.Value, "chunked") {
			return refuse(501, "client sent unknown \"Transfer-Encoding\": \"%s\"", printable(f.Value))
		}
		r.Chunked = true
	case Connection:
		closes, keeps, upgrades := tokens(f.Value)
		r.Close = r.Close || closes
		r.KeepAlive = r.KeepAlive || keeps
		r.Upgrade = r.Upgrade || upgrades
	case Expect:
		r.Expect100 = equalFold(f.Value, "100-continue")
	}
	return nil
}

// check holds the whole head against RFC 9112, sections 3.2 and 6.
func (r *Request) check() error {
	if r.Chunked && r.ContentLength >= 0 {
		return refuse(400, "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
	}
	if r.Chunked && r.Minor == 0 {
		return refuse(400, "client sent HTTP/1.0 request with \"Transfer-Encoding\" header")
	}
	if r.hosts == 0 && r.Minor >= 1 {
		return refuse(400, "client sent HTTP/1.1 request without \"Host\" header")
	}
	return nil
}

// parseLength reads digits only.
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// tokens looks for the words of Connection.
func tokens(v []byte) (closes, keeps, upgrades bool) {
	for len(v) > 0 {
		var t []byte
		if i := bytes.IndexByte(v, ','); i >= 0 {
			t, v = v[:i], v[i+1:]
		} else {
			t, v = v, nil
		}
		t = trimSpace(t)
		closes = closes || equalFold(t, "close")
		keeps = keeps || equalFold(t, "keep-alive")
		upgrades = upgrades || equalFold(t, "upgrade")
	}
	return closes, keeps, upgrades
}

// Response is the head of a response. The slices belong to the read buffer.
type Response struct {
	Line                      []byte // without the version: "200 OK"
	Status                    int
	Reason                    []byte
	Minor                     int
	Fields                    []Field
	ContentLength             int64 // -1: none
	Chunked                   bool
	Close, KeepAlive, Upgrade bool
}

// Parse reads a head from the start of b and returns its length. ErrMore asks
// for more bytes; any other error is a *ParseError with status 502.
func (r *Response) Parse(b []byte, l *Limits) (int, error) {
	*r = Response{Fields: r.Fields[:0], ContentLength: -1}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > l.Head {
			return 0, refuse(502, "upstream sent too big header")
		}
		return 0, ErrMore
	}
	line := trimCR(b[:end])
	if !r.parseLine(line) {
		return 0, refuse(502, "upstream sent no valid HTTP/1.0 header")
	}
	p := end + 1
	for {
		end := bytes.IndexByte(b[p:], '\n')
		if end < 0 {
			if len(b) > l.Head {
				return 0, refuse(502, "upstream sent too big header")
			}
			return 0, ErrMore
		}
		line := trimCR(b[p : p+end])
		p += end + 1
		if len(line) == 0 {
			return p, r.check()
		}
		if p > l.Head || len(r.Fields) >= max(l.Fields, 1) {
			return 0, refuse(502, "upstream sent too big header")
		}
		f, ok := parseField(line)
		if !ok {
			return 0, refuse(502, "upstream sent invalid header: \"%s\"", printable(line))
		}
		r.Fields = append(r.Fields, f)
		if err := r.note(&f); err != nil {
			return 0, err
		}
	}
}

func (r *Response) parseLine(line []byte) bool {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] < '0' || line[7] > '9' || line[8] != ' ' {
		return false
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return false
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || len(line) > 12 && line[12] != ' ' {
		return false
	}
	for _, c := range line {
		if classes[c]&isValue == 0 {
			return false
		}
	}
	r.Minor = int(line[7] - '0')
	r.Line = line[9:]
	if len(line) > 13 {
		r.Reason = line[13:]
	}
	return true
}

func (r *Response) note(f *Field) error {
	switch f.ID {
	case ContentLength:
		n, ok := parseLength(f.Value)
		if !ok {
			return refuse(502, "upstream sent invalid \"Content-Length\" header: \"%s: %s\"", f.Name, printable(f.Value))
		}
		if r.ContentLength >= 0 {
			return refuse(502, "upstream sent duplicate header line: \"%s: %s\"", f.Name, printable(f.Value))
		}
		r.ContentLength = n
	case TransferEncoding:
		if r.Chunked {
			return refuse(502, "upstream sent duplicate header line: \"%s: %s\"", f.Name, printable(f.Value))
		}
		if !equalFold(f.Value, "chunked") {
			return refuse(502, "upstream sent unknown \"Transfer-Encoding\": \"%s\"", printable(f.Value))
		}
		r.Chunked = true
	case Connection:
		closes, keeps, upgrades := tokens(f.Value)
		r.Close = r.Close || closes
		r.KeepAlive = r.KeepAlive || keeps
		r.Upgrade = r.Upgrade || upgrades
	}
	return nil
}

func (r *Response) check() error {
	if r.Chunked && r.ContentLength >= 0 {
		return refuse(502, "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
	}
	return nil
}

// Persistent says whether the connection may be used again afterwards.
func (r *Response) Persistent() bool {
	return !r.Close && (r.Minor >= 1 || r.KeepAlive)
}
