package parser

// File is one parsed configuration file.
type File struct {
	Source *Source
	Body   *Block

	cut bool // not read to its end
}

// Block is the statements between two braces, or those of a whole file.
type Block struct {
	// Items are the statements in reading order.
	Items []*Directive
	// Close is the closing brace; zero for a file and for a block that the
	// text does not close.
	Close Range
}

// Directive is one statement.
type Directive struct {
	// Name is empty (its Range zero) where Err stands for text that makes no
	// statement.
	Name Arg
	Args []Arg
	// End is the terminating ";" or "{". Its line is the one nginx reports.
	End Range
	// Block is nil when the statement ended with a semicolon.
	Block *Block
	// Files are the files of an expanded include in reading order: not nil, but
	// maybe empty, when the include was expanded. A file that could not be
	// opened is a File whose only item carries Err.
	Files []*File
	// Err is a syntax error in the statement or an include that failed. Other
	// fields then hold what could be read.
	Err *Diagnostic
}

// Range gives the whole statement from its name to its terminator, the block
// left out.
func (d *Directive) Range() Range {
	r := d.Name.Range
	if r.IsZero() {
		return d.End
	}
	if d.End.Source == r.Source && d.End.End > r.End {
		r.End = d.End.End
	}
	return r
}

// Arg is a directive's name or one of its arguments.
type Arg struct {
	// Value is the decoded text: quotes gone, escapes resolved.
	Value string
	// Range covers the text as written, quotes included; zero for an Arg that
	// was not read from a text.
	Range Range
}

// Raw gives the argument as written in its file, quotes and escapes included.
func (a Arg) Raw() string {
	if a.Range.IsZero() {
		return Quote(a.Value)
	}
	return a.Range.Text()
}

// Sources gives every file that was read once, in the order first read: what
// nginx -T prints.
func Sources(f *File) []*Source {
	var list []*Source
	seen := map[string]bool{}
	var file func(f *File)
	var block func(b *Block)
	file = func(f *File) {
		if !f.Source.unread && !seen[f.Source.Name] {
			seen[f.Source.Name] = true
			list = append(list, f.Source)
		}
		block(f.Body)
	}
	block = func(b *Block) {
		for _, d := range b.Items {
			for _, f := range d.Files {
				file(f)
			}
			if d.Block != nil {
				block(d.Block)
			}
		}
	}
	file(f)
	return list
}
