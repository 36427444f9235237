//go:build !race

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTenThousandServers bounds what validate takes for a host of sites. On a
// quiet machine it is done within three seconds; the bounds here leave room for
// busy ones.
func TestTenThousandServers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var b strings.Builder
	b.WriteString("events {}\nhttp {\nserver_tokens off;\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "server {\n\tlisten 80;\n\tserver_name site%d.example.com www.site%[1]d.example.com;\n\troot /srv/site%[1]d;\n"+
			"\tlocation / { try_files $uri $uri/ =404; }\n\tlocation ~ /\\. { deny all; }\n\tlocation ~ \\.(png|jpe?g|css|js)$ { expires 7d; }\n"+
			"\tlocation /api/ { proxy_set_header Host $host; proxy_pass http://127.0.0.1:%d/; }\n}\n", i, 10_000+i%5_000)
	}
	b.WriteString("}\n")
	conf := filepath.Join(t.TempDir(), "nginx.conf")
	if err := os.WriteFile(conf, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("proxyctl", "validate", conf)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "the file can be served") {
		t.Fatalf("%v: ...%s", err, out[max(0, len(out)-200):])
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); cpu > 30*time.Second {
		t.Errorf("took %s of CPU time", cpu)
	}
	if mb := used.Maxrss >> 10; mb > 600 {
		t.Errorf("took %d MB", mb)
	}
	t.Logf("%d MB, %s user, %s system", used.Maxrss>>10, cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime())
}
