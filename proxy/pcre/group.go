package pcre

import "strings"

// parenthesis reads a group, or an option setting or verb, at which it returns
// nil.
func (p *parser) parenthesis() (n *node, repeatable bool) {
	start := p.pos
	p.pos++
	switch {
	case p.peek("*"):
		return p.verb()
	case !p.eat("?"):
		if p.flags.named {
			return p.grouped(), true
		}
		return p.capture(""), true
	case !p.more():
		p.fail(textNoParen, p.pos)
		return nil, false
	}
	switch {
	case p.eat(":"):
		return p.grouped(), true
	case p.eat("|"):
		p.fail("(?| is not supported", p.pos) // alternatives that number their groups alike
		return nil, false
	case p.eat(">"):
		return p.closed(&node{op: opAtomic}), true
	case p.peek("="), p.peek("!"), p.peek("<="), p.peek("<!"):
		return p.look(start), true
	case p.eat("<"):
		return p.capture(p.name('>', p.pos)), true
	case p.eat("'"):
		return p.capture(p.name('\'', p.pos)), true
	case p.eat("P"):
		return p.python(), true
	case p.eat("&"):
		return p.reference(opCall, p.name(')', p.pos)), true
	case p.eat("("):
		return p.condition(start), true
	case p.eat("C"):
		p.fail("callouts are not supported", p.pos)
		return nil, false
	}
	if c := p.src[p.pos]; c == 'R' || c >= '0' && c <= '9' || c == '+' ||
		c == '-' && p.pos+1 < len(p.src) && p.src[p.pos+1] >= '0' && p.src[p.pos+1] <= '9' {
		return p.numberedCall(), true
	}
	return p.options()
}

// closed reads the inside of a group and its end. The group becomes the only
// part of n, if n is not nil.
func (p *parser) closed(n *node) *node {
	inside := p.alternation()
	if p.err == nil && !p.eat(")") {
		p.fail(textNoParen, p.pos)
	}
	if n == nil {
		return inside
	}
	n.subs = append(n.subs, inside)
	return n
}

// grouped reads the inside of a group that does not capture. The node around
// it tells its alternatives from those of the group it may be alone in.
func (p *parser) grouped() *node { return p.closed(&node{op: opCat}) }

// capture reads the inside of a capturing group.
func (p *parser) capture(name string) *node {
	if p.err != nil {
		return nil
	}
	if len(p.groups) > maxGroups {
		p.fail("too many capturing groups (maximum 1000)", p.pos)
		return nil
	}
	n := &node{op: opGroup, group: len(p.groups)}
	p.groups = append(p.groups, n)
	p.names = append(p.names, name)
	if name != "" {
		if _, ok := p.numbers[name]; ok && !p.flags.duplicates {
			p.fail("two named subpatterns have the same name (PCRE2_DUPNAMES not set)", p.pos)
			return nil
		} else if !ok {
			p.numbers[name] = n.group
		}
	}
	return p.closed(n)
}

// look reads a look-around that begins at start.
func (p *parser) look(start int) *node {
	n := &node{op: opLook, behind: p.eat("<")}
	if n.negative = p.eat("!"); !n.negative {
		p.eat("=")
	}
	p.looks++
	p.closed(n)
	p.looks--
	if p.err == nil && n.behind && !n.subs[0].fixed() {
		p.fail("lookbehind assertion is not fixed length", start)
	}
	return n
}

// fixed reports whether each alternative has one length.
func (n *node) fixed() bool {
	if n.op == opAlt {
		for _, s := range n.subs {
			if low, high := s.bounds(); low != high {
				return false
			}
		}
		return true
	}
	low, high := n.bounds()
	return low == high
}

// python reads what follows (?P.
func (p *parser) python() *node {
	switch {
	case p.eat("<"):
		return p.capture(p.name('>', p.pos))
	case p.eat("="):
		return p.reference(opBackref, p.name(')', p.pos))
	case p.eat(">"):
		return p.reference(opCall, p.name(')', p.pos))
	case !p.more():
		p.fail(textNoParen, p.pos)
	default:
		p.fail("unrecognized character after (?P", p.pos)
	}
	return nil
}

// name reads a name and its terminator. start is where a missing group is
// reported.
func (p *parser) name(end byte, start int) string {
	isWord := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z'
	}
	rest := p.src[start:]
	n := len(rest) - len(strings.TrimLeftFunc(rest, isWord))
	switch {
	case n == 0:
		p.fail("subpattern name expected", start)
	case rest[0] >= '0' && rest[0] <= '9':
		p.fail("subpattern name must start with a non-digit", start)
	case n > maxName:
		p.fail("subpattern name is too long (maximum 32 code units)", start+n)
	case n == len(rest) || rest[n] != end:
		p.fail("syntax error in subpattern name (missing terminator?)", start+n)
	default:
		p.pos = start + n + 1
		return rest[:n]
	}
	return ""
}

// reference returns a node that refers to a group by its name, just read.
func (p *parser) reference(o op, name string) *node {
	if p.err != nil {
		return nil
	}
	n := &node{op: o, caseless: p.flags.caseless}
	p.refs = append(p.refs, reference{node: n, name: name, pos: p.pos - 1 - len(name)})
	return n
}

// numbered returns a node that refers to a group by its number.
func (p *parser) numbered(o op, number, at int) *node {
	n := &node{op: o, caseless: p.flags.caseless}
	if number < 0 || o == opBackref && number == 0 {
		p.fail(textNoGroup, at)
		return nil
	}
	p.refs = append(p.refs, reference{node: n, number: number, pos: at})
	return n
}

// digits reads a decimal number, which may be absent.
func (p *parser) digits() (v int, ok bool) {
	start := p.pos
	for p.more() && p.src[p.pos] >= '0' && p.src[p.pos] <= '9' {
		v = min(v*10+int(p.src[p.pos]-'0'), maxRepeat)
		p.pos++
	}
	return v, p.pos > start
}

// signed reads a number that counts from here if it has a sign.
func (p *parser) signed() (v int, ok bool) {
	start := p.pos
	plus := p.eat("+")
	minus := !plus && p.eat("-")
	v, ok = p.digits()
	switch {
	case !ok:
		p.pos = start
		return 0, false
	case (plus || minus) && v == 0:
		p.fail("a relative value of zero is not allowed", p.pos)
		return 0, false
	case plus:
		v += len(p.groups) - 1
	case minus:
		v = len(p.groups) - v
		if v <= 0 {
			v = -1
		}
	}
	return v, true
}

// numberedCall reads (?R), (?1), (?+1) and (?-1) after the question mark.
func (p *parser) numberedCall() *node {
	if p.eat("R") {
		if !p.eat(")") {
			p.fail("(?R (recursive pattern call) must be followed by a closing parenthesis", p.pos)
			return nil
		}
		return p.numbered(opCall, 0, p.pos)
	}
	number, ok := p.signed()
	if !ok {
		p.fail("digit expected after (?+ or (?-", p.pos)
		return nil
	}
	at := p.pos
	if !p.eat(")") {
		p.fail(textNoParen, p.pos)
		return nil
	}
	return p.numbered(opCall, number, at)
}

// condition reads (?(...)yes|no) after its second parenthesis.
func (p *parser) condition(start int) *node {
	open := p.pos - 1
	n := &node{op: opCond}
	define := false
	switch {
	case p.peek("?"):
		p.pos = open
		if !p.peek("(?=") && !p.peek("(?!") && !p.peek("(?<=") && !p.peek("(?<!") {
			p.fail("assertion expected after (?( or (?(?C)", open)
			return nil
		}
		p.pos += 2
		n.op = opCondLook
		n.subs = append(n.subs, p.look(open))
	case p.eat("DEFINE)"):
		define = true
	case p.peek("R)"), p.peek("R&"), p.peek("VERSION"):
		p.fail("this condition is not supported", p.pos)
	case p.eat("<"):
		p.conditionName(n, '>')
	case p.eat("'"):
		p.conditionName(n, '\'')
	default:
		p.conditionNumber(n, open)
	}
	if p.err != nil {
		return nil
	}
	return p.branches(n, start, define)
}

// conditionName reads a name up to end, and the parenthesis.
func (p *parser) conditionName(n *node, end byte) {
	at := p.pos
	name := p.name(end, at)
	p.refs = append(p.refs, reference{node: n, name: name, pos: at})
	if p.err == nil && !p.eat(")") {
		p.fail("missing closing parenthesis for condition", p.pos)
	}
}

// conditionNumber reads a number or a bare name, and the parenthesis.
func (p *parser) conditionNumber(n *node, open int) {
	number, ok := p.signed()
	switch {
	case p.err != nil:
	case !ok:
		at := p.pos
		name := p.name(')', at)
		p.refs = append(p.refs, reference{node: n, name: name, pos: at})
	case !p.eat(")"):
		p.fail("missing closing parenthesis for condition", p.pos)
	case number <= 0:
		p.fail(textNoGroup, p.pos-1)
	default:
		p.refs = append(p.refs, reference{node: n, number: number, pos: open})
	}
}

// branches reads the one or two alternatives of a condition.
func (p *parser) branches(n *node, start int, define bool) *node {
	inside := p.closed(nil)
	if p.err != nil {
		return nil
	}
	subs := []*node{inside}
	if inside.op == opAlt {
		subs = inside.subs
	}
	switch {
	case define && len(subs) > 1:
		p.fail("DEFINE subpattern contains more than one branch", start+3)
	case len(subs) > 2:
		p.fail("conditional subpattern contains more than two branches", start)
	case define:
		return &node{op: opRepeat, subs: subs}
	}
	if len(subs) == 1 {
		subs = append(subs, &node{op: opEmpty})
	}
	n.subs = append(n.subs, subs...)
	return n
}

// options reads (?i-s), which lasts to the end of the group, or (?i-s:...).
func (p *parser) options() (n *node, repeatable bool) {
	flags, on := p.flags, true
	if p.eat("^") {
		flags = resetFlags(flags)
	}
	for p.more() {
		c := p.src[p.pos]
		switch c {
		case ')':
			p.pos++
			p.flags = flags
			return &node{op: opEmpty}, false
		case ':':
			p.pos++
			saved := p.flags
			p.flags = flags
			n = p.grouped()
			p.flags = saved
			return n, true
		case '-':
			if !on {
				p.fail(textAfterParen, p.pos)
				return nil, false
			}
			on = false
		default:
			if !flags.set(c, on) {
				p.fail(textAfterParen, p.pos)
				return nil, false
			}
		}
		p.pos++
	}
	p.fail(textNoParen, p.pos)
	return nil, false
}

// resetFlags is what (?^ does.
func resetFlags(f flags) flags {
	f.caseless, f.lines, f.dotAll, f.extended, f.spaces, f.named = false, false, false, false, false, false
	return f
}

// set changes the option of letter c.
func (f *flags) set(c byte, on bool) bool {
	switch c {
	case 'i':
		f.caseless = on
	case 'm':
		f.lines = on
	case 's':
		f.dotAll = on
	case 'n':
		f.named = on
	case 'x':
		f.spaces = on && f.extended // the second x
		f.extended = on
	case 'J':
		f.duplicates = on
	case 'U':
		f.ungreedy = on
	default:
		return false
	}
	return true
}

// verb reads (*FAIL); other backtracking verbs have no equal here.
func (p *parser) verb() (*node, bool) {
	for _, v := range []string{"*FAIL)", "*F)"} {
		if p.eat(v) {
			return &node{op: opSet, set: &set{}}, true
		}
	}
	rest := p.src[p.pos+1:]
	n := len(rest) - len(strings.TrimLeft(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789"))
	if n == 0 && !strings.HasPrefix(rest, ":") {
		p.fail(textNoQuant, p.pos)
		return nil, false
	}
	switch name := rest[:n]; {
	case n == len(rest), rest[n] != ')' && rest[n] != ':':
		p.fail(textVerb, p.pos+1+n)
	case name == "ACCEPT" || name == "COMMIT" || name == "PRUNE" || name == "SKIP" || name == "THEN" || name == "MARK" || name == "" || strings.ToLower(name) == name:
		p.fail("(*"+name+") is not supported", p.pos+1+n)
	default:
		p.fail(textVerb, p.pos+1+n)
	}
	return nil, false
}
