// Package pcre runs the regular expressions of nginx, which are PCRE2's over
// bytes, on Go's engines.
package pcre

import (
	"errors"
	"regexp"
)

// Options change the meaning of a pattern.
type Options struct {
	Caseless bool // ASCII letters of either case are equal (PCRE2_CASELESS)
}

// ErrTimeout says that a search was given up: the pattern needs backtracking
// and the subject makes it take too long.
var ErrTimeout = errors.New("match time limit exceeded")

// Regexp is a compiled pattern. It is safe for concurrent use.
type Regexp struct {
	pattern string
	names   []string
	re      *regexp.Regexp
}

// Error is a pattern that does not compile.
type Error struct {
	Text    string // what is wrong, in PCRE2's words
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
	text := pattern
	if o.Caseless {
		text = "(?i)" + text
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, &Error{Text: err.Error(), Pattern: pattern, Offset: len(pattern)}
	}
	return &Regexp{pattern: pattern, names: re.SubexpNames(), re: re}, nil
}

// String returns the pattern as it was written.
func (r *Regexp) String() string { return r.pattern }

// Captures returns the number of capturing groups.
func (r *Regexp) Captures() int { return len(r.names) - 1 }

// Names returns the names of the groups by their numbers, "" for one without.
// Element 0 stands for the whole match. The slice must not be changed.
func (r *Regexp) Names() []string { return r.names }

// Linear reports whether a search takes time linear in the subject.
func (r *Regexp) Linear() bool { return true }

// Match reports whether the pattern occurs in s.
func (r *Regexp) Match(s []byte) bool { return r.re.Match(s) }

// Find looks for the first occurrence in s and appends the offsets of the match
// and of all groups to caps as pairs, -1 for a group that is not set.
func (r *Regexp) Find(s []byte, caps []int) ([]int, bool) {
	found := r.re.FindSubmatchIndex(s)
	return append(caps, found...), found != nil
}
