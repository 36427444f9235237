package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeFiles puts files below a folder.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLineage(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"renewal/site.com.conf": `# renew_before_expiry = 30 days
version = 2.1.0
cert = /etc/letsencrypt/live/site.com/cert.pem
# Options used in the renewal process
[renewalparams]
account = 0123abcd
authenticator = dns-rfc2136
server = https://ca.test:14000/acme/dir
key_type = rsa
rsa_key_size = 3072
dns_rfc2136_credentials = /etc/rfc2136.ini
preferred_chain = "Root X2"
[[webroot_map]]
site.com = /var/www
`,
		"accounts/ca.test:14000/acme/dir/0123abcd/private_key.json": "{}",
		"accounts/ca.test:14000/acme/dir/0123abcd/regr.json":        `{"body": {"contact": ["mailto:me@site.com"]}, "uri": "https://ca.test/acct/1"}`,
		"renewal/plain.com.conf":                                    "[renewalparams]\naccount = ../../x\nauthenticator = nginx\nkey_type = ecdsa\nelliptic_curve = secp384r1\n",
		"renewal/broken.com.conf":                                   "\x00\xff=\n====\n[[",
	})
	l := lineageOf(filepath.Join(dir, "live/site.com/fullchain.pem"))
	if l == nil {
		t.Fatal("no lineage")
	}
	from := l.authority(&ACME{Email: "other@site.com", RootFile: "r"})
	want := authority{
		directory: "https://ca.test:14000/acme/dir", email: "me@site.com", rootFile: "r", chain: "Root X2",
		accountKey: filepath.Join(dir, "accounts/ca.test:14000/acme/dir/0123abcd/private_key.json"),
		dns:        DNS{Credentials: "/etc/rfc2136.ini"},
	}
	if from != want || l.key != "rsa:3072" {
		t.Errorf("%+v, %s", from, l.key)
	}
	l = lineageOf(filepath.Join(dir, "live/plain.com/fullchain.pem"))
	if l == nil || l.key != "ecdsa:384" || l.accountKey() != "" || !strings.Contains(l.server, "letsencrypt") {
		t.Errorf("%+v", l)
	}
	for _, path := range []string{"live/none.com/fullchain.pem", "live/broken.com/fullchain.pem", "tls/site.com/fullchain.pem", "x.pem"} {
		if l := lineageOf(filepath.Join(dir, path)); l != nil {
			t.Errorf("%s: %+v", path, l)
		}
	}
}

func jwk(t *testing.T, v map[string]any) string {
	t.Helper()
	for name, field := range v {
		if n, ok := field.(*big.Int); ok {
			v[name] = base64.RawURLEncoding.EncodeToString(n.Bytes())
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestJWK(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := map[string]any{"kty": "RSA", "n": r.N, "e": big.NewInt(int64(r.E)), "d": r.D, "p": r.Primes[0], "q": r.Primes[1]}
	key, err := parseJWK([]byte(jwk(t, rsaKey)))
	if err != nil || !r.PublicKey.Equal(key.Public()) {
		t.Errorf("RSA: %v", err)
	}
	key, err = parseJWK([]byte(jwk(t, map[string]any{"kty": "EC", "crv": "P-256", "d": new(big.Int).SetBytes(d)})))
	if err != nil || !e.PublicKey.Equal(key.Public()) {
		t.Errorf("EC: %v", err)
	}
	for _, bad := range []string{
		"", "{", "[]", `{"kty":"oct"}`, `{"kty":"RSA"}`, `{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ","p":"AQ","q":"AQ"}`,
		`{"kty":"RSA","n":"!!","e":"` + strings.Repeat("A", 100) + `"}`, `{"kty":"EC","crv":"P-256"}`, `{"kty":"EC","crv":"x","d":"AQ"}`,
		`{"kty":"EC","crv":"P-256","d":"` + strings.Repeat("_", 43) + `"}`, `{"kty":"EC","crv":"P-256","d":"` + strings.Repeat("A", 1000) + `_"}`,
	} {
		if _, err := parseJWK([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func FuzzJWK(f *testing.F) {
	f.Add([]byte(`{"kty":"EC","crv":"P-256","d":"AQ"}`))
	f.Add([]byte(`{"kty":"RSA","n":"AQ","e":"AQAB","d":"AQ","p":"AQ","q":"AQ"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := parseJWK(text); err == nil && key == nil {
			t.Error("no key and no error")
		}
	})
}

func TestOverdue(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"renewal/site.com.conf": "[renewalparams]\nauthenticator = nginx\n"})
	now := time.Now()
	key, err := newKey(defaultKey)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	of := func(life, left time.Duration) *entry {
		_, cert, err := bundle(key, issueStub(t, []string{"site.com"}, key.Public(), now.Add(left-life), life))
		if err != nil {
			t.Fatal(err)
		}
		return &entry{cert: cert}
	}
	lineage := pairKey{Pair: Pair{Cert: filepath.Join(dir, "live/site.com/fullchain.pem")}}
	other := pairKey{Pair: Pair{Cert: filepath.Join(dir, "own.pem")}}
	for _, tt := range []struct {
		key        pairKey
		life, left time.Duration
		want       bool
	}{
		{lineage, 90 * day, 29 * day, false},
		{lineage, 90 * day, 11 * day, false},
		{lineage, 90 * day, 9 * day, true},
		{lineage, 6 * day, 1 * day, false},
		{lineage, 6 * day, day / 2, true},
		{lineage, 90 * day, -day, true},
		{other, 90 * day, 1 * day, false},
		{other, 90 * day, -time.Second, true},
	} {
		if got := of(tt.life, tt.left).overdue(tt.key, now); got != tt.want {
			t.Errorf("%v of %v left: %v", tt.left, tt.life, got)
		}
	}
}
