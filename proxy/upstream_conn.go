package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/fastcgi"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/http2"
	"proxyctl/proxy/memcached"
	"proxyctl/proxy/sock"
	"proxyctl/proxy/upstream"
)

// upstreamConn is a connection to a server. It belongs to one exchange at a
// time; only abort may be called by others.
type upstreamConn struct {
	upstreamWire
	kind      wireKind
	http1     *http1.ClientConn // one of these is the wire
	http2     *http2.ClientConn
	fastcgi   *fastcgi.ClientConn
	memcached *memcached.ClientConn
	sock      *sock.Conn
	net       net.Conn // sock, or TLS over it
	requests  int
	born      int64
	queue     *queue // while it waits for its first answer
	reused    bool
}

// wireKind is a protocol that servers are spoken to in.
type wireKind uint8

// The protocols.
const (
	wireHTTP1 wireKind = iota
	wireHTTP2
	wireFastCGI
	wireMemcached
	wireStream // none: bytes of sessions
	wireCGI    // answers of CGI or HTTP without more, as those of uwsgi and SCGI
	wireTunnel // bytes behind an answer of our own
)

// upstreamWire is how requests and answers go over a connection.
type upstreamWire interface {
	Begin()
	SetTimeouts(read, send time.Duration)
	// Send sends a part of the request, Finish ends its body.
	Send(p []byte) error
	Finish() error
	Answered() bool
	ReadResponse(req []byte, r *http1.Response, l *http1.Limits, head bool, interim func(*http1.Response)) error
	Next() ([]byte, error)
	ReadBody(p []byte) (int, error)
	Waits() bool
	Trailers(fields []http1.Field) ([]http1.Field, error)
	Traffic() (in, out int64)
	Excess() (more, chunked bool)
	Reusable() bool
	Rest()
	Stale() bool
	Detach() (net.Conn, []byte)
	Close() error
}

// dialUpstream connects to a peer within connectTimeout.
func dialUpstream(x *Exchange, c *upstreamConf, p *upstream.Peer) (*upstreamConn, error) {
	d := sock.Dialer{Sweeper: x.client.rt.sweeper, Timeout: c.connectTimeout}
	if c.bind != nil && p.Network != "unix" {
		d.Local = x.localAddress(c)
	}
	if c.rcvbuf > 0 || c.sndbuf > 0 || c.socketKeepalive || c.bind != nil {
		d.Control = func(fd int) error { return c.socketOptions(fd, d.Local.Addr().Is6()) }
	}
	s, err := d.Dial(p.Network, p.Address)
	if err != nil {
		return nil, err
	}
	conn := &upstreamConn{sock: s, net: s, born: nanos()}
	conn.speak(c.wire)
	return conn, nil
}

// speak chooses the protocol.
func (c *upstreamConn) speak(wire wireKind) {
	c.kind = wire
	switch wire {
	case wireHTTP2:
		c.http2 = http2.NewClientConn(c.net, c.sock)
		c.upstreamWire = c.http2
	case wireFastCGI:
		c.fastcgi = fastcgi.NewClientConn(c.net, c.sock)
		c.upstreamWire = c.fastcgi
	case wireMemcached:
		c.memcached = memcached.NewClientConn(c.net, c.sock)
		c.upstreamWire = c.memcached
	case wireStream:
	case wireHTTP1, wireCGI, wireTunnel:
		c.http1 = http1.NewClientConn(c.net, c.sock)
		c.upstreamWire = c.http1
		if wire == wireCGI {
			c.http1.SetForm(http1.CGIOrHTTP)
		}
	}
}

// Abort wakes whoever waits for the connection. Safe from any goroutine.
func (c *upstreamConn) Abort() { c.sock.Abort() }

// localAddress is what bind says; invalid for none.
func (x *Exchange) localAddress(c *upstreamConf) netip.AddrPort {
	v := c.bind.value
	if v == nil {
		return c.bind.address
	}
	text := v.String(x)
	if text == "" {
		return netip.AddrPort{}
	}
	a, ok := parseBind(text)
	if !ok {
		x.Logf(logError, "invalid local address %q", text)
	}
	return a
}

// socketOptions sets what must be set before connecting.
func (c *upstreamConf) socketOptions(fd int, ipv6 bool) error {
	set := func(level, option, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
	}
	var err error
	if c.socketKeepalive {
		err = errors.Join(err, set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
	}
	if c.rcvbuf > 0 {
		err = errors.Join(err, set(unix.SOL_SOCKET, unix.SO_RCVBUF, int(c.rcvbuf)))
	}
	if c.sndbuf > 0 {
		err = errors.Join(err, set(unix.SOL_SOCKET, unix.SO_SNDBUF, int(c.sndbuf)))
	}
	switch {
	case c.bind == nil || !c.bind.transparent:
	case ipv6:
		err = errors.Join(err, set(unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
	default:
		err = errors.Join(err, set(unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	}
	return err
}

// startTLS begins TLS.
func (c *upstreamConn) startTLS(config *tls.Config, timeout time.Duration) (*tls.Conn, error) {
	t := tls.Client(c.sock, config)
	_ = c.sock.SetDeadline(time.Now().Add(timeout))
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	_ = c.sock.SetDeadline(time.Time{})
	c.net = t
	c.speak(c.kind)
	return t, nil
}

// begin prepares for one exchange.
func (c *upstreamConn) begin(s *upstreamScratch, reused bool) {
	c.reused = reused
	c.requests++
	if c.fastcgi != nil {
		c.fastcgi.Set(s.conf.keepConn, s.stderr)
	}
	c.Begin()
	if c.memcached != nil {
		c.memcached.Ask(*s.asked)
	}
	c.SetTimeouts(s.conf.readTimeout, s.conf.sendTimeout)
}

func (c *upstreamConn) close() {
	if c.queue != nil {
		c.queue.leave()
	}
	if c.kind == wireStream {
		_ = c.net.Close()
		return
	}
	_ = c.Close()
}

// stale says whether a failure means that the server had closed a kept
// connection before it read the request.
func (c *upstreamConn) stale(err error) bool {
	in, _ := c.Traffic()
	return c.reused && (in == 0 && (errors.Is(err, io.EOF) || isReset(err)) || errors.Is(err, http2.ErrUnprocessed))
}
