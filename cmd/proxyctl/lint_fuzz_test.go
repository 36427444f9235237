package main

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// FuzzTools feeds everything that reads a configuration without serving it:
// nothing may panic, and what is printed must be readable.
func FuzzTools(f *testing.F) {
	files, _ := filepath.Glob("testdata/lint/*.conf")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for server := range strings.SplitAfterSeq(string(text), "\n}\n") {
			f.Add(server)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") || strings.Contains(text, "load_module") || len(text) > 4000 {
			return
		}
		file := parseAlone("t.conf", text)
		wrapped, _ := wrapSite(file, "")
		p := newProcess(settings{product: proxyctlProduct(), conf: "/t.conf", prefix: "/", errorLog: "stderr"}, io.Discard)
		p.options.DryRun, p.options.Offline, p.options.CheckCertificates = true, true, nil
		table, diags := p.load(wrapped)
		all := proxy.Lint(wrapped, diags, proxy.LintOptions{Offline: true, Version: "1.18"})
		for _, format := range []string{"text", "json", "sarif", "github", "errorformat", "nginx"} {
			if err := render(io.Discard, all, format); err != nil {
				t.Fatal(err)
			}
		}
		proxy.Usage(wrapped)
		proxy.Modules(wrapped, []string{"x"})
		if d := proxy.Compare(wrapped, wrapped); len(d) > 0 {
			t.Fatalf("%q differs from itself: %+v", text, d)
		}
		if firstSyntaxError(file.Body) == nil {
			after, err := edited(text, proxy.Modernize(wrapped, "/"))
			if err == nil {
				err = parser.Print(io.Discard, parseAlone("t.conf", after))
			}
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
		if table == nil {
			return
		}
		sites := table.Sites()
		if len(sites) == 0 || len(sites[0].Listen) == 0 || sites[0].Listen[0].TLS {
			return
		}
		_, _ = proxy.Explain(table, &proxy.Question{
			Method: "GET", Host: "a.test", Target: "/a/b.png?x=1", From: netip.MustParseAddr("192.0.2.1"), To: sites[0].Listen[0].Address,
		})
	})
}
