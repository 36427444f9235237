// Package pcre runs the regular expressions of nginx, which are PCRE2's over
// bytes, on Go's engines.
//
// A pattern is parsed as PCRE2 10.42 parses it and then written anew for one of
// these engines: comparisons of bytes for patterns that are a few literals or
// can be matched from left to right without going back, Go's regexp, whose time is linear, for all that are regular, and regexp2,
// which backtracks, under a time limit, for look-around, back-references,
// atomic groups and the like.
//
// Characters are bytes, as in nginx: "." matches one byte of a UTF-8 sequence,
// \w and caseless matching know ASCII alone. Go's engine sees runes, so a
// subject with other bytes than ASCII is transcoded first, each byte to the
// rune of its value. A pattern that begins with (*UTF) or (*UTF8) works on code
// points; it never matches a subject that is not valid UTF-8.
//
// Not supported, and refused by Compile: recursion, branch reset (?|, callouts,
// \X, (*UCP), newline conventions, backtracking verbs but (*FAIL), and the
// conditions R and VERSION.
package pcre

import (
	"errors"
	"regexp"
	"sync"
	"time"

	"github.com/dlclark/regexp2"
)

// Options change the meaning of a pattern and bound its cost.
type Options struct {
	Caseless bool // ASCII letters of either case are equal (PCRE2_CASELESS)
	// TimeLimit ends a search that backtracks too much; DefaultTimeLimit if 0.
	// The clock is coarse: a search can last about 0.1 s longer.
	TimeLimit time.Duration
}

// DefaultTimeLimit is ample for all patterns but those that take exponential
// time.
const DefaultTimeLimit = 100 * time.Millisecond

// ErrTimeout says that a search was given up: the pattern needs backtracking
// and takes too long on the subject.
var ErrTimeout = errors.New("match time limit exceeded")

// Regexp is a compiled pattern. It is safe for concurrent use.
type Regexp struct {
	pattern string
	names   []string
	utf     bool
	ends    bool  // has a $ that can match before a final line feed
	order   []int // what the engine's captures stand for, see slots
	ordered bool  // order is 0, 1, 2 ...
	literal *literals
	steps   *steps
	filter  filter

	// plain and marked are Go's engine; they are set together. backtrack is set
	// if Go's engine cannot tell whether the pattern matches, or, if both are,
	// where some group does.
	plain     *regexp.Regexp
	marked    func() (*regexp.Regexp, error)
	backtrack *regexp2.Regexp
	scratch   sync.Pool // of *[]byte, for transcoded subjects
}

// Error is a pattern that does not compile.
type Error struct {
	Text    string // what is wrong, in PCRE2's words where it has any
	Pattern string
	Offset  int // the byte of Pattern at which it was noticed
}

// Error words the problem as nginx does (ngx_regex_compile, ngx_regex.c).
func (e *Error) Error() string {
	s := "pcre2_compile() failed: " + e.Text + ` in "` + e.Pattern + `"`
	if e.Offset < len(e.Pattern) {
		s += ` at "` + e.Pattern[e.Offset:] + `"`
	}
	return s
}

// Compile compiles a pattern. The error is an *Error.
func Compile(pattern string, o Options) (*Regexp, error) {
	tree, p := parse(pattern, o.Caseless)
	if p.err != nil {
		return nil, p.err
	}
	r := &Regexp{pattern: pattern, names: p.names, utf: p.utf, order: slots(tree)}
	r.ordered = len(r.order) == len(p.names)
	for i, g := range r.order {
		r.ordered = r.ordered && g == i
	}
	regular, loops := true, false
	look := func(n *node) bool {
		r.ends = r.ends || n.op == opEnd
		regular = regular && n.regular()
		loops = loops || n.op == opRepeat && n.loopsOnNothing()
		return true
	}
	tree.walk(look)
	for _, g := range p.groups[1:] {
		g.walk(look) // a call can bring in what is not in the tree
	}
	if regular && r.compileLinear(p, tree) && !loops {
		return r, nil
	}
	if err := r.compileBacktrack(p, tree, o); err != nil && r.plain == nil {
		return nil, err
	}
	return r, nil
}

// regular reports whether Go's engine has an equal for n itself.
func (n *node) regular() bool {
	switch n.op {
	case opBeginLine, opEndLine, opAtomic, opLook, opBackref, opCond, opCondLook:
		return false
	case opRepeat:
		return !n.possessive
	default:
		return true
	}
}

// loopsOnNothing reports whether n repeats a group that can match nothing. PCRE
// does so once more at the end, which leaves the group empty.
func (n *node) loopsOnNothing() bool {
	if low, _ := n.subs[0].bounds(); low > 0 || n.max == 1 || n.max == 0 {
		return false
	}
	captures := false
	n.walk(func(n *node) bool {
		captures = captures || n.op == opGroup
		return !captures
	})
	return captures
}

// compileLinear reports false if Go refuses the pattern for its size.
func (r *Regexp) compileLinear(p *parser, tree *node) bool {
	text, failure := emit(p, tree, formPlain)
	if failure != "" {
		return false
	}
	plain, err := regexp.Compile(text)
	if err != nil {
		return false
	}
	r.plain = plain
	r.marked = sync.OnceValues(func() (*regexp.Regexp, error) {
		text, _ := emit(p, tree, formMarked)
		return regexp.Compile(text)
	})
	if !p.utf {
		r.literal = findLiterals(tree, len(p.names))
		r.steps = findSteps(tree, len(p.names))
		r.filter = findFilter(tree)
	}
	return true
}

// compileBacktrack returns an *Error if regexp2 has no equal for the pattern.
func (r *Regexp) compileBacktrack(p *parser, tree *node, o Options) error {
	text, failure := emit(p, tree, formBacktrack)
	if failure != "" {
		return &Error{Text: failure, Pattern: r.pattern, Offset: len(r.pattern)}
	}
	re, err := regexp2.Compile(text, regexp2.None)
	if err != nil {
		return &Error{Text: textTooLarge, Pattern: r.pattern, Offset: len(r.pattern)}
	}
	re.MatchTimeout = o.TimeLimit
	if o.TimeLimit <= 0 {
		re.MatchTimeout = DefaultTimeLimit
	}
	r.backtrack = re
	if !p.utf {
		r.filter = findFilter(tree)
	}
	return nil
}

// String returns the pattern as it was written.
func (r *Regexp) String() string { return r.pattern }

// Captures returns the number of capturing groups.
func (r *Regexp) Captures() int { return len(r.names) - 1 }

// Names returns the names of the groups by their numbers, "" for one without.
// Element 0 stands for the whole match. The slice must not be changed.
func (r *Regexp) Names() []string { return r.names }

// Linear reports whether a search takes time linear in the subject. If not,
// Options.TimeLimit bounds it.
func (r *Regexp) Linear() bool { return r.backtrack == nil }
