package parser

import (
	"flag"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update to accept):\n%s", name, diff)
	}
}

// samples are problems of every kind a renderer meets.
func samples() []*Diagnostic {
	files := map[string]string{
		"/e/main": "events {}\nhttp {\n\tinclude a;\n}\n",
		"/e/a": "server {\n\tlisten  80;\r\n\troot \"\u00a0\x1b[31m\x00\xff\u00e9\";\n\tadd_header A \"b;\n\tadd_header C \"d\";\n" +
			strings.Repeat("x", 300) + " culprit " + strings.Repeat("y", 300) + "\n",
	}
	f := ParseFile("/e/main", memory(files))
	included := f.Body.Items[1].Block.Items[0].Files[0]
	src := included.Source
	server := included.Body.Items[0]
	listen, root := server.Block.Items[0], server.Block.Items[1]
	long := strings.Index(src.text, "culprit")
	ds := []*Diagnostic{
		firstProblem(f),
		{
			Severity: Warning, Code: "C001", Message: `conflicting server name "a"`, Range: listen.Args[0].Range, At: listen.End,
			Hint: "rename it", Related: []Related{{f.Body.Items[1].Range(), "first here"}, {Range{}, "no place"}},
		},
		{Severity: Note, Message: "odd\x1b bytes", Range: root.Args[0].Range},
		{Code: "X001", Message: "in a long line", Range: Range{src, long, long + 7}},
		{Code: "X002", Message: "a long range", Range: Range{src, long, len(src.Text) - 1}},
		{Message: "only nginx's place", At: server.End},
		{Message: "no place", Severity: Warning},
		{Message: "the end of the file", Range: Range{src, len(src.Text), len(src.Text)}},
		{Message: "of the command line", At: Range{&Source{Name: CommandLine, Text: []byte("a;")}, 1, 2}},
		{Message: strings.Repeat("m", 2000), At: server.End},
	}
	return ds
}

func TestWriteText(t *testing.T) {
	var b strings.Builder
	WriteText(&b, samples()[:9], TextOptions{Width: 80})
	golden(t, "text.golden", b.String())
	b.Reset()
	WriteText(&b, samples()[:3], TextOptions{Color: true})
	golden(t, "color.golden", b.String())
}

func TestWriteJSON(t *testing.T) {
	var b strings.Builder
	if err := WriteJSON(&b, samples()[:9]); err != nil {
		t.Fatal(err)
	}
	golden(t, "json.golden", b.String())
	b.Reset()
	if err := WriteJSON(&b, nil); err != nil || !strings.Contains(b.String(), `"diagnostics": []`) {
		t.Error(b.String(), err)
	}
}

func TestWriteNginx(t *testing.T) {
	var b strings.Builder
	for _, d := range samples() {
		WriteNginx(&b, d)
	}
	golden(t, "nginx.golden", b.String())
}

// A line of many megabytes must not be decoded for an excerpt of 80 columns.
func TestExcerptOfLongLine(t *testing.T) {
	src := &Source{Name: "t.conf", Text: []byte(strings.Repeat("\xff", 8<<20))}
	var b strings.Builder
	for at := 0; at < len(src.Text); at += 1 << 20 {
		WriteText(&b, []*Diagnostic{{Message: "m", Range: Range{src, at, len(src.Text)}}}, TextOptions{Width: 80})
	}
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(line)); n > 81 { // with the line end
			t.Fatalf("%d columns: %s", n, line)
		}
	}
}

// TestWrap breaks messages and hints between words, and no line is longer than
// the terminal is wide.
func TestWrap(t *testing.T) {
	src := &Source{Name: "/a", Text: []byte("x" + strings.Repeat(" word", 60) + ";\n")}
	d := &Diagnostic{
		Code: "X001", Message: strings.Repeat("message with several words ", 6) + strings.Repeat("l", 90) + " end", Hint: strings.Repeat("höre auf mich ", 12),
		Range: Range{src, 60, 64},
	}
	for _, width := range []int{40, 80} {
		var b strings.Builder
		WriteText(&b, []*Diagnostic{d}, TextOptions{Width: width, Wrap: true})
		for line := range strings.SplitSeq(b.String(), "\n") {
			if n := utf8.RuneCountInString(line); n > width && !strings.Contains(line, strings.Repeat("l", 90)) {
				t.Errorf("%d columns of %d: %q", n, width, line)
			}
		}
		if joined := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(joined, strings.Join(strings.Fields(d.Message), " ")) {
			t.Errorf("words are lost:\n%s", b.String())
		}
	}
}
