package http2

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/head"
)

// TestEncode: what is sent is what nginx sends, byte for byte.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{AppendStatus(nil, 200), "\x88"},
		{AppendStatus(nil, 302), "\x48\x03302"},
		{AppendLength(nil, 12345), "\x5c\x0512345"},
		{AppendIndexed(nil, IndexServer, []byte("nginx")), "\x76\x84\xaa\x63\x55\xe7"},
		{AppendVary(nil), "\x7b\x8b\x84\x84\x2d\x69\x5b\x05\x44\x3c\x86\xaa\x6f"},
		{AppendField(nil, []byte("X"), []byte("{{{")), "\x00\x01x\x03{{{"},
		{AppendField(nil, []byte("X-A"), nil), "\x00\x03x-a\x00"},
		{AppendField(nil, []byte("x"), []byte(strings.Repeat("{", 300))), "\x00\x01x\x7f\xad\x01" + strings.Repeat("{", 300)},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("got %x, want %x", tt.got, tt.want)
		}
	}
}

// FuzzDecode compares with hpack where both take a block.
func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/x"}, {Name: "cookie", Value: "secret", Sensitive: true}, {Name: "a", Value: "b"}} {
		_ = enc.WriteField(h)
	}
	f.Add(b.Bytes(), 3)
	f.Add([]byte("\x20\x82\x40\x01a\x01b\xbe\x00\x01a\x01b"), 1)
	f.Fuzz(func(t *testing.T, block []byte, cut int) {
		d := decoder{fieldSize: 1 << 20, most: tableSize, table: tableSize}
		var arena []byte
		got := ""
		take := func(e *head.Field) error {
			got += string(e.Name) + "=" + string(e.Value) + "\n"
			return nil
		}
		cut = max(0, min(cut, len(block)))
		rest, err := d.decode(block[:cut], &arena, take)
		if err == nil || err == errTruncated {
			rest, err = d.decode(append(bytes.Clone(rest), block[cut:]...), &arena, take)
		}
		if d.size > tableSize {
			t.Fatalf("a table of %d bytes", d.size)
		}
		if err != nil {
			return
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
		want := ""
		x := hpack.NewDecoder(tableSize, func(f hpack.HeaderField) { want += f.Name + "=" + f.Value + "\n" })
		if _, err := x.Write(block); err == nil && x.Close() == nil && got != want {
			t.Errorf("%x: got %q, want %q", block, got, want)
		}
	})
}
