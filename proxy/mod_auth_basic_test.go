package proxy

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuthBasic(t *testing.T) {
	r := run(t, `error_log logs/error.log info; pid nginx.pid; events {} http { access_log off; root html;
		server { listen unix:%dir%/s; auth_basic "a $arg_r"; auth_basic_user_file users;
			location / { }
			location /off { auth_basic off; }
			location /none { auth_basic_user_file none; }
			location /any { satisfy any; allow all; }
			location /slow { auth_delay 50ms; }
			location /named { auth_basic_user_file $arg_f; }
		} }`)
	users := "# comment:{PLAIN}x\n\r\nann:{PLAIN}secret:a note\nbob:{PLAIN}other\r\n" + strings.Repeat("x", 5000) + ":{PLAIN}x\neve:$y$x\nlast:{PLAIN}end"
	if err := os.WriteFile(filepath.Join(r.dir, "users"), []byte(users), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, credentials, want string }{
		{"/", "", `401 Basic realm="a "`},
		{"/?r=b", "", `401 Basic realm="a b"`},
		{"/", "ann:secret", "403"},
		{"/", "ann:Secret", `401 Basic realm="a "`},
		{"/", "ann:secret:a note", `401 Basic realm="a "`},
		{"/", "bob:other", "403"},
		{"/", "last:end", "403"},
		{"/", "# comment:x", `401 Basic realm="a "`},
		{"/", strings.Repeat("x", 5000) + ":x", `401 Basic realm="a "`},
		{"/", ":x", `401 Basic realm="a "`},
		{"/", "ann", `401 Basic realm="a "`},
		{"/", "eve:x", "500"},
		{"/off", "", "404"},
		{"/none", "ann:secret", "403"},
		{"/any", "", "404"},
		{"/slow", "", `401 Basic realm="a "`},
		{"/named?f=users", "ann:secret", "404"},
	} {
		request := "GET " + c.path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
		if c.credentials != "" {
			request += "Authorization: bAsic  " + base64.StdEncoding.EncodeToString([]byte(c.credentials)) + "\r\n"
		}
		raw := r.ask("s", request+"\r\n")
		got := raw[len("HTTP/1.1 "):][:3]
		if _, after, ok := strings.Cut(raw, "WWW-Authenticate: "); ok {
			realm, _, _ := strings.Cut(after, "\r\n")
			got += " " + realm
		}
		if got != c.want {
			t.Errorf("%s %.30s: %s, want %s", c.path, c.credentials, got, c.want)
		}
	}
	log := r.read("logs/error.log")
	for _, want := range []string{
		"no user/password was provided for basic authentication", `user "ann": password mismatch`, `was not found in "`, "delaying unauthorized request",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}
