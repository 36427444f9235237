package proxy

import (
	"bytes"

	"proxyctl/parser"
)

// Script is what the rewrite directives of a level were compiled to: steps that
// run in the order of the file (ngx_http_script.c). It is never written after
// compiling and safe for concurrent use.
type Script struct {
	steps []step
	said  []*parser.Directive // the directive behind each step
	ifs   []*Location         // the levels of its if blocks
}

// step is one thing a script does. It ends the script with stop: then code is
// what the rewrite phase returns.
type step func(x *Exchange) (code Code, stop bool)

// rewriteScratch is the state of a running script.
type rewriteScratch struct {
	// escape: captures in values are escaped when the URI came escaped. True at
	// the start of a script, false after its first rewrite that matched
	// (nginx: e->quote).
	escape bool
	log    bool // rewrite_log
}

// run runs the script. Declined goes on with the next phase; x.uriChanged then
// says whether the location is to be found again.
func (s *Script) run(x *Exchange) Code {
	x.rewrite = rewriteScratch{escape: true, log: x.loc.Conf.Rewrite.Log}
	code, _ := s.exec(x)
	return code
}

// exec runs the steps of a script or of an if block in it.
func (s *Script) exec(x *Exchange) (Code, bool) {
	if x.trace != nil {
		return s.execTraced(x)
	}
	for _, st := range s.steps {
		if code, stop := st(x); stop {
			return code, true
		}
	}
	return Declined, false
}

// execTraced is exec for a request that is explained.
func (s *Script) execTraced(x *Exchange) (Code, bool) {
	x.trace.entered++
	for i, st := range s.steps {
		before := x.uri
		step, entered := x.trace.begins(s.said[i])
		code, stop := st(x)
		x.trace.ends(x, step, entered, before, code, stop)
		if stop {
			return code, true
		}
	}
	return Declined, false
}

func (s *Script) add(st step) { s.steps = append(s.steps, st) }

// text is a Value as scripts use it: where a capture counts as text of a URI it
// is escaped again (ngx_http_script_copy_capture_code).
type text struct {
	*Value
	static []byte // of a value without variables
}

// scriptText compiles a text of a rewrite directive.
func (l *Level) scriptText(s string) (text, error) {
	v, err := l.value(s)
	if err != nil {
		return text{}, err
	}
	t := text{Value: v}
	if s, ok := v.Static(); ok {
		t.static = []byte(s)
	}
	return t, nil
}

// append evaluates the text.
func (t *text) append(dst []byte, x *Exchange, escape bool) []byte {
	if t.parts == nil {
		return append(dst, t.static...)
	}
	escape = escape && (x.quotedURI || x.plusURI)
	for i := range t.parts {
		if p := &t.parts[i]; escape && p.capture != 0 {
			dst = appendEscaped(dst, x.capture(p.capture), &escapeArgs)
		} else {
			dst = p.append(dst, x)
		}
	}
	return dst
}

// bytes evaluates the text into memory that lives as long as the exchange.
func (t *text) bytes(x *Exchange) []byte {
	if t.parts == nil {
		return t.static
	}
	b := t.append(x.borrow(), x, x.rewrite.escape)
	out := x.keep(b)
	x.giveBack(b)
	return out
}

// plain is bytes outside of scripts: captures are never escaped.
func (t *text) plain(x *Exchange) []byte {
	if t.parts == nil {
		return t.static
	}
	return t.Bytes(x)
}

// equals compares the text with s.
func (t *text) equals(x *Exchange, s []byte) bool {
	if t.parts == nil {
		return bytes.Equal(t.static, s)
	}
	b := t.append(x.borrow(), x, x.rewrite.escape)
	same := bytes.Equal(b, s)
	x.giveBack(b)
	return same
}

// uriRewrite is a rewrite directive.
type uriRewrite struct {
	re      *regex
	status  Code // of a redirect; 0: the URI changes
	stop    bool // last, break or a redirect
	breaks  bool // the location stays
	addArgs bool // the request's arguments are appended
	hasArgs bool // the replacement has a "?"
	uri     text // up to the "?"; all of it in a redirect
	args    text // what follows the "?"
}

// run is the step of a rewrite (ngx_http_script_regex_start_code and
// ngx_http_script_regex_end_code).
func (r *uriRewrite) run(x *Exchange) (Code, bool) {
	matched, err := x.scriptMatch(r.re, x.uri)
	if err != nil {
		return 500, true
	}
	if !matched {
		return Declined, false
	}
	x.internal = true
	x.unparsedValid = false
	x.uriChanged = !r.breaks
	if r.breaks {
		x.locationValid = false
	}
	if r.status != 0 {
		r.redirect(x)
		return r.status, true
	}
	if !r.change(x) {
		x.Logf(logError, "the rewritten URI has a zero length")
		return 500, true
	}
	return Declined, r.stop
}

// redirect makes the Location field of a redirect.
func (r *uriRewrite) redirect(x *Exchange) {
	b := r.uri.append(x.borrow(), x, true)
	b = unescapeRedirect(b)
	if r.addArgs && len(x.args) > 0 {
		separator := byte('?')
		if r.hasArgs {
			separator = '&'
		}
		b = append(append(b, separator), x.args...)
	}
	target := x.keep(b)
	x.giveBack(b)
	x.rewrite.escape = false
	if x.rewrite.log {
		x.Logf(logNotice, "rewritten redirect: \"%s\"", target)
	}
	x.setLocation(target)
}

// change gives the request another URI.
func (r *uriRewrite) change(x *Exchange) bool {
	b := r.uri.append(x.borrow(), x, false)
	n := len(b)
	switch {
	case r.hasArgs:
		b = r.args.append(b, x, true)
		if r.addArgs && len(x.args) > 0 {
			b = append(append(b, '&'), x.args...)
		}
		kept := x.keep(b)
		x.uri, x.args = kept[:n:n], kept[n:]
	default:
		x.uri = x.keep(b)
		if !r.addArgs {
			x.args = x.args[:0]
		}
	}
	x.giveBack(b)
	x.rewrite.escape = false
	if x.rewrite.log {
		x.Logf(logNotice, "rewritten data: \"%s\", args: \"%s\"", x.uri, x.args)
	}
	x.extension = extension(x.uri)
	return len(x.uri) > 0
}

// unescapeRedirect decodes, in place, what a redirect's path needs no escaping
// for; control characters, spaces, quotes and "%" stay as they came. After a
// "?" nothing changes (ngx_unescape_uri with NGX_UNESCAPE_REDIRECT).
func unescapeRedirect(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 {
		return b
	}
	out := b[:0]
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '%' {
			out = append(out, c)
			if c == '?' {
				return append(out, b[i+1:]...)
			}
			continue
		}
		i++
		if i == len(b) {
			break
		}
		hi, ok := hexDigit(b[i])
		if !ok { // the "%" alone is dropped
			out = append(out, b[i])
			continue
		}
		i++
		if i == len(b) {
			break
		}
		lo, ok := hexDigit(b[i])
		switch c := hi<<4 | lo; {
		case !ok: // all three are dropped
		case c == '?' && b[i] > '9':
			return append(append(out, '?'), b[i+1:]...)
		case c > '%' && c < 0x7f:
			out = append(out, c)
		default:
			out = append(out, '%', b[i-1], b[i])
		}
	}
	return out
}

// scriptMatch matches s for a directive of a script. What did not match has no
// captures (nginx: r->ncaptures = 0).
func (x *Exchange) scriptMatch(re *regex, s []byte) (bool, error) {
	matched, err := x.searchRegex(re, s)
	switch {
	case err != nil:
		x.Logf(logAlert, "pcre2_match() failed: %v on \"%s\" using \"%s\"", err, s, re.String())
		return false, err
	case !matched:
		x.captures = x.captures[:0]
	}
	if x.rewrite.log {
		verb := "does not match"
		if matched {
			verb = "matches"
		}
		x.Logf(logNotice, "\"%s\" %s \"%s\"", re.String(), verb, s)
	}
	return matched, nil
}

// returnAnswer is a return directive.
type returnAnswer struct {
	status int
	text   *Value // nil: none
}

// run is the step of a return (ngx_http_script_return_code,
// ngx_http_send_response).
func (r *returnAnswer) run(x *Exchange) (Code, bool) {
	if r.status >= 400 && r.text == nil {
		return Code(r.status), true
	}
	if code := x.discardBody(); code != OK {
		return code, true
	}
	x.Out.Status = r.status
	var b []byte
	if r.text != nil {
		b = r.text.Bytes(x)
	}
	switch r.status {
	case 301, 302, 303, 307, 308:
		x.setLocation(b)
		return Code(r.status), true
	}
	return x.SendText(r.status, x.contentType(), b), true
}

// setLocation sets the Location field of the answer.
//
// Unlike nginx, control characters that a variable held (a decoded %0A in $uri)
// are escaped again: they can neither end the field nor begin another.
func (x *Exchange) setLocation(value []byte) {
	for _, c := range value {
		if c < ' ' || c == 0x7f {
			b := appendEscaped(x.borrow(), value, &escapeCTL)
			value = x.keep(b)
			x.giveBack(b)
			break
		}
	}
	x.Out.SetLocation(value)
}

// escapeCTL are the bytes that no field may hold.
var escapeCTL = func() (e escapeSet) {
	for c := range 256 {
		e[c] = c < ' ' || c == 0x7f
	}
	return e
}()
