package proxy

import (
	"errors"
	"net"
	"os"
	"sync"

	"proxyctl/proxy/head"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/http2"
	"proxyctl/proxy/sock"
)

// http2Stream is the client's side of an exchange over HTTP/2.
type http2Stream struct {
	client client // the connection, as this request sees it
	st     *http2.Stream
	block  []byte // a header block being made
	ended  bool   // the answer is complete
}

var http2Streams = sync.Pool{New: func() any { return new(http2Stream) }}

// serveHTTP2 serves a connection that speaks HTTP/2: conn is nc or lies over
// it, and read has been read of it already.
func (c *client) serveHTTP2(conn net.Conn, nc *sock.Conn, read []byte) {
	conf := &c.endpoint.fallback.Level.Conf
	if c.sni != nil {
		conf = &c.sni.Level.Conf
	}
	h := http2.NewConn(conn, nc, c.http2Config(conf), c.serveStream, func(reason string) {
		c.logf(logInfo, "processing HTTP/2 connection", "%s", reason)
	})
	c.life.bound.Store(true)
	c.life.onEnd(h.Shutdown, h.Abort)
	h.Serve(read)
}

// http2Config says how a connection is read and written by a server's
// configuration.
func (c *client) http2Config(conf *Conf) *http2.Config {
	core := &conf.Core
	cfg := &http2.Config{
		Streams: conf.HTTP2.Streams, Window: conf.HTTP2.prereadSize,
		FieldSize: int(core.LargeBuffers.Size), HeadSize: int(core.LargeBuffers.Size) * core.LargeBuffers.Number, Fields: core.MaxHeaders,
		HeadTimeout: core.HeaderTimeout, IdleTimeout: core.KeepaliveTimeout, SendTimeout: core.SendTimeout,
		Requests: core.KeepaliveRequests, Age: core.KeepaliveTime,
		Workers: &c.rt.workers,
	}
	if core.LingeringClose != lingeringOff {
		cfg.LingerTime, cfg.LingerTimeout = core.LingeringTime, core.LingeringTimeout
	}
	return cfg
}

// serveStream answers one request.
func (c *client) serveStream(st *http2.Stream) {
	s := http2Streams.Get().(*http2Stream)
	s.client = *c
	s.client.requests = st.Requests - 1
	s.st, s.ended = st, false
	x := s.client.serve(&st.Req, s, false, st.Err)
	x.release()
	*s = http2Stream{block: s.block}
	http2Streams.Put(s)
}

// speaksHTTP2 says whether connections to the endpoint may begin with HTTP/2.
func (e *endpoint) speaksHTTP2() bool {
	return e.options.http2 || e.fallback.Level.Conf.HTTP2.Enabled
}

// misdirected says whether the request came over HTTP/2 or HTTP/3 for a server
// that does not speak it (ngx_http_v2_run_request,
// ngx_http_v3_process_request_header).
func (x *Exchange) misdirected() bool {
	switch x.stream.(type) {
	case *http2Stream:
		if x.client.endpoint.options.http2 || x.server.Level.Conf.HTTP2.Enabled {
			return false
		}
	case *http3Stream:
		if x.server.Level.Conf.HTTP3.enabled {
			return false
		}
	default:
		return false
	}
	x.Logf(logInfo, "client attempted to request the server name for which the negotiated protocol is disabled while reading client request headers")
	return true
}

// detectHTTP2 reads as much as it takes to see whether a client without TLS
// begins with HTTP/2 (ngx_http_wait_request_handler). read, which has been read
// already, is returned with what follows. False: there is nothing to serve.
func (c *client) detectHTTP2(nc *sock.Conn, read []byte) (all []byte, two, ok bool) {
	timeout := c.endpoint.fallback.Level.Conf.Core.HeaderTimeout
	nc.SetTimeout(0)
	nc.ReadUntil(timeout)
	defer nc.ReadUntil(0)
	buf := make([]byte, 1<<10)
	for {
		n := min(len(read), len(http2.Preface))
		if string(read[:n]) != http2.Preface[:n] {
			return read, false, true
		}
		if n == len(http2.Preface) {
			return read, true, true
		}
		m, err := c.top(nc).Read(buf)
		read = append(read, buf[:m]...)
		if err != nil {
			return read, false, false
		}
	}
}

func (s *http2Stream) buffered() ([]byte, bool)       { return s.st.Buffered() }
func (s *http2Stream) readBody(p []byte) (int, error) { return s.st.ReadBody(p) }
func (s *http2Stream) splitBody()                     {}
func (s *http2Stream) stopBody()                      { s.st.Discard() }
func (s *http2Stream) watch(gone func())              { s.st.Watch(gone) }
func (s *http2Stream) unwatch()                       { s.st.Unwatch() }
func (s *http2Stream) flush() error                   { return s.st.Flush() }
func (s *http2Stream) sent() (all, head int64)        { return s.st.Sent() }

func (s *http2Stream) setTimeouts(t *http1.Timeouts) { s.st.SetTimeouts(t.BodyTimeout, t.SendTimeout) }

// sendContinue does nothing: as nginx does, and as the window lets the client
// send from the start.
func (s *http2Stream) sendContinue() error { return nil }
func (s *http2Stream) withholdContinue()   {}

// admitBody lets the client send its body over HTTP/2: as fast as it can when it
// is stored, else as much at a time as nginx has a buffer for
// (ngx_http_v2_read_request_body).
func (x *Exchange) admitBody(stored bool) {
	s, two := x.stream.(*http2Stream)
	switch {
	case !two:
	case stored:
		s.st.AdmitAll()
	default:
		room := x.loc.Conf.Core.BodyBuffer
		if n := x.contentLength(); n >= 0 && n <= room {
			room = n + 1
		}
		s.st.Admit(room)
	}
}

// willWait says that the exchange is about to wait for something else than its
// client: the connection may be this goroutine's to read.
func (x *Exchange) willWait() {
	if s, two := x.stream.(*http2Stream); two {
		s.st.Wait()
	}
}

// hijack fails: there are no tunnels in HTTP/2 without extended CONNECT.
func (s *http2Stream) hijack() (rawConn, []byte, error) { return nil, nil, errors.ErrUnsupported }

// bodyRefused gives the status for a body that HTTP/2 has found wrong, 0 for
// other errors.
func (x *Exchange) bodyRefused(err error) Code {
	code := Code(0)
	switch {
	case errors.Is(err, head.ErrGone):
		code = statusClientClosed
	case errors.Is(err, head.ErrShort), errors.Is(err, head.ErrLong):
		code = 400
	default:
		return code
	}
	x.Logf(logInfo, "%v while reading client request body", err)
	return code
}

func (s *http2Stream) writeInterim(_ *Exchange, status int, fields []http1.Field) error {
	s.block = http2Fields.appendFields(http2.AppendStatus(s.block[:0], status), fields, -1)
	if err := s.st.WriteHead(s.block, false); err != nil {
		return err
	}
	return s.st.Flush()
}

// writeHead sends the head. The order of the fields is nginx's
// (ngx_http_v2_header_filter).
func (s *http2Stream) writeHead(x *Exchange) error {
	a := &x.Out
	s.block = http2Fields.appendAnswer(http2.AppendStatus(s.block[:0], a.Status), x)
	s.ended = x.headerOnly || a.ContentLength == 0
	return s.st.WriteHead(s.block, s.ended)
}

// sendFile sends most of a part of a file, in frames as large as http2_chunk_size
// allows, and returns how much that was: what is left makes no such frame.
func (s *http2Stream) sendFile(x *Exchange, f *os.File, buf []byte, offset, size int64) (int64, error) {
	chunk := min(int(x.loc.Conf.HTTP2.chunkSize), len(buf))
	sent, held := int64(0), 0
	for size-sent >= int64(chunk) {
		n, err := f.ReadAt(buf[held:held+int(min(size-sent-int64(held), int64(len(buf)-held)))], offset+sent+int64(held))
		if n == 0 && err != nil || held+n == 0 {
			return sent, nil // a file that has become shorter is the caller's matter
		}
		held += n
		done, err := s.st.WriteFrames(buf[:held], chunk)
		sent += int64(done)
		if err != nil || done == 0 {
			return sent, err
		}
		held = copy(buf, buf[done:held])
	}
	return sent, nil
}

// writeBody sends body bytes; after the last of them come the trailers.
func (s *http2Stream) writeBody(x *Exchange, p []byte, last bool) error {
	if s.ended {
		return nil
	}
	s.ended = last
	trailers := last && len(x.Out.Trailers) > 0
	if err := s.st.WriteData(p, int(x.loc.Conf.HTTP2.chunkSize), last && !trailers); err != nil || !trailers {
		return err
	}
	s.block = http2Fields.appendFields(s.block[:0], x.Out.Trailers, -1)
	return s.st.WriteHead(s.block, true)
}
