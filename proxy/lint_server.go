package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"proxyctl/parser"
)

// Rules about servers, their names, addresses and certificates.

func serverRules() []lintRule {
	return []lintRule{
		{"C013", (*linter).implicitDefault},
		{"C014", (*linter).portWithoutTLS},
		{"C017", (*linter).certificateOfAnother},
		{"C018", (*linter).protocolsRedefined},
		{"C036", (*linter).descriptors},
		{"C039", (*linter).nameWithScheme},
		{"C038", (*linter).nameWithPort},
	}
}

// address is a listen directive's as it counts: port 80 where none is named.
func address(u *use) string {
	a := u.arg(0)
	switch {
	case strings.HasPrefix(a, "unix:"):
		return a
	case strings.Trim(a, "0123456789") == "":
		return "*:" + a
	case strings.HasSuffix(a, "]") || !strings.Contains(a, ":"):
		return a + ":80"
	}
	return strings.Replace(a, "0.0.0.0:", "*:", 1)
}

// hasArg reports whether a parameter is among the arguments.
func (u *use) hasArg(name string) bool {
	return slices.ContainsFunc(u.Args, func(a parser.Arg) bool { return a.Value == name })
}

// implicitDefault finds addresses where the order of the file decides who
// answers for unknown names.
func (l *linter) implicitDefault() {
	byAddress := map[string][]*use{}
	var order []string
	for _, s := range l.servers() {
		for _, u := range s.own("listen") {
			a := address(u)
			if byAddress[a] == nil {
				order = append(order, a)
			}
			byAddress[a] = append(byAddress[a], u)
		}
	}
	told := map[*scope]*finding{}
	for _, a := range order {
		list := byAddress[a]
		chosen := slices.ContainsFunc(list, func(u *use) bool { return u.hasArg("default_server") || u.hasArg("default") })
		first := list[0]
		if len(list) < 2 || chosen || catchAll(first.in) {
			continue
		}
		if d := told[first.in]; d != nil {
			d.Related = append(d.Related, related(first, "and none on this address"))
			continue
		}
		told[first.in] = l.say(first.whole(), "add default_server to the listen of the server that shall answer for unknown names",
			"no default_server on %s: requests for unknown hosts go to %q, which comes first", a, strings.Join(namesOf(first.in), " "))
	}
}

// namesOf gives the values of server_name.
func namesOf(server *scope) []string {
	var out []string
	for _, u := range server.own("server_name") {
		for i := range u.Args {
			out = append(out, u.arg(i))
		}
	}
	return out
}

// catchAll reports whether a server is plainly meant for unknown names.
func catchAll(server *scope) bool {
	names := namesOf(server)
	return len(names) == 0 || slices.Contains(names, "_") || slices.Contains(names, "")
}

// tlsOnly and plainOnly tell how all listens of a server speak.
func tlsOnly(server *scope) bool {
	listens := server.own("listen")
	return len(listens) > 0 && !slices.ContainsFunc(listens, func(u *use) bool { return !u.hasArg("ssl") && !u.hasArg("quic") })
}

func plainOnly(server *scope) bool {
	return !slices.ContainsFunc(server.own("listen"), func(u *use) bool { return u.hasArg("ssl") || u.hasArg("quic") })
}

func port(u *use) string {
	a := address(u)
	return a[strings.LastIndexByte(a, ':')+1:]
}

func (l *linter) portWithoutTLS() {
	for _, s := range l.servers() {
		if on := s.one("ssl"); on != nil && on.arg(0) == "on" {
			continue
		}
		for _, u := range s.own("listen") {
			if port(u) == "443" && !u.hasArg("ssl") && !u.hasArg("quic") && !l.sharesTLS(u) {
				l.say(u.whole(), "listen "+u.arg(0)+" ssl;", "port 443 speaks plain HTTP here: \"ssl\" is missing")
			}
		}
	}
}

// sharesTLS reports whether another listen of the address has ssl: it counts
// for all of them.
func (l *linter) sharesTLS(u *use) bool {
	for _, other := range l.all("listen") {
		if other != u && address(other) == address(u) && other.hasArg("ssl") {
			return true
		}
	}
	return false
}

// certificateOfAnother compares names with those in the certificate, where the
// file can be read.
func (l *linter) certificateOfAnother() {
	if l.Offline {
		return
	}
	for _, u := range l.all("ssl_certificate") {
		cert := l.certificate(u.arg(0))
		if u.in.in&(InServer|InStreamServer) == 0 || cert == nil || len(u.in.own("ssl_certificate")) > 1 {
			continue
		}
		for _, names := range u.in.own("server_name") {
			for i := range names.Args {
				n := lower(names.arg(i))
				if n == "" || strings.ContainsAny(n, "*~$_") || !strings.Contains(n, ".") {
					continue
				}
				host := strings.TrimPrefix(n, ".")
				if cert.VerifyHostname(host) != nil && len(cert.DNSNames) > 0 {
					d := l.say(names.place(i), "", "%s is not in the certificate, which is for %s", host, short(strings.Join(cert.DNSNames, ", ")))
					d.Related = append(d.Related, related(u, "the certificate"))
				}
			}
		}
	}
}

// certificate reads the first certificate of a file; nil when it cannot.
func (l *linter) certificate(path string) *x509.Certificate {
	if l.Offline || strings.Contains(path, "$") || strings.HasPrefix(path, "data:") || strings.HasPrefix(path, "engine:") {
		return nil
	}
	if !strings.HasPrefix(path, "/") {
		path = l.ConfDir + "/" + path
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// protocolsRedefined finds listens of one address that do not say the same
// about its protocol: for the address they count together.
func (l *linter) protocolsRedefined() {
	first, told := map[string]*use{}, map[string]bool{}
	for _, u := range l.all("listen") {
		a := address(u)
		before := first[a]
		if before == nil {
			first[a] = u
			continue
		}
		for _, name := range []string{"http2", "proxy_protocol"} {
			if told[a] || u.hasArg(name) == before.hasArg(name) {
				continue
			}
			told[a] = true
			hint := "give every listen of the address the same parameters"
			if name == "http2" {
				hint = `write "http2 on;" in the servers instead of the parameter (nginx 1.25.1)`
			}
			d := l.adopt(u, "protocol options redefined", hint)
			if d == nil {
				d = (*parser.Diagnostic)(l.say(u.whole(), hint, "protocol options redefined for %s: %s counts for all servers of the address, but is not on every listen", a, name))
			}
			d.Related = append(d.Related, related(before, "the other one"))
		}
	}
}

func (l *linter) descriptors() {
	limits := l.all("worker_rlimit_nofile")
	for _, u := range l.all("worker_connections") {
		if len(limits) == 0 {
			return
		}
		connections, err1 := strconv.Atoi(u.arg(0))
		limit, err2 := strconv.Atoi(limits[0].arg(0))
		if err1 == nil && err2 == nil && connections > limit {
			d := l.say(u.whole(), fmt.Sprintf("worker_rlimit_nofile %d;", 2*connections),
				"%d connections need as many descriptors, about %d when they are proxied; the limit is %d", connections, 2*connections, limit)
			d.Related = append(d.Related, related(limits[0], "the limit"))
		}
	}
}

func (l *linter) nameWithScheme() {
	for _, u := range l.all("server_name") {
		for i := range u.Args {
			_, rest, found := strings.Cut(u.arg(i), "://")
			if !found || strings.HasPrefix(u.arg(i), "~") {
				continue
			}
			if l.told(u, "Y001") {
				continue // the URL is an argument of the next line's directive
			}
			host, _, _ := strings.Cut(rest, "/")
			if d := l.adopt(u, "suspicious symbols", fmt.Sprintf("a server name is a host name alone: %s", host)); d == nil {
				l.say(u.place(i), host, "server_name is a host name, not a URL: %q matches no request", u.arg(i))
			}
		}
	}
}

func (l *linter) nameWithPort() {
	for _, u := range l.all("server_name") {
		for i := range u.Args {
			name, port, found := strings.Cut(u.arg(i), ":")
			if found && port != "" && strings.Trim(port, "0123456789") == "" && !strings.HasPrefix(name, "~") && !strings.Contains(port, ":") {
				l.say(u.place(i), "write "+name, "names are compared without their port: %q matches no request", u.arg(i))
			}
		}
	}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
