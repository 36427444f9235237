// Package fastcgi speaks FastCGI with applications: one request at a time over a
// connection, in the role of a responder. It knows nothing of nginx but its
// words for what is wrong.
package fastcgi

import "encoding/binary"

// The types of records that are used.
const (
	typeBegin  = 1
	typeEnd    = 3
	typeParams = 4
	typeStdin  = 5
	typeStdout = 6
	typeStderr = 7
)

const (
	version    = 1
	requestID  = 1 // the only one
	headerSize = 8
	responder  = 1
	keepFlag   = 1

	// MaxRecord is how much a record may hold.
	MaxRecord = 1<<16 - 1
)

// Frame is the most that AppendStdin puts before a piece, and behind it.
const Frame = 2 * headerSize

// AppendBegin appends the record that begins a request. keep asks the
// application to leave the connection open.
func AppendBegin(dst []byte, keep bool) []byte {
	flags := byte(0)
	if keep {
		flags = keepFlag
	}
	return append(appendHeader(dst, typeBegin, headerSize, 0), 0, responder, flags, 0, 0, 0, 0, 0)
}

func appendHeader(dst []byte, kind byte, size, padding int) []byte {
	return append(dst, version, kind, 0, requestID, byte(size>>8), byte(size), byte(padding), 0)
}

// AppendPair appends a parameter.
func AppendPair(dst, name, value []byte) []byte {
	dst = appendSize(appendSize(dst, len(name)), len(value))
	return append(append(dst, name...), value...)
}

func appendSize(dst []byte, n int) []byte {
	if n < 0x80 {
		return append(dst, byte(n))
	}
	return binary.BigEndian.AppendUint32(dst, uint32(n)|1<<31)
}

// OpenParams appends what comes before the parameters.
func OpenParams(dst []byte) []byte { return appendHeader(dst, typeParams, 0, 0) }

// CloseParams ends the parameters that were begun when dst had the length at.
// size is theirs: false when they are too much for one record, as applications
// expect them.
func CloseParams(dst []byte, at int) (out []byte, size int, ok bool) {
	if size = len(dst) - at - headerSize; size > MaxRecord {
		return dst, size, false
	}
	padding := paddingOf(size)
	appendHeader(dst[:at], typeParams, size, padding)
	if size > 0 {
		dst = appendPadding(dst, padding)
		dst = appendHeader(dst, typeParams, 0, 0)
	}
	return dst, size, true
}

// AppendStdin appends a piece of the body of a request, which may be empty and
// is not larger than MaxRecord, and its end after the last one. piece may lie
// behind dst in the same memory, with Frame bytes between.
func AppendStdin(dst, piece []byte, last bool) []byte {
	if n := len(piece); n > 0 {
		padding := paddingOf(n)
		dst = appendHeader(dst, typeStdin, n, padding)
		dst = appendPadding(append(dst, piece...), padding)
	}
	if last {
		dst = appendHeader(dst, typeStdin, 0, 0)
	}
	return dst
}

// paddingOf aligns records to eight bytes, as the specification advises.
func paddingOf(n int) int { return -n & 7 }

func appendPadding(dst []byte, n int) []byte {
	const zeros = "\x00\x00\x00\x00\x00\x00\x00"
	return append(dst, zeros[:n]...)
}
