package proxy

import (
	"bytes"

	"proxyctl/proxy/http1"
)

// The head of the answer: what servers say is checked, hidden, changed and put
// where nginx puts it (the table ngx_http_upstream_headers_in).

// answerField is what a field of an answer means here.
type answerField uint8

const (
	fieldOther answerField = iota
	fieldStatus
	fieldContentType
	fieldContentLength
	fieldDate
	fieldLastModified
	fieldETag
	fieldServer
	fieldLocation
	fieldRefresh
	fieldSetCookie
	fieldContentDisposition
	fieldCacheControl
	fieldExpires
	fieldAcceptRanges
	fieldUpgrade
	fieldConnection
	fieldKeepAlive
	fieldTransferEncoding
	fieldWWWAuthenticate
	fieldVary
	fieldAccelRedirect
	fieldAccelExpires
	fieldAccelLimitRate
	fieldAccelBuffering
	fieldAccelCharset
	fieldKinds
)

// answerFields says what the fields with an id mean.
var answerFields = [...]answerField{
	http1.ContentType: fieldContentType, http1.ContentLength: fieldContentLength, http1.Date: fieldDate,
	http1.LastModified: fieldLastModified, http1.ETag: fieldETag, http1.Server: fieldServer, http1.Location: fieldLocation,
	http1.Refresh: fieldRefresh, http1.SetCookie: fieldSetCookie, http1.CacheControl: fieldCacheControl,
	http1.Expires: fieldExpires, http1.AcceptRanges: fieldAcceptRanges, http1.Upgrade: fieldUpgrade,
	http1.Connection: fieldConnection, http1.KeepAlive: fieldKeepAlive, http1.TransferEncoding: fieldTransferEncoding,
	http1.WWWAuthenticate: fieldWWWAuthenticate, http1.Vary: fieldVary, http1.XAccelRedirect: fieldAccelRedirect,
	http1.XAccelExpires: fieldAccelExpires, http1.XAccelLimitRate: fieldAccelLimitRate,
	http1.XAccelBuffering: fieldAccelBuffering, http1.XAccelCharset: fieldAccelCharset,
}

func answerFieldOf(f *http1.Field) answerField {
	if f.ID != http1.Other {
		if int(f.ID) < len(answerFields) {
			return answerFields[f.ID]
		}
		return fieldOther
	}
	switch {
	case equalFold(f.Name, "status"):
		return fieldStatus
	case equalFold(f.Name, "content-disposition"):
		return fieldContentDisposition
	}
	return fieldOther
}

// onlyOnce are the fields of which nginx drops all but the first.
const onlyOnce = 1<<fieldStatus | 1<<fieldContentType | 1<<fieldDate | 1<<fieldLastModified | 1<<fieldETag | 1<<fieldServer |
	1<<fieldLocation | 1<<fieldRefresh | 1<<fieldExpires | 1<<fieldAccelRedirect | 1<<fieldAccelExpires | 1<<fieldAccelLimitRate

// readFields copies the fields of the answer into memory of the exchange, and
// notes what they mean.
func (x *Exchange) readFields(in []http1.Field) {
	u := &x.upstream
	a := &u.answer
	var first [fieldKinds]int // one more than the index in u.fields
	u.fields, u.kinds = u.fields[:0], u.kinds[:0]
	for i := range in {
		f := in[i]
		kind := answerFieldOf(&f)
		if before := first[kind]; before != 0 && onlyOnce&(1<<kind) != 0 {
			old := &u.fields[before-1]
			x.logUpstream(logWarn, "upstream sent duplicate header line: \"%s: %s\", previous value: \"%s: %s\", ignored",
				f.Name, f.Value, old.Name, old.Value)
			continue
		}
		start := len(x.arena)
		x.arena = append(append(x.arena, f.Name...), f.Value...)
		f.Name = x.arena[start : start+len(f.Name) : start+len(f.Name)]
		f.Value = x.arena[start+len(f.Name) : len(x.arena) : len(x.arena)]
		u.fields, u.kinds = append(u.fields, f), append(u.kinds, kind)
		if first[kind] == 0 {
			first[kind] = len(u.fields)
		}
		switch kind {
		case fieldAccelRedirect:
			if u.conf.ignore&ignoreRedirect == 0 {
				a.redirect = f.Value
			}
		case fieldAccelCharset:
			if u.conf.ignore&ignoreCharset == 0 {
				x.Out.overrideCharset = f.Value
			}
		case fieldAccelLimitRate:
			if n, ok := digits(string(f.Value)); ok && u.conf.ignore&ignoreLimitRate == 0 {
				x.limitRate, x.limitRateSet = n, true
			}
		case fieldAccelBuffering:
			if u.conf.ignore&ignoreBuffering == 0 && !u.conf.unbuffered {
				a.buffering = equalFold(f.Value, "yes") || a.buffering && !equalFold(f.Value, "no")
			}
		default:
		}
	}
	a.hasServer, a.hasDate = first[fieldServer] != 0, first[fieldDate] != 0
}

// upstreamAnswer is what the head of an answer comes to.
type upstreamAnswer struct {
	status        int
	line          []byte // "200 OK"
	contentLength int64  // -1: not said
	hasServer     bool
	hasDate       bool
	buffering     bool
	redirect      []byte // X-Accel-Redirect
}

// takeAnswer puts the head of the answer into x.Out
// (ngx_http_upstream_process_headers).
func (x *Exchange) takeAnswer() {
	u, out := &x.upstream, &x.Out
	if u.cache != nil {
		u.cache.settle()
	}
	c := u.conf
	a := &u.answer
	for i := range u.fields {
		if !c.hidden.has(&u.fields[i]) {
			x.takeField(u.kinds[i], &u.fields[i])
		}
	}
	if c.wire == wireHTTP1 || c.wire == wireHTTP2 { // applications are not asked to name themselves
		if !a.hasServer && !c.hidden.has(&serverField) {
			out.Server = nobody
		}
		if !a.hasDate && !c.hidden.has(&dateField) {
			out.Date = nobody
		}
	}
	out.Status, out.StatusLine = a.status, a.line
	out.ContentLength = a.contentLength
	out.passValidators = !u.cacheable()
	if c.forceRanges {
		out.AcceptRanges = true
	}
}

// answerRewriter puts what servers say about themselves into the words of this
// one. The results live as long as the exchange.
type answerRewriter interface {
	// rewriteAddress changes value from the given index on, an address.
	rewriteAddress(x *Exchange, value []byte, from int) ([]byte, bool)
	// rewriteCookie changes the value of a Set-Cookie.
	rewriteCookie(x *Exchange, value []byte) []byte
}

// nobody stands for a field that is not to be sent at all: it may be passed on,
// but the server has not sent it.
var (
	nobody      = []byte{}
	serverField = http1.Field{Name: []byte("Server"), ID: http1.Identify([]byte("Server"))}
	dateField   = http1.Field{Name: []byte("Date"), ID: http1.Identify([]byte("Date"))}
)

// takeField passes one field on.
func (x *Exchange) takeField(kind answerField, f *http1.Field) {
	u, out := &x.upstream, &x.Out
	switch kind {
	case fieldContentLength, fieldConnection, fieldKeepAlive, fieldTransferEncoding:
	case fieldContentType:
		out.setContentType(f.Value)
	case fieldServer:
		out.Server = nobody
		out.Fields = append(out.Fields, *f)
	case fieldDate:
		out.Date = nobody
		out.Fields = append(out.Fields, *f)
	case fieldLastModified:
		if u.conf.forceRanges || u.cacheable() { // conditions ask for it
			if t, ok := parseHTTPTime(f.Value); ok {
				out.LastModified = t
			}
		}
		out.Fields = append(out.Fields, *f)
	case fieldAcceptRanges:
		switch {
		case u.conf.forceRanges:
		case u.cacheable():
			out.AcceptRanges = true
		default:
			out.Fields = append(out.Fields, *f)
		}
	case fieldUpgrade:
		if _, one := x.stream.(*http1Stream); one {
			out.Fields = append(out.Fields, *f)
		}
	case fieldLocation:
		field := *f
		if u.rewriter != nil {
			var changed bool
			if field.Value, changed = u.rewriter.rewriteAddress(x, f.Value, 0); changed { // only then a path becomes an absolute address
				out.location = len(out.Fields)
			}
		}
		out.Fields = append(out.Fields, field)
	case fieldRefresh:
		field := *f
		if i := indexFold(f.Value, "url="); i >= 0 && u.rewriter != nil {
			field.Value, _ = u.rewriter.rewriteAddress(x, f.Value, i+4)
		}
		out.Fields = append(out.Fields, field)
	case fieldSetCookie:
		field := *f
		if u.rewriter != nil {
			field.Value = u.rewriter.rewriteCookie(x, f.Value)
		}
		out.Fields = append(out.Fields, field)
	default:
		out.Fields = append(out.Fields, *f)
	}
}

// indexFold finds a word without regard to case.
func indexFold(b []byte, word string) int {
	for i := 0; i+len(word) <= len(b); i++ {
		if equalFold(b[i:i+len(word)], word) {
			return i
		}
	}
	return -1
}

// followRedirect goes where X-Accel-Redirect says, with the few fields that
// keep their meaning for another answer.
func (x *Exchange) followRedirect() Code {
	u := &x.upstream
	for i := range u.fields {
		switch u.kinds[i] {
		case fieldContentType, fieldSetCookie, fieldContentDisposition, fieldCacheControl, fieldExpires, fieldAcceptRanges:
			x.takeField(u.kinds[i], &u.fields[i])
		default:
		}
	}
	target := u.answer.redirect
	if len(target) > 0 && target[0] == '@' {
		return x.redirectToNamed(target)
	}
	uri, args, ok := x.unsafeURI(target)
	if !ok {
		x.logUpstream(logError, "unsafe URI %q was detected", target)
		return 404
	}
	if !x.isMethod("HEAD") {
		x.method = "GET"
	}
	return x.redirectTo(uri, args)
}

// unsafeURI takes a URI from a server: decoded, and without a way out of its
// folder (ngx_http_parse_unsafe_uri).
func (x *Exchange) unsafeURI(target []byte) (uri, args []byte, ok bool) {
	uri, args = splitArgs(target)
	if len(uri) == 0 || leaves(uri) {
		return nil, nil, false
	}
	if bytes.IndexByte(uri, '%') >= 0 {
		start := len(x.arena)
		for i := 0; i < len(uri); i++ {
			c := uri[i]
			if c == '%' {
				if d, hex := unhex(uri[i+1:]); hex {
					c, i = d, i+2
				}
			}
			x.arena = append(x.arena, c)
		}
		uri = x.arena[start:len(x.arena):len(x.arena)]
	}
	return uri, args, !leaves(uri)
}

// leaves says whether a decoded path holds a ".." segment or a NUL.
func leaves(uri []byte) bool {
	if bytes.IndexByte(uri, 0) >= 0 {
		return true
	}
	for segment := range bytes.SplitSeq(uri, []byte("/")) {
		if string(segment) == ".." {
			return true
		}
	}
	return false
}
