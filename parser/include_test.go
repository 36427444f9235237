package parser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// memory gives the hooks for files that are in memory only.
func memory(files map[string]string) Options {
	return Options{
		Dir: "/e",
		ReadFile: func(name string) ([]byte, error) {
			text, ok := files[name]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
			}
			if text == "forbidden" {
				return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
			}
			return []byte(text), nil
		},
		Glob: func(pattern string) ([]string, error) {
			var found []string
			for _, name := range []string{"/e/a", "/e/b", "/e/c"} {
				if _, ok := files[name]; ok && fnmatch(pattern[3:], name[3:]) {
					found = append(found, name)
				}
			}
			return found, nil
		},
	}
}

// expanded writes the names of the statements in reading order.
func expanded(b *Block) string {
	var s []string
	var block func(b *Block)
	block = func(b *Block) {
		for _, d := range b.Items {
			switch {
			case d.Err != nil:
				s = append(s, "!")
			case d.Files == nil:
				s = append(s, d.Name.Value)
			}
			for _, f := range d.Files {
				s = append(s, "<")
				block(f.Body)
				s = append(s, ">")
			}
			if d.Block != nil {
				block(d.Block)
			}
		}
	}
	block(b)
	return strings.Join(s, " ")
}

func TestInclude(t *testing.T) {
	files := map[string]string{
		"/e/a": "a1; include d/n; a2;", "/e/b": "forbidden", "/e/c": "c1; } c2",
		"/e/d/n": "n { include m; }", "/e/m": "m;", "/x": "x;",
	}
	for _, c := range []struct{ text, want string }{
		{"include a; z;", "< a1 < n < m > > a2 > z"},
		{"include 'a';", "< a1 < n < m > > a2 >"},
		{"include /x; include \"/x\\x\";", "< x > !"},
		{"include [abc]; z;", "< a1 < n < m > > a2 > < ! > < c1 ! ! > z"},
		{"include q*; z;", "z"},
		{"include nope; z;", "! z"},
		{"include b; z;", "! z"},
		{"include a b; include; include a {}", "include include include"},
		{"map $a $b { include m; } types { include m; }", "map < m > types < m >"},
		{"split_clients $a $b { include m; } charset_map a b { include m; }", "split_clients include charset_map include"},
		{"include \"m\x00x\";", "< m >"},
	} {
		f := Parse(&Source{Name: "/e/main", Text: []byte(c.text)}, memory(files))
		if got := expanded(f.Body); got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestIncludeErrors(t *testing.T) {
	files := map[string]string{"/e/b": "forbidden", "/e/loop": "\ninclude loop2;", "/e/loop2": "include ./loop;"}
	for _, c := range []struct{ text, want, code string }{
		{"\ninclude\n b\n;", `open() "/e/b" failed (13: Permission denied) in /e/main:4`, "Y015"},
		{"include [b];", `open() "/e/b" failed (13: Permission denied) in /e/main:1`, "Y015"},
		{"include loop;", `"/e/./loop" includes itself through other files in /e/loop2:1`, "Y021"},
		{"include main;", `"/e/main" includes itself in /e/main:1`, "Y021"},
	} {
		f := Parse(&Source{Name: "/e/main", Text: []byte(c.text)}, memory(files))
		all := problems(f)
		if len(all) != 1 || all[0].Error() != c.want || all[0].Code != c.code {
			t.Errorf("%q: %v", c.text, all)
		}
	}
	f := ParseFile("/e/none", memory(files))
	d := firstProblem(f)
	if d == nil || d.Error() != `open() "/e/none" failed (2: No such file or directory)` || len(Sources(f)) != 0 {
		t.Error(d)
	}
	for err, want := range map[error]string{
		fs.ErrNotExist:    " (2: No such file or directory)",
		fs.ErrPermission:  " (13: Permission denied)",
		syscall.EIO:       " (5: Input/output error)",
		errors.New("odd"): " (odd)",
	} {
		if got := errnoText(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	o := memory(map[string]string{"/e/b": "forbidden"})
	o.Missing = func(name string) ([]byte, bool) {
		return []byte("given;"), name == "/etc/letsencrypt/o.conf" || name == "/e/b"
	}
	f := Parse(&Source{Name: "/e/main", Text: []byte("include /etc/letsencrypt/o.conf; include b; include c;")}, o)
	if got := expanded(f.Body); got != "< given > ! !" {
		t.Error(got)
	}
}

// A few lines that double at every level must not take memory without end.
func TestIncludeLimits(t *testing.T) {
	files := map[string]string{"/e/f40": "x;"}
	for i := range 40 {
		files[fmt.Sprintf("/e/f%d", i)] = strings.Repeat(fmt.Sprintf("include f%d;", i+1), 2)
	}
	l := newLoader(&Source{Name: "/e/main"}, memory(files))
	l.files = maxFiles - 1000
	f := l.parse(&Source{Name: "/e/main", Text: []byte("include f0;")})
	all := problems(f)
	if len(all) != 1 || all[0].Code != codeTooMany || l.files != maxFiles {
		t.Errorf("%d problems after %d files: %v", len(all), l.files, all)
	}
	for i := range 200 {
		files[fmt.Sprintf("/e/f%d", i)] = fmt.Sprintf("include f%d;", i+1)
	}
	all = problems(Parse(&Source{Name: "/e/main", Text: []byte("include f0;")}, memory(files)))
	if len(all) != 1 || !strings.Contains(all[0].Message, "nested more than 100 deep") {
		t.Error(all)
	}
}

func TestSourcesAndOrder(t *testing.T) {
	files := map[string]string{"/e/a": "a; include c; ;", "/e/b": "\n\n;", "/e/c": ";", "/e/main": "; include [ab]; include c; include a; {}"}
	f := ParseFile("/e/main", memory(files))
	var names []string
	for _, s := range Sources(f) {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"/e/main", "/e/a", "/e/c", "/e/b"}, names); diff != "" {
		t.Error(diff)
	}
	all := problems(f)
	if len(all) != 8 {
		t.Fatal(len(all), all)
	}
	for i, a := range all {
		for j, b := range all {
			if got := Compare(a.At, b.At); got != sign(i-j) {
				t.Errorf("Compare(%v, %v) = %d", a, b, got)
			}
		}
	}
	if Compare(Range{}, all[0].At) != 1 || Compare(all[0].At, Range{}) != -1 || Compare(Range{}, Range{}) != 0 {
		t.Error("no place comes last")
	}
	inner := all[2].At // in c, which is included by a
	chain := []string{}
	for s := inner.Source; s != nil; s = s.IncludedAt.Source {
		chain = append(chain, s.Name)
	}
	if diff := cmp.Diff([]string{"/e/a", "/e/main"}, chain); diff != "" {
		t.Error(diff)
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"main": "include d; include s/*.conf; include s/[!a].conf;", "s/b.conf": "b;", "s/a.conf": "a;", "s/.h.conf": "h;"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := ParseFile(filepath.Join(dir, "main"), Options{})
	if got := expanded(f.Body); got != "! < a > < b > < b >" {
		t.Error(got)
	}
	var b strings.Builder
	WriteNginx(&b, firstProblem(f))
	if want := "nginx: [crit] pread() \"" + dir + "/d\" failed (21: Is a directory)\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.conf", "B.conf", "_.conf", ".h.conf", "10.conf", "9.conf", "[x.conf", "s*r.conf", "d/x", "e/x", "e/.y", "d2"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string]string{
		"*.conf":            "10.conf 9.conf B.conf [x.conf _.conf a.conf s*r.conf",
		".*.conf":           ".h.conf",
		"?.conf":            "9.conf B.conf _.conf a.conf",
		"[!0-9]*.conf":      "B.conf [x.conf _.conf a.conf s*r.conf",
		"[^[:alpha:]].conf": "9.conf _.conf",
		"[]a_].conf":        "_.conf a.conf",
		"[x.conf":           "[x.conf",
		`s\*r*`:             "s*r.conf",
		`\a.con[f]`:         "a.conf",
		"[[.a.]-c].conf":    "a.conf",
		"*/x":               "d/x e/x",
		"*/*":               "d/x e/x",
		"[de]/*":            "d/x e/x",
		"nope/*":            "",
		"*.c[onf":           "",
		"a.conf/*":          "",
		"[z-a]*":            "",
		"*/":                "d/ e/",
		"d*":                "d d2",
	} {
		got, err := glob(dir + "/" + pattern)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], dir+"/")
		}
		if s := strings.Join(got, " "); s != want || err != nil {
			t.Errorf("%s: got %s, want %s", pattern, s, want)
		}
	}
	if !fnmatch(strings.Repeat("*a", 30)+"*", strings.Repeat("a", 1000)) || fnmatch(strings.Repeat("*a", 30)+"b", strings.Repeat("a", 5000)) {
		t.Error("many stars")
	}
}

func TestAmong(t *testing.T) {
	names := []string{"/e/sites/b.conf", "/e/sites/a.conf", "/e/sites/.hidden.conf", "/e/sites/sub/c.conf", "/e/x[1].conf", "/e/nginx.conf"}
	for pattern, want := range map[string]string{
		"/e/sites/*.conf": "/e/sites/a.conf /e/sites/b.conf", "/e/*/[!b].conf": "/e/sites/a.conf", "/e/*/*/*": "/e/sites/sub/c.conf",
		`/e/x\[1].conf`: "/e/x[1].conf", "/e/*": "/e/nginx.conf /e/x[1].conf", "/none/*": "", "/e/sites/a.conf/*": "",
	} {
		if got := strings.Join(Among(pattern, names), " "); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}
