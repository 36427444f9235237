package certs

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/certmagic"
)

// lineage is what Certbot's renewal file says about one of its certificates.
// Nothing of Certbot's is ever written here.
type lineage struct {
	name    string
	root    string // Certbot's configuration folder, mostly /etc/letsencrypt
	server  string // directory of the authority
	account string // ID
	key     keyKind
	chain   string
	dns     DNS
	staple  bool // the certificate is to demand that it is stapled
}

// lineageOf finds the lineage that a path below live belongs to; nil if it
// belongs to none, or its renewal file cannot be read.
func lineageOf(certFile string) *lineage {
	root, name := lineagePath(certFile)
	if root == "" {
		return nil
	}
	l, err := readLineage(root, name)
	if err != nil {
		return nil
	}
	return l
}

// OfCertbot says whether a file belongs to a lineage of Certbot.
func OfCertbot(file string) bool { return lineageOf(file) != nil }

// lineagePath takes a path below live apart; root is "" for other paths.
func lineagePath(certFile string) (root, name string) {
	dir := filepath.Dir(certFile)
	live := filepath.Dir(dir)
	if filepath.Base(live) != "live" {
		return "", ""
	}
	return filepath.Dir(live), filepath.Base(dir)
}

// readLineage reads renewal/NAME.conf.
func readLineage(root, name string) (*lineage, error) {
	text, err := os.ReadFile(filepath.Join(root, "renewal", name+".conf"))
	if err != nil {
		return nil, err
	}
	p := readINI(text)
	if cmp.Or(p["fullchain"], p["authenticator"], p["account"]) == "" {
		return nil, fmt.Errorf("%q is not a renewal file of Certbot", filepath.Join(root, "renewal", name+".conf"))
	}
	l := &lineage{
		name: name, root: root, server: p["server"], account: p["account"],
		key: defaultKey, chain: p["preferred_chain"], staple: p["must_staple"] == "True",
	}
	if l.server == "" {
		l.server = certmagic.LetsEncryptProductionCA // Certbot leaves out what is its default
	}
	switch {
	case p["key_type"] == "rsa":
		l.key = keyKind("rsa:" + cmp.Or(p["rsa_key_size"], "2048"))
	case p["elliptic_curve"] == "secp384r1":
		l.key = "ecdsa:384"
	}
	switch p["authenticator"] {
	case "manual":
		l.dns = DNS{Hook: p["manual_auth_hook"], Cleanup: p["manual_cleanup_hook"]}
		if p["pref_challs"] != "" && !strings.Contains(p["pref_challs"], "dns-01") {
			l.dns = DNS{}
		}
	case "dns-rfc2136":
		l.dns = DNS{Credentials: p["dns_rfc2136_credentials"]}
	}
	return l, nil
}

// readINI gives the settings of a file in ConfigObj's format, whatever their
// section: Certbot uses no name twice.
func readINI(text []byte) map[string]string {
	settings := map[string]string{}
	for line := range bytes.Lines(text) {
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' || s[0] == ';' || s[0] == '[' {
			continue
		}
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		if value == "None" {
			value = ""
		}
		settings[strings.TrimSpace(name)] = value
	}
	return settings
}

// authority is the one that Certbot has the lineage from, with its account.
func (l *lineage) authority(a *ACME) authority {
	from := a.at(l.server)
	from.chain, from.dns = l.chain, cmp.Or(l.dns, a.DNS)
	if key := l.accountKey(); key != "" {
		from.accountKey = key
		from.email = l.contact()
	}
	return from
}

// accountFolder is where Certbot keeps an account, "" without one.
func (l *lineage) accountFolder() string {
	u, err := url.Parse(l.server)
	if err != nil || l.account == "" || strings.ContainsAny(l.account, "/\\") {
		return ""
	}
	return filepath.Join(l.root, "accounts", u.Host, filepath.FromSlash(filepath.Clean("/"+u.Path)), l.account)
}

func (l *lineage) accountKey() string {
	dir := l.accountFolder()
	if dir == "" {
		return ""
	}
	file := filepath.Join(dir, "private_key.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// contact is the first address that Certbot registered, "" if it kept none.
func (l *lineage) contact() string {
	text, err := os.ReadFile(filepath.Join(l.accountFolder(), "regr.json"))
	if err != nil {
		return ""
	}
	var registration struct {
		Body struct {
			Contact []string `json:"contact"`
		} `json:"body"`
	}
	if json.Unmarshal(text, &registration) != nil || len(registration.Body.Contact) == 0 {
		return ""
	}
	return strings.TrimPrefix(registration.Body.Contact[0], "mailto:")
}

// readAccountKey reads the key of an account: PEM, or a JWK (RFC 7517).
func readAccountKey(file string) (crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("account key: %w", err)
	}
	var key crypto.Signer
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && trimmed[0] == '{' {
		key, err = parseJWK(trimmed)
	} else {
		key, err = certmagic.PEMDecodePrivateKey(text)
	}
	if err != nil {
		return nil, fmt.Errorf("account key %q: %w", file, err)
	}
	return key, nil
}

// parseJWK reads an RSA or elliptic private key (RFC 7518, section 6).
func parseJWK(text []byte) (crypto.Signer, error) {
	var k struct{ Kty, Crv, N, E, D, P, Q, X, Y string }
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, errors.New("it is no JSON Web Key")
	}
	number := func(s string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
		if err != nil {
			return new(big.Int)
		}
		return new(big.Int).SetBytes(b)
	}
	switch k.Kty {
	case "RSA":
		e := number(k.E)
		if !e.IsInt64() || e.Int64() > 1<<31-1 {
			return nil, errors.New("its exponent is too large")
		}
		key := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: number(k.N), E: int(e.Int64())},
			D:         number(k.D), Primes: []*big.Int{number(k.P), number(k.Q)},
		}
		if key.N.BitLen() > 16384 {
			return nil, errors.New("it is too large")
		}
		if err := key.Validate(); err != nil {
			return nil, errors.New("it is no valid RSA key")
		}
		key.Precompute()
		return key, nil
	case "EC":
		return parseECJWK(k.Crv, number(k.D))
	}
	return nil, fmt.Errorf("keys of type %q are not supported", k.Kty)
}

func parseECJWK(name string, d *big.Int) (crypto.Signer, error) {
	var curve elliptic.Curve
	switch name {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("curve %q is not supported", name)
	}
	size := (curve.Params().BitSize + 7) / 8
	if d.BitLen() > size*8 {
		return nil, errors.New("it is no valid key")
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, size)))
	if err != nil {
		return nil, errors.New("it is no valid key")
	}
	return key, nil
}
