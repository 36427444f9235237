package parser

import "strings"

// decode resolves escapes as nginx does (ngx_conf_read_token in
// ngx_conf_file.c): \" \' \\ become the character, \t \r \n the control
// character, and every other backslash stays. Text without any is returned as it
// is.
func decode(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			switch s[i+1] {
			case '"', '\'', '\\':
				i++
				c = s[i]
			case 't':
				i++
				c = '\t'
			case 'r':
				i++
				c = '\r'
			case 'n':
				i++
				c = '\n'
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Quote writes a value as a token that decodes to it again: bare where that is
// possible, otherwise between the quotes that need fewer escapes.
func Quote(value string) string {
	if bare(value) {
		return value
	}
	q := byte('"')
	if strings.IndexByte(value, '"') >= 0 && strings.IndexByte(value, '\'') < 0 {
		q = '\''
	}
	var b strings.Builder
	b.Grow(len(value) + 2)
	b.WriteByte(q)
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '\t':
			b.WriteString(`\t`)
		case '\r':
			b.WriteString(`\r`)
		case '\n':
			b.WriteString(`\n`)
		case q:
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\\':
			if i+1 == len(value) || escapable(value[i+1]) || value[i+1] < ' ' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte(q)
	return b.String()
}

// bare reports whether a value can stand without quotes and still be read as
// itself. Quotes inside are legal there, but nobody expects them.
func bare(s string) bool {
	if s == "" || strings.IndexByte("#})", s[0]) >= 0 {
		return false
	}
	variable := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\r', '\n', ';', '"', '\'':
			return false
		case '{':
			if !variable {
				return false
			}
		case '\\':
			variable = false
			if i++; i == len(s) || escapable(s[i]) || strings.IndexByte(" \t\r\n;{", s[i]) >= 0 {
				return false
			}
		default:
			variable = c == '$'
		}
	}
	return true
}

// escapable reports whether a backslash before c is more than a backslash.
func escapable(c byte) bool { return strings.IndexByte(`"'\trn`, c) >= 0 }
