package http1

import "bytes"

// Response is the head of a response. The slices belong to the read buffer.
type Response struct {
	Line          []byte // without the version: "200 OK"
	Status        int    // 100 to 999
	Reason        []byte
	Minor         int
	Fields        []Field
	ContentLength int64 // -1: none
	Chunked       bool
	Close         bool // words of Connection
	KeepAlive     bool
	Upgrade       bool
}

// Reset forgets a head.
func (r *Response) Reset() {
	*r = Response{Fields: r.Fields[:0], ContentLength: -1}
}

// Parse reads a head from the start of b and returns its length. ErrMore asks
// for more bytes; any other error is a *ParseError with status 502. The reasons
// are those of nginx (ngx_http_proxy_process_header).
func (r *Response) Parse(b []byte, l *Limits) (int, error) {
	r.Reset()
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if !startsLikeHead(b) {
			return 0, refuse(502, "upstream sent no valid HTTP/1.0 header")
		}
		return 0, r.more(b, l)
	}
	if !r.parseLine(trimCR(b[:end])) {
		return 0, refuse(502, "upstream sent no valid HTTP/1.0 header")
	}
	return r.parseFields(b, end+1, l)
}

// parseFields reads the fields that begin at b[at], and the empty line.
func (r *Response) parseFields(b []byte, at int, l *Limits) (int, error) {
	for {
		end := bytes.IndexByte(b[at:], '\n')
		if end < 0 {
			return 0, r.more(b, l)
		}
		line := trimCR(b[at : at+end])
		at += end + 1
		if at > l.Head || end+1 > l.Line || l.Fields > 0 && len(r.Fields) > l.Fields {
			return 0, refuse(502, "upstream sent too big header")
		}
		if len(line) == 0 {
			return at, r.check()
		}
		f, bad := parseField(line)
		if bad >= 0 {
			return 0, &ParseError{502, invalidLine("upstream sent invalid header", line, bad)}
		}
		r.Fields = append(r.Fields, f)
		if err := r.note(&f); err != nil {
			return 0, err
		}
	}
}

func (r *Response) more(b []byte, l *Limits) error {
	if len(b) >= l.Head {
		return refuse(502, "upstream sent too big header")
	}
	return ErrMore
}

const versionStart = "HTTP/1."

// startsLikeHead says whether b can become a status line.
//
// Unlike nginx, which takes whatever else comes for the body of an HTTP/0.9
// answer, such an answer is refused.
func startsLikeHead(b []byte) bool {
	n := min(len(b), len(versionStart))
	return string(b[:n]) == versionStart[:n]
}

// parseLine reads "HTTP/1.1 200 OK"; the reason may be missing.
func (r *Response) parseLine(line []byte) bool {
	if len(line) < 12 || string(line[:7]) != versionStart || line[7] < '0' || line[7] > '9' || line[8] != ' ' {
		return false
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return false
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || len(line) > 12 && line[12] != ' ' || control(line) >= 0 {
		return false
	}
	r.Minor = int(line[7] - '0')
	r.Line = line[9:]
	if len(line) > 13 {
		r.Reason = line[13:]
	}
	return true
}

// note takes framing and the words of Connection from a field.
func (r *Response) note(f *Field) error {
	switch f.ID {
	case ContentLength:
		if r.ContentLength >= 0 {
			return r.duplicate(f)
		}
		n, ok := length(f.Value)
		if !ok {
			return refuse(502, "upstream sent invalid \"Content-Length\" header: \"%s: %s\"", f.Name, printable(f.Value))
		}
		r.ContentLength = n
	case TransferEncoding:
		if r.Chunked {
			return r.duplicate(f)
		}
		if !equalFold(f.Value, "chunked") {
			return refuse(502, "upstream sent unknown \"Transfer-Encoding\": \"%s\"", printable(f.Value))
		}
		r.Chunked = true
	case Connection:
		o := options{r.Close, r.KeepAlive, r.Upgrade}
		o.read(f.Value)
		r.Close, r.KeepAlive, r.Upgrade = o.Close, o.KeepAlive, o.Upgrade
	default:
	}
	return nil
}

func (r *Response) duplicate(f *Field) error {
	before := find(r.Fields, f.ID)
	return refuse(502, "upstream sent duplicate header line: \"%s: %s\", previous value: \"%s: %s\"",
		f.Name, printable(f.Value), before.Name, printable(before.Value))
}

// check holds the framing against RFC 9112, section 6.3.
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
