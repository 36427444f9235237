package proxy

import (
	"crypto/tls"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Options are what a configuration file does not say: where paths begin, what
// the program calls itself, and what it does beyond serving. They must not be
// copied or changed once Load has seen them.
type Options struct {
	Product Product
	// Prefix is where relative paths of files begin (nginx -p): logs, root,
	// temporary files.
	Prefix string
	// ConfDir is the folder of the configuration file, where relative paths of
	// includes, certificates and password files begin.
	ConfDir string
	// ErrorLog is the error log when the configuration names none; "" and
	// "stderr" are standard error.
	ErrorLog string
	// AccessLog is the access log when the configuration names none; "" is no
	// log.
	AccessLog string
	// PID is the pid file when the configuration names none; "" is none.
	PID string
	// TempPath gives the folder for files of a kind ("client_body", "proxy",
	// "fastcgi" ...) when the configuration names none; nil has them below Prefix.
	TempPath func(kind string) string
	// Console is where messages go too until the server serves; nil is standard
	// error.
	Console *os.File
	// User is whom the server runs as when root has started it and the
	// configuration does not say, with that account's own group; "" is whoever
	// started it.
	User string
	// Daemon is what the daemon directive is when the configuration does not
	// say.
	Daemon bool
	// DryRun opens no log files: the configuration is looked at, not served.
	DryRun bool
	// NoLogs opens only the error log of the command line, not those of the
	// configuration.
	NoLogs bool
	// Offline resolves no names.
	Offline bool

	// Certificate gives the certificate for a handshake with the server that
	// the client's name chose.
	Certificate func(siteID string, hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// LoadCertificate reads a certificate and its key; lax is CertSite's.
	LoadCertificate func(pair CertPair, lax bool) (*tls.Certificate, error)
	// CheckCertificates looks at the certificates of a configuration that is
	// being loaded; nil does not.
	CheckCertificates func([]CertSite) []CertProblem
	// UpdateCertificates tells which servers need certificates from now on.
	UpdateCertificates func([]CertSite, ChallengePorts)
	// Challenge gives the answer to an HTTP-01 challenge at a path below
	// /.well-known/acme-challenge/; ok is false when it is none of ours.
	Challenge func(host, path string) (body string, ok bool)
	// ChallengeCertificate gives the certificate that answers a TLS-ALPN-01
	// challenge, nil when there is none for the name.
	ChallengeCertificate func(name string) *tls.Certificate

	// MayMiss says that a file without use here need not exist; nil is never.
	MayMiss func(path string) bool

	// Address may move an address to listen on; nil leaves all as they are.
	Address func(netip.AddrPort) netip.AddrPort
	// PublicPort gives the port that clients see for one that is listened on.
	PublicPort func(uint16) uint16
	// Location may change the value of a Location field before it is sent.
	Location func([]byte) []byte

	logs      logs
	inherited inheritance
}

// Product is what the program calls itself.
type Product struct {
	Name    string // "nginx", "proxyctl"
	Version string
	Build   string // shown by "server_tokens build"
}

// CertSite is a server block that answers TLS handshakes.
type CertSite struct {
	ID     string // stable name of the server block
	Names  []string
	Listen []netip.AddrPort
	Place  string // "file:line", for messages
	Pairs  []CertPair
	Lax    bool // ssl_ciphers lowers the minimum of strength
	ACME   *ACMEOrder
}

// The variables that stand for what the ACME order of a server obtains. They
// are for the directives of certificates alone.
//
// Unlike nginx, which has them everywhere: a private key has no business in a
// log or a header field.
const (
	ObtainedCertificate = "$acme_certificate"
	ObtainedKey         = "$acme_certificate_key"
)

func obtained(name string) bool { return name == ObtainedCertificate || name == ObtainedKey }

// CertPair is one ssl_certificate and its ssl_certificate_key.
type CertPair struct {
	Certificate, Key string
	PasswordFile     string // of ssl_password_file; "" for none
}

// CertProblem is what is wrong with the certificates of a site.
type CertProblem struct {
	SiteID  string
	Message string
	Warning bool
}

// tempPath is the folder for temporary files of a kind when the configuration
// names none.
func (o *Options) tempPath(kind string) string {
	if o.TempPath != nil {
		return o.TempPath(kind)
	}
	return o.prefixed(kind + "_temp")
}

// prefixed gives a path its prefix when it is relative (ngx_conf_full_name).
func (o *Options) prefixed(path string) string {
	if strings.HasPrefix(path, "/") || o.Prefix == "" {
		return path
	}
	if strings.HasSuffix(o.Prefix, "/") {
		return o.Prefix + path
	}
	return o.Prefix + "/" + path
}

// confRelative puts a relative path below the folder of the configuration file.
func (o *Options) confRelative(path string) string {
	if strings.HasPrefix(path, "/") || o.ConfDir == "" {
		return path
	}
	if strings.HasSuffix(o.ConfDir, string(filepath.Separator)) {
		return o.ConfDir + path
	}
	return o.ConfDir + "/" + path
}
