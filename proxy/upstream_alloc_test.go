//go:build !race

package proxy

import (
	"net"
	"testing"
)

// quietBackend answers without allocating, so that what the proxy allocates can
// be counted.
func quietBackend(t testing.TB) string {
	return quietServer(t, "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")
}

// quietServer sends an answer whenever something comes.
func quietServer(t testing.TB, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	bytes := []byte(answer)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(bytes); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// quietStream takes answers without allocating.
type quietStream struct{ testStream }

func (s *quietStream) writeHead(*Exchange) error               { return nil }
func (s *quietStream) writeBody(*Exchange, []byte, bool) error { return nil }

// again gives a function that serves the same request over and over.
func (p *proxyTest) again(t *testing.T, status int, line string, fields ...string) func() {
	x, _ := p.exchange(line, fields...)
	req, c := x.Req, x.client
	x.release()
	s := &quietStream{}
	request := func() {
		p.table.acquire()
		x := newExchange(c, s, p.table)
		x.Req, x.server, x.loc = req, p.table.Servers[0], p.table.Servers[0].Level
		x.method, x.host, x.rawURI = "GET", req.Fields[0].Value, req.Path
		x.setURI(req.Path, true)
		x.run()
		if x.Out.Status != status {
			t.Error(x.Out.Status)
		}
		x.release()
	}
	request()
	return request
}

// TestUpstreamAllocates nothing for a plain request over a kept connection.
func TestUpstreamAllocates(t *testing.T) {
	p := newProxyTest(t, "upstream u { server "+quietBackend(t)+"; }",
		"location / { proxy_pass http://u; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }")
	request := p.again(t, 200, "GET /a?b", "Host: example.com", "Accept: */*", "User-Agent: test")
	if n := testing.AllocsPerRun(200, request); n > 2 { // the watch of a stream other than HTTP/1.x
		t.Errorf("a request allocates %v times", n)
	}
}

// TestRedirectAllocates nothing, its page included.
func TestRedirectAllocates(t *testing.T) {
	p := newProxyTest(t, "", "location / { return 301 https://$host$request_uri; }")
	if n := testing.AllocsPerRun(200, p.again(t, 301, "GET /a?b", "Host: example.com")); n > 0 {
		t.Errorf("a redirect allocates %v times", n)
	}
}

// TestProxyHeadAllocates nothing: a budget.
func TestProxyHeadAllocates(t *testing.T) {
	p := newProxyTest(t, "", `location / { proxy_pass http://127.0.0.1:81; proxy_set_header Host $host; proxy_set_header X-Real-IP 1.2.3.4;
		proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-U $uri; }`)
	x, _ := p.exchange("GET /a/b?c=d", "Host: example.com", "User-Agent: test", "Accept: */*", "Accept-Encoding: gzip", "Connection: keep-alive", "X-Other: 1")
	defer x.release()
	p.built(x)
	c := &x.loc.Conf.Proxy
	if n := testing.AllocsPerRun(100, func() {
		x.arena = x.arena[:0]
		x.buildRequest(c)
	}); n != 0 {
		t.Errorf("building a request allocates %v times", n)
	}
}

// TestFastCGIRequestAllocates nothing but for the expression: a budget.
func TestFastCGIRequestAllocates(t *testing.T) {
	p := newProxyTest(t, "", `root /srv; location / { fastcgi_pass 127.0.0.1:81; fastcgi_split_path_info ^(.+?\.php)(/.*)$;
		fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_param PATH_INFO $fastcgi_path_info;
		fastcgi_param QUERY_STRING $query_string; fastcgi_param REMOTE_ADDR $remote_addr; fastcgi_param EMPTY $arg_x if_not_empty; }`)
	x, _ := p.exchange("GET /a.php/b?c=d", "Host: example.com", "User-Agent: test", "Accept: */*", "Cookie: a", "Cookie: b", "X-Other: 1")
	defer x.release()
	x.findLocation()
	x.upstream.begin(&x.loc.Conf.FastCGI.conf.upstreamConf)
	build := func() {
		x.arena, x.fastcgi.done = x.arena[:0], false
		x.buildFastCGI()
	}
	build()
	if n := testing.AllocsPerRun(100, build); n > 1 {
		t.Errorf("building a request allocates %v times", n)
	}
}

// TestFastCGIAllocates nothing for a plain request over a kept connection.
func TestFastCGIAllocates(t *testing.T) {
	server := quietServer(t, "\x01\x06\x00\x01\x00\x1e\x02\x00Content-Type: text/plain\r\n\r\nok\x00\x00"+
		"\x01\x06\x00\x01\x00\x00\x00\x00\x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	p := newProxyTest(t, "upstream u { server "+server+"; }",
		"location / { fastcgi_pass u; fastcgi_keep_conn on; fastcgi_param DOCUMENT_URI $document_uri; }")
	request := p.again(t, 200, "GET /a?b", "Host: example.com", "Accept: */*", "User-Agent: test")
	if n := testing.AllocsPerRun(200, request); n > 2 { // the watch of a stream other than HTTP/1.x
		t.Errorf("a request allocates %v times", n)
	}
}
