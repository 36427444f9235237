package proxy

import (
	"bytes"
	"math"
	"os"
	"time"

	"proxyctl/proxy/cache"
	"proxyctl/proxy/http1"
)

// Answers of servers that are kept, and found again (the cache parts of
// ngx_http_upstream.c). What is on disk and what is known of it is the business
// of the package cache.

// cacheStatus is $upstream_cache_status.
type cacheStatus uint8

const (
	cacheMiss cacheStatus = iota + 1
	cacheBypass
	cacheExpired
	cacheStale
	cacheUpdating
	cacheRevalidated
	cacheHit
)

func (s cacheStatus) String() string {
	return [...]string{
		"", cacheMiss: "MISS", cacheBypass: "BYPASS", cacheExpired: "EXPIRED", cacheStale: "STALE",
		cacheUpdating: "UPDATING", cacheRevalidated: "REVALIDATED", cacheHit: "HIT",
	}[s]
}

// cacheScratch is what an exchange does with a cache. The answer of the server
// sets the Meta of the lookup.
type cacheScratch struct {
	lookup    *cache.Lookup
	zone      *cacheZone
	found     cache.Meta // of the answer that is there
	status    cacheStatus
	cacheable bool // the answer may be kept, as far as is known, or comes from there
	behind    bool // a subrequest in the background updates what is sent
	expires   bool // X-Accel-Expires was there: Cache-Control does not say how long
	forbidden bool // by Cache-Control
	expired   bool // by Expires
	writer    *cache.Writer
}

// cacheable says whether the answer may be kept, or comes from a cache.
func (s *upstreamScratch) cacheable() bool { return s.cache != nil && s.cache.cacheable }

// fromCache answers from the cache, if it can: false asks for going on to the
// servers. appendKey appends the key that a module has unless directives say
// another. leaveCache must follow.
//
// Unlike nginx, which then gives all requests one answer, nothing is kept without
// a key: appendKey is nil.
func (x *Exchange) fromCache(appendKey func(*Exchange, []byte) []byte) (Code, bool) {
	u := &x.upstream
	c := &u.conf.cache
	if !c.on() || c.key == nil && appendKey == nil {
		return 0, false
	}
	if c.methods&cacheMethod(x.method) == 0 {
		if x.trace != nil {
			x.trace.step("cache", x.loc.Place, "not asked: %s is none of %s_cache_methods", x.method, u.conf.prefix)
		}
		return 0, false
	}
	zone := c.zone
	if zone == nil {
		var code Code
		if zone, code = x.namedCache(c.value); zone == nil {
			return code, code != OK
		}
	}
	start := len(x.arena)
	if c.key != nil {
		x.arena = c.key.Append(x.arena, x)
	} else {
		x.arena = appendKey(x, x.arena)
	}
	l := zone.zone.Lookup(x.arena[start:len(x.arena):len(x.arena)])
	if need := int64(l.HeadStart() + 256); need > u.conf.bufferSize || need > math.MaxUint16 {
		x.Logf(logError, "%s_buffer_size %d is not enough for cache key, it should be increased to at least %d", u.conf.prefix, u.conf.bufferSize, (need+1023)&^1023)
		return 0, false
	}
	l.Room = int(min(u.conf.bufferSize, math.MaxUint16))
	l.MinUses, l.Lock, l.LockTimeout, l.LockAge = c.minUses, c.lock, c.lockTimeout, c.lockAge
	l.Each, l.Log = x.eachValue, func(s cache.Severity, text string) { x.Logf(cacheLevel(s), "%s", text) }
	u.cache = &cacheScratch{lookup: l, zone: zone, cacheable: true, status: cacheMiss}
	if c.convertHead && x.method == "HEAD" {
		u.asGET = true
	}
	bypassed := x.anyTrue(c.bypass.Items)
	if bypassed {
		u.cache.status = cacheBypass
	}
	if x.trace != nil { // what is there is not looked at
		u.cache.cacheable = bypassed || c.keepsRange(x)
		x.trace.cached(x, x.arena[start:])
	}
	if bypassed || x.trace != nil {
		return 0, false
	}
	return x.openCache()
}

// cacheMethod is the bit of a method in cache_methods, 0 for those never kept.
func cacheMethod(method string) uint32 {
	for i, m := range cacheMethods() {
		if m == method {
			return 1 << i
		}
	}
	return 0
}

// namedCache finds the zone that a variable names: nil for none.
func (x *Exchange) namedCache(v *Value) (*cacheZone, Code) {
	name := v.String(x)
	if name == "" || name == "off" {
		return nil, OK
	}
	z := x.table.cacheZones[x.upstream.conf.prefix+" "+name]
	if z == nil || !z.declared {
		x.Logf(logError, "cache \"%s\" not found", name)
		return nil, 500
	}
	return z, OK
}

// eachValue gives the values of a field of the request.
func (x *Exchange) eachValue(name []byte, f func(value []byte)) {
	for i := range x.Req.Fields {
		if in := &x.Req.Fields[i]; bytes.EqualFold(in.Name, name) {
			f(in.Value)
		}
	}
}

// openCache looks for the answer.
func (x *Exchange) openCache() (Code, bool) {
	s, conf := x.upstream.cache, &x.upstream.conf.cache
	l := s.lookup
	outcome := l.Open()
	for ; outcome == cache.Busy; outcome = l.Open() {
		x.willWait()
		l.Wait()
	}
	s.found = l.Meta
	switch stale := conf.useStale&nextUpdating != 0; outcome {
	case cache.Hit:
		s.status = cacheHit
		return x.sendCached()
	case cache.Fault:
		s.status = cacheHit
		return Code(l.Fault()), true
	case cache.Updating:
		if (stale || l.StaleWhileUpdating()) && !x.inner.clone {
			s.status = cacheUpdating
			return x.sendCached()
		}
		x.isExpired()
	case cache.Expired:
		if (stale || l.StaleWhileUpdating()) && !x.inner.clone && conf.backgroundUpdate {
			if x.cloneInBackground() != nil {
				return 500, true
			}
			s.status, s.behind = cacheStale, true
			return x.sendCached()
		}
		x.isExpired()
	case cache.Scarce:
		s.cacheable = false
	case cache.Miss, cache.Busy:
	}
	if s.cacheable && !conf.keepsRange(x) {
		s.cacheable = false
	}
	return 0, false
}

func (x *Exchange) isExpired() {
	s := x.upstream.cache
	s.lookup.Forget()
	s.status = cacheExpired
}

// keepsRange says whether the whole answer is worth fetching for a request with
// Range (cache_max_range_offset).
func (c *cacheConf) keepsRange(x *Exchange) bool {
	v, ok := x.Header(http1.Range)
	switch {
	case !ok || c.maxRangeOffset == math.MaxInt64:
		return true
	case c.maxRangeOffset == 0:
		return false
	case len(v) < 7 || !bytes.EqualFold(v[:6], []byte("bytes=")):
		return true
	}
	v = bytes.TrimLeft(v[6:], " ")
	if len(v) > 0 && v[0] == '-' {
		return false
	}
	if len(v) == 0 || v[0] < '0' || v[0] > '9' {
		return true
	}
	offset, _, ok := leadingNumber(v)
	return ok && offset < c.maxRangeOffset
}

// sendCached answers with what is in the cache. False when it makes no sense:
// the servers are asked then.
func (x *Exchange) sendCached() (Code, bool) {
	if !x.readCached() {
		return 0, false
	}
	return x.passCached(), true
}

// readCached reads the head of what is in the cache.
func (x *Exchange) readCached() bool {
	u := &x.upstream
	s := u.cache
	l := s.lookup
	u.action = "reading cache"
	u.limits = http1.Limits{Line: l.Room, Head: l.Room, Fields: maxAnswerFields}
	r := &u.response
	if _, err := r.Parse(l.Head(), &u.limits); err != nil {
		x.Logf(logCrit, "cache file \"%s\" contains invalid header", l.Name())
		s.status, s.behind = cacheMiss, false
		return false
	}
	s.cacheable, s.forbidden, s.expired = true, false, false
	u.answer = upstreamAnswer{status: r.Status, line: x.keep(r.Line), contentLength: r.ContentLength, buffering: true}
	x.readFields(r.Fields)
	return true
}

// passCached sends the answer that was read from the cache.
func (x *Exchange) passCached() Code {
	if x.upstream.answer.redirect != nil {
		return x.followRedirect()
	}
	x.takeAnswer()
	x.Out.seekable = true
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.headerOnly {
		return Done
	}
	file, offset, size := x.upstream.cache.lookup.Body()
	code := x.sendParts(file, offset, size)
	if whole := x.upstream.answer.contentLength; whole >= 0 && whole != size { // the head of an answer to HEAD
		return Abort // Unlike nginx, which leaves the client waiting for the rest.
	}
	return code
}

// cacheTerms reads what the answer says about being kept
// (ngx_http_upstream_process_cache_control and its neighbours).
func (x *Exchange) cacheTerms() {
	u := &x.upstream
	s, ignore := u.cache, u.conf.ignore
	l := s.lookup
	l.Vary, l.ETag, l.LastModified = nil, nil, -1
	s.expires, s.forbidden, s.expired = false, false, false
	for i := range u.fields {
		value := u.fields[i].Value
		switch u.kinds[i] {
		case fieldAccelExpires:
			if ignore&ignoreAccelExpires == 0 {
				x.accelExpires(value)
			}
			s.expires = true
		case fieldCacheControl:
			if ignore&ignoreCacheControl == 0 {
				s.cacheControl(value)
			}
		case fieldExpires:
			if ignore&ignoreExpires == 0 && l.Valid == 0 {
				if t, ok := parseHTTPTime(value); ok && t >= time.Now().Unix() {
					l.Valid = t
				} else {
					s.expired = true
				}
			}
		case fieldSetCookie:
			if ignore&ignoreSetCookie == 0 {
				s.cacheable = false
			}
		case fieldVary:
			if ignore&ignoreVary == 0 {
				x.cacheVary(value)
			}
		case fieldETag:
			l.ETag = value
		case fieldLastModified:
			if t, ok := parseHTTPTime(value); ok {
				l.LastModified = t
			}
		default:
		}
	}
	if u.answer.status != 200 && u.answer.status != 206 {
		l.ETag, l.LastModified = nil, -1
	}
}

// accelExpires reads X-Accel-Expires: seconds, or "@" and a time.
func (x *Exchange) accelExpires(value []byte) {
	s := x.upstream.cache
	at := bytes.HasPrefix(value, []byte("@"))
	n, ok := digits(string(bytes.TrimPrefix(value, []byte("@"))))
	switch {
	case !ok:
	case n == 0 && !at:
		s.cacheable = false
	default:
		if !at {
			n = addSeconds(n)
		}
		s.lookup.Valid, s.forbidden, s.expired = n, false, false
	}
}

// addSeconds gives the time that lies so many seconds ahead.
func addSeconds(n int64) int64 {
	now := time.Now().Unix()
	if n > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + n
}

// cacheControl reads one Cache-Control.
func (s *cacheScratch) cacheControl(value []byte) {
	l := s.lookup
	if l.Valid == 0 || !s.expires {
		if indexFold(value, "no-cache") >= 0 || indexFold(value, "no-store") >= 0 || indexFold(value, "private") >= 0 {
			s.forbidden = true
			return
		}
		n, ok, said := deltaSeconds(value, "s-maxage=")
		if !said {
			n, ok, said = deltaSeconds(value, "max-age=")
		}
		switch {
		case !said:
		case !ok:
			s.cacheable = false
			return
		case n == 0:
			s.forbidden = true
			return
		default:
			l.Valid, s.expired = addSeconds(n), false
		}
	}
	for _, name := range []string{"stale-while-revalidate=", "stale-if-error="} {
		switch n, ok, said := deltaSeconds(value, name); {
		case !said:
		case !ok:
			s.cacheable = false
			return
		case name == "stale-if-error=":
			l.Error = n
		default:
			l.Updating, l.Error = n, n
		}
	}
}

// deltaSeconds finds the number behind a name; ok says whether it is one.
func deltaSeconds(value []byte, name string) (n int64, ok, said bool) {
	i := indexFold(value, name)
	if i < 0 {
		return 0, false, false
	}
	for _, c := range value[i+len(name):] {
		switch {
		case c == ',' || c == ';' || c == ' ':
			return n, true, true
		case c < '0' || c > '9':
			return 0, false, true
		case n > (math.MaxInt64-9)/10:
			return math.MaxInt64, true, true
		}
		n = n*10 + int64(c-'0')
	}
	return n, true, true
}

// cacheVary takes one more Vary.
func (x *Exchange) cacheVary(value []byte) {
	s := x.upstream.cache
	if string(value) == "*" {
		s.cacheable = false
		return
	}
	if l := s.lookup; l.Vary == nil {
		l.Vary = value
	} else {
		l.Vary = x.keep(l.Vary, ", ", value)
	}
	if len(s.lookup.Vary) > cache.MaxVary {
		s.cacheable = false
	}
}

// settle decides before the head is sent whether the answer may be kept.
func (s *cacheScratch) settle() {
	if s.forbidden || s.expired {
		s.cacheable = false
	}
}

// validUntil is until when an answer may be used: as it says, else as the
// configuration does; 0 for not at all.
func (x *Exchange) validUntil(status int) int64 {
	if until := x.upstream.cache.lookup.Valid; until != 0 {
		return until
	}
	if t := x.upstream.conf.cache.validFor(status); t > 0 {
		return addSeconds(int64(t / time.Second))
	}
	return 0
}

// keepAnswer begins to store the answer whose body follows, if it is to be kept.
func (x *Exchange) keepAnswer() {
	u := &x.upstream
	s := u.cache
	if s == nil {
		return
	}
	until := int64(0)
	if u.answer.buffering && s.cacheable && !x.anyTrue(u.conf.cache.noCache.Items) {
		until = x.validUntil(u.answer.status)
	}
	if until == 0 {
		s.cacheable = false
		s.lookup.Close()
		return
	}
	l := s.lookup
	l.Valid, l.Date = until, time.Now().Unix()
	if err := x.storeHead(); err != nil {
		x.Logf(logCrit, "the answer is not kept: %v", err)
		s.cacheable = false
		l.Close()
	}
}

// storeHead stores the head of the answer.
func (x *Exchange) storeHead() (err error) {
	u := &x.upstream
	head := append(x.borrow(), "HTTP/1.1 "...)
	if len(u.answer.line) > 0 {
		head = append(head, u.answer.line...)
	} else {
		head = http1.AppendInt(head, int64(u.answer.status))
	}
	head = append(head, "\r\n"...)
	for i := range u.fields {
		switch u.kinds[i] {
		case fieldTransferEncoding, fieldConnection, fieldKeepAlive:
		default:
			head = http1.AppendField(head, u.fields[i].Name, u.fields[i].Value)
		}
	}
	head = append(head, "\r\n"...)
	defer func() { x.giveBack(head) }()
	var file *os.File
	if !u.cache.zone.besides {
		if file, _, err = u.conf.tempPath.create(false); err != nil {
			return err
		}
	}
	u.cache.writer, err = u.cache.lookup.Store(head, file)
	return err
}

// commitCache makes a complete answer one that can be found.
func (x *Exchange) commitCache() {
	if s := x.upstream.cache; s != nil && s.writer != nil {
		if err := s.writer.Commit(); err != nil {
			x.Logf(logCrit, "the answer is not kept: %v", err)
		}
	}
}

// staleFor says whether an answer that is no longer valid may stand for a
// failure.
func (x *Exchange) staleFor(why uint32) bool {
	s := x.upstream.cache
	if s == nil || s.status != cacheExpired {
		return false
	}
	return x.upstream.conf.cache.useStale&why != 0 || s.lookup.StaleIfError()
}

// staleForStatus says whether it may stand for an answer with a status that
// next_upstream knows.
func (x *Exchange) staleForStatus(bit uint32) bool {
	s := x.upstream.cache
	return s != nil && s.status == cacheExpired && x.upstream.conf.cache.useStale&bit != 0
}

// sendStale answers with what is no longer valid.
func (x *Exchange) sendStale() Code {
	x.leaveServer()
	x.upstream.cache.status = cacheStale
	code, ok := x.sendCached()
	if !ok {
		return 500
	}
	return code
}

// revalidated says whether the server confirmed the answer that is there.
func (x *Exchange) revalidated() bool {
	u := &x.upstream
	return u.cache != nil && u.answer.status == 304 && u.cache.status == cacheExpired && u.conf.cache.revalidate
}

// sendConfirmed answers with what the server confirmed. The answer itself says
// how long it is valid if the server did not say it again.
func (x *Exchange) sendConfirmed() Code {
	s := x.upstream.cache
	l := s.lookup
	x.leaveServer()
	s.status = cacheRevalidated
	if !x.readCached() {
		return 500
	}
	if l.Valid == 0 {
		x.cacheTerms()
	}
	if until := x.validUntil(x.upstream.answer.status); until != 0 {
		l.Valid, l.Date = until, time.Now().Unix()
		l.ETag, l.LastModified, l.Vary = s.found.ETag, s.found.LastModified, s.found.Vary
		if err := l.Confirm(); err != nil {
			x.Logf(logCrit, "the answer in the cache is not renewed: %v", err)
		}
	}
	return x.passCached()
}

// rememberFault keeps the status of a failure in place of an answer.
func (x *Exchange) rememberFault(status Code) {
	s := x.upstream.cache
	if s == nil || !s.cacheable || status != 502 && status != 504 {
		return
	}
	if t := x.upstream.conf.cache.validFor(int(status)); t > 0 {
		s.lookup.Remember(int(status), addSeconds(int64(t/time.Second)))
	}
}

// rememberIntercepted keeps the status of an answer that error_page replaces.
func (x *Exchange) rememberIntercepted(status int) {
	s := x.upstream.cache
	if s == nil {
		return
	}
	s.settle()
	if until := x.validUntil(status); s.cacheable && until != 0 {
		s.lookup.Remember(status, until)
	}
}

// leaveCache ends the business with the cache.
func (x *Exchange) leaveCache() {
	s := x.upstream.cache
	if s == nil {
		return
	}
	if s.writer != nil {
		s.writer.Discard()
		s.writer.Close()
	}
	if s.behind { // who updates it is known as long as it does
		x.atEnd(s.lookup.Close)
		return
	}
	s.lookup.Close()
}

func cacheVariables() []Variable {
	expired := func(x *Exchange) *cache.Lookup {
		if s := x.upstream.cache; s != nil && s.status == cacheExpired && x.upstream.conf.cache.revalidate {
			return s.lookup
		}
		return nil
	}
	return []Variable{
		{Name: "upstream_cache_status", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if s := x.upstream.cache; s != nil {
				return append(dst, s.status.String()...), true
			}
			return dst, false
		}},
		{Name: "upstream_cache_last_modified", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if l := expired(x); l != nil && l.LastModified != -1 {
				return http1.AppendTime(dst, l.LastModified), true
			}
			return dst, false
		}},
		{Name: "upstream_cache_etag", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			if l := expired(x); l != nil && len(l.ETag) > 0 {
				return append(dst, l.ETag...), true
			}
			return dst, false
		}},
	}
}
