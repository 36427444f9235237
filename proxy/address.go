package proxy

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// Addresses as nginx reads and writes them (ngx_inet.c).

// parseCIDR reads an address or address/bits; exact is false when bits beyond
// the mask are set, which are dropped (ngx_ptocidr).
func parseCIDR(s string) (p netip.Prefix, exact, ok bool) {
	text, mask, masked := strings.Cut(s, "/")
	addr, ok := parseIP([]byte(text))
	if !ok || text == "255.255.255.255" { // nginx's reader of addresses says with it that there is none
		return p, false, false
	}
	bits := addr.BitLen()
	if masked {
		if bits, ok = parseNumber(mask); !ok || bits > addr.BitLen() {
			return p, false, false
		}
	}
	p = netip.PrefixFrom(addr, bits).Masked()
	return p, p.Addr() == addr, true
}

// parseIP reads an IPv4 or IPv6 address without zone. It allocates for IPv6
// only.
func parseIP(s []byte) (netip.Addr, bool) {
	if a, ok := parseIPv4(s); ok {
		return a, true
	}
	if bytes.Count(s, []byte(":")) < 2 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(s))
	if err != nil || !a.Is6() || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, true
}

// parseIPv4 reads four decimal numbers; leading zeros are no octal numbers, as
// in ngx_inet_addr.
func parseIPv4(s []byte) (netip.Addr, bool) {
	var octets [4]byte
	n, value, digits := 0, 0, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if digits == 0 || n == len(octets) {
				return netip.Addr{}, false
			}
			octets[n] = byte(value)
			n, value, digits = n+1, 0, 0
			continue
		}
		c := s[i] - '0'
		if c > 9 {
			return netip.Addr{}, false
		}
		if value = value*10 + int(c); value > 255 {
			return netip.Addr{}, false
		}
		digits++
	}
	return netip.AddrFrom4(octets), n == len(octets)
}

// parseAddrPort reads an address with or without port, IPv6 in brackets or bare
// (ngx_parse_addr_port).
func parseAddrPort(s []byte) (netip.AddrPort, bool) {
	none := netip.AddrPort{}
	if len(s) == 0 || len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535") {
		return none, false
	}
	if s[0] != '[' {
		if a, ok := parseIP(s); ok {
			return netip.AddrPortFrom(a, 0), true
		}
	}
	end := bytes.IndexByte(s, ':')
	host := s[:max(end, 0)]
	if s[0] == '[' {
		if end = bytes.IndexByte(s, ']'); end < 0 {
			return none, false
		}
		host = s[1:end]
		if end++; end == len(s) {
			a, ok := parseIP(host)
			return netip.AddrPortFrom(a, 0), ok
		}
	}
	if end < 0 || s[end] != ':' {
		return none, false
	}
	port, ok := parsePort(s[end:])
	if !ok || port == 0 {
		return none, false
	}
	a, ok := parseIP(host)
	return netip.AddrPortFrom(a, port), ok
}

// appendPort appends a port; nothing for none.
func appendPort(dst []byte, port uint16) []byte {
	if port == 0 {
		return dst
	}
	return strconv.AppendUint(dst, uint64(port), 10)
}
