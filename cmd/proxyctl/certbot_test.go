package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certbot runs the real one in folders of its own.
func (p *pebble) certbot(dir string, args ...string) string {
	p.t.Helper()
	out, err := p.tryCertbot(dir, args...)
	if err != nil {
		p.t.Fatalf("certbot %q: %v\n%s", args, err, out)
	}
	return out
}

func (p *pebble) tryCertbot(dir string, args ...string) (string, error) {
	p.t.Helper()
	program, err := exec.LookPath("certbot")
	if err != nil {
		p.t.Skip("certbot is not installed")
	}
	args = append(args, "--config-dir", dir, "--work-dir", filepath.Join(p.dir, "work"), "--logs-dir", filepath.Join(p.dir, "logs"),
		"--server", p.directory, "--non-interactive", "--agree-tos", "-m", "admin@site.test", "--no-random-sleep-on-renew")
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+p.rootFile)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTakeoverOfLineage: Certbot made the certificate, and nobody renews it. It
// goes on with Certbot's authority and account, and leaves Certbot's files
// alone.
func TestTakeoverOfLineage(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	le := filepath.Join(dir, "letsencrypt")
	p.certbot(le, "certonly", "--standalone", "--http-01-port", fmt.Sprint(p.httpPort), "-d", "site.test", "-d", "www.site.test")
	live := filepath.Join(le, "live/site.test")
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test www.site.test", live)

	// Only the root of trust comes from outside: everything else is in Certbot's files.
	env := []string{"PROXYCTL_ACME_CA_ROOT=" + p.rootFile}
	s := startServer(t, dir, "nginx", env, "-c", conf)
	roots := p.roots()
	byCertbot := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
	s.stop(syscall.SIGTERM)
	if _, err := os.Stat(filepath.Join(dir, "data/accounts")); err == nil {
		t.Error("something was asked for while Certbot's certificate is good")
	}
	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	// What certbot --staple-ocsp adds names one more file of the lineage.
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("location /"), []byte("ssl_trusted_certificate "+live+"/chain.pem; ssl_stapling on; ssl_stapling_verify on; location /"), 1)
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, le)
	startServer(t, dir, "nginx", env, "-c", conf)
	if leaf := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit); leaf.Equal(byCertbot) {
		t.Error("Certbot's certificate is still there")
	}
	if after := listing(t, le); after != before {
		t.Errorf("Certbot's files changed:\n%s\nthen:\n%s", before, after)
	}
	if theirs, ours := accountURI(t, filepath.Join(le, "accounts/*/dir/*/regr.json"), "uri"), accountURI(t, filepath.Join(dir, "data/accounts/*/acme/*/users/*/*.json"), "location"); theirs != ours {
		t.Errorf("account %q, Certbot's is %q", ours, theirs)
	}
}

// TestOverdueLineage: Certbot's timer has stopped, its certificate ends soon. It
// is replaced under Certbot's account, and served again when Certbot has renewed
// it after all.
func TestOverdueLineage(t *testing.T) {
	t.Parallel()
	p := newPebble(t, nil)
	dir := t.TempDir()
	le, root := filepath.Join(dir, "letsencrypt"), filepath.Join(dir, "www")
	p.certbot(le, "certonly", "--standalone", "--http-01-port", fmt.Sprint(p.httpPort), "-d", "site.test")
	archive, live := filepath.Join(le, "archive/site.test"), filepath.Join(le, "live/site.test")
	writeAgedPair(t, dir, time.Now().AddDate(0, 0, -85), time.Now().AddDate(0, 0, 5), "site.test")
	for from, to := range map[string]string{"c.pem": "fullchain1.pem", "k.pem": "privkey1.pem"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(archive, to)); err != nil {
			t.Fatal(err)
		}
	}
	conf := siteConf(t, dir, p.httpPort, p.tlsPort, "site.test", live)
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("return 301 https://$host$request_uri;"), []byte("location / { return 301 https://$host$request_uri; } location /.well-known/acme-challenge/ { root "+root+"; }"), 1)
	if err := errors.Join(os.WriteFile(conf, text, 0o600), os.Mkdir(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	env := []string{"PROXYCTL_ACME_CA_ROOT=" + p.rootFile}
	before := listing(t, le)
	s := startServer(t, dir, "nginx", env, "-c", conf)
	roots := p.roots()
	ours := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit)
	if out := s.out.String(); !strings.Contains(out, "Certbot should have renewed it long ago; a certificate for site.test is obtained from localhost") {
		t.Errorf("what is said: %s", out)
	}
	if after := listing(t, le); after != before {
		t.Errorf("Certbot's files changed:\n%s\nthen:\n%s", before, after)
	}
	if theirs, ours := accountURI(t, filepath.Join(le, "accounts/*/dir/*/regr.json"), "uri"), accountURI(t, filepath.Join(dir, "data/accounts/*/acme/*/users/*/*.json"), "location"); theirs != ours {
		t.Errorf("account %q, Certbot's is %q", ours, theirs)
	}
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	s.awaitLog("reconfiguring", startLimit)
	if again := awaitTrusted(t, roots, p.tlsPort, "site.test", startLimit); !again.Equal(ours) {
		t.Error("another certificate after a reload")
	}
	p.certbot(le, "certonly", "--webroot", "-w", root, "--force-renewal", "--cert-name", "site.test", "-d", "site.test")
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if leaf, err := shown(p.tlsPort, "site.test"); err == nil && !leaf.Equal(ours) {
			file, err := os.ReadFile(filepath.Join(live, "cert.pem"))
			if block, _ := pem.Decode(file); err != nil || !bytes.Equal(block.Bytes, leaf.Raw) {
				t.Error("neither of both is shown")
			}
			return
		}
	}
	t.Error("the renewed file is not served")
}

// listing tells the names, sizes and times of all files in a folder.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&text, path, info.Mode(), info.Size(), info.ModTime().Format(time.RFC3339Nano))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// accountURI reads a field of the one file that a pattern finds.
func accountURI(t *testing.T, pattern, field string) string {
	t.Helper()
	files, _ := filepath.Glob(pattern)
	if len(files) != 1 {
		t.Fatalf("%s: %q", pattern, files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	uri, _ := v[field].(string)
	return uri
}
