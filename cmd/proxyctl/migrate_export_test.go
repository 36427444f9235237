package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyctl/cmd/proxyctl/export"
)

// TestExport has the real servers answer what this one answers under the same
// examples. Those that are not installed are left out.
func TestExport(t *testing.T) {
	servers := map[string][]string{
		"caddyfile": {"caddy", "run", "--adapter", "caddyfile", "--config"},
		"haproxy":   {"haproxy", "-db", "-f"},
	}
	paths := map[string][]string{
		"reverse-proxy":  {"app.example.com/x?y", "app.example.com/docs/intro", "app.example.com/docs", "other.test/"},
		"websocket":      {"chat.example.com/", "chat.example.com/ws/"},
		"load-balancing": {"any/"},
		"many-sites":     {"www.example.com/", "blog.example.com/", "a.b.example.com/", "ann.users.example.org/", "nobody.test/"},
		"path-routing": {
			"a/health", "a//health", "a/healthy", "a/api", "a/api?x", "a/users/7", "a/users/7/x", "a/users/x", "a/static/a.png", "a/a.PNG", "a/old/page", "a/old/page?a=b", "a/api/x", "a/api/", "a/STATIC/", "a/%75sers/8",
		},
	}
	partial := map[string]string{"caddyfile load-balancing": "server", "haproxy load-balancing": "add_header"}
	for target, command := range servers {
		program, err := exec.LookPath(command[0])
		if err != nil {
			t.Logf("%s is not installed", command[0])
			continue
		}
		for name, asks := range paths {
			t.Run(target+"/"+name, func(t *testing.T) {
				conf, port := localExample(t, filepath.Join("../../examples", name, "nginx.conf"))
				args := []string{"--to", target, conf}
				if left := partial[target+" "+name]; left != "" {
					args = append(args, "--partial", left)
				}
				text, code := runCommand(t, migrateExportCommand(), "", args...)
				if code != 0 {
					t.Fatalf("exit %d\n%s", code, text)
				}
				theirs := strconv.Itoa(unusedPort(t))
				text = strings.ReplaceAll(text, ":"+port, ":"+theirs)
				if target == "caddyfile" {
					text = strings.Replace(text, "{\n", "{\n\tadmin off\n", 1)
				}
				file := filepath.Join(t.TempDir(), "exported")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("HOME", t.TempDir())
				serveFile(t, conf, port)
				runUntilEnd(t, theirs, program, append(command[1:], file)...)
				for _, a := range asks {
					host, path, _ := strings.Cut(a, "/")
					want, got := essence(askServer(t, port, host, "/"+path)), essence(askServer(t, theirs, host, "/"+path))
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s: %s", a, diff)
					}
				}
				if t.Failed() {
					t.Log(text)
				}
			})
		}
	}
}

// essence is what has to be the same: status, where a redirect leads, the body
// of an answer, and of what an upstream shows the line and the host.
func essence(answer string) string {
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	status, _, _ := strings.Cut(head, " ")
	if location := regexp.MustCompile(`(?mi)^Location: (?:http://[^/]*)?(.*?)\r?$`).FindStringSubmatch(head); location != nil {
		return status + " " + location[1]
	}
	if line := regexp.MustCompile(`[A-Z]+ /\S* HTTP/1\.[01]`).FindString(body); line != "" {
		host := regexp.MustCompile(`(?m)^Host: \S*`).FindString(body)
		return status + " " + line + " " + host
	}
	if status == "200" {
		return status + " " + body
	}
	return status
}

// TestExportRefuses names what has no equivalent, what protects first, and writes
// nothing unless it is told to leave it out.
func TestExportRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	const text = `limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s;
server {
    listen 8080;
    server_name a.test;
    location / { proxy_pass http://10.0.0.1:5000; auth_basic closed; auth_basic_user_file users; }
    location /limited { limit_req zone=z; proxy_pass http://10.0.0.1:5000; }
    location /own/ { internal; root /srv; }
    location ~ ^/(?!open) { deny all; proxy_pass http://10.0.0.1:5000; }
    location /left { deny all; proxy_pass http://unix:/run/x:; }
    location /kept { proxy_cookie_path / /x; allow 10.0.0.0/8; deny all; proxy_pass http://10.0.0.1:5000/there; }
}
`
	if err := os.WriteFile("site.conf", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	protection := []string{"auth_basic", "auth_basic_user_file", "limit_req", "internal"}
	for _, target := range export.Targets() {
		out, code := runCommand(t, migrateExportCommand(), "", "--to", target, "site.conf")
		if code != 1 || strings.Contains(out, "10.0.0.1:5000 {") || !strings.Contains(out, "Nothing was written") {
			t.Errorf("%s: exit %d\n%s", target, code, out)
		}
		for _, name := range protection {
			if !regexp.MustCompile(`site.conf:\d+: error \(protection\): ` + name + ` `).MatchString(out) {
				t.Errorf("%s: %s is not refused\n%s", target, name, out)
			}
		}
		if !strings.Contains(out, "proxy_cookie_path / /x cannot be said") {
			t.Errorf("%s: proxy_cookie_path is not refused\n%s", target, out)
		}
		all := "auth_basic,auth_basic_user_file,limit_req,limit_req_zone,internal,proxy_cookie_path,deny,root,proxy_pass,return"
		out, code = runCommand(t, migrateExportCommand(), "", "--to", target, "--partial", all, "site.conf")
		if code != 0 || strings.Count(out, "# LEFT OUT: ") < len(protection) || !strings.Contains(out, "there") ||
			target != "gateway-api" && !strings.Contains(out, "503") {
			t.Errorf("%s: exit %d\n%s", target, code, out)
		}
	}
	if out, code := runCommand(t, migrateExportCommand(), "", "--to", "apache", "site.conf"); code != 2 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, code := runCommand(t, migrateExportCommand(), "", "--to", "haproxy", "none.conf"); code != 1 {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// TestExportGateway shows all that the Gateway API has words for.
func TestExportGateway(t *testing.T) {
	t.Chdir(t.TempDir())
	const text = `upstream app { server 10.0.0.1:5000 weight=2; server 10.0.0.2:5000; }
server { listen 80; server_name a.test *.b.test; location / { return 301 https://$host$request_uri; } }
server {
    listen 8080;
    add_header X-Frame-Options DENY always;
    location /api/ { proxy_pass http://app/v1/; proxy_set_header Host $host; proxy_set_header X-By gateway; proxy_set_header Cookie ""; }
    location = /old { return 302 /new; }
}
`
	const want = `# Resources of the Gateway API, from nginx's site.conf
# LEFT OUT: root html (site.conf:3): a gateway serves no files

apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: web
spec:
  gatewayClassName: web # name the class of your controller here
  listeners:
  - name: port-80 # site.conf:2
    port: 80
    protocol: HTTP
  - name: port-8080 # site.conf:3
    port: 8080
    protocol: HTTP
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute # site.conf:2
metadata:
  name: s1
spec:
  parentRefs:
  - name: web
    sectionName: port-80
  # nginx gives this server the names that nobody has, too; here they are answered 404
  hostnames: # site.conf:2
  - "a.test"
  - "*.b.test"
  rules:
  - matches: # site.conf:2
    - path:
        type: PathPrefix
        value: "/"
    filters:
    - type: RequestRedirect # site.conf:2
      requestRedirect:
        statusCode: 301
        scheme: https
        port: 443
---
apiVersion: gateway.networking.k8s.io/v1
`
	if err := os.WriteFile("site.conf", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := runCommand(t, migrateExportCommand(), "", "--to", "gateway-api", "--partial", "root", "site.conf")
	if got, _, _ := strings.Cut(out, "kind: HTTPRoute # site.conf:3"); code != 0 || got != want {
		t.Errorf("exit %d\n%s", code, cmp.Diff(want, got))
	}
	for _, part := range []string{
		"  - matches: # site.conf:6\n    - path:\n        type: PathPrefix\n        value: \"/api\"\n    filters:\n    - type: RequestHeaderModifier\n",
		"        set:\n        - name: \"X-By\" # site.conf:6\n          value: \"gateway\"\n        remove:\n        - \"Cookie\" # site.conf:6\n",
		"          type: ReplacePrefixMatch\n          replacePrefixMatch: \"/v1/\"\n",
		"    - name: s2r3-1 # site.conf:1\n      port: 5000\n      weight: 2\n    - name: s2r3-2 # site.conf:1\n",
		"        add:\n        - name: \"X-Frame-Options\" # site.conf:5\n",
		"          type: ReplaceFullPath\n          replaceFullPath: \"/new\"\n",
		"    kubernetes.io/service-name: s2r3-1\naddressType: IPv4\n",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no\n%s in\n%s", part, out)
		}
	}
}
