package pcre

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// form is a rewriting of a pattern for an engine.
type form uint8

const (
	// formPlain is for Go's engine and subjects in which bytes are characters
	// and the end is the only place for $: ASCII without a final line feed.
	formPlain form = iota
	// formMarked is for Go's engine and subjects after transcode.
	formMarked
	// formBacktrack is for regexp2, with one rune for each byte.
	formBacktrack
)

// mark stands for line feeds before the last character of a transcoded subject,
// so that (?m:$) finds only the places of PCRE's $. It is a noncharacter.
const mark = '\uffff'

// maxText bounds a rewritten pattern: calls of groups copy them.
const maxText = 256 << 10

// emitter writes a pattern for an engine.
type emitter struct {
	strings.Builder
	form    form
	groups  []*node     // by number
	indexes map[int]int // from group to its number in the written pattern
	calls   []int       // groups being called
	failure string
}

// slots returns the groups in the order in which a tree is written: what the
// captures of the written pattern stand for. -1 is \K.
func slots(tree *node) []int {
	order := []int{0}
	tree.walk(func(n *node) bool {
		switch n.op {
		case opGroup:
			order = append(order, n.group)
		case opKeep:
			order = append(order, -1)
		default:
		}
		return n.op != opRepeat || n.max != 0
	})
	return order
}

// emit writes the tree for an engine. failure says why that cannot be done.
func emit(p *parser, tree *node, f form) (text, failure string) {
	e := &emitter{form: f, groups: p.groups, indexes: map[int]int{}}
	for i, g := range slots(tree) {
		e.indexes[g] = i
	}
	e.node(tree)
	return e.String(), e.failure
}

func (e *emitter) node(n *node) {
	if e.failure != "" {
		return
	}
	if e.Len() > maxText {
		e.failure = textTooLarge
		return
	}
	switch n.op {
	case opEmpty:
	case opSet:
		e.set(n.set)
	case opCat:
		for _, s := range n.subs {
			e.part(s)
		}
	case opAlt:
		for i, s := range n.subs {
			if i > 0 {
				e.WriteByte('|')
			}
			e.node(s)
		}
	case opRepeat:
		e.repeat(n)
	case opGroup:
		if len(e.calls) > 0 {
			e.enclosed("(?:", n.subs[0])
		} else {
			e.enclosed("(", n.subs[0])
		}
	case opAtomic:
		e.enclosed("(?>", n.subs[0])
	case opLook:
		e.look(n, n.negative)
	case opCall:
		e.call(n)
	default:
		e.special(n)
	}
}

// special writes assertions and what depends on groups.
func (e *emitter) special(n *node) {
	switch n.op {
	case opBegin:
		e.WriteString(`\A`)
	case opEnd:
		e.WriteString([...]string{`\z`, `(?m:$)`, `\Z`}[e.form])
	case opEndText:
		e.WriteString(`\z`)
	case opBeginLine:
		e.WriteString(`(?:\A|(?<=\n)(?!\z))`)
	case opEndLine:
		e.WriteString(`(?=\n|\z)`)
	case opWord, opNotWord:
		e.boundary(n.op == opWord)
	case opKeep:
		e.WriteString("()")
	case opBackref:
		i, ok := e.indexes[n.group]
		switch {
		case !ok:
			e.WriteString("(?!)")
		case n.caseless:
			fmt.Fprintf(e, `(?i:\%d)`, i)
		default:
			fmt.Fprintf(e, `(?:\%d)`, i)
		}
	case opCond:
		i, ok := e.indexes[n.group]
		if !ok {
			e.part(n.subs[1])
			return
		}
		fmt.Fprintf(e, `(?(%d)`, i)
		e.part(n.subs[0])
		e.WriteByte('|')
		e.part(n.subs[1])
		e.WriteByte(')')
	case opCondLook:
		e.WriteString("(?:")
		e.look(n.subs[0], n.subs[0].negative)
		e.part(n.subs[1])
		e.WriteByte('|')
		// The other branch repeats the look-around, whose groups are taken.
		e.calls = append(e.calls, -1)
		e.look(n.subs[0], !n.subs[0].negative)
		e.calls = e.calls[:len(e.calls)-1]
		e.part(n.subs[2])
		e.WriteByte(')')
	default: // node has written it
	}
}

// part writes n so that something can precede and follow it.
func (e *emitter) part(n *node) {
	if n.op == opAlt {
		e.enclosed("(?:", n)
		return
	}
	e.node(n)
}

func (e *emitter) enclosed(open string, n *node) {
	e.WriteString(open)
	e.node(n)
	e.WriteByte(')')
}

func (e *emitter) repeat(n *node) {
	if n.max == 0 {
		return
	}
	if n.possessive {
		e.WriteString("(?>")
	}
	if s := n.subs[0]; s.op == opSet || s.op == opGroup {
		e.node(s)
	} else {
		e.enclosed("(?:", s)
	}
	switch {
	case n.min == 0 && n.max == infinite:
		e.WriteByte('*')
	case n.min == 1 && n.max == infinite:
		e.WriteByte('+')
	case n.min == 0 && n.max == 1:
		e.WriteByte('?')
	case n.max == infinite:
		fmt.Fprintf(e, "{%d,}", n.min)
	default:
		fmt.Fprintf(e, "{%d,%d}", n.min, n.max)
	}
	if n.lazy {
		e.WriteByte('?')
	}
	if n.possessive {
		e.WriteByte(')')
	}
}

func (e *emitter) look(n *node, negative bool) {
	open := "(?"
	if n.behind {
		open = "(?<"
	}
	if negative {
		open += "!"
	} else {
		open += "="
	}
	e.enclosed(open, n.subs[0])
}

// call writes a copy of a group, which captures nothing.
func (e *emitter) call(n *node) {
	for _, g := range e.calls {
		if g == n.group {
			e.failure = "recursive pattern calls are not supported"
			return
		}
	}
	target := e.groups[n.group]
	if n.group == 0 {
		e.failure = "recursive pattern calls are not supported"
		return
	}
	e.calls = append(e.calls, n.group)
	e.enclosed("(?:", target.subs[0])
	e.calls = e.calls[:len(e.calls)-1]
}

// boundary writes \b and \B over ASCII word characters.
func (e *emitter) boundary(at bool) {
	if e.form != formBacktrack {
		if at {
			e.WriteString(`\b`)
		} else {
			e.WriteString(`\B`)
		}
		return
	}
	const word = `[0-9A-Za-z_]`
	if at {
		e.WriteString(`(?:(?<=` + word + `)(?!` + word + `)|(?<!` + word + `)(?=` + word + `))`)
	} else {
		e.WriteString(`(?:(?<=` + word + `)(?=` + word + `)|(?<!` + word + `)(?!` + word + `))`)
	}
}

// set writes one character. A set that reaches the end of the alphabet is
// written as what it lacks.
func (e *emitter) set(s *set) {
	if len(s.ranges) == 0 {
		if e.form == formBacktrack {
			e.WriteString("(?!)")
		} else {
			e.WriteString(`[^\x00-\x{10FFFF}]`)
		}
		return
	}
	feed := s.contains('\n')
	if r, ok := s.single(); ok && (!feed || e.form != formMarked) {
		e.char(r)
		return
	}
	last := s.ranges[len(s.ranges)-1]
	if last == 0xff || last == unicode.MaxRune {
		e.excluding(s.complement(last), feed)
		return
	}
	e.WriteByte('[')
	e.ranges(s)
	if feed && e.form == formMarked {
		e.char(mark)
	}
	e.WriteByte(']')
}

// excluding writes all characters but those of s.
func (e *emitter) excluding(s *set, feed bool) {
	unmark := !feed && e.form == formMarked
	if len(s.ranges) == 0 && !unmark {
		e.WriteString(`(?s:.)`)
		return
	}
	e.WriteString("[^")
	e.ranges(s)
	if unmark {
		e.char(mark)
	}
	e.WriteByte(']')
}

func (e *emitter) ranges(s *set) {
	for i := 0; i < len(s.ranges); i += 2 {
		e.char(s.ranges[i])
		if s.ranges[i+1] != s.ranges[i] {
			e.WriteByte('-')
			e.char(s.ranges[i+1])
		}
	}
}

// char writes a character for use in and out of a class.
func (e *emitter) char(r rune) {
	switch {
	case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r == '/', r == '_':
		e.WriteRune(r)
	case e.form != formBacktrack:
		e.WriteString(`\x{` + strconv.FormatInt(int64(r), 16) + `}`)
	case r <= 0xff:
		fmt.Fprintf(e, `\x%02x`, r)
	case r <= 0xffff:
		fmt.Fprintf(e, `\u%04x`, r)
	default:
		e.WriteRune(r)
	}
}
