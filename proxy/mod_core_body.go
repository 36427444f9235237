package proxy

import (
	"errors"
	"io"
	"os"
	"sync"
)

// Request bodies: read whole, into memory and then into a file, or passed on as
// they come (ngx_http_request_body.c).

// requestBody is the body of a request once it has been read. The zero value
// is an empty body.
type requestBody struct {
	data []byte   // all of it, unless there is a file
	file *os.File // all of it
	path string   // of file, which has been removed from its folder already unless client_body_in_file_only wants it
	size int64

	received int64   // bytes read so far, for the limit of bodies without a length
	pooled   *[]byte // data, when it is to be given back
	remove   bool    // file is to be removed at the end
	keep     bool    // the body is wanted in a file with a name, to be removed unless remove is taken back

	discarded bool // nobody wanted it
}

const (
	bodyInFileOff = iota
	bodyInFileOn
	bodyInFileClean
)

// bodyPiece is the size of pooled buffers for bodies: nginx's default
// client_body_buffer_size.
const bodyPiece = 16 << 10

var bodyBuffers = sync.Pool{New: func() any { b := make([]byte, bodyPiece); return &b }}

// close gives memory and file back.
func (b *requestBody) close() {
	if b.pooled != nil {
		bodyBuffers.Put(b.pooled)
	}
	if b.file != nil {
		_ = b.file.Close()
		if b.remove {
			_ = os.Remove(b.path)
		}
	}
	*b = requestBody{}
}

// hasBody says whether the request announces a body, or an end that has not come.
func (x *Exchange) hasBody() bool { return x.contentLength() > 0 || x.Req.Chunked || x.Req.Open }

// bodyInFile is client_body_in_file_only, or what a handler wants instead.
func (x *Exchange) bodyInFile() int {
	if x.body.keep {
		return bodyInFileClean
	}
	return x.loc.Conf.Core.BodyInFile
}

// bodyLimit is client_max_body_size; 0 for none.
func (x *Exchange) bodyLimit() int64 { return x.loc.Conf.Core.MaxBodySize }

// readBody reads the whole body into x.body. It returns OK or the status to
// answer with.
func (x *Exchange) readBody() Code {
	if x.bodyRead {
		return OK
	}
	x.bodyRead = true
	if x.hasBody() || x.Req.Expect100 {
		if code := x.expectBody(); code != OK {
			return code
		}
	}
	if !x.hasBody() {
		if x.bodyInFile() != bodyInFileOff && x.contentLength() == 0 {
			return x.bodyToFile(nil)
		}
		return OK
	}
	if data, ok := x.stream.buffered(); ok {
		return x.takeArrived(data, x.bodyInFile() != bodyInFileOff || int64(len(data)) > x.memoryForBody())
	}
	x.admitBody(true)
	return x.readBodyPieces()
}

// readEarlyBody reads the body before everything else
// (client_body_early_read).
func (x *Exchange) readEarlyBody() Code {
	core := &x.loc.Conf.Core
	if len(core.EarlyRead.Items) == 0 || !x.anyTrue(core.EarlyRead.Items) {
		return OK
	}
	if x.bodyTooLarge() {
		return 413
	}
	return x.readBody()
}

// bodyTooLarge says whether the request announces a larger body than is taken.
func (x *Exchange) bodyTooLarge() bool {
	limit := x.bodyLimit()
	if limit == 0 || x.contentLength() <= limit || x.body.discarded {
		return false
	}
	x.Logf(logError, "client intended to send too large body: %d bytes", x.contentLength())
	return true
}

// memoryForBody is how large a body may be that has arrived together with its
// head: in nginx one part of it lies behind the head, in that buffer, the rest in
// the buffer of the body.
func (x *Exchange) memoryForBody() int64 {
	core := &x.loc.Conf.Core
	if x.Req.Major >= 2 { // nothing comes together with a head there
		return core.BodyBuffer
	}
	return core.BodyBuffer + core.BodyBuffer>>2 + max(core.HeaderBuffer-int64(x.Req.HeadSize), 0)
}

// takeArrived takes over a body that has arrived whole.
func (x *Exchange) takeArrived(data []byte, toFile bool) Code {
	if code := x.countBody(len(data)); code != OK {
		return code
	}
	if toFile {
		return x.bodyToFile(data)
	}
	x.body.data, x.body.size = data, int64(len(data))
	return OK
}

// streamBody prepares a body that is passed on while it comes; false: there was
// nothing to wait for, it has arrived whole.
func (x *Exchange) streamBody() (bool, Code) {
	x.bodyRead = true
	if code := x.expectBody(); code != OK {
		return false, code
	}
	if data, ok := x.stream.buffered(); ok {
		return false, x.takeArrived(data, false)
	}
	if code := x.checkArrived(); code != OK {
		return false, code
	}
	x.admitBody(false)
	return true, OK
}

// expectBody prepares reading from the client.
func (x *Exchange) expectBody() Code {
	if err := x.stream.sendContinue(); err != nil {
		x.fail()
		return Abort
	}
	return OK
}

// readBodyPieces fills a buffer, and continues in a file when it is full.
func (x *Exchange) readBodyPieces() Code {
	core := &x.loc.Conf.Core
	size := core.BodyBuffer
	if n := x.contentLength(); n >= 0 && n < size+size>>2 { // a little more costs less than a file
		size = n
	}
	buf := x.bodyMemory(int(max(size, 1)))
	n := 0
	for {
		m, err := x.stream.readBody(buf[n:])
		n += m
		if code := x.countBody(m); code != OK {
			return code
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x.bodyFailed(err)
		}
		if n < len(buf) {
			continue
		}
		if int64(n) == x.contentLength() && x.bodyInFile() == bodyInFileOff {
			break
		}
		if code := x.bodyToFile(buf[:n]); code != OK {
			return code
		}
		return x.restToFile(buf)
	}
	if x.bodyInFile() != bodyInFileOff {
		return x.bodyToFile(buf[:n])
	}
	x.body.data, x.body.size = buf[:n], int64(n)
	return OK
}

// bodyMemory gives a buffer that lives as long as the exchange.
func (x *Exchange) bodyMemory(size int) []byte {
	if size > bodyPiece {
		return make([]byte, size)
	}
	x.body.pooled = bodyBuffers.Get().(*[]byte)
	return (*x.body.pooled)[:size]
}

// countBody counts bytes of the body against client_max_body_size. A body with
// a length was checked when the location was found.
func (x *Exchange) countBody(n int) Code {
	x.reqLength += int64(n)
	limit := x.bodyLimit()
	if x.Req.Chunked && limit != 0 && x.body.received+int64(n) > limit {
		x.Logf(logError, "client intended to send too large chunked body: %d+%d bytes", x.body.received, n)
		x.keepAlive = false
		return 413
	}
	x.body.received += int64(n)
	return OK
}

// bodyFailed tells why the client's body ended early. A client that has gone is
// not answered.
func (x *Exchange) bodyFailed(err error) Code {
	x.keepAlive = false
	if code := x.bodyRefused(err); code != 0 {
		return code
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 408
	case errors.Is(err, io.ErrUnexpectedEOF):
		x.Logf(logInfo, "client prematurely closed connection")
	case errnoOf(err) != 0:
		x.Logf(logInfo, "%v", errorWithCode("recv() failed", err))
	default:
		x.Logf(logError, "client sent invalid chunked body")
		return 400
	}
	if !x.headSent {
		x.Out.Status = 400
	}
	return Abort
}

// bodyToFile begins the file with what is in memory.
func (x *Exchange) bodyToFile(start []byte) Code {
	core := &x.loc.Conf.Core
	f, path, err := core.bodyTemp(x.table.opts).create(x.bodyInFile() == bodyInFileOff)
	if err != nil {
		x.Logf(logCrit, "%s", err)
		return 500
	}
	if x.bodyInFile() == bodyInFileOff {
		x.Logf(logWarn, "a client request body is buffered to a temporary file %s", path)
	}
	x.body.file, x.body.path, x.body.remove = f, path, x.bodyInFile() == bodyInFileClean
	return x.addToFile(start)
}

func (x *Exchange) addToFile(p []byte) Code {
	if len(p) == 0 {
		return OK
	}
	if _, err := x.body.file.Write(p); err != nil {
		x.Logf(logCrit, "%s", SystemError("pwrite()", x.body.path, err))
		return 500
	}
	x.body.size += int64(len(p))
	return OK
}

// restToFile reads what follows through buf.
func (x *Exchange) restToFile(buf []byte) Code {
	for {
		n, err := x.stream.readBody(buf)
		if code := x.countBody(n); code != OK {
			return code
		}
		if code := x.addToFile(buf[:n]); code != OK {
			return code
		}
		if errors.Is(err, io.EOF) {
			return OK
		}
		if err != nil {
			return x.bodyFailed(err)
		}
	}
}

// discardBody says that nobody wants the body: the connection skips it, or
// closes when it is too long for that (ngx_http_discard_request_body).
//
// It returns 400 when what has come of the body is malformed.
func (x *Exchange) discardBody() Code {
	if x.bodyRead {
		return OK
	}
	x.bodyRead, x.body.discarded = true, x.hasBody()
	if s, two := x.stream.(*http2Stream); two {
		s.st.Discard()
		return OK
	}
	return x.checkArrived()
}

// checkArrived refuses a body when what has come of it is malformed.
func (x *Exchange) checkArrived() Code {
	if s, ok := x.stream.(*http1Stream); !ok || !s.conn.Malformed() {
		return OK
	}
	x.Logf(logError, "client sent invalid chunked body")
	x.keepAlive = false
	return 400
}

// bodyTemp is client_body_temp_path.
func (c *coreConf) bodyTemp(o *Options) tempPath {
	if c.BodyTempPath.path == "" {
		return tempPath{path: o.tempPath("client_body")}
	}
	return c.BodyTempPath
}

// appendRequestBody gives $request_body: only what is in memory.
func (x *Exchange) appendRequestBody(dst []byte) ([]byte, bool) {
	if !x.bodyRead || x.body.file != nil || x.body.size == 0 {
		return dst, false
	}
	return append(dst, x.body.data...), true
}

// appendRequestBodyFile gives $request_body_file.
func (x *Exchange) appendRequestBodyFile(dst []byte) ([]byte, bool) {
	if x.body.file == nil {
		return dst, false
	}
	return append(dst, x.body.path...), true
}
