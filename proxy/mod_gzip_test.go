package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAcceptsGzip(t *testing.T) {
	for v, want := range map[string]bool{
		"gzip": true, "gzip,deflate": true, "deflate, gzip": true, "GZIP": true, "xgzip": false, "gzipx": false, "xgzip, gzip": true,
		"gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=0.001": true, "gzip;q=1": true, "gzip;q=1.000": true, "gzip;q=1.001": false,
		"gzip;q=2": false, "gzip;q=0.0001": false, "gzip;": true, "gzip;x": false, "gzip;q": false, "gzip;q=": false, "gzip;q=1.": true,
		"gzip;q=0.": false, "gzip ;q=0.5, x": true, "": false, "identity": false, "*": false, "gzip ;  Q=1": true, "gzip x": false,
	} {
		if got := acceptsGzip([]byte(v)); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}

// TestGzipBody compresses bodies of several sizes and shapes.
func TestGzipBody(t *testing.T) {
	r := run(t, `error_log logs/error.log; pid nginx.pid; events {} http { access_log off; root html; default_type text/html; gzip on; gzip_min_length 0;
		server { listen unix:%dir%/s; location /level9 { alias html; gzip_comp_level 9; } location /around { add_before_body /small; add_after_body /small; } } }`)
	bodies := map[string]string{
		"small": "x", "empty": "", "large": strings.Repeat("a line of text\n", 1<<16),
	}
	for name, body := range bodies {
		for _, dir := range []string{"", "level9", "around"} {
			path := filepath.Join(r.dir, "html", strings.TrimPrefix(dir, "level9"), name)
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, body := range bodies {
		for _, dir := range []string{"/", "/level9/", "/around/"} {
			want := body
			if dir == "/around/" {
				want = "x" + body + "x"
			}
			raw := r.ask("s", "GET "+dir+name+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(res.Header.Get("ETag"), "W/") {
				t.Errorf("%s%s: %v", dir, name, res.Header)
			}
			gz, err := gzip.NewReader(res.Body)
			if err != nil {
				t.Fatalf("%s%s: %v", dir, name, err)
			}
			got, err := io.ReadAll(gz)
			if err != nil || string(got) != want {
				t.Errorf("%s%s: %v, %d bytes, want %d", dir, name, err, len(got), len(want))
			}
			_ = res.Body.Close()
		}
	}
}

// TestGzipShort: what fits in one block decodes again, and takes as much room as
// nginx's where the block has no freedom.
func TestGzipShort(t *testing.T) {
	t.Parallel()
	compressed := func(level int, body []byte) []byte {
		z := &compressor{level: level}
		z.start()
		_, _ = z.gz.Write(body)
		_ = z.gz.Close()
		return shorten(z.out)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for level := 1; level <= 9; level++ {
		for n := 0; n < oneBlock; n += 1 + n/3 + random.IntN(3) {
			for _, letters := range []int{1, 4, 64, 256} {
				body := make([]byte, n)
				for i := range body {
					body[i] = byte(random.IntN(letters))
				}
				gz, err := gzip.NewReader(bytes.NewReader(compressed(level, body)))
				if err != nil {
					t.Fatal(err)
				}
				if back, err := io.ReadAll(gz); err != nil || !bytes.Equal(back, body) {
					t.Fatalf("level %d, %d bytes of %d letters: %v", level, n, letters, err)
				}
			}
		}
	}
	for body, size := range map[string]int{"": 20, "x": 21, "SEE-THIS": 28} {
		if got := compressed(2, []byte(body)); len(got) != size {
			t.Errorf("%q takes %d bytes, want %d", body, len(got), size)
		}
	}
}
