package proxy

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Addresses of upstream servers, as server and the pass directives take them.

// upstreamURL is an address taken apart (ngx_parse_url in src/core/ngx_inet.c).
type upstreamURL struct {
	text     string // all of it
	host     string // as written; IPv6 addresses in brackets; the path of a unix socket
	port     uint16 // given or default
	portText string
	noPort   bool
	uri      string // the rest, from "/" or "?" on
	unix     bool
	addr     netip.Addr // when host is an address
}

// parseUpstreamURL reads "host[:port][uri]", "[ipv6][:port][uri]" or
// "unix:path[:uri]". problem is nginx's word for what is wrong.
func parseUpstreamURL(text string, defaultPort uint16, uriPart bool) (u upstreamURL, problem string) {
	u.text = text
	switch {
	case len(text) >= 5 && strings.EqualFold(text[:5], "unix:"):
		return u.parseUnix(text[5:], uriPart)
	case strings.HasPrefix(text, "["):
		return u.parseIPv6(text, defaultPort, uriPart)
	}
	return u.parseInet(text, defaultPort, uriPart)
}

// maxUnixPath is the longest path that fits into a socket address.
const maxUnixPath = 107

func (u upstreamURL) parseUnix(path string, uriPart bool) (upstreamURL, string) {
	if uriPart {
		path, u.uri, _ = strings.Cut(path, ":")
	}
	if path == "" {
		return u, "no path in the unix domain socket"
	}
	if len(path) > maxUnixPath {
		return u, "too long path in the unix domain socket"
	}
	u.unix, u.host, u.noPort = true, path, false
	return u, ""
}

func (u upstreamURL) parseIPv6(text string, defaultPort uint16, uriPart bool) (upstreamURL, string) {
	end := strings.IndexByte(text, ']')
	if end < 0 {
		return u, "invalid host"
	}
	host, rest := text[:end+1], text[end+1:]
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		if !uriPart {
			return u, "invalid host"
		}
		rest, u.uri = rest[:i], rest[i:]
	}
	if rest != "" && rest[0] != ':' {
		return u, "invalid host"
	}
	if problem := u.setPort(rest, defaultPort); problem != "" {
		return u, problem
	}
	if len(host) == 2 {
		return u, "no host"
	}
	a, err := netip.ParseAddr(host[1:end])
	if err != nil || !a.Is6() || a.Zone() != "" {
		return u, "invalid IPv6 address"
	}
	u.host, u.addr = host, a
	return u, ""
}

func (u upstreamURL) parseInet(text string, defaultPort uint16, uriPart bool) (upstreamURL, string) {
	host := text
	if i := strings.IndexAny(text, "/?"); i >= 0 {
		if !uriPart {
			return u, "invalid host"
		}
		host, u.uri = text[:i], text[i:]
	}
	rest := ""
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host, rest = host[:i], host[i:]
	}
	if problem := u.setPort(rest, defaultPort); problem != "" {
		return u, problem
	}
	if host == "" {
		return u, "no host"
	}
	u.host = host
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		u.addr = a
	}
	return u, ""
}

// setPort takes ":port" or nothing.
func (u *upstreamURL) setPort(text string, defaultPort uint16) string {
	if text == "" {
		u.noPort, u.port = true, defaultPort
		return ""
	}
	n, ok := digits(text[1:])
	if !ok || n < 1 || n > 65535 {
		return "invalid port"
	}
	u.port, u.portText = uint16(n), text[1:]
	return ""
}

// peerAddress is one address that a name stands for.
type peerAddress struct {
	name    string // as in logs
	network string
	address string
}

// resolve gives the addresses of u, IPv4 before IPv6 as nginx orders them. It
// asks the system's resolver for names, unless it is to work offline: the name
// is the address then.
func (u *upstreamURL) resolve(offline bool) []peerAddress {
	if u.unix {
		return []peerAddress{{"unix:" + u.host, "unix", u.host}}
	}
	if u.addr.IsValid() {
		return []peerAddress{inetAddress(u.addr, u.port)}
	}
	if offline {
		name := u.host + ":" + strconv.Itoa(int(u.port))
		return []peerAddress{{name, "tcp", name}}
	}
	ips, err := net.LookupIP(u.host)
	if err != nil {
		return nil
	}
	var four, six []peerAddress
	for _, ip := range ips {
		a, ok := netip.AddrFromSlice(ip)
		switch a = a.Unmap(); {
		case !ok:
		case a.Is4():
			four = append(four, inetAddress(a, u.port))
		default:
			six = append(six, inetAddress(a, u.port))
		}
	}
	return append(four, six...)
}

func inetAddress(a netip.Addr, port uint16) peerAddress {
	text := netip.AddrPortFrom(a, port).String()
	return peerAddress{text, "tcp", text}
}
