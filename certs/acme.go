package certs

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
)

// ACME says how certificates are obtained that are not in files.
type ACME struct {
	Takeover  Takeover
	Email     string // contact of the account; "" for none
	Directory string // URL of the authority; "" is Let's Encrypt
	RootFile  string // certificates that the authority's own server is trusted by; "" is the system's
	EABKeyID  string // external account binding
	EABKey    string // its MAC key, base64url
	Profile   string // "" is the authority's default
	DNS       DNS

	never bool // not even what the configuration asks for
}

// Takeover says for which sites certificates are obtained when their files are
// missing or long overdue.
type Takeover uint8

const (
	// TakeoverOff serves files only, as nginx does.
	TakeoverOff Takeover = iota
	// TakeoverLineages obtains where a renewal file of Certbot says from whom.
	TakeoverLineages
	// TakeoverAll obtains for every site with a public name.
	TakeoverAll
)

// Ports are the addresses that are listened on, where an authority's challenges
// can be answered.
type Ports struct {
	HTTP, TLS []addrPort
}

// authority is a certificate authority and who we are there. Orders of equal
// authorities share an account.
type authority struct {
	directory  string
	staging    string // where a failed order is tried first; "" for nowhere
	email      string
	accountKey string // file: PEM or, as Certbot has it, JWK; "" is a key of our own
	keyKind    keyKind
	eabKeyID   string
	eabKey     string // file, or "data:" and the key
	profile    string
	preferred  bool   // another profile will do
	chain      string // common name of the preferred root
	rootFile   string
	insecure   bool   // the authority's own server may be anybody
	folder     string // of what is kept; "" is the data folder
	unagreed   bool   // nobody has accepted the terms of service
	dns        DNS
}

// defaultAuthority is the one that the options name.
func (a *ACME) defaultAuthority() authority {
	return a.at(cmp.Or(a.Directory, certmagic.LetsEncryptProductionCA))
}

// at is an authority by its directory, with what the options say about all.
func (a *ACME) at(directory string) authority {
	to := authority{directory: directory, email: a.Email, profile: a.Profile, rootFile: a.RootFile, dns: a.DNS}
	if directory == cmp.Or(a.Directory, certmagic.LetsEncryptProductionCA) {
		to.eabKeyID, to.eabKey = a.EABKeyID, "data:"+a.EABKey
	}
	if directory == certmagic.LetsEncryptProductionCA {
		to.staging = certmagic.LetsEncryptStagingCA
	}
	return to
}

// public says whether an authority issues for the whole internet, as far as we
// know: it is none that only we were told of.
func (a *authority) public() bool {
	host := hostOf(a.directory)
	return !certmagic.SubjectIsInternal(host) && slices.ContainsFunc([]string{
		".letsencrypt.org", ".zerossl.com", ".pki.goog", ".ssl.com", ".buypass.com", ".sectigo.com", ".digicert.com",
	}, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	return u.Hostname()
}

// id names the account's folder.
func (a *authority) id() string {
	return safeName(hostOf(a.directory)) + "-" + digest(a.directory, a.email, a.accountKey, a.eabKeyID)
}

// order is a certificate to have: one for all names.
type order struct {
	names []string
	from  authority
	key   keyKind
	only  method // "" is any that can be answered
	// The first certificate is to demand that it is stapled; later ones are as
	// the one before.
	mustStaple bool
}

// id names the certificate in our storage: it stays the same as long as names,
// authority and kind of key do.
func (o *order) id() string {
	names := slices.Sorted(slices.Values(o.names))
	return safeName(o.names[0]) + "-" + digest(strings.Join(names, ","), o.from.directory, string(o.key), o.from.profile)
}

func (o *order) String() string {
	if len(o.names) > 4 {
		return fmt.Sprintf("%s and %d more names", strings.Join(o.names[:3], ", "), len(o.names)-3)
	}
	return strings.Join(o.names, ", ")
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// safeName makes a name for a file of a server's name.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, strings.ToLower(name))
	if len(name) > 100 {
		name = name[:100]
	}
	return name
}

// ordered makes the order of a site that the configuration asks for.
func (o *Order) ordered(a *ACME) order {
	i := &o.Issuer
	from := authority{
		directory: i.Directory, eabKeyID: i.EABKeyID, eabKey: i.EABKeyFile, profile: i.Profile, preferred: !i.NeedsProfile,
		chain: i.Chain, rootFile: i.TrustedFile, insecure: i.Unverified, folder: i.Folder, unagreed: !i.Agreed,
	}
	if len(i.Contacts) > 0 {
		from.email = strings.TrimPrefix(i.Contacts[0], "mailto:")
	}
	if isKeyKind(i.AccountKey) {
		from.keyKind = keyKind(i.AccountKey)
	} else {
		from.accountKey = i.AccountKey
	}
	if i.Directory == certmagic.LetsEncryptProductionCA {
		from.staging = certmagic.LetsEncryptStagingCA
	}
	if slices.ContainsFunc(o.Names, isWildcard) {
		from.dns = a.DNS
	}
	return order{names: o.Names, from: from, key: cmp.Or(keyKind(o.Key), defaultKey), only: method(o.Challenge)}
}

// isKeyKind tells a kind of key from the name of a file.
func isKeyKind(s string) bool {
	algorithm, _, _ := strings.Cut(s, ":")
	return algorithm == "ecdsa" || algorithm == "rsa"
}

// maxNames is how many names Let's Encrypt and most others put in a
// certificate.
const maxNames = 100

// ordersFor shares names out to as few certificates as can hold them.
func ordersFor(names []string, from authority, key keyKind) []order {
	var out []order
	for chunk := range slices.Chunk(names, maxNames) {
		out = append(out, order{names: chunk, from: from, key: key})
	}
	return out
}
