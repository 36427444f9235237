package proxy

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"proxyctl/parser"
)

// root, alias and types: from a URI to a file and its type.

// typeMap maps extensions to MIME types.
type typeMap struct {
	types map[string][]byte // extension, lower case
	level *Level            // that the map was made for
}

func defaultTypes() *typeMap {
	return &typeMap{types: map[string][]byte{
		"html": []byte("text/html"), "gif": []byte("image/gif"), "jpg": []byte("image/jpeg"),
	}}
}

// setTypes reads lines of "type extension ...". The first types block of a
// level replaces what was inherited, further ones add to it.
func setTypes(l *Level, d *parser.Directive) error {
	m := l.Conf.Core.Types
	if m.level != l {
		m = &typeMap{types: map[string][]byte{}, level: l}
		l.Conf.Core.Types = m
	}
	l.Entries(d, func(e *parser.Directive) error {
		for _, a := range e.Args {
			ext := lower(a.Value)
			if old, dup := m.types[ext]; dup {
				l.warnAt(e, a, "duplicate extension %q, content type: %q, previous content type: %q", ext, e.Name.Value, old)
			}
			m.types[ext] = []byte(e.Name.Value)
		}
		return nil
	})
	return nil
}

// contentType gives the type of x.uri by its extension.
func (x *Exchange) contentType() []byte {
	core := &x.loc.Conf.Core
	if x.extension >= 0 && x.extension < len(x.uri) {
		ext := x.uri[x.extension:]
		if t, ok := core.Types.types[string(ext)]; ok {
			return t
		}
		if folded := bytes.ToLower(ext); !bytes.Equal(folded, ext) {
			if t, ok := core.Types.types[string(folded)]; ok {
				return t
			}
		}
	}
	return x.keep(core.DefaultType)
}

// setRoot is root and alias: they exclude each other (ngx_http_core_root).
func setRoot(l *Level, d *parser.Directive) error {
	alias := d.Name.Value == "alias"
	other := "root"
	if !alias {
		other = "alias"
	}
	for cmd := range l.first {
		if cmd.Name == other {
			return say("%q directive is duplicate, %q directive was specified earlier", d.Name.Value, other)
		}
	}
	core, path := &l.Conf.Core, d.Args[0].Value
	if alias && l.Location.Kind == NamedLocation {
		return say("the \"alias\" directive cannot be used inside the named location")
	}
	for _, name := range []string{"document_root", "realpath_root"} {
		if strings.Contains(path, "$"+name) || strings.Contains(path, "${"+name+"}") {
			return say("the $%s variable cannot be used in the %q directive", name, d.Name.Value)
		}
	}
	if !alias {
		path = strings.TrimSuffix(path, "/")
	}
	if !strings.HasPrefix(path, "$") {
		path = l.c.opts.prefixed(path)
	}
	v, err := l.value(path)
	if err != nil {
		return err
	}
	core.Root, core.Alias, core.aliasLength = v, alias, 0
	if alias {
		core.aliasLength = len(l.Location.Name)
		if l.Location.Kind == RegexLocation {
			core.aliasLength = wholePath
		}
	}
	return nil
}

// wholePath is the aliasLength of an alias in a regex location: it names the
// file by itself.
const wholePath = -1

// documentRoot gives the value of root or alias.
func (x *Exchange) documentRoot() []byte {
	root := x.loc.Conf.Core.Root
	if root == nil {
		return x.keep(x.table.opts.prefixed("html"))
	}
	path := root.Bytes(x)
	// One that does not begin with a variable has had its prefix since it was
	// read; the prefix itself may be relative.
	if len(path) > 0 && path[0] == '/' || root.parts == nil || root.parts[0].text != "" {
		return path
	}
	return x.keep(x.table.opts.prefixed(string(path)))
}

// path maps the URI to a file name (ngx_http_map_uri_to_path).
func (x *Exchange) path() []byte {
	core := &x.loc.Conf.Core
	root := x.documentRoot()
	switch {
	case !core.Alias:
		return x.keep(root, x.uri)
	case core.aliasLength == wholePath:
		if x.addURIToAlias {
			return x.keep(root, x.uri)
		}
		return root
	case core.aliasLength > len(x.uri):
		return root
	}
	return x.keep(root, x.uri[core.aliasLength:])
}

// leavesRoot says whether a path climbs out of its folder. A URI has no ".."
// segments, but an alias without its final slash can make one: "/img../x" under
// "location /img { alias /srv/img/; }".
func leavesRoot(path []byte) bool {
	return bytes.Contains(path, []byte("/../")) || bytes.HasSuffix(path, []byte("/.."))
}

// fileMode asks the system about a file.
func (x *Exchange) fileMode(path []byte) (mode fs.FileMode, found bool) {
	info, err := x.stat(path)
	if err == nil {
		return info.Mode(), true
	}
	var pe *fs.PathError
	switch e := errnoOf(err); {
	case e == unix.ENOENT || e == unix.ENOTDIR || e == unix.ENAMETOOLONG:
	case errors.As(err, &pe):
		x.Logf(logCrit, "%s", SystemError(pe.Op+"()", string(path), e))
	}
	return 0, false
}
