package proxy

import (
	"bytes"
	"crypto/tls"
	"net/netip"
)

// A certificate authority makes sure that a name is served here: by a request
// on port 80 (HTTP-01, RFC 8555, section 8.3) or by a handshake on port 443
// (TLS-ALPN-01, RFC 8737). The answers come before anything that the
// configuration says, on every address it listens on. A challenge that is not
// ours goes the way of all requests: it may be meant for another client of the
// authority, by a location or behind proxy_pass.

var challengePrefix = []byte("/.well-known/acme-challenge/")

// answerChallenge answers a request that one of our challenges waits for.
func (x *Exchange) answerChallenge() bool {
	get := x.client.rt.opts.Challenge
	if get == nil || !bytes.HasPrefix(x.uri, challengePrefix) || !x.isMethod("GET") {
		return false
	}
	body, ours := get(string(x.host), string(x.uri))
	if !ours {
		return false
	}
	x.finalize(x.SendText(200, []byte("text/plain"), []byte(body)))
	return true
}

// challengeProtocol is what only a certificate authority offers by ALPN.
const challengeProtocol = "acme-tls/1"

// challengeConfig sets up a handshake that one of our challenges waits for; nil
// for all others.
func (c *client) challengeConfig(hello *tls.ClientHelloInfo) *tls.Config {
	get := c.rt.opts.ChallengeCertificate
	if get == nil || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != challengeProtocol {
		return nil
	}
	cert := get(hello.ServerName)
	if cert == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{*cert},
	}
}

// isChallenge says whether the handshake was all that the client wanted.
func isChallenge(conn *tls.Conn) bool {
	return conn.ConnectionState().NegotiatedProtocol == challengeProtocol
}

// challengePorts lists where challenges can be answered.
func (t *Table) challengePorts() ChallengePorts {
	var p ChallengePorts
	for _, s := range t.sockets {
		if s.network == "unix" || s.options.quic || s.fallback.stream && !s.options.ssl {
			continue
		}
		into := &p.HTTP
		if s.options.ssl {
			into = &p.TLS
		}
		*into = append(*into, s.address)
	}
	return p
}

// ChallengePorts are the addresses that a configuration listens on.
type ChallengePorts struct {
	HTTP, TLS []netip.AddrPort
}
