package head

import (
	"encoding/binary"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// code is a byte's code of Huffman (RFC 7541, appendix B).
type code struct {
	bits uint32
	size uint8
}

// codes are found out by asking hpack: eight of a byte take as many bytes as one
// has bits.
var codes = func() (t [256]code) {
	for c := range t {
		one := string([]byte{byte(c)})
		size := hpack.HuffmanEncodeLength(strings.Repeat(one, 8))
		p := append(hpack.AppendHuffmanString(nil, one), 0, 0, 0)
		t[c] = code{binary.BigEndian.Uint32(p) >> (32 - size), uint8(size)}
	}
	return t
}()

// huffmanNode is a step of eight bits towards a byte.
type huffmanNode [256]huffmanStep

// huffmanStep is a byte and how many of the eight bits belong to it, or the node
// of the next eight. Both 0: there is no such code.
type huffmanStep struct {
	next, size, char uint8
}

// huffmanNodes is the way back from codes to bytes; it begins at the first.
var huffmanNodes = func() []huffmanNode {
	nodes := make([]huffmanNode, 1, 16)
	for c, code := range codes {
		at, rest := 0, int(code.size)
		for ; rest > 8; rest -= 8 {
			step := &nodes[at][byte(code.bits>>(rest-8))]
			if step.next == 0 {
				step.next = uint8(len(nodes))
				nodes = append(nodes, huffmanNode{})
				step = &nodes[at][byte(code.bits>>(rest-8))]
			}
			at = int(step.next)
		}
		first := byte(code.bits << (8 - rest))
		for i := range 1 << (8 - rest) {
			nodes[at][int(first)+i] = huffmanStep{size: uint8(rest), char: byte(c)}
		}
	}
	return nodes
}()

// AppendDecoded appends what p stands for. As by nginx, the ones behind the last
// byte may fill a whole byte themselves.
func AppendDecoded(dst, p []byte) ([]byte, bool) {
	node, pending, n := uint8(0), uint(0), uint8(0)
	for _, b := range p {
		pending, n = pending<<8|uint(b), n+8
		for n >= 8 {
			step := huffmanNodes[node][byte(pending>>(n-8))]
			switch {
			case step.next != 0:
				node, n = step.next, n-8
			case step.size == 0:
				return dst, false
			default:
				dst = append(dst, step.char)
				node, n = 0, n-step.size
			}
		}
	}
	for n > 0 {
		step := huffmanNodes[node][byte(pending<<(8-n))]
		if step.size == 0 || step.size > n {
			break
		}
		dst = append(dst, step.char)
		node, n = 0, n-step.size
	}
	if node != 0 {
		return dst, n == 0 && node == huffmanNodes[0][0xff].next
	}
	ones := byte(1)<<n - 1
	return dst, byte(pending)&ones == ones
}

// encodedSize is how many bytes b takes in Huffman's code.
func encodedSize(b []byte, lower bool) int {
	size := 0
	for _, c := range b {
		size += int(codes[fold(c, lower)].size)
	}
	return (size + 7) / 8
}

// appendEncoded appends b in Huffman's code.
func appendEncoded(dst, b []byte, lower bool) []byte {
	pending, n := uint64(0), uint8(0)
	for _, c := range b {
		code := codes[fold(c, lower)]
		pending = pending<<code.size | uint64(code.bits)
		for n += code.size; n >= 8; {
			n -= 8
			dst = append(dst, byte(pending>>n))
		}
	}
	if n > 0 { // ones fill the last byte
		dst = append(dst, byte(pending<<(8-n))|(1<<(8-n)-1))
	}
	return dst
}

// AppendString appends a string behind its length, which has a prefix of some bits
// behind flags: in Huffman's code, said by the bit above the prefix, if that makes
// it shorter. lower writes it in lower case.
func AppendString(dst []byte, flags byte, prefix uint8, b []byte, lower bool) []byte {
	if n := encodedSize(b, lower); n < len(b) {
		return appendEncoded(AppendInt(dst, flags|1<<prefix, prefix, n), b, lower)
	}
	dst = AppendInt(dst, flags, prefix, len(b))
	for _, c := range b {
		dst = append(dst, fold(c, lower))
	}
	return dst
}

func fold(c byte, lower bool) byte {
	if lower && c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}
