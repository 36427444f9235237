package proxy

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // a name for a certificate, no protection
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strconv"
	"time"
)

// The variables of ngx_http_ssl_module, in OpenSSL's spelling.

// sslVariables gives all of them.
func sslVariables() []Variable {
	return append(handshakeVariables(), certificateVariables()...)
}

// ofHandshake makes the row of a variable of the connection. One that is empty
// has no value, as without TLS.
func ofHandshake(name string, get func(dst []byte, h *handshake) []byte) Variable {
	return Variable{Name: name, Changeable: true, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
		h := x.client.secure
		if h == nil {
			return dst, false
		}
		n := len(dst)
		dst = get(dst, h)
		return dst, len(dst) > n
	}}
}

// ofCertificate makes the row of a variable of the client's certificate.
func ofCertificate(name string, get func(dst []byte, cert *x509.Certificate) []byte) Variable {
	return ofHandshake(name, func(dst []byte, h *handshake) []byte {
		if len(h.state.PeerCertificates) == 0 {
			return dst
		}
		return get(dst, h.state.PeerCertificates[0])
	})
}

func handshakeVariables() []Variable {
	none := func(dst []byte, _ *handshake) []byte { return dst }
	return []Variable{
		ofHandshake("ssl_protocol", func(dst []byte, h *handshake) []byte { return append(dst, protocolName(h.state.Version)...) }),
		ofHandshake("ssl_cipher", func(dst []byte, h *handshake) []byte { return append(dst, cipherNames[h.state.CipherSuite]...) }),
		ofHandshake("ssl_ciphers", func(dst []byte, h *handshake) []byte {
			return appendNames(dst, h.offered.ciphers, func(id uint16) string { return cipherNames[id] })
		}),
		ofHandshake("ssl_curve", func(dst []byte, h *handshake) []byte {
			if h.state.CurveID == 0 {
				return dst
			}
			return appendNames(dst, []tls.CurveID{h.state.CurveID}, groupName)
		}),
		ofHandshake("ssl_curves", func(dst []byte, h *handshake) []byte { return appendNames(dst, h.offered.curves, groupName) }),
		// OpenSSL before 4.0 knows no names for these, and nginx shows numbers.
		ofHandshake("ssl_sigalgs", func(dst []byte, h *handshake) []byte {
			return appendNames(dst, h.offered.sigalgs, func(tls.SignatureScheme) string { return "" })
		}),
		ofHandshake("ssl_sigalg", func(dst []byte, h *handshake) []byte { return append(dst, h.signature()...) }),
		// Go's TLS library does not tell which signature a client made. It shows where
		// its key allows of one only.
		ofHandshake("ssl_client_sigalg", func(dst []byte, h *handshake) []byte {
			if len(h.state.PeerCertificates) == 0 || h.state.DidResume || h.state.Version != tls.VersionTLS13 {
				return dst
			}
			return append(dst, schemeNames[schemeOfKey(h.state.PeerCertificates[0].PublicKey)]...)
		}),
		ofHandshake("ssl_session_id", func(dst []byte, h *handshake) []byte {
			if !h.sessions.known {
				return dst
			}
			return hex.AppendEncode(dst, h.sessions.note.id[:])
		}),
		ofHandshake("ssl_session_reused", func(dst []byte, h *handshake) []byte {
			if h.state.DidResume {
				return append(dst, 'r')
			}
			return append(dst, '.')
		}),
		ofHandshake("ssl_early_data", func(dst []byte, h *handshake) []byte {
			if h.early != nil && h.early() {
				return append(dst, '1')
			}
			return dst
		}),
		ofHandshake("ssl_server_name", func(dst []byte, h *handshake) []byte { return append(dst, h.offered.name...) }),
		ofHandshake("ssl_alpn_protocol", func(dst []byte, h *handshake) []byte { return append(dst, h.state.NegotiatedProtocol...) }),
		// Encrypted hellos need OpenSSL 4.0.
		ofHandshake("ssl_ech_status", none),
		ofHandshake("ssl_ech_outer_server_name", none),
		{Name: "ssl_client_verify", Changeable: true, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
			v := x.client.verdict()
			switch {
			case v == nil:
				return dst, false
			case len(x.client.secure.state.PeerCertificates) == 0:
				return append(dst, "NONE"...), true
			case v.result != verifyOK:
				return append(append(dst, "FAILED:"...), v.result.text...), true
			case v.revoked != "":
				return append(append(dst, "FAILED:"...), v.revoked...), true
			}
			return append(dst, "SUCCESS"...), true
		}},
	}
}

func certificateVariables() []Variable {
	return []Variable{
		ofCertificate("ssl_client_raw_cert", appendCertificate),
		ofCertificate("ssl_client_cert", func(dst []byte, cert *x509.Certificate) []byte {
			text := bytes.TrimSuffix(appendCertificate(nil, cert), []byte("\n"))
			return append(dst, bytes.ReplaceAll(text, []byte("\n"), []byte("\n\t"))...)
		}),
		ofCertificate("ssl_client_escaped_cert", func(dst []byte, cert *x509.Certificate) []byte {
			return appendEscaped(dst, appendCertificate(nil, cert), &escapeComponent)
		}),
		ofCertificate("ssl_client_s_dn", func(dst []byte, cert *x509.Certificate) []byte { return appendName(dst, cert.RawSubject) }),
		ofCertificate("ssl_client_i_dn", func(dst []byte, cert *x509.Certificate) []byte { return appendName(dst, cert.RawIssuer) }),
		ofCertificate("ssl_client_s_dn_legacy", func(dst []byte, cert *x509.Certificate) []byte {
			return appendNameOnLine(dst, cert.RawSubject)
		}),
		ofCertificate("ssl_client_i_dn_legacy", func(dst []byte, cert *x509.Certificate) []byte {
			return appendNameOnLine(dst, cert.RawIssuer)
		}),
		ofCertificate("ssl_client_serial", appendSerial),
		ofCertificate("ssl_client_fingerprint", func(dst []byte, cert *x509.Certificate) []byte {
			sum := sha1.Sum(cert.Raw) //nolint:gosec // as above
			return hex.AppendEncode(dst, sum[:])
		}),
		ofCertificate("ssl_client_v_start", func(dst []byte, cert *x509.Certificate) []byte {
			return appendCertificateTime(dst, cert.NotBefore)
		}),
		ofCertificate("ssl_client_v_end", func(dst []byte, cert *x509.Certificate) []byte {
			return appendCertificateTime(dst, cert.NotAfter)
		}),
		ofCertificate("ssl_client_v_remain", func(dst []byte, cert *x509.Certificate) []byte {
			const day = 24 * time.Hour
			return strconv.AppendInt(dst, max(0, int64(time.Until(cert.NotAfter)/day)), 10)
		}),
	}
}

// escapeComponent leaves only what RFC 3986 calls unreserved.
var escapeComponent = makeEscapes("!\"#$%&'()*+,/:;<=>?@[\\]^`{|}")

func appendCertificate(dst []byte, cert *x509.Certificate) []byte {
	return append(dst, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
}

// appendSerial appends whole bytes in capital letters, as i2a_ASN1_INTEGER does.
func appendSerial(dst []byte, cert *x509.Certificate) []byte {
	n := cert.SerialNumber
	if n.Sign() < 0 {
		dst = append(dst, '-')
	}
	b := n.Bytes()
	if len(b) == 0 {
		return append(dst, "00"...)
	}
	at := len(dst)
	dst = hex.AppendEncode(dst, b)
	copy(dst[at:], bytes.ToUpper(dst[at:]))
	return dst
}

func appendCertificateTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "Jan _2 15:04:05 2006 GMT")
}

// appendNames appends names separated by ":"; what has none as its number.
func appendNames[T ~uint16](dst []byte, ids []T, name func(T) string) []byte {
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ':')
		}
		if n := name(id); n != "" {
			dst = append(dst, n...)
			continue
		}
		dst = hex.AppendEncode(append(dst, "0x"...), []byte{byte(id >> 8), byte(id)})
	}
	return dst
}

func groupName(id tls.CurveID) string { return groupNames[id] }

// protocolName is OpenSSL's name of a version.
func protocolName(version uint16) string {
	switch version {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	}
	return "TLSv1.3"
}
