package certs

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// Imported is what became of a lineage of Certbot.
type Imported struct {
	Name     string    `json:"name"`
	Names    []string  `json:"names,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Notes    []string  `json:"notes,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// ImportCertbot copies Certbot's certificates and the keys of its accounts into
// our storage, so that its folder may go. Nothing is issued and nothing of
// Certbot's is changed. root is its configuration folder.
func ImportCertbot(o Options, root string) ([]Imported, error) {
	o.complete()
	confs, err := filepath.Glob(filepath.Join(root, "renewal", "*.conf"))
	if err != nil {
		return nil, err
	}
	if len(confs) == 0 {
		return nil, fmt.Errorf("no renewal files in %q", filepath.Join(root, "renewal"))
	}
	data := newFolder(o.DataDir, o.AsRoot)
	var out []Imported
	for _, conf := range confs {
		i := Imported{Name: strings.TrimSuffix(filepath.Base(conf), ".conf")}
		if err := i.take(&o, data, root); err != nil {
			i.Error = err.Error()
		}
		out = append(out, i)
	}
	return out, nil
}

// take imports one lineage.
func (i *Imported) take(o *Options, data *folder, root string) error {
	l, err := readLineage(root, i.Name)
	if err != nil {
		return err
	}
	from := o.ACME.at(l.server)
	from.chain = l.chain
	live := filepath.Join(root, "live", i.Name)
	cert, err := loadPair(Pair{Cert: filepath.Join(live, "fullchain.pem"), Key: filepath.Join(live, "privkey.pem")}, true)
	if err != nil {
		return err
	}
	if cert.Leaf == nil {
		return errors.New("its certificate cannot be read")
	}
	i.Names, i.NotAfter = certificateNames(cert), cert.Leaf.NotAfter
	if len(i.Names) == 0 {
		return errors.New("its certificate has no names")
	}
	if err := i.takeAccount(l, &from, data); err != nil {
		return err
	}
	order := order{names: i.Names, from: from, key: keyOf(cert)}
	s := store{data.sub("certificates")}
	if _, kept := s.load(order.id()); kept != nil && !kept.Leaf.NotBefore.Before(cert.Leaf.NotBefore) {
		i.Notes = append(i.Notes, "what is kept here is not older: left alone")
		return nil
	}
	key, err := certmagic.PEMEncodePrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	for _, der := range cert.Certificate {
		key = append(key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := s.saveBundle(order.id(), key); err != nil {
		return err
	}
	return s.saveRecord(order.id(), &record{Names: i.Names, Directory: l.server})
}

// takeAccount copies the account's key, unless there is one already.
func (i *Imported) takeAccount(l *lineage, from *authority, data *folder) error {
	file := l.accountKey()
	if file == "" {
		i.Notes = append(i.Notes, "it has no account: another is made when it is renewed")
		return nil
	}
	key, err := readAccountKey(file)
	if err != nil {
		return err
	}
	text, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return err
	}
	account, name := data.sub("accounts").sub(from.id()), accountKeyName(l.server)
	have, err := account.Load(context.Background(), name)
	switch {
	case err == nil && slices.Equal(have, text):
		return nil
	case err == nil:
		i.Notes = append(i.Notes, "there is another account for "+cmp.Or(hostOf(l.server), l.server)+" here: it is used on")
		return nil
	}
	return account.Store(context.Background(), name, text)
}
