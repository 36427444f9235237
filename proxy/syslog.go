package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/parser"
)

// Logging to syslog by RFC 3164 datagrams (src/core/ngx_syslog.c).

// syslogPeer is one "syslog:" parameter. Safe for concurrent use.
type syslogPeer struct {
	server     string // as written
	address    netip.AddrPort
	path       string // of a unix socket, instead of address
	facility   int
	severity   int
	tag        string
	hostname   string
	noHostname bool

	mu  sync.Mutex
	fd  int // -1: not connected
	buf []byte
}

func facilities() []string {
	return []string{
		"kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp",
		"ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
}

// syslogPeer reads "syslog:server=address[,parameter=value]".
func (c *compiler) syslogPeer(a parser.Arg) (*syslogPeer, error) {
	p := &syslogPeer{facility: -1, severity: -1, fd: -1, hostname: hostname()}
	tagged := false
	for parameter := range strings.SplitSeq(a.Value[len("syslog:"):], ",") {
		name, value, _ := strings.Cut(parameter, "=")
		var err error
		switch {
		case name == "server" && parameter != name:
			err = p.setServer(c, a, value)
		case name == "facility" && parameter != name:
			err = setSyslogWord(a, name, value, facilities(), &p.facility)
		case name == "severity" && parameter != name:
			err = setSyslogWord(a, name, value, severities(), &p.severity)
		case name == "tag" && parameter != name:
			if tagged {
				return nil, sayAt(a, "", "", "duplicate syslog \"tag\"")
			}
			tagged = true
			p.tag, err = value, checkSyslogTag(a, value)
		case parameter == "nohostname":
			p.noHostname = true
		default:
			err = sayAt(a, "", "server=, facility=, severity=, tag= or nohostname", "unknown syslog parameter \"%s\"", parameter)
		}
		if err != nil {
			return nil, err
		}
	}
	if p.server == "" {
		return nil, sayAt(a, "", "syslog:server=address", "no syslog server specified")
	}
	if p.facility < 0 {
		p.facility = 23
	}
	if p.severity < 0 {
		p.severity = 6
	}
	if !tagged {
		p.tag = "nginx"
	}
	c.table.onClose(p.close)
	return p, nil
}

func severities() []string {
	return []string{"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"}
}

func setSyslogWord(a parser.Arg, name, value string, words []string, into *int) error {
	if *into >= 0 {
		return sayAt(a, "", "", "duplicate syslog \"%s\"", name)
	}
	if *into = slices.Index(words, value); *into < 0 {
		return sayAt(a, "", "one of "+strings.Join(words, ", "), "unknown syslog %s \"%s\"", name, value)
	}
	return nil
}

func checkSyslogTag(a parser.Arg, tag string) error {
	if len(tag) > 32 {
		return sayAt(a, "", "", "syslog tag length exceeds 32")
	}
	for _, b := range []byte(tag) {
		if !isNameByte(b) {
			return sayAt(a, "", "", "syslog \"tag\" only allows alphanumeric characters and underscore")
		}
	}
	return nil
}

// setServer reads host[:port] or unix:path.
func (p *syslogPeer) setServer(c *compiler, a parser.Arg, text string) error {
	if p.server != "" {
		return sayAt(a, "", "", "duplicate syslog \"server\"")
	}
	bad := func(what string) error {
		return sayAt(a, "", "an address with or without a port, or unix:/path", "%s in syslog server \"%s\"", what, text)
	}
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return bad("no path in the unix domain socket")
		}
		p.server, p.path = text, path
		return nil
	}
	host, port, err := splitHost(text)
	if err != "" {
		return bad(err)
	}
	if port == 0 {
		port = 514
	}
	addr, failed := netip.ParseAddr(host)
	if failed != nil {
		if c.opts.Offline {
			addr = netip.IPv6LinkLocalAllNodes() // never used: nothing is served
		} else if addr, failed = firstAddress(host); failed != nil {
			return bad("host not found")
		}
	}
	p.server, p.address = text, netip.AddrPortFrom(addr, port)
	return nil
}

// splitHost takes host[:port] or [v6][:port] apart; port 0 is none. problem is
// what nginx says of it.
func splitHost(text string) (host string, port uint16, problem string) {
	var after string
	var hasPort bool
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return "", 0, "invalid host"
		}
		host = text[1:end]
		if after = text[end+1:]; after != "" {
			if after[0] != ':' {
				return "", 0, "invalid port"
			}
			after, hasPort = after[1:], true
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return "", 0, "invalid IPv6 address"
		}
	} else {
		host, after, hasPort = strings.Cut(text, ":")
	}
	if hasPort {
		n, ok := digits(after)
		if !ok || n < 1 || n > 65535 {
			return "", 0, "invalid port"
		}
		port = uint16(n)
	}
	if host == "" {
		return "", 0, "no host"
	}
	return host, port, ""
}

// sendError sends a line of the error log with its own severity.
func (p *syslogPeer) sendError(text []byte, level logLevel, times *logTimes) {
	_ = p.send(text, int(level-logEmerg), times)
}

// sendAccess sends a line of an access log.
func (p *syslogPeer) sendAccess(text []byte, times *logTimes) error {
	return p.send(text, p.severity, times)
}

var errSyslogBusy = errors.New("syslog socket is not ready")

// send sends one datagram without waiting. A socket that fails is connected
// anew by the next message.
func (p *syslogPeer) send(text []byte, severity int, times *logTimes) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		if err := p.connect(); err != nil {
			return err
		}
	}
	b := append(p.buf[:0], '<')
	b = strconv.AppendInt(b, int64(p.facility*8+severity), 10)
	b = append(append(append(b, '>'), times.syslog...), ' ')
	if !p.noHostname {
		b = append(append(b, p.hostname...), ' ')
	}
	b = append(append(b, p.tag...), ": "...)
	b = append(b, text...)
	p.buf = b
	err := unix.Send(p.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if cap(p.buf) > maxKept {
		p.buf = nil
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		return errSyslogBusy
	}
	p.disconnect()
	return err
}

func (p *syslogPeer) connect() error {
	family, to := unix.AF_UNIX, unix.Sockaddr(&unix.SockaddrUnix{Name: p.path})
	if p.path == "" {
		family, to = sockaddr(p.address)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return err
	}
	p.fd = fd
	return nil
}

func (p *syslogPeer) disconnect() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

func (p *syslogPeer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnect()
}

// firstAddress resolves a name while the configuration is read.
func firstAddress(host string) (netip.Addr, error) {
	ips, err := net.LookupIP(host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok {
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, errNoAddress
}

var errNoAddress = errors.New("no address")

// sockaddr gives an address to system calls.
func sockaddr(a netip.AddrPort) (family int, to unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// retryAfter is how long a failed write to a log is not complained about again.
const retryAfter = time.Minute
