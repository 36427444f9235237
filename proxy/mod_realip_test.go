package proxy

import "testing"

func TestRealIPOnTheWire(t *testing.T) {
	const answer = `location / { return 200 "$remote_addr $remote_port|$realip_remote_addr $realip_remote_port"; }`
	forwarded := func(from string) string {
		return `set_real_ip_from unix:; ` + from + ` real_ip_header X-Forwarded-For; ` + answer
	}
	testWire(t, []wireCase{
		{name: "default field", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: 1.2.3.4", want: "200\n1.2.3.4 |unix: "},
		{name: "not trusted", server: `set_real_ip_from 1.1.1.1;` + answer, request: "GET /\nX-Real-IP: 1.2.3.4", want: "200\nunix: |unix: "},
		{name: "port", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: 1.2.3.4:56", want: "200\n1.2.3.4 56|unix: "},
		{name: "IPv6", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: 2001:db8:0:0:0::1", want: "200\n2001:db8::1 |unix: "},
		{name: "IPv6 port", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: [2001:db8::1]:56", want: "200\n2001:db8::1 56|unix: "},
		{name: "no address", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: unknown", want: "200\nunix: |unix: "},
		{name: "empty", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP:", want: "200\nunix: |unix: "},
		{name: "port 0", server: `set_real_ip_from unix:;` + answer, request: "GET /\nX-Real-IP: 1.2.3.4:0", want: "200\nunix: |unix: "},
		{name: "last of list", server: forwarded(""), request: "GET /\nX-Forwarded-For: 9.9.9.9, 8.8.8.8", want: "200\n8.8.8.8 |unix: "},
		{name: "last of fields", server: forwarded(""), request: "GET /\nX-Forwarded-For: 9.9.9.9\nX-Forwarded-For: 8.8.8.8 ,", want: "200\n8.8.8.8 |unix: "},
		{name: "recursive", server: forwarded("real_ip_recursive on; set_real_ip_from 10.0.0.0/8;"), request: "GET /\nX-Forwarded-For: 9.9.9.9, 10.0.0.1, 10.0.0.2", want: "200\n9.9.9.9 |unix: "},
		{name: "recursive to the end", server: forwarded("real_ip_recursive on; set_real_ip_from 10.0.0.0/8;"), request: "GET /\nX-Forwarded-For: 10.0.0.1,10.0.0.2", want: "200\n10.0.0.1 |unix: "},
		{name: "recursive fields", server: forwarded("real_ip_recursive on; set_real_ip_from 10.0.0.0/8;"), request: "GET /\nX-Forwarded-For: 7.7.7.7, 9.9.9.9\nX-Forwarded-For: 10.0.0.1", want: "200\n9.9.9.9 |unix: "},
		{name: "recursive bad", server: forwarded("real_ip_recursive on; set_real_ip_from 10.0.0.0/8;"), request: "GET /\nX-Forwarded-For: unknown, 10.0.0.1", want: "200\n10.0.0.1 |unix: "},
		{name: "field in any case", server: `set_real_ip_from unix:; real_ip_header x-ADDR;` + answer, request: "GET /\nX-addr: 1.2.3.4\nX-Addr: 5.6.7.8", want: "200\n1.2.3.4 |unix: "},
		{name: "location", server: `location / { set_real_ip_from unix:; rewrite ^/(.*)$ /e last; } location /e { return 200 "$remote_addr"; }`, request: "GET /\nX-Real-IP: 1.2.3.4", want: "200\nunix:"},
		{name: "location's error page", server: `location / { set_real_ip_from unix:; error_page 404 = /e; } location /e { return 200 "$remote_addr"; }`, request: "GET /a\nX-Real-IP: 1.2.3.4", want: "200\n1.2.3.4"},
		{name: "proxy_protocol", server: `set_real_ip_from unix:; real_ip_header proxy_protocol;` + answer, request: "GET /\nX-Real-IP: 1.2.3.4", want: "200\nunix: |unix: "},
	})
}
