package proxy

import (
	"slices"
	"strings"
	"testing"

	"proxyctl/parser"
)

// TestWitnesses makes up the same requests each time: for names, locations and
// their neighbours, and for what statements tell apart.
func TestWitnesses(t *testing.T) {
	const conf = `events {} http {
		map $http_x_kind $kind { default 0; one 1; "~^t[wx]o$" 2; }
		server {
			listen 127.0.0.1:8080;
			server_name a.test *.b.test ~^c[0-9]\.test$;
			if ($arg_debug = yes) { return 403; }
			location = /exact { return 200 $kind; }
			location /prefix/ {
				rewrite ^/prefix/old(.*)$ /prefix/new$1;
				location ~ \.(jpg|png)$ { return 204; }
			}
			location ~* "^/u/[0-9]{2}$" { return 200; }
			location @named { return 200; }
		}
		server { listen 127.0.0.1:8080 default_server; return 404; }
	}`
	list := func() []string {
		file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte(conf)}, parser.Options{})
		table, diags := Load(file, &Options{DryRun: true})
		if table == nil {
			t.Fatal(diags[0].Message)
		}
		var out []string
		for _, w := range Witnesses(table, file) {
			line := w.Method + " " + w.Host + w.Target
			if len(w.Fields) > 0 {
				line += " " + strings.Join(w.Fields, ", ")
			}
			out = append(out, line)
		}
		return out
	}
	got := list()
	if again := list(); !slices.Equal(got, again) {
		t.Errorf("another list: %q", again)
	}
	for _, want := range []string{
		"GET unknown.invalid/", "GET /", // nobody's names
		"GET a.test/", "GET A.TEST:8080/", "GET x.b.test/", "GET c0.test/",
		"GET a.test/exact", "GET a.test/exact/", "GET a.test/exactx", "GET a.test/EXACT",
		"GET a.test/prefix/", "GET a.test/prefix", "GET a.test/prefix/.jpg", "GET a.test/u/00",
		"GET a.test/?debug=yes", "GET a.test/?debug=yesx", "GET a.test/prefix/old", "GET a.test/prefix/old?a=b&c=%2f",
		"GET a.test/exact x-kind: one", "GET a.test/exact x-kind: txo", "GET a.test/exact x-kind: nothing-of-these",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// TestWitnessIsNormal: an expression is not asked for by a path that the server
// reads as another one.
func TestWitnessIsNormal(t *testing.T) {
	const conf = `events {} http { server { listen 127.0.0.1:8080; location ~ ^/a/.*/b$ { return 200; } location ~ ^/c/\.\./d$ { return 200; } } }`
	file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte(conf)}, parser.Options{})
	table, _ := Load(file, &Options{DryRun: true})
	found := false
	for _, w := range Witnesses(table, file) {
		path := strings.TrimSuffix(strings.TrimPrefix(w.Target, "/a/"), "/b")
		found = found || strings.HasPrefix(w.Target, "/a/") && strings.HasSuffix(w.Target, "/b") && path != "" && !strings.Contains(w.Target, "//")
	}
	if !found {
		t.Error("no request leads to ^/a/.*/b$")
	}
}
