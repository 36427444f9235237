package proxy

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"testing"
)

func TestSecureLink(t *testing.T) {
	digest := func(s string) string {
		sum := md5.Sum([]byte(s))
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	const server = `secure_link $arg_m,$arg_e; secure_link_md5 "secret$uri$arg_e"; return 200 "[$secure_link][$secure_link_expires]";`
	const noTime = `secure_link $arg_m; secure_link_md5 "secret$uri"; return 200 "[$secure_link][$secure_link_expires]";`
	const old = `location /p/ { secure_link_secret word; return 200 "[$secure_link]"; }`
	testWire(t, []wireCase{
		{name: "right", server: server, request: "GET /a?e=4000000000&m=" + digest("secret/a4000000000"), want: "200\n[1][4000000000]"},
		{name: "late", server: server, request: "GET /a?e=1000000000&m=" + digest("secret/a1000000000"), want: "200\n[0][1000000000]"},
		{name: "wrong", server: server, request: "GET /b?e=4000000000&m=" + digest("secret/a4000000000"), want: "200\n[][4000000000]"},
		{name: "no time", server: server, request: "GET /a?e=&m=" + digest("secret/a"), want: "200\n[][]"},
		{name: "bad time", server: server, request: "GET /a?e=1x&m=" + digest("secret/a1x"), want: "200\n[][]"},
		{name: "without", server: noTime, request: "GET /a?m=" + digest("secret/a"), want: "200\n[1][]"},
		{name: "padded", server: noTime, request: "GET /a?m=" + digest("secret/a") + "==", want: "200\n[1][]"},
		{name: "short", server: noTime, request: "GET /a?m=abc", want: "200\n[][]"},
		{name: "none", server: noTime, request: "GET /a", want: "200\n[][]"},
		{name: "secret", server: old, request: fmt.Sprintf("GET /p/%x/top/a.html", md5.Sum([]byte("top/a.htmlword"))), want: "200\n[top/a.html]"},
		{name: "not secret", server: old, request: fmt.Sprintf("GET /p/%x/top/b.html", md5.Sum([]byte("top/a.htmlword"))), want: "200\n[]"},
		{name: "no digest", server: old, request: "GET /p/a", want: "200\n[]"},
	})
}
