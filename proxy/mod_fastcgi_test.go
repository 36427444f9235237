package proxy

import (
	"bytes"
	"strings"
	"testing"
)

// TestSplitPathInfo holds the variables of fastcgi_split_path_info against what
// nginx 1.31.5 gives.
func TestSplitPathInfo(t *testing.T) {
	for _, test := range []struct{ directives, uri, script, pathInfo string }{
		{"", "/a.php", "/a.php", ""},
		{"", "/dir/", "/dir/", ""},
		{"fastcgi_index index.php;", "/dir/", "/dir/index.php", ""},
		{`fastcgi_split_path_info ^(.+?\.php)(/.*)$;`, "/a.php/b/c.php/d", "/a.php", "/b/c.php/d"},
		{`fastcgi_split_path_info ^(.+?\.php)(/.*)$;`, "/a.php", "/a.php", ""},
		{`fastcgi_split_path_info ^(.+?\.php)(/.*)$;`, "/a.php%0a/b", "/a.php\n/b", ""},
		{`fastcgi_split_path_info ^(/dir/)(.*)$; fastcgi_index i;`, "/dir/more", "/dir/i", "more"},
		{`fastcgi_split_path_info ^(x)?(.*)$;`, "/a", "", "/a"},
	} {
		p := newProxyTest(t, "", test.directives+" location / { return 200 $fastcgi_script_name|$fastcgi_path_info; }")
		x, s := p.exchange("GET " + test.uri)
		p.do(x)
		if got, want := s.out.String(), test.script+"|"+test.pathInfo; got != want {
			t.Errorf("%s %s: got %q, want %q", test.directives, test.uri, got, want)
		}
		x.release()
	}
}

// TestLargeParams holds the limits of a record and of a packet.
func TestLargeParams(t *testing.T) {
	p := newProxyTest(t, "", `
		location /fastcgi { fastcgi_pass 127.0.0.1:1; }
		location /uwsgi { uwsgi_pass 127.0.0.1:1; }`)
	for _, protocol := range []string{"fastcgi", "uwsgi"} {
		x, s := p.exchange("GET /"+protocol, "Host: a", "X-Large: "+strings.Repeat("x", 1<<16))
		p.do(x)
		if s.status != 500 {
			t.Errorf("%s: got %d", protocol, s.status)
		}
		x.release()
	}
	for _, want := range []string{"fastcgi request record is too big: 65", "uwsgi request is too big: 65"} {
		if !strings.Contains(p.logged(), want) {
			t.Errorf("no %q in\n%s", want, p.logged())
		}
	}
}

// TestParamsHoldNoNUL makes sure that no value begins another parameter.
func TestParamsHoldNoNUL(t *testing.T) {
	p := newProxyTest(t, "", `location / { scgi_pass 127.0.0.1:1; scgi_param A $http_a; }`)
	x, _ := p.exchange("GET /", "Host: a", "A: b\x00SCRIPT_FILENAME\x00/etc/passwd")
	defer x.release()
	x.findLocation()
	x.upstream.begin(&x.loc.Conf.SCGI.conf.upstreamConf)
	x.buildSCGI()
	const want = ":CONTENT_LENGTH\x000\x00A\x00b SCRIPT_FILENAME /etc/passwd\x00HTTP_HOST\x00"
	if got := x.upstream.head; !bytes.Contains(got, []byte(want)) || bytes.Contains(got, []byte("\x00SCRIPT")) {
		t.Errorf("got %q", got)
	}
}
