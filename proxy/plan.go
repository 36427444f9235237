package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"proxyctl/parser"
)

// Plan is what a configuration does, in terms that other servers know as well.
// What it does beyond them is listed, statement by statement.
type Plan struct {
	Servers []PlanServer
	Unsaid  []Unsaid
}

// Unsaid is a statement that the plan or its reader has no words for.
type Unsaid struct {
	Directive string // its name
	Text      string // as it stands in the file
	Place     string // "file:line"
	Why       string
	Security  bool // without it strangers could do more
}

// PlanServer is a server block.
type PlanServer struct {
	Number      int      // from 1, in the order of the file
	Names       []string // as written
	Listens     []PlanListen
	Certificate string
	Key         string
	Modern      bool // of TLS it speaks version 1.3 only
	// Routes are asked in order: the first that takes a request answers it.
	Routes []PlanRoute
	Place  string
}

// PlanListen is an address of a server.
type PlanListen struct {
	Address netip.AddrPort
	TLS     bool
	Default bool // the server takes unknown names there
}

// PlanRoute is a location, or what a server decides before it looks for one.
type PlanRoute struct {
	Kind     LocationKind // Nameless takes every path
	Name     string       // path or expression
	Caseless bool
	Within   string   // the path begins with it, too, ...
	Except   []string // ... and with none of these
	When     []PlanCondition
	Allow    []string
	Deny     []string // "all" is everyone that Allow does not name
	Login    *PlanLogin
	MaxBody  int64 // 0: any
	Fields   []PlanField
	Compress *PlanCompression
	Rewrite  *PlanRewrite
	// One of these answers. With none, a rewrite goes on to the next route.
	Answer *PlanAnswer
	Pass   *PlanPass
	App    *PlanApp
	Files  *PlanFiles
	Text   string // the statement, or "" for what none stands for
	Place  string
	Closed bool // it stands for one that cannot be said
}

// PlanCondition is what a request must be like: Op is "=", "~", "~*", one of
// them with "!" in front, or "" for a variable that is neither empty nor "0".
type PlanCondition struct {
	Variable, Op, Value, Place string

	Outer bool // it is asked before the route's own expression
}

// PlanField is a header field; Value may hold variables.
type PlanField struct {
	Name, Value, Place string
	Always             bool // with every status, not only with those of success
}

// PlanLogin asks for a name and a password.
type PlanLogin struct {
	Realm string
	Users []PlanUser
	Place string
}

// PlanUser is a line of a password file.
type PlanUser struct{ Name, Hash, Place string }

// PlanCompression is gzip.
type PlanCompression struct {
	Level, Least string
	Types        []string // "*" is all
	Place        string
}

// PlanRewrite gives requests another path, if the expression matches.
type PlanRewrite struct {
	Expression, To string
	Arguments      bool // those of the request are added
	Place          string
}

// PlanAnswer is an answer of the server's own.
type PlanAnswer struct {
	Status int
	Text   string // body or, with Redirect, location; it may hold variables
	Type   string
	// Redirect tells locations from bodies. With Arguments those of the request
	// are added.
	Redirect, Arguments bool
	Place               string
}

// PlanPass is a request passed on.
type PlanPass struct {
	Name   string // as proxy_pass names it
	TLS    bool
	Verify bool // the server's certificate is verified
	// ServerName is whom its certificate must name; SNI: it is told in the handshake.
	ServerName string
	SNI        bool
	Late       bool // its address is looked up while it serves
	Servers    []PlanTarget
	Replace    bool // the route's name is replaced by Path
	Whole      bool // Path takes the place of everything, arguments too
	Path       string
	Fields     []PlanField    // of the request
	Hidden     []PlanField    // of the answer: they are taken away
	Moved      [][2]PlanField // of the answer's locations: beginnings, and what takes their place
	Place      string
	Balanced   string // how the group chooses; "" for in turn
}

// PlanTarget is a server that requests are passed to.
type PlanTarget struct {
	Address string // with a port, or "unix:" and a path
	Weight  int
	Backup  bool
	Place   string
}

// PlanApp is an application that speaks FastCGI.
type PlanApp struct {
	Servers []PlanTarget
	Root    string      // scripts are below it
	Resolve bool        // symbolic links in Root are followed first
	Split   bool        // what follows the script's name goes with it
	Check   bool        // a script that does not exist is answered 404
	Params  []PlanField // those that are not as usual
	Usual   []PlanField // what most servers tell by themselves
	Place   string
}

// PlanFiles is files that are served.
type PlanFiles struct {
	Root  string
	Strip string // the beginning of the path that Root stands in for
	Index []string
	// Tries are looked for in turn; nil is the path alone.
	Tries []string
	Last  string // what is served when there is none: "=404", or a path in the same folder
	// Else answers when there is none, in place of Last; with To, under that URI.
	Else *PlanRoute
	To   string
	// Run is where the index of a folder is a script.
	Run   *PlanRoute
	Place string
}

// MakePlan reads a configuration that has been compiled.
func MakePlan(t *Table, file *parser.File) *Plan {
	p := &planner{linter: newLinter(file, nil, LintOptions{Offline: true}), Plan: &Plan{}, opts: t.opts, leading: map[*scope]bool{}, reached: map[*scope]bool{}, listens: t.ListenAddresses()}
	for i, s := range p.servers() {
		p.Servers = append(p.Servers, p.server(s))
		p.Servers[i].Number = i + 1
	}
	p.defaults()
	p.root.walk(p.account)
	slices.SortStableFunc(p.Unsaid, func(a, b Unsaid) int { return ComparePlaces(a.Place, b.Place) })
	p.Unsaid = slices.Compact(p.Unsaid)
	return p.Plan
}

// ComparePlaces puts places, "file:line", into the order of files and lines.
func ComparePlaces(a, b string) int {
	split := func(place string) (string, int) {
		i := strings.LastIndexByte(place, ':')
		line, _ := strconv.Atoi(place[i+1:])
		return place[:max(i, 0)], line
	}
	fileA, lineA := split(a)
	fileB, lineB := split(b)
	return cmp.Or(strings.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

type planner struct {
	*linter
	*Plan
	opts    *Options
	hidden  []*use          // "internal", of the server that is read
	reached map[*scope]bool // locations that others lead to
	leading map[*scope]bool // the locations that a last resort is read for
	listens map[*parser.Directive][]ListenAddress
}

// unsaid notes a statement, once.
func (p *planner) unsaid(u *use, why string) {
	p.Unsaid = append(p.Unsaid, Unsaid{
		Directive: u.Name.Value, Text: u.said(), Place: linePlace(u.Name.Range), Why: why, Security: protects(u),
	})
}

// protects reports whether a statement, or one in its block, keeps somebody out.
func protects(u *use) bool {
	name := u.Name.Value
	if isGuard(name) || name == "add_header" && isSecurityHeader(u.arg(0)) || name == "return" && refuses(u) {
		return true
	}
	for _, part := range []string{"ssl_verify", "ssl_trusted", "ssl_crl", "ssl_ocsp", "ssl_reject", "real_ip", "disable_symlinks", "proxy_protocol"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	inside := false
	if u.body != nil {
		u.body.walk(func(o *use) { inside = inside || o.body == nil && protects(o) })
	}
	return inside
}

// account finds statements that nothing has looked at.
func (p *planner) account(u *use) {
	name := u.Name.Value
	if u.in.in&(InServerIf|InLocationIf|InLimitExcept) != 0 {
		return // the block is understood as a whole, or not
	}
	if u.in.in == 0 || u.Name.Range.IsZero() || u.row == nil || u.row.Status == NoEffect {
		return
	}
	switch {
	case u.in.in&(InMail|InMailServer|InStream|InStreamServer|InStreamUpstream|InACMEIssuer|InEvents) != 0:
		if u.body == nil || u.in.in&InMain == 0 {
			return // said of the block
		}
	case plannedDirectives[name] || tuningDirectives[name]:
		return
	}
	if strings.HasPrefix(name, "proxy_cache_") || strings.HasPrefix(name, "fastcgi_cache_") || name == "proxy_no_cache" || name == "fastcgi_no_cache" {
		return // without a cache they do nothing, and the cache is refused
	}
	switch name {
	case "map", "set", "geo", "split_clients": // where they are used, their variables are unknown
		return
	case "ssl_protocols":
		if !hasWord("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")(u) {
			return
		}
	case "proxy_pass_header": // what is not kept back need not be let through
		if name := lower(u.arg(0)); name != "date" && name != "server" && name != "x-pad" && !strings.HasPrefix(name, "x-accel-") && u.in.inherited("proxy_hide_header") == nil {
			return
		}
	case "autoindex", "auth_request", "satisfy", "proxy_ssl_verify", "ssl_verify_client", "proxy_cache", "fastcgi_cache", "gzip_static", "ssi", "ssl_early_data", "charset":
		if u.arg(0) == "off" || name == "satisfy" && u.arg(0) == "all" {
			return
		}
	}
	p.unsaid(u, "there is no word for it")
}

// plannedDirectives are read by the planner, which says itself what it cannot.
var plannedDirectives = wordSet(`http server events listen server_name location include return proxy_pass proxy_set_header
	add_header upstream allow deny client_max_body_size root alias index try_files default_type types ssl_certificate ssl_certificate_key
	if rewrite break hash ip_hash least_conn random least_time proxy_ssl_server_name proxy_ssl_name
	auth_basic auth_basic_user_file internal limit_except proxy_hide_header proxy_redirect
	fastcgi_pass fastcgi_param fastcgi_index fastcgi_split_path_info
	gzip gzip_types gzip_comp_level gzip_min_length`)

// tuningDirectives change how fast or with what memory, not what is answered.
var tuningDirectives = wordSet(`user worker_processes worker_connections worker_rlimit_nofile worker_rlimit_core worker_priority
	worker_shutdown_timeout pid daemon error_log access_log log_format open_log_file_cache log_not_found log_subrequest env working_directory
	sendfile tcp_nopush tcp_nodelay keepalive_timeout keepalive_requests keepalive_time keepalive_disable keepalive_min_timeout keepalive zone
	gzip_vary gzip_proxied gzip_http_version gzip_disable gzip_buffers
	fastcgi_buffers fastcgi_buffer_size fastcgi_busy_buffers_size fastcgi_buffering fastcgi_request_buffering fastcgi_read_timeout
	fastcgi_send_timeout fastcgi_connect_timeout fastcgi_keep_conn fastcgi_temp_path fastcgi_max_temp_file_size fastcgi_temp_file_write_size
	proxy_http_version proxy_buffering proxy_request_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size
	proxy_read_timeout proxy_send_timeout proxy_connect_timeout proxy_temp_path proxy_max_temp_file_size proxy_temp_file_write_size
	proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout proxy_socket_keepalive proxy_ssl_session_reuse
	client_body_buffer_size client_body_timeout client_header_timeout client_header_buffer_size large_client_header_buffers
	client_body_temp_path send_timeout reset_timedout_connection lingering_close lingering_time lingering_timeout resolver resolver_timeout
	server_tokens etag http2 http2_max_concurrent_streams ssl_ciphers ssl_prefer_server_ciphers ssl_session_cache ssl_session_timeout
	ssl_session_tickets ssl_ecdh_curve ssl_buffer_size ssl_stapling ssl_stapling_verify ssl_trusted_certificate max_headers
	server_name_in_redirect port_in_redirect absolute_redirect charset_types acme_issuer acme_certificate acme_shared_zone`)

func wordSet(text string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(text) {
		set[w] = true
	}
	return set
}

// server reads a server block.
func (p *planner) server(s *scope) PlanServer {
	out := PlanServer{Names: namesOf(s), Place: linePlace(s.open.Name.Range)}
	listens := s.own("listen")
	for _, u := range append(listens, s.open) {
		for _, a := range p.listens[u.Directive] {
			switch {
			case a.Network == "unix":
				p.unsaid(u, "sockets of the file system are not carried over")
			case strings.HasPrefix(a.Network, "udp"):
				p.unsaid(u, "HTTP/3 is not carried over")
			case a.ProxyProtocol:
				p.unsaid(u, "the PROXY protocol is not carried over")
			default:
				l := PlanListen{Address: a.Address, TLS: a.TLS}
				l.Default = u != s.open && (u.hasArg("default_server") || u.hasArg("default"))
				out.Listens = append(out.Listens, l)
			}
		}
	}
	if list := s.inherited("ssl_certificate"); list != nil {
		out.Certificate, out.Key = list[0].arg(0), s.setting("ssl_certificate_key", "")
		if obtained(out.Certificate) {
			out.Certificate, out.Key = "", ""
		} else if len(list) > 1 || strings.ContainsAny(out.Certificate+out.Key, "$") || strings.HasPrefix(out.Certificate, "data:") {
			p.unsaid(list[0], "one certificate from a file can be carried over")
		} else {
			out.Certificate, out.Key = p.opts.confRelative(out.Certificate), p.opts.confRelative(out.Key)
		}
	}
	if protocols := s.inherited("ssl_protocols"); protocols != nil {
		out.Modern = len(protocols[0].Args) == 1 && protocols[0].arg(0) == "TLSv1.3"
	}
	p.hidden = nil
	out.Routes = append(p.before(s), p.locationsOf(s)...)
	for _, u := range p.hidden {
		if !p.reached[u.in] {
			p.unsaid(u, "nothing here leads to it: where answers do (X-Accel-Redirect), it is not carried over")
		}
	}
	return out
}

// defaults finds the server that takes unknown names: the one that says so, or
// the first.
func (p *planner) defaults() {
	chosen := map[netip.AddrPort]bool{}
	for _, s := range p.Servers {
		for _, l := range s.Listens {
			chosen[l.Address] = chosen[l.Address] || l.Default
		}
	}
	for i := range p.Servers {
		for j := range p.Servers[i].Listens {
			if l := &p.Servers[i].Listens[j]; !chosen[l.Address] {
				l.Default, chosen[l.Address] = true, true
			}
		}
	}
}
