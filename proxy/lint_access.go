package proxy

import (
	"strings"

	"proxyctl/proxy/pcre"
)

// Rules about who may see what.

func accessRules() []lintRule {
	return []lintRule{
		{"S006", (*linter).allowWithoutDeny},
		{"S007", (*linter).returnBeforeDeny},
		{"S008", (*linter).returnBeforePassword},
		{"S018", (*linter).statusPublic},
		{"S019", (*linter).listingOfAll},
		{"S020", (*linter).dotFiles},
		{"S021", (*linter).phpAnywhere},
		{"S026", (*linter).openRelay},
	}
}

func (l *linter) allowWithoutDeny() {
	for _, s := range l.scopesWith("allow") {
		if s.one("deny") != nil || l.anotherGuard(s) && s.setting("satisfy", "all") == "any" {
			continue
		}
		for _, u := range s.own("allow") {
			if u.arg(0) != "all" {
				l.say(u.whole(), `add "deny all;" after it`, "%q alone allows everyone: what no rule names is allowed", u.said())
				break
			}
		}
	}
}

// anotherGuard reports whether something else than addresses decides about
// access.
func (l *linter) anotherGuard(s *scope) bool {
	return s.setting("auth_basic", "off") != "off" || s.setting("auth_request", "off") != "off" ||
		s.setting("auth_jwt", "off") != "off" || s.setting("ssl_verify_client", "off") == "on"
}

// answers gives the return that ends every request of a block, or nil: one that
// no condition stands before.
func (s *scope) answers() *use {
	for _, u := range s.uses {
		switch {
		case u.Name.Value == "return":
			return u
		case u.Name.Value == "break", u.Name.Value == "rewrite" && u.arg(2) == "break":
			return nil
		case u.Name.Value == "if" && u.body != nil:
			// what leaves the script, or answers by itself, gets past the return
			if u.body.one("break") != nil || u.body.content() != nil {
				return nil
			}
			for _, r := range u.body.own("rewrite") {
				if r.arg(2) == "break" {
					return nil
				}
			}
		}
	}
	return nil
}

// refuses reports whether a return hides what it stands in place of.
func refuses(u *use) bool {
	status := u.arg(0)
	return len(status) == 3 && (status[0] == '4' || status[0] == '5')
}

func (l *linter) returnBeforeDeny() {
	for _, s := range l.scopesWith("deny") {
		answer := s.answers()
		if answer == nil || refuses(answer) {
			continue
		}
		deny := s.one("deny")
		d := l.say(answer.whole(), `leave out "return", or decide by a map and "if"`, "return answers before the access rules: %q is never asked", deny.said())
		d.Related = append(d.Related, related(deny, "the rule"))
	}
}

func (l *linter) returnBeforePassword() {
	for _, s := range l.scopesWith("auth_basic", "auth_request", "auth_jwt") {
		answer := s.answers()
		if answer == nil || refuses(answer) || isRedirectStatus(answer.arg(0)) || len(answer.Args) == 1 && isRedirect(answer.arg(0)) {
			continue
		}
		for _, guard := range s.own("auth_basic", "auth_request", "auth_jwt") {
			if guard.arg(0) == "off" {
				continue
			}
			d := l.say(answer.whole(), "serve a file, use proxy_pass or try_files: they come after the check", "return answers everyone: %s is asked for later", guard.Name.Value)
			d.Related = append(d.Related, related(guard, "the check"))
			break
		}
	}
}

// guarded reports whether a block is closed to strangers.
func (l *linter) guarded(s *scope) bool {
	if loc := s.around(InLocation); loc != nil && loc.one("internal") != nil {
		return true
	}
	return s.inherited("deny") != nil || l.anotherGuard(s) || l.localOnly(s.around(InServer))
}

// refusesSome reports whether a condition of the block, or of its server, turns
// some requests away: geo and map decide like that.
func refusesSome(s *scope) bool {
	for ; s != nil; s = s.up {
		for _, u := range s.own("if") {
			if u.body == nil {
				continue
			}
			if answer := u.body.answers(); answer != nil && refuses(answer) {
				return true
			}
		}
	}
	return false
}

// localOnly reports whether a server listens on this machine only.
func (l *linter) localOnly(server *scope) bool {
	if server == nil {
		return false
	}
	listens := server.own("listen")
	for _, u := range listens {
		a := u.arg(0)
		if !strings.HasPrefix(a, "unix:") && !strings.HasPrefix(a, "127.") && !strings.HasPrefix(a, "localhost") && !strings.HasPrefix(a, "[::1]") {
			return false
		}
	}
	return len(listens) > 0
}

func (l *linter) statusPublic() {
	for _, u := range l.all("stub_status", "api", "status") {
		if !l.guarded(u.in) && !refusesSome(u.in) {
			l.say(u.whole(), "add allow 127.0.0.1; deny all;", "%s is open to everyone", u.Name.Value)
		}
	}
}

func (l *linter) listingOfAll() {
	for _, u := range l.all("autoindex") {
		if u.arg(0) != "on" || l.guarded(u.in) || refusesSome(u.in) {
			continue
		}
		whole := u.in.in&(InHTTP|InServer) != 0
		if u.in.in == InLocation {
			whole = routeOf(u.in.open).name == "/"
		}
		if whole && u.in.content() == nil {
			l.say(u.whole(), "turn it on in the one location that needs it", "every folder of the site is listed")
		}
	}
}

// dotFiles asks where /.git and /.env would be served from.
func (l *linter) dotFiles() {
	for _, server := range l.servers() {
		if server.answers() != nil || l.localOnly(server) || !guardless(server) {
			continue
		}
		git, env := l.locate(server, "/.git/config"), l.locate(server, "/.env")
		root := l.servesFiles(git)
		if root == nil || l.servesFiles(env) == nil || l.guarded(git) || packagedRoot(root.arg(0)) {
			continue
		}
		d := l.say(root.whole(), `location ~ /\.(?!well-known) { deny all; }`, "%s/.git and %s/.env are served if they exist", strings.TrimSuffix(root.arg(0), "/"), strings.TrimSuffix(root.arg(0), "/"))
		if git.open != root.in.open {
			d.Related = append(d.Related, related(git.open, "by this block"))
		}
	}
}

// guardless reports whether no condition of the server looks at the path: such
// a condition may refuse dot files.
func guardless(server *scope) bool {
	for _, u := range server.own("if") {
		if c, ok := conditionOf(u); ok && (isURI(c.variable) || c.variable == "request_uri") && strings.Contains(c.value, `\.`) {
			return false
		}
	}
	return true
}

// servesFiles gives the root that a block serves files from; nil when something
// else answers or no root is named.
func (l *linter) servesFiles(s *scope) *use {
	if s == nil || s.content() != nil && s.content().Name.Value != "try_files" || s.answers() != nil {
		return nil
	}
	if t := s.one("try_files"); t != nil {
		files := false
		for i := range len(t.Args) - 1 {
			files = files || strings.Contains(t.arg(i), "$uri") || strings.Contains(t.arg(i), "$document_uri")
		}
		if !files {
			return nil
		}
	}
	if u := s.one("alias"); u != nil {
		return nil
	}
	if list := s.inherited("root"); list != nil {
		return list[0]
	}
	return nil
}

// packagedRoot tells the folders that packages ship a welcome page in.
func packagedRoot(path string) bool {
	switch strings.TrimSuffix(path, "/") {
	case "html", "/var/www/html", "/usr/share/nginx/html", "/usr/share/nginx/www", "/usr/local/www/nginx", "/var/lib/nginx/html", "/etc/nginx/html":
		return true
	}
	return strings.Contains(path, "$")
}

// phpAnywhere finds locations that run a file because its name holds ".php".
func (l *linter) phpAnywhere() {
	for _, u := range l.all("fastcgi_pass") {
		loc := u.in.around(InLocation)
		if loc == nil {
			continue
		}
		c := l.regexOf(loc.open)
		if c == nil || c.pattern.syntax() == nil || !l.cover(l.pattern(`\.php`, true), c.pattern) {
			continue
		}
		// no dot before: what follows /index.php/ is for that program to look at
		upload, v := l.find(c.pattern, l.pattern(`^/[^.]*a\.php\.jpg$`, true))
		if v != pcre.Found || !c.pattern.matches(upload) || loc.one("try_files") != nil || checksFile(loc) {
			continue
		}
		l.say(loc.open.whole(), `location ~ \.php$ { try_files $uri =404; ... }`, "%s is run as a program: %q does not end the name, and nothing checks the file", upload, c.pattern.regexp().String())
	}
}

// checksFile reports whether an if of the location looks for the file.
func checksFile(loc *scope) bool {
	for _, u := range loc.own("if") {
		for i := range u.Args {
			if strings.Contains(u.arg(i), "-f") || strings.Contains(u.arg(i), "-e") {
				return true
			}
		}
	}
	return false
}

// openRelay finds tunnels that lead anywhere and are open to anybody.
func (l *linter) openRelay() {
	for _, u := range l.all("tunnel_pass") {
		if (len(u.Args) == 0 || hasVariable(u)) && !l.guarded(u.in) {
			l.say(u.whole(), "name the address, or say with allow and deny or auth_basic who may",
				"anybody can make connections from this server to wherever it can reach")
		}
	}
}
