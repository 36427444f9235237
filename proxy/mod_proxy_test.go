package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// proxyTest is a configuration under test.
type proxyTest struct {
	t     *testing.T
	table *Table
	rt    *Runtime
	log   string
}

// newProxyTest loads what stands in a server block, after what stands in http.
func newProxyTest(t *testing.T, inHTTP, inServer string) *proxyTest {
	t.Helper()
	p, diags := loadProxyTest(t, inHTTP, inServer)
	for _, d := range diags {
		if d.Severity == parser.Error {
			t.Fatalf("%s: %s", d.At, d.Message)
		}
	}
	return p
}

func loadProxyTest(t *testing.T, inHTTP, inServer string) (*proxyTest, []*parser.Diagnostic) {
	t.Helper()
	p := &proxyTest{t: t, log: filepath.Join(t.TempDir(), "error.log")}
	text := "error_log " + p.log + " debug; events {} http { " + inHTTP + " server { listen 127.0.0.1:1; server_name example.com; " + inServer + " } }"
	file := parser.Parse(&parser.Source{Name: "test.conf", Text: []byte(text)}, parser.Options{})
	opts := &Options{Product: Product{Name: "nginx", Version: "1"}, Prefix: t.TempDir() + "/", ErrorLog: p.log}
	table, diags := Load(file, opts)
	p.table = table
	sweeper := sock.NewSweeper()
	t.Cleanup(sweeper.Stop)
	p.rt = &Runtime{sweeper: sweeper}
	return p, diags
}

// logged returns what has been logged.
func (p *proxyTest) logged() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// testStream is a client's side in memory.
type testStream struct {
	body    io.Reader // of the request
	whole   []byte    // of the request, when it has arrived
	arrived bool
	head    bool
	status  int
	fields  map[string]string
	order   []string
	out     bytes.Buffer
	writes  int
	ended   bool
	block   chan struct{} // holds writes until closed
	gone    func()
	watched chan struct{}
	conn    rawConn
}

func (s *testStream) buffered() ([]byte, bool) { return s.whole, s.arrived }
func (s *testStream) readBody(p []byte) (int, error) {
	if s.body == nil {
		return 0, io.EOF
	}
	return s.body.Read(p)
}
func (s *testStream) sendContinue() error                              { return nil }
func (s *testStream) withholdContinue()                                {}
func (s *testStream) writeInterim(*Exchange, int, []http1.Field) error { return nil }
func (s *testStream) flush() error                                     { return nil }
func (s *testStream) hijack() (rawConn, []byte, error)                 { return s.conn, nil, nil }
func (s *testStream) splitBody()                                       {}
func (s *testStream) stopBody()                                        {}
func (s *testStream) unwatch()                                         {}
func (s *testStream) setTimeouts(*http1.Timeouts)                      {}
func (s *testStream) watch(gone func()) {
	s.gone = gone
	if s.watched != nil {
		close(s.watched)
		s.watched = nil
	}
}

func (s *testStream) writeHead(x *Exchange) error {
	s.head, s.status = true, x.Out.Status
	s.fields = map[string]string{}
	for _, f := range x.Out.Fields {
		s.order = append(s.order, string(f.Name))
		s.fields[strings.ToLower(string(f.Name))] = string(f.Value)
	}
	s.fields["content-type"] = string(x.Out.ContentType)
	return nil
}

func (s *testStream) writeBody(_ *Exchange, p []byte, last bool) error {
	if s.block != nil {
		<-s.block
	}
	if len(p) > 0 {
		s.writes++
	}
	s.out.Write(p)
	s.ended = s.ended || last
	return nil
}

// exchange prepares a request: "METHOD target", then "Name: value" lines.
func (p *proxyTest) exchange(line string, fields ...string) (*Exchange, *testStream) {
	p.t.Helper()
	method, target, _ := strings.Cut(line, " ")
	s := &testStream{}
	c := &client{rt: p.rt, life: new(life), remote: netip.MustParseAddrPort("192.0.2.7:1234"), local: netip.MustParseAddrPort("127.0.0.1:1")}
	p.table.acquire()
	x := newExchange(c, s, p.table)
	x.Req = &http1.Request{Line: []byte(line), Method: []byte(method), Target: []byte(target), Path: []byte(target), Major: 1, Minor: 1, ContentLength: -1}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		x.Req.Fields = append(x.Req.Fields, http1.Field{Name: []byte(name), Value: []byte(value), ID: http1.Identify([]byte(name))})
	}
	x.server = p.table.Servers[0]
	x.loc = x.server.Level
	x.method, x.keepAlive = method, true
	x.host = []byte("example.com")
	x.rawURI = x.Req.Path
	if !x.setURI(x.Req.Path, true) {
		p.t.Fatalf("%q is refused", target)
	}
	return x, s
}

// do runs a request to its end.
func (p *proxyTest) do(x *Exchange) {
	x.run()
	if x.upstream.conn != nil {
		p.t.Error("the connection to the server was not let go")
	}
}

// built gives the request that would be sent.
func (p *proxyTest) built(x *Exchange) string {
	p.t.Helper()
	x.resume = PostRead
	built := ""
	if code := x.findLocation(); code != Declined {
		p.t.Fatalf("no location: %d", code)
	}
	for { // rewrite and if
		if code := x.script(); code != Declined {
			p.t.Fatalf("script ended with %d", code)
		}
		if !x.uriChanged {
			break
		}
		x.loc = x.server.Level
		x.findLocation()
	}
	c := &x.loc.Conf.Proxy
	x.upstream.begin(&c.upstreamConf)
	if c.target.value != nil {
		var url upstreamURL
		if !x.evalTarget(c, &url) {
			p.t.Fatal("target cannot be evaluated")
		}
	} else {
		x.upstream.vars = c.target.vars
	}
	if x.buildRequest(c) {
		built = string(x.upstream.head)
	}
	return built
}

// TestProxyURI holds the request targets that nginx 1.31.5 sends for the same
// locations.
func TestProxyURI(t *testing.T) {
	p := newProxyTest(t, "", `
		location /none/ { proxy_pass http://127.0.0.1:18999; }
		location /slash/ { proxy_pass http://127.0.0.1:18999/; }
		location /uri/ { proxy_pass http://127.0.0.1:18999/base; }
		location /uris/ { proxy_pass http://127.0.0.1:18999/base/; }
		location /noslash { proxy_pass http://127.0.0.1:18999/; }
		location = /exact { proxy_pass http://127.0.0.1:18999/target?x=1; }
		location ~ ^/re/ { proxy_pass http://127.0.0.1:18999; }
		location /var/ { proxy_pass http://$http_b; }
		location /varuri/ { proxy_pass http://$http_b/fixed; }
		location /varq/ { proxy_pass http://$http_b?q=1; }
		location /query/ { proxy_pass http://127.0.0.1:18999?a=b; }`)
	tests := []struct{ target, want string }{
		{"/none/a", "/none/a"},
		{"/none/a%20b?c=d%2f", "/none/a%20b?c=d%2f"},
		{"/none//x/../y", "/none//x/../y"},
		{"/none/a+b", "/none/a+b"},
		{"/slash/", "/"},
		{"/slash/a%2Fb", "/a/b"},
		{"/slash/a%20b?q=%20", "/a%20b?q=%20"},
		{"/slash/a//b", "/a/b"},
		{"/uri/x", "/basex"},
		{"/uris/x%3fy", "/base/x%3Fy"},
		{"/noslash", "/"},
		{"/noslashx", "/x"},
		{"/noslash/y", "//y"},
		{"/exact", "/target?x=1"},
		{"/exact?y=2", "/target?x=1?y=2"},
		{"/re/a%41?z", "/re/a%41?z"},
		{"/re//q", "/re//q"},
		{"/var/a%20b?c", "/var/a%20b?c"},
		{"/var//x", "/var//x"},
		{"/varuri/zzz", "/fixed"},
		{"/varuri/z?k=1", "/fixed"},
		{"/varq/abc", "/?q=1"},
		{"/query/x", "?a=bx"},
		{"/query/x?y", "?a=bx?y"},
		{"/slash/%D0%BF%25", "/%D0%BF%25"},
		{"/slash/a\"b", "/a\"b"},
		{"/slash/a'b", "/a'b"},
		{"/slash/a;b", "/a;b"},
		{"/slash/a%09b%7Fc", "/a%09b%7Fc"},
		{"/slash/a|b^c`d{e}", "/a|b^c`d{e}"},
		{"/none/a%5Cb", "/none/a%5Cb"},
		{"/slash/a%5Cb", "/a%5Cb"},
		{"/slash/%23x%2B+", "/%23x++"},
		{"/none/a?b#c", "/none/a?b"}, // Unlike nginx: the fragment stays here
	}
	for _, tt := range tests {
		x, _ := p.exchange("GET "+tt.target, "Host: h", "B: 127.0.0.1:18999")
		line, _, _ := strings.Cut(p.built(x), "\r\n")
		if want := "GET " + tt.want + " HTTP/1.1"; line != want {
			t.Errorf("%s: %q, want %q", tt.target, line, want)
		}
		x.release()
	}
}

// TestProxyHead compares whole heads.
func TestProxyHead(t *testing.T) {
	tests := []struct {
		name, directives string
		fields           []string
		want             string
	}{
		{
			"defaults", "",
			[]string{"Host: example.com", "X-A: 1", "Connection: keep-alive", "Keep-Alive: 5", "TE: trailers", "Expect: 100-continue", "Upgrade: websocket", "Proxy: evil", "Accept: */*"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-A: 1\r\nAccept: */*\r\n\r\n",
		},
		{"1.0", "proxy_http_version 1.0;", []string{"Host: example.com"}, "GET /a HTTP/1.0\r\nHost: 127.0.0.1:81\r\n\r\n"},
		{
			"host first", "proxy_set_header X-B $host; proxy_set_header Host $host; proxy_set_header X-C c;",
			[]string{"Host: example.com", "x-b: client"},
			"GET /a HTTP/1.1\r\nHost: example.com\r\nX-B: example.com\r\nX-C: c\r\n\r\n",
		},
		{"empty host", `proxy_set_header Host "";`, nil, "GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n"},
		{"empty host 1.0", `proxy_http_version 1.0; proxy_set_header Host "";`, nil, "GET /a HTTP/1.0\r\n\r\n"},
		{
			"empty value", `proxy_set_header Accept-Encoding ""; proxy_set_header X $http_missing;`,
			[]string{"Accept-Encoding: gzip", "X: client"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n",
		},
		{
			"forwarded", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
			[]string{"X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.7\r\n\r\n",
		},
		{
			"upgrade", `proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";`,
			[]string{"Upgrade: websocket", "Connection: Upgrade"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		},
		{
			"no h2c", `proxy_set_header Upgrade $http_upgrade;`,
			[]string{"Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "Connection: Upgrade, HTTP2-Settings"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n",
		},
		{
			"named by connection", "",
			[]string{"X-Hop: 1", "Connection: close, x-hop", "X-End: 2"},
			"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-End: 2\r\n\r\n",
		},
		{"own fields only", "proxy_pass_request_headers off; proxy_set_header X 1;", []string{"Cookie: a"}, "GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX: 1\r\n\r\n"},
		{"method and body", "proxy_method PUT; proxy_set_body b=$host;", nil, "PUT /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nContent-Length: 13\r\n\r\nb=example.com"},
		{"ports", "proxy_set_header X $proxy_host|$proxy_port;", nil, "GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX: 127.0.0.1:81|81\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProxyTest(t, "", "location / { proxy_pass http://127.0.0.1:81; "+tt.directives+" }")
			x, _ := p.exchange("GET /a", tt.fields...)
			defer x.release()
			if got := p.built(x); got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
}

// TestProxyNoInjection sends decoded line ends through every place that
// variables reach.
func TestProxyNoInjection(t *testing.T) {
	p := newProxyTest(t, "", `location / { proxy_pass http://127.0.0.1:81$uri; proxy_set_header X $uri; proxy_set_header Host $uri; proxy_method $uri; }`)
	x, _ := p.exchange("GET /a%0d%0aEvil:%201%01%20HTTP/1.1")
	defer x.release()
	got := p.built(x)
	head, _, _ := strings.Cut(got, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n")[1:] {
		if strings.HasPrefix(line, "Evil") {
			t.Errorf("a field was smuggled in: %q", got)
		}
	}
	if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n\x00") {
		t.Errorf("control characters left in %q", got)
	}
	if strings.Count(strings.SplitN(got, "\r\n", 2)[0], " ") != 2 {
		t.Errorf("the request line has more than three parts: %q", got)
	}
}

func TestProxyConfErrors(t *testing.T) {
	tests := []struct{ inHTTP, inServer, want string }{
		{"", "location / { proxy_pass 127.0.0.1; }", "invalid URL prefix"},
		{"", "location / { proxy_pass http://127.0.0.1:99999; }", `invalid port in upstream "127.0.0.1:99999"`},
		{"", "location / { proxy_pass http://; }", `no host in upstream ""`},
		{"", "location / { proxy_pass http://unix:; }", `no path in the unix domain socket in upstream "unix:"`},
		{"", "location / { proxy_pass http://[::1; }", `invalid host in upstream "[::1"`},
		{"", "location / { proxy_pass http://[::g]; }", `invalid IPv6 address in upstream "[::g]"`},
		{"", "location ~ /x { proxy_pass http://127.0.0.1/; }", `"proxy_pass" cannot have URI part in location given by regular expression, or inside named location, or inside "if" statement, or inside "limit_except" block`},
		{"", "location / { proxy_pass http://127.0.0.1; proxy_pass http://127.0.0.1; }", `"proxy_pass" directive is duplicate`},
		{"upstream u { server 127.0.0.1; } upstream u { server 127.0.0.1; }", "", `duplicate upstream "u"`},
		{"upstream u { }", "", "no servers are inside upstream"},
		{"upstream u { server 127.0.0.1 weight=0; }", "", `invalid parameter "weight=0"`},
		{"upstream u { server 127.0.0.1 foo; }", "", `invalid parameter "foo"`},
		{"upstream u { ip_hash; server 127.0.0.1 backup; }", "", `balancing method does not support parameter "backup"`},
		{"upstream u { server 127.0.0.1:0; }", "", `invalid port in upstream "127.0.0.1:0"`},
		{"upstream u { server 127.0.0.1/x; }", "", `invalid host in upstream "127.0.0.1/x"`},
		{"upstream u { server 127.0.0.1 backup; }", "", `no servers in upstream "u" in test.conf:1`},
		{"upstream u { server 127.0.0.1; keepalive x; }", "", `invalid value "x" in "keepalive" directive`},
		{"upstream u { server 127.0.0.1; keepalive 1 global; }", "", `invalid parameter "global"`},
		{"upstream u { server 127.0.0.1; hash $host foo; }", "", `invalid parameter "foo"`},
		{"upstream u { server 127.0.0.1; random three; }", "", `invalid parameter "three"`},
		{"upstream u { server 127.0.0.1; zone z 4k; }", "", `zone "z" is too small`},
		{"upstream u { server 127.0.0.1; }", "location / { proxy_pass http://u:81; }", `upstream "u" may not have port 81`},
		{"proxy_buffers 1 4k;", "", `there must be at least 2 "proxy_buffers"`},
		{"proxy_buffers 2 4k;", "", `"proxy_busy_buffers_size" must be less than the size of all "proxy_buffers" minus one buffer`},
		{"proxy_busy_buffers_size 1k;", "", `"proxy_busy_buffers_size" must be equal to or greater than the maximum of the value of "proxy_buffer_size" and one of the "proxy_buffers"`},
		{"proxy_temp_file_write_size 1k;", "", `"proxy_temp_file_write_size" must be equal to or greater than the maximum of the value of "proxy_buffer_size" and one of the "proxy_buffers"`},
		{"proxy_max_temp_file_size 1k;", "", `"proxy_max_temp_file_size" must be equal to zero to disable temporary files usage or must be equal to or greater than the maximum of the value of "proxy_buffer_size" and one of the "proxy_buffers"`},
		{"proxy_next_upstream errror;", "", `invalid value "errror"`},
		{"proxy_bind 1.2.3;", "", `invalid address "1.2.3"`},
		{"", "location / { proxy_redirect default; proxy_pass http://127.0.0.1; }", `"proxy_redirect default" should be placed after the "proxy_pass" directive`},
		{"", "location / { proxy_pass http://$host; proxy_redirect default; }", `"proxy_redirect default" cannot be used with "proxy_pass" directive with variables`},
		{"", "proxy_redirect foo;", `invalid parameter "foo"`},
		{"", "proxy_redirect off; proxy_redirect a b;", `"proxy_redirect" directive is duplicate`},
		{"", "location / { proxy_ssl_verify on; proxy_pass https://127.0.0.1; }", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"},
	}
	for _, tt := range tests {
		_, diags := loadProxyTest(t, tt.inHTTP, tt.inServer)
		got := ""
		for _, d := range diags {
			if d.Severity == parser.Error {
				got = d.Message
				break
			}
		}
		if got != tt.want {
			t.Errorf("%s %s:\n%q, want\n%q", tt.inHTTP, tt.inServer, got, tt.want)
		}
	}
}
