package pcre

import (
	"strings"
	"unicode/utf8"
)

// Texts of escapes.
const (
	textUnicodeEscape = `PCRE2 does not support \F, \L, \l, \N{name}, \U, or \u`
	textProperty      = `malformed \P or \p sequence`
	textTooLargeChar  = `character code point value in \x{} or \o{} is too large`
)

// escape reads an escape outside of a class.
func (p *parser) escape() (n *node, repeatable bool) {
	start := p.pos
	p.pos++
	if !p.more() {
		p.fail(`\ at end of pattern`, p.pos)
		return nil, false
	}
	switch c := p.src[p.pos]; c {
	case 'Q':
		return p.quoted(), false // it has read its quantifier
	case 'A', 'G', 'Z', 'z', 'b', 'B', 'K':
		p.pos++
		return p.anchor(c), false
	case 'd', 'D', 's', 'S', 'w', 'W', 'h', 'H', 'v', 'V', 'p', 'P':
		s := p.classEscape(c)
		return &node{op: opSet, set: s}, true
	case 'N':
		if p.pos++; p.peek("{") {
			p.fail(textUnicodeEscape, p.pos)
		}
		return p.dot(false), true
	case 'R':
		p.pos++
		return p.newline(), true
	case 'C':
		if p.pos++; !p.utf {
			return p.dot(true), true
		}
		p.fail(`\C is not supported`, p.pos)
		return nil, false
	case 'X':
		p.fail(`\X is not supported`, p.pos+1)
		return nil, false
	case 'g':
		p.pos++
		return p.groupEscape(), true
	case 'k':
		p.pos++
		return p.nameEscape(), true
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if number, ok := p.backref(); ok {
			return p.numbered(opBackref, number, p.pos-1), true
		}
		p.pos = start + 1
	}
	return p.char(p.escapedChar(false)), true
}

// anchor returns the node of a simple assertion.
func (p *parser) anchor(c byte) *node {
	switch c {
	case 'A', 'G':
		return &node{op: opBegin}
	case 'Z':
		return &node{op: opEnd}
	case 'z':
		return &node{op: opEndText}
	case 'b':
		return &node{op: opWord}
	case 'B':
		return &node{op: opNotWord}
	}
	if p.looks > 0 {
		p.fail(`\K is not allowed in lookarounds (but see PCRE2_EXTRA_ALLOW_LOOKAROUND_BSK)`, len(p.src))
	}
	return &node{op: opKeep}
}

// quoted reads \Q...\E and the quantifier that follows, which is for the last
// character alone.
func (p *parser) quoted() *node {
	p.pos++
	text, _, _ := strings.Cut(p.src[p.pos:], `\E`)
	cat := &node{op: opCat}
	for end := p.pos + len(text); p.pos < end; {
		cat.subs = append(cat.subs, p.char(p.next()))
	}
	p.eat(`\E`)
	if n := len(cat.subs); n > 0 {
		cat.subs[n-1] = p.quantified(cat.subs[n-1], true)
	}
	return cat
}

// newline is \R.
func (p *parser) newline() *node {
	s := &set{}
	s.add('\n', '\r')
	s.add(0x85, 0x85)
	if p.utf {
		s.add(0x2028, 0x2029)
	}
	char := func(r rune) *node { return &node{op: opSet, set: &set{ranges: []rune{r, r}}} }
	crlf := &node{op: opCat, subs: []*node{char('\r'), char('\n')}}
	alt := &node{op: opAlt, subs: []*node{crlf, {op: opSet, set: s}}}
	return &node{op: opAtomic, subs: []*node{alt}}
}

// classEscape reads \d and its like, at their letter.
func (p *parser) classEscape(c byte) *set {
	p.pos++
	var s *set
	if c|0x20 == 'p' {
		if s = p.property(c == 'P'); s == nil {
			return &set{}
		}
	} else {
		s = escapeSet(c)
		s.normalize()
		if c < 'a' {
			s = s.complement(p.highest())
		}
	}
	return p.clip(s)
}

// clip removes what is not in the alphabet.
func (p *parser) clip(s *set) *set {
	c := &set{}
	for i := 0; i < len(s.ranges); i += 2 {
		if low := s.ranges[i]; low <= p.highest() {
			c.add(low, min(s.ranges[i+1], p.highest()))
		}
	}
	return c
}

// property reads the name after \p or \P.
func (p *parser) property(negative bool) *set {
	if !p.more() {
		p.fail(textProperty, p.pos)
		return nil
	}
	name := p.src[p.pos : p.pos+1]
	end := p.pos + 1
	if name == "{" {
		rest := p.src[p.pos+1:]
		n := strings.IndexByte(rest, '}')
		if n < 0 {
			p.fail(textProperty, len(p.src))
			return nil
		}
		name = strings.ReplaceAll(rest[:n], " ", "")
		end = p.pos + n + 2
		if inner, ok := strings.CutPrefix(name, "^"); ok {
			name, negative = inner, !negative
		}
	} else if c := name[0] | 0x20; c < 'a' || c > 'z' {
		p.fail(textProperty, end)
		return nil
	}
	s := propertySet(name)
	if s == nil {
		p.fail(`unknown property after \P or \p`, end)
		return nil
	}
	p.pos = end
	if negative {
		return s.complement(p.highest())
	}
	return s
}

// groupEscape reads what follows \g.
func (p *parser) groupEscape() *node {
	start := p.pos
	switch {
	case p.eat("<"):
		return p.callEscape(start, '>')
	case p.eat("'"):
		return p.callEscape(start, '\'')
	case p.eat("{"):
		number, ok := p.signed()
		if p.err != nil {
			return nil
		}
		if !ok {
			return p.reference(opBackref, p.name('}', p.pos))
		}
		if !p.eat("}") {
			p.fail(textAfterG, start)
			return nil
		}
		if number < 0 {
			return p.numbered(opBackref, number, start)
		}
		return p.numbered(opBackref, number, p.pos-1)
	}
	number, ok := p.signed()
	if p.err != nil {
		return nil
	}
	if !ok {
		p.fail(textAfterG, start)
		return nil
	}
	if number <= 0 {
		return p.numbered(opBackref, -1, p.pos)
	}
	return p.numbered(opBackref, number, p.pos-1)
}

// callEscape reads \g<name> and \g<1>, which are calls.
func (p *parser) callEscape(start int, end byte) *node {
	number, ok := p.signed()
	if p.err != nil {
		return nil
	}
	if !ok {
		return p.reference(opCall, p.name(end, p.pos))
	}
	at := p.pos
	if !p.eat(string(end)) {
		p.fail(textAfterG, start)
		return nil
	}
	return p.numbered(opCall, number, at)
}

// nameEscape reads what follows \k.
func (p *parser) nameEscape() *node {
	for _, pair := range []string{"{}", "<>", "''"} {
		if p.eat(pair[:1]) {
			return p.reference(opBackref, p.name(pair[1], p.pos))
		}
	}
	p.fail(`\k is not followed by a braced, angle-bracketed, or quoted name`, p.pos)
	return nil
}

// backref reads the number of \1. Numbers above 9 are back-references if so
// many groups have begun or if they cannot be octal.
func (p *parser) backref() (number int, ok bool) {
	first := p.src[p.pos]
	number, _ = p.digits()
	return number, number < 10 || first >= '8' || number < len(p.groups)
}

// escapedChar reads an escape for one character, after the backslash.
func (p *parser) escapedChar(class bool) rune {
	c := p.src[p.pos]
	p.pos++
	switch c {
	case 'a':
		return '\a'
	case 'b':
		if class {
			return '\b'
		}
	case 'e':
		return 0x1b
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'c':
		return p.control()
	case 'x':
		return p.hex()
	case 'o':
		return p.braced(8, `missing opening brace after \o`)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		p.pos--
		return p.octal()
	case 'F', 'L', 'l', 'U', 'u':
		p.fail(textUnicodeEscape, p.pos)
	case '8', '9':
	default:
		if c >= utf8.RuneSelf && p.utf {
			p.pos--
			return p.next()
		}
		if l := c | 0x20; l >= 'a' && l <= 'z' && (!class || c != 'E') {
			p.fail(`unrecognized character follows \`, p.pos-1)
		}
	}
	return rune(c)
}

func (p *parser) control() rune {
	if !p.more() {
		p.fail(`\c at end of pattern`, p.pos)
		return 0
	}
	c := p.src[p.pos]
	if c < ' ' || c > '~' {
		p.fail(`\c must be followed by a printable ASCII character`, p.pos)
		return 0
	}
	p.pos++
	if c >= 'a' && c <= 'z' {
		c -= 0x20
	}
	return rune(c ^ 0x40)
}

// hex reads \xhh with up to two digits, or \x{h...}.
func (p *parser) hex() rune {
	if p.peek("{") {
		return p.braced(16, "")
	}
	r := rune(0)
	for range 2 {
		d := p.digit(16)
		if d < 0 {
			break
		}
		r = r*16 + d
		p.pos++
	}
	return r
}

// octal reads up to three octal digits.
func (p *parser) octal() rune {
	r := rune(0)
	for range 3 {
		d := p.digit(8)
		if d < 0 {
			break
		}
		r = r*8 + d
		p.pos++
	}
	if r > p.highest() {
		p.fail(`octal value is greater than \377 in 8-bit non-UTF-8 mode`, p.pos)
		return 0
	}
	return r
}

// braced reads {digits}.
func (p *parser) braced(base rune, missing string) rune {
	if !p.eat("{") {
		p.fail(missing, p.pos-1)
		return 0
	}
	if !p.more() || p.peek("}") {
		p.fail(`digits missing in \x{} or \o{} or \N{U+}`, p.pos)
		return 0
	}
	r := rune(0)
	for d := p.digit(base); d >= 0; d = p.digit(base) {
		if r = r*base + d; r > p.highest() {
			p.fail(textTooLargeChar, p.pos+1)
			return 0
		}
		p.pos++
	}
	at := p.pos
	if !p.more() {
		at--
	}
	switch {
	case p.eat("}"):
	case base == 8:
		p.fail(`non-octal character in \o{} (closing brace missing?)`, at)
	default:
		p.fail(`non-hex character in \x{} (closing brace missing?)`, at)
	}
	return r
}

// digit returns the value of the digit ahead, or -1.
func (p *parser) digit(base rune) rune {
	if !p.more() {
		return -1
	}
	d := rune(-1)
	switch c := p.src[p.pos]; {
	case c >= '0' && c <= '9':
		d = rune(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		d = rune(c|0x20-'a') + 10
	}
	if d >= base {
		return -1
	}
	return d
}
