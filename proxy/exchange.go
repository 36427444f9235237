package proxy

import (
	"net/netip"
	"sync"
	"time"

	"proxyctl/proxy/http1"
)

// Exchange is one request and its answer. It belongs to one goroutine from its
// start to its end; fields of modules are named scratch, never a map.
type Exchange struct {
	Req *http1.Request // the head as received; valid until the exchange ends
	Out Answer

	client *client
	stream stream
	// session is what there is instead of a request in the stream block.
	session *session
	table   *Table
	server  *Server
	loc     *Location // whose configuration counts now
	trace   *Trace    // of a request that is explained; else nil

	// The URI: decoded and normalized path, and the query without "?".
	uri, args     []byte
	rawURI        []byte // as received: $request_uri
	extension     int    // where the extension of uri begins; -1 for none
	unparsedValid bool   // uri is still what rawURI says
	quotedURI     bool   // rawURI held %XX
	plusURI       bool   // or "+"
	locationValid bool   // uri still begins with the location's name
	addURIToAlias bool   // a regex location's alias takes the URI too (try_files)
	host          []byte // validated, lower case, without port: $host
	hostPort      uint16
	method        string // "GET" after an error_page redirect, else as received

	start      time.Time
	resume     Phase
	redirects  int
	internal   bool
	uriChanged bool
	content    Handler
	keepAlive  bool

	// body of the request
	bodyRead  bool // read whole, or being passed on
	body      requestBody
	reqLength int64

	// finalizing
	errorStatus int  // status that special responses carry
	errorPage   bool // an error_page is being followed
	headSent    bool
	headerOnly  bool
	bytesSent   int64 // on the wire, of this exchange: set at its end
	headSize    int64 // how many of these were its head
	bodySent    int64 // body bytes without framing
	failed      bool
	post        after

	limitRate    int64 // $limit_rate: bytes a second that set asks for
	limitRateSet bool  // it counts instead of limit_rate
	pace         pace
	id           [16]byte
	hasID        bool // id is $request_id

	slots    []slot
	captured []byte // subject of the last regular expression
	captures []int
	spare    []int  // for captures of a search that may fail
	arena    []byte // memory of values, released with the exchange
	scratch  [4][]byte
	depth    int // how many of scratch are lent

	realip   netip.AddrPort // the client's address by a trusted proxy's word
	rewrite  rewriteScratch
	upstream upstreamScratch
	output   output
	inner    innerScratch // of subrequests
	ssi      ssiScratch
	slice    *sliceScratch // nil for an answer in one piece
	fastcgi  fastcgiScratch
	userid   useridScratch
	charset  charsetScratch
	gzip     gzipScratch
	limited  limitScratch
	held     []heldCount // where limit_conn counts the request
	ends     []func()    // to be run when the exchange ends
}

// stream is the client's side of an exchange: HTTP/1.x or HTTP/2.
type stream interface {
	// buffered returns the whole request body when it has already arrived.
	buffered() ([]byte, bool)
	// readBody reads decoded body bytes; io.EOF at its end.
	readBody(p []byte) (int, error)
	// splitBody says that another goroutine calls readBody from now on, stopBody
	// that nobody wants the rest of the body: readBody fails.
	splitBody()
	stopBody()
	// sendContinue asks a client that waits for it to send the body.
	sendContinue() error
	// withholdContinue has sendContinue and readBody send nothing: what is left
	// to be found out is how an error looks.
	withholdContinue()
	// writeInterim sends a 1xx answer with fields.
	writeInterim(x *Exchange, status int, fields []http1.Field) error
	// writeHead sends the head of x.Out; it may wait for the first body bytes.
	writeHead(x *Exchange) error
	// writeBody sends body bytes, the last of them with last.
	writeBody(x *Exchange, p []byte, last bool) error
	// flush sends what writeHead and writeBody have kept back.
	flush() error
	// hijack gives the connection to a tunnel.
	hijack() (rawConn, []byte, error)
	// watch calls gone when the client goes away while a handler waits.
	watch(gone func())
	unwatch()
	// setTimeouts says how patient to be with the client until the next request.
	setTimeouts(t *http1.Timeouts)
}

// Answer is the head of the answer, as handlers and header filters see it.
type Answer struct {
	Status        int
	StatusLine    []byte // "404 Gone Fishing" from an upstream; nil for the standard one
	ContentType   []byte
	Charset       []byte
	typeLength    int           // of ContentType, when it names Charset behind it; 0: it does not
	ContentLength int64         // -1: unknown
	LastModified  int64         // seconds since 1970; -1: none. An upstream's is among the fields too
	Server, Date  []byte        // nil: this server's own; empty: not sent here
	Fields        []http1.Field // the rest, in order
	Trailers      []http1.Field
	location      int // index of Location in Fields; -1
	AcceptRanges  bool
	Chunked       bool
	Upgrade       bool
	gzipVary      bool // Vary: Accept-Encoding is sent

	overrideCharset []byte // that an upstream asks for

	expectTrailers bool // the answer does not end with its head: over HTTP/1.1, the body goes in chunks for them
	passValidators bool // conditions were answered by the upstream
	seekable       bool // the handler can send parts in any order
	ranges         []byteRange
	position       int64  // of the next body byte in the whole, which ranges count in
	from           int64  // where the one range begins that is sent
	rangeEnd       []byte // what ends a multipart body
}

func (a *Answer) reset() {
	*a = Answer{Fields: a.Fields[:0], Trailers: a.Trailers[:0], ContentLength: -1, LastModified: -1, location: -1}
}

// Add appends a field. The slices must live as long as the exchange.
func (a *Answer) Add(name, value []byte) {
	a.Fields = append(a.Fields, http1.Field{Name: name, Value: value, ID: http1.Identify(name)})
}

// Find returns the first field with id.
func (a *Answer) Find(id http1.HeaderID) ([]byte, bool) {
	for i := range a.Fields {
		if a.Fields[i].ID == id {
			return a.Fields[i].Value, true
		}
	}
	return nil, false
}

// has says whether there is a field with id.
func (a *Answer) has(id http1.HeaderID) bool {
	_, is := a.Find(id)
	return is
}

// Remove drops every field with id.
func (a *Answer) Remove(id http1.HeaderID) {
	kept := a.Fields[:0]
	for _, f := range a.Fields {
		if f.ID != id {
			kept = append(kept, f)
		}
	}
	a.Fields = kept
	a.location = -1
	for i := range a.Fields {
		if a.Fields[i].ID == http1.Location {
			a.location = i
		}
	}
}

// SetLocation replaces the Location field.
func (a *Answer) SetLocation(value []byte) {
	a.Remove(http1.Location)
	a.location = len(a.Fields)
	a.Add(locationName, value)
}

var locationName = []byte("Location")

var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

// newExchange prepares an exchange for a request under a table that the caller
// has acquired for it.
func newExchange(c *client, s stream, t *Table) *Exchange {
	x := exchanges.Get().(*Exchange)
	x.client, x.stream, x.table, x.trace = c, s, t, c.trace
	x.start = time.Now()
	x.unparsedValid = true
	x.extension = -1
	x.Out.reset()
	if slots := max(t.http.vars.slots, t.stream.vars.slots); cap(x.slots) < slots {
		x.slots = make([]slot, slots)
	} else {
		x.slots = x.slots[:slots]
	}
	c.life.begins(t)
	return x
}

// maxKept is how much memory an idle Exchange may hold on to.
const maxKept = 64 << 10

// release ends the exchange. Nothing may refer to it afterwards.
func (x *Exchange) release() {
	c, t := x.client, x.table
	spared := c.rt.sweeper.Now() + int64(x.loc.Conf.Core.KeepaliveMinTimeout)
	x.body.close()
	x.releaseCounts()
	x.recycle()
	c.life.ends(spared)
	t.release()
}

// atEnd runs f when the exchange ends.
func (x *Exchange) atEnd(f func()) { x.ends = append(x.ends, f) }

// recycle puts the exchange back into the pool.
func (x *Exchange) recycle() {
	for _, f := range x.ends {
		f()
	}
	clear(x.slots)
	arena := x.arena[:0]
	if cap(arena) > maxKept {
		arena = nil
	}
	out := x.Out
	clear(out.Fields)
	clear(out.Trailers)
	*x = Exchange{
		slots: x.slots[:0], arena: arena, captures: x.captures[:0], spare: x.spare[:0], scratch: x.scratch,
		Out:      Answer{Fields: out.Fields[:0], Trailers: out.Trailers[:0]},
		upstream: x.upstream.recycle(),
	}
	exchanges.Put(x)
}

// keep copies pieces into memory that lives as long as the exchange.
func (x *Exchange) keep(pieces ...any) []byte {
	start := len(x.arena)
	for _, p := range pieces {
		switch p := p.(type) {
		case string:
			x.arena = append(x.arena, p...)
		case []byte:
			x.arena = append(x.arena, p...)
		}
	}
	return x.arena[start:len(x.arena):len(x.arena)]
}

// borrow lends an empty buffer for the making of a value, which may make others
// on the way: they must not write where this one grows. What was borrowed last
// is given back first.
func (x *Exchange) borrow() []byte {
	x.depth++
	if i := x.depth - 1; i < len(x.scratch) {
		return x.scratch[i]
	}
	return nil
}

// giveBack takes the buffer that was borrowed last, grown or not.
func (x *Exchange) giveBack(b []byte) {
	x.depth--
	if i := x.depth; i < len(x.scratch) && cap(b) <= maxKept>>2 {
		x.scratch[i] = b[:0]
	}
}

// capture returns group n of the last regular expression that matched.
func (x *Exchange) capture(n int) []byte {
	if 2*n+1 >= len(x.captures) || x.captures[2*n] < 0 {
		return nil
	}
	return x.captured[x.captures[2*n]:x.captures[2*n+1]]
}

// matchRegex matches s, keeps its captures for $1..$9 and sets the variables of
// its named groups (ngx_http_regex_exec). A search that was given up is no
// match.
func (x *Exchange) matchRegex(re *regex, s []byte) bool {
	matched, _ := x.searchRegex(re, s)
	return matched
}

// searchRegex is matchRegex for those who want to know that a search was given
// up.
func (x *Exchange) searchRegex(re *regex, s []byte) (bool, error) {
	if re.Captures() == 0 {
		matched, err := re.Test(s)
		if matched { // nothing is captured, and nothing is left of before
			x.captures = x.captures[:0]
		}
		return matched, err
	}
	caps, matched, err := re.Search(s, x.spare[:0])
	if !matched { // what was captured before counts on
		x.spare = caps[:0]
		return false, err
	}
	x.captures, x.spare, x.captured = caps, x.captures, s
	for _, n := range re.names {
		n.v.set(x, x.capture(n.group))
	}
	return true, nil
}

// contentLength returns the length that the request announces, or -1.
func (x *Exchange) contentLength() int64 { return x.Req.ContentLength }

// Header returns the first request field with id.
func (x *Exchange) Header(id http1.HeaderID) ([]byte, bool) {
	for i := range x.Req.Fields {
		if x.Req.Fields[i].ID == id {
			return x.Req.Fields[i].Value, true
		}
	}
	return nil, false
}

// RemoteAddr returns the client's address: that of the connection, or what
// realip made of it. Invalid for unix sockets.
func (x *Exchange) RemoteAddr() netip.Addr {
	if x.realip.IsValid() {
		return x.realip.Addr()
	}
	return x.client.remote.Addr()
}

// appendRemoteAddr appends the text of RemoteAddr: $remote_addr.
func (x *Exchange) appendRemoteAddr(dst []byte) []byte {
	if x.realip.IsValid() {
		return x.realip.Addr().AppendTo(dst)
	}
	return append(dst, x.client.address()...)
}

// isMethod tells the method of the request as sent to content.
func (x *Exchange) isMethod(m string) bool { return x.method == m }

// warnUninitialized notes the use of a variable that set never reached.
func (x *Exchange) warnUninitialized(name string) {
	if x.loc.Conf.Rewrite.UninitializedWarn {
		x.Logf(logWarn, "using uninitialized %q variable", name)
	}
}
