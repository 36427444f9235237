package proxy

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// storing is a server that stores what its upstream says.
func storing(t *testing.T, body, more string) (p *proxyTest, dir string) {
	t.Helper()
	b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
		readRequestOf(r)
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body))
	})
	dir = t.TempDir()
	return newProxyTest(t, "", "proxy_temp_path "+t.TempDir()+"; proxy_store "+dir+"$uri; location / { proxy_pass http://"+b.addr+"; "+more+" }"), dir
}

// TestStore: answers of any size are stored whole.
func TestStore(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"empty": 0, "small": 10, "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := strings.Repeat("x", size)
			p, dir := storing(t, body, "")
			x, s := p.exchange("GET /a/b", "Host: h")
			p.do(x)
			x.release()
			got, err := os.ReadFile(filepath.Join(dir, "a", "b"))
			if err != nil || string(got) != body || s.out.String() != body {
				t.Errorf("%d bytes, %v; %d passed on; %s", len(got), err, s.out.Len(), p.logged())
			}
		})
	}
}

// TestStoreHead: an answer without its body is none to store.
func TestStoreHead(t *testing.T) {
	t.Parallel()
	p, dir := storing(t, "", "")
	x, _ := p.exchange("HEAD /a", "Host: h")
	p.do(x)
	x.release()
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("it is stored")
	}
}

// TestStoreElsewhere: a place on another file system gets a copy.
func TestStoreElsewhere(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "store")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	temp := t.TempDir()
	var a, b syscall.Stat_t
	if syscall.Stat(dir, &a) != nil || syscall.Stat(temp, &b) != nil || a.Dev == b.Dev {
		t.Skip("there is one file system only")
	}
	p, _ := storing(t, "the answer", "proxy_store "+dir+"$uri; proxy_store_access group:rw;")
	x, _ := p.exchange("GET /a", "Host: h")
	p.do(x)
	x.release()
	if got, err := os.ReadFile(filepath.Join(dir, "a")); string(got) != "the answer" || err != nil {
		t.Errorf("%q, %v; %s", got, err, p.logged())
	}
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode().Perm() != 0o660 {
		t.Error(info, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Error(left)
	}
}
