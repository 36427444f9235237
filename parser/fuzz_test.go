package parser

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// raw writes a tree as it was written, a space between the words.
func raw(s *strings.Builder, b *Block) {
	for _, d := range b.Items {
		s.WriteString(d.Name.Raw())
		for _, a := range d.Args {
			s.WriteString(" " + a.Raw())
		}
		if d.Block == nil {
			s.WriteString(" ;\n")
			continue
		}
		s.WriteString(" {\n")
		raw(s, d.Block)
		s.WriteString("}\n")
	}
}

// quoted writes a tree anew from its values.
func quoted(s *strings.Builder, b *Block) {
	for _, d := range b.Items {
		s.WriteString(Quote(d.Name.Value))
		for _, a := range d.Args {
			s.WriteString(" " + Quote(a.Value))
		}
		if d.Block == nil {
			s.WriteString(";")
			continue
		}
		s.WriteString(" {")
		quoted(s, d.Block)
		s.WriteString("}")
	}
}

// check holds the properties that every text has.
func check(t *testing.T, text string) {
	t.Helper()
	f := parseText(text)
	all := problems(f)
	for _, d := range all {
		if r := d.Range; r.Start < 0 || r.Start > r.End || r.End > len(text) {
			t.Fatalf("%q: range %d-%d", text, r.Start, r.End)
		}
		if d.Severity != Error || d.Message == "" {
			t.Fatalf("%q: %+v", text, d)
		}
	}
	WriteText(io.Discard, all, TextOptions{Width: 40})
	if err := WriteJSON(io.Discard, all); err != nil {
		t.Fatal(err)
	}
	ranges(t, f.Body)
	if len(all) > 0 || len(text) > window/4 {
		return
	}
	want := outline(f.Body)
	for _, write := range []func(*strings.Builder, *Block){raw, quoted} {
		var s strings.Builder
		write(&s, f.Body)
		if got := outline(parseText(s.String()).Body); got != want {
			t.Fatalf("%q: %s came back as %s\nwritten as %q", text, want, got, s.String())
		}
	}
}

// ranges checks that every word is what its range says.
func ranges(t *testing.T, b *Block) {
	for _, d := range b.Items {
		for _, a := range append([]Arg{d.Name}, d.Args...) {
			if !a.Range.IsZero() && unquote(a.Raw()) != a.Value {
				t.Fatalf("%q is read as %q", a.Raw(), a.Value)
			}
		}
		if d.Block != nil {
			ranges(t, d.Block)
		}
	}
}

func seeds(t testing.TB) []string {
	list := []string{
		seedConfig, "a;\n}\n", `a "b"c;`, `location ~ ^/\d{4}/x { return 1; } b;`, "\ufeffa b;", `if ($a = "b")c;`,
		"a ${{{b;", `a \`, "a{", "\"" + strings.Repeat("x", window) + "\";", `a "`, "include [;", "include x; include *;",
	}
	files, _ := filepath.Glob("testdata/*/*.conf")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(text))
	}
	return list
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(check)
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "a b", `\`, `\n`, "${a}", `\${`, "\n\\\n", "a\\\tb", `"'`, ")", "#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		q := Quote(value)
		if got := unquote(q); got != value {
			t.Fatalf("%q is quoted as %s, which is %q", value, q, got)
		}
		if len(q) > window/2 {
			return
		}
		for _, text := range []string{q + ";", "a " + q + " {}", "a {b " + q + ";}"} {
			if d := firstProblem(parseText(text)); d != nil {
				t.Fatalf("%s: %v", text, d)
			}
		}
		if a := parseText("a " + q + ";").Body.Items[0].Args; len(a) != 1 || a[0].Value != value {
			t.Fatalf("%q is quoted as %s, which is read as %v", value, q, a)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("*.conf", "a.conf")
	f.Add(`[[:alpha:]\]-a][!b]\*?`, "x")
	f.Add("[[.", ".")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		fnmatch(pattern, name)
		if !magic(pattern) && !strings.Contains(pattern, "/") && fnmatch(pattern, name) && unescape(pattern) != name {
			t.Fatalf("%q matches %q", pattern, name)
		}
	})
}

// Every byte of a file changed to every byte that means something, and cut at
// every place.
func TestMutations(t *testing.T) {
	for at := range len(seedConfig) {
		check(t, seedConfig[:at])
		for _, c := range []byte("{};\"'\\$#) \n\x00\xff") {
			check(t, seedConfig[:at]+string(c)+seedConfig[at+1:])
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		check(t, mutate(r, seedConfig))
	}
}

// servers writes a configuration of n server blocks.
func servers(n int) string {
	var b strings.Builder
	b.WriteString("events {}\nhttp {\n")
	for i := range n {
		fmt.Fprintf(&b, "    server {\n        listen 80;\n        server_name host%d.example.com www.host%d.example.com;\n"+
			"        location / {\n            proxy_pass http://127.0.0.1:%d;\n            proxy_set_header Host $host; # as asked\n        }\n    }\n", i, i, i)
	}
	b.WriteString("}\n")
	return b.String()
}

func TestLargeFileIsFast(t *testing.T) {
	text := servers(10_000)
	start := time.Now()
	f := parseText(text)
	if took := time.Since(start); took > time.Second {
		t.Errorf("10,000 servers took %v", took)
	}
	if n := len(f.Body.Items[1].Block.Items); n != 10_000 {
		t.Errorf("%d servers", n)
	}
}

// Words without escapes are not copied, statements and arguments come from
// slabs: what is left are two blocks a server and their growing lists.
func TestAllocations(t *testing.T) {
	const n = 1000
	text := []byte(servers(n))
	allocs := testing.AllocsPerRun(5, func() { Parse(&Source{Name: "t.conf", Text: text}, Options{}) })
	if allocs > 10*n {
		t.Errorf("%.0f allocations for %d servers", allocs, n)
	}
	t.Logf("%.1f allocations a server", allocs/n)
}

func BenchmarkParse(b *testing.B) {
	text := []byte(servers(10_000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		Parse(&Source{Name: "t.conf", Text: text}, Options{})
	}
}
