package proxy

import "proxyctl/proxy/http1"

// Early hints: answers of 103 that servers send before the one that counts
// (ngx_http_upstream_process_early_hints).

// wantsHints says whether early hints are passed on to the client.
func (x *Exchange) wantsHints() bool {
	conditions := x.loc.Conf.Core.EarlyHints.Items
	return len(conditions) > 0 && x.inner.level == 0 && (x.Req.Major > 1 || x.Req.Minor > 0) && x.anyTrue(conditions)
}

// hints gives what sees the interim answers of a server. All of them together
// may be as large as one head.
func (x *Exchange) hints() func(*http1.Response) {
	total, c := int64(0), x.upstream.conf
	return func(r *http1.Response) {
		if r.Status != 103 {
			return
		}
		var fields []http1.Field
		for i := range r.Fields {
			f := &r.Fields[i]
			total += int64(len(f.Name) + len(f.Value) + len(": \r\n"))
			if !c.hidden.has(f) && !ofConnection(f.ID) {
				fields = append(fields, *f)
			}
		}
		if total > c.bufferSize {
			x.Logf(logInfo, "upstream sent too big early hints")
			return
		}
		if len(fields) == 0 {
			return
		}
		if x.stream.writeInterim(x, r.Status, fields) != nil {
			x.fail()
		}
	}
}

// ofConnection tells the fields that are about the connection they come on.
// Unlike nginx, which passes them on in early hints.
func ofConnection(id http1.HeaderID) bool {
	switch id {
	case http1.Connection, http1.ContentLength, http1.TransferEncoding, http1.Upgrade:
		return true
	}
	return false
}
