package proxy

import "proxyctl/proxy/http1"

// Body filters: what stands between those who produce a body and the client's
// stream. A header filter that wants to see the body installs one.

// bodyWriter passes body bytes on to the client; last ends the body. The bytes
// are not kept.
type bodyWriter func(x *Exchange, p []byte, last bool) error

// bodyFilter makes the writer that changes what goes to next.
type bodyFilter func(next bodyWriter) bodyWriter

// output are the body filters of an exchange, in the order in which bytes meet
// them. The answers of subrequests are put in between the two lists: they have
// been through filters of their own, but are encoded together with the body
// they are part of (nginx: the place of ngx_http_postpone_filter_module).
type output struct {
	content []bodyFilter // change what the body says
	coding  []bodyFilter // change how it is said
	first   bodyWriter   // the whole chain; made at the first write
	behind  bodyWriter   // the chain from the place of subrequests on
	urge    urge         // while bytes go through the chain
}

// urge says that filters are to pass on what they hold back.
type urge uint8

const (
	partEnds urge = iota + 1 // something else follows: what is incomplete stays so
	flushing                 // the client waits
)

// any says whether there are filters at all.
func (o *output) any() bool { return len(o.content)+len(o.coding) > 0 }

// link makes the chain.
func (o *output) link() {
	if o.first != nil {
		return
	}
	o.behind = chain(o.coding, (*Exchange).writeOut)
	o.first = chain(o.content, o.behind)
}

func chain(filters []bodyFilter, next bodyWriter) bodyWriter {
	for i := len(filters) - 1; i >= 0; i-- {
		next = filters[i](next)
	}
	return next
}

// FilterBody puts a filter behind those that are installed so far, in front of
// the place where the answers of subrequests are put in.
func (x *Exchange) FilterBody(f bodyFilter) { x.output.content = append(x.output.content, f) }

// EncodeBody puts a filter behind all that are installed so far.
func (x *Exchange) EncodeBody(f bodyFilter) { x.output.coding = append(x.output.coding, f) }

// WriteBody passes body bytes through the body filters to the client. The
// bytes are not kept.
func (x *Exchange) WriteBody(p []byte, last bool) error {
	var err error
	if x.output.any() {
		x.output.link()
		err = x.output.first(x, p, last)
	} else {
		err = x.writeOut(p, last)
	}
	if err != nil {
		x.fail()
	}
	return err
}

// writeBehind passes bytes of a subrequest on, into the middle of this body.
func (x *Exchange) writeBehind(p []byte) error {
	x.output.link()
	return x.output.behind(x, p, false)
}

// writeOut is the innermost body writer.
func (x *Exchange) writeOut(p []byte, last bool) error {
	if x.headerOnly {
		p = nil
	}
	if x.pace.rate > 0 && len(p) > 0 {
		return x.writePaced(p, last)
	}
	x.bodySent += int64(len(p))
	return x.stream.writeBody(x, p, last)
}

// Flush sends what the filters and the stream have kept back.
func (x *Exchange) Flush() error {
	if x.output.any() && !x.headerOnly {
		x.output.link()
		if err := x.flushFrom(x.output.first); err != nil {
			return err
		}
	}
	return x.stream.flush()
}

// flushBehind is Flush for a subrequest in the middle of this body.
func (x *Exchange) flushBehind() error {
	x.output.link()
	if err := x.flushFrom(x.output.behind); err != nil {
		return err
	}
	return x.stream.flush()
}

func (x *Exchange) flushFrom(w bodyWriter) error { return x.writeUrged(w, nil, flushing) }

// writeUrged writes bytes that filters are not to hold back.
func (x *Exchange) writeUrged(w bodyWriter, p []byte, u urge) error {
	x.output.urge = u
	err := w(x, p, false)
	x.output.urge = 0
	return err
}

// changesBody takes back what the head says about a body that a filter is going
// to change: its length, its parts and, in part, its ETag
// (ngx_http_clear_content_length, ngx_http_clear_accept_ranges).
func (a *Answer) changesBody() {
	a.ContentLength = -1
	a.Remove(http1.ContentLength)
	a.AcceptRanges = false
	a.Remove(http1.AcceptRanges)
}

// weakenETag says that the body is only the same in meaning
// (ngx_http_weak_etag).
func (x *Exchange) weakenETag() {
	for i := range x.Out.Fields {
		f := &x.Out.Fields[i]
		if f.ID != http1.ETag {
			continue
		}
		switch {
		case len(f.Value) > 2 && f.Value[0] == 'W' && f.Value[1] == '/':
		case len(f.Value) == 0 || f.Value[0] != '"':
			x.Out.Remove(http1.ETag)
		default:
			f.Value = x.keep("W/", f.Value)
		}
		return
	}
}
