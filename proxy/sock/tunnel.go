package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// halfCloser can end one direction.
type halfCloser interface{ CloseWrite() error }

var tunnelBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// tunnel is two connections that are copied to each other.
type tunnel struct {
	idle     time.Duration
	began    time.Time
	last     atomic.Int64 // when a byte was moved, since began
	over     atomic.Bool
	timedOut atomic.Bool
	watchdog *time.Timer
}

// Tunnel passes bytes both ways until both directions have ended, one fails, or
// no byte moves for the time idle (0: for ever; the error is
// os.ErrDeadlineExceeded then). fromA and fromB are what has been read already.
// The end of one direction is passed on; a connection that cannot be closed by
// half is closed. It returns how many bytes went to b and to a. The caller closes
// both. A raw Conn holds no buffer while nothing arrives.
func Tunnel(a, b net.Conn, fromA, fromB []byte, idle time.Duration) (toB, toA int64, err error) {
	t := &tunnel{idle: idle, began: time.Now()}
	if idle > 0 {
		armed := make(chan struct{})
		t.watchdog = time.AfterFunc(idle, func() {
			<-armed
			t.check(a, b)
		})
		close(armed)
	}
	var wg sync.WaitGroup
	var errA error
	wg.Go(func() { toA, errA = t.pump(a, b, fromB) })
	toB, err = t.pump(b, a, fromA)
	wg.Wait()
	t.over.Store(true)
	if t.watchdog != nil {
		t.watchdog.Stop()
	}
	switch {
	case t.timedOut.Load():
		return toB, toA, os.ErrDeadlineExceeded
	case err == nil || errors.Is(err, ErrAborted) && errA != nil:
		err = errA
	}
	return toB, toA, err
}

// check ends the tunnel if nothing has moved for too long.
func (t *tunnel) check(a, b net.Conn) {
	if t.over.Load() {
		return
	}
	rest := t.idle - (time.Since(t.began) - time.Duration(t.last.Load()))
	if rest > 0 {
		t.watchdog.Reset(rest)
		return
	}
	t.timedOut.Store(true)
	abort(a)
	abort(b)
}

// pump copies one direction.
func (t *tunnel) pump(dst, src net.Conn, first []byte) (int64, error) {
	total, err := t.write(dst, first)
	if err == nil {
		var more int64
		if c, ok := src.(*Conn); ok && c.raw != nil {
			more, err = t.pumpRaw(dst, c)
		} else {
			more, err = t.pumpPlain(dst, src)
		}
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

func (t *tunnel) write(dst net.Conn, p []byte) (int64, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := dst.Write(p)
	t.last.Store(int64(time.Since(t.began)))
	return int64(n), err
}

func (t *tunnel) pumpPlain(dst, src net.Conn) (total int64, err error) {
	buf := tunnelBuffers.Get().(*[32 << 10]byte)
	defer tunnelBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		m, werr := t.write(dst, buf[:n])
		total += m
		if err != nil || werr != nil {
			return total, pumpError(err, werr)
		}
	}
}

// pumpRaw takes a buffer when something has arrived.
func (t *tunnel) pumpRaw(dst net.Conn, src *Conn) (total int64, err error) {
	var buf *[32 << 10]byte
	n, failed := 0, syscall.Errno(0)
	step := func(fd uintptr) bool {
		buf = tunnelBuffers.Get().(*[32 << 10]byte)
		n, failed = read(int(fd), buf[:])
		if failed == syscall.EAGAIN {
			tunnelBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		src.begin(&src.reads)
		err := src.wait(&src.reads, src.raw.Read, step)
		src.reads.deadline.Store(0)
		if err == nil {
			_, err = readResult(n, failed)
		}
		if err != nil {
			n = 0
		}
		var werr error
		if buf != nil {
			var m int64
			m, werr = t.write(dst, buf[:n])
			total += m
			tunnelBuffers.Put(buf)
			buf = nil
		}
		if err != nil || werr != nil {
			return total, pumpError(err, werr)
		}
	}
}

// pumpError makes no error of a proper end.
func pumpError(err, werr error) error {
	if werr != nil {
		return werr
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// abort ends both directions of a connection without waiting.
func abort(c net.Conn) {
	if s, ok := c.(*Conn); ok {
		s.Abort()
		return
	}
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		if s, ok := t.NetConn().(*Conn); ok {
			s.Abort()
			return
		}
	}
	_ = c.SetDeadline(past)
}
