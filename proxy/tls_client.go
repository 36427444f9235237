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
		if _, err := a.read(l.c.opts.confRelative(s.trusted)); err != nil {
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

// verifyClient looks at what a client has shown. Unlike nginx, which keeps the result
// with the session, it is done again when a session is resumed: what has been
// revoked or has expired since is refused.
func (h *handshake) verifyClient() {
	h.verify, h.revoked = verifyOK, ""
	shown, t := h.state.PeerCertificates, h.server
	if t == nil || t.authorities == nil || len(shown) == 0 {
		return
	}
	var chain []*x509.Certificate
	if chain, h.verify = t.authorities.verify(shown, time.Now()); h.verify == verifyOK && t.ocsp != nil {
		h.revoked = t.ocsp.check(h.client, chain)
	}
}

// checkClient refuses requests to a listener with ssl that came in without TLS,
// or without the certificate that the server asks for
// (ngx_http_process_request).
func (x *Exchange) checkClient() Code {
	h := x.client.secure
	if h == nil {
		x.Logf(logInfo, "client sent plain HTTP request to HTTPS port while reading client request headers")
		return statusToHTTPS
	}
	want := x.server.Level.Conf.SSL.Verify
	if want == verifyOff {
		return OK
	}
	if h.verify != verifyOK && (want != verifyOptionalNoCA || !h.verify.optional()) {
		x.Logf(logInfo, "client SSL certificate verify error: (%d:%s) while reading client request headers", h.verify.code, h.verify.text)
		h.sessions.forget()
		return statusCertError
	}
	if h.revoked != "" {
		x.Logf(logInfo, "client SSL certificate verify error: %s while reading client request headers", h.revoked)
		h.sessions.forget()
		return statusCertError
	}
	if want == verifyOn && len(h.state.PeerCertificates) == 0 {
		x.Logf(logInfo, "client sent no required SSL certificate while reading client request headers")
		h.sessions.forget()
		return statusNoCert
	}
	return OK
}
