package proxy

import (
	"slices"
	"strings"

	"proxyctl/parser"
)

// DirectiveUse is how a configuration uses one directive, and how it would be
// served here.
type DirectiveUse struct {
	Name   string `json:"name"`
	Module string `json:"module,omitempty"`
	Count  int    `json:"count"`
	First  string `json:"first"` // "file:line"
	// Outcome is exact, differs, no effect, unsupported or unknown.
	Outcome string `json:"outcome"`
	// Reason says how it differs, why it needs do nothing, or what is missing.
	Reason string `json:"reason,omitempty"`
	// Security tells directives without which strangers could do more.
	Security bool `json:"security,omitempty"`
}

// The outcomes.
const (
	OutcomeExact       = "exact"
	OutcomeDiffers     = "differs"
	OutcomeNoEffect    = "no effect"
	OutcomeUnsupported = "unsupported"
	OutcomeUnknown     = "unknown"
)

// Usage lists the directives of a configuration, what cannot be served first.
func Usage(file *parser.File) []DirectiveUse {
	commands := commandsByName()
	byKey := map[string]*DirectiveUse{}
	var order []string
	survey(file, commands).walk(func(u *use) {
		if u.in.in == 0 || u.Name.Range.IsZero() {
			return // a line of a map and the like
		}
		key := u.Name.Value
		switch {
		case key == "load_module":
			key += " " + loadedName(u)
		case u.row != nil:
			key += " " + u.row.module + u.row.differs(u)
		}
		d := byKey[key]
		if d == nil {
			d = usageOf(u, commands)
			byKey[key] = d
			order = append(order, key)
		}
		d.Count++
	})
	out := make([]DirectiveUse, 0, len(order))
	for _, key := range order {
		out = append(out, *byKey[key])
	}
	rank := map[string]int{OutcomeUnknown: 0, OutcomeUnsupported: 1, OutcomeDiffers: 2, OutcomeNoEffect: 3, OutcomeExact: 4}
	slices.SortStableFunc(out, func(a, b DirectiveUse) int { return rank[a.Outcome] - rank[b.Outcome] })
	return out
}

func usageOf(u *use, commands map[string][]*Command) *DirectiveUse {
	d := &DirectiveUse{Name: u.Name.Value, First: linePlace(u.Name.Range), Outcome: OutcomeExact, Security: isGuard(u.Name.Value)}
	switch {
	case u.row == nil && commands[d.Name] != nil:
		d.Outcome, d.Reason = OutcomeUnknown, "nginx does not allow it in this block"
	case u.row == nil:
		d.Outcome, d.Module = OutcomeUnknown, foreignModule(d.Name)
		d.Reason = "nginx has no such directive"
		if d.Module != "" {
			d.Reason = "of a module that is not nginx's own"
		}
		if code, hint := retired(u.Name); code != "" {
			d.Reason = hint
		}
	case d.Name == "load_module" && !isOwnModule(loadedName(u)):
		d.Outcome, d.Module = OutcomeUnsupported, u.row.module
		d.Reason = loadedName(u) + " is not nginx's own, and binary modules cannot be loaded"
	default:
		d.Module, d.Reason = u.row.module, u.row.Reason
		switch u.row.Status {
		case NoEffect:
			d.Outcome = OutcomeNoEffect
		case Unsupported:
			d.Outcome = OutcomeUnsupported
		case Served:
			if how := u.row.differs(u); how != "" {
				d.Outcome, d.Reason = OutcomeDiffers, how
			}
		}
	}
	return d
}

// isGuard tells the directives that keep somebody out.
func isGuard(name string) bool {
	for _, prefix := range []string{"auth_", "limit_", "secure_link", "ssl_verify", "ssl_client_cert", "ssl_crl", "modsecurity", "naxsi", "BasicRule", "valid_referers"} {
		if strings.HasPrefix(name, prefix) {
			return !strings.HasPrefix(name, "limit_rate")
		}
	}
	return name == "allow" || name == "deny" || name == "satisfy" || name == "internal"
}

// foreignModule names the module behind a directive that is not nginx's own.
func foreignModule(name string) string {
	for _, m := range [][2]string{
		{"more_", "headers-more"},
		{"brotli", "brotli"},
		{"zstd", "zstd"},
		{"vhost_traffic_status", "vts"},
		{"modsecurity", "ModSecurity"},
		{"geoip2", "geoip2"},
		{"js_", "njs"},
		{"lua_", "lua"},
		{"pagespeed", "pagespeed"},
		{"rtmp", "rtmp"},
		{"nchan_", "nchan"},
		{"naxsi", "naxsi"},
		{"auth_jwt", "nginx Plus: auth_jwt"},
		{"auth_oidc", "nginx Plus: oidc"},
		{"health_check", "nginx Plus: health checks"},
		{"status_zone", "nginx Plus: status"},
		{"zone_sync", "nginx Plus: zone_sync"},
		{"keyval", "nginx Plus: keyval"},
		{"session_log", "nginx Plus: session_log"},
		{"fancyindex", "fancyindex"},
		{"echo", "echo"},
		{"upload_progress", "upload-progress"},
		{"dav_ext_", "dav-ext"},
		{"passenger_", "Passenger"},
		{"auth_pam", "auth-pam"},
		{"auth_ldap", "auth-ldap"},
		{"proxy_cache_purge", "cache-purge"},
		{"set_misc", "set-misc"},
		{"opentracing", "opentracing"},
		{"otel_", "otel"},
	} {
		if strings.HasPrefix(name, m[0]) {
			return m[1]
		}
	}
	switch name {
	case "api", "match", "queue", "state", "status", "status_format", "upstream_conf", "ntlm", "f4f", "hls":
		return "nginx Plus: " + name
	}
	if strings.Contains(name, "_by_lua") {
		return "lua"
	}
	return ""
}

// ModuleUse is a module that a configuration loads or that its nginx is built
// with, beside those of nginx.
type ModuleUse struct {
	Name  string `json:"name"`
	Place string `json:"place,omitempty"` // of load_module; "" for one that is built in
	// Own says that it is one of nginx's.
	Own bool `json:"own"`
	// Directives are those of it that the configuration uses, with how often.
	Directives []string `json:"directives,omitempty"`
	Uses       int      `json:"uses"`
}

// Modules lists the modules that a configuration loads, and the given ones of
// others that its nginx is built with.
func Modules(file *parser.File, builtIn []string) []ModuleUse {
	root := survey(file, commandsByName())
	out := []ModuleUse{}
	for _, u := range root.uses {
		if u.Name.Value == "load_module" && len(u.Args) == 1 {
			name := loadedName(u)
			out = append(out, ModuleUse{Name: name, Place: linePlace(u.Name.Range), Own: isOwnModule(name)})
		}
	}
	for _, name := range builtIn {
		if !slices.ContainsFunc(out, func(m ModuleUse) bool { return moduleWords(m.Name) == moduleWords(name) }) {
			out = append(out, ModuleUse{Name: name})
		}
	}
	root.walk(func(u *use) {
		if u.in.in == 0 || u.Name.Range.IsZero() {
			return
		}
		for i := range out {
			if out[i].brings(u) {
				out[i].Uses++
				if !slices.Contains(out[i].Directives, u.Name.Value) {
					out[i].Directives = append(out[i].Directives, u.Name.Value)
				}
			}
		}
	})
	return out
}

// loadedName is the module of a load_module.
func loadedName(u *use) string {
	return strings.TrimSuffix(u.arg(0)[strings.LastIndexByte(u.arg(0), '/')+1:], ".so")
}

// brings says whether a module has the directive of a statement.
func (m *ModuleUse) brings(u *use) bool {
	if u.row != nil {
		return m.Own && (u.row.module == m.Name || strings.HasPrefix(u.row.module, strings.TrimSuffix(m.Name, "module")) && isFamily(m.Name))
	}
	foreign := foreignModule(u.Name.Value)
	return !m.Own && foreign != "" && strings.Contains(moduleWords(m.Name), moduleWords(foreign))
}

// moduleWords is a name of a module without what separates its words, which
// folders, files and people write differently.
func moduleWords(name string) string {
	name = strings.ToLower(name)
	for _, word := range []string{"nginx", "ngx", "http", "module", "filter", "-", "_"} {
		name = strings.ReplaceAll(name, word, "")
	}
	return name
}

// isOwnModule says whether nginx has a module of that name, which may be built as
// a file.
func isOwnModule(name string) bool {
	return slices.ContainsFunc(knownDirectives(), func(c *Command) bool { return c.module == name }) ||
		slices.ContainsFunc(modules(), func(m Module) bool { return m.Name == name })
}

// isFamily is about the files that hold many modules.
func isFamily(name string) bool { return name == "ngx_stream_module" || name == "ngx_mail_module" }
