package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// TestLints holds the rules against files that say on each line what is to be
// found there. What this server does not serve yet is left out.
func TestLints(t *testing.T) {
	files, err := filepath.Glob("testdata/lint/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			var v validation
			diags, err := v.file(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := map[int][]string{}
			var source *parser.Source
			for _, d := range diags {
				r := placeOf(d)
				if r.IsZero() {
					t.Errorf("no place: %s", d.Message)
					continue
				}
				source = r.Source
				if d.Code != "U001" && d.Message != "" {
					got[r.Line()] = append(got[r.Line()], d.Code)
				}
			}
			if source == nil {
				t.Fatal("nothing found")
			}
			for _, ids := range got {
				slices.Sort(ids)
			}
			if diff := cmp.Diff(wanted(string(source.Text)), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

var wantComment = regexp.MustCompile(`# want (.*)$`)

// wanted reads the comments: # want "S001" "C002".
func wanted(text string) map[int][]string {
	want := map[int][]string{}
	for i, line := range strings.Split(text, "\n") {
		if m := wantComment.FindStringSubmatch(line); m != nil {
			for id := range strings.FieldsSeq(m[1]) {
				want[i+1] = append(want[i+1], strings.Trim(id, `"`))
			}
			slices.Sort(want[i+1])
		}
	}
	return want
}

// TestRules holds the descriptions against the codes in use.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range proxy.Rules() {
		if seen[r.ID] {
			t.Errorf("%s is described twice", r.ID)
		}
		seen[r.ID] = true
		if r.Title == "" || r.Doc == "" || !strings.HasSuffix(r.Title, ".") {
			t.Errorf("%s is not fully described", r.ID)
		}
		if !slices.Contains([]string{"error", "high", "medium", "warning", "low", "info"}, r.Level) {
			t.Errorf("%s: level %q", r.ID, r.Level)
		}
	}
}

// TestCodes holds the codes that sources name against the descriptions.
func TestCodes(t *testing.T) {
	described := map[string]bool{}
	for _, r := range proxy.Rules() {
		described[r.ID] = true
	}
	literal := regexp.MustCompile(`"([CDFSUVY][0-9]{3})"`)
	for _, pattern := range []string{"../../proxy/*.go", "../../parser/*.go", "*.go"} {
		sources, err := filepath.Glob(pattern)
		if err != nil || len(sources) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range sources {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range literal.FindAllSubmatch(text, -1) {
				if id := string(m[1]); !described[id] {
					t.Errorf("%s: %s is not described in lint-rules.md", name, id)
				}
			}
		}
	}
}

// TestCertificateRules needs files that exist: names and responders are read
// from the certificate.
func TestCertificateRules(t *testing.T) {
	dir := t.TempDir()
	writeTestPair(t, filepath.Join(dir, "tls"), "a.test", "*.b.test")
	conf := filepath.Join(dir, "site.conf")
	const text = `server {
    listen 8443 ssl;
    server_name a.test x.b.test *.c.test _;
    server_name www.a.test; # want "C017"
    ssl_stapling on; # want "D004"
    ssl_certificate tls/c.pem;
    ssl_certificate_key tls/k.pem;
    return 204;
}
`
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var v validation
	diags, err := v.file(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int][]string{}
	for _, d := range diags {
		if d.Code != "" { // what is said about stapling without a rule is nginx's
			got[placeOf(d).Line()] = append(got[placeOf(d).Line()], d.Code)
		}
	}
	if diff := cmp.Diff(wanted(text), got); diff != "" {
		t.Error(diff)
	}
	if out, code := runCommand(t, modernizeCommand(), "", conf); code != 1 || !strings.Contains(out, "remove ssl_stapling on;") {
		t.Errorf("exit %d\n%s", code, out)
	}
}
