package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"proxyctl/proxy"
)

// localMode lets a site be tried on a machine that is not its own: ports that
// only root may bind move up, redirects follow them, missing Certbot files are
// replaced, and a demo app answers where nothing listens.
type localMode struct {
	out   io.Writer
	mu    sync.RWMutex // a reload moves ports while requests look them up
	ports map[uint16]uint16
	demo  demoApp
}

func newLocalMode(out io.Writer) *localMode {
	return &localMode{out: out, ports: map[uint16]uint16{}}
}

// apply puts the changes of addresses into the server's options.
func (m *localMode) apply(o *proxy.Options) {
	o.Address = m.address
	o.PublicPort = m.public
	o.Location = m.location
}

// address moves a privileged port: 80 to 8080, 443 to 8443, others to a free
// one.
func (m *localMode) address(a netip.AddrPort) netip.AddrPort {
	port := a.Port()
	if port >= 1024 {
		return a
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	to, known := m.ports[port]
	if !known {
		switch port {
		case 80:
			to = 8080
		case 443:
			to = 8443
		default:
			to = freePort()
		}
		m.ports[port] = to
	}
	return netip.AddrPortFrom(a.Addr(), to)
}

func (m *localMode) public(port uint16) uint16 {
	if to, moved := m.moved(port); moved {
		return to
	}
	return port
}

func (m *localMode) moved(port uint16) (to uint16, moved bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	to, moved = m.ports[port]
	return to, moved
}

func freePort() uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// location puts the moved port into a redirect to the standard one.
func (m *localMode) location(value []byte) []byte {
	rest, https := bytes.CutPrefix(value, []byte("https://"))
	http := false
	if !https {
		rest, http = bytes.CutPrefix(value, []byte("http://"))
	}
	if !https && !http {
		return value
	}
	end := bytes.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	if i := bytes.LastIndexByte(host, ':'); i > bytes.LastIndexByte(host, ']') {
		return value // names its port itself
	}
	standard, scheme := uint16(80), "http://"
	if https {
		standard, scheme = 443, "https://"
	}
	port, moved := m.moved(standard)
	if !moved {
		return value
	}
	return fmt.Appendf(nil, "%s%s:%d%s", scheme, host, port, rest[end:])
}

// announce starts the demo app and prints what to try.
func (m *localMode) announce(table *proxy.Table, root string) {
	for _, a := range table.UpstreamAddresses() {
		if m.demo.answerFor(a) {
			fmt.Fprintf(m.out, "nothing listens on %s: a demo app answers there\n", a)
		}
	}
	fmt.Fprintln(m.out, "\nServing. Try:")
	for _, s := range table.Sites() {
		m.announceSite(s, root)
	}
	fmt.Fprintln(m.out, "\nCtrl-C ends.")
}

func (m *localMode) announceSite(s proxy.SiteInfo, root string) {
	i := slices.IndexFunc(s.Names, func(n string) bool { return n != "" && !strings.ContainsAny(n, "*~$") && n[0] != '.' })
	name := "localhost"
	if i >= 0 && s.Names[i] != "_" {
		name = s.Names[i]
	}
	for _, l := range s.Listen {
		if l.Address.Addr().Is6() && len(s.Listen) > 1 {
			continue // the IPv4 line says it
		}
		scheme, standard, trust := "http", uint16(80), ""
		if l.TLS {
			scheme, standard = "https", 443
			if root != "" {
				trust = " --cacert " + root
			}
		}
		port := m.public(l.Address.Port())
		host, resolve := name, ""
		if name != "localhost" {
			resolve = fmt.Sprintf(" --resolve %s:%d:127.0.0.1", name, port)
		}
		if port != standard {
			host = fmt.Sprintf("%s:%d", name, port)
		}
		fmt.Fprintf(m.out, "  curl -i%s%s %s://%s/\n", trust, resolve, scheme, host)
	}
}
