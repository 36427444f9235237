// Package memcached asks a memcached server for values, as if they were answers
// of HTTP.
package memcached

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// Request is what an answer is held against.
type Request struct {
	Key   []byte // as sent
	Gzip  uint64 // the flags of values that are compressed; 0 for none
	Limit int    // how long the line before a value may be, in bytes
	Log   Log
}

// Log is told what an answer does not say.
type Log interface {
	// Missing: there is no value under the key.
	Missing()
	// BadTrailer: something else follows the value than its end.
	BadTrailer()
}

// ClientConn is a connection to a server. What goes for one of http1.ClientConn
// goes for it: a value is an answer of 200, none is one of 404.
type ClientConn struct {
	*http1.ClientConn
	values *values
	sock   *sock.Conn
}

// NewClientConn makes the client's side of nc, s or a connection over it.
func NewClientConn(nc net.Conn, s *sock.Conn) *ClientConn {
	v := &values{Conn: nc}
	return &ClientConn{ClientConn: http1.NewClientConn(v, s), values: v, sock: s}
}

// Ask prepares for a request, after Begin.
func (c *ClientConn) Ask(r Request) { *c.values = values{Conn: c.values.Conn, Request: r} }

// Next returns the next piece of the value.
func (c *ClientConn) Next() ([]byte, error) {
	p, err := c.ClientConn.Next()
	c.ended(err)
	return p, err
}

// ReadBody reads bytes of the value into p.
func (c *ClientConn) ReadBody(p []byte) (int, error) {
	n, err := c.ClientConn.ReadBody(p)
	c.ended(err)
	return n, err
}

// ended reads what follows the value.
func (c *ClientConn) ended(err error) {
	if v := c.values; errors.Is(err, io.EOF) && !v.over {
		v.over = true
		if v.finish(); v.bad {
			v.Log.BadTrailer()
		}
	}
}

// Reusable says whether another request may be sent.
func (c *ClientConn) Reusable() bool {
	v := c.values
	return v.trailer == len(end) && !v.bad && c.Pending() == 0 && !c.sock.Aborted()
}

// end follows a value.
const end = "\r\nEND\r\n"

// values is a connection on which answers are put into the form of HTTP where
// they have been read to.
type values struct {
	net.Conn
	Request

	line    []byte // before the value, until it is complete
	begun   bool   // it is
	pending []byte // of the head in the form of HTTP, and what came with it
	left    int64  // of the value
	trailer int    // how much of end has come
	bad     bool   // something else did
	over    bool   // the value has been read
	fault   error
}

// Read reads an answer of HTTP.
func (v *values) Read(p []byte) (int, error) {
	for {
		if len(v.pending) > 0 {
			n := copy(p, v.pending)
			v.pending = v.pending[n:]
			return n, nil
		}
		if v.fault != nil {
			return 0, v.fault
		}
		n, err := v.Conn.Read(p)
		v.fault = err
		if !v.begun {
			if err := v.head(p[:n]); err != nil {
				v.fault = err
			}
			continue
		}
		if n = v.value(p[:n]); n > 0 {
			return n, nil
		}
	}
}

// value keeps the bytes of the value at the front of p, and says how many.
func (v *values) value(p []byte) int {
	n := int(min(int64(len(p)), v.left))
	v.left -= int64(n)
	for _, c := range p[n:] {
		if v.trailer == len(end) || c != end[v.trailer] {
			v.bad = true
			break
		}
		v.trailer++
	}
	return n
}

// finish reads to the end of the answer.
func (v *values) finish() {
	var buf [len(end)]byte
	for v.trailer < len(end) && !v.bad {
		n, err := v.Conn.Read(buf[:len(end)-v.trailer])
		v.value(buf[:n])
		v.bad = v.bad || n == 0 && err != nil
	}
}

// head reads the line before the value.
func (v *values) head(p []byte) error {
	i := bytes.IndexByte(p, '\n')
	v.line = append(v.line, p[:i+1]...)
	if i < 0 {
		v.line = append(v.line, p...)
	}
	if len(v.line) > v.Limit {
		return refuse("upstream sent too big header")
	}
	if i < 0 {
		return nil
	}
	v.begun = true
	line, ok := bytes.CutSuffix(v.line, []byte("\r\n"))
	if !ok {
		return refuse("memcached sent invalid response: \"%s\"", bytes.TrimSuffix(v.line, []byte("\n")))
	}
	if err := v.answer(line); err != nil {
		return err
	}
	rest := bytes.Clone(p[i+1:])
	v.pending = append(v.pending, rest[:v.value(rest)]...)
	return nil
}

// answer makes a head of HTTP.
func (v *values) answer(line []byte) error {
	if string(line) == "END" {
		v.Log.Missing()
		v.trailer = len(end)
		v.pending = []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		return nil
	}
	rest, ok := bytes.CutPrefix(line, []byte("VALUE "))
	if !ok {
		return refuse("memcached sent invalid response: \"%s\"", line)
	}
	wrong := func(what string) error {
		return refuse("memcached sent invalid %s in response \"%s\" for key \"%s\"", what, line, v.Key)
	}
	if rest, ok = bytes.CutPrefix(rest, v.Key); !ok {
		return wrong("key")
	}
	var flags, length []byte
	if rest, ok = bytes.CutPrefix(rest, []byte(" ")); ok {
		flags, length, ok = bytes.Cut(rest, []byte(" "))
	}
	if !ok {
		return refuse("memcached sent invalid response: \"%s\"", line)
	}
	n, err := strconv.ParseUint(string(length), 10, 63)
	if err != nil || n > math.MaxInt64-uint64(len(end)) {
		return wrong("length")
	}
	coding := ""
	if v.Gzip != 0 {
		f, err := strconv.ParseUint(string(flags), 10, 63)
		if err != nil {
			return wrong("flags")
		}
		if f&v.Gzip != 0 {
			coding = "Content-Encoding: gzip\r\n"
		}
	}
	v.left = int64(n)
	v.pending = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n", n, coding)
	return nil
}

func refuse(format string, a ...any) error {
	return &http1.ParseError{Status: 502, Reason: fmt.Sprintf(format, a...)}
}
