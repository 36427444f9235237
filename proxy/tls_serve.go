package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/sock"
)

// The handshake, and what it decides.

// handshake is one TLS connection: what the client asked for and what it got.
type handshake struct {
	client   *client
	outer    tls.Config // chooses inner by the name the client sends
	inner    tls.Config
	sessions sessions
	server   *tlsServer // whose certificates and settings count
	rejected bool
	offered  offer
	state    tls.ConnectionState // afterwards
	verify   verifyResult
}

// offer is what the client offered, for variables.
type offer struct {
	name    string
	ciphers []uint16
	curves  []tls.CurveID
	sigalgs []tls.SignatureScheme
}

// transport is the connection below TLS: what has been read of it before the
// handshake comes first.
type transport struct {
	*sock.Conn
	head []byte
	buf  *[]byte // that head lies in
}

// helloSize holds all of most first messages.
const helloSize = 2 << 10

var helloBuffers = sync.Pool{New: func() any { b := make([]byte, helloSize); return &b }}

func (t *transport) Read(p []byte) (int, error) {
	if t.buf == nil {
		return t.Conn.Read(p)
	}
	n := copy(p, t.head)
	if t.head = t.head[n:]; len(t.head) == 0 {
		t.free()
	}
	return n, nil
}

func (t *transport) free() {
	if t.buf != nil {
		helloBuffers.Put(t.buf)
		t.head, t.buf = nil, nil
	}
}

// serveTLS serves a connection to a listener with ssl. Whoever does not speak
// TLS is told so by an answer to its first request (ngx_http_ssl_handshake).
func (c *client) serveTLS(nc *sock.Conn) {
	core := &c.endpoint.fallback.Level.Conf.Core
	nc.SetTimeout(core.HeaderTimeout)
	nc.ReadUntil(core.HeaderTimeout)
	t := &transport{Conn: nc, buf: helloBuffers.Get().(*[]byte)}
	n, err := nc.Read(*t.buf)
	if err != nil {
		t.free()
		_ = nc.Close()
		c.endedEarly(nc, tlsHandshaking, err)
		return
	}
	t.head = (*t.buf)[:n]
	if first := t.head[0]; first != 0x16 && first&0x80 == 0 {
		nc.ReadUntil(0)
		c.insecure = true
		read := append([]byte(nil), t.head...)
		t.free()
		c.servePlain(nc, read)
		return
	}
	h := c.newHandshake()
	conn := tls.Server(t, &h.outer)
	err = conn.Handshake()
	t.free()
	nc.ReadUntil(0)
	if err != nil {
		_ = nc.Close()
		h.failed(nc, err)
		return
	}
	if isChallenge(conn) {
		_ = conn.Close()
		return
	}
	h.done(conn)
	hc := http1.NewConn(conn, nc, h.connConfig(), c.serveHTTP1)
	c.http1 = http1Stream{client: c, conn: hc}
	c.life.onEnd(hc.Shutdown, hc.Abort)
	hc.Serve()
}

// tlsHandshaking is what a connection does before its first request.
const tlsHandshaking = "SSL handshaking"

// newHandshake prepares the handshake of a connection.
func (c *client) newHandshake() *handshake {
	h := &handshake{client: c}
	c.secure = h
	h.outer.GetConfigForClient = h.choose
	h.outer.SessionTicketsDisabled = true // inner has its own
	return h
}

// choose finds the server of the name that the client sends, and sets the
// connection up as it says (ngx_http_ssl_servername).
//
// As in nginx the session cache, the lifetime of sessions, the keys of tickets
// and the curves are those of the default server: OpenSSL keeps them with the
// context that a connection begins with.
func (h *handshake) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := h.client
	if config := c.challengeConfig(hello); config != nil {
		return config, nil
	}
	c.sni, c.sniName = nil, ""
	server := c.endpoint.fallback
	if name, _ := parseHost([]byte(hello.ServerName), nil); name.ok && len(name.name) > 0 {
		if s := c.endpoint.find(name.name, nil); s != nil {
			server = s
			c.sni, c.sniName = s, string(name.name)
		}
	}
	h.offered = offer{hello.ServerName, hello.CipherSuites, hello.SupportedCurves, hello.SignatureSchemes}
	initial := c.endpoint.fallback.Level.Conf.SSL.server
	h.server = server.Level.Conf.SSL.server
	if h.server == nil { // the name is known, but has no certificate of its own
		h.server = initial
	}
	if h.server == nil { // only after a reload that took ssl away
		return nil, errNoTLS
	}
	if initial == nil {
		initial = h.server
	}
	h.configure(hello, server, initial)
	return &h.inner, nil
}

var errNoTLS = errors.New("no TLS on this address any more")

// configure fills in inner.
func (h *handshake) configure(hello *tls.ClientHelloInfo, server *Server, initial *tlsServer) {
	t, c, in := h.server, h.client, &h.inner
	in.MinVersion, in.MaxVersion = t.versionsFor(hello)
	in.CipherSuites = t.suites
	in.CurvePreferences = initial.curves
	if server.Level.Conf.SSL.rejectHandshake {
		h.rejected = true
		in.SessionTicketsDisabled = true
		in.GetCertificate = noCertificate
		return
	}
	in.GetCertificate = h.certificate
	in.NextProtos = alpn()
	if t.authorities != nil {
		in.ClientAuth = tls.RequestClientCert
		in.ClientCAs = t.authorities.named
	}
	stateful := initial.cache.kind == cacheOn
	if !t.tickets && !stateful {
		in.SessionTicketsDisabled = true
		return
	}
	h.sessions = sessions{zone: c.rt.sessions.zone(&initial.cache, initial.site), timeout: initial.timeout, context: t.context}
	if t.tickets {
		h.sessions.keyring = initial.keyring
		if h.sessions.keyring == nil {
			h.sessions.keyring = h.sessions.zone.ring(initial.timeout)
		}
	}
	in.WrapSession, in.UnwrapSession = h.sessions.wrap, h.sessions.unwrap
}

// alpn gives what is offered by ALPN, in the order of preference.
func alpn() []string { return protocolsHTTP1 }

var protocolsHTTP1 = []string{"http/1.1", "http/1.0", "http/0.9"}

// noCertificate has the handshake refused with unrecognized_name.
func noCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, nil //nolint:nilnil // what crypto/tls wants to hear
}

func (h *handshake) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	get := h.client.rt.opts.Certificate
	if get == nil || len(h.server.pairs) == 0 {
		return nil, nil //nolint:nilnil // as above
	}
	return get(h.server.site, hello)
}

// versionsFor gives the lowest and the highest version for a client. A set with
// a gap cannot be said to crypto/tls: then it is the one that the client gets.
func (t *tlsServer) versionsFor(hello *tls.ClientHelloInfo) (least, most uint16) {
	least, most = protocolRange(t.versions)
	if least == 0 { // SSLv2 and SSLv3 only: nothing fits
		return tls.VersionTLS13, tls.VersionTLS12
	}
	n := 0
	for v := least; v <= most; v++ {
		if t.versions&protocolBit(v) != 0 {
			n++
		}
	}
	if n == int(most-least)+1 {
		return least, most
	}
	for _, v := range hello.SupportedVersions { // highest first
		if v >= least && v <= most && t.versions&protocolBit(v) != 0 {
			return v, v
		}
	}
	return most, least
}

// protocolBit gives the bit of a version from TLS 1.0 on.
func protocolBit(version uint16) uint32 { return protocolTLS10 << (version - tls.VersionTLS10) }

// protocolRange gives the lowest and the highest version of a set, 0 for none.
func protocolRange(set uint32) (least, most uint16) {
	for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
		if set&protocolBit(v) == 0 {
			continue
		}
		if least == 0 {
			least = v
		}
		most = v
	}
	return least, most
}

// done notes the outcome of a handshake.
func (h *handshake) done(conn *tls.Conn) {
	h.client.tls = conn
	h.state = conn.ConnectionState()
	if h.server != nil {
		h.verify = h.server.authorities.verify(h.state.PeerCertificates, time.Now())
	}
}

// follow looks the server up again in a new generation: what it asks of clients
// may be something else.
func (h *handshake) follow() {
	c := h.client
	server := c.endpoint.fallback
	if c.sniName != "" {
		if c.sni = c.endpoint.find([]byte(c.sniName), nil); c.sni != nil {
			server = c.sni
		}
	}
	if t := server.Level.Conf.SSL.server; t != nil && t != h.server {
		h.server = t
		h.verify = t.authorities.verify(h.state.PeerCertificates, time.Now())
	}
}

// connConfig gives how the connection is read and written: as the server says
// that the client's name chose, nginx's hc->conf_ctx.
func (h *handshake) connConfig() *http1.ConnConfig {
	c := h.client
	if c.sni == nil || c.sni == c.endpoint.fallback {
		return c.endpoint.config()
	}
	return connConfig(&c.sni.Level.Conf.Core)
}

// failed logs a handshake that did not succeed, in the words of OpenSSL where it
// has some. All of it is the client's doing, and so of level info.
func (h *handshake) failed(nc *sock.Conn, err error) {
	c := h.client
	switch {
	case nc.Aborted():
	case h.rejected:
		c.logf(logInfo, tlsHandshaking, "handshake rejected")
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.logf(logInfo, tlsHandshaking, "client timed out (110: Connection timed out)")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		c.logf(logInfo, tlsHandshaking, "%v", errorWithCode("peer closed connection in SSL handshake", err))
	default:
		c.logf(handshakeLevel(err), tlsHandshaking, "SSL_do_handshake() failed (%s)", opensslReason(err))
	}
}

// handshakeLevel is higher where the fault is ours: a certificate that cannot be
// had.
func handshakeLevel(err error) logLevel {
	if strings.Contains(err.Error(), "no certificate") {
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
