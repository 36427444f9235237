package http1

import "time"

// AppendStatusLine appends "HTTP/1.1 status reason" and the line's end. A
// status without a reason keeps its space, as nginx writes it.
func AppendStatusLine(dst []byte, status int, reason string) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10), ' ')
	dst = append(dst, reason...)
	return append(dst, "\r\n"...)
}

// AppendField appends a field line.
func AppendField(dst, name, value []byte) []byte {
	dst = AppendValue(dst, name)
	dst = append(dst, ':', ' ')
	dst = AppendValue(dst, value)
	return append(dst, '\r', '\n')
}

// AppendValue appends a value without the bytes that would end its line: CR, LF
// and NUL are dropped, whatever a variable held.
func AppendValue(dst, value []byte) []byte {
	for _, c := range value {
		if c == '\r' || c == '\n' || c == 0 {
			return appendSafe(dst, value)
		}
	}
	return append(dst, value...)
}

func appendSafe(dst, value []byte) []byte {
	for _, c := range value {
		if c != '\r' && c != '\n' && c != 0 {
			dst = append(dst, c)
		}
	}
	return dst
}

// AppendInt appends n in decimal.
func AppendInt(dst []byte, n int64) []byte {
	if n < 0 {
		return AppendInt(append(dst, '-'), -n)
	}
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// AppendTime appends seconds since 1970 in the form of RFC 9110.
func AppendTime(dst []byte, seconds int64) []byte {
	return time.Unix(seconds, 0).UTC().AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 GMT")
}

// AppendChunkHeader appends the size line of a chunk of n bytes, which must be
// followed by them and a line's end.
func AppendChunkHeader(dst []byte, n int) []byte {
	const hex = "0123456789abcdef"
	var digits [16]byte
	i := len(digits)
	for {
		i--
		digits[i] = hex[n&15]
		if n >>= 4; n == 0 {
			break
		}
	}
	return append(append(dst, digits[i:]...), '\r', '\n')
}
