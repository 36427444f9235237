package fastcgi

import (
	"errors"
	"fmt"
	"io"
	"net"

	"proxyctl/proxy/http1"
)

// Log gets what an application writes to its standard error, in pieces as they
// come. False refuses the answer, if its head has not been sent before.
type Log interface {
	Stderr(p []byte) bool
}

// records is a connection from which the standard output of an application is
// read. It takes records apart where they have been read to: headers and
// padding are squeezed out of the reader's buffer, so that it needs none of its
// own. No length of theirs is trusted with memory.
type records struct {
	net.Conn
	log  Log
	keep bool // the connection outlives the request

	header  [headerSize]byte
	have    int // bytes of header
	left    int // of the content
	padding int

	outputOver  bool // the output has been closed
	requestOver bool
	more        bool  // something came after the end
	fault       error // why nothing more is read
	in, out     int64 // bytes received, and output among them
	refused     int64 // how much output there was when the log refused the answer; -1: it has not
}

func (r *records) begin() {
	*r = records{Conn: r.Conn, log: r.log, keep: r.keep, refused: -1}
}

// Read reads output. io.EOF is the end of the request, or of the connection
// where it may end too. That the output has been closed is not enough: there are
// applications that fail when they cannot send the end of the request.
func (r *records) Read(p []byte) (int, error) {
	for {
		if r.fault != nil {
			return 0, r.fault
		}
		n, err := r.Conn.Read(p)
		r.in += int64(n)
		if err != nil {
			r.fault = r.closed(err)
		}
		if n, err = r.decode(p[:n]); err != nil {
			r.fault = err
		}
		if n > 0 {
			r.out += int64(n)
			return n, nil
		}
	}
}

// closed tells an end of the connection that may be that of an answer from one
// that is not. Unlike nginx, which takes the middle of a record for one.
func (r *records) closed(err error) error {
	if errors.Is(err, io.EOF) && r.in > 0 && (r.keep && !r.outputOver || r.have > 0) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decode moves the output among the bytes of p to its front.
func (r *records) decode(p []byte) (n int, err error) {
	for at := 0; at < len(p); {
		rest := p[at:]
		switch {
		case r.requestOver:
			r.more = true
			return n, io.EOF
		case r.have < headerSize:
			used := copy(r.header[r.have:], rest)
			at += used
			if r.have += used; r.have == headerSize {
				err = r.opened()
			}
		case r.left > 0:
			content := rest[:min(len(rest), r.left)]
			at += len(content)
			r.left -= len(content)
			switch r.header[1] {
			case typeStdout:
				n += copy(p[n:], content)
			case typeStderr:
				if !r.log.Stderr(content) && r.refused < 0 {
					r.refused = r.out + int64(n)
				}
			}
		default:
			used := min(len(rest), r.padding)
			at += used
			r.padding -= used
		}
		if err != nil {
			return n, err
		}
		if r.have == headerSize && r.left == 0 && r.padding == 0 {
			r.finished()
		}
	}
	if r.requestOver {
		return n, io.EOF
	}
	return n, nil
}

// opened looks at a header.
func (r *records) opened() error {
	h := &r.header
	r.left, r.padding = int(h[4])<<8|int(h[5]), int(h[6])
	switch kind := h[1]; {
	case h[0] != version:
		return refuse("upstream sent unsupported FastCGI protocol version: %d", h[0])
	case kind != typeStdout && kind != typeStderr && kind != typeEnd:
		return refuse("upstream sent invalid FastCGI record type: %d", kind)
	case h[2] != 0:
		return refuse("upstream sent unexpected FastCGI request id high byte: %d", h[2])
	case h[3] != requestID:
		return refuse("upstream sent unexpected FastCGI request id low byte: %d", h[3])
	}
	return nil
}

// finished ends a record.
func (r *records) finished() {
	r.have = 0
	switch h := &r.header; {
	case h[1] == typeEnd:
		r.requestOver = true
	case h[1] == typeStdout && h[4] == 0 && h[5] == 0:
		r.outputOver = true
	}
}

func refuse(format string, a ...any) error {
	return &http1.ParseError{Status: 502, Reason: fmt.Sprintf(format, a...)}
}
