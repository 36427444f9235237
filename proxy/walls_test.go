package proxy

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestImports holds the arrows of ARCHITECTURE.md: who may import whom.
func TestImports(t *testing.T) {
	allowed := map[string][]string{
		"proxyctl/cmd/proxyctl/verify":   {"proxyctl/parser", "proxyctl/proxy"},
		"proxyctl/cmd/proxyctl/takeover": nil,
		"proxyctl/cmd/proxyctl/export":   {"proxyctl/proxy"},

		"proxyctl/cmd/proxyctl":    {"proxyctl/parser", "proxyctl/proxy", "proxyctl/certs", "proxyctl/cmd/proxyctl/verify", "proxyctl/cmd/proxyctl/takeover", "proxyctl/cmd/proxyctl/export"},
		"proxyctl/proxy":           {"proxyctl/parser", "proxyctl/proxy/head", "proxyctl/proxy/http1", "proxyctl/proxy/http2", "proxyctl/proxy/http3", "proxyctl/proxy/fastcgi", "proxyctl/proxy/memcached", "proxyctl/proxy/mp4", "proxyctl/proxy/sock", "proxyctl/proxy/upstream", "proxyctl/proxy/match", "proxyctl/proxy/pcre", "proxyctl/proxy/resolver", "proxyctl/proxy/cache"},
		"proxyctl/proxy/http1":     {"proxyctl/proxy/sock"},
		"proxyctl/proxy/http2":     {"proxyctl/proxy/head", "proxyctl/proxy/http1", "proxyctl/proxy/sock"},
		"proxyctl/proxy/http3":     {"proxyctl/proxy/head", "proxyctl/proxy/http1", "proxyctl/proxy/sock"},
		"proxyctl/proxy/head":      {"proxyctl/proxy/http1"},
		"proxyctl/proxy/fastcgi":   {"proxyctl/proxy/http1", "proxyctl/proxy/sock"},
		"proxyctl/proxy/memcached": {"proxyctl/proxy/http1", "proxyctl/proxy/sock"},
		"proxyctl/proxy/sock":      nil,
		"proxyctl/proxy/mp4":       nil,
		"proxyctl/proxy/upstream":  nil,
		"proxyctl/proxy/match":     nil,
		"proxyctl/proxy/pcre":      nil,
		"proxyctl/proxy/resolver":  nil,
		"proxyctl/proxy/cache":     nil,
		"proxyctl/parser":          nil,
		"proxyctl/certs":           nil,
	}
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "proxyctl/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		may, known := allowed[f[0]]
		if !known {
			t.Errorf("package %s has no place in the plan", f[0])
			continue
		}
		for _, imported := range f[1:] {
			if strings.HasPrefix(imported, "proxyctl/") && !slices.Contains(may, imported) {
				t.Errorf("%s must not import %s", f[0], imported)
			}
			if strings.HasPrefix(imported, "github.com/caddyserver/certmagic") && f[0] != "proxyctl/certs" {
				t.Errorf("%s must not import certmagic", f[0])
			}
		}
	}
}

// TestGonginxInOneFile keeps gonginx out of what decides about acceptance.
func TestGonginxInOneFile(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || path == filepath.Join("..", "parser", "gonginx.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if strings.HasPrefix(name, "github.com/tufanbarisyildirim/gonginx") && !strings.HasSuffix(path, "_test.go") {
				t.Errorf("%s imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestJudgesApart keeps the servers that judge exports out of the program's module.
func TestJudgesApart(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"github.com/caddyserver/caddy/", "k8s.io/", "sigs.k8s.io/"} {
		if strings.Contains(string(text), name) {
			t.Errorf("go.mod names %s: it belongs to cmd/proxyctl/export/validators", name)
		}
	}
}
