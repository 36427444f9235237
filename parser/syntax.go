package parser

import (
	"fmt"
	"strings"
)

// This file words the syntax errors. The messages are nginx's, the ranges and
// hints say what is likely meant.

// here makes an error that nginx reports at the byte at.
func (f *fileParser) here(code, message string, at int) *Diagnostic {
	r := Range{f.src, at, min(at+1, len(f.text))}
	return &Diagnostic{Code: code, Message: message, Range: r, At: r}
}

// explain words the scanner's fault in the statement d.
func (f *fileParser) explain(d *Directive) *Diagnostic {
	switch f.fault.kind {
	case emptyFault:
		return f.empty()
	case closeFault:
		p := f.here("Y001", `unexpected "}"`, f.fault.at)
		f.wantSemicolon(p, d)
		return p
	case afterFault:
		return f.glued()
	case longFault:
		return f.tooLong()
	default:
		return f.endInside(d)
	}
}

// empty is a terminator with nothing before it.
func (f *fileParser) empty() *Diagnostic {
	c := f.text[f.fault.at]
	p := f.here("Y024", "unexpected \""+string(c)+"\"", f.fault.at)
	if c == ';' {
		p.Hint = `remove the ";": no directive stands before it`
	} else {
		p.Hint = `no directive stands before the "{"; look for a ";" too early or a name that is missing`
	}
	return p
}

// wantSemicolon turns p into the report of a missing ";" behind statement d.
func (f *fileParser) wantSemicolon(p *Diagnostic, d *Directive) {
	last := d.Name
	if n := len(d.Args); n > 0 {
		last = d.Args[n-1]
	}
	p.Range = last.Range
	p.Hint = fmt.Sprintf(`add ";" after %s`, f.short(d.Name.Range.Start, last.Range.End))
}

// glued is a byte that follows a closing quote directly.
func (f *fileParser) glued() *Diagnostic {
	at, open := f.fault.at, f.fault.token
	p := f.here("Y025", "unexpected \""+f.text[at:at+1]+"\"", at)
	if f.fault.quote == 0 {
		p.Hint = "after a closing quote a space, \";\" or \"{\" must follow; put the whole argument between quotes"
		return p
	}
	p.Code = "Y004"
	p.Range = f.toLineEnd(open)
	p.Hint = fmt.Sprintf("the string that opens here runs up to line %d; close it with %c", p.At.Line(), f.fault.quote)
	p.Related = []Related{{p.At, "the string ends just before this"}}
	return p
}

// tooLong is a token or comment that overflows nginx's buffer.
func (f *fileParser) tooLong() *Diagnostic {
	at := f.fault.at
	if q := f.fault.quote; q != 0 {
		p := f.here("Y004", fmt.Sprintf("too long parameter, probably missing terminating \"%c\" character", q), at)
		p.Range = f.toLineEnd(f.fault.token)
		p.Hint = fmt.Sprintf("the string that opens here does not end within %d bytes; close it with %c", window, q)
		return p
	}
	p := f.here("Y026", "too long parameter \""+f.text[at:at+10]+"...\" started", at)
	p.Range = f.toLineEnd(at)
	p.Hint = fmt.Sprintf("nginx takes no more than %d bytes here; split it", window)
	return p
}

// endInside is the end of the file inside the statement d.
func (f *fileParser) endInside(d *Directive) *Diagnostic {
	if f.src.Name == CommandLine {
		p := f.here("Y001", `unexpected end of parameter, expecting ";"`, f.fault.at)
		p.Hint = `end the directive with ";"`
		return p
	}
	p := f.here("Y001", `unexpected end of file, expecting ";" or "}"`, f.fault.at)
	switch q := f.fault.quote; {
	case q != 0:
		p.Code = "Y004"
		p.Range = f.toLineEnd(f.fault.token)
		p.Hint = fmt.Sprintf("the string that opens here is never closed; add %c", q)
	case f.fault.token < f.fault.at:
		p.Range = f.toLineEnd(f.fault.token)
		from := f.fault.token
		if d.Name.Range.Source != nil {
			from = d.Name.Range.Start
		}
		p.Hint = fmt.Sprintf(`add ";" after %s`, f.short(from, f.fault.at))
	case d.Name.Range.Source != nil:
		f.wantSemicolon(p, d)
	}
	return p
}

// stray is a "}" that closes nothing.
func (f *fileParser) stray() *Diagnostic {
	p := f.here("Y003", `unexpected "}"`, f.end.Start)
	p.Hint = `it closes nothing; remove it, or look for a "}" too early`
	if f.src.IncludedAt.Source != nil {
		p.Hint = `it closes nothing: a block cannot begin in one file and end in another`
	}
	return p
}

func (f *fileParser) blockInParameters() *Diagnostic {
	p := f.here("Y027", "block directives are not supported in -g option", f.end.Start)
	p.Hint = "only simple directives can be given on the command line"
	return p
}

// tooDeep is a block below the nesting limit.
//
// Unlike nginx, which recurses until its stack ends.
func (f *fileParser) tooDeep(outer *Directive) *Diagnostic {
	p := f.here("Y022", fmt.Sprintf("blocks are nested more than %d deep", maxDepth), f.end.Start)
	p.Hint = `look for missing "}"`
	if outer != nil {
		p.Related = []Related{{outer.Range(), "the block around it"}}
	}
	return p
}

// tooMuch is more text than a configuration can sensibly have.
//
// Unlike nginx, which takes memory as long as there is any.
func (f *fileParser) tooMuch() *Diagnostic {
	p := f.here(codeTooMuch, fmt.Sprintf("the configuration has more than %d words", maxWords), f.end.Start)
	p.Hint = "look for a file that is included very often"
	return p
}

// toLineEnd gives the range from at to the end of its line.
func (f *fileParser) toLineEnd(at int) Range {
	end := f.src.lineEnd(f.src.Line(at))
	for end > at && (f.text[end-1] == '\r' || f.text[end-1] == ' ' || f.text[end-1] == '\t') {
		end--
	}
	return Range{f.src, at, max(end, min(at+1, len(f.text)))}
}

// short quotes a piece of the text for a hint: one line, not long.
func (f *fileParser) short(from, to int) string {
	const most = 40
	s := strings.TrimSpace(f.text[from:to])
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		s = strings.TrimSpace(s[:i]) + " ..."
	}
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return `"` + s + `"`
}

// earlyClose is a brace that stands further left than the line that opens its
// block: the sign that an inner block was not closed.
type earlyClose struct {
	open *Directive
	line int // of the brace
}

// closed looks at the brace that has just closed a block and remembers the
// first whose indentation does not fit.
func (f *fileParser) closed(open *Directive) {
	if f.early != nil {
		return
	}
	brace, first := f.indent(f.end.Start)
	if !first {
		return
	}
	at := open.Range().Start
	if opening, first := f.indent(at); first && brace < opening {
		f.early = &earlyClose{open, f.src.Line(f.end.Start)}
	}
}

// indent counts the white space before a byte and tells whether nothing else
// stands before it on its line. A tab counts as one.
func (f *fileParser) indent(at int) (n int, first bool) {
	for at--; at >= 0; at-- {
		switch f.text[at] {
		case ' ', '\t':
			n++
		case '\n':
			return n, true
		default:
			return n, false
		}
	}
	return n, true
}

// unclosed is the end of the file in the block b of open. The culprit may be a
// block further in that took the brace of this one.
func (f *fileParser) unclosed(b *Block, open *Directive) *Diagnostic {
	p := f.here("Y002", `unexpected end of file, expecting "}"`, f.end.Start)
	if f.early != nil {
		p.Range = f.early.open.Range()
		p.Hint = fmt.Sprintf("block %q opened here is never closed; the indentation suggests a missing \"}\" before line %d",
			f.early.open.Name.Value, f.early.line)
		return p
	}
	p.Range = open.Range()
	p.Hint = fmt.Sprintf("block %q opened here is never closed; add \"}\"", open.Name.Value)
	if line := f.suggest(b, open); line > 0 {
		p.Hint += fmt.Sprintf("; the indentation suggests after line %d", line)
	}
	return p
}

// suggest gives the line behind which the closing brace of b likely belongs:
// that of the last statement that is indented deeper than the block itself.
func (f *fileParser) suggest(b *Block, open *Directive) int {
	outer, _ := f.indent(open.Range().Start)
	line := 0
	for _, d := range b.Items {
		r := d.Range()
		if n, first := f.indent(r.Start); first && n <= outer {
			break
		}
		if d.Block != nil && !d.Block.Close.IsZero() {
			r = d.Block.Close
		}
		line = f.src.Line(max(r.Start, r.End-1))
	}
	return line
}

// quantifier reports whether the brace that opened the block of d is in truth
// one of an unquoted regular expression, as in "location ~ ^/\d{4}/ {". What
// nginx makes of it is an error in any case, see braced.
func (f *fileParser) quantifier(d *Directive) bool {
	at := d.End.Start
	if f.fault.kind != noFault || at == 0 || strings.IndexByte(" \t\r\n\"'", f.text[at-1]) >= 0 {
		return false
	}
	switch name := d.Name.Value; name {
	case "location", "if", "rewrite", "server_name":
	default:
		if !strings.HasPrefix(name, "~") {
			return false
		}
	}
	rest := f.text[d.End.End:]
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	rest = strings.TrimPrefix(rest[digits:], ",")
	return digits > 0 && strings.HasPrefix(rest, "}")
}

// braced reads the block of d after quantifier has said yes. To nginx the rest
// of the expression is the name of a directive in that block, which it does
// not know. What stands in the block that the user meant is read as the
// block's own, so that it neither goes unchecked nor lacks a brace.
func (f *fileParser) braced(d *Directive) {
	e := f.statement()
	rest := f.directive()
	d.Block.Items = append(d.Block.Items, rest)
	f.blame(rest)
	if rest.Err == nil {
		p := &Diagnostic{Code: "Y017", Message: "unknown directive \"" + rest.Name.Value + "\"", Range: rest.Name.Range, At: rest.End}
		p.Range.Start = d.End.Start
		p.Hint = `the "{" of an unquoted regular expression starts a block; put the expression between quotes`
		f.attach(rest, p)
	}
	switch e {
	case atBrace:
		rest.Block = &Block{}
		f.items(d.Block, d)
	case atFault, atEnd:
		f.stop = true
	default:
		d.Block.Close = rest.End
	}
}
