package proxy

import (
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
)

// Difference is one thing that two configurations do not mean alike.
type Difference struct {
	// Where names the blocks around it, outermost first.
	Where []string `json:"where"`
	// What is a directive, "location /x", "server a.test" and so on.
	What string `json:"what"`
	// Before and After are the statements that count; empty for none.
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
	// OldPlace and NewPlace are "file:line" of the first of them.
	OldPlace string `json:"oldPlace,omitempty"`
	NewPlace string `json:"newPlace,omitempty"`
}

// Compare finds what two configurations mean differently: what counts in each
// block after inheritance, and not where or in which order it is written. Each
// difference is reported for the outermost block in which it counts.
func Compare(before, after *parser.File) []Difference {
	commands := commandsByName()
	c := &comparison{}
	c.blocks(nil, meaningOf(survey(before, commands), nil), meaningOf(survey(after, commands), nil), nil)
	return c.found
}

// meaning is what counts in a block.
type meaning struct {
	title    string
	place    parser.Range
	settings map[string]*setting
	order    []string // of settings
	blocks   []*meaning
}

// setting is what a directive comes to in a block.
type setting struct {
	text  []string // as written
	equal []string // in a form that can be compared
	place parser.Range
}

// same reports whether two settings mean the same.
func (s *setting) same(t *setting) bool {
	return s != nil && t != nil && slices.Equal(s.equal, t.equal)
}

func meaningOf(s *scope, up *meaning) *meaning {
	m := &meaning{settings: map[string]*setting{}}
	if s.open != nil {
		m.title, m.place = titleOf(s), s.open.Name.Range
	}
	if up != nil && s.in&(InServer|InLocation|InLimitExcept|InStreamServer) != 0 {
		for _, name := range up.order {
			if inherits(name) {
				m.set(name, up.settings[name])
			}
		}
	}
	own := map[string]bool{}
	var regexes []string
	for _, u := range s.uses {
		key := keyOf(u, s)
		switch {
		case u.Files != nil: // include: what it brought stands here too
			continue
		case key == "":
			if u.Name.Value == "location" && routeOf(u).kind == RegexLocation {
				regexes = append(regexes, statement(u, true))
			}
			continue
		case !own[key]:
			own[key] = true
			m.set(key, &setting{place: u.Name.Range})
		}
		t := m.settings[key]
		t.text = append(t.text, statement(u, false))
		t.equal = append(t.equal, statement(u, true))
	}
	for _, u := range s.uses { // when all that they inherit is known
		if keyOf(u, s) == "" && u.Files == nil {
			m.blocks = append(m.blocks, meaningOf(u.body, m))
		}
	}
	if len(regexes) > 1 {
		m.set("order of expressions", &setting{text: regexes, equal: regexes, place: m.place})
	}
	if s.in == InHTTP {
		m.defaults(s)
	}
	for _, name := range []string{"server", "listen", "server_name", "env"} { // in any order
		if s := m.settings[name]; s != nil {
			slices.Sort(s.equal)
		}
	}
	return m
}

func (m *meaning) set(name string, s *setting) {
	if m.settings[name] == nil {
		m.order = append(m.order, name)
	}
	m.settings[name] = s
}

// defaults notes who answers for unknown names.
func (m *meaning) defaults(http *scope) {
	chosen := map[string]*use{}
	var order []string
	for _, u := range http.own("server") {
		if u.body == nil {
			continue
		}
		for _, l := range u.body.own("listen") {
			a := address(l)
			switch {
			case chosen[a] == nil:
				order = append(order, a)
				chosen[a] = u
			case l.hasArg("default_server"):
				chosen[a] = u
			}
		}
	}
	for _, a := range order {
		title := []string{titleOf(chosen[a].body)}
		m.set("unknown names on "+a, &setting{text: title, equal: title, place: chosen[a].Name.Range})
	}
}

// titleOf names a block.
func titleOf(s *scope) string {
	if s.in&(InServer|InStreamServer) != 0 {
		if names := namesOf(s); len(names) > 0 {
			return "server " + lower(names[0])
		}
		return "server without a name"
	}
	return statement(s.open, true)
}

// keyOf groups the statements that replace each other when a block inherits; ""
// for a block that is compared by itself.
func keyOf(u *use, s *scope) string {
	switch u.Name.Value {
	case "rewrite", "return", "break", "set", "if":
		if s.in&(InServer|InLocation|InServerIf|InLocationIf) != 0 {
			return "rewriting"
		}
	case "allow", "deny":
		return "access rules"
	case "types":
		return "types"
	}
	if u.body != nil {
		return ""
	}
	return u.Name.Value
}

// inherits reports whether blocks inside inherit a setting.
func inherits(key string) bool {
	switch key {
	case "rewriting", "listen", "server_name", "alias", "internal", "try_files", "stub_status", "empty_gif", "flv", "mp4",
		"order of expressions", "log_format", "server", "keepalive", "zone":
		return false
	}
	return !strings.HasSuffix(key, "_pass") && !strings.HasSuffix(key, "_zone") && !strings.HasSuffix(key, "_path") &&
		!strings.HasPrefix(key, "unknown names")
}

// statement writes a statement on one line, its block included; equal makes
// values that mean the same the same.
func statement(u *use, equal bool) string {
	words := []string{u.Name.Value}
	for _, a := range u.Args {
		if equal {
			words = append(words, canonical(u, a.Value))
		} else {
			words = append(words, a.Raw())
		}
	}
	text := strings.Join(words, " ")
	if u.body == nil || u.body.in != 0 && u.body.in&(InServerIf|InLocationIf) == 0 {
		return text
	}
	var inner []string
	for _, s := range u.body.uses {
		inner = append(inner, statement(s, equal)+";")
	}
	return text + " { " + strings.Join(inner, " ") + " }"
}

// canonical gives values that mean the same the same text.
func canonical(u *use, value string) string {
	if u.row == nil {
		return value
	}
	syntax := u.row.Syntax
	switch {
	case u.row.Args == "flag":
		return lower(value)
	case strings.Contains(syntax, "time"):
		if t, ok := parseTime(value, false); ok {
			return t.String()
		}
		if t, ok := parseTime(value, true); ok {
			return t.String()
		}
	case strings.Contains(syntax, "size"):
		if n, ok := parseOffset(value); ok {
			return fmt.Sprint(n)
		}
	case u.Name.Value == "server_name":
		return lower(value)
	}
	return value
}

// comparison collects differences.
type comparison struct {
	found []Difference
}

// change is a difference that was reported further out already.
type change struct{ name, before, after string }

// blocks compares two blocks that belong together.
func (c *comparison) blocks(where []string, a, b *meaning, reported map[change]bool) {
	told := map[change]bool{}
	for k := range reported {
		told[k] = true
	}
	names := slices.Clone(a.order)
	for _, n := range b.order {
		if a.settings[n] == nil {
			names = append(names, n)
		}
	}
	for _, name := range names {
		x, y := a.settings[name], b.settings[name]
		if x.same(y) {
			continue
		}
		d := Difference{Where: where, What: name}
		if x != nil {
			d.Before, d.OldPlace = x.text, linePlace(x.place)
		}
		if y != nil {
			d.After, d.NewPlace = y.text, linePlace(y.place)
		}
		key := change{name, strings.Join(d.Before, "\n"), strings.Join(d.After, "\n")}
		if !told[key] {
			told[key] = true
			c.found = append(c.found, d)
		}
	}
	for _, p := range pair(a.blocks, b.blocks) {
		switch {
		case p.b == nil:
			c.found = append(c.found, Difference{Where: where, What: p.a.title, Before: []string{p.a.title}, OldPlace: linePlace(p.a.place)})
		case p.a == nil:
			c.found = append(c.found, Difference{Where: where, What: p.b.title, After: []string{p.b.title}, NewPlace: linePlace(p.b.place)})
		default:
			inside := where
			if p.b.title != "http" {
				inside = append(slices.Clone(where), p.b.title)
			}
			c.blocks(inside, p.a, p.b, told)
		}
	}
}

type pairing struct{ a, b *meaning }

// pair finds the blocks that belong together: those of the same title, and of
// several such those that listen alike, then in their order.
func pair(as, bs []*meaning) []pairing {
	var out []pairing
	rest := slices.Clone(bs)
	for _, strict := range []bool{true, false} {
		var left []*meaning
		for _, a := range as {
			i := slices.IndexFunc(rest, func(b *meaning) bool {
				return a.title == b.title && (!strict || listensAlike(a, b))
			})
			if i < 0 {
				left = append(left, a)
				continue
			}
			out = append(out, pairing{a, rest[i]})
			rest = slices.Delete(rest, i, i+1)
		}
		as = left
	}
	for _, a := range as {
		out = append(out, pairing{a, nil})
	}
	for _, b := range rest {
		out = append(out, pairing{nil, b})
	}
	return out
}

func listensAlike(a, b *meaning) bool {
	x, y := a.settings["listen"], b.settings["listen"]
	return x == nil && y == nil || x.same(y)
}
