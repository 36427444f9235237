package proxy

import (
	"slices"
	"strings"

	"proxyctl/parser"
)

// Where a served directive is not quite nginx's, its row says how (Differs) and
// in which statements (DiffersIn). These tell the statements.

// differs gives what a row says about a statement; "" when it is served as
// nginx does.
func (c *Command) differs(u *use) string {
	if c.Status != Served || c.DiffersIn != nil && !c.DiffersIn(u) {
		return ""
	}
	return c.Differs
}

// hasVariable is about statements whose first argument depends on requests.
func hasVariable(u *use) bool { return len(references(u.arg(0))) > 0 }

// hasDecoded is about statements with captures and variables that may hold any
// byte: those that nginx makes of what was checked, or leaves as it came, do not.
func hasDecoded(u *use) bool {
	return slices.ContainsFunc(u.Args, func(a parser.Arg) bool {
		return slices.ContainsFunc(references(a.Value), func(r reference) bool {
			for _, plain := range []string{"http_", "arg_", "cookie_", "ssl_"} {
				if strings.HasPrefix(r.name, plain) {
					return false
				}
			}
			switch r.name {
			case "scheme", "host", "request_uri", "args", "query_string", "is_args", "server_name", "server_port", "remote_addr", "remote_user",
				"server_addr", "proxy_host", "proxy_port", "proxy_add_x_forwarded_for", "request_id":
				return false
			}
			return true
		})
	})
}

// looksElsewhere is about try_files with paths that are not made of the URI, and
// with an end that may be empty.
func looksElsewhere(u *use) bool {
	if last := u.arg(len(u.Args) - 1); strings.HasPrefix(last, "$") { // no "=404", no path
		if list := references(last); len(list) > 0 && !isURI(list[0].name) {
			return true
		}
	}
	for i := range max(len(u.Args)-1, 0) {
		for _, r := range references(u.arg(i)) {
			if !isURI(r.name) && r.name != "document_root" {
				return true
			}
		}
	}
	return false
}

// hasWord is about statements with one of the words, or with one that begins
// with it where it ends with "=".
func hasWord(words ...string) func(*use) bool {
	return func(u *use) bool {
		return slices.ContainsFunc(u.Args, func(a parser.Arg) bool {
			return slices.ContainsFunc(words, func(w string) bool {
				return strings.EqualFold(a.Value, w) || strings.HasSuffix(w, "=") && strings.HasPrefix(a.Value, w)
			})
		})
	}
}

// unmadeFolder is how temporary folders differ.
const unmadeFolder = "a folder that cannot be made is told about, and does not keep the server from starting"

// unlike says how the directive of a row differs.
func (c Command) unlike(how string, in func(*use) bool) Command {
	c.Differs, c.DiffersIn = how, in
	return c
}

// namesOtherCiphers is about cipher strings that stand for more than is served.
func namesOtherCiphers(u *use) bool {
	list, err := cipherList(u.arg(0))
	suites, errServed := servedSuites(u.arg(0), protocolsServed)
	return err != nil || errServed != nil || len(suites) < len(list)
}

// namesOtherGroups is about lists of groups with one that is not served, or with
// several that are.
func namesOtherGroups(u *use) bool {
	served, err := curves(u.arg(0))
	return err != nil || len(served) > 1 || u.arg(0) != "auto" && len(served) <= strings.Count(u.arg(0), ":")
}

// mayLeaveFolder is about aliases that a path with .. can lead out of: nginx
// looks for it in the path as sent, not in what the location leaves of it.
func mayLeaveFolder(u *use) bool {
	if hasVariable(u) || u.in.open == nil || u.in.in != InLocation {
		return true
	}
	r := routeOf(u.in.open)
	return r.kind == RegexLocation || strings.HasSuffix(u.arg(0), "/") && !strings.HasSuffix(r.name, "/")
}
