package verify

import (
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// TestRewrite: everything that a configuration touches has another place, and
// the rest stays as it was written.
func TestRewrite(t *testing.T) {
	const conf = `user www-data; worker_processes auto; pid /run/nginx.pid; error_log /var/log/e.log;
events { worker_connections 64; use epoll; }
stream { server { listen 1; } }
http {
	log_format short "$host $status";
	access_log /var/log/a.log short buffer=32k if=$loud;
	proxy_set_header Host $host;
	resolver 8.8.8.8 [::1] valid=10s;
	limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s;
	upstream app { server 10.0.0.1; server app.internal:8080 weight=2 resolve; server unix:/run/app.sock backup; }
	map $host $loud { default 1; server 0; listen 0; }
	server {
		listen 80; ssl_certificate /none/a.pem; ssl_certificate_key /none/a.key;
		location / { limit_req zone=z; proxy_pass http://app/x; }
		location /a { proxy_pass https://10.0.0.2/y$is_args; access_log off; }
		location /b { proxy_pass $scheme://$host:8080/z; }
		location /c { proxy_set_header X 1; proxy_pass http://$backend; }
		location /d { proxy_pass http://unix:/run/d.sock:/d; error_log /var/log/d.log; }
		location ~ "^/e{2}" { fastcgi_pass 127.0.0.1:9000; proxy_store on; }
	}
}`
	pair, err := makePair(filepath.Join(t.TempDir(), "pair"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := newBackends(pair)
	t.Cleanup(b.close)
	r := &rewriter{dir: dir, pair: "/pair", backends: b, readable: isReadable}
	file := r.rewrite(parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte(conf)}, parser.Options{}))
	var out strings.Builder
	write(&out, file.Body, "")
	text := out.String()
	for to, from := range b.original {
		text = strings.ReplaceAll(text, to, "NEW("+from+")")
	}
	text = strings.ReplaceAll(text, dir, "DIR")
	const want = `daemon off;
worker_processes 1;
pid DIR/pid;
error_log DIR/error.log info;
events {
    worker_connections 64;
}
http {
    log_format short "$host $status";
    access_log DIR/access-0.log short if=$loud;
    proxy_set_header Host $host;
    resolver 127.0.0.1 valid=10s;
    limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s;
    upstream app {
        server NEW(10.0.0.1:80);
        server NEW(app.internal:8080) weight=2;
        server NEW(unix:/run/app.sock) backup;
    }
    map $host $loud {
        default 1;
        server 0;
        listen 0;
    }
    server {
        listen 80;
        ssl_certificate /pair.crt;
        ssl_certificate_key /pair.key;
        location / {
            proxy_pass http://app/x;
        }
        location /a {
            proxy_pass https://NEW(10.0.0.2:443)/y$is_args;
            access_log off;
        }
        location /b {
            proxy_set_header Host $host;
            proxy_set_header X-Proxyctl-Pass $scheme://$host:8080/z;
            proxy_pass http://NEW($scheme://$host:8080/z)$proxyctl_none/z;
        }
        location /c {
            proxy_set_header X 1;
            proxy_set_header X-Proxyctl-Pass http://$backend;
            proxy_pass http://NEW(http://$backend)$proxyctl_none;
        }
        location /d {
            proxy_pass http://NEW(unix:/run/d.sock):/d;
        }
        location ~ "^/e{2}" {
            fastcgi_pass NEW(127.0.0.1:9000);
        }
    }
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    map $pid $proxyctl_none {
        default "";
    }
}
`
	if text != want {
		t.Errorf("got\n%s", text)
	}
	if got := strings.Join(r.order, " "); got != "stream ssl_certificate ssl_certificate_key limit_req proxy_store" {
		t.Errorf("left out: %s", got)
	}
}

func TestCompare(t *testing.T) {
	ok := func(fields, body string) *answer {
		return &answer{text: []byte("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n" + fields + "\r\n" + body)}
	}
	later := func(a *answer) *answer {
		a.text = []byte(strings.NewReplacer("00:00:00", "00:00:09", "01:00:00", "01:00:09", "1.22.1", "1.31.5").Replace(string(a.text)))
		return a
	}
	passed := func(head string) *answer {
		a := ok("", "")
		a.upstream = []upstreamRequest{{"app", head, ""}}
		return a
	}
	tests := []struct {
		name      string
		want, got *answer
		whats     string
	}{
		{"dates and versions", ok("Expires: Thu, 01 Jan 2026 01:00:00 GMT\r\nContent-Length: 14\r\n", "<nginx/1.22.1>"), later(ok("Expires: Thu, 01 Jan 2026 01:00:00 GMT\r\nContent-Length: 14\r\n", "<nginx/1.22.1>")), ""},
		{"another expiry", ok("Expires: Thu, 01 Jan 2026 01:00:00 GMT\r\n", ""), later(ok("Expires: Thu, 01 Jan 2026 02:00:00 GMT\r\n", "")), "field Expires other"},
		{"another body", ok("Content-Length: 1\r\n", "a"), ok("Content-Length: 2\r\n", "bc"), "body other"},
		{"other chunks", ok("Transfer-Encoding: chunked\r\n", "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), ok("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), ""},
		{"a lost field", ok("Vary: x\r\nA: b\r\n", ""), ok("A: b\r\n", ""), "field Vary missing"},
		{"a new field", ok("", ""), ok("A: b\r\n", ""), "field A added"},
		{"another order", ok("A: b\r\nC: d\r\n", ""), ok("C: d\r\nA: b\r\n", ""), "field order order"},
		{"another status", ok("A: b\r\n", "x"), &answer{text: []byte("HTTP/1.1 404 Not Found\r\n\r\n")}, "status other"},
		{"no answer", ok("", ""), &answer{failure: "no answer"}, "answer other"},
		{"another certificate", &answer{tls: "TLS 1.3, , certificate a"}, &answer{tls: "TLS 1.3, , certificate b"}, "TLS other"},
		{"an older version", &answer{tls: "TLS 1.2, , certificate a"}, &answer{tls: "TLS 1.3, , certificate a"}, "TLS version other"},
		{"the request passed on", passed("GET /a HTTP/1.0\r\nHost: x\r\n"), passed("GET /b HTTP/1.1\r\nHost: y\r\n"), "upstream request line other, upstream version other, upstream field Host other"},
		{"no request passed on", passed("GET /a HTTP/1.0\r\n"), ok("", ""), "upstream requests other"},
	}
	for _, tt := range tests {
		var whats []string
		for _, d := range compare(tt.want, tt.got) {
			whats = append(whats, d.what+" "+d.how)
		}
		if got := strings.Join(whats, ", "); got != tt.whats {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.whats)
		}
	}
}

func TestLogFormat(t *testing.T) {
	tests := []struct{ format, escape, line, want string }{
		{combined, "", `::1 - - [10/Oct/2025:13:55:36 +0000] "GET /a?b=c HTTP/1.1" 200 1 "http://r/\x22" "agent"`, "GET /a?b=c unknown.invalid referer: http://r/\" | user-agent: agent"},
		{combined, "", `::1 - - [10/Oct/2025:13:55:36 +0000] "\x16\x03\x01" 400 1 "-" "-"`, ""},
		{`{"m":"$request_method","u":"$request_uri","h":"$host"}`, "json", `{"m":"HEAD","u":"/\"x","h":"a.test"}`, `HEAD /"x a.test `},
		{`$host ${uri} $args $http_x_y`, "none", `a.test /b%c - z`, "GET /b%25c a.test x-y: z"},
		{combined, "", "nonsense", ""},
	}
	for _, tt := range tests {
		f, err := newLogFormat("x", tt.format, tt.escape)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r := requestOf(f.read(tt.line)); r != nil {
			fields := strings.Join(r.Fields[:len(r.Fields)-2], " | ")
			got = r.Method + " " + r.Target + " " + r.Host + " " + fields
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestCommand(t *testing.T) {
	c := &comparison{original: map[string]string{"127.0.0.1:12345": "0.0.0.0:443", "127.0.0.1:12346": "[::]:8080"}}
	w := proxy.Witness{Method: "PUT", Host: "a.test", Target: "/it's?a=b", Fields: []string{"X: y z"}}
	w.To.Address, w.To.TLS = mustAddress("127.0.0.1:12345"), true
	if got, want := c.command(&request{Witness: w}), `curl -ik --path-as-is -X PUT -H 'X: y z' --resolve a.test:443:127.0.0.1 'https://a.test/it'\''s?a=b'`; got != want {
		t.Errorf("got %s", got)
	}
	w.To.Address, w.To.TLS = mustAddress("127.0.0.1:12346"), false
	if got, want := c.command(&request{Witness: w, raw: true, text: "GET %00\r\n\x01"}), `printf 'GET %%00\r\n\001' | nc 127.0.0.1 8080`; got != want {
		t.Errorf("got %s", got)
	}
}

func mustAddress(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestListen: a server without listen gets one.
func TestListen(t *testing.T) {
	file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte("events {} http { server { listen 81 ssl; } server { server_name a.test; } }")}, parser.Options{})
	addresses := map[*parser.Directive][]proxy.ListenAddress{}
	each(file.Body, func(d *parser.Directive) {
		if d.Name.Value == "listen" || len(addresses) == 1 && d.Name.Value == "server" {
			addresses[d] = []proxy.ListenAddress{{Network: "tcp4", Address: netip.MustParseAddrPort("0.0.0.0:80")}}
		}
	})
	if _, err := listen(file.Body, addresses, func() (int, error) { return 1234, nil }); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	write(&out, file.Body, "")
	if got, want := strings.Join(strings.Fields(out.String()), " "), "events { } http { server { listen 127.0.0.1:1234 ssl; } server { listen 127.0.0.1:1234; server_name a.test; } }"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestHTTP2Upstream: upstreams understand HTTP/2, too, and see the same in it.
func TestHTTP2Upstream(t *testing.T) {
	t.Parallel()
	pair, err := makePair(filepath.Join(t.TempDir(), "pair"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBackends(pair)
	t.Cleanup(b.close)
	address := b.address("10.0.0.1:50051")
	b.begin(scriptMissing)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/a?b", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.test"
		req.Header.Set("X-A", "1")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(string(text), "answered by http://10.0.0.1:50051/") || err != nil {
			t.Errorf("%v %q %v", resp, text, err)
		}
	}
	seen := b.take()
	if len(seen) != 2 || seen[1].Body != "body" || !strings.HasPrefix(seen[1].Head, "POST /a?b HTTP/2.0\r\nHost: a.test\r\n") || !strings.Contains(seen[1].Head, "x-a: 1\r\n") {
		t.Errorf("%+v", seen)
	}
}
