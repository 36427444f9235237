package sock

import (
	"io"
	"net"
	"sync"
)

// halfCloser can end one direction.
type halfCloser interface{ CloseWrite() error }

// Tunnel passes bytes both ways until both directions have ended or one fails.
// fromA and fromB are what has been read already. The end of one direction is
// passed on; a connection that cannot be closed by half is closed. Deadlines are
// those of the connections.
func Tunnel(a, b net.Conn, fromA, fromB []byte) (toB, toA int64, err error) {
	var wg sync.WaitGroup
	var errA error
	wg.Go(func() { toA, errA = pump(a, b, fromB) })
	toB, err = pump(b, a, fromA)
	wg.Wait()
	if err == nil {
		err = errA
	}
	return toB, toA, err
}

var tunnelBuffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// pump copies one direction.
func pump(dst, src net.Conn, first []byte) (int64, error) {
	pooled := tunnelBuffers.Get().(*[]byte)
	defer tunnelBuffers.Put(pooled)
	n, err := dst.Write(first)
	total := int64(n)
	if err == nil {
		var more int64
		more, err = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *pooled)
		total += more
	}
	if err != nil {
		abort(src)
		abort(dst)
		return total, err
	}
	if h, ok := dst.(halfCloser); !ok || h.CloseWrite() != nil {
		abort(src)
		abort(dst)
	}
	return total, nil
}

// abort ends both directions of a connection without waiting.
func abort(c net.Conn) {
	if s, ok := c.(*Conn); ok {
		s.Abort()
		return
	}
	_ = c.Close()
}
