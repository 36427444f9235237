package cache

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// load puts the files that an earlier process left into the index. Until it has
// found all of them, those who ask look at the disk themselves.
func (z *Zone) load() {
	o := z.options()
	s := newStretch(o.Loader)
	err := filepath.WalkDir(o.Path, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // it may just have been removed
		case d.IsDir() && strings.HasSuffix(path, "/temp"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		z.found(path, d, o.Log)
		if s.over() {
			if !z.sleep(o.Loader.Sleep) {
				return fs.SkipAll
			}
			*s = *newStretch(o.Loader)
		}
		select {
		case <-z.stop:
			return fs.SkipAll
		default:
			return nil
		}
	})
	select {
	case <-z.stop:
		return
	default:
	}
	if err != nil {
		o.Log(Crit, err.Error())
	}
	z.mu.Lock()
	z.cold = false
	size := z.size
	z.mu.Unlock()
	bsize := int64(512)
	var st unix.Statfs_t
	if unix.Statfs(o.Path, &st) == nil {
		bsize = st.Bsize
	}
	o.Log(Notice, fmt.Sprintf("http file cache: %s %.3fM, bsize: %d", o.Path, float64(size)/(1<<20), bsize))
}

// found notes a file. Unlike nginx, which deletes them, files that are not of
// the cache are let alone.
func (z *Zone) found(path string, d fs.DirEntry, log Log) {
	key, ok := keyOf(d.Name())
	if !ok || !d.Type().IsRegular() {
		return
	}
	info, err := d.Info()
	if err != nil {
		return
	}
	id, length, size := inspect(info)
	if length < headerSize {
		log(Crit, fmt.Sprintf("cache file %q is too small", path))
	} else if z.index(key, id, size) {
		return
	}
	if err := os.Remove(path); err != nil {
		log(Crit, "unlink() "+quoteError(path, err))
	}
}

// index adds a file that is there. False when there is no room for it: what is
// in the index already was asked for.
func (z *Zone) index(key Key, id fileID, size int64) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	e := z.entries[key]
	if e == nil {
		if len(z.entries) >= z.opts.Entries {
			z.opts.Log(Alert, "the keys zone is full")
			return false
		}
		e = z.add(key)
		e.uses = 1
		z.setFile(e, id, 0, size, true)
	}
	z.touch(e)
	return true
}
