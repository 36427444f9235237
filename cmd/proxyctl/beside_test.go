package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBesideNginx serves the site that Certbot left, from the example's file,
// by an installed nginx and by this program under nginx's name, both driven as
// a service would drive them, and compares everything that clients and the
// application get to see.
func TestBesideNginx(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	ours, err := exec.LookPath("nginx")
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p := filepath.Join(dir, "nginx"); p != installed && isExecutable(p) {
			ours, err = p, nil
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	want, got := serveBeside(t, installed), serveBeside(t, ours)
	for i := range want {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Errorf("%s:\n%s", besideRequests[i].name, diff)
		}
	}
}

// besideRequests are sent to both servers; TLS ones to port 443.
var besideRequests = []struct {
	name string
	tls  bool
	text string
}{
	{"redirect with path and query", false, "GET /a%20b/?c=d&e=%2F HTTP/1.1\r\nHost: example-demo.backend.com\r\nConnection: close\r\n\r\n"},
	{"redirect of a name with port and capitals", false, "GET / HTTP/1.1\r\nHost: Example-Demo.Backend.com:80\r\nConnection: close\r\n\r\n"},
	{"other name", false, "GET /x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"},
	{"HTTP/1.0 without a name", false, "GET /x HTTP/1.0\r\n\r\n"},
	{"HEAD of a redirect", false, "HEAD /x HTTP/1.1\r\nHost: example-demo.backend.com\r\nConnection: close\r\n\r\n"},
	{"kept alive", false, "GET /1 HTTP/1.1\r\nHost: other.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: example-demo.backend.com\r\nConnection: close\r\n\r\n"},
	{"no host", false, "GET /x HTTP/1.1\r\n\r\n"},
	{"HTTP to the TLS port", false, ""},
	{"application", true, "GET /app?q=1 HTTP/1.1\r\nHost: example-demo.backend.com\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=b\r\nConnection: close\r\n\r\n"},
	{"upload", true, "POST /form HTTP/1.1\r\nHost: example-demo.backend.com\r\nContent-Length: 9\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nsome text"},
	{"chunked upload", true, "POST /form HTTP/1.1\r\nHost: example-demo.backend.com\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nsome\r\n5\r\n text\r\n0\r\n\r\n"},
	{"other name over TLS", true, "GET /x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"},
	{"application over HTTP/1.0", true, "GET /old HTTP/1.0\r\nHost: example-demo.backend.com\r\n\r\n"},
}

// serveBeside runs the site on one program: -t, start as a daemon, the
// requests, -s reload, the first request again, -s quit. It returns what each
// request brought.
func serveBeside(t *testing.T, program string) []string {
	t.Helper()
	dir := t.TempDir()
	app := besideApplication(t)
	port, tlsPort := strconv.Itoa(unusedPort(t)), strconv.Itoa(unusedPort(t))
	conf := writeBesideSite(t, dir, app, port, tlsPort)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", conf}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	if said := run("-t"); !strings.Contains(said, "test is successful") {
		t.Errorf("%s -t: %s", program, said)
	}
	run()
	pid := besidePID(t, dir)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	var all []string
	ask := func(i int) string {
		r := besideRequests[i]
		text, address := r.text, "127.0.0.1:"+port
		if text == "" { // in plain text to the port of TLS
			text, address = besideRequests[0].text, "127.0.0.1:"+tlsPort
		}
		answer := askBeside(t, address, text, "")
		if r.tls {
			answer = askBeside(t, "127.0.0.1:"+tlsPort, text, "example-demo.backend.com")
		}
		return besideForm(answer, port, tlsPort)
	}
	for i := range besideRequests {
		all = append(all, ask(i))
	}
	run("-s", "reload")
	if again := ask(0); again != all[0] {
		t.Errorf("%s: another answer after the reload:\n%s", program, cmp.Diff(all[0], again))
	}
	run("-s", "quit")
	for range 500 {
		if syscall.Kill(pid, 0) != nil {
			return all
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s did not end by -s quit", program)
	return all
}

// writeBesideSite writes the example's site, moved to free ports and to a
// certificate of its own, below a main configuration.
func writeBesideSite(t *testing.T, dir, app, port, tlsPort string) string {
	t.Helper()
	site, err := os.ReadFile("../../examples/certbot-site/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(dir, "live")
	writeTestPair(t, live, "example-demo.backend.com")
	text := strings.NewReplacer(
		"listen [::]:443", "listen [::1]:"+tlsPort, "listen 443", "listen 127.0.0.1:"+tlsPort,
		"listen [::]:80", "listen [::1]:"+port, "listen 80", "listen 127.0.0.1:"+port,
		"127.0.0.1:5000", app,
		"/etc/letsencrypt/live/example-demo.backend.com/fullchain.pem", live+"/c.pem",
		"/etc/letsencrypt/live/example-demo.backend.com/privkey.pem", live+"/k.pem",
		"include /etc/letsencrypt/options-ssl-nginx.conf;", certbotOptions,
		"ssl_dhparam /etc/letsencrypt/ssl-dhparams.pem;", "",
	).Replace(string(site))
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := filepath.Join(dir, "nginx.conf")
	text = fmt.Sprintf("%s pid %[2]s/pid;\nevents {}\nhttp {\naccess_log off; client_body_temp_path %[2]s/client; proxy_temp_path %[2]s/proxy;\n%[3]s}\n", user, dir, text)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return conf
}

// besideApplication answers with the request as it got it.
func besideApplication(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveBackend(c, nil)
		}
	}()
	return l.Addr().String()
}

func besidePID(t *testing.T, dir string) int {
	t.Helper()
	for range 300 {
		text, _ := os.ReadFile(filepath.Join(dir, "pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no pid file")
	return 0
}

// askBeside sends a request, over TLS when a name is given, and returns what
// comes back until the server closes.
func askBeside(t *testing.T, address, text, name string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if name != "" {
		c = tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // the certificate is the test's own
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(bufio.NewReader(c))
	return string(answer)
}

var (
	besideDate    = regexp.MustCompile(`Date: [^\r]*`)
	besideVersion = regexp.MustCompile(`nginx/[0-9.]+`)
	// How a request reaches the application differs with the version of nginx:
	// by HTTP/1.1 and kept connections from 1.29.7 on.
	besideHop    = regexp.MustCompile(`(?m)^Connection: close\n`)
	besideSeen   = regexp.MustCompile(`(?s)\r\n\r\n(GET|POST) /.*`)
	besideLength = regexp.MustCompile(`Content-Length: \d+`)
)

// besideForm removes what differs with date, version and port.
func besideForm(answer, port, tlsPort string) string {
	answer = besideVersion.ReplaceAllString(besideDate.ReplaceAllString(answer, "Date: now"), "nginx/N")
	answer = strings.NewReplacer(":"+port, ":80", ":"+tlsPort, ":443").Replace(answer)
	seen := besideSeen.FindString(answer)
	if seen == "" {
		return answer
	}
	head := besideLength.ReplaceAllString(strings.TrimSuffix(answer, seen), "Content-Length: N")
	seen = strings.ReplaceAll(besideHop.ReplaceAllString(seen, ""), " HTTP/1.0\n", " HTTP/1.1\n")
	return head + seen
}
