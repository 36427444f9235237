package proxy

import "proxyctl/parser"

// ngx_stream_set_module: sets variables of a session, before access to the server
// is limited.

func streamSetModule() Module {
	return Module{
		Name: "ngx_stream_set_module",
		Commands: []Command{
			{Name: "set", In: InStreamServer, Args: "2", Repeat: true, Syntax: "$variable value", Doc: "Sets a variable.", Set: setStreamSet},
		},
		Phase: PreAccess,
		Handler: func(c *Conf) Handler {
			if len(c.StreamSet) == 0 {
				return nil
			}
			return func(x *Exchange) Code {
				for _, s := range c.StreamSet {
					s.v.set(x, s.value.Bytes(x))
				}
				return Declined
			}
		},
	}
}

// assignment is one set of the stream block.
type assignment struct {
	v     *variable
	value *Value
}

func setStreamSet(l *Level, d *parser.Directive) error {
	v, err := l.assigned(d.Args[0])
	if err != nil {
		return err
	}
	if v.slot >= 0 && v.fill == nil {
		if v.fill = l.c.names.vars.weak(v.name); v.fill == nil {
			v.fill = unset
		}
	}
	value, err := l.value(d.Args[1].Value)
	if err != nil {
		return err
	}
	l.Conf.StreamSet = append(l.Conf.StreamSet, assignment{v, value})
	return nil
}

// unset fills a variable in a server that does not set it.
func unset(_ *Exchange, s *slot) { s.value, s.state = nil, slotSet }
