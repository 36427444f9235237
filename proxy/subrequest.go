package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"proxyctl/proxy/http1"
)

// Subrequests: exchanges inside an exchange (ngx_http_subrequest). A subrequest
// runs to its end where it is made, in the goroutine of its parent. It shares
// the request, the variables and the memory of values with its parent, skips
// the access phase, and has an answer and filters of its own. Only one that
// runs in the background, for its effect, has a goroutine and copies.

// innerScratch is what an exchange knows about subrequests: its own being one,
// and those that it made.
type innerScratch struct {
	parent *Exchange // nil for the main request, and in the background
	level  int       // 0 for the main request
	count  int       // of the main request: subrequests made so far
	stream subStream
	// memory of its own, unused while it borrows the parent's
	slots []slot
	arena []byte

	background *sync.WaitGroup // of the main request: those that still run
	clone      bool            // in the background, does again what its parent does
	slice      bool            // asks for a slice of its parent's answer
}

// The limits of nginx: how deep subrequests may be nested, and how many a
// request may have.
const (
	maxSubrequestDepth = 51
	maxSubrequests     = 65535 - 1000
)

// destination is where the body of a subrequest goes.
type destination uint8

const (
	toNobody destination = iota // only its head is wanted
	toParent                    // into the parent's body, at this place
	toMemory                    // into memory
)

var (
	// errNoSubrequest: it was not made, which has been logged.
	errNoSubrequest = errors.New("no subrequest made")
	// errSubrequest: it ended in a way that the client must see as a break.
	errSubrequest = errors.New("subrequest failed")
)

// root is the main request.
func (x *Exchange) root() *Exchange {
	for x.inner.parent != nil {
		x = x.inner.parent
	}
	return x
}

// subrequest runs a subrequest and returns it when it has ended. The caller
// looks at what it wants of it and ends it with endSubrequest. instead, unless
// nil, is what it answers if it would answer with an error or an empty body.
func (x *Exchange) subrequest(uri, args []byte, to destination, instead []byte) (*Exchange, error) {
	s, err := x.newSubrequest(uri, args, to)
	if err != nil {
		return nil, err
	}
	s.inner.stream.instead = instead
	if err := x.runInside(s, ServerRewrite); err != nil {
		return nil, err
	}
	return s, nil
}

// runInside runs a subrequest to its end, from a phase on.
func (x *Exchange) runInside(s *Exchange, from Phase) error {
	s.inner.parent = x
	s.inner.slots, s.slots = s.slots, x.slots
	s.inner.arena, s.arena = s.arena, x.arena
	s.runSubrequest(from)
	x.arena = s.arena
	if s.failed {
		x.endSubrequest(s)
		return errSubrequest
	}
	return nil
}

// includeSlice puts the slice that is asked for now into the body.
func (x *Exchange) includeSlice() error {
	s, err := x.newClone(toParent)
	if err != nil {
		return err
	}
	s.inner.slice = true
	s.method = x.method
	if err := x.runInside(s, Content); err != nil {
		return err
	}
	x.endSubrequest(s)
	return nil
}

// newSubrequest makes a subrequest.
func (x *Exchange) newSubrequest(uri, args []byte, to destination) (*Exchange, error) {
	root := x.root()
	switch {
	case x.inner.level >= maxSubrequestDepth:
		x.Logf(logError, "subrequests cycle while processing \"%s\"", uri)
		return nil, errNoSubrequest
	case root.inner.count >= maxSubrequests:
		x.Logf(logCrit, "request reference counter overflow while processing \"%s\"", uri)
		return nil, errNoSubrequest
	case x.inner.stream.to == toMemory:
		x.Logf(logError, "nested in-memory subrequest \"%s\"", uri)
		return nil, errNoSubrequest
	}
	root.inner.count++
	s := exchanges.Get().(*Exchange)
	s.client, s.table, s.server, s.loc = x.client, x.table, x.server, x.server.Level
	s.Req, s.method, s.trace = x.Req, "GET", x.trace
	s.start = time.Now()
	s.Out.reset()
	s.uri, s.args, s.extension = uri, args, extension(uri)
	s.rawURI, s.host, s.hostPort, s.realip = x.rawURI, x.host, x.hostPort, x.realip
	s.internal, s.locationValid = true, true
	s.keepAlive = x.keepAlive
	s.body, s.bodyRead = x.body, true
	s.inner.level = x.inner.level + 1
	s.inner.stream = subStream{x: s, to: to}
	s.stream = &s.inner.stream
	s.headerOnly = to == toNobody
	return s, nil
}

// runSubrequest takes the subrequest through the phases, from one of them on,
// and logs it.
func (x *Exchange) runSubrequest(from Phase) {
	x.resume = from
	code := x.phases()
	for code = x.finalize(code); code == Again; {
		code = x.finalize(x.phases())
	}
	if x.loc.Conf.Core.LogSubrequest {
		for _, h := range x.loc.handlers[LogPhase] {
			h(x)
		}
	}
}

// endSubrequest gives a subrequest back. What it left in variables stays.
func (x *Exchange) endSubrequest(s *Exchange) {
	s.slots, s.arena, s.body = s.inner.slots, s.inner.arena, requestBody{}
	s.recycle()
}

// include puts the answer of a subrequest into the body of x, at this place.
func (x *Exchange) include(uri, args, instead []byte) error {
	s, err := x.subrequest(uri, args, toParent, instead)
	if err != nil {
		return err
	}
	x.endSubrequest(s)
	return nil
}

// inBackground starts a subrequest with the method of x whose answer nobody
// wants. The main request does not end before it has.
func (x *Exchange) inBackground(uri, args []byte) error {
	s, err := x.newSubrequest(uri, args, toNobody)
	if err != nil {
		return err
	}
	x.startBehind(s, ServerRewrite)
	return nil
}

// cloneInBackground starts a clone of x.
func (x *Exchange) cloneInBackground() error {
	s, err := x.newClone(toNobody)
	if err != nil {
		return err
	}
	s.inner.clone = true
	x.startBehind(s, Content)
	return nil
}

// newClone makes a subrequest that does once more what x is about to do, from the
// content phase on (NGX_HTTP_SUBREQUEST_CLONE).
func (x *Exchange) newClone(to destination) (*Exchange, error) {
	s, err := x.newSubrequest(x.uri, x.args, to)
	if err != nil {
		return nil, err
	}
	s.loc, s.content = x.loc, x.content
	s.locationValid, s.unparsedValid, s.quotedURI, s.plusURI = x.locationValid, x.unparsedValid, x.quotedURI, x.plusURI
	s.captured, s.captures = bytes.Clone(x.captured), append(s.captures[:0], x.captures...)
	return s, nil
}

// startBehind runs a subrequest in the background, from a phase on.
func (x *Exchange) startBehind(s *Exchange, from Phase) {
	s.method = x.method
	if x.trace != nil {
		s.trace = &Trace{} // nobody reads it
	}
	s.slots = append(s.slots[:0], x.slots...)
	for i := range s.slots {
		s.slots[i].value = append([]byte(nil), s.slots[i].value...)
	}
	s.uri, s.args = bytes.Clone(s.uri), bytes.Clone(s.args)
	root := x.root()
	s.id, s.hasID, s.limited = root.id, root.hasID, root.limited
	if root.inner.background == nil {
		root.inner.background = &sync.WaitGroup{}
	}
	root.inner.background.Go(func() {
		s.runSubrequest(from)
		s.releaseCounts()
		s.body = requestBody{}
		s.recycle()
	})
}

// awaitBackground waits for the subrequests in the background.
func (x *Exchange) awaitBackground() {
	if x.inner.background != nil {
		x.willWait()
		x.inner.background.Wait()
	}
}

// subStream is what a subrequest has instead of the client's side.
type subStream struct {
	x       *Exchange
	to      destination
	memory  []byte
	instead []byte
}

// sendInstead answers with what stands for an error or an empty body
// (ngx_http_ssi_stub_output).
func (x *Exchange) sendInstead() Code {
	body := x.inner.stream.instead
	x.inner.stream.instead = nil
	x.headerOnly = false
	if !x.headSent {
		p := &x.inner.parent.Out
		x.Out.Status, x.errorStatus = 200, 0
		x.Out.ContentLength = -1
		x.Out.ContentType, x.Out.Charset, x.Out.typeLength = p.ContentType, p.Charset, p.typeLength
		if code := x.SendHead(); code != OK {
			x.fail()
			return Done
		}
	}
	_ = x.WriteBody(body, true)
	return Done
}

func (s *subStream) buffered() ([]byte, bool)                         { return nil, true }
func (s *subStream) readBody([]byte) (int, error)                     { return 0, io.EOF }
func (s *subStream) splitBody()                                       {}
func (s *subStream) stopBody()                                        {}
func (s *subStream) sendContinue() error                              { return nil }
func (s *subStream) withholdContinue()                                {}
func (s *subStream) writeInterim(*Exchange, int, []http1.Field) error { return nil }
func (s *subStream) setTimeouts(*http1.Timeouts)                      {}
func (s *subStream) hijack() (rawConn, []byte, error)                 { return nil, nil, errSubrequest }
func (s *subStream) writeHead(*Exchange) error                        { return nil }

func (s *subStream) writeBody(x *Exchange, p []byte, _ bool) error {
	switch {
	case len(p) == 0 || s.to == toNobody:
		return nil
	case s.to == toParent:
		return x.inner.parent.writeBehind(p)
	}
	if limit := x.loc.Conf.Core.SubrequestBuffer; int64(len(s.memory)+len(p)) > limit {
		x.Logf(logError, "too big subrequest response")
		return errSubrequest
	}
	s.memory = append(s.memory, p...)
	return nil
}

func (s *subStream) flush() error {
	if s.to == toParent {
		return s.x.inner.parent.flushBehind()
	}
	return nil
}

// watch hands the place of the one who is told that the client goes away over
// to the subrequest; unwatch gives it back.
func (s *subStream) watch(gone func()) {
	if p := s.x.inner.parent; p != nil {
		p.stream.watch(gone)
	}
}

func (s *subStream) unwatch() {
	p := s.x.inner.parent
	if p == nil {
		return
	}
	if u := &p.upstream; u.watching {
		p.stream.watch(u.watch.call)
		return
	}
	p.stream.unwatch()
}
