package proxy

import (
	"bytes"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"proxyctl/parser"
)

// disable_symlinks: how files are opened (ngx_open_file_wrapper).

// symlinkRule is what disable_symlinks says.
type symlinkRule struct {
	how  symlinks
	from *Value // the part of the path that is not looked at
}

type symlinks uint8

const (
	symlinksFollowed symlinks = iota
	symlinksRefused
	symlinksOfOwner // followed when they belong to whom the target belongs
)

func setDisableSymlinks(l *Level, d *parser.Directive) error {
	r, given := symlinkRule{}, false
	for _, a := range d.Args {
		if path, ok := strings.CutPrefix(a.Value, "from="); ok {
			v, err := l.value(path)
			if err != nil {
				return err
			}
			r.from = v
			continue
		}
		given = true
		switch a.Value {
		case "off":
			r.how = symlinksFollowed
		case "on":
			r.how = symlinksRefused
		case "if_not_owner":
			r.how = symlinksOfOwner
		default:
			return sayAt(a, "", "one of off, on, if_not_owner", "invalid parameter %q", a.Value)
		}
	}
	switch {
	case !given:
		return say("\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter")
	case len(d.Args) == 2 && r.from == nil:
		return say("duplicate parameters \"%s %s\"", d.Args[0].Value, d.Args[1].Value)
	case r.from != nil && r.how == symlinksFollowed:
		return say("\"from=\" cannot be used with \"off\" parameter")
	}
	l.Conf.Core.Symlinks = r
	return nil
}

// open opens a file for reading, as disable_symlinks says.
func (x *Exchange) open(path []byte) (*os.File, error) {
	rule := &x.loc.Conf.Core.Symlinks
	if rule.how == symlinksFollowed {
		return os.OpenFile(string(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	w := symlinkWalk{path: string(path), how: rule.how}
	if rule.from != nil {
		w.trust(rule.from.Bytes(x), path)
	}
	fd, err := w.open()
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: w.path, Err: err}
	}
	return os.NewFile(uintptr(fd), w.path), nil
}

// stat asks about a file, as disable_symlinks says.
func (x *Exchange) stat(path []byte) (fs.FileInfo, error) {
	if x.loc.Conf.Core.Symlinks.how == symlinksFollowed {
		return os.Stat(string(path))
	}
	f, err := x.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// symlinkWalk opens a path folder by folder.
type symlinkWalk struct {
	path string
	from int // the length of what is opened as it is
	how  symlinks
}

// trust takes the beginning of the path out of the rule
// (ngx_http_set_disable_symlinks).
func (w *symlinkWalk) trust(from, path []byte) {
	n := len(from)
	switch {
	case n == 0 || !bytes.HasPrefix(path, from):
	case n == len(path):
		w.how = symlinksFollowed
	case path[n] == '/':
		w.from = n
	case path[n-1] == '/':
		w.from = n - 1
	}
}

const (
	searchFolder = unix.O_PATH | unix.O_DIRECTORY | unix.O_NONBLOCK | unix.O_CLOEXEC
	readFile     = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
)

func (w *symlinkWalk) open() (int, error) {
	if w.how == symlinksFollowed {
		return unix.Open(w.path, readFile, 0)
	}
	start, rest := ".", w.path
	switch {
	case w.from > 0:
		start, rest = w.path[:w.from], w.path[w.from+1:]
	case strings.HasPrefix(w.path, "/"):
		start, rest = "/", w.path[1:]
	}
	at, err := unix.Open(start, searchFolder, 0)
	for err == nil {
		name, behind, more := strings.Cut(rest, "/")
		if !more {
			break
		}
		if rest = behind; name == "" {
			continue
		}
		folder := at
		at, err = w.step(folder, name, searchFolder)
		_ = unix.Close(folder)
	}
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(at) }()
	if rest == "" { // the path ends in a slash
		return unix.Openat(at, ".", readFile, 0)
	}
	return w.step(at, rest, readFile)
}

// step opens one name of the path. For links of the same owner it compares who
// owns the name with who owns what was opened, so that it does not matter when
// the name becomes a link.
func (w *symlinkWalk) step(at int, name string, flags int) (int, error) {
	if w.how == symlinksRefused {
		return unix.Openat(at, name, flags|unix.O_NOFOLLOW, 0)
	}
	fd, err := unix.Openat(at, name, flags, 0)
	if err != nil {
		return -1, err
	}
	var link, target unix.Stat_t
	err = unix.Fstatat(at, name, &link, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Fstat(fd, &target)
	}
	if err == nil && link.Uid != target.Uid {
		err = unix.ELOOP
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
