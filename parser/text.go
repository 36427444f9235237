package parser

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// TextOptions say how WriteText writes.
type TextOptions struct {
	// Color marks severities and underlines with ANSI sequences.
	Color bool
	// Width is the number of columns that a line of source may take before it
	// is cut around what is underlined; 0 is 120.
	Width int
	// Wrap breaks messages and hints between words to fit the width, too.
	Wrap bool
}

const (
	defaultWidth = 120
	leastWidth   = 20
	tabWidth     = 4
)

// WriteText writes problems for people: the message, the place with its line
// of source and the culprit underlined, further places and the hint.
//
//	error[Y003]: unexpected "}"
//	  --> /etc/nginx/nginx.conf:2:1
//	   |
//	 2 | }
//	   | ^
//	   = help: it closes nothing; remove it
//
// Control characters and bytes that are not UTF-8 are shown as <1B>, others
// that do not print as <U+00A0>: a configuration cannot drive the terminal.
func WriteText(w io.Writer, ds []*Diagnostic, o TextOptions) {
	if o.Width <= 0 {
		o.Width = defaultWidth
	}
	t := &textWriter{TextOptions: o}
	for i, d := range ds {
		if i > 0 {
			t.WriteByte('\n')
		}
		t.diagnostic(d)
	}
	_, _ = w.Write(t.Bytes())
}

type textWriter struct {
	bytes.Buffer
	TextOptions
	gutter int // columns for line numbers
}

func (t *textWriter) diagnostic(d *Diagnostic) {
	place := d.underlined()
	t.gutter = len(strconv.Itoa(place.Line()))
	for _, r := range d.Related {
		t.gutter = max(t.gutter, len(strconv.Itoa(r.Range.Line())))
	}
	tint := severityTint(d.Severity)
	head := d.Severity.String()
	if d.Code != "" {
		head += "[" + d.Code + "]"
	}
	t.tint(tint, head)
	for i, line := range t.wrapped(": "+printable(d.Message), len(head), 4) {
		if i > 0 {
			t.pad(4)
		}
		t.tint(bold, line)
		t.WriteByte('\n')
	}
	t.place("-->", place, '^', tint)
	if !place.IsZero() {
		for up := place.Source.IncludedAt; !up.IsZero(); up = up.Source.IncludedAt {
			t.remark("included from " + printable(up.Source.Name) + ":" + strconv.Itoa(up.Line()))
		}
	}
	for _, r := range d.Related {
		t.remark("note: " + printable(r.Message))
		t.place("-->", r.Range, '-', blue)
	}
	if d.Hint != "" {
		t.remark("help: " + printable(d.Hint))
	}
}

// place writes a place and its line of source.
func (t *textWriter) place(arrow string, r Range, mark byte, tint string) {
	if r.IsZero() {
		return
	}
	t.pad(t.gutter)
	t.tint(blue, arrow)
	fmt.Fprintf(t, " %s\n", printable(r.String()))
	before, under, after := t.excerpt(r)
	t.bar("")
	t.WriteByte('\n')
	t.bar(strconv.Itoa(r.Line()))
	t.WriteString(strings.TrimRight(" "+before+under+after, " ") + "\n")
	t.bar("")
	t.pad(1 + utf8.RuneCountInString(before))
	t.tint(tint, strings.Repeat(string(mark), max(1, utf8.RuneCountInString(under))))
	t.WriteByte('\n')
}

// excerpt gives the line of a range in three parts: what stands before the
// range, the range as far as it lies on that line, and what follows. Long
// lines are cut around the range.
func (t *textWriter) excerpt(r Range) (before, under, after string) {
	src, text := r.Source, r.Source.content()
	line := src.Line(r.Start)
	start, end := src.lineStart(line), src.lineEnd(line)
	if end > start && text[end-1] == '\r' {
		end--
	}
	from, to := min(r.Start, end), min(r.End, end)
	// No more is decoded than can be shown: a line may be megabytes long.
	most := utf8.UTFMax * t.Width
	cutLeft, cutRight := from-start > most, false
	if cutLeft {
		start = from - most
	}
	if to-from > most {
		to, end, cutRight = from+most, from+most, true
	}
	if end-to > most {
		end, cutRight = to+most, true
	}
	before, under, after = printable(text[start:from]), printable(text[from:to]), printable(text[to:end])
	width := max(leastWidth, t.Width-t.gutter-4)
	if s, cut := tail(before, width/3); len(before)+len(under)+len(after) > width && cut || cutLeft {
		before = dots + s
	}
	rest := max(leastWidth/2, width-utf8.RuneCountInString(before))
	if _, cut := head(under, rest); cut {
		under, _ = head(under, rest-len(dots))
		return before, under, dots
	}
	rest -= utf8.RuneCountInString(under)
	if _, cut := head(after, rest); cut || cutRight {
		after, _ = head(after, rest-len(dots))
		after += dots
	}
	return before, under, after
}

const dots = "..."

// head cuts a text to its first n runes.
func head(s string, n int) (string, bool) {
	for i := range s {
		if n--; n < 0 {
			return s[:i], true
		}
	}
	return s, false
}

// tail cuts a text to its last n runes.
func tail(s string, n int) (string, bool) {
	i := len(s)
	for ; i > 0 && n > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:i])
		i -= size
	}
	return s[i:], i > 0
}

// printable makes a text safe and visible: a tab becomes spaces, what does not
// print is spelt out.
func printable(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == '\t':
			b.WriteString(strings.Repeat(" ", tabWidth))
		case c == utf8.RuneError && size == 1 || c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "<%02X>", s[i])
		case !unicode.IsPrint(c):
			fmt.Fprintf(&b, "<U+%04X>", c)
		default:
			b.WriteRune(c)
		}
		i += size
	}
	return b.String()
}

// bar writes the gutter with a line number or none.
func (t *textWriter) bar(number string) {
	t.pad(1 + t.gutter - len(number))
	t.tint(blue, number+" |")
}

func (t *textWriter) remark(text string) {
	t.pad(t.gutter + 2)
	t.tint(blue, "=")
	const label = len("help: ")
	for i, line := range t.wrapped(" "+text, t.gutter+3, t.gutter+4+label) {
		if i > 0 {
			t.pad(t.gutter + 4 + label)
		}
		t.WriteString(line + "\n")
	}
}

// wrapped breaks a text into lines that fit the width, where that is wanted:
// the first begins at a column, the others behind an indent.
func (t *textWriter) wrapped(text string, column, indent int) []string {
	if !t.Wrap {
		return []string{text}
	}
	var lines []string
	start, space := 0, -1 // of the line; the last space of it
	for i, c := range text {
		if c == ' ' && i > start {
			space = i
		}
		if column++; column > t.Width && space > start {
			lines = append(lines, text[start:space])
			start = space + 1
			column, space = indent+utf8.RuneCountInString(text[start:i+utf8.RuneLen(c)]), -1
		}
	}
	return append(lines, text[start:])
}

func (t *textWriter) pad(n int) { t.WriteString(strings.Repeat(" ", max(0, n))) }

const (
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	blue   = "\x1b[1;34m"
	cyan   = "\x1b[1;36m"
	reset  = "\x1b[0m"
)

func severityTint(s Severity) string {
	switch s {
	case Error:
		return red
	case Warning:
		return yellow
	}
	return cyan
}

func (t *textWriter) tint(tint, text string) {
	if !t.Color || text == "" {
		t.WriteString(text)
		return
	}
	t.WriteString(tint + text + reset)
}
