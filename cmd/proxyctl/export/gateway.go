package export

import (
	"fmt"
	"net"
	"net/netip"
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
		if s := &p.Servers[i]; len(s.Routes) > 0 {
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
		if s.Certificate != "" {
			w.line("", "        # kubectl create secret tls certificate-s%d --cert=%s --key=%s", s.Number, s.Certificate, s.Key)
		}
	}
}

func (w *writer) httpRoute(s *proxy.PlanServer, all []*door) {
	w.line("", "---")
	w.line("", "apiVersion: gateway.networking.k8s.io/v1")
	w.line(s.Place, "kind: HTTPRoute")
	w.line("", "metadata:")
	w.line("", "  name: s%d", s.Number)
	w.line("", "spec:")
	w.line("", "  parentRefs:")
	unknown := false
	for _, d := range all {
		for _, other := range d.servers {
			if other == s || other.Number == s.Number {
				w.line("", "  - name: web")
				w.line("", "    sectionName: %s", listenerName(d))
			}
		}
		unknown = unknown || d.chosen != nil && d.chosen.Number == s.Number
	}
	w.hostnames(s, unknown)
	w.line("", "  rules:")
	for j := range s.Routes {
		w.gatewayRule(&s.Routes[j], routeName(s, j))
	}
}

func (w *writer) hostnames(s *proxy.PlanServer, unknown bool) {
	var names []string
	for _, n := range s.Names {
		switch {
		case n == "" || n == "_":
			return // all that no other route takes
		case strings.HasPrefix(n, "~") || strings.HasSuffix(n, "*"):
			w.missing("server_name", n, s.Place, "host names of routes are whole, or begin with *.", false)
		case strings.HasPrefix(n, "."):
			names = append(names, n[1:], "*"+n)
		default:
			names = append(names, strings.ToLower(n))
		}
	}
	if len(names) == 0 {
		return
	}
	if unknown {
		w.line("", "  # nginx gives this server the names that nobody has, too; here they are answered 404")
	}
	w.line(s.Place, "  hostnames:")
	for _, n := range names {
		w.line("", "  - %s", yamlQuote(n))
	}
}

func (w *writer) gatewayRule(r *proxy.PlanRoute, name string) {
	kind, path := "PathPrefix", strings.TrimSuffix(r.Name, "/")
	if path == "" {
		path = "/"
	}
	switch {
	case r.Host != "":
		w.missing("if", r.Host, r.Place, "a rule knows no host of its own", false)
		return
	case r.Kind == proxy.ExactLocation:
		kind, path = "Exact", r.Name
	case r.Kind == proxy.RegexLocation:
		w.missing(lost(r), "~ "+r.Name, r.Place, "which rule comes first is left to the controller where expressions are used", lost(r) != "location")
		return
	}
	if r.Allow != nil || r.Deny != nil {
		w.missing("deny", strings.Join(append(r.Allow, r.Deny...), " "), r.Place, "routes know no addresses of clients", true)
	}
	if r.MaxBody != 1<<20 && r.Pass != nil {
		w.missing("client_max_body_size", strconv.FormatInt(r.MaxBody, 10), r.Place, "routes do not limit bodies", false)
	}
	filters := &writer{place: w.place, depth: 0}
	ok := true
	switch {
	case r.Answer != nil:
		ok = w.gatewayRedirect(r.Answer, filters)
	case r.Files != nil:
		w.missing("root", r.Files.Root, r.Files.Place, "a gateway serves no files", false)
		ok = false
	case r.Pass != nil && r.Pass.TLS:
		w.missing("proxy_pass", "https://"+r.Pass.Name, r.Pass.Place, "TLS to servers needs a BackendTLSPolicy with their authority", true)
		ok = false
	case r.Pass != nil:
		w.gatewayFields(r, filters)
	}
	if !ok {
		return
	}
	w.line(r.Place, "  - matches:")
	w.line("", "    - path:")
	w.line("", "        type: %s", kind)
	w.line("", "        value: %s", yamlQuote(path))
	if filters.Len() > 0 {
		w.line("", "    filters:")
		_, _ = w.Write(filters.Bytes())
	}
	if r.Pass != nil {
		w.line(r.Pass.Place, "    backendRefs:")
		for i, t := range r.Pass.Servers {
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
	case a.Status != 301 && a.Status != 302, !kept, a.Arguments && absolute, strings.Contains(path, "$"), strings.Contains(strings.ReplaceAll(host, "$host", ""), "$"), scheme == "$scheme":
		w.missing("return", fmt.Sprintf("%d %s", a.Status, a.Text), a.Place, "this redirect has no equivalent", false)
		return false
	}
	filters.line(a.Place, "    - type: RequestRedirect")
	filters.line("", "      requestRedirect:")
	filters.line("", "        statusCode: %d", a.Status)
	if absolute {
		filters.line("", "        scheme: %s", scheme)
		filters.line("", "        port: %d", map[bool]int{true: 443, false: 80}[scheme == "https"])
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
		if len(remove) > 0 {
			filters.line("", "        remove:")
		}
		for _, f := range remove {
			filters.line(f.Place, "        - %s", yamlQuote(f.Name))
		}
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
			filters.line("", "          type: ReplacePrefixMatch")
			filters.line("", "          replacePrefixMatch: %s", yamlQuote(r.Pass.Path))
		}
	}
	var add []proxy.PlanField
	for _, f := range r.Fields {
		if strings.Contains(f.Value, "$") {
			w.missing("add_header", f.Name+" "+f.Value, f.Place, "values are fixed texts", false)
			continue
		}
		add = append(add, f)
	}
	if len(add) > 0 {
		filters.line("", "    - type: ResponseHeaderModifier")
		filters.line("", "      responseHeaderModifier:")
		filters.fields("add", add)
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

// services writes the servers of a pass, one Service each: weights are theirs.
func (w *writer) services(p *proxy.PlanPass, name string) {
	for i, t := range p.Servers {
		host, port, err := net.SplitHostPort(t.Address)
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
