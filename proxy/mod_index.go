package proxy

import (
	"errors"
	"syscall"

	"proxyctl/parser"
)

// ngx_http_index_module: which file answers for a folder.

func indexModule() Module {
	return Module{
		Name: "ngx_http_index_module", Phase: Content, Commands: []Command{{
			Name: "index", In: inHTTPLevels, Args: "1+", Repeat: true, Syntax: "file ...", Default: "index.html",
			Doc: "Sets the files that answer for a folder.", Set: setIndex,
		}},
		Init: func(c *Conf) {
			c.Index.Files = List[*Value]{Items: []*Value{{text: "index.html"}}}
		},
		Handler: func(*Conf) Handler { return serveIndex },
	}
}

// indexConf is what index says.
type indexConf struct {
	Files List[*Value]
}

func setIndex(l *Level, d *parser.Directive) error {
	for _, a := range d.Args {
		if a.Value == "" {
			return sayAt(a, "", "", "index %q in \"index\" directive is invalid", a.Value)
		}
		v, err := l.value(a.Value)
		if err != nil {
			return err
		}
		l.Conf.Index.Files.Add(l, v)
	}
	return nil
}

// serveIndex redirects a folder's URI to the first of its index files that
// exists.
func serveIndex(x *Exchange) Code {
	if !x.namesFolder() || !x.isMethod("GET") && !x.isMethod("HEAD") && !x.isMethod("POST") {
		return Declined
	}
	dirTested := false
	for _, v := range x.loc.Conf.Index.Files.Items {
		name := v.Bytes(x)
		if len(name) > 0 && name[0] == '/' {
			return x.redirectTo(name, x.args)
		}
		dir := x.path()
		path := x.keep(dir, name)
		if leavesRoot(path) {
			return 404
		}
		_, err := x.stat(path)
		if err == nil {
			return x.redirectTo(x.keep(x.uri, name), x.args)
		}
		var errno syscall.Errno
		errors.As(err, &errno)
		switch errno {
		case syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EACCES:
			return x.indexFailed(path, errno)
		case syscall.ENOENT:
		case syscall.ELOOP, syscall.EMLINK: // disable_symlinks
			return 403
		default:
			x.Logf(logCrit, "stat() %q failed (%d: %s)", path, int(errno), sysText(errno))
			return 500
		}
		if !dirTested {
			dirTested = true
			if code := x.testFolder(dir, path); code != OK {
				return code
			}
		}
	}
	return Declined
}

func (x *Exchange) indexFailed(path []byte, errno syscall.Errno) Code {
	if errno == syscall.EACCES {
		x.Logf(logError, "%q is forbidden (%d: %s)", path, int(errno), sysText(errno))
		return 403
	}
	if x.loc.Conf.Core.LogNotFound {
		x.Logf(logError, "%q is not found (%d: %s)", path, int(errno), sysText(errno))
	}
	return 404
}

// testFolder tells a missing folder from one without an index file, whose path is
// what is logged.
func (x *Exchange) testFolder(dir, path []byte) Code {
	info, err := x.stat(dir)
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return x.indexFailed(path, errno)
	}
	if !info.IsDir() {
		x.Logf(logAlert, "%q is not a directory", dir)
		return 500
	}
	return OK
}
