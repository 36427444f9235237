package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"proxyctl/cmd/proxyctl/verify"
)

// verifyHere runs "migrate verify" on a file and gives its report.
func verifyHere(t *testing.T, conf string, args ...string) (*verify.Report, int) {
	t.Helper()
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("proxyctl", append([]string{"migrate", "verify", "--nginx", installed, "-c", conf, "-p", t.TempDir(), "--format", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	code := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "TMPDIR=")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	r := new(verify.Report)
	if err := json.Unmarshal(out, r); err != nil {
		t.Fatalf("%v, status %d\n%s%s", err, code, out, said.String())
	}
	return r, code
}

func writeConf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "nginx.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestVerifyExamples: the sites that others try first are served as the
// installed nginx serves them.
func TestVerifyExamples(t *testing.T) {
	for _, name := range []string{"certbot-site", "load-balancing", "many-sites", "path-routing", "reverse-proxy", "websocket"} {
		t.Run(name, func(t *testing.T) {
			r, code := verifyHere(t, "../../examples/"+name+"/nginx.conf")
			for _, d := range r.Differences {
				t.Errorf("%s: nginx %q, here %q\n%s", d.What, d.Nginx, d.Here, d.Try)
			}
			if code != 0 || r.Servers.Reached != r.Servers.Of || r.Locations.Reached != r.Locations.Of || r.Compared < 50 {
				t.Errorf("status %d, %d requests, servers %v, locations %v: %v", code, r.Compared, r.Servers, r.Locations, r.NotReached)
			}
		})
	}
}

// TestVerifyFinds: each kind of block and of input is reached, also by a log.
func TestVerifyFinds(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"html/index.html": "<p>index</p>", "html/a.txt": "0123456789", "html/sub/index.html": "sub"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := writeConf(t, strings.ReplaceAll(`
events {}
http {
	log_format own '$host "$request_method $request_uri" $http_x_tag $status';
	map $http_x_kind $kind { hostnames; default none; .a.test a; "~^b+$" b; }
	map $http_upgrade $up { default upgrade; "" close; }
	upstream app { server 192.0.2.1:80; server app.invalid:81; }
	server {
		listen 80 default_server;
		listen [::]:80;
		server_name a.test *.b.test ~^(?<sub>[a-z]+)\.c\.test$;
		root DIR/html;
		rewrite ^/old/(.*)$ /new/$1 last;
		if ($http_user_agent ~* "badbot|evil") { return 403; }
		location / { try_files $uri $uri/ @app; }
		location = /exact { return 200 "exact $kind $sub"; }
		location ^~ /files/ { alias DIR/html/; expires 1h; }
		location ~ ^/u/(\d+)/(?<tail>[a-z]+)$ { return 200 "$1 $tail"; }
		location ~* \.(php|cgi)$ { deny all; }
		location /new/ { proxy_pass http://app/moved/; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up; proxy_intercept_errors on; error_page 500 502 /50x; }
		location = /50x { internal; return 200 "sorry"; }
		location /dynamic { proxy_pass http://$host:8080$request_uri; }
		location @app { proxy_pass https://192.0.2.2; }
	}
	server { listen 443 ssl; server_name a.test; ssl_certificate DIR/none.crt; ssl_certificate_key DIR/none.key; return 200 "secret $ssl_server_name"; }
}`, "DIR", dir))
	log := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(log, []byte("www.b.test \"GET /new/x?y\" tag 200\na.test \"POST /new/\" - 200\nwww.b.test \"GET /new/x?y\" tag 200\nelse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, code := verifyHere(t, conf, "--log", log)
	for _, d := range r.Differences {
		t.Errorf("%s: nginx %q, here %q\n%s\n%s", d.What, d.Nginx, d.Here, d.About, d.Try)
	}
	if code != 0 || r.Servers.Reached != 2 || r.Locations.Reached < r.Locations.Of-1 {
		t.Errorf("status %d, servers %v, locations %v: %v", code, r.Servers, r.Locations, r.NotReached)
	}
	if l := r.Log; l == nil || l.Format != "own" || l.Lines != 4 || l.Replayed != 1 || l.NotSafe != 1 || l.Repeated != 1 || l.NotUnderstood != 1 {
		t.Errorf("log: %+v", l)
	}
}

// TestVerifyRefuses tells first what keeps the two from being compared.
func TestVerifyRefuses(t *testing.T) {
	run := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command("proxyctl", append([]string{"migrate", "verify"}, args...)...).CombinedOutput()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	good := writeConf(t, "events {} http { server { listen 80; } }")
	run("/none/nginx is no nginx that can be run", "-c", good, "--nginx", "/none/nginx")
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	run("perl_modules", "-c", writeConf(t, "events {} http { perl_modules x; server { listen 80; } }"), "--nginx", installed)
	run("cannot be served here", "-c", writeConf(t, "events {} http { server { listen 80 } }"), "--nginx", installed)
	run("nginx does not start", "-c", writeConf(t, "events {} http { acme_issuer a { uri https://a.test/; } server { listen 80; } }"), "--nginx", installed)
	run("listens nowhere", "-c", writeConf(t, "events {} http { }"), "--nginx", installed)
}

// TestVerifyInterrupted: a signal leaves neither processes nor files behind.
func TestVerifyInterrupted(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	var servers strings.Builder
	for i := range 400 {
		fmt.Fprintf(&servers, "server { listen 80; server_name s%d.test; location / { return 200; } }\n", i)
	}
	scratch := t.TempDir()
	cmd := exec.Command("proxyctl", "migrate", "verify", "--nginx", installed, "-p", t.TempDir(), "-c", writeConf(t, "events {} http { "+servers.String()+" }"))
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for range 1000 {
		names, _ := filepath.Glob(scratch + "/*/run/pid")
		if len(names) > 0 {
			text, _ := os.ReadFile(names[0])
			if pid, _ = strconv.Atoi(strings.TrimSpace(string(text))); pid != 0 {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	if pid == 0 {
		t.Error("nginx was not started")
	}
	_ = cmd.Process.Signal(os.Interrupt)
	exit := new(exec.ExitError)
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ends with %v", err)
	}
	if left, _ := os.ReadDir(scratch); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if pid != 0 && syscall.Kill(pid, 0) == nil {
		t.Error("nginx is left behind")
	}
}

// TestVerifyShows: one block for each kind of difference, with the place it
// comes from. A program that changes the file before it serves it stands for
// one that differs.
func TestVerifyShows(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	conf := writeConf(t, `events {} http {
		server { listen 80; server_name a.test;
			location /a { return 200 answer; }
			location /b { return 200 answer; }
			location /c { proxy_set_header X-One 1; proxy_pass http://192.0.2.1; }
			location /d { add_header X-Two 2; return 302 /; }
		} }`)
	other := filepath.Join(t.TempDir(), "other")
	script := "#!/bin/sh\nother=$2.other\nsed -e 's/200 answer/200 else/; s/X-One 1/X-One 9/; s/302/307/' \"$2\" > \"$other\"\nshift 2\nexec " + installed + " -c \"$other\" \"$@\"\n"
	if err := os.WriteFile(other, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	v := verifying{conf: conf, prefix: t.TempDir(), program: installed, budget: 30 * time.Second, most: 1000}
	o, err := v.options()
	if err != nil {
		t.Fatal(err)
	}
	o.Ours = verify.Program{Name: "the other", Path: other, Arg0: other}
	r, err := verify.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, d := range r.Differences {
		fmt.Fprintf(&got, "%s: %s, %s; %s; %d others; %s\n", d.What, d.Nginx, d.Here, strings.ReplaceAll(d.Location, conf, "FILE"), len(d.Others), d.Try)
	}
	const want = `body: "answer" (6 bytes), "else" (4 bytes); location /a (FILE:3); 1 others; curl -i --path-as-is --resolve a.test:80:127.0.0.1 http://a.test/ax
upstream field X-One: X-One: 1, X-One: 9; location /c (FILE:5); 1 others; curl -i --path-as-is --resolve a.test:80:127.0.0.1 http://a.test/cx
status: HTTP/1.1 302 Moved Temporarily, HTTP/1.1 307 Temporary Redirect; location /d (FILE:6); 0 others; curl -i --path-as-is --resolve a.test:80:127.0.0.1 http://a.test/dx
`
	if !strings.HasPrefix(got.String(), want) {
		t.Errorf("got\n%s", got.String())
	}
	var text strings.Builder
	verify.Write(&text, r, false)
	if !strings.Contains(text.String(), "differs: body") || !strings.Contains(text.String(), "  also   "+conf+":4") {
		t.Errorf("got\n%s", text.String())
	}
}

// TestVerifyRealUpstreams: upstreams get what asks, nothing else; by default
// they get nothing.
func TestVerifyRealUpstreams(t *testing.T) {
	var mu sync.Mutex
	counts := map[string]int{}
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		counts[r.Method]++
	}))
	asked := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(counts)
	}
	defer app.Close()
	conf := writeConf(t, "events {} http { upstream a { server "+app.Listener.Addr().String()+"; } server { listen 80; location / { proxy_pass http://a; } location /b { proxy_pass "+app.URL+"; } } }")
	r, code := verifyHere(t, conf)
	if got := asked(); code != 0 || len(got) > 0 {
		t.Errorf("status %d, %v; asked %v", code, r.Differences, got)
	}
	r, code = verifyHere(t, conf, "--upstreams", "real")
	if got := asked(); got[http.MethodGet] < 10 || got[http.MethodHead] == 0 || len(got) != 2 || code != 0 {
		t.Errorf("status %d, %v; asked %v", code, r.Differences, got)
	}
}
