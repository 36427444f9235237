package pcre

import "bytes"

// literals is a pattern that is nothing but a few texts, anchored or not:
// ^/images/, \.php$, \.(png|jpe?g)$. They are compared without an engine.
type literals struct {
	texts  []text // in the order of preference
	begin  bool   // the match begins where the subject does
	end    bool   // the match ends at the end of the subject or before a final line feed
	exact  bool   // end, but no line feed can follow
	groups int    // including the whole
}

// text is one of the texts that a pattern matches.
type text struct {
	bytes []byte
	// masks are what is or-ed to a byte of the subject before comparing: 0x20
	// for letters of either case, nil if all are 0.
	masks []byte
	caps  []int // offsets of groups relative to the text, pairs from group 1 on
}

const (
	maxTexts   = 64
	maxTextLen = 256
)

// findLiterals returns the form of a regular tree, or nil if it has none.
func findLiterals(tree *node, groups int) *literals {
	l := &literals{groups: groups}
	parts := []*node{tree}
	if tree.op == opCat {
		parts = tree.subs
	}
	if len(parts) > 0 && parts[0].op == opBegin {
		l.begin, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && (parts[n-1].op == opEnd || parts[n-1].op == opEndText) {
		l.end, l.exact = true, parts[n-1].op == opEndText
		parts = parts[:n-1]
	}
	l.texts = []text{{caps: unset(groups)}}
	for _, p := range parts {
		if l.texts = product(l.texts, p); l.texts == nil {
			return nil
		}
	}
	if !l.begin && !l.end && len(l.texts) > 1 {
		// Which of several occurs first is the engine's business.
		return nil
	}
	for i := range l.texts {
		l.texts[i].trim()
		if !l.begin && !l.end && l.texts[i].masks != nil {
			return nil
		}
	}
	return l
}

func unset(groups int) []int {
	caps := make([]int, 2*(groups-1))
	for i := range caps {
		caps[i] = -1
	}
	return caps
}

// product appends all texts that n matches to all of ts, or returns nil if n is
// not a few texts.
func product(ts []text, n *node) []text {
	switch n.op {
	case opEmpty:
		return ts
	case opSet:
		return productSet(ts, n.set)
	case opCat:
		for _, s := range n.subs {
			if ts = product(ts, s); ts == nil {
				return nil
			}
		}
		return ts
	case opAlt:
		return union(ts, n.subs)
	case opRepeat:
		switch {
		case n.min == 1 && n.max == 1:
			return product(ts, n.subs[0])
		case n.min == 0 && n.max == 1 && n.lazy:
			return union(ts, []*node{{op: opEmpty}, n.subs[0]})
		case n.min == 0 && n.max == 1:
			return union(ts, []*node{n.subs[0], {op: opEmpty}})
		}
	case opGroup:
		return productGroup(ts, n)
	default:
	}
	return nil
}

// union is the product with each of several, kept in the order in which a
// backtracking engine would try them.
func union(ts []text, subs []*node) []text {
	var all []text
	for _, t := range ts {
		for _, s := range subs {
			grown := product([]text{t.clone()}, s)
			if grown == nil || len(all)+len(grown) > maxTexts {
				return nil
			}
			all = append(all, grown...)
		}
	}
	return all
}

func productSet(ts []text, s *set) []text {
	r, ok := s.single()
	mask := byte(0)
	if !ok {
		if r, ok = s.letter(); !ok {
			return nil
		}
		mask = 0x20
	}
	for i := range ts {
		t := &ts[i]
		if len(t.bytes) >= maxTextLen {
			return nil
		}
		t.bytes = append(t.bytes, byte(r))
		t.masks = append(t.masks, mask)
	}
	return ts
}

func productGroup(ts []text, n *node) []text {
	var all []text
	for _, t := range ts {
		start := len(t.bytes)
		grown := product([]text{t.clone()}, n.subs[0])
		if grown == nil || len(all)+len(grown) > maxTexts {
			return nil
		}
		for _, g := range grown {
			g.caps[2*n.group-2], g.caps[2*n.group-1] = start, len(g.bytes)
			all = append(all, g)
		}
	}
	return all
}

func (t text) clone() text {
	return text{append([]byte(nil), t.bytes...), append([]byte(nil), t.masks...), append([]int(nil), t.caps...)}
}

// trim drops the masks if there is none.
func (t *text) trim() {
	for _, m := range t.masks {
		if m != 0 {
			return
		}
	}
	t.masks = nil
}

// at reports whether s begins with the text.
func (t *text) at(s []byte) bool {
	if len(s) < len(t.bytes) {
		return false
	}
	if t.masks == nil {
		return string(s[:len(t.bytes)]) == string(t.bytes)
	}
	for i, c := range t.bytes {
		if s[i]|t.masks[i] != c {
			return false
		}
	}
	return true
}

// match reports whether one of the texts is in its place.
func (l *literals) match(s []byte) bool {
	t, _ := l.search(s)
	return t != nil
}

// find appends the offsets of the match and its groups.
func (l *literals) find(s []byte, caps []int) ([]int, bool) {
	t, start := l.search(s)
	if t == nil {
		return caps, false
	}
	caps = append(caps, start, start+len(t.bytes))
	for _, c := range t.caps {
		if c >= 0 {
			c += start
		}
		caps = append(caps, c)
	}
	return caps, true
}

// search returns the text that matches, and where.
func (l *literals) search(s []byte) (*text, int) {
	feed := l.end && !l.exact && len(s) > 0 && s[len(s)-1] == '\n'
	switch {
	case l.begin:
		return l.searchBegin(s, feed), 0
	case l.end:
		return l.searchEnd(s, feed)
	}
	t := &l.texts[0]
	if i := bytes.Index(s, t.bytes); i >= 0 {
		return t, i
	}
	return nil, 0
}

func (l *literals) searchBegin(s []byte, feed bool) *text {
	for i := range l.texts {
		t := &l.texts[i]
		if l.end && len(t.bytes) != len(s) && (!feed || len(t.bytes) != len(s)-1) {
			continue
		}
		if t.at(s) {
			return t
		}
	}
	return nil
}

// searchEnd returns the text that begins first; of several that do, the first.
func (l *literals) searchEnd(s []byte, feed bool) (*text, int) {
	var best *text
	start := len(s) + 1
	for i := range l.texts {
		t := &l.texts[i]
		if feed {
			if from := len(s) - 1 - len(t.bytes); from >= 0 && from < start && t.at(s[from:]) {
				best, start = t, from
			}
		}
		if from := len(s) - len(t.bytes); from >= 0 && from < start && t.at(s[from:]) {
			best, start = t, from
		}
	}
	return best, start
}
