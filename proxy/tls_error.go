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

// remoteAlert words an alert that the client sent: OpenSSL gives 1000 and the
// number of the alert.
func remoteAlert(text string) string {
	text = strings.TrimPrefix(text, "tls: ")
	for _, a := range []struct {
		has    string
		number int
		name   string
	}{
		{"unexpected message", 10, "unexpected message"},
		{"bad record MAC", 20, "bad record mac"},
		{"handshake failure", 40, "handshake failure"},
		{"bad certificate", 42, "bad certificate"},
		{"unsupported certificate", 43, "unsupported certificate"},
		{"revoked certificate", 44, "certificate revoked"},
		{"expired certificate", 45, "certificate expired"},
		{"unknown certificate authority", 48, "unknown ca"},
		{"unknown certificate", 46, "certificate unknown"},
		{"illegal parameter", 47, "illegal parameter"},
		{"error decoding message", 50, "decode error"},
		{"error decrypting message", 51, "decrypt error"},
		{"protocol version not supported", 70, "protocol version"},
		{"insufficient security level", 71, "insufficient security"},
		{"internal error", 80, "internal error"},
		{"user canceled", 90, "user cancelled"},
		{"unrecognized name", 112, "unrecognized name"},
	} {
		if strings.Contains(text, a.has) {
			kind := "sslv3 alert" // the name of those that SSL 3 had already
			if a.number > 47 {
				kind = "tlsv1 alert"
			}
			return fmt.Sprintf("SSL: error:0A000%03X:SSL routines::%s %s:SSL alert number %d", 1000+a.number, kind, a.name, a.number)
		}
	}
	return "SSL: remote alert " + text
}
