package http2

import (
	"bytes"
	"errors"

	"proxyctl/proxy/http1"
)

// How the fields of a header block become the head of a request. Statuses and
// reasons are those of nginx (ngx_http_v2_pseudo_header, ngx_http_v2_run_request).

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

// field takes a field of the request's head.
func (s *Stream) field(e *entry) *http1.ParseError {
	switch e.bad {
	case badName:
		return about("client sent invalid header name", e.Name)
	case badValue:
		return about("client sent header \""+string(http1.Printable(e.Name))+"\" with invalid value", e.Value)
	case fine:
	}
	if e.Name[0] == ':' {
		return s.pseudoField(string(e.Name), e.Value)
	}
	if !s.pseudo {
		if err := s.line(); err != nil {
			return err
		}
		s.pseudo = true
	}
	if e.ID == http1.Cookie {
		s.crumbs = append(s.crumbs, e.Value)
		return nil
	}
	return parseError(s.Req.Take(&e.Field, s.conn.cfg.Fields))
}

// pseudoField takes one of the fields that stand for the request line.
func (s *Stream) pseudoField(name string, value []byte) *http1.ParseError {
	if s.pseudo {
		return refused("client sent out of order pseudo-headers")
	}
	r := &s.Req
	var to *[]byte
	valid := http1.IsTarget
	switch name {
	case ":method":
		to, valid = &r.Method, http1.IsMethod
	case ":scheme":
		to, valid = &r.Scheme, http1.IsScheme
	case ":path":
		to = &r.Path
	case ":authority":
		to = &r.Authority
	default:
		return refused("client sent unknown pseudo-header \"" + name + "\"")
	}
	if *to != nil {
		return refused("client sent duplicate " + name + " header")
	}
	if len(value) == 0 {
		return refused("client sent empty " + name + " header")
	}
	if *to = value; !valid(value) || name == ":path" && value[0] != '/' {
		return about("client sent invalid "+name+" header", value)
	}
	return nil
}

// line makes the request line when all its parts are known.
func (s *Stream) line() *http1.ParseError {
	r := &s.Req
	switch {
	case r.Method == nil:
		return refused("client sent no :method header")
	case r.Scheme == nil:
		return refused("client sent no :scheme header")
	case r.Path == nil:
		return refused("client sent no :path header")
	}
	start := len(s.arena)
	s.arena = append(append(append(s.arena, r.Method...), ' '), r.Path...)
	s.arena = append(append(s.arena, ' '), proto...)
	r.Line = s.arena[start:len(s.arena):len(s.arena)]
	r.Target = r.Path
	return nil
}

// complete ends the head; the caller holds the lock. With ended no body follows.
func (s *Stream) complete(ended bool) {
	if s.Err == nil && !s.pseudo {
		s.Err = s.line()
	}
	if s.Err == nil {
		s.joinCookies()
		s.Err = s.check(ended)
	}
	if s.Err != nil {
		s.discard = true
	}
}

// joinCookies makes one field of the crumbs of the cookie (RFC 9113, section
// 8.2.3).
func (s *Stream) joinCookies() {
	if len(s.crumbs) == 0 {
		return
	}
	value := s.crumbs[0]
	if len(s.crumbs) > 1 {
		start := len(s.arena)
		for i, crumb := range s.crumbs {
			if i > 0 {
				s.arena = append(s.arena, "; "...)
			}
			s.arena = append(s.arena, crumb...)
		}
		value = s.arena[start:len(s.arena):len(s.arena)]
	}
	s.add(cookieName, value)
}

// add adds a field that stands for others.
func (s *Stream) add(name, value []byte) {
	f := http1.Classify(name, value)
	_ = s.Req.Take(&f, 0)
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
func (s *Stream) check(ended bool) *http1.ParseError {
	r := &s.Req
	for _, f := range connectionFields {
		if r.Has(f.id) {
			return refused("client sent \"" + f.name + "\" header")
		}
	}
	if r.Has(http1.TE) && !s.teTrailers() {
		return refused("client sent invalid \"TE\" header")
	}
	host := r.Value(http1.Host)
	switch {
	case r.Authority == nil && len(host) == 0:
		return refused("client sent neither \":authority\" nor \"Host\" header")
	case r.Authority != nil && r.Has(http1.Host):
		if !bytes.Equal(host, r.Authority) {
			return refused("client sent \":authority\" and \"Host\" headers with different values")
		}
	case r.Authority != nil:
		s.add(hostName, r.Authority)
	}
	if err := r.TakeLength(); err != nil {
		return parseError(err)
	}
	switch {
	case ended && r.ContentLength > 0:
		return refused("client prematurely closed stream")
	case !ended && r.ContentLength < 0:
		r.Chunked = true // a body whose end will be seen
	}
	return nil
}

// teTrailers says whether TE says what it may, once.
func (s *Stream) teTrailers() bool {
	n := 0
	for i := range s.Req.Fields {
		if f := &s.Req.Fields[i]; f.ID == http1.TE {
			n++
			if !bytes.EqualFold(f.Value, trailers) {
				return false
			}
		}
	}
	return n == 1
}
