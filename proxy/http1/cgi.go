package http1

import "bytes"

// Answers in the form of CGI (RFC 3875, section 6): fields without a status
// line, the status in one of them.

// ParseCGI reads a head from the start of b and returns its length, like Parse.
// With line, a status line of HTTP may stand in front, as uWSGI and some SCGI
// servers send it. Line is nil when the server gave no reason.
func (r *Response) ParseCGI(b []byte, l *Limits, line bool) (int, error) {
	r.Reset()
	at := 0
	if line {
		switch end := bytes.IndexByte(b, '\n'); {
		case end < 0 && startsLikeHead(b):
			return 0, r.more(b, l)
		case end >= 0 && r.parseLine(trimCR(b[:end])):
			at = end + 1
		default:
			r.Reset()
		}
	}
	n, err := r.parseFields(b, at, l)
	if err != nil || at > 0 {
		return n, err
	}
	return n, r.findStatus()
}

// findStatus takes the status from the fields: Status says it, else Location
// makes it a redirect.
func (r *Response) findStatus() error {
	r.Status, r.Line = 200, okLine
	for i := range r.Fields {
		f := &r.Fields[i]
		switch {
		case f.ID == Location:
			r.Status, r.Line = 302, movedLine
		case equalFold(f.Name, "status"):
			return r.readStatus(f.Value)
		}
	}
	return nil
}

var (
	okLine    = []byte("200 OK")
	movedLine = []byte("302 Moved Temporarily")
)

// readStatus reads "404 Not Found"; the reason may be missing.
//
// Unlike nginx, which takes whatever follows three digits for the reason, only
// a space may.
func (r *Response) readStatus(v []byte) error {
	n, ok := length(v[:min(len(v), 3)])
	if !ok || n < 100 || len(v) > 3 && v[3] != ' ' {
		return refuse(502, "upstream sent invalid status \"%s\"", printable(v))
	}
	r.Status, r.Line = int(n), nil
	if len(v) > 3 {
		r.Line, r.Reason = v, v[4:]
	}
	return nil
}
