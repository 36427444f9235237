package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/http2"
)

// overHTTP2 makes a client that speaks HTTP/2 without TLS over a unix socket of
// the folder.
func (r *running) overHTTP2(socket string) *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(r.dir, socket))
	}}
	t.Protocols.SetUnencryptedHTTP2(true)
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// askHTTP2 asks for a path and gives status, fields and body in lines.
func (r *running) askHTTP2(c *http.Client, method, path string, body io.Reader) string {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://a.test"+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("User-Agent", "t")
	resp, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	out := fmt.Sprintf("%d", resp.StatusCode)
	for _, name := range []string{"Content-Length", "Content-Type", "Location", "X-Seen", "Upgrade", "Connection"} {
		if v := resp.Header.Get(name); v != "" {
			out += " " + name + "=" + v
		}
	}
	for name, v := range resp.Trailer {
		out += " trailer " + name + "=" + v[0]
	}
	out += " " + string(text)
	if err != nil {
		out += " " + err.Error()
	}
	return out
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	r := run(t, `events {} http { log_format l '$request|$status|$body_bytes_sent|$http2'; access_log logs/access.log l;
		large_client_header_buffers 4 1k;
		server { listen unix:%dir%/two.sock; server_name a.test; http2 on; root html;
			location /vars { add_header X-Seen $http_x_seen; return 200 "$server_protocol $http2 $scheme $host $http_host $request_method"; }
			location /to { return 302 /elsewhere; }
			location /up/ { proxy_pass http://unix:%dir%/one.sock:/; }
			location /raw/ { proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://unix:%dir%/one.sock:/; }
			location /small { client_max_body_size 10; proxy_pass http://unix:%dir%/one.sock:/; }
			location /silent { return 444; }
			location /trailers { add_trailer X-End "$status"; root html; } }
		server { listen unix:%dir%/two.sock; server_name off.test; http2 off; }
		server { listen unix:%dir%/one.sock; server_name one;
			location / { client_max_body_size 2m; client_body_in_single_buffer on; client_body_buffer_size 2m; add_header Connection x; add_header Upgrade y;
				proxy_pass http://unix:%dir%/two1.sock; }
			}
		server { listen unix:%dir%/two1.sock; location / { return 200 "$request_method $content_length $http_content_length"; } } }`)
	big := bytes.Repeat([]byte("0123456789"), 40<<10)
	if err := os.WriteFile(filepath.Join(r.dir, "html", "big"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "html", "trailers"), []byte("body"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := r.overHTTP2("two.sock")
	for _, tt := range []struct {
		method, path string
		body         []byte
		want         string
	}{
		{"GET", "/vars", nil, "200 Content-Length=35 Content-Type=text/plain HTTP/2.0 h2c http a.test a.test GET"},
		{"HEAD", "/vars", nil, "200 Content-Length=36 Content-Type=text/plain "},
		{"GET", "/to", nil, "302 Content-Length=145 Content-Type=text/html Location=http://a.test/elsewhere " + string(page(302))},
		{"GET", "/none", nil, "404 Content-Length=153 Content-Type=text/html " + string(page(404))},
		{"POST", "/up/", []byte("hello"), "200 Content-Length=8 Content-Type=text/plain POST 5 5"},
		{"POST", "/up/", big, "200 Content-Length=18 Content-Type=text/plain POST 409600 409600"},
		{"POST", "/raw/", big, "200 Content-Length=18 Content-Type=text/plain POST 409600 409600"},
		{"POST", "/small", big, "413 Content-Length=183 Content-Type=text/html " + string(page(413))},
		{"GET", "/silent", nil, `Get "http://a.test/silent": stream error: stream ID 17; INTERNAL_ERROR; received from peer`},
		{"GET", "/trailers", nil, "200 Content-Length=4 Content-Type=text/plain trailer X-End=200 body"},
		{"GET", "/big", nil, fmt.Sprintf("200 Content-Length=409600 Content-Type=text/plain %s", big)},
	} {
		var body io.Reader
		if tt.body != nil {
			body = bytes.NewReader(tt.body)
		}
		if got := r.askHTTP2(c, tt.method, tt.path, body); got != tt.want {
			t.Errorf("%s %s: got %.300s, want %.300s", tt.method, tt.path, got, tt.want)
		}
	}
	if got := r.get("two.sock", "/vars"); !strings.HasSuffix(got, "HTTP/1.1  http a.test a.test GET") {
		t.Errorf("got %s", got)
	}
	req, _ := http.NewRequest(http.MethodGet, "http://off.test/", nil)
	if resp, err := c.Do(req); err != nil {
		t.Error(err)
	} else if _ = resp.Body.Close(); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("got %v", resp)
	}
	for _, line := range []string{"HTTP/2.0|421", "GET /vars HTTP/2.0|200|35|h2c\n", "HEAD /vars HTTP/2.0|200|0|h2c\n", "GET /silent HTTP/2.0|444|0|h2c\n", "GET /big HTTP/2.0|200|409600|h2c\n"} {
		r.await("logs/access.log", line)
	}
}

func page(status int) []byte {
	_, text, _ := pageText(status)
	title := fmt.Sprintf("%d %s", status, text)
	return fmt.Appendf(nil, "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<hr><center>nginx/1.31.5</center>\r\n</body>\r\n</html>\r\n", title, title)
}

// TestHTTP2Reload: connections end with their generation, requests in flight
// are answered.
func TestHTTP2Reload(t *testing.T) {
	t.Parallel()
	address, arrived, answer := heldBackend(t)
	conf := `events {} http { server { listen unix:%dir%/s; http2 on;
		location / { return 200 VERSION; } location /slow { proxy_pass http://` + address + `; } } }`
	r := run(t, strings.ReplaceAll(conf, "VERSION", "one"))
	c := r.overHTTP2("s")
	if got := r.askHTTP2(c, "GET", "/", nil); !strings.HasSuffix(got, " one") {
		t.Fatal(got)
	}
	slow := make(chan string)
	go func() { slow <- r.askHTTP2(c, "GET", "/slow", nil) }()
	<-arrived
	if err := r.Reload(r.load(strings.ReplaceAll(conf, "VERSION", "two"))); err != nil {
		t.Fatal(err)
	}
	if got := r.askHTTP2(c, "GET", "/", nil); !strings.HasSuffix(got, " two") {
		t.Error(got)
	}
	answer <- struct{}{}
	if got := <-slow; !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
}

func TestHTTP2Rows(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]string{
		"http2_chunk_size 0;":                 "the http2 chunk size cannot be zero",
		"http2_recv_buffer_size 16;":          "value is too small",
		"http2_pool_size 10;":                 "the pool size must be no less than 112",
		"http2_pool_size 113;":                "the pool size must be a multiple of 16",
		"http2_body_preread_size 2147483648;": "the maximum body preread buffer size is 2147483647",
		"http2_streams_index_size 3;":         "must be a power of two",
		"http2_idle_timeout 3m;":              `the "http2_idle_timeout" directive is obsolete, use the "keepalive_timeout" directive instead`,
		"http2_push /x;":                      `the "http2_push" directive is obsolete, ignored`,
		"http2_max_concurrent_streams 1; http2 on; http2_chunk_size 32m;": "",
	} {
		table, diags := prepare(t).parse("events {} http { " + conf + " }")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if !strings.Contains(got, want) || want == "" && table == nil {
			t.Errorf("%s: got %q, want %q", conf, got, want)
		}
	}
}

// TestHTTP2OverTLS: ALPN decides, by the server that SNI names.
func TestHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	r, ca := prepareTLS(t)
	ca.issue("a.test")
	r.serve(`events {} http { ssl_certificate a.test.crt; ssl_certificate_key a.test.key; root html;
		server { listen unix:%dir%/s ssl; server_name a.test; http2 on; location /v { return 200 "$http2 $server_protocol $https"; } }
		server { listen unix:%dir%/s ssl; server_name off.test; } }`)
	if err := os.WriteFile(filepath.Join(r.dir, "html", "big"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{ServerName: "a.test", InsecureSkipVerify: true},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return r.dial("s"), nil },
	}
	transport.Protocols.SetHTTP2(true)
	c := &http.Client{Transport: transport}
	defer c.CloseIdleConnections()
	for path, want := range map[string]string{"/v": "h2 HTTP/2.0 on", "/big": string(make([]byte, 1<<20))} {
		resp, err := c.Get("https://a.test" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
	}
	for name, want := range map[string]string{"a.test": "h2", "off.test": "http/1.1"} {
		nc := tls.Client(r.dial("s"), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err := nc.Handshake(); err != nil || nc.ConnectionState().NegotiatedProtocol != want {
			t.Errorf("%s: %q %v", name, nc.ConnectionState().NegotiatedProtocol, err)
		}
		_ = nc.Close()
	}
}

// TestHTTP2EmptyBody: the end of a body is waited for even when it is announced
// to be empty; here the client goes away instead.
func TestHTTP2EmptyBody(t *testing.T) {
	t.Parallel()
	r := run(t, `events {} http { log_format l '$request $status'; access_log logs/access.log l;
		server { listen unix:%dir%/two.sock; server_name a.test; http2 on; location / { proxy_pass http://unix:%dir%/none.sock; } } }`)
	c := r.dial("two.sock")
	defer c.Close()
	if _, err := io.WriteString(c, http2.Preface); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a.test"}, {"content-length", "0"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	framer := xhttp2.NewFramer(c, c)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = framer.WriteRSTStream(1, xhttp2.ErrCodeCancel)
	r.await("logs/access.log", "POST / HTTP/2.0 499")
}
