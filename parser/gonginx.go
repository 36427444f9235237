package parser

import (
	"fmt"
	"io"
	"strings"

	"github.com/tufanbarisyildirim/gonginx/config"
	"github.com/tufanbarisyildirim/gonginx/dumper"
)

// indent is the number of spaces by which Print indents a level of blocks.
const indent = 4

// Config gives the file as gonginx's tree, for programs that edit or migrate
// with it. Every node is a plain *config.Directive whose words are the text as
// written, quotes included. Included files are not part of it. A comment
// behind a statement or inside it is an inline comment of that statement; a
// comment on its own line is a node without a name that has only an inline
// comment, a blank line one that has nothing. Of a file with syntax errors
// only what could be read is there.
func (f *File) Config() *config.Config {
	c := &converter{src: f.Source, text: f.Source.content()}
	return &config.Config{FilePath: f.Source.Name, Block: c.file(f.Body)}
}

// Print writes the file formatted: one statement a line, four spaces a level,
// words and comments as they are, blank lines no more than one at a time. What
// it includes is not written. It refuses a file with syntax errors and returns
// the first of them.
func Print(w io.Writer, f *File) error {
	if err := broken(f.Body); err != nil {
		return err
	}
	if f.cut {
		return fmt.Errorf("%s: too large to be printed", f.Source.Name)
	}
	c := &converter{src: f.Source, text: f.Source.content(), mark: "#"}
	for strings.Contains(c.text, c.mark) {
		c.mark += "~"
	}
	style := dumper.NewStyle().WithLuaFormatting(false)
	style.Indent = indent
	_, err := io.WriteString(w, c.unmark(dumper.DumpBlock(c.file(f.Body), style)))
	return err
}

// broken finds the first syntax error of a file. An include that failed is
// none.
func broken(b *Block) error {
	for _, d := range b.Items {
		if d.Err != nil {
			switch d.Err.Code {
			case codeMissing, codeCycle, codeTooMany, codeUnreadable:
				if d.Name.Value != "" {
					continue
				}
			}
			return d.Err
		}
		if d.Block != nil {
			if err := broken(d.Block); err != nil {
				return err
			}
		}
	}
	return nil
}

// comments lists the comments of a file in order.
func comments(f *File) []string {
	var all []string
	var directives func(list []config.IDirective)
	directives = func(list []config.IDirective) {
		for _, d := range list {
			for _, c := range d.GetInlineComment() {
				for line := range strings.Lines(c.Value) {
					all = append(all, strings.TrimSpace(line))
				}
			}
			if b := d.GetBlock(); b != nil {
				directives(b.GetDirectives())
			}
		}
	}
	directives(f.Config().Directives)
	return all
}

// converter makes gonginx's nodes. Comments and blank lines it reads from the
// text between the statements.
type converter struct {
	src   *Source
	text  string
	pos   int // up to where the text has been turned into nodes
	depth int
	// mark is a word that occurs nowhere in the text, or "". gonginx indents
	// blank lines and writes one into empty blocks; Print marks both to undo it.
	mark string
}

// What follows the mark.
const (
	emptyMark  = "." // in an empty block
	behindMark = "<" // before a comment that stood behind a closing brace
)

func (c *converter) file(b *Block) *config.Block {
	out := &config.Block{}
	last := c.items(out, b, nil)
	out.Directives = c.gap(out.Directives, len(c.text), last, false)
	return out
}

// items converts the statements of a block and returns the last.
func (c *converter) items(out *config.Block, b *Block, parent *config.Directive) (last *config.Directive) {
	for _, d := range b.Items {
		if d.Name.Range.Source != c.src {
			continue // an error that is no statement
		}
		out.Directives = c.gap(out.Directives, d.Name.Range.Start, last, true)
		last = c.directive(d)
		if parent != nil {
			last.Parent = parent
		}
		out.Directives = append(out.Directives, last)
	}
	return last
}

// gap makes nodes of the comments and blank lines up to an offset. more tells
// that a statement follows: blank lines at either end of a block are dropped.
func (c *converter) gap(to []config.IDirective, end int, last *config.Directive, more bool) []config.IDirective {
	lines := 0 // line feeds since the last node
	for c.pos < end {
		switch c.text[c.pos] {
		case '\n':
			lines++
			c.pos++
		case '#':
			comment := c.comment(end)
			if lines == 0 && last != nil && last.Block == nil && !commented(last) {
				last.SetInlineComment(config.InlineComment{Value: " " + comment, RelativeLineIndex: lastLine(last)})
				continue
			}
			if lines > 1 && len(to) > 0 {
				to = append(to, c.bare(c.mark))
			}
			if lines == 0 && c.mark != "" && len(to) > 0 && last != nil && last.Block != nil && to[len(to)-1] == config.IDirective(last) {
				comment = c.mark + behindMark + comment
			}
			to = append(to, c.bare(comment))
			lines = 0
		default:
			c.pos++
		}
	}
	if lines > 1 && len(to) > 0 && more {
		to = append(to, c.bare(c.mark))
	}
	return to
}

// comment takes a comment, its line feed left.
func (c *converter) comment(end int) string {
	text := c.text[c.pos:end]
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	c.pos += len(text)
	return strings.TrimRight(text, " \t\r")
}

// comments takes all comments up to an offset, joined to one with the
// indentation of the given level.
func (c *converter) comments(end, level int) string {
	var all []string
	for c.pos < end {
		if c.text[c.pos] == '#' {
			all = append(all, c.comment(end))
			continue
		}
		c.pos++
	}
	return strings.Join(all, "\n"+strings.Repeat(" ", indent*level))
}

// bare makes a node for text that is no statement.
func (c *converter) bare(text string) *config.Directive {
	d := &config.Directive{Line: c.src.Line(max(0, c.pos-1))}
	if text != "" {
		d.SetInlineComment(config.InlineComment{Value: text})
	}
	return d
}

// commented reports whether the place for a comment behind d is taken.
func commented(d *config.Directive) bool {
	n := len(d.InlineComment)
	return n > 0 && d.InlineComment[n-1].RelativeLineIndex == lastLine(d)
}

func lastLine(d *config.Directive) int {
	if n := len(d.Parameters); n > 0 {
		return d.Parameters[n-1].RelativeLineIndex
	}
	return 0
}

// directive converts one statement with its block.
func (c *converter) directive(d *Directive) *config.Directive {
	out := &config.Directive{Name: d.Name.Raw(), Line: d.Name.Range.Line()}
	c.pos = d.Name.Range.End
	line := 0
	for _, a := range d.Args {
		if a.Range.Source != c.src {
			continue
		}
		if c.mark != "" && c.pos == a.Range.Start {
			c.glue(out, a)
			continue
		}
		if strings.IndexByte(c.text[c.pos:a.Range.Start], '\n') >= 0 {
			if s := c.comments(a.Range.Start, c.depth+1); s != "" {
				out.SetInlineComment(config.InlineComment{Value: s, RelativeLineIndex: line})
			}
			line++
		}
		out.Parameters = append(out.Parameters, config.Parameter{Value: a.Raw(), RelativeLineIndex: line})
		c.pos = a.Range.End
	}
	if d.Block == nil {
		if s := c.comments(d.End.Start, c.depth); s != "" {
			out.SetInlineComment(config.InlineComment{Value: " " + s, RelativeLineIndex: line})
		}
		c.pos = max(c.pos, d.End.End)
		return out
	}
	out.Block = c.block(d, out)
	return out
}

// glue prints a parenthesis right behind a string, where it was: "a") is two
// words to nginx.
func (c *converter) glue(out *config.Directive, a Arg) {
	if n := len(out.Parameters); n > 0 {
		out.Parameters[n-1].Value += a.Raw()
	} else {
		out.Name += a.Raw()
	}
	c.pos = a.Range.End
}

// block converts the block of a directive. Comments before its opening brace
// become its first nodes, because gonginx has no place for them.
func (c *converter) block(d *Directive, parent *config.Directive) *config.Block {
	out := &config.Block{Parent: parent}
	c.depth++
	out.Directives = c.gap(nil, d.End.Start, nil, false)
	c.pos = max(c.pos, d.End.End)
	last := c.items(out, d.Block, parent)
	if d.Block.Close.Source == c.src {
		out.Directives = c.gap(out.Directives, d.Block.Close.Start, last, false)
		c.pos = max(c.pos, d.Block.Close.End)
	}
	if len(out.Directives) == 0 && c.mark != "" {
		out.Directives = append(out.Directives, c.bare(c.mark+emptyMark))
	}
	c.depth--
	return out
}

// unmark removes the marks from printed text: the spaces before one go, the
// whole line of one that stands in an empty block, and the line feed before a
// comment that stood behind a brace.
func (c *converter) unmark(text string) string {
	if text == "" {
		return ""
	}
	var b strings.Builder
	b.Grow(len(text) + 1)
	for {
		before, after, found := strings.Cut(text, c.mark)
		if !found {
			break
		}
		if rest, ok := strings.CutPrefix(after, behindMark); ok {
			b.WriteString(strings.TrimRight(before, " \n") + " ")
			text = rest
			continue
		}
		b.WriteString(strings.TrimRight(before, " "))
		text = strings.TrimPrefix(after, emptyMark+"\n")
	}
	b.WriteString(text)
	b.WriteByte('\n')
	return b.String()
}
