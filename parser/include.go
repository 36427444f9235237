package parser

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// loader reads the files of one parse.
type loader struct {
	Options
	texts  map[string]loaded // every file is read once, however often it is included
	files  int
	bytes  int
	words  int
	full   bool   // a limit was hit and reported
	depth  int    // blocks around the statement, across files
	level  int    // includes around it
	inside string // name of the innermost block around it, "" outside of any
}

type loaded struct {
	text []byte
	err  error
}

func (l *loader) load(name string) ([]byte, error) {
	if t, ok := l.texts[name]; ok {
		return t.text, t.err
	}
	text, err := l.ReadFile(name)
	if err == nil && len(text) > maxBytes {
		text, err = nil, syscall.EFBIG
	}
	l.texts[name] = loaded{text, err}
	return text, err
}

// include expands an include statement. One that nginx refuses for its form is
// left to the driver, as is one in a block where the word has no such meaning
// (their handlers in ngx_http_split_clients_module.c and
// ngx_http_charset_filter_module.c take any word as a parameter).
func (f *fileParser) include(d *Directive, inside string) {
	if len(d.Args) != 1 || inside == "split_clients" || inside == "charset_map" {
		return
	}
	name := d.Args[0].Value
	if i := strings.IndexByte(name, 0); i >= 0 {
		name = name[:i] // a C string to nginx
	}
	if !strings.HasPrefix(name, "/") {
		name = f.Dir + name
	}
	if !strings.ContainsAny(name, "*?[") {
		file, p := f.open(name, d)
		if p != nil {
			f.attach(d, p)
			return
		}
		d.Files = []*File{}
		if file != nil {
			d.Files = append(d.Files, file)
		}
		return
	}
	names, err := f.Glob(name)
	if err != nil {
		f.attach(d, f.includeError(d, fmt.Sprintf("glob() \"%s\" failed%s", name, errnoText(err))))
		return
	}
	d.Files = make([]*File, 0, len(names))
	for _, name := range names {
		file, p := f.open(name, d)
		if p != nil {
			file = &File{Source: &Source{Name: name, IncludedAt: d.Range(), order: f.files, unread: true}, Body: &Block{}}
			item := &Directive{}
			f.attach(item, p)
			file.Body.Items = append(file.Body.Items, item)
		}
		if file != nil {
			d.Files = append(d.Files, file)
		}
		if f.full {
			return
		}
	}
}

// open parses one included file. Both results are nil once a limit was hit.
func (f *fileParser) open(name string, d *Directive) (*File, *Diagnostic) {
	if p := f.forbidden(name, d); p != nil || f.full {
		return nil, p
	}
	text, err := f.load(name)
	if err != nil && errors.Is(err, fs.ErrNotExist) && f.Missing != nil {
		if given, ok := f.Missing(name); ok {
			text, err = given, nil
		}
	}
	if err != nil {
		p := f.includeError(d, openFailed(name, err))
		if failedRead(err) {
			p.Code, p.At = codeUnreadable, Range{}
			return nil, p
		}
		if dir := strings.TrimSuffix(f.Dir, "/"); dir != "" && !strings.HasPrefix(d.Args[0].Value, "/") {
			p.Hint = fmt.Sprintf("relative paths start at %s, the folder of the main file", dir)
		}
		return nil, p
	}
	f.level++
	file := f.parse(&Source{Name: name, Text: text, IncludedAt: d.Range()})
	f.level--
	return file, nil
}

// forbidden guards against includes that do not end.
//
// Unlike nginx, which follows a cycle until it runs out of file descriptors or
// stack.
func (f *fileParser) forbidden(name string, d *Directive) *Diagnostic {
	clean := path.Clean(name)
	for s := f.src; s != nil; s = s.IncludedAt.Source {
		if path.Clean(s.Name) != clean {
			continue
		}
		p := f.includeError(d, fmt.Sprintf("\"%s\" includes itself", name))
		p.Code = codeCycle
		if s != f.src {
			p.Message += " through other files"
		}
		return p
	}
	if f.level == maxIncludes {
		p := f.includeError(d, fmt.Sprintf("includes are nested more than %d deep", maxIncludes))
		p.Code = codeCycle
		return p
	}
	if !f.full && (f.files >= maxFiles || f.bytes > maxBytes) {
		f.full = true
		p := f.includeError(d, fmt.Sprintf("more than %d files or %d MiB are included", maxFiles, maxBytes>>20))
		p.Code = codeTooMany
		return p
	}
	return nil
}

func (f *fileParser) includeError(d *Directive, message string) *Diagnostic {
	return &Diagnostic{Code: codeMissing, Message: message, Range: d.Args[0].Range, At: d.End}
}

// The rules about includes.
const (
	codeMissing = "Y015"
	codeCycle   = "Y021"
	codeTooMany = "Y023"
	codeTooMuch = "Y029"
	// codeUnreadable marks a file that opens but cannot be read, such as a
	// folder: the one problem of this package that nginx rates below emerg.
	codeUnreadable = "Y028"
)

// failedRead reports whether a file could be opened and then not be read:
// nginx names no place for that.
func failedRead(err error) bool {
	var step *os.PathError
	return errors.As(err, &step) && step.Op == "read"
}

// openFailed is nginx's text for a file that cannot be opened or read. Where
// it is very long nginx leaves room for the system's reason (ngx_log_errno).
func openFailed(name string, err error) string {
	if failedRead(err) {
		return "pread() \"" + name + "\" failed" + errnoText(err)
	}
	text := "open() \"" + name + "\" failed"
	if len(text) > maxMessage-50 {
		text = text[:maxMessage-50] + "..."
	}
	return text + errnoText(err)
}

// errnoText gives the number and text of a system error as nginx writes them,
// " (2: No such file or directory)".
func errnoText(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
	case errors.Is(err, fs.ErrNotExist):
		errno = syscall.ENOENT
	case errors.Is(err, fs.ErrPermission):
		errno = syscall.EACCES
	default:
		return " (" + err.Error() + ")"
	}
	text := errno.Error()
	if c := text[0]; c >= 'a' && c <= 'z' {
		text = string(c-'a'+'A') + text[1:]
	}
	return " (" + strconv.Itoa(int(errno)) + ": " + text + ")"
}

// readDisk reads a file, but no more than the limit of all files.
func readDisk(name string) (text []byte, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxBytes+1))
}
