package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"proxyctl/proxy"
)

// agree holds explain against what the running server has answered: the same
// head, the same body, or the same request to the upstream.
func agree(dir, conf, answer string, q *proxy.Question) error {
	p := newProcess(settings{
		product: nginxProduct(), conf: filepath.Join(dir, conf), prefix: dir + "/", directives: "daemon off; pid logs/nginx.pid;",
		errorLog: "logs/error.log", accessLog: "logs/access.log",
	}, io.Discard)
	p.options.DryRun = true
	cert, err := proxy.PretendCertificate()
	if err != nil {
		return err
	}
	p.options.Certificate = pretend(cert)
	table, diags := p.load(p.parse())
	if table == nil {
		return fmt.Errorf("explain does not load the configuration: %w", diags[0])
	}
	x, err := proxy.Explain(table, q)
	if err != nil {
		return err
	}
	head, body, _ := strings.Cut(answer, "\n\n")
	if stateful(head, x) {
		return nil
	}
	if x.Passed != nil {
		seen, _, _ := strings.Cut(body, "\n\n")
		if lines := strings.Join(x.Passed.Head, "\n"); echoes(seen) && !isOurs(table, x.Passed.Server) && !varying.MatchString(lines+seen) && seen != lines {
			return fmt.Errorf("explain tells the upstream otherwise: %s", cmp.Diff(seen, lines))
		}
		return nil
	}
	if answer == "" && x.Status == 0 {
		return nil
	}
	varies := regexp.MustCompile(`(?m)^(Date|ETag|Last-Modified|Connection|Keep-Alive|Set-Cookie|Expires): .*\n?|[0-9]+$`)
	want, got := varies.ReplaceAllString(head, ""), varies.ReplaceAllString(strings.Join(x.Head, "\n"), "")
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); diff != "" {
		return fmt.Errorf("explain answers otherwise than the server: %s", diff)
	}
	if plain := strings.ReplaceAll(x.Body, "\r\n", "\n"); !strings.Contains(head, "chunked") && !digits.MatchString(body) && !strings.HasPrefix(body, plain) && len(plain) > 0 {
		return fmt.Errorf("explain shows the body %q, the server sent %q", plain, body)
	}
	return nil
}

// digits tells bodies that may hold a port, a time or a serial number.
var digits = regexp.MustCompile(`[0-9]{4}`)

// stateful tells answers that depend on requests before: explain begins with
// empty zones, and no server is down.
func stateful(head string, x *proxy.Explanation) bool {
	status := strings.Fields(head + " 0 0")[1]
	return (status == "429" || status == "503") && strconv.Itoa(x.Status) != status
}

// isOurs tells upstreams that are the server itself: it passes on once more.
func isOurs(table *proxy.Table, server string) bool {
	for _, s := range table.Sites() {
		for _, l := range s.Listen {
			if strings.HasSuffix(server, ":"+strconv.Itoa(int(l.Address.Port()))) {
				return true
			}
		}
	}
	return false
}

// echoes tells the bodies that show the head which the upstream got.
func echoes(body string) bool { return strings.Contains(body, " HTTP/1.") }

// varying tells heads that hold what is another with each connection.
var varying = regexp.MustCompile(`[0-9a-f]{32}|X-Port|(?m)^X-.*: .*[0-9]{5}$`)

// agree asks explain what a request that came here would be answered.
func (h *harness) agree(ts *testscript.TestScript, answer, port string, q *proxy.Question, cert string) {
	if h.installed != "" || h.conf == "" {
		return
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(ts.MkAbs(cert+".crt"), ts.MkAbs(cert+".key"))
		ts.Check(err)
		q.Certificate = &pair
	}
	q.From = netip.MustParseAddr("127.0.0.1")
	q.To = netip.AddrPortFrom(q.From, uint16(number(h.translate(port))))
	ts.Check(agree(ts.MkAbs("."), h.conf, answer, q))
}

func TestExplainWithoutServer(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "site.conf")
	text := `proxy_cache_path /none keys_zone=kept:1m;
proxy_cache_key $host$request_uri;
server {
    listen 8080;
    server_name a.test;
    location /kept/ { proxy_cache kept; proxy_cache_bypass $cookie_user; proxy_no_cache $arg_fresh; proxy_pass http://127.0.0.1:9; }
    location /rarely/ { proxy_cache kept; proxy_cache_min_uses 3; proxy_cache_max_range_offset 10; proxy_pass http://127.0.0.1:9; }
    location /counted { post_action /count; return 200 counted; }
    location /count { proxy_pass http://127.0.0.1:9/count?of=$request_uri; }
    location /both { post_action @count; proxy_pass http://127.0.0.1:9; }
    location @count { proxy_pass http://127.0.0.1:8; }
    location / { return 200 root; }
    location /app/ { proxy_set_header Host $host; proxy_pass http://127.0.0.1:9/x/; }
    location /closed { allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:9; }
}
server { listen 8443 ssl; server_name b.test; ssl_certificate a.pem; ssl_certificate_key a.key; return 301 http://a.test$request_uri; }
`
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, []byte("GET /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want []string // in this order
	}{
		{[]string{"--raw", raw, "http://a.test:8080/"}, []string{"> GET /x HTTP/1.1", "Content-Length: 2", "duplicate header line", "400 Bad Request"}},
		{[]string{"/"}, []string{"> GET / HTTP/1.1", "server          a.test", "location /", "200 OK", "root"}},
		{[]string{"http://a.test:8080/app/y?q=1"}, []string{"location /app/", "127.0.0.1:9 gets", "GET /x/y?q=1 HTTP/1.1", "Host: a.test"}},
		{[]string{"/closed"}, []string{"access forbidden by rule", "403 Forbidden"}},
		{[]string{"--from", "10.1.1.1", "-X", "post", "/closed"}, []string{"> POST /closed", "lets it pass", "POST /closed HTTP/1."}},
		{[]string{"https://b.test:8443/z"}, []string{"301 Moved", "Location: http://a.test/z"}},
		{[]string{"http://nobody:8080/"}, []string{`nobody has the name "nobody"`}},
		{[]string{"-X", "HEAD", "/kept/x?y"}, []string{`cache           asked in zone kept for the key "a.test/kept/x?y"; let it be a MISS`, "asked with GET", "kept, if it or proxy_cache_valid", "127.0.0.1:9 gets", "GET /kept/x?y HTTP/1.1"}},
		{[]string{"-H", "Cookie: user=1", "/kept/?fresh=1"}, []string{`not asked in zone kept for the key "a.test/kept/?fresh=1": a value of proxy_cache_bypass is true`, "not kept: a value of proxy_no_cache", "127.0.0.1:9 gets"}},
		{[]string{"-X", "PUT", "/kept/"}, []string{"not asked: PUT is none of proxy_cache_methods", "127.0.0.1:9 gets"}},
		{[]string{"/rarely/"}, []string{"asked for 3 times", "127.0.0.1:9 gets"}},
		{[]string{"-H", "Range: bytes=99-", "/rarely/"}, []string{"range begins behind", "127.0.0.1:9 gets", "Range: bytes=99-"}},
		{[]string{"/counted"}, []string{"post action     the client has its answer; the request goes on as /count", "location /count", "200 OK", "counted", "After that 127.0.0.1:9 gets", "GET /count?of=/counted HTTP/1."}},
		{[]string{"/both"}, []string{"goes on as @count", "127.0.0.1:9 gets", "answer is passed on", "After that 127.0.0.1:8 gets"}},
		{[]string{"s001"}, []string{"S001 alias-traversal (high)"}},
		{[]string{"root"}, []string{"root path;", "context  http, server, location"}},
		{[]string{"$http_x"}, []string{"$http_NAME"}},
	} {
		var out bytes.Buffer
		cmd := explainCommand()
		cmd.SetArgs(append([]string{"-c", conf}, tt.args...))
		cmd.SetOut(&out)
		if err := cmd.Execute(); err != nil {
			t.Errorf("%v: %v", tt.args, err)
			continue
		}
		rest := out.String()
		for _, w := range tt.want {
			_, after, found := strings.Cut(rest, w)
			if !found {
				t.Errorf("%v: no %q behind the rest in\n%s", tt.args, w, out.String())
				break
			}
			rest = after
		}
	}
	for _, args := range [][]string{{"http://a.test/"}, {"ftp://a.test/"}, {"nonsense"}, {"$nonsense"}, {"--from", "x", "/"}, {"-H", "x", "/"}, {"--raw", "none", "/"}, {"--raw", raw, "-X", "PUT", "/"}, {"--cert", raw, "/"}, {"/a b"}} {
		cmd := explainCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append([]string{"-c", conf}, args...))
		cmd.SetOut(io.Discard)
		if cmd.Execute() == nil {
			t.Errorf("%v is no mistake", args)
		}
	}
}

// number reads a port.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
