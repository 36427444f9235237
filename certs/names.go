package certs

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
)

type addrPort = netip.AddrPort

// publicNames gives the names among values of server_name that an authority can
// make a certificate for: no regular expressions, no "_", no names or addresses
// that mean something in one network only. Wildcards are for authorities that
// are answered by DNS. A public authority also refuses the names that are
// reserved for tests and examples (RFC 6761).
func publicNames(names []string, wildcards, public bool) []string {
	var out []string
	add := func(name string) {
		if isPublic(name, wildcards, public) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, n := range names {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if rest, both := strings.CutPrefix(n, "."); both {
			add(rest)
			add("*." + rest)
			continue
		}
		add(n)
	}
	// The first name is the one that people know the certificate by.
	slices.SortStableFunc(out, func(a, b string) int { return boolOrder(isWildcard(a), isWildcard(b)) })
	return out
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

func isPublic(name string, wildcards, public bool) bool {
	base, wild := strings.CutPrefix(name, "*.")
	if wild && !wildcards || !strings.Contains(base, ".") || !isDNSName(base) || strings.Contains(base, "_") {
		return false
	}
	if edged := "." + base + "."; strings.Contains(edged, ".-") || strings.Contains(edged, "-.") {
		return false // RFC 952
	}
	if _, err := netip.ParseAddr(base); err == nil {
		return false // addresses are asked for by acme_certificate only
	}
	if !certmagic.SubjectQualifiesForPublicCert(name) {
		return false
	}
	top := base[strings.LastIndexByte(base, '.')+1:]
	if strings.Trim(top, "0123456789") == "" {
		return false
	}
	switch top {
	case "test", "example", "invalid", "onion":
		return !public
	case "localhost", "local", "internal", "lan", "home", "corp", "intranet", "private":
		return false
	}
	return true
}
