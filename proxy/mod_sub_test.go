package proxy

import (
	"strings"
	"testing"
)

// TestSubstitution cuts bodies in every way: the answer is the same.
func TestSubstitution(t *testing.T) {
	for _, c := range []struct {
		body     string
		patterns []string // text, value, text, value ...
		once     bool
		want     string
	}{
		{"a cat and a CAT", []string{"cat", "dog"}, false, "a dog and a dog"},
		{"a cat and a CAT", []string{"cat", "dog"}, true, "a dog and a CAT"},
		{"ababab", []string{"aba", "x"}, false, "xbab"},
		{"aaa", []string{"aa", "b"}, false, "ba"},
		{"abcd", []string{"bc", "", "d", "D"}, false, "aD"},
		{"abc abd", []string{"abc", "1", "ab", "2"}, false, "1 2d"},
		{"one two", []string{"one", "1", "two", "2"}, true, "1 2"},
		{"xx<ab", []string{"<abc", "!"}, false, "xx<ab"},
		{"<<<a>", []string{"<a>", "!"}, false, "<<!"},
		{"", []string{"a", "b"}, false, ""},
	} {
		var patterns []searchPattern
		for i := 0; i < len(c.patterns); i += 2 {
			value := text{Value: &Value{text: c.patterns[i+1]}, static: []byte(c.patterns[i+1])}
			patterns = append(patterns, searchPattern{[]byte(c.patterns[i]), &value})
		}
		for size := 1; size <= len(c.body)+1; size++ {
			var out strings.Builder
			ended := 0
			s := &substitution{search: newTextSearch(patterns), once: c.once, values: make([][]byte, len(patterns))}
			s.next = func(_ *Exchange, p []byte, last bool) error {
				out.Write(p)
				if last {
					ended++
				}
				return nil
			}
			x := &Exchange{}
			for at := 0; at < len(c.body); at += size {
				_ = s.write(x, []byte(c.body[at:min(at+size, len(c.body))]), false)
			}
			_ = s.write(x, nil, true)
			if out.String() != c.want || ended != 1 {
				t.Errorf("%q in pieces of %d: %q, want %q", c.body, size, out.String(), c.want)
			}
		}
	}
}

// TestSubstitutionFlushes what cannot be the start of a match.
func TestSubstitutionFlushes(t *testing.T) {
	value := text{Value: &Value{text: "x"}, static: []byte("x")}
	s := &substitution{search: newTextSearch([]searchPattern{{[]byte("abc"), &value}}), values: make([][]byte, 1)}
	var out strings.Builder
	s.next = func(_ *Exchange, p []byte, _ bool) error { out.Write(p); return nil }
	x := &Exchange{}
	_ = s.write(x, []byte("zzab"), false)
	x.output.urge = flushing
	_ = s.write(x, nil, false)
	if out.String() != "zz" {
		t.Errorf("%q", out.String())
	}
	x.output.urge = 0
	_ = s.write(x, []byte("c"), true)
	if out.String() != "zzx" {
		t.Errorf("%q", out.String())
	}
}
