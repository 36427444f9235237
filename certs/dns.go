package certs

import (
	"errors"

	"github.com/mholt/acmez/v3"
)

// dnsMethod says how records are made for DNS-01 challenges; the zero value is
// not at all.
type dnsMethod struct {
	hook, cleanup string // commands in the manner of Certbot's manual hooks
	credentials   string // file for dynamic updates (RFC 2136), as Certbot has it
}

type dnsSolver = acmez.Solver

func (m dnsMethod) solver() (dnsSolver, error) {
	return nil, errors.New("no way to change the DNS is configured")
}
