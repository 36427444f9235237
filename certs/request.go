package certs

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// A command asks the server that runs for a certificate by a file in the folder
// "requests": only the server can answer challenges while it has the ports. Where
// none runs the command does the work itself.

// demand is the content of such a file, named after the order's ID.
type demand struct {
	Names []string  `json:"names"`
	Key   string    `json:"key,omitempty"`
	ID    string    `json:"id,omitempty"` // of a certificate to renew
	Asked time.Time `json:"asked"`
}

const requestsFolder = "requests"

// Obtain has a certificate for names obtained, or renewed if there is one, and
// waits for the outcome. progress hears what goes on.
func Obtain(ctx context.Context, o Options, names []string, key string, progress func(string)) (Status, error) {
	o.complete()
	from := o.ACME.defaultAuthority()
	names, err := obtainable(names, &from)
	if err != nil {
		return Status{}, err
	}
	order := order{names: names, from: from, key: cmp.Or(keyKind(key), defaultKey)}
	if !order.key.known() {
		return Status{}, fmt.Errorf("unsupported key %q: ecdsa:256, ecdsa:384, ecdsa:521, rsa:2048, rsa:3072 or rsa:4096", key)
	}
	return fulfil(ctx, o, order, demand{Names: names, Key: key}, progress)
}

// obtainable checks names before an authority is asked for a certificate.
func obtainable(names []string, from *authority) ([]string, error) {
	var out []string
	for _, given := range names {
		found := publicNames([]string{given}, true, from.public())
		switch {
		case len(found) == 0:
			return nil, fmt.Errorf("no certificate can be obtained for %q: it is not a public name", given)
		case from.dns == (DNS{}) && slices.ContainsFunc(found, isWildcard):
			return nil, fmt.Errorf("a wildcard like %q is proved by the DNS only: see --acme-dns-hook and --acme-dns-rfc2136", given)
		}
		for _, n := range found {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	if len(out) > maxNames {
		return nil, fmt.Errorf("%d names are too many for one certificate: it holds %d", len(out), maxNames)
	}
	return out, nil
}

// Renew has a certificate in storage renewed now. name is its ID or one of its
// names.
func Renew(ctx context.Context, o Options, name string, progress func(string)) (Status, error) {
	o.complete()
	s := store{newFolder(o.DataDir, o.AsRoot).sub("certificates")}
	ids, err := s.ids()
	if err != nil {
		return Status{}, err
	}
	for _, id := range ids {
		r, cert := s.load(id)
		if id != name && (cert == nil || !slices.Contains(certificateNames(cert), strings.ToLower(name))) {
			continue
		}
		order := order{names: r.Names, from: o.ACME.recorded(&r), key: keyOf(cert)}
		return fulfil(ctx, o, order, demand{ID: id, Names: r.Names}, progress)
	}
	return Status{}, fmt.Errorf("no certificate for %q is kept here: files are renewed by their owner", name)
}

// recorded is the authority that a certificate is from, with the account that it
// was obtained by.
func (a *ACME) recorded(r *record) authority {
	from := a.defaultAuthority()
	if r.Directory != "" && r.Directory != from.directory {
		from = a.at(r.Directory)
	}
	if r.Account != "" && exists(r.Account) {
		from.accountKey, from.email = r.Account, r.Email
	}
	return from
}

// order notes what a record is about.
func (r *record) order(o *order) {
	r.Names, r.Directory, r.Account, r.Email = o.names, o.from.directory, o.from.accountKey, o.from.email
}

// keyOf is the kind of key of a certificate.
func keyOf(cert *tls.Certificate) keyKind {
	if cert == nil {
		return defaultKey
	}
	switch key := cert.PrivateKey.(type) {
	case *rsa.PrivateKey:
		return keyKind(fmt.Sprintf("rsa:%d", key.N.BitLen()))
	case *ecdsa.PrivateKey:
		return keyKind(fmt.Sprintf("ecdsa:%d", key.Curve.Params().BitSize))
	}
	return defaultKey
}

// fulfil asks the server that runs, or does the work here.
func fulfil(ctx context.Context, o Options, order order, d demand, progress func(string)) (Status, error) {
	data := newFolder(o.DataDir, o.AsRoot)
	id := d.ID
	if id == "" {
		id = order.id()
	}
	s := store{data.sub("certificates")}
	if !data.served() {
		return here(ctx, o, order, id, progress)
	}
	progress("asking the server that runs")
	d.Asked = o.Now()
	text, err := json.Marshal(d)
	if err != nil {
		return Status{}, err
	}
	if err := data.Store(ctx, requestsFolder+"/"+id, text); err != nil {
		return Status{}, err
	}
	for {
		select {
		case <-ctx.Done():
			return Status{}, fmt.Errorf("the server has not answered: see its error log (%w)", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
		if data.Exists(ctx, requestsFolder+"/"+id) {
			continue
		}
		if r, cert := s.load(id); r.Begun == 0 && !r.Tried.Before(d.Asked.Truncate(0)) {
			return outcome(id, &r, cert)
		}
	}
}

func outcome(id string, r *record, cert *tls.Certificate) (Status, error) {
	st := keptStatus(id, r, cert)
	if r.Error != "" {
		return st, errors.New(r.Error)
	}
	return st, nil
}

// here obtains without a server; certmagic listens on ports 80 and 443 for as
// long as it takes.
func here(ctx context.Context, o Options, order order, id string, progress func(string)) (Status, error) {
	o.Log = func(level, text string) {
		if level != "error" { // that is what the command ends with
			progress(text)
		}
	}
	logger := newLogger(func(string, string) {})
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errNoCertificate }, Logger: logger,
	})
	defer cache.Stop()
	data := newFolder(o.DataDir, o.AsRoot)
	s := store{data.sub("certificates")}
	k := newKeeper(&o, data, &issuer{cache, data.sub("accounts"), logger}, func() {})
	defer k.close()
	k.ports = o.Ports
	if len(k.ports.HTTP) == 0 && len(k.ports.TLS) == 0 {
		k.ports.HTTP = []addrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 80)}
		k.ports.TLS = []addrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 443)}
	}
	t := &task{order: order, id: id, wanted: true}
	t.record, t.cert = s.load(id)
	t.record.order(&order)
	if wait := t.record.Next.Sub(o.Now()); wait > 0 && t.record.Failures > 0 {
		progress(fmt.Sprintf("the last try failed (%s); the server would wait %v more", t.record.Error, wait.Round(time.Second)))
	}
	stop := context.AfterFunc(ctx, k.cancel)
	defer stop()
	k.attempt(t)
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	return outcome(id, &t.record, t.cert)
}

// demands takes up what commands ask for.
func (m *Manager) demands() {
	data := m.data.sub(requestsFolder)
	ids, err := data.List(context.Background(), "", false)
	if err != nil {
		return
	}
	for _, id := range ids {
		text, err := data.Load(context.Background(), id)
		if err != nil || len(text) > maxFile {
			continue
		}
		var d demand
		if json.Unmarshal(text, &d) == nil && len(d.Names) > 0 {
			m.keeper.demand(&m.options.ACME, id, d)
		}
		_ = data.Delete(context.Background(), id)
	}
}

// demand has an order tried now.
func (k *keeper) demand(a *ACME, id string, d demand) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil {
		t = &task{order: order{names: d.Names, key: keyKind(d.Key)}, id: id}
		t.record, t.cert = k.store.load(id)
		t.from = a.recorded(&t.record)
		t.record.order(&t.order)
		if t.key == "" {
			t.key = keyOf(t.cert)
		}
		k.tasks[id] = t
	}
	t.force = true
	k.rouse()
}
