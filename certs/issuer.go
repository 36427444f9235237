package certs

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// method is a way to prove to an authority that a name is served here.
type method string

const (
	byHTTP method = "http-01"
	byTLS  method = "tls-alpn-01"
	byDNS  method = "dns-01"
)

// issuer has certificates issued by certmagic.
type issuer struct {
	cache    *certmagic.Cache
	accounts *folder
	logger   *zap.Logger
}

// obtainTimeout is how long an authority may take to make up its mind about a
// challenge.
const obtainTimeout = 90 * time.Second

// request is one try to have a certificate issued.
type request struct {
	order     *order
	directory string // of the order's authority, or its staging one
	method    method
	at        addrPort // where we listen for the challenge
	key       crypto.Signer
	replaces  *x509.Certificate // what is renewed; nil for a first one
	// The certificate is to demand that it is stapled.
	mustStaple bool
}

// issue gives a chain in PEM.
func (i *issuer) issue(ctx context.Context, r request) ([]byte, error) {
	csr, err := signingRequest(r.order.names, r.key, r.mustStaple)
	if err != nil {
		return nil, err
	}
	made, err := i.at(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.replaces != nil {
		ctx = renewal{ctx, r.replaces}
	}
	issued, err := made.Issue(ctx, csr)
	if from := &r.order.from; err != nil && from.preferred && from.profile != "" && unknownProfile(err) {
		made.Profile = ""
		issued, err = made.Issue(ctx, csr)
	}
	if err != nil {
		return nil, err
	}
	return issued.Certificate, nil
}

// at makes certmagic's issuer for one way to prove names at one authority.
func (i *issuer) at(ctx context.Context, r request) (*certmagic.ACMEIssuer, error) {
	from := &r.order.from
	account := i.account(from)
	config := certmagic.New(i.cache, certmagic.Config{
		Storage: account, Logger: i.logger, OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	template := certmagic.ACMEIssuer{
		CA: r.directory, Email: from.email, Agreed: true, Profile: from.profile,
		// What we answer is what this process asked for, nothing else.
		DisableDistributedSolvers: true,
		DisableHTTPChallenge:      r.method != byHTTP, DisableTLSALPNChallenge: r.method != byTLS,
		CertObtainTimeout: obtainTimeout, Logger: i.logger,
	}
	if r.at.IsValid() { // certmagic makes sure that somebody listens there: it is us
		template.ListenHost, template.AltHTTPPort, template.AltTLSALPNPort = r.at.Addr().String(), int(r.at.Port()), int(r.at.Port())
	}
	if from.eabKeyID != "" && r.directory == from.directory {
		key, err := i.externalKey(from.eabKey)
		if err != nil {
			return nil, err
		}
		template.ExternalAccount = &acme.EAB{KeyID: from.eabKeyID, MACKey: key}
	}
	if from.chain != "" {
		template.PreferredChains.RootCommonName = []string{from.chain}
		template.PreferredChains.AnyCommonName = []string{from.chain}
	}
	if r.method == byDNS {
		solver, err := from.dns.solver(r.order, i)
		if err != nil {
			return nil, err
		}
		template.DNS01Solver = solver
	}
	var err error
	if template.TrustedRoots, err = i.roots(ctx, from, r.directory); err != nil {
		return nil, err
	}
	template.NewAccountFunc = func(ctx context.Context, _ *certmagic.ACMEIssuer, a acme.Account) (_ acme.Account, err error) {
		if from.unagreed {
			if err := termsAccepted(ctx, r.directory, template.TrustedRoots); err != nil {
				return a, err
			}
		}
		a.PrivateKey, err = accountKey(ctx, account, from, r.directory)
		return a, err
	}
	made := certmagic.NewACMEIssuer(config, template)
	if from.email != "" {
		// Without one certmagic would take the contact of another account.
		err = made.PreCheck(ctx, nil, false)
	}
	return made, err
}

// account is the folder of an authority's account.
func (i *issuer) account(from *authority) *folder {
	if from.folder != "" {
		return i.accounts.at(filepath.Join(from.folder, "account"))
	}
	return i.accounts.sub(from.id())
}

// readFile reads what only the process that was started may.
func (i *issuer) readFile(name string) (text []byte, err error) {
	err = i.accounts.asRoot(func() (err error) {
		text, err = os.ReadFile(name)
		return err
	})
	return text, err
}

// externalKey reads the key of an external account.
func (i *issuer) externalKey(name string) (string, error) {
	key, inline := strings.CutPrefix(name, "data:")
	if !inline {
		text, err := i.readFile(name)
		if err != nil {
			return "", fmt.Errorf("key of the external account: %w", err)
		}
		key = string(text)
	}
	return strings.TrimRight(strings.TrimSpace(key), "="), nil
}

// roots are the certificates to trust an authority's own server by; nil is the
// system's. A server that may be anybody is trusted by what it shows: its
// name must still be right.
func (i *issuer) roots(ctx context.Context, from *authority, directory string) (*x509.CertPool, error) {
	if from.insecure {
		return shownBy(ctx, directory)
	}
	file := from.rootFile
	if file == "" {
		return nil, nil //nolint:nilnil // as said
	}
	text, err := i.readFile(file)
	if err != nil {
		return nil, fmt.Errorf("certificates to trust the authority by: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %q to trust the authority by", file)
	}
	return pool, nil
}

// shownBy trusts what the server of a URL shows.
func shownBy(ctx context.Context, address string) (*x509.CertPool, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the user wants it so: ssl_verify off
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	pool := x509.NewCertPool()
	for _, c := range conn.(*tls.Conn).ConnectionState().PeerCertificates {
		pool.AddCert(c)
	}
	return pool, nil
}

// clientTrusting is a client for few requests.
func clientTrusting(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
}

// termsAccepted is an error that names the terms of service, when an authority
// has some and nobody has accepted them.
func termsAccepted(ctx context.Context, directory string, roots *x509.CertPool) error {
	dir, err := (&acme.Client{Directory: directory, HTTPClient: clientTrusting(roots)}).GetDirectory(ctx)
	if err != nil {
		return err
	}
	if dir.Meta != nil && dir.Meta.TermsOfService != "" {
		return fmt.Errorf("the terms of service at %s must be accepted first: accept_terms_of_service", dir.Meta.TermsOfService)
	}
	return nil
}

// accountKey gives the key of an account before it is registered. A key of our
// own is kept first: registering it once more, after whatever happened in
// between, finds the account again.
func accountKey(ctx context.Context, account *folder, from *authority, directory string) (crypto.Signer, error) {
	if from.accountKey != "" && directory == from.directory {
		var key crypto.Signer
		err := account.asRoot(func() (err error) {
			key, err = readAccountKey(from.accountKey)
			return err
		})
		return key, err
	}
	name := accountKeyName(directory)
	text, err := account.Load(ctx, name)
	if err == nil {
		key, err := certmagic.PEMDecodePrivateKey(text)
		if err != nil {
			return nil, fmt.Errorf("account key %q: %w", account.file(name), err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("account key: %w", err)
	}
	key, err := newKey(from.keyKind)
	if err != nil {
		return nil, err
	}
	if text, err = certmagic.PEMEncodePrivateKey(key); err != nil {
		return nil, err
	}
	if err := account.Store(ctx, name, text); err != nil {
		return nil, storageError{err}
	}
	return key, nil
}

// accountKeyName is where the key for an authority is in the account's folder.
func accountKeyName(directory string) string {
	return "keys/" + safeName(hostOf(directory)) + "-" + digest(directory) + ".pem"
}

// storageError is a failure to keep what must be kept.
type storageError struct{ err error }

func (e storageError) Error() string { return "cannot be kept in storage: " + e.err.Error() }

func (e storageError) Unwrap() error { return e.err }

// renewal tells certmagic which certificate is replaced, so that the authority
// counts the order as a renewal (RFC 9773, section 5). certmagic looks for it
// under a key of a type of its own.
type renewal struct {
	context.Context //nolint:containedctx // it is one
	old             *x509.Certificate
}

func (r renewal) Value(key any) any {
	if v := reflect.ValueOf(key); v.Kind() == reflect.String && v.String() == "ari_replaces" {
		return r.old
	}
	return r.Context.Value(key)
}

// renewalTime asks an authority when it wants a certificate to be renewed (ARI,
// RFC 9773), and when to ask again. Both are zero if it does not say.
func (i *issuer) renewalTime(ctx context.Context, o *order, leaf *x509.Certificate) (at, again time.Time, err error) {
	made, err := i.at(ctx, request{order: o, directory: o.from.directory, method: byHTTP})
	if err != nil {
		return at, again, err
	}
	c := certmagic.Certificate{}
	c.Leaf = leaf
	info, err := made.GetRenewalInfo(ctx, c)
	if err != nil {
		return at, again, err
	}
	if info.RetryAfter != nil {
		again = *info.RetryAfter
	}
	return info.SelectedTime, again, nil
}

// keyKind is an algorithm and its size, as in nginx's acme_certificate.
type keyKind string

const defaultKey keyKind = "ecdsa:256"

// known says whether such keys can be made.
func (k keyKind) known() bool {
	switch k {
	case "ecdsa", "ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa", "rsa:2048", "rsa:3072", "rsa:4096":
		return true
	}
	return false
}

// newKey makes a key for a certificate.
func newKey(kind keyKind) (crypto.Signer, error) {
	algorithm, size, _ := strings.Cut(string(kind), ":")
	switch algorithm {
	case "ecdsa", "":
		switch size {
		case "256", "":
			return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		case "384":
			return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		case "521":
			return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		}
	case "rsa":
		bits := 2048
		if size != "" {
			bits, _ = strconv.Atoi(size)
		}
		if bits >= 2048 && bits <= 8192 {
			return rsa.GenerateKey(rand.Reader, bits)
		}
	}
	return nil, fmt.Errorf("unsupported key %q", kind)
}

func signingRequest(names []string, key crypto.Signer, stapled bool) (*x509.CertificateRequest, error) {
	template := &x509.CertificateRequest{}
	if stapled {
		template.ExtraExtensions = []pkix.Extension{{Id: tlsFeature(), Value: []byte{0x30, 3, 2, 1, statusRequest}}}
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// trouble sorts failures by what is to be done.
type trouble uint8

const (
	unreachable trouble = iota // try again soon
	unproven                   // another way to prove the names may do
	refused                    // it will not change by itself soon
	limited                    // not before a time
	unkept                     // our own storage
)

// judged says whether the authority has looked at an order and refused it.
func judged(t trouble) bool { return t == unproven || t == refused }

func classify(err error) trouble {
	var storage storageError
	var problem acme.Problem
	var network *url.Error
	switch {
	case errors.As(err, &storage):
		return unkept
	case unknownProfile(err):
		return refused
	case errors.As(err, &problem):
		switch problem.Type {
		case acme.ProblemTypeRateLimited:
			return limited
		case acme.ProblemTypeBadNonce, acme.ProblemTypeServerInternal:
			return unreachable
		case acme.ProblemTypeConnection, acme.ProblemTypeDNS, acme.ProblemTypeTLS, acme.ProblemTypeIncorrectResponse, acme.ProblemTypeUnauthorized:
			return unproven
		}
		if problem.Status >= 500 {
			return unreachable
		}
		return refused
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return unreachable
	case strings.Contains(err.Error(), "solving challenge"), strings.Contains(err.Error(), "no solvers available"):
		return unproven
	}
	return unreachable
}
