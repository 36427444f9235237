package proxy

import (
	"errors"
	"sync"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/http3"
)

// http3Stream is the client's side of an exchange over HTTP/3.
type http3Stream struct {
	client client // the connection, as this request sees it
	st     *http3.Stream
	block  []byte // a field section being made
	ended  bool   // the answer is complete
}

var http3Streams = sync.Pool{New: func() any { return new(http3Stream) }}

// http3Config says how a connection is read and written by a server's
// configuration.
func http3Config(conf *Conf) *http3.Config {
	core := &conf.Core
	return &http3.Config{
		Streams:   conf.HTTP3.streams,
		FieldSize: int(core.LargeBuffers.Size), HeadSize: int(core.LargeBuffers.Size) * core.LargeBuffers.Number, Fields: core.MaxHeaders,
		HeadTimeout: core.HeaderTimeout, IdleTimeout: core.KeepaliveTimeout, SendTimeout: core.SendTimeout, LingerTime: core.LingeringTime,
		Requests: core.KeepaliveRequests, Age: core.KeepaliveTime,
	}
}

// serveHTTP3Stream answers one request.
func (c *client) serveHTTP3Stream(st *http3.Stream) {
	s := http3Streams.Get().(*http3Stream)
	s.client = *c
	s.client.requests = st.Requests - 1
	s.st, s.ended = st, false
	x := s.client.serve(&st.Req, s, false, st.Err)
	x.release()
	*s = http3Stream{block: s.block}
	http3Streams.Put(s)
}

func (s *http3Stream) buffered() ([]byte, bool)       { return s.st.Buffered() }
func (s *http3Stream) readBody(p []byte) (int, error) { return s.st.ReadBody(p) }
func (s *http3Stream) splitBody()                     {}
func (s *http3Stream) stopBody()                      { s.st.Discard() }
func (s *http3Stream) watch(gone func())              { s.st.Watch(gone) }
func (s *http3Stream) unwatch()                       { s.st.Unwatch() }
func (s *http3Stream) flush() error                   { return s.st.Flush() }
func (s *http3Stream) sent() (all, head int64)        { return s.st.Sent() }

func (s *http3Stream) setTimeouts(t *http1.Timeouts) { s.st.SetTimeouts(t.BodyTimeout, t.SendTimeout) }

// sendContinue does nothing: as nginx does, and as the window lets the client
// send from the start.
func (s *http3Stream) sendContinue() error { return nil }
func (s *http3Stream) withholdContinue()   {}

// hijack fails: there are no tunnels in HTTP/3 without extended CONNECT.
func (s *http3Stream) hijack() (rawConn, []byte, error) { return nil, nil, errors.ErrUnsupported }

// begin begins a field section with a status.
func (s *http3Stream) begin(status int) []byte {
	return http3.AppendStatus(http3.AppendPrefix(s.block[:0]), status)
}

func (s *http3Stream) writeInterim(_ *Exchange, status int, fields []http1.Field) error {
	s.block = http3Fields.appendFields(s.begin(status), fields, -1)
	if err := s.st.WriteHead(s.block, false); err != nil {
		return err
	}
	return s.st.Flush()
}

func (s *http3Stream) writeHead(x *Exchange) error {
	s.block = http3Fields.appendAnswer(s.begin(x.Out.Status), x)
	s.ended = x.headerOnly || x.Out.ContentLength == 0 && !x.Out.expectTrailers
	return s.st.WriteHead(s.block, s.ended)
}

// writeBody sends body bytes; after the last of them come the trailers.
func (s *http3Stream) writeBody(x *Exchange, p []byte, last bool) error {
	if s.ended {
		return nil
	}
	s.ended = last
	trailers := last && len(x.Out.Trailers) > 0
	if err := s.st.WriteData(p, last && !trailers); err != nil || !trailers {
		return err
	}
	s.block = http3Fields.appendFields(http3.AppendPrefix(s.block[:0]), x.Out.Trailers, -1)
	return s.st.WriteHead(s.block, true)
}
