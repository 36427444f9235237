package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestExamples serves every example and asks it what its README says it does.
func TestExamples(t *testing.T) {
	type ask struct{ host, path, want string } // want is a regular expression over status line, fields and body
	asks := map[string][]ask{
		"certbot-site": {
			{"example-demo.backend.com", "/a?b=c", `301 [^\0]*Location: https://example-demo\.backend\.com(:\d+)?/a\?b=c`},
			{"other.example", "/", `404 `},
		},
		"reverse-proxy": {
			{"app.example.com", "/x?y", `200 [^\0]*GET /x\?y [^\0]*Host: app\.example\.com`},
			{"app.example.com", "/docs/intro", `200 [^\0]*GET /manual/intro `},
		},
		"load-balancing":         {{"any", "/", `200 [^\0]*X-Served-By: 127\.0\.0\.1:\d+`}},
		"websocket":              {{"chat.example.com", "/", `200 [^\0]*Host: chat\.example\.com`}, {"chat.example.com", "/ws/", `200 [^\0]*Connection: close`}},
		"automatic-certificates": {{"shop.example.com", "/a", `301 [^\0]*Location: https://shop\.example\.com(:\d+)?/a`}},
		"many-sites": {
			{"www.example.com", "/", `200 [^\0]*the main site`},
			{"blog.example.com", "/", `200 [^\0]*some subdomain: blog\.example\.com`},
			{"ann.users.example.org", "/", `200 [^\0]*the page of ann`},
			{"nobody.test", "/", `^closed`},
		},
		"php-site": {
			{"blog.example.com", "/posts/7?a=b", `200 [^\0]*SCRIPT_FILENAME=/.*/site/index\.php\n[^\0]*REQUEST_URI=/posts/7\?a=b\n`},
			{"blog.example.com", "/index.php/more", `200 [^\0]*SCRIPT_NAME=/index\.php\nPATH_INFO=/more\n`},
			{"blog.example.com", "/style.css", `200 [^\0]*font-family`},
			{"blog.example.com", "/missing.php", `404 `},
			{"blog.example.com", "/.git/config", `404 `},
		},
		"path-routing": {
			{"a", "/health", `200 [^\0]*ok`},
			{"a", "/users/7", `200 [^\0]*user 7`},
			{"a", "/static/a.png", `200 [^\0]*a static file`},
			{"a", "/a.PNG", `200 [^\0]*a picture`},
			{"a", "/old/page", `301 [^\0]*Location: http://a:\d+/new/page`},
			{"a", "/api/x", `200 [^\0]*GET /x `},
		},
	}
	entries, err := os.ReadDir("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		t.Run(name, func(t *testing.T) {
			if len(asks[name]) == 0 {
				t.Fatal("nothing is asked of this example")
			}
			readme, err := os.ReadFile(filepath.Join("../../examples", name, "README.md"))
			if err != nil || !bytes.Contains(readme, []byte("examples/"+name+"/nginx.conf")) {
				t.Errorf("its README does not say how to serve it (%v)", err)
			}
			port := serveExample(t, filepath.Join("../../examples", name, "nginx.conf"))
			for _, a := range asks[name] {
				got := askServer(t, port, a.host, a.path)
				if !regexp.MustCompile(a.want).MatchString(got) {
					t.Errorf("%s%s: want %s, got\n%s", a.host, a.path, a.want, got)
				}
			}
		})
	}
}

// serveExample serves a copy of an example on free ports, with applications
// behind it that show what reached them, and returns its HTTP port.
func serveExample(t *testing.T, file string) string {
	t.Helper()
	path, port := localExample(t, file)
	serveFile(t, path, port)
	return port
}

// localExample makes the copy.
func localExample(t *testing.T, file string) (path, port string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	conf := regexp.MustCompile(`127\.0\.0\.1:500\d`).ReplaceAllStringFunc(string(text), func(string) string {
		app := httptest.NewServer(http.HandlerFunc(showRequest))
		t.Cleanup(app.Close)
		return app.Listener.Addr().String()
	})
	conf = regexp.MustCompile(`127\.0\.0\.1:900\d`).ReplaceAllStringFunc(conf, func(string) string { return serveApplication(t) })
	plainPort, tlsPort := strconv.Itoa(unusedPort(t)), strconv.Itoa(unusedPort(t))
	conf = regexp.MustCompile(`listen (\[::\]:)?(443|80|8080)\b`).ReplaceAllStringFunc(conf, func(l string) string {
		if strings.HasSuffix(l, "443") {
			return strings.TrimSuffix(l, "443") + tlsPort
		}
		return strings.TrimRight(l, "0123456789") + plainPort
	})
	conf = strings.ReplaceAll(conf, "listen [::]:", "listen [::1]:")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(file))); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return path, plainPort
}

// serveFile serves a configuration until the test ends.
func serveFile(t *testing.T, path, port string) {
	t.Helper()
	program, err := exec.LookPath("proxyctl")
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, port, program, "serve", "--local", "--data", filepath.Join(filepath.Dir(path), "data"), path)
}

// runUntilEnd starts a server and waits until it listens.
func runUntilEnd(t *testing.T, port, program string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for range 300 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not serve")
}

// serveApplication starts an application of FastCGI that shows what reached it.
func serveApplication(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go acceptApplication(l, "fastcgi", nil)
	return l.Addr().String()
}

// askServer sends a GET and returns the answer from its status on, or "closed".
func askServer(t *testing.T, port, host, path string) string {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(c)
	if len(answer) == 0 {
		return "closed"
	}
	return strings.TrimPrefix(string(answer), "HTTP/1.1 ")
}
