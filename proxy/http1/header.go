package http1

// HeaderID names the fields that are looked up often.
type HeaderID uint8

// The known fields. Other stands for all that have no ID.
const (
	Other HeaderID = iota
	Accept
	AcceptEncoding
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
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	KeepAlive
	LastModified
	Link
	Location
	ProxyAuthenticate
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
	XPad
	XRealIP
	HTTP2Settings
	Proxy
	idCount
)

// headerNames gives each ID its name in lower case.
var headerNames = [idCount]string{
	Accept: "accept", AcceptEncoding: "accept-encoding", AcceptRanges: "accept-ranges", Authorization: "authorization",
	CacheControl: "cache-control", Connection: "connection", ContentEncoding: "content-encoding",
	ContentLength: "content-length", ContentRange: "content-range", ContentType: "content-type", Cookie: "cookie",
	Date: "date", ETag: "etag", Expect: "expect", Expires: "expires", Host: "host", IfMatch: "if-match",
	IfModifiedSince: "if-modified-since", IfNoneMatch: "if-none-match", IfRange: "if-range",
	IfUnmodifiedSince: "if-unmodified-since", KeepAlive: "keep-alive", LastModified: "last-modified", Link: "link",
	Location: "location", ProxyAuthenticate: "proxy-authenticate", ProxyConnection: "proxy-connection", Range: "range",
	Referer: "referer", Refresh: "refresh", Server: "server", SetCookie: "set-cookie", TE: "te", Trailer: "trailer",
	TransferEncoding: "transfer-encoding", Upgrade: "upgrade", UserAgent: "user-agent", Vary: "vary", Via: "via",
	WWWAuthenticate: "www-authenticate", XAccelBuffering: "x-accel-buffering", XAccelCharset: "x-accel-charset",
	XAccelExpires: "x-accel-expires", XAccelLimitRate: "x-accel-limit-rate", XAccelRedirect: "x-accel-redirect",
	XForwardedFor: "x-forwarded-for", XPad: "x-pad", XRealIP: "x-real-ip", HTTP2Settings: "http2-settings", Proxy: "proxy",
}

// Identify returns the ID of a field name in any case.
func Identify(name []byte) HeaderID {
	for _, id := range identifiers[len(name)&31] {
		if equalFold(name, headerNames[id]) {
			return id
		}
	}
	return Other
}

// identifiers lists the IDs by the length of their names.
var identifiers = func() (t [32][]HeaderID) {
	for id := Other + 1; id < idCount; id++ {
		n := len(headerNames[id]) & 31
		t[n] = append(t[n], id)
	}
	return t
}()

// Field is one line of a head. The slices belong to the buffer it was read
// into.
type Field struct {
	Name, Value []byte
	ID          HeaderID
	// Odd: the name has a byte other than letters, digits and hyphens;
	// Underscore: and those are underscores only.
	Odd, Underscore bool
}

// equalFold compares with a lower case name.
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

// Classes of bytes.
const (
	isToken  = 1 << iota // RFC 9110 token
	isPlain              // letters, digits, hyphen
	isURI                // may stand in a request target
	isValue              // may stand in a field value
	isMethod             // may stand in a method
)

var classes = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if alnum || b == '-' {
			t[c] |= isToken | isPlain
		}
		if b > ' ' && b != 0x7f {
			t[c] |= isURI
		}
		if b >= ' ' && b != 0x7f || b == '\t' {
			t[c] |= isValue
		}
		if b >= 'A' && b <= 'Z' || b == '_' || b == '-' {
			t[c] |= isMethod
		}
	}
	for _, b := range "!#$%&'*+.^_`|~" {
		t[b] |= isToken
	}
	return t
}()
