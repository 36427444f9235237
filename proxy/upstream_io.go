package proxy

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
	"syscall"
	"time"

	"proxyctl/proxy/http1"
)

// Talking to one server: getting a connection, sending the request, passing the
// body of the answer on.

// clientWatch connects the client's side with the connection to the server: if
// the client goes away, waiting for the server ends.
type clientWatch struct {
	mu   sync.Mutex
	conn *upstreamConn
	gone bool
	call func() // goes to stream.watch; made once
}

// watchClient begins to look whether the client goes away.
func (x *Exchange) watchClient() {
	u := &x.upstream
	if u.watch == nil {
		w := &clientWatch{}
		w.call = func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone = true
			if w.conn != nil {
				w.conn.abort()
			}
		}
		u.watch = w
	}
	u.watch.mu.Lock()
	u.watch.gone, u.watch.conn = false, nil
	u.watch.mu.Unlock()
	u.watching = true
	x.stream.watch(u.watch.call)
}

func (x *Exchange) unwatchClient() {
	x.stream.unwatch()
	x.upstream.watching = false
}

// gone says whether the client has gone away.
func (s *upstreamScratch) gone() bool {
	if !s.watching {
		return false
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.watch.gone
}

// use makes conn the connection that ends when the client goes away. False
// when it has gone already.
func (s *upstreamScratch) use(conn *upstreamConn) bool {
	s.conn = conn
	if !s.watching {
		return true
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.conn = conn
	return !s.watch.gone
}

// take ends the use of the connection.
func (s *upstreamScratch) take() *upstreamConn {
	conn := s.conn
	s.use(nil)
	return conn
}

// drop closes the connection.
func (s *upstreamScratch) drop() {
	if conn := s.take(); conn != nil {
		conn.close()
	}
}

// countSent notes what a connection has sent and received for this attempt.
func (s *upstreamScratch) countSent() {
	if s.conn != nil {
		st := s.state()
		st.sent, st.received = s.conn.sent, s.conn.received
	}
}

// keepOrClose keeps the connection for another request if it is fit for one.
func (s *upstreamScratch) keepOrClose() {
	conn := s.take()
	if conn == nil {
		return
	}
	if s.sentAll && conn.reusable() && !s.answer.close && s.block != nil && s.block.idle != nil && s.peer != nil {
		conn.rest()
		if s.block.idle.Put(s.peer, s.poolKey(), conn, conn.requests, conn.born, nanos()) {
			return
		}
	}
	conn.close()
}

// poolKey tells kept connections apart that must not be mixed: those of one
// location under "local", those with other settings of TLS.
func (s *upstreamScratch) poolKey() string {
	if s.block.local {
		return s.conf.key
	}
	if s.tls != nil {
		return s.tls.client.key
	}
	return ""
}

// connect gets a connection to the chosen server, a kept one if there is one.
func (x *Exchange) connect(c *proxyConf) verdict {
	u := &x.upstream
	if !u.fresh && u.block != nil && u.block.idle != nil {
		for {
			conn, ok := u.block.idle.Get(u.peer, u.poolKey(), nanos())
			if !ok {
				break
			}
			if !x.idempotent() && conn.closedByServer() {
				conn.close()
				continue
			}
			conn.begin(true)
			u.state().connect = 0
			if !u.use(conn) {
				return x.attemptFailed(io.EOF, "")
			}
			return verdict{}
		}
	}
	u.action = connecting
	conn, err := dialUpstream(x, &c.upstreamConf, u.peer)
	if err != nil {
		return x.dialFailed(err)
	}
	if !u.use(conn) {
		return x.attemptFailed(io.EOF, "")
	}
	u.state().connect = nanos() - u.since
	if u.tls != nil {
		if v := x.handshake(c, conn); v != (verdict{}) {
			return v
		}
		u.state().connect = nanos() - u.since
	}
	conn.begin(false)
	return verdict{}
}

// dialFailed logs why there is no connection. What fails at once is named with
// its address by nginx, what the network reports later is not.
func (x *Exchange) dialFailed(err error) verdict {
	e := errnoOf(err)
	switch {
	case x.upstream.gone():
		return x.attemptFailed(err, "")
	case isTimeout(err):
		return verdict{next: nextTimeout}
	case x.upstream.peer.Network == "unix":
		level := logCrit
		if isConnectError(e) {
			level = logError
		}
		x.logUpstream(level, "connect() to %s failed (%d: %s)", x.upstream.name, int(e), sysText(e))
	case isUnreachable(e):
		x.logUpstream(logError, "connect() to %s failed (%d: %s)", x.upstream.name, int(e), sysText(e))
	case e == 0:
		x.logUpstream(logError, "connect() failed (%s)", err)
	default:
		x.logUpstream(logError, "connect() failed (%d: %s)", int(e), sysText(e))
	}
	return verdict{next: nextError}
}

// handshake begins TLS on a new connection.
func (x *Exchange) handshake(c *proxyConf, conn *upstreamConn) verdict {
	u := &x.upstream
	u.action = handshaking
	client := c.tls.client
	config, name, err := client.connection(x, &c.tls, x.sslName())
	if err != nil {
		x.Logf(logError, "%s", err)
		return verdict{code: 500}
	}
	t, err := conn.startTLS(config, u.conf.connectTimeout)
	if err != nil {
		switch {
		case u.gone():
			return x.attemptFailed(err, "")
		case isTimeout(err):
			return verdict{next: nextTimeout}
		case errors.Is(err, io.EOF):
			x.logUpstream(logError, "peer closed connection in SSL handshake")
		default:
			x.logUpstream(logError, "SSL_do_handshake() failed (SSL: %s)", err)
		}
		return verdict{next: nextError}
	}
	state := t.ConnectionState()
	if err := client.check(&state, name, time.Now()); err != nil {
		x.logUpstream(logError, "%s", err)
		return verdict{next: nextError}
	}
	return verdict{}
}

// sslName is the name a certificate must have unless proxy_ssl_name says
// otherwise: that of the group, or of the server in the variable.
func (x *Exchange) sslName() string {
	if b := x.upstream.block; b != nil {
		return b.name
	}
	return x.upstream.group.Name
}

// joined is up to which size a body is sent in one piece with the head.
const joined = 16 << 10

// clientFault is an error of the client's side while the request is passed on.
type clientFault struct{ code Code }

func (e *clientFault) Error() string { return "the client's side failed" }

// sendRequest sends the request: head and small bodies in one write.
func (x *Exchange) sendRequest(c *proxyConf) error {
	u := &x.upstream
	u.action, u.sent = sending, true
	head, rest := u.head, []byte(nil)
	if u.streaming {
		return x.sendStream(c)
	}
	if c.body == nil && c.passBody {
		rest = x.body.data
	}
	if n := len(head); len(rest) > 0 && len(rest) <= joined {
		head, rest = append(head, rest...), nil
		u.head = head[:n] // keeps the room for the next time
	}
	if err := u.conn.send(head, u.conf.sendTimeout); err != nil {
		return err
	}
	if len(rest) > 0 {
		if err := u.conn.send(rest, u.conf.sendTimeout); err != nil {
			return err
		}
	}
	if c.body == nil && c.passBody && x.body.file != nil {
		if err := x.sendFileBody(); err != nil {
			return err
		}
	}
	u.sentAll = true
	return nil
}

// sendFileBody sends a body that did not fit in memory.
func (x *Exchange) sendFileBody() error {
	u := &x.upstream
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	for offset := int64(0); offset < x.body.size; {
		n, err := x.body.file.ReadAt(buf[:min(int64(len(buf)), x.body.size-offset)], offset)
		if n == 0 {
			x.Logf(logCrit, "%s", SystemError("pread()", x.body.path, err))
			return &clientFault{500}
		}
		if err := u.conn.send(buf[:n], u.conf.sendTimeout); err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// sendStream passes the body on while it comes. It ends early when the server
// answers before it has read everything.
func (x *Exchange) sendStream(c *proxyConf) error {
	u := &x.upstream
	x.bodyRead = true
	if code := x.expectBody(); code != OK {
		return &clientFault{code}
	}
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	out := append(buf[:0], u.head...)
	if len(out) > len(buf)/2 { // a head that leaves no room goes first
		if err := u.conn.send(out, u.conf.sendTimeout); err != nil {
			return err
		}
		out = buf[:0]
	}
	const room = 32 // for the size of a chunk before it and what follows
	for {
		at := len(out) + room
		n, err := x.stream.readBody(buf[at : len(buf)-room])
		if code := x.countBody(n); code != OK {
			return &clientFault{code}
		}
		if err != nil && err != io.EOF {
			return &clientFault{x.bodyFailed(err)}
		}
		out = frameChunk(out, buf[at:at+n], u.chunked, err == io.EOF)
		if err := u.conn.send(out, u.conf.sendTimeout); err != nil {
			return err
		}
		out = buf[:0]
		if err == io.EOF {
			u.sentAll = true
			return nil
		}
		if u.conn.answered() {
			x.keepAlive = false
			return nil
		}
	}
}

// frameChunk appends a piece of a body, in the form of a chunk if need be.
// piece may lie behind out in the same memory, with room for the frame.
func frameChunk(out, piece []byte, chunked, last bool) []byte {
	if chunked && len(piece) > 0 {
		out = http1.AppendChunkHeader(out, len(piece))
	}
	out = append(out, piece...)
	if chunked && len(piece) > 0 {
		out = append(out, "\r\n"...)
	}
	if chunked && last {
		out = append(out, "0\r\n\r\n"...)
	}
	return out
}

// pieces are buffers for bodies on their way.
var pieces = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// passAnswer passes the body of the answer on to the client.
func (x *Exchange) passAnswer(c *proxyConf) Code {
	u := &x.upstream
	u.action = readingBody
	rate := rateLimit(x, c.limitRate)
	held := int64(0)
	for {
		most := math.MaxInt
		if rate.bytes > 0 && u.answer.buffering {
			most = rate.wait(most)
		}
		p, err := u.conn.next(most, u.conf.readTimeout)
		u.state().length += int64(len(p))
		rate.count(len(p))
		if err != nil && err != io.EOF {
			return x.bodyBroken(p, err)
		}
		last := err == io.EOF
		if last && c.passTrailers {
			x.takeTrailers(c)
		}
		if len(p) > 0 || last {
			if x.WriteBody(p, last) != nil {
				return Abort
			}
		}
		if last {
			x.warnExcess()
			return Done
		}
		// nginx passes full buffers on while it waits for more
		if held += int64(len(p)); !u.answer.buffering || held >= u.conf.buffers.Size {
			held = 0
			if x.stream.flush() != nil {
				x.fail()
				return Abort
			}
		}
	}
}

// warnExcess notes that a server sent more than it announced.
func (x *Exchange) warnExcess() {
	c := x.upstream.conn
	if c.r == c.w {
		return
	}
	switch c.framing {
	case byLength:
		x.logUpstream(logWarn, "upstream sent more data than specified in \"Content-Length\" header")
	case byChunks:
		x.logUpstream(logWarn, "upstream sent data after final chunk")
	case noBody, byClose:
	}
}

// bodyBroken ends an answer that the server did not complete. The client gets
// what there is, and a connection that closes without the rest.
func (x *Exchange) bodyBroken(rest []byte, err error) Code {
	call := "recv()"
	if x.upstream.answer.buffering {
		call = "readv()"
	}
	if errors.Is(err, errChunks) {
		x.logUpstream(logError, "%s", err)
	} else if v := x.attemptFailed(err, call); v.next == nextTimeout {
		x.logUpstream(logError, "upstream timed out (110: Connection timed out)")
	}
	x.upstream.answer.close = true
	if len(rest) > 0 {
		_ = x.WriteBody(rest, false)
	}
	_ = x.stream.flush()
	return Abort
}

// takeTrailers passes trailers on (proxy_pass_trailers).
func (x *Exchange) takeTrailers(c *proxyConf) {
	u := &x.upstream
	u.trailers, _ = parseFields(u.trailers[:0], x.keep(u.conn.trailers))
	for i := range u.trailers {
		if !c.hidden.has(&u.trailers[i]) {
			x.Out.Trailers = append(x.Out.Trailers, u.trailers[i])
		}
	}
}

// limiter holds a transfer to a rate.
type limiter struct {
	bytes int64 // a second; 0 for no limit
	sent  int64
	start int64
}

func rateLimit(x *Exchange, v *Value) limiter {
	if v == nil {
		return limiter{}
	}
	n, ok := parseSize(v.String(x))
	if !ok {
		n = 0
	}
	return limiter{bytes: n, start: nanos()}
}

// wait sleeps until something may be read, and says how much. As nginx does, a
// second's worth is allowed in advance (ngx_event_pipe_read_upstream).
func (r *limiter) wait(most int) int {
	for {
		allowed := r.bytes*((nanos()-r.start)/int64(time.Second)+1) - r.sent
		if allowed > 0 {
			return int(min(allowed, int64(most)))
		}
		time.Sleep(time.Duration(-allowed)*time.Second/time.Duration(r.bytes) + time.Millisecond)
	}
}

func (r *limiter) count(n int) { r.sent += int64(n) }

// readHead reads the head of the answer, past interim answers, and takes it
// apart (ngx_http_proxy_process_status_line, ngx_http_proxy_process_header).
func (x *Exchange) readHead(c *proxyConf) error {
	u, conn := &x.upstream, x.upstream.conn
	for interim := 0; ; interim++ {
		head, err := x.receiveHead(c)
		if err != nil {
			return err
		}
		status, line, ok := parseStatusLine(head)
		if !ok {
			x.logUpstream(logError, "upstream sent no valid HTTP/1.0 header")
			return errInvalidHead
		}
		a := &u.answer
		*a = upstreamAnswer{status: status, line: x.keep(line), contentLength: -1, buffering: u.conf.buffering}
		a.close = head[7] == '0'
		_, rest, _ := bytes.Cut(head, []byte("\n"))
		parsed, bad := parseFields(u.parsed[:0], rest)
		u.parsed = parsed
		if bad != nil {
			x.logUpstream(logError, "upstream sent invalid header: %q", bad)
			return errInvalidHead
		}
		if status < 200 && status != 101 { // Unlike nginx, which takes all but 103 for the final answer.
			conn.r += len(head)
			if interim == maxInterim {
				x.logUpstream(logError, "upstream sent too many interim responses")
				return errInvalidHead
			}
			continue
		}
		if st := u.state(); st.status == 0 {
			st.status = status
		}
		if !x.readFields(parsed) {
			return errInvalidHead
		}
		conn.r += len(head)
		return x.frameAnswer()
	}
}

// maxInterim is how many interim answers a server may send.
const maxInterim = 16

// receiveHead reads until the empty line. The head stays in the buffer.
func (x *Exchange) receiveHead(c *proxyConf) ([]byte, error) {
	conn := x.upstream.conn
	limit := int(min(c.bufferSize, int64(len(conn.buf))))
	seen := 0
	for {
		if n := headEnd(conn.buf[conn.r:conn.w], seen); n > 0 && n <= limit {
			return conn.buf[conn.r : conn.r+n], nil
		}
		seen = max(conn.w-conn.r-3, 0)
		if conn.w-conn.r >= limit {
			x.logUpstream(logError, "upstream sent too big header")
			return nil, errInvalidHead
		}
		if err := conn.fill(x.upstream.conf.readTimeout); err != nil {
			return nil, err
		}
	}
}

// headEnd gives the length of a head with its empty line, 0 when it has not
// arrived whole. The bytes before seen have been looked at.
func headEnd(b []byte, seen int) int {
	for i := seen; i < len(b); {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		switch {
		case i < len(b) && b[i] == '\n':
			return i + 1
		case i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n':
			return i + 2
		}
	}
	return 0
}

// parseStatusLine reads "HTTP/1.x 200 OK". line is what follows the version.
func parseStatusLine(head []byte) (status int, line []byte, ok bool) {
	text, _, _ := bytes.Cut(head, []byte("\n"))
	text = bytes.TrimSuffix(text, []byte("\r"))
	if len(text) < 12 || string(text[:7]) != "HTTP/1." || text[7] < '0' || text[7] > '9' || text[8] != ' ' || !isFieldValue(text) {
		return 0, nil, false
	}
	line = text[9:]
	n, digitsOnly := digits(string(line[:3]))
	if !digitsOnly || n < 100 || len(line) > 3 && line[3] != ' ' {
		return 0, nil, false
	}
	return int(n), line, true
}

// frameAnswer decides where the body of the answer ends.
func (x *Exchange) frameAnswer() error {
	u := &x.upstream
	a, conn := &u.answer, u.conn
	switch {
	case a.status == 101:
		if _, asked := x.Header(http1.Upgrade); !asked { // Unlike nginx, which passes it on.
			x.logUpstream(logError, "upstream switched protocols without being asked")
			return errInvalidHead
		}
		conn.framing = byClose
	case a.status == 204 || a.status == 304 || u.isHead:
		conn.framing, conn.ended = noBody, true
		if a.chunked {
			a.contentLength = -1
		}
	case a.chunked:
		conn.framing = byChunks
		a.contentLength = -1
	case a.contentLength == 0:
		conn.framing, conn.ended = noBody, true
	case a.contentLength > 0:
		conn.framing, conn.remaining = byLength, a.contentLength
	default:
		conn.framing = byClose
	}
	return nil
}

// isConnectError tells the failures of connecting that nginx takes for ordinary
// (ngx_event_connect_peer).
func isConnectError(e syscall.Errno) bool {
	switch e {
	case syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ECONNRESET:
		return true
	}
	return isUnreachable(e)
}

func isUnreachable(e syscall.Errno) bool {
	switch e {
	case syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH:
		return true
	}
	return false
}
