package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestDiffCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	const old = `
gzip on;
upstream app { server 10.0.0.1:80; server 10.0.0.2:80; }
server {
    listen 80;
    server_name a.test;
    client_max_body_size 1024k;
    location / { proxy_set_header Host $host; proxy_read_timeout 1m; proxy_pass http://app; }
    location /x { proxy_set_header Host $host; deny all; proxy_pass http://app; }
    location ~ \.a$ { return 404; }
    location ~ \.b$ { return 404; }
}
server { listen 80; server_name b.test; return 204; }
`
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("old.conf", old)
	edit := strings.NewReplacer
	for _, tt := range []struct {
		name string
		edit *strings.Replacer
		want string // "" for no difference; lines in order
	}{
		{"nothing", edit(), ""},
		{"layout", edit("    ", " ", "{ ", "{\n# x\n"), ""},
		{"other spellings", edit("1024k", "1m", "1m;", "60s;", "gzip on", "gzip ON", "a.test", "A.test"), ""},
		{"moved outwards", edit("gzip on;\n", "gzip on; proxy_set_header Host $host;\n", "proxy_set_header Host $host; ", ""), "everywhere\n  + proxy_set_header Host $host"},
		{"servers of a group in another order", edit("server 10.0.0.1:80; server 10.0.0.2:80;", "server 10.0.0.2:80; server 10.0.0.1:80;"), ""},
		{"an inherited setting", edit("gzip on", "gzip off"), "everywhere\n  - gzip on  old.conf:2\n  + gzip off"},
		{"an upstream", edit("10.0.0.2:80", "10.0.0.3:80"), "upstream app\n  - server 10.0.0.1:80\n  - server 10.0.0.2:80\n  + server 10.0.0.1:80\n  + server 10.0.0.3:80"},
		{"access", edit("deny all; ", ""), "server a.test, location /x\n  - deny all"},
		{"a location goes", edit("location ~ \\.b$ { return 404; }", ""), "server a.test\n  - order of expressions: location ~ \\.a$\n  - order of expressions: location ~ \\.b$\n  - location ~ \\.b$"},
		{"the default server", edit("listen 80; server_name b", "listen 80 default_server; server_name b"), "unknown names on *:80: server a.test"},
		{"a server comes", edit("server { listen 80; server_name b", "server { listen 81; server_name c.test; } server { listen 80; server_name b"), "+ server c.test"},
	} {
		write("new.conf", tt.edit.Replace(old))
		out, code := runCommand(t, diffCommand(), "", "old.conf", "new.conf")
		if tt.want == "" {
			if code != 0 || out != "both mean the same\n" {
				t.Errorf("%s: exit %d\n%s", tt.name, code, out)
			}
			continue
		}
		rest := out
		for line := range strings.SplitSeq(tt.want, "\n") {
			_, after, found := strings.Cut(rest, line)
			if !found {
				t.Errorf("%s: no %q behind the rest in\n%s", tt.name, line, out)
				break
			}
			rest = after
		}
		if code != 1 {
			t.Errorf("%s: exit %d", tt.name, code)
		}
	}
	out, code := runCommand(t, diffCommand(), "", "--format", "json", "old.conf", "new.conf")
	var found []map[string]any
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != 1 || len(found) == 0 {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
	write("new.conf", "server {")
	if out, code := runCommand(t, diffCommand(), "", "old.conf", "new.conf"); code != 2 {
		t.Errorf("a broken file: exit %d\n%s", code, out)
	}
}
