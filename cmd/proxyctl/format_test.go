package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormatText(t *testing.T) {
	const text = "# head\nserver{listen 80 ;\n\n\n  # inner\n server_name a\n\tb; location / {return 200 \"a  b\";} # behind\n}\n"
	const want = `# head
server {
    listen 80;

    # inner
    server_name a
        b;
    location / {
        return 200 "a  b";
    } # behind
}
`
	got, err := formatText("t.conf", text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := formatText("t.conf", "server {"); err == nil {
		t.Error("a broken file is formatted")
	}
}

// FuzzFormatText: whatever is accepted comes out the same each time.
func FuzzFormatText(f *testing.F) {
	files, _ := filepath.Glob("testdata/lint/*.conf")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a;b{c d\\\n;}#e")
	f.Fuzz(func(t *testing.T, text string) {
		once, err := formatText("t.conf", text)
		if err != nil {
			if strings.Contains(err.Error(), "not formatted") && len(text) < 2000 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if twice, err := formatText("t.conf", once); err != nil || twice != once {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func TestDiff(t *testing.T) {
	before := "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n"
	after := strings.Replace(strings.Replace(before, "2\n", "two\n", 1), "19\n", "", 1) + "end"
	var b strings.Builder
	writeDiff(&b, "f", before, after)
	const want = `--- f
+++ f
@@ -1,5 +1,5 @@
 1
-2
+two
 3
 4
 5
@@ -16,5 +16,5 @@
 16
 17
 18
-19
 20
+end
\ No newline at end of file
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	writeDiff(&b, "f", before, before)
	if b.Len() > 0 {
		t.Error("equal texts differ")
	}
}
