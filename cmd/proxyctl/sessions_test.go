package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSessionsOverRestart: clients resume their sessions with the process that
// follows, by tickets and, as Certbot's options have it, by a cache.
func TestSessionsOverRestart(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{"tickets": "", "cache": "ssl_session_tickets off; ssl_session_cache shared:le_nginx_SSL:10m;"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, port := t.TempDir(), unusedPort(t)
			putFiles(t, dir, "site.test")
			conf := siteConf(t, dir, 0, port, "site.test", dir)
			text, err := os.ReadFile(conf)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(conf, []byte(strings.Replace(string(text), "access_log off;", "access_log off; "+options, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			dropRights(t, conf)
			config := &tls.Config{ServerName: "site.test", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			resumed := func() bool {
				t.Helper()
				c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
				if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "served") {
					t.Fatalf("%q, %v", answer, err)
				}
				return c.ConnectionState().DidResume
			}
			kept := func() []string {
				found, _ := filepath.Glob(filepath.Join(dir, "data/sessions/*"))
				return found
			}
			s := startServer(t, dir, "nginx", nil, "-c", conf)
			s.awaitLog("start worker processes", startLimit)
			if resumed() || !resumed() {
				t.Error("before")
			}
			s.stop(syscall.SIGTERM)
			if files := kept(); len(files) != 1 {
				t.Errorf("kept: %q", files)
			} else if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			_ = os.Remove(filepath.Join(dir, "error.log"))
			s = startServer(t, dir, "nginx", nil, "-c", conf)
			s.awaitLog("start worker processes", startLimit)
			if len(kept()) != 0 {
				t.Errorf("while the next one serves: %q", kept())
			}
			if !resumed() {
				t.Error("not resumed after a restart")
			}
		})
	}
}
