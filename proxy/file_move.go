package proxy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/parser"
)

// Files that get their place: what clients put and what servers answer is written
// elsewhere first, so that it appears whole.

// fileMove is a file that gets another name (ngx_ext_rename_file).
type fileMove struct {
	from, to   string
	access     fs.FileMode // 0: as it is
	folders    fs.FileMode // access to those that are made
	modified   time.Time   // zero: as it is
	createPath bool        // folders that are missing are made
}

// run renames the file, or copies it to another file system.
func (m *fileMove) run() error {
	if m.access != 0 {
		if err := os.Chmod(m.from, m.access); err != nil {
			return SystemError("chmod()", m.from, err)
		}
	}
	if !m.modified.IsZero() {
		if err := setModified(m.from, m.modified); err != nil {
			return err
		}
	}
	err := unix.Rename(m.from, m.to)
	if errors.Is(err, unix.ENOENT) && m.createPath {
		if err := createFullPath(m.to, m.folders); err != nil {
			return SystemError("mkdir()", m.to, err)
		}
		err = unix.Rename(m.from, m.to)
	}
	switch {
	case errors.Is(err, unix.EXDEV):
		return m.across()
	case err != nil:
		return m.failed(m.from, err)
	}
	return nil
}

// across moves to another file system: what is copied there gets its name when it
// is whole.
func (m *fileMove) across() error {
	name := fmt.Sprintf("%s.%0*d", m.to, tempNameSize, rand.Uint64N(1e10))
	err := copyFile(m.from, name, 0)
	if err == nil {
		if err = unix.Rename(name, m.to); err != nil {
			err = m.failed(name, err)
		}
	}
	if err != nil {
		_ = os.Remove(name)
		return err
	}
	if err := os.Remove(m.from); err != nil {
		return SystemError("unlink()", m.from, err)
	}
	return nil
}

func (m *fileMove) failed(from string, err error) error {
	return errorWithCode(fmt.Sprintf("rename() \"%s\" to \"%s\" failed", from, m.to), err)
}

// createFullPath makes the folders that a file lies in (ngx_create_full_path).
func createFullPath(path string, access fs.FileMode) error {
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		err := os.Mkdir(path[:i], access)
		if err != nil && !errors.Is(err, fs.ErrExist) && errnoOf(err) != unix.EACCES {
			return err
		}
	}
	return nil
}

// copyFile copies a file with its permissions and its time (ngx_copy_file).
func copyFile(from, to string, flags int) error {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return SystemError("open()", from, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return SystemError("fstat()", from, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", from)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return SystemError("open()", to, err)
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Chmod(info.Mode().Perm()) // whatever the umask says
	}
	if failed := out.Close(); err == nil {
		err = failed
	}
	if err != nil {
		return SystemError("write()", to, err)
	}
	return setModified(to, info.ModTime())
}

// setModified sets when a file was written.
func setModified(path string, t time.Time) error {
	if err := os.Chtimes(path, time.Now(), t); err != nil {
		return SystemError("utimes()", path, err)
	}
	return nil
}

// folderAccess lets whoever may read a file search a folder.
func folderAccess(access fs.FileMode) fs.FileMode { return access | access&0o444>>2 }

// setFileAccess reads who may do what with a file (ngx_conf_set_access_slot).
func setFileAccess(field func(*Conf) *fs.FileMode) func(*Level, *parser.Directive) error {
	shifts := map[string]int{"user": 6, "group": 3, "all": 0}
	rights := map[string]fs.FileMode{"rw": 6, "r": 4}
	return func(l *Level, d *parser.Directive) error {
		access, user := fs.FileMode(0), fs.FileMode(0o600)
		for _, a := range d.Args {
			who, what, _ := strings.Cut(a.Value, ":")
			shift, known := shifts[who]
			right, valid := rights[what]
			if !known || !valid {
				return sayAt(a, "Y009", "user:rw, group:r, all:r and so on", "invalid value %q", a.Value)
			}
			if who == "user" {
				user = 0
			}
			access |= right << shift
		}
		*field(l.Conf) = access | user
		return nil
	}
}
