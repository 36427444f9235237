package proxy

import (
	"cmp"
	"os"
	"slices"
	"syscall"
	"time"
)

// ngx_http_autoindex_module: lists of the files in a folder. How they look is
// in mod_autoindex_format.go.

func autoindexModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_autoindex_module",
		Commands: []Command{
			Flag(Command{Name: "autoindex", In: in, Default: "off", Doc: "Lists the files of a folder."}, func(c *Conf) *bool { return &c.Autoindex.on }),
			Enum(Command{Name: "autoindex_format", In: in, Default: "html", Doc: "Sets the format of the list."}, []string{"html", "json", "jsonp", "xml"}, func(c *Conf) *int { return &c.Autoindex.format }),
			Flag(Command{Name: "autoindex_localtime", In: in, Default: "off", Doc: "Shows times in the local time zone."}, func(c *Conf) *bool { return &c.Autoindex.local }),
			Flag(Command{Name: "autoindex_exact_size", In: in, Default: "on", Doc: "Shows sizes in bytes."}, func(c *Conf) *bool { return &c.Autoindex.exact }),
		},
		Init:  func(c *Conf) { c.Autoindex.exact = true },
		Phase: Content,
		Handler: func(c *Conf) Handler {
			if !c.Autoindex.on {
				return nil
			}
			return c.Autoindex.handle
		},
	}
}

// The words of autoindex_format, by index.
const (
	indexHTML = iota
	indexJSON
	indexJSONP
	indexXML
)

// autoindexConf is what the module knows at a level.
type autoindexConf struct {
	on, local, exact bool
	format           int
}

// indexEntry is one file of a list.
type indexEntry struct {
	name      string
	dir, file bool
	modified  time.Time
	size      int64
}

// handle answers with the list (ngx_http_autoindex_handler).
func (c *autoindexConf) handle(x *Exchange) Code {
	if x.uri[len(x.uri)-1] != '/' || !x.isMethod("GET") && !x.isMethod("HEAD") {
		return Declined
	}
	x.discardBody()
	dir := string(x.path())
	if leavesRoot([]byte(dir)) {
		return 404
	}
	callback := []byte(nil)
	format := c.format
	if format == indexJSONP {
		var ok bool
		if callback, ok = x.indexCallback(); !ok {
			return 400
		}
		if len(callback) == 0 {
			format = indexJSON
		}
	}
	entries, code := x.listFolder(dir)
	if code != OK {
		return code
	}
	a := &x.Out
	a.Status, a.typeLength = 200, 0
	switch format {
	case indexJSON:
		a.ContentType = []byte("application/json")
	case indexJSONP:
		a.ContentType = []byte("application/javascript")
	case indexXML:
		a.ContentType, a.Charset = []byte("text/xml"), []byte("utf-8")
	default:
		a.ContentType = textHTML
	}
	if code := x.SendHead(); code != OK {
		return code
	}
	if x.headerOnly {
		return Done
	}
	var body []byte
	switch format {
	case indexJSON, indexJSONP:
		body = appendIndexJSON(body, entries, callback)
	case indexXML:
		body = appendIndexXML(body, entries)
	default:
		body = c.appendHTML(body, x, entries)
	}
	if x.WriteBody(body, true) != nil {
		return Abort
	}
	return Done
}

// maxCallback is how long the name of a JSONP callback may be.
const maxCallback = 128

// indexCallback gives the name in the argument "callback", if it is one.
func (x *Exchange) indexCallback() ([]byte, bool) {
	name, _ := appendArgument(nil, x, "callback")
	if len(name) > maxCallback {
		x.Logf(logInfo, "client sent too long callback name: \"%s\"", name)
		return nil, false
	}
	for _, c := range name {
		if !isNameByte(c) && c != '.' {
			x.Logf(logInfo, "client sent invalid callback name: \"%s\"", name)
			return nil, false
		}
	}
	return name, true
}

// listFolder gives the files of a folder, folders first, by name.
func (x *Exchange) listFolder(dir string) ([]indexEntry, Code) {
	found, code := x.readFolder(dir)
	if code != OK {
		return nil, code
	}
	entries := make([]indexEntry, 0, len(found))
	for _, f := range found {
		path := dir + f.Name()
		info, err := os.Stat(path)
		if e := errnoOf(err); e == syscall.ENOENT || e == syscall.ELOOP { // a link that leads nowhere
			info, err = os.Lstat(path)
		}
		if err != nil {
			x.Logf(logCrit, "%s", SystemError("stat()", path, err))
			if errnoOf(err) == syscall.EACCES {
				continue
			}
			return nil, 500
		}
		entries = append(entries, indexEntry{f.Name(), info.IsDir(), info.Mode().IsRegular(), info.ModTime(), info.Size()})
	}
	slices.SortFunc(entries, func(a, b indexEntry) int {
		if a.dir != b.dir {
			if a.dir {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	return entries, OK
}
