package proxy

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLimitRate(t *testing.T) {
	r := run(t, `events {} http { server { listen unix:%dir%/s; limit_rate 20k;
		location = /file { }
		location = /small { return 200 small; }
		location = /after { limit_rate_after 25k; alias %dir%/html/file; }
		location = /set { set $limit_rate 0; alias %dir%/html/file; }
		location = /variable { limit_rate $arg_rate; return 200 $limit_rate; }
		location = /proxied { proxy_pass http://unix:%dir%/b; limit_rate 0; }
		location = /ignored { proxy_pass http://unix:%dir%/b; proxy_ignore_headers X-Accel-Limit-Rate; limit_rate 0; }
	} server { listen unix:%dir%/b; add_header X-Accel-Limit-Rate 20480; location / { root html; try_files /file =404; } } }`)
	if err := os.WriteFile(r.dir+"/html/file", make([]byte, 30<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, slow := range map[string]bool{
		"/file": true, "/small": false, "/after": false, "/set": false, "/variable?rate=20k": false, "/proxied": true, "/ignored": false,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			answer := r.get("s", path)
			took := time.Since(began)
			if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || took > 5*time.Second {
				t.Errorf("%.60s in %v", answer, took)
			}
			if !strings.Contains(path, "small") && !strings.Contains(path, "variable") && len(answer) < 30<<10 {
				t.Errorf("%d bytes", len(answer))
			}
			if (took > 700*time.Millisecond) != slow {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestLimitRateLeft ends a slow answer that nobody waits for any more.
func TestLimitRateLeft(t *testing.T) {
	r := run(t, `events {} http { server { listen unix:%dir%/s; limit_rate 1k; return 200 "`+strings.Repeat("x", 4000)+`"; } }`)
	c := r.dial("s")
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(make([]byte, 10))
	_ = c.Close()
	for began := time.Now(); r.Stats().Active > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 2*time.Second {
			t.Fatal("the connection is still there")
		}
	}
}

// TestLimitRateOfHead: a head is part of what goes out in a second.
func TestLimitRateOfHead(t *testing.T) {
	r := run(t, `events {} http { server { listen unix:%dir%/s; limit_rate 100; return 200 body; } }`)
	for _, method := range []string{"GET", "HEAD"} {
		c := r.dial("s")
		defer c.Close()
		_, _ = io.WriteString(c, method+" / HTTP/1.0\r\nHost: a\r\n\r\n")
		first := make([]byte, 1000)
		n, _ := c.Read(first)
		rest, err := io.ReadAll(c)
		if all := string(first[:n]) + string(rest); n != 100 || err != nil || !strings.HasSuffix(all, map[string]string{"GET": "\r\n\r\nbody", "HEAD": "\r\n\r\n"}[method]) {
			t.Errorf("%s: %d bytes first, %q, %v", method, n, all, err)
		}
	}
}
