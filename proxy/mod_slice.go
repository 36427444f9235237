package proxy

import (
	"bytes"
	"math"

	"proxyctl/proxy/http1"
)

// ngx_http_slice_filter_module: a large answer is asked for in slices, which can
// be kept one by one. $slice_range is what the slice of the moment is asked for
// by; the first comes by the request itself, the others by subrequests that do
// the same again.

func sliceModule() Module {
	return Module{
		Name: "ngx_http_slice_filter_module",
		Commands: []Command{
			Size(Command{Name: "slice", In: inHTTPLevels, Default: "0", Doc: "Sets the size of slices; 0 for none."}, func(c *Conf) *int64 { return &c.Slice }),
		},
		Variables: []Variable{{Name: "slice_range", Get: sliceRange}},
		Header: func(c *Conf) HeaderFilter {
			if c.Slice == 0 {
				return nil
			}
			return filterSlice
		},
	}
}

// sliceScratch is the answer that a main request puts together, from the first
// use of $slice_range on.
type sliceScratch struct {
	asked string // $slice_range
	start int64  // of the slice that is asked for, then of the next one
	end   int64  // of what is wanted; 0: not yet known
	came  bool   // the slice that was asked for
	etag  []byte
}

// slices is the answer that x gives a slice of; nil for none.
func (x *Exchange) slices() *sliceScratch {
	switch {
	case x.inner.slice:
		return x.inner.parent.slice
	case x.inner.level == 0:
		return x.slice
	}
	return nil
}

// sliceRange is the variable. Its first use makes the request one for slices.
func sliceRange(dst []byte, x *Exchange, _ string) ([]byte, bool) {
	s := x.slices()
	if s == nil {
		size := x.loc.Conf.Slice
		if size == 0 || x.inner.level > 0 || x.headSent {
			return dst, false
		}
		s = &sliceScratch{}
		x.slice = s
		s.ask(x.firstByte()/size*size, size)
	}
	return append(dst, s.asked...), true
}

// ask sets what is asked for.
func (s *sliceScratch) ask(start, size int64) {
	s.start, s.came = start, false
	b := http1.AppendInt(append(make([]byte, 0, 48), "bytes="...), start)
	if start > math.MaxInt64-size {
		size = math.MaxInt64 - start
	}
	s.asked = string(http1.AppendInt(append(b, '-'), start+size-1))
}

// firstByte is where the client's range begins, as far as can be told before
// the length is known: 0 else.
func (x *Exchange) firstByte() int64 {
	v, ok := x.Header(http1.Range)
	if _, conditional := x.Header(http1.IfRange); !ok || conditional || len(v) < 7 || !bytes.EqualFold(v[:6], []byte("bytes=")) || bytes.IndexByte(v, ',') >= 0 {
		return 0
	}
	n, rest, ok := leadingNumber(bytes.TrimLeft(v[6:], " "))
	if !ok || len(rest) == 0 {
		return 0
	}
	return n
}

// filterSlice looks at the head of a slice. That of the first becomes the head of
// the whole answer.
func filterSlice(x *Exchange) Code {
	s, a := x.slices(), &x.Out
	if s == nil {
		return OK
	}
	if a.Status != 206 && !x.inner.slice { // an error, or a server that knows no ranges
		x.slice = nil
		return OK
	}
	start := s.start
	total, code := s.take(x)
	if code != OK || x.inner.slice {
		return code
	}
	a.Status, a.StatusLine = 200, nil
	a.ContentLength, a.position = total, start
	a.Remove(http1.ContentRange)
	a.Remove(http1.AcceptRanges)
	a.AcceptRanges, a.seekable = true, false
	if v, ok := a.Find(http1.LastModified); ok { // If-Range asks for it
		if t, ok := parseHTTPTime(v); ok {
			a.LastModified = t
			a.Remove(http1.LastModified)
		}
	}
	x.FilterBody(joinSlices)
	return OK
}

// take holds a slice against what was asked for, and gives the length of the
// whole.
func (s *sliceScratch) take(x *Exchange) (total int64, code Code) {
	a, size := &x.Out, x.loc.Conf.Slice
	refuse := func(format string, v ...any) (int64, Code) {
		x.Logf(logError, format, v...)
		return 0, Abort
	}
	if a.Status != 206 {
		return refuse("unexpected status code %d in slice response", a.Status)
	}
	etag, _ := a.Find(http1.ETag)
	if len(s.etag) > 0 && !bytes.Equal(etag, s.etag) {
		return refuse("etag mismatch in slice response")
	}
	s.etag = etag
	field, _ := a.Find(http1.ContentRange)
	start, end, total, ok := parseContentRange(field)
	switch {
	case !ok:
		return refuse("invalid range in slice response")
	case total < 0:
		return refuse("no complete length in slice response")
	}
	if want := min(s.start+min(size, math.MaxInt64-s.start), total); start != s.start || end != want {
		return refuse("unexpected range in slice response: %d-%d, expected: %d-%d", start, end, s.start, want)
	}
	s.start, s.came = end, true
	return total, OK
}

// parseContentRange reads "bytes first-last/length"; end is behind the last, and
// length -1 for "*".
func parseContentRange(v []byte) (start, end, length int64, ok bool) {
	v, ok = bytes.CutPrefix(v, []byte("bytes "))
	next := func(separator string) (n int64) {
		v = bytes.TrimLeft(v, " ")
		if ok {
			n, v, ok = leadingNumber(v)
		}
		v = bytes.TrimLeft(v, " ")
		if ok && separator != "" {
			v, ok = bytes.CutPrefix(v, []byte(separator))
		}
		return n
	}
	start = next("-")
	end = next("/") + 1
	if v = bytes.TrimLeft(v, " "); ok && len(v) > 0 && v[0] == '*' {
		return start, end, -1, len(bytes.TrimLeft(v[1:], " ")) == 0
	}
	length = next("")
	return start, end, length, ok && len(v) == 0
}

// joinSlices puts the other slices behind the first.
func joinSlices(next bodyWriter) bodyWriter {
	return func(x *Exchange, p []byte, last bool) error {
		if err := next(x, p, false); err != nil || !last {
			return err
		}
		s, size := x.slice, x.loc.Conf.Slice
		s.want(x, size)
		for s.start < s.end {
			x.Out.position = s.start
			s.ask(s.start, size)
			err := x.includeSlice()
			if err == nil && !s.came {
				x.Logf(logError, "missing slice response")
				err = errSubrequest
			}
			if err != nil {
				x.forgetUnsent()
				return err
			}
		}
		x.slice = nil
		return next(x, nil, true)
	}
}

// want finds out what is sent of the whole: slices before a range are passed by.
func (s *sliceScratch) want(x *Exchange, size int64) {
	a := &x.Out
	s.end = a.ContentLength
	if a.Status == 206 {
		s.end += a.from
		if s.start+size <= a.from {
			s.start = a.from / size * size
		}
	}
}
