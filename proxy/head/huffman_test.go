package head

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func TestHuffman(t *testing.T) {
	t.Parallel()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, text := range []string{"", "a", "aaaaa", "www.example.com", "Mon, 21 Oct 2013 20:13:21 GMT", string(all)} {
		coded := appendEncoded(nil, []byte(text), false)
		if want := hpack.AppendHuffmanString(nil, text); !bytes.Equal(coded, want) {
			t.Errorf("%q: coded %x, want %x", text, coded, want)
		}
		if n := encodedSize([]byte(text), false); n != len(coded) {
			t.Errorf("%q: size %d, want %d", text, n, len(coded))
		}
		if got, ok := AppendDecoded(nil, coded); !ok || string(got) != text {
			t.Errorf("%q: decoded %q %v", text, got, ok)
		}
	}
	for coded, ok := range map[string]bool{"\x1f": true, "\x1f\xff": false, "\x18\xc6\x31\x8c\x63\xff": true, "\x18\xc6\x31\x8c\x63\xff\xff": false, "\x18": false, "\xff\xff\xff\xff": false, "\x1f\xfe": false} {
		if _, got := AppendDecoded(nil, []byte(coded)); got != ok {
			t.Errorf("%x: %v", coded, got)
		}
	}
}
