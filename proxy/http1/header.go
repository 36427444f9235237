package http1

// HeaderID names the fields that are looked up often.
type HeaderID uint8

// The known fields. Other stands for all that have no ID.
const (
	Other HeaderID = iota
	Accept
	AcceptEncoding
	AcceptLanguage
	AcceptRanges
	Authorization
	CacheControl
	Connection
	ContentEncoding
	ContentLength
	ContentRange
	ContentType
	Cookie
	Date
	ETag
	Expect
	Expires
	Host
	HTTP2Settings
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	KeepAlive
	LastModified
	Link
	Location
	Proxy
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	Range
	Referer
	Refresh
	Server
	SetCookie
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	WWWAuthenticate
	XAccelBuffering
	XAccelCharset
	XAccelExpires
	XAccelLimitRate
	XAccelRedirect
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XPad
	XRealIP
	idCount
)

// A set of IDs fits in a uint64.
const _ = 64 - uint(idCount)

// headerNames gives each ID its name in lower case.
var headerNames = [idCount]string{
	Accept: "accept", AcceptEncoding: "accept-encoding", AcceptLanguage: "accept-language", AcceptRanges: "accept-ranges",
	Authorization: "authorization", CacheControl: "cache-control", Connection: "connection", ContentEncoding: "content-encoding",
	ContentLength: "content-length", ContentRange: "content-range", ContentType: "content-type", Cookie: "cookie", Date: "date",
	ETag: "etag", Expect: "expect", Expires: "expires", Host: "host", HTTP2Settings: "http2-settings", IfMatch: "if-match",
	IfModifiedSince: "if-modified-since", IfNoneMatch: "if-none-match", IfRange: "if-range",
	IfUnmodifiedSince: "if-unmodified-since", KeepAlive: "keep-alive", LastModified: "last-modified", Link: "link",
	Location: "location", Proxy: "proxy", ProxyAuthenticate: "proxy-authenticate", ProxyAuthorization: "proxy-authorization",
	ProxyConnection: "proxy-connection", Range: "range", Referer: "referer", Refresh: "refresh", Server: "server",
	SetCookie: "set-cookie", TE: "te", Trailer: "trailer", TransferEncoding: "transfer-encoding", Upgrade: "upgrade",
	UserAgent: "user-agent", Vary: "vary", Via: "via", WWWAuthenticate: "www-authenticate", XAccelBuffering: "x-accel-buffering",
	XAccelCharset: "x-accel-charset", XAccelExpires: "x-accel-expires", XAccelLimitRate: "x-accel-limit-rate",
	XAccelRedirect: "x-accel-redirect", XForwardedFor: "x-forwarded-for", XForwardedHost: "x-forwarded-host",
	XForwardedProto: "x-forwarded-proto", XPad: "x-pad", XRealIP: "x-real-ip",
}

// buckets is the size of the table of IDs, a power of two.
const buckets = 256

// identifiers is a hash table of the IDs: the first of each bucket, and the one
// that follows each in its bucket.
var identifiers = func() (t struct {
	first [buckets]HeaderID
	next  [idCount]HeaderID
},
) {
	for id := idCount - 1; id > Other; id-- {
		h := hash([]byte(headerNames[id]))
		t.next[id], t.first[h] = t.first[h], id
	}
	return t
}()

// hash of a name that is not empty; the same for both cases of its letters.
func hash(name []byte) uint8 {
	n := len(name)
	return uint8(n)*31 ^ (name[0]|0x20)*7 ^ (name[n/2]|0x20)*13 ^ (name[n-1]|0x20)*3
}

// Identify returns the ID of a field name in any case.
func Identify(name []byte) HeaderID {
	if len(name) == 0 {
		return Other
	}
	for id := identifiers.first[hash(name)]; id != Other; id = identifiers.next[id] {
		if equalFold(name, headerNames[id]) {
			return id
		}
	}
	return Other
}

// equalFold compares with a name in lower case.
func equalFold(b []byte, name string) bool {
	if len(b) != len(name) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
