package proxy

import (
	"crypto/x509"
	"errors"
	"time"
)

// Certificates of clients. As in nginx the handshake succeeds whatever the
// client shows; what is found is answered with 400 when a request comes
// (ngx_http_process_request).

// clientAuthorities are whom clients' certificates are held against.
type clientAuthorities struct {
	*trust
	named *x509.CertPool // those that clients are told
}

// readAuthorities reads the files. Nothing is held against them when clients are
// not asked, but they are there to find issuers.
func (s *sslConf) readAuthorities(l *Level, t *tlsServer) error {
	if s.Verify != verifyOff && s.Verify != verifyOptionalNoCA && s.clientCA == "" && s.trusted == "" {
		return errors.New("no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client")
	}
	a := &clientAuthorities{newTrust(s.verifyDepth, x509.ExtKeyUsageClientAuth), x509.NewCertPool()}
	if s.clientCA != "" && s.Verify != verifyOff {
		certs, err := a.read(l.c.opts.confRelative(s.clientCA))
		if err != nil {
			return err
		}
		for _, c := range certs {
			a.named.AddCert(c)
		}
	}
	if s.trusted != "" {
		name := l.c.opts.confRelative(s.trusted)
		if _, err := a.read(name); err != nil && (s.Verify != verifyOff || !l.c.opts.mayMiss(name)) {
			return err
		}
	}
	if s.crl != "" {
		if err := a.readRevoked(l.c.opts.confRelative(s.crl)); err != nil {
			return err
		}
	}
	t.trusted = a.known
	if s.Verify != verifyOff {
		t.authorities = a
	}
	return nil
}

// optional says whether ssl_verify_client optional_no_ca lets the result pass
// (ngx_ssl_verify_error_optional).
func (r verifyResult) optional() bool { return r.code >= 18 && r.code <= 21 }

// clientVerdict is what a server makes of the certificate of a client.
type clientVerdict struct {
	by      *tlsServer
	result  verifyResult
	revoked string // what ssl_ocsp found wrong; "" for nothing
}

// verdict looks at what the client has shown, once for each server. Unlike nginx,
// which keeps the result with the session, it is done again when a session is
// resumed and when a new configuration counts: what has been revoked or has
// expired since is refused. Requests of one connection may ask side by side.
func (h *handshake) verdict(t *tlsServer) *clientVerdict {
	if v := h.verified.Load(); v != nil && (v.by == t || t == nil) {
		return v
	}
	v := &clientVerdict{by: t}
	if shown := h.state.PeerCertificates; len(shown) > 0 && t != nil && t.authorities != nil {
		var chain []*x509.Certificate
		if chain, v.result = t.authorities.verify(shown, time.Now()); v.result == verifyOK && t.ocsp != nil {
			v.revoked = t.ocsp.check(h, chain)
		}
	} else {
		v.result = verifyOK
	}
	h.verified.Store(v)
	return v
}

// verdict is that of the server that the client's name chose, nil without TLS.
func (c *client) verdict() *clientVerdict {
	if c.secure == nil {
		return nil
	}
	server := c.endpoint.fallback
	if c.sni != nil {
		server = c.sni
	}
	t := server.Level.Conf.SSL.server
	if t == nil { // the name is known, but has no certificate of its own
		t = c.endpoint.fallback.Level.Conf.SSL.server
	}
	return c.secure.verdict(t)
}

// checkClient refuses requests to a listener with ssl that came in without TLS,
// or without the certificate that the server asks for
// (ngx_http_process_request).
func (x *Exchange) checkClient() Code {
	if x.client.secure == nil {
		x.Logf(logInfo, "client sent plain HTTP request to HTTPS port while reading client request headers")
		return statusToHTTPS
	}
	return x.checkCertificate(" while reading client request headers")
}

// checkCertificate refuses clients without the certificate that the server asks
// for. doing is what the log is told beside that.
func (x *Exchange) checkCertificate(doing string) Code {
	h := x.client.secure
	want := x.server.Level.Conf.SSL.Verify
	if want == verifyOff {
		return OK
	}
	v := x.client.verdict()
	if v.result != verifyOK && (want != verifyOptionalNoCA || !v.result.optional()) {
		x.Logf(logInfo, "client SSL certificate verify error: (%d:%s)%s", v.result.code, v.result.text, doing)
		h.sessions.forget()
		return statusCertError
	}
	if v.revoked != "" {
		x.Logf(logInfo, "client SSL certificate verify error: %s%s", v.revoked, doing)
		h.sessions.forget()
		return statusCertError
	}
	if want == verifyOn && len(h.state.PeerCertificates) == 0 {
		x.Logf(logInfo, "client sent no required SSL certificate%s", doing)
		h.sessions.forget()
		return statusNoCert
	}
	return OK
}
