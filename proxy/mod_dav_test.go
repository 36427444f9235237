package proxy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDAVStaysInside: an alias is not left, a file is not copied onto itself, and
// links are deleted, not what they lead to.
func TestDAVStaysInside(t *testing.T) {
	r := run(t, site(`location /files { alias %dir%/html/; dav_methods put delete copy move mkcol; } location /other/ { root %dir%/html; dav_methods delete copy; }`))
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", "kept")
	write("html/other/a", "text")
	write("html/other/in/b", "text")
	for name, target := range map[string]string{"html/other/link": "a", "html/other/in/out": "../../../secret", "html/other/in/gone": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ method, uri, fields, want string }{
		{"PUT", "/files../secret", "Content-Length: 1\r\n\r\nx", "404"},
		{"DELETE", "/files../secret", "", "404"},
		{"MKCOL", "/files../made/", "", "404"},
		{"COPY", "/files../secret", "Destination: /files/x\r\n", "404"},
		{"MOVE", "/files/other/a", "Destination: /files../x\r\n", "404"},
		{"COPY", "/other/a", "Destination: /other/link\r\n", "403"},
		{"COPY", "/other/in/", "Destination: /other/copy/\r\n", "201"},
		{"DELETE", "/other/in/", "", "204"},
	} {
		got := r.ask("s", tt.method+" "+tt.uri+" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"+tt.fields+"\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+tt.want+" ") {
			t.Errorf("%s %s: got %q, want %s", tt.method, tt.uri, got, tt.want)
		}
	}
	if r.read("secret") != "kept" || r.read("html/other/a") != "text" || r.read("html/other/copy/b") != "text" {
		t.Error("files were changed")
	}
	for _, name := range []string{"made", "x", "html/other/in", "html/other/copy/out"} {
		if _, err := os.Lstat(filepath.Join(r.dir, name)); err == nil {
			t.Errorf("there is %s", name)
		}
	}
}
