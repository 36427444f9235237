package proxy

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"proxyctl/parser"
)

// loadACME loads a configuration with one issuer and one server.
func loadACME(t *testing.T, issuer, server string) (*Table, string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "eab")
	if err := os.WriteFile(key, []byte("c2VjcmV0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := "events {} http { " + issuer + " server { listen 127.0.0.1:9443 ssl; ssl_certificate $acme_certificate; ssl_certificate_key $acme_certificate_key; " + server + " } }"
	file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte(conf)}, parser.Options{})
	table, diags := Load(file, &Options{Product: Product{Name: "nginx", Version: "1"}, ConfDir: filepath.Dir(key), DryRun: true})
	for _, d := range diags {
		return table, d.Message
	}
	return table, ""
}

func TestACMEMistakes(t *testing.T) {
	t.Parallel()
	const uri = "uri https://ca.test/dir; "
	issuer := func(body string) string { return "acme_issuer a { " + uri + body + " }" }
	for _, tt := range []struct{ issuer, server, want string }{
		{issuer(""), "server_name x.test; acme_certificate a;", ""},
		{issuer("") + issuer(""), "", `"acme_issuer" directive is duplicate`},
		{"acme_issuer a { contact x; }", "", `acme_issuer: "uri" is missing`},
		{"acme_issuer a { uri http://ca.test/dir; }", "", `acme_issuer: "uri" "http://ca.test/dir" is not https`},
		{issuer("challenge dns;"), "", "unsupported challenge: dns"},
		{issuer("challenge http; challenge http;"), "", `"challenge" directive is duplicate`},
		{issuer("contact a@x.test; contact tel:1;"), "", ""},
		{issuer(`contact "";`), "", "invalid value"},
		{issuer("account_key ecdsa:255;"), "", `account_key: unsupported key "ecdsa:255"`},
		{issuer("account_key rsa:2048;"), "", ""},
		{issuer("external_account_key kid eab;"), "", ""},
		{issuer("external_account_key kid data:c2VjcmV0;"), "", ""},
		{issuer("external_account_key kid data:%%;"), "", `"external_account_key" directive invalid base64url encoded value`},
		{issuer("profile short require;"), "", ""},
		{issuer("profile short x;"), "", `"profile" directive invalid value`},
		{issuer("ssl_verify x;"), "", `invalid value "x" in "ssl_verify" directive, it must be "on" or "off"`},
		{issuer("state_path off;"), "", `"state_path off" is not supported by proxyctl`},
		{issuer("accept_terms_of_service on;"), "", `invalid number of arguments in "accept_terms_of_service" directive`},
		{issuer("nonsense;"), "", `unknown directive "nonsense"`},
		{issuer("listen 80;"), "", `"listen" directive is not allowed here`},
		{"acme_shared_zone zone=a:1M;", "", ""},
		{"acme_shared_zone a:1M;", "", `"acme_shared_zone" must have "zone" parameter`},
		{"acme_shared_zone zone=a;", "", `acme_shared_zone: invalid zone size "a"`},
		{"acme_shared_zone zone=a:1k;", "", "acme_shared_zone: zone a is too small"},
		{issuer(""), "server_name x.test; acme_certificate b;", `issuer "b" is missing`},
		{issuer(""), "acme_certificate a;", `"acme_certificate": no identifiers found in "server_name"`},
		{issuer(""), "server_name ~x; acme_certificate a x.test;", ""},
		{issuer(""), "server_name www.x.*; acme_certificate a;", `"acme_certificate": invalid server name: "www.x.*"`},
		{issuer(""), "acme_certificate a x.test key=dsa;", `acme_certificate: unsupported key "dsa"`},
		{issuer(""), "acme_certificate a x..test;", `acme_certificate: invalid server name: "x..test"`},
		{issuer(""), "acme_certificate a x.test; acme_certificate a y.test;", `"acme_certificate" directive is duplicate`},
		{issuer(""), "acme_certificate a x.test; location / { return 200 $acme_certificate_key; }", `unknown "acme_certificate_key" variable`},
	} {
		if _, got := loadACME(t, tt.issuer, tt.server); got != tt.want {
			t.Errorf("%s %s\ngot  %s\nwant %s", tt.issuer, tt.server, got, tt.want)
		}
	}
}

func TestACMEOrders(t *testing.T) {
	t.Parallel()
	const issuer = "acme_issuer a { uri https://ca.test/dir; }"
	for server, want := range map[string][]string{
		"server_name .X.test; acme_certificate a;":                       {"www.x.test", "x.test"},
		"server_name x.test Y.test; acme_certificate a key=rsa:4096;":    {"x.test", "y.test"},
		"server_name x.test; acme_certificate a z.test 127.0.0.1 [::1];": {"z.test", "127.0.0.1", "::1"},
		"server_name *.x.test x.test; acme_certificate a;":               {"*.x.test", "x.test"},
		`server_name "" x.test; acme_certificate a;`:                     {"x.test"},
	} {
		table, problem := loadACME(t, issuer, server)
		if problem != "" {
			t.Errorf("%s: %s", server, problem)
			continue
		}
		if o := table.certSites()[0].ACME; !slices.Equal(o.Names, want) || o.Issuer.Directory != "https://ca.test/dir" {
			t.Errorf("%s: %q", server, o.Names)
		}
	}
}
