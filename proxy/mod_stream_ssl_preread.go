package proxy

// ngx_stream_ssl_preread_module: tells what a TLS client asks for, while its
// connection goes on as it is.

func streamSSLPrereadModule() Module {
	return Module{
		Name: "ngx_stream_ssl_preread_module",
		Commands: []Command{
			Flag(Command{
				Name: "ssl_preread", In: inStreamLevels, Default: "off", Doc: "Looks into the first message of TLS clients.",
				Differs: "a message whose lengths do not agree, or whose name holds control characters, is taken for that of a client without TLS", DiffersIn: hasWord("on"),
			}, func(c *Conf) *bool { return &c.Stream.preread }),
		},
		StreamVariables: []Variable{
			ofHello("ssl_preread_protocol", func(dst []byte, h *clientHello) []byte { return append(dst, h.protocol()...) }),
			ofHello("ssl_preread_server_name", func(dst []byte, h *clientHello) []byte { return append(dst, h.name...) }),
			ofHello("ssl_preread_alpn_protocols", func(dst []byte, h *clientHello) []byte { return append(dst, h.protocols...) }),
		},
		Phase: Preread,
		Handler: func(c *Conf) Handler {
			if c.Stream.preread {
				return prereadHello
			}
			return nil
		},
	}
}

// ofHello makes the row of a variable of the client's first message.
func ofHello(name string, get func(dst []byte, h *clientHello) []byte) Variable {
	return Variable{Name: name, Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
		if h := x.session.hello; h != nil {
			return get(dst, h), true
		}
		return dst, false
	}}
}

// prereadHello reads the client's first message, and chooses the server by the
// name in it.
func prereadHello(x *Exchange) Code {
	s := x.session
	if s.udp {
		return Declined
	}
	if s.hello == nil {
		s.hello = &clientHello{}
	}
	code := s.hello.take(s.preread)
	switch code {
	case OK:
		if host, _ := parseHost(s.hello.name, nil); host.ok {
			if server := x.client.endpoint.find(host.name, x); server != nil {
				x.server, x.loc = server, server.Level
			}
		}
	case Declined:
		s.hello = nil
	default:
	}
	return code
}
