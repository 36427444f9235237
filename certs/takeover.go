package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Which sites get certificates that are obtained, and what they show until
// these are there.

// overdueLeft is the part of its lifetime that a lineage of Certbot never gets
// down to while somebody renews it: Certbot begins when a third is left.
const (
	overduePart = 9
	overdueMost = 10 * 24 * time.Hour
)

// overdue says whether the owner of a pair has neglected it. Only of Certbot
// it is known when it should have renewed; others have until the end.
func (e *entry) overdue(k pairKey, now time.Time) bool {
	if e.cert == nil || e.cert.Leaf == nil {
		return false
	}
	leaf := e.cert.Leaf
	left := leaf.NotAfter.Sub(now)
	if left <= 0 {
		return true
	}
	return left < min(leaf.NotAfter.Sub(leaf.NotBefore)/overduePart, overdueMost) && lineageOf(k.Cert) != nil
}

// neglect words that nobody has renewed a pair in time; "" if somebody has.
func (e *entry) neglect(k pairKey, now time.Time) string {
	switch {
	case !e.overdue(k, now):
		return ""
	case now.Before(e.cert.Leaf.NotAfter):
		return fmt.Sprintf("certificate %s ends at %s UTC: Certbot should have renewed it long ago", quoteCert(k.Cert), e.cert.Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return fmt.Sprintf("certificate %s has expired: it was valid until %s UTC", quoteCert(k.Cert), e.cert.Leaf.NotAfter.UTC().Format(time.DateTime))
}

// neglectedPair is one that nobody has renewed in time.
type neglectedPair struct {
	Problem
	replaced bool // by one that is obtained
}

// neglected lists such pairs, each once, and what is done about them.
func neglected(sites []Site, entries map[pairKey]*entry, wanted map[int][]order, now time.Time) []neglectedPair {
	var out []neglectedPair
	said := map[pairKey]bool{}
	for i := range sites {
		for _, k := range sites[i].keys() {
			text := entries[k].neglect(k, now)
			if text == "" || said[k] {
				continue
			}
			said[k] = true
			replaced := len(wanted[i]) > 0
			if replaced {
				text = awaited(text, &sites[i], wanted[i])
			}
			out = append(out, neglectedPair{Problem{Site: sites[i].ID, Path: k.Cert, Message: text, Warning: true}, replaced})
		}
	}
	return out
}

// orders says what is to be obtained for a site; nothing as long as one of its
// pairs can be served.
func (a *ACME) orders(s *Site, entries map[pairKey]*entry, now time.Time) []order {
	if a.never {
		return nil
	}
	if s.Order != nil && slices.ContainsFunc(s.Pairs, func(p Pair) bool { return p.Cert == Obtained }) {
		return []order{s.Order.ordered(a)}
	}
	if a.Takeover == TakeoverOff || len(s.Pairs) == 0 {
		return nil
	}
	stapled := false
	for _, k := range s.keys() {
		e := entries[k]
		stapled = stapled || e.cert != nil && e.cert.Leaf != nil && mustStaple(e.cert.Leaf)
		missing := e.cert == nil && e.trouble != nil && e.trouble.missing
		if strings.HasPrefix(k.Cert, "data:") || !missing && !e.overdue(k, now) {
			return nil
		}
	}
	l := lineageOf(s.Pairs[0].Cert)
	orders := a.ordersAs(s, l)
	for i := range orders {
		orders[i].mustStaple = stapled || l != nil && l.staple
	}
	return orders
}

// ordersAs makes the orders of a site whose files are, or were, a lineage; nil
// for other files.
func (a *ACME) ordersAs(s *Site, l *lineage) []order {
	if l == nil && a.Takeover == TakeoverLineages {
		return nil
	}
	from, key := a.defaultAuthority(), defaultKey
	if l != nil {
		from, key = l.authority(a), l.key
	}
	names := publicNames(s.Names, from.dns != DNS{}, from.public())
	return ordersFor(names, from, key)
}

// obtained is what the keeper has for a site.
type obtained struct {
	orders []order
	certs  []*tls.Certificate // one for each order; nil where there is none yet
}

// wanted lists the orders of the sites that need some, by index. A site that
// has no name to obtain for, but the files of one that has, shows what that one
// shows.
func (a *ACME) wanted(sites []Site, entries map[pairKey]*entry, now time.Time) map[int][]order {
	out := map[int][]order{}
	byFile := map[Pair][]order{}
	for i := range sites {
		if orders := a.orders(&sites[i], entries, now); len(orders) > 0 {
			out[i] = orders
			if p := sites[i].Pairs[0]; byFile[p] == nil {
				byFile[p] = orders
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	for i := range sites {
		s := &sites[i]
		if out[i] == nil && len(s.Pairs) > 0 && !s.servable(entries) {
			if orders := byFile[s.Pairs[0]]; orders != nil {
				out[i] = orders
			}
		}
	}
	return out
}

// servable says whether a pair of the site can be served.
func (s *Site) servable(entries map[pairKey]*entry) bool {
	return slices.ContainsFunc(s.keys(), func(k pairKey) bool { return entries[k].cert != nil })
}

// obtain tells the keeper what is wanted, and gives what it has.
func (m *Manager) obtain(wanted map[int][]order) map[int]obtained {
	var all []order
	for i := range m.sites {
		all = append(all, wanted[i]...)
	}
	certs := m.keeper.want(all, m.ports)
	out := make(map[int]obtained, len(wanted))
	for i := range m.sites {
		if n := len(wanted[i]); n > 0 {
			out[i] = obtained{wanted[i], certs[:n:n]}
			certs = certs[n:]
		}
	}
	return out
}

// sameOrders says whether nothing else is wanted than before.
func sameOrders(a, b map[int][]order) bool {
	return maps.EqualFunc(a, b, func(a, b []order) bool {
		return slices.EqualFunc(a, b, func(a, b order) bool { return a.id() == b.id() && a.from == b.from })
	})
}

// republish shows a certificate that was obtained.
func (m *Manager) republish() {
	m.mu.Lock()
	problems := m.publish()
	m.mu.Unlock()
	for _, p := range problems {
		m.options.Log("error", p.Message)
	}
}

// complete says whether every order has its certificate.
func (o *obtained) complete() bool {
	return len(o.certs) > 0 && !slices.Contains(o.certs, nil)
}

// newest is the beginning of the validity of the certificate that was issued
// last.
func (o *obtained) newest() time.Time {
	var t time.Time
	for _, c := range o.certs {
		if c != nil && c.Leaf.NotBefore.After(t) {
			t = c.Leaf.NotBefore
		}
	}
	return t
}

// replace decides what a site shows while orders of its are worked on: the
// certificates obtained; until they are there the overdue ones of the files, or
// an older one of ours that holds its names, or a placeholder.
func (m *Manager) replace(s *Site, now *served, o obtained, before *served, kept *keptCerts) {
	now.waiting = o.orders
	if o.complete() && (len(now.certs) == 0 || o.newest().After(now.certs[0].Leaf.NotBefore)) {
		now.certs, now.bySNI, now.waiting = o.certs, len(o.certs) > 1, nil
		return
	}
	if len(now.certs) > 0 {
		return
	}
	if before != nil && len(before.certs) > 0 && covers(before.certs[0], o.orders[0].names) {
		now.certs, now.bySNI = before.certs, before.bySNI
		return
	}
	if before != nil && before.placeholder != nil && slices.Equal(before.names, s.Names) {
		now.names, now.placeholder = before.names, before.placeholder
		return
	}
	if _, c := kept.covering(o.orders[0].names); c != nil {
		now.certs = []*tls.Certificate{c}
		return
	}
	now.names = s.Names
	// Made at the first handshake: of a thousand sites few are asked for.
	now.placeholder = sync.OnceValue(func() *tls.Certificate {
		cert, err := placeholder(o.orders[0].names, m.options.Now())
		if err != nil {
			m.options.Log("error", fmt.Sprintf("placeholder certificate: %v", err))
		}
		return cert
	})
}

// awaits says whether a certificate for a name is being obtained.
func (s *served) awaits(name string) bool {
	return slices.ContainsFunc(s.waiting, func(o order) bool {
		return (&x509.Certificate{DNSNames: o.names}).VerifyHostname(name) == nil
	})
}

// covers says whether a certificate holds at least one of the names.
func covers(cert *tls.Certificate, names []string) bool {
	return cert.Leaf != nil && slices.ContainsFunc(names, func(n string) bool { return cert.Leaf.VerifyHostname(n) == nil })
}

// keptCerts are all certificates in our storage that have not expired. They are
// read when the first is asked for.
type keptCerts struct {
	store store
	now   time.Time
	read  bool
	ids   []string
	certs []*tls.Certificate
}

// covering finds the kept certificate with most of the names: what is obtained
// begins anew when names are added, and until then this is better than nothing.
func (k *keptCerts) covering(names []string) (id string, best *tls.Certificate) {
	if !k.read {
		k.read = true
		ids, _ := k.store.ids()
		for _, id := range ids {
			if _, cert := k.store.load(id); cert != nil && k.now.Before(cert.Leaf.NotAfter) {
				k.ids, k.certs = append(k.ids, id), append(k.certs, cert)
			}
		}
	}
	most := 0
	for i, cert := range k.certs {
		n := 0
		for _, name := range names {
			if cert.Leaf.VerifyHostname(name) == nil {
				n++
			}
		}
		if n > most {
			id, best, most = k.ids[i], cert, n
		}
	}
	return id, best
}

// bySNI picks among certificates for different names.
func bySNI(certs []*tls.Certificate, name string) *tls.Certificate {
	for _, c := range certs {
		if c.Leaf.VerifyHostname(name) == nil {
			return c
		}
	}
	return certs[0]
}

// awaited words what is missing and what is done about it.
func awaited(text string, s *Site, orders []order) string {
	from := &orders[0].from
	names := orders[0].String()
	if len(orders) > 1 {
		names = fmt.Sprintf("%s and further names", names)
	}
	text = fmt.Sprintf("%s; a certificate for %s is obtained from %s", text, names, hostOf(from.directory))
	for _, n := range publicNames(s.Names, true, from.public()) {
		if isWildcard(n) && !slices.ContainsFunc(orders, func(o order) bool { return slices.Contains(o.names, n) }) {
			return fmt.Sprintf("%s, but not for %s: wildcards are proved by the DNS only (--acme-dns-hook, --acme-dns-rfc2136)", text, n)
		}
	}
	return text
}
