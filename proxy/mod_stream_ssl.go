package proxy

import (
	"crypto/tls"
	"slices"
	"time"

	"proxyctl/parser"
)

// ngx_stream_ssl_module: what sessions over TLS have for themselves. Everything
// else about TLS towards clients is that of HTTP (mod_ssl.go).

func streamSSLModule() Module {
	return Module{
		Name: "ngx_stream_ssl_module",
		Commands: []Command{
			Time(Command{Name: "ssl_handshake_timeout", In: inStreamLevels, Default: "60s", Doc: "Sets how long a handshake may take."}, func(c *Conf) *time.Duration { return &c.SSL.handshakeTimeout }),
			{Name: "ssl_alpn", In: inStreamLevels, Args: "1+", Syntax: "protocol ...", Doc: "Sets the protocols that are offered by ALPN.", Set: setSessionALPN},
		},
		Phase:   Handshake,
		Handler: func(*Conf) Handler { return handshakeSession },
	}
}

// longestProtocol is how long a name of ALPN can be.
const longestProtocol = 255

func setSessionALPN(l *Level, d *parser.Directive) error {
	for _, a := range d.Args {
		if len(a.Value) > longestProtocol {
			return errAt(a, "", "at most 255 bytes", "protocol too long")
		}
		l.Conf.SSL.alpn.Add(l, a.Value)
	}
	return nil
}

// sessionTLSVariables are those that sessions have in common with requests.
func sessionTLSVariables() []Variable {
	return slices.DeleteFunc(sslVariables(), func(v Variable) bool {
		return slices.Contains([]string{"ssl_early_data", "ssl_client_s_dn_legacy", "ssl_client_i_dn_legacy"}, v.Name)
	})
}

// sessionALPN gives what a client is offered that offers some protocols itself. It
// is refused when nothing fits, where crypto/tls would let HTTP/1.1 pass for h2.
func sessionALPN(ours, theirs []string) []string {
	if len(ours) == 0 || slices.ContainsFunc(ours, func(p string) bool { return slices.Contains(theirs, p) }) {
		return ours
	}
	return []string{""} // no client can have this one
}

// handshakeSession puts TLS over the session's connection, if the listener says
// so, and looks at the client's certificate (ngx_stream_ssl_handler).
func handshakeSession(x *Exchange) Code {
	c := x.client
	if !c.endpoint.options.ssl || x.session.udp {
		return Declined
	}
	x.upstream.action = tlsHandshaking
	timeout := x.loc.Conf.SSL.handshakeTimeout
	c.sock.SetTimeout(timeout)
	c.sock.ReadUntil(timeout)
	h := c.newHandshake(x)
	t := &transport{Conn: c.sock}
	conn := tls.Server(t, &h.outer)
	err := conn.Handshake()
	t.over = true
	c.sock.ReadUntil(0)
	c.sock.SetTimeout(0)
	if err != nil {
		h.failed(t, err)
		return sessionFailed
	}
	x.session.conn = conn
	if isChallenge(conn) { // which was all that the client wanted
		return Done
	}
	h.done(conn.ConnectionState())
	if x.checkCertificate("") != OK {
		return sessionFailed
	}
	return Declined
}
