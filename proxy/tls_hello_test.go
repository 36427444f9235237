package proxy

import (
	"bytes"
	"crypto/tls"
	"net"
	"testing"
)

// recordedHello is what a TLS client sends at first.
func recordedHello(t testing.TB, config *tls.Config) []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, config).Handshake()
		_ = client.Close()
	}()
	buf := make([]byte, 16<<10)
	n := 0
	for n < recordHead || n < recordHead+int(buf[3])<<8+int(buf[4]) {
		m, err := server.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return buf[:n]
}

// inRecords cuts a message out of its record into records of n bytes.
func inRecords(hello []byte, n int) []byte {
	var out []byte
	for rest := hello[recordHead:]; len(rest) > 0; {
		m := min(n, len(rest))
		out = append(append(out, recordHandshake, 3, 1, byte(m>>8), byte(m)), rest[:m]...)
		rest = rest[m:]
	}
	return out
}

func TestClientHello(t *testing.T) {
	modern := recordedHello(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}})
	plain := recordedHello(t, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12})
	hello := func(version string, extensions string) []byte {
		body := version + string(make([]byte, 32)) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + extensions
		n := len(body)
		message := append([]byte{recordHandshake, 3, 1, byte((n + 4) >> 8), byte(n + 4), 1, 0, byte(n >> 8), byte(n)}, body...)
		return message
	}
	for name, tt := range map[string]struct {
		sent                     []byte
		code                     Code
		version, name, protocols string
	}{
		"all of it":            {modern, OK, "TLSv1.3", "a.test", "h2,http/1.1"},
		"without extensions":   {hello("\x03\x01", ""), OK, "TLSv1", "", ""},
		"in small records":     {inRecords(modern, 1), OK, "TLSv1.3", "a.test", "h2,http/1.1"},
		"without a name":       {plain, OK, "TLSv1.3", "", ""}, // it says which versions it speaks, be it one
		"more behind":          {append(bytes.Clone(modern), "more"...), OK, "TLSv1.3", "a.test", "h2,http/1.1"},
		"SSL 2":                {[]byte{0x80, 0x2e, 1, 0, 2, 0, 0}, OK, "SSLv2", "", ""},
		"SSL 3 in SSL 2":       {[]byte{0x80, 0x2e, 1, 3, 0, 0, 0}, OK, "SSLv3", "", ""},
		"cut off":              {modern[:len(modern)-1], Again, "", "", ""},
		"nothing":              {nil, Again, "", "", ""},
		"text":                 {[]byte("GET / HTTP/1.1\r\n\r\n"), Declined, "", "", ""},
		"another version":      {[]byte{recordHandshake, 2, 1, 0, 1, 1}, Declined, "", "", ""},
		"another message":      {[]byte{recordHandshake, 3, 1, 0, 4, 2, 0, 0, 0}, Declined, "", "", ""},
		"too short a message":  {[]byte{recordHandshake, 3, 1, 0, 6, 1, 0, 0, 1, 3, 3}, Declined, "", "", ""},
		"two names":            {hello("\x03\x03", "\x00\x18\x00\x00\x00\x14\x00\x12\x00\x00\x06a.test\x00\x00\x06b.test"), OK, "TLSv1.2", "a.test", ""},
		"versions too long":    {hello("\x03\x03", "\x00\x07\x00\x2b\x00\x07\x02\x7f\x1c"), OK, "TLSv1.3", "", ""},
		"the wrong kind":       {hello("\x03\x03", "\x00\x0a\x00\x00\x00\x06\x00\x04\x01\x00\x01a"), Declined, "", "", ""},
		"lengths disagree":     {hello("\x03\x03", "\x00\x0a\x00\x00\x00\x06\x00\x05\x00\x00\x01a"), Declined, "", "", ""},
		"extensions too short": {hello("\x03\x03", "\x00\x09\x00\x00\x00\x06\x00\x04\x00\x00\x01a"), Declined, "", "", ""},
		"a line feed":          {hello("\x03\x03", "\x00\x0a\x00\x00\x00\x06\x00\x04\x00\x00\x01\n"), Declined, "", "", ""},
		"an empty protocol":    {hello("\x03\x03", "\x00\x07\x00\x10\x00\x03\x00\x01\x00"), Declined, "", "", ""},
		"no protocol":          {hello("\x03\x03", "\x00\x06\x00\x10\x00\x02\x00\x00"), Declined, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var h clientHello
			if code := h.take(tt.sent); code != tt.code {
				t.Fatalf("%d, want %d", code, tt.code)
			}
			if tt.code == OK && (h.protocol() != tt.version || string(h.name) != tt.name || string(h.protocols) != tt.protocols) {
				t.Errorf("%q %q %q", h.protocol(), h.name, h.protocols)
			}
		})
	}
}

// FuzzClientHello: whatever comes, in whatever pieces, it is read alike.
func FuzzClientHello(f *testing.F) {
	hello := recordedHello(f, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(hello, uint8(1))
	f.Add(inRecords(hello, 100), uint8(7))
	f.Add([]byte{0x80, 0x2e, 1, 3, 1, 0, 0}, uint8(3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(4))
	f.Fuzz(func(t *testing.T, sent []byte, step uint8) {
		var whole, pieces clientHello
		code := whole.take(sent)
		got := Again
		for n := 0; got == Again; n += int(step) + 1 {
			if n >= len(sent) {
				got = pieces.take(sent)
				break
			}
			got = pieces.take(sent[:n])
		}
		if got != code || pieces.version != whole.version || !bytes.Equal(pieces.name, whole.name) || !bytes.Equal(pieces.protocols, whole.protocols) {
			t.Errorf("%d %v %q %q in pieces, %d %v %q %q at once", got, pieces.version, pieces.name, pieces.protocols, code, whole.version, whole.name, whole.protocols)
		}
		if len(whole.message) > len(sent) {
			t.Error("more than was sent")
		}
	})
}
