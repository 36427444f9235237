package pcre

// filter rejects subjects that cannot match, without an engine: they lack the
// bytes that every match begins or ends with.
type filter struct {
	begin, end text // nothing if empty
	feed       bool // a line feed may follow end
}

// findFilter returns the filter of a tree.
func findFilter(tree *node) filter {
	var f filter
	if tree.op != opCat {
		return f
	}
	subs := tree.subs
	if subs[0].op == opBegin {
		f.begin = fixedText(subs[1:])
	}
	if n := len(subs) - 1; subs[n].op == opEnd || subs[n].op == opEndText {
		f.feed = subs[n].op == opEnd
		i := n
		for i > 0 && isLetter(subs[i-1]) {
			i--
		}
		f.end = fixedText(subs[i:n])
	}
	return f
}

func isLetter(n *node) bool {
	return n.op == opSet && productSet([]text{{}}, n.set) != nil
}

// fixedText returns the text that subs begin with.
func fixedText(subs []*node) text {
	ts := []text{{}}
	for _, n := range subs {
		if n.op != opSet || len(ts[0].bytes) == maxTextLen || productSet(ts, n.set) == nil {
			break
		}
	}
	ts[0].trim()
	return ts[0]
}

// pass reports whether s can match.
func (f *filter) pass(s []byte) bool {
	if len(f.begin.bytes) > 0 && !f.begin.at(s) {
		return false
	}
	n := len(f.end.bytes)
	if n == 0 {
		return true
	}
	if len(s) >= n && f.end.at(s[len(s)-n:]) {
		return true
	}
	return f.feed && len(s) > n && s[len(s)-1] == '\n' && f.end.at(s[len(s)-1-n:])
}
