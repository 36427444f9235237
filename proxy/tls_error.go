package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Failed handshakes in the words of OpenSSL: operators search their logs for
// these.

// handshakeProblem says why a handshake has failed.
func handshakeProblem(err error) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return errorWithCode("peer closed connection in SSL handshake", err).Error()
	}
	return "SSL_do_handshake() failed (" + opensslReason(err) + ")"
}

// handshakeLevel is higher where the fault is ours: a certificate that cannot be
// had.
func handshakeLevel(err error) logLevel {
	if errors.Is(err, errCertificate) || strings.Contains(err.Error(), "no certificate") {
		return logCrit
	}
	return logInfo
}

// opensslReason words an error of crypto/tls.
func opensslReason(err error) string {
	var alert tls.AlertError
	text := err.Error()
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && op.Err != nil {
		return remoteAlert(op.Err.Error())
	}
	if errors.As(err, &alert) {
		return remoteAlert(alert.Error())
	}
	for _, r := range []struct{ has, reason string }{
		{"offered only unsupported versions", "0A000102:SSL routines::unsupported protocol"},
		{"no cipher suite supported by both", "0A0000C1:SSL routines::no shared cipher"},
		{"unsupported application protocols", "0A0000EB:SSL routines::no application protocol"},
		{"invalid server key share", "0A00006C:SSL routines::bad key share"},
		{"invalid client key share", "0A00006C:SSL routines::bad key share"},
		{"no ECDHE curve supported", "0A000065:SSL routines::no suitable key share"},
		{"no key exchanges supported", "0A000065:SSL routines::no suitable key share"},
		{"peer doesn't support any of the certificate's signature algorithms", "0A000076:SSL routines::no suitable signature algorithm"},
		{"does not look like a TLS handshake", "0A00010B:SSL routines::wrong version number"},
		{"unsupported SSLv2 handshake", "0A00010B:SSL routines::wrong version number"},
		{"handshake message of length", "0A000098:SSL routines::excessive message size"},
		{"oversized record", "0A0000C6:SSL routines::packet length too long"},
		{"bad record MAC", "0A000119:SSL routines::decryption failed or bad record mac"},
		{"inappropriate protocol fallback", "0A000175:SSL routines::inappropriate fallback"},
		{"PSK binder", "0A0000FD:SSL routines::binder does not verify"},
		{"finished", "0A000095:SSL routines::digest check failed"},
		{"bad certificate", "0A000086:SSL routines::certificate verify failed"},
		{"unexpected message", "0A0000F4:SSL routines::unexpected message"},
		{errCertificate.Error(), "0A000179:SSL routines::cert cb error"},
		{"no certificate", "0A0000B3:SSL routines::no certificate set"},
		{"unmarshal", "0A00009F:SSL routines::length mismatch"},
	} {
		if strings.Contains(text, r.has) {
			return "SSL: error:" + r.reason
		}
	}
	return "SSL: " + text
}

// remoteAlert words an alert that the peer sent, by crypto/tls's text for it.
func remoteAlert(text string) string {
	text = strings.TrimPrefix(text, "tls: ")
	for _, a := range alerts() {
		if strings.Contains(text, a.has) {
			return alertText(a.number)
		}
	}
	return "SSL: remote alert " + text
}

// alertText words an alert as OpenSSL does, by 1000 and its number.
func alertText(number int) string {
	for _, a := range alerts() {
		if a.number == number {
			return fmt.Sprintf("SSL: error:0A000%03X:SSL routines::%s:SSL alert number %d", 1000+number, a.name, number)
		}
	}
	return fmt.Sprintf("SSL: error:0A000%03X:SSL routines::reason(%d):SSL alert number %d", 1000+number, 1000+number, number)
}

// alert is one of RFC 8446, section 6.
type alert struct {
	has    string // in crypto/tls's text
	number int
	name   string // in OpenSSL's
}

func alerts() []alert {
	return []alert{
		{"unexpected message", 10, "sslv3 alert unexpected message"},
		{"bad record MAC", 20, "sslv3 alert bad record mac"},
		{"handshake failure", 40, "sslv3 alert handshake failure"},
		{"bad certificate", 42, "sslv3 alert bad certificate"},
		{"unsupported certificate", 43, "sslv3 alert unsupported certificate"},
		{"revoked certificate", 44, "sslv3 alert certificate revoked"},
		{"expired certificate", 45, "sslv3 alert certificate expired"},
		{"unknown certificate authority", 48, "tlsv1 alert unknown ca"},
		{"unknown certificate", 46, "sslv3 alert certificate unknown"},
		{"illegal parameter", 47, "sslv3 alert illegal parameter"},
		{"access denied", 49, "tlsv1 alert access denied"},
		{"error decoding message", 50, "tlsv1 alert decode error"},
		{"error decrypting message", 51, "tlsv1 alert decrypt error"},
		{"protocol version not supported", 70, "tlsv1 alert protocol version"},
		{"insufficient security level", 71, "tlsv1 alert insufficient security"},
		{"internal error", 80, "tlsv1 alert internal error"},
		{"user canceled", 90, "tlsv1 alert user cancelled"},
		{"unrecognized name", 112, "tlsv1 unrecognized name"},
	}
}
