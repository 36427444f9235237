package certs

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
)

// updateSolver makes records by dynamic update (RFC 2136), signed by a shared
// key (RFC 8945).
type updateSolver struct {
	server    string // host:port
	key       string // name, with a dot at its end
	algorithm string
	secret    string
	signed    bool // questions too
	client    *dns.Client
}

const (
	updateTTL     = 60
	updateTimeout = 10 * time.Second
	// spreadTimeout is how long the servers of a zone may take to agree.
	spreadTimeout = 2 * time.Minute
)

// newUpdateSolver reads Certbot's credentials file for its dns-rfc2136 plugin.
func newUpdateSolver(text []byte) (*updateSolver, error) {
	const prefix = "dns_rfc2136_"
	p := readINI(text)
	s := &updateSolver{
		server: net.JoinHostPort(p[prefix+"server"], cmp.Or(p[prefix+"port"], "53")),
		key:    dns.CanonicalName(p[prefix+"name"]), secret: p[prefix+"secret"], signed: strings.EqualFold(p[prefix+"sign_query"], "true"),
	}
	for _, name := range []string{"server", "name", "secret"} {
		if p[prefix+name] == "" {
			return nil, fmt.Errorf("credentials for dynamic updates: %s%s is missing", prefix, name)
		}
	}
	switch a := strings.ToUpper(cmp.Or(p[prefix+"algorithm"], "HMAC-MD5")); a {
	case "HMAC-MD5":
		s.algorithm = dns.HmacMD5
	case "HMAC-SHA1", "HMAC-SHA224", "HMAC-SHA256", "HMAC-SHA384", "HMAC-SHA512":
		s.algorithm = strings.ToLower(a) + "."
	default:
		return nil, fmt.Errorf("credentials for dynamic updates: unknown algorithm %q", a)
	}
	if _, err := base64.StdEncoding.DecodeString(s.secret); err != nil {
		return nil, errors.New("credentials for dynamic updates: " + prefix + "secret is no base64")
	}
	s.client = &dns.Client{Net: "tcp", Timeout: updateTimeout, TsigSecret: map[string]string{s.key: s.secret}}
	if s.algorithm == dns.HmacMD5 {
		s.client.TsigProvider = md5Key(s.secret)
	}
	return s, nil
}

// Present adds the record.
func (s *updateSolver) Present(ctx context.Context, c acme.Challenge) error {
	return s.update(ctx, c, (*dns.Msg).Insert)
}

// CleanUp removes the record, and no other of its name.
func (s *updateSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.update(context.WithoutCancel(ctx), c, (*dns.Msg).Remove)
}

func (s *updateSolver) update(ctx context.Context, c acme.Challenge, change func(*dns.Msg, []dns.RR)) error {
	name := dns.Fqdn(c.DNS01TXTRecordName())
	zone, err := s.zone(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(zone)
	change(m, []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: updateTTL}, Txt: []string{c.DNS01KeyAuthorization()},
	}})
	answer, err := s.ask(ctx, m, true)
	if err != nil {
		return fmt.Errorf("dynamic update of %s at %s: %w", zone, s.server, err)
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("dynamic update of %s at %s: %s", zone, s.server, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

func (s *updateSolver) ask(ctx context.Context, m *dns.Msg, signed bool) (*dns.Msg, error) {
	if signed {
		m.SetTsig(s.key, s.algorithm, 300, time.Now().Unix())
	}
	answer, _, err := s.client.ExchangeContext(ctx, m, s.server)
	return answer, err
}

// zone finds the zone of the server that a name is in.
func (s *updateSolver) zone(ctx context.Context, name string) (string, error) {
	for zone := name; zone != "" && zone != "."; {
		m := new(dns.Msg)
		m.SetQuestion(zone, dns.TypeSOA)
		answer, err := s.ask(ctx, m, s.signed)
		if err != nil {
			return "", fmt.Errorf("zone of %s at %s: %w", name, s.server, err)
		}
		for _, rr := range answer.Answer {
			if soa, ok := rr.(*dns.SOA); ok && answer.Authoritative && strings.EqualFold(soa.Hdr.Name, zone) {
				return zone, nil
			}
		}
		_, zone, _ = strings.Cut(zone, ".")
	}
	return "", fmt.Errorf("the server %s has no zone that %s is in", s.server, name)
}

// Wait looks the record up at all servers of the zone until they have it, or
// for as long as that may take: then the authority judges.
func (s *updateSolver) Wait(ctx context.Context, c acme.Challenge) error {
	name := dns.Fqdn(c.DNS01TXTRecordName())
	zone, err := s.zone(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, spreadTimeout)
	defer cancel()
	for _, server := range append([]string{s.server}, s.others(ctx, zone)...) {
		for !s.has(ctx, server, name, c.DNS01KeyAuthorization()) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// others are the name servers of a zone.
func (s *updateSolver) others(ctx context.Context, zone string) []string {
	m := new(dns.Msg)
	m.SetQuestion(zone, dns.TypeNS)
	answer, err := s.ask(ctx, m, s.signed)
	if err != nil {
		return nil
	}
	var servers []string
	for _, rr := range answer.Answer {
		if ns, ok := rr.(*dns.NS); ok {
			servers = append(servers, net.JoinHostPort(strings.TrimSuffix(ns.Ns, "."), "53"))
		}
	}
	return servers
}

// has says whether a server has a record, or cannot be asked.
func (s *updateSolver) has(ctx context.Context, server, name, text string) bool {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	client := &dns.Client{Net: "tcp", Timeout: updateTimeout}
	answer, _, err := client.ExchangeContext(ctx, m, server)
	if err != nil {
		return server != s.server
	}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == text {
			return true
		}
	}
	return false
}

// md5Key signs as Certbot's default has it; the library has left MD5 behind.
type md5Key string

// Generate makes the signature of a message.
func (k md5Key) Generate(msg []byte, _ *dns.TSIG) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(string(k))
	if err != nil {
		return nil, err
	}
	h := hmac.New(md5.New, secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

// Verify checks the signature of an answer.
func (k md5Key) Verify(msg []byte, t *dns.TSIG) error {
	want, err := k.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(got, want) {
		return dns.ErrSig
	}
	return nil
}
