package pcre

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// parser reads a pattern as PCRE2 10.42 does, and reports the same mistakes at
// the same places (pcre2pattern(3), pcre2_compile's error texts).
type parser struct {
	src     string
	pos     int
	utf     bool
	flags   flags
	depth   int
	looks   int // how many look-arounds are open
	names   []string
	numbers map[string]int
	groups  []*node // by number; nil for the whole
	refs    []reference
	err     *Error
}

// flags are the options that can change within a pattern.
type flags struct {
	caseless, lines, dotAll, extended, spaces, named, duplicates, ungreedy bool
}

// reference is a group that is referred to and must exist in the end.
type reference struct {
	node   *node
	name   string
	number int
	pos    int
}

const (
	maxPattern = 32 << 10
	maxDepth   = 250 // PCRE2's default
	maxGroups  = 1000
	maxRepeat  = 65535
	maxName    = 32
)

// Texts used at several places.
const (
	textNoParen    = "missing closing parenthesis"
	textNoQuant    = "quantifier does not follow a repeatable item"
	textNoGroup    = "reference to non-existent subpattern"
	textVerb       = "(*VERB) not recognized or malformed"
	textTooLarge   = "regular expression is too large"
	textRange      = "invalid range in character class"
	textNoClass    = "missing terminating ] for character class"
	textAfterG     = `\g is not followed by a braced, angle-bracketed, or quoted name/number or by a plain number`
	textAfterParen = "unrecognized character after (? or (?-"
)

// parse returns the tree of a pattern.
func parse(src string, caseless bool) (*node, *parser) {
	p := &parser{src: src, names: []string{""}, numbers: map[string]int{}, groups: []*node{nil}}
	p.flags.caseless = caseless
	if len(src) > maxPattern {
		p.fail(textTooLarge, maxPattern)
		return nil, p
	}
	p.startOptions()
	if p.utf && !utf8.ValidString(src) {
		p.fail("UTF-8 error: invalid byte sequence", 0)
	}
	n := p.alternation()
	if p.err == nil && p.pos < len(src) {
		p.fail("unmatched closing parenthesis", p.pos)
	}
	p.groups[0] = n
	p.resolve()
	return n, p
}

// fail keeps the first mistake and ends parsing.
func (p *parser) fail(text string, at int) {
	if p.err == nil {
		p.err = &Error{Text: text, Pattern: p.src, Offset: min(at, len(p.src))}
	}
	p.pos = len(p.src)
}

func (p *parser) more() bool { return p.pos < len(p.src) }

func (p *parser) peek(s string) bool { return strings.HasPrefix(p.src[p.pos:], s) }

func (p *parser) eat(s string) bool {
	if !p.peek(s) {
		return false
	}
	p.pos += len(s)
	return true
}

// highest is the last character of the pattern's alphabet.
func (p *parser) highest() rune {
	if p.utf {
		return unicode.MaxRune
	}
	return 0xff
}

// startOptions reads (*UTF) and its like at the start of a pattern.
func (p *parser) startOptions() {
	for p.peek("(*") {
		end := strings.IndexByte(p.src[p.pos:], ')')
		if end < 0 {
			return
		}
		name, _, _ := strings.Cut(p.src[p.pos+2:p.pos+end], "=")
		switch name {
		case "UTF8", "UTF":
			p.utf = true
		case "NO_START_OPT", "NO_AUTO_POSSESS", "NO_JIT", "NO_DOTSTAR_ANCHOR", "LIMIT_MATCH", "LIMIT_DEPTH", "LIMIT_HEAP", "LIMIT_RECURSION", "LF", "BSR_UNICODE":
		case "UCP", "CR", "CRLF", "ANYCRLF", "ANY", "NUL", "BSR_ANYCRLF", "NOTEMPTY", "NOTEMPTY_ATSTART":
			p.fail("(*"+name+") is not supported", p.pos+end)
		default:
			return
		}
		if p.err == nil {
			p.pos += end + 1
		}
	}
}

// alternation reads up to a closing parenthesis or the end. Options set inside
// last until there.
func (p *parser) alternation() *node {
	saved := p.flags
	defer func() { p.flags = saved }()
	if p.depth++; p.depth > maxDepth {
		p.fail("parentheses are too deeply nested", p.pos)
	}
	defer func() { p.depth-- }()
	alt := []*node{p.sequence()}
	for p.eat("|") {
		alt = append(alt, p.sequence())
	}
	if len(alt) == 1 {
		return alt[0]
	}
	return &node{op: opAlt, subs: alt}
}

// sequence reads up to a bar, a closing parenthesis or the end.
func (p *parser) sequence() *node {
	var cat []*node
	for p.more() && p.src[p.pos] != '|' && p.src[p.pos] != ')' {
		if p.skip() {
			continue
		}
		n, repeatable := p.atom()
		if p.err != nil {
			break
		}
		if n == nil {
			continue
		}
		cat = append(cat, p.quantified(n, repeatable))
	}
	switch len(cat) {
	case 0:
		return &node{op: opEmpty}
	case 1:
		return cat[0]
	}
	return &node{op: opCat, subs: cat}
}

// skip passes over comments, \E and, under (?x), white space.
func (p *parser) skip() bool {
	start := p.pos
	for p.more() {
		switch c := p.src[p.pos]; {
		case p.eat(`\E`):
		case p.eat(`\Q\E`):
		case p.eat("(?#"):
			end := strings.IndexByte(p.src[p.pos:], ')')
			if end < 0 {
				p.fail("missing ) after (?# comment", len(p.src))
				return true
			}
			p.pos += end + 1
		case p.flags.extended && (c >= '\t' && c <= '\r' || c == ' '):
			p.pos++
		case p.flags.extended && c == '#':
			end := strings.IndexByte(p.src[p.pos:], '\n')
			if end < 0 {
				end = len(p.src) - p.pos - 1
			}
			p.pos += end + 1
		default:
			return p.pos > start
		}
	}
	return p.pos > start
}

// atom reads what a quantifier can follow. It returns nil for what matches
// nothing by itself, like (?i).
func (p *parser) atom() (n *node, repeatable bool) {
	switch c := p.src[p.pos]; c {
	case '(':
		return p.parenthesis()
	case '[':
		return p.class(), true
	case '\\':
		return p.escape()
	case '^':
		p.pos++
		if p.flags.lines {
			return &node{op: opBeginLine}, false
		}
		return &node{op: opBegin}, false
	case '$':
		p.pos++
		if p.flags.lines {
			return &node{op: opEndLine}, false
		}
		return &node{op: opEnd}, false
	case '.':
		p.pos++
		return p.dot(p.flags.dotAll), true
	case '*', '+', '?':
		p.fail(textNoQuant, p.pos)
		return nil, false
	case '{':
		if _, _, size := p.braces(); size > 0 {
			p.fail(textNoQuant, p.pos+size-1)
			return nil, false
		}
	}
	return p.char(p.next()), true
}

// next reads a character.
func (p *parser) next() rune {
	if p.utf {
		r, size := utf8.DecodeRuneInString(p.src[p.pos:])
		p.pos += size
		return r
	}
	p.pos++
	return rune(p.src[p.pos-1])
}

// char returns a node for one character.
func (p *parser) char(r rune) *node { return p.setNode(&set{ranges: []rune{r, r}}) }

// setNode returns a node for a set under the current options.
func (p *parser) setNode(s *set) *node {
	s.normalize()
	if p.flags.caseless {
		if p.utf {
			s.foldUnicode()
		} else {
			s.foldASCII()
		}
	}
	return &node{op: opSet, set: s}
}

func (p *parser) dot(all bool) *node {
	s := &set{}
	if all {
		s.add(0, p.highest())
	} else {
		s.add(0, '\n'-1)
		s.add('\n'+1, p.highest())
	}
	return &node{op: opSet, set: s}
}

// quantified reads the quantifier after n, if there is one.
func (p *parser) quantified(n *node, repeatable bool) *node {
	for p.skip() {
		if p.err != nil {
			return n
		}
	}
	if !p.more() {
		return n
	}
	low, high, size := 0, infinite, 1
	switch p.src[p.pos] {
	case '*':
	case '+':
		low = 1
	case '?':
		high = 1
	case '{':
		if low, high, size = p.braces(); size == 0 {
			return n
		}
	default:
		return n
	}
	if p.err != nil {
		return n
	}
	p.pos += size
	if !repeatable {
		p.fail(textNoQuant, p.pos-1)
		return n
	}
	q := &node{op: opRepeat, subs: []*node{n}, min: low, max: high, lazy: p.flags.ungreedy}
	if n.op == opLook {
		q.min, q.max = min(low, 1), 1 // pcre2pattern(3), "Assertions"
	}
	if p.eat("?") {
		q.lazy = !q.lazy
	} else if p.eat("+") {
		q.possessive = true
	}
	return q
}

// braces reads {n}, {n,} or {n,m} ahead. size is 0 if it is none of these, and
// thus literal.
func (p *parser) braces() (low, high, size int) {
	s := p.src[p.pos:]
	i := 1
	number := func() (v int, ok bool) {
		start := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			v = min(v*10+int(s[i]-'0'), maxRepeat+1)
			i++
		}
		return v, i > start
	}
	low, ok := number()
	afterLow := i
	if !ok || i == len(s) {
		return 0, 0, 0
	}
	high = low
	if s[i] == ',' {
		i++
		if high, ok = number(); !ok {
			high = infinite
		}
	}
	if i == len(s) || s[i] != '}' {
		return 0, 0, 0
	}
	switch i++; {
	case low > maxRepeat:
		p.tooBig(afterLow)
	case high > maxRepeat:
		p.tooBig(i - 1)
	case high != infinite && high < low:
		p.fail("numbers out of order in {} quantifier", p.pos+i-1)
	}
	return low, high, i
}

// tooBig reports the number before end.
func (p *parser) tooBig(end int) {
	p.fail("number too big in {} quantifier", p.pos+end)
}

// resolve binds names to numbers and finds references to nothing.
func (p *parser) resolve() {
	for _, r := range p.refs {
		if r.name != "" {
			number, ok := p.numbers[r.name]
			if !ok {
				p.fail(textNoGroup, r.pos)
				return
			}
			r.number = number
		}
		if r.number >= len(p.groups) {
			p.fail(textNoGroup, r.pos)
			return
		}
		r.node.group = r.number
	}
}
