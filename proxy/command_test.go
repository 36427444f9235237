package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// TestRowsAgreeWithNginx holds every row against nginx's own declaration of
// the directive: contexts, number of arguments, block or not.
func TestRowsAgreeWithNginx(t *testing.T) {
	known := map[string]*Command{}
	for _, c := range knownDirectives() {
		known[c.Name+" of "+c.module] = c
	}
	for _, c := range Commands() {
		name := c.Name + " of " + c.module
		k := known[name]
		if c.module == "ngx_http_acme_module" { // official, but not of nginx's own sources
			continue
		}
		if k == nil {
			t.Errorf("%s: nginx has no such directive", name)
			continue
		}
		if c.In != k.In {
			t.Errorf("%s: stands in %s, in nginx in %s", name, c.In, k.In)
		}
		if c.Block != k.Block {
			t.Errorf("%s: block %v, in nginx %v", name, c.Block, k.Block)
		}
		for n := range 12 {
			if c.Args.Allows(n) != k.Args.Allows(n) {
				t.Errorf("%s: %d arguments allowed %v, in nginx %v", name, n, c.Args.Allows(n), k.Args.Allows(n))
			}
		}
	}
}

// TestRowsAreWhole checks what documents and hints are made from.
func TestRowsAreWhole(t *testing.T) {
	for _, c := range Commands() {
		switch {
		case c.Status == Unsupported:
			if c.Reason == "" {
				t.Errorf("%s: refused without a reason", c.Name)
			}
			continue
		case c.Status == NoEffect && c.Reason == "":
			t.Errorf("%s: without effect and without a reason", c.Name)
		case c.Set == nil && c.Name != "include":
			t.Errorf("%s: no setter", c.Name)
		}
		if c.Doc == "" || !strings.HasSuffix(c.Doc, ".") {
			t.Errorf("%s: doc %q is not a sentence", c.Name, c.Doc)
		}
	}
}

func TestArity(t *testing.T) {
	for _, tt := range []struct {
		arity Arity
		want  string // the numbers of arguments allowed, up to 5
	}{
		{"0", "0"}, {"1", "1"}, {"flag", "1"}, {"2,3", "2 3"}, {"1-3", "1 2 3"}, {"1+", "1 2 3 4 5"}, {"0,1", "0 1"}, {"1,2,3,4", "1 2 3 4"},
	} {
		var got []string
		for n := range 6 {
			if tt.arity.Allows(n) {
				got = append(got, fmt.Sprint(n))
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q allows %s, want %s", tt.arity, s, tt.want)
		}
	}
}
