package proxy

import (
	"errors"
	"io"
	"sync"

	"proxyctl/proxy/http1"
)

// Sending a request, with its body from memory, from a file or while it comes.

// joined is up to which size a body is sent in one piece with the head.
const joined = 16 << 10

// clientError is an error of the client's side while the request is passed on.
type clientError struct{ code Code }

func (e *clientError) Error() string { return "the client's side failed" }

// faultCode gives the code of a clientError, 0 for other errors.
func faultCode(err error) Code {
	var fault *clientError
	if errors.As(err, &fault) {
		return fault.code
	}
	return 0
}

// sendRequest sends the request but for its last piece, which is returned: it
// goes out together with the wait for the answer. A small body is joined to the
// head.
func (x *Exchange) sendRequest() (last []byte, err error) {
	u := &x.upstream
	u.action, u.sent = sending, true
	if u.conn.http2 != nil {
		return nil, x.sendFrames()
	}
	switch {
	case u.streaming:
		return nil, x.sendStream(u.head)
	case u.frame != nil:
		return x.sendFramed()
	}
	head, body := u.head, []byte(nil)
	if u.passBody {
		body = x.body.data
	}
	n := len(head)
	switch {
	case len(body) > 0 && len(body) <= joined:
		head = append(head, body...)
		u.head = head[:n] // keeps the room for the next time
	case u.passBody && x.body.file != nil:
		if err := u.conn.Send(head); err != nil {
			return nil, err
		}
		head, err = nil, x.sendFileBody()
	case len(body) > 0:
		err, head = u.conn.Send(head), body
	}
	u.sentAll = err == nil
	return head, err
}

// sendFrames sends the request over HTTP/2: what there is room for now, and the
// rest by a goroutine of its own.
func (x *Exchange) sendFrames() error {
	u := &x.upstream
	u.bodyFault = nil
	body := u.head[u.headEnd:]
	file := false
	if u.passBody {
		body, file = x.body.data, x.body.file != nil
	}
	scheme := "http"
	if u.tls != nil {
		scheme = "https"
	}
	end := !u.streaming && !file && len(body) == 0
	err := u.conn.http2.SendHead(u.head[:u.headEnd], scheme, end)
	switch {
	case err != nil || end:
	case u.streaming || file:
		if err = u.conn.http2.Flush(); err == nil {
			x.sendBehind(nil)
			return nil
		}
	default:
		var n int
		if n, err = u.conn.http2.SendNow(body, true); err == nil && n < len(body) {
			x.sendBehind(body[n:])
			return nil
		}
	}
	u.sentAll = err == nil
	return err
}

// sendFramed is sendRequest for a protocol that puts bodies into frames.
func (x *Exchange) sendFramed() (last []byte, err error) {
	u := &x.upstream
	body := []byte(nil)
	switch {
	case u.passBody && x.body.file != nil:
		if err = u.conn.Send(u.head); err == nil {
			err = x.sendFileBody()
		}
		u.sentAll = err == nil
		return nil, err
	case u.passBody:
		body = x.body.data
	}
	n, sent := len(u.head), 0
	for {
		piece := body[:min(len(body), joined)]
		body = body[len(piece):]
		out := u.frame(u.head[:n], piece, len(body) == 0)
		u.head = out[:n] // keeps the room for the next piece
		if len(body) == 0 {
			u.sentAll = true
			return out[sent:], nil
		}
		if err := u.conn.Send(out[sent:]); err != nil {
			return nil, err
		}
		sent = n
	}
}

// sendFileBody sends a body that did not fit in memory.
func (x *Exchange) sendFileBody() error {
	err := x.passFile()
	if isFileError(err) {
		return x.fileFailed(err)
	}
	return err
}

// bodyFileError is why a body cannot be read from its file.
type bodyFileError struct{ error }

func isFileError(err error) bool {
	var e bodyFileError
	return errors.As(err, &e)
}

// fileFailed logs a bodyFileError.
func (x *Exchange) fileFailed(err error) error {
	x.Logf(logCrit, "%s", err)
	return &clientError{500}
}

// passFile is sendFileBody without a word.
func (x *Exchange) passFile() error {
	u := &x.upstream
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	for offset := int64(0); offset < x.body.size; {
		room := buf[frameRoom : len(buf)-frameRoom]
		n, err := x.body.file.ReadAt(room[:min(int64(len(room)), x.body.size-offset)], offset)
		if n == 0 {
			return bodyFileError{SystemError("pread()", x.body.path, err)}
		}
		piece := room[:n]
		offset += int64(n)
		if u.frame != nil {
			piece = u.frame(buf[:0], piece, offset == x.body.size)
		}
		if err := u.conn.Send(piece); err != nil {
			return err
		}
	}
	return nil
}

// sendStream passes the body on while it comes; the head does not wait for it.
// It ends early when the server answers before it has read everything.
func (x *Exchange) sendStream(head []byte) error {
	u := &x.upstream
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	out := append(buf[:0], head...)
	if len(out) > len(buf)/2 || len(out) > 0 && !x.bodyAtHand() {
		if err := u.conn.Send(out); err != nil {
			return err
		}
		out = buf[:0]
	}
	for {
		at := len(out) + frameRoom
		n, err := x.stream.readBody(buf[at : len(buf)-frameRoom])
		if code := x.countBody(n); code != OK {
			return &clientError{code}
		}
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return &clientError{x.bodyFailed(err)}
		}
		out = u.frame.append(out, buf[at:at+n], last)
		if err := u.conn.Send(out); err != nil {
			return err
		}
		out = buf[:0]
		if last {
			u.sentAll = true
			u.watchAfterBody(x)
			return u.conn.Finish()
		}
		if u.conn.Answered() {
			x.keepAlive = false
			return nil
		}
	}
}

// bodyAtHand says whether some of the body has arrived.
func (x *Exchange) bodyAtHand() bool {
	switch s := x.stream.(type) {
	case *http1Stream:
		return s.conn.BodyAtHand()
	case *http2Stream:
		return s.st.BodyAtHand()
	}
	return false
}

// bodyFrame appends a piece of a body, the last of them with last, in the form
// that a protocol gives it. piece may lie behind out in the same memory, with
// frameRoom bytes between for what comes before it.
type bodyFrame func(out, piece []byte, last bool) []byte

func (f bodyFrame) append(out, piece []byte, last bool) []byte {
	if f == nil {
		return append(out, piece...)
	}
	return f(out, piece, last)
}

// frameRoom is what a frame may take before a piece, and behind it.
const frameRoom = 32

// frameChunk is the frame of chunks.
func frameChunk(out, piece []byte, last bool) []byte {
	if len(piece) > 0 {
		out = http1.AppendChunkHeader(out, len(piece))
		out = append(append(out, piece...), "\r\n"...)
	}
	if last {
		out = append(out, "0\r\n\r\n"...)
	}
	return out
}

// pieces are buffers for bodies on their way.
var pieces = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
