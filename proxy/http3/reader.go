package http3

import (
	"errors"
	"io"
	"sync"

	"github.com/quic-go/quic-go/quicvarint"
)

// reader reads frames of a stream.
type reader struct {
	src        io.Reader
	buf        *[]byte // nil while nothing has been read that is not used
	start, end int
	ended      bool  // the client's side has
	total      int64 // bytes read
}

// inputSize is the size of the buffer of a stream; heads that are larger have one
// of their own.
const inputSize = 4 << 10

var inputs = sync.Pool{New: func() any { b := make([]byte, inputSize); return &b }}

// held is what has been read and not used.
func (r *reader) held() []byte {
	if r.buf == nil {
		return nil
	}
	return (*r.buf)[r.start:r.end]
}

// fill reads more; io.EOF when there is nothing more to come.
func (r *reader) fill() error {
	if r.ended {
		return io.EOF
	}
	if r.buf == nil {
		r.buf = inputs.Get().(*[]byte)
		r.start, r.end = 0, 0
	}
	b := *r.buf
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
	case r.end == len(b) && r.start > 0:
		r.end = copy(b, b[r.start:r.end])
		r.start = 0
	case r.end == len(b):
		b = append(b, make([]byte, len(b))...)
		r.release()
		r.buf = &b
	}
	n, err := r.src.Read(b[r.end:])
	r.end += n
	return r.read(n, err)
}

// read notes what a read has brought.
func (r *reader) read(n int, err error) error {
	r.total += int64(n)
	if errors.Is(err, io.EOF) {
		r.ended = true
		if n > 0 {
			return nil
		}
	}
	return err
}

// release gives the buffer back.
func (r *reader) release() {
	if r.buf != nil && len(*r.buf) == inputSize {
		inputs.Put(r.buf)
	}
	r.buf = nil
}

// varint reads an integer. io.EOF means that nothing has come of it.
func (r *reader) varint() (uint64, error) {
	for {
		if b := r.held(); len(b) > 0 {
			if n, size, err := quicvarint.Parse(b); err == nil {
				r.start += size
				return n, nil
			}
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(r.held()) > 0 {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// frame reads the head of a frame. io.EOF means that there is none.
func (r *reader) frame() (kind, size uint64, err error) {
	if kind, err = r.varint(); err != nil {
		return 0, 0, err
	}
	if size, err = r.varint(); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return kind, size, err
}

// skip reads over bytes.
func (r *reader) skip(n uint64) error {
	for {
		m := min(uint64(len(r.held())), n)
		r.start += int(m)
		if n -= m; n == 0 {
			return nil
		}
		if err := r.fill(); err != nil {
			return cutShort(err)
		}
	}
}

// payload reads the whole of a frame. It is valid until the next use.
func (r *reader) payload(n int) ([]byte, error) {
	for len(r.held()) < n {
		if err := r.fill(); err != nil {
			return nil, cutShort(err)
		}
	}
	b := r.held()[:n]
	r.start += n
	return b, nil
}

// cutShort is the error of reading inside a frame.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// body reads bytes of DATA into p.
func (r *reader) body(p []byte) (int, error) {
	if b := r.held(); len(b) > 0 {
		n := copy(p, b)
		r.start += n
		return n, nil
	}
	if r.ended {
		return 0, io.ErrUnexpectedEOF
	}
	r.release() // bodies are read where they go
	n, err := r.src.Read(p)
	return n, cutShort(r.read(n, err))
}
