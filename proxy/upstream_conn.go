package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
	"proxyctl/proxy/upstream"
)

// upstreamConn is a connection to a server. It belongs to one exchange at a
// time; only abort may be called by others.
type upstreamConn struct {
	*http1.ClientConn
	sock     *sock.Conn
	net      net.Conn // sock, or TLS over it
	requests int
	born     int64
	reused   bool
}

// dialUpstream connects to a peer within connectTimeout.
func dialUpstream(x *Exchange, c *upstreamConf, p *upstream.Peer) (*upstreamConn, error) {
	d := net.Dialer{Timeout: c.connectTimeout, KeepAlive: -1}
	d.LocalAddr = x.localAddress(c, p)
	if c.socketKeepalive {
		d.KeepAlive = 0
	}
	if c.rcvbuf > 0 || c.sndbuf > 0 || c.bind != nil {
		d.Control = c.socketOptions
	}
	nc, err := d.Dial(p.Network, p.Address)
	if err != nil {
		return nil, err
	}
	s := sock.New(nc, x.client.rt.sweeper)
	return &upstreamConn{ClientConn: http1.NewClientConn(s, s), sock: s, net: s, born: nanos()}, nil
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
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil && failed == nil {
			failed = err
		}
	}
	err := conn.Control(func(fd uintptr) {
		if c.rcvbuf > 0 {
			set(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, int(c.rcvbuf))
		}
		if c.sndbuf > 0 {
			set(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, int(c.sndbuf))
		}
		if c.bind != nil && c.bind.transparent {
			if network == "tcp6" {
				set(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			} else {
				set(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
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
	t := tls.Client(c.sock, config)
	_ = c.sock.SetDeadline(time.Now().Add(timeout))
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	_ = c.sock.SetDeadline(time.Time{})
	c.net = t
	c.ClientConn = http1.NewClientConn(t, c.sock)
	return t, nil
}

// begin prepares for one exchange.
func (c *upstreamConn) begin(u *upstreamConf, reused bool) {
	c.reused = reused
	c.requests++
	c.Begin()
	c.SetTimeouts(u.readTimeout, u.sendTimeout)
}

func (c *upstreamConn) close() { _ = c.Close() }

// stale says whether a failure means that the server had closed a kept
// connection before it read the request.
func (c *upstreamConn) stale(err error) bool {
	return c.reused && c.BytesIn == 0 && (errors.Is(err, io.EOF) || isReset(err))
}
