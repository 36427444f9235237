package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
)

// ignores are the comments that silence rules:
//
//	# proxyctl: ignore S012 C031 the reason
//
// Behind a statement the comment counts for its line; on a line of its own, for
// the statement that follows, with its block.
type ignores struct {
	marks map[*parser.Source][]ignoreMark
}

type ignoreMark struct {
	ids        []string
	start, end int // bytes of the source it counts for
}

const ignoreWord = "proxyctl: ignore "

func newIgnores(file *parser.File) *ignores {
	g := &ignores{marks: map[*parser.Source][]ignoreMark{}}
	g.file(file)
	return g
}

func (g *ignores) file(f *parser.File) {
	src := f.Source
	for off := 0; ; {
		i := bytes.Index(src.Text[off:], []byte(ignoreWord))
		if i < 0 {
			break
		}
		off += i
		g.mark(f, off)
		off += len(ignoreWord)
	}
	g.includes(f.Body)
}

func (g *ignores) includes(b *parser.Block) {
	for _, d := range b.Items {
		for _, f := range d.Files {
			g.file(f)
		}
		if d.Block != nil {
			g.includes(d.Block)
		}
	}
}

// mark reads the comment with the word at an offset.
func (g *ignores) mark(f *parser.File, at int) {
	text := f.Source.Text
	lineStart := bytes.LastIndexByte(text[:at], '\n') + 1
	lineEnd := len(text)
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		lineEnd = at + i
	}
	before := string(text[lineStart:at])
	hash := strings.LastIndexByte(before, '#')
	if hash < 0 || strings.TrimSpace(before[hash+1:]) != "" {
		return
	}
	m := ignoreMark{start: lineStart, end: lineEnd}
	for _, word := range strings.FieldsFunc(string(text[at+len(ignoreWord):lineEnd]), func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\r' }) {
		if !isRuleID(word) {
			break
		}
		m.ids = append(m.ids, word)
	}
	if strings.TrimSpace(before[:hash]) == "" {
		m.start, m.end = following(f.Body, lineEnd)
	}
	g.marks[f.Source] = append(g.marks[f.Source], m)
}

// following gives the extent of the first statement behind an offset.
func following(b *parser.Block, off int) (start, end int) {
	for _, d := range b.Items {
		last := d.End.End
		if d.Block != nil {
			last = max(last, d.Block.Close.End)
		}
		if d.Name.Range.IsZero() && d.Block != nil { // put around a bare site file
			if start, end = following(d.Block, off); end > 0 {
				return start, end
			}
			continue
		}
		switch {
		case last <= off:
		case d.Name.Range.Start >= off:
			return d.Name.Range.Start, last
		case d.Block != nil:
			return following(d.Block, off)
		}
	}
	return 0, 0
}

// isRuleID tells ids from the words of the reason.
func isRuleID(s string) bool {
	return len(s) == 4 && s[0] >= 'A' && s[0] <= 'Z' && strings.Trim(s[1:], "0123456789") == ""
}

// unignored drops the findings that a comment silences. Errors cannot be.
func unignored(ds []*parser.Diagnostic, g *ignores) []*parser.Diagnostic {
	kept := ds[:0]
	for _, d := range ds {
		if d.Severity == parser.Error || !g.covers(d) {
			kept = append(kept, d)
		}
	}
	return kept
}

func (g *ignores) covers(d *parser.Diagnostic) bool {
	for _, m := range g.marks[d.Range.Source] {
		if d.Range.Start < m.start || d.Range.Start >= m.end {
			continue
		}
		for _, id := range m.ids {
			if id == d.Code {
				return true
			}
		}
	}
	return false
}
