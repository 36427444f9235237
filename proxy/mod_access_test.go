package proxy

import "testing"

// The addresses come by a field: connections of tests are those of unix sockets.
const fromField = `set_real_ip_from unix:; real_ip_header X-Addr;`

func TestAccessOnTheWire(t *testing.T) {
	testWire(t, []wireCase{
		{name: "allow", server: fromField + `location / { allow 10.0.0.0/8; deny all; error_page 404 =200 /x; }  location /x { return 200 in; }`, request: "GET /a\nX-Addr: 10.1.2.3", want: "200\nin"},
		{name: "deny all", server: fromField + `location / { allow 10.0.0.0/8; deny all; }`, request: "GET /a\nX-Addr: 11.1.2.3", want: "403"},
		{name: "no rule", server: fromField + `location / { deny 10.0.0.0/8; }`, request: "GET /file.txt\nX-Addr: 11.1.2.3", want: "200\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\nETag: \"6553f100-4\"\nfile"},
		{name: "first rule", server: fromField + `location / { deny 10.0.0.1; allow 10.0.0.0/8; deny all; }`, request: "GET /file.txt\nX-Addr: 10.0.0.1", want: "403"},
		{name: "IPv6", server: fromField + `location / { deny 2001:db8::/32; }`, request: "GET /file.txt\nX-Addr: 2001:DB8::1", want: "403"},
		{name: "IPv6 not IPv4", server: fromField + `location / { deny 0.0.0.0/0; }`, request: "GET /a\nX-Addr: 2001:db8::1", want: "404"},
		{name: "mapped", server: fromField + `location / { deny 10.0.0.0/8; }`, request: "GET /a\nX-Addr: ::ffff:10.0.0.1", want: "403"},
		{name: "mapped without IPv4 rules", server: fromField + `location / { deny ::/0; }`, request: "GET /a\nX-Addr: ::ffff:10.0.0.1", want: "403"},
		{name: "unix", server: `location / { deny unix:; }`, request: "GET /a", want: "403"},
		{name: "unix all", server: `location / { allow unix:; deny all; }`, request: "GET /a", want: "404"},
		{name: "inherited", http: `deny all;`, server: `location / { return 200 script; } location /f { }`, request: "GET /f", want: "403"},
		{name: "script comes first", http: `deny all;`, server: `location / { return 200 script; }`, request: "GET /f", want: "200\nscript"},
		{name: "replaced", http: `deny all;`, server: `location / { allow all; }`, request: "GET /f", want: "404"},
		{name: "limit_except", server: `location / { limit_except GET { deny all; } }`, request: "POST /f", want: "403"},
		{name: "limit_except allowed", server: `location / { limit_except GET { deny all; } }`, request: "GET /f", want: "404"},
	})
}
