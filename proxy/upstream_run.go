package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"proxyctl/proxy/fastcgi"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/http2"
	"proxyctl/proxy/memcached"
	"proxyctl/proxy/upstream"
)

// The way of a request to a server of a group and of the answer back: connect,
// send, read the head, pass the body on, and ask the next server when one fails
// (ngx_http_upstream.c).

// upstreamScratch is what an exchange knows about the server it talks to.
type upstreamScratch struct {
	begun    bool
	vars     passVars
	block    *upstreamBlock // nil for a server that a variable names
	group    *upstream.Group
	conf     *upstreamConf
	tls      *upstreamTLSConf // nil without TLS
	peer     *upstream.Peer
	name     string // of the peer, or of the group while there is none
	conn     *upstreamConn
	fresh    bool   // do not take a kept connection
	reusable bool   // kept connections are for this request, too
	action   string // what is being done, in nginx's words for the error log
	states   []upstreamState
	since    int64 // when the current state began
	start    int64 // when the first server was asked

	// the request
	head             []byte // request line, fields, empty line, and the body of proxy_set_body
	headEnd          int
	personal         bool // see headTemplate
	uriStart, uriEnd int  // of the request target in head
	isHead           bool
	streaming        bool  // the body is passed on while it comes
	chunked          bool  // in chunks
	bodyLength       int64 // as announced; -1: not at all
	setBody          []byte
	passBody         bool        // that of the client follows the head
	frame            bodyFrame   // around the pieces of the body; nil for none
	sender           *bodySender // sends it while the answer comes; else nil
	bodyFault        *bodySender // that has ended
	sent             bool        // some of it has been sent
	sentAll          bool

	// the answer
	answer   upstreamAnswer
	rewriter answerRewriter     // nil for none
	stderr   fastcgi.Log        // gets what applications say about themselves
	asked    *memcached.Request // nil for other protocols
	limits   http1.Limits
	response http1.Response // its slices are in the buffer of the connection
	fields   []http1.Field  // as received
	kinds    []answerField  // of fields
	trailers []http1.Field

	attempt  upstream.Attempt
	address  [16]byte      // of the client, for ip_hash
	resolved []netip.Addr  // of the name in a variable
	session  []byte        // for sticky
	cookieAt int           // one more than its index in x.Out.Fields
	cache    *cacheScratch // nil without a cache
	stored   *answerFile   // nil for an answer that is not stored
	asGET    bool          // HEAD asks for the body, for the cache
	watch    *clientWatch
	watching bool
}

// The actions, as nginx names them in its error log.
const (
	connecting  = "connecting to upstream"
	handshaking = "SSL handshaking to upstream"
	sending     = "sending request to upstream"
	readingHead = "reading response header from upstream"
	readingBody = "reading upstream"
	upgraded    = "proxying upgraded connection"
)

// verdict is how asking one server ended: with a Code for the phases, or with
// the reason to ask the next one.
type verdict struct {
	code Code
	next uint32
}

// begin prepares for a pass. Attempts of an earlier pass of this exchange stay
// in the list.
func (s *upstreamScratch) begin(c *upstreamConf) {
	if len(s.states) > 0 {
		s.states = append(s.states, upstreamState{})
	}
	s.begun, s.conf, s.name = true, c, ""
	s.block, s.group, s.peer, s.conn, s.tls = nil, nil, nil, nil, nil
	s.sent, s.sentAll, s.streaming, s.fresh, s.reusable, s.personal = false, false, false, false, false, false
	s.bodyFault = nil
	s.setBody, s.passBody, s.frame, s.rewriter, s.stderr = nil, c.passBody, nil, nil, nil
	s.chunked, s.bodyLength, s.isHead = false, -1, false
	s.answer = upstreamAnswer{}
	s.session, s.cookieAt = nil, 0
	s.cache, s.asGET = nil, false
	s.fields, s.kinds, s.trailers = s.fields[:0], s.kinds[:0], s.trailers[:0]
	s.uriStart, s.uriEnd = 0, 0
}

// recycle keeps memory for the next exchange.
func (s *upstreamScratch) recycle() upstreamScratch {
	head := s.head[:0]
	if cap(head) > maxKept {
		head = nil
	}
	clear(s.states)
	clear(s.fields)
	clear(s.trailers)
	return upstreamScratch{
		head: head, states: s.states[:0], fields: s.fields[:0], kinds: s.kinds[:0], trailers: s.trailers[:0],
		response: http1.Response{Fields: s.response.Fields[:0]}, resolved: s.resolved[:0],
	}
}

// describe appends where the request goes, for the error log: scheme, peer and
// request target; nothing before a peer has been asked for.
func (s *upstreamScratch) describe(dst []byte) []byte {
	if s.name == "" {
		return dst
	}
	dst = append(append(dst, s.vars.scheme...), s.name...)
	if s.peer != nil && s.peer.Network == "unix" { // as long as the server is in use
		dst = append(dst, ':')
	}
	return append(dst, s.head[s.uriStart:s.uriEnd]...)
}

// logUpstream logs with what is being done.
func (x *Exchange) logUpstream(level logLevel, format string, a ...any) {
	if x.session != nil { // every message about one says that
		x.Logf(level, format, a...)
		return
	}
	x.Logf(level, "%s while %s", fmt.Sprintf(format, a...), x.upstream.action)
}

func nanos() int64 { return time.Now().UnixNano() }

// state is the current attempt.
func (s *upstreamScratch) state() *upstreamState { return &s.states[len(s.states)-1] }

// balanceKey is what the group's method chooses by.
func (x *Exchange) balanceKey() []byte {
	u := &x.upstream
	switch u.group.Method {
	case upstream.IPHash:
		a := x.RemoteAddr()
		if a.Is4() || a.Is4In6() {
			four := a.As4()
			return u.address[:copy(u.address[:], four[:])]
		}
		if a.Is6() {
			u.address = a.As16()
			return u.address[:]
		}
	case upstream.Hash, upstream.ConsistentHash:
		return u.block.key.Bytes(x)
	default:
	}
	return nil
}

// askServers asks one server after the other until one answers, or the rules
// of proxy_next_upstream say that it is enough.
func (x *Exchange) askServers() Code {
	u := &x.upstream
	c := u.conf
	u.start = nanos()
	u.attempt.Start(u.group, x.balanceKey())
	if s := u.sticky(); s != nil {
		u.attempt.Prefer(s.prefer(x))
	}
	u.attempt.Limit(c.nextTries)
	if !c.ignoreClientAbort && !u.cacheable() && !c.store.on {
		x.watchClient()
		defer x.unwatchClient()
	}
	x.willWait()
	for {
		v := x.askServer()
		if v.next == 0 {
			x.leaveServer()
			return v.code
		}
		if status := x.nextServer(v.next); status != 0 {
			if status != statusClientClosed && x.staleFor(v.next) {
				return x.sendStale()
			}
			x.rememberFault(status)
			x.leaveServer()
			return status
		}
	}
}

// chooseServer begins an attempt. False: no server of the group may be asked.
func (s *upstreamScratch) chooseServer() bool {
	s.since = nanos()
	s.states = append(s.states, upstreamState{response: -1, connect: -1, header: -1})
	s.action = connecting
	peer, err := s.attempt.Next(s.since)
	if s.peer = peer; err != nil {
		s.peer, s.name = nil, s.group.Name
	} else {
		s.name = peer.Name
	}
	s.state().peer = s.name
	return err == nil
}

// askServer chooses a server, sends it the request, and passes its answer on.
func (x *Exchange) askServer() verdict {
	u := &x.upstream
	if !u.chooseServer() {
		x.logUpstream(logError, "no live upstreams")
		return verdict{next: nextNoLive}
	}
	if s := u.sticky(); s != nil && s.cookie != nil {
		s.cookie.mark(x, u.peer)
	}
	u.sent, u.sentAll = false, false
	if x.trace != nil {
		return verdict{code: x.trace.passed(x)}
	}
	if v := x.exchangeHead(); v != (verdict{}) {
		return v
	}
	now := nanos()
	u.state().header = now - u.since
	u.attempt.Head(now)
	return x.takeResponse()
}

// exchangeHead gets a connection, sends the request and reads the head of the
// answer. A kept connection that the server has closed meanwhile is replaced
// by a new one, unless the request is one that must not be sent twice.
func (x *Exchange) exchangeHead() verdict {
	u := &x.upstream
	for {
		if v := x.connect(); v != (verdict{}) {
			return v
		}
		if u.conf.wire == wireTunnel {
			return x.openTunnel()
		}
		request, sendErr := x.sendRequest()
		if sendErr != nil {
			if code := faultCode(sendErr); code != 0 {
				return verdict{code: code}
			}
			if !isReset(sendErr) {
				return x.attemptFailed(x.refuseHead(sendErr), "writev()")
			}
		}
		if len(request) == 0 {
			u.action = readingHead
		}
		err := x.readHead(request) // a server may answer before it has read all
		if err == nil {
			u.conn.answered()
			return verdict{}
		}
		err = x.blame(err)
		if code := faultCode(err); code != 0 {
			return verdict{code: code}
		}
		if u.conn.stale(err) && !u.streaming && (x.idempotent() || errors.Is(err, http2.ErrUnprocessed)) && !u.gone() {
			u.drop()
			u.fresh = true
			continue
		}
		if sendErr == nil && isWrite(err) {
			sendErr = err
		}
		if sendErr != nil {
			u.action = sending
			return x.attemptFailed(sendErr, "writev()")
		}
		u.action = readingHead
		return x.attemptFailed(err, "recv()")
	}
}

// isWrite says whether an error comes from writing.
func isWrite(err error) bool {
	var call *os.SyscallError
	var e *http1.Error
	return errors.As(err, &call) && call.Syscall == "write" || errors.As(err, &e) && e.Op == "send"
}

// idempotent says whether the request may be sent a second time
// (ngx_http_upstream_next).
func (x *Exchange) idempotent() bool {
	switch x.method {
	case "POST", "LOCK", "PATCH":
		return x.upstream.conf.next&nextNonIdempotent != 0
	}
	return true
}

// errInvalidHead is an answer whose head is refused; it has been logged.
var errInvalidHead = errors.New("invalid head")

// attemptFailed logs why an attempt ended, and says what it counts as.
func (x *Exchange) attemptFailed(err error, call string) verdict {
	u := &x.upstream
	switch {
	case u.gone():
		x.logUpstream(logInfo, "client prematurely closed connection, so upstream connection is closed too")
		return verdict{code: statusClientClosed}
	case errors.Is(err, errInvalidHead):
		return verdict{next: nextInvalidHeader}
	case isTimeout(err):
		return verdict{next: nextTimeout}
	case errors.Is(err, http2.ErrUnprocessed):
		x.logUpstream(logError, "upstream refused the request")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		x.logUpstream(logError, "upstream prematurely closed connection")
	case errnoOf(err) == 0:
		x.logUpstream(logError, "%s failed (%s)", call, err)
	default:
		x.logUpstream(logError, "%s failed (%d: %s)", call, int(errnoOf(err)), sysText(errnoOf(err)))
	}
	return verdict{next: nextError}
}

// isTimeout says whether a deadline of ours has passed.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errnoOf(err) == 0 && errors.As(err, &t) && t.Timeout()
}

// isReset says whether the other side has closed a connection that was written
// to.
func isReset(err error) bool {
	e := errnoOf(err)
	return e == syscall.EPIPE || e == syscall.ECONNRESET
}

// nextServer counts a failure, and says whether another server is asked (0) or
// with which status the request ends (ngx_http_upstream_next).
func (x *Exchange) nextServer(why uint32) Code {
	u := &x.upstream
	reused := u.conn != nil && u.conn.reused
	u.countSent()
	u.drop()
	if u.peer != nil {
		ok := why&(next403|next404) != 0
		if u.attempt.Done(u.peer, ok, nanos()) {
			x.logUpstream(logWarn, "upstream server temporarily disabled")
		}
		u.peer = nil
	}
	if why == nextTimeout {
		x.logUpstream(logError, "upstream timed out (110: Connection timed out)")
	}
	if reused && why == nextError {
		u.attempt.Retry()
	}
	if u.gone() {
		return statusClientClosed
	}
	status := statusOf(why)
	u.state().status = int(status)
	if u.attempt.Tries() == 0 || !x.mayAskNext(why) {
		return status
	}
	u.endState()
	return 0
}

// statusOf gives the status of a failure.
func statusOf(why uint32) Code {
	switch why {
	case nextTimeout, next504:
		return 504
	case next500:
		return 500
	case next503:
		return 503
	case next403:
		return 403
	case next404:
		return 404
	case next429:
		return 429
	}
	return 502
}

// mayAskNext says whether the configuration allows to ask another server.
func (x *Exchange) mayAskNext(why uint32) bool {
	u := &x.upstream
	if u.sent {
		switch x.method {
		case "POST", "LOCK", "PATCH":
			why |= nextNonIdempotent
		}
	}
	return u.conf.next&why == why && (!u.sent || !u.streaming) &&
		(u.conf.nextTimeout == 0 || nanos()-u.start < int64(u.conf.nextTimeout))
}

// leaveServer ends the attempt: the connection is kept or closed, the peer
// freed, times noted.
func (x *Exchange) leaveServer() {
	u := &x.upstream
	if len(u.states) == 0 {
		return
	}
	u.endState()
	u.countSent()
	u.keepOrClose()
	if u.peer == nil {
		return
	}
	if s := u.sticky(); s != nil && !s.afterHead {
		s.learn(x, u.peer)
	}
	now := nanos()
	u.attempt.Complete(u.peer, now)
	u.attempt.Done(u.peer, true, now)
	u.peer = nil
}

// sticky is what the group says about sessions, nil for nothing.
func (s *upstreamScratch) sticky() *stickyConf {
	if s.block == nil {
		return nil
	}
	return s.block.sticky
}

// endState notes how long the attempt took.
func (s *upstreamScratch) endState() {
	if st := s.state(); st.response < 0 {
		st.response = nanos() - s.since
	}
}

// nextBits tells which statuses of answers can make the next server be asked.
func nextBit(status int) uint32 {
	switch status {
	case 500:
		return next500
	case 502:
		return next502
	case 503:
		return next503
	case 504:
		return next504
	case 403:
		return next403
	case 404:
		return next404
	case 429:
		return next429
	}
	return 0
}

// takeResponse deals with an answer whose head has been read.
func (x *Exchange) takeResponse() verdict {
	u := &x.upstream
	a := &u.answer
	if a.status >= 300 {
		if bit := nextBit(a.status); bit != 0 && u.attempt.Tries() > 1 && x.mayAskNext(bit) {
			return verdict{next: bit}
		}
		if bit := nextBit(a.status); bit != 0 && x.staleForStatus(bit) {
			return verdict{code: x.sendStale()}
		}
		if x.revalidated() {
			return verdict{code: x.sendConfirmed()}
		}
		if a.status == 404 && u.conf.intercept404 {
			return verdict{code: 404}
		}
		if u.conf.interceptErrors && x.hasErrorPage(a.status) {
			x.rememberIntercepted(a.status)
			x.interceptError()
			return verdict{code: Code(a.status)}
		}
	}
	u.attempt.Accept(u.peer, nanos())
	if s := u.sticky(); s != nil && s.afterHead {
		s.learn(x, u.peer)
	}
	if a.redirect != nil {
		x.leaveServer()
		return verdict{code: x.followRedirect()}
	}
	x.takeAnswer()
	if u.conf.wire == wireTunnel {
		return verdict{code: x.switchProtocols()}
	}
	if a.status == 101 {
		if _, asked := x.Header(http1.Upgrade); asked && u.conn.http1 != nil && x.post == afterNothing {
			return verdict{code: x.switchProtocols()}
		}
		x.refuseUpgrade()
	}
	if code := x.SendHead(); code != OK {
		return verdict{code: code}
	}
	x.keepAnswer()
	x.beginStore()
	if x.headerOnly && !u.cacheable() && u.stored == nil {
		return verdict{code: Done}
	}
	return verdict{code: x.passAnswer()}
}

func (x *Exchange) hasErrorPage(status int) bool {
	pages := x.loc.Conf.Core.ErrorPages.Items
	for i := range pages {
		if pages[i].status == status {
			return true
		}
	}
	return false
}

// interceptError keeps what a client needs to know of an answer that
// error_page replaces.
func (x *Exchange) interceptError() {
	u := &x.upstream
	for i := range u.fields {
		if u.answer.status == 401 && u.kinds[i] == fieldWWWAuthenticate {
			x.Out.Fields = append(x.Out.Fields, u.fields[i])
		}
	}
}
