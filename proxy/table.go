package proxy

import (
	"net/netip"
	"sync/atomic"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/match"
)

// Table is one generation of everything compiled. It is never written after
// Load; exchanges hold it until they end, then it is closed.
type Table struct {
	Main     mainConf
	Servers  []*Server // of the http block
	Sessions []*Server // of the stream block
	sockets  []*socket
	zones    map[string]*zone
	temps    map[string]bool // folders for temporary files
	issuers  map[string]*ACMEIssuer
	logs     map[string]*logSink // by path
	logPaths []string            // in the order in which they were named
	tracing  bool                // its handlers report to traces
	// http and stream are what the two blocks know by name.
	http, stream *names

	requestZones    map[string]*requestZone
	connectionZones map[string]*connectionZone
	cacheZones      map[string]*cacheZone // by the directives' prefix and the name
	opts            *Options
	closers         []func()
	starters        []func()
	refs            atomic.Int64 // exchanges, and one for being current
}

func newTable(o *Options) *Table {
	t := &Table{opts: o, http: newNames(false), stream: newNames(true), issuers: map[string]*ACMEIssuer{}, zones: map[string]*zone{}, temps: map[string]bool{}, logs: map[string]*logSink{}}
	t.cacheZones = map[string]*cacheZone{}
	t.requestZones, t.connectionZones = map[string]*requestZone{}, map[string]*connectionZone{}
	t.refs.Store(1)
	return t
}

// acquire takes part in the table; false when it has been closed already.
func (t *Table) acquire() bool {
	for {
		n := t.refs.Load()
		if n == 0 {
			return false
		}
		if t.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives the table back; the last one closes it.
func (t *Table) release() {
	if t.refs.Add(-1) == 0 {
		for _, f := range t.closers {
			f()
		}
	}
}

// onClose runs f when the last exchange under the table has ended.
func (t *Table) onClose(f func()) { t.closers = append(t.closers, f) }

// onServe runs f when the table begins to serve.
func (t *Table) onServe(f func()) { t.starters = append(t.starters, f) }

// begin starts what goes on beside exchanges.
func (t *Table) begin() {
	t.startCaches()
	for _, f := range t.starters {
		f()
	}
}

// socket is one address to bind, with everything that listens on it.
type socket struct {
	network string // "tcp4", "tcp6", "udp4", "udp6" or "unix"
	address netip.AddrPort
	path    string // of a unix socket
	options listenOptions
	// A bound wildcard address serves specific addresses of the same port too:
	// the local address of a connection tells them apart.
	exact    map[netip.Addr]*endpoint
	fallback *endpoint
	bound    *boundSocket // when it is
}

// key names the socket across reloads.
func (s *socket) key() string {
	if s.network == "unix" {
		return "unix:" + s.path
	}
	return s.network + " " + s.address.String()
}

// endpoint finds what listens on a local address.
func (s *socket) endpoint(local netip.Addr) *endpoint {
	if e := s.exact[local]; e != nil {
		return e
	}
	return s.fallback
}

// endpoint is an address of listen directives and the servers behind it.
type endpoint struct {
	address  string // as nginx prints it: "0.0.0.0:80", "[::]:443", "unix:/p"
	stream   bool   // of the stream block
	options  listenOptions
	servers  []*Server
	fallback *Server // default_server, else the first
	names    *match.Names[*Server]
	regexes  []regexServer

	connConfig atomic.Pointer[http1.ConnConfig] // made at first use

	listens   []*listen
	protocols struct { // what nginx remembers to warn about redefined protocols
		value        uint8
		set, changed bool
	}
}

type regexServer struct {
	regex  *regex
	server *Server
}

// find returns the server of a host name, nil when none has it. x is nil when
// a connection is not yet a request (SNI).
func (e *endpoint) find(host []byte, x *Exchange) *Server {
	if s, ok := e.names.Lookup(host); ok {
		return s
	}
	if len(host) == 0 {
		return nil
	}
	for i := range e.regexes {
		r := &e.regexes[i]
		if x != nil && x.matchRegex(r.regex, host) || x == nil && r.regex.Match(host) {
			return r.server
		}
	}
	return nil
}

// listen is one listen directive of a server.
type listen struct {
	server  *Server
	network string // "tcp4", "tcp6", "udp4", "udp6", "unix"
	address netip.AddrPort
	path    string
	text    string // as nginx prints the address
	options listenOptions
	place   *parser.Directive
}

// listenOptions are the parameters of listen. Those of the protocol belong to
// the endpoint, the rest to the socket.
type listenOptions struct {
	defaultServer bool
	bind          bool // a parameter that asks for a socket of its own was given
	set           bool // any socket parameter was given
	ssl           bool
	udp           bool
	http2         bool
	quic          bool
	proxyProtocol bool
	backlog       int // -1: the system's
	rcvbuf        int
	sndbuf        int
	ipv6only      bool
	reuseport     bool
	deferred      bool
	fastopen      int // -1: off
	multipath     bool
	keepalive     keepaliveOption
}

// keepaliveOption is so_keepalive.
type keepaliveOption struct {
	set, on                bool
	idle, interval, probes int // seconds, seconds, number; 0: the system's
}
