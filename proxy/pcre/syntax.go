package pcre

// Syntax is a pattern taken apart, for questions about all the texts that it
// can match. It is never written after Analyze and safe for concurrent use.
type Syntax struct {
	groups []*node
	states []state
	start  int32
	exact  bool // whether answers of Find are the whole truth: the pattern may match less, as with look-around
}

// Analyze reads a pattern. The error is an *Error, or says that the pattern is
// too large or of a kind (UTF) that is not analyzed.
func Analyze(pattern string, caseless bool) (*Syntax, error) {
	tree, p := parse(pattern, caseless)
	if p.err != nil {
		return nil, p.err
	}
	if p.utf {
		return nil, &Error{Text: "not analyzed: UTF", Pattern: pattern}
	}
	s := &Syntax{groups: p.groups, exact: true}
	b := &builder{Syntax: s}
	accept := b.add(state{kind: kindAccept})
	s.start = b.build(tree, accept)
	if b.full {
		return nil, &Error{Text: textTooLarge, Pattern: pattern}
	}
	return s, nil
}

// GroupHas reports whether what a group captures can hold the byte c.
func (s *Syntax) GroupHas(group int, c byte) bool {
	found := false
	s.walkGroup(group, func(n *node) {
		found = found || n.op == opBackref || n.op == opSet && n.set.contains(rune(c))
	})
	return found
}

// GroupFixed reports whether a group captures one of a few texts that the
// pattern itself spells out.
func (s *Syntax) GroupFixed(group int) bool {
	fixed := group > 0 && group < len(s.groups)
	s.walkGroup(group, func(n *node) {
		switch n.op {
		case opSet:
			_, one := n.set.single()
			_, letter := n.set.letter()
			fixed = fixed && (one || letter)
		case opRepeat:
			fixed = fixed && n.max != infinite
		case opBackref:
			fixed = false
		}
	})
	return fixed
}

// walkGroup calls f for the parts of a group that take part in what it
// captures: look-around does not.
func (s *Syntax) walkGroup(group int, f func(*node)) {
	if group <= 0 || group >= len(s.groups) || s.groups[group] == nil {
		return
	}
	calls := 0
	var walk func(n *node)
	walk = func(n *node) {
		switch {
		case n.op == opLook:
			return
		case n.op == opCall && calls < maxDepth:
			calls++
			walk(s.groups[n.group])
			calls--
		}
		f(n)
		for _, sub := range n.subs {
			walk(sub)
		}
	}
	walk(s.groups[group])
}

// state is one of a nondeterministic automaton.
type state struct {
	kind  stateKind
	set   *set
	next  int32
	other int32 // of kindSplit
}

type stateKind uint8

const (
	kindSet stateKind = iota
	kindSplit
	kindBegin // nothing has been read yet
	kindEnd   // nothing is left
	kindAccept
)

// maxStates bounds the automaton of one pattern: counted repeats are unrolled.
const maxStates = 20_000

// builder makes the automaton, from its end to its start.
type builder struct {
	*Syntax
	full  bool
	calls int
}

func (b *builder) add(s state) int32 {
	if len(b.states) >= maxStates {
		b.full = true
		return 0
	}
	b.states = append(b.states, s)
	return int32(len(b.states) - 1)
}

// build adds states that match n and go on to next.
func (b *builder) build(n *node, next int32) int32 {
	if b.full {
		return next
	}
	switch n.op {
	case opSet:
		return b.add(state{kind: kindSet, set: n.set, next: next})
	case opCat:
		for i := len(n.subs) - 1; i >= 0; i-- {
			next = b.build(n.subs[i], next)
		}
		return next
	case opAlt:
		return b.either(n.subs, next)
	case opRepeat:
		return b.repeat(n, next)
	case opGroup:
		return b.build(n.subs[0], next)
	case opBegin:
		return b.add(state{kind: kindBegin, next: next})
	case opEnd: // at the end, or before a line feed that ends the subject
		end := b.add(state{kind: kindEnd, next: next})
		feed := b.add(state{kind: kindSet, set: &set{ranges: []rune{'\n', '\n'}}, next: end})
		return b.add(state{kind: kindSplit, next: end, other: feed})
	case opEndText:
		return b.add(state{kind: kindEnd, next: next})
	case opCall:
		if b.calls == maxDepth {
			b.full = true
			return next
		}
		b.calls++
		next = b.build(b.groups[n.group], next)
		b.calls--
		return next
	case opEmpty, opKeep:
		return next
	}
	return b.loose(n, next)
}

// loose builds what an automaton cannot tell: it matches more than the pattern.
func (b *builder) loose(n *node, next int32) int32 {
	b.exact = false
	switch n.op {
	case opAtomic:
		return b.build(n.subs[0], next)
	case opCond:
		return b.either(n.subs, next)
	case opCondLook:
		return b.either(n.subs[1:], next)
	case opBackref:
		return b.loop(&node{op: opSet, set: &set{ranges: []rune{0, 0xff}}}, next)
	}
	return next
}

func (b *builder) either(subs []*node, next int32) int32 {
	start := b.build(subs[len(subs)-1], next)
	for i := len(subs) - 2; i >= 0; i-- {
		start = b.add(state{kind: kindSplit, next: b.build(subs[i], next), other: start})
	}
	return start
}

func (b *builder) repeat(n *node, next int32) int32 {
	if n.possessive {
		b.exact = false
	}
	sub := n.subs[0]
	if n.max == infinite {
		next = b.loop(sub, next)
	} else {
		end := next
		for range n.max - n.min {
			next = b.add(state{kind: kindSplit, next: b.build(sub, next), other: end})
			if b.full {
				return next
			}
		}
	}
	for range n.min {
		next = b.build(sub, next)
		if b.full {
			return next
		}
	}
	return next
}

// loop matches n any number of times.
func (b *builder) loop(n *node, next int32) int32 {
	loop := b.add(state{kind: kindSplit, other: next})
	body := b.build(n, loop)
	b.states[loop].next = body
	return loop
}
