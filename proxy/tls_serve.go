package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyctl/proxy/http1"
	"proxyctl/proxy/http3"
	"proxyctl/proxy/sock"
)

// The handshake, and what it decides.

// handshake is one TLS connection: what the client asked for and what it got.
type handshake struct {
	client   *client
	session  *Exchange  // that it belongs to; nil for one that requests follow
	outer    tls.Config // chooses inner by the name the client sends
	inner    tls.Config
	sessions sessions
	server   *tlsServer // whose certificates and settings count
	rejected bool
	offered  offer
	suites   [2]suite
	shown    *tls.Certificate    // the server's
	state    tls.ConnectionState // afterwards
	verified atomic.Pointer[clientVerdict]
	complete atomic.Bool // over QUIC: it has ended, one way or the other
	early    func() bool // over QUIC: what comes is early data
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
	buf  *[]byte         // that head lies in
	tail [alertSize]byte // what was read last; kept until the handshake is over
	over bool
}

// alertSize is that of an alert in the clear.
const alertSize = 7

// helloSize holds all of most first messages.
const helloSize = 2 << 10

var helloBuffers = sync.Pool{New: func() any { b := make([]byte, helloSize); return &b }}

func (t *transport) Read(p []byte) (int, error) {
	if t.over {
		return t.Conn.Read(p)
	}
	if t.buf == nil {
		n, err := t.Conn.Read(p)
		if n >= alertSize {
			copy(t.tail[:], p[n-alertSize:n])
		}
		return n, err
	}
	n := copy(p, t.head)
	if t.head = t.head[n:]; len(t.head) == 0 {
		t.free()
	}
	return n, nil
}

// alert gives the number of an alert that has come in the clear, and 0 for none.
// Clients built on OpenSSL refuse a certificate so where crypto/tls awaits an
// encrypted record, and takes the alert for a broken one.
func (t *transport) alert() int {
	if a := &t.tail; a[0] == 21 && a[1] == 3 && a[3] == 0 && a[4] == 2 && a[5] == 2 {
		return int(a[6])
	}
	return 0
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
	h := c.newHandshake(nil)
	conn := tls.Server(t, &h.outer)
	err = conn.Handshake()
	t.free()
	t.over = true
	nc.ReadUntil(0)
	if err != nil {
		_ = nc.Close()
		h.failed(t, err)
		return
	}
	if isChallenge(conn) {
		_ = conn.Close()
		return
	}
	h.done(conn.ConnectionState())
	serve := net.Conn(conn)
	if size := h.recordSize(); size > 0 {
		serve = &smallRecords{conn, size}
	}
	if conn.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		c.serveHTTP2(serve, nc, nil)
		return
	}
	hc := http1.NewConn(serve, nc, h.connConfig(), c.serveHTTP1)
	c.http1 = http1Stream{client: c, conn: hc}
	c.life.onEnd(hc.Shutdown, hc.Abort)
	hc.Serve()
	c.logEnd(hc)
}

// maxRecord is the most that a record of TLS can hold.
const maxRecord = 16 << 10

// recordSize is how much goes into one record; 0 for as much as can be.
func (h *handshake) recordSize() int { return h.server.recordSize }

// smallRecords is ssl_buffer_size: what is written goes out in pieces.
type smallRecords struct {
	*tls.Conn
	size int
}

func (r *smallRecords) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > r.size {
		n, err := r.Conn.Write(p[:r.size])
		sent += n
		if err != nil {
			return sent, err
		}
		p = p[r.size:]
	}
	n, err := r.Conn.Write(p)
	return sent + n, err
}

// tlsHandshaking is what a connection does before its first request.
const tlsHandshaking = "SSL handshaking"

// newHandshake prepares the handshake of a connection.
func (c *client) newHandshake(session *Exchange) *handshake {
	h := &handshake{client: c, session: session}
	c.secure = h
	h.outer.GetConfigForClient = h.choose
	h.outer.SessionTicketsDisabled = true // inner has its own
	return h
}

// choose finds the server of the name that the client sends, and sets the
// connection up as it says (ngx_http_ssl_servername, ngx_stream_ssl_servername).
//
// As in nginx the session cache, the lifetime of sessions, the keys of tickets
// and the curves are those of the default server: OpenSSL keeps them with the
// context that a connection begins with.
func (h *handshake) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := h.client
	if h.session == nil { // else it keeps the table it began with
		t := c.rt.acquire()
		c.follow(t) // there may have been a reload since the connection was made
		t.release()
	}
	if config := c.challengeConfig(hello); config != nil && !c.quic {
		return config, nil
	}
	c.sni, c.sniName = nil, ""
	server := c.endpoint.fallback
	if name, _ := parseHost([]byte(hello.ServerName), nil); name.ok && len(name.name) > 0 {
		if s := c.endpoint.find(name.name, h.session); s != nil {
			server = s
			c.sni, c.sniName = s, string(name.name)
		}
	}
	if x := h.session; x != nil {
		x.server, x.loc = server, server.Level
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
	in.CurvePreferences = curvesFor(hello, in.MaxVersion, initial.curves, t.serverChooses)
	in.CipherSuites = h.suitesFor(hello, in.MaxVersion)
	in.DynamicRecordSizingDisabled = true // nginx's records are as large as ssl_buffer_size
	if server.Level.Conf.SSL.rejectHandshake {
		h.rejected = true
		in.SessionTicketsDisabled = true
		in.GetCertificate = noCertificate
		return
	}
	in.GetCertificate = h.certificate
	if h.session != nil {
		in.NextProtos = sessionALPN(t.alpn, hello.SupportedProtos)
	} else {
		in.NextProtos = c.protocols(server)
	}
	if t.authorities != nil {
		in.ClientAuth = tls.RequestClientCert
		in.ClientCAs = t.authorities.named
	}
	h.sessions.off = initial.cache.kind == cacheOff
	stateful := initial.cache.kind == cacheOn
	if !t.tickets && !stateful {
		in.SessionTicketsDisabled = true
		return
	}
	h.sessions = sessions{zone: c.rt.sessionZone(initial), timeout: initial.timeout, context: t.context, off: h.sessions.off}
	if t.tickets {
		if h.sessions.keys = initial.keys; h.sessions.keys == nil {
			h.sessions.keys = h.sessions.zone.ticketKeys(initial.timeout)
		}
	}
	in.WrapSession, in.UnwrapSession = h.sessions.wrap, h.sessions.unwrap
}

// protocols gives what is offered by ALPN, in the order of preference.
func (c *client) protocols(server *Server) []string {
	switch {
	case c.quic && server.Level.Conf.HTTP3.enabled:
		return quicProtocols
	case c.quic:
		return noProtocol
	case c.endpoint.options.http2 || server.Level.Conf.HTTP2.Enabled:
		return protocols
	}
	return protocols[1:]
}

const protocolHTTP2 = "h2"

// noProtocol is what nobody asks for: with it a handshake fails for want of a
// common protocol.
var noProtocol = []string{"none"}

var quicProtocols = []string{http3.Protocol}

var protocols = []string{protocolHTTP2, "http/1.1", "http/1.0", "http/0.9"}

// noCertificate has the handshake refused with unrecognized_name.
func noCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return nil, nil //nolint:nilnil // what crypto/tls wants to hear
}

// certificate gives what is shown: from the files of the server, or from those
// that the client's name leads to.
func (h *handshake) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := h.findCertificate(hello)
	h.shown = cert
	return cert, err
}

func (h *handshake) findCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	t, c := h.server, h.client
	if len(t.sources) > 0 {
		return h.certificateFrom(t.sources, hello)
	}
	get := c.rt.opts.Certificate
	if get == nil || len(t.pairs) == 0 {
		return nil, nil //nolint:nilnil // as above
	}
	cert, err := get(t.site, hello)
	if err != nil {
		return nil, err
	}
	return t.staples.add(cert, hello, c.rt), nil
}

// certificateFrom evaluates the names of certificates, reads these and takes the
// first one that the client can use.
func (h *handshake) certificateFrom(sources []*certSource, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	x := h.session
	if x == nil {
		c := h.client
		t := c.rt.acquire()
		defer t.release()
		x = &Exchange{client: c, table: t, stream: noStream{}, Req: &http1.Request{}, server: c.endpoint.fallback, start: time.Now(), slots: make([]slot, t.http.vars.slots)}
		if c.sni != nil {
			x.server = c.sni
		}
		x.loc = x.server.Level
	}
	nameless := *hello
	nameless.ServerName = "" // else SupportsCertificate looks for it in the certificate
	var first *tls.Certificate
	for _, s := range sources {
		cert, err := s.get(x)
		if err != nil {
			h.logf(logError, "%v", err)
			return nil, errCertificate
		}
		if cert == nil {
			continue
		}
		if nameless.SupportsCertificate(cert) == nil {
			return cert, nil
		}
		if first == nil {
			first = cert
		}
	}
	return first, nil
}

var errCertificate = errors.New("cert cb error")

// curvesFor decides which curves up to TLS 1.2 the client gets: crypto/tls has the
// client's order, nginx the server's where it has its order of suites
// (tls1_shared_group in OpenSSL). From TLS 1.3 on the client's guess counts.
func curvesFor(hello *tls.ClientHelloInfo, most uint16, served []tls.CurveID, serverChooses bool) []tls.CurveID {
	if !serverChooses || most >= tls.VersionTLS13 && slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return served
	}
	list := served
	if list == nil {
		list = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP521, tls.CurveP384}
	}
	for i, id := range list {
		if slices.Contains(hello.SupportedCurves, id) {
			return list[i : i+1]
		}
	}
	return served
}

// suitesFor decides which suite up to TLS 1.2 the client gets: crypto/tls has an
// order of its own, nginx has the client's or, if told so, the server's. There is
// one suite for each type of certificate.
func (h *handshake) suitesFor(hello *tls.ClientHelloInfo, most uint16) []uint16 {
	t := h.server
	version := uint16(0)
	for _, v := range hello.SupportedVersions {
		if v <= most && v > version {
			version = v
		}
	}
	if version >= tls.VersionTLS13 || version < tls.VersionTLS10 {
		return t.suiteIDs
	}
	curve := sharesCurve(hello.SupportedCurves, h.inner.CurvePreferences)
	usable := func(s suite) bool { return (curve || !s.ecdhe) && (version == tls.VersionTLS12 || !s.modern) }
	out := h.suites[:0]
	add := func(s suite) {
		if !usable(s) || len(out) == 1 && out[0].ecdsa == s.ecdsa || len(out) == 2 {
			return
		}
		out = append(out, s)
	}
	if t.serverChooses {
		for _, s := range t.suites {
			if slices.Contains(hello.CipherSuites, s.id) {
				add(s)
			}
		}
	} else {
		for _, id := range hello.CipherSuites {
			if i := slices.IndexFunc(t.suites, func(s suite) bool { return s.id == id }); i >= 0 {
				add(t.suites[i])
			}
		}
	}
	ids := make([]uint16, len(out)) // none: no shared cipher
	for i, s := range out {
		ids[i] = s.id
	}
	return ids
}

// sharesCurve says whether a client can use elliptic curves with the server; nil
// stands for all that Go has.
func sharesCurve(client, server []tls.CurveID) bool {
	if server == nil {
		server = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	return slices.ContainsFunc(client, func(id tls.CurveID) bool { return slices.Contains(server, id) })
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
func (h *handshake) done(state tls.ConnectionState) {
	h.client.tls = true
	h.state = state
	if !h.sessions.known && (!h.sessions.off || h.state.Version >= tls.VersionTLS13) {
		h.sessions.name()
	}
	h.verdict(h.server)
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
func (h *handshake) failed(t *transport, err error) {
	switch {
	case t.Aborted():
	case h.rejected:
		h.logf(logInfo, "handshake rejected")
	case errors.Is(err, os.ErrDeadlineExceeded):
		if h.session == nil { // nginx says nothing about sessions
			h.logf(logInfo, "client timed out (110: Connection timed out)")
		}
	case t.alert() != 0:
		h.logf(logInfo, "SSL_do_handshake() failed (%s)", alertText(t.alert()))
	default:
		h.logf(handshakeLevel(err), "%s", handshakeProblem(err))
	}
}

// logf logs a message about the handshake.
func (h *handshake) logf(level logLevel, format string, a ...any) {
	if h.session != nil { // which says what it does
		h.session.Logf(level, format, a...)
		return
	}
	h.client.logf(level, tlsHandshaking, format, a...)
}
