package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// The PROXY protocol, versions 1 and 2, as balancers speak it to us: a header
// that comes before everything else on a connection, TLS included, and says
// whose connection it is (src/core/ngx_proxy_protocol.c; the specification is
// doc/proxy-protocol.txt of HAProxy).

// forwarded is what a header says. A connection that its sender does not know
// anything about, or opened for itself, has none.
type forwarded struct {
	from, to netip.AddrPort
	tlvs     []byte // of version 2: type, length, value
}

// The sizes of headers.
const (
	maxProxyLine   = 107     // version 1
	maxProxyHeader = 4 << 10 // version 2, as by nginx
	proxyPreamble  = 16      // of version 2: what every header begins with
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyWord      = "PROXY "
)

// errMoreHeader says that a header is not complete yet.
var errMoreHeader = errors.New("incomplete header")

// parseProxyHeader reads the header at the start of b and returns its length.
func parseProxyHeader(b []byte) (f *forwarded, size int, err error) {
	switch {
	case startsAlike(b, proxyWord):
		return parseProxyLine(b)
	case startsAlike(b, proxySignature):
		return parseProxyBinary(b)
	}
	return nil, 0, brokenHeader(b)
}

// startsAlike says whether b begins with s, or s with b.
func startsAlike(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

// namesFamily says whether the start of a line can become one of a family that
// there is.
func namesFamily(b []byte) bool {
	rest := b[min(len(b), len(proxyWord)):]
	return startsAlike(rest, "TCP4 ") || startsAlike(rest, "TCP6 ") || startsAlike(rest, "UNKNOWN")
}

func brokenHeader(b []byte) error {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		b = b[:i]
	}
	return fmt.Errorf("broken header: %q", b[:min(len(b), maxProxyLine)])
}

// parseProxyLine reads version 1, one line of text. Unlike nginx, which takes
// any text in the place of an address, it takes addresses of the family that is
// named.
func parseProxyLine(b []byte) (*forwarded, int, error) {
	end := bytes.Index(b[:min(len(b), maxProxyLine)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxProxyLine || bytes.IndexByte(b, '\n') >= 0 || !namesFamily(b) {
			return nil, 0, brokenHeader(b)
		}
		return nil, 0, errMoreHeader
	}
	size := end + len("\r\n")
	words := strings.Split(string(b[len(proxyWord):end]), " ")
	if words[0] == "UNKNOWN" {
		return nil, size, nil
	}
	if len(words) != 5 || words[0] != "TCP4" && words[0] != "TCP6" {
		return nil, 0, brokenHeader(b)
	}
	f := &forwarded{}
	var ok, okTo bool
	f.from, ok = proxyAddress(words[0], words[1], words[3])
	f.to, okTo = proxyAddress(words[0], words[2], words[4])
	if !ok || !okTo {
		return nil, 0, brokenHeader(b)
	}
	return f, size, nil
}

func proxyAddress(family, host, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(host)
	n, ok := digits(port)
	if err != nil || a.Zone() != "" || !ok || n > 65535 || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(n)), true
}

// parseProxyBinary reads version 2. Families and transports other than TCP over
// IPv4 and IPv6 say nothing about the client.
func parseProxyBinary(b []byte) (*forwarded, int, error) {
	if len(b) < proxyPreamble {
		return nil, 0, errMoreHeader
	}
	version, command := b[12]>>4, b[12]&0xf
	family, transport := b[13]>>4, b[13]&0xf
	size := proxyPreamble + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case version != 2:
		return nil, 0, fmt.Errorf("unknown PROXY protocol version: %d", version)
	case command > 1: // Unlike nginx, which passes over it.
		return nil, 0, fmt.Errorf("unknown PROXY protocol command: %d", command)
	case size > maxProxyHeader:
		return nil, 0, errors.New("header is too large")
	case len(b) < size:
		return nil, 0, errMoreHeader
	case command == 0 || transport != 1 || family != 1 && family != 2:
		return nil, size, nil
	}
	rest := b[proxyPreamble:size]
	n := 4
	if family == 2 {
		n = 16
	}
	if len(rest) < 2*n+4 {
		return nil, 0, errors.New("PROXY protocol header is too short for its addresses")
	}
	from, _ := netip.AddrFromSlice(rest[:n])
	to, _ := netip.AddrFromSlice(rest[n : 2*n])
	ports := rest[2*n:]
	f := &forwarded{
		from: netip.AddrPortFrom(from, binary.BigEndian.Uint16(ports)),
		to:   netip.AddrPortFrom(to, binary.BigEndian.Uint16(ports[2:])),
	}
	if tlvs := ports[4:]; len(tlvs) > 0 {
		f.tlvs = bytes.Clone(tlvs)
		if !checksumHolds(b[:size], size-len(tlvs)) {
			return nil, 0, errors.New("PROXY protocol header has a wrong checksum")
		}
	}
	return f, size, nil
}

// The types of TLVs.
const (
	tlvALPN      = 0x01
	tlvAuthority = 0x02
	tlvCRC32C    = 0x03
	tlvUniqueID  = 0x05
	tlvSSL       = 0x20
	tlvNetNS     = 0x30
)

// checksumHolds checks the checksum of a header, if it has one. Unlike nginx,
// which does not look at it.
func checksumHolds(header []byte, tlvs int) bool {
	value, ok, _ := findTLV(header[tlvs:], tlvCRC32C)
	if !ok {
		return true
	}
	if len(value) != crc32.Size {
		return false
	}
	want := binary.BigEndian.Uint32(value)
	at := cap(header) - cap(value) // where value lies in header
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, header[:at])
	sum = crc32.Update(sum, table, make([]byte, crc32.Size))
	return crc32.Update(sum, table, header[at+crc32.Size:]) == want
}

var errBrokenTLV = errors.New("broken PROXY protocol TLV")

// findTLV returns the first value of a type.
func findTLV(b []byte, kind byte) (value []byte, ok bool, err error) {
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, false, errBrokenTLV
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b)-3 < n {
			return nil, false, errBrokenTLV
		}
		if b[0] == kind {
			return b[3 : 3+n], true, nil
		}
		b = b[3+n:]
	}
	return nil, false, nil
}

// tlv returns the value of a TLV by its name or, as "0x05", by its type; those
// of TLS begin with "ssl_" (ngx_proxy_protocol_get_tlv).
func (f *forwarded) tlv(name string) (value []byte, ok bool, err error) {
	tlvs, known := f.tlvs, []tlvName{
		{"alpn", tlvALPN},
		{"authority", tlvAuthority},
		{"unique_id", tlvUniqueID},
		{"ssl", tlvSSL},
		{"netns", tlvNetNS},
	}
	short, inside := strings.CutPrefix(name, "ssl_")
	if inside {
		tls, ok, err := findTLV(tlvs, tlvSSL)
		if !ok || len(tls) < 5 {
			return nil, false, err
		}
		if short == "verify" {
			return strconv.AppendUint(nil, uint64(binary.BigEndian.Uint32(tls[1:])), 10), true, nil
		}
		tlvs, known = tls[5:], []tlvName{{"version", 0x21}, {"cn", 0x22}, {"cipher", 0x23}, {"sig_alg", 0x24}, {"key_alg", 0x25}}
	}
	if hex, ok := strings.CutPrefix(short, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			return nil, false, fmt.Errorf("invalid PROXY protocol TLV %q", name)
		}
		if n > 0xff {
			return nil, false, nil
		}
		return findTLV(tlvs, byte(n))
	}
	for _, k := range known {
		if k.name == short {
			return findTLV(tlvs, k.kind)
		}
	}
	return nil, false, fmt.Errorf("unknown PROXY protocol TLV %q", name)
}

type tlvName struct {
	name string
	kind byte
}

// readingProxyProtocol is what a connection does before everything else.
const readingProxyProtocol = "reading PROXY protocol"

// readForwarded reads the header at the start of a connection and nothing
// beyond it. Anything but OK says that the connection is to be closed, and is the
// status of a session. Unlike nginx, which wants it
// in one piece, it waits for all of it, as long as for the head of a request.
func (c *client) readForwarded(s *sock.Conn) Code {
	limit := c.endpoint.fallback.Level.Conf.Core.HeaderTimeout
	s.SetTimeout(limit)
	s.ReadUntil(limit)
	defer s.ReadUntil(0)
	buf, n := make([]byte, maxProxyHeader), 0
	for {
		m, err := s.Peek(buf[n:])
		if err != nil {
			c.endedEarly(s, readingProxyProtocol, err)
			return sessionOK
		}
		f, size, err := parseProxyHeader(buf[:n+m])
		switch {
		case err == nil:
			m = size - n
		case !errors.Is(err, errMoreHeader):
			c.logf(logError, readingProxyProtocol, "%v", err)
			return sessionRefused
		}
		if _, err := io.ReadFull(s, buf[n:n+m]); err != nil {
			return sessionFailed
		}
		if n += m; err == nil {
			c.forwarded = f
			return OK
		}
	}
}

// endedEarly logs a connection that ended before its first byte.
func (c *client) endedEarly(s *sock.Conn, action string, err error) {
	switch {
	case s.Aborted():
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.logf(logInfo, action, "client timed out (110: Connection timed out)")
	case errors.Is(err, io.EOF):
		c.logf(logInfo, action, "client closed connection")
	default:
		c.logf(logInfo, action, "%v", errorWithCode("recv() failed", err))
	}
}

// appendProxyLine appends a header of version 1.
func appendProxyLine(dst []byte, from, to netip.AddrPort) []byte {
	switch {
	case !from.IsValid() || !to.IsValid():
		return append(dst, "PROXY UNKNOWN\r\n"...)
	case from.Addr().Is4():
		dst = append(dst, "PROXY TCP4 "...)
	default:
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = append(from.Addr().AppendTo(dst), ' ')
	dst = append(to.Addr().AppendTo(dst), ' ')
	dst = append(strconv.AppendUint(dst, uint64(from.Port()), 10), ' ')
	dst = strconv.AppendUint(dst, uint64(to.Port()), 10)
	return append(dst, "\r\n"...)
}

// appendProxyBinary appends a header of version 2, with a checksum.
func appendProxyBinary(dst []byte, from, to netip.AddrPort, datagrams bool) []byte {
	start := len(dst)
	command, kind := byte(0x21), byte(1)
	if datagrams {
		kind = 2
	}
	known := from.IsValid() && to.IsValid()
	switch {
	case !known: // as of a connection of this server's own
		command, kind = 0x20, 0
	case from.Addr().Is4() && to.Addr().Is4():
		kind |= 1 << 4
	default:
		kind |= 2 << 4
	}
	dst = append(append(dst, proxySignature...), command, kind, 0, 0)
	if known {
		for _, a := range []netip.Addr{from.Addr(), to.Addr()} {
			if kind>>4 == 1 {
				dst = append(dst, a.AsSlice()...)
				continue
			}
			long := a.As16()
			dst = append(dst, long[:]...)
		}
		dst = binary.BigEndian.AppendUint16(dst, from.Port())
		dst = binary.BigEndian.AppendUint16(dst, to.Port())
	}
	dst = append(dst, tlvCRC32C, 0, crc32.Size, 0, 0, 0, 0)
	header := dst[start:]
	binary.BigEndian.PutUint16(header[14:], uint16(len(header)-proxyPreamble))
	sum := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(header[len(header)-crc32.Size:], sum)
	return dst
}

// proxyProtocolVariables are those of the header.
func proxyProtocolVariables() []Variable {
	address := func(name string, of func(f *forwarded) netip.AddrPort) []Variable {
		return []Variable{
			readOnly(name+"addr", func(dst []byte, x *Exchange) ([]byte, bool) {
				if x.client.forwarded == nil {
					return dst, false
				}
				return of(x.client.forwarded).Addr().AppendTo(dst), true
			}),
			readOnly(name+"port", func(dst []byte, x *Exchange) ([]byte, bool) {
				if x.client.forwarded == nil {
					return dst, false
				}
				return http1.AppendInt(dst, int64(of(x.client.forwarded).Port())), true
			}),
		}
	}
	vars := address("proxy_protocol_", func(f *forwarded) netip.AddrPort { return f.from })
	vars = append(vars, address("proxy_protocol_server_", func(f *forwarded) netip.AddrPort { return f.to })...)
	return append(vars, Variable{Name: "proxy_protocol_tlv_", Prefix: true, Get: func(dst []byte, x *Exchange, name string) ([]byte, bool) {
		if x.client.forwarded == nil {
			return dst, false
		}
		value, ok, err := x.client.forwarded.tlv(name)
		if err != nil {
			x.Logf(logError, "%v", err)
		}
		return append(dst, value...), ok
	}})
}
