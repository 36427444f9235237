package proxy

import "bytes"

// The request that goes to the server (ngx_http_proxy_create_request).

// compileHead compiles the head for a level. conditions are the fields that ask for
// less than the whole answer, with what stands for those of the client.
func (c *proxyConf) compileHead(conditions []passField) *headTemplate {
	return compileHead(c.setHeaders.Items, c.target, c.http10, []headPiece{lengthPiece(), {kind: pieceChunked, text: "Transfer-Encoding: chunked\r\n"}}, conditions)
}

// serveProxy is the handler of proxy_pass.
func serveProxy(x *Exchange) Code {
	c := &x.loc.Conf.Proxy
	u, code := x.beginPass(&c.upstreamConf)
	if code != OK {
		return code
	}
	u.rewriter = c
	var url upstreamURL
	if c.target.value == nil {
		u.vars, u.block = c.target.vars, c.target.group
	} else if !x.evalTarget(c, &url) {
		return 500
	}
	if code := x.bodyToPass(c.body == nil && (!x.Req.Chunked || !c.http10)); code != OK {
		return code
	}
	defer x.leaveCache()
	if code, ok := x.fromCache((*Exchange).appendCacheKey); ok {
		return code
	}
	if !x.buildRequest(c) {
		return 500
	}
	return x.pass(&url)
}

// appendCacheKey appends what answers are kept under unless proxy_cache_key says
// otherwise: what is asked for, and where (ngx_http_proxy_create_key).
func (x *Exchange) appendCacheKey(dst []byte) []byte {
	v := &x.upstream.vars
	dst = append(dst, v.scheme...)
	if v.socket != nil {
		dst = append(dst, v.socket...)
	} else {
		dst = append(dst, v.host...)
	}
	return x.appendUpstreamURI(dst)
}

// evalTarget evaluates a proxy_pass with variables (ngx_http_proxy_eval).
func (x *Exchange) evalTarget(c *proxyConf, url *upstreamURL) bool {
	text := c.target.value.String(x)
	scheme, rest, port := splitScheme(text)
	if port == 0 || rest == "" {
		x.Logf(logError, "invalid URL prefix in %q", text)
		return false
	}
	u, problem := parseUpstreamURL(rest, port, true)
	if problem != "" {
		x.Logf(logError, "%s in upstream %q", problem, rest)
		return false
	}
	if len(u.uri) > 0 && u.uri[0] == '?' {
		u.uri = "/" + u.uri
	}
	v := &x.upstream.vars
	*v = passVars{dynamic: true, tls: port == 443, scheme: []byte(scheme)}
	v.set(&u, port)
	*url = u
	return true
}

// buildRequest makes the head of the request in x.upstream.head, with the body
// of proxy_set_body behind it. False when there is nothing to ask for.
func (x *Exchange) buildRequest(c *proxyConf) bool {
	u := &x.upstream
	x.measureBody(c)
	h := u.head[:0]
	start := len(h)
	switch {
	case u.asGET:
		h = append(h, "GET"...)
	case c.method != nil:
		h = c.method.Append(h, x)
	default:
		h = append(h, x.method...)
	}
	h = guardToken(h, start)
	u.isHead = len(h)-start == 4 && bytes.EqualFold(h[start:], []byte("HEAD"))
	h = append(h, ' ')
	u.uriStart = len(h)
	h = x.appendUpstreamURI(h)
	u.uriEnd = len(h)
	if u.uriEnd == u.uriStart {
		x.Logf(logError, "zero length URI to proxy")
		u.head = h
		return false
	}
	if c.http10 {
		h = append(h, " HTTP/1.0\r\n"...)
	} else {
		h = append(h, " HTTP/1.1\r\n"...)
	}
	head := c.head
	if u.cacheable() {
		head = c.cacheHead
	}
	u.personal = head.personal
	for i := range head.pieces {
		h = head.pieces[i].append(h, x)
	}
	if c.passHeaders {
		h = x.appendClientFields(h, &head.skip)
	}
	h = append(h, "\r\n"...)
	u.headEnd = len(h)
	if c.body != nil {
		h = append(h, u.setBody...)
	}
	u.head = h
	return true
}

// measureBody decides how the body of the request is announced.
func (x *Exchange) measureBody(c *proxyConf) {
	u := &x.upstream
	u.setBody, u.frame = nil, nil
	if c.body != nil {
		u.passBody = false
		u.setBody = c.body.Bytes(x)
		u.chunked, u.bodyLength = false, int64(len(u.setBody))
		return
	}
	u.bodyLength = x.passedLength()
	if u.chunked = u.streaming && x.Req.Chunked && c.wire == wireHTTP1; u.chunked {
		u.frame = frameChunk
	}
}
