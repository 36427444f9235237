package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"proxyctl/certs"
)

// acmeSettings are how certificates are obtained, by flags or by the
// environment: called as nginx there are no flags to give.
type acmeSettings struct {
	mode, email, directory, rootFile, eab, profile string
	dns                                            certs.DNS
	ask                                            string
}

// The values of --acme.
const (
	acmeOn      = "on"      // for every site with a public name
	acmeCertbot = "certbot" // for lineages of Certbot
	acmeOff     = "off"
)

// acmeFromEnvironment reads PROXYCTL_ACME and those that begin like it.
func acmeFromEnvironment() acmeSettings {
	return acmeSettings{
		mode: os.Getenv("PROXYCTL_ACME"), email: os.Getenv("PROXYCTL_ACME_EMAIL"), directory: os.Getenv("PROXYCTL_ACME_CA"),
		rootFile: os.Getenv("PROXYCTL_ACME_CA_ROOT"), eab: os.Getenv("PROXYCTL_ACME_EAB"), profile: os.Getenv("PROXYCTL_ACME_PROFILE"),
		dns: certs.DNS{
			Hook: os.Getenv("PROXYCTL_ACME_DNS_HOOK"), Cleanup: os.Getenv("PROXYCTL_ACME_DNS_CLEANUP_HOOK"), Credentials: os.Getenv("PROXYCTL_ACME_DNS_RFC2136"),
		},
		ask: os.Getenv("PROXYCTL_ON_DEMAND_ASK"),
	}
}

// flags adds the flags; what they do not say is in the environment.
func (a *acmeSettings) flags(f *pflag.FlagSet) {
	*a = acmeFromEnvironment()
	f.StringVar(&a.mode, "acme", cmp.Or(a.mode, acmeOn), "obtain certificates whose files are missing or long overdue: on, certbot (where Certbot made them), off")
	f.StringVar(&a.email, "acme-email", a.email, "contact of the account at the certificate authority")
	f.StringVar(&a.directory, "acme-ca", a.directory, "directory URL of the certificate authority (default: Let's Encrypt)")
	f.StringVar(&a.rootFile, "acme-ca-root", a.rootFile, "certificates that the authority's own server is trusted by (default: the system's)")
	f.StringVar(&a.eab, "acme-eab", a.eab, "external account binding, KEYID:KEY")
	f.StringVar(&a.profile, "acme-profile", a.profile, "certificate profile of the authority")
	f.StringVar(&a.dns.Hook, "acme-dns-hook", a.dns.Hook, "command that makes DNS records, in the manner of Certbot's --manual-auth-hook")
	f.StringVar(&a.dns.Cleanup, "acme-dns-cleanup-hook", a.dns.Cleanup, "command that removes them")
	f.StringVar(&a.dns.Credentials, "acme-dns-rfc2136", a.dns.Credentials, "credentials for dynamic DNS updates, in the format of Certbot's plugin dns-rfc2136")
	f.StringVar(&a.ask, "on-demand-ask", a.ask, "URL that says whether a name is served here (?domain=NAME, status 200): certificates at the first handshake")
}

// asNginx is what counts when the program is called as nginx: without a word in
// the environment nothing is obtained but what Certbot has obtained before.
func (a acmeSettings) asNginx() acmeSettings {
	if a.mode == "" {
		a.mode = acmeCertbot
		if a.email != "" || a.directory != "" {
			a.mode = acmeOn
		}
	}
	return a
}

// options checks the settings.
func (a *acmeSettings) options() (certs.ACME, error) {
	o := certs.ACME{Email: a.email, Directory: a.directory, RootFile: a.rootFile, Profile: a.profile, DNS: a.dns}
	switch a.mode {
	case acmeOn, "":
		o.Takeover = certs.TakeoverAll
	case acmeCertbot:
		o.Takeover = certs.TakeoverLineages
	case acmeOff:
		o.Takeover = certs.TakeoverOff
	default:
		return o, fmt.Errorf("invalid --acme %q: on, certbot or off", a.mode)
	}
	if a.directory != "" && !strings.HasPrefix(a.directory, "https://") {
		return o, fmt.Errorf("invalid --acme-ca %q: the URL of an ACME directory, beginning with https://", a.directory)
	}
	if a.dns.Hook != "" && a.dns.Credentials != "" {
		return o, fmt.Errorf("--acme-dns-hook and --acme-dns-rfc2136 exclude each other")
	}
	if a.ask != "" && !strings.HasPrefix(a.ask, "http://") && !strings.HasPrefix(a.ask, "https://") {
		return o, fmt.Errorf("invalid --on-demand-ask %q: a URL", a.ask)
	}
	if a.eab != "" {
		var ok bool
		if o.EABKeyID, o.EABKey, ok = strings.Cut(a.eab, ":"); !ok || o.EABKeyID == "" || o.EABKey == "" {
			return o, fmt.Errorf("invalid --acme-eab: KEYID:KEY is wanted")
		}
	}
	return o, nil
}
