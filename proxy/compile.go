package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// compiler turns one parsed file into a Table. It collects every mistake
// instead of stopping at the first; what nginx would have said first is the
// first of the sorted list.
type compiler struct {
	opts        *Options
	commands    map[string][]*Command
	modules     []Module
	table       *Table
	names       *names // of the block that is being compiled
	problems    []problem
	errors      int
	blocks      int
	now         *parser.Directive // whose setter runs
	expressions map[patternKey]*pcre.Regexp
	// suites are the cipher strings read so far: servers mostly say the same.
	suites map[string][]suite
	// checksCertificates says that finish has the check of all certificates.
	checksCertificates bool
	// finish is run after the whole file has been read: what nginx does when it
	// initializes modules, in the order of registration.
	finish []func()
}

// problem is a diagnostic and the stage it belongs to: nginx reads the whole
// file first, then merges levels, then links.
type problem struct {
	stage stage
	diag  *parser.Diagnostic
}

type stage uint8

const (
	reading stage = iota
	linking
)

// Level is one block being compiled: where it stands and what it knows so far.
type Level struct {
	Context Context
	Conf    *Conf
	// Server, Location, Group and Issuer are what is being built; nil outside of
	// one.
	Server   *Server
	Location *Location
	Group    *upstreamBlock
	Issuer   *ACMEIssuer

	c      *compiler
	parent *Level
	first  map[*Command]*parser.Directive // first use of each row in this level
	later  []func()                       // bodies of this level's blocks
	end    parser.Range                   // place of the closing brace
	script *Script                        // rewrite directives of this level
}

// Load compiles a parsed file. The Table is nil when there is an error among
// the diagnostics, which come in the order nginx would have met them. Load
// opens no listener and touches no network but for resolving the names that
// nginx resolves when it reads its configuration.
func Load(file *parser.File, o *Options) (*Table, []*parser.Diagnostic) {
	c := newCompiler(o)
	if d := file.TooMuch(); d != nil { // millions of servers need not be made to be thrown away
		c.add(reading, d)
		return nil, c.diagnostics()
	}
	main := c.level(InMain, nil, &Conf{Main: &c.table.Main})
	c.initMain()
	c.body(main, file.Body)
	if c.errors == 0 {
		c.requireEvents()
	}
	for i := 0; i < len(c.finish) && c.errors == 0; i++ {
		c.finish[i]()
	}
	diags := c.diagnostics()
	c.opts.logs.note(diags)
	if c.errors > 0 {
		c.table.release()
		return nil, diags
	}
	return c.table, diags
}

func newCompiler(o *Options) *compiler {
	c := &compiler{opts: o, modules: modules(), table: newTable(o), expressions: map[patternKey]*pcre.Regexp{}}
	c.commands = make(map[string][]*Command, 1024)
	for _, cmd := range Commands() {
		c.commands[cmd.Name] = append(c.commands[cmd.Name], cmd)
	}
	for _, m := range c.modules {
		c.table.http.vars.defineAll(m.Variables)
		c.table.stream.vars.defineAll(m.StreamVariables)
	}
	c.names = c.table.http
	return c
}

func (c *compiler) level(ctx Context, parent *Level, conf *Conf) *Level {
	l := &Level{Context: ctx, Conf: conf, c: c, parent: parent, first: map[*Command]*parser.Directive{}}
	if parent != nil {
		l.Server, l.Location = parent.Server, parent.Location
	}
	return l
}

// body compiles a block's statements, then ends the level, then compiles the
// blocks that stand in it: they inherit a copy of the finished level, so a
// directive counts for a block even when it stands below it.
func (c *compiler) body(l *Level, b *parser.Block) {
	l.end = b.Close
	c.statements(l, b, c.directive)
	l.close()
}

// close finishes the level and compiles the bodies kept for later.
func (l *Level) close() {
	if l.Context&(inHTTPLevels|InServerIf|InLocationIf|InLimitExcept|inStreamLevels) != 0 {
		for i := range l.c.modules {
			m := &l.c.modules[i]
			if m.Finish == nil || !m.serves(l.Context) {
				continue
			}
			if err := m.Finish(l); err != nil {
				l.c.report(linking, parser.Error, err, nil, l.end)
			}
		}
		l.Location.link(l)
	}
	for _, f := range l.later {
		f()
	}
	l.later = nil
}

// Later runs f once the level's own directives are all known.
func (l *Level) Later(f func()) { l.later = append(l.later, f) }

// AtFinish runs f after the whole configuration has been read without errors.
func (l *Level) AtFinish(f func()) {
	names := l.c.names
	l.c.finish = append(l.c.finish, func() {
		l.c.names = names
		f()
	})
}

// statements calls each for every statement of a block in reading order,
// included files expanded.
func (c *compiler) statements(l *Level, b *parser.Block, each func(*Level, *parser.Directive)) {
	for _, d := range b.Items {
		if d.Err != nil {
			c.add(reading, d.Err)
			if len(d.Files) == 0 {
				continue
			}
		}
		if d.Files == nil {
			each(l, d)
			continue
		}
		for _, f := range d.Files {
			c.statements(l, f.Body, each)
		}
	}
}

// Entries gives the free-form lines of a block such as map or types to each.
func (l *Level) Entries(d *parser.Directive, each func(*parser.Directive) error) {
	l.c.statements(l, d.Block, func(l *Level, e *parser.Directive) {
		err := errTerminator(e)
		if err == nil {
			err = each(e)
		}
		if err != nil {
			l.c.report(reading, parser.Error, err, e, e.End)
		}
	})
}

func errTerminator(e *parser.Directive) error {
	if e.Block != nil {
		return say("unexpected \"{\"")
	}
	return nil
}

// directive finds the row of a statement, checks what the row says, and runs
// its setter. The order of the checks is nginx's (ngx_conf_handler).
func (c *compiler) directive(l *Level, d *parser.Directive) {
	name := d.Name.Value
	rows := c.commands[name]
	if len(rows) == 0 {
		c.report(reading, parser.Error, c.unknown(d), d, d.End)
		return
	}
	i := slices.IndexFunc(rows, func(r *Command) bool { return r.In&l.Context != 0 })
	if i < 0 {
		c.report(reading, parser.Error, misplaced(rows, d), d, d.End)
		return
	}
	cmd := rows[i]
	if err := c.check(l, cmd, d); err != nil {
		c.report(reading, parser.Error, err, d, d.End)
		return
	}
	if l.first[cmd] == nil {
		l.first[cmd] = d
	}
	if cmd.Set == nil || d.Block != nil && !c.room(d) {
		return
	}
	before := c.now
	c.now = d
	err := cmd.Set(l, d)
	c.now = before
	if err != nil {
		c.report(reading, parser.Error, err, d, d.End)
	}
}

// maxBlocks bounds the memory of a table: a block of settings takes some 5 KB.
const maxBlocks = 250_000

// room counts blocks. Unlike nginx, which takes memory as long as there is any, it
// passes over those that are too many, and says so once.
func (c *compiler) room(d *parser.Directive) bool {
	if c.blocks++; c.blocks == maxBlocks+1 {
		c.report(reading, parser.Error, sayAt(d.Name, tooLarge, "look for a file that is included very often", "the configuration has more than %d blocks", maxBlocks), d, d.End)
	}
	return c.blocks <= maxBlocks
}

// tooLarge is the code of configurations that are not read to their end.
const tooLarge = "Y029"

// check holds a statement against its row.
func (c *compiler) check(l *Level, cmd *Command, d *parser.Directive) error {
	name := d.Name.Value
	if !cmd.Block && d.Block != nil {
		return sayAt(d.Name, "Y006", name+" takes no block; end it with \";\"", "directive %q is not terminated by \";\"", name)
	}
	if cmd.Block && d.Block == nil {
		return sayAt(d.Name, "Y006", name+" wants a block: "+name+" { ... }", "directive %q has no opening \"{\"", name)
	}
	if !cmd.Args.Allows(len(d.Args)) {
		return sayAt(d.Name, "Y007", fmt.Sprintf("%s takes %s, %d given; syntax: %s", name, cmd.Args, len(d.Args), cmd.Usage()),
			"invalid number of arguments in %q directive", name)
	}
	if cmd.Status == Unsupported {
		return refuse(cmd, d)
	}
	if before := l.first[cmd]; before != nil && !cmd.Repeat {
		return &confError{
			text: errDuplicate.Error(), arg: d.Name, code: "Y011",
			hint: fmt.Sprintf("the first is on line %d; keep one", before.End.Line()),
		}
	}
	return nil
}

// Usage gives the directive as it is written: "name arguments;".
func (c *Command) Usage() string {
	s := c.Name
	if c.Syntax != "" {
		s += " " + c.Syntax
	}
	if c.Block {
		return s + " { ... }"
	}
	return s + ";"
}

func misplaced(rows []*Command, d *parser.Directive) error {
	var in Context
	for _, r := range rows {
		in |= r.In
	}
	return sayAt(d.Name, "Y006", "allowed in: "+in.String(), "%q directive is not allowed here", d.Name.Value)
}

func (c *compiler) unknown(d *parser.Directive) error {
	code, hint := retired(d.Name)
	if code == "" {
		code = "Y005"
		if best := nearest(d.Name.Value, c.commands); best != "" {
			hint = fmt.Sprintf("did you mean %q?", best)
		}
	}
	return sayAt(d.Name, code, hint, "unknown directive \"%s\"", d.Name.Value)
}

// report files a setter's error, or a warning, under its place.
func (c *compiler) report(st stage, sev parser.Severity, err error, d *parser.Directive, at parser.Range) {
	diag := &parser.Diagnostic{Severity: sev, Message: err.Error(), At: at, Range: at}
	if d != nil {
		diag.Range = d.Name.Range
		if len(d.Args) > 0 {
			diag.Range = d.Args[0].Range
		}
	}
	var ce *confError
	if errors.As(err, &ce) {
		diag.Code, diag.Hint = ce.code, ce.hint
		if !ce.arg.Range.IsZero() {
			diag.Range = ce.arg.Range
		}
	}
	if (ce == nil || !ce.whole) && d != nil {
		diag.Message = fmt.Sprintf("%q directive %s", d.Name.Value, err)
	}
	c.add(st, diag)
}

func (c *compiler) add(st stage, d *parser.Diagnostic) {
	if d.Severity == parser.Error {
		c.errors++
	}
	c.problems = append(c.problems, problem{st, d})
}

// warnAt notes something nginx warns about while it reads.
func (l *Level) warnAt(d *parser.Directive, a parser.Arg, format string, args ...any) {
	l.c.report(reading, parser.Warning, &confError{text: fmt.Sprintf(format, args...), whole: true, arg: a}, d, d.End)
}

// failLater reports a mistake found after reading. at is the place nginx
// names, and may be zero; where underlines the culprit.
func (c *compiler) failLater(sev parser.Severity, where, at parser.Range, code, hint, format string, args ...any) {
	c.add(linking, &parser.Diagnostic{Severity: sev, Code: code, Message: fmt.Sprintf(format, args...), Hint: hint, Range: where, At: at})
}

// failAtStart reports what keeps a server from starting under a configuration
// whose syntax is right.
func (c *compiler) failAtStart(code, hint, format string, args ...any) {
	c.add(linking, &parser.Diagnostic{Severity: parser.Error, Code: code, Message: fmt.Sprintf(format, args...), Hint: hint, Late: true})
}

// diagnostics sorts what was found into the order in which nginx would have
// met it: everything said while reading, by place, then the rest as it came.
func (c *compiler) diagnostics() []*parser.Diagnostic {
	slices.SortStableFunc(c.problems, func(a, b problem) int {
		if a.stage != b.stage {
			return int(a.stage) - int(b.stage)
		}
		if a.stage != reading {
			return 0
		}
		return parser.Compare(place(a.diag), place(b.diag))
	})
	out := make([]*parser.Diagnostic, len(c.problems))
	for i, p := range c.problems {
		out[i] = p.diag
	}
	return out
}

// place is where nginx names a mistake, or else where it stands.
func place(d *parser.Diagnostic) parser.Range {
	if d.At.IsZero() {
		return d.Range
	}
	return d.At
}

// requireEvents says what nginx says of a file without an events block.
func (c *compiler) requireEvents() {
	if !c.table.Main.sawEvents {
		c.failAtStart("Y020", `add "events {}"`, "no \"events\" section in configuration")
	}
}

// nearest finds the known name closest to a misspelt one, or "".
func nearest[T any](name string, known map[string]T) string {
	best, least := "", 1+len(name)/4
	for k := range known {
		if n := distance(name, k, least); n < least || n == least && best != "" && k < best {
			best, least = k, n
		}
	}
	return best
}

// distance counts the edits between a and b, giving up beyond limit+1. Two
// neighbours in the wrong order are one edit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			next[j] = row[j-1]
			if a[i-1] != b[j-1] {
				next[j] = 1 + min(row[j-1], row[j], next[j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], 1+before[j-2])
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}

// lower folds ASCII; server names, header names and the like.
func lower(s string) string { return strings.ToLower(s) }
