package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"proxyctl/proxy/http1"
)

// Talking to one server: getting a connection, reading the head of the answer,
// passing its body on.

// clientWatch connects the client's side with the connection to the server: if
// the client goes away, waiting for the server ends. It belongs to the client's
// connection, so that a late call can only be about that client.
type clientWatch struct {
	mu   sync.Mutex
	conn *upstreamConn
	left bool
	call func() // goes to stream.watch; made once
}

func newClientWatch() *clientWatch {
	w := &clientWatch{}
	w.call = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.left = true
		if w.conn != nil {
			w.conn.Abort()
		}
	}
	return w
}

// watchClient begins to look whether the client goes away. Over HTTP/1.1 that can
// only be seen when its body has been read.
func (x *Exchange) watchClient() {
	u := &x.upstream
	_, one := x.stream.(*http1Stream)
	if !one {
		u.watch = newClientWatch() // several exchanges share the connection
	} else {
		if x.client.watch == nil {
			x.client.watch = newClientWatch()
		}
		u.watch = x.client.watch
	}
	u.watching = true
	if !one || !u.streaming {
		x.stream.watch(u.watch.call)
	}
}

// watchAfterBody goes on with what watchClient could not begin.
func (s *upstreamScratch) watchAfterBody(x *Exchange) {
	if _, one := x.stream.(*http1Stream); one && s.watching {
		x.stream.watch(s.watch.call)
	}
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
	return s.watch.left
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
	return !s.watch.left
}

// take ends the use of the connection.
func (s *upstreamScratch) take() *upstreamConn {
	s.finishBody()
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
		st.received, st.sent = s.conn.Traffic()
	}
}

// keepOrClose keeps the connection for another request if it is fit for one.
func (s *upstreamScratch) keepOrClose() {
	conn := s.take()
	if conn == nil {
		return
	}
	if s.keeps(conn) {
		conn.Rest()
		if s.block.idle.Put(s.peer, s.poolKey(), conn, conn.requests, conn.born, nanos()) {
			s.block.expire()
			return
		}
	}
	conn.close()
}

// poolKey tells kept connections apart that must not be mixed: those of one
// location under "local", those with other settings of TLS.
func (s *upstreamScratch) poolKey() string {
	key := ""
	switch {
	case s.block.local:
		return s.conf.key
	case s.conf.wire == wireFastCGI:
		return "fastcgi"
	case s.tls != nil:
		key = s.tls.client.key
	}
	if s.conf.wire == wireHTTP2 {
		key = "h2 " + key
	}
	return key
}

// connect gets a connection to the chosen server, a kept one if there is one.
func (x *Exchange) connect() verdict {
	u := &x.upstream
	u.reusable = x.mayReuse()
	if u.reusable && !u.fresh {
		for {
			conn, ok := u.block.idle.Get(u.peer, u.poolKey(), nanos())
			if !ok {
				break
			}
			if (!u.block.explicit || !x.idempotent()) && conn.Stale() {
				conn.close()
				continue
			}
			conn.begin(u, true)
			u.state().connect = 0
			if !u.use(conn) {
				return x.attemptFailed(io.EOF, "")
			}
			return verdict{}
		}
	}
	u.block.makeRoom()
	u.action = connecting
	conn, err := dialUpstream(x, u.conf, u.peer)
	if err != nil {
		return x.dialFailed(err)
	}
	conn.waitsIn(u.block)
	if !u.use(conn) {
		return x.attemptFailed(io.EOF, "")
	}
	u.state().connect = nanos() - u.since
	if u.tls != nil {
		if v := x.handshake(conn); v != (verdict{}) {
			return v
		}
		u.state().connect = nanos() - u.since
	}
	conn.begin(u, false)
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
func (x *Exchange) handshake(conn *upstreamConn) verdict {
	u := &x.upstream
	u.action = handshaking
	client := u.tls.client
	config, name, err := client.connection(x, u.tls, x.sslName())
	if err != nil {
		x.Logf(logError, "%s", err)
		return verdict{code: 500}
	}
	switch u.conf.wire {
	case wireHTTP2:
		config = config.Clone()
		config.NextProtos = []string{"h2"}
	case wireStream:
		if protocols := x.serverALPN(); len(protocols) > 0 {
			config = config.Clone()
			config.NextProtos = protocols
		}
	default:
	}
	t, err := conn.startTLS(config, u.conf.connectTimeout)
	if err != nil {
		switch {
		case u.gone():
			return x.attemptFailed(err, "")
		case isTimeout(err):
			return verdict{next: nextTimeout}
		case conn.sock.Aborted(): // it is the session that has ended
		default:
			x.logUpstream(logError, "%s", handshakeProblem(err))
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

// sslName is the name a certificate must have unless the configuration says
// otherwise: that of the group, or of the server in the variable.
func (x *Exchange) sslName() string {
	if b := x.upstream.block; b != nil {
		return b.name
	}
	return x.upstream.group.Name
}

// passAnswer passes the body of the answer on to the client.
func (x *Exchange) passAnswer() Code {
	u := &x.upstream
	u.action = readingBody
	rate := rateLimit(x, u.conf.limitRate)
	if u.cacheable() || u.stored != nil || u.answer.buffering && (rate.bytes > 0 || x.pace.rate > 0 || u.answer.contentLength > spoolFrom) {
		return x.spoolAnswer(rate)
	}
	if !u.answer.buffering { // as nginx does: what comes is not held back
		x.pace.rate = 0
	}
	held, total := int64(0), int64(0)
	for {
		// nginx passes the head and full buffers on while it waits for more
		if u.conn.Waits() && (!u.answer.buffering || held >= u.conf.buffers.Size) {
			held = 0
			if x.Flush() != nil {
				x.fail()
				return Abort
			}
		}
		p, err := u.conn.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return x.bodyBroken(err)
		}
		u.state().length += int64(len(p))
		last := err != nil
		if last {
			x.endAnswer()
		}
		if x.WriteBody(p, last) != nil {
			return Abort
		}
		if last {
			return Done
		}
		total += int64(len(p))
		if u.answer.buffering && total > spoolFrom {
			return x.spoolAnswer(rate)
		}
		held += int64(len(p))
	}
}

// endAnswer lets the server go when its answer is complete: it need not wait
// for the client.
func (x *Exchange) endAnswer() {
	if x.upstream.conf.passTrailers {
		x.takeTrailers()
	}
	if more, chunked := x.upstream.conn.Excess(); more && chunked {
		x.logUpstream(logWarn, "upstream sent data after final chunk")
	} else if more {
		x.logUpstream(logWarn, "upstream sent more data than specified in \"Content-Length\" header")
	}
	x.commitCache()
	x.commitStore()
	x.leaveServer()
}

// bodyBroken ends an answer that the server did not complete. The client gets
// what there is, and a connection that closes without the rest.
func (x *Exchange) bodyBroken(err error) Code {
	call := "recv()"
	if x.upstream.answer.buffering {
		call = "readv()"
	}
	err = x.blame(err)
	var refused *http1.ParseError
	if faultCode(err) != 0 {
		return Abort // which has been logged
	} else if errors.As(err, &refused) {
		x.logUpstream(logError, "%s", refused.Reason)
	} else if errors.Is(err, http1.ErrChunk) || errors.Is(err, http1.ErrTrailers) {
		x.logUpstream(logError, "upstream sent invalid chunked response")
	} else if v := x.attemptFailed(err, call); v.next == nextTimeout {
		x.logUpstream(logError, "upstream timed out (110: Connection timed out)")
	}
	_ = x.Flush()
	return Abort
}

// takeTrailers passes trailers on (proxy_pass_trailers).
func (x *Exchange) takeTrailers() {
	u := &x.upstream
	fields, err := u.conn.Trailers(u.trailers[:0])
	if u.trailers = fields; err != nil {
		return
	}
	for i := range u.trailers {
		f := &u.trailers[i]
		f.Name, f.Value = bytes.Clone(f.Name), bytes.Clone(f.Value) // filters may be using the arena: see spool
		if !u.conf.hidden.has(f) {
			x.Out.Trailers = append(x.Out.Trailers, *f)
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

// readHead sends what is left of the request, reads the head of the answer past
// interim ones, and takes it apart. Unlike nginx, which takes all interim
// answers but 103 for the final one.
func (x *Exchange) readHead(request []byte) error {
	u := &x.upstream
	limit := int(u.conf.bufferSize)
	r := &u.response
	u.limits = http1.Limits{Line: limit, Head: limit, Fields: maxAnswerFields}
	var interim func(*http1.Response)
	if x.wantsHints() {
		interim = x.hints()
	}
	err := u.conn.ReadResponse(request, r, &u.limits, u.isHead, interim)
	if err != nil {
		return x.refuseHead(err)
	}
	u.action = readingHead
	u.answer = upstreamAnswer{status: r.Status, line: x.keep(r.Line), contentLength: r.ContentLength, buffering: u.conf.buffering}
	if st := u.state(); st.status == 0 {
		st.status = r.Status
	}
	if r.Status == 101 && x.inner.level > 0 { // Unlike nginx, which passes it on.
		x.logUpstream(logError, "upstream switched protocols without being asked")
		return errInvalidHead
	}
	x.readFields(r.Fields)
	if u.cache != nil {
		x.cacheTerms()
	}
	return nil
}

// refuseHead logs what is wrong with a head, if that is what err is about.
func (x *Exchange) refuseHead(err error) error {
	var refused *http1.ParseError
	if !errors.As(err, &refused) {
		return err
	}
	x.upstream.action = readingHead
	if refused.Reason != "" { // else it has been logged
		x.logUpstream(logError, "%s", refused.Reason)
	}
	return errInvalidHead
}

// maxAnswerFields bounds the number of fields in an answer; their size is
// bounded by the size of the head.
const maxAnswerFields = 1000

// isConnectError tells the failures of connecting that nginx takes for ordinary
// (ngx_event_connect_peer).
func isConnectError(e syscall.Errno) bool {
	return e == syscall.ECONNREFUSED || e == syscall.EAGAIN || e == syscall.ECONNRESET || isUnreachable(e)
}

func isUnreachable(e syscall.Errno) bool {
	return e == syscall.ENETDOWN || e == syscall.ENETUNREACH || e == syscall.EHOSTDOWN || e == syscall.EHOSTUNREACH
}
