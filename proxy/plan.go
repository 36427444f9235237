package proxy

import (
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
	Host     string // the one host it is for; "" for all
	Allow    []string
	Deny     []string // "all" is everyone that Allow does not name
	MaxBody  int64    // 0: any
	Fields   []PlanField
	// One of these answers.
	Answer *PlanAnswer
	Pass   *PlanPass
	Files  *PlanFiles
	Place  string
}

// PlanField is a header field; Value may hold variables.
type PlanField struct{ Name, Value, Place string }

// PlanAnswer is an answer of the server's own.
type PlanAnswer struct {
	Status int
	Text   string // body or, with Redirect, location; it may hold variables
	Type   string
	// Redirect tells locations from bodies. With Arguments those of the request
	// are added, and $1 to $9 in Text are what the route's expression captured.
	Redirect, Arguments bool
	Place               string
}

// PlanPass is a request passed on.
type PlanPass struct {
	Name     string // as proxy_pass names it
	TLS      bool
	Verify   bool // the server's certificate is verified
	Servers  []PlanTarget
	Replace  bool // the route's name is replaced by Path
	Path     string
	Fields   []PlanField // of the request
	Place    string
	Balanced string // how the group chooses; "" for in turn
}

// PlanTarget is a server that requests are passed to.
type PlanTarget struct {
	Address string
	Weight  int
	Backup  bool
	Place   string
}

// PlanFiles is files that are served.
type PlanFiles struct {
	Root  string
	Index []string
	// Last is what is served when there is no file: a path, or "=404".
	Last  string
	Place string
}

// MakePlan reads a configuration that has been compiled.
func MakePlan(t *Table, file *parser.File) *Plan {
	p := &planner{linter: newLinter(file, nil, LintOptions{Offline: true}), Plan: &Plan{}, listens: t.ListenAddresses()}
	for i, s := range p.servers() {
		p.Servers = append(p.Servers, p.server(s))
		p.Servers[i].Number = i + 1
	}
	p.defaults()
	p.root.walk(p.account)
	slices.SortStableFunc(p.Unsaid, func(a, b Unsaid) int { return strings.Compare(a.Place, b.Place) })
	p.Unsaid = slices.Compact(p.Unsaid)
	return p.Plan
}

type planner struct {
	*linter
	*Plan
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
	switch name {
	case "map", "set", "geo", "split_clients": // where they are used, their variables are unknown
		if v := u.arg(len(u.Args) - 1); name == "map" && strings.HasPrefix(u.arg(0), "$http_upgrade") && v != "" {
			return
		}
	case "ssl_protocols":
		if !hasWord("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")(u) {
			return
		}
	case "autoindex", "auth_basic", "auth_request", "satisfy", "proxy_ssl_verify", "ssl_verify_client", "proxy_cache", "gzip_static", "ssi":
		if u.arg(0) == "off" || name == "satisfy" && u.arg(0) == "all" {
			return
		}
	}
	p.unsaid(u, "there is no word for it")
}

// plannedDirectives are read by the planner, which says itself what it cannot.
var plannedDirectives = wordSet(`http server events listen server_name location include return proxy_pass proxy_set_header
	add_header upstream allow deny client_max_body_size root index try_files default_type types ssl_certificate ssl_certificate_key
	if rewrite hash ip_hash least_conn random least_time proxy_ssl_server_name proxy_ssl_name`)

// tuningDirectives change how fast or with what memory, not what is answered.
var tuningDirectives = wordSet(`user worker_processes worker_connections worker_rlimit_nofile worker_rlimit_core worker_priority
	worker_shutdown_timeout pid daemon error_log access_log log_format open_log_file_cache log_not_found log_subrequest env working_directory
	sendfile tcp_nopush tcp_nodelay keepalive_timeout keepalive_requests keepalive_time keepalive_disable keepalive_min_timeout keepalive zone
	gzip gzip_types gzip_comp_level gzip_min_length gzip_vary gzip_proxied gzip_http_version gzip_disable
	proxy_http_version proxy_buffering proxy_request_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size
	proxy_read_timeout proxy_send_timeout proxy_connect_timeout proxy_temp_path proxy_max_temp_file_size proxy_temp_file_write_size
	proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout proxy_socket_keepalive proxy_ssl_session_reuse
	client_body_buffer_size client_body_timeout client_header_timeout client_header_buffer_size large_client_header_buffers
	client_body_temp_path send_timeout reset_timedout_connection lingering_close lingering_time lingering_timeout resolver resolver_timeout
	server_tokens etag http2 http2_max_concurrent_streams ssl_ciphers ssl_prefer_server_ciphers ssl_session_cache ssl_session_timeout
	ssl_session_tickets ssl_ecdh_curve ssl_buffer_size ssl_stapling ssl_stapling_verify ssl_trusted_certificate max_headers
	server_name_in_redirect port_in_redirect absolute_redirect charset acme_issuer acme_certificate acme_shared_zone`)

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
		if strings.Contains(out.Certificate, "$acme_certificate") {
			out.Certificate, out.Key = "", ""
		} else if len(list) > 1 || strings.ContainsAny(out.Certificate+out.Key, "$") || strings.HasPrefix(out.Certificate, "data:") {
			p.unsaid(list[0], "one certificate from a file can be carried over")
		}
	}
	out.Routes = append(p.before(s), p.locationsOf(s)...)
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

// before reads what a server decides before it looks for a location.
func (p *planner) before(s *scope) []PlanRoute {
	var out []PlanRoute
	for _, u := range s.uses {
		r := PlanRoute{Kind: Nameless, Place: linePlace(u.Name.Range)}
		switch u.Name.Value {
		case "return":
			r.Answer = p.answer(u, s)
		case "rewrite":
			r.Kind, r.Name = RegexLocation, u.arg(0)
			r.Answer = p.rewritten(u)
		case "if":
			c, ok := conditionOf(u)
			if !ok || u.body == nil || len(u.body.uses) != 1 || u.body.uses[0].Name.Value != "return" || c.op != "=" || c.variable != "host" {
				p.unsaid(u, "of conditions only those on $host that return are carried over")
				continue
			}
			r.Host = lower(c.value)
			r.Answer = p.answer(u.body.uses[0], s)
		default:
			continue
		}
		if r.Answer != nil {
			r.Fields = p.fields(s, "add_header")
			out = append(out, r)
		}
	}
	return out
}

// rewritten reads a rewrite that redirects.
func (p *planner) rewritten(u *use) *PlanAnswer {
	status := map[string]int{"permanent": 301, "redirect": 302}[u.arg(2)]
	if status == 0 && len(u.Args) == 2 && isRedirect(u.arg(1)) {
		status = 302
	}
	if status == 0 {
		p.unsaid(u, "of rewrites only redirects are carried over")
		return nil
	}
	to, noArguments := strings.CutSuffix(u.arg(1), "?")
	return &PlanAnswer{Status: status, Text: to, Redirect: true, Arguments: !noArguments && !strings.Contains(to, "?"), Place: linePlace(u.Name.Range)}
}

// answer reads a return.
func (p *planner) answer(u *use, s *scope) *PlanAnswer {
	a := &PlanAnswer{Place: linePlace(u.Name.Range), Type: s.setting("default_type", "text/plain")}
	if isRedirect(u.arg(0)) && len(u.Args) == 1 {
		a.Status, a.Text, a.Redirect = 302, u.arg(0), true
		return a
	}
	a.Status, _ = strconv.Atoi(u.arg(0))
	a.Text = u.arg(1)
	a.Redirect = isRedirectStatus(u.arg(0)) && len(u.Args) == 2
	return a
}

// fields reads a list of header fields that counts for a block.
func (p *planner) fields(s *scope, name string) []PlanField {
	var out []PlanField
	for _, u := range s.inherited(name) {
		out = append(out, PlanField{u.arg(0), u.arg(1), linePlace(u.Name.Range)})
	}
	return out
}
