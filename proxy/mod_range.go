package proxy

import (
	"bytes"
	"crypto/rand"
	"math"
	"strconv"

	"proxyctl/proxy/http1"
)

// ngx_http_range_filter_module: answers with the parts that a Range field asks
// for.

func rangeModule() Module {
	return Module{
		Name:   "ngx_http_range_header_filter_module",
		Header: func(*Conf) HeaderFilter { return filterRange },
	}
}

// byteRange is one part of an answer; header precedes it in a multipart body.
type byteRange struct {
	start, end int64
	header     []byte
}

func filterRange(x *Exchange) Code {
	a := &x.Out
	limit := x.loc.Conf.Core.MaxRanges
	if x.inner.level > 0 || a.Status != 200 || a.ContentLength < 0 || !a.AcceptRanges || limit == 0 {
		return OK
	}
	if !a.seekable {
		limit = 1
	}
	field, ok := x.Header(http1.Range)
	if !ok || len(field) < 7 || !bytes.EqualFold(field[:6], []byte("bytes=")) || !x.ifRange() {
		a.Add(acceptRangesName, bytesUnit)
		return OK
	}
	ranges, verdict := parseRanges(field[6:], a.ContentLength, limit)
	switch verdict {
	case rangesNone:
		a.Add(acceptRangesName, bytesUnit)
		return OK
	case rangesUnsatisfiable:
		total := a.ContentLength
		a.Remove(http1.ContentRange)
		a.Add(contentRangeName, x.keep("bytes */", strconv.FormatInt(total, 10)))
		return 416
	case rangesFound:
	}
	a.Status, a.StatusLine = 206, nil
	if len(ranges) == 1 {
		x.singleRange(ranges[0])
	} else {
		x.multipleRanges(ranges)
	}
	return OK
}

var (
	acceptRangesName = []byte("Accept-Ranges")
	contentRangeName = []byte("Content-Range")
	bytesUnit        = []byte("bytes")
)

// ifRange says whether If-Range allows a partial answer.
func (x *Exchange) ifRange() bool {
	v, ok := x.Header(http1.IfRange)
	if !ok {
		return true
	}
	if n := len(v); n >= 2 && v[n-1] == '"' {
		etag, _ := x.Out.Find(http1.ETag)
		return etag != nil && bytes.Equal(v, etag)
	}
	t, ok := parseHTTPTime(v)
	return ok && x.Out.LastModified >= 0 && t == x.Out.LastModified
}

// singleRange makes the answer that one part.
func (x *Exchange) singleRange(r byteRange) {
	a := &x.Out
	a.Remove(http1.ContentRange)
	a.Add(contentRangeName, x.contentRange("", r, a.ContentLength, ""))
	a.ContentLength = r.end - r.start
	if a.seekable {
		a.ranges = append(a.ranges[:0], r)
		return
	}
	a.from = r.start
	x.EncodeBody(func(next bodyWriter) bodyWriter {
		return func(x *Exchange, p []byte, last bool) error {
			position := x.Out.position
			from := max(r.start-position, 0)
			to := min(r.end-position, int64(len(p)))
			x.Out.position += int64(len(p))
			if from >= to {
				p = nil
			} else {
				p = p[from:to]
			}
			return next(x, p, last)
		}
	})
}

// multipleRanges makes the answer a multipart/byteranges body of known length.
func (x *Exchange) multipleRanges(ranges []byteRange) {
	a := &x.Out
	a.Remove(http1.ContentRange)
	var random [10]byte // two digits each: as long as those of nginx
	_, _ = rand.Read(random[:])
	boundary := make([]byte, 0, 20)
	for _, b := range random {
		boundary = append(boundary, '0'+b>>4%10, '0'+b&15%10)
	}
	total := a.ContentLength
	part := "\r\n--" + string(boundary) + "\r\n"
	if len(a.ContentType) > 0 {
		part += "Content-Type: " + string(a.ContentType)
		if len(a.Charset) > 0 && a.typeLength == 0 {
			part += "; charset=" + string(a.Charset)
		}
		part += "\r\n"
	}
	part += "Content-Range: "
	length := int64(0)
	for i := range ranges {
		r := &ranges[i]
		r.header = x.contentRange(part, *r, total, "\r\n\r\n")
		length += int64(len(r.header)) + r.end - r.start
	}
	a.ranges = ranges
	a.rangeEnd = x.keep("\r\n--", boundary, "--\r\n")
	a.ContentLength = length + int64(len(a.rangeEnd))
	a.ContentType = x.keep("multipart/byteranges; boundary=", boundary)
	a.Charset, a.typeLength = nil, 0
}

// contentRange writes "bytes first-last/total" between prefix and suffix.
func (x *Exchange) contentRange(prefix string, r byteRange, total int64, suffix string) []byte {
	start := len(x.arena)
	x.arena = append(append(x.arena, prefix...), "bytes "...)
	x.arena = strconv.AppendInt(x.arena, r.start, 10)
	x.arena = strconv.AppendInt(append(x.arena, '-'), r.end-1, 10)
	x.arena = strconv.AppendInt(append(x.arena, '/'), total, 10)
	x.arena = append(x.arena, suffix...)
	return x.arena[start:len(x.arena):len(x.arena)]
}

type rangeVerdict uint8

const (
	rangesNone rangeVerdict = iota // send everything
	rangesFound
	rangesUnsatisfiable
)

// parseRanges reads the list after "bytes=". More parts than limit, or parts
// that together cost more than the whole, mean the whole is sent
// (ngx_http_range_parse).
func parseRanges(s []byte, length int64, limit int) ([]byteRange, rangeVerdict) {
	var out []byteRange
	size := int64(0)
	for part := range bytes.SplitSeq(s, []byte(",")) {
		r, ok := parseRange(part, length)
		if !ok {
			return nil, rangesUnsatisfiable
		}
		switch {
		case r.start < r.end:
			if size > math.MaxInt64-(r.end-r.start) {
				return nil, rangesUnsatisfiable
			}
			size += r.end - r.start
			out = append(out, r)
			if len(out) > limit {
				return nil, rangesNone
			}
		case r.start == 0:
			return nil, rangesNone
		}
	}
	switch {
	case len(out) == 0:
		return nil, rangesUnsatisfiable
	case len(out) == 1:
		return out, rangesFound
	case size > length:
		return nil, rangesNone
	}
	// without max_ranges nginx counts 256 bytes of headers a part against 4k
	if limit == math.MaxInt32 && size+256*int64(len(out)) > length+4096 {
		return nil, rangesNone
	}
	return out, rangesFound
}

// parseRange reads "first-last", "first-" or "-suffix".
func parseRange(s []byte, length int64) (byteRange, bool) {
	first, last, dash := bytes.Cut(s, []byte("-"))
	first, last = bytes.Trim(first, " "), bytes.Trim(last, " ")
	if !dash {
		return byteRange{}, false
	}
	if len(first) == 0 {
		n, ok := digits(string(last))
		if !ok {
			return byteRange{}, false
		}
		return byteRange{start: max(length-n, 0), end: min(length, length)}, true
	}
	start, ok := digits(string(first))
	if !ok {
		return byteRange{}, false
	}
	if len(last) == 0 {
		return byteRange{start: start, end: length}, true
	}
	end, ok := digits(string(last))
	if !ok {
		return byteRange{}, false
	}
	if end >= length {
		end = length
	} else {
		end++
	}
	return byteRange{start: start, end: end}, true
}
