package main

import (
	"strings"
	"syscall"
	"testing"
)

// TestCacheIsNginxs: what one program has kept the other finds, whole answers
// and variants.
func TestCacheIsNginxs(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	d := newDaemon(t, installed, `events {}
http {
    access_log off; client_body_temp_path client; proxy_temp_path temp;
    proxy_cache_path cache levels=1:2 keys_zone=one:1m;
    server {
        listen 127.0.0.1:%port%;
        location / { proxy_pass http://127.0.0.1:%shared%; proxy_cache one; proxy_cache_valid 200 1h; add_header X-Cache $upstream_cache_status; }
    }
    server {
        listen 127.0.0.1:%shared%;
        location / { return 200 $request_id; }
        location /varies { add_header Vary Accept-Encoding; add_header ETag '"x"'; return 200 $request_id; }
    }
}`)
	kept := map[string]string{}
	for i, binary := range []string{installed, d.ours, installed} {
		d.use(binary)
		d.start()
		for _, path := range []string{"/a", "/varies", "/b" + string(rune('0'+i))} {
			answer := askServer(t, d.port, "a.test", path)
			before, known := kept[path]
			if body := answer[strings.LastIndex(answer, "\n")+1:]; !known {
				kept[path] = body
			} else if body != before || !strings.Contains(answer, "X-Cache: HIT") {
				t.Errorf("%s, %s: %s", binary, path, answer)
			}
		}
		for _, path := range []string{"/b0", "/b1"}[:i] {
			if answer := askServer(t, d.port, "a.test", path); !strings.HasSuffix(answer, kept[path]) {
				t.Errorf("%s, %s: %s", binary, path, answer)
			}
		}
		d.kill(d.pid(""), syscall.SIGQUIT)
		d.await("it ends", func() bool { return d.pid("") == 0 })
	}
}
