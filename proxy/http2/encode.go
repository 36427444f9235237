package http2

import (
	"strconv"

	"proxyctl/proxy/head"
)

// Header blocks as nginx writes them: names of the static table by their index,
// values in Huffman's code when that is shorter, and no use of the dynamic table,
// so that blocks can be made beside one another.

// Names of the static table (RFC 7541, appendix A).
const (
	IndexStatus        = 8
	IndexContentLength = 28
	IndexContentType   = 31
	IndexDate          = 33
	IndexLastModified  = 44
	IndexLocation      = 46
	IndexServer        = 54

	indexVary = 59
)

const (
	indexed       = 0x80
	indexedName   = 0x40 // of a field that the client may put into its table
	newName       = 0x00
	huffman       = 0x80
	tableSizeZero = 0x20
)

// AppendStatus appends the status.
func AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, indexed|8)
	case 204:
		return append(dst, indexed|9)
	case 206:
		return append(dst, indexed|10)
	case 304:
		return append(dst, indexed|11)
	case 400:
		return append(dst, indexed|12)
	case 404:
		return append(dst, indexed|13)
	case 500:
		return append(dst, indexed|14)
	}
	return append(dst, indexedName|IndexStatus, 3, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

// AppendIndexed appends a field whose name is in the static table.
func AppendIndexed(dst []byte, name int, value []byte) []byte {
	return head.AppendString(append(dst, indexedName|byte(name)), 0, 7, value, false)
}

// AppendVary appends Vary with Accept-Encoding.
func AppendVary(dst []byte) []byte { return AppendIndexed(dst, indexVary, acceptEncoding) }

var acceptEncoding = []byte("Accept-Encoding")

// AppendLength appends Content-Length.
func AppendLength(dst []byte, n int64) []byte {
	dst = append(dst, indexedName|IndexContentLength, 0)
	at := len(dst)
	dst = strconv.AppendInt(dst, n, 10)
	dst[at-1] = byte(len(dst) - at)
	return dst
}

// AppendField appends a field; its name is written in lower case.
func AppendField(dst, name, value []byte) []byte {
	return head.AppendString(head.AppendString(append(dst, newName), 0, 7, name, true), 0, 7, value, false)
}
