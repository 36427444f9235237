package sock

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dialer makes connections to servers whose addresses are known, in as few
// system calls as that takes. net.Dialer asks for the addresses of both ends, and
// has a goroutine and a timer keep the time: that costs as much as the rest of a
// short exchange on a new connection.
type Dialer struct {
	Sweeper *Sweeper
	// Timeout bounds the wait for the connection, coarsely like
	// Conn.SetTimeout; 0 leaves it to the system.
	Timeout time.Duration
	// Local is the address to connect from; the zero value leaves the choice to
	// the system. It has no effect on unix sockets.
	Local netip.AddrPort
	// Control, if not nil, sets up the socket before it is bound and connected.
	Control func(fd int) error
}

// Dial connects to an address: "tcp" and an IP address with its port, or "unix"
// and a path. The error is an *os.SyscallError for a system call that failed,
// and os.ErrDeadlineExceeded when time is over.
func (d *Dialer) Dial(network, address string) (*Conn, error) {
	to, family, err := sockaddr(network, address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = d.prepare(fd, family)
	waiting := false
	if err == nil {
		e := connect(fd, to)
		if waiting = inProgress(e); !waiting && e != 0 {
			err = os.NewSyscallError("connect", e)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := New(&dialed{File: os.NewFile(uintptr(fd), ""), network: network}, d.Sweeper)
	if waiting {
		if err := c.connected(to, d.Timeout); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// prepare sets up a socket before it is connected.
func (d *Dialer) prepare(fd, family int) error {
	if d.Control != nil {
		if err := d.Control(fd); err != nil {
			return err
		}
	}
	if family == unix.AF_UNIX {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if !d.Local.IsValid() {
		return nil
	}
	if d.Local.Port() == 0 { // one port can serve connections to several servers
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	from, _ := inetAddr(d.Local)
	if e := bind(fd, from); e != 0 {
		return os.NewSyscallError("bind", e)
	}
	return nil
}

// connected waits until a connection that has been started is there: a second
// connect(2) tells. Over the loopback interface it is there at once.
func (c *Conn) connected(to []byte, timeout time.Duration) error {
	c.SetTimeout(timeout)
	c.begin(&c.writes)
	var e syscall.Errno
	err := c.wait(&c.writes, c.raw.Write, func(fd uintptr) bool {
		e = connect(int(fd), to)
		return !inProgress(e)
	})
	c.writes.deadline.Store(0)
	c.SetTimeout(0)
	if err == nil && e != 0 && e != unix.EISCONN {
		err = os.NewSyscallError("connect", e)
	}
	return err
}

func inProgress(e syscall.Errno) bool { return e == unix.EINPROGRESS || e == unix.EALREADY }

// sockaddr encodes an address as the system takes it.
func sockaddr(network, address string) (to []byte, family int, err error) {
	if network == "unix" {
		if len(address) >= len(unix.RawSockaddrUnix{}.Path) {
			return nil, 0, os.NewSyscallError("connect", unix.ENAMETOOLONG)
		}
		to = binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX)
		return append(append(to, address...), 0), unix.AF_UNIX, nil
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, 0, err
	}
	to, family = inetAddr(a)
	return to, family, nil
}

func inetAddr(a netip.AddrPort) (addr []byte, family int) {
	if a.Addr().Is4() {
		addr = binary.NativeEndian.AppendUint16(make([]byte, 0, unix.SizeofSockaddrInet4), unix.AF_INET)
		ip := a.Addr().As4()
		addr = append(binary.BigEndian.AppendUint16(addr, a.Port()), ip[:]...)
		return addr[:unix.SizeofSockaddrInet4], unix.AF_INET
	}
	addr = binary.NativeEndian.AppendUint16(make([]byte, 0, unix.SizeofSockaddrInet6), unix.AF_INET6)
	addr = binary.BigEndian.AppendUint16(addr, a.Port())
	ip := a.Addr().As16()
	addr = append(append(addr, 0, 0, 0, 0), ip[:]...)
	return addr[:unix.SizeofSockaddrInet6], unix.AF_INET6
}

// dialed is a connected socket as a net.Conn. Its addresses are looked up only
// when somebody asks.
type dialed struct {
	*os.File
	network string
}

// Read keeps to the conventions of net.Conn: an end is io.EOF.
func (d *dialed) Read(p []byte) (int, error) {
	n, err := d.File.Read(p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

func (d *dialed) LocalAddr() net.Addr  { return d.address(unix.Getsockname) }
func (d *dialed) RemoteAddr() net.Addr { return d.address(unix.Getpeername) }

func (d *dialed) address(get func(fd int) (unix.Sockaddr, error)) (a net.Addr) {
	_ = d.control(func(fd int) {
		sa, _ := get(fd)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			a = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
		case *unix.SockaddrInet6:
			a = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
		case *unix.SockaddrUnix:
			a = &net.UnixAddr{Name: sa.Name, Net: "unix"}
		}
	})
	if a == nil {
		return &net.UnixAddr{Net: d.network}
	}
	return a
}

// CloseWrite ends the direction to the server.
func (d *dialed) CloseWrite() (err error) {
	closed := d.control(func(fd int) { err = os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR)) })
	return errors.Join(closed, err)
}

// SetLinger makes the following Close wait for seconds; 0 sends a reset.
func (d *dialed) SetLinger(seconds int) (err error) {
	closed := d.control(func(fd int) {
		l := unix.Linger{Onoff: 1, Linger: int32(seconds)}
		err = os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
	return errors.Join(closed, err)
}

func (d *dialed) control(do func(fd int)) error {
	raw, err := d.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}
