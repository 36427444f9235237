package proxy

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// ocspClient asks responders whether certificates have been revoked (RFC 6960).
type ocspClient struct {
	http http.Client
}

// Bounds of an answer.
const (
	ocspTimeout = time.Minute
	ocspSize    = 64 << 10
	ocspSkew    = 5 * time.Minute // how much clocks may differ
)

// newOCSPClient makes a client that finds names by the resolver directive, else,
// if it may, by the system.
func newOCSPClient(names nameService, system bool) *ocspClient {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			switch {
			case names.resolver.HasServers():
				inner, cancel := names.context(ctx)
				defer cancel()
				found, err := names.resolver.Lookup(inner, nil, host)
				if err != nil {
					return nil, &lookupError{fmt.Sprintf("%s could not be resolved (%v)", host, err)}
				}
				address = net.JoinHostPort(found[0].String(), port)
			case !system:
				return nil, &lookupError{"no resolver defined to resolve " + host}
			}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return &ocspClient{http.Client{
		Timeout:       ocspTimeout,
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ocspQuery is about one certificate.
type ocspQuery struct {
	responder    string // a URL
	cert, issuer *x509.Certificate
	verify       bool // whoever signs the answer must be entitled to it
}

// ask gets an answer that is genuine and of today. The errors are nginx's.
func (c *ocspClient) ask(ctx context.Context, q *ocspQuery) ([]byte, *ocsp.Response, error) {
	request, err := ocsp.CreateRequest(q.cert, q.issuer, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("OCSP_cert_to_id() failed (%w)", err)
	}
	at := strings.TrimSuffix(q.responder, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, nil, responderError(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, errors.New("OCSP responder sent invalid response")
	}
	if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); kind != "application/ocsp-response" {
		return nil, nil, fmt.Errorf("OCSP responder sent invalid \"Content-Type\" header: %q", answer.Header.Get("Content-Type"))
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, ocspSize))
	if err != nil {
		return nil, nil, responderError(err)
	}
	response, err := q.read(raw, time.Now())
	return raw, response, err
}

// lookupError is a name that has not been found, in nginx's words.
type lookupError struct{ text string }

func (e *lookupError) Error() string { return e.text }

// responderError words an error of the connection.
func responderError(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		if at.Timeout() {
			return errors.New("OCSP responder timed out (110: Connection timed out)")
		}
		err = at.Err
	}
	var lost *lookupError
	switch {
	case errors.As(err, &lost):
		return lost
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("OCSP responder prematurely closed connection")
	case errnoOf(err) != 0:
		return errorWithCode("connect() failed", err)
	}
	return fmt.Errorf("OCSP responder sent invalid response (%w)", err)
}

// read takes an answer apart and checks it (ngx_ssl_ocsp_verify).
func (q *ocspQuery) read(raw []byte, now time.Time) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(raw, q.cert, nil)
	var refused ocsp.ResponseError
	switch {
	case errors.As(err, &refused):
		return nil, fmt.Errorf("OCSP response not successful (%d: %s)", int(refused.Status), refused.Status)
	case err != nil && strings.Contains(err.Error(), "no response matching"):
		return nil, errors.New("certificate status not found in the OCSP response")
	case err != nil:
		return nil, fmt.Errorf("d2i_OCSP_RESPONSE() failed (%w)", err)
	case q.signed(r, now) != nil:
		return nil, fmt.Errorf("OCSP_basic_verify() failed (%w)", q.signed(r, now))
	case r.ThisUpdate.After(now.Add(ocspSkew)), !r.NextUpdate.IsZero() && r.NextUpdate.Before(now.Add(-ocspSkew)):
		return nil, errors.New("OCSP_check_validity() failed")
	}
	return r, nil
}

// signed checks who has signed: the issuer of the certificate, or somebody whom
// it has entitled (RFC 6960, section 4.2.2.2).
func (q *ocspQuery) signed(r *ocsp.Response, now time.Time) error {
	by := r.Certificate
	switch {
	case by == nil:
		return r.CheckSignatureFrom(q.issuer)
	case !q.verify, bytes.Equal(by.Raw, q.issuer.Raw): // that by has signed is known
		return nil
	case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("SSL: error:13800067:OCSP routines::missing ocspsigning usage")
	case now.Before(by.NotBefore) || now.After(by.NotAfter):
		return errors.New("SSL: error:13800065:OCSP routines::certificate verify error:Verify error: certificate has expired")
	}
	return by.CheckSignatureFrom(q.issuer)
}

// responderURL checks where a responder is said to be. The error says what is
// wrong with it, as nginx does.
func responderURL(text string) (string, error) {
	if len(text) <= len("http://") || !strings.EqualFold(text[:len("http://")], "http://") {
		return "", errors.New("invalid URL prefix")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "", errors.New("no host")
	}
	return u.String(), nil
}

// resolvable says whether the host of a URL is known to the system.
func resolvable(text string) error {
	u, err := url.Parse(text)
	if err == nil {
		_, err = net.LookupHost(u.Hostname())
	}
	if err != nil {
		return errors.New("host not found")
	}
	return nil
}

// issuerOf finds who has issued a certificate.
func issuerOf(cert *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, c := range among {
		if bytes.Equal(c.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}
