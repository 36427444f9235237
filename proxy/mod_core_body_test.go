package proxy

import (
	"strings"
	"testing"
	"time"
)

func TestEarlyBody(t *testing.T) {
	r := run(t, `error_log logs/e.log info; events {} http { server { listen unix:%dir%/s; client_max_body_size 10; client_body_early_read $http_x_early;
		location / { return 200 "[$request_body]"; }
		location /less { client_max_body_size 3; return 200 "[$request_body]"; } } }`)
	ask := func(path, early, body string) string {
		answer := r.ask("s", "POST "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Early: "+early+"\r\nContent-Length: "+body)
		status, _, _ := strings.Cut(answer, "\r\n")
		_, rest, _ := strings.Cut(answer, "\r\n\r\n")
		return status[len("HTTP/1.1 "):len("HTTP/1.1 200")] + rest
	}
	for _, tt := range []struct{ path, early, body, want string }{
		{"/", "1", "5\r\n\r\nhello", "200[hello]"},
		{"/", "0", "5\r\n\r\nhello", "200[]"},
		{"/", "", "5\r\n\r\nhello", "200[]"},
		{"/less", "1", "5\r\n\r\nhello", "413"},
		{"/", "1", "11\r\n\r\nhello world", "413"},
	} {
		if got := ask(tt.path, tt.early, tt.body); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s with %q: %q, want %q", tt.path, tt.early, got, tt.want)
		}
	}
	r.await("logs/e.log", "client intended to send too large body: 11 bytes")
}

func TestAuthDelay(t *testing.T) {
	r := run(t, `error_log logs/e.log info; events {} http { server { listen unix:%dir%/s; auth_delay 200ms;
		location / { auth_request /no; } location = /no { return 401; }
		location /forbidden { deny all; } } }`)
	began := time.Now()
	if answer := r.get("s", "/forbidden"); !strings.Contains(answer, " 403 ") || time.Since(began) > 150*time.Millisecond {
		t.Errorf("%s after %v", answer, time.Since(began))
	}
	began = time.Now()
	if answer := r.get("s", "/"); !strings.Contains(answer, " 401 ") || time.Since(began) < 200*time.Millisecond {
		t.Errorf("%s after %v", answer, time.Since(began))
	}
	r.await("logs/e.log", "delaying unauthorized request")
	c := r.dial("s")
	_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	time.Sleep(20 * time.Millisecond)
	_ = c.Close()
	r.await("logs/e.log", "client prematurely closed connection")
}
