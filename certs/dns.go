package certs

import (
	"errors"

	"github.com/mholt/acmez/v3"
)

// DNS says how records are made for DNS-01 challenges; the zero value is not at
// all.
type DNS struct {
	Hook, Cleanup string // commands in the manner of Certbot's manual hooks
	Credentials   string // file for dynamic updates (RFC 2136), as Certbot has it
}

type dnsSolver = acmez.Solver

func (m DNS) solver() (dnsSolver, error) {
	return nil, errors.New("no way to change the DNS is configured")
}
