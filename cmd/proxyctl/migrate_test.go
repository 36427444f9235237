package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyctl/proxy"
)

func TestReadVersion(t *testing.T) {
	got := readVersion("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.11\nconfigure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf " +
		"--with-http_ssl_module --with-stream=dynamic --with-http_geoip_module=dynamic --add-dynamic-module=/build/headers-more/ --without-http_gzip_module\n")
	want := installedNginx{Version: "1.22.1", Conf: "/etc/nginx/nginx.conf", Prefix: "/usr/share/nginx", Without: []string{"http_gzip_module"}, Modules: []string{"http_ssl_module", "stream", "http_geoip_module", "headers-more"}}
	want.confArgument, want.ThirdParty = "/etc/nginx/nginx.conf", []string{"headers-more"}
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
	if want := []string{"-c", "etc/site.conf", "-g", "daemon off;"}; !slices.Equal(n.options, want) || n.Since != nil {
		t.Errorf("options %q, want %q; since %v", n.options, want, n.Since)
	}
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

// dumped is what "nginx -TV" prints of a small configuration.
const dumped = `nginx version: nginx/1.22.1
built with OpenSSL 3.0.11
configure arguments: --prefix=/usr/share/nginx --add-dynamic-module=/build/headers-more-nginx-module/ --add-module=../ngx_brotli
nginx: the configuration file /etc/nginx/nginx.conf syntax is ok
nginx: configuration file /etc/nginx/nginx.conf test is successful
# configuration file /etc/nginx/nginx.conf:
load_module modules/ngx_stream_module.so;
user nobody-here;
events {}
http {
	include mime.types;
	include sites/*.conf;
	more_set_headers "A: b";
}
# configuration file /etc/nginx/mime.types:
types { text/html html; }

# configuration file /etc/nginx/sites/a.conf:
server {
	listen 443 ssl;
	server_name a.test;
	ssl_certificate /none/a.crt;
	ssl_certificate_key /none/a.key;
	ssl_dhparam /none/dh.pem;
	location / { proxy_pass http://backend.internal.invalid:8080; }
}
`

// TestMigrateCheckDump: what "nginx -TV" has printed elsewhere is read in place of
// files, and what only that machine has is no mistake.
func TestMigrateCheckDump(t *testing.T) {
	t.Chdir(t.TempDir())
	out, code := runCommand(t, migrateCheckCommand(), dumped, "--nginx", "/nonexistent", "--format", "json", "-")
	var r migration
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err, out)
	}
	if code != 1 || len(r.Errors) != 1 || r.Errors[0].Place != "/etc/nginx/nginx.conf:7" || r.Nginx.Version != "1.22.1" || r.File != "/etc/nginx/nginx.conf" {
		t.Errorf("exit %d\n%s", code, out)
	}
	if want := []string{"/etc/nginx/nginx.conf", "/etc/nginx/mime.types", "/etc/nginx/sites/a.conf"}; !slices.Equal(r.Files, want) {
		t.Errorf("files %q, want %q", r.Files, want)
	}
	want := []proxy.ModuleUse{
		{Name: "ngx_stream_module", Place: "/etc/nginx/nginx.conf:1", Own: true},
		{Name: "headers-more-nginx-module", Uses: 1, Directives: []string{"more_set_headers"}},
		{Name: "ngx_brotli"},
	}
	if diff := cmp.Diff(want, r.Modules); diff != "" {
		t.Error(diff)
	}
	served := strings.ReplaceAll(strings.Replace(dumped, "more_set_headers \"A: b\";", "", 1), "\n", "\r\n")
	if err := os.WriteFile("saved.txt", []byte("\ufeff"+served), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code = runCommand(t, migrateCheckCommand(), "", "--nginx", "/nonexistent", "saved.txt")
	if code != 0 || !strings.Contains(out, "on another machine") || !strings.Contains(out, "3 files") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, code = runCommand(t, migrateCheckCommand(), soundSite, "--nginx", "/nonexistent", "-"); code != 0 || strings.Contains(out, "another machine") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestReadDump(t *testing.T) {
	for text, want := range map[string]string{
		"# configuration file /a:\nx;\n": "/a=x;",
		"nginx: ok\n2026/01/02 03:04:05 [warn] 1#1: low\n# configuration file /a:\nx;\n\n# configuration file /b c:\ny;": "/a=x;\n|/b c=y;",
		"# configuration file /a:\nx;\n\n# configuration file /a:\ny;\n":                                                 "/a=x;\n",
		"events {}\n# configuration file /a:\n":                                                                          "no dump",
		"# configuration file a:\n":                                                                                      "no dump",
		"":                                                                                                               "no dump",
		"nginx: [emerg] unknown directive \"x\" in /a:1\n":                                                               `nginx has printed no configuration, but: nginx: [emerg] unknown directive "x" in /a:1`,
	} {
		d, ok, err := readDump([]byte(text))
		got := "no dump"
		if err != nil {
			got = err.Error()
		}
		if ok {
			var files []string
			for _, name := range d.names {
				files = append(files, name+"="+string(d.texts[name]))
			}
			got = strings.Join(files, "|")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzReadDump: no byte of a file is made up, and none comes into two.
func FuzzReadDump(f *testing.F) {
	f.Add(dumped)
	f.Add("# configuration file /a:\r\nx;\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, ok, err := readDump([]byte(text))
		if !ok || err != nil {
			return
		}
		size := len(d.said)
		for _, name := range d.names {
			size += len(d.texts[name])
			if !strings.Contains(text, string(d.texts[name])) {
				t.Errorf("%q has no %q", text, d.texts[name])
			}
		}
		if size > len(text) || len(d.names) != len(d.texts) {
			t.Errorf("%d bytes of %d in %d files", size, len(text), len(d.names))
		}
	})
}

// TestAskNginx holds what is read against what nginx reads, and when.
func TestAskNginx(t *testing.T) {
	dir := t.TempDir()
	program, conf := filepath.Join(dir, "nginx"), filepath.Join(dir, "nginx.conf")
	for name, text := range map[string]string{
		program: "#!/bin/sh\necho \"# configuration file " + conf + ":\"; echo 'events {}'; echo '# configuration file /other:'\n",
		conf:    "events {}\n", filepath.Join(dir, "broken"): "#!/bin/sh\necho 'nginx: [emerg] no' >&2; exit 1\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil { // #nosec G306 -- to be run
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	r, err := checkMigration(conf, installedNginx{Program: program, Version: "1.22.1", Conf: conf, Since: &long}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Notes {
		got = append(got, strings.ReplaceAll(f.Message, long.Format(time.DateTime), "TIME"))
	}
	want := []string{"nginx reads /other, this program does not", conf + " was changed after nginx has read it (TIME): what runs may be another configuration"}
	if diff := cmp.Diff(want, got); diff != "" || !r.Nginx.Test.OK {
		t.Error(diff, r.Nginx.Test)
	}
	r, err = checkMigration(conf, installedNginx{Program: filepath.Join(dir, "broken"), Conf: conf}, nil)
	if err != nil || len(r.Notes) != 1 || r.Notes[0].Message != "nginx itself refuses these files: nginx: [emerg] no" {
		t.Error(err, r.Notes)
	}
}

// TestContained: an nginx with another root is not asked, nor is a program of the
// same path here.
func TestContained(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"12/cmdline": "nginx: master process nginx\x00", "12/stat": "12 (nginx) S 1", "stat": "btime 1000\n",
		"14/cmdline": "nginx: worker process\x00", "14/stat": "14 (nginx (x)) S 12 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 500 0",
		"15/cmdline": "nginx: worker process\x00", "15/stat": "15 (nginx) S 12 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 400 0",
		"16/cmdline": "nginx: worker process is shutting down\x00", "16/stat": "16 (nginx) S 12 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 300 0",
	} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "self"), 0o755), os.Symlink("/", filepath.Join(dir, "self", "root")), os.Symlink(dir, filepath.Join(dir, "12", "root"))); err != nil {
		t.Fatal(err)
	}
	if n := runningNginx(dir); n.Program != "" || n.contained != 12 {
		t.Errorf("%+v", n)
	}
	if since := readingTime(dir, 12); since == nil || since.Unix() != 1004 {
		t.Errorf("read at %v", since)
	}
}
