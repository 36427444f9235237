package proxy

// Search for several texts at a time, without regard to the case of ASCII
// letters, in a body that comes in pieces (ngx_http_sub_parse). At one place the
// text that stands first in the configuration counts.

// searchPattern is a text in lower case and what replaces it.
type searchPattern struct {
	text  []byte
	value *text
}

// textSearch are texts to search for. Safe for concurrent use.
type textSearch struct {
	patterns []searchPattern
	least    int        // length of the shortest
	shifts   [256]uint8 // how far to go on when a byte stands where the shortest could end
}

func newTextSearch(patterns []searchPattern) *textSearch {
	s := &textSearch{patterns: patterns, least: len(patterns[0].text)}
	for _, p := range patterns {
		s.least = min(s.least, len(p.text))
	}
	most := uint8(min(s.least, 255))
	for i := range s.shifts {
		s.shifts[i] = most
	}
	for _, p := range patterns {
		for j := range most {
			c := p.text[s.least-1-int(j)]
			s.shifts[c] = min(s.shifts[c], j)
		}
	}
	return s
}

// compare holds a pattern against data: whole says that all of it is there,
// else partial that data ends inside of it.
func compare(data, pattern []byte) (whole, partial bool) {
	n := min(len(data), len(pattern))
	for i, c := range data[:n] {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != pattern[i] {
			return false, false
		}
	}
	return n == len(pattern), n < len(pattern)
}

// substitution is the body filter.
type substitution struct {
	search *textSearch
	next   bodyWriter
	once   bool
	values [][]byte // of the patterns that have been replaced
	used   int
	done   bool   // all have been replaced once
	held   []byte // the end of what has come, which may be the start of a match
}

func (s *substitution) write(x *Exchange, p []byte, last bool) error {
	if s.done || x.headerOnly {
		return s.next(x, p, last)
	}
	data := p
	if len(s.held) > 0 {
		data = append(s.held, p...)
	}
	at, err := s.replace(x, data)
	if err != nil {
		return err
	}
	end := len(data)
	if !last && x.output.urge != partEnds && !s.done {
		if end = at; x.output.urge == flushing {
			end = s.safe(data, at)
		}
	}
	rest := data[min(end, len(data)):]
	err = s.next(x, data[at:end], last)
	s.held = append(s.held[:0:0], rest...)
	return err
}

// replace passes data on with its matches replaced, up to where a match may
// have begun, and says where that is.
func (s *substitution) replace(x *Exchange, data []byte) (at int, err error) {
	least := s.search.least
	for i := 0; i+least <= len(data); {
		c := data[i+least-1]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if shift := s.search.shifts[c]; shift > 0 {
			i += int(shift)
			continue
		}
		k, partial := s.match(data[i:])
		switch {
		case partial:
			return s.pass(x, data, at, i)
		case k < 0:
			i++
			continue
		}
		if at, err = s.pass(x, data, at, i); err != nil {
			return at, err
		}
		if err := s.put(x, k); err != nil {
			return at, err
		}
		i += len(s.search.patterns[k].text)
		at = i
		if s.done {
			return at, nil
		}
	}
	// what is shorter than the shortest can only be the start of a match
	return s.pass(x, data, at, max(at, len(data)-least+1))
}

// pass sends data[from:to] and returns to.
func (s *substitution) pass(x *Exchange, data []byte, from, to int) (int, error) {
	if to <= from {
		return from, nil
	}
	return to, s.next(x, data[from:to], false)
}

// match finds the first pattern that data begins with; partial: data ends
// inside of one.
func (s *substitution) match(data []byte) (k int, partial bool) {
	for k := range s.search.patterns {
		if s.once && s.values[k] != nil {
			continue
		}
		whole, partial := compare(data, s.search.patterns[k].text)
		if whole || partial {
			return k, partial
		}
	}
	return -1, false
}

// put writes the replacement of a pattern. It is evaluated once.
func (s *substitution) put(x *Exchange, k int) error {
	if s.values[k] == nil {
		s.values[k] = append([]byte{}, s.search.patterns[k].value.plain(x)...)
		s.used++
	}
	if s.once && s.used == len(s.values) {
		s.done = true
	}
	if len(s.values[k]) == 0 {
		return nil
	}
	return s.next(x, s.values[k], false)
}

// safe is up to where data cannot be part of a match.
func (s *substitution) safe(data []byte, from int) int {
	for i := from; i < len(data); i++ {
		for k := range s.search.patterns {
			if _, partial := compare(data[i:], s.search.patterns[k].text); partial {
				return i
			}
		}
	}
	return len(data)
}
