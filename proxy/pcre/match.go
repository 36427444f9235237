package pcre

import "unicode/utf8"

// Match reports whether the pattern occurs in s. It does not allocate if the
// pattern is Linear. A search that was given up counts as no match.
func (r *Regexp) Match(s []byte) bool {
	ok, _ := r.Test(s)
	return ok
}

// Find looks for the first occurrence in s and appends the offsets of the match
// and of all groups to caps as pairs, -1 for a group that is not set. A search
// that was given up counts as no match.
func (r *Regexp) Find(s []byte, caps []int) ([]int, bool) {
	caps, ok, _ := r.Search(s, caps)
	return caps, ok
}

// Test is Match, but says with ErrTimeout when the search was given up.
func (r *Regexp) Test(s []byte) (bool, error) {
	switch {
	case r.literal != nil:
		return r.literal.match(s), nil
	case !r.filter.pass(s):
		return false, nil
	case r.steps != nil:
		return r.steps.match(s, nil), nil
	case r.utf && !utf8.Valid(s):
		return false, nil
	case r.plain == nil:
		ok, err := r.backtrack.MatchRunes(r.runes(s))
		return ok && err == nil, timeout(err)
	case r.isPlain(s):
		return r.plain.Match(s), nil
	}
	re, err := r.marked()
	if err != nil {
		return false, err
	}
	t := r.transcode(s)
	ok := re.Match(*t)
	r.scratch.Put(t)
	return ok, nil
}

// Search is Find, but says with ErrTimeout when the search was given up.
func (r *Regexp) Search(s []byte, caps []int) ([]int, bool, error) {
	switch {
	case r.literal != nil:
		caps, ok := r.literal.find(s, caps)
		return caps, ok, nil
	case !r.filter.pass(s):
		return caps, false, nil
	case r.steps != nil:
		caps, ok := r.steps.find(s, caps)
		return caps, ok, nil
	case r.utf && !utf8.Valid(s):
		return caps, false, nil
	case r.backtrack != nil:
		found, ok, err := r.searchBacktrack(s, caps)
		if err == nil || r.plain == nil {
			return found, ok, err
		}
	}
	return r.searchLinear(s, caps)
}

// searchLinear searches with Go's engine.
func (r *Regexp) searchLinear(s []byte, caps []int) ([]int, bool, error) {
	if r.isPlain(s) {
		found := r.plain.FindSubmatchIndex(s)
		if found == nil {
			return caps, false, nil
		}
		return r.arrange(found, caps), true, nil
	}
	re, err := r.marked()
	if err != nil {
		return caps, false, err
	}
	t := r.transcode(s)
	defer r.scratch.Put(t)
	found := re.FindSubmatchIndex(*t)
	if found == nil {
		return caps, false, nil
	}
	for i, offset := range found {
		if offset > 0 {
			found[i] = r.original((*t)[:offset])
		}
	}
	return r.arrange(found, caps), true, nil
}

func (r *Regexp) searchBacktrack(s []byte, caps []int) ([]int, bool, error) {
	m, err := r.backtrack.FindRunesMatch(r.runes(s))
	if m == nil || err != nil {
		return caps, false, timeout(err)
	}
	found := make([]int, 0, 2*len(r.order))
	for i := range r.order {
		g := m.GroupByNumber(i)
		if g == nil || len(g.Captures) == 0 {
			found = append(found, -1, -1)
			continue
		}
		found = append(found, g.Index, g.Index+g.Length)
	}
	if r.utf {
		// Offsets in runes become offsets in bytes.
		for i, n := range found {
			if n > 0 {
				found[i] = runeOffset(s, n)
			}
		}
	}
	return r.arrange(found, caps), true, nil
}

// arrange appends the engine's captures in the pattern's order. The place of
// \K, if the match came by it, is where the match begins.
func (r *Regexp) arrange(found, caps []int) []int {
	if r.ordered {
		return append(caps, found...)
	}
	base := len(caps)
	for range r.names {
		caps = append(caps, -1, -1)
	}
	for i, group := range r.order {
		switch {
		case group >= 0:
			caps[base+2*group], caps[base+2*group+1] = found[2*i], found[2*i+1]
		case found[2*i] > caps[base]:
			caps[base] = found[2*i]
		}
	}
	return caps
}

// isPlain reports whether s can be searched as it is.
func (r *Regexp) isPlain(s []byte) bool {
	if r.ends && len(s) > 0 && s[len(s)-1] == '\n' {
		return false
	}
	if r.utf {
		return true
	}
	for len(s) >= 8 {
		if (s[0]|s[1]|s[2]|s[3]|s[4]|s[5]|s[6]|s[7])&0x80 != 0 {
			return false
		}
		s = s[8:]
	}
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// transcode returns s in the form for r.marked, in a buffer of r.scratch: a rune
// for each character, and mark for line feeds before the last character.
func (r *Regexp) transcode(s []byte) *[]byte {
	buf, _ := r.scratch.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	t := (*buf)[:0]
	for i, c := range s {
		switch {
		case c == '\n' && i+1 < len(s):
			t = utf8.AppendRune(t, mark)
		case c < utf8.RuneSelf || r.utf:
			t = append(t, c)
		default:
			t = append(t, 0xc0|c>>6, 0x80|c&0x3f)
		}
	}
	*buf = t
	return buf
}

// original returns how many bytes of the subject made the transcoded t.
func (r *Regexp) original(t []byte) int {
	n := 0
	for len(t) > 0 {
		c, size := utf8.DecodeRune(t)
		if r.utf && c != mark {
			n += size
		} else {
			n++
		}
		t = t[size:]
	}
	return n
}

// runes returns the characters of s.
func (r *Regexp) runes(s []byte) []rune {
	if r.utf {
		return []rune(string(s))
	}
	runes := make([]rune, len(s))
	for i, c := range s {
		runes[i] = rune(c)
	}
	return runes
}

// runeOffset returns the length in bytes of the first n characters of s.
func runeOffset(s []byte, n int) int {
	i := 0
	for ; n > 0; n-- {
		_, size := utf8.DecodeRune(s[i:])
		i += size
	}
	return i
}

// timeout words the only error that a search can have.
func timeout(err error) error {
	if err != nil {
		return ErrTimeout
	}
	return nil
}
