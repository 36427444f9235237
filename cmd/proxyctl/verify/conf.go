package verify

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// rewriter makes of a configuration one that touches nothing of the user's:
// addresses, logs and temporary files are moved, upstreams replaced.
type rewriter struct {
	dir      string // for what both servers write
	root     bool   // the servers start as root
	pair     string // a certificate and key for those that cannot be read: pair + ".crt", ".key"
	readable func(path string) bool
	backends *backends
	chance   bool            // which server of a group is chosen cannot be foreseen
	real     bool            // upstreams stay what they are
	groups   map[string]bool // names of upstream blocks
	logs     map[string]string
	left     map[string]*leftOut
	order    []string // of left
}

// leftOut is a kind of directive that takes no part.
type leftOut struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Why   string `json:"why"`
}

// frame is a block that is being rewritten.
type frame struct {
	name    string
	up      *frame
	headers []*parser.Directive // its own proxy_set_header
}

// rewrite gives the file without its includes and everything in its new place
// but the addresses that it listens on.
func (r *rewriter) rewrite(file *parser.File) *parser.File {
	r.groups, r.logs, r.left = map[string]bool{}, map[string]string{}, map[string]*leftOut{}
	body := flatten(file.Body)
	each(body, func(d *parser.Directive) {
		if d.Name.Value == "upstream" && len(d.Args) == 1 {
			r.groups[strings.ToLower(d.Args[0].Value)] = true
		}
	})
	r.block(body, &frame{})
	body.Items = append([]*parser.Directive{
		said("daemon", "off"), said("worker_processes", "1"), said("pid", r.path("pid")), said("error_log", r.path("error.log"), "info"),
	}, body.Items...)
	return &parser.File{Source: file.Source, Body: body}
}

func (r *rewriter) path(name string) string { return filepath.Join(r.dir, name) }

// flatten copies a block and puts what it includes in its place.
func flatten(b *parser.Block) *parser.Block {
	out := &parser.Block{Close: b.Close}
	for _, d := range b.Items {
		if d.Files != nil {
			for _, f := range d.Files {
				out.Items = append(out.Items, flatten(f.Body).Items...)
			}
			continue
		}
		c := *d
		c.Args = slices.Clone(d.Args)
		if d.Block != nil {
			c.Block = flatten(d.Block)
		}
		out.Items = append(out.Items, &c)
	}
	return out
}

func each(b *parser.Block, f func(*parser.Directive)) {
	for _, d := range b.Items {
		f(d)
		if d.Block != nil {
			each(d.Block, f)
		}
	}
}

// said makes a directive.
func said(name string, args ...string) *parser.Directive {
	d := &parser.Directive{Name: parser.Arg{Value: name}}
	for _, a := range args {
		d.Args = append(d.Args, parser.Arg{Value: a})
	}
	return d
}

func (r *rewriter) block(b *parser.Block, f *frame) {
	for _, d := range b.Items {
		if d.Name.Value == "proxy_set_header" {
			f.headers = append(f.headers, d)
		}
	}
	var out []*parser.Directive
	for _, d := range b.Items {
		out = append(out, r.directive(d, f)...)
	}
	if f.name == "http" {
		out = append(out, r.httpDefaults(b)...)
	}
	b.Items = out
}

// httpDefaults says what nginx was built with otherwise.
func (r *rewriter) httpDefaults(b *parser.Block) []*parser.Directive {
	list := []*parser.Directive{
		said("client_body_temp_path", r.path("body")), said("proxy_temp_path", r.path("proxy")),
	}
	if !slices.ContainsFunc(b.Items, func(d *parser.Directive) bool { return d.Name.Value == "access_log" }) {
		list = append(list, said("access_log", r.path("access.log")))
	}
	none := said("map", "$pid", "$proxyctl_none")
	none.Block = &parser.Block{Items: []*parser.Directive{said("default", "")}}
	return append(list, none)
}

// tempPaths says where modules that speak to other upstreams put their files:
// nginx makes the folders even when nobody asks for them.
func (r *rewriter) tempPaths(body *parser.Block, without []string, served func(name string) bool) {
	for _, d := range body.Items {
		if d.Name.Value != "http" || d.Block == nil {
			continue
		}
		for _, module := range []string{"fastcgi", "uwsgi", "scgi"} {
			name := module + "_temp_path"
			if !slices.Contains(without, "http_"+module+"_module") && (served == nil || served(name)) {
				d.Block.Items = append(d.Block.Items, said(name, r.path(module)))
			}
		}
	}
}

// omitted tells why directives take no part; "" for those that make no
// difference anyway.
func (r *rewriter) omitted(name string) (why string, omit bool) {
	switch name {
	case "user":
		return "", !r.root
	case "daemon", "master_process", "worker_processes", "worker_cpu_affinity", "worker_priority", "worker_rlimit_nofile", "worker_rlimit_core",
		"pid", "lock_file", "error_log", "working_directory", "use", "google_perftools_profiles",
		"client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path", "uwsgi_temp_path", "scgi_temp_path":
		return "", true
	case "limit_req", "limit_conn", "limit_rate", "limit_rate_after":
		return "what it does depends on time", true
	case "proxy_store", "fastcgi_store", "uwsgi_store", "scgi_store":
		return "it would write into your folders", true
	case "proxy_bind":
		if r.real {
			return "", false
		}
		return "requests to upstreams stay on this machine", true
	case "proxy_ssl_verify", "grpc_ssl_verify", "uwsgi_ssl_verify":
		if r.real {
			return "", false
		}
		return "the upstreams are replaced", true
	case "ssl_stapling", "ssl_stapling_verify", "ssl_stapling_file", "ssl_stapling_responder", "ssl_ocsp":
		return "nobody else is asked", true
	case "stream", "mail":
		return "only http is compared", true
	}
	return "", false
}

func (r *rewriter) leave(name, why string) {
	l := r.left[name]
	if l == nil {
		l = &leftOut{Name: name, Why: why}
		r.left[name] = l
		r.order = append(r.order, name)
	}
	l.Count++
}

// directive gives what stands in the place of a directive.
func (r *rewriter) directive(d *parser.Directive, f *frame) []*parser.Directive {
	name := d.Name.Value
	if f.name == "map" || f.name == "geo" || f.name == "types" || f.name == "split_clients" {
		return []*parser.Directive{d}
	}
	why, omit := r.omitted(name)
	if f.name == "upstream" && (name == "random" || name == "least_time" || name == "sticky") {
		r.chance, why = true, "which server of a group gets a request depends on chance or time"
	}
	if why != "" {
		r.leave(name, why)
	}
	if omit {
		return nil
	}
	return r.moved(d, f)
}

// moved gives a directive that takes part with its paths and addresses in
// their new places.
func (r *rewriter) moved(d *parser.Directive, f *frame) []*parser.Directive {
	name := d.Name.Value
	switch {
	case d.Block != nil:
		r.block(d.Block, &frame{name: name, up: f})
	case len(d.Args) == 0:
	case r.real && (name == "resolver" || f.name == "upstream" || strings.HasSuffix(name, "_pass")):
	case name == "server" && f.name == "upstream":
		r.server(d)
	case name == "access_log":
		r.accessLog(d)
	case name == "resolver":
		d.Args = slices.DeleteFunc(d.Args, func(a parser.Arg) bool { return !strings.Contains(a.Value, "=") })
		d.Args = slices.Insert(d.Args, 0, parser.Arg{Value: "127.0.0.1"})
	case name == "mirror" && d.Args[0].Value != "off":
		r.backends.linger = timeToBegin
	case name == "proxy_pass":
		return r.proxyPass(d, f)
	case strings.HasSuffix(name, "_pass") && name != "auth_request":
		r.otherPass(d)
	case strings.HasSuffix(name, "_cache_path"):
		d.Args[0] = parser.Arg{Value: r.path("cache-" + strconv.Itoa(len(r.logs)))}
		r.logs[d.Args[0].Value] = d.Args[0].Value
	case name == "ssl_certificate" || name == "ssl_certificate_key":
		r.certificate(d)
	case (name == "ssl_dhparam" || name == "ssl_trusted_certificate") && !r.readable(d.Args[0].Value):
		r.leave(name, "the file cannot be read")
		return nil
	}
	return []*parser.Directive{d}
}

// certificate replaces what cannot be read.
func (r *rewriter) certificate(d *parser.Directive) {
	value := d.Args[0].Value
	if strings.Contains(value, "$") || strings.HasPrefix(value, "data:") || strings.HasPrefix(value, "engine:") || strings.HasPrefix(value, "store:") || r.readable(value) {
		return
	}
	suffix := ".crt"
	if d.Name.Value == "ssl_certificate_key" {
		suffix = ".key"
	}
	d.Args[0] = parser.Arg{Value: r.pair + suffix}
	r.leave(d.Name.Value, "the file cannot be read; another certificate takes its place")
}

// accessLog moves a log. Who reads them finds each under a number.
func (r *rewriter) accessLog(d *parser.Directive) {
	path := d.Args[0].Value
	if path == "off" {
		return
	}
	if r.logs[path] == "" {
		r.logs[path] = r.path(fmt.Sprintf("access-%d.log", len(r.logs)))
	}
	d.Args[0] = parser.Arg{Value: r.logs[path]}
	d.Args = slices.DeleteFunc(d.Args, func(a parser.Arg) bool {
		return strings.HasPrefix(a.Value, "gzip") || strings.HasPrefix(a.Value, "buffer=") || strings.HasPrefix(a.Value, "flush=")
	})
}

// server replaces the address of a server of an upstream block.
func (r *rewriter) server(d *parser.Directive) {
	d.Args[0] = parser.Arg{Value: r.backends.address(withPort(d.Args[0].Value, "80"))}
	d.Args = slices.DeleteFunc(d.Args, func(a parser.Arg) bool {
		return a.Value == "resolve" || strings.HasPrefix(a.Value, "service=")
	})
}

// withPort completes an address.
func withPort(address, port string) string {
	if strings.HasPrefix(address, "unix:") {
		return address
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return address + ":" + port
}

// otherPass replaces the address of an upstream that speaks another protocol.
func (r *rewriter) otherPass(d *parser.Directive) {
	scheme, rest := "", d.Args[0].Value
	if i := strings.Index(rest, "://"); i >= 0 {
		scheme, rest = rest[:i+3], rest[i+3:]
	}
	if r.groups[strings.ToLower(rest)] {
		return
	}
	d.Args[0] = parser.Arg{Value: scheme + r.backends.address(rest)}
}

// PassField tells an upstream what the variables of proxy_pass came to.
const PassField = "X-Proxyctl-Pass"

// proxyPass replaces the address in a URL.
func (r *rewriter) proxyPass(d *parser.Directive, f *frame) []*parser.Directive {
	u := splitPass(d.Args[0].Value)
	switch {
	case !u.dynamic && r.groups[strings.ToLower(u.authority)]:
	case !u.dynamic && strings.HasPrefix(u.authority, "unix:"):
		path := r.path(fmt.Sprintf("upstream-%d", len(r.backends.list)))
		if address, ok := r.backends.unix(u.authority, path); ok {
			d.Args[0] = parser.Arg{Value: u.scheme + address + u.rest}
		}
	case !u.dynamic:
		port := "80"
		if u.scheme == "https://" {
			port = "443"
		}
		d.Args[0] = parser.Arg{Value: u.scheme + r.backends.address(withPort(u.authority, port)) + u.rest}
	default:
		shown := d.Args[0].Value
		d.Args[0] = parser.Arg{Value: u.scheme + r.backends.address(shown) + "$proxyctl_none" + u.rest}
		var out []*parser.Directive
		if len(f.headers) == 0 { // one of its own would end inheriting
			for up := f.up; up != nil; up = up.up {
				if len(up.headers) > 0 {
					out = append(out, up.headers...)
					break
				}
			}
		}
		return append(out, said("proxy_set_header", PassField, shown), d)
	}
	return []*parser.Directive{d}
}

// passURL is the URL of proxy_pass.
type passURL struct {
	scheme    string // with "://"
	authority string
	rest      string // with what separates it
	dynamic   bool   // variables say where it leads
}

func splitPass(text string) passURL {
	u := passURL{scheme: "http://"}
	rest := text
	switch l := strings.ToLower(text); {
	case strings.HasPrefix(l, "http://"):
		rest = text[len("http://"):]
	case strings.HasPrefix(l, "https://"):
		u.scheme, rest = "https://", text[len("https://"):]
	default: // a variable holds all of it
		u.dynamic = true
		if i := strings.Index(text, "://"); i >= 0 {
			rest = text[i+3:]
		}
	}
	if strings.HasPrefix(rest, "unix:") {
		path := rest[len("unix:"):]
		if i := strings.IndexByte(path, ':'); i >= 0 {
			u.authority, u.rest = "unix:"+path[:i], path[i:]
		} else {
			u.authority, u.rest = rest, ":"
		}
		u.dynamic = u.dynamic || strings.Contains(u.authority, "$")
		return u
	}
	end := len(rest)
	for _, mark := range []string{"/", "?", "$request_uri", "${request_uri}", "$uri", "${uri}", "$is_args", "$1"} {
		if i := strings.Index(rest, mark); i >= 0 && (i > 0 || !u.dynamic) {
			end = min(end, i)
		}
	}
	u.authority, u.rest = rest[:end], rest[end:]
	u.dynamic = u.dynamic || strings.Contains(u.authority, "$")
	return u
}

// listen moves the addresses that servers listen on. It gives the original of
// each new address.
func listen(body *parser.Block, addresses map[*parser.Directive][]proxy.ListenAddress, port func() (int, error)) (map[string]string, error) {
	moved, original := map[string]string{}, map[string]string{}
	ipv6 := hasIPv6()
	to := func(a proxy.ListenAddress) (string, error) {
		from := "unix:" + a.Path
		if a.Network != "unix" {
			from = a.Address.String()
		}
		if moved[from] == "" {
			n, err := port()
			if err != nil {
				return "", err
			}
			host := "127.0.0.1"
			if strings.HasSuffix(a.Network, "6") && ipv6 {
				host = "[::1]"
			}
			moved[from] = host + ":" + strconv.Itoa(n)
			original[moved[from]] = from
		}
		return moved[from], nil
	}
	var fail error
	var walk func(b *parser.Block)
	replaced := func(d *parser.Directive, keep bool) []*parser.Directive {
		var out []*parser.Directive
		for _, a := range addresses[d] {
			address, err := to(a)
			if err != nil {
				fail = err
				return nil
			}
			l := said("listen", address)
			if keep { // what has a place is written as it stands there
				l.Name.Range, l.End = d.Name.Range, d.End
			}
			if keep {
				l.Args = append(l.Args, slices.DeleteFunc(slices.Clone(d.Args[1:]), func(p parser.Arg) bool {
					return strings.HasPrefix(p.Value, "ipv6only") || strings.HasPrefix(p.Value, "setfib")
				})...)
			}
			out = append(out, l)
		}
		return out
	}
	walk = func(b *parser.Block) {
		var out []*parser.Directive
		for _, d := range b.Items {
			switch {
			case d.Name.Value == "listen" && addresses[d] != nil:
				out = append(out, replaced(d, true)...)
				continue
			case d.Block != nil:
				walk(d.Block)
				if addresses[d] != nil { // a server that names no address
					d.Block.Items = append(replaced(d, false), d.Block.Items...)
				}
			}
			out = append(out, d)
		}
		b.Items = out
	}
	walk(body)
	return original, fail
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

// write prints a tree.
func write(w io.Writer, b *parser.Block, indent string) {
	for _, d := range b.Items {
		fmt.Fprint(w, indent, d.Name.Raw())
		for _, a := range d.Args {
			fmt.Fprint(w, " ", a.Raw())
		}
		if d.Block == nil {
			fmt.Fprintln(w, ";")
			continue
		}
		fmt.Fprintln(w, " {")
		write(w, d.Block, indent+"    ")
		fmt.Fprintln(w, indent+"}")
	}
}

// mirrorFolder makes relative paths of a configuration lead where they led: all
// that is beside it appears in the new folder.
func mirrorFolder(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == confName || e.Name() == oursName {
			continue
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// The names of the two files. They differ in directives of temporary files.
const (
	confName = "proxyctl-verify.conf"
	oursName = "proxyctl-verify-here.conf"
)
