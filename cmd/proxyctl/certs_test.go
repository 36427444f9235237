package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"proxyctl/certs"
)

// proxyctl runs a command to its end.
func proxyctl(t *testing.T, env []string, args ...string) (out string, status int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "proxyctl")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// statuses reads what certs list --json prints.
func statuses(t *testing.T, env []string, args ...string) []certs.Status {
	t.Helper()
	out, code := proxyctl(t, env, append([]string{"certs", "list", "--json"}, args...)...)
	var list []certs.Status
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("status %d, %v: %s", code, err, out)
	}
	return list
}

// TestCertsCommands: what a running server has obtained is listed, renewed on
// demand and exported; what it does not need yet is obtained.
func TestCertsCommands(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", dir+"/live/site.test")
	env := append(p.environment(), "PROXYCTL_DATA="+filepath.Join(dir, "data"))
	if list := statuses(t, env, conf); len(list) != 1 || list[0].Source != "none" || list[0].Place == "" {
		t.Errorf("before: %+v", list)
	}
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	roots := p.roots()
	first := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
	list := statuses(t, env, conf)
	if len(list) != 1 || list[0].Source != "obtained" || !list[0].NotAfter.Equal(first.NotAfter) || !strings.Contains(list[0].Issuer, "Pebble") || list[0].Renewal.IsZero() {
		t.Fatalf("after: %+v", list)
	}
	if out, code := proxyctl(t, env, "certs", "renew", "site.test"); code != 0 || !strings.Contains(out, "site.test: valid until") {
		t.Errorf("renew: status %d, %s", code, out)
	}
	if again := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit); again.Equal(first) {
		t.Error("not renewed")
	}
	if out, code := proxyctl(t, env, "certs", "renew", "nobody.test"); code != 2 || !strings.Contains(out, "no certificate") {
		t.Errorf("renew of nothing: status %d, %s", code, out)
	}
	if out, code := proxyctl(t, env, "certs", "obtain", "--key", "rsa:2048", "new.test", "www.new.test"); code != 0 {
		t.Errorf("obtain: status %d, %s", code, out)
	}
	if list := statuses(t, env); len(list) != 2 {
		t.Errorf("%+v", list)
	}
	if out, code := proxyctl(t, env, "certs", "doctor", "--resolver", p.names.address, "site.test", "db.internal"); code != 1 ||
		!strings.Contains(out, "answers as an ACME authority") || !strings.Contains(out, "site.test: points here: 127.0.0.1") || !strings.Contains(out, "db.internal: is not a name") {
		t.Errorf("doctor: status %d, %s", code, out)
	}
	le := filepath.Join(dir, "letsencrypt")
	for version := 1; version <= 2; version++ {
		out, code := proxyctl(t, env, "certs", "export", "--certbot", le, "new.test")
		if code != 0 {
			t.Fatalf("export: status %d, %s", code, out)
		}
		if target, _ := os.Readlink(filepath.Join(le, "live/new.test/privkey.pem")); target != fmt.Sprintf("../../archive/new.test/privkey%d.pem", version) {
			t.Errorf("link to %q", target)
		}
	}
	if _, err := exec.LookPath("certbot"); err == nil {
		if out := p.certbot(le, "certificates"); !strings.Contains(out, "Certificate Name: new.test") || !strings.Contains(out, "Key Type: RSA") || !strings.Contains(out, "Domains: new.test www.new.test") {
			t.Errorf("certbot does not know it: %s", out)
		}
	}
	s.stop(syscall.SIGTERM)
	if text := s.errorLog(); strings.Contains(text, "PRIVATE") {
		t.Error("a private key in the log")
	}
}

// TestCertsWithoutServer: no server runs, so the command answers challenges.
func TestCertsWithoutServer(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	p := newPebble(t, func(c map[string]any) { c["httpPort"], c["tlsPort"] = 80, 443 })
	dir := t.TempDir()
	env := append(p.environment(), "PROXYCTL_DATA="+filepath.Join(dir, "data"))
	if out, code := proxyctl(t, env, "certs", "obtain", "site.test"); code != 0 || !strings.Contains(out, "valid until") {
		t.Errorf("obtain: status %d, %s", code, out)
	}
	if out, code := proxyctl(t, env, "certs", "renew", "site.test"); code != 0 {
		t.Errorf("renew: status %d, %s", code, out)
	}
	p.stop()
	if out, code := proxyctl(t, env, "certs", "renew", "site.test"); code != 2 || !strings.Contains(out, "connection refused") {
		t.Errorf("without an authority: status %d, %s", code, out)
	}
}

// TestCertsImport: Certbot's certificate and account go on without Certbot.
func TestCertsImport(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	le := filepath.Join(dir, "letsencrypt")
	p.certbot(le, "certonly", "--standalone", "--http-01-port", fmt.Sprint(p.httpPort), "-d", "site.test")
	theirs := accountURI(t, filepath.Join(le, "accounts/*/dir/*/regr.json"), "uri")
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", filepath.Join(le, "live/site.test"))
	env := append(p.environment(), "PROXYCTL_DATA="+filepath.Join(dir, "data"))
	before := listing(t, le)
	if out, code := proxyctl(t, env, "certs", "import-certbot", "--certbot", le); code != 0 || !strings.Contains(out, "site.test: imported for site.test") {
		t.Fatalf("status %d, %s", code, out)
	}
	if listing(t, le) != before {
		t.Error("Certbot's files changed")
	}
	if err := os.RemoveAll(le); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, dir, "nginx", p.environment(), "-c", conf)
	awaitTrusted(t, p.roots(), p.tlsPort, "site.test", startLimit)
	if strings.Contains(s.errorLog(), "asking") {
		t.Error("something was asked for")
	}
	if out, code := proxyctl(t, env, "certs", "renew", "site.test"); code != 0 {
		t.Errorf("renew: status %d, %s", code, out)
	}
	if ours := accountURI(t, filepath.Join(dir, "data/accounts/*/acme/*/users/*/*.json"), "location"); ours != theirs {
		t.Errorf("account %q, Certbot's was %q", ours, theirs)
	}
}

// TestCertsMistakes: each gets a status and a word about what is wrong.
func TestCertsMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.conf")
	if err := os.WriteFile(broken, []byte("server { nonsense; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PROXYCTL_ACME_CA=https://127.0.0.1:1/dir", "PROXYCTL_DATA=" + filepath.Join(dir, "data")}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"nonsense", 2, `unknown command "nonsense"`},
		{"list " + broken, 1, `unknown directive "nonsense"`},
		{"list /nowhere.conf", 1, "No such file or directory"},
		{"list --acme maybe", 2, `invalid --acme "maybe"`},
		{"list --data " + dir + "/file " + broken, 1, "nonsense"},
		{"renew nobody", 2, `no certificate for "nobody" is kept here`},
		{"renew --data " + dir + "/file nobody", 2, "what is kept cannot be read"},
		{"obtain localhost", 2, `no certificate can be obtained for "localhost": it is not a public name`},
		{"obtain -- -x.test", 2, `no certificate can be obtained for "-x.test"`},
		{"obtain *.site.test", 2, "proved by the DNS only"},
		{"obtain --key rsa:1 site.test", 2, `unsupported key "rsa:1"`},
		{"obtain --data " + dir + "/file site.test", 2, "cannot be kept in storage"},
		{"export nobody", 2, `no certificate for "nobody" is kept here`},
		{"import-certbot --certbot /nowhere", 2, `no renewal files in "/nowhere/renewal"`},
		{"doctor --resolver x site.test", 2, `invalid --resolver "x"`},
	} {
		out, code := proxyctl(t, env, append([]string{"certs"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(out, tt.want) || strings.Contains(out, "goroutine") {
			t.Errorf("%s: status %d, %s", tt.args, code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "certificates")); err == nil {
		t.Error("a mistake is remembered")
	}
}
