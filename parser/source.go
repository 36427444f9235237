package parser

import (
	"bytes"
	"fmt"
	"sort"
	"sync"
)

// CommandLine is the name of the Source that holds the directives given with
// -g. Messages about it carry no line, and it cannot contain blocks.
const CommandLine = "command line"

// Source is one configuration text: a file, standard input or the directives
// of the command line. A file that is included twice has two Sources, which
// share their Text. Once parsed a Source is read-only and safe for concurrent
// use.
type Source struct {
	// Name is the path as nginx would name it in a message.
	Name string
	// Text is the whole text; it must not be changed after parsing.
	Text []byte
	// IncludedAt is the include statement that led here, from its name to its
	// semicolon; zero for the main file.
	IncludedAt Range

	// order counts the sources of one parse as they were read.
	order  int
	unread bool // could not be opened: nginx -T does not list it

	readText  sync.Once
	text      string // Text again; every Value that needs no decoding is a slice of it
	readLines sync.Once
	lines     []int // offset of the first byte of each line but the first
}

// content gives the Text as a string.
func (s *Source) content() string {
	s.readText.Do(func() { s.text = string(s.Text) })
	return s.text
}

// index finds the lines. Most sources are never asked for one.
func (s *Source) index() {
	s.readLines.Do(func() {
		s.lines = make([]int, 0, bytes.Count(s.Text, []byte{'\n'}))
		for off := 0; ; {
			i := bytes.IndexByte(s.Text[off:], '\n')
			if i < 0 {
				return
			}
			off += i + 1
			s.lines = append(s.lines, off)
		}
	})
}

// Line gives the line of a byte offset, counted from 1, in O(log n).
func (s *Source) Line(off int) int {
	s.index()
	return sort.SearchInts(s.lines, off+1) + 1
}

// Column gives the column of a byte offset, counted in bytes from 1.
func (s *Source) Column(off int) int {
	return off - s.lineStart(s.Line(off)) + 1
}

// lineStart gives the offset of a line's first byte.
func (s *Source) lineStart(line int) int {
	s.index()
	if line <= 1 {
		return 0
	}
	return s.lines[line-2]
}

// lineEnd gives the offset just behind a line's last byte, its LF left out.
func (s *Source) lineEnd(line int) int {
	s.index()
	if line <= len(s.lines) {
		return s.lines[line-1] - 1
	}
	return len(s.Text)
}

// Range is a range of bytes in a Source. The zero Range is no place.
type Range struct {
	Source     *Source
	Start, End int
}

// IsZero reports whether the range is no place at all.
func (r Range) IsZero() bool { return r.Source == nil }

// Line gives the line on which the range starts, 0 for no place.
func (r Range) Line() int {
	if r.Source == nil {
		return 0
	}
	return r.Source.Line(r.Start)
}

// Column gives the column in which the range starts, in bytes from 1, 0 for no place.
func (r Range) Column() int {
	if r.Source == nil {
		return 0
	}
	return r.Source.Column(r.Start)
}

// String gives the place as "file:line:column", "" for no place.
func (r Range) String() string {
	switch {
	case r.Source == nil:
		return ""
	case r.Source.Name == CommandLine:
		return CommandLine
	}
	return fmt.Sprintf("%s:%d:%d", r.Source.Name, r.Line(), r.Column())
}

// Text gives the bytes of the range as written, "" for no place.
func (r Range) Text() string {
	if r.Source == nil {
		return ""
	}
	return r.Source.content()[r.Start:r.End]
}

// Compare orders two places of one parse as they were read: -1, 0 or 1. A
// place in an included file comes after the statements before its include and
// before those behind it, files of one include in their order. No place comes
// last.
func Compare(a, b Range) int {
	switch {
	case a.Source == nil && b.Source == nil:
		return 0
	case a.Source == nil:
		return 1
	case b.Source == nil:
		return -1
	case a.Source == b.Source:
		return sign(a.Start - b.Start)
	}
	da, db := a.Source.depth(), b.Source.depth()
	ca, cb := a, b
	for ; da > db; da-- {
		ca = ca.Source.IncludedAt
	}
	for ; db > da; db-- {
		cb = cb.Source.IncludedAt
	}
	for ca.Source != cb.Source {
		up, vp := ca.Source.IncludedAt, cb.Source.IncludedAt
		if up.Source == vp.Source && up.Start == vp.Start || up.Source == nil {
			return sign(ca.Source.order - cb.Source.order)
		}
		ca, cb = up, vp
	}
	// One of the two stands in a file that the other's line includes, or they
	// lie below different includes of the same file.
	if c := sign(ca.Start - cb.Start); c != 0 {
		return c
	}
	return sign(a.Source.depth() - b.Source.depth())
}

// depth counts the includes that lead to the source.
func (s *Source) depth() int {
	n := 0
	for up := s.IncludedAt.Source; up != nil; up = up.IncludedAt.Source {
		n++
	}
	return n
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
