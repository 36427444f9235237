// Package parser turns nginx configuration text into a tree and back. It knows
// the syntax only, as nginx reads it: what directives mean is not its business,
// but for include, whose files become part of the tree.
//
// A syntax error does not end the parse: it stands in the tree, at its place
// in reading order, and a driver that walks the tree statement by statement
// meets the same first error as nginx does.
package parser

import (
	"path"
	"strings"
)

// Limits that nginx does not have.
const (
	maxDepth     = 256       // blocks in blocks, across includes
	maxIncludes  = 100       // includes in includes
	maxFiles     = 200_000   // files read by one parse, each as often as it is included
	maxBytes     = 256 << 20 // their text
	maxWords     = 4_000_000 // names and arguments in it
	maxFaults    = 100       // syntax errors reported for one file
	argsPerSlab  = 256
	itemsPerSlab = 64
)

// Options say where a parse finds included files.
type Options struct {
	// Dir is the folder that relative includes resolve against, in included
	// files too: that of the main file. Empty stands for the folder in the main
	// file's name.
	Dir string
	// Glob lists the files that match a pattern in the order they are read; nil
	// is the disk with the rules of the C library's glob.
	Glob func(pattern string) ([]string, error)
	// ReadFile reads a file; nil is the disk.
	ReadFile func(name string) ([]byte, error)
	// Missing may give the text for an include whose file does not exist.
	Missing func(path string) ([]byte, bool)
}

// ParseFile reads and parses a file and what it includes. A file that cannot
// be read gives a File whose only item carries the error.
func ParseFile(name string, o Options) *File {
	src := &Source{Name: name}
	l := newLoader(src, o)
	text, err := l.load(name)
	if err != nil {
		src.unread = true
		d := &Diagnostic{Code: codeMissing, Message: openFailed(name, err)}
		if failedRead(err) {
			d.Code = codeUnreadable
		}
		return &File{Source: src, Body: &Block{Items: []*Directive{{Err: d}}}}
	}
	src.Text = text
	return l.parse(src)
}

// Parse parses a text and what it includes.
func Parse(src *Source, o Options) *File {
	return newLoader(src, o).parse(src)
}

// TooMuch gives the error of a configuration that is too large to be read to its
// end; nil for others. What is wrong with the rest does not matter then.
func (f *File) TooMuch() *Diagnostic {
	for b := f.Body; b != nil && len(b.Items) > 0; {
		last := b.Items[len(b.Items)-1]
		if last.Err != nil && last.Err.Code == codeTooMuch {
			return last.Err
		}
		b = last.Block
		if n := len(last.Files); n > 0 {
			b = last.Files[n-1].Body
		}
	}
	return nil
}

func newLoader(src *Source, o Options) *loader {
	l := &loader{Options: o, texts: map[string]loaded{}}
	if l.Dir == "" {
		l.Dir, _ = path.Split(src.Name)
	}
	if l.Dir != "" && !strings.HasSuffix(l.Dir, "/") {
		l.Dir += "/"
	}
	if l.ReadFile == nil {
		l.ReadFile = readDisk
	}
	if l.Glob == nil {
		l.Glob = glob
	}
	return l
}

// parse parses one file at the loader's present depth.
func (l *loader) parse(src *Source) *File {
	src.order = l.files
	l.files++
	l.bytes += len(src.Text)
	f := &fileParser{loader: l, scanner: newScanner(src)}
	body := &Block{}
	f.items(body, nil)
	return &File{Source: src, Body: body, cut: f.pos < len(f.text)}
}

// fileParser parses one file.
type fileParser struct {
	*loader
	*scanner

	faults int
	stop   bool // a fatal error: nothing more is read of this file
	early  *earlyClose

	argSlab  []Arg
	itemSlab []Directive
}

// items reads statements into b up to its closing brace, or up to the end of
// the file when open, the directive that the block belongs to, is nil.
func (f *fileParser) items(b *Block, open *Directive) {
	for !f.stop && f.words <= maxWords {
		switch e := f.statement(); e {
		case atSemicolon, atBrace:
			d := f.directive()
			b.Items = append(b.Items, d)
			f.blame(d)
			if e == atBrace {
				f.block(d, open)
			} else if d.Err == nil && d.Name.Value == "include" {
				f.include(d, f.inside)
			}
		case atCut:
			d := f.directive()
			b.Items = append(b.Items, d)
			f.blame(d)
			if open != nil {
				b.Close = f.end
				return
			}
		case atClose:
			if open != nil {
				b.Close = f.end
				f.closed(open)
				return
			}
			b.Items = append(b.Items, f.report(f.stray()))
		case atEnd:
			if open != nil {
				b.Items = append(b.Items, f.report(f.unclosed(b, open)))
			}
			f.stop = true
		case atFault:
			d := f.directive()
			b.Items = append(b.Items, d)
			f.blame(d)
			f.stop = true
		}
	}
}

// block reads the block of d, which stands in the block of outer.
func (f *fileParser) block(d, outer *Directive) {
	d.Block = &Block{}
	if f.src.Name == CommandLine {
		f.attach(d, f.blockInParameters())
		f.stop = true
		return
	}
	if f.depth == maxDepth {
		f.attach(d, f.tooDeep(outer))
		f.stop = true
		return
	}
	inside := f.inside
	f.inside = d.Name.Value
	f.depth++
	if f.quantifier(d) {
		f.braced(d)
	} else {
		f.items(d.Block, d)
	}
	f.depth--
	f.inside = inside
}

// directive makes the statement that the scanner has read.
func (f *fileParser) directive() *Directive {
	if len(f.itemSlab) == 0 {
		f.itemSlab = make([]Directive, itemsPerSlab)
	}
	d := &f.itemSlab[0]
	f.itemSlab = f.itemSlab[1:]
	d.End = f.end
	if f.words += len(f.args); f.words > maxWords && !f.full {
		f.full = true
		f.attach(d, f.tooMuch())
	}
	if len(f.args) > 0 {
		d.Name = f.args[0]
	}
	if n := len(f.args) - 1; n > 0 {
		if len(f.argSlab) < n {
			f.argSlab = make([]Arg, max(n, argsPerSlab))
		}
		copy(f.argSlab, f.args[1:])
		d.Args = f.argSlab[:n:n]
		f.argSlab = f.argSlab[n:]
	}
	return d
}

// report makes an item of a problem that belongs to no statement.
func (f *fileParser) report(p *Diagnostic) *Directive {
	d := &Directive{End: f.end}
	f.attach(d, p)
	return d
}

// attach puts a problem into the tree. A file with very many is left alone
// after the first hundred.
func (f *fileParser) attach(d *Directive, p *Diagnostic) {
	if d.Err != nil {
		return
	}
	d.Err = p
	if f.faults++; f.faults == maxFaults {
		f.stop = true
	}
}

// blame attaches the scanner's fault to the statement it was found in.
func (f *fileParser) blame(d *Directive) {
	if f.fault.kind != noFault {
		f.attach(d, f.explain(d))
	}
}
