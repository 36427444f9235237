package proxy

import (
	"os"
	"path"
	"slices"
	"strings"

	"proxyctl/proxy/pcre"
)

// What else requests are made up from: files, and texts that statements tell
// apart.

// maxFiles is how many files of a folder are asked for.
const maxFiles = 4

// files asks for some of the files that a location serves.
func (w *witnesses) files(n *Location, to Witness) {
	if n.Kind == NamedLocation || n.Kind == RegexLocation || n.Conf.Core.Root == nil || n.Conf.Own.Content != nil {
		return
	}
	root, constant := n.Conf.Core.Root.Static()
	if !constant {
		return
	}
	base := n.Name[:strings.LastIndexByte(n.Name, '/')+1]
	dir := path.Join(root, base)
	if n.Conf.Core.Alias {
		base, dir = n.Name, root
		if !strings.HasSuffix(base, "/") {
			return
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	taken := map[string]int{}
	for _, entry := range entries {
		kind := path.Ext(entry.Name())
		if entry.IsDir() {
			kind = "/"
		}
		if info, err := entry.Info(); err != nil || info.Size() > 1<<20 || taken[kind] >= maxFiles || len(taken) > 2*maxFiles {
			continue
		}
		taken[kind]++
		x := to
		x.Why, x.Place, x.Target = "a file below "+locationTitle(n), linePlace(n.Place), escapeTarget(base+entry.Name())
		x.Base = taken[kind] == 1
		w.add(x)
	}
}

// statements makes inputs for what maps, conditions and rewrites tell apart.
func (w *witnesses) statements(root *scope) {
	users := map[string][]*use{} // by variable: the statements that read it
	var maps []*use
	root.walk(func(u *use) {
		if u.row == nil && u.in.in == 0 && u.in.open != nil && u.in.open.Name.Value == "map" {
			for _, a := range u.Args { // a map's value
				w.reads(users, a.Value, u.in.open)
			}
			return
		}
		for i, a := range u.Args {
			if u.Name.Value == "map" && i == 1 || u.Name.Value == "log_format" {
				continue
			}
			w.reads(users, a.Value, u)
		}
		switch u.Name.Value {
		case "map":
			maps = append(maps, u)
		case "if":
			w.condition(u)
		case "rewrite":
			w.rewrite(u)
		case "valid_referers":
			w.referers(u)
		}
	})
	for _, m := range maps {
		if m.body != nil && len(m.Args) == 2 {
			w.mapped(m, users)
		}
	}
}

func (w *witnesses) reads(users map[string][]*use, text string, u *use) {
	if !strings.Contains(text, "$") {
		return
	}
	for _, r := range references(text) {
		if list := users[r.name]; r.name != "" && (len(list) == 0 || list[len(list)-1] != u) {
			users[r.name] = append(list, u)
		}
	}
}

// base gives the witness for the block that a statement is in.
func (w *witnesses) base(s *scope) (Witness, bool) {
	for ; s != nil; s = s.up {
		if s.open == nil {
			break
		}
		if i, ok := w.bases[s.open.Name.Range]; ok && i < len(w.list) {
			return w.list[i], true
		}
	}
	return Witness{}, false
}

// with gives a statement's witness a text for a variable.
func (w *witnesses) with(x Witness, u *use, name, text string) {
	if !x.set(name, text) {
		return
	}
	x.Why, x.Place, x.Base = u.said(), linePlace(u.Name.Range), false
	w.add(x)
}

// set makes a request give a variable a value, if requests do.
func (x *Witness) set(name, text string) bool {
	plain := !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) && strings.TrimSpace(text) == text
	if !plain {
		return false
	}
	before, _, _ := strings.Cut(x.Target, "?")
	switch {
	case name == "host" || name == "http_host":
		if text == "" || strings.ContainsAny(text, "/ ") {
			return false
		}
		x.Host = text
	case name == "http_cookie", strings.HasPrefix(name, "http_"):
		if text == "" {
			return true // not sent
		}
		x.Fields = append(slices.Clone(x.Fields), strings.ReplaceAll(name[len("http_"):], "_", "-")+": "+text)
	case strings.HasPrefix(name, "cookie_"):
		x.Fields = append(slices.Clone(x.Fields), "Cookie: "+name[len("cookie_"):]+"="+text)
	case strings.HasPrefix(name, "arg_"):
		x.Target = before + "?" + name[len("arg_"):] + "=" + escapeTarget(text)
	case name == "args" || name == "query_string":
		x.Target = before + "?" + escapeTarget(text)
	case name == "content_type":
		x.Fields = append(slices.Clone(x.Fields), "Content-Type: "+text)
	case name == "request_method":
		if text == "" || strings.ContainsAny(text, " /") {
			return false
		}
		x.Method = text
	case name == "uri" || name == "document_uri" || name == "request_uri":
		if !strings.HasPrefix(text, "/") {
			return false
		}
		x.Target = escapeTarget(text)
		if path, args, found := strings.Cut(text, "?"); found && name == "request_uri" {
			x.Target = escapeTarget(path) + "?" + escapeTarget(args)
		}
	default:
		return false
	}
	return true
}

// condition asks with what an if tests for, and without.
func (w *witnesses) condition(u *use) {
	c, ok := conditionOf(u)
	if !ok {
		return
	}
	x, ok := w.base(u.in)
	if !ok {
		return
	}
	switch c.op {
	case "=", "!=":
		w.with(x, u, c.variable, c.value)
		w.with(x, u, c.variable, c.value+"x")
	case "~", "~*", "!~", "!~*":
		for _, text := range w.matching(c.variable, c.value, strings.HasSuffix(c.op, "*")) {
			w.with(x, u, c.variable, text)
		}
	case "":
		w.with(x, u, c.variable, "1")
		w.with(x, u, c.variable, "0")
	}
}

// matching gives a text that an expression matches, as a value of a variable,
// and one a little longer.
func (w *witnesses) matching(variable, pattern string, caseless bool) []string {
	keys := []patternKey{expression(pattern, caseless)}
	switch variable {
	case "uri", "request_uri", "document_uri":
		keys = append(keys, expression("^/", false))
	case "host", "http_host":
		keys = append(keys, expression(`^[a-z0-9]+([.-][a-z0-9]+)*$`, false))
	}
	match := w.syntaxes(keys...)
	if len(match) < len(keys) {
		return nil
	}
	found, v := pcre.Find(match, nil)
	if v != pcre.Found {
		return nil
	}
	if caseless {
		return []string{found, found + "x", swapCase(found)}
	}
	return []string{found, found + "x"}
}

// rewrite asks for URIs that a rewrite changes where it stands.
func (w *witnesses) rewrite(u *use) {
	x, ok := w.base(u.in)
	if !ok || len(u.Args) < 2 {
		return
	}
	keys := []patternKey{expression(u.arg(0), false), expression("^/", false)}
	if loc := u.in.around(InLocation); loc != nil && loc.open != nil {
		switch r := routeOf(loc.open); r.kind {
		case RegexLocation:
			keys = append(keys, expression(r.name, r.caseless))
		case PrefixLocation, NoRegexLocation:
			keys = append(keys, expression("^"+quoteLiteral(r.name), false))
		case ExactLocation:
			keys = append(keys, expression("^"+quoteLiteral(r.name)+"$", false))
		case NamedLocation, Nameless:
		}
	}
	match := w.syntaxes(keys...)
	if len(match) < len(keys) {
		return
	}
	if found, v := pcre.Find(match, nil); v == pcre.Found {
		w.with(x, u, "uri", found)
		x.Target = escapeTarget(found) + "?a=b&c=%2f"
		x.Why, x.Place, x.Base = u.said(), linePlace(u.Name.Range), false
		w.add(x)
		w.with(x, u, "uri", found+"x")
	}
}

// referers asks with links from here and from elsewhere.
func (w *witnesses) referers(u *use) {
	x, ok := w.base(u.in)
	if !ok {
		return
	}
	for _, r := range []string{"http://" + x.Host + "/page", "https://elsewhere.invalid/", "blocked", "ftp://x/"} {
		w.with(x, u, "http_referer", r)
	}
	for _, a := range u.Args {
		if name := strings.ReplaceAll(a.Value, "*", "x"); !strings.HasPrefix(name, "~") && strings.Contains(name, ".") {
			w.with(x, u, "http_referer", "http://"+name)
		}
	}
}

// maxUsers is at how many places each case of a map is tried.
const maxUsers = 3

// mapped asks where a map's variable is read with each of its cases.
func (w *witnesses) mapped(m *use, users map[string][]*use) {
	var places []Witness
	w.places(lower(strings.TrimPrefix(m.arg(1), "$")), users, 0, &places)
	refs := references(m.arg(0))
	if len(refs) != 1 || refs[0].end-refs[0].start != len(m.arg(0)) {
		return // of several texts: which part is which cannot be told
	}
	name := refs[0].name
	for _, x := range places {
		for _, line := range m.body.uses {
			switch key := line.Name.Value; {
			case len(line.Args) != 1 || key == "include" || key == "default":
			case strings.HasPrefix(key, "~"):
				pattern, caseless := strings.CutPrefix(key[1:], "*")
				for _, text := range w.matching(name, pattern, caseless) {
					w.with(x, line, name, text)
				}
			default:
				key = strings.TrimPrefix(key, `\`)
				w.with(x, line, name, strings.Replace(strings.TrimPrefix(key, "."), "*", "x", 1))
			}
		}
		w.with(x, m, name, "nothing-of-these")
		w.with(x, m, name, "")
	}
}

// places finds witnesses for blocks that read a variable, also by way of other
// maps.
func (w *witnesses) places(name string, users map[string][]*use, depth int, out *[]Witness) {
	for _, u := range users[name] {
		if len(*out) >= maxUsers || depth > 4 {
			return
		}
		if u.Name.Value == "map" {
			w.places(lower(strings.TrimPrefix(u.arg(1), "$")), users, depth+1, out)
			continue
		}
		x, ok := w.base(u.in)
		if !ok && len(w.bases) > 0 { // read for all servers
			x, ok = w.anyBase()
		}
		if ok && !slices.ContainsFunc(*out, func(o Witness) bool { return o.Place == x.Place }) {
			*out = append(*out, x)
		}
	}
}

func (w *witnesses) anyBase() (Witness, bool) {
	for _, x := range w.list {
		if x.Base {
			return x, true
		}
	}
	return Witness{}, false
}
