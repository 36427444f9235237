package proxy

import (
	"proxyctl/parser"
)

// HTTP/2 towards clients: ngx_http_v2_module. The exchange itself is in
// stream_http2.go.

// http2Conf is what the module knows at a level.
type http2Conf struct {
	Enabled bool
	// Streams is how many requests of a connection may be served at a time.
	Streams int

	recvBuffer, poolSize, prereadSize, chunkSize int64
	indexSize                                    int
}

// http2Frame is the largest size of a frame, and most that http2_chunk_size
// can say (NGX_HTTP_V2_MAX_FRAME_SIZE).
const http2Frame = 1<<24 - 1

func http2Module() Module {
	return Module{
		Name: "ngx_http_v2_module", Commands: http2Commands(),
		Variables: []Variable{{Name: "http2", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if x.Req.Major != 2 {
				return dst, true
			}
			dst = append(dst, "h2"...)
			if !x.client.tls {
				dst = append(dst, 'c')
			}
			return dst, true
		}}},
		Init: func(c *Conf) {
			c.HTTP2 = http2Conf{Streams: 128, recvBuffer: 256 << 10, poolSize: 4 << 10, prereadSize: 64 << 10, chunkSize: 8 << 10, indexSize: 32}
		},
	}
}

func http2Commands() []Command {
	const in = InHTTP | InServer
	const memory = "memory is managed by the Go runtime"
	size := func(f func(h *http2Conf) *int64) func(*Conf) *int64 {
		return func(c *Conf) *int64 { return f(&c.HTTP2) }
	}
	rows := []Command{
		Flag(Command{Name: "http2", In: in, Default: "off", Differs: "frames and fields that RFC 9113 forbids end the stream or connection, also where nginx lets them pass", Doc: "Serves HTTP/2 beside HTTP/1.1."}, func(c *Conf) *bool { return &c.HTTP2.Enabled }),
		Number(Command{Name: "http2_max_concurrent_streams", In: in, Default: "128", Doc: "Limits the requests of a connection that are served at a time."}, func(c *Conf) *int { return &c.HTTP2.Streams }),
		checked(Size(Command{Name: "http2_body_preread_size", In: in, Default: "64k", Doc: "Sets how much of a request body may arrive before it is read."}, size(func(h *http2Conf) *int64 { return &h.prereadSize })),
			func(h *http2Conf) error {
				if h.prereadSize > 1<<31-1 {
					return say("the maximum body preread buffer size is %d", 1<<31-1)
				}
				return nil
			}),
		checked(Size(Command{Name: "http2_recv_buffer_size", In: InHTTP, Default: "256k", Doc: "Accepted without effect.", Status: NoEffect, Reason: memory}, size(func(h *http2Conf) *int64 { return &h.recvBuffer })),
			func(h *http2Conf) error {
				if h.recvBuffer <= 16 {
					return &confError{text: "value is too small"}
				}
				return nil
			}),
		checked(Size(Command{Name: "http2_pool_size", In: in, Default: "4k", Doc: "Accepted without effect.", Status: NoEffect, Reason: memory}, size(func(h *http2Conf) *int64 { return &h.poolSize })), checkPoolSize),
		checked(Number(Command{Name: "http2_streams_index_size", In: in, Default: "32", Doc: "Accepted without effect.", Status: NoEffect, Reason: memory}, func(c *Conf) *int { return &c.HTTP2.indexSize }),
			func(h *http2Conf) error {
				if n := h.indexSize; n == 0 || n&(n-1) != 0 {
					return &confError{text: "must be a power of two"}
				}
				return nil
			}),
		checked(Size(Command{Name: "http2_chunk_size", In: inHTTPLevels, Default: "8k", Doc: "Accepted without effect."}, size(func(h *http2Conf) *int64 { return &h.chunkSize })),
			func(h *http2Conf) error {
				if h.chunkSize == 0 {
					return say("the http2 chunk size cannot be zero")
				}
				h.chunkSize = min(h.chunkSize, http2Frame)
				return nil
			}),
	}
	return append(rows, http2Obsolete()...)
}

// checkPoolSize: the least is what the struct takes in nginx on 64 bits
// (NGX_MIN_POOL_SIZE).
func checkPoolSize(h *http2Conf) error {
	switch {
	case h.poolSize < 112:
		return say("the pool size must be no less than %d", 112)
	case h.poolSize%16 != 0:
		return say("the pool size must be a multiple of %d", 16)
	}
	return nil
}

// checked adds a check of the new value to a row.
func checked(c Command, check func(*http2Conf) error) Command {
	set := c.Set
	c.Set = func(l *Level, d *parser.Directive) error {
		if err := set(l, d); err != nil {
			return err
		}
		return check(&l.Conf.HTTP2)
	}
	return c
}

// http2Obsolete are the directives that nginx has put away: it warns and goes
// on (ngx_http_v2_obsolete).
func http2Obsolete() []Command {
	var out []Command
	for _, o := range []struct {
		name, instead string
		in            Context
		args          Arity
	}{
		{"http2_max_requests", "keepalive_requests", InHTTP | InServer, "1"},
		{"http2_max_field_size", "large_client_header_buffers", InHTTP | InServer, "1"},
		{"http2_max_header_size", "large_client_header_buffers", InHTTP | InServer, "1"},
		{"http2_recv_timeout", "client_header_timeout", InHTTP | InServer, "1"},
		{"http2_idle_timeout", "keepalive_timeout", InHTTP | InServer, "1"},
		{"http2_max_concurrent_pushes", "", InHTTP | InServer, "1"},
		{"http2_push", "", inHTTPLevels, "1"},
		{"http2_push_preload", "", inHTTPLevels, "1"},
	} {
		reason := "obsolete in nginx as well"
		if o.instead != "" {
			reason += ": " + o.instead + " counts"
		}
		out = append(out, Command{
			Name: o.name, In: o.in, Args: o.args, Repeat: true, Status: NoEffect, Reason: reason, Doc: "Accepted without effect.",
			Set: func(l *Level, d *parser.Directive) error {
				if o.instead == "" {
					l.warnAt(d, d.Name, "the %q directive is obsolete, ignored", o.name)
				} else {
					l.warnAt(d, d.Name, "the %q directive is obsolete, use the %q directive instead", o.name, o.instead)
				}
				return nil
			},
		})
	}
	return out
}
