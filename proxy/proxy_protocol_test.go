package proxy

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// binaryHeader makes a header of version 2.
func binaryHeader(command, family byte, body string) string {
	h := proxySignature + string([]byte{0x20 | command, family})
	return string(binary.BigEndian.AppendUint16([]byte(h), uint16(len(body)))) + body
}

func tlvOf(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	four = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x7b\x16\x2e"
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x7b\x16\x2e"
)

func TestProxyHeader(t *testing.T) {
	checked := binaryHeader(1, 0x11, four+tlvOf(tlvUniqueID, "id")+tlvOf(tlvCRC32C, "\x00\x00\x00\x00"))
	sum := crc32.Checksum([]byte(checked), crc32.MakeTable(crc32.Castagnoli))
	checked = string(binary.BigEndian.AppendUint32([]byte(checked[:len(checked)-4]), sum))
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\n":       "192.0.2.1:123 192.0.2.2:5678",
		"PROXY TCP6 2001:DB8::1 2001:db8::2 123 5678\r\n":   "[2001:db8::1]:123 [2001:db8::2]:5678",
		"PROXY UNKNOWN\r\n":                                 "nothing",
		"PROXY UNKNOWN 1 2 3 4 5 6\r\n":                     "nothing",
		"PROXY TCP4 192.0.2.1 192.0.2.2 123 65536\r\n":      `broken header: "PROXY TCP4 192.0.2.1 192.0.2.2 123 65536"`,
		"PROXY TCP4 192.0.2.1 192.0.2.2 123\r\n":            `broken header: "PROXY TCP4 192.0.2.1 192.0.2.2 123"`,
		"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n":           `broken header: "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2"`,
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n":          `broken header: "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3"`,
		"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n":           `broken header: "PROXY TCP4 192.0.2.1  192.0.2.2 1 2"`,
		"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n":        `broken header: "PROXY TCP4 2001:db8::1 2001:db8::2 1 2"`,
		"PROXY TCP6 fe80::1%lo fe80::2 1 2\r\n":             `broken header: "PROXY TCP6 fe80::1%lo fe80::2 1 2"`,
		"PROXY TCP4 abc.def 192.0.2.2 1 2\r\n":              `broken header: "PROXY TCP4 abc.def 192.0.2.2 1 2"`,
		"PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\n":         `broken header: "PROXY TCP4 192.0.2.1 192.0.2.2 123 5678"`,
		"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n": "nothing",
		"PROXY UNKNOWN " + strings.Repeat("x", 93):          `broken header: "PROXY UNKNOWN ` + strings.Repeat("x", 93) + `"`,
		"GET / HTTP/1.1\r\n":                                `broken header: "GET / HTTP/1.1"`,
		"proxy TCP4":                                        `broken header: "proxy TCP4"`,
		"PROXYTCP4":                                         `broken header: "PROXYTCP4"`,
		"\x16\x03\x01":                                      `broken header: "\x16\x03\x01"`,

		binaryHeader(1, 0x11, four):                       "192.0.2.1:123 192.0.2.2:5678",
		binaryHeader(1, 0x21, six):                        "[2001:db8::1]:123 [2001:db8::2]:5678",
		binaryHeader(1, 0x11, four+tlvOf(tlvALPN, "h2")):  "192.0.2.1:123 192.0.2.2:5678",
		binaryHeader(1, 0x11, four+"\x01\x00"):            "192.0.2.1:123 192.0.2.2:5678", // told when it is asked for
		binaryHeader(1, 0x12, four):                       "nothing",                      // datagrams
		binaryHeader(1, 0x31, strings.Repeat("x", 216)):   "nothing",                      // unix sockets
		binaryHeader(0, 0x00, ""):                         "nothing",
		binaryHeader(0, 0x11, four):                       "nothing",
		checked:                                           "192.0.2.1:123 192.0.2.2:5678",
		strings.Replace(checked, "id", "iD", 1):           "PROXY protocol header has a wrong checksum",
		binaryHeader(1, 0x11, four+tlvOf(tlvCRC32C, "x")): "PROXY protocol header has a wrong checksum",
		binaryHeader(1, 0x11, four[:11]):                  "PROXY protocol header is too short for its addresses",
		binaryHeader(1, 0x21, four):                       "PROXY protocol header is too short for its addresses",
		binaryHeader(2, 0x11, four):                       "unknown PROXY protocol command: 2",
		proxySignature + "\x11\x11\x00\x00":               "unknown PROXY protocol version: 1",
		proxySignature + "\x21\x11\xff\xff":               "header is too large",
	} {
		got := describeHeader([]byte(header + "rest"))
		if strings.HasPrefix(want, "broken") {
			got = describeHeader([]byte(header))
		}
		if got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
		if strings.Contains(want, "header") || strings.Contains(want, "unknown") {
			continue
		}
		for i := range len(header) - 1 { // in pieces
			if _, _, err := parseProxyHeader([]byte(header[:i])); !errors.Is(err, errMoreHeader) {
				t.Errorf("%q: %v", header[:i], err)
			}
		}
		if _, size, _ := parseProxyHeader([]byte(header + "rest")); size != len(header) {
			t.Errorf("%q: size %d", header, size)
		}
	}
}

func describeHeader(b []byte) string {
	f, _, err := parseProxyHeader(b)
	switch {
	case err != nil:
		return err.Error()
	case f == nil:
		return "nothing"
	}
	return f.from.String() + " " + f.to.String()
}

func TestProxyHeaderTLVs(t *testing.T) {
	f := &forwarded{tlvs: []byte(tlvOf(tlvALPN, "h2") + tlvOf(tlvAuthority, "a.test") + tlvOf(0xea, "own") +
		tlvOf(tlvSSL, "\x01\x00\x00\x00\x07"+tlvOf(0x21, "TLSv1.3")+tlvOf(0x22, "me")) + "\x05")}
	for name, want := range map[string]string{
		"alpn": "h2", "authority": "a.test", "0x02": "a.test", "0xea": "own", "0xEA": "own", "ssl_verify": "7",
		"ssl_version": "TLSv1.3", "ssl_cn": "me", "ssl_0x22": "me", "ssl_cipher": "none",
		"unique_id": "broken PROXY protocol TLV", "0x1ff": "none",
		"0x": `invalid PROXY protocol TLV "0x"`, "0xzz": `invalid PROXY protocol TLV "0xzz"`,
		"crc": `unknown PROXY protocol TLV "crc"`, "ssl_alpn": `unknown PROXY protocol TLV "ssl_alpn"`,
	} {
		value, ok, err := f.tlv(name)
		got := string(value)
		switch {
		case err != nil:
			got = err.Error()
		case !ok:
			got = "none"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, ok, err := (&forwarded{}).tlv("ssl_verify"); ok || err != nil {
		t.Error("ssl_verify without TLVs")
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\nGET"))
	f.Add([]byte(binaryHeader(1, 0x21, six+tlvOf(tlvCRC32C, "1234")+tlvOf(tlvSSL, "12345"+tlvOf(0x22, "x")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, err := parseProxyHeader(b)
		if err == nil && (size <= 0 || size > len(b) || size > maxProxyHeader) {
			t.Errorf("size %d of %d", size, len(b))
		}
		if errors.Is(err, errMoreHeader) && len(b) >= maxProxyHeader {
			t.Errorf("wants more than %d", len(b))
		}
		if h != nil {
			for _, name := range []string{"alpn", "ssl", "ssl_cn", "ssl_verify", "0x03"} {
				_, _, _ = h.tlv(name)
			}
		}
	})
}

// The header may come in pieces, and what follows it with it.
func TestProxyHeaderOnTheWire(t *testing.T) {
	r := run(t, `error_log logs/e.log info; events {} http { client_header_timeout 200ms; server { listen unix:%dir%/s proxy_protocol;
		set_real_ip_from unix:; real_ip_header proxy_protocol;
		return 200 "$remote_addr $remote_port $proxy_protocol_server_addr $proxy_protocol_server_port $proxy_protocol_tlv_alpn|"; } }`)
	const get = "GET / HTTP/1.0\r\n\r\n"
	ask := func(pieces ...string) string {
		c := r.dial("s")
		defer c.Close()
		for _, p := range pieces {
			_, _ = io.WriteString(c, p)
			time.Sleep(5 * time.Millisecond)
		}
		b, _ := io.ReadAll(c)
		_, body, _ := strings.Cut(string(b), "\r\n\r\n")
		return body
	}
	h := binaryHeader(1, 0x11, four+tlvOf(tlvALPN, "h2"))
	const want = "192.0.2.1 123 192.0.2.2 5678 h2|"
	for _, pieces := range [][]string{{h + get}, {h, get}, {h[:5], h[5:20], h[20:] + get[:3], get[3:]}} {
		if got := ask(pieces...); got != want {
			t.Errorf("%q: %q, want %q", pieces, got, want)
		}
	}
	if got := ask("PROXY UNKNOWN\r\n" + get); got != "unix:    |" {
		t.Errorf("unknown: %q", got)
	}
	if got := ask(get); got != "" {
		t.Errorf("without a header: %q", got)
	}
	r.await("logs/e.log", `broken header: "GET / HTTP/1.0" while reading PROXY protocol, client: unix:, server: unix:`)
	if got := ask("PROXY "); got != "" {
		t.Errorf("half a header: %q", got)
	}
	r.await("logs/e.log", "client timed out (110: Connection timed out) while reading PROXY protocol")
}

// TestProxyHeaderWritten reads what is written.
func TestProxyHeaderWritten(t *testing.T) {
	four, other := netip.MustParseAddrPort("192.0.2.1:123"), netip.MustParseAddrPort("192.0.2.2:5678")
	six := netip.MustParseAddrPort("[2001:db8::1]:9")
	for _, tt := range []struct {
		from, to netip.AddrPort
		want     string
	}{
		{four, other, "192.0.2.1:123 192.0.2.2:5678"},
		{six, six, "[2001:db8::1]:9 [2001:db8::1]:9"},
		{netip.AddrPort{}, four, "nothing"},
	} {
		for version, header := range [][]byte{appendProxyLine(nil, tt.from, tt.to), appendProxyBinary([]byte("x"), tt.from, tt.to, false)[1:]} {
			f, size, err := parseProxyHeader(header)
			got := "nothing"
			if f != nil {
				got = f.from.String() + " " + f.to.String()
			}
			if err != nil || size != len(header) || got != tt.want {
				t.Errorf("version %d of %v: %d of %d bytes, %s, %v; want %s", version+1, tt.from, size, len(header), got, err, tt.want)
			}
		}
	}
	// of two families the longer one has room for both
	if f, _, err := parseProxyHeader(appendProxyBinary(nil, four, six, false)); err != nil || f.from.Addr().Unmap() != four.Addr() {
		t.Errorf("mixed families: %v, %v", f, err)
	}
	for _, early := range []string{"PROXY INV", "PROXY TCP5", "PROXY  "} {
		if _, _, err := parseProxyHeader([]byte(early)); err == nil || errors.Is(err, errMoreHeader) {
			t.Errorf("%q: %v", early, err)
		}
	}
}
