package proxy

import (
	"strings"

	"proxyctl/parser"
)

// Variable is the row of a built-in variable.
type Variable struct {
	Name   string
	Prefix bool // Name is a prefix: "http_", "arg_"; Get receives the rest of the name
	// Get appends the value; false when the variable has none (nginx: not found).
	Get func(dst []byte, x *Exchange, name string) ([]byte, bool)
	// Set takes a value from the set directive; nil for read-only variables.
	Set func(x *Exchange, value []byte)
	// Changeable variables may be defined anew by set, map and named captures.
	Changeable bool
}

// variable is a name in use. References are made while reading; get is filled
// in when all definitions are known.
type variable struct {
	name string
	get  func(dst []byte, x *Exchange) ([]byte, bool)
	set  func(x *Exchange, value []byte)
	slot int // of a variable that a directive defines; -1 for none
	fill func(x *Exchange, s *slot)
	// volatile: what fill made counts for one use only.
	volatile bool
	place    parser.Range // of the first use in a value
}

// slot is the value of a variable in one exchange.
type slot struct {
	value []byte
	state slotState
}

type slotState uint8

const (
	slotEmpty slotState = iota
	slotSet
	slotMissing
	slotFilling // fill is at work: who asks now asks in a circle
)

// variables are all names of one configuration.
type variables struct {
	builtin  map[string]*Variable
	prefixes []*Variable
	names    map[string]*variable
	order    []*variable // of first use
	slots    int
}

func newVariables() *variables {
	return &variables{builtin: map[string]*Variable{}, names: map[string]*variable{}}
}

func (vs *variables) defineAll(rows []Variable) {
	for i := range rows {
		vs.define(&rows[i])
	}
}

func (vs *variables) define(v *Variable) {
	if v.Prefix {
		vs.prefixes = append(vs.prefixes, v)
		return
	}
	vs.builtin[v.Name] = v
}

// use returns the variable of a name that may be defined later. nginx folds
// the case of variable names.
func (vs *variables) use(name string) *variable {
	name = lower(name)
	v := vs.names[name]
	if v == nil {
		v = vs.make(name)
	}
	return v
}

// use returns the variable of a name in a value, and remembers where a name
// stood first, for messages.
func (c *compiler) use(name string) *variable {
	v := c.names.vars.use(name)
	if d := c.now; v.place.IsZero() && d != nil {
		v.place = d.Name.Range
		for _, a := range d.Args {
			if strings.Contains(lower(a.Value), "$"+v.name) || strings.Contains(lower(a.Value), "${"+v.name+"}") {
				v.place = a.Range
				break
			}
		}
	}
	return v
}

func (vs *variables) make(name string) *variable {
	v := &variable{name: name, slot: -1}
	vs.names[name] = v
	vs.order = append(vs.order, v)
	return v
}

// variableName reads the argument that names a variable to be defined.
func variableName(a parser.Arg) (string, error) {
	name, ok := strings.CutPrefix(a.Value, "$")
	if !ok {
		return "", sayAt(a, "", `variables begin with "$"`, "invalid variable name \"%s\"", a.Value)
	}
	if name == "" {
		return "", sayAt(a, "", "", `invalid variable name "$"`)
	}
	return name, nil
}

// assigned gives the variable that a directive assigns to.
func (l *Level) assigned(a parser.Arg) (*variable, error) {
	name, err := variableName(a)
	if err != nil {
		return nil, err
	}
	return l.addVariable(name, nil)
}

// addVariable defines a variable that gets a slot in every exchange: set, map, named
// captures. fill computes it on first use; nil for those that are assigned.
func (l *Level) addVariable(name string, fill func(x *Exchange, s *slot)) (*variable, error) {
	vs := l.c.names.vars
	name = lower(name)
	b := vs.builtin[name]
	if b != nil && !b.Changeable && b.Set == nil {
		return nil, say("the duplicate %q variable", name)
	}
	v := vs.names[name]
	if v == nil {
		v = vs.make(name)
	}
	if b != nil && b.Set != nil { // assigned through the built-in's own setter
		v.set = b.Set
		return v, nil
	}
	if v.slot < 0 {
		v.slot = vs.slots
		vs.slots++
	}
	if fill != nil {
		v.fill = fill
	}
	v.link()
	return v, nil
}

// link makes get and set of a variable with a slot.
func (v *variable) link() {
	v.set = func(x *Exchange, value []byte) {
		x.slots[v.slot] = slot{value, slotSet}
	}
	v.get = func(dst []byte, x *Exchange) ([]byte, bool) {
		s := &x.slots[v.slot]
		switch s.state {
		case slotFilling:
			x.Logf(logError, "cycle while evaluating variable \"%s\"", v.name)
			return dst, false
		case slotEmpty:
			return v.compute(dst, x, s)
		}
		return append(dst, s.value...), s.state == slotSet
	}
}

// compute fills the slot of a variable that is asked for before it was set.
func (v *variable) compute(dst []byte, x *Exchange, s *slot) ([]byte, bool) {
	if v.fill == nil {
		s.state = slotSet
		x.warnUninitialized(v.name)
		return dst, true
	}
	s.state = slotFilling
	v.fill(x, s)
	value, found := s.value, s.state == slotSet
	if v.volatile {
		*s = slot{}
	}
	return append(dst, value...), found
}

// resolveVariables connects every name in use with its definition, and reports
// the unknown ones as nginx does: without a place.
func (c *compiler) resolveVariables() {
	for _, v := range c.names.vars.order {
		if v.get != nil || c.names.vars.connect(v) {
			continue
		}
		hint := ""
		if best := c.names.vars.nearest(v.name); best != "" {
			hint = "did you mean \"$" + best + "\"?"
		}
		c.failLater(parser.Error, v.place, parser.Range{}, "Y014", hint, "unknown %q variable", v.name)
	}
}

// nearest finds the variable that a misspelt name may have meant: a built-in,
// one that the file defines, or a request header behind a misspelt "http_".
func (vs *variables) nearest(name string) string {
	known := map[string]bool{
		"http_host": true, "http_upgrade": true, "http_referer": true, "http_user_agent": true, "http_origin": true,
		"http_x_forwarded_for": true, "http_x_forwarded_proto": true, "http_cookie": true,
	}
	for n := range vs.builtin {
		known[n] = true
	}
	for n, v := range vs.names {
		if v.get != nil {
			known[n] = true
		}
	}
	return nearest(name, known)
}

// connect gives a built-in variable its getter.
func (vs *variables) connect(v *variable) bool {
	b, rest := vs.builtin[v.name], ""
	if b == nil {
		if b = vs.prefixed(v.name); b == nil {
			return false
		}
		rest = v.name[len(b.Name):]
	}
	v.get = func(dst []byte, x *Exchange) ([]byte, bool) { return b.Get(dst, x, rest) }
	return true
}

func (vs *variables) prefixed(name string) *Variable {
	for _, p := range vs.prefixes {
		if strings.HasPrefix(name, p.Name) {
			return p
		}
	}
	return nil
}

// appendVariable appends the variable of a name that is known only now, in
// lower case (ngx_http_get_variable).
func (x *Exchange) appendVariable(dst, name []byte) ([]byte, bool) {
	vs := x.names().vars
	if v := vs.names[string(name)]; v != nil && v.get != nil {
		return v.get(dst, x)
	}
	if b := vs.builtin[string(name)]; b != nil {
		return b.Get(dst, x, "")
	}
	if b := vs.prefixed(string(name)); b != nil {
		return b.Get(dst, x, string(name[len(b.Name):]))
	}
	return dst, false
}
