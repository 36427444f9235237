package pcre

import "strings"

// posixEnd returns where a POSIX item, whose type stands at i, ends before its
// closing pair, or -1 if there is none.
func (p *parser) posixEnd(i int) int {
	if i >= len(p.src) || !strings.ContainsRune(":.=", rune(p.src[i])) {
		return -1
	}
	kind := p.src[i]
	for i++; i+1 < len(p.src); i++ {
		c, next := p.src[i], p.src[i+1]
		switch {
		case c == '\\' && (next == ']' || next == '\\'):
			i++
		case c == '[' && next == kind, c == ']':
			return -1
		case c == kind && next == ']':
			return i
		}
	}
	return -1
}

// class reads a bracketed class.
func (p *parser) class() *node {
	if p.posixEnd(p.pos+1) >= 0 {
		if p.src[p.pos+1] == ':' {
			p.fail("POSIX named classes are supported only within a class", p.pos)
		} else {
			p.fail("POSIX collating elements are not supported", p.pos)
		}
		return nil
	}
	p.pos++
	negative := p.eat("^")
	c := classParser{parser: p, last: -1}
	for first := true; ; first = false {
		if !c.next() {
			p.fail(textNoClass, len(p.src))
			return nil
		}
		if !first && !c.literal && p.eat("]") {
			break
		}
		c.item()
		if p.err != nil {
			return nil
		}
	}
	n := p.setNode(&c.set)
	n.set.addSet(&c.classes)
	n.set.normalize()
	if negative {
		n.set = n.set.complement(p.highest())
	}
	return n
}

// classParser reads the items of a class.
type classParser struct {
	*parser
	set     set  // what is subject to caseless matching
	classes set  // what is not, such as \p{Lu}
	literal bool // within \Q...\E
	last    rune // a character that can begin a range, or -1
	closed  bool // the last item was a class such as \d: no range can follow
}

// next passes over \E and \Q, and reports whether anything is left.
func (c *classParser) next() bool {
	for c.more() {
		switch {
		case c.literal && c.eat(`\E`):
			c.literal = false
		case c.literal:
			return true
		case c.eat(`\Q`):
			c.literal = true
		case c.eat(`\E`):
		case c.flags.spaces && (c.peek(" ") || c.peek("\t")):
			c.pos++
		default:
			return true
		}
	}
	return false
}

// item reads a character, a range or a class within the class.
func (c *classParser) item() {
	if s := c.subclass(); s != nil {
		c.classes.addSet(s)
		c.last, c.closed = -1, true
		return
	}
	if c.err != nil {
		return
	}
	start := c.pos
	hyphen := !c.literal && c.peek("-")
	r := c.one()
	if c.err != nil {
		return
	}
	if hyphen && (c.last >= 0 || c.closed) && c.rangeFollows(start) {
		return
	}
	c.set.add(r, r)
	c.last, c.closed = r, false
	if hyphen {
		c.last = r
	}
}

// rangeFollows reads the end of a range after its hyphen at start, and reports
// false if the hyphen is a character after all.
func (c *classParser) rangeFollows(start int) bool {
	if !c.next() {
		return false
	}
	if !c.literal && c.peek("]") {
		return false
	}
	if c.closed {
		c.fail(textRange, start)
		return true
	}
	low := c.last
	at := c.pos
	if s := c.subclass(); s != nil {
		if c.src[at] == '[' {
			c.pos = at + 1
		}
		c.fail(textRange, c.pos)
		return true
	}
	high := c.one()
	if c.err != nil {
		return true
	}
	if high < low {
		c.fail("range out of order in character class", c.pos-1)
		return true
	}
	c.set.add(low, high)
	c.last, c.closed = -1, false
	return true
}

// one reads a character.
func (c *classParser) one() rune {
	if c.literal || !c.eat(`\`) {
		return c.parser.next()
	}
	if !c.more() {
		c.fail(`\ at end of pattern`, c.pos)
		return 0
	}
	switch c.src[c.pos] {
	case 'N':
		c.fail(`\N is not supported in a class`, c.pos+1)
		return 0
	case 'R', 'X', 'B', 'A', 'Z', 'z', 'G', 'K', 'C':
		c.fail("escape sequence is invalid in character class", c.pos)
		return 0
	}
	return c.escapedChar(true)
}

// subclass reads \d, [:alpha:] and their like, or returns nil.
func (c *classParser) subclass() *set {
	if c.literal {
		return nil
	}
	if c.peek(`\`) && c.pos+1 < len(c.src) {
		if e := c.src[c.pos+1]; strings.IndexByte("dDsSwWhHvVpP", e) >= 0 {
			c.pos++
			return c.classEscape(e)
		}
		return nil
	}
	if !c.peek("[") {
		return nil
	}
	end := c.posixEnd(c.pos + 1)
	if end < 0 {
		return nil
	}
	if c.src[c.pos+1] != ':' {
		c.fail("POSIX collating elements are not supported", c.pos)
		return nil
	}
	start := c.pos + 2
	name, negative := strings.CutPrefix(c.src[start:end], "^")
	if negative {
		start++
	}
	if c.flags.caseless && (name == "upper" || name == "lower") {
		name = "alpha"
	}
	s := posixSet(name)
	if s == nil {
		c.fail("unknown POSIX class name", start)
		return nil
	}
	c.pos = end + 2
	if negative {
		s = s.complement(c.highest())
	}
	return s
}
