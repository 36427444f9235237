package validators

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// site is a configuration to be served by several servers at once: its text has
// words between underscores in the place of what differs from one to the other.
type site struct {
	original string
	text     string
	folder   string            // in it lie the files of the site
	files    map[string]string // more of them
	words    map[string]string
}

// newSite reads a configuration. Its upstreams become ones that show what reached
// them, its certificates ones that exist.
func newSite(t *testing.T, text, folder string) *site {
	t.Helper()
	s := &site{original: text, folder: folder, words: map[string]string{}}
	text = regexp.MustCompile(`127\.0\.0\.1:50\d\d`).ReplaceAllStringFunc(text, func(a string) string {
		return s.word(a, func() string { return listening(t, func(l net.Listener) { serveHTTP(t, l) }) })
	})
	text = regexp.MustCompile(`127\.0\.0\.1:90\d\d`).ReplaceAllStringFunc(text, func(a string) string {
		return s.word(a, func() string {
			return listening(t, func(l net.Listener) { go serveApplication(l) })
		})
	})
	text = regexp.MustCompile(`listen +(\[::\]:)?(443|80|8080)\b`).ReplaceAllStringFunc(text, func(l string) string {
		port := map[bool]string{false: "__PLAIN__", true: "__SECURE__"}[strings.HasSuffix(l, "443")]
		if strings.Contains(l, "[::]") {
			return "listen [::]:" + port
		}
		return "listen " + port
	})
	s.text = regexp.MustCompile(`\S*/etc/letsencrypt/live/\S+/(fullchain|privkey)\.pem`).ReplaceAllString(text, "__DIR__/$1.pem")
	return s
}

func (s *site) word(name string, start func() string) string {
	if s.words[name] == "" {
		s.words[name] = start()
	}
	return s.words[name]
}

// file writes the configuration for one server, with ports of its own.
func (s *site) file(t *testing.T) (path string, ports map[string]string) {
	t.Helper()
	ports = map[string]string{"http": unusedPort(t), "https": unusedPort(t)}
	dir := t.TempDir()
	if s.folder != "" {
		if err := os.CopyFS(dir, os.DirFS(s.folder)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range s.files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(s.text, "__DIR__/fullchain.pem") {
		writeCertificate(t, dir)
	}
	text := strings.NewReplacer("__PLAIN__", ports["http"], "__SECURE__", ports["https"], "__DIR__", dir).Replace(s.text)
	path = filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, ports
}

// writeCertificate writes a certificate and its key, for all names.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"example-demo.backend.com", "app.example.com", "*.example.com"},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"fullchain.pem": {Type: "CERTIFICATE", Bytes: certificate}, "privkey.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func unusedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func listening(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serve(l)
	return l.Addr().String()
}

func serveHTTP(t *testing.T, l net.Listener) {
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(showRequest), ReadHeaderTimeout: time.Minute}}
	s.Start()
	t.Cleanup(s.Close)
}

// showRequest answers with what has to be the same whoever passed it on.
func showRequest(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	lines := []string{"HOST " + r.Host}
	for name, values := range r.Header {
		switch name {
		case "Connection", "Accept-Encoding", "Content-Length", "User-Agent":
		default:
			lines = append(lines, name+": "+strings.Join(values, ", "))
		}
	}
	slices.Sort(lines)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-B", "of the application")
	if to := r.URL.Query().Get("location"); to != "" {
		w.Header().Set("Location", strings.ReplaceAll(to, "SELF", r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()))
	}
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	fmt.Fprintf(w, "%s %s\n%s\n\n%s", r.Method, r.RequestURI, strings.Join(lines, "\n"), body)
}

// serveApplication answers over FastCGI with what has to be the same whoever
// passed a request on.
func serveApplication(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			params, body, err := readApplication(bufio.NewReader(c))
			if err != nil {
				return
			}
			text := "Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\n"
			if file, err := filepath.EvalSymlinks(params["SCRIPT_FILENAME"]); err == nil {
				text = "Content-Type: text/plain\r\n\r\nFILE " + filepath.Base(file) + "\n"
			}
			for _, name := range []string{"REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "SCRIPT_NAME", "PATH_INFO", "DOCUMENT_URI", "SERVER_NAME", "REDIRECT_STATUS", "HTTP_HOST", "HTTP_X_A"} {
				text += name + " " + params[name] + "\n"
			}
			text += string(body)
			for _, record := range []struct {
				kind    byte
				content string
			}{{6, text}, {6, ""}, {3, "\x00\x00\x00\x00\x00\x00\x00\x00"}} {
				n := len(record.content)
				_, _ = c.Write(append([]byte{1, record.kind, 0, 1, byte(n >> 8), byte(n), 0, 0}, record.content...))
			}
		}()
	}
}

// readApplication reads the records of a request.
func readApplication(r *bufio.Reader) (map[string]string, []byte, error) {
	var params, body []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, nil, err
		}
		content := make([]byte, int(head[4])<<8|int(head[5])+int(head[6]))
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, nil, err
		}
		content = content[:len(content)-int(head[6])]
		switch {
		case head[1] == 4:
			params = append(params, content...)
		case head[1] == 5 && len(content) == 0:
			return pairs(params), body, nil
		case head[1] == 5:
			body = append(body, content...)
		}
	}
}

// pairs reads names and values with their lengths in front.
func pairs(b []byte) map[string]string {
	out := map[string]string{}
	length := func() int {
		n := int(b[0])
		if n < 128 {
			b = b[1:]
			return n
		}
		n = int(b[0]&127)<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		b = b[4:]
		return n
	}
	for len(b) > 0 {
		name := length()
		value := length()
		out[string(b[:name])] = string(b[name : name+value])
		b = b[name+value:]
	}
	return out
}

// serveOurs serves a configuration by proxyctl until the test ends.
func serveOurs(t *testing.T, path, port string) {
	t.Helper()
	runUntilEnd(t, port, program, "serve", "--local", "--data", filepath.Join(filepath.Dir(path), "data"), path)
}

// runUntilEnd starts a server and waits until it listens.
func runUntilEnd(t *testing.T, port, command string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(command, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("it ends: %s", out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ask sends a request as it stands, "METHOD http://host/target", with a field and
// a body if they follow, and returns what has to be the same of the answer.
func ask(t *testing.T, ports map[string]string, request string) string {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	line, field, _ := strings.Cut(head, "\n")
	method, url, _ := strings.Cut(line, " ")
	if !strings.Contains(line, " ") {
		method, url = http.MethodGet, line
	}
	scheme, rest, _ := strings.Cut(url, "://")
	host, target, _ := strings.Cut(rest, "/")
	c, err := net.Dial("tcp", "127.0.0.1:"+ports[scheme])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if scheme == "https" {
		secure := tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			return "no handshake"
		}
		c = secure
	}
	if field != "" {
		field += "\r\n"
	}
	if body != "" {
		field += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	_, _ = fmt.Fprintf(c, "%s /%s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n%s", method, target, host, field, body)
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return "closed"
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return essence(host, answer, string(text))
}

var (
	originOfLocation = regexp.MustCompile(`^https?://[^/]*?(:\d+)?(/|$)`)
	address          = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// essence is what has to be the same: status, where a redirect leads, fields that
// a configuration sets, and the body of what is not an error.
func essence(host string, answer *http.Response, body string) string {
	var b strings.Builder
	fmt.Fprintln(&b, answer.StatusCode)
	if l := answer.Header.Get("Location"); l != "" {
		if m := originOfLocation.FindStringSubmatch(l); m != nil && m[1] != "" {
			l = strings.Replace(l, m[1], "", 1)
		}
		fmt.Fprintln(&b, "Location:", strings.TrimPrefix(l, "http://"+host))
	}
	for _, name := range []string{"Cache-Control", "Content-Encoding", "Www-Authenticate", "X-A", "X-B", "X-Served-By", "X-Frame-Options", "Strict-Transport-Security"} {
		if values := answer.Header.Values(name); values != nil {
			fmt.Fprintf(&b, "%s: %s\n", name, address.ReplaceAllString(strings.Join(values, ", "), "ADDRESS"))
		}
	}
	if answer.StatusCode == http.StatusOK {
		kind, _, _ := strings.Cut(answer.Header.Get("Content-Type"), ";")
		if kind == "text/css" { // of files, every server has its own table
			kind = "text/plain"
		}
		if answer.Header.Get("Content-Encoding") == "gzip" {
			if r, err := gzip.NewReader(strings.NewReader(body)); err == nil {
				plain, _ := io.ReadAll(r)
				body = string(plain)
			}
		}
		fmt.Fprintf(&b, "%s\n\n%s", kind, body)
	}
	return b.String()
}

// withoutAdditions drops from an answer the fields that servers add to what they
// pass on by themselves.
func withoutAdditions(want, got string) string {
	var b strings.Builder
	for line := range strings.Lines(got) {
		added := strings.HasPrefix(line, "X-Forwarded-") || strings.HasPrefix(line, "Via: ") || line == "Cache-Control: no-cache\n"
		if name, _, _ := strings.Cut(line, ":"); added && !strings.Contains(want, name+":") {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}
