package proxy

import (
	"proxyctl/proxy/http1"
	"proxyctl/proxy/http2"
	"proxyctl/proxy/http3"
)

// fieldCoder writes the fields of an answer over HTTP/2 or HTTP/3, in nginx's order
// (ngx_http_v2_header_filter, ngx_http_v3_header_filter).
type fieldCoder struct {
	indexed func(dst []byte, name int, value []byte) []byte // name is one of those below
	field   func(dst, name, value []byte) []byte
	length  func(dst []byte, n int64) []byte
	vary    func(dst []byte) []byte

	server, date, contentType, lastModified, location int
}

var (
	http2Fields = &fieldCoder{
		http2.AppendIndexed, http2.AppendField, http2.AppendLength, http2.AppendVary,
		http2.IndexServer, http2.IndexDate, http2.IndexContentType, http2.IndexLastModified, http2.IndexLocation,
	}
	http3Fields = &fieldCoder{
		http3.AppendIndexed, http3.AppendField, http3.AppendLength, http3.AppendVary,
		http3.IndexServer, http3.IndexDate, http3.IndexContentType, http3.IndexLastModified, http3.IndexLocation,
	}
)

// appendAnswer appends the fields of the answer.
func (k *fieldCoder) appendAnswer(b []byte, x *Exchange) []byte {
	return k.appendFields(k.appendStandard(b, x), x.Out.Fields, x.Out.location)
}

// appendStandard appends the fields that the server itself answers for.
func (k *fieldCoder) appendStandard(b []byte, x *Exchange) []byte {
	a := &x.Out
	scratch := x.borrow()
	if a.Server == nil {
		scratch = x.appendProduct(scratch[:0])
		b = k.indexed(b, k.server, scratch)
	} else if len(a.Server) > 0 {
		b = k.indexed(b, k.server, a.Server)
	}
	if a.Date == nil {
		scratch = x.client.rt.sweeper.AppendDate(scratch[:0])
		b = k.indexed(b, k.date, scratch)
	} else if len(a.Date) > 0 {
		b = k.indexed(b, k.date, a.Date)
	}
	if len(a.ContentType) > 0 {
		scratch = http1.AppendValue(scratch[:0], x.fullContentType())
		b = k.indexed(b, k.contentType, scratch)
	}
	if a.ContentLength >= 0 {
		b = k.length(b, a.ContentLength)
	}
	if a.LastModified >= 0 && !a.has(http1.LastModified) {
		scratch = http1.AppendTime(scratch[:0], a.LastModified)
		b = k.indexed(b, k.lastModified, scratch)
	}
	if i := a.location; i >= 0 && len(a.Fields[i].Value) > 0 {
		if x.absoluteLocation() {
			scratch = x.appendAbsoluteLocation(scratch[:0])
		} else {
			scratch = http1.AppendValue(scratch[:0], a.Fields[i].Value)
		}
		b = k.indexed(b, k.location, scratch)
	}
	x.giveBack(scratch)
	if a.gzipVary {
		b = k.vary(b)
	}
	return b
}

// appendFields appends fields, but for the one at skip. Unlike nginx, which
// leaves that to the configuration, those that belong to connections of HTTP/1.1
// are left out (RFC 9113, section
// 8.2.2; RFC 9114, section 4.2), and so are names that are no token.
func (k *fieldCoder) appendFields(b []byte, fields []http1.Field, skip int) []byte {
	for i := range fields {
		f := &fields[i]
		switch {
		case i == skip || !http1.IsToken(f.Name):
			continue
		case f.ID == http1.Connection, f.ID == http1.KeepAlive, f.ID == http1.ProxyConnection,
			f.ID == http1.TransferEncoding, f.ID == http1.Upgrade:
			continue
		}
		value := f.Value
		if !http1.IsValue(value) {
			value = http1.AppendValue(nil, value)
		}
		b = k.field(b, f.Name, value)
	}
	return b
}
