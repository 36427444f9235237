package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startLimit is ample: it takes a second on a machine that does nothing else.
const startLimit = 40 * time.Second

// TestTakeover: files that are not there, three names, and an authority. What
// is obtained is private, survives a restart, and goes on being served when the
// authority is away.
func TestTakeover(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "app.site.test www.site.test site.test", dir+"/live/site.test")
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	roots := p.roots()
	first := awaitTrusted(t, roots, p.tlsPort, "www.site.test", startLimit)
	if got := slices.Sorted(slices.Values(first.DNSNames)); !slices.Equal(got, []string{"app.site.test", "site.test", "www.site.test"}) {
		t.Errorf("names %q", got)
	}
	for _, want := range []string{"asking localhost by http-01", "was obtained from localhost by http-01"} {
		s.awaitLog(want, time.Second)
	}
	if strings.Contains(s.errorLog()+s.out.String(), "PRIVATE") {
		t.Error("a private key in the log")
	}
	checkPrivate(t, filepath.Join(dir, "data"))
	s.stop(syscall.SIGTERM)
	p.stop()
	startServer(t, dir, "nginx", p.environment(), "-c", conf)
	if again := awaitTrusted(t, roots, p.tlsPort, "www.site.test", startLimit); !again.Equal(first) {
		t.Error("another certificate after a restart")
	}
}

// checkPrivate sees that nobody else can read what is kept.
func checkPrivate(t *testing.T, dir string) {
	t.Helper()
	keys := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if text, _ := os.ReadFile(path); strings.Contains(string(text), "PRIVATE KEY") {
			keys++
		}
		return nil
	})
	if err != nil || keys == 0 {
		t.Errorf("%d keys, %v", keys, err)
	}
}

// TestTakeoverByTLS: nobody answers where the authority looks for HTTP-01.
func TestTakeoverByTLS(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	conf := siteConf(t, dir, unusedPort(t), p.tlsPort, "site.test", dir+"/live/site.test")
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "site.test", startLimit)
	s.awaitLog("asking localhost by tls-alpn-01", time.Second)
}

// TestTakeoverRenews: certificates of seconds are renewed in memory, and no
// handshake fails meanwhile. The server has given up root's rights.
func TestTakeoverRenews(t *testing.T) {
	t.Parallel()
	p := newPebble(t, func(c map[string]any) {
		c["certificateValidityPeriod"] = 20
		c["profiles"] = map[string]any{"default": map[string]any{"validityPeriod": 20}} // newer versions
	})
	dir := t.TempDir()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", dir+"/live/site.test")
	dropRights(t, conf)
	startServer(t, dir, "nginx", p.environment(), "-c", conf)
	roots := p.roots()
	first := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
	var handshakes atomic.Int32
	var clients sync.WaitGroup
	renewed := make(chan struct{})
	for i := range 3 {
		config := &tls.Config{ServerName: "site.test", RootCAs: roots}
		if i == 0 {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		clients.Go(func() {
			for more := true; more; time.Sleep(5 * time.Millisecond) {
				select {
				case <-renewed:
					more = false // one more
				default:
				}
				c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.tlsPort), config)
				if err != nil {
					t.Errorf("after %d handshakes: %v", handshakes.Load(), err)
					return
				}
				_ = c.Close()
				handshakes.Add(1)
			}
		})
	}
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if leaf, err := shown(p.tlsPort, "site.test"); err == nil && !leaf.Equal(first) {
			break
		}
	}
	close(renewed)
	clients.Wait()
	last := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
	if !last.NotAfter.After(first.NotAfter.Add(4*time.Second)) || handshakes.Load() < 10 {
		t.Errorf("valid until %v, then until %v; %d handshakes", first.NotAfter, last.NotAfter, handshakes.Load())
	}
}

// dropRights has a server started by root run as nobody.
func dropRights(t *testing.T, conf string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "user root;", "user nobody nogroup;", 1))
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTakeoverThroughTrouble: an authority that rejects nonces, is away for a
// while, and a server that is killed in the middle of it. The account stays.
func TestTakeoverThroughTrouble(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil, "PEBBLE_WFE_NONCEREJECT=50")
	p.stop()
	dir := t.TempDir()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", dir+"/live/site.test")
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	s.awaitLog("could not be obtained from localhost", startLimit)
	if leaf, err := shown(p.tlsPort, "site.test"); err != nil || leaf.Subject.CommonName != "waiting for a certificate" {
		t.Fatalf("no placeholder: %v %v", leaf, err)
	}
	s.stop(syscall.SIGKILL)
	p.start()
	s = startServer(t, dir, "nginx", p.environment(), "-c", conf)
	s.awaitLog("asking localhost by http-01", startLimit)
	s.stop(syscall.SIGKILL)
	s = startServer(t, dir, "nginx", p.environment(), "-c", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "site.test", 2*startLimit)
	s.stop(syscall.SIGTERM)
	keys, _ := filepath.Glob(filepath.Join(dir, "data/accounts/*/keys/*.pem"))
	if len(keys) != 1 {
		t.Errorf("account keys %q", keys)
	}
}

// TestTakeoverWithoutStorage: nothing can be kept, so nothing is asked for.
func TestTakeoverWithoutStorage(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil { // no folder can be made there
		t.Fatal(err)
	}
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", dir+"/live/site.test")
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	s.awaitLog("cannot be kept in storage", startLimit)
	time.Sleep(time.Second)
	if n := strings.Count(s.errorLog(), "cannot be kept in storage"); n > 1 {
		t.Errorf("%d tries within a second", n)
	}
	if strings.Contains(p.log.String(), "newAccount") {
		t.Error("an account was made that cannot be kept")
	}
	if _, err := shown(p.tlsPort, "site.test"); err != nil {
		t.Error(err)
	}
}

// TestTakeoverLeaves: what is in files is served, names that are of one network
// only are not asked for, and off is off.
func TestTakeoverLeaves(t *testing.T) {
	t.Parallel()
	run := func(name, names string, env ...string) string {
		dir := t.TempDir()
		conf := siteConf(t, dir, unusedPort(t), unusedPort(t), names, dir+"/live/"+name)
		s := startServer(t, dir, "nginx", env, "-t", "-c", conf)
		s.done <- <-s.done
		return s.out.String()
	}
	ca := []string{"PROXYCTL_ACME_CA=https://localhost:1/dir"}
	for _, names := range []string{"localhost", "_", "~^x", "db.internal", "10.0.0.1", "*.site.test"} {
		if out := run("a", names, ca...); !strings.Contains(out, "[emerg] cannot load certificate") || !strings.Contains(out, "test failed") {
			t.Errorf("%s: %s", names, out)
		}
	}
	if out := run("a", "site.test", append(ca, "PROXYCTL_ACME=off")...); !strings.Contains(out, "[emerg] cannot load") {
		t.Errorf("off: %s", out)
	}
	if out := run("a", "site.test"); !strings.Contains(out, "[emerg] cannot load") {
		t.Errorf("not asked for: %s", out)
	}
	out := run("a", "site.test", ca...)
	if !regexp.MustCompile(`\[warn\] cannot load certificate .*; a certificate for site.test is obtained from localhost`).MatchString(out) || !strings.Contains(out, "test is successful") {
		t.Errorf("on: %s", out)
	}
}

// TestFileComesBack: a file that appears, or is renewed, is served again.
func TestFileComesBack(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	files := filepath.Join(dir, "live/site.test")
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", files)
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "site.test", startLimit)
	putFiles(t, files, "site.test")
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	var leaf *x509.Certificate
	for range 100 {
		leaf, _ = shown(p.tlsPort, "site.test")
		if leaf != nil && leaf.Subject.CommonName == "test" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("still serving %v", leaf.Subject)
}

// TestACMESyntax is nginx's own way to ask for certificates: the example of its
// documentation, made to fit.
func TestACMESyntax(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log notice; user root;
events {}
http {
    access_log off;
    acme_issuer example {
        uri %[4]s;
        contact admin@example.test;
        account_key rsa:2048;
        state_path %[1]s/acme-example;
        ssl_trusted_certificate %[5]s;
        accept_terms_of_service;
    }
    acme_issuer other {
        uri %[4]s;
        challenge tls-alpn-01;
        ssl_verify off;
        accept_terms_of_service;
    }
    acme_issuer unagreed { uri %[4]s; ssl_trusted_certificate %[5]s; }
    acme_shared_zone zone=ngx_acme_shared:1M;
    server {
        listen 127.0.0.1:%[3]d ssl;
        server_name .example.test;
        acme_certificate example;
        ssl_certificate $acme_certificate;
        ssl_certificate_key $acme_certificate_key;
        ssl_certificate_cache max=2;
    }
    server {
        listen 127.0.0.1:%[3]d ssl;
        server_name rsa.test;
        acme_certificate other rsa.test also.rsa.test key=rsa:2048;
        ssl_certificate $acme_certificate;
        ssl_certificate_key $acme_certificate_key;
    }
    server {
        listen 127.0.0.1:%[3]d ssl;
        server_name unagreed.test;
        acme_certificate unagreed;
        ssl_certificate $acme_certificate;
        ssl_certificate_key $acme_certificate_key;
    }
    server { listen 127.0.0.1:%[2]d; location / { return 404; } }
}
`, dir, p.httpPort, p.tlsPort, p.directory, p.rootFile)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, dir, "nginx", nil, "-c", conf)
	roots := p.roots()
	leaf := awaitTrusted(t, roots, p.tlsPort, "www.example.test", startLimit)
	if !slices.Contains(leaf.DNSNames, "example.test") {
		t.Errorf("names %q", leaf.DNSNames)
	}
	leaf = awaitTrusted(t, roots, p.tlsPort, "rsa.test", startLimit)
	if leaf.PublicKeyAlgorithm != x509.RSA || !slices.Contains(leaf.DNSNames, "also.rsa.test") {
		t.Errorf("%v for %q", leaf.PublicKeyAlgorithm, leaf.DNSNames)
	}
	s.awaitLog("accept_terms_of_service", startLimit)
	if found, _ := filepath.Glob(filepath.Join(dir, "acme-example/certificates/*/certificate.pem")); len(found) != 1 {
		t.Errorf("state_path has %q", found)
	}
	checkPrivate(t, filepath.Join(dir, "acme-example"))
}

// TestRenewedFileWithoutReload: the owner renews files that only root may read,
// and nobody sends a signal. A renewal that is not whole keeps the old pair.
func TestRenewedFileWithoutReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := filepath.Join(dir, "live/site.test")
	port := unusedPort(t)
	conf := siteConf(t, dir, 0, port, "site.test", files)
	dropRights(t, conf)
	putFiles(t, files, "site.test")
	if err := os.Chmod(filepath.Dir(files), 0o700); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, dir, "nginx", nil, "-c", conf)
	s.awaitLog("start worker processes", startLimit)
	first, err := shown(port, "site.test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(files, "privkey.pem"))
	if err != nil {
		t.Fatal(err)
	}
	putFiles(t, files, "site.test")
	whole, _ := os.ReadFile(filepath.Join(files, "privkey.pem"))
	if err := os.WriteFile(filepath.Join(files, "privkey.pem"), key, 0o600); err != nil { // the old key beside the new certificate
		t.Fatal(err)
	}
	s.awaitLog("key values mismatch); serving the certificate that was read before", 2*startLimit)
	if leaf, err := shown(port, "site.test"); err != nil || !leaf.Equal(first) {
		t.Errorf("a renewal that is not whole: %v", err)
	}
	if err := os.WriteFile(filepath.Join(files, "privkey.pem"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.awaitLog("is read again", 2*startLimit)
	if leaf, err := shown(port, "site.test"); err != nil || leaf.Equal(first) {
		t.Errorf("the renewed certificate is not served: %v", err)
	}
}

// TestWithoutCertbot: the site as Certbot left it, on a machine that never had
// Certbot's folder.
func TestWithoutCertbot(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	text, err := os.ReadFile("../../examples/certbot-site/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	site := strings.NewReplacer(
		"listen [::]:443 ssl;", "", "listen [::]:80;", "", "listen 443 ssl;", fmt.Sprintf("listen 127.0.0.1:%d ssl;", p.tlsPort), "listen 80;", fmt.Sprintf("listen 127.0.0.1:%d;", p.httpPort),
		"/etc/letsencrypt/", dir+"/letsencrypt/",
	).Replace(string(text))
	conf := filepath.Join(dir, "site.conf")
	if err := os.WriteFile(conf, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, dir, "proxyctl", p.environment(), "serve", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "example-demo.backend.com", startLimit)
	if out, code := proxyctl(t, []string{"PROXYCTL_ACME=off"}, "serve", conf); code != 1 || !strings.Contains(out, "options-ssl-nginx.conf") {
		t.Errorf("off: status %d, %s", code, out)
	}
}

// TestServeFlags: what the environment says can be said by flags, too; the
// authority takes only accounts that it knows.
func TestServeFlags(t *testing.T) {
	t.Parallel()
	p := newPebble(t, func(c map[string]any) {
		c["externalAccountBindingRequired"] = true
		c["externalAccountMACKeys"] = map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
	})
	dir := t.TempDir()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", dir+"/live/site.test")
	args := []string{"serve", "--acme-ca", p.directory, "--acme-ca-root", p.rootFile, "--acme-email", "me@site.test"}
	bound := append(args, "--acme-eab", "kid-1:zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W", conf)
	startServer(t, dir, "proxyctl", nil, bound...)
	awaitTrusted(t, p.roots(), p.tlsPort, "site.test", startLimit)
	for _, wrong := range [][]string{
		{"--acme", "maybe"}, {"--acme-eab", "kid"}, {"--acme-ca", "http://ca"}, {"--on-demand-ask", "ask"}, {"--acme-dns-hook", "a", "--acme-dns-rfc2136", "b"},
	} {
		if out, code := proxyctl(t, nil, append(append([]string{"serve"}, wrong...), conf)...); code != 2 || !strings.Contains(out, wrong[0]) {
			t.Errorf("%q: status %d, %s", wrong, code, out)
		}
	}
}

// TestManyMissing: a thousand servers without files, and an authority that
// takes its time: the one that has its file is served at once, few orders are
// under way, and what is missing is said once.
func TestManyMissing(t *testing.T) {
	t.Parallel()
	authority, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	var asked atomic.Int32
	go func() {
		for {
			if _, err := authority.Accept(); err != nil { // and never answer
				return
			}
			asked.Add(1)
		}
	}()
	dir := t.TempDir()
	port := unusedPort(t)
	conf := siteConf(t, dir, unusedPort(t), port, "good.test", filepath.Join(dir, "live/good.test"))
	putFiles(t, filepath.Join(dir, "live/good.test"), "good.test")
	var missing strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&missing, "server { listen 127.0.0.1:%d ssl; server_name s%d.test; ssl_certificate %[3]s/live/s%[2]d/fullchain.pem; ssl_certificate_key %[3]s/live/s%[2]d/privkey.pem; }\n", port, i, dir)
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text[:strings.LastIndexByte(string(text), '}')], missing.String()+"}\n"...)
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, dir, "nginx", []string{"PROXYCTL_ACME_CA=https://" + authority.Addr().String() + "/dir"}, "-c", conf)
	s.awaitLog("asking 127.0.0.1", startLimit)
	if leaf, err := shown(port, "good.test"); err != nil || leaf.Subject.CommonName != "test" {
		t.Errorf("the good one: %v, %v", leaf, err)
	}
	if leaf, err := shown(port, "s999.test"); err != nil || leaf.VerifyHostname("s999.test") != nil {
		t.Errorf("the last one: %v, %v", leaf, err)
	}
	for asked.Load() == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if n := asked.Load(); n > 8 {
		t.Errorf("%d orders at once", n)
	}
	if n := strings.Count(s.out.String()+s.errorLog(), "cannot load certificate"); n != 1000 {
		t.Errorf("%d messages about missing files", n)
	}
}

// putFiles puts a pair where Certbot would.
func putFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	writeTestPair(t, dir, names...)
	for _, f := range [][2]string{{"c.pem", "fullchain.pem"}, {"k.pem", "privkey.pem"}} {
		if err := os.Rename(filepath.Join(dir, f[0]), filepath.Join(dir, f[1])); err != nil {
			t.Fatal(err)
		}
	}
}
