package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyctl/cmd/proxyctl/export"
)

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
	if err := os.WriteFile("users", []byte("joe:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range export.Targets() {
		protection := []string{"limit_req", "internal", map[bool]string{true: "auth_basic", false: "auth_basic_user_file"}[target == "gateway-api"]}
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
		all := "auth_basic,auth_basic_user_file,limit_req,limit_req_zone,internal,proxy_cookie_path,deny,location,server,return"
		out, code = runCommand(t, migrateExportCommand(), "", "--to", target, "--partial", all, "site.conf")
		if code != 0 || strings.Count(out, "# LEFT OUT: ") < len(protection) || !strings.Contains(out, "there") {
			t.Errorf("%s: exit %d\n%s", target, code, out)
		}
	}
	if out, code := runCommand(t, migrateExportCommand(), "", "--to", "apache", "site.conf"); code != 2 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if err := os.WriteFile("stream.conf", []byte("events {}\nstream {\n    server {\n        listen 8080;\n        proxy_pass 10.0.0.1:5000;\n    }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := runCommand(t, migrateExportCommand(), "", "--to", "caddyfile", "stream.conf"); code != 1 || !strings.Contains(out, "no server of HTTP listens") {
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
  # all hosts that no other route names
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
