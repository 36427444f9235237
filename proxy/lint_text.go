package proxy

import (
	"fmt"
	"strings"

	"proxyctl/parser"
)

// Rules about how statements are written.

func textRules() []lintRule {
	return []lintRule{
		{"Y001", (*linter).missingSemicolon},
		{"Y016", (*linter).emptyInclude},
		{"Y018", (*linter).typography},
		{"C026", (*linter).typesOfHTML},
	}
}

// missingSemicolon finds a directive that has become an argument of the one on
// the line before.
func (l *linter) missingSemicolon() {
	names := commandsByName()
	l.root.walk(func(u *use) {
		if u.row == nil {
			return
		}
		for i, a := range u.Args {
			before := u.Name.Range
			if i > 0 {
				before = u.Args[i-1].Range
			}
			if a.Range.Source != before.Source || a.Raw() != a.Value || a.Range.Line() == before.Line() {
				continue
			}
			rows := names[a.Value]
			known := false
			for _, r := range rows {
				known = known || r.In&u.in.in != 0
			}
			if !known || i == len(u.Args)-1 {
				continue
			}
			l.semicolon(u, i, before)
			return
		}
	})
}

func (l *linter) semicolon(u *use, i int, before parser.Range) {
	head := use{Directive: &parser.Directive{Name: u.Name, Args: u.Args[:i]}}
	hint := fmt.Sprintf("add \";\" at the end of line %d; without it %q is another parameter of %s", before.Source.Line(before.End-1), u.Args[i].Value, u.Name.Value)
	where := head.whole()
	if d := l.adopt(u, "", hint); d != nil {
		d.Range = where
		return
	}
	l.say(where, hint, "missing \";\" after %q", head.said())
}

// emptyInclude finds patterns without a file. An existing folder that holds
// nothing yet is how distributions ship theirs.
func (l *linter) emptyInclude() {
	l.root.walk(func(u *use) {
		if u.Name.Value != "include" || u.Files == nil || len(u.Files) > 0 || len(u.Args) != 1 {
			return
		}
		pattern := u.arg(0)
		if !strings.HasPrefix(pattern, "/") {
			pattern = l.ConfDir + "/" + pattern
		}
		dir := pattern[:strings.LastIndexByte(pattern, '/')+1]
		file := pattern[len(dir):]
		hint := "nginx says nothing when a pattern matches no file"
		if strings.ContainsAny(dir, "*?[") {
			l.say(u.place(0), hint, "include %q matches no file", u.arg(0))
			return
		}
		switch {
		case !isFolder(dir):
			l.say(u.place(0), fmt.Sprintf("the folder %s does not exist", dir), "include %q matches no file", u.arg(0))
		case file != "*" && file != "*.conf" && file != "*.*":
			l.say(u.place(0), hint, "include %q matches no file", u.arg(0))
		}
	})
}

// typography finds quotes and spaces of word processors, which are ordinary
// characters here.
func (l *linter) typography() {
	const quotes = "“”„‟‘’‚‛«»"
	const spaces = "\u00a0\u2007\u202f\u200b\ufeff"
	l.root.walk(func(u *use) {
		for i := -1; i < len(u.Args); i++ {
			a := u.Name
			if i >= 0 {
				a = u.Args[i]
			}
			raw := a.Raw()
			quoted := raw != "" && (raw[0] == '"' || raw[0] == '\'')
			switch {
			case quoted:
			case strings.ContainsAny(raw, spaces):
				i := strings.IndexAny(raw, spaces)
				c := []rune(raw[i:])[0]
				l.say(a.Range, "delete it and type a plain space", "%s holds U+%04X, which only looks like a space", short(raw), c)
				return
			case raw != "" && (strings.ContainsRune(quotes, []rune(raw)[0]) || strings.ContainsRune(quotes, lastRune(raw))):
				l.say(a.Range, `use " or '`, "typographic quotes are ordinary characters: they become part of %s", short(raw))
				return
			}
		}
	})
}

func lastRune(s string) rune {
	r := []rune(s)
	return r[len(r)-1]
}

// short cuts a text for a message.
func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		s = string(r[:37]) + "..."
	}
	return s
}

// typesOfHTML finds text/html in lists that always hold it.
func (l *linter) typesOfHTML() {
	for _, u := range l.all("gzip_types", "ssi_types", "sub_filter_types", "addition_types", "charset_types", "brotli_types") {
		for i := range u.Args {
			if lower(u.arg(i)) != "text/html" {
				continue
			}
			hint := fmt.Sprintf("remove it: %s always includes text/html", u.Name.Value)
			if l.adopt(u, "duplicate MIME type", hint) == nil {
				l.say(u.place(i), hint, "text/html is in %s already", u.Name.Value)
			}
			break
		}
	}
}

// placeKnown puts a place to messages for which nginx names none: that of the
// statement whose file they are about. What is said about certificates gets its
// rule here too.
func (l *linter) placeKnown() {
	for _, d := range l.known {
		switch {
		case d.Code != "":
		case strings.HasPrefix(d.Message, "cannot load certificate"):
			d.Code = "C016"
		case strings.HasPrefix(d.Message, "no \"ssl_certificate"):
			d.Code = "C015"
		case strings.HasPrefix(d.Message, "protocol options redefined"):
			d.Code = "C018" // again for the address
		}
		if !d.At.IsZero() || !d.Range.IsZero() && d.Code != "C016" {
			continue
		}
		for _, u := range l.all("ssl_certificate", "ssl_certificate_key", "ssl_trusted_certificate", "ssl_client_certificate",
			"ssl_dhparam", "ssl_password_file", "proxy_ssl_certificate", "proxy_ssl_trusted_certificate", "error_log", "access_log", "pid") {
			path := u.arg(0)
			if path != "" && (strings.Contains(d.Message, "\""+path+"\"") || strings.Contains(d.Message, "/"+path+"\"")) {
				d.Range = u.place(0)
				break
			}
		}
	}
}
