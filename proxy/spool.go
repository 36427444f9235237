package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Temporary files of bodies in both directions.

// create opens a new file in the folder, which it makes when it is missing:
// nginx makes it when it starts. unlink removes the name at once, so that
// nothing is left behind whatever happens.
func (p tempPath) create(unlink bool) (*os.File, string, error) {
	for range 100 {
		name := p.name(rand.Uint64N(1e10))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil:
			if unlink {
				_ = os.Remove(name)
			}
			return f, name, nil
		case errors.Is(err, fs.ErrExist):
		case errors.Is(err, fs.ErrNotExist):
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return nil, name, SystemError("mkdir()", filepath.Dir(name), err)
			}
		default:
			return nil, name, SystemError("open()", name, err)
		}
	}
	return nil, p.path, fmt.Errorf("no free name for a temporary file in %q", p.path)
}

// name gives the path of file number n: ten digits, below folders named after
// the last of them (ngx_create_hashed_filename).
func (p tempPath) name(n uint64) string {
	file := fmt.Sprintf("%010d", n)
	path, end := p.path, len(file)
	for _, level := range p.levels {
		path = filepath.Join(path, file[end-level:end])
		end -= level
	}
	return filepath.Join(path, file)
}
