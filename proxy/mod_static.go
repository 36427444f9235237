package proxy

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"syscall"

	"proxyctl/proxy/http1"
)

// ngx_http_static_module: answers with a file.

func staticModule() Module {
	return Module{
		Name: "ngx_http_static_module", Phase: Content,
		Handler: func(*Conf) Handler { return serveStatic },
	}
}

// serveStatic answers with the file that the URI names.
func serveStatic(x *Exchange) Code {
	if !x.isMethod("GET") && !x.isMethod("HEAD") && !x.isMethod("POST") {
		return 405
	}
	if x.namesFolder() {
		return Declined
	}
	path := x.path()
	if leavesRoot(path) { // Unlike nginx, which follows an alias out of its folder.
		x.Logf(logError, "%q leaves the folder of its alias", path)
		return 404
	}
	f, err := x.open(path)
	if err != nil {
		return x.openFailed(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return x.openFailed(path, err)
	}
	switch {
	case info.IsDir():
		x.Out.SetLocation(x.directoryLocation())
		return 301
	case !info.Mode().IsRegular():
		x.Logf(logCrit, "%q is not a regular file", path)
		return 404
	case x.isMethod("POST"):
		return 405
	}
	if code := x.discardBody(); code != OK {
		return code
	}
	return x.sendFile(f, info)
}

// directoryLocation is the URI with the slash that a folder wants.
func (x *Exchange) directoryLocation() []byte {
	start := len(x.arena)
	x.arena = append(appendEscaped(x.arena, x.uri, &escapeURI), '/')
	if len(x.args) > 0 {
		x.arena = append(append(x.arena, '?'), x.args...)
	}
	return x.arena[start:len(x.arena):len(x.arena)]
}

// openFailed logs why a file cannot be had and gives the status for it.
func (x *Exchange) openFailed(path []byte, err error) Code {
	var errno syscall.Errno
	errors.As(err, &errno)
	op := "open()"
	var pe *fs.PathError
	if errors.As(err, &pe) {
		op = pe.Op + "()"
	}
	level, code := logCrit, Code(500)
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG:
		level, code = logError, 404
	case syscall.EACCES, syscall.ELOOP, syscall.EMLINK, syscall.ENXIO:
		level, code = logError, 403
	}
	if code != 404 || x.loc.Conf.Core.LogNotFound {
		x.Logf(level, "%s %q failed (%d: %s)", op, path, int(errno), sysText(errno))
	}
	return code
}

// sendFile answers with an open file, or the ranges of it that were asked for.
func (x *Exchange) sendFile(f *os.File, info fs.FileInfo) Code {
	a := &x.Out
	a.Status = 200
	a.ContentLength = info.Size()
	a.LastModified = info.ModTime().Unix()
	if x.loc.Conf.Core.ETag {
		a.Add(etagName, x.etag(a.LastModified, a.ContentLength))
	}
	if len(a.ContentType) == 0 {
		a.ContentType = x.contentType()
	}
	a.AcceptRanges, a.seekable = true, true
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.headerOnly {
		return Done
	}
	return x.sendParts(f, 0, info.Size())
}

// sendParts sends size bytes of f from offset, or the ranges of them that were
// asked for.
func (x *Exchange) sendParts(f *os.File, offset, size int64) Code {
	a := &x.Out
	if len(a.ranges) == 0 {
		return x.sendFilePart(f, offset, size, true)
	}
	for i := range a.ranges {
		r := &a.ranges[i]
		if len(r.header) > 0 {
			if x.WriteBody(r.header, false) != nil {
				return Abort
			}
		}
		last := i == len(a.ranges)-1 && a.rangeEnd == nil
		if code := x.sendFilePart(f, offset+r.start, r.end-r.start, last); code != Done {
			return code
		}
	}
	if a.rangeEnd != nil && x.WriteBody(a.rangeEnd, true) != nil {
		return Abort
	}
	return Done
}

var etagName = []byte("ETag")

// etag makes "modified-size" in hexadecimal (ngx_http_set_etag).
func (x *Exchange) etag(modified, size int64) []byte {
	start := len(x.arena)
	x.arena = append(x.arena, '"')
	x.arena = strconv.AppendInt(x.arena, modified, 16)
	x.arena = append(x.arena, '-')
	x.arena = strconv.AppendInt(x.arena, size, 16)
	x.arena = append(x.arena, '"')
	return x.arena[start:len(x.arena):len(x.arena)]
}

// sendRange sends a piece of a file by sendfile(2), at the pace of the answer.
func (x *Exchange) sendRange(conn *http1.Conn, f *os.File, offset, size int64) bool {
	for size > 0 {
		piece := size
		if x.pace.rate > 0 {
			limit, ok := x.allowed()
			if !ok {
				return false
			}
			piece = min(limit, size)
		}
		n, err := conn.SendFile(f, offset, piece)
		x.bodySent += n
		if err != nil || n < piece {
			return false
		}
		if x.pace.rate > 0 {
			x.pace.count(n)
		}
		offset, size = offset+n, size-n
	}
	return true
}

// filePiece is how much of a file is read at once when sendfile(2) is no option.
const filePiece = 64 << 10

var filePieces = sync.Pool{New: func() any { b := make([]byte, filePiece); return &b }}

// sendFilePart sends size bytes of f from offset.
func (x *Exchange) sendFilePart(f *os.File, offset, size int64, last bool) Code {
	if s, ok := x.stream.(*http1Stream); ok && x.loc.Conf.Core.Sendfile && size > keptBack && !x.output.any() && !x.Out.Chunked && !x.client.tls {
		if !x.sendRange(s.conn, f, offset, size) {
			x.fail()
			return Abort
		}
		return Done
	}
	pooled := filePieces.Get().(*[]byte)
	defer filePieces.Put(pooled)
	buf := *pooled
	if s, two := x.stream.(*http2Stream); two && !x.output.any() && x.pace.rate == 0 {
		n, err := s.sendFile(x, f, buf, offset, size)
		x.bodySent += n
		if err != nil {
			x.fail()
			return Abort
		}
		offset, size = offset+n, size-n
	}
	sent := false
	for size > 0 {
		sent = true
		n, err := f.ReadAt(buf[:min(size, int64(len(buf)))], offset)
		size -= int64(n)
		offset += int64(n)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			x.Logf(logAlert, "%q was truncated while it was sent", f.Name())
			x.fail()
			return Abort
		}
		if x.WriteBody(buf[:n], last && size == 0) != nil {
			return Abort
		}
	}
	if last && !sent && x.WriteBody(nil, true) != nil {
		return Abort
	}
	return Done
}
