package proxy

import (
	"fmt"
	"strconv"

	"proxyctl/parser"
)

// ngx_http_stub_status_module: a page with the counters of connections.

func stubStatusModule() Module {
	count := func(name string, get func(s *Stats) int64) Variable {
		return always(name, func(dst []byte, x *Exchange) []byte {
			s := x.client.rt.Stats()
			return strconv.AppendInt(dst, get(&s), 10)
		})
	}
	return Module{
		Name: "ngx_http_stub_status_module",
		Commands: []Command{{
			Name: "stub_status", In: InServer | InLocation, Args: "0,1", Repeat: true, Doc: "Answers with the counters of connections.",
			Set: func(l *Level, _ *parser.Directive) error {
				l.Conf.Own.Content = serveStubStatus
				return nil
			},
		}},
		Variables: []Variable{
			count("connections_active", func(s *Stats) int64 { return s.Active }),
			count("connections_reading", func(s *Stats) int64 { return s.Reading }),
			count("connections_writing", func(s *Stats) int64 { return s.Writing }),
			count("connections_waiting", func(s *Stats) int64 { return s.Waiting }),
		},
	}
}

var textPlain = []byte("text/plain")

func serveStubStatus(x *Exchange) Code {
	if !x.isMethod("GET") && !x.isMethod("HEAD") {
		return 405
	}
	s := x.client.rt.Stats()
	return x.SendText(200, textPlain, fmt.Appendf(nil,
		"Active connections: %d \nserver accepts handled requests\n %d %d %d \nReading: %d Writing: %d Waiting: %d \n",
		s.Active, s.Accepted, s.Handled, s.Requests, s.Reading, s.Writing, s.Waiting))
}
