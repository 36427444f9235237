package proxy

import (
	"proxyctl/proxy/http1"
	"proxyctl/proxy/upstream"
)

// The way of a request to a server of a group and of the answer back: connect,
// send, read the head, pass the body on, and ask the next server when one fails
// (ngx_http_upstream.c).

// upstreamScratch is what an exchange knows about the server it talks to.
type upstreamScratch struct {
	begun  bool
	vars   passVars
	block  *upstreamBlock
	group  *upstream.Group
	conf   *upstreamConf
	peer   *upstream.Peer
	name   string // of the peer, or of the group while there is none
	states []upstreamState

	// the request
	head             []byte // request line, fields, empty line, and the body of proxy_set_body
	headEnd          int
	uriStart, uriEnd int // of the request target in head
	isHead           bool
	streaming        bool  // the body is passed on while it comes
	chunked          bool  // in chunks
	bodyLength       int64 // as announced; -1: not at all
	setBody          []byte

	// the answer
	fields   []http1.Field // as received
	trailers []http1.Field

	attempt upstream.Attempt
}

// recycle keeps memory for the next exchange.
func (s *upstreamScratch) recycle() upstreamScratch {
	if !s.begun {
		return upstreamScratch{head: s.head, states: s.states, fields: s.fields, trailers: s.trailers}
	}
	head := s.head[:0]
	if cap(head) > maxKept {
		head = nil
	}
	clear(s.states)
	clear(s.fields)
	clear(s.trailers)
	return upstreamScratch{head: head, states: s.states[:0], fields: s.fields[:0], trailers: s.trailers[:0]}
}

// describe appends where the request goes, for the error log: scheme, peer and
// request target; nothing before a peer has been asked for.
func (s *upstreamScratch) describe(dst []byte) []byte {
	if s.name == "" {
		return dst
	}
	dst = append(append(dst, s.vars.scheme...), s.name...)
	if s.name[0] == 'u' { // nginx looks for "unix:" in this way
		dst = append(dst, ':')
	}
	return append(dst, s.head[s.uriStart:s.uriEnd]...)
}
