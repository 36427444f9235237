package sock

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DatagramListener makes connections of the datagrams that come in by one UDP
// socket: a connection for each pair of addresses. It is a net.Listener; while
// nobody has called Accept since a deadline passed, datagrams wait in the socket.
type DatagramListener struct {
	conn     *net.UDPConn
	wildcard bool // datagrams say which address they came to
	local    netip.AddrPort
	epoch    atomic.Uint32

	accepted chan *DatagramConn
	failed   chan error

	mu      sync.Mutex
	conns   map[datagramKey]*DatagramConn
	reading bool
	closed  bool
}

// datagramBacklog is how many connections wait for Accept. The datagrams that
// would begin more are lost.
const datagramBacklog = 512

type datagramKey struct{ remote, local netip.AddrPort }

// MaxDatagram is how large a datagram can be.
const MaxDatagram = 64 << 10

// datagramQueue is how many datagrams wait for the goroutine of a connection;
// those beyond are lost, as they may be anywhere on their way.
const datagramQueue = 64

// NewDatagramListener makes a listener of a socket, which belongs to it from here
// on.
func NewDatagramListener(conn *net.UDPConn) (*DatagramListener, error) {
	l := &DatagramListener{conn: conn, conns: map[datagramKey]*DatagramConn{}, accepted: make(chan *DatagramConn, datagramBacklog), failed: make(chan error, 1)}
	l.local = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if l.wildcard = l.local.Addr().IsUnspecified(); !l.wildcard {
		return l, nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if l.local.Addr().Is4() {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			return
		}
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err == nil {
		err = os.NewSyscallError("setsockopt", set)
	}
	return l, err
}

// Accept returns a connection when a datagram comes that belongs to none; it is
// the first that is received from it.
func (l *DatagramListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	if !l.reading {
		l.reading = true
		go l.read()
	}
	l.mu.Unlock()
	select {
	case c := <-l.accepted:
		return c, nil
	case err := <-l.failed:
		return nil, err
	}
}

// read hands out datagrams until reading fails.
func (l *DatagramListener) read() {
	buf, oob := make([]byte, MaxDatagram), []byte(nil)
	if l.wildcard {
		oob = make([]byte, 128)
	}
	for {
		n, oobn, _, from, err := l.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			l.mu.Lock()
			l.reading = false
			l.mu.Unlock()
			l.failed <- err
			return
		}
		key := datagramKey{from, l.local}
		if l.wildcard {
			if to, ok := destination(oob[:oobn]); ok {
				key.local = netip.AddrPortFrom(to, l.local.Port())
			}
		}
		p := append([]byte(nil), buf[:n]...)
		l.mu.Lock()
		l.deliver(key, p)
		l.mu.Unlock()
	}
}

// deliver gives a datagram to its connection, or makes one.
func (l *DatagramListener) deliver(key datagramKey, p []byte) {
	c := l.conns[key]
	if c == nil || c.epoch != l.epoch.Load() {
		c = &DatagramConn{listener: l, key: key, epoch: l.epoch.Load(), queue: make(chan []byte, datagramQueue), done: make(chan struct{})}
		c.queue <- p
		select {
		case l.accepted <- c:
			l.conns[key] = c
		default:
		}
		return
	}
	select {
	case c.queue <- p:
	default:
	}
}

// Renew makes the next datagram of each client begin a new connection; the old
// ones can still be written to.
func (l *DatagramListener) Renew() { l.epoch.Add(1) }

// Close closes the socket and every connection.
func (l *DatagramListener) Close() error {
	l.mu.Lock()
	l.closed = true
	for _, c := range l.conns {
		c.Abort()
	}
	l.mu.Unlock()
	return l.conn.Close()
}

// Closed reports whether Close has been called.
func (l *DatagramListener) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Addr returns the address of the socket.
func (l *DatagramListener) Addr() net.Addr { return l.conn.LocalAddr() }

// SetDeadline ends Accept at a time.
func (l *DatagramListener) SetDeadline(t time.Time) error { return l.conn.SetReadDeadline(t) }

// SyscallConn gives access to the socket.
func (l *DatagramListener) SyscallConn() (syscall.RawConn, error) { return l.conn.SyscallConn() }

// destination finds the address that a datagram was sent to.
func destination(oob []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12])), true
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])), true
		}
	}
	return netip.Addr{}, false
}

// DatagramConn is what a client at one address sends to one address of ours, and
// what is sent back. One goroutine receives from it; the rest is safe from
// anywhere.
type DatagramConn struct {
	listener *DatagramListener
	key      datagramKey
	epoch    uint32
	queue    chan []byte
	done     chan struct{}
	once     sync.Once
}

// Received gives the datagrams that have come.
func (c *DatagramConn) Received() <-chan []byte { return c.queue }

// Done is closed when the connection has ended.
func (c *DatagramConn) Done() <-chan struct{} { return c.done }

// Shut reports whether the socket has been closed.
func (c *DatagramConn) Shut() bool { return c.listener.Closed() }

// Read receives one datagram; what p has no room for is lost.
func (c *DatagramConn) Read(p []byte) (int, error) {
	select {
	case d := <-c.queue:
		return copy(p, d), nil
	case <-c.done:
		return 0, net.ErrClosed
	}
}

// Write sends one datagram to the client, from the address that it wrote to.
func (c *DatagramConn) Write(p []byte) (int, error) {
	var oob []byte
	if c.listener.wildcard {
		if a := c.key.local.Addr(); a.Is4() {
			oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
		} else {
			oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
		}
	}
	n, _, err := c.listener.conn.WriteMsgUDPAddrPort(p, oob, c.key.remote)
	return n, err
}

// Leave makes what has not been received yet, and what comes, belong to other
// connections.
func (c *DatagramConn) Leave() {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.key] != c {
		return
	}
	delete(l.conns, c.key)
	for len(c.queue) > 0 {
		select {
		case p := <-c.queue:
			if !l.closed {
				l.deliver(c.key, p)
			}
		default: // it was received meanwhile
		}
	}
}

// Finish is Leave for a connection that has received everything; else it does
// nothing and returns false.
func (c *DatagramConn) Finish() bool {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(c.queue) > 0 {
		return false
	}
	if l.conns[c.key] == c {
		delete(l.conns, c.key)
	}
	return true
}

// Abort wakes whoever waits for a datagram.
func (c *DatagramConn) Abort() { c.once.Do(func() { close(c.done) }) }

// Close ends the connection.
func (c *DatagramConn) Close() error {
	c.Leave()
	c.Abort()
	return nil
}

// LocalAddr returns the address that the client writes to.
func (c *DatagramConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.key.local) }

// RemoteAddr returns the client's address.
func (c *DatagramConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.key.remote) }

// SetDeadline does nothing, like the other two: who waits for
// datagrams has a timer of its own.
func (c *DatagramConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *DatagramConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *DatagramConn) SetWriteDeadline(time.Time) error { return nil }
