package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
)

// store keeps the certificates that were obtained: a folder for each, with the
// key and the chain in one file, so that they are replaced together, and a
// record of what was tried.
type store struct{ *folder }

const (
	bundleFile = "certificate.pem"
	recordFile = "record.json"
)

// record is what has to be known about an order after a restart.
type record struct {
	Names     []string  `json:"names"`
	Directory string    `json:"directory"`
	Account   string    `json:"account,omitempty"` // file with the key, if it is somebody else's
	Email     string    `json:"email,omitempty"`   // contact of the account
	Tried     time.Time `json:"tried,omitzero"`    // when the last try began
	Begun     int       `json:"begun,omitempty"`   // tries that began and never ended: the process did
	Failures  int       `json:"failures,omitempty"`
	Doubtful  bool      `json:"doubtful,omitempty"` // the authority has refused it
	Next      time.Time `json:"next,omitzero"`      // no try before
	Error     string    `json:"error,omitempty"`    // of the last try
	Method    method    `json:"method,omitempty"`   // that proved the names last time
	Renew     time.Time `json:"renew,omitzero"`     // when the authority wants it renewed
	AskAgain  time.Time `json:"ask_again,omitzero"`
}

// load gives what is kept of an order; cert is nil when there is none that can
// be served.
func (s store) load(id string) (r record, cert *tls.Certificate) {
	r, cert, _ = s.read(id)
	return r, cert
}

// read is load, with an error when there is something that cannot be served.
func (s store) read(id string) (r record, cert *tls.Certificate, err error) {
	if text, err := s.Load(context.Background(), id+"/"+recordFile); err == nil {
		_ = json.Unmarshal(text, &r) // one that cannot be read is none
	}
	err = s.asRoot(func() (err error) {
		file := s.file(id + "/" + bundleFile)
		cert, err = loadPair(Pair{Cert: file, Key: file}, true)
		return err
	})
	var bad *loadError
	switch {
	case errors.As(err, &bad) && bad.missing:
		err = nil
	case err == nil && cert.Leaf == nil:
		cert, err = nil, fmt.Errorf("%q cannot be read", s.file(id+"/"+bundleFile))
	}
	return r, cert, err
}

func (s store) saveRecord(id string, r *record) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = s.Store(context.Background(), id+"/"+recordFile, append(text, '\n'))
	}
	if err != nil {
		return storageError{err}
	}
	return nil
}

func (s store) saveBundle(id string, bundle []byte) error {
	if err := s.Store(context.Background(), id+"/"+bundleFile, bundle); err != nil {
		return storageError{err}
	}
	return nil
}

// bundle joins a key and its chain; cert is what a file with them gives.
func bundle(key any, chain []byte) (text []byte, cert *tls.Certificate, err error) {
	keyText, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	text = append(append(bytes.TrimSpace(keyText), '\n'), chain...)
	cert, err = parseBundle(text)
	return text, cert, err
}

// parseBundle reads a bundle; an authority's answer that is no chain for the
// key is an error.
func parseBundle(text []byte) (*tls.Certificate, error) {
	inline := "data:" + string(text)
	cert, err := loadPair(Pair{Cert: inline, Key: inline}, true)
	if err != nil {
		var bad *loadError
		if errors.As(err, &bad) {
			return nil, errors.New("the authority's answer is not a certificate for the key that was sent")
		}
		return nil, err
	}
	if cert.Leaf == nil {
		return nil, errors.New("the authority's certificate cannot be read")
	}
	return cert, nil
}

// ids lists what is kept.
func (s store) ids() ([]string, error) {
	ids, err := s.List(context.Background(), "", false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("what is kept cannot be read: %w", err)
	}
	return ids, nil
}
