package proxy

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// ngx_http_random_index_module: any file of a folder answers for it.

func randomIndexModule() Module {
	return Module{
		Name: "ngx_http_random_index_module",
		Commands: []Command{
			Flag(Command{Name: "random_index", In: InLocation, Default: "off", Doc: "Answers for a folder with one of its files."}, func(c *Conf) *bool { return &c.RandomIndex }),
		},
		Phase: Content,
		Handler: func(c *Conf) Handler {
			if !c.RandomIndex {
				return nil
			}
			return serveRandomIndex
		},
	}
}

// serveRandomIndex redirects to one of the files (ngx_http_random_index_handler).
func serveRandomIndex(x *Exchange) Code {
	if x.uri[len(x.uri)-1] != '/' || !x.isMethod("GET") && !x.isMethod("HEAD") && !x.isMethod("POST") {
		return Declined
	}
	dir := string(x.path())
	if leavesRoot([]byte(dir)) {
		return 404
	}
	entries, code := x.readFolder(dir)
	if code != OK {
		return code
	}
	var names []string
	for _, e := range entries {
		if isRegular(dir, e) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return Declined
	}
	return x.redirectTo(x.keep(x.uri, names[rand.IntN(len(names))]), x.args)
}

// readFolder lists a folder without what is hidden, or gives the status to
// answer with.
func (x *Exchange) readFolder(dir string) ([]fs.DirEntry, Code) {
	f, err := os.Open(dir)
	if err == nil {
		defer f.Close()
		var entries []fs.DirEntry
		if entries, err = f.ReadDir(-1); err == nil {
			visible := entries[:0]
			for _, e := range entries {
				if e.Name()[0] != '.' {
					visible = append(visible, e)
				}
			}
			return visible, OK
		}
	}
	if len(dir) > 1 {
		dir = filepath.Clean(dir)
	}
	level, code := logCrit, Code(500)
	switch errnoOf(err) {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ENAMETOOLONG:
		level, code = logError, 404
	case syscall.EACCES:
		level, code = logError, 403
	}
	x.Logf(level, "%s", SystemError("opendir()", dir, err))
	return nil, code
}

// isRegular says whether an entry is a file, or a link to one.
func isRegular(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.Type().IsRegular()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.Mode().IsRegular()
}
