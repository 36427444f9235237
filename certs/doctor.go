package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Finding is something that the doctor has looked at.
type Finding struct {
	Level   string `json:"level"` // "ok", "warning" or "error"
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Advice  string `json:"advice,omitempty"` // what to do about it
}

// Doctor looks for what would keep certificates for names from being obtained.
// It asks the DNS, the authority and the ports of the names; nothing is ordered.
type Doctor struct {
	Options Options
	// Resolver is host:port of a name server; "" is the system's first one.
	Resolver string
	// Sites are servers whose certificates are looked at.
	Sites []Site

	findings []Finding
	identity []string // the authority's names in CAA records
}

// doctorTimeout is for each question.
const doctorTimeout = 5 * time.Second

func (d *Doctor) say(level, subject, text, advice string) {
	d.findings = append(d.findings, Finding{level, subject, text, advice})
}

// Examine looks at everything that matters for names.
func (d *Doctor) Examine(ctx context.Context, names []string) []Finding {
	d.Options.complete()
	d.findings = nil
	d.storage(ctx)
	d.authority(ctx)
	for _, name := range names {
		d.name(ctx, strings.ToLower(name))
	}
	d.files()
	d.proofs(ctx)
	d.forecast(names)
	return d.findings
}

func (d *Doctor) storage(ctx context.Context) {
	data := newFolder(d.Options.DataDir, d.Options.AsRoot)
	err := data.Store(ctx, "doctor", []byte("x"))
	if err == nil {
		err = data.Delete(ctx, "doctor")
	}
	if err != nil {
		d.say("error", "storage", err.Error(), "make "+d.Options.DataDir+" writable for the user who starts the server, or name another folder (--data, PROXYCTL_DATA)")
		return
	}
	d.say("ok", "storage", d.Options.DataDir+" can be written", "")
}

// authority asks for the directory: is it reached, is the clock right, what does
// it want.
func (d *Doctor) authority(ctx context.Context) {
	a := d.Options.ACME.defaultAuthority()
	host := hostOf(a.directory)
	client, err := d.client(ctx, &a)
	if err != nil {
		d.say("error", host, err.Error(), "see --acme-ca-root")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.directory, http.NoBody)
	if err != nil {
		d.say("error", host, err.Error(), "see --acme-ca")
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		d.say("error", host, err.Error(), "let this machine connect to "+host+" by HTTPS, through HTTPS_PROXY if need be; for an authority of your own see --acme-ca-root")
		return
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var directory struct {
		NewOrder    string `json:"newOrder"`
		RenewalInfo string `json:"renewalInfo"`
		Meta        struct {
			Terms    string            `json:"termsOfService"`
			External bool              `json:"externalAccountRequired"`
			CAA      []string          `json:"caaIdentities"`
			Profiles map[string]string `json:"profiles"`
		} `json:"meta"`
	}
	if json.Unmarshal(text, &directory) != nil || directory.NewOrder == "" {
		d.say("error", host, fmt.Sprintf("%s is no ACME directory (status %d)", a.directory, resp.StatusCode), "see --acme-ca")
		return
	}
	d.identity = directory.Meta.CAA
	d.say("ok", host, "answers as an ACME authority", "")
	if directory.Meta.External && a.eabKeyID == "" {
		d.say("error", host, "accepts accounts only that it knows already", "get a key from it and name it: --acme-eab KEYID:KEY")
	}
	if _, offered := directory.Meta.Profiles[a.profile]; a.profile != "" && !offered {
		d.say("error", host, fmt.Sprintf("has no profile %q", a.profile), "see --acme-profile")
	}
	d.clock(resp.Header.Get("Date"))
}

func (d *Doctor) client(ctx context.Context, a *authority) (*http.Client, error) {
	i := &issuer{accounts: newFolder(d.Options.DataDir, d.Options.AsRoot)}
	roots, err := i.roots(ctx, a, a.directory)
	if err != nil {
		return nil, err
	}
	return clientTrusting(roots), nil
}

func (d *Doctor) clock(date string) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	off := d.Options.Now().Sub(at).Round(time.Second)
	if off.Abs() > time.Minute {
		d.say("error", "clock", fmt.Sprintf("is %v off", off), "set the clock, for example by NTP: certificates are judged by it")
		return
	}
	d.say("ok", "clock", "is right", "")
}

// name asks the DNS about a name and knocks at its doors.
func (d *Doctor) name(ctx context.Context, name string) {
	a := d.Options.ACME.defaultAuthority()
	base := strings.TrimPrefix(name, "*.")
	if len(publicNames([]string{name}, true, a.public())) == 0 {
		d.say("error", name, "is not a name that an authority makes certificates for", "use files, or an authority of your own by acme_issuer")
		return
	}
	if base != name && a.dns == (DNS{}) {
		d.say("error", name, "is a wildcard: it can be proved by the DNS only", "see --acme-dns-hook and --acme-dns-rfc2136")
	}
	d.caa(ctx, base, base != name)
	if a.dns != (DNS{}) || base != name {
		return
	}
	resolver := &net.Resolver{}
	if d.Resolver != "" {
		resolver.PreferGo = true
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, d.Resolver)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	ips, err := resolver.LookupIPAddr(ctx, name)
	if err != nil {
		d.say("error", name, "has no address: "+err.Error(), "make A or AAAA records that point to this machine")
		return
	}
	d.addresses(name, ips)
	for _, ip := range ips {
		d.knock(ctx, name, ip.String(), 80, "HTTP-01")
		d.knock(ctx, name, ip.String(), 443, "TLS-ALPN-01")
	}
}

// addresses compares with those of this machine.
func (d *Doctor) addresses(name string, ips []net.IPAddr) {
	own, _ := net.InterfaceAddrs()
	var here, elsewhere []string
	for _, ip := range ips {
		if slices.ContainsFunc(own, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip.IP)
		}) {
			here = append(here, ip.String())
		} else {
			elsewhere = append(elsewhere, ip.String())
		}
	}
	if len(elsewhere) > 0 {
		d.say("warning", name, "points to "+strings.Join(elsewhere, " and ")+", which this machine does not have",
			"right if a router or balancer passes ports 80 and 443 on to this machine; else correct the DNS")
		return
	}
	d.say("ok", name, "points here: "+strings.Join(here, " and "), "")
}

func (d *Doctor) knock(ctx context.Context, name, ip string, port int, challenge string) {
	dialer := net.Dialer{Timeout: doctorTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	if err != nil {
		d.say("warning", name, fmt.Sprintf("port %d at %s: %v", port, ip, err),
			fmt.Sprintf("without it names are not proved by %s: start the server, have it listen there, open the firewall", challenge))
		return
	}
	_ = conn.Close()
	d.say("ok", name, fmt.Sprintf("port %d at %s is open from here", port, ip), "")
}

// caa looks whether the owner of a name lets the authority issue (RFC 8659).
func (d *Doctor) caa(ctx context.Context, name string, wild bool) {
	server := d.Resolver
	if server == "" {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil || len(conf.Servers) == 0 {
			return
		}
		server = net.JoinHostPort(conf.Servers[0], conf.Port)
	}
	client := &dns.Client{Timeout: doctorTimeout}
	for zone := dns.Fqdn(name); zone != "." && strings.Contains(strings.TrimSuffix(zone, "."), "."); zone = zone[strings.IndexByte(zone, '.')+1:] {
		q := new(dns.Msg)
		q.SetQuestion(zone, dns.TypeCAA)
		a, _, err := client.ExchangeContext(ctx, q, server)
		if err != nil || a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError {
			text := fmt.Sprint(err)
			if err == nil {
				text = dns.RcodeToString[a.Rcode]
			}
			d.say("error", name, "CAA records of "+zone+" cannot be asked for: "+text, "an authority refuses names whose DNS fails: repair it")
			return
		}
		if allowed, some := issuersIn(a.Answer, wild); some {
			d.judgeCAA(name, zone, allowed)
			return
		}
	}
	d.say("ok", name, "has no CAA records: every authority may issue", "")
}

// issuersIn gives the authorities that CAA records allow; for wildcards those of
// issuewild count, where there are any.
func issuersIn(answer []dns.RR, wild bool) (allowed []string, some bool) {
	tag := "issue"
	if wild && slices.ContainsFunc(answer, func(rr dns.RR) bool {
		c, ok := rr.(*dns.CAA)
		return ok && strings.EqualFold(c.Tag, "issuewild")
	}) {
		tag = "issuewild"
	}
	for _, rr := range answer {
		if c, ok := rr.(*dns.CAA); ok && strings.EqualFold(c.Tag, tag) {
			some = true
			domain, _, _ := strings.Cut(c.Value, ";")
			allowed = append(allowed, strings.TrimSpace(domain))
		}
	}
	return allowed, some
}

func (d *Doctor) judgeCAA(name, zone string, allowed []string) {
	switch {
	case len(d.identity) == 0:
		d.say("warning", name, fmt.Sprintf("CAA records of %s allow %q only; the authority does not say which name it goes by", zone, allowed), "")
	case slices.ContainsFunc(allowed, func(a string) bool { return slices.Contains(d.identity, a) }):
		d.say("ok", name, "CAA records of "+zone+" allow this authority", "")
	default:
		d.say("error", name, fmt.Sprintf("CAA records of %s allow %q only", zone, allowed), fmt.Sprintf("add: %s CAA 0 issue %q", zone, d.identity[0]))
	}
}

// files looks at those of the servers, and whether somebody renews them.
func (d *Doctor) files() {
	now := d.Options.Now()
	seen := map[pairKey]bool{}
	for i := range d.Sites {
		for _, k := range d.Sites[i].keys() {
			if seen[k] || k.Cert == Obtained || strings.HasPrefix(k.Cert, "data:") {
				continue
			}
			seen[k] = true
			e := load(k)
			switch {
			case e.trouble != nil && !e.trouble.missing:
				d.say("error", k.Cert, e.trouble.text, "have its owner make it anew, or remove it: what is missing is obtained, what is broken is not")
			case e.trouble != nil:
				d.say("warning", k.Cert, e.trouble.text, "")
			case e.neglect(k, now) != "":
				d.say("error", k.Cert, strings.TrimPrefix(e.neglect(k, now), "certificate "+quoteCert(k.Cert)+" "), "see what has become of its owner's timer, for Certbot: systemctl status certbot.timer")
			default:
				d.say("ok", k.Cert, "can be served"+until(e.cert), "")
			}
			if root, name := lineagePath(k.Cert); root != "" {
				if _, err := readLineage(root, name); err != nil {
					d.say("warning", k.Cert, err.Error(), "Certbot does not renew it: make it anew with certbot certonly --cert-name "+name)
				}
			}
		}
	}
}

// proofs asks for those that certificates demand.
func (d *Doctor) proofs(ctx context.Context) {
	data := newFolder(d.Options.DataDir, d.Options.AsRoot)
	stapler := newStapler(&d.Options, data.sub(proofsFolder), nil)
	var certs []*tls.Certificate
	for i := range d.Sites {
		for _, key := range d.Sites[i].keys() {
			certs = append(certs, load(key).cert)
		}
	}
	kept := store{data.sub("certificates")}
	ids, _ := kept.ids() // storage has been looked at
	for _, id := range ids {
		_, cert := kept.load(id)
		certs = append(certs, cert)
	}
	said := map[string]bool{}
	for _, cert := range certs {
		if cert == nil || cert.Leaf == nil || !mustStaple(cert.Leaf) || said[proofName(cert)] {
			continue
		}
		said[proofName(cert)] = true
		p, err := stapler.ask(ctx, cert)
		if err != nil {
			d.say("error", nameOf(cert), "its certificate demands proofs that it is not revoked (must-staple): "+err.Error(),
				"let this machine connect to the responder by HTTP, or replace the certificate by one without must-staple (certbot: take must_staple out of its renewal file)")
			continue
		}
		d.say("ok", nameOf(cert), "its certificate demands proofs that it is not revoked (must-staple): one is to be had, valid until "+p.valid.UTC().Format(time.DateTime)+" UTC", "")
	}
}

// forecast counts what was asked of the authority lately.
func (d *Doctor) forecast(names []string) {
	s := store{newFolder(d.Options.DataDir, d.Options.AsRoot).sub("certificates")}
	a := d.Options.ACME.defaultAuthority()
	now := d.Options.Now()
	tried, week := 0, map[string]int{}
	ids, _ := s.ids()
	for _, id := range ids {
		r, _ := s.load(id)
		if r.Directory != a.directory {
			continue
		}
		if now.Sub(r.Tried) < limitWindow {
			tried++
		}
		if len(r.Names) > 0 && now.Sub(r.Tried) < 7*24*time.Hour {
			week[registered(r.Names[0])]++
		}
		if r.Error != "" && now.Sub(r.Tried) < shownFailed && slices.ContainsFunc(r.Names, func(n string) bool { return len(names) == 0 || slices.Contains(names, n) }) {
			d.say("error", strings.Join(r.Names, ", "), "the last try failed: "+r.Error, fmt.Sprintf("it is tried again at %s UTC; proxyctl certs renew %s tries at once", r.Next.UTC().Format(time.DateTime), id))
		}
	}
	level, advice := "ok", ""
	if tried > limitOrders/2 {
		level, advice = "warning", "further orders wait by themselves"
	}
	d.say(level, "limits", fmt.Sprintf("%d of %d orders within %v", tried, limitOrders, limitWindow), advice)
	for domain, n := range week {
		if n > weeklyLimit/2 {
			d.say("warning", domain, fmt.Sprintf("%d of %d certificates a week at Let's Encrypt", n, weeklyLimit), "put more names into one server block, or use a wildcard")
		}
	}
}

// weeklyLimit is how many certificates Let's Encrypt issues for one registered
// domain in a week.
const weeklyLimit = 50

// registered is a guess at the domain that a name was registered under.
func registered(name string) string {
	labels := strings.Split(name, ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}

// Failed says whether there is an error among findings.
func Failed(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == "error" })
}
