package certs

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
)

func TestUpdateCredentials(t *testing.T) {
	const good = "dns_rfc2136_server = ::1\ndns_rfc2136_name = Key\ndns_rfc2136_secret = c2VjcmV0\n"
	s, err := newUpdateSolver([]byte(good))
	if err != nil || s.server != "[::1]:53" || s.key != "key." || s.algorithm != dns.HmacMD5 || s.signed {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"":                                       "dns_rfc2136_server is missing",
		"dns_rfc2136_server = x\n":               "dns_rfc2136_name is missing",
		good + "dns_rfc2136_algorithm = ROT13\n": `unknown algorithm "ROT13"`,
		good + "dns_rfc2136_secret = %\n":        "is no base64",
	} {
		if _, err := newUpdateSolver([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestMD5Key checks the signature against what the library makes of others: it
// must cover the same text.
func TestMD5Key(t *testing.T) {
	m := new(dns.Msg)
	m.SetUpdate("site.test.")
	m.SetTsig("key.", dns.HmacMD5, 300, time.Now().Unix())
	wire, mac, err := dns.TsigGenerateWithProvider(m, md5Key("c2VjcmV0"), "", false)
	if err != nil || len(mac) != 32 {
		t.Fatalf("%q, %v", mac, err)
	}
	if err := dns.TsigVerifyWithProvider(wire, md5Key("c2VjcmV0"), "", false); err != nil {
		t.Error(err)
	}
	if err := dns.TsigVerifyWithProvider(wire, md5Key("b3RoZXI="), "", false); err == nil {
		t.Error("another key verifies")
	}
}

// TestHook: failures say why; what a hook leaves running does not hold us up,
// and its output is bounded.
func TestHook(t *testing.T) {
	c := acme.Challenge{Token: "t", KeyAuthorization: "k", Identifier: acme.Identifier{Type: "dns", Value: "site.test"}}
	solver := func(command string) *hookSolver {
		return &hookSolver{dns: DNS{Hook: command}, asRoot: func(f func() error) error { return f() }, outputs: map[string]string{}}
	}
	if err := solver("echo no such zone >&2; exit 3").Present(context.Background(), c); err == nil || !strings.Contains(err.Error(), "exit status 3: no such zone") {
		t.Errorf("%v", err)
	}
	s := solver("sleep 60 & echo out; yes | head -c 1000000")
	begin := time.Now()
	if err := s.Present(context.Background(), c); err != nil || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if out := s.outputs[c.DNS01KeyAuthorization()]; !strings.HasPrefix(out, "out\n") || len(out) > maxOutput {
		t.Errorf("output of %d bytes", len(out))
	}
}
