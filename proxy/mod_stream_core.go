package proxy

import (
	"slices"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The stream block: ngx_stream_module and what ngx_stream_core_module has for
// itself. What it has in common with the http core stands there. A session
// (session.go) is served by what its server has for content: mod_stream_proxy.go,
// mod_stream_return.go, mod_stream_pass.go.

func streamModule() Module {
	return Module{Name: "ngx_stream_module", Commands: []Command{
		{Name: "stream", In: InMain, Args: "0", Block: true, Doc: "Holds the configuration of TCP and UDP servers.", Set: setStream},
	}}
}

func streamCoreModule() Module {
	return Module{
		Name: "ngx_stream_core_module", StreamVariables: sessionVariables(),
		Commands: []Command{
			{Name: "server", In: InStream, Args: "0", Block: true, Repeat: true, Doc: "Sets the configuration of a server.", Set: setStreamServer},
			{Name: "listen", In: InStreamServer, Args: "1+", Repeat: true, Syntax: "address:port | port | unix:path [default_server] [ssl] [udp] [parameter=value ...]", Differs: "a PROXY header with a wrong checksum, an unknown command or text in the place of an address ends the connection", DiffersIn: hasWord("proxy_protocol"), Doc: "Sets an address on which the server accepts sessions.", Set: setListen},
			Time(Command{Name: "proxy_protocol_timeout", In: inStreamLevels, Default: "30s", Doc: "Sets how long the PROXY protocol header may take."}, func(c *Conf) *time.Duration { return &c.Core.HeaderTimeout }),
			Size(Command{Name: "preread_buffer_size", In: inStreamLevels, Default: "16k", Doc: "Sets how much is read before it is known where a session goes."}, func(c *Conf) *int64 { return &c.Stream.prereadSize }),
			Time(Command{Name: "preread_timeout", In: inStreamLevels, Default: "30s", Doc: "Sets how long that may take."}, func(c *Conf) *time.Duration { return &c.Stream.prereadTimeout }),
		},
		Init: func(c *Conf) {
			c.Stream.prereadSize, c.Stream.prereadTimeout = 16<<10, 30*time.Second
			if c.Stream.is {
				c.Core.HeaderTimeout = 30 * time.Second
			}
		},
	}
}

// streamConf is what the core of the stream block knows at a level.
type streamConf struct {
	is             bool // a level of the stream block
	prereadSize    int64
	prereadTimeout time.Duration
	preread        bool // ssl_preread
}

// setStream opens the stream block, whose body is compiled when the main level
// is complete. It has names of its own.
func setStream(l *Level, d *parser.Directive) error {
	l.Conf.Main.sawStream = true
	l.Later(func() {
		conf := l.Conf.child(InStream)
		conf.Stream.is = true
		before := l.c.names
		l.c.names = l.c.table.stream
		l.topBlock(InStream, &conf, d)
		l.c.names = before
	})
	return nil
}

// setStreamServer opens a server block. Unlike one of http it must say where it
// listens.
func setStreamServer(l *Level, d *parser.Directive) error {
	s := &Server{ID: serverID(d), Place: d.Name.Range, block: d}
	s.Level = &Location{Kind: Nameless, Place: d.Name.Range, server: s}
	l.c.table.Sessions = append(l.c.table.Sessions, s)
	l.Later(func() {
		s.Level.Conf = l.Conf.child(InStreamServer)
		in := l.c.level(InStreamServer, l, &s.Level.Conf)
		in.Server, in.Location = s, s.Level
		before := l.c.errors
		l.c.body(in, d.Block)
		if len(s.Names) == 0 {
			s.Names = []serverName{{}}
		}
		if len(s.listens) == 0 && l.c.errors == before {
			l.c.report(reading, parser.Error, sayAt(d.Name, "", "add listen address:port;", "no \"listen\" is defined for server"), d, d.Name.Range)
		}
	})
	return nil
}

// sessionVariables are the variables of the stream core.
func sessionVariables() []Variable {
	shared := []string{
		"remote_addr", "binary_remote_addr", "remote_port", "connection", "server_name", "server_addr", "server_port",
		"hostname", "pid", "nginx_version", "msec", "time_iso8601", "time_local",
	}
	var vars []Variable
	for _, v := range slices.Concat(clientVariables(), serverVariables(), timeVariables()) {
		if slices.Contains(shared, v.Name) {
			vars = append(vars, v)
		}
	}
	return append(append(vars, proxyProtocolVariables()...),
		always("bytes_sent", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.session.sent()) }),
		always("bytes_received", func(dst []byte, x *Exchange) []byte { return http1.AppendInt(dst, x.session.received()) }),
		always("session_time", func(dst []byte, x *Exchange) []byte {
			return appendMillis(dst, max(time.Since(x.start).Milliseconds(), 0))
		}),
		always("status", appendStatus),
		always("protocol", func(dst []byte, x *Exchange) []byte { return append(dst, x.session.protocol()...) }),
	)
}
