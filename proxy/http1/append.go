package http1

import (
	"bytes"
	"time"
)

// AppendStatusLine appends "HTTP/1.1 status reason" and the line's end. A
// status without a reason keeps its space, as nginx writes it.
func AppendStatusLine(dst []byte, status int, reason string) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10), ' ')
	dst = append(dst, reason...)
	return append(dst, "\r\n"...)
}

// AppendField appends a field line. CR, LF and NUL are dropped from name and
// value: nothing that a variable held can begin another line.
func AppendField(dst, name, value []byte) []byte {
	dst = AppendValue(dst, name)
	dst = append(dst, ':', ' ')
	dst = AppendValue(dst, value)
	return append(dst, '\r', '\n')
}

// AppendValue appends a value without CR, LF and NUL.
func AppendValue(dst, value []byte) []byte {
	if control(value) < 0 {
		return append(dst, value...)
	}
	for _, c := range value {
		if c != '\r' && c != '\n' && c != 0 {
			dst = append(dst, c)
		}
	}
	return dst
}

// IsValue says whether AppendValue appends b as it is.
func IsValue(b []byte) bool { return control(b) < 0 }

// AppendInt appends n in decimal.
func AppendInt(dst []byte, n int64) []byte {
	u := uint64(n)
	if n < 0 {
		dst, u = append(dst, '-'), -u
	}
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + u%10)
		if u /= 10; u == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// AppendHex appends n in hexadecimal, in lower case.
func AppendHex(dst []byte, n uint64) []byte {
	const hex = "0123456789abcdef"
	var digits [16]byte
	i := len(digits)
	for {
		i--
		digits[i] = hex[n&15]
		if n >>= 4; n == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// AppendTime appends seconds since 1970 in the form of RFC 9110, section 5.6.7.
func AppendTime(dst []byte, seconds int64) []byte {
	return time.Unix(seconds, 0).UTC().AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 GMT")
}

// AppendChunkHeader appends the size line of a chunk of n bytes, which must be
// followed by them and a line's end. n must not be 0: that ends the body.
func AppendChunkHeader(dst []byte, n int) []byte {
	return append(AppendHex(dst, uint64(n)), '\r', '\n')
}

// IsToken says whether b may be a field name or a method that is put on the
// wire (RFC 9110, section 5.6.2).
func IsToken(b []byte) bool {
	for _, c := range b {
		if classes[c]&isWord == 0 && bytes.IndexByte([]byte("!#$%&'*+.^`|~"), c) < 0 {
			return false
		}
	}
	return len(b) > 0
}
