package http1

import (
	"errors"
)

// ErrChunk says that a chunked body is malformed.
var ErrChunk = errors.New("invalid chunked body")

// ErrTrailers says that the trailers of a chunked body are malformed or too
// large.
var ErrTrailers = errors.New("invalid trailers")

// maxTrailers bounds the trailers of a body, in bytes.
const maxTrailers = 8 << 10

// Chunked decodes a chunked body piece by piece. The zero value is ready.
type Chunked struct {
	state    chunkState
	left     int64
	digits   int
	lineSize int
	trailers []byte // raw field lines
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeEnd
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkTrailerLine
	chunkEnd
)

// maxChunkLine bounds a size line with its extensions.
const maxChunkLine = 4 << 10

// Reset makes the decoder ready for another body.
func (c *Chunked) Reset() { *c = Chunked{trailers: c.trailers[:0]} }

// Done says whether the body has ended.
func (c *Chunked) Done() bool { return c.state == chunkEnd }

// Next reads from the start of b and returns the first run of body bytes, a
// part of b, and how much of b was used. Lines end in CR LF only: a bare LF
// would let two parties see different chunks.
func (c *Chunked) Next(b []byte) (data []byte, used int, err error) {
	for used < len(b) && c.state != chunkEnd {
		if c.state == chunkData {
			n := int(min(c.left, int64(len(b)-used)))
			data = b[used : used+n]
			used += n
			if c.left -= int64(n); c.left == 0 {
				c.state = chunkDataCR
			}
			return data, used, nil
		}
		if err := c.feed(b[used]); err != nil {
			return nil, used, err
		}
		used++
	}
	return nil, used, nil
}

// feed takes one byte of framing.
func (c *Chunked) feed(b byte) error {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkExtension:
		if c.lineSize++; c.lineSize > maxChunkLine || b < ' ' && b != '\t' && b != '\r' || b == 0x7f {
			return ErrChunk
		}
		if b == '\r' {
			c.state = chunkSizeEnd
		}
	case chunkSizeEnd:
		if b != '\n' {
			return ErrChunk
		}
		c.state, c.digits, c.lineSize = chunkData, 0, 0
		if c.left == 0 {
			c.state = chunkTrailer
		}
	case chunkDataCR:
		if b != '\r' {
			return ErrChunk
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return ErrChunk
		}
		c.state = chunkSize
	case chunkTrailer, chunkTrailerLine:
		return c.trailer(b)
	}
	return nil
}

func (c *Chunked) size(b byte) error {
	digit := int64(0)
	switch {
	case b >= '0' && b <= '9':
		digit = int64(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		digit = int64(b|0x20-'a') + 10
	case c.digits == 0:
		return ErrChunk
	case b == '\r':
		c.state = chunkSizeEnd
		return nil
	case b == ';' || b == ' ' || b == '\t':
		c.state = chunkExtension
		return nil
	default:
		return ErrChunk
	}
	if c.digits++; c.digits > 15 {
		return ErrChunk
	}
	c.left = c.left<<4 | digit
	return nil
}

// trailer collects the lines after the last chunk; an empty one ends the body.
func (c *Chunked) trailer(b byte) error {
	if len(c.trailers) >= maxTrailers {
		return ErrTrailers
	}
	if b != '\n' {
		c.trailers = append(c.trailers, b)
		c.state = chunkTrailerLine
		return nil
	}
	n := len(c.trailers)
	if c.state == chunkTrailer || c.trailers[n-1] != '\r' {
		return ErrTrailers // a bare LF
	}
	if n == 1 || n >= 2 && c.trailers[n-2] == '\n' {
		c.trailers = c.trailers[:n-1]
		c.state = chunkEnd
		return nil
	}
	c.trailers = append(c.trailers, '\n')
	c.state = chunkTrailer
	return nil
}

// Trailers returns the fields after the last chunk, appended to fields.
func (c *Chunked) Trailers(fields []Field) ([]Field, error) {
	b := c.trailers
	for len(b) > 0 {
		line := firstLine(b)
		f, ok := parseField(line)
		if !ok {
			return fields, ErrTrailers
		}
		fields = append(fields, f)
		b = b[len(line)+2:]
	}
	return fields, nil
}
