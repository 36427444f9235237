package certs

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Status is what is known about one certificate.
type Status struct {
	Names    []string  `json:"names"`
	Source   string    `json:"source"`          // "file", "obtained", "none"
	Path     string    `json:"path,omitempty"`  // of the file
	Place    string    `json:"place,omitempty"` // of the server block; "" for what no server uses
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Renewal  time.Time `json:"renewal,omitzero"` // when it is going to be renewed, or tried
	Error    string    `json:"error,omitempty"`  // of the last try
	ID       string    `json:"id,omitempty"`     // in our storage
	// MustStaple says that the certificate demands proofs that it is not revoked,
	// Proof until when the one at hand is valid.
	MustStaple bool      `json:"must_staple,omitempty"`
	Proof      time.Time `json:"proof,omitzero"`
}

// List tells what servers show, and what else is kept. Nothing is written.
func List(sites []Site, o Options) ([]Status, error) {
	o.complete()
	data := newFolder(o.DataDir, o.AsRoot)
	k := &keeper{o: &o, store: store{data.sub("certificates")}}
	entries := map[pairKey]*entry{}
	for i := range sites {
		for _, key := range sites[i].keys() {
			if entries[key] == nil {
				entries[key] = load(key)
			}
		}
	}
	wanted := o.ACME.wanted(sites, entries, o.Now())
	kept := &keptCerts{store: k.store, now: o.Now()}
	var out []Status
	listed := map[string]bool{}
	for i := range sites {
		s := &sites[i]
		for _, key := range s.keys() {
			if e := entries[key]; key.Cert != Obtained && (e.cert != nil || len(wanted[i]) == 0) {
				st := fileStatus(s, key, e)
				st.proved(data, e.cert, o.Now())
				out = append(out, st)
			}
		}
		for _, order := range wanted[i] {
			id := order.id()
			r, cert, err := k.storeOf(&order).read(id)
			r.Names = order.names
			if err != nil {
				r.Error = err.Error()
			}
			if other, shown := kept.covering(order.names); cert == nil && shown != nil {
				failure := r.Error // until it has one of its own
				id = other
				r, cert = k.store.load(id)
				r.Error = cmp.Or(r.Error, failure)
			}
			st := keptStatus(id, &r, cert)
			st.proved(data, cert, o.Now())
			st.Place = s.Place
			out = append(out, st)
			listed[id] = true
		}
	}
	ids, err := k.store.ids()
	if err != nil {
		return out, err
	}
	for _, id := range ids {
		r, cert, err := k.store.read(id)
		if !listed[id] && (cert != nil || err != nil || len(r.Names) > 0 && o.Now().Sub(r.Tried) < shownFailed) {
			st := keptStatus(id, &r, cert)
			if err != nil {
				if st.Error = err.Error(); len(st.Names) == 0 {
					st.Names = []string{id}
				}
			}
			st.proved(data, cert, o.Now())
			out = append(out, st)
		}
	}
	return out, nil
}

// shownFailed is how long a failed try for what no server needs is shown.
const shownFailed = 7 * 24 * time.Hour

// fileStatus tells about a file.
func fileStatus(s *Site, k pairKey, e *entry) Status {
	st := Status{Names: s.Names, Source: "file", Path: quotelessPath(k.Cert), Place: s.Place}
	if e.cert != nil && e.cert.Leaf != nil {
		st.Names = certificateNames(e.cert)
		st.Issuer, st.NotAfter = issuerName(e.cert), e.cert.Leaf.NotAfter
	}
	if e.trouble != nil {
		st.Error = e.trouble.text
		if e.cert == nil {
			st.Source = "none"
		}
	}
	return st
}

func quotelessPath(name string) string {
	if strings.HasPrefix(name, "data:") {
		return "data:..."
	}
	return name
}

// proved notes what a certificate demands and whether it has it.
func (s *Status) proved(data *folder, cert *tls.Certificate, now time.Time) {
	if cert == nil || cert.Leaf == nil || !mustStaple(cert.Leaf) {
		return
	}
	s.MustStaple = true
	if p := keptProof(data.sub(proofsFolder), cert, now); p != nil {
		s.Proof = p.valid
	}
}

// keptStatus tells about what is kept.
func keptStatus(id string, r *record, cert *tls.Certificate) Status {
	st := Status{Names: r.Names, Source: "obtained", ID: id, Error: r.Error}
	t := task{record: *r, cert: cert}
	if cert == nil {
		st.Source = "none"
	} else {
		st.Names = certificateNames(cert)
		st.Issuer, st.NotAfter = issuerName(cert), cert.Leaf.NotAfter
	}
	if cert != nil {
		st.Renewal = t.renewAt()
	}
	if r.Next.After(st.Renewal) {
		st.Renewal = r.Next
	}
	return st
}

func certificateNames(cert *tls.Certificate) []string {
	names := cert.Leaf.DNSNames
	for _, ip := range cert.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func issuerName(cert *tls.Certificate) string {
	issuer := &cert.Leaf.Issuer
	if len(issuer.Organization) > 0 && issuer.CommonName != "" {
		return issuer.Organization[0] + " " + issuer.CommonName
	}
	return issuer.CommonName
}

// serverLock is held by every server that obtains certificates into a folder:
// others leave the work to it.
const serverLock = "server"

// announce holds the lock as long as the process lives.
func (f *folder) announce() error {
	return f.asRoot(func() error {
		path := f.lockFile(serverLock)
		if err := os.MkdirAll(f.path+"/locks", 0o700); err != nil {
			return err
		}
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
			_ = file.Close()
			return err
		}
		f.locks.mu.Lock()
		defer f.locks.mu.Unlock()
		f.locks.held[path] = file
		return nil
	})
}

// served says whether a server works on the folder.
func (f *folder) served() bool {
	file, err := os.OpenFile(f.lockFile(serverLock), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// unannounce gives the lock back.
func (f *folder) unannounce() {
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	path := f.lockFile(serverLock)
	if file := f.locks.held[path]; file != nil {
		delete(f.locks.held, path)
		_ = file.Close()
	}
}

// Describe words the moment of a renewal for people.
func (s *Status) Describe(now time.Time) string {
	switch {
	case s.Source == "none" && (s.ID == "" || s.Place == ""):
		return "never" // nobody works on it
	case s.Source == "none" && s.Renewal.IsZero():
		return "now"
	case s.Renewal.IsZero():
		return "by its owner"
	case !s.Renewal.After(now):
		return "now"
	}
	left := s.Renewal.Sub(now)
	if left >= 48*time.Hour {
		return fmt.Sprintf("in %.0f days", left.Hours()/24)
	}
	return fmt.Sprintf("in %v", left.Round(time.Minute))
}
