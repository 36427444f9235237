package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/sock"
)

// Listening sockets (src/core/ngx_connection.c).

// boundSocket is a socket that is bound: it outlives the generations that name
// its address.
type boundSocket struct {
	key       string
	address   string // as nginx prints it
	path      string // of a unix socket
	first     *socket
	at        netip.AddrPort
	listeners []net.Listener // several with reuseport
	quics     []*quicSocket  // instead of them; several only if they were inherited
	served    int            // how many of them are accepted from
	binding   atomic.Pointer[binding]
	closed    atomic.Bool
	accepting sync.WaitGroup
	inherited bool // from the process that started this one
	lasts     bool // its file stays
}

// binding is whom a socket serves at present.
type binding struct {
	table  *Table
	socket *socket
}

// The five tries of nginx to bind an address that is still in use.
const (
	bindTries = 5
	bindPause = 500 * time.Millisecond
)

// bindAll binds all sockets or none. Addresses in use are tried again for two
// seconds, for a server that is just ending.
func bindAll(sockets []*socket, t *Table, log *errorLog) ([]*boundSocket, error) {
	bound := make([]*boundSocket, len(sockets))
	var last error
	for try := range bindTries {
		last = nil
		for i, s := range sockets {
			if bound[i] != nil {
				continue
			}
			b, err := bind(s, t)
			if err == nil {
				bound[i] = b
				continue
			}
			last = err
			if !errors.Is(err, syscall.EADDRINUSE) {
				unbind(bound)
				return nil, err
			}
			log.logf(logEmerg, "%v", err)
		}
		if last == nil {
			return bound, nil
		}
		if try < bindTries-1 {
			log.logf(logNotice, "try again to bind() after 500ms")
			time.Sleep(bindPause)
		}
	}
	unbind(bound)
	return nil, last
}

// CheckSockets tries to open what t listens on, as nginx -t does: everything
// but an address in use is an error. Nothing stays open.
func (t *Table) CheckSockets() error {
	for _, s := range t.sockets {
		alone := *s
		alone.options.reuseport = false // or it would take connections from the server that runs
		b, err := bind(&alone, t)
		if err == nil {
			unbind([]*boundSocket{b})
		} else if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return nil
}

func unbind(bound []*boundSocket) {
	for _, b := range bound {
		if b != nil {
			b.close()
			if !b.inherited {
				b.remove()
			}
		}
	}
}

// InUse says that an address could not be bound because somebody listens there
// already.
type InUse struct {
	// Address is invalid for a unix socket.
	Address netip.AddrPort
	text    string
}

func (e *InUse) Error() string { return e.text }

func (e *InUse) Unwrap() error { return unix.EADDRINUSE }

// bind opens the sockets of one address.
func bind(s *socket, t *Table) (*boundSocket, error) {
	b := &boundSocket{key: s.key(), path: s.path, first: s, address: s.fallback.address}
	at := s.address
	if move := t.opts.Address; move != nil && s.network != "unix" {
		if moved := move(at); moved != at {
			at = moved
			b.address = at.String()
		}
	}
	b.at = at
	err := b.adopt(s, &t.opts.inherited)
	if err == nil {
		err = b.grow(s, &t.Main)
	}
	if err != nil {
		unbind([]*boundSocket{b})
		return nil, err
	}
	return b, nil
}

// grow opens sockets until there are as many as s wants.
func (b *boundSocket) grow(s *socket, m *mainConf) error {
	if s.options.quic {
		if len(b.quics) > 0 {
			return nil
		}
		q, err := b.listenQUIC(s, b.at)
		if err != nil {
			return err
		}
		b.quics = append(b.quics, q)
		return nil
	}
	for len(b.listeners) < s.count(m) {
		l, err := b.listen(s, b.at)
		if err != nil {
			return err
		}
		b.listeners = append(b.listeners, l)
	}
	return nil
}

// count is how many sockets share the address: with reuseport one for each
// worker that nginx would have, so that none is left over when it takes them.
func (s *socket) count(m *mainConf) int {
	if s.options.reuseport {
		return min(max(m.WorkerProcesses, 1), maxSockets)
	}
	return 1
}

// maxSockets is how many workers nginx can have.
const maxSockets = 1024

// listen opens one socket.
func (b *boundSocket) listen(s *socket, at netip.AddrPort) (net.Listener, error) {
	if s.network == "unix" {
		return b.listenUnix(s)
	}
	var set error
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { set = s.setOptions(int(fd)) })
	}}
	lc.SetMultipathTCP(s.options.multipath)
	l, err := s.open(&lc, at)
	if set != nil {
		if err == nil {
			_ = l.Close()
		}
		return nil, b.notSet(set)
	}
	if err != nil {
		return nil, b.failed(err, s)
	}
	if s.options.udp {
		return l, nil
	}
	if err := setBacklog(l, s.backlog()); err != nil {
		_ = l.Close()
		return nil, b.failed(os.NewSyscallError("listen", err), s)
	}
	return l, nil
}

// open opens the socket.
func (s *socket) open(lc *net.ListenConfig, at netip.AddrPort) (net.Listener, error) {
	if !s.options.udp {
		return lc.Listen(context.Background(), s.network, at.String())
	}
	p, err := lc.ListenPacket(context.Background(), s.network, at.String())
	if err != nil {
		return nil, err
	}
	return datagramListener(p)
}

func datagramListener(p net.PacketConn) (net.Listener, error) {
	conn, ok := p.(*net.UDPConn)
	if !ok {
		_ = p.Close()
		return nil, os.NewSyscallError("socket", syscall.EPROTOTYPE)
	}
	l, err := sock.NewDatagramListener(conn)
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	return l, nil
}

// listenUnix opens a unix socket that everybody may connect to. As in nginx a
// file that is left over keeps it from being bound.
func (b *boundSocket) listenUnix(s *socket) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		return nil, b.failed(err, s)
	}
	l.SetUnlinkOnClose(false)
	_ = os.Chmod(s.path, 0o666)
	return l, nil
}

// notSet words an error of an option as nginx does.
func (b *boundSocket) notSet(err error) error {
	return &callError{fmt.Sprintf("setsockopt() %s failed", b.address), err}
}

// failed words an error as nginx does.
func (b *boundSocket) failed(err error, s *socket) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		switch call.Syscall {
		case "listen":
			return &callError{fmt.Sprintf("listen() to %s, backlog %d failed", b.address, s.backlog()), err}
		case "socket":
			return &callError{fmt.Sprintf("socket() %s failed", b.address), err}
		}
	}
	if errnoOf(err) == 0 { // a path that is too long
		return fmt.Errorf("bind() to %s failed: %w", b.address, err)
	}
	text := fmt.Sprintf("bind() to %s failed", b.address)
	if errnoOf(err) == unix.EADDRINUSE {
		return &InUse{b.at, errorWithCode(text, err).Error()}
	}
	return &callError{text, err}
}

// defaultBacklog is nginx's on Linux.
const defaultBacklog = 511

func (s *socket) backlog() int {
	if s.options.backlog >= 0 {
		return s.options.backlog
	}
	return defaultBacklog
}

// setOptions applies the parameters of listen before the socket is bound.
func (s *socket) setOptions(fd int) error {
	o := &s.options
	type option struct {
		on                 bool
		level, name, value int
	}
	number := func(on bool) int {
		if on {
			return 1
		}
		return 0
	}
	for _, p := range []option{
		{o.reuseport, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{strings.HasSuffix(s.network, "6"), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, number(o.ipv6only)},
		{o.rcvbuf > 0, unix.SOL_SOCKET, unix.SO_RCVBUF, o.rcvbuf},
		{o.sndbuf > 0, unix.SOL_SOCKET, unix.SO_SNDBUF, o.sndbuf},
		{o.fastopen >= 0, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.fastopen},
		{o.deferred, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
		// Accepted sockets begin with what the listening one has.
		{o.keepalive.set, unix.SOL_SOCKET, unix.SO_KEEPALIVE, number(o.keepalive.on)},
		{o.keepalive.idle > 0, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, o.keepalive.idle},
		{o.keepalive.interval > 0, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, o.keepalive.interval},
		{o.keepalive.probes > 0, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.keepalive.probes},
	} {
		if !p.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, p.level, p.name, p.value); err != nil {
			return err
		}
	}
	return nil
}

func setBacklog(l net.Listener, n int) error {
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Listen(int(fd), n) }); err != nil {
		return err
	}
	return failed
}

// config says so_keepalive in the net package's terms; what is not said stays
// the system's.
func (k keepaliveOption) config() net.KeepAliveConfig {
	seconds := func(n int) time.Duration {
		if n == 0 {
			return -1
		}
		return time.Duration(n) * time.Second
	}
	c := net.KeepAliveConfig{Enable: true, Idle: seconds(k.idle), Interval: seconds(k.interval), Count: -1}
	if k.probes > 0 {
		c.Count = k.probes
	}
	return c
}

// renew applies the parameters of a new generation to a socket that stays.
func (b *boundSocket) renew(s *socket, m *mainConf, log *errorLog) {
	for _, l := range b.listeners {
		var err error
		if d, ok := l.(*sock.DatagramListener); ok {
			d.Renew()
		} else {
			err = setBacklog(l, s.backlog())
		}
		if err == nil && s.network != "unix" {
			err = s.setAgain(l)
		}
		if err != nil {
			log.logf(logAlert, "%v", errorWithCode(fmt.Sprintf("listen() to %s, backlog %d failed, ignored", b.address, s.backlog()), err))
		}
	}
	if err := b.grow(s, m); err != nil {
		log.logf(logAlert, "%v, ignored", err)
	}
}

// setAgain sets the options that a bound socket can still take.
func (s *socket) setAgain(l net.Listener) error {
	bound := *s
	bound.network = "" // whether IPv6 includes IPv4 is decided when binding
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = bound.setOptions(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// serve accepts connections until the socket is paused or closed.
func (b *boundSocket) serve(r *Runtime) {
	for _, l := range b.listeners[b.served:] {
		b.accepting.Go(func() { b.accept(r, l) })
	}
	b.served = len(b.listeners)
	for _, q := range b.quics {
		if q.listener != nil {
			continue
		}
		if err := q.start(r, b); err != nil {
			r.Logf(logAlert, "listening for QUIC on %s failed: %v", b.address, err)
			continue
		}
		l := q.listener
		b.accepting.Go(func() { b.acceptQUIC(q, l) })
	}
}

// fileShortage is how long accepting rests when there are no descriptors left.
const fileShortage = 500 * time.Millisecond

func (b *boundSocket) accept(r *Runtime, l net.Listener) {
	for {
		nc, err := l.Accept()
		if err == nil {
			go r.handle(b, nc)
			runtime.Gosched() // first come, first served: of several new goroutines the last runs first
			continue
		}
		if b.closed.Load() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		level, pause := logAlert, 10*time.Millisecond
		switch errnoOf(err) {
		case unix.ECONNABORTED:
			level, pause = logError, 0
		case unix.EMFILE, unix.ENFILE:
			level, pause = logCrit, fileShortage
		default:
		}
		r.Logf(level, "%v", errorWithCode("accept4() failed", err))
		time.Sleep(pause)
	}
}

// pause ends accepting; new connections wait in the socket's queue.
func (b *boundSocket) pause() {
	b.setDeadline(time.Unix(1, 0))
	for _, q := range b.quics {
		q.pause()
	}
	b.accepting.Wait()
	b.setDeadline(time.Time{})
	b.served = 0
}

func (b *boundSocket) setDeadline(t time.Time) {
	for _, l := range b.listeners {
		if d, ok := l.(interface{ SetDeadline(t time.Time) error }); ok {
			_ = d.SetDeadline(t)
		}
	}
}

// close ends the socket.
func (b *boundSocket) close() {
	b.closed.Store(true)
	for _, l := range b.listeners {
		_ = l.Close()
	}
	for _, q := range b.quics {
		q.finish()
	}
}

// remove removes the file of a unix socket that has been closed.
func (b *boundSocket) remove() {
	if b.path != "" && len(b.listeners) > 0 && !b.lasts {
		_ = os.Remove(b.path)
	}
}

// setPriority gives every thread a priority; further ones inherit it.
func setPriority(n int, log *errorLog) {
	threads, err := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		tid, bad := strconv.Atoi(t.Name())
		if bad != nil {
			continue
		}
		if e := unix.Setpriority(unix.PRIO_PROCESS, tid, n); e != nil && !errors.Is(e, unix.ESRCH) {
			err = e
		}
	}
	if err != nil {
		log.logf(logAlert, "%v", errorWithCode(fmt.Sprintf("setpriority(%d) failed", n), err))
	}
}
