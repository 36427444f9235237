package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// inheritUDP has the server listen for QUIC on an address that is returned.
func (r *running) inheritUDP(network, address string) string {
	r.t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	fd, err := duplicate(c.(*net.UDPConn))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Inherit([]int{fd}, false)
	return c.LocalAddr().String()
}

// http3Client is a client with one connection, and what that was closed with.
type http3Client struct {
	*testing.T
	*http3.ClientConn
	quic *quic.Conn
}

func dialHTTP3(t *testing.T, address string, config *tls.Config) *http3Client {
	t.Helper()
	config.InsecureSkipVerify, config.NextProtos, config.ServerName = true, []string{http3.NextProtoH3}, "a.test"
	c, err := quic.DialAddrEarly(t.Context(), address, config, &quic.Config{MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return &http3Client{t, new(http3.Transport).NewClientConn(c), c}
}

// ask gives status, fields of interest and body of an answer.
func (c *http3Client) ask(method, path string, body io.Reader) string {
	req, err := http.NewRequestWithContext(c.Context(), method, "https://a.test"+path, body)
	if err != nil {
		return err.Error()
	}
	res, err := c.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return strings.Join(append([]string{res.Status[:3], string(text)}, res.Header.Values("X-Seen")...), " ")
}

// closed waits for the end of the connection and gives its error.
func (c *http3Client) closed() string {
	c.Helper()
	select {
	case <-c.quic.Context().Done():
	case <-time.After(10 * time.Second):
		c.Fatal("the connection goes on")
	}
	return context.Cause(c.quic.Context()).Error()
}

const http3Site = `error_log logs/e.log info; events {} http {
	log_format l '$status $http3 $request_completion $body_bytes_sent $connection_requests "$request"'; access_log logs/access.log l;
	ssl_certificate a.test.crt; ssl_certificate_key a.test.key; ssl_early_data on;
	server { listen %address% quic; server_name a.test; BODY } }`

// serveHTTP3 serves a site over HTTP/3 and gives its address.
func (r *running) serveHTTP3(body string) (address string) {
	r.t.Helper()
	address = r.inheritUDP("udp4", "127.0.0.1:0")
	r.serve(strings.NewReplacer("%address%", address, "BODY", body).Replace(http3Site))
	return address
}

func TestHTTP3(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	address := r.serveHTTP3(`
		client_max_body_size 100k;
		location / { add_header X-Seen "$http3 $ssl_protocol $ssl_alpn_protocol $https"; return 200 ok; }
		location /large { root html; }
		location /body { add_header X-Seen $content_length; proxy_pass http://unix:%dir%/back; }
		location /held { proxy_pass http://` + backend + `; }
	} server { listen unix:%dir%/back; client_max_body_size 0; location / { client_body_in_single_buffer on; client_body_buffer_size 1m; proxy_pass http://unix:%dir%/last; } }
	server { listen unix:%dir%/last; client_max_body_size 0; return 200 "$content_length $http_transfer_encoding";`)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(filepath.Join(r.dir, "html/large"), []byte(large), 0o644); err != nil {
		t.Fatal(err)
	}
	c := dialHTTP3(t, address, &tls.Config{})
	for _, tt := range []struct {
		method, path, want string
		body               io.Reader
	}{
		{"GET", "/", "200 ok h3 TLSv1.3 h3 on", nil},
		{"HEAD", "/", "200  h3 TLSv1.3 h3 on", nil},
		{"GET", "/large", "200 " + large, nil},
		{"POST", "/body", "200 10  10", strings.NewReader("0123456789")},
		{"POST", "/body", "200 50000  50000", strings.NewReader(large[:50000])},
		{"POST", "/body", "413 ", strings.NewReader(large)},
		{"POST", "/body", "200 50000  50000", io.MultiReader(strings.NewReader(large[:50000]))}, // of unknown length
		{"TRACE", "/", "405 ", nil},
	} {
		got := c.ask(tt.method, tt.path, tt.body)
		if tt.want[0] == '4' {
			got = got[:min(4, len(got))]
		}
		if got != tt.want {
			t.Errorf("%s %s: got %.100q, want %.100q", tt.method, tt.path, got, tt.want)
		}
	}

	// a client that gives up
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://a.test/held", http.NoBody)
	go func() {
		<-arrived
		cancel()
	}()
	if res, err := c.RoundTrip(req); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
		_ = res.Body.Close()
	}
	r.await("logs/access.log", "499 h3  0 ")
	close(answer)
	if s := r.read("logs/access.log"); !strings.Contains(s, "200 h3 OK 2 1 \"GET / HTTP/3.0\"\n200 h3 OK 0 2 \"HEAD / HTTP/3.0\"\n") {
		t.Error(s)
	}
}

// TestHTTP3Reload: connections end with their generation, requests in flight are
// answered before that.
func TestHTTP3Reload(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	body := `location / { return 200 one; } location /held { proxy_pass http://` + backend + `; }`
	address := r.serveHTTP3(body)
	c := dialHTTP3(t, address, &tls.Config{})
	if got := c.ask("GET", "/", nil); got != "200 one" {
		t.Error(got)
	}
	held := make(chan string)
	go func() { held <- c.ask("GET", "/held", nil) }()
	<-arrived
	conf := strings.NewReplacer("%address%", address, "BODY", strings.Replace(body, "one", "two", 1)).Replace(http3Site)
	if err := r.Reload(r.load(conf)); err != nil {
		t.Fatal(err)
	}
	if got := dialHTTP3(t, address, &tls.Config{}).ask("GET", "/", nil); got != "200 two" {
		t.Error(got)
	}
	close(answer)
	if got := <-held; got != "200 late" {
		t.Error(got)
	}
	if got := c.closed(); !strings.Contains(got, "H3_NO_ERROR") && !strings.Contains(got, "0x100") {
		t.Error(got)
	}

	// an address that is not listened on any more
	c = dialHTTP3(t, address, &tls.Config{})
	if got := c.ask("GET", "/", nil); got != "200 two" {
		t.Error(got)
	}
	if err := r.Reload(r.load(site("return 200;"))); err != nil {
		t.Fatal(err)
	}
	c.closed()

	// a pause
	if err := r.Reload(r.load(conf)); err != nil {
		t.Fatal(err)
	}
	c = dialHTTP3(t, address, &tls.Config{})
	c.ask("GET", "/", nil)
	r.Pause()
	c.closed()
	r.Resume()
	if got := dialHTTP3(t, address, &tls.Config{}).ask("GET", "/", nil); got != "200 two" {
		t.Error(got)
	}
}

// TestHTTP3Addresses: the address that a client writes to chooses among servers.
func TestHTTP3Addresses(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	_, port, _ := net.SplitHostPort(r.inheritUDP("udp4", "0.0.0.0:0"))
	body := "return 200 any; } server { listen 127.0.0.2:" + port + " quic; return 200 two;"
	wanted := map[string]string{"127.0.0.1:" + port: "200 any", "127.0.0.2:" + port: "200 two"}
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err == nil { // there is IPv6
		_ = c.Close()
		_, port, _ := net.SplitHostPort(r.inheritUDP("udp6", "[::1]:0"))
		body += "} server { listen [::1]:" + port + " quic; return 200 six;"
		wanted["[::1]:"+port] = "200 six"
	}
	r.serve(strings.NewReplacer("%address%", port, "BODY", body).Replace(http3Site))
	for address, want := range wanted {
		if got := dialHTTP3(t, address, &tls.Config{}).ask("GET", "/", nil); got != want {
			t.Errorf("%s: got %q, want %q", address, got, want)
		}
	}
}

// TestHTTP3Heir: another process takes the sockets; connections of this one end
// then, so that it reads nothing that is meant for the other.
func TestHTTP3Heir(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	address := r.serveHTTP3(`return 200 one;`)
	c := dialHTTP3(t, address, &tls.Config{})
	if got := c.ask("GET", "/", nil); got != "200 one" {
		t.Error(got)
	}
	fds, err := r.Sockets()
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	heir, ca := prepareTLS(t)
	ca.issue("a.test")
	heir.Inherit(fds, false)
	heir.serve(strings.NewReplacer("%address%", address, "BODY", "return 200 two;").Replace(http3Site))
	r.HandedOver(true)
	r.Shutdown(t.Context())
	c.closed()
	if got := dialHTTP3(t, address, &tls.Config{}).ask("GET", "/", nil); got != "200 two" {
		t.Error(got)
	}
}

// TestHTTP3EarlyData: a request that came before the handshake is over is told
// from others.
func TestHTTP3EarlyData(t *testing.T) {
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	address := r.serveHTTP3(`add_header X-Seen "$ssl_session_reused:$ssl_early_data"; return 200;`)
	config := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	c := dialHTTP3(t, address, config)
	if got := c.ask("GET", "/", nil); got != "200  .:" {
		t.Error(got)
	}
	_ = c.quic.CloseWithError(0, "")
	c = dialHTTP3(t, address, config)
	req, _ := http.NewRequestWithContext(t.Context(), http3.MethodGet0RTT, "https://a.test/", http.NoBody)
	res, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// the end of the handshake may have come with the request
	if got := res.Header.Get("X-Seen"); got != "r:1" && got != "r:" || !c.quic.ConnectionState().Used0RTT {
		t.Errorf("early data: %q", got)
	}
}
