package head

import (
	"bytes"
	"errors"

	"proxyctl/proxy/http1"
)

// Request makes the head of a request of fields. Statuses and reasons are those of
// nginx (ngx_http_v2_pseudo_header, ngx_http_v2_run_request,
// ngx_http_v3_process_header).
type Request struct {
	Req   http1.Request
	Arena []byte // memory of Req

	version byte
	quote   string   // around names in reasons
	limit   int      // of fields but cookies
	crumbs  [][]byte // values of cookie fields
	regular bool     // regular fields have begun: no more pseudo-header fields
}

// Reset begins a head of a version of HTTP, 2 or 3, with a number of fields at
// most beside cookies; 0 for any.
func (r *Request) Reset(version byte, fields int) {
	r.Req.Reset()
	r.Req.Major, r.Req.Proto = int(version), protocols[version-2]
	r.version, r.quote, r.limit = version, quotes[version-2], fields
}

var (
	protocols = [...][]byte{[]byte("HTTP/2.0"), []byte("HTTP/3.0")}
	quotes    = [...]string{"", "\""}
)

// Recycle gives everything back but memory that is not too large.
func (r *Request) Recycle(most int) {
	arena, fields, crumbs := r.Arena[:0], r.Req.Fields[:0], r.crumbs[:0]
	if cap(arena) > most {
		arena = nil
	}
	*r = Request{Arena: arena, crumbs: crumbs, Req: http1.Request{Fields: fields}}
}

// The ways in which the body of a request can end early.
var (
	// ErrGone is for streams that the client has reset or whose connection is over.
	ErrGone = errors.New("client prematurely closed stream")
	// ErrShort is for bodies shorter than their Content-Length.
	ErrShort = errors.New("client prematurely closed stream: the request body is shorter than declared")
	// ErrLong is for bodies longer than their Content-Length.
	ErrLong = errors.New("client intended to send body data larger than declared")
)

func refused(reason string) *http1.ParseError {
	return &http1.ParseError{Status: 400, Reason: reason}
}

// about adds a name or value to a reason.
func about(reason string, b []byte) *http1.ParseError {
	return refused(reason + ": \"" + string(http1.Printable(b)) + "\"")
}

func parseError(err error) *http1.ParseError {
	if err == nil {
		return nil
	}
	var e *http1.ParseError
	if errors.As(err, &e) {
		return e
	}
	return refused(err.Error())
}

// Field takes a field of the request's head.
func (r *Request) Field(e *Field) *http1.ParseError {
	switch e.Bad {
	case BadName:
		return about("client sent invalid header name", e.Name)
	case BadValue:
		return about("client sent header \""+string(http1.Printable(e.Name))+"\" with invalid value", e.Value)
	case Fine:
	}
	if e.Name[0] == ':' {
		return r.pseudoField(string(e.Name), e.Value)
	}
	if !r.regular {
		if err := r.line(); err != nil {
			return err
		}
		r.regular = true
	}
	if e.ID == http1.Cookie {
		r.crumbs = append(r.crumbs, e.Value)
		return nil
	}
	return parseError(r.Req.Take(&e.Field, r.limit))
}

// pseudoField takes one of the fields that stand for the request line.
func (r *Request) pseudoField(name string, value []byte) *http1.ParseError {
	if r.regular {
		return refused("client sent out of order pseudo-headers")
	}
	req := &r.Req
	var to *[]byte
	valid := http1.IsTarget
	switch name {
	case ":method":
		to, valid = &req.Method, http1.IsMethod
	case ":scheme":
		to, valid = &req.Scheme, http1.IsScheme
	case ":path":
		to = &req.Path
	case ":authority":
		to = &req.Authority
	default:
		return refused("client sent unknown pseudo-header \"" + name + "\"")
	}
	if *to != nil {
		return refused("client sent duplicate " + r.quoted(name) + " header")
	}
	if len(value) == 0 {
		return refused("client sent empty " + r.quoted(name) + " header")
	}
	if *to = value; !valid(value) || name == ":path" && value[0] != '/' {
		return about("client sent invalid "+r.quoted(name)+" header", value)
	}
	return nil
}

// line makes the request line when all its parts are known.
func (r *Request) line() *http1.ParseError {
	req := &r.Req
	missing := ""
	switch {
	case req.Method == nil:
		missing = ":method"
	case req.Scheme == nil:
		missing = ":scheme"
	case req.Path == nil:
		missing = ":path"
	}
	if missing != "" {
		return refused("client sent no " + r.quoted(missing) + " header")
	}
	start := len(r.Arena)
	r.Arena = append(append(append(r.Arena, req.Method...), ' '), req.Path...)
	r.Arena = append(append(r.Arena, ' '), req.Proto...)
	req.Line = r.Arena[start:len(r.Arena):len(r.Arena)]
	req.Target = req.Path
	return nil
}

func (r *Request) quoted(name string) string { return r.quote + name + r.quote }

// Complete ends the head. With ended no body follows.
func (r *Request) Complete(ended bool) *http1.ParseError {
	if !r.regular {
		if err := r.line(); err != nil {
			return err
		}
	}
	r.joinCookies()
	return r.check(ended)
}

// joinCookies makes one field of the crumbs of the cookie (RFC 9113, section
// 8.2.3).
func (r *Request) joinCookies() {
	if len(r.crumbs) == 0 {
		return
	}
	value := r.crumbs[0]
	if len(r.crumbs) > 1 {
		start := len(r.Arena)
		for i, crumb := range r.crumbs {
			if i > 0 {
				r.Arena = append(r.Arena, "; "...)
			}
			r.Arena = append(r.Arena, crumb...)
		}
		value = r.Arena[start:len(r.Arena):len(r.Arena)]
	}
	r.add(cookieName, value)
}

// add adds a field that stands for others.
func (r *Request) add(name, value []byte) {
	f := http1.Classify(name, value)
	_ = r.Req.Take(&f, 0)
}

var (
	cookieName = []byte("cookie")
	hostName   = []byte("host")
	trailers   = []byte("trailers")
)

// connectionFields may not be in a request: they belong to connections of
// HTTP/1.1. Unlike nginx, which lets it pass, Proxy-Connection is one of them
// (RFC 9113, section 8.2.2).
var connectionFields = [...]struct {
	id   http1.HeaderID
	name string
}{
	{http1.Connection, "Connection"},
	{http1.KeepAlive, "Keep-Alive"},
	{http1.ProxyConnection, "Proxy-Connection"},
	{http1.TransferEncoding, "Transfer-Encoding"},
	{http1.Upgrade, "Upgrade"},
}

// check looks at the head as a whole, in nginx's order.
func (r *Request) check(ended bool) *http1.ParseError {
	req := &r.Req
	for _, f := range connectionFields {
		if req.Has(f.id) {
			return refused("client sent \"" + f.name + "\" header")
		}
	}
	if req.Has(http1.TE) && !r.teTrailers() {
		return refused("client sent invalid \"TE\" header")
	}
	host := req.Value(http1.Host)
	switch {
	case req.Authority == nil && len(host) == 0:
		return refused("client sent neither \":authority\" nor \"Host\" header")
	case req.Authority != nil && req.Has(http1.Host):
		if !bytes.Equal(host, req.Authority) {
			return refused("client sent \":authority\" and \"Host\" headers with different values")
		}
	case req.Authority != nil:
		r.add(hostName, req.Authority)
	}
	if err := req.TakeLength(); err != nil {
		return parseError(err)
	}
	switch {
	case ended && req.ContentLength > 0:
		return refused("client prematurely closed stream")
	case !ended && req.ContentLength < 0:
		req.Chunked = true // a body whose end will be seen
	case !ended && req.ContentLength == 0:
		req.Open = true
	}
	return nil
}

// teTrailers says whether TE says what it may, once.
func (r *Request) teTrailers() bool {
	n := 0
	for i := range r.Req.Fields {
		if f := &r.Req.Fields[i]; f.ID == http1.TE {
			n++
			if !bytes.EqualFold(f.Value, trailers) {
				return false
			}
		}
	}
	return n == 1
}
