package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// inNetwork runs a test once more in a network of its own, where ports 80 and
// 443 are free. It returns true there.
func inNetwork(t *testing.T) bool {
	t.Helper()
	const inside = "PROXYCTL_TEST_NETWORK"
	if os.Getenv(inside) == t.Name() {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("only root can have a network of its own")
	}
	for _, program := range []string{"unshare", "ip", "pebble", "certbot"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	if err := exec.Command("unshare", "-n", "true").Run(); err != nil {
		t.Skipf("no network of its own can be had: %v", err)
	}
	cmd := exec.Command("unshare", "-n", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// nginxTree is a server root as Certbot finds it, with this program for nginx.
type nginxTree struct {
	t            *testing.T
	dir, program string
}

func newNginxTree(t *testing.T, servers string) *nginxTree {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &nginxTree{t: t, dir: t.TempDir()}
	n.program = filepath.Join(n.dir, "bin", "nginx")
	for _, d := range []string{"bin", "conf.d"} {
		if err := os.Mkdir(filepath.Join(n.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, n.program); err != nil {
		t.Fatal(err)
	}
	n.write("nginx.conf", fmt.Sprintf("user root;\npid %[1]s/nginx.pid;\nerror_log %[1]s/error.log notice;\nevents { worker_connections 100; }\nhttp {\n    access_log off;\n    include %[1]s/conf.d/*.conf;\n}\n", n.dir))
	n.write("conf.d/site.conf", servers)
	t.Setenv("PROXYCTL_DATA", filepath.Join(n.dir, "data"))
	t.Cleanup(func() {
		_ = exec.Command(n.program, "-c", filepath.Join(n.dir, "nginx.conf"), "-s", "stop").Run()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(n.dir, "error.log"))
			conf, _ := os.ReadFile(filepath.Join(n.dir, "conf.d/site.conf"))
			t.Logf("error log:\n%s\nsite:\n%s", log, conf)
		}
	})
	return n
}

func (n *nginxTree) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// run calls the program as nginx.
func (n *nginxTree) run(args ...string) string {
	n.t.Helper()
	out, err := exec.Command(n.program, append([]string{"-c", filepath.Join(n.dir, "nginx.conf")}, args...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("nginx %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// get asks a URL of this machine; the certificate is nil for plain HTTP.
func get(url string, roots *x509.CertPool) (status int, body string, leaf *x509.Certificate, err error) {
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:"+port)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.TLS != nil {
		leaf = resp.TLS.PeerCertificates[0]
	}
	return resp.StatusCode, string(text), leaf, err
}

// underLoad asks for a page all the time, until it is told to stop; then it
// gives the failures.
func underLoad(url string, good ...int) (stop func() []string) {
	var mu sync.Mutex
	var failures []string
	done := make(chan struct{})
	var ended sync.WaitGroup
	for range 2 {
		ended.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
				status, _, _, err := get(url, nil)
				ok := false
				for _, s := range good {
					ok = ok || s == status
				}
				if !ok {
					mu.Lock()
					failures = append(failures, fmt.Sprintf("%d %v", status, err))
					mu.Unlock()
				}
			}
		})
	}
	return func() []string {
		close(done)
		ended.Wait()
		return failures
	}
}

// TestCertbotNginx: an unmodified certbot --nginx issues, redirects and renews,
// with this program for nginx and requests all the time.
func TestCertbotNginx(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	p := newPebble(t, func(c map[string]any) { c["httpPort"], c["tlsPort"] = 80, 443 })
	n := newNginxTree(t, "server {\n    listen 80;\n    server_name site.test www.site.test;\n    location / { return 200 \"served\\n\"; }\n}\n")
	le := filepath.Join(n.dir, "letsencrypt")
	if out, err := p.tryCertbot(le, "plugins"); err != nil || !strings.Contains(out, "nginx") {
		t.Skip("certbot's nginx plugin is not installed")
	}
	n.run()
	stop := underLoad("http://site.test/", 200, 301)
	driver := []string{"--nginx", "--nginx-server-root", n.dir, "--nginx-ctl", n.program}
	p.certbot(le, append([]string{"run", "-d", "site.test", "-d", "www.site.test", "--redirect"}, driver...)...)
	roots := p.roots()
	status, _, _, err := get("http://site.test/x", roots)
	if status != http.StatusMovedPermanently {
		t.Errorf("http: status %d, %v", status, err)
	}
	status, body, first, err := get("https://www.site.test/", roots)
	if status != http.StatusOK || body != "served\n" {
		t.Fatalf("https: status %d, %q, %v", status, body, err)
	}
	p.certbot(le, "renew", "--force-renewal")
	if _, _, second, err := get("https://site.test/", roots); err != nil || second.Equal(first) {
		t.Errorf("the renewed certificate is not served: %v", err)
	}
	if failures := stop(); len(failures) > 0 {
		t.Errorf("%d requests failed, first: %s", len(failures), failures[0])
	}
	n.run("-t")
}

// TestCertbotBeside: the ways to use Certbot that do not edit the file. With
// webroot its deploy hook reloads; with standalone its hooks stop the server,
// take port 80 at once, and start it again.
func TestCertbotBeside(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	p := newPebble(t, func(c map[string]any) { c["httpPort"], c["tlsPort"] = 80, 443 })
	n := newNginxTree(t, "")
	le, root := filepath.Join(n.dir, "letsencrypt"), filepath.Join(n.dir, "www")
	plain := fmt.Sprintf("server { listen 80; server_name site.test; location / { return 301 https://$host$request_uri; } location /.well-known/acme-challenge/ { root %s; } }\n", root)
	secure := fmt.Sprintf("server { listen 443 ssl; server_name site.test; ssl_certificate %[1]s/live/site.test/fullchain.pem; ssl_certificate_key %[1]s/live/site.test/privkey.pem; location / { return 200 \"served\\n\"; } }\n", le)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	n.write("conf.d/site.conf", plain)
	n.run()
	nginx := n.program + " -c " + filepath.Join(n.dir, "nginx.conf")
	p.certbot(le, "certonly", "--webroot", "-w", root, "-d", "site.test", "--deploy-hook", nginx+" -s reload")
	n.write("conf.d/site.conf", plain+secure)
	n.run("-s", "reload")
	roots := p.roots()
	served := func() *x509.Certificate {
		t.Helper()
		_, body, leaf, err := get("https://site.test/", roots)
		if err != nil || body != "served\n" {
			t.Fatalf("%q, %v", body, err)
		}
		return leaf
	}
	first := served()
	p.certbot(le, "renew", "--force-renewal")
	second := served()
	if second.Equal(first) {
		t.Error("webroot: the renewed certificate is not served")
	}
	p.certbot(le, "certonly", "--standalone", "--force-renewal", "--cert-name", "site.test", "-d", "site.test", "--pre-hook", nginx+" -s stop", "--post-hook", nginx)
	if served().Equal(second) {
		t.Error("standalone: the renewed certificate is not served")
	}
}
