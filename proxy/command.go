// Package proxy gives nginx's configuration its meaning and serves it: the rows
// of the directives, the table they compile to, the phases of a request, and
// the listeners.
package proxy

import (
	"strconv"
	"strings"

	"proxyctl/parser"
)

// Context is a set of places a directive may stand in, named as nginx's
// documentation names them.
type Context uint32

// The contexts of nginx's configuration.
const (
	InMain Context = 1 << iota
	InEvents
	InHTTP
	InServer
	InLocation
	InServerIf
	InLocationIf
	InLimitExcept
	InUpstream
	InMail
	InMailServer
	InStream
	InStreamServer
	InStreamUpstream
	InMgmt
	InACMEIssuer

	inAnywhere = 1<<iota - 1
	// inHTTPLevels is where most directives of the http core may stand.
	inHTTPLevels = InHTTP | InServer | InLocation
	// inStreamLevels is where most directives of the stream block may stand.
	inStreamLevels = InStream | InStreamServer
	inStreamAny    = inStreamLevels | InStreamUpstream
)

var contextNames = [...]string{
	"main", "events", "http", "server", "location", "if in server", "if in location",
	"limit_except", "upstream", "mail", "server in mail", "stream", "server in stream",
	"upstream in stream", "mgmt", "acme_issuer",
}

// String names the contexts, separated by commas.
func (c Context) String() string {
	var names []string
	for i, name := range contextNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Arity says how many arguments a directive takes: "0", "2,3", "1-3", "1+" or
// "flag" (one argument, on or off).
type Arity string

// Allows reports whether n arguments are right.
func (a Arity) Allows(n int) bool {
	if a == "flag" {
		return n == 1
	}
	for part := range strings.SplitSeq(string(a), ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		least, more := strings.CutSuffix(lo, "+")
		from, err := strconv.Atoi(least)
		if err != nil {
			return false
		}
		to := from
		if isRange {
			to, _ = strconv.Atoi(hi)
		}
		if n >= from && (more || n <= to) {
			return true
		}
	}
	return false
}

// String tells the arity in words.
func (a Arity) String() string {
	switch {
	case a == "flag":
		return "on or off"
	case a == "0":
		return "no arguments"
	case a == "1":
		return "1 argument"
	case strings.HasSuffix(string(a), "+"):
		return "at least " + strings.TrimSuffix(string(a), "+") + " arguments"
	}
	return strings.NewReplacer(",", " or ", "-", " to ").Replace(string(a)) + " arguments"
}

// Status says how far a directive is served.
type Status uint8

const (
	// Served directives do what nginx's documentation says.
	Served Status = iota
	// NoEffect directives are accepted and checked; Reason says why they need
	// do nothing here.
	NoEffect
	// Unsupported directives are known to nginx and refused here by name.
	Unsupported
)

// String names the status.
func (s Status) String() string {
	return [...]string{"served", "accepted without effect", "not supported yet"}[s]
}

// Command is the row that declares a directive. Everything said about a
// directive (checks, hints, reference pages) is made from its row.
type Command struct {
	Name    string
	In      Context
	Args    Arity
	Block   bool   // ends with a block instead of ";"
	Repeat  bool   // may stand several times in one level
	Syntax  string // the arguments, as in nginx's documentation: "size", "on | off"
	Default string // as nginx's documentation gives it; "" for none
	Doc     string // one sentence
	Status  Status
	Reason  string // for NoEffect and Unsupported
	Differs string // one sentence: what is served in another way than by nginx
	// DiffersIn tells the statements that Differs is about; nil: all of them.
	DiffersIn func(u *use) bool

	// Set writes what the directive says. The error names the mistake; the
	// driver adds directive and place.
	Set func(l *Level, d *parser.Directive) error

	module string
}

// Module is one nginx module: its rows, its variables, and where it takes part
// in serving a request.
type Module struct {
	Name string // nginx's name, "ngx_http_core_module"
	// Stream is its name in the stream block, when the module serves both
	// blocks: nginx has it twice. Rows whose contexts are of both belong to both.
	Stream    string
	Commands  []Command
	Variables []Variable
	// StreamVariables are what it defines in the stream block.
	StreamVariables []Variable
	// Init sets the defaults of the http level, and of the stream level.
	Init func(c *Conf)
	// Finish ends a level (http, server, location, if, limit_except) once its
	// own directives have been laid over the inherited ones: derived values,
	// checks across directives. nginx does this when it merges.
	Finish func(l *Level) error
	// Phase and Handler: Handler gives the function that runs in Phase for a
	// level, or nil when the level has not configured the module.
	Phase   Phase
	Handler func(c *Conf) Handler
	// Header gives the header filter of a level, or nil.
	Header func(c *Conf) HeaderFilter
}

// ModuleName returns the nginx module that the directive belongs to.
func (c *Command) ModuleName() string { return c.module }

// Commands returns every row, in the order of the modules, the unsupported ones
// last.
func Commands() []*Command {
	var out []*Command
	for _, m := range modules() {
		for i := range m.Commands {
			out = append(out, m.rows(&m.Commands[i])...)
		}
	}
	return append(out, unsupported(out)...)
}

// rows gives the row its module, twice when it is one of both blocks.
func (m *Module) rows(c *Command) []*Command {
	c.module = m.Name
	if m.Stream == "" || c.In&inStreamAny == 0 {
		return []*Command{c}
	}
	other := *c
	other.module, other.In = m.Stream, c.In&inStreamAny
	if c.In &^= inStreamAny; c.In == 0 {
		return []*Command{&other}
	}
	return []*Command{c, &other}
}

// serves says whether the module takes part in what a context is about.
func (m *Module) serves(in Context) bool {
	both := m.Stream != ""
	if in&inStreamAny != 0 {
		return both || strings.HasPrefix(m.Name, "ngx_stream_")
	}
	return both || !strings.HasPrefix(m.Name, "ngx_stream_")
}
