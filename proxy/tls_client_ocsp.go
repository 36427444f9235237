package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"proxyctl/parser"
)

// ssl_ocsp: responders are asked whether the certificates of clients have been
// revoked, before their first request is served.

// The words of ssl_ocsp, by index.
const (
	ocspOff = iota
	ocspOn
	ocspLeaf
)

// clientOCSP is what a server asks about its clients.
type clientOCSP struct {
	leaf      bool   // only their own certificates, not those in between
	responder string // ssl_ocsp_responder; "" is whom the certificates name
	zone      string // of ssl_ocsp_cache; "" for none
	size      int64
	client    *ocspClient
}

// ocspCache is ssl_ocsp_cache.
type ocspCache struct {
	zone string
	size int64
}

func ocspCommands() []Command {
	const in = inTLSLevels
	return []Command{
		Enum(Command{Name: "ssl_ocsp", In: in, Default: "off", Doc: "Asks whether certificates of clients have been revoked."}, []string{"off", "on", "leaf"}, func(c *Conf) *int { return &c.SSL.ocsp }),
		Text(Command{Name: "ssl_ocsp_responder", In: in, Syntax: "url", Doc: "Sets who is asked, instead of whom certificates name."}, func(c *Conf) *string { return &c.SSL.ocspResponder }),
		{Name: "ssl_ocsp_cache", In: in, Args: "1", Syntax: "off | shared:name:size", Default: "off", Doc: "Sets where answers are kept.", Set: setOCSPCache},
	}
}

func setOCSPCache(l *Level, d *parser.Directive) error {
	a := d.Args[0]
	if a.Value == "off" {
		l.Conf.SSL.ocspCache = ocspCache{}
		return nil
	}
	rest, shared := strings.CutPrefix(a.Value, "shared:")
	name, size, found := strings.Cut(rest, ":")
	n, ok := parseSize(size)
	if !shared || name == "" || !found || !ok {
		return sayAt(a, "", "off or shared:NAME:SIZE", "invalid OCSP cache %q", a.Value)
	}
	if n < leastZone {
		return sayAt(a, "", "at least 32k", "OCSP cache %q is too small", a.Value)
	}
	if err := l.sharedZone(a, name, n, l.c.names.use("OCSP cache")); err != nil {
		return err
	}
	l.Conf.SSL.ocspCache = ocspCache{name, n}
	return nil
}

// newClientOCSP prepares for asking; nil when nobody is asked.
func (s *sslConf) newClientOCSP(l *Level) (*clientOCSP, error) {
	if s.ocsp == ocspOff {
		return nil, nil //nolint:nilnil // as said
	}
	if s.Verify == verifyOptionalNoCA {
		return nil, errors.New("\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"")
	}
	o := &clientOCSP{leaf: s.ocsp == ocspLeaf, zone: s.ocspCache.zone, size: s.ocspCache.size}
	if s.ocspResponder != "" {
		var err error
		if o.responder, err = responderURL(s.ocspResponder); err == nil && !l.c.opts.Offline {
			err = resolvable(o.responder)
		}
		if err != nil {
			return nil, fmt.Errorf("%w in OCSP responder %q in \"ssl_ocsp_responder\"", err, strings.TrimPrefix(s.ocspResponder, "http://"))
		}
	}
	// Names in certificates of clients are not resolved by the system.
	o.client = newOCSPClient(l.Conf.Core.Names, o.responder != "")
	return o, nil
}

// What ssl_ocsp found out, as $ssl_client_verify shows it.
const (
	ocspFailed  = "certificate status request failed"
	ocspRevoked = "certificate revoked"
	ocspUnknown = "certificate status unknown"
)

// check asks about every certificate of a verified chain but the root. The answer
// is what is wrong, "" for nothing.
func (o *clientOCSP) check(h *handshake, chain []*x509.Certificate) string {
	n := len(chain) - 1
	if o.leaf {
		n = min(n, 1)
	}
	for i := range n {
		status, err := o.status(h.client, chain[i], chain[i+1])
		switch {
		case err != nil:
			h.logf(logError, "%v", err)
			return ocspFailed
		case status == ocsp.Revoked:
			return ocspRevoked
		case status != ocsp.Good:
			return ocspUnknown
		}
	}
	return ""
}

func (o *clientOCSP) status(c *client, cert, issuer *x509.Certificate) (int, error) {
	var cache *sessionZone
	key := sha256.Sum256(fmt.Appendf(nil, "%x %x %s", issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, cert.SerialNumber))
	if o.zone != "" {
		cache = c.rt.sessions.zone("ocsp:"+o.zone, o.size)
		if known := cache.load(key); len(known) == 1 {
			return int(known[0]), nil
		}
	}
	q := &ocspQuery{responder: o.responder, cert: cert, issuer: issuer, verify: true}
	if q.responder == "" {
		if len(cert.OCSPServer) == 0 {
			return 0, errors.New("no OCSP responder URL in certificate")
		}
		var err error
		if q.responder, err = responderURL(cert.OCSPServer[0]); err != nil {
			return 0, fmt.Errorf("%w in OCSP responder %q in certificate", err, strings.TrimPrefix(cert.OCSPServer[0], "http://"))
		}
	}
	_, response, err := o.client.ask(context.Background(), q)
	if err != nil {
		return 0, fmt.Errorf("%w while requesting certificate status, responder: %s", err, q.responder)
	}
	if cache != nil {
		valid := response.NextUpdate
		if valid.IsZero() {
			valid = time.Now().Add(time.Hour)
		}
		cache.store(key, []byte{byte(response.Status)}, valid)
	}
	return response.Status, nil
}
