package parser

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tufanbarisyildirim/gonginx/config"
)

func printed(t *testing.T, f *File) string {
	t.Helper()
	var b strings.Builder
	if err := Print(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rawOutline is outline with the words as written.
func rawOutline(b *Block) string {
	var s strings.Builder
	raw(&s, b)
	return s.String()
}

// Printing keeps words, comments and structure, and printing again changes
// nothing more.
func checkPrint(t *testing.T, text string) {
	t.Helper()
	f := parseText(text)
	if broken(f.Body) != nil {
		if Print(&strings.Builder{}, f) == nil {
			t.Fatalf("%q: a broken file is printed", text)
		}
		return
	}
	once := printed(t, f)
	if len(once) >= window/2 {
		return // tokens may come to lie elsewhere in nginx's buffer
	}
	again := parseText(once)
	if diff := cmp.Diff(rawOutline(f.Body), rawOutline(again.Body)); diff != "" {
		t.Fatalf("%q\nprinted as %q\n%s", text, once, diff)
	}
	if err := Same(f, again); err != nil {
		t.Fatalf("%q\nprinted as %q\n%v", text, once, err)
	}
	if twice := printed(t, again); twice != once {
		t.Fatalf("%q\nprinted as %q\nthen as    %q", text, once, twice)
	}
}

func TestPrint(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		checkPrint(t, string(text))
		golden(t, "good/"+strings.TrimSuffix(filepath.Base(name), ".conf")+".golden", printed(t, parseText(string(text))))
	}
	for _, text := range []string{"", "a;", "# c", "a{}", "a{# c\n}", "a{\n\n\n}b;", "# foo {\n\n\na;", "a \"x\n\n   y\";", "a\n# x\n# y\n;", "if (\"a\" = \"b\") {\"c\")d;}", "a # {\n b;\n\n\nc # d\n{}", "a#~ #;\n;", "a_by_lua_block { x = 1; }", "include nope; b;", "a\\\nb c;", "{}", "}"} {
		checkPrint(t, text)
	}
}

func TestPrintMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 3000 {
		checkPrint(t, mutate(r, seedConfig))
	}
}

func FuzzPrint(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(checkPrint)
}

func TestConfig(t *testing.T) {
	c := parseText("# top\nhttp { # open\n server 'a b' \"c\"; # same\n\n listen\n  80; }\n").Config()
	if c.FilePath != "t.conf" || len(c.Directives) != 2 {
		t.Fatalf("%+v", c)
	}
	http, ok := c.Directives[1].(*config.Directive)
	if !ok || http.Name != "http" || http.Line != 2 {
		t.Fatalf("%T %+v", c.Directives[1], c.Directives[1])
	}
	list := http.GetBlock().GetDirectives()
	if len(list) != 4 || list[1].GetName() != "server" || list[1].GetParent() != http {
		t.Fatalf("%d nodes", len(list))
	}
	if p := list[1].GetParameters(); len(p) != 2 || p[0].Value != "'a b'" || p[1].Value != `"c"` {
		t.Errorf("%+v", p)
	}
	if list[2].GetName() != "" || len(list[2].GetInlineComment()) != 0 {
		t.Errorf("the blank line is %+v", list[2])
	}
	if p := list[3].GetParameters(); len(p) != 1 || p[0].RelativeLineIndex != 1 {
		t.Errorf("%+v", p)
	}
}
