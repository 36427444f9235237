package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadVersion(t *testing.T) {
	got := readVersion("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.11\nconfigure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf " +
		"--with-http_ssl_module --with-stream=dynamic --with-http_geoip_module=dynamic --add-dynamic-module=/build/headers-more/ --without-http_gzip_module\n")
	want := installedNginx{Version: "1.22.1", Conf: "/etc/nginx/nginx.conf", Prefix: "/usr/share/nginx", Without: []string{"http_gzip_module"}, Modules: []string{"http_ssl_module", "stream", "http_geoip_module", "headers-more"}}
	want.confArgument = "/etc/nginx/nginx.conf"
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(got)); diff != "" {
		t.Error(diff)
	}
}

func TestMigrateCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("fine.conf", []byte(soundSite), 0o644); err != nil {
		t.Fatal(err)
	}
	const foreign = "server { listen 8080; sendfile_max_chunk 1m; access_log logs/$host.log; access_log logs/all.log; set $evil '<script>'; return 302 \"</style><script>\"; auth_ldap \"x\"; more_set_headers \"A: b\"; location / { return 302 https://x.test$uri; } }\n"
	if err := os.WriteFile("foreign.conf", []byte(foreign), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := runCommand(t, migrateCheckCommand(), "", "--nginx", "/nonexistent", "fine.conf")
	if code != 0 || !strings.Contains(out, "can be served as it is") || !strings.Contains(out, "100%") {
		t.Errorf("exit %d\n%s", code, out)
	}
	out, code = runCommand(t, migrateCheckCommand(), "", "--nginx", "/nonexistent", "--html", "page.html", "foreign.conf")
	for _, want := range []string{"Missing protection", "auth_ldap", "auth-ldap", "more_set_headers", "headers-more", "S002", "cannot be served yet", "with a difference", "leave its folder"} {
		if !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s", code, want, out)
		}
	}
	page, err := os.ReadFile("page.html")
	if err != nil || code != 1 {
		t.Fatal(code, err)
	}
	if s := string(page); !strings.Contains(s, "more_set_headers") || strings.Contains(s, "<script") || strings.Contains(s, "http-equiv") || strings.Contains(s, "src=") || strings.Contains(s, "url(") {
		t.Errorf("the page is not whole or fetches something:\n%s", s)
	}
	out, _ = runCommand(t, migrateCheckCommand(), "", "--nginx", "/nonexistent", "--format", "json", "foreign.conf")
	if i := strings.Index(out, `"outcome": "differs"`); i < 0 || strings.Count(out, `"name": "access_log"`) != 2 {
		t.Errorf("no difference:\n%s", out)
	}
	var r migration
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Ready || len(r.Errors) != 2 || r.Directives[0].Outcome != "unknown" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRunningNginx finds a master process by its title, and its files by its
// options. A program that anybody could have written is not run.
func TestRunningNginx(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "nginx")
	script := "#!/bin/sh\necho 'nginx version: nginx/1.25.1' >&2\necho 'configure arguments: --prefix=/opt/nginx --with-http_v2_module' >&2\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil { // #nosec G306 -- to be run
		t.Fatal(err)
	}
	for pid, title := range map[string]string{"7": "nginx: worker process", "31": "nginx: master process ./nginx -g daemon off; -c etc/site.conf", "200": "nginx: master process nginx -c /other"} {
		if err := os.MkdirAll(filepath.Join(dir, "proc", pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "proc", pid, "cmdline"), []byte(title+"\x00\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(dir, "proc", pid, "exe")); err != nil {
			t.Fatal(err)
		}
	}
	n := runningNginx(filepath.Join(dir, "proc"))
	if n.Program != program || n.Version != "1.25.1" || n.Conf != "/opt/nginx/etc/site.conf" {
		t.Errorf("%+v", n)
	}
	for path, want := range map[string]bool{program: true, filepath.Join(dir, "none"): false} {
		if trusted(path) != want {
			t.Errorf("%s: trusted is %v", path, !want)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(program, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if n := runningNginx(filepath.Join(dir, "proc")); n.Program != "" {
		t.Errorf("a program of nobody's was run: %+v", n)
	}
}

func TestModernize(t *testing.T) {
	t.Chdir(t.TempDir())
	const before = `server {
    listen 443 ssl http2; # both
    listen [::]:443 ssl http2 default;
    server_name a.test;
    http2_push_preload on;
    gzip_types text/html text/css;
    location / { return 204; }
}
server {
    listen 444; ssl on; server_name b.test;
}
`
	const after = `server {
    listen 443 ssl; # both
    listen [::]:443 ssl default_server;
    http2 on;
    server_name a.test;
    gzip_types text/css;
    location / { return 204; }
}
server {
    listen 444 ssl; server_name b.test;
}
`
	if err := os.WriteFile("a.conf", []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := runCommand(t, modernizeCommand(), "", "a.conf")
	if code != 1 || !strings.Contains(out, "a.conf:2: remove http2: ") || !strings.Contains(out, "[D002]") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, code := runCommand(t, modernizeCommand(), "", "--diff", "a.conf"); code != 1 || !strings.Contains(out, "+    http2 on;\n") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, code := runCommand(t, modernizeCommand(), "", "-w", "a.conf"); code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
	text, _ := os.ReadFile("a.conf")
	if diff := cmp.Diff(after, string(text)); diff != "" {
		t.Error(diff)
	}
	if out, code := runCommand(t, modernizeCommand(), "", "a.conf"); code != 0 || out != "nothing is out of date\n" {
		t.Errorf("exit %d\n%s", code, out)
	}
}
