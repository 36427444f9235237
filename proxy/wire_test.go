package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// wireCase is a server block, a request line with fields, and what is answered:
// "status", fields that are asked for, and the body. The answers are those of
// nginx 1.31.5. With PROXYCTL_NGINX naming an nginx, each is asked of it too.
type wireCase struct {
	name    string
	http    string // before the server block
	server  string
	request string // "GET /path", then lines of fields
	want    string
	// unlike: what nginx answers, where we differ on purpose.
	unlike string
}

// answered puts an answer into the form of wireCase.want: the status, then
// Location, Expires, Cache-Control, Link, ETag, Last-Modified and all fields
// that begin with "X", then the body.
func answered(t *testing.T, c *wireCase, raw string) string {
	t.Helper()
	if raw == "" {
		return "closed"
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), &http.Request{Method: strings.Fields(c.request)[0]})
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	out := []string{res.Status[:3]}
	for _, line := range lines[1:] {
		if shown.MatchString(line) {
			out = append(out, line)
		}
	}
	for name, values := range res.Trailer {
		out = append(out, "trailer "+name+": "+strings.Join(values, "|"))
	}
	if len(body) > 0 && !bytes.HasPrefix(body, []byte("<html>")) {
		out = append(out, string(body))
	}
	return strings.Join(out, "\n")
}

var shown = regexp.MustCompile(`(?i)^(location|expires|cache-control|link|etag|last-modified|x[a-z-]*):|^content-type: text/x-[a-z]$`)

const wireRequest = " HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"

func (c *wireCase) wire() string {
	line, fields, _ := strings.Cut(c.request, "\n")
	out := line + wireRequest
	if strings.Contains(line, " HTTP/") {
		out = line + "\r\n"
	}
	for f := range strings.Lines(fields) {
		out += strings.TrimRight(f, "\n") + "\r\n"
	}
	return out + "\r\n"
}

func (c *wireCase) conf() string {
	return "error_log logs/error.log notice; pid nginx.pid; events {} http { access_log off; default_type text/x-default; root html;\n" + c.http +
		"\nserver { listen unix:%dir%/s; server_name .A.test;\n" + c.server + "\n} }"
}

func testWire(t *testing.T, cases []wireCase) {
	t.Helper()
	nginx := os.Getenv("PROXYCTL_NGINX")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, c.conf())
			if err := os.WriteFile(filepath.Join(r.dir, "html", "file.txt"), []byte("file"), 0o755); err != nil {
				t.Fatal(err)
			}
			stamp := time.Unix(1700000000, 0)
			if err := os.Chtimes(filepath.Join(r.dir, "html", "file.txt"), stamp, stamp); err != nil {
				t.Fatal(err)
			}
			if got := hideDir(answered(t, &c, r.ask("s", c.wire())), r.dir); got != c.want {
				t.Errorf("got\n%s\nwant\n%s\nlog\n%s", got, c.want, r.read("logs/error.log"))
			}
			if nginx == "" {
				return
			}
			want := c.want
			if c.unlike != "" {
				want = c.unlike
			}
			if got := hideDir(answered(t, &c, askNginx(t, nginx, r.dir, &c)), r.dir); got != want {
				t.Errorf("nginx answers\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func hideDir(s, dir string) string { return strings.ReplaceAll(s, dir, "%dir%") }

// askNginx runs nginx under the configuration and asks it.
func askNginx(t *testing.T, binary, dir string, c *wireCase) string {
	t.Helper()
	conf := strings.ReplaceAll(c.conf(), "%dir%/s", dir+"/n")
	conf = strings.ReplaceAll(conf, "%dir%", dir)
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "n.conf")
	if err := os.WriteFile(name, []byte("user root; daemon off; master_process off;"+conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-p", dir, "-c", name, "-e", "logs/nginx.log")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for range 200 {
		conn, err := net.Dial("unix", dir+"/n")
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, c.wire()); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(conn)
		return string(b)
	}
	b, _ := os.ReadFile(dir + "/logs/nginx.log")
	t.Fatalf("nginx does not start: %s", b)
	return ""
}

// errorCase is what stands in http, and the first that is said about it; "" for
// nothing. The texts are those of nginx 1.31.5.
type errorCase struct{ conf, want string }

func testErrors(t *testing.T, cases []errorCase) {
	t.Helper()
	nginx := os.Getenv("PROXYCTL_NGINX")
	for _, c := range cases {
		r := prepare(t)
		conf := "pid nginx.pid; events {} http { " + c.conf + " }"
		_, diags := r.parse(conf)
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.conf, got, c.want)
		}
		if nginx == "" {
			continue
		}
		name := filepath.Join(r.dir, "n.conf")
		if err := os.WriteFile(name, []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command(nginx, "-t", "-p", r.dir, "-c", name, "-e", "logs/nginx.log").CombinedOutput()
		text, _, _ := strings.Cut(string(out), "\n")
		_, text, _ = strings.Cut(text, "] ")
		text, _, _ = strings.Cut(text, " in "+r.dir)
		if strings.Contains(text, "syntax is ok") || strings.HasPrefix(string(out), "nginx: the configuration") {
			text = ""
		}
		if text != c.want {
			t.Errorf("%s\nnginx %s\nwant  %s", c.conf, text, c.want)
		}
	}
}
