package pcre

// steps is an anchored pattern that can be matched from left to right without
// ever going back, such as ^/user/(\d+)/([^/]+)$: whatever follows a repeated
// character is different from it. It runs on bytes and does not allocate.
type steps struct {
	list   []step
	groups int // including the whole
	end    op  // opEnd, opEndText, or opEmpty for none
}

// step matches between min and max characters of a set, as many as there are,
// or, if slot is not negative, notes a place. max may be infinite.
type step struct {
	set      [4]uint64
	min, max int
	slot     int
	lazy     bool
}

const maxSteps = 256

// findSteps returns the form of a regular tree, or nil if it has none.
func findSteps(tree *node, groups int) *steps {
	if tree.op != opCat || tree.subs[0].op != opBegin {
		return nil
	}
	st := &steps{groups: groups, end: opEmpty}
	parts := tree.subs[1:]
	if n := len(parts); n > 0 && (parts[n-1].op == opEnd || parts[n-1].op == opEndText) {
		st.end = parts[n-1].op
		parts = parts[:n-1]
	}
	for _, p := range parts {
		if !st.add(p) {
			return nil
		}
	}
	for i := range st.list {
		if !st.settle(i) {
			return nil
		}
	}
	return st
}

// add appends the steps of n, or reports false if n has none.
func (st *steps) add(n *node) bool {
	if len(st.list) > maxSteps {
		return false
	}
	switch n.op {
	case opEmpty:
		return true
	case opSet:
		st.list = append(st.list, step{set: bitmap(n.set), min: 1, max: 1, slot: -1})
		return true
	case opRepeat:
		if n.subs[0].op != opSet || n.possessive {
			return false
		}
		st.list = append(st.list, step{set: bitmap(n.subs[0].set), min: n.min, max: n.max, slot: -1, lazy: n.lazy})
		return true
	case opCat:
		for _, s := range n.subs {
			if !st.add(s) {
				return false
			}
		}
		return true
	case opGroup:
		st.list = append(st.list, step{slot: 2 * n.group})
		if !st.add(n.subs[0]) {
			return false
		}
		st.list = append(st.list, step{slot: 2*n.group + 1})
		return true
	default:
		return false
	}
}

// settle reports whether taking as many characters as there are is right for
// step i.
func (st *steps) settle(i int) bool {
	s := &st.list[i]
	if s.slot >= 0 || s.min == s.max {
		return true
	}
	for _, next := range st.list[i+1:] {
		if next.slot >= 0 {
			continue
		}
		if next.max != 0 && meet(&s.set, &next.set) {
			return false
		}
		if next.min > 0 {
			return true
		}
	}
	switch {
	case !s.lazy:
	case st.end == opEmpty:
		s.max = s.min
	case st.end == opEnd:
		return !has(&s.set, '\n')
	}
	return true
}

// match reports whether s matches. If caps is not nil, it has room for the
// offsets of all groups and receives them.
func (st *steps) match(s []byte, caps []int) bool {
	pos := 0
	for i := range st.list {
		t := &st.list[i]
		if t.slot >= 0 {
			if caps != nil {
				caps[t.slot] = pos
			}
			continue
		}
		limit := len(s)
		if t.max != infinite && t.max < limit-pos {
			limit = pos + t.max
		}
		start := pos
		for pos < limit && has(&t.set, s[pos]) {
			pos++
		}
		if pos-start < t.min {
			return false
		}
	}
	if caps != nil {
		caps[0], caps[1] = 0, pos
	}
	switch {
	case st.end == opEmpty, pos == len(s):
		return true
	default:
		return st.end == opEnd && pos == len(s)-1 && s[pos] == '\n'
	}
}

// find appends the offsets of the match and its groups.
func (st *steps) find(s []byte, caps []int) ([]int, bool) {
	base := len(caps)
	for range st.groups {
		caps = append(caps, -1, -1)
	}
	if !st.match(s, caps[base:]) {
		return caps[:base], false
	}
	return caps, true
}

func bitmap(s *set) (b [4]uint64) {
	for i := 0; i < len(s.ranges); i += 2 {
		for r := s.ranges[i]; r <= s.ranges[i+1]; r++ {
			b[r>>6] |= 1 << (r & 63)
		}
	}
	return b
}

func has(b *[4]uint64, c byte) bool { return b[c>>6]&(1<<(c&63)) != 0 }

func meet(a, b *[4]uint64) bool {
	return a[0]&b[0]|a[1]&b[1]|a[2]&b[2]|a[3]&b[3] != 0
}
