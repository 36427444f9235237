package proxy

import "bytes"

// parsedURI is a request target split and normalized.
type parsedURI struct {
	path, args []byte
	extension  int // offset in path of what follows the last dot; -1 for none
	quoted     bool
	plus       bool
	ok         bool
}

// parseURI decodes %XX, resolves dot segments, merges slashes and splits off the
// query (ngx_http_parse_complex_uri). The path is appended to dst when it
// differs from the target, so a plain target costs no copy.
func parseURI(target []byte, mergeSlashes bool, dst []byte) (parsedURI, []byte) {
	u := parsedURI{extension: -1}
	if simple, ok := splitPlain(target); ok {
		return simple, dst
	}
	p := pathDecoder{merge: mergeSlashes, out: dst, start: len(dst)}
	i := 0
	for i < len(target) {
		c := target[i]
		i++
		decoded := false
		if c == '%' {
			var ok bool
			if c, ok = unhex(target[i:]); !ok || c == 0 {
				return u, dst
			}
			i += 2
			u.quoted, decoded = true, true
		}
		if !decoded && (c == '?' || c == '#') {
			if c == '?' {
				u.args, _, _ = bytes.Cut(target[i:], []byte("#"))
			}
			break
		}
		if c == '+' {
			u.plus = true
		}
		if !p.add(c) {
			return u, dst
		}
	}
	if !p.end() {
		return u, dst
	}
	u.path = p.out[p.start:len(p.out):len(p.out)]
	u.extension = extension(u.path)
	u.ok = true
	return u, p.out
}

// splitPlain handles targets that are their own normal form.
func splitPlain(target []byte) (parsedURI, bool) {
	u := parsedURI{extension: -1, path: target, ok: true}
	if len(target) == 0 || target[0] != '/' {
		return u, false
	}
	for i := 1; i < len(target); i++ {
		switch target[i] {
		case '%', '#':
			return u, false
		case '/':
			if target[i-1] == '/' {
				return u, false
			}
		case '.':
			if target[i-1] == '/' {
				return u, false
			}
		case '+':
			u.plus = true
		case '?':
			u.path, u.args = target[:i:i], target[i+1:]
			if bytes.IndexByte(u.args, '#') >= 0 {
				return u, false
			}
			u.extension = extension(u.path)
			return u, true
		}
	}
	u.extension = extension(u.path)
	return u, true
}

// extension finds what follows the last dot of the last segment; a dot at its
// start begins none (ngx_http_set_exten).
func extension(path []byte) int {
	for i := len(path) - 1; i > 1 && path[i] != '/'; i-- {
		if path[i] == '.' && path[i-1] != '/' {
			return i + 1
		}
	}
	return -1
}

// pathDecoder builds a normalized path byte by byte.
type pathDecoder struct {
	merge bool
	out   []byte
	start int
	// dots counts the bytes of a segment that is "." or ".." so far; -1 once
	// the segment is something else.
	dots int
}

// add appends a byte. A decoded "." or "/" counts like a plain one, as in
// nginx; only "%23", "%25" and "%3F" lose their meaning.
func (p *pathDecoder) add(c byte) bool {
	switch {
	case c == '/':
		if p.dots > 0 { // the slash before "." or ".." stays and stands for this one
			return p.endSegment()
		}
		p.dots = 0
		if n := len(p.out); !p.merge || n == p.start || p.out[n-1] != '/' {
			p.out = append(p.out, '/')
		}
		return true
	case c == '.' && p.dots >= 0 && p.dots < 2:
		p.dots++
	default:
		p.dots = -1
	}
	p.out = append(p.out, c)
	return true
}

// endSegment removes a "." or ".." segment; false when it leads above the root.
func (p *pathDecoder) endSegment() bool {
	switch p.dots {
	case 1:
		p.out = p.out[:len(p.out)-1]
	case 2:
		n := len(p.out) - 3 // before "/.."
		for n > p.start && p.out[n-1] != '/' {
			n--
		}
		if n <= p.start {
			return false
		}
		p.out = p.out[:n]
	}
	p.dots = 0
	return true
}

func (p *pathDecoder) end() bool { return p.endSegment() && len(p.out) > p.start }

func unhex(b []byte) (byte, bool) {
	if len(b) < 2 {
		return 0, false
	}
	hi, ok1 := hexDigit(b[0])
	lo, ok2 := hexDigit(b[1])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// escapeSet says which bytes a kind of escaping writes as %XX.
type escapeSet [256]bool

// makeEscapes builds a set: controls, space, bytes above 126, and those named.
func makeEscapes(also string) escapeSet {
	var e escapeSet
	for c := range 256 {
		e[c] = c <= ' ' || c >= 0x7f
	}
	for i := range len(also) {
		e[also[i]] = true
	}
	return e
}

// The sets of ngx_escape_uri.
var (
	escapeURI     = makeEscapes(`"#%<>?\^` + "`{|}")    // a path
	escapeArgs    = makeEscapes(`"#%&+;<>?\^` + "`{|}") // a query
	escapeRefresh = makeEscapes("\"'")                  // inside an HTML attribute
)

// appendEscaped appends s with the bytes of set as %XX.
func appendEscaped(dst, s []byte, set *escapeSet) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		if set[c] {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// splitArgs cuts a URI at "?" (ngx_http_split_args).
func splitArgs(uri []byte) (path, args []byte) {
	path, args, _ = bytes.Cut(uri, []byte("?"))
	return path, args
}

// validHost is a Host value taken apart.
type validHost struct {
	name []byte
	port uint16
	ok   bool
}

// parseHost checks a host as nginx does (ngx_http_validate_host): the bytes of
// RFC 3986's reg-name, no empty labels, a port of digits up to 65535; folds its
// case and drops the final dot.
func parseHost(host, dst []byte) (validHost, []byte) {
	bad := validHost{}
	name, rest := host, []byte(nil)
	if len(host) > 0 && host[0] == '[' {
		end := bytes.IndexByte(host, ']')
		if end < 0 {
			return bad, dst
		}
		name, rest = host[:end+1], host[end+1:]
		if len(rest) > 0 && rest[0] != ':' {
			return bad, dst
		}
	} else if i := bytes.IndexByte(host, ':'); i >= 0 {
		name, rest = host[:i], host[i:]
	}
	port, ok := parsePort(rest)
	if !ok {
		return bad, dst
	}
	upper := false
	for i, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			upper = true
		case c == '.' && i > 0 && name[i-1] == '.':
			return bad, dst
		case c == ':' || c == '[' || c == ']':
			if name[0] != '[' {
				return bad, dst
			}
		case c == '%' && name[0] == '[':
			return bad, dst
		case !hostByte(c):
			return bad, dst
		}
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) == 0 {
		return bad, dst
	}
	if upper {
		start := len(dst)
		for _, c := range name {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			dst = append(dst, c)
		}
		name = dst[start:len(dst):len(dst)]
	}
	return validHost{name, port, true}, dst
}

func parsePort(s []byte) (uint16, bool) {
	if len(s) == 0 {
		return 0, true
	}
	n := 0
	for _, c := range s[1:] {
		if c < '0' || c > '9' || n*10+int(c-'0') > 65535 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), true
}

func hostByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("-._~!$&'()*+,;=%"), c) >= 0
}
