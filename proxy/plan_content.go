package proxy

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// pass reads a proxy_pass.
func (p *planner) pass(u *use) *PlanPass {
	text := p.text(u.in, u.arg(0))
	late := strings.Contains(u.arg(0), "$")
	if late {
		text = strings.TrimSuffix(text, "$request_uri")
	}
	t := targetOf(text)
	switch {
	case strings.Contains(text, "$"):
		p.unsaid(u, "the server must be named, by an address or a host")
		return nil
	case strings.Contains(t.uri, "?"):
		p.unsaid(u, "arguments are not carried over")
		return nil
	}
	if t.host == "unix" {
		t.uri = strings.TrimSuffix(t.uri, "/")
	}
	out := &PlanPass{Late: late && t.host != "unix", Name: hostPort(t), TLS: t.scheme == "https", Replace: t.uri != "" && !late, Whole: t.uri != "" && late, Path: t.uri, Place: linePlace(u.Name.Range)}
	out.Verify = u.in.setting("proxy_ssl_verify", "off") == "on"
	out.ServerName, out.SNI = u.in.setting("proxy_ssl_name", t.host), u.in.setting("proxy_ssl_server_name", "off") == "on"
	if out.ServerName = strings.ReplaceAll(out.ServerName, "$proxy_host", t.host); out.TLS && strings.Contains(out.ServerName, "$") {
		p.unsaid(u.in.inherited("proxy_ssl_name")[0], "the name of the server's certificate must be named")
		return nil
	}
	port := map[bool]string{false: "80", true: "443"}[out.TLS]
	if group := p.upstreams()[lower(t.host)]; group != nil {
		out.Late = false
		out.Servers, out.Balanced = p.group(group, port)
	} else if t.host == "unix" {
		out.Name = "localhost"
		_, path, _ := strings.Cut(text, "unix:")
		path, _, _ = strings.Cut(path, ":")
		out.Servers = []PlanTarget{{Address: "unix:" + path, Weight: 1, Place: out.Place}}
	} else {
		if t.port == "" {
			t.port = port
		}
		out.Servers = []PlanTarget{{Address: t.host + ":" + t.port, Weight: 1, Place: out.Place}}
	}
	out.Fields = slices.DeleteFunc(p.fields(u.in, "proxy_set_header"), func(f PlanField) bool {
		own := "$http_" + strings.ReplaceAll(lower(f.Name), "-", "_") // the client's own is passed on anyway
		return f.Value == own && !slices.Contains([]string{"$http_host", "$http_connection", "$http_upgrade"}, own)
	})
	if !slices.ContainsFunc(out.Fields, func(f PlanField) bool { return strings.EqualFold(f.Name, "Host") }) {
		out.Fields = append(out.Fields, PlanField{Name: "Host", Value: out.Name, Place: out.Place})
	}
	out.Hidden = p.fields(u.in, "proxy_hide_header")
	out.Moved = p.moved(u, t, late)
	return out
}

// moved reads what is made of the locations of answers.
func (p *planner) moved(u *use, t target, late bool) [][2]PlanField {
	var out [][2]PlanField
	list := u.in.inherited("proxy_redirect")
	l := routeOf(u.in.around(InLocation).open)
	standard := func(place string) {
		from, to := t.scheme+"://"+hostPort(t)+t.uri, l.name
		if t.uri == "" {
			from, to = from+"/", "/"
		}
		if !late && t.host != "unix" && (t.uri == "" || l.kind.isPrefix()) {
			out = append(out, [2]PlanField{{Value: from, Place: place}, {Value: to, Place: place}})
		}
	}
	if list == nil {
		standard(linePlace(u.Name.Range))
	}
	for _, o := range list {
		switch place := linePlace(o.Name.Range); {
		case o.arg(0) == "off":
		case o.arg(0) == "default":
			standard(place)
		case strings.HasPrefix(o.arg(0), "~") || strings.Contains(o.arg(0)+o.arg(1), "$"):
			p.unsaid(o, "only plain beginnings are carried over")
		default:
			out = append(out, [2]PlanField{{Name: o.Name.Value, Value: o.arg(0), Place: place}, {Value: o.arg(1), Place: place}})
		}
	}
	return out
}

// group reads an upstream block.
func (p *planner) group(group *use, port string) (servers []PlanTarget, balanced string) {
	for _, u := range group.body.uses {
		switch u.Name.Value {
		case "server":
			t := PlanTarget{Address: u.arg(0), Weight: 1, Place: linePlace(u.Name.Range)}
			if at := targetOf(u.arg(0)); at.host != "unix" && at.port == "" {
				t.Address += ":" + port
			}
			down := false
			for i := 1; i < len(u.Args); i++ {
				word, value, _ := strings.Cut(u.arg(i), "=")
				switch word {
				case "weight":
					t.Weight, _ = strconv.Atoi(value)
				case "backup":
					t.Backup = true
				case "down":
					down = true
				case "max_fails", "fail_timeout", "resolve":
				default:
					p.unsaid(u, word+" has no equivalent")
				}
			}
			if !down {
				servers = append(servers, t)
			}
		case "ip_hash", "least_conn":
			balanced = u.Name.Value
		case "hash", "random", "least_time":
			p.unsaid(u, "this way to choose is not carried over")
		}
	}
	return servers, balanced
}

// app reads a fastcgi_pass with what it tells the application.
func (p *planner) app(u *use) *PlanApp {
	s := u.in
	text := p.text(s, u.arg(0))
	if strings.Contains(text, "$") {
		p.unsaid(u, "the server must be named, by an address or a host")
		return nil
	}
	if index := s.inherited("fastcgi_index"); index != nil && routeOf(s.around(InLocation).open).kind != RegexLocation {
		p.unsaid(index[0], "the script must be named by the path")
		return nil
	}
	out := &PlanApp{Place: linePlace(u.Name.Range), Split: s.inherited("fastcgi_split_path_info") != nil}
	if group := p.upstreams()[lower(text)]; group != nil {
		out.Servers, _ = p.group(group, "9000")
	} else {
		out.Servers = []PlanTarget{{Address: text, Weight: 1, Place: out.Place}}
	}
	if split := s.inherited("fastcgi_split_path_info"); split != nil && !strings.Contains(split[0].arg(0), "php") {
		p.unsaid(split[0], "only the end of .php is known to divide a script from what follows")
		return nil
	}
	if t := s.one("try_files"); t != nil {
		if first := t.arg(0); len(t.Args) != 2 || t.arg(1) != "=404" || first != "$uri" && first != "$fastcgi_script_name" && first != "$document_root$fastcgi_script_name" {
			p.unsaid(t, "only whether the script exists can be asked here, and 404 be the answer")
			return nil
		}
		out.Check = true
	}
	if !p.params(s, out) {
		return nil
	}
	return out
}

// params reads what is told: the script's file, and what is not as usual.
func (p *planner) params(s *scope, out *PlanApp) bool {
	root := p.folder(s)
	for _, u := range s.inherited("fastcgi_param") {
		name, value := u.arg(0), p.text(s, u.arg(1))
		switch {
		case name == "SCRIPT_FILENAME":
			folder, ok := strings.CutSuffix(value, "$fastcgi_script_name")
			switch {
			case value == "$request_filename", ok && folder == "$document_root":
				out.Root = root
			case ok && folder == "$realpath_root":
				out.Root, out.Resolve = root, true
			case ok && !strings.Contains(folder, "$"):
				out.Root = folder
			default:
				p.unsaid(u, "the script must be below a folder that is named")
				return false
			}
		case slices.Contains(strings.Fields(usualParams[name]), value):
			out.Usual = append(out.Usual, PlanField{Name: name, Value: value, Place: linePlace(u.Name.Range)})
		case usualParams[name] != "" && strings.Contains(value, "$"):
			p.unsaid(u, "this parameter has another value by itself")
		default:
			out.Params = append(out.Params, PlanField{Name: name, Value: value, Place: linePlace(u.Name.Range)})
		}
	}
	if out.Root == "" {
		p.unsaid(s.content(), "no SCRIPT_FILENAME says where its scripts are")
		return false
	}
	return true
}

// usualParams are what servers tell applications by themselves.
var usualParams = map[string]string{
	"QUERY_STRING": "$query_string $args", "REQUEST_METHOD": "$request_method", "CONTENT_TYPE": "$content_type", "CONTENT_LENGTH": "$content_length",
	"SCRIPT_NAME": "$fastcgi_script_name", "REQUEST_URI": "$request_uri", "DOCUMENT_URI": "$document_uri $uri $fastcgi_script_name",
	"DOCUMENT_ROOT": "$document_root $realpath_root", "SERVER_PROTOCOL": "$server_protocol", "REQUEST_SCHEME": "$scheme", "HTTPS": "$https",
	"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx/$nginx_version", "REMOTE_ADDR": "$remote_addr", "REMOTE_PORT": "$remote_port",
	"REMOTE_USER": "$remote_user", "SERVER_ADDR": "$server_addr", "SERVER_PORT": "$server_port", "SERVER_NAME": "$server_name $host",
	"PATH_INFO": "$fastcgi_path_info $path_info", "PATH_TRANSLATED": "$document_root$fastcgi_path_info $document_root$path_info", "HTTP_HOST": "$host $http_host",
}

// folder gives the folder of a block.
func (p *planner) folder(s *scope) string {
	if root := s.inherited("root"); root != nil {
		return p.opts.prefixed(root[0].arg(0))
	}
	return p.opts.prefixed("html")
}

// files reads what serves files.
func (p *planner) files(s *scope) *PlanFiles {
	f := &PlanFiles{Root: p.folder(s), Index: []string{"index.html"}, Last: "=404", Place: linePlace(s.open.Name.Range)}
	if root := s.inherited("root"); root != nil {
		f.Place = linePlace(root[0].Name.Range)
		if strings.Contains(f.Root, "$") {
			p.unsaid(root[0], "the folder must be named")
			return nil
		}
	}
	if alias := s.inherited("alias"); alias != nil && !p.alias(s, alias[0], f) {
		return nil
	}
	if list := s.inherited("index"); list != nil {
		f.Index = nil
		for i := range list[0].Args {
			f.Index = append(f.Index, list[0].arg(i))
		}
	}
	return p.fallback(s, f)
}

// alias reads a folder in the place of a location's name.
func (p *planner) alias(s *scope, u *use, f *PlanFiles) bool {
	l := routeOf(s.open)
	if s.own("root") != nil {
		return true
	}
	_, slash := strings.CutSuffix(u.arg(0), "/")
	switch {
	case u.in != s || !l.kind.isPrefix() || strings.Contains(u.arg(0), "$"):
		p.unsaid(u, "only a folder in the place of a location's beginning is carried over")
		return false
	case slash != strings.HasSuffix(l.name, "/"):
		p.unsaid(u, "it and its location must both end in a slash, or neither")
		return false
	case s.one("try_files") != nil:
		p.unsaid(s.one("try_files"), "beside an alias it is not carried over")
		return false
	}
	f.Root, f.Strip = strings.TrimSuffix(p.opts.prefixed(u.arg(0)), "/"), strings.TrimSuffix(l.name, "/")
	f.Place = linePlace(u.Name.Range)
	return true
}

// fallback reads what is served in the place of a file: an index, which may be a
// script, and what try_files names.
func (p *planner) fallback(s *scope, f *PlanFiles) *PlanFiles {
	server := s.around(InServer)
	var run *scope
	for _, name := range f.Index {
		for _, folder := range sampleFolders(s) {
			switch to := p.locate(server, path.Join(folder, name)); {
			case to == s || to.content() == nil && to.answers() == nil && p.folder(to) == p.folder(s) && f.Strip == "":
			case to.in == InLocation && to.content() != nil && to.content().Name.Value == "fastcgi_pass" && (run == nil || run == to) && f.Strip == "":
				run = to
			default:
				u := s.open
				if list := s.inherited("index"); list != nil {
					u = list[0]
				}
				p.unsaid(u, "another location takes "+strconv.Quote(path.Join(folder, name)))
				return nil
			}
		}
	}
	if t := s.one("try_files"); t != nil && !p.tries(s, t, f, &run) {
		return nil
	}
	if run != nil {
		r, before, ok := p.route(run)
		if !ok || before != nil {
			p.unsaid(run.open, "what runs an index must not depend on conditions")
			return nil
		}
		l := routeOf(run.open)
		r.Kind, r.Name, r.Caseless = l.kind, l.name, l.caseless
		f.Run, p.reached[run] = &r, true
	}
	return f
}

// sampleFolders are folders whose indexes tell where those of all lead.
func sampleFolders(s *scope) []string {
	folder := "/"
	if s.in == InLocation {
		if l := routeOf(s.open); l.kind.isPrefix() && strings.HasSuffix(l.name, "/") {
			folder = l.name
		}
	}
	return []string{folder, folder + "x/"}
}

// tries reads try_files. run is the location of scripts that it leads to.
func (p *planner) tries(s *scope, t *use, f *PlanFiles, run **scope) bool {
	f.Place = linePlace(t.Name.Range)
	last := len(t.Args) - 1
	for i := range last {
		f.Tries = append(f.Tries, p.text(s, t.arg(i)))
	}
	f.Last = p.text(s, t.arg(last))
	server := s.around(InServer)
	var to *scope
	switch {
	case f.Last == "=404":
		return true
	case strings.HasPrefix(f.Last, "@"):
		for _, u := range server.locations() {
			if u.arg(0) == f.Last {
				to = u.body
			}
		}
	default:
		uri, _, _ := strings.Cut(strings.ReplaceAll(f.Last, "$is_args", "?"), "?")
		if !strings.HasPrefix(uri, "/") || strings.Contains(uri, "$") {
			p.unsaid(t, "the last resort must be a path, a named location or =404")
			return false
		}
		if to = p.locate(server, uri); to == s {
			return true
		}
		f.To = f.Last
	}
	if to == nil {
		p.unsaid(t, "there is no such location")
		return false
	}
	if to.content() != nil && to.content().Name.Value == "fastcgi_pass" && f.To != "" && (*run == nil || *run == to) {
		*run, f.To = to, ""
		return true
	}
	if p.leading[to] {
		p.unsaid(t, "it leads in a circle")
		return false
	}
	p.leading[to] = true
	defer delete(p.leading, to)
	r, before, ok := p.route(to)
	if !ok || before != nil {
		p.unsaid(t, "where it leads cannot be said")
		return false
	}
	f.Else, p.reached[to] = &r, true
	return true
}
