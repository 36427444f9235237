package main

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// withoutScript are served directives that no script can show, and who does.
var withoutScript = map[string]string{
	"user": "needs root: TestDropRights",
}

// TestScriptsUseEveryDirective wants each served directive in a configuration of
// some script, where its effect is held against nginx's.
func TestScriptsUseEveryDirective(t *testing.T) {
	used := map[string]bool{}
	for _, archive := range scriptArchives(t) {
		for _, f := range archive.Files {
			if filepath.Ext(f.Name) == ".conf" {
				collectNames(parseAlone(f.Name, string(f.Data)).Body, used)
			}
		}
	}
	missing := map[string]bool{}
	for _, c := range proxy.Commands() {
		shown := used[c.Name] || used[twin(c.Name)]
		switch {
		case withoutScript[c.Name] != "":
			if shown {
				t.Errorf("%s stands in a script", c.Name)
			}
		case c.Status == proxy.Served && !shown:
			missing[c.Name] = true
		}
	}
	if len(missing) > 0 {
		t.Errorf("served directives that stand in no script: %s", strings.Join(slices.Sorted(maps.Keys(missing)), " "))
	}
}

// TestScriptsUseEveryVariable wants the same of the variables.
func TestScriptsUseEveryVariable(t *testing.T) {
	used := map[string]bool{}
	for _, archive := range scriptArchives(t) {
		for _, f := range archive.Files {
			for _, m := range variableName.FindAllSubmatch(f.Data, -1) {
				used[string(m[1])] = true
			}
		}
	}
	var missing []string
	for _, v := range proxy.Variables() {
		shown := used[v.Name]
		for name := range used {
			shown = shown || v.Prefix && strings.HasPrefix(name, v.Name)
		}
		if !shown && !slices.Contains(unshownVariables, v.Name) {
			missing = append(missing, v.Name)
		}
	}
	if len(missing) > 0 {
		t.Errorf("variables that stand in no script: %s", strings.Join(missing, " "))
	}
}

// variableName finds variables in configurations and in pages with commands.
var variableName = regexp.MustCompile(`(?:\$\{?|echo var=")([a-z0-9_]+)`)

// unshownVariables are there for a moment only: while proxy_cache_revalidate asks
// about an expired answer, in fields that nginx makes of them itself.
var unshownVariables = []string{"upstream_cache_last_modified", "upstream_cache_etag"}

// twin gives the directive of the proxy module that is made of the same row: those
// of FastCGI, SCGI and uwsgi that have one differ in nothing but their names.
func twin(name string) string {
	for _, prefix := range []string{"fastcgi_", "scgi_", "uwsgi_", "grpc_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return "proxy_" + rest
		}
	}
	return ""
}

// scriptArchives reads the scripts.
func scriptArchives(t *testing.T) []*txtar.Archive {
	paths, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	var archives []*txtar.Archive
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	return archives
}

// collectNames notes the directives of a block and of those in it. What stands
// in a map and its kind is data.
func collectNames(b *parser.Block, names map[string]bool) {
	data := []string{"map", "geo", "types", "split_clients", "charset_map"}
	for _, d := range b.Items {
		names[d.Name.Value] = true
		if d.Block != nil && !slices.Contains(data, d.Name.Value) {
			collectNames(d.Block, names)
		}
	}
}
