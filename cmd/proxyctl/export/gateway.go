package export

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"proxyctl/proxy"
)

// The Gateway API of Kubernetes: a Gateway, an HTTPRoute for each server, and
// Services with the addresses that requests are passed to.

func (w *writer) gateway(p *proxy.Plan) {
	w.line("", "apiVersion: gateway.networking.k8s.io/v1")
	w.line("", "kind: Gateway")
	w.line("", "metadata:")
	w.line("", "  name: web")
	w.line("", "spec:")
	w.line("", "  gatewayClassName: web # name the class of your controller here")
	w.line("", "  listeners:")
	for _, d := range doors(p) {
		if d.tls {
			w.gatewayTLS(d)
			continue
		}
		w.listener(d, "HTTP", d.servers[0].Place)
	}
	for i := range p.Servers {
		if s := &p.Servers[i]; len(s.Routes) > 0 && len(s.Listens) > 0 {
			w.httpRoute(s, doors(p))
		}
	}
	for i := range p.Servers {
		for j := range p.Servers[i].Routes {
			if r := &p.Servers[i].Routes[j]; r.Pass != nil && !r.Pass.TLS {
				w.services(r.Pass, routeName(&p.Servers[i], j))
			}
		}
	}
}

func listenerName(d *door) string { return fmt.Sprintf("port-%d", d.address.Port()) }

func (w *writer) listener(d *door, protocol, place string) {
	if !d.address.Addr().IsUnspecified() {
		w.missing("listen", d.address.String(), place, "a listener has a port and no address", true)
	}
	w.line(place, "  - name: %s", listenerName(d))
	w.line("", "    port: %d", d.address.Port())
	w.line("", "    protocol: %s", protocol)
}

// gatewayTLS writes a listener with the certificates of its servers, which are
// Secrets.
func (w *writer) gatewayTLS(d *door) {
	w.listener(d, "HTTPS", d.servers[0].Place)
	w.line("", "    tls:")
	w.line("", "      mode: Terminate")
	w.line("", "      certificateRefs:")
	for _, s := range d.servers {
		w.line(s.Place, "      - name: certificate-s%d", s.Number)
		if s.Modern {
			w.missing("ssl_protocols", "TLSv1.3", s.Place, "the versions of TLS are left to the controller", true)
		}
		if s.Certificate != "" {
			w.line("", "        # kubectl create secret tls certificate-s%d --cert=%s --key=%s", s.Number, s.Certificate, s.Key)
		}
	}
}

// maxRules is how many rules a route may have.
const maxRules = 16

func (w *writer) httpRoute(s *proxy.PlanServer, all []*door) {
	var rules []*bytes.Buffer
	usual := true
	for _, d := range all {
		usual = usual && (!d.has(s) || d.address.Port() == map[bool]uint16{false: 80, true: 443}[d.tls])
	}
	for j := range s.Routes {
		r := &s.Routes[j]
		if host := onlyHost(r); host != "" && len(rules) == 0 && j+1 < len(s.Routes) && closes(&s.Routes[j+1]) {
			rule := &writer{place: w.place, usual: usual}
			bare := *r
			bare.When = nil
			if rule.gatewayRule(&bare, routeName(s, j)); rule.Len() > 0 {
				w.routeHead(s, all, fmt.Sprintf("s%d-%d", s.Number, j+1), []string{host}, r.Place)
				_, _ = w.Write(rule.Bytes())
			}
			w.unsaid = append(w.unsaid, rule.unsaid...)
			continue
		}
		if closes(r) && j == len(s.Routes)-1 {
			continue // what no rule matches is answered 404
		}
		rule := &writer{place: w.place, usual: usual}
		if rule.gatewayRule(r, routeName(s, j)); rule.Len() > 0 {
			rules = append(rules, &rule.Buffer)
		}
		w.unsaid = append(w.unsaid, rule.unsaid...)
	}
	names, place := w.hostnames(s, all)
	for i := 0; i < len(rules); i += maxRules {
		name := fmt.Sprintf("s%d", s.Number)
		if i > 0 {
			name += fmt.Sprintf("-more%d", i/maxRules)
		}
		w.routeHead(s, all, name, names, place)
		for _, rule := range rules[i:min(i+maxRules, len(rules))] {
			_, _ = w.Write(rule.Bytes())
		}
	}
}

// onlyHost gives the host that a route of the server's own script is for.
func onlyHost(r *proxy.PlanRoute) string {
	if r.Kind == proxy.Nameless && len(r.When) == 1 && r.When[0].Variable == "host" && r.When[0].Op == "=" {
		return r.When[0].Value
	}
	return ""
}

// closes tells a route that answers all that is left with 404.
func closes(r *proxy.PlanRoute) bool {
	everything := r.Kind == proxy.Nameless || r.Kind == proxy.PrefixLocation && r.Name == "/"
	return everything && len(r.When) == 0 && r.Answer != nil && r.Answer.Status == 404 && r.Answer.Text == ""
}

// routeHead writes the beginning of an HTTPRoute up to its rules.
func (w *writer) routeHead(s *proxy.PlanServer, all []*door, name string, hosts []string, place string) {
	w.line("", "---")
	w.line("", "apiVersion: gateway.networking.k8s.io/v1")
	w.line(s.Place, "kind: HTTPRoute")
	w.line("", "metadata:")
	w.line("", "  name: %s", name)
	w.line("", "spec:")
	w.line("", "  parentRefs:")
	for _, d := range all {
		if d.has(s) {
			w.line("", "  - name: web")
			w.line("", "    sectionName: %s", listenerName(d))
		}
	}
	switch {
	case len(hosts) == 0:
		w.line("", "  # all hosts that no other route names")
	default:
		w.line(place, "  hostnames:")
		for _, h := range hosts {
			w.line("", "  - %s", yamlQuote(h))
		}
	}
	w.line("", "  rules:")
}

func (d *door) has(s *proxy.PlanServer) bool {
	return slices.ContainsFunc(d.servers, func(o *proxy.PlanServer) bool { return o.Number == s.Number })
}

// hostnames gives the names of a server; none for the server of unknown names.
func (w *writer) hostnames(s *proxy.PlanServer, all []*door) ([]string, string) {
	chosen, others := false, false
	for _, d := range all {
		if d.has(s) {
			is := d.chosen != nil && d.chosen.Number == s.Number
			chosen, others = chosen || is, others || !is
		}
	}
	if chosen && !others {
		return nil, ""
	}
	if chosen {
		w.missing("listen", "default_server", s.Place, "a route takes unknown names of all its listeners, or of none", false)
	}
	var names []string
	for _, n := range s.Names {
		switch {
		case n == "" || n == "_":
			w.missing("server_name", n, s.Place, "only the route of unknown names can be without one", false)
		case strings.HasPrefix(n, "~") || strings.HasSuffix(n, "*"):
			w.missing("server_name", n, s.Place, "host names of routes are whole, or begin with *.", false)
		case strings.HasPrefix(n, "."):
			names = append(names, n[1:], "*"+n)
		default:
			names = append(names, strings.ToLower(n))
		}
	}
	if names == nil {
		names = []string{fmt.Sprintf("s%d.invalid", s.Number)} // nobody's
	}
	return names, s.Place
}

func (w *writer) gatewayRule(r *proxy.PlanRoute, name string) {
	kind, path := "PathPrefix", cmp.Or(strings.TrimSuffix(r.Name, "/"), "/")
	switch {
	case r.Kind == proxy.ExactLocation:
		kind, path = "Exact", r.Name
	case r.Kind == proxy.RegexLocation || r.Within != "" || r.Except != nil:
		w.missing(lost(r), r.Text, r.Place, "which rule comes first is left to the controller where expressions are used", lost(r) != "location")
		return
	case r.Kind == proxy.Nameless && (r.When != nil || r.Answer == nil):
		w.missing(statement(r), r.Text, r.Place, "longer paths would come before it", lost(r) != "location")
		return
	case path != "/" && path == r.Name:
		w.missing("location", r.Text, r.Place, "it takes "+path+"x as well, where a PathPrefix ends at a slash: let it end in one", false)
	}
	matches, ok := w.gatewayMatches(r)
	if !ok {
		return
	}
	guarded := w.gatewayGuards(r)
	filters := &writer{place: w.place, usual: w.usual}
	switch {
	case r.Closed:
		ok = false
	case r.Answer != nil:
		ok = w.gatewayRedirect(r.Answer, filters)
	case !hasContent(r):
		ok = false
	case r.Files != nil:
		w.missing("root", r.Files.Root, r.Files.Place, "a gateway serves no files", false)
		ok = false
	case r.App != nil:
		w.missing("fastcgi_pass", "", r.App.Place, "a gateway speaks HTTP to servers", false)
		ok = false
	case r.Pass.TLS:
		w.missing("proxy_pass", "https://"+r.Pass.Name, r.Pass.Place, "TLS to servers needs a BackendTLSPolicy with their authority", true)
		ok = false
	case r.Pass.Whole:
		w.missing("proxy_pass", r.Pass.Path, r.Pass.Place, "the arguments of a request cannot be left out", false)
		ok = false
	default:
		w.gatewayFields(r, filters)
	}
	w.unsaid = append(w.unsaid, filters.unsaid...)
	w.line(r.Place, "  - matches:")
	w.line("", "    - path:")
	w.line("", "        type: %s", kind)
	w.line("", "        value: %s", yamlQuote(path))
	_, _ = w.Write(matches)
	if !ok || !guarded { // what cannot be said is closed: its requests must not come to another
		w.line("", "    backendRefs: # there is no such service: the answer is 500")
		w.line("", "    - name: closed")
		w.line("", "      port: 80")
		return
	}
	if filters.Len() > 0 {
		w.line("", "    filters:")
		_, _ = w.Write(filters.Bytes())
	}
	if r.Pass != nil {
		w.backends(r.Pass, name)
	}
}

// gatewayMatches writes conditions on methods and fields.
func (w *writer) gatewayMatches(r *proxy.PlanRoute) ([]byte, bool) {
	out := &writer{place: w.place}
	method := false
	fields := false
	for _, c := range r.When {
		field, isField := strings.CutPrefix(c.Variable, "http_")
		switch {
		case c.Op == "=" && c.Variable == "request_method" && !method && !fields:
			out.line(c.Place, "      method: %s", c.Value)
			method = true
		case c.Op == "=" && isField && c.Value != "" && !strings.Contains(c.Value, "$"):
			if !fields {
				out.line("", "      headers:")
			}
			fields = true
			out.line(c.Place, "      - name: %s", strings.ReplaceAll(field, "_", "-"))
			out.line("", "        value: %s", yamlQuote(c.Value))
		default:
			w.missing(statement(r), r.Text, c.Place, "rules know methods and fields that are equal to something", lost(r) != "location")
			return nil, false
		}
	}
	return out.Bytes(), true
}

// gatewayGuards notes what protects and cannot be said; false when nothing can
// take its place.
func (w *writer) gatewayGuards(r *proxy.PlanRoute) bool {
	if r.Allow != nil || r.Deny != nil {
		w.missing("deny", strings.Join(append(r.Allow, r.Deny...), " "), r.Place, "routes know no addresses of clients", true)
	}
	if r.Login != nil {
		w.missing("auth_basic", r.Login.Realm, r.Login.Place, "routes know no passwords", true)
	}
	if r.MaxBody != 1<<20 && r.MaxBody != 0 && r.Pass != nil {
		w.missing("client_max_body_size", strconv.FormatInt(r.MaxBody, 10), r.Place, "routes do not limit bodies", true)
	}
	if r.Compress != nil && r.Pass != nil {
		w.missing("gzip", "on", r.Compress.Place, "routes do not compress", false)
	}
	if r.Rewrite != nil {
		w.missing("rewrite", r.Rewrite.Expression+" "+r.Rewrite.To, r.Rewrite.Place, "only the beginning of a path can be replaced", false)
		return false
	}
	return true
}

func (w *writer) backends(p *proxy.PlanPass, name string) {
	if p.Balanced != "" {
		w.missing(p.Balanced, "", p.Place, "how a server is chosen is left to the controller", false)
	}
	w.line(p.Place, "    backendRefs:")
	for i, t := range p.Servers {
		if t.Backup {
			w.missing("server", t.Address+" backup", t.Place, "there are no backup servers", false)
			continue
		}
		_, port, _ := net.SplitHostPort(t.Address)
		w.line(t.Place, "    - name: %s-%d", name, i+1)
		w.line("", "      port: %s", port)
		w.line("", "      weight: %d", t.Weight)
	}
}

// gatewayRedirect writes a redirect; nothing else can be answered.
func (w *writer) gatewayRedirect(a *proxy.PlanAnswer, filters *writer) bool {
	scheme, rest, absolute := strings.Cut(a.Text, "://")
	host, kept := strings.CutSuffix(rest, "$request_uri")
	path := ""
	if !absolute {
		path, kept = a.Text, true
	}
	switch {
	case !a.Redirect:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "a gateway has no answers of its own but redirects", a.Status >= 400)
		return false
	case !kept, a.Arguments && absolute, strings.Contains(path, "$"), strings.Contains(strings.ReplaceAll(host, "$host", ""), "$"), scheme == "$scheme" && !filters.usual:
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "this redirect has no equivalent", false)
		return false
	}
	filters.line(a.Place, "    - type: RequestRedirect")
	filters.line("", "      requestRedirect:")
	filters.line("", "        statusCode: %d", a.Status)
	if absolute {
		if scheme != "$scheme" {
			filters.line("", "        scheme: %s", scheme)
			filters.line("", "        port: %d", map[bool]int{true: 443, false: 80}[scheme == "https"])
		}
		if host != "$host" {
			filters.line("", "        hostname: %s", yamlQuote(host))
		}
	} else {
		filters.line("", "        path:")
		filters.line("", "          type: ReplaceFullPath")
		filters.line("", "          replaceFullPath: %s", yamlQuote(path))
	}
	return true
}

// gatewayFields writes what is changed on the way.
func (w *writer) gatewayFields(r *proxy.PlanRoute, filters *writer) {
	var set, remove []proxy.PlanField
	host := ""
	for _, f := range r.Pass.Fields {
		switch {
		case isUpgrade(f), strings.HasPrefix(strings.ToLower(f.Name), "x-forwarded-"): // gateways do it
		case strings.EqualFold(f.Name, "Host") && (f.Value == "$host" || f.Value == "$http_host"):
		case strings.Contains(f.Value, "$"):
			w.missing("proxy_set_header", f.Name+" "+f.Value, f.Place, "values are fixed texts", false)
			remove = append(remove, f) // nobody may send it in its place
		case strings.EqualFold(f.Name, "Host"):
			host = f.Value
		case f.Value == "":
			remove = append(remove, f)
		default:
			set = append(set, f)
		}
	}
	if len(set)+len(remove) > 0 {
		filters.line("", "    - type: RequestHeaderModifier")
		filters.line("", "      requestHeaderModifier:")
		filters.fields("set", set)
		filters.removed(remove)
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if _, notName := netip.ParseAddr(name); notName == nil {
		name = "" // an address is no host name here
	}
	if name != "" || r.Pass.Replace {
		filters.line(r.Pass.Place, "    - type: URLRewrite")
		filters.line("", "      urlRewrite:")
		if name != "" {
			filters.line("", "        hostname: %s", yamlQuote(name))
		}
		if r.Pass.Replace {
			filters.line("", "        path:")
			if r.Kind == proxy.ExactLocation {
				filters.line("", "          type: ReplaceFullPath")
				filters.line("", "          replaceFullPath: %s", yamlQuote(r.Pass.Path))
			} else {
				filters.line("", "          type: ReplacePrefixMatch")
				filters.line("", "          replacePrefixMatch: %s", yamlQuote(r.Pass.Path))
			}
		}
	}
	var add []proxy.PlanField
	for _, f := range r.Fields {
		if strings.Contains(f.Value, "$") {
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "values are fixed texts", isProtection(f.Name))
			continue
		}
		add = append(add, f)
	}
	for _, m := range r.Pass.Moved {
		if m[0].Name != "" {
			w.missing("proxy_redirect", m[0].Value, m[0].Place, "locations of answers are not changed", false)
		}
	}
	if len(add)+len(r.Pass.Hidden) > 0 {
		filters.line("", "    - type: ResponseHeaderModifier")
		filters.line("", "      responseHeaderModifier:")
		filters.fields("add", add)
		filters.removed(r.Pass.Hidden)
	}
}

func (w *writer) fields(how string, list []proxy.PlanField) {
	if len(list) > 0 {
		w.line("", "        %s:", how)
	}
	for _, f := range list {
		w.line(f.Place, "        - name: %s", yamlQuote(f.Name))
		w.line("", "          value: %s", yamlQuote(f.Value))
	}
}

func (w *writer) removed(list []proxy.PlanField) {
	if len(list) > 0 {
		w.line("", "        remove:")
	}
	for _, f := range list {
		w.line(f.Place, "        - %s", yamlQuote(f.Name))
	}
}

// services writes the servers of a pass, one Service each: weights are theirs.
func (w *writer) services(p *proxy.PlanPass, name string) {
	for i, t := range p.Servers {
		host, port, err := net.SplitHostPort(t.Address)
		if strings.HasPrefix(t.Address, "unix:") {
			w.missing("server", t.Address, t.Place, "a cluster knows no sockets of a file system", false)
			continue
		}
		if err != nil || t.Backup {
			continue
		}
		w.line("", "---")
		w.line("", "apiVersion: v1")
		w.line(t.Place, "kind: Service")
		w.line("", "metadata:")
		w.line("", "  name: %s-%d", name, i+1)
		w.line("", "spec:")
		a, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil {
			w.line("", "  type: ExternalName")
			w.line(t.Place, "  externalName: %s", yamlQuote(host))
		}
		w.line("", "  ports:")
		w.line("", "  - port: %s", port)
		if err != nil {
			continue
		}
		if a.IsLoopback() {
			w.missing("server", t.Address, t.Place, "the loopback address is another one in a cluster", false)
		}
		w.line("", "---")
		w.line("", "apiVersion: discovery.k8s.io/v1")
		w.line(t.Place, "kind: EndpointSlice")
		w.line("", "metadata:")
		w.line("", "  name: %s-%d", name, i+1)
		w.line("", "  labels:")
		w.line("", "    kubernetes.io/service-name: %s-%d", name, i+1)
		w.line("", "addressType: %s", map[bool]string{true: "IPv4", false: "IPv6"}[a.Is4()])
		w.line("", "ports:")
		w.line("", "- port: %s", port)
		w.line("", "endpoints:")
		w.line("", "- addresses:")
		w.line(t.Place, "  - %s", yamlQuote(a.String()))
	}
}

// yamlQuote writes a text as JSON does, which YAML reads.
func yamlQuote(s string) string { return strconv.QuoteToASCII(s) }
