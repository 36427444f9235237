package pcre

import (
	"slices"
)

// Verdict is what Find knows.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota // the question is too hard
	Found
	None
)

// The bounds of Find: points looked at, and states entered on the way.
const (
	maxSearch = 4000
	maxWork   = 2_000_000
)

// Find looks for the shortest text of printable ASCII that all patterns of
// match find something in and none of avoid does. A pattern of match that is
// not Exact may find nothing in the text after all; one of avoid that is not
// Exact makes None mean nothing, so the verdict is then Unknown.
func Find(match, avoid []*Syntax) (string, Verdict) {
	f := &finder{match: len(match)}
	for _, s := range slices.Concat(match, avoid) {
		f.runs = append(f.runs, &run{Syntax: s, mark: make([]uint32, len(s.states))})
	}
	text, verdict := f.search()
	if verdict == None {
		for _, s := range avoid {
			if !s.exact {
				return "", Unknown
			}
		}
	}
	return text, verdict
}

// Covers reports whether whatever b matches a matches too, as far as texts of
// printable ASCII go.
func Covers(a, b *Syntax) bool {
	_, v := Find([]*Syntax{b}, []*Syntax{a})
	return v == None
}

type finder struct {
	runs  []*run
	match int // how many of runs must match; the others must not
}

// run is one automaton while it is made deterministic.
type run struct {
	*Syntax
	mark []uint32 // the step in which a state was entered last
	step uint32
	work int // states entered so far
}

// point is where all automatons are after some text.
type point struct {
	sets []string // the states of each run, as bytes; accepted once it has matched
	from int      // the point before
	by   byte
}

const accepted = "+"

// search goes through the texts in the order of their length.
func (f *finder) search() (string, Verdict) {
	alphabet := f.alphabet()
	first := point{from: -1}
	for _, r := range f.runs {
		r.step++
		first.sets = append(first.sets, r.encode(r.close(nil, r.start, true)))
	}
	points := []point{first}
	seen := map[string]bool{key(first.sets): true}
	for i := 0; i < len(points); i++ {
		if f.ends(points[i]) {
			return trail(points, i), Found
		}
		for _, c := range alphabet {
			next := point{from: i, by: c}
			work := 0
			for k, r := range f.runs {
				next.sets = append(next.sets, r.move(points[i].sets[k], c))
				work += r.work
			}
			if work > maxWork {
				return "", Unknown
			}
			if f.hopeless(next) {
				continue
			}
			if k := key(next.sets); !seen[k] {
				seen[k] = true
				points = append(points, next)
			}
		}
		if len(points) > maxSearch {
			return "", Unknown
		}
	}
	return "", None
}

func key(sets []string) string {
	var b []byte
	for _, s := range sets {
		b = append(append(b, s...), 0xff, 0xff, 0xff)
	}
	return string(b)
}

func trail(points []point, i int) string {
	var b []byte
	for ; points[i].from >= 0; i = points[i].from {
		b = append(b, points[i].by)
	}
	slices.Reverse(b)
	return string(b)
}

// ends reports whether the text up to p is what is looked for.
func (f *finder) ends(p point) bool {
	for k, r := range f.runs {
		if r.accepts(p.sets[k]) != (k < f.match) {
			return false
		}
	}
	return true
}

// hopeless reports whether no longer text can do either.
func (f *finder) hopeless(p point) bool {
	for k := range f.runs {
		if k >= f.match && p.sets[k] == accepted {
			return true
		}
	}
	return false
}

// alphabet gives one byte for each class that the patterns tell apart, those
// that read well first.
func (f *finder) alphabet() []byte {
	cuts := map[rune]bool{}
	for _, r := range f.runs {
		for _, s := range r.states {
			if s.kind != kindSet {
				continue
			}
			for i := 0; i < len(s.set.ranges); i += 2 {
				cuts[s.set.ranges[i]] = true
				cuts[s.set.ranges[i+1]+1] = true
			}
		}
	}
	var out []byte
	class := func(c byte) (low byte) {
		for c > 0 && !cuts[rune(c)] {
			c--
		}
		return c
	}
	// A class is a run of bytes without a cut; two runs may behave alike, which
	// costs time only.
	taken := map[byte]bool{}
	for _, span := range []string{"xaz/", "abcdefghijklmnopqrstuvwyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_"} {
		for i := range len(span) {
			if low := class(span[i]); !taken[low] {
				taken[low] = true
				out = append(out, span[i])
			}
		}
	}
	for c := byte('!'); c <= '~'; c++ {
		if low := class(c); !taken[low] {
			taken[low] = true
			out = append(out, c)
		}
	}
	return out
}

// close adds a state and what is reached from it without reading.
func (r *run) close(to []int32, s int32, begin bool) []int32 {
	if r.mark[s] == r.step {
		return to
	}
	r.mark[s] = r.step
	r.work++
	switch st := &r.states[s]; st.kind {
	case kindSplit:
		return r.close(r.close(to, st.next, begin), st.other, begin)
	case kindBegin:
		if begin {
			return r.close(to, st.next, begin)
		}
		return to
	default:
		return append(to, s)
	}
}

// encode makes a key of a set of states.
func (r *run) encode(states []int32) string {
	b := make([]byte, 0, 3*len(states))
	slices.Sort(states)
	for _, s := range states {
		if r.states[s].kind == kindAccept {
			return accepted
		}
		b = append(b, byte(s), byte(s>>8), byte(s>>16))
	}
	return string(b)
}

func decode(set string, i int) int32 {
	return int32(set[i]) | int32(set[i+1])<<8 | int32(set[i+2])<<16
}

// move gives the states behind one more byte. A match may also begin there.
func (r *run) move(set string, c byte) string {
	if set == accepted {
		return accepted
	}
	r.step++
	var out []int32
	for i := 0; i < len(set); i += 3 {
		s := &r.states[decode(set, i)]
		if s.kind == kindSet && s.set.contains(rune(c)) {
			out = r.close(out, s.next, false)
		}
	}
	out = r.close(out, r.start, false)
	return r.encode(out)
}

// accepts reports whether the pattern has matched when the text ends here.
func (r *run) accepts(set string) bool {
	if set == accepted {
		return true
	}
	r.step++
	var todo []int32
	for i := 0; i < len(set); i += 3 {
		todo = append(todo, decode(set, i))
	}
	for len(todo) > 0 {
		s := &r.states[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		switch s.kind {
		case kindAccept:
			return true
		case kindEnd:
			todo = r.close(todo, s.next, false)
		case kindSet, kindSplit, kindBegin:
		}
	}
	return false
}
