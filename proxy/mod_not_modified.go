package proxy

import (
	"bytes"

	"proxyctl/proxy/http1"
)

// ngx_http_not_modified_filter_module: answers conditional requests.

func notModifiedModule() Module {
	return Module{
		Name:   "ngx_http_not_modified_filter_module",
		Header: func(*Conf) HeaderFilter { return filterNotModified },
	}
}

func filterNotModified(x *Exchange) Code {
	a := &x.Out
	if x.inner.level > 0 || a.Status != 200 || a.passValidators {
		return OK
	}
	if v, ok := x.Header(http1.IfUnmodifiedSince); ok && !x.unmodifiedSince(v) {
		a.reset()
		return 412
	}
	if v, ok := x.Header(http1.IfMatch); ok && !x.matchesETag(v, false) {
		a.reset()
		return 412
	}
	since, hasSince := x.Header(http1.IfModifiedSince)
	none, hasNone := x.Header(http1.IfNoneMatch)
	if !hasSince && !hasNone || hasSince && x.modifiedSince(since) || hasNone && !x.matchesETag(none, true) {
		return OK
	}
	a.Status, a.StatusLine = 304, nil
	a.ContentType, a.ContentLength = nil, -1
	a.Remove(http1.ContentLength)
	a.AcceptRanges = false
	a.Remove(http1.AcceptRanges)
	a.Remove(http1.ContentEncoding)
	return OK
}

func (x *Exchange) unmodifiedSince(v []byte) bool {
	t, ok := parseHTTPTime(v)
	return ok && x.Out.LastModified >= 0 && t >= x.Out.LastModified
}

// modifiedSince compares If-Modified-Since as if_modified_since wants it.
func (x *Exchange) modifiedSince(v []byte) bool {
	how := x.loc.Conf.Core.IfModifiedSince
	modified := x.Out.LastModified
	if modified < 0 || how == imsOff {
		return true
	}
	t, ok := parseHTTPTime(v)
	if ok && t == modified {
		return false
	}
	return !ok || how == imsExact || t < modified
}

// matchesETag looks for the answer's ETag in a list of them.
func (x *Exchange) matchesETag(list []byte, weak bool) bool {
	if string(list) == "*" {
		return true
	}
	etag, ok := x.Out.Find(http1.ETag)
	if !ok {
		return false
	}
	if weak {
		etag = bytes.TrimPrefix(etag, []byte("W/"))
	}
	for item := range bytes.SplitSeq(list, []byte(",")) {
		item = bytes.Trim(item, " \t")
		if weak {
			item = bytes.TrimPrefix(item, []byte("W/"))
		}
		if bytes.Equal(item, etag) {
			return true
		}
	}
	return false
}
