package http1

import (
	"bytes"
	"errors"
)

// ErrChunk says that a chunked body is malformed.
var ErrChunk = errors.New("invalid chunked body")

// ErrTrailers says that the trailers of a chunked body are malformed or too
// large.
var ErrTrailers = errors.New("invalid trailers")

const (
	maxTrailers  = 8 << 10 // bytes of all trailers of a body
	maxChunkLine = 4 << 10 // bytes of a size line with its extensions
)

// Chunked decodes a chunked body piece by piece (RFC 9112, section 7.1). The
// zero value is ready. Lines end in CR LF only, as for nginx
// (ngx_http_parse_chunked): a bare LF or CR would let two servers see different
// chunks.
type Chunked struct {
	state    chunkState
	left     int64 // of the chunk; while its size is read, the size so far
	line     int   // bytes of the size line
	trailers []byte
	err      error // stays: what comes after a mistake means nothing
}

type chunkState uint8

const (
	chunkStart chunkState = iota // the first digit
	chunkSize
	chunkSpace // after the size, before an extension
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerLine
	trailerLF
	chunkedLF // of the empty line that ends the body
	chunkedDone
)

// Reset makes the decoder ready for another body.
func (c *Chunked) Reset() { *c = Chunked{trailers: c.trailers[:0]} }

// Done says whether the body has ended.
func (c *Chunked) Done() bool { return c.state == chunkedDone }

// Next reads from the start of b and returns the first run of body bytes, a
// part of b, and how much of b was used. The error is ErrChunk or ErrTrailers
// and comes again afterwards.
func (c *Chunked) Next(b []byte) (data []byte, used int, err error) {
	if c.err != nil {
		return nil, 0, c.err
	}
	for used < len(b) && c.state != chunkedDone {
		if c.state == chunkData {
			n := int(min(c.left, int64(len(b)-used)))
			data = b[used : used+n]
			if c.left -= int64(n); c.left == 0 {
				c.state = chunkDataCR
			}
			return data, used + n, nil
		}
		if c.state >= trailerStart {
			err = c.trailer(b[used])
		} else {
			err = c.frame(b[used])
		}
		if err != nil {
			c.err = err
			return nil, used, err
		}
		used++
	}
	return nil, used, nil
}

// frame takes one byte of what stands between the data.
func (c *Chunked) frame(b byte) error {
	switch c.state {
	case chunkStart, chunkSize:
		return c.size(b)
	case chunkSpace:
		switch b {
		case ' ', '\t':
			return c.count()
		case ';':
			c.state = chunkExtension
			return c.count()
		case '\r':
			c.state = chunkSizeLF
			return nil
		}
	case chunkExtension:
		// Unlike nginx, control characters are refused here, too.
		if b == '\r' {
			c.state = chunkSizeLF
			return nil
		}
		if !isControl(b) {
			return c.count()
		}
	case chunkSizeLF:
		if b == '\n' {
			c.state = chunkData
			if c.left == 0 {
				c.state = trailerStart
			}
			return nil
		}
	case chunkDataCR:
		if b == '\r' {
			c.state = chunkDataLF
			return nil
		}
	case chunkDataLF:
		if b == '\n' {
			c.state, c.left, c.line = chunkStart, 0, 0
			return nil
		}
	default: // what trailer and Next take
	}
	return ErrChunk
}

// count bounds the size line.
func (c *Chunked) count() error {
	if c.line++; c.line > maxChunkLine {
		return ErrChunk
	}
	return nil
}

// size takes one byte of a size line, up to the end of its digits.
func (c *Chunked) size(b byte) error {
	var digit int64
	switch {
	case b >= '0' && b <= '9':
		digit = int64(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		digit = int64(b|0x20-'a') + 10
	case c.state == chunkStart:
		return ErrChunk
	default:
		c.state = chunkSpace
		return c.frame(b)
	}
	if c.left > (1<<63-1)>>4 {
		return ErrChunk
	}
	c.left = c.left<<4 | digit
	c.state = chunkSize
	return c.count()
}

// trailer takes one byte of what follows the last chunk.
func (c *Chunked) trailer(b byte) error {
	if len(c.trailers) >= maxTrailers {
		return ErrTrailers
	}
	switch c.state {
	case trailerStart:
		if b == '\r' {
			c.state = chunkedLF
			return nil
		}
		c.state = trailerLine
		fallthrough
	case trailerLine:
		if b == '\n' {
			return ErrTrailers
		}
		c.trailers = append(c.trailers, b)
		if b == '\r' {
			c.state = trailerLF
		}
		return nil
	case trailerLF:
		if b == '\n' {
			c.trailers = append(c.trailers, b)
			c.state = trailerStart
			return nil
		}
	case chunkedLF:
		if b == '\n' {
			c.state = chunkedDone
			return nil
		}
	default: // what frame takes
	}
	return ErrTrailers
}

// untrailing are fields that mean nothing or harm after a body (RFC 9110,
// section 6.5.1).
const untrailing = 1<<ContentLength | 1<<TransferEncoding | 1<<Connection | 1<<KeepAlive | 1<<Host | 1<<Trailer | 1<<TE |
	1<<Upgrade | 1<<ContentEncoding | 1<<ContentType | 1<<ContentRange | 1<<Authorization | 1<<SetCookie | 1<<Expect |
	1<<ProxyConnection | 1<<ProxyAuthorization

// Trailers appends the fields after the last chunk to fields; those that must
// not stand there are left out. They are valid until Reset.
func (c *Chunked) Trailers(fields []Field) ([]Field, error) {
	for b := c.trailers; c.Done() && len(b) > 0; {
		end := bytes.IndexByte(b, '\n')
		f, bad := parseField(trimCR(b[:end]))
		if bad >= 0 {
			return fields, ErrTrailers
		}
		if uint64(untrailing)>>f.ID&1 == 0 {
			fields = append(fields, f)
		}
		b = b[end+1:]
	}
	return fields, nil
}
