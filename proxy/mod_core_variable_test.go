package proxy

import (
	"regexp"
	"testing"
)

func TestCoreVariables(t *testing.T) {
	one := func(name, text, request, want string) wireCase {
		return wireCase{name: name, server: `return 200 "` + text + `";`, request: request, want: "200\n" + want}
	}
	testWire(t, []wireCase{
		one("uri", "$uri|$document_uri|$request_uri|$args|$query_string|$is_args", "GET /a%20b/../c?d=%20#e", "/c|/c|/a%20b/../c?d=%20#e|d=%20|d=%20|?"),
		one("no args", "[$args$is_args]", "GET /a?", "[]"),
		one("host", "$host|$http_host|$server_name|$request_port|$is_request_port", "GET /", "a.test|a.test|a.test||"),
		one("host port", "$host|$http_host|$request_port|$is_request_port", "GET / HTTP/1.0\nHost: B.Test:81", "b.test|B.Test:81|81|:"),
		one("no host", "$host|$http_host|$server_name", "GET / HTTP/1.0", "a.test||a.test"),
		one("request", "$request|$request_method|$server_protocol|$scheme|$https|", "PUT /a", "PUT /a HTTP/1.1|PUT|HTTP/1.1|http||"),
		one("fields", "$http_x_a|$http_X_a|$http_none|", "GET /\nX-A: 1\nx-a: 2", "1, 2|1, 2||"),
		one("known fields", "$http_referer|$http_user_agent|$http_x_forwarded_for|$http_via|$http_accept", "GET /\nReferer: r\nUser-Agent: u\nX-Forwarded-For: 1\nX-Forwarded-For: 2\nVia: v\nAccept: a", "r|u|1, 2|v|a"),
		one("cookies", "$http_cookie|$cookie_b|$cookie_B|$cookie_c|$cookie_d", "GET /\nCookie: a=1; b = 2;c=3\nCookie: d=x;e", "a=1; b = 2;c=3; d=x;e|2|2|3|x"),
		one("odd cookies", "$cookie_b|$cookie_a|$cookie_", "GET /\nCookie: ab=1; b; bb=2; a=;b=3", "3||"),
		one("arguments", "$arg_a|$arg_b|$arg_C|$arg_d|$arg_", "GET /?aa=0&A=1&b=&c=3=4&d", "1||3=4||"),
		one("argument at the end", "$arg_d|$arg_e|$arg_a", "GET /?xa=1&d=5", "5||"),
		one("body", "$content_length|$content_type", "POST /\nContent-Length: 0\nContent-Type: t", "0|t"),
		one("no body", "$content_length|$content_type|$request_body|$request_body_file|", "GET /", "||||"),
		one("user", "$remote_user", "GET /\nAuthorization: basic  dXNlcjpwYXNz", "user"),
		one("user padded", "$remote_user", "GET /\nAuthorization: Basic YTpi=junk", "a"),
		one("no user", "[$remote_user]", "GET /\nAuthorization: Basic OnBhc3M=", "[]"),
		one("bad user", "[$remote_user]", "GET /\nAuthorization: Basic dXNlcjpwYX!z", "[]"),
		one("bearer", "[$remote_user]", "GET /\nAuthorization: Bearer dXNlcjpwYXNz", "[]"),
		one("client", "$remote_addr|$remote_port|$binary_remote_addr|$connection_requests|$pipe|$server_port|$proxy_protocol_addr|$proxy_protocol_tlv_alpn|$tcpinfo_rtt", "GET /", "unix:||unix:|1|.||||"),
		one("server", "$nginx_version", "GET /", "1.31.5"),
		one("files", "$document_root|$request_filename", "GET /a%20b", "%dir%/html|%dir%/html/a b"),
		one("answer", "$status|$sent_http_location|$sent_http_connection|$request_completion|$limit_rate|$body_bytes_sent", "GET /", "200||close||0|0"),
		{name: "alias", server: `location /f { alias html/x; return 200 "$document_root|$request_filename"; }`, request: "GET /fy", want: "200\n%dir%/html/x|%dir%/html/xy"},
		{name: "realpath", server: `root html/../html; return 200 "$realpath_root";`, request: "GET /", want: "200\n%dir%/html"},
		{name: "no realpath", server: `root none; return 200 "[$realpath_root]";`, request: "GET /", want: "200\n[]"},
		{name: "root in a circle", server: `root $request_filename; return 200 "[$uri]$http_a";`, request: "GET /a", want: "200\n[/a]"},
		{name: "limit rate", server: `set $limit_rate 4k; return 200 $limit_rate;`, request: "GET /", want: "200\n4096"},
		{name: "bad limit rate", server: `set $limit_rate much; return 200 $limit_rate;`, request: "GET /", want: "200\n0"},
		{name: "method of error page", server: `error_page 404 = /e; location /e { return 200 "$request_method $request"; } location / { return 404; }`, request: "POST /a", want: "200\nGET POST /a HTTP/1.1"},
		{
			name: "sent", server: `add_header X-Sent "$sent_http_content_type|$sent_http_content_length|$sent_http_etag|$sent_http_none|$sent_http_transfer_encoding|$sent_http_last_modified"; etag off; default_type x;`, request: "GET /file.txt",
			want: "200\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\nX-Sent: x|4||||Tue, 14 Nov 2023 22:13:20 GMT\nfile",
		},
		{
			name: "sent by us", server: `add_header X-A a; add_header x-a b; add_header Link l; add_header Cache-Control c; add_header X-Sent "$sent_http_x_a|$sent_http_link|$sent_http_cache_control|$sent_http_server|"; return 200 x;`, request: "GET /",
			want: "200\nX-A: a\nx-a: b\nLink: l\nCache-Control: c\nX-Sent: a, b|l|c||\nx",
		},
		{name: "sent location", server: `add_header X-Sent "$sent_http_location"; return 302 /x;`, request: "GET /", want: "302\nLocation: http://a.test/x\nX-Sent: /x"},
	})
}

// TestChangingVariables have another value in every request.
func TestChangingVariables(t *testing.T) {
	r := run(t, `events {} http { server { listen unix:%dir%/s;
		return 200 "$request_id $request_id $connection $connection_time $msec $time_iso8601 $time_local $request_time $pid $hostname $request_length"; } }`)
	got := answered(t, &wireCase{request: "GET /"}, r.get("s", "/"))
	want := regexp.MustCompile(`^200\n([0-9a-f]{32}) ([0-9a-f]{32}) 1 0\.\d{3} \d{10}\.\d{3} \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ` +
		`\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4} 0\.\d{3} \d+ \S+ 66$`)
	m := want.FindStringSubmatch(got)
	if m == nil || m[1] != m[2] {
		t.Fatalf("%s", got)
	}
	again := want.FindStringSubmatch(answered(t, &wireCase{request: "GET /"}, r.get("s", "/")))
	if again != nil && again[1] == m[1] {
		t.Error("two requests with one id")
	}
}

// TestVariablesAllocate holds the cost of the variables of common logs and
// scripts.
func TestVariablesAllocate(t *testing.T) {
	p := newProxyTest(t, `map $http_user_agent $agent { default 0; ~curl 1; Known 2; }`, ``)
	x, _ := p.exchange("GET /a/b?c=d&e=f", "Host: example.com", "User-Agent: known", "Cookie: a=1; b=2", "X-A: 1", "Authorization: Basic dXNlcjpwYXNz")
	x.slots = make([]slot, max(p.table.http.vars.slots, 8))
	rows := map[string]Variable{}
	for _, v := range coreVariables() {
		rows[v.Name] = v
	}
	dst := make([]byte, 0, 4096)
	for _, name := range []string{"uri", "args", "host", "request", "scheme", "remote_user", "request_id", "remote_addr", "server_port", "status", "msec", "request_time", "time_local"} {
		v := rows[name]
		v.Get(dst, x, "")
		if n := testing.AllocsPerRun(50, func() { v.Get(dst, x, "") }); n > 0 {
			t.Errorf("$%s: %v allocations", name, n)
		}
	}
	for prefix, rest := range map[string]string{"http_": "x_a", "arg_": "e", "cookie_": "b"} {
		v := rows[prefix]
		if n := testing.AllocsPerRun(50, func() { v.Get(dst, x, rest) }); n > 0 {
			t.Errorf("$%s%s: %v allocations", prefix, rest, n)
		}
	}
}

func FuzzCookie(f *testing.F) {
	f.Add([]byte("a=1; b = 2;;c"), "b")
	f.Add([]byte(";;= ="), "")
	f.Fuzz(func(t *testing.T, s []byte, name string) {
		if v, ok := findCookie(s, lower(name)); ok && len(v) > len(s) {
			t.Fatalf("%q in %q", v, s)
		}
	})
}
