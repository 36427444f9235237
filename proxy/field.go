package proxy

import "proxyctl/proxy/http1"

// Header fields, as variables and comparisons see them.

// appendFields appends the values of the fields that a variable's name means
// (ngx_http_variable_unknown_header).
func appendFields(dst []byte, fields []http1.Field, name, separator string) ([]byte, bool) {
	found := false
	for i := range fields {
		if !spelled(fields[i].Name, name) {
			continue
		}
		if found {
			dst = append(dst, separator...)
		}
		dst, found = append(dst, fields[i].Value...), true
	}
	return dst, found
}

// spelled says whether a variable's name means a field: lower case, "_" for "-".
func spelled(field []byte, name string) bool {
	if len(field) != len(name) {
		return false
	}
	for i, c := range field {
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == '-':
			c = '_'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// equalFold compares without regard to the case of ASCII letters.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		x, y := b[i], s[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}
