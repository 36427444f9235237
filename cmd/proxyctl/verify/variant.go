package verify

import (
	"slices"
	"strings"

	"proxyctl/proxy"
)

// What else is asked of a block, once it is known how nginx answers the plain
// request for it.

// Requests that are made otherwise.
const (
	whatPlainToTLS = "without TLS to a TLS port"
	whatHTTP2      = "HTTP/2"
	whatOld        = "HTTP/0.9"
	whatTwo        = "two requests"
)

// variants derives requests from one and its answer.
func variants(r *request, a *answer) []*request {
	var out []*request
	add := func(what string, change func(*request)) {
		v := *r
		v.Fields = slices.Clone(r.Fields)
		v.what = what
		change(&v)
		out = append(out, &v)
	}
	target, hasArgs := r.Target, strings.Contains(r.Target, "?")
	if r.To.HTTP2 && r.To.TLS && r.name() != "" && strings.HasPrefix(r.Target, "/") {
		add(whatHTTP2, func(*request) {})
	}
	add("HEAD", func(v *request) { v.Method = "HEAD" })
	add("POST", func(v *request) { v.Method, v.body = "POST", "name=value" })
	add("OPTIONS", func(v *request) { v.Method = "OPTIONS" })
	add("an unknown method", func(v *request) { v.Method = "BREW" })
	if !hasArgs {
		add("arguments", func(v *request) { v.Target = target + "?a=b%20c&d=%2F&a=" })
		add("escapes", func(v *request) { v.Target = escapeLast(target) })
		add("two slashes", func(v *request) { v.Target = "/" + target })
		add("dots", func(v *request) { v.Target = "/verify/.." + target })
		add("below", func(v *request) { v.Target = strings.TrimSuffix(target, "/") + "/a%20b/../c" })
	}
	add("compression", func(v *request) { v.Fields = append(v.Fields, "Accept-Encoding: gzip") })
	add("HTTP/1.0", func(v *request) { v.raw, v.text = true, r.Method+" "+target+" HTTP/1.0\r\nHost: "+r.Host+"\r\n\r\n" })
	switch head := string(headOf(a.text)); {
	case len(a.upstream) > 0:
		out = append(out, upstreamVariants(r)...)
	case statusOf([]byte(head)) == "200" && fieldOf(head, "Accept-Ranges") != "":
		out = append(out, fileVariants(r, fieldOf(head, "ETag"), fieldOf(head, "Last-Modified"))...)
	case statusOf([]byte(head)) == "401":
		add("a wrong password", func(v *request) { v.Fields = append(v.Fields, "Authorization: Basic dmVyaWZ5OnZlcmlmeQ==") })
	}
	return out
}

// escapeLast writes the last letter of a path as an escape.
func escapeLast(target string) string {
	const hex = "0123456789abcdef"
	for i := len(target) - 1; i > 0; i-- {
		if c := target[i]; c >= 'a' && c <= 'z' && (i < 2 || target[i-1] != '%' && target[i-2] != '%') {
			return target[:i] + "%" + string(hex[c>>4]) + string(hex[c&15]) + target[i+1:]
		}
	}
	return target + "%7e"
}

// upstreamVariants has upstreams answer in other ways.
func upstreamVariants(r *request) []*request {
	var out []*request
	for _, s := range []script{scriptRedirect, scriptMissing, scriptBroken, scriptChunked, scriptUnsized, scriptEmpty, scriptGarbage} {
		v := *r
		v.script, v.what = s, "the upstream answers: "+string(s)
		out = append(out, &v)
	}
	fields := func(what string, script script, f ...string) {
		v := *r
		v.what, v.script, v.Fields = what, script, append(slices.Clone(r.Fields), f...)
		out = append(out, &v)
	}
	fields("fields that proxies care about", scriptPlain, "X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https", "X-Real-IP: 198.51.100.8", "Cookie: a=b; session=1",
		"Referer: http://"+r.Host+"/", "User-Agent: verify", "Accept-Language: de", "X_Under_Score: 1", "Authorization: Bearer x")
	fields("what the upstream would say is unchanged", scriptPlain, `If-None-Match: "upstream-1"`, "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT")
	fields("a range of the upstream's answer", scriptPlain, "Range: bytes=0-4")
	fields("an upgrade", scriptUpgrade, "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
	v := *r
	v.what, v.raw, v.Method = "a chunked body", true, "POST"
	v.text = "POST " + r.Target + " HTTP/1.1\r\nHost: " + r.Host + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nname\r\n6\r\n=value\r\n0\r\n\r\n"
	w := *r
	w.what, w.raw, w.Method = "Expect: 100-continue", true, "POST"
	w.text = "POST " + r.Target + " HTTP/1.1\r\nHost: " + r.Host + "\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\na=b"
	return append(out, &v, &w)
}

// fileVariants asks for parts and for what has changed.
func fileVariants(r *request, etag, modified string) []*request {
	var out []*request
	fields := func(what string, f ...string) {
		v := *r
		v.what, v.Fields = what, append(slices.Clone(r.Fields), f...)
		out = append(out, &v)
	}
	for _, bytes := range []string{"0-0", "1-", "-1", "0-0,2-2", "999999999-", "5-1", "x"} {
		fields("a range", "Range: bytes="+bytes)
	}
	if modified != "" {
		fields("not modified", "If-Modified-Since: "+modified)
		fields("modified", "If-Modified-Since: Thu, 01 Jan 1998 00:00:00 GMT")
		fields("unmodified", "If-Unmodified-Since: Thu, 01 Jan 1998 00:00:00 GMT")
		fields("a range of this version", "Range: bytes=0-0", "If-Range: "+modified)
	}
	if etag != "" {
		fields("the same tag", "If-None-Match: "+etag)
		fields("the same tag, weak", "If-None-Match: W/"+etag)
		fields("another tag", `If-None-Match: "x"`)
		fields("a required tag", `If-Match: "x"`)
		fields("a range of another version", "Range: bytes=0-0", `If-Range: "x"`)
	}
	return out
}

// badInput is what breaks rules, for one address.
func badInput(w proxy.Witness) []*request {
	long := strings.Repeat("x", 9000)
	host := w.Host
	if host == "" {
		host = proxy.UnknownHost
	}
	texts := []struct{ what, text string }{
		{"no Host", "GET / HTTP/1.1\r\n\r\n"},
		{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"},
		{"a bad Host", "GET / HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n"},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: " + host + "\r\n\r\n"},
		{"a whole URL", "GET http://" + host + "/ HTTP/1.1\r\nHost: other.invalid\r\nConnection: close\r\n\r\n"},
		{"a long field", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-Long: " + long + "\r\n\r\n"},
		{"a long target", "GET /" + long + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"a bad method", "get / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"a bad version", "GET / HTTP/2.0\r\nHost: " + host + "\r\n\r\n"},
		{whatOld, "GET /\r\n"},
		{"no path", "GET x HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"a path above the root", "GET /../x HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"a broken escape", "GET /%zz HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"an escaped NUL", "GET /%00 HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"a bad length", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: x\r\n\r\n"},
		{"length and chunks", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"an unknown coding", "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: foo\r\n\r\n"},
		{"broken chunks", "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"},
		{"a field without a colon", "GET / HTTP/1.1\r\nHost: " + host + "\r\nnonsense\r\nConnection: close\r\n\r\n"},
		{"a space in a field's name", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX Y: z\r\nConnection: close\r\n\r\n"},
		{"no HTTP", "\x16\x03\x01\x00\x05hello\r\n\r\n"},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"},
		{whatTwo, "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\nGET /second HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"},
	}
	var out []*request
	for _, t := range texts {
		v := &request{Witness: w, what: t.what, text: t.text, raw: true}
		v.Method, _, _ = strings.Cut(t.text, " ")
		out = append(out, v)
	}
	if w.To.TLS {
		out = append(out, &request{Witness: w, what: whatPlainToTLS, raw: true, text: "GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"})
	}
	return out
}

func headOf(text []byte) []byte {
	for i := 0; i+3 < len(text); i++ {
		if text[i] == '\r' && text[i+1] == '\n' && text[i+2] == '\r' && text[i+3] == '\n' {
			return text[:i]
		}
	}
	return text
}

// fieldOf gives the first value of a field in a head.
func fieldOf(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
