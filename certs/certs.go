// Package certs decides which certificate a server shows. Certificates come
// from files, as nginx serves them; then from certmagic, for sites whose
// certificates it manages; where files are missing, from the local CA if that
// was asked for.
package certs

import (
	"os"
	"path/filepath"
	"time"
)

// Site is the certificate policy of one server block.
type Site struct {
	ID     string   // stable key of the server block
	Names  []string // values of server_name as written
	Listen []string // addresses with ssl
	Pairs  []Pair   // in the order of the configuration
	Place  string   // "file:line" of the server block, for messages
	// Lax leaves out OpenSSL's minimum of strength, for an ssl_ciphers that
	// lowers the security level ("@SECLEVEL=1" or 0).
	Lax bool
	// Order is the certificate that Obtained stands for in Pairs; nil without.
	Order *Order
}

// Order is a certificate that the configuration asks for.
type Order struct {
	Names     []string
	Key       string // "ecdsa:256", "rsa:2048" and so on; "" for the usual
	Challenge string // "http-01" or "tls-alpn-01"; "" for whatever works
	Issuer    Issuer
}

// Issuer is an authority that the configuration names.
type Issuer struct {
	Directory    string
	AccountKey   string // file, or a kind of key to be made; "" for the usual
	Contacts     []string
	EABKeyID     string
	EABKeyFile   string // file, or "data:" and the key
	Chain        string
	Profile      string
	NeedsProfile bool
	TrustedFile  string
	Unverified   bool
	Folder       string // of what is kept; "" is the data folder
	Agreed       bool   // to the terms of service
}

// Obtained and ObtainedKey stand in a Pair for what the site's Order obtains.
const (
	Obtained    = "$acme_certificate"
	ObtainedKey = "$acme_certificate_key"
)

// Pair is an ssl_certificate and its ssl_certificate_key: absolute paths, or
// "data:" with the PEM text after it. PasswordFile is ssl_password_file, the same
// way, "" without one.
type Pair struct {
	Cert, Key, PasswordFile string
}

// Options configure a Manager.
type Options struct {
	// DataDir keeps the local CA and what certmagic obtains; "" is
	// DefaultDataDir.
	DataDir string
	// Local issues certificates from a local CA where files are missing.
	Local bool
	// ACME says how certificates are obtained that are not in files. It has no
	// effect with Local.
	ACME ACME
	// OnDemandAsk is a URL that is asked, with "?domain=NAME", whether a name is
	// served here: status 200 is yes. Then a certificate for it is obtained at
	// its first handshake with a server that has neither files nor names to
	// obtain one for. "" is no such certificates.
	OnDemandAsk string
	// Ports are where a command listens for challenges; by default 80 and 443.
	Ports Ports
	// AsRoot runs a function with the rights that the process was started with:
	// those that keys can be read with. nil runs it as it is.
	AsRoot func(func() error) error
	// Log receives what happens between two calls of Update, with one of
	// nginx's levels. It may be called from several goroutines; nil is silence.
	Log func(level, message string)
	// Now is the time, for tests; nil is time.Now.
	Now func() time.Time
}

func (o *Options) complete() {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir()
	}
	if o.Log == nil {
		o.Log = func(string, string) {}
	}
	if o.AsRoot == nil {
		o.AsRoot = func(f func() error) error { return f() }
	}
	if o.Local {
		o.ACME = ACME{never: true}
		o.OnDemandAsk = ""
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Problem is a pair that cannot be served as it is on disk.
type Problem struct {
	Site    string // ID of the first site with the pair
	Path    string // the file at fault
	Message string // in nginx's words
	Warning bool   // there is something to serve all the same
}

// DefaultDataDir is $PROXYCTL_DATA, else /var/lib/proxyctl for root, else
// $XDG_DATA_HOME/proxyctl or ~/.local/share/proxyctl.
func DefaultDataDir() string {
	if dir := os.Getenv("PROXYCTL_DATA"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/proxyctl"
	}
	// A relative path is to be ignored, says the XDG specification.
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "proxyctl")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "share", "proxyctl")
}

// Check reads every file and says what nginx -t would refuse, each pair once.
// With Local, missing files are none of it; those that are going to be replaced
// by obtained certificates are warnings. Nothing is written.
func Check(sites []Site, o Options) []Problem {
	o.complete()
	entries := map[pairKey]*entry{}
	for i := range sites {
		for _, k := range sites[i].keys() {
			if entries[k] == nil {
				entries[k] = load(k)
			}
		}
	}
	wanted := o.ACME.wanted(sites, entries, o.Now())
	var problems []Problem
	said := map[pairKey]int{} // index of the problem
	for i := range sites {
		for _, k := range sites[i].keys() {
			t := entries[k].trouble
			if t == nil || o.Local && t.missing || k.Cert == Obtained && len(wanted[i]) > 0 {
				continue
			}
			p := Problem{Site: sites[i].ID, Path: t.path, Message: t.text}
			if orders := wanted[i]; len(orders) > 0 {
				p.Message, p.Warning = awaited(t.text, &sites[i], orders), true
			}
			if !p.Warning && t.missing && o.OnDemandAsk != "" {
				p.Message, p.Warning = t.text+"; certificates are obtained at handshakes", true
			}
			p.Warning = p.Warning || k.Cert == Obtained // nginx takes it, and fails handshakes
			if at, again := said[k]; !again {
				said[k] = len(problems)
				problems = append(problems, p)
			} else if problems[at].Warning && !p.Warning {
				problems[at] = p
			}
		}
	}
	for _, n := range neglected(sites, entries, wanted, o.Now()) {
		if n.replaced {
			problems = append(problems, n.Problem)
		}
	}
	return problems
}
