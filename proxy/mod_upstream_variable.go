package proxy

import (
	"bytes"
	"strconv"
	"time"

	"proxyctl/proxy/http1"
)

// $upstream_*: what happened on the way to a server.

// upstreamState is one attempt at one server. A state without a peer ends the
// attempts of one pass; those of another pass after an internal redirect follow.
type upstreamState struct {
	peer     string
	status   int
	response int64 // nanoseconds; -1: not over
	connect  int64 // -1: never connected
	header   int64 // -1: no head
	length   int64 // of the body
	received int64
	sent     int64
}

// attemptVariables are those that requests and sessions have in common.
func attemptVariables() []Variable {
	return []Variable{
		stateVariable("upstream_addr", func(dst []byte, s *upstreamState) []byte { return append(dst, s.peer...) }),
		durationVariable("upstream_connect_time", func(s *upstreamState) int64 { return s.connect }),
		numberVariable("upstream_bytes_received", func(s *upstreamState) int64 { return s.received }),
		numberVariable("upstream_bytes_sent", func(s *upstreamState) int64 { return s.sent }),
	}
}

func sessionUpstreamVariables() []Variable {
	return append(attemptVariables(),
		durationVariable("upstream_first_byte_time", func(s *upstreamState) int64 { return s.header }),
		durationVariable("upstream_session_time", func(s *upstreamState) int64 { return s.response }),
	)
}

func upstreamVariables() []Variable {
	rows := append(attemptVariables(),
		stateVariable("upstream_status", func(dst []byte, s *upstreamState) []byte {
			if s.status == 0 {
				return append(dst, '-')
			}
			return strconv.AppendInt(dst, int64(s.status), 10)
		}),
		durationVariable("upstream_header_time", func(s *upstreamState) int64 { return s.header }),
		durationVariable("upstream_response_time", func(s *upstreamState) int64 { return s.response }),
		numberVariable("upstream_response_length", func(s *upstreamState) int64 { return s.length }),
	)
	rows = append(rows, cacheVariables()...)
	return append(rows,
		Variable{Name: "upstream_http_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
			return appendFields(dst, x.upstream.fields, name, ", ")
		}},
		Variable{Name: "upstream_trailer_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
			return appendFields(dst, x.upstream.trailers, name, ", ")
		}},
		Variable{Name: "upstream_cookie_", Prefix: true, Get: upstreamCookie},
	)
}

// durationVariable lists times in seconds with three decimals, "-" for none.
func durationVariable(name string, of func(s *upstreamState) int64) Variable {
	return stateVariable(name, func(dst []byte, s *upstreamState) []byte {
		ns := of(s)
		if ns < 0 {
			return append(dst, '-')
		}
		return appendMillis(dst, ns/int64(time.Millisecond))
	})
}

func numberVariable(name string, of func(s *upstreamState) int64) Variable {
	return stateVariable(name, func(dst []byte, s *upstreamState) []byte { return strconv.AppendInt(dst, of(s), 10) })
}

// stateVariable makes a variable that lists something of every attempt:
// "a, b" within a pass, " : " between passes.
func stateVariable(name string, one func(dst []byte, s *upstreamState) []byte) Variable {
	return Variable{Name: name, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
		states := x.upstream.states
		if len(states) == 0 {
			return dst, false
		}
		for i := 0; ; {
			dst = one(dst, &states[i])
			if i++; i == len(states) {
				return dst, true
			}
			if states[i].peer != "" {
				dst = append(dst, ", "...)
				continue
			}
			dst = append(dst, " : "...)
			if i++; i == len(states) {
				return dst, true
			}
		}
	}}
}

// upstreamCookie finds the value of a cookie that the server set.
func upstreamCookie(dst []byte, x *Exchange, name string) ([]byte, bool) {
	for i := range x.upstream.fields {
		f := &x.upstream.fields[i]
		if f.ID != http1.SetCookie {
			continue
		}
		key, value, ok := bytes.Cut(f.Value, []byte("="))
		if ok && equalFold(bytes.TrimRight(key, " "), name) {
			value, _, _ = bytes.Cut(bytes.TrimLeft(value, " "), []byte(";"))
			return append(dst, value...), true
		}
	}
	return dst, false
}

func proxyVariables() []Variable {
	passed := func(get func(dst []byte, x *Exchange) []byte) func([]byte, *Exchange, string) ([]byte, bool) {
		return func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if !x.upstream.begun {
				return dst, false
			}
			n := len(dst)
			dst = get(dst, x)
			return dst, len(dst) > n
		}
	}
	return []Variable{
		{Name: "proxy_host", Changeable: true, Get: passed(func(dst []byte, x *Exchange) []byte { return append(dst, x.upstream.vars.host...) })},
		{Name: "proxy_port", Changeable: true, Get: passed(func(dst []byte, x *Exchange) []byte { return append(dst, x.upstream.vars.port...) })},
		{Name: "proxy_add_x_forwarded_for", Get: forwardedFor},
		{Name: "proxy_internal_body_length", Get: passed(func(dst []byte, x *Exchange) []byte {
			if x.upstream.bodyLength < 0 {
				return dst
			}
			return strconv.AppendInt(dst, x.upstream.bodyLength, 10)
		})},
		{Name: "proxy_internal_chunked", Get: passed(func(dst []byte, x *Exchange) []byte {
			if !x.upstream.chunked {
				return dst
			}
			return append(dst, "chunked"...)
		})},
	}
}

// forwardedFor is the client's X-Forwarded-For with the client's address added.
func forwardedFor(dst []byte, x *Exchange, _ string) ([]byte, bool) {
	for i := range x.Req.Fields {
		if f := &x.Req.Fields[i]; f.ID == http1.XForwardedFor {
			dst = append(append(dst, f.Value...), ", "...)
		}
	}
	if a := x.RemoteAddr(); a.IsValid() {
		return a.AppendTo(dst), true
	}
	return append(dst, "unix:"...), true
}
