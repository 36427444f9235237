package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/upstream"
)

// upstreamConn is a connection to a server that speaks HTTP/1.x. It belongs to
// one exchange at a time; only abort may be called by others.
type upstreamConn struct {
	net      net.Conn // what is read and written: TLS or raw
	raw      net.Conn
	socket   syscall.RawConn
	requests int
	born     int64

	// of the exchange it serves
	reused         bool
	sent, received int64
	pooled         *[]byte
	buf            []byte // of pooled
	r, w           int    // what has been received and not yet used
	framing        framing
	remaining      int64 // of the body, or of the chunk
	chunk          chunkState
	trailers       []byte // as received
	ended          bool   // the body is complete
	eof            bool
}

// framing is how the end of a body is found (RFC 9112, section 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose
)

type chunkState uint8

const (
	chunkSize chunkState = iota // a size is next
	chunkData
	chunkEnd // the line end behind data
	chunkTrailer
)

var errChunks = errors.New("upstream sent invalid chunked response")

// dialUpstream connects to a peer within connectTimeout.
func dialUpstream(x *Exchange, c *upstreamConf, p *upstream.Peer) (*upstreamConn, error) {
	d := net.Dialer{Timeout: c.connectTimeout, KeepAlive: -1, FallbackDelay: -1}
	d.LocalAddr = x.localAddress(c, p)
	if c.socketKeepalive {
		d.KeepAlive = 0
	}
	if c.rcvbuf > 0 || c.sndbuf > 0 || c.bind != nil {
		d.Control = c.socketOptions
	}
	conn, err := d.DialContext(context.Background(), p.Network, p.Address)
	if err != nil {
		return nil, err
	}
	u := &upstreamConn{net: conn, raw: conn, born: nanos()}
	if s, ok := conn.(syscall.Conn); ok {
		u.socket, _ = s.SyscallConn()
	}
	return u, nil
}

// localAddress is what proxy_bind says.
func (x *Exchange) localAddress(c *upstreamConf, p *upstream.Peer) net.Addr {
	if c.bind == nil || p.Network == "unix" {
		return nil
	}
	a := c.bind.address
	if v := c.bind.value; v != nil {
		text := v.String(x)
		if text == "" {
			return nil
		}
		var ok bool
		if a, ok = parseBind(text); !ok {
			x.Logf(logError, "invalid local address %q", text)
			return nil
		}
	}
	return net.TCPAddrFromAddrPort(a)
}

// socketOptions sets what must be set before connecting.
func (c *upstreamConf) socketOptions(network, _ string, conn syscall.RawConn) error {
	var failed error
	set := func(fd, level, option, value int) {
		if err := syscall.SetsockoptInt(fd, level, option, value); err != nil && failed == nil {
			failed = err
		}
	}
	err := conn.Control(func(fd uintptr) {
		if c.rcvbuf > 0 {
			set(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, int(c.rcvbuf))
		}
		if c.sndbuf > 0 {
			set(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, int(c.sndbuf))
		}
		if c.bind != nil && c.bind.transparent {
			if network == "tcp6" {
				set(int(fd), syscall.SOL_IPV6, 75, 1) // IPV6_TRANSPARENT
			} else {
				set(int(fd), syscall.SOL_IP, syscall.IP_TRANSPARENT, 1)
			}
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

// startTLS begins TLS.
func (c *upstreamConn) startTLS(config *tls.Config, timeout time.Duration) (*tls.Conn, error) {
	t := tls.Client(c.raw, config)
	_ = c.raw.SetDeadline(time.Now().Add(timeout))
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	_ = c.raw.SetDeadline(time.Time{})
	c.net = t
	return t, nil
}

// begin prepares for one exchange.
func (c *upstreamConn) begin(reused bool) {
	c.reused = reused
	c.requests++
	c.sent, c.received, c.r, c.w = 0, 0, 0, 0
	c.framing, c.remaining, c.chunk, c.ended, c.trailers = noBody, 0, chunkSize, false, nil
	if c.pooled == nil {
		c.pooled = pieces.Get().(*[]byte)
		c.buf = *c.pooled
	}
}

// rest gives up what an idle connection needs not.
func (c *upstreamConn) rest() {
	if c.pooled != nil {
		pieces.Put(c.pooled)
		c.pooled, c.buf, c.trailers = nil, nil, nil
	}
}

func (c *upstreamConn) close() {
	c.rest()
	_ = c.net.Close()
}

// abort makes reads and writes in progress fail. Unlike the other methods it
// may be called at any time.
func (c *upstreamConn) abort() { _ = c.raw.SetDeadline(time.Unix(1, 0)) }

// reusable says whether another request may follow.
func (c *upstreamConn) reusable() bool {
	return c.ended && !c.eof && c.framing != byClose && c.r == c.w
}

// stale says whether a failure means that the server had closed a kept
// connection before it read the request.
func (c *upstreamConn) stale(err error) bool {
	return c.reused && c.received == 0 && (errors.Is(err, io.EOF) || isReset(err))
}

// closedByServer looks at an idle connection: whatever can be read from it, an
// end or data nobody asked for, makes it useless.
func (c *upstreamConn) closedByServer() bool { return c.peek() != syscall.EAGAIN }

// answered says whether the server has begun its answer, or closed.
func (c *upstreamConn) answered() bool { return c.peek() != syscall.EAGAIN }

func (c *upstreamConn) peek() error {
	var b [1]byte
	var err error
	if c.socket == nil {
		return syscall.EAGAIN
	}
	failed := c.socket.Control(func(fd uintptr) {
		_, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if failed != nil {
		return failed
	}
	return err
}

// send writes p. The timeout counts between two successful writes, as in
// nginx.
func (c *upstreamConn) send(p []byte, timeout time.Duration) error {
	for len(p) > 0 {
		part := p[:min(len(p), 64<<10)]
		_ = c.net.SetWriteDeadline(time.Now().Add(timeout))
		n, err := c.net.Write(part)
		c.sent += int64(n)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// fill reads more behind what is buffered.
func (c *upstreamConn) fill(timeout time.Duration) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.buf) {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.eof {
		return io.EOF
	}
	_ = c.net.SetReadDeadline(time.Now().Add(timeout))
	n, err := c.net.Read(c.buf[c.w:])
	c.w += n
	c.received += int64(n)
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.eof = true
		return io.EOF
	}
	return err
}

// next gives the next bytes of the body, at most as many as asked for. They are
// valid until the next call. io.EOF comes with or after the last of them;
// io.ErrUnexpectedEOF when the server closed before.
func (c *upstreamConn) next(most int, timeout time.Duration) ([]byte, error) {
	for {
		if c.ended || c.framing == noBody {
			c.ended = true
			return nil, io.EOF
		}
		if c.framing == byChunks && c.chunk != chunkData {
			if done, err := c.advance(); done || err != nil {
				return nil, err
			}
		}
		if c.r < c.w && (c.framing != byChunks || c.chunk == chunkData) {
			return c.piece(most)
		}
		if c.r == 0 && c.w == len(c.buf) {
			return nil, errChunks // a line as long as the buffer
		}
		err := c.fill(timeout)
		switch {
		case err == nil:
		case err == io.EOF && c.framing == byClose:
			c.ended = true
			return nil, io.EOF
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// piece gives what is buffered.
func (c *upstreamConn) piece(most int) ([]byte, error) {
	n := min(c.w-c.r, most)
	if c.framing != byClose {
		n = int(min(int64(n), c.remaining))
		c.remaining -= int64(n)
	}
	p := c.buf[c.r : c.r+n]
	c.r += n
	switch c.framing {
	case byLength:
		if c.remaining == 0 {
			c.ended = true
			return p, io.EOF
		}
	case byChunks:
		if c.remaining == 0 {
			c.chunk = chunkEnd
			if done, err := c.advance(); done || err != nil {
				return p, err
			}
		}
	case byClose, noBody:
	}
	return p, nil
}

// advance reads what stands between chunks, as far as it has arrived. done says
// that the body is complete; the error is io.EOF then.
func (c *upstreamConn) advance() (done bool, err error) {
	for {
		line := c.buf[c.r:c.w]
		if c.chunk == chunkEnd {
			if len(line) < 2 {
				return false, nil
			}
			if line[0] != '\r' || line[1] != '\n' {
				return false, errChunks
			}
			c.r += 2
			c.chunk = chunkSize
			continue
		}
		end := bytes.IndexByte(line, '\n')
		if end < 0 {
			return false, nil
		}
		if end == 0 || line[end-1] != '\r' {
			return false, errChunks
		}
		if c.chunk == chunkTrailer {
			return c.endTrailers(line)
		}
		size, ok := chunkLength(line[:end-1])
		if !ok {
			return false, errChunks
		}
		c.r += end + 1
		if size > 0 {
			c.chunk, c.remaining = chunkData, size
			return false, nil
		}
		c.chunk = chunkTrailer
	}
}

// endTrailers takes the trailers once their last line is there.
func (c *upstreamConn) endTrailers(rest []byte) (bool, error) {
	n := 2
	if rest[0] != '\r' {
		end := bytes.Index(rest, []byte("\r\n\r\n"))
		if end < 0 {
			return false, nil
		}
		n = end + 4
		c.trailers = rest[:end+2]
	}
	c.r += n
	c.ended = true
	return true, io.EOF
}

// chunkLength reads the size of a chunk; extensions are skipped.
func chunkLength(line []byte) (int64, bool) {
	n, i := int64(0), 0
	for ; i < len(line); i++ {
		d, ok := hexDigit(line[i])
		if !ok {
			break
		}
		if n > 1<<58 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	rest := bytes.TrimLeft(line[i:], " \t")
	return n, i > 0 && (len(rest) == 0 || rest[0] == ';') && bytes.IndexByte(rest, '\r') < 0
}

// headOf parses the fields of a head or of trailers: lines that end in CRLF or
// LF, up to an empty one or the end. bad is the line that is none.
func parseFields(dst []http1.Field, text []byte) (fields []http1.Field, bad []byte) {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isFieldName(line[:colon]) {
			return dst, line
		}
		value := bytes.Trim(line[colon+1:], " \t")
		if !isFieldValue(value) {
			return dst, line
		}
		dst = append(dst, http1.Field{Name: line[:colon], Value: value, ID: http1.Identify(line[:colon])})
	}
	return dst, nil
}

// isFieldName allows the bytes of a token (RFC 9110, section 5.6.2).
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte(`"(),/:;<=>?@[\]{}`), c) >= 0 {
			return false
		}
	}
	return true
}

// isFieldValue refuses control characters, as nginx refuses NUL, and a bare CR.
func isFieldValue(value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
