package proxy

import (
	"errors"
	"os"
	"time"

	"proxyctl/proxy/http1"
)

// http1Stream is the client's side of an exchange over HTTP/1.x.
type http1Stream struct {
	client *client
	conn   *http1.Conn

	before    int64 // bytes sent when the request began
	headSize  int64
	pipelined bool // the request had arrived with the one before it
}

// serveHTTP1 is the handler of the connection's engine: one call a request.
func (c *client) serveHTTP1(conn *http1.Conn) {
	s := &c.http1
	s.before, s.headSize = conn.BytesOut, 0
	x := c.serve(&conn.Req, s, conn.KeepAlive, refusal(conn.Err))
	conn.KeepAlive = x.keepAlive
	if err := conn.Unsent(); err != nil && !conn.Aborted() {
		x.logUnsent(err)
	}
	if x.failed && x.loc.Conf.Core.ResetTimedOut && (conn.TimedOut() || x.Out.Status == 444) {
		conn.Reset()
	}
	x.release()
	s.pipelined = conn.Pipelined()
}

// logUnsent logs why the client did not get the whole answer.
func (x *Exchange) logUnsent(err error) {
	doing := "sending response to client"
	if x.upstream.peer != nil {
		doing = "sending to client"
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.Logf(logInfo, "client timed out (110: Connection timed out) while %s", doing)
		return
	}
	x.Logf(logInfo, "%v while %s", errorWithCode("send() failed", err), doing)
}

// refusal says why a head cannot be served; nil for one that can.
func refusal(err error) *http1.ParseError {
	if err == nil {
		return nil
	}
	var bad *http1.ParseError
	if !errors.As(err, &bad) {
		bad = &http1.ParseError{Status: 400, Reason: "client sent invalid request"}
	}
	return bad
}

// sent gives the bytes of the current answer on the wire, and those of its head.
func (s *http1Stream) sent() (all, head int64) {
	return s.conn.BytesOut + int64(len(s.conn.Out)) - s.before, s.headSize
}

func (s *http1Stream) buffered() ([]byte, bool)       { return s.conn.Buffered() }
func (s *http1Stream) readBody(p []byte) (int, error) { return s.conn.ReadBody(p) }
func (s *http1Stream) splitBody()                     { s.conn.Split() }
func (s *http1Stream) stopBody()                      { s.conn.StopBody() }
func (s *http1Stream) sendContinue() error            { return s.conn.Continue() }
func (s *http1Stream) withholdContinue()              { s.conn.WithholdContinue() }
func (s *http1Stream) watch(gone func())              { s.conn.Watch(gone) }
func (s *http1Stream) unwatch()                       { s.conn.Unwatch() }

func (s *http1Stream) setTimeouts(t *http1.Timeouts) {
	s.conn.SetTimeouts(t)
}

func (s *http1Stream) hijack() (rawConn, []byte, error) {
	c, rest := s.conn.Hijack()
	return c, rest, nil
}

func (s *http1Stream) writeInterim(_ *Exchange, status int, fields []http1.Field) error {
	out := http1.AppendStatusLine(s.conn.Out, status, reason(status))
	for i := range fields {
		out = http1.AppendField(out, fields[i].Name, fields[i].Value)
	}
	s.conn.Out = append(out, "\r\n"...)
	return s.conn.Flush()
}

// writeHead puts the head into the connection's output buffer. The order of
// the fields is nginx's (ngx_http_header_filter).
func (s *http1Stream) writeHead(x *Exchange) error {
	a := &x.Out
	out := s.conn.Out
	x.keepAlive = x.keepAlive && !s.conn.Closing() && !x.client.rt.closing.Load()
	if len(a.StatusLine) > 0 {
		out = append(append(append(out, "HTTP/1.1 "...), a.StatusLine...), "\r\n"...)
	} else {
		out = http1.AppendStatusLine(out, a.Status, reason(a.Status))
	}
	s.frame(x)
	absolute := x.absoluteLocation()
	out = x.appendStandardFields(out)
	for i := range a.Fields {
		if i != a.location || !absolute {
			out = http1.AppendField(out, a.Fields[i].Name, a.Fields[i].Value)
		}
	}
	out = append(out, "\r\n"...)
	s.headSize = int64(len(out) - len(s.conn.Out))
	s.conn.Out = out
	return nil
}

// frame decides how the body is delimited (ngx_http_chunked_filter_module).
func (s *http1Stream) frame(x *Exchange) {
	a := &x.Out
	if a.Status == 101 {
		a.Upgrade = true
		return
	}
	if a.expectTrailers { // other filters have seen the length
		a.ContentLength = -1
		a.Remove(http1.ContentLength)
	}
	if x.headerOnly || a.ContentLength >= 0 || a.Status < 300 && x.isMethod("CONNECT") {
		return
	}
	if _, has := a.Find(http1.ContentLength); has {
		return
	}
	if x.Req.Minor == 0 || !x.loc.Conf.Core.ChunkedTransferEncoding {
		x.keepAlive = false
		return
	}
	a.Chunked = true
}

// appendStandardFields appends the fields that the server itself answers for.
func (x *Exchange) appendStandardFields(out []byte) []byte {
	a := &x.Out
	if a.Server == nil {
		out = append(x.appendProduct(append(out, "Server: "...)), "\r\n"...)
	} else if len(a.Server) > 0 {
		out = http1.AppendField(out, []byte("Server"), a.Server)
	}
	if a.Date == nil {
		out = append(x.client.rt.sweeper.AppendDate(append(out, "Date: "...)), "\r\n"...)
	} else if len(a.Date) > 0 {
		out = http1.AppendField(out, []byte("Date"), a.Date)
	}
	if len(a.ContentType) > 0 {
		out = http1.AppendField(out, []byte("Content-Type"), x.fullContentType())
	}
	if a.ContentLength >= 0 {
		out = append(http1.AppendInt(append(out, "Content-Length: "...), a.ContentLength), "\r\n"...)
	}
	if a.LastModified >= 0 && !a.has(http1.LastModified) {
		out = append(http1.AppendTime(append(out, "Last-Modified: "...), a.LastModified), "\r\n"...)
	}
	if x.absoluteLocation() {
		out = append(x.appendAbsoluteLocation(append(out, "Location: "...)), "\r\n"...)
	}
	if a.Chunked {
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	out = x.appendConnection(out)
	if a.gzipVary {
		out = append(out, "Vary: Accept-Encoding\r\n"...)
	}
	return out
}

// fullContentType completes the type of the answer with its charset, unless it names one itself.
func (x *Exchange) fullContentType() []byte {
	a := &x.Out
	if len(a.Charset) > 0 && a.typeLength == 0 {
		a.ContentType = x.keep(a.ContentType, "; charset=", a.Charset)
	}
	return a.ContentType
}

func (x *Exchange) appendConnection(out []byte) []byte {
	switch {
	case x.Out.Status == 101:
		return append(out, "Connection: upgrade\r\n"...)
	case !x.keepAlive:
		return append(out, "Connection: close\r\n"...)
	}
	out = append(out, "Connection: keep-alive\r\n"...)
	if t := x.loc.Conf.Core.KeepaliveHeader; t > 0 {
		out = append(http1.AppendInt(append(out, "Keep-Alive: timeout="...), int64(t/time.Second)), "\r\n"...)
	}
	return out
}

// keptBack is how many body bytes wait for company before they are sent.
const keptBack = 16 << 10

// writeBody frames body bytes and sends them when enough have come together.
func (s *http1Stream) writeBody(x *Exchange, p []byte, last bool) error {
	if x.headerOnly {
		return nil
	}
	c := s.conn
	if x.Out.Chunked {
		if len(p) > 0 {
			c.Out = http1.AppendChunkHeader(c.Out, len(p))
		}
		if err := s.put(p); err != nil {
			return err
		}
		if len(p) > 0 {
			c.Out = append(c.Out, "\r\n"...)
		}
		if last {
			c.Out = appendTrailers(append(c.Out, "0\r\n"...), x.Out.Trailers)
		}
		return nil
	}
	return s.put(p)
}

// put copies small pieces to the output buffer and writes large ones through.
func (s *http1Stream) put(p []byte) error {
	c := s.conn
	if len(c.Out)+len(p) <= keptBack {
		c.Out = append(c.Out, p...)
		return nil
	}
	return c.WriteThrough(p)
}

func appendTrailers(out []byte, fields []http1.Field) []byte {
	for i := range fields {
		out = http1.AppendField(out, fields[i].Name, fields[i].Value)
	}
	return append(out, "\r\n"...)
}

func (s *http1Stream) flush() error { return s.conn.Flush() }

// forgetUnsent drops what has been kept back of an answer that ends here: a
// client need not see the beginning of what it cannot have.
func (x *Exchange) forgetUnsent() {
	if s, ok := x.stream.(*http1Stream); ok {
		s.conn.Out = s.conn.Out[:0]
	}
}
