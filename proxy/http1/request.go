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
	Reason string // for the log, as nginx words it; without control characters
}

func (e *ParseError) Error() string { return e.Reason }

func refuse(status int, format string, args ...any) error {
	return &ParseError{status, fmt.Sprintf(format, args...)}
}

// Limits bound a head. A line counts with its end.
type Limits struct {
	Line   int // bytes of one line
	Head   int // bytes of all lines
	Fields int // number of fields whose names are not Odd; 0: no bound but Head
}

// Request is the head of a request. The slices belong to the read buffer.
type Request struct {
	Line           []byte // the request line; as far as known when the head is refused
	Method, Target []byte
	Scheme         []byte // of an absolute-form target
	Authority      []byte // of an absolute-form or CONNECT target
	Path           []byte // what follows the authority, with the query; "/" if there is none but a query
	Proto          []byte // "HTTP/1.1"
	Major, Minor   int    // 1 and 0 or 1
	Fields         []Field
	ContentLength  int64 // -1: none
	Chunked        bool
	Open           bool // over HTTP/2 and HTTP/3, a body of no bytes has not been ended
	Close          bool // words of Connection
	KeepAlive      bool
	Upgrade        bool
	Expect100      bool // the client may wait for 100 Continue
	HeadSize       int  // bytes on the wire, without empty lines before the request line

	// where to go on
	base  *byte // the start of the buffer; nil: at the beginning
	start int   // of the request line
	at    int   // of the first line that has not been parsed
	plain int   // fields whose names are not Odd
	seen  uint64
}

// Reset forgets a head, also one that Parse has begun.
func (r *Request) Reset() {
	*r = Request{Fields: r.Fields[:0], ContentLength: -1}
}

// Parse reads a head from the start of b and returns its length on the wire,
// empty lines before it included. ErrMore asks for more bytes: when Parse is
// then called with the same buffer and more in it, it goes on where it stopped.
// Any other error is a *ParseError. Statuses and reasons are those of nginx
// (ngx_http_process_request_line, ngx_http_process_request_headers).
func (r *Request) Parse(b []byte, l *Limits) (int, error) {
	if len(b) == 0 {
		r.Reset()
		return 0, ErrMore
	}
	if r.base != &b[0] || len(b) < r.at {
		r.Reset()
		r.base = &b[0]
	}
	n, err := r.parse(b, l)
	if err != ErrMore {
		r.base = nil
	}
	return n, err
}

func (r *Request) parse(b []byte, l *Limits) (int, error) {
	if len(r.Line) == 0 {
		if err := r.skipEmptyLines(b, l); err != nil {
			return 0, err
		}
		if err := r.requestLine(b, l); err != nil {
			return 0, err
		}
	}
	n, err := r.fields(b, l)
	if err != nil {
		return 0, err
	}
	r.HeadSize = n - r.start
	return n, r.check()
}

// skipEmptyLines passes over line ends before a request line (RFC 9112, section
// 2.2). Unlike nginx, which takes any number of CR and LF, there must be a LF
// behind each CR, and they are bounded by the size of a line.
func (r *Request) skipEmptyLines(b []byte, l *Limits) error {
	for r.at < len(b) {
		n := 1
		switch {
		case b[r.at] == '\n':
		case b[r.at] != '\r':
			r.start = r.at
			return nil
		case r.at+1 == len(b):
			return ErrMore
		case b[r.at+1] != '\n':
			return refuse(400, "client sent invalid method")
		default:
			n = 2
		}
		if r.at += n; r.at > l.Line {
			return refuse(400, "client sent invalid request")
		}
	}
	return ErrMore
}

// requestLine reads the line at r.at.
func (r *Request) requestLine(b []byte, l *Limits) error {
	rest := b[r.at:]
	end := bytes.IndexByte(rest, '\n')
	if end < 0 && len(rest) < l.Line {
		return r.early(rest)
	}
	if end < 0 || end >= l.Line {
		if err := r.early(rest); err != ErrMore {
			return err
		}
		r.Line = firstLine(rest)
		return refuse(414, "client sent too long URI")
	}
	line := trimCR(rest[:end])
	if err := r.parseLine(line); err != nil {
		r.Line = firstLine(line)
		return err
	}
	r.Line = line
	r.at += end + 1
	return nil
}

// early refuses what cannot become a request line before it is whole, so that
// whoever speaks another protocol learns it at once.
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

// parseLine takes a request line apart. More than one space between its parts
// and after them is tolerated, as by nginx.
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
	end := 0
	for end < len(rest) && classes[rest[end]]&isTarget != 0 {
		end++
	}
	// Unlike nginx, which serves HTTP/0.9, a version must follow.
	if end == 0 || end == len(rest) || rest[end] != ' ' {
		return refuse(400, "client sent invalid request")
	}
	r.Target = rest[:end]
	if err := r.splitTarget(); err != nil {
		return err
	}
	return r.parseVersion(bytes.Trim(rest[end:], " "))
}

// parseVersion reads "HTTP/1.1". Unlike nginx, which takes minor versions up to
// 999, it takes one digit (RFC 9112, section 2.3); 2 to 9 count as 1.
func (r *Request) parseVersion(v []byte) error {
	const name = "HTTP/"
	if len(v) < len(name)+3 || string(v[:len(name)]) != name {
		return refuse(400, "client sent invalid request")
	}
	digits := v[len(name):]
	if digits[0] < '1' || digits[0] > '9' {
		return refuse(400, "client sent invalid request")
	}
	if digits[0] > '1' || digits[1] >= '0' && digits[1] <= '9' {
		return refuse(505, "client sent invalid version")
	}
	if len(digits) != 3 || digits[1] != '.' || digits[2] < '0' || digits[2] > '9' {
		return refuse(400, "client sent invalid request")
	}
	r.Proto, r.Major, r.Minor = v, 1, int(min(digits[2]-'0', 1))
	if len(r.Path) == 0 { // CONNECT, for which nginx takes the slash from here, too
		r.Path = v[len(name)-1 : len(name)]
	}
	return nil
}

// splitTarget finds scheme, authority and path (RFC 9112, section 3.2). As by
// nginx, a target may not be an asterisk.
func (r *Request) splitTarget() error {
	t := r.Target
	if string(r.Method) == "CONNECT" {
		n := hostLength(t)
		port := portLength(t[n:])
		if n == 0 || port < 2 || n+port != len(t) {
			return refuse(400, "client sent invalid request")
		}
		r.Authority = t
		return nil
	}
	if t[0] == '/' {
		r.Path = t
		return nil
	}
	scheme := 0
	for scheme < len(t) && classes[t[scheme]]&isScheme != 0 {
		scheme++
	}
	if t[0]|0x20 < 'a' || t[0]|0x20 > 'z' || !bytes.HasPrefix(t[scheme:], []byte("://")) {
		return refuse(400, "client sent invalid request")
	}
	r.Scheme = t[:scheme]
	rest := t[scheme+3:]
	n := hostLength(rest)
	end := n + portLength(rest[n:])
	r.Authority, r.Path = rest[:end], rest[end:]
	switch {
	case len(r.Path) == 0:
		r.Path = t[scheme+1 : scheme+2]
	case r.Path[0] != '/' && r.Path[0] != '?':
		return refuse(400, "client sent invalid request")
	}
	if n == 0 {
		return refuse(400, "client sent invalid host in request line")
	}
	return nil
}

// hostLength is the length of the host at the start of b, an address in
// brackets included.
func hostLength(b []byte) int {
	if len(b) > 0 && b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		for _, c := range b[1:max(i, 1)] {
			if classes[c]&isHost == 0 && bytes.IndexByte([]byte(":_~!$&'()*+,;="), c) < 0 {
				return 0
			}
		}
		return i + 1
	}
	i := 0
	for i < len(b) && classes[b[i]]&isHost != 0 {
		i++
	}
	return i
}

// portLength is the length of a colon and digits, if any, at the start of b.
func portLength(b []byte) int {
	if len(b) == 0 || b[0] != ':' {
		return 0
	}
	i := 1
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

// fields reads field lines from r.at on, up to the empty line.
func (r *Request) fields(b []byte, l *Limits) (int, error) {
	for {
		rest := b[r.at:]
		end := bytes.IndexByte(rest, '\n')
		size := end + 1
		if end < 0 {
			size = len(rest) + 1
		}
		if size > l.Line || r.at+size-r.start > l.Head {
			return 0, refuse(494, "client sent too long header line: \"%s...\"", printable(firstLine(rest)))
		}
		if end < 0 {
			return 0, ErrMore
		}
		line := trimCR(rest[:end])
		if len(line) == 0 {
			return r.at + size, nil
		}
		f, bad := parseField(line)
		if bad >= 0 {
			return 0, &ParseError{400, invalidLine("client sent invalid header line", line, bad)}
		}
		if err := r.note(&f, l); err != nil {
			return 0, err
		}
		r.Fields = append(r.Fields, f)
		r.at += size
	}
}

// unique are the fields that nginx takes once only (ngx_http_headers_in).
const unique = 1<<Authorization | 1<<ContentLength | 1<<ContentRange | 1<<Expect | 1<<Host | 1<<IfMatch |
	1<<IfModifiedSince | 1<<IfNoneMatch | 1<<IfRange | 1<<IfUnmodifiedSince | 1<<ProxyAuthorization | 1<<TransferEncoding

// note takes what the connection depends on from a field.
func (r *Request) note(f *Field, l *Limits) error {
	if f.Odd {
		return nil
	}
	if r.plain++; l.Fields > 0 && r.plain > l.Fields {
		return refuse(494, "client sent too many header lines")
	}
	bit := uint64(1) << f.ID
	if r.seen&bit&unique != 0 {
		before := find(r.Fields, f.ID)
		what := "header line"
		if f.ID == Host {
			what = "host header"
		}
		return refuse(400, "client sent duplicate %s: \"%s: %s\", previous value: \"%s: %s\"", what,
			f.Name, printable(f.Value), before.Name, printable(before.Value))
	}
	r.seen |= bit
	switch f.ID {
	case Connection:
		o := options{r.Close, r.KeepAlive, r.Upgrade}
		o.read(f.Value)
		r.Close, r.KeepAlive, r.Upgrade = o.Close, o.KeepAlive, o.Upgrade
	case Expect:
		r.Expect100 = r.Minor >= 1 && equalFold(f.Value, "100-continue")
	default:
	}
	return nil
}

// check holds the whole head against RFC 9112, sections 3.2 and 6, in nginx's
// order (ngx_http_process_request_header).
func (r *Request) check() error {
	if r.seen&(1<<Host) == 0 && r.Minor >= 1 {
		return refuse(400, "client sent HTTP/1.1 request without \"Host\" header")
	}
	if r.seen&(1<<ContentLength) != 0 {
		var ok bool
		if r.ContentLength, ok = length(find(r.Fields, ContentLength).Value); !ok {
			r.ContentLength = -1
			return refuse(400, "client sent invalid \"Content-Length\" header")
		}
	}
	if r.seen&(1<<TransferEncoding) == 0 {
		return nil
	}
	if r.Minor == 0 {
		return refuse(400, "client sent HTTP/1.0 request with \"Transfer-Encoding\" header")
	}
	if v := find(r.Fields, TransferEncoding).Value; !equalFold(v, "chunked") {
		return refuse(501, "client sent unknown \"Transfer-Encoding\": \"%s\"", printable(v))
	}
	if r.seen&(1<<ContentLength) != 0 {
		return refuse(400, "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")
	}
	r.Chunked = true
	return nil
}

// Has says whether there is a field with an ID other than Other.
func (r *Request) Has(id HeaderID) bool { return r.seen&(1<<id) != 0 }
