package proxy

import (
	"net/netip"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// Witness is a request that a configuration gives a reason to send: one that
// reaches a block, or narrowly misses it.
type Witness struct {
	// Why says what it is about, in a few words.
	Why string
	// Place is "file:line" of the block or statement that is the reason.
	Place  string
	To     ListenAddress
	Method string
	Host   string // "" for none
	Target string // as sent
	Fields []string
	// Base tells the plainest way to a block; what else may be asked of the
	// block is derived from it.
	Base bool
}

// ListenAddress is what a listen directive came to.
type ListenAddress struct {
	Network       string // tcp4, tcp6 or unix
	Address       netip.AddrPort
	Path          string // of a unix socket
	TLS           bool
	HTTP2         bool
	ProxyProtocol bool
}

// ListenAddresses gives what each listen directive came to. A server block
// without one has its address under its own directive.
func (t *Table) ListenAddresses() map[*parser.Directive][]ListenAddress {
	out := map[*parser.Directive][]ListenAddress{}
	for _, s := range t.Servers {
		for _, l := range s.listens {
			out[l.place] = append(out[l.place], l.listenAddress(l.options))
		}
	}
	return out
}

func (l *listen) listenAddress(o listenOptions) ListenAddress {
	return ListenAddress{Network: l.network, Address: l.address, Path: l.path, TLS: o.ssl, HTTP2: o.http2, ProxyProtocol: o.proxyProtocol}
}

// UnknownHost is a name that no server should have.
const UnknownHost = "unknown.invalid"

// The bounds of what is made up.
const (
	maxWitnesses   = 100_000
	maxFullServers = 2_000 // whose locations are looked at
	maxAvoided     = 12    // earlier expressions that a text must not match
)

// Witnesses makes up requests for a table and the configuration behind it: for
// each address and server by each of its names, for each location, and for
// each text that a rewrite, a condition or a map tells apart. Equal files give
// equal lists.
func Witnesses(t *Table, file *parser.File) []Witness {
	w := &witnesses{endpoints: map[string]*endpoint{}, bases: map[parser.Range]int{}, patterns: map[patternKey]*pcre.Syntax{}}
	for _, s := range t.sockets {
		if s.fallback.stream || s.options.quic { // QUIC is not asked
			continue
		}
		for _, e := range s.exact {
			w.endpoints[s.network+e.address] = e
		}
		w.endpoints[s.network+s.fallback.address] = s.fallback
	}
	w.strangers()
	for i, s := range t.Servers {
		w.server(s, i < maxFullServers)
	}
	w.statements(survey(file, commandsByName()))
	return w.list
}

type witnesses struct {
	endpoints map[string]*endpoint
	list      []Witness
	bases     map[parser.Range]int // the witness that stands for a block
	patterns  map[patternKey]*pcre.Syntax
}

func (w *witnesses) add(x Witness) {
	if len(w.list) < maxWitnesses {
		if x.Method == "" {
			x.Method = "GET"
		}
		w.list = append(w.list, x)
	}
}

// strangers asks each address for names that nobody has.
func (w *witnesses) strangers() {
	keys := make([]string, 0, len(w.endpoints))
	for k := range w.endpoints {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		e := w.endpoints[k]
		place := linePlace(e.listens[0].place.Name.Range)
		for _, host := range []string{UnknownHost, "127.0.0.1", "[::1]:80"} {
			w.add(Witness{Why: "a name that no server of " + e.address + " has", Place: place, To: e.listenAddress(), Host: host, Target: "/"})
		}
		w.add(Witness{Why: "no name", Place: place, To: e.listenAddress(), Target: "/"})
	}
}

func (e *endpoint) listenAddress() ListenAddress { return e.listens[0].listenAddress(e.options) }

// chosen finds the server for a name as a request would.
func (e *endpoint) chosen(host string) *Server {
	if s := e.find([]byte(lower(host)), nil); s != nil {
		return s
	}
	return e.fallback
}

// server asks for a server by its names, at each of its addresses, and for its
// locations at the first.
func (w *witnesses) server(s *Server, full bool) {
	for _, li := range s.listens {
		e := w.endpoints[li.network+li.text]
		if e == nil {
			continue
		}
		reached, base := false, UnknownHost
		for _, n := range s.Names {
			for i, host := range w.hosts(n) {
				if !reached && e.chosen(host) == s {
					reached, base = true, host
				}
				first := i == 0 && base == host && full
				x := Witness{Why: "server_name " + n.text, Place: linePlace(s.Place), To: e.listenAddress(), Host: host, Target: "/", Base: first}
				if _, known := w.bases[s.Place]; first && !known {
					w.bases[s.Place] = len(w.list)
				}
				w.add(x)
			}
		}
		if !reached && e.fallback == s {
			reached = true
		}
		if !reached || !full {
			continue
		}
		full = false
		to := Witness{To: e.listenAddress(), Host: base, Target: "/"}
		if _, known := w.bases[s.Place]; !known {
			w.bases[s.Place] = len(w.list)
			x := to
			x.Why, x.Place, x.Base = "server", linePlace(s.Place), true
			w.add(x)
		}
		w.level(s.Level, to, nil)
	}
}

// hosts gives names that a name of a server covers, and some that it does not.
func (w *witnesses) hosts(n serverName) []string {
	switch text := n.text; {
	case n.regex != nil:
		found, v := pcre.Find(w.syntaxes(expression(n.regex.String(), n.regex.caseless), expression(`^[a-z0-9]+([.-][a-z0-9]+)*$`, false)), nil)
		if v != pcre.Found {
			return nil
		}
		return []string{found}
	case text == "":
		return nil
	case strings.HasPrefix(text, "*."):
		return []string{"x" + text[1:], "a.b" + text[1:], text[2:]}
	case strings.HasPrefix(text, "."):
		return []string{text[1:], "www" + text}
	case strings.HasSuffix(text, ".*"):
		return []string{text[:len(text)-1] + "example", text[:len(text)-1] + "a.b"}
	case strings.ContainsAny(text, "/_$: "):
		return nil
	default:
		return []string{text, strings.ToUpper(text) + ":8080", "www." + text}
	}
}

// level asks for the locations of a level, whose URIs match what it is within.
func (w *witnesses) level(level *Location, to Witness, within []patternKey) {
	var before []*Location // expressions that are asked first
	for _, n := range level.nested {
		targets := w.targets(n, before, within)
		for i, target := range targets {
			x := to
			x.Why, x.Place, x.Target, x.Base = locationTitle(n), linePlace(n.Place), target, i == 0
			if _, known := w.bases[n.Place]; i == 0 && !known {
				w.bases[n.Place] = len(w.list)
			}
			w.add(x)
		}
		if n.Kind == RegexLocation {
			before = append(before, n)
		}
		w.files(n, to)
		w.level(n, to, inside(n, within))
	}
}

// targets gives URIs for a location, the plainest first, then its neighbours.
func (w *witnesses) targets(n *Location, before []*Location, within []patternKey) []string {
	name := string(n.escapedName)
	switch n.Kind {
	case ExactLocation:
		return []string{name, name + "/", name + "x", swapCase(name)}
	case PrefixLocation, NoRegexLocation:
		list := []string{name + "x", name}
		if strings.HasSuffix(name, "/") {
			list = []string{name, name + "x/y"}
			if name != "/" {
				list = append(list, strings.TrimSuffix(name, "/"))
			}
		} else {
			list = append(list, name+"/", name+"/x", name[:max(1, len(name)-1)])
		}
		return append(list, swapCase(name))
	case RegexLocation:
		keys := append([]patternKey{expression(n.regex.String(), n.regex.caseless), expression("^/", false)}, within...)
		match := w.syntaxes(keys...)
		if len(match) < len(keys) {
			return nil
		}
		var avoid []*pcre.Syntax
		for _, b := range before[max(0, len(before)-maxAvoided):] {
			avoid = append(avoid, w.syntaxes(expression(b.regex.String(), b.regex.caseless))...)
		}
		// What servers would make another path of is no good sample of this one.
		normal := w.syntaxes(expression(`//|/\.{1,2}(/|$)`, false))
		var found string
		var v pcre.Verdict
		for _, not := range [][]*pcre.Syntax{slices.Concat(avoid, normal), normal, nil} {
			if found, v = pcre.Find(match, not); v == pcre.Found {
				break
			}
		}
		if v != pcre.Found {
			return nil
		}
		return []string{escapeTarget(found), escapeTarget(found + "x"), escapeTarget(found[:max(1, len(found)-1)]), escapeTarget(swapCase(found)), escapeTarget(found + "/x")}
	case NamedLocation, Nameless:
	}
	return nil
}

// inside gives what a URI must match to come into a location at all.
func inside(n *Location, within []patternKey) []patternKey {
	switch n.Kind {
	case PrefixLocation, NoRegexLocation:
		return []patternKey{expression("^"+quoteLiteral(n.Name), false)}
	case RegexLocation:
		return append(slices.Clone(within), expression(n.regex.String(), n.regex.caseless))
	case ExactLocation, NamedLocation, Nameless:
	}
	return within
}

func swapCase(s string) string {
	if up := strings.ToUpper(s); up != s {
		return up
	}
	return strings.ToLower(s)
}

// escapeTarget writes a decoded path as a client would.
func escapeTarget(path string) string {
	return string(appendEscaped(nil, []byte(path), &escapeURI))
}

// expression names one that is looked for.
func expression(text string, caseless bool) patternKey { return patternKey{text, caseless} }

// syntaxes takes expressions apart, once each; those that cannot be are left
// out.
func (w *witnesses) syntaxes(keys ...patternKey) []*pcre.Syntax {
	var out []*pcre.Syntax
	for _, k := range keys {
		s, known := w.patterns[k]
		if !known {
			s, _ = pcre.Analyze(k.text, k.caseless)
			w.patterns[k] = s
		}
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// BlockInfo is a server or location, for accounts of what was reached.
type BlockInfo struct {
	Title string
	Place string
	// Server is the place of the server around a location, "" for a server.
	Server string
	Named  bool // a location that only error_page and try_files lead to
}

// Blocks lists the servers and locations in the order of the file.
func (t *Table) Blocks() []BlockInfo {
	var out []BlockInfo
	for _, s := range t.Servers {
		server := linePlace(s.Place)
		out = append(out, BlockInfo{Title: "server " + serverTitle(s), Place: server})
		var walk func(*Location)
		walk = func(level *Location) {
			for _, n := range level.nested {
				out = append(out, BlockInfo{Title: locationTitle(n), Place: linePlace(n.Place), Server: server, Named: n.Kind == NamedLocation})
				walk(n)
			}
		}
		walk(s.Level)
	}
	return out
}

// EscapedTarget writes a decoded path as a client would send it.
func EscapedTarget(path string) string { return escapeTarget(path) }

// Probes gives one plain request for each address of each server, by a name that
// leads to it where there is one.
func (t *Table) Probes() []Witness {
	var out []Witness
	w := &witnesses{patterns: map[patternKey]*pcre.Syntax{}}
	for _, s := range t.Servers {
		host := ""
		for _, n := range s.Names {
			if hosts := w.hosts(n); host == "" && len(hosts) > 0 {
				host = hosts[0]
			}
		}
		for _, l := range s.listens {
			if l.options.quic {
				continue
			}
			out = append(out, Witness{To: l.listenAddress(l.options), Host: host, Method: "GET", Target: "/"})
		}
	}
	return out
}
