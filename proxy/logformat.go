package proxy

import (
	"strconv"
	"strings"
	"time"

	"proxyctl/parser"
)

// Formats of access logs: text with variables, compiled to steps, and how the
// values are escaped.

// logFormat is one log_format directive.
type logFormat struct {
	name   string
	escape escaping
	steps  []logStep
	place  parser.Range
}

// escaping is how the values of variables are made safe.
type escaping uint8

const (
	escapeDefault escaping = iota
	escapeJSON
	escapeNone
)

// logStep appends a piece of a line: text, a special of this module, or a
// variable.
type logStep struct {
	text    string
	special func(dst []byte, x *Exchange, at *logMoment) []byte
	v       *variable
}

// logMoment is when a line is written: every line of a request says the same.
type logMoment struct {
	now   time.Time
	times *logTimes
}

const combinedFormat = `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`

// compile adds the steps of a piece of a format.
func (f *logFormat) compile(c *compiler, a parser.Arg) error {
	for s := a.Value; s != ""; {
		i := strings.IndexByte(s, '$')
		if i != 0 {
			if i < 0 {
				i = len(s)
			}
			f.steps = append(f.steps, logStep{text: s[:i]})
			s = s[i:]
			continue
		}
		name, rest, err := logVariable(s, a)
		if err != nil {
			return err
		}
		if special := logSpecial(name); special != nil && !c.names.stream { // there it has none of its own
			f.steps = append(f.steps, logStep{special: special})
		} else {
			f.steps = append(f.steps, logStep{v: c.use(name)})
		}
		s = rest
	}
	return nil
}

// logVariable reads $name or ${name}. Captures are not known here: $1 is the
// name of a variable.
func logVariable(s string, a parser.Arg) (name, rest string, err error) {
	invalid := sayAt(a, "", "a \"$\" begins a variable", "invalid parameter \"%s\"", s)
	start := 1
	bracket := strings.HasPrefix(s, "${")
	if bracket {
		start = 2
	}
	if len(s) == start {
		return "", "", invalid
	}
	end := start
	for end < len(s) && isNameByte(s[end]) {
		end++
	}
	name, rest = s[start:end], s[end:]
	if bracket {
		if !strings.HasPrefix(rest, "}") {
			return "", "", sayAt(a, "", "", "the closing bracket in \"%s\" variable is missing", name)
		}
		rest = rest[1:]
	}
	if name == "" {
		return "", "", invalid
	}
	return name, rest, nil
}

// append makes a line without its line feed.
func (f *logFormat) append(dst []byte, x *Exchange, at *logMoment) []byte {
	for i := range f.steps {
		s := &f.steps[i]
		switch {
		case s.v != nil:
			dst = f.appendVariable(dst, x, s.v)
		case s.special != nil:
			dst = s.special(dst, x, at)
		default:
			dst = append(dst, s.text...)
		}
	}
	return dst
}

func (f *logFormat) appendVariable(dst []byte, x *Exchange, v *variable) []byte {
	start := len(dst)
	out, found := v.get(dst, x)
	switch {
	case !found && f.escape == escapeDefault:
		return append(out[:start], '-')
	case !found:
		return out[:start]
	case f.escape == escapeDefault:
		return escapeTail(out, start, needsLogEscape, appendLogEscape)
	case f.escape == escapeJSON:
		return escapeTail(out, start, needsJSONEscape, appendJSONEscape)
	}
	return out
}

// escapeTail escapes what stands in dst from start on.
func escapeTail(dst []byte, start int, needs func(byte) bool, escape func([]byte, byte) []byte) []byte {
	end := start
	for end < len(dst) && !needs(dst[end]) {
		end++
	}
	if end == len(dst) {
		return dst
	}
	n := len(dst)
	for i := end; i < n; i++ {
		if c := dst[i]; needs(c) {
			dst = escape(dst, c)
		} else {
			dst = append(dst, c)
		}
	}
	return dst[:end+copy(dst[end:], dst[n:])]
}

const hexDigits = "0123456789ABCDEF"

func needsLogEscape(c byte) bool { return c < ' ' || c >= 0x7f || c == '"' || c == '\\' }

func appendLogEscape(dst []byte, c byte) []byte {
	return append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
}

func needsJSONEscape(c byte) bool { return c < ' ' || c == '"' || c == '\\' }

// appendJSONEscape escapes as ngx_escape_json does.
func appendJSONEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// logSpecial finds what this module gives by itself, unescaped and, for times,
// as of the end of the request.
func logSpecial(name string) func([]byte, *Exchange, *logMoment) []byte {
	switch name {
	case "pipe":
		return func(dst []byte, x *Exchange, _ *logMoment) []byte {
			if x.client.http1.pipelined {
				return append(dst, 'p')
			}
			return append(dst, '.')
		}
	case "time_local":
		return func(dst []byte, _ *Exchange, at *logMoment) []byte { return append(dst, at.times.access...) }
	case "time_iso8601":
		return func(dst []byte, _ *Exchange, at *logMoment) []byte { return append(dst, at.times.iso...) }
	case "msec":
		return func(dst []byte, _ *Exchange, at *logMoment) []byte { return appendMillis(dst, at.now.UnixMilli()) }
	case "request_time":
		return func(dst []byte, x *Exchange, at *logMoment) []byte {
			return appendMillis(dst, max(at.now.Sub(x.start).Milliseconds(), 0))
		}
	case "status":
		return func(dst []byte, x *Exchange, _ *logMoment) []byte { return appendStatus(dst, x) }
	case "bytes_sent":
		return func(dst []byte, x *Exchange, _ *logMoment) []byte { return strconv.AppendInt(dst, x.bytesSent, 10) }
	case "body_bytes_sent":
		return func(dst []byte, x *Exchange, _ *logMoment) []byte {
			return strconv.AppendInt(dst, x.bodyBytesSent(), 10)
		}
	case "request_length":
		return func(dst []byte, x *Exchange, _ *logMoment) []byte {
			return strconv.AppendInt(dst, x.requestLength(), 10)
		}
	}
	return nil
}

// requestLength is how long the request was: head and what was read of its body.
func (x *Exchange) requestLength() int64 {
	if s, ok := x.stream.(*http1Stream); ok && x.Req.Chunked && x.bodyRead && !x.body.discarded && x.upstream.sender == nil {
		return s.conn.RequestLength() // the framing of chunks counts
	}
	return int64(x.Req.HeadSize) + x.reqLength
}

// bodyBytesSent is what went to the client after the head, framing included.
func (x *Exchange) bodyBytesSent() int64 { return max(x.bytesSent-x.headSize, 0) }

// appendMillis appends seconds with three decimals.
func appendMillis(dst []byte, ms int64) []byte {
	dst = strconv.AppendInt(dst, ms/1000, 10)
	ms %= 1000
	return append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
}

// appendStatus appends the status that the client saw, three digits at least.
func appendStatus(dst []byte, x *Exchange) []byte {
	status := x.errorStatus
	if status == 0 {
		status = x.Out.Status
	}
	if status < 100 {
		dst = append(dst, '0')
	}
	if status < 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, int64(status), 10)
}
