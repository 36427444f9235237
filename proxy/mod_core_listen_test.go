package proxy

import (
	"strings"
	"testing"
)

// The messages are those of nginx 1.31.5.
func TestListenMistakes(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:":                    `invalid port in "127.0.0.1:" of the "listen" directive`,
		"127.0.0.1:0":                   `invalid port in "127.0.0.1:0" of the "listen" directive`,
		"127.0.0.1:65536":               `invalid port in "127.0.0.1:65536" of the "listen" directive`,
		"127.0.0.1:8081-":               `invalid port in "127.0.0.1:8081-" of the "listen" directive`,
		"127.0.0.1:8082-8081":           `invalid port range in "127.0.0.1:8082-8081" of the "listen" directive`,
		"8082-8081":                     `invalid port range in "8082-8081" of the "listen" directive`,
		"8082-70000":                    `invalid port in "8082-70000" of the "listen" directive`,
		"0":                             `invalid port in "0" of the "listen" directive`,
		":80":                           `no host in ":80" of the "listen" directive`,
		"127.0.0.1:80/x":                `invalid host in "127.0.0.1:80/x" of the "listen" directive`,
		"[::1":                          `invalid host in "[::1" of the "listen" directive`,
		"[::1]80":                       `invalid host in "[::1]80" of the "listen" directive`,
		"[::1]:":                        `invalid port in "[::1]:" of the "listen" directive`,
		"[::1]:9-8":                     `invalid port range in "[::1]:9-8" of the "listen" directive`,
		"[::x]:80":                      `invalid IPv6 address in "[::x]:80" of the "listen" directive`,
		"unix:":                         `no path in the unix domain socket in "unix:" of the "listen" directive`,
		"8080 backlog":                  `invalid parameter "backlog"`,
		"8080 backlog=0":                `invalid backlog "backlog=0"`,
		"8080 fastopen=x":               `invalid fastopen "fastopen=x"`,
		"8080 rcvbuf=1g":                `invalid rcvbuf "rcvbuf=1g"`,
		"8080 sndbuf=":                  `invalid sndbuf "sndbuf="`,
		"8080 setfib=1":                 `invalid parameter "setfib=1"`,
		"8080 ipv6only=yes":             `invalid parameter "ipv6only=yes"`,
		"8080 ipv6only=oof":             `invalid ipv6only flags "oof"`,
		"8080 so_keepalive=x":           `invalid so_keepalive value: "x"`,
		"8080 so_keepalive=::":          `invalid so_keepalive value: "::"`,
		"8080 accept_filter=dataready":  `accept filters "accept_filter=dataready" are not supported on this platform, ignored`,
		"8080; listen 8080":             `a duplicate listen 0.0.0.0:8080`,
		"8080-8081; listen 8081":        `a duplicate listen 0.0.0.0:8081`,
		"8080 default_server spdy":      `invalid parameter "spdy"`,
		"127.0.0.1:8080-8080 bind":      "",
		"8080 so_keepalive=30m::10":     "",
		"[::]:8080 ipv6only=on bind":    "",
		"127.0.0.1:8080 fastopen=3":     "",
		"127.0.0.1:8080 proxy_protocol": "",
	} {
		r := prepare(t)
		_, diags := r.parse("events {} http { server { listen " + listen + "; } }")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != strings.ReplaceAll(want, "%dir%", r.dir) {
			t.Errorf("%s\n%v, want %s", listen, diags, want)
		}
	}
}

func TestListenPorts(t *testing.T) {
	for listen, want := range map[string]string{
		"8081-8083":             "tcp4 0.0.0.0:8081 tcp4 0.0.0.0:8082 tcp4 0.0.0.0:8083",
		"[::1]:8081-8082":       "tcp6 [::1]:8081 tcp6 [::1]:8082",
		"127.0.0.1:8081-8081":   "tcp4 127.0.0.1:8081",
		"127.0.0.1":             "tcp4 127.0.0.1:80",
		"[::1]":                 "tcp6 [::1]:80",
		"*:8081-8082 reuseport": "tcp4 0.0.0.0:8081 tcp4 0.0.0.0:8082",
	} {
		var keys []string
		for _, s := range prepare(t).load("events {} http { server { listen " + listen + "; } }").sockets {
			keys = append(keys, s.key())
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("listen %s: %s, want %s", listen, got, want)
		}
	}
}
