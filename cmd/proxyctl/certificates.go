package main

import (
	"context"
	"crypto/tls"

	"proxyctl/certs"
	"proxyctl/proxy"
)

// The seam between proxy and certs: neither knows the other.

func (p *process) certOptions() certs.Options {
	o := certs.Options{DataDir: p.dataDir, Local: p.local != nil, ACME: p.acme, OnDemandAsk: p.onDemandAsk}
	if o.DataDir == "" {
		o.DataDir = certs.DefaultDataDir()
	}
	return o
}

// readyCertificates makes the owner of the certificates of the process.
func (p *process) readyCertificates() error {
	o := p.certOptions()
	o.AsRoot = p.runtime.AsRoot
	o.Log = func(level, message string) { p.runtime.Logf(proxy.LevelByName(level), "%s", message) }
	var err error
	if p.certs, err = certs.NewManager(o); err != nil {
		return err
	}
	p.options.Certificate = p.certs.Certificate
	p.options.Challenge = p.certs.Challenge
	p.options.ChallengeCertificate = p.certs.ChallengeCertificate
	p.options.UpdateCertificates = p.updateCertificates
	return nil
}

// checkCertificates is what loading a configuration asks of the certificates.
func (p *process) checkCertificates(sites []proxy.CertSite) []proxy.CertProblem {
	problems := certs.Check(certSites(sites), p.certOptions())
	p.said = make(map[string]bool, len(problems))
	for _, problem := range problems {
		p.said[problem.Message] = true
	}
	return certProblems(problems)
}

// updateCertificates reads the certificates of a table that begins to serve. What
// was said when it was loaded is not said again.
func (p *process) updateCertificates(sites []proxy.CertSite, ports proxy.ChallengePorts) {
	for _, problem := range p.certs.Update(context.Background(), certSites(sites), certs.Ports(ports)) {
		if !p.said[problem.Message] {
			p.runtime.Logf(proxy.LogWarn, "%s", problem.Message)
		}
	}
	p.said = nil
}

// loadCertificate reads what a name with variables leads to.
func loadCertificate(pair proxy.CertPair, lax bool) (*tls.Certificate, error) {
	return certs.Load(certs.Pair{Cert: pair.Certificate, Key: pair.Key, PasswordFile: pair.PasswordFile}, lax)
}

func certSites(sites []proxy.CertSite) []certs.Site {
	out := make([]certs.Site, len(sites))
	for i, s := range sites {
		out[i] = certs.Site{ID: s.ID, Names: s.Names, Place: s.Place, Lax: s.Lax}
		for _, a := range s.Listen {
			out[i].Listen = append(out[i].Listen, a.String())
		}
		for _, pair := range s.Pairs {
			out[i].Pairs = append(out[i].Pairs, certs.Pair{Cert: pair.Certificate, Key: pair.Key, PasswordFile: pair.PasswordFile})
		}
		if s.ACME != nil {
			out[i].Order = certOrder(s.ACME)
		}
	}
	return out
}

func certOrder(o *proxy.ACMEOrder) *certs.Order {
	i := o.Issuer
	return &certs.Order{
		Names: o.Names, Key: o.Key, Challenge: i.Challenge,
		Issuer: certs.Issuer{
			Directory: i.Directory, AccountKey: i.AccountKey, Contacts: i.Contacts, EABKeyID: i.EABKeyID, EABKeyFile: i.EABKeyFile,
			Chain: i.Chain, Profile: i.Profile, NeedsProfile: i.NeedsProfile, TrustedFile: i.TrustedFile, Unverified: i.Unverified,
			Folder: i.StatePath, Agreed: i.Agreed,
		},
	}
}

func certProblems(problems []certs.Problem) []proxy.CertProblem {
	out := make([]proxy.CertProblem, len(problems))
	for i, p := range problems {
		out[i] = proxy.CertProblem{SiteID: p.Site, Message: p.Message, Warning: p.Warning}
	}
	return out
}
