package parser

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outline writes a tree in one line: each word quoted, blocks in braces,
// errors as !.
func outline(b *Block) string {
	var s strings.Builder
	for i, d := range b.Items {
		if i > 0 {
			s.WriteByte(' ')
		}
		if d.Err != nil {
			s.WriteByte('!')
		}
		if d.Name.Range.IsZero() {
			continue
		}
		s.WriteString(strconv.Quote(d.Name.Value))
		for _, a := range d.Args {
			s.WriteString("," + strconv.Quote(a.Value))
		}
		if d.Block != nil {
			s.WriteString("{" + outline(d.Block) + "}")
		} else {
			s.WriteByte(';')
		}
	}
	return s.String()
}

func parseText(text string) *File {
	return Parse(&Source{Name: "t.conf", Text: []byte(text)}, Options{ReadFile: func(string) ([]byte, error) { return nil, os.ErrNotExist }})
}

// What a real nginx makes of each text was looked up with 1.31.5.
func TestTokens(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{" \t\r\n# only a comment", ""},
		{"a b;c;", `"a","b"; "c";`},
		{"a{b{}c;}", `"a"{"b"{} "c";}`},
		{"a #x;\n b # y {\n;", `"a","b";`},
		{"a#b c#d;", `"a#b","c#d";`},
		{`a "b c;{}#" 'd"' "";`, `"a","b c;{}#","d\"","";`},
		{`a "x\"y\\z" \'q;`, `"a","x\"y\\z","'q";`},
		{`a \t\r\n "\t\d\.";`, `"a","\t\r\n","\t\\d\\.";`},
		{`a b\ c\;d\{e;`, `"a","b\\ c\\;d\\{e";`},
		{"a b\\\nc;", `"a","b\\` + `\nc";`},
		{`a ${b}c d${e} $f;`, `"a","${b}c","d${e}","$f";`},
		{`a ${{{b;`, `"a","${{{b";`},
		{`a ${b{c;}`, `"a","${b"{"c";}`},
		{`a $\{b{}`, `"a","$\\{b"{}`},
		{`if ($a = "b"){}`, `"if","($a","=","b",")"{}`},
		{`if ($a = "b")c;`, `"if","($a","=","b",")c";`},
		{`a b}c }d;`, `!"a","b}c"; "d";`},
		{`"a""b";c;`, `!"a"; "c";`},
		{"\ufeffa b;", `"` + "\\ufeff" + `a","b";`},
		{"a\u00a0b;", `"a` + "\\u00a0" + `b";`},
		{"a\x00b\xff;", `"a\x00b\xff";`},
		{`"include" x`, `!"include";`},
		{`a"b c"d;`, `"a\"b","c\"d";`},
		{`\"a b;`, `"\"a","b";`},
		{`a \`, `!"a";`},
		{`a;b{c;`, `"a"; "b"{"c"; !}`},
		{`a}b;`, `"a}b";`},
		{`a }b;`, `!"a"; "b";`},
		{`x{a }b;`, `"x"{!"a";} "b";`},
		{`;;a;`, `! ! "a";`},
		{`{a;}b;`, `! "b";`},
		{`location ~ ^/\d{4}/x { return 1; } b;`, `"location","~","^/\\d"{!"4}/x"{} "return","1";} "b";`},
		{`rewrite ^/\d{4,}x /y; b;`, `"rewrite","^/\\d"{!"4,}x","/y";} "b";`},
		{`map $a $b{4}x;}`, `"map","$a","$b"{"4}x";}`},
	} {
		if got := outline(parseText(c.text).Body); got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

// The first error of each text and its line, as nginx 1.31.5 gives them.
func TestFirstError(t *testing.T) {
	long := strings.Repeat("a", window)
	for _, c := range []struct{ text, want string }{
		{"events {}\n}\n", `unexpected "}" in t.conf:2`},
		{"events {}\nhttp {\nserver {\nlisten 9105;\n}\n", `unexpected end of file, expecting "}" in t.conf:6`},
		{"http {\nserver {\nlisten 9105;\nlisten 9106 }\n}\n", `unexpected "}" in t.conf:4`},
		{"http {\nreturn 200 \"a\"b;\n}\n", `unexpected "b" in t.conf:2`},
		{"a;\n;", `unexpected ";" in t.conf:2`},
		{"a;\n\n{ b; }", `unexpected "{" in t.conf:3`},
		{"a b", `unexpected end of file, expecting ";" or "}" in t.conf:1`},
		{"a b\n\n", `unexpected end of file, expecting ";" or "}" in t.conf:3`},
		{"a \"b\n\n", `unexpected end of file, expecting ";" or "}" in t.conf:3`},
		{"a {\nb", `unexpected end of file, expecting ";" or "}" in t.conf:2`},
		{"a 'b'\xff;", "unexpected \"\xff\" in t.conf:1"},
		{"a 'b'}", `unexpected "}" in t.conf:1`},
		{"a\n" + long + ";\n", `too long parameter "aaaaaaaaaa..." started in t.conf:2`},
		{"a;\n\n\"" + long + "\n\";\n", `too long parameter, probably missing terminating """ character in t.conf:3`},
		{"a '\n" + long + "';\n", `too long parameter, probably missing terminating "'" character in t.conf:1`},
		{"#" + long + "\na;", `too long parameter "#aaaaaaaaa..." started in t.conf:1`},
		{long + ";", `too long parameter "aaaaaaaaaa..." started in t.conf:1`},
		{long[1:] + ";a b;", ``},
		{long, `unexpected end of file, expecting ";" or "}" in t.conf:1`}, // all of it is in the buffer
		{"a;\ninclude nope;", `open() "nope" failed (2: No such file or directory) in t.conf:2`},
		{"a;\ninclude\nnope\n;", `open() "nope" failed (2: No such file or directory) in t.conf:4`},
	} {
		got := ""
		if d := firstProblem(parseText(c.text)); d != nil {
			got = d.Error()
		}
		if got != c.want {
			t.Errorf("%.40q: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"daemon off; pid /x;", ""},
		{"daemon off", `unexpected end of parameter, expecting ";" in command line`},
		{"daemon \"", `unexpected end of parameter, expecting ";" in command line`},
		{"}", `unexpected "}" in command line`},
		{";", `unexpected ";" in command line`},
		{"events {", `block directives are not supported in -g option in command line`},
		{strings.Repeat("a", 3*window) + ";", ""},
	} {
		f := Parse(&Source{Name: CommandLine, Text: []byte(c.text)}, Options{})
		got := ""
		if d := firstProblem(f); d != nil {
			got = d.Error()
		}
		if got != c.want {
			t.Errorf("%.40q: got %s, want %s", c.text, got, c.want)
		}
	}
}

var wanted = regexp.MustCompile(`# want(?: line (\d+))? ("(?:[^"\\]|\\.)*")`)

// Each file in testdata/bad says what is wrong with it: # want "..." on the
// line that is underlined, or # want line N "..." elsewhere. The text is part
// of the message or of the hint. All problems must be named, and no others.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		f := ParseFile(name, Options{})
		want := map[int][]string{}
		for i, line := range strings.Split(string(f.Source.Text), "\n") {
			for _, m := range wanted.FindAllStringSubmatch(line, -1) {
				n := i + 1
				if m[1] != "" {
					n, _ = strconv.Atoi(m[1])
				}
				text, err := strconv.Unquote(m[2])
				if err != nil {
					t.Fatal(name, err)
				}
				want[n] = append(want[n], text)
			}
		}
		for _, d := range problems(f) {
			n, text := d.underlined().Line(), fmt.Sprintf("%s [%s] %s", d.Message, d.Code, d.Hint)
			found := false
			for i, w := range want[n] {
				if found = strings.Contains(text, w); found {
					want[n] = append(want[n][:i], want[n][i+1:]...)
					break
				}
			}
			if !found {
				t.Errorf("%s:%d: not wanted: %s", name, n, text)
			}
		}
		for n, rest := range want {
			for _, w := range rest {
				t.Errorf("%s:%d: missing: %s", name, n, w)
			}
		}
	}
}

func TestRanges(t *testing.T) {
	text := "a \"b\"\n\tc ; {\n"
	src := &Source{Name: "t.conf", Text: []byte(text)}
	d := Parse(src, Options{}).Body.Items[0]
	got := []string{d.Name.Range.String(), d.Args[0].Range.String(), d.Args[0].Raw(), d.Args[1].Range.String(), d.End.String(), d.Range().Text()}
	want := []string{"t.conf:1:1", "t.conf:1:3", `"b"`, "t.conf:2:2", "t.conf:2:4", "a \"b\"\n\tc ;"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for off, want := range map[int]int{0: 1, 5: 1, 6: 2, len(text) - 1: 2, len(text): 3} {
		if got := src.Line(off); got != want {
			t.Errorf("Line(%d) = %d, want %d", off, got, want)
		}
	}
	if (Arg{Value: "a b"}).Raw() != `"a b"` || (Range{}).String() != "" || (Range{}).Line() != 0 {
		t.Error("an argument without a place")
	}
}

func TestNestingLimit(t *testing.T) {
	text := strings.Repeat("a {", 1_000_000)
	all := problems(parseText(text))
	if len(all) != 1 || all[0].Code != "Y022" {
		t.Fatalf("%d problems, first %v", len(all), all[0])
	}
	deep := strings.Repeat("a {", maxDepth) + strings.Repeat("}", maxDepth)
	if d := firstProblem(parseText(deep)); d != nil {
		t.Error(d)
	}
}

func TestWordLimit(t *testing.T) {
	l := newLoader(&Source{Name: "t.conf"}, Options{})
	l.words = maxWords - 3
	f := l.parse(&Source{Name: "t.conf", Text: []byte("a b; c {\n d; e; } f;")})
	all := problems(f)
	if !f.cut || len(all) != 1 || all[0].Code != codeTooMuch || all[0].At.Line() != 2 || f.TooMuch() != all[0] {
		t.Error(all)
	}
	if d := parseText("a b; c { d; e; } f;").TooMuch(); d != nil {
		t.Error(d)
	}
}

func TestManyFaults(t *testing.T) {
	if n := len(problems(parseText(strings.Repeat(";", 1_000_000)))); n != maxFaults {
		t.Errorf("%d problems, want %d", n, maxFaults)
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{
		"":          `""`,
		"a":         "a",
		"a b":       `"a b"`,
		"${a}":      "${a}",
		"a{2}":      `"a{2}"`,
		`^/\d+$`:    `^/\d+$`,
		`\n`:        `"\\n"`,
		"\n":        `"\n"`,
		`a"b`:       `'a"b'`,
		`a"b'c`:     `"a\"b'c"`,
		`a\`:        `"a\\"`,
		"#a":        `"#a"`,
		"a#":        "a#",
		`\${`:       `"\${"`,
		"}":         `"}"`,
		"a;":        `"a;"`,
		`~*\.(a|b)`: `~*\.(a|b)`,
	} {
		if got := Quote(value); got != want {
			t.Errorf("Quote(%q) = %s, want %s", value, got, want)
		}
		if got := unquote(want); got != value {
			t.Errorf("unquote(%s) = %q, want %q", want, got, value)
		}
	}
}

// unquote decodes a token: the quotes around it go, then the escapes.
func unquote(raw string) string {
	if n := len(raw); n >= 2 && (raw[0] == '"' || raw[0] == '\'') && raw[n-1] == raw[0] {
		raw = raw[1 : n-1]
	}
	return decode(raw)
}
