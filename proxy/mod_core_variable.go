package proxy

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/http1"
)

// The variables of the http core (ngx_http_variables.c). A variable without a
// value (false) is written "-" into logs, and is empty everywhere else.

// coreVariables gives all of them.
func coreVariables() []Variable {
	return slices.Concat(uriVariables(), requestVariables(), fileVariables(), clientVariables(), proxyProtocolVariables(), serverVariables(),
		answerVariables(), timeVariables(), prefixVariables())
}

// readOnly makes the row of a variable that can only be read.
func readOnly(name string, get func(dst []byte, x *Exchange) ([]byte, bool)) Variable {
	return Variable{Name: name, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) { return get(dst, x) }}
}

// always makes the row of a variable that has a value in every request.
func always(name string, get func(dst []byte, x *Exchange) []byte) Variable {
	return Variable{Name: name, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) { return get(dst, x), true }}
}

// piece makes the row of a variable that is a piece of the request; nil is none.
func piece(name string, get func(x *Exchange) []byte) Variable {
	return Variable{Name: name, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
		v := get(x)
		return append(dst, v...), v != nil
	}}
}

func uriVariables() []Variable {
	uri := func(x *Exchange) []byte { return x.uri }
	args := func(x *Exchange) []byte { return x.args }
	settable := piece("args", args)
	settable.Changeable = true
	settable.Set = func(x *Exchange, value []byte) { x.args, x.unparsedValid = value, false }
	return []Variable{
		piece("uri", uri),
		piece("document_uri", uri),
		piece("query_string", args),
		settable,
		piece("request_uri", func(x *Exchange) []byte { return x.rawURI }),
		always("is_args", func(dst []byte, x *Exchange) []byte {
			if len(x.args) > 0 {
				dst = append(dst, '?')
			}
			return dst
		}),
		always("host", func(dst []byte, x *Exchange) []byte {
			if len(x.host) > 0 {
				return append(dst, x.host...)
			}
			return append(dst, x.server.Name()...)
		}),
		always("request_port", func(dst []byte, x *Exchange) []byte { return appendPort(dst, x.hostPort) }),
		always("is_request_port", func(dst []byte, x *Exchange) []byte {
			if x.hostPort != 0 {
				dst = append(dst, ':')
			}
			return dst
		}),
	}
}

func requestVariables() []Variable {
	return []Variable{
		piece("request", func(x *Exchange) []byte { return x.Req.Line }),
		readOnly("request_method", func(dst []byte, x *Exchange) ([]byte, bool) {
			x = x.root()
			return append(dst, x.method...), x.method != ""
		}),
		piece("server_protocol", func(x *Exchange) []byte { return x.Req.Proto }),
		readOnly("content_length", appendContentLength),
		readOnly("content_type", func(dst []byte, x *Exchange) ([]byte, bool) {
			return appendFields(dst, x.Req.Fields, "content_type", ", ")
		}),
		{Name: "http_cookie", Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			return appendFields(dst, x.Req.Fields, "cookie", "; ")
		}},
		readOnly("remote_user", appendRemoteUser),
		always("request_id", func(dst []byte, x *Exchange) []byte {
			x = x.root()
			if !x.hasID {
				x.hasID = true
				for i := 0; i < len(x.id); i += 8 {
					v := rand.Uint64()
					for j := range 8 {
						x.id[i+j] = byte(v >> (8 * j))
					}
				}
			}
			return hex.AppendEncode(dst, x.id[:])
		}),
		always("request_length", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.requestLength()) }),
		readOnly("request_body", func(dst []byte, x *Exchange) ([]byte, bool) { return x.appendRequestBody(dst) }),
		readOnly("request_body_file", func(dst []byte, x *Exchange) ([]byte, bool) { return x.appendRequestBodyFile(dst) }),
		always("request_completion", func(dst []byte, x *Exchange) []byte {
			if x.completed() {
				dst = append(dst, "OK"...)
			}
			return dst
		}),
		always("scheme", func(dst []byte, x *Exchange) []byte {
			if x.client.tls {
				return append(dst, "https"...)
			}
			return append(dst, "http"...)
		}),
		always("https", func(dst []byte, x *Exchange) []byte {
			if x.client.tls {
				dst = append(dst, "on"...)
			}
			return dst
		}),
	}
}

// appendContentLength appends the length as the client wrote it, or that of a
// chunked body that has been read.
func appendContentLength(dst []byte, x *Exchange) ([]byte, bool) {
	if v, ok := x.Header(http1.ContentLength); ok {
		return append(dst, v...), true
	}
	switch {
	case x.contentLength() >= 0:
		return http1.AppendInt(dst, x.contentLength()), true
	case x.body.file != nil || len(x.body.data) > 0, x.bodyRead && x.Req.Chunked && !x.upstream.streaming:
		return http1.AppendInt(dst, x.body.size), true
	}
	return dst, false
}

// appendRemoteUser appends the user name of Basic authentication.
func appendRemoteUser(dst []byte, x *Exchange) ([]byte, bool) {
	user, _, ok := x.credentials()
	if !ok {
		return dst, false
	}
	return append(dst, user...), true
}

func fileVariables() []Variable {
	return []Variable{
		always("document_root", func(dst []byte, x *Exchange) []byte { return append(dst, x.documentRoot()...) }),
		readOnly("realpath_root", func(dst []byte, x *Exchange) ([]byte, bool) {
			root := string(x.documentRoot())
			target, err := filepath.EvalSymlinks(root)
			if err != nil {
				x.Logf(logCrit, "%v", SystemError("realpath()", root, err))
				return dst, false
			}
			return append(dst, target...), true
		}),
		always("request_filename", func(dst []byte, x *Exchange) []byte { return append(dst, x.path()...) }),
	}
}

func clientVariables() []Variable {
	vars := []Variable{
		always("remote_addr", func(dst []byte, x *Exchange) []byte { return x.appendRemoteAddr(dst) }),
		always("binary_remote_addr", func(dst []byte, x *Exchange) []byte {
			a := x.RemoteAddr()
			switch {
			case a.Is4():
				b := a.As4()
				return append(dst, b[:]...)
			case a.Is6():
				b := a.As16()
				return append(dst, b[:]...)
			}
			return x.appendRemoteAddr(dst)
		}),
		always("remote_port", func(dst []byte, x *Exchange) []byte {
			if x.realip.IsValid() {
				return appendPort(dst, x.realip.Port())
			}
			return appendPort(dst, x.client.remote.Port())
		}),
		always("connection", func(dst []byte, x *Exchange) []byte { return strconv.AppendUint(dst, x.client.id, 10) }),
		always("connection_requests", func(dst []byte, x *Exchange) []byte {
			return http1.AppendInt(dst, int64(x.client.requests))
		}),
		always("connection_time", func(dst []byte, x *Exchange) []byte {
			return appendMillis(dst, max(x.client.age().Milliseconds(), 0))
		}),
		always("pipe", func(dst []byte, x *Exchange) []byte {
			if x.client.http1.pipelined {
				return append(dst, 'p')
			}
			return append(dst, '.')
		}),
	}
	for i, name := range []string{"rtt", "rttvar", "snd_cwnd", "rcv_space"} {
		vars = append(vars, readOnly("tcpinfo_"+name, func(dst []byte, x *Exchange) ([]byte, bool) {
			return x.client.appendTCPInfo(dst, i)
		}))
	}
	return vars
}

// appendTCPInfo appends what the system knows about the connection.
func (c *client) appendTCPInfo(dst []byte, which int) ([]byte, bool) {
	conn, ok := c.conn.(syscall.Conn)
	if !ok {
		return dst, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return dst, false
	}
	var info *unix.TCPInfo
	_ = raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if info == nil || err != nil {
		return dst, false
	}
	v := [...]uint32{info.Rtt, info.Rttvar, info.Snd_cwnd, info.Rcv_space}[which]
	return strconv.AppendUint(dst, uint64(v), 10), true
}

func serverVariables() []Variable {
	hostname := sync.OnceValue(func() string { return lower(hostname()) })
	return []Variable{
		always("server_name", func(dst []byte, x *Exchange) []byte { return append(dst, x.server.Name()...) }),
		always("server_addr", func(dst []byte, x *Exchange) []byte {
			if a := x.client.local.Addr(); a.IsValid() {
				return a.AppendTo(dst)
			}
			return append(append(dst, "unix:"...), x.client.unix...)
		}),
		always("server_port", func(dst []byte, x *Exchange) []byte { return appendPort(dst, x.redirectPort()) }),
		always("hostname", func(dst []byte, _ *Exchange) []byte { return append(dst, hostname()...) }),
		always("pid", func(dst []byte, _ *Exchange) []byte { return http1.AppendInt(dst, int64(os.Getpid())) }),
		always("nginx_version", func(dst []byte, x *Exchange) []byte { return append(dst, x.table.opts.Product.Version...) }),
	}
}

func answerVariables() []Variable {
	rate := always("limit_rate", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.limitRate) })
	rate.Changeable = true
	rate.Set = func(x *Exchange, value []byte) {
		n, ok := parseSize(string(value))
		if !ok {
			x.Logf(logError, "invalid $limit_rate \"%s\"", value)
			return
		}
		x.limitRate, x.limitRateSet = n, true
	}
	return []Variable{
		rate,
		always("status", appendStatus),
		always("bytes_sent", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.bytesSent) }),
		always("body_bytes_sent", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.bodyBytesSent()) }),
		readOnly("sent_http_content_type", func(dst []byte, x *Exchange) ([]byte, bool) {
			return append(dst, x.Out.ContentType...), len(x.Out.ContentType) > 0
		}),
		readOnly("sent_http_content_length", func(dst []byte, x *Exchange) ([]byte, bool) {
			if v, ok := x.Out.Find(http1.ContentLength); ok {
				return append(dst, v...), true
			}
			if x.Out.ContentLength >= 0 {
				return http1.AppendInt(dst, x.Out.ContentLength), true
			}
			return dst, false
		}),
		readOnly("sent_http_last_modified", func(dst []byte, x *Exchange) ([]byte, bool) {
			if x.Out.LastModified >= 0 {
				return http1.AppendTime(dst, x.Out.LastModified), true
			}
			return appendFields(dst, x.Out.Fields, "last_modified", ", ")
		}),
		always("sent_http_connection", func(dst []byte, x *Exchange) []byte {
			switch {
			case x.Out.Status == 101:
				return append(dst, "upgrade"...)
			case x.keepsAlive():
				return append(dst, "keep-alive"...)
			}
			return append(dst, "close"...)
		}),
		readOnly("sent_http_keep_alive", func(dst []byte, x *Exchange) ([]byte, bool) {
			if t := x.loc.Conf.Core.KeepaliveHeader; x.keepsAlive() && t > 0 {
				return http1.AppendInt(append(dst, "timeout="...), int64(t/time.Second)), true
			}
			return dst, false
		}),
		readOnly("sent_http_transfer_encoding", func(dst []byte, x *Exchange) ([]byte, bool) {
			if x.Out.Chunked {
				return append(dst, "chunked"...), true
			}
			return dst, false
		}),
		readOnly("sent_http_server", func(dst []byte, x *Exchange) ([]byte, bool) {
			return appendSent(dst, x, x.Out.Server, "server")
		}),
		readOnly("sent_http_date", func(dst []byte, x *Exchange) ([]byte, bool) {
			return appendSent(dst, x, x.Out.Date, "date")
		}),
	}
}

// appendSent appends a field that an upstream may have set.
func appendSent(dst []byte, x *Exchange, value []byte, name string) ([]byte, bool) {
	if len(value) > 0 {
		return append(dst, value...), true
	}
	return appendFields(dst, x.Out.Fields, name, ", ")
}

// keepsAlive says what the variables about Connection show: to the log, for which
// the connection over HTTP/1 is no longer the request's, that it closes
// (ngx_http_set_keepalive).
func (x *Exchange) keepsAlive() bool {
	return x.keepAlive && (x.resume != LogPhase || x.Req.Major > 1)
}

func timeVariables() []Variable {
	return []Variable{
		always("msec", func(dst []byte, _ *Exchange) []byte { return appendMillis(dst, time.Now().UnixMilli()) }),
		always("request_time", func(dst []byte, x *Exchange) []byte {
			return appendMillis(dst, max(time.Since(x.start).Milliseconds(), 0))
		}),
		always("time_iso8601", func(dst []byte, x *Exchange) []byte {
			return append(dst, x.table.opts.logs.clock.at(time.Now()).iso...)
		}),
		always("time_local", func(dst []byte, x *Exchange) []byte {
			return append(dst, x.table.opts.logs.clock.at(time.Now()).access...)
		}),
	}
}

func prefixVariables() []Variable {
	return []Variable{
		{Name: "http_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
			return appendFields(dst, x.Req.Fields, name, ", ")
		}},
		{Name: "sent_http_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
			return appendFields(dst, x.Out.Fields, name, ", ")
		}},
		{Name: "sent_trailer_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
			return appendFields(dst, x.Out.Trailers, name, ", ")
		}},
		{Name: "cookie_", Prefix: true, Get: appendCookie},
		{Name: "arg_", Prefix: true, Get: appendArgument},
	}
}

// appendCookie appends the value of the first cookie with a name
// (ngx_http_parse_cookie_lines).
func appendCookie(dst []byte, x *Exchange, name string) ([]byte, bool) {
	for i := range x.Req.Fields {
		f := &x.Req.Fields[i]
		if f.ID != http1.Cookie {
			continue
		}
		if v, ok := findCookie(f.Value, name); ok {
			return append(dst, v...), true
		}
	}
	return dst, false
}

func findCookie(s []byte, name string) ([]byte, bool) {
	for len(s) >= len(name) && len(s) > 0 {
		if equalFold(s[:len(name)], name) {
			rest := trimSpaces(s[len(name):])
			if len(rest) > 0 && rest[0] == '=' {
				rest = trimSpaces(rest[1:])
				if end := slices.Index(rest, ';'); end >= 0 {
					rest = rest[:end]
				}
				return rest, true
			}
			s = rest
		}
		end := slices.Index(s, ';')
		if end < 0 {
			break
		}
		s = trimSpaces(s[end+1:])
	}
	return nil, false
}

func trimSpaces(s []byte) []byte {
	for len(s) > 0 && s[0] == ' ' {
		s = s[1:]
	}
	return s
}

// appendArgument appends the value of the first query argument with a name in
// any case (ngx_http_arg).
func appendArgument(dst []byte, x *Exchange, name string) ([]byte, bool) {
	if name == "" {
		return dst, false
	}
	for s := x.args; len(s) > len(name); {
		end := slices.Index(s, '&')
		if end < 0 {
			end = len(s)
		}
		if end > len(name) && s[len(name)] == '=' && equalFold(s[:len(name)], name) {
			return append(dst, s[len(name)+1:end]...), true
		}
		s = s[min(end+1, len(s)):]
	}
	return dst, false
}
