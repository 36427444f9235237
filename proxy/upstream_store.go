package proxy

import (
	"bytes"
	"io/fs"
	"os"
	"time"

	"proxyctl/parser"
)

// Answers that are stored as files, for others to serve
// (ngx_http_upstream_store).

// storeConf is what a level says about storing answers.
type storeConf struct {
	on     bool
	value  *Value // the path; nil: where the URI leads
	access fs.FileMode
	in     *Level // where it is said
}

// storeRows makes the rows about storing under the prefix of a module.
func storeRows(prefix string, of func(*Conf) *upstreamConf) []Command {
	row := func(name, defaults, doc string) Command {
		return Command{Name: prefix + name, In: inHTTPLevels, Default: defaults, Doc: doc}
	}
	return []Command{
		row("_store", "off", "Stores answers as files.").unlike("a path that a variable leads out of its folder by \"..\" is not written to, and an answer to HEAD is not stored", nil).with("1", "on | off | path", setStore(prefix, of)),
		row("_store_access", "user:rw", "Sets who may read and write the files.").with("1-3", "users:permissions ...",
			setFileAccess(func(c *Conf) *fs.FileMode { return &of(c).store.access })),
	}
}

// setStore reads "on", "off" or a path with variables.
func setStore(prefix string, of func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		u, text := of(l.Conf), d.Args[0].Value
		s := &u.store
		s.on, s.value, s.in = text != "off", nil, l
		switch {
		case text == "off":
			return nil
		case text == "":
			return sayAt(d.Args[0], "", "on, or a path: /var/www$uri", "empty path")
		case u.cache.in == l && u.cache.on():
			return sayAt(d.Name, "", "keep answers in one way", "%q directive is incompatible with \"%s_cache\"", d.Name.Value, prefix)
		case text == "on":
			return nil
		}
		var err error
		s.value, err = l.value(text)
		return err
	}
}

// finishStore settles what is said nearer: storing ends caching, and the other
// way round.
func (u *upstreamConf) finishStore(l *Level) {
	switch {
	case u.store.in == l && u.store.on:
		u.cache.zone, u.cache.value = nil, nil
	case u.cache.on():
		u.store.on = false
	}
}

// answerFile is an answer on its way to its place. It is written by one goroutine
// at a time and may be read by another.
type answerFile struct {
	f        *os.File
	name     string
	to       string
	size     int64
	modified time.Time // zero: when it was written
	failed   bool
}

// Write appends to the file.
func (a *answerFile) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.size)
	a.size += int64(n)
	if err != nil {
		a.failed = true
		return n, SystemError("pwrite()", a.name, err)
	}
	return n, nil
}

// ReadAt reads what has been written.
func (a *answerFile) ReadAt(p []byte, offset int64) (int, error) { return a.f.ReadAt(p, offset) }

// Size is how much has been written.
func (a *answerFile) Size() int64 { return a.size }

// beginStore makes a file for the answer whose head has come, if it is to be
// stored. An answer that is passed on unbuffered is not, as in nginx.
//
// Unlike nginx, which follows ".." wherever it stands: what a client may say
// names a file below the folder, or none.
func (x *Exchange) beginStore() {
	u := &x.upstream
	s := &u.conf.store
	if !s.on || x.post != afterNothing || u.answer.status != 200 || !u.answer.buffering || u.isHead {
		return
	}
	path := x.path()
	if s.value != nil {
		path = s.value.Append(nil, x)
		if len(path) == 0 {
			return
		}
		if ways(path) > ways([]byte(s.value.source())) || bytes.IndexByte(path, 0) >= 0 {
			x.logUpstream(logError, "the answer is not stored: unsafe path %q", path)
			return
		}
	}
	f, name, err := u.conf.tempPath.create(false)
	if err != nil {
		x.logUpstream(logCrit, "%s", err)
		return
	}
	u.stored = &answerFile{f: f, name: name, to: string(bytes.Clone(path))}
	for i := range u.fields {
		if u.kinds[i] == fieldLastModified {
			if t, ok := parseHTTPTime(u.fields[i].Value); ok {
				u.stored.modified = time.Unix(t, 0)
			}
		}
	}
}

// ways counts the segments of a path that lead out of a folder.
func ways(path []byte) (n int) {
	for segment := range bytes.SplitSeq(path, []byte("/")) {
		if string(segment) == ".." {
			n++
		}
	}
	return n
}

// commitStore puts a whole answer where it belongs.
func (x *Exchange) commitStore() {
	u := &x.upstream
	a := u.stored
	if a == nil || a.failed || u.answer.contentLength >= 0 && u.answer.contentLength != a.size {
		return
	}
	access := u.conf.store.access
	m := fileMove{from: a.name, to: a.to, access: access, folders: folderAccess(access), modified: a.modified, createPath: true}
	if err := m.run(); err != nil {
		x.logUpstream(logCrit, "%s", err)
		return
	}
	a.name = ""
}

// leaveStore removes what has not become whole.
func (x *Exchange) leaveStore() {
	if a := x.upstream.stored; a != nil {
		_ = a.f.Close()
		if a.name != "" {
			_ = os.Remove(a.name)
		}
		x.upstream.stored = nil
	}
}
