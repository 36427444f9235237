package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cached is a server with a cache before a backend; keep says more about it.
func cached(t *testing.T, b *backend, keep string) *running {
	t.Helper()
	return run(t, cachedConf(b, "cache", keep))
}

func cachedConf(b *backend, path, keep string) string {
	return `error_log logs/e.log info; events {} http { proxy_cache_path ` + path + ` keys_zone=z:1m; add_header X-Cache $upstream_cache_status;
		server { listen unix:%dir%/s; server_name a.test; proxy_buffers 8 4k;
			location / { proxy_pass http://` + b.addr + `; proxy_cache z; proxy_cache_key $uri; proxy_cache_valid 200 1h; ` + keep + ` } } }`
}

// countingBackend is a backend that says how often it was asked, and then size bytes
// in pieces.
func countingBackend(t *testing.T, size int, pause time.Duration) *backend {
	return newBackend(t, func(c net.Conn, r *bufio.Reader, n int64) {
		if readRequestOf(r) == "" {
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Asked: %d\r\nContent-Length: %d\r\n\r\n", n, size)
		piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for left := size; left > 0; left -= len(piece) {
			if _, err := c.Write(piece[:min(left, len(piece))]); err != nil {
				return
			}
			time.Sleep(pause)
		}
	})
}

// waiting lets a request wait for what another fetches.
const waiting = "proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s;"

// TestCacheSlowClient: an answer is kept as fast as its server sends it,
// however slowly the client takes it.
func TestCacheSlowClient(t *testing.T) {
	const size = 8 << 20
	b := countingBackend(t, size, 0)
	r := cached(t, b, waiting)
	slow := r.dial("s")
	defer slow.Close()
	_, _ = io.WriteString(slow, "GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	_, _ = io.ReadFull(slow, make([]byte, 1))
	if got := r.get("s", "/a"); !strings.Contains(got, "X-Asked: 1\r\n") || len(got) < size {
		t.Errorf("%d bytes, %.200q", len(got), got)
	}
	got, err := io.ReadAll(slow)
	if err != nil || !bytes.HasSuffix(got, bytes.Repeat([]byte("0123456789abcdef"), size/16)) {
		t.Errorf("the slow client got %d bytes, %v", len(got), err)
	}
}

// TestCacheClientLeaves: what was begun for a client who has gone is kept.
func TestCacheClientLeaves(t *testing.T) {
	for _, size := range []int{200_000, 4 << 20} {
		b := countingBackend(t, size, time.Millisecond)
		r := cached(t, b, waiting)
		c := r.dial("s")
		_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n")
		_, _ = io.ReadFull(c, make([]byte, 1000))
		_ = c.Close()
		if got := r.get("s", "/a"); !strings.Contains(got, "X-Asked: 1\r\n") || len(got) < size {
			t.Errorf("%d bytes, %.200q", len(got), got)
		}
	}
}

// TestCacheBroken: an answer that its server does not complete is not kept.
func TestCacheBroken(t *testing.T) {
	b := newBackend(t, func(c net.Conn, r *bufio.Reader, n int64) {
		readRequestOf(r)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Asked: %d\r\nContent-Length: 10\r\n\r\n12345", n)
	})
	r := cached(t, b, "")
	for i := 1; i <= 2; i++ {
		if got := r.get("s", "/a"); !strings.Contains(got, fmt.Sprintf("X-Asked: %d\r\n", i)) || !strings.Contains(got, "X-Cache: MISS\r\n") {
			t.Errorf("%.200q", got)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "proxy_temp/*/*/*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// TestCacheLock: of many that ask at once one asks the server.
func TestCacheLock(t *testing.T) {
	b := countingBackend(t, 100_000, 10*time.Millisecond)
	r := cached(t, b, waiting)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got := r.get("s", "/a"); !strings.Contains(got, "X-Asked: 1\r\n") || len(got) < 100_000 {
				t.Errorf("%.200q", got)
			}
		})
	}
	all.Wait()
}

// TestCacheReload: answers outlive a configuration, and a process.
func TestCacheReload(t *testing.T) {
	b := countingBackend(t, 1000, 0)
	conf := cachedConf(b, "cache", "")
	r := run(t, conf)
	r.get("s", "/a")
	if err := r.Reload(r.load(strings.Replace(conf, "1m;", "2m inactive=1h;", 1))); err != nil {
		t.Fatal(err)
	}
	if got := r.get("s", "/a"); !strings.Contains(got, "X-Cache: HIT\r\n") {
		t.Errorf("after a reload: %.200q", got)
	}
	err := r.Reload(r.load(cachedConf(b, "elsewhere", "")))
	if err == nil || !strings.Contains(err.Error(), `cache "z" uses the "`+r.dir+`/elsewhere" cache path while previously it used the "`+r.dir+`/cache" cache path`) {
		t.Errorf("other path: %v", err)
	}
	r.Stop()
	again := &running{Runtime: NewRuntime(r.opts), t: t, dir: r.dir, opts: r.opts}
	if err := again.Start(again.load(conf)); err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if got := again.get("s", "/a"); !strings.Contains(got, "X-Cache: HIT\r\n") {
		t.Errorf("in another process: %.200q", got)
	}
	again.await("logs/e.log", "[notice]")
}

// TestCacheUnwritable: an answer that cannot be kept is answered with.
func TestCacheUnwritable(t *testing.T) {
	b := countingBackend(t, 1000, 0)
	r := cached(t, b, "")
	if err := os.WriteFile(filepath.Join(r.dir, "cache"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		if got := r.get("s", "/a"); !strings.Contains(got, fmt.Sprintf("X-Asked: %d\r\n", i)) || !strings.HasSuffix(got, "89abcdef01234567") {
			t.Errorf("%.200q", got)
		}
	}
	r.await("logs/e.log", "[crit] ")
}

// TestCacheMistakes holds nginx's words for what is wrong.
func TestCacheMistakes(t *testing.T) {
	for conf, want := range map[string]string{
		"proxy_cache_path /c;":                                                                  `invalid number of arguments in "proxy_cache_path" directive`,
		"proxy_cache_path /c levels=1:2;":                                                       `"proxy_cache_path" must have "keys_zone" parameter`,
		"proxy_cache_path /c keys_zone=a;":                                                      `invalid keys zone size "keys_zone=a"`,
		"proxy_cache_path /c keys_zone=a:x;":                                                    `invalid keys zone size "keys_zone=a:x"`,
		"proxy_cache_path /c keys_zone=a:4k;":                                                   `keys zone "keys_zone=a:4k" is too small`,
		"proxy_cache_path /c keys_zone=a:1m levels=3;":                                          `invalid "levels" "levels=3"`,
		"proxy_cache_path /c keys_zone=a:1m levels=1:1:1:1;":                                    `invalid "levels" "levels=1:1:1:1"`,
		"proxy_cache_path /c keys_zone=a:1m use_temp_path=no;":                                  `invalid use_temp_path value "use_temp_path=no", it must be "on" or "off"`,
		"proxy_cache_path /c keys_zone=a:1m max_size=x;":                                        `invalid max_size value "max_size=x"`,
		"proxy_cache_path /c keys_zone=a:1m inactive=x;":                                        `invalid inactive value "inactive=x"`,
		"proxy_cache_path /c keys_zone=a:1m loader_files=x;":                                    `invalid loader_files value "loader_files=x"`,
		"proxy_cache_path /c keys_zone=a:1m manager_sleep=x;":                                   `invalid manager_sleep value "manager_sleep=x"`,
		"proxy_cache_path /c keys_zone=a:1m purger=on;":                                         `invalid parameter "purger=on"`,
		"proxy_cache_path /c keys_zone=a:1m; proxy_cache_path /d keys_zone=a:1m;":               `duplicate zone "a"`,
		"server { location / { proxy_pass http://127.0.0.1; proxy_cache b; } }":                 `"proxy_cache" zone "b" is unknown`,
		"proxy_cache_valid x;":                                                                  `invalid time value "x"`,
		"proxy_cache_valid 99 1m;":                                                              `invalid status "99"`,
		"proxy_cache_valid any 200 600 1m;":                                                     `invalid status "600"`,
		"proxy_cache_use_stale sometimes;":                                                      `invalid value "sometimes"`,
		"proxy_cache_methods PUT;":                                                              `invalid value "PUT"`,
		"proxy_cache_path /c keys_zone=a:1m; proxy_cache a; server { proxy_cache_lock maybe; }": `invalid value "maybe" in "proxy_cache_lock" directive, it must be "on" or "off"`,
	} {
		_, diags := prepare(t).parse("events {} http { " + conf + " }")
		if len(diags) == 0 || !strings.Contains(diags[0].Message, want) {
			t.Errorf("%s: %v, want %q", conf, diags, want)
		}
	}
}

// TestTempFileInNewFolders: a folder that is missing costs no try.
func TestTempFileInNewFolders(t *testing.T) {
	p := tempPath{path: filepath.Join(t.TempDir(), "temp"), levels: []int{3, 3, 3}}
	for range 20 {
		f, _, err := p.create(true)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}
