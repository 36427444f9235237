package proxy

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listening sockets that pass from one process to the next: those that the
// process was started with, from the binary it replaces or from systemd, and
// those that it hands on (ngx_set_inherited_sockets, ngx_exec_new_binary).
// Connections that wait in a socket's queue wait for whoever has the socket.

// inheritance is what the process was started with and has not used yet.
type inheritance struct {
	sockets []inheritedSocket
	parent  int // the process that started this one
}

type inheritedSocket struct {
	fd    int
	key   string // as socket.key; "udp4 ..." and "udp6 ..." for datagrams
	path  string // of a unix socket
	lasts bool   // the file of a unix socket belongs to somebody else
}

// Inherit makes listening sockets that the process was started with available
// to Start; those that the configuration does not name are closed then. lasts
// says that the files of unix sockets are not to be removed at the end. To be
// called before Start.
func (r *Runtime) Inherit(fds []int, lasts bool) {
	h := &r.opts.inherited
	h.parent = os.Getppid()
	for _, fd := range fds {
		s := inheritedSocket{fd: fd, lasts: lasts}
		if err := s.identify(); err != nil {
			r.Logf(logCrit, "%v", err)
			continue
		}
		h.sockets = append(h.sockets, s)
	}
}

// identify finds out where the socket listens.
func (s *inheritedSocket) identify() error {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return errorWithCode(fmt.Sprintf("getsockname() of the inherited socket #%d failed", s.fd), err)
	}
	kind, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return errorWithCode(fmt.Sprintf("getsockopt(SO_TYPE) of the inherited socket #%d failed", s.fd), err)
	}
	network := "tcp"
	if kind == unix.SOCK_DGRAM {
		network = "udp"
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		s.key = network + "4 " + netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		s.key = network + "6 " + netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		s.key, s.path = "unix:"+a.Name, a.Name
	default:
		return fmt.Errorf("the inherited socket #%d has an unsupported protocol family", s.fd)
	}
	return nil
}

// claim takes all inherited sockets of an address. Several are of reuseport:
// each has a queue of its own, so each must be served.
func (h *inheritance) claim(key string) []inheritedSocket {
	var claimed []inheritedSocket
	h.sockets = slices.DeleteFunc(h.sockets, func(s inheritedSocket) bool {
		if s.key == key {
			claimed = append(claimed, s)
		}
		return s.key == key
	})
	return claimed
}

// take gives the socket to b; it is used up.
func (s *inheritedSocket) take(b *boundSocket) error {
	// That it does not block is a property of the socket, for everybody who has
	// it: nginx wants it too. systemd does not set it.
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(s.fd), s.key)
	defer f.Close()
	if strings.HasPrefix(s.key, "udp") {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		if !b.first.options.udp {
			b.quics = append(b.quics, &quicSocket{UDPConn: c.(*net.UDPConn)})
			return nil
		}
		l, err := datagramListener(c)
		if err == nil {
			b.listeners = append(b.listeners, l)
		}
		return err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if t, ok := l.(*net.TCPListener); ok {
		l = adopted{t, b}
	}
	b.listeners = append(b.listeners, l)
	return nil
}

// closeRest closes the inherited sockets that nobody has claimed.
func (h *inheritance) closeRest(log *errorLog) {
	for _, s := range h.sockets {
		_ = unix.Close(s.fd)
		switch {
		case s.lasts:
			log.logf(logWarn, "the configuration does not listen on the inherited socket %s", s.key)
		case s.path != "":
			log.logf(logWarn, "deleting socket %s", s.path)
			if err := os.Remove(s.path); err != nil {
				log.logf(logEmerg, "%v", errorWithCode("unlink() "+s.path+" failed", err))
			}
		}
	}
	h.sockets = nil
}

// adopted is a TCP listener that the net package has not opened itself: it
// gives every connection keep-alive probes of its own, which are set right.
type adopted struct {
	*net.TCPListener
	of *boundSocket
}

func (l adopted) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	// An error says that the client has gone: whoever reads will see it.
	if k := l.of.binding.Load().socket.options.keepalive; k.set && k.on {
		_ = c.SetKeepAliveConfig(k.config())
	} else {
		_ = c.SetKeepAlive(false)
	}
	return c, nil
}

// adopt takes the inherited sockets of the address.
func (b *boundSocket) adopt(s *socket, from *inheritance) error {
	key := s.key()
	if s.network != "unix" {
		key = s.network + " " + b.at.String()
	}
	for _, inherited := range from.claim(key) {
		if err := inherited.take(b); err != nil {
			return b.failed(err, s)
		}
		b.inherited, b.lasts = true, inherited.lasts
	}
	return nil
}

// Sockets duplicates the descriptors of all listening sockets, for a process
// that is to take them over. The caller closes them.
func (r *Runtime) Sockets() ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var fds []int
	for _, key := range slices.Sorted(maps.Keys(r.bound)) {
		for _, l := range r.bound[key].all() {
			fd, err := duplicate(l)
			if err != nil {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
				return nil, err
			}
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// all gives the sockets of an address.
func (b *boundSocket) all() []syscall.Conn {
	var out []syscall.Conn
	for _, l := range b.listeners {
		if c, ok := l.(syscall.Conn); ok {
			out = append(out, c)
		}
	}
	for _, q := range b.quics {
		out = append(out, q)
	}
	return out
}

func duplicate(s syscall.Conn) (int, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if e := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return -1, e
	}
	return fd, os.NewSyscallError("fcntl", err)
}
