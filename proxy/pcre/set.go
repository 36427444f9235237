package pcre

import (
	"slices"
	"unicode"
)

// set is a set of characters: bytes, or code points in UTF mode. ranges are
// pairs of first and last, ascending and neither touching nor overlapping.
type set struct {
	ranges []rune
}

// add enters the characters from low to high.
func (s *set) add(low, high rune) { s.ranges = append(s.ranges, low, high) }

func (s *set) addSet(t *set) { s.ranges = append(s.ranges, t.ranges...) }

// normalize sorts and merges the ranges.
func (s *set) normalize() {
	pairs := make([][2]rune, 0, len(s.ranges)/2)
	for i := 0; i < len(s.ranges); i += 2 {
		pairs = append(pairs, [2]rune{s.ranges[i], s.ranges[i+1]})
	}
	slices.SortFunc(pairs, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	s.ranges = s.ranges[:0]
	for _, p := range pairs {
		if n := len(s.ranges); n > 0 && p[0] <= s.ranges[n-1]+1 {
			s.ranges[n-1] = max(s.ranges[n-1], p[1])
			continue
		}
		s.ranges = append(s.ranges, p[0], p[1])
	}
}

// complement returns what s lacks up to the highest character. s must be
// normalized.
func (s *set) complement(highest rune) *set {
	c := &set{}
	next := rune(0)
	for i := 0; i < len(s.ranges); i += 2 {
		if s.ranges[i] > next {
			c.add(next, s.ranges[i]-1)
		}
		next = s.ranges[i+1] + 1
	}
	if next <= highest {
		c.add(next, highest)
	}
	return c
}

func (s *set) contains(r rune) bool {
	for i := 0; i < len(s.ranges); i += 2 {
		if r >= s.ranges[i] && r <= s.ranges[i+1] {
			return true
		}
	}
	return false
}

// foldASCII adds the other case of all ASCII letters in s.
func (s *set) foldASCII() {
	n := len(s.ranges)
	for i := 0; i < n; i += 2 {
		low, high := s.ranges[i], s.ranges[i+1]
		if l, h := max(low, 'a'), min(high, 'z'); l <= h {
			s.add(l-32, h-32)
		}
		if l, h := max(low, 'A'), min(high, 'Z'); l <= h {
			s.add(l+32, h+32)
		}
	}
	s.normalize()
}

// single returns the only character of s.
func (s *set) single() (rune, bool) {
	if len(s.ranges) == 2 && s.ranges[0] == s.ranges[1] {
		return s.ranges[0], true
	}
	return 0, false
}

// letter returns the ASCII letter, in lower case, whose two cases are s.
func (s *set) letter() (rune, bool) {
	r := s.ranges
	if len(r) == 4 && r[0] == r[1] && r[2] == r[3] && r[0] >= 'A' && r[0] <= 'Z' && r[2] == r[0]+32 {
		return r[2], true
	}
	return 0, false
}

// escapeSet returns the set of \d, \s, \w, \h, \v and \N.
func escapeSet(c byte) *set {
	s := &set{}
	switch c | 0x20 {
	case 'd':
		s.add('0', '9')
	case 's':
		s.add('\t', '\r')
		s.add(' ', ' ')
	case 'w':
		s.add('0', '9')
		s.add('A', 'Z')
		s.add('_', '_')
		s.add('a', 'z')
	case 'h':
		for _, r := range []rune{'\t', ' ', 0xa0, 0x1680, 0x180e, 0x202f, 0x205f, 0x3000} {
			s.add(r, r)
		}
		s.add(0x2000, 0x200a)
		s.normalize()
	case 'v':
		s.add('\n', '\r')
		s.add(0x85, 0x85)
		s.add(0x2028, 0x2029)
	}
	return s
}

// posixSet returns the set of a POSIX class name in the C locale, or nil.
func posixSet(name string) *set {
	ranges := map[string][]rune{
		"alnum":  {'0', '9', 'A', 'Z', 'a', 'z'},
		"alpha":  {'A', 'Z', 'a', 'z'},
		"ascii":  {0, 127},
		"blank":  {'\t', '\t', ' ', ' '},
		"cntrl":  {0, 31, 127, 127},
		"digit":  {'0', '9'},
		"graph":  {33, 126},
		"lower":  {'a', 'z'},
		"print":  {32, 126},
		"punct":  {33, 47, 58, 64, 91, 96, 123, 126},
		"space":  {'\t', '\r', ' ', ' '},
		"upper":  {'A', 'Z'},
		"word":   {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'},
		"xdigit": {'0', '9', 'A', 'F', 'a', 'f'},
	}[name]
	if ranges == nil {
		return nil
	}
	return &set{ranges: ranges}
}

// propertySet returns the set of a Unicode property, or nil.
func propertySet(name string) *set {
	names := []string{name}
	switch name {
	case "Any":
		return &set{ranges: []rune{0, unicode.MaxRune}}
	case "L&":
		names = []string{"Lu", "Ll", "Lt"}
	case "Xan":
		names = []string{"L", "N"}
	}
	s := &set{}
	for _, n := range names {
		table := unicode.Categories[n]
		if table == nil {
			table = unicode.Scripts[n]
		}
		if table == nil {
			return nil
		}
		for _, r := range table.R16 {
			s.addStrided(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
		for _, r := range table.R32 {
			s.addStrided(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	s.normalize()
	return s
}

func (s *set) addStrided(low, high, stride rune) {
	if stride == 1 {
		s.add(low, high)
		return
	}
	for r := low; r <= high; r += stride {
		s.add(r, r)
	}
}

// foldUnicode adds the other cases of all characters in s.
func (s *set) foldUnicode() {
	n := len(s.ranges)
	for i := 0; i < n; i += 2 {
		for r := s.ranges[i]; r <= min(s.ranges[i+1], lastFolding); r++ {
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				s.add(f, f)
			}
		}
	}
	s.normalize()
}

// lastFolding is beyond all characters that have cases.
const lastFolding = 0x1ffff
