package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// Bodies over HTTP/2, which are sent while the answer comes. What there is room
// for goes out with the head. For the rest there is a second goroutine: it takes
// the body from the client, from memory or from a file, and waits for the room
// that the exchange's own goroutine, the one that reads the answer, is granted.
//
// The second goroutine reads the client's side and writes the server's, the first
// does the opposite; of the exchange they share nothing. The first looks at what
// the second has done when that has ended: finishBody waits for it.

// bodySender sends the body of one request.
type bodySender struct {
	x      *Exchange
	conn   *upstreamConn
	stream bool   // the body is taken from the client
	data   []byte // else, unless there is a file, what is left of it in memory
	limit  int64  // of a body without a length; 0: none
	done   chan struct{}
	halted atomic.Bool // nobody wants it to go on

	// valid when done
	read   int64 // bytes that came from the client
	excess int   // the piece that went beyond the limit
	sent   bool  // all of the body
	err    error // why not
	client bool  // it is the client's side that failed
	failed bool  // it did so by itself, and not for being halted
}

// errBodyLimit ends a body that is larger than client_max_body_size allows.
var errBodyLimit = errors.New("request body too large")

// sendBehind has the rest of the body sent by a second goroutine.
func (x *Exchange) sendBehind(data []byte) {
	u := &x.upstream
	b := &bodySender{x: x, conn: u.conn, stream: u.streaming, data: data, done: make(chan struct{})}
	if u.streaming {
		x.stream.splitBody()
		if x.Req.Chunked {
			b.limit = x.bodyLimit()
		}
	}
	u.sender = b
	u.conn.http2.Share()
	go b.run()
}

func (b *bodySender) run() {
	defer close(b.done)
	switch {
	case b.stream:
		b.err = b.pass()
	case b.data == nil:
		if b.err = b.x.passFile(); b.err == nil {
			b.err = b.conn.Finish()
		}
	default:
		b.err = b.conn.http2.SendLast(b.data)
	}
	b.failed = b.err != nil && !b.halted.Load()
	switch {
	case b.err == nil:
		b.sent = true
		if b.stream {
			b.x.upstream.watchAfterBody(b.x)
		}
	case b.client || isFileError(b.err) || isTimeout(b.err):
		b.conn.Abort() // the answer is not waited for any more
	}
}

// pass sends the client's body while it comes: as much of it at a time as there
// is room for.
func (b *bodySender) pass() error {
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	start, end, last := 0, 0, false
	for {
		for !last && (start == end || end-start < len(buf)/2 && b.x.bodyAtHand()) {
			end = copy(buf, buf[start:end])
			start = 0
			n, err := b.x.stream.readBody(buf[end:])
			end += n
			if b.limit > 0 && b.read+int64(n) > b.limit {
				b.client, b.excess = true, n
				return errBodyLimit
			}
			b.read += int64(n)
			if last = errors.Is(err, io.EOF); err != nil && !last {
				b.client = true
				return err
			}
		}
		n, err := b.conn.http2.SendNow(buf[start:end], last)
		start += n
		if err != nil || last && start == end {
			return err
		}
		if start < end {
			if err := b.conn.http2.AwaitRoom(); err != nil {
				return err
			}
		}
	}
}

// finishBody ends the sending, if it has not ended, and takes over what has come of
// it.
func (s *upstreamScratch) finishBody() {
	b := s.sender
	if b == nil {
		return
	}
	s.sender = nil
	select {
	case <-b.done:
	default:
		b.stop()
	}
	s.sentAll = b.sent
	s.bodyFault = b
	if b.stream {
		_ = b.x.countBody(int(b.read)) // which has been compared with the limit
		b.x.keepAlive = b.x.keepAlive && b.sent
	}
}

// stopPatience is how long a request that has been written to its end may take
// to leave.
const stopPatience = 100 * time.Millisecond

// stop ends the sending before its time.
func (b *bodySender) stop() {
	b.halted.Store(true)
	b.conn.http2.StopSending()
	if b.stream {
		b.x.stream.stopBody()
	}
	select {
	case <-b.done:
	case <-time.After(stopPatience): // the server does not read what it has answered
		b.conn.Abort()
		<-b.done
	}
}

// blame gives the reason for an error of the server's side: it may be that the
// body could not be sent.
func (x *Exchange) blame(err error) error {
	u := &x.upstream
	u.finishBody()
	b := u.bodyFault
	switch {
	case b == nil || !b.failed || u.gone():
		return err
	case errors.Is(b.err, errBodyLimit):
		return &clientError{x.countBody(b.excess)}
	case b.client:
		return &clientError{x.bodyFailed(b.err)}
	case isFileError(b.err):
		return x.fileFailed(b.err)
	case isTimeout(b.err):
		return b.err
	}
	return err
}
