package pcre

// op is the kind of a node.
type op uint8

const (
	opEmpty     op = iota
	opSet          // one character of set
	opCat          // subs in order
	opAlt          // the first of subs that matches
	opRepeat       // subs[0], min to max times
	opGroup        // subs[0], captured as group
	opBegin        // ^ and \A
	opEnd          // $ and \Z: the end, or before a line feed that ends the subject
	opEndText      // \z
	opBeginLine    // ^ under (?m)
	opEndLine      // $ under (?m)
	opWord         // \b
	opNotWord      // \B
	opKeep         // \K
	opAtomic       // (?>...)
	opLook         // look-around
	opBackref      // what group matched
	opCond         // subs[0] if group is set, else subs[1]
	opCondLook     // subs[1] if the look-around subs[0] holds, else subs[2]
	opCall         // the pattern of group
)

// infinite is the max of an open repeat.
const infinite = -1

// node is a part of a pattern. Nodes are shared where a group is called from
// elsewhere, and do not change after parsing.
type node struct {
	op         op
	set        *set
	subs       []*node
	min, max   int
	lazy       bool
	possessive bool
	behind     bool // opLook
	negative   bool // opLook
	caseless   bool // opBackref
	group      int
}

// bounds returns the least and the greatest number of characters that n
// matches; infinite for no limit or one that is not known.
func (n *node) bounds() (low, high int) {
	switch n.op {
	case opSet:
		return 1, 1
	case opCat:
		for _, s := range n.subs {
			l, h := s.bounds()
			low, high = plus(low, l), plus(high, h)
		}
		return low, high
	case opAlt:
		return n.alternatives(n.subs)
	case opRepeat:
		l, h := n.subs[0].bounds()
		low = min(n.min*l, maxLength)
		switch {
		case h == 0 || n.max == 0:
			return low, 0
		case n.max == infinite || h == infinite:
			return low, infinite
		}
		return low, min(n.max*h, maxLength)
	case opGroup, opAtomic:
		return n.subs[0].bounds()
	case opCond:
		return n.alternatives(n.subs)
	case opCondLook:
		return n.alternatives(n.subs[1:])
	case opBackref, opCall:
		return 0, infinite
	default:
		return 0, 0
	}
}

func (n *node) alternatives(subs []*node) (low, high int) {
	low, high = subs[0].bounds()
	for _, s := range subs[1:] {
		l, h := s.bounds()
		low = min(low, l)
		if h == infinite || high == infinite {
			high = infinite
		} else {
			high = max(high, h)
		}
	}
	return low, high
}

// maxLength keeps the arithmetic of bounds within an int.
const maxLength = 1 << 24

func plus(a, b int) int {
	if a == infinite || b == infinite {
		return infinite
	}
	return min(a+b, maxLength)
}

// walk calls f for n and, as long as f returns true, for its parts.
func (n *node) walk(f func(*node) bool) {
	if !f(n) {
		return
	}
	for _, s := range n.subs {
		s.walk(f)
	}
}
