package proxy

import (
	"time"

	"proxyctl/parser"
)

// ngx_stream_return_module: sends a text and ends the session.

func streamReturnModule() Module {
	return Module{Name: "ngx_stream_return_module", Commands: []Command{
		{Name: "return", In: InStreamServer, Args: "1", Syntax: "value", Doc: "Sends a text and closes the connection.", Set: setStreamReturn},
	}}
}

// returnTimeout is how long a client may take to receive some of the text.
const returnTimeout = 5 * time.Second

func setStreamReturn(l *Level, d *parser.Directive) error {
	v, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	l.Conf.Own.Content = func(x *Exchange) Code {
		x.upstream.action = returning
		text := v.Bytes(x)
		if len(text) == 0 {
			return sessionOK
		}
		switch err := x.send(text, returnTimeout); {
		case err == nil:
			return sessionOK
		case isTimeout(err):
			x.Logf(logInfo, "connection timed out (110: Connection timed out)")
			return sessionOK
		default:
			x.Logf(logInfo, "%v", errorWithCode("send() failed", err))
			return sessionFailed
		}
	}
	return nil
}
