package proxy

import (
	"net/netip"
	"strings"
	"time"

	"proxyctl/parser"
)

// The events block: ngx_events_module, ngx_event_core_module and
// ngx_epoll_module. Only the number of connections means something here; the Go
// runtime waits for events by itself.

// eventsConf is what the events block says beside worker_connections.
type eventsConf struct {
	multiAccept, acceptMutex bool
	acceptDelay              time.Duration
	epollEvents, workerAIO   int
}

func eventsModule() Module {
	return Module{Name: "ngx_events_module", Commands: []Command{
		{Name: "events", In: InMain, Args: "0", Block: true, Doc: "Holds what concerns connections as such.", Set: setEvents},
	}}
}

func setEvents(l *Level, d *parser.Directive) error {
	l.Conf.Main.sawEvents = true
	in := l.c.level(InEvents, l, l.Conf)
	l.c.body(in, d.Block)
	return nil
}

func eventCoreModule() Module {
	return Module{Name: "ngx_event_core_module", Commands: eventCommands()}
}

func eventCommands() []Command {
	const runtimeWaits = "the Go runtime waits for events by itself"
	noEffect := func(c Command) Command {
		c.Status, c.Reason = NoEffect, runtimeWaits
		c.Doc = "Accepted without effect."
		return c
	}
	return []Command{
		{
			Name: "worker_connections", In: InEvents, Args: "1", Syntax: "number", Default: "512",
			Doc: "Limits client connections: this number times worker_processes.", Set: setWorkerConnections,
		},
		noEffect(Command{Name: "use", In: InEvents, Args: "1", Syntax: "method", Set: setUse}),
		noEffect(Flag(Command{Name: "multi_accept", In: InEvents, Default: "off"}, func(c *Conf) *bool { return &c.Main.events.multiAccept })),
		noEffect(Flag(Command{Name: "accept_mutex", In: InEvents, Default: "off"}, func(c *Conf) *bool { return &c.Main.events.acceptMutex })),
		noEffect(Time(Command{Name: "accept_mutex_delay", In: InEvents, Default: "500ms"}, func(c *Conf) *time.Duration { return &c.Main.events.acceptDelay })),
		noEffect(Command{Name: "debug_connection", In: InEvents, Args: "1", Repeat: true, Syntax: "address | CIDR | unix:", Set: setDebugConnection}),
	}
}

// epollModule is ngx_epoll_module.
func epollModule() Module {
	const reason = "the Go runtime sizes its own queues"
	row := func(name, value string, field func(*Conf) *int) Command {
		return Number(Command{Name: name, In: InEvents, Default: value, Doc: "Accepted without effect.", Status: NoEffect, Reason: reason}, field)
	}
	return Module{Name: "ngx_epoll_module", Commands: []Command{
		row("epoll_events", "512", func(c *Conf) *int { return &c.Main.events.epollEvents }),
		row("worker_aio_requests", "32", func(c *Conf) *int { return &c.Main.events.workerAIO }),
	}}
}

func setWorkerConnections(l *Level, d *parser.Directive) error {
	n, ok := parseNumber(d.Args[0].Value)
	if !ok {
		return sayAt(d.Args[0], "Y009", "write digits only", "invalid number \"%s\"", d.Args[0].Value)
	}
	l.Conf.Main.WorkerConnections = n
	return nil
}

// checkConnections refuses what leaves no connection for clients: to nginx the
// listening sockets are connections too (ngx_event_init_conf).
func (c *compiler) checkConnections() {
	if n, sockets := c.table.Main.WorkerConnections, len(c.table.sockets); n <= sockets {
		c.failAtStart("Y009", "raise worker_connections", "%d worker_connections are not enough for %d listening sockets", n, sockets)
	}
}

// setUse accepts the one method that nginx builds on Linux without being asked.
func setUse(_ *Level, d *parser.Directive) error {
	switch name := d.Args[0].Value; name {
	case "epoll":
		return nil
	default:
		return sayAt(d.Args[0], "Y009", "leave it out: the best is chosen", "invalid event type \"%s\"", name)
	}
}

// setDebugConnection checks the address; there is no debugging log.
func setDebugConnection(l *Level, d *parser.Directive) error {
	text := d.Args[0].Value
	if text == "unix:" {
		return nil
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if p != p.Masked() {
			l.warnAt(d, d.Args[0], "low address bits of %s are meaningless", text)
		}
		return nil
	}
	if l.c.opts.Offline || strings.ContainsAny(text, "/ ") {
		return sayAt(d.Args[0], "", "an address or a network", "host not found in debug_connection \"%s\"", text)
	}
	if _, err := firstAddress(text); err != nil {
		return sayAt(d.Args[0], "", "an address or a network", "host not found in debug_connection \"%s\"", text)
	}
	return nil
}
