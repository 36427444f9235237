// Package head is what HTTP/2 and HTTP/3 have in common: how fields are written
// (RFC 7541, which RFC 9204 follows), and how they become the head of a request.
package head

import (
	"errors"

	"proxyctl/proxy/http1"
)

// Field is a field, and what has been found out about it.
type Field struct {
	http1.Field
	Bad Fault
}

// Fault says what is malformed about a field.
type Fault uint8

// The faults.
const (
	Fine Fault = iota
	BadName
	BadValue
)

// overhead is what a field counts in a table beside its text (RFC 7541, section
// 4.1; RFC 9204, section 3.2.1).
const overhead = 32

// Size is what the field takes in a table.
func (f *Field) Size() int { return len(f.Name) + len(f.Value) + overhead }

// NewField classifies a field and looks for faults.
func NewField(name, value []byte) Field {
	f := Field{Field: http1.Classify(name, value)}
	if MalformedName(name) {
		f.Bad = BadName
	}
	f.Renew(value)
	return f
}

// Renew gives the field another value.
func (f *Field) Renew(value []byte) {
	f.Value = value
	switch {
	case f.Bad == BadName:
	case malformedValue(value):
		f.Bad = BadValue
	default:
		f.Bad = Fine
	}
}

// MalformedName holds a name against RFC 9113, section 8.2.1. Unlike nginx, which
// lets them pass for invalid headers, names with bytes outside of ASCII are
// malformed.
func MalformedName(name []byte) bool {
	for i, c := range name {
		if c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' || c == ':' && (i > 0 || len(name) == 1) {
			return true
		}
	}
	return false
}

// malformedValue holds a value against the same section. Unlike nginx, which
// passes them on, values that begin or end with white space are malformed.
func malformedValue(value []byte) bool {
	for _, c := range value {
		if c == 0 || c == '\r' || c == '\n' {
			return true
		}
	}
	n := len(value)
	return n > 0 && (space(value[0]) || space(value[n-1]))
}

func space(c byte) bool { return c == ' ' || c == '\t' }

// The ways in which an integer can be wrong.
var (
	ErrTruncated = errors.New("more must come")
	ErrTooLong   = errors.New("too long an integer")
)

// intOctets is how many bytes of an integer nginx reads.
const intOctets = 4

// ReadInt reads an integer with a prefix of some bits (RFC 7541, section 5.1).
func ReadInt(b []byte, prefix uint8) (n int, rest []byte, err error) {
	most := 1<<prefix - 1
	if len(b) == 0 {
		return 0, b, ErrTruncated
	}
	n = int(b[0]) & most
	if n < most {
		return n, b[1:], nil
	}
	for i := 1; ; i++ {
		switch {
		case i == intOctets:
			return 0, b, ErrTooLong
		case i == len(b):
			return 0, b, ErrTruncated
		}
		n += int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			return n, b[i+1:], nil
		}
	}
}

// AppendInt appends an integer behind flags, with a prefix of some bits.
func AppendInt(dst []byte, flags byte, prefix uint8, n int) []byte {
	most := 1<<prefix - 1
	if n < most {
		return append(dst, flags|byte(n))
	}
	dst = append(dst, flags|byte(most))
	for n -= most; n >= 1<<7; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
