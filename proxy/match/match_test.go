package match

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func buildNames(t *testing.T, names ...string) *Names[string] {
	t.Helper()
	b := NewNames[string]()
	for _, n := range names {
		if existed, err := b.Add(n, n); existed || err != nil {
			t.Fatalf("%q: %v %v", n, existed, err)
		}
	}
	return b.Build()
}

func TestNames(t *testing.T) {
	n := buildNames(t, "a.com", "*.a.com", "*.b.a.com", ".c.com", "www.*", "www.d.*", "*.com", "", "e.net.", "*.www.e.org", ".x.e.org")
	tests := []struct{ name, want string }{
		{"a.com", "a.com"},
		{"A.Com", "a.com"},
		{"x.a.com", "*.a.com"},
		{"x.y.a.com", "*.a.com"},
		{"x.b.a.com", "*.b.a.com"},
		{"b.a.com", "*.a.com"},
		{"c.com", ".c.com"},
		{"x.c.com", ".c.com"},
		{"xc.com", "*.com"},
		{"com", ""},
		{".com", "*.com"},
		{"www.e.net", "www.*"},
		{"www.d.net", "www.d.*"},
		{"www.d", "www.*"},
		{"www.d.", "www.d.*"},
		{"WWW.D.NET", "www.d.*"},
		{"www.d.com", "*.com"},
		{"www", ""},
		{"e.net.", "e.net."},
		{"e.net", ""},
		{"e.org", ""},
		{"x.e.org", ".x.e.org"},
		{"www.e.org", "www.*"},
		{strings.Repeat("y.", 4000) + "a.com", "*.a.com"},
		{"WWW." + strings.Repeat("y.", 4000), "www.*"},
	}
	for _, tt := range tests {
		got, ok := n.Lookup([]byte(tt.name))
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%.40q: got %q %v, want %q", tt.name, got, ok, tt.want)
		}
	}
	if got, ok := n.Lookup(nil); got != "" || !ok {
		t.Error("no empty name")
	}
	if n.Len() != 13 {
		t.Error(n.Len())
	}
}

// TestNamesConflicts follows the warnings of nginx -t for the same lists.
func TestNamesConflicts(t *testing.T) {
	tests := []struct {
		names []string
		last  bool // whether the last exists already
	}{
		{[]string{"a.b", "A.B"}, true},
		{[]string{"a.b", "*.a.b"}, false},
		{[]string{"a.b", ".a.b"}, true},
		{[]string{".a.b", "a.b"}, true},
		{[]string{".a.b", "*.a.b"}, true},
		{[]string{"*.a.b", ".a.b"}, true},
		{[]string{"*.a.b", ".a.b", "a.b"}, true},
		{[]string{"a.*", "a.*"}, true},
		{[]string{"a.*", "a", "*.a"}, false},
		{[]string{"", ""}, true},
	}
	for _, tt := range tests {
		b := NewNames[int]()
		existed := false
		for i, n := range tt.names {
			var err error
			if existed, err = b.Add(n, i); err != nil {
				t.Error(err)
			}
		}
		if existed != tt.last {
			t.Errorf("%q: existed %v", tt.names, existed)
		}
	}
}

func TestNamesErrors(t *testing.T) {
	for _, n := range []string{"*", "*.", "**.a", "a*.b", "*a.b", "a.*.b", "*.a.*", "a..b", "a\x00b", "www.**"} {
		if _, err := NewNames[int]().Add(n, 0); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", n, err)
		}
	}
}

func buildPrefixes(entries ...string) *Prefixes[string] {
	b := NewPrefixes[string]()
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e, "="); ok {
			b.AddExact(strings.TrimSuffix(text, "!"), e)
			if strings.HasSuffix(text, "!") {
				b.AddRedirect(strings.TrimSuffix(text, "!"))
			}
			continue
		}
		b.AddPrefix(strings.TrimSuffix(e, "!"), e, strings.HasSuffix(e, "!"))
	}
	return b.Build()
}

func TestPrefixes(t *testing.T) {
	p := buildPrefixes("/", "=/", "/a", "=/a", "/a/b/", "/ab", "/x/!", "=/x/y/!", "=/z/!", "/z/", "/q", "/q/!", "/x-", "=/only", "/only/deep")
	tests := []struct {
		path, want string
		kind       Kind
	}{
		{"/", "=/", Exact},
		{"/a", "=/a", Exact},
		{"/a/", "/a", Prefix},
		{"/a/b", "/a", Prefix},
		{"/a/b/", "/a/b/", Prefix},
		{"/a/b/c", "/a/b/", Prefix},
		{"/abc", "/ab", Prefix},
		{"/b", "/", Prefix},
		{"/A", "/", Prefix},
		{"/x", "/x/!", Redirect},
		{"/x/", "/x/!", Prefix},
		{"/x-", "/x-", Prefix},
		{"/x-y", "/x-", Prefix},
		{"/x/y", "=/x/y/!", Redirect},
		{"/x/y/", "=/x/y/!", Exact},
		{"/z", "=/z/!", Redirect},
		{"/z/1", "/z/", Prefix},
		{"/q", "/q", Prefix},
		{"/only", "=/only", Exact},
		{"/only/", "/", Prefix},
		{"/only/deeper", "/only/deep", Prefix},
		{"", "", None},
		{"x", "", None},
		{"\xff", "", None},
	}
	for _, tt := range tests {
		if got, kind := p.Lookup([]byte(tt.path)); got != tt.want || kind != tt.kind {
			t.Errorf("%q: got %q %d, want %q %d", tt.path, got, kind, tt.want, tt.kind)
		}
	}
	if _, kind := buildPrefixes().Lookup([]byte("/")); kind != None {
		t.Error("a match in nothing")
	}
	if got, kind := buildPrefixes("").Lookup([]byte("/")); got != "" || kind != Prefix {
		t.Error("no match of the empty prefix")
	}
	b := NewPrefixes[int]()
	if b.AddExact("/", 1) || b.AddPrefix("/", 2, false) || !b.AddExact("/", 3) || !b.AddPrefix("/", 4, false) {
		t.Error("conflicts")
	}
}

// TestPrefixesRandom compares with a walk over all entries.
func TestPrefixesRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	word := func() string {
		var b strings.Builder
		for range rnd.IntN(8) {
			b.WriteByte("/a-\xff"[rnd.IntN(4)])
		}
		return b.String()
	}
	for range 200 {
		var entries []string
		seen := map[string]bool{}
		for range rnd.IntN(30) {
			e := []string{"", "="}[rnd.IntN(2)] + word() + []string{"", "/!"}[rnd.IntN(2)]
			if text := strings.TrimSuffix(e, "!"); !seen[text] {
				seen[text] = true
				entries = append(entries, e)
			}
		}
		p := buildPrefixes(entries...)
		for range 50 {
			path := word()
			got, kind := p.Lookup([]byte(path))
			if want, wantKind := slowLookup(entries, path); got != want || kind != wantKind {
				t.Fatalf("%q in %q: got %q %d, want %q %d", path, entries, got, kind, want, wantKind)
			}
		}
	}
}

func slowLookup(entries []string, path string) (string, Kind) {
	best, bestLen, kind, redirect := "", -1, None, false
	values := map[string]string{}
	for _, e := range entries {
		text, exact := strings.CutPrefix(strings.TrimSuffix(e, "!"), "=")
		if exact && text == path {
			return e, Exact
		}
		if !exact && strings.HasPrefix(path, text) && len(text) > bestLen {
			best, bestLen, kind = e, len(text), Prefix
		}
		if text == path+"/" {
			redirect = redirect || strings.HasSuffix(e, "!")
			if exact || values[text] == "" {
				values[text] = e
			}
		}
	}
	if redirect && bestLen < len(path) {
		return values[path+"/"], Redirect
	}
	return best, kind
}

func manyNames(tb testing.TB) *Names[int] {
	b := NewNames[int]()
	for i := range 10000 {
		if _, err := b.Add(fmt.Sprintf([]string{"www%d.example.com", "*.host%d.example.org", "mail%d.*"}[i%3], i), i); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Build()
}

func manyPrefixes() *Prefixes[int] {
	b := NewPrefixes[int]()
	for i := range 1000 {
		b.AddPrefix(fmt.Sprintf("/app%d/", i), i, true)
	}
	b.AddPrefix("/", 0, false)
	return b.Build()
}

func TestAllocs(t *testing.T) {
	n, p := manyNames(t), manyPrefixes()
	for _, name := range []string{"www9999.example.com", "WWW9999.EXAMPLE.COM", "a.b.host4.example.org", "mail5.net", "nobody.example.net"} {
		b := []byte(name)
		if a := testing.AllocsPerRun(100, func() { n.Lookup(b) }); a > 0 {
			t.Errorf("%s: %v allocations", name, a)
		}
	}
	for _, path := range []string{"/app500/x", "/app500", "/none"} {
		b := []byte(path)
		if a := testing.AllocsPerRun(100, func() { p.Lookup(b) }); a > 0 {
			t.Errorf("%s: %v allocations", path, a)
		}
	}
}

func BenchmarkNames(b *testing.B) {
	n := manyNames(b)
	for _, name := range []string{"www9999.example.com", "a.b.host4.example.org", "mail5.net", "nobody.example.net"} {
		b.Run(name, func(b *testing.B) {
			key := []byte(name)
			for b.Loop() {
				n.Lookup(key)
			}
		})
	}
}

func BenchmarkPrefixes(b *testing.B) {
	p := manyPrefixes()
	for _, path := range []string{"/app500/index.html", "/app500", "/other/index.html"} {
		b.Run(path, func(b *testing.B) {
			key := []byte(path)
			for b.Loop() {
				p.Lookup(key)
			}
		})
	}
}
