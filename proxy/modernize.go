package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
)

// Edit replaces some bytes of a file.
type Edit struct {
	Range parser.Range
	Text  string
	Code  string // the rule behind it
	Why   string
}

// Modernize gives the edits that put forms which nginx has retired into those
// that took their place. Nothing else of the files changes. confDir is where
// relative paths of certificates begin.
func Modernize(file *parser.File, confDir string) []Edit {
	l := newLinter(file, nil, LintOptions{ConfDir: confDir})
	m := &modernizer{linter: l, given: map[*scope]bool{}}
	m.http2()
	m.sslOn()
	m.push()
	m.stapling()
	m.defaultServer()
	m.htmlTypes()
	slices.SortStableFunc(m.edits, func(a, b Edit) int { return parser.Compare(a.Range, b.Range) })
	return slices.CompactFunc(m.edits, func(a, b Edit) bool { return a.Range == b.Range && a.Text == b.Text })
}

type modernizer struct {
	*linter
	edits []Edit
	given map[*scope]bool // servers that have got "http2 on"
}

func (m *modernizer) edit(r parser.Range, text, code, why string) {
	m.edits = append(m.edits, Edit{r, text, code, why})
}

// without removes an argument and the space before it.
func (m *modernizer) without(u *use, i int, code, why string) {
	before := u.Name.Range
	if i > 0 {
		before = u.Args[i-1].Range
	}
	r := u.Args[i].Range
	if before.Source != r.Source {
		return
	}
	r.Start = before.End
	m.edit(r, "", code, why)
}

// remove takes a statement out, with its line where it has one to itself.
func (m *modernizer) remove(u *use, code, why string) {
	r := u.Range()
	if r.Source != u.End.Source {
		return
	}
	text := r.Source.Text
	start, end := r.Start, r.End
	for start > 0 && (text[start-1] == ' ' || text[start-1] == '\t') {
		start--
	}
	for end < len(text) && (text[end] == ' ' || text[end] == '\t' || text[end] == '\r') {
		end++
	}
	alone := (start == 0 || text[start-1] == '\n') && end < len(text) && text[end] == '\n'
	switch {
	case alone:
		r.Start, r.End = start, end+1
	case end < len(text) && text[end] != '\n' && text[end] != '#':
		r.End = end
	default:
		r.Start = start
	}
	m.edit(r, "", code, why)
}

// after puts a statement behind another, on a line of its own where that one
// has.
func (m *modernizer) after(u *use, statement, code, why string) {
	text := u.End.Source.Text
	line := bytes.LastIndexByte(text[:u.Name.Range.Start], '\n') + 1
	indent := string(text[line:u.Name.Range.Start])
	separator := " "
	if strings.TrimSpace(indent) == "" {
		separator = "\n" + indent
	}
	r := u.End
	r.Start = r.End
	m.edit(r, separator+statement, code, why)
}

func (m *modernizer) http2() {
	for _, u := range m.all("listen") {
		if u.in.in != InServer {
			continue
		}
		for i := range u.Args {
			if i == 0 || u.arg(i) != "http2" {
				continue
			}
			m.without(u, i, "D001", "http2 is a directive of the server since nginx 1.25.1")
			if !m.given[u.in] && u.in.inherited("http2") == nil {
				m.given[u.in] = true
				listens := u.in.own("listen")
				m.after(listens[len(listens)-1], "http2 on;", "D001", "takes the place of the parameter")
			}
		}
	}
}

func (m *modernizer) sslOn() {
	for _, u := range m.byName["ssl"] {
		if u.in.in != InServer || len(u.Args) != 1 {
			continue
		}
		m.remove(u, "D002", "the directive was removed in nginx 1.25.1")
		if lower(u.arg(0)) != "on" {
			continue
		}
		for _, listen := range u.in.own("listen") {
			if !listen.hasArg("ssl") {
				r := listen.Args[0].Range
				r.Start = r.End
				m.edit(r, " ssl", "D002", "takes the place of \"ssl on\"")
			}
		}
	}
}

func (m *modernizer) push() {
	for _, name := range []string{"http2_push", "http2_push_preload", "http2_max_concurrent_pushes"} {
		for _, u := range m.byName[name] {
			m.remove(u, "D003", "server push was removed in nginx 1.25.1")
		}
	}
}

// stapling takes ssl_stapling out where all certificates are known to have no
// responder.
func (m *modernizer) stapling() {
	for _, u := range m.all("ssl_stapling") {
		if lower(u.arg(0)) != "on" || u.in.inherited("ssl_stapling_responder") != nil || u.in.inherited("ssl_stapling_file") != nil {
			continue
		}
		list := m.certificatesBelow(u.in)
		silent := len(list) > 0
		for _, c := range list {
			cert := m.certificate(c.arg(0))
			silent = silent && cert != nil && len(cert.OCSPServer) == 0
		}
		if !silent {
			continue
		}
		why := fmt.Sprintf("%s names no OCSP responder to ask", list[0].arg(0))
		m.remove(u, "D004", why)
		for _, verify := range u.in.own("ssl_stapling_verify") {
			m.remove(verify, "D004", why)
		}
	}
}

func (m *modernizer) defaultServer() {
	for _, u := range m.all("listen") {
		for i := range u.Args {
			if i > 0 && u.arg(i) == "default" {
				m.edit(u.Args[i].Range, "default_server", "D006", "the old name of default_server")
			}
		}
	}
}

func (m *modernizer) htmlTypes() {
	for _, u := range m.all("gzip_types", "ssi_types", "sub_filter_types", "charset_types") {
		for i := range u.Args {
			if lower(u.arg(i)) == "text/html" && len(u.Args) > 1 {
				m.without(u, i, "C026", "text/html always counts")
			}
		}
	}
}
