package http3

import (
	"strconv"

	"proxyctl/proxy/head"
)

// Field sections as nginx writes them: names and whole fields of the static table
// by their index, values in Huffman's code when that is shorter, and no use of the
// dynamic table.

// Names of the static table (RFC 9204, appendix A).
const (
	IndexContentLength = 4
	IndexDate          = 6
	IndexLastModified  = 10
	IndexLocation      = 12
	IndexContentType   = 53
	IndexServer        = 92

	indexStatus = 25
	indexVary   = 59
)

const (
	indexedStatic = 0xc0
	namedStatic   = 0x50
	literalName   = 0x20
)

// AppendPrefix begins a field section.
func AppendPrefix(dst []byte) []byte { return append(dst, 0, 0) }

// AppendStatus appends the status.
func AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 103:
		return head.AppendInt(dst, indexedStatic, 6, indexStatus-1)
	case 200:
		return head.AppendInt(dst, indexedStatic, 6, indexStatus)
	}
	dst = append(head.AppendInt(dst, namedStatic, 4, indexStatus), 3)
	return append(dst, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

// AppendIndexed appends a field whose name is in the static table.
func AppendIndexed(dst []byte, name int, value []byte) []byte {
	return head.AppendString(head.AppendInt(dst, namedStatic, 4, name), 0, 7, value, false)
}

// AppendLength appends Content-Length.
func AppendLength(dst []byte, n int64) []byte {
	if n == 0 {
		return head.AppendInt(dst, indexedStatic, 6, IndexContentLength)
	}
	dst = append(head.AppendInt(dst, namedStatic, 4, IndexContentLength), 0)
	at := len(dst)
	dst = strconv.AppendInt(dst, n, 10)
	dst[at-1] = byte(len(dst) - at)
	return dst
}

// AppendVary appends Vary with Accept-Encoding.
func AppendVary(dst []byte) []byte { return head.AppendInt(dst, indexedStatic, 6, indexVary) }

// AppendField appends a field; its name is written in lower case.
func AppendField(dst, name, value []byte) []byte {
	return head.AppendString(head.AppendString(dst, literalName, 3, name, true), 0, 7, value, false)
}
