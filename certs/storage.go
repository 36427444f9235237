package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
)

// folder is where we keep what must outlive the process: accounts and
// certificates. Files are put in place whole, readable by their owner alone,
// in folders nobody else can enter. It is also certmagic's storage for an
// account.
//
// Unlike certmagic's own file storage it takes the rights that the process was
// started with for every touch, and its locks end with the process that holds
// them, however it ends.
type folder struct {
	path   string
	asRoot func(func() error) error
	locks  *lockSet
}

// lockSet are the locks that this process holds, by file.
type lockSet struct {
	mu   sync.Mutex
	held map[string]*os.File
}

func newFolder(path string, asRoot func(func() error) error) *folder {
	return &folder{path: path, asRoot: asRoot, locks: &lockSet{held: map[string]*os.File{}}}
}

// sub is a folder in this one.
func (f *folder) sub(name string) *folder {
	return f.at(filepath.Join(f.path, name))
}

// at is a folder elsewhere.
func (f *folder) at(path string) *folder {
	return &folder{path: path, asRoot: f.asRoot, locks: f.locks}
}

// file gives the path of a key, which never leads out of the folder.
func (f *folder) file(key string) string {
	return filepath.Join(f.path, filepath.FromSlash(filepath.Clean("/"+key)))
}

// Store puts a value in place.
func (f *folder) Store(_ context.Context, key string, value []byte) error {
	return f.asRoot(func() error {
		name := f.file(key)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		return writeFile(name, value)
	})
}

// Load reads a value. A missing one is fs.ErrNotExist.
func (f *folder) Load(_ context.Context, key string) (value []byte, err error) {
	err = f.asRoot(func() error {
		value, err = os.ReadFile(f.file(key))
		return err
	})
	return value, err
}

// Delete removes a value, or all values below it.
func (f *folder) Delete(_ context.Context, key string) error {
	return f.asRoot(func() error { return os.RemoveAll(f.file(key)) })
}

// Exists says whether there is a value or a folder.
func (f *folder) Exists(_ context.Context, key string) bool {
	return f.asRoot(func() error {
		_, err := os.Stat(f.file(key))
		return err
	}) == nil
}

// List gives the keys below one, without files that are still being written.
func (f *folder) List(_ context.Context, key string, recursive bool) (keys []string, err error) {
	err = f.asRoot(func() error {
		root := f.file(key)
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == root {
				return err
			}
			if strings.HasPrefix(d.Name(), ".") {
				return nil
			}
			rel, err := filepath.Rel(f.path, path)
			if err != nil {
				return err
			}
			keys = append(keys, filepath.ToSlash(rel))
			if d.IsDir() && !recursive {
				return fs.SkipDir
			}
			return nil
		})
	})
	return keys, err
}

// Stat tells about a value.
func (f *folder) Stat(_ context.Context, key string) (info certmagic.KeyInfo, err error) {
	err = f.asRoot(func() error {
		fi, err := os.Stat(f.file(key))
		if err != nil {
			return err
		}
		info = certmagic.KeyInfo{Key: key, Modified: fi.ModTime(), Size: fi.Size(), IsTerminal: !fi.IsDir()}
		return nil
	})
	return info, err
}

// lockPause is how often a lock that somebody else has is tried again.
const lockPause = 100 * time.Millisecond

// Lock waits until nobody else has the lock of a name.
func (f *folder) Lock(ctx context.Context, name string) error {
	for {
		err := f.tryLock(name)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

func (f *folder) lockFile(name string) string {
	return filepath.Join(f.path, "locks", safeName(name)+".lock")
}

func (f *folder) tryLock(name string) error {
	path := f.lockFile(name)
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	if f.locks.held[path] != nil {
		return syscall.EWOULDBLOCK
	}
	var file *os.File
	err := f.asRoot(func() (err error) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return err
	}
	f.locks.held[path] = file
	return nil
}

// Unlock gives a lock back. Its file stays: removing it would let two have it.
func (f *folder) Unlock(_ context.Context, name string) error {
	path := f.lockFile(name)
	f.locks.mu.Lock()
	defer f.locks.mu.Unlock()
	file := f.locks.held[path]
	if file == nil {
		return fmt.Errorf("lock %q is not held", name)
	}
	delete(f.locks.held, path)
	return file.Close()
}
