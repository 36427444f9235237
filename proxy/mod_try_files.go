package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
)

// ngx_http_try_files_module: the first file that exists, else another way to
// answer.

func tryFilesModule() Module {
	return Module{
		Name: "ngx_http_try_files_module", Phase: PreContent,
		Commands: []Command{{
			Name: "try_files", In: InServer | InLocation, Args: "2+", Syntax: "file ... uri | file ... =code",
			Differs: "a variable cannot lead out of the folder, nor to a URI that is empty", DiffersIn: looksElsewhere,
			Doc: "Takes the first file that exists, and else goes to the URI named last.", Set: setTryFiles,
		}},
		Handler: func(c *Conf) Handler {
			if t := c.Own.TryFiles; t != nil {
				return t.serve
			}
			return nil
		},
	}
}

// tryFiles is what try_files says.
type tryFiles struct {
	files []tryFile
	last  *Value // where to go when there is none of them
	code  Code   // or what to answer
}

// tryFile is a file, or a folder: written with a slash at its end.
type tryFile struct {
	name   *Value
	folder bool
}

func setTryFiles(l *Level, d *parser.Directive) error {
	t := &tryFiles{}
	n := len(d.Args) - 1
	for _, a := range d.Args[:n] {
		name, folder := strings.CutSuffix(a.Value, "/")
		v, err := l.value(name)
		if err != nil {
			return err
		}
		t.files = append(t.files, tryFile{v, folder})
	}
	var err error
	if t.last, err = l.value(d.Args[n].Value); err != nil {
		return err
	}
	if text, ok := strings.CutPrefix(d.Args[n].Value, "="); ok {
		code, ok := parseNumber(text)
		if !ok || code > 999 {
			return sayAt(d.Args[n], "", "a status: =404", "invalid code %q", d.Args[n].Value)
		}
		t.code = Code(code)
	}
	l.Conf.Own.TryFiles = t
	return nil
}

// serve looks for the files. One that exists becomes the URI.
func (t *tryFiles) serve(x *Exchange) Code {
	root := x.documentRoot()
	for i := range t.files {
		f := &t.files[i]
		name := x.tryName(f.name)
		path := x.keep(root, name)
		if leavesRoot(path) { // Unlike nginx, which lets a variable lead out of the folder.
			continue
		}
		if mode, found := x.fileMode(path); found && mode.IsDir() == f.folder {
			x.useFile(name, f.folder)
			return Declined
		}
	}
	if t.code != 0 {
		return t.code
	}
	target := x.tryName(t.last)
	if len(target) > 0 && target[0] == '@' {
		return x.redirectToNamed(target)
	}
	uri, args := splitArgs(target)
	return x.redirectTo(uri, args)
}

// tryName gives a name as it is added to the root. Under an alias, one made of
// variables, "$uri" above all, begins behind the location's name.
func (x *Exchange) tryName(v *Value) []byte {
	name := v.Bytes(x)
	n := x.loc.Conf.Core.aliasLength
	if _, static := v.Static(); static || n <= 0 || n > len(x.uri) {
		return name
	}
	rest, _ := bytes.CutPrefix(name, x.uri[:n])
	return rest
}

// useFile makes the URI name a file that was found.
func (x *Exchange) useFile(name []byte, folder bool) {
	core := &x.loc.Conf.Core
	switch {
	case len(name) == 0 && !core.Alias: // the root itself
		x.uri = append(x.uri[:0:0], '/')
	case !core.Alias:
		x.uri = name
	case core.aliasLength == wholePath:
		if folder { // the alias alone names it
			break
		}
		x.uri, x.addURIToAlias = name, true
	default:
		x.uri = x.keep(x.uri[:min(core.aliasLength, len(x.uri))], name)
	}
	x.extension = extension(x.uri)
}
