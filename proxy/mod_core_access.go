package proxy

import (
	"bytes"
	"encoding/base64"
	"sync"
	"time"

	"proxyctl/proxy/http1"
)

// What the access modules have in common: who the client says it is, and
// letting it wait.

// credentials gives user name and password of Basic authentication
// (ngx_http_auth_basic_user).
func (x *Exchange) credentials() (user, password []byte, ok bool) {
	const scheme = "basic "
	field := http1.Authorization
	if x.isMethod("CONNECT") {
		field = http1.ProxyAuthorization
	}
	v, ok := x.Header(field)
	if !ok || len(v) < len(scheme) || !equalFold(v[:len(scheme)], scheme) {
		return nil, nil, false
	}
	v = trimSpaces(v[len(scheme):])
	if i := bytes.IndexByte(v, '='); i >= 0 {
		v = v[:i]
	}
	b, err := base64.RawStdEncoding.AppendDecode(x.borrow(), v)
	decoded := x.keep(b)
	x.giveBack(b)
	user, password, ok = bytes.Cut(decoded, []byte(":"))
	return user, password, ok && err == nil && len(user) > 0
}

// wait lets time pass; a client that goes away ends it.
func (x *Exchange) wait(d time.Duration) Code {
	gone := make(chan struct{})
	var once sync.Once
	x.stream.watch(func() { once.Do(func() { close(gone) }) })
	defer x.stream.unwatch()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return Declined
	case <-gone:
		x.Logf(logInfo, "client prematurely closed connection")
		return statusClientClosed
	}
}
