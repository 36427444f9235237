package proxy

import (
	"strings"

	"proxyctl/parser"
)

// A survey is a configuration as it was said: its blocks, the row of each
// statement, what a block inherits. It exists for files that cannot be served
// too. Checks of the whole file, traces and comparisons read it, so that they
// depend on rows and not on how modules keep what they were told.

// scope is one block with its statements in reading order, included files
// expanded.
type scope struct {
	in   Context // 0: the lines of a block such as map or types
	open *use    // the statement it belongs to; nil for the whole file
	up   *scope
	uses []*use

	names map[string][]*use // of a large block, made when first asked for
}

// use is one statement.
type use struct {
	*parser.Directive
	row  *Command // nil for one that is unknown, misplaced or a line of map and the like
	in   *scope
	body *scope // nil without a block
}

// survey reads a whole configuration.
func survey(file *parser.File, commands map[string][]*Command) *scope {
	root := &scope{in: InMain}
	root.read(file.Body, commands)
	return root
}

func commandsByName() map[string][]*Command {
	commands := make(map[string][]*Command, 1024)
	for _, cmd := range Commands() {
		commands[cmd.Name] = append(commands[cmd.Name], cmd)
	}
	return commands
}

func (s *scope) read(b *parser.Block, commands map[string][]*Command) {
	for _, d := range b.Items {
		if d.Name.Value == "" {
			continue
		}
		u := &use{Directive: d, in: s}
		for _, row := range commands[d.Name.Value] {
			if row.In&s.in != 0 {
				u.row = row
				break
			}
		}
		s.uses = append(s.uses, u)
		for _, f := range d.Files {
			s.read(f.Body, commands)
		}
		if d.Block != nil {
			u.body = &scope{in: contextOf(s.in, d.Name.Value), open: u, up: s}
			u.body.read(d.Block, commands)
		}
	}
}

// contextOf gives the context of a block by its name and what it stands in.
func contextOf(in Context, name string) Context {
	choose := func(of ...Context) Context { // pairs: where it stands, what it is
		for i := 0; i < len(of); i += 2 {
			if in == of[i] {
				return of[i+1]
			}
		}
		return 0
	}
	switch name {
	case "http":
		return choose(InMain, InHTTP)
	case "events":
		return choose(InMain, InEvents)
	case "mail":
		return choose(InMain, InMail)
	case "stream":
		return choose(InMain, InStream)
	case "mgmt":
		return choose(InMain, InMgmt)
	case "server":
		return choose(InHTTP, InServer, InMail, InMailServer, InStream, InStreamServer)
	case "upstream":
		return choose(InHTTP, InUpstream, InStream, InStreamUpstream)
	case "location":
		return choose(InServer, InLocation, InLocation, InLocation)
	case "if":
		return choose(InServer, InServerIf, InLocation, InLocationIf)
	case "limit_except":
		return choose(InLocation, InLimitExcept)
	}
	return 0
}

// own gives the statements of the block with one of the names.
func (s *scope) own(names ...string) []*use {
	if len(names) == 1 && len(s.uses) > manyUses {
		return s.index()[names[0]]
	}
	var out []*use
	for _, u := range s.uses {
		for _, n := range names {
			if u.Name.Value == n {
				out = append(out, u)
			}
		}
	}
	return out
}

// manyUses is from where on a block is looked up by name.
const manyUses = 32

func (s *scope) index() map[string][]*use {
	if s.names == nil {
		s.names = map[string][]*use{}
		for _, u := range s.uses {
			s.names[u.Name.Value] = append(s.names[u.Name.Value], u)
		}
	}
	return s.names
}

// one gives the last statement of the block with a name, or nil.
func (s *scope) one(name string) *use {
	for i := len(s.uses) - 1; i >= 0; i-- {
		if s.uses[i].Name.Value == name {
			return s.uses[i]
		}
	}
	return nil
}

// inherited gives the statements that count for the block: its own, or else
// those of the nearest block around it that has any.
func (s *scope) inherited(name string) []*use {
	for ; s != nil; s = s.up {
		if list := s.own(name); list != nil {
			return list
		}
	}
	return nil
}

// setting gives the value that counts for a directive with one value; def when
// nothing says.
func (s *scope) setting(name, def string) string {
	if list := s.inherited(name); list != nil && len(list[0].Args) > 0 {
		return list[0].Args[0].Value
	}
	return def
}

// walk calls f for every statement below, in reading order.
func (s *scope) walk(f func(*use)) {
	for _, u := range s.uses {
		f(u)
		if u.body != nil {
			u.body.walk(f)
		}
	}
}

// around gives the nearest block around, itself included, in one of the
// contexts; nil for none.
func (s *scope) around(in Context) *scope {
	for ; s != nil; s = s.up {
		if s.in&in != 0 {
			return s
		}
	}
	return nil
}

// arg gives the value of an argument, "" where there is none.
func (u *use) arg(i int) string {
	if i >= 0 && i < len(u.Args) {
		return u.Args[i].Value
	}
	return ""
}

// said gives the statement as it was written, on one line, without its block.
func (u *use) said() string {
	words := []string{u.Name.Raw()}
	for _, a := range u.Args {
		words = append(words, a.Raw())
	}
	return strings.Join(words, " ")
}

// reference is a variable or a capture in a text.
type reference struct {
	name    string // lower case; "" for a capture
	capture int
	start   int // offset of the "$"
	end     int
}

// references finds what a text takes from variables.
func references(text string) []reference {
	var out []reference
	for i := 0; i < len(text); {
		if text[i] != '$' {
			i++
			continue
		}
		name, capture, rest, err := readReference(text[i+1:])
		if err != nil {
			i++
			continue
		}
		end := len(text) - len(rest)
		out = append(out, reference{lower(name), capture, i, end})
		i = end
	}
	return out
}

// mentions reports whether a text takes from a variable.
func mentions(text, name string) bool {
	for _, r := range references(text) {
		if r.name == name {
			return true
		}
	}
	return false
}
