package certs

import (
	"slices"
	"strings"
	"testing"
)

func TestPublicNames(t *testing.T) {
	for _, tt := range []struct {
		names             string
		wildcards, public bool
		want              string
	}{
		{"site.com www.site.com", false, true, "site.com www.site.com"},
		{"Site.Com. site.com", false, true, "site.com"},
		{"_ localhost x.localhost db.internal nas.local 10.0.0.1 [::1] 127.0.0.1 host", false, false, ""},
		{"~^x a.* $hostname a_b.com -", false, true, ""},
		{"*.site.com site.com", false, true, "site.com"},
		{"*.site.com site.com", true, true, "site.com *.site.com"},
		{".site.com", true, true, "site.com *.site.com"},
		{".site.com", false, true, "site.com"},
		{"*.com *.*.site.com", true, true, ""},
		{"a.test b.example", false, true, ""},
		{"a.test b.example", false, false, "a.test b.example"},
		{"1.2.3.4 8.8.8.8 1.2", false, true, ""},
		{strings.Repeat("a", 64) + ".com " + strings.Repeat("a.", 130) + "com a..com", false, true, ""},
	} {
		if got := strings.Join(publicNames(strings.Fields(tt.names), tt.wildcards, tt.public), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.names, got, tt.want)
		}
	}
}

func TestOrdersFor(t *testing.T) {
	var names []string
	for i := range 250 {
		names = append(names, "n"+strings.Repeat("x", i%50)+".site"+string(rune('a'+i%26))+".com")
	}
	orders := ordersFor(names, authority{directory: "https://ca.test/dir"}, defaultKey)
	if len(orders) != 3 || len(orders[0].names) != 100 || len(orders[2].names) != 50 {
		t.Errorf("%d orders", len(orders))
	}
	a, b := testOrder("a.test", "b.test"), testOrder("b.test", "a.test")
	if strings.TrimPrefix(a.id(), "a.test") != strings.TrimPrefix(b.id(), "b.test") {
		t.Errorf("order of names matters: %s, %s", a.id(), b.id())
	}
	evil := testOrder("../../etc/passwd")
	if strings.ContainsAny(evil.id(), "/\\") || slices.Contains(strings.Split(evil.id(), "/"), "..") {
		t.Errorf("id %q", evil.id())
	}
}
