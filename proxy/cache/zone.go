// Package cache keeps answers in files, and an index of them in memory. The
// files are nginx's own, so that either program serves what the other stored.
package cache

import (
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Key names an answer: the MD5 sum of the text that it is asked for by, or of
// that and the fields of the request that it varies with.
type Key [md5.Size]byte

// Options say how a Zone keeps its files.
type Options struct {
	Path     string
	Levels   []int         // how many digits of the key name each folder, from the key's end
	Entries  int           // how many answers the index may know
	Inactive time.Duration // after which an answer that nobody asked for is removed
	MaxSize  int64         // bytes on disk; 0 for no limit
	MinFree  int64         // bytes that stay free on the disk
	Loader   Pace
	Manager  Pace
	Log      Log
}

// Pace bounds how much is done at a stretch.
type Pace struct {
	Files     int
	Threshold time.Duration // ends a stretch, too
	Sleep     time.Duration // between stretches
}

// Severity is how bad it is what a Zone tells.
type Severity int

// The severities, as nginx has them.
const (
	Alert Severity = iota
	Crit
	Notice
	Info
)

// Log takes what there is to tell.
type Log func(s Severity, text string)

// Zone is an index of answers and the folder of their files. Safe for
// concurrent use.
type Zone struct {
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup

	mu        sync.Mutex
	opts      Options
	entries   map[Key]*entry
	order     entry // a ring: newer is what was not asked for the longest, older what was asked for last
	size      int64 // of the files, on disk
	cold      bool  // the files have not all been found yet
	watermark int   // above so many entries some are removed; 0: not yet known
}

// entry is what the index knows about one answer.
type entry struct {
	key          Key
	newer, older *entry
	holds        int // requests and removals that are busy with it
	uses         int
	exists       bool
	updating     bool // somebody asks the server
	deleting     bool
	fault        int // status that is remembered in place of an answer
	expires      int64
	valid        int64 // of fault
	lockEnds     time.Time
	updated      chan struct{} // closed when updating ends; nil while nobody waits
	file         fileID
	bodyStart    int
	size         int64
}

// NewZone makes a Zone. Nothing is read or removed before Start.
func NewZone(o Options) *Zone {
	z := &Zone{opts: o, entries: map[Key]*entry{}, cold: true, stop: make(chan struct{})}
	z.order.newer, z.order.older = &z.order, &z.order
	return z
}

// Start begins to find the files that are there, and to remove those that are
// too many.
func (z *Zone) Start() {
	z.once.Do(func() {
		z.done.Go(z.load)
		z.done.Go(z.manage)
	})
}

// Stop ends what Start began, and waits for it.
func (z *Zone) Stop() {
	close(z.stop)
	z.done.Wait()
}

// Configure changes the options, for Compatible ones.
func (z *Zone) Configure(o Options) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.opts = o
}

// Compatible says whether a Zone can go on under other options: not when its
// files lie elsewhere then.
func (o *Options) Compatible(with Options) error {
	if o.Path != with.Path {
		return fmt.Errorf("uses the %q cache path while previously it used the %q cache path", with.Path, o.Path)
	}
	if !slices.Equal(o.Levels, with.Levels) {
		return errors.New("had previously different levels")
	}
	return nil
}

func (z *Zone) options() Options {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.opts
}

// now is the time as files have it.
func now() int64 { return time.Now().Unix() }

// add makes an entry, nil when the index is full. z.mu is held.
func (z *Zone) add(key Key) *entry {
	if len(z.entries) >= z.opts.Entries {
		z.watermark = len(z.entries) - len(z.entries)/8
		if !z.removeOldest() || len(z.entries) >= z.opts.Entries {
			return nil
		}
	}
	e := &entry{key: key}
	e.newer, e.older = e, e
	z.entries[key] = e
	return e
}

// touch notes that an entry was asked for. z.mu is held.
func (z *Zone) touch(e *entry) {
	e.unlink()
	e.newer, e.older = &z.order, z.order.older
	e.older.newer, z.order.older = e, e
	e.expires = now() + int64(z.opts.Inactive/time.Second)
}

func (e *entry) unlink() { e.newer.older, e.older.newer = e.older, e.newer }

// forget takes an entry out of the index. z.mu is held.
func (z *Zone) forget(e *entry) {
	e.unlink()
	delete(z.entries, e.key)
}

// setFile notes what an entry's file is now. z.mu is held.
func (z *Zone) setFile(e *entry, id fileID, bodyStart int, size int64, exists bool) {
	z.size += size - e.size
	e.file, e.bodyStart, e.size, e.exists = id, bodyStart, size, exists
}

// endUpdate wakes those who wait for an update. z.mu is held.
func (e *entry) endUpdate() {
	e.updating = false
	if e.updated != nil {
		close(e.updated)
		e.updated = nil
	}
}

// remove deletes the file of an entry that nobody holds, and the entry unless
// somebody asks for it meanwhile. z.mu is held, but not while the file goes.
func (z *Zone) remove(e *entry) {
	if e.exists {
		z.setFile(e, fileID{}, 0, 0, false)
		e.holds++
		e.deleting = true
		name := z.opts.name(e.key)
		z.mu.Unlock()
		err := os.Remove(name)
		z.mu.Lock()
		e.holds--
		e.deleting = false
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			z.opts.Log(Crit, "unlink() "+quoteError(name, err))
		}
	}
	if e.holds == 0 && !e.exists {
		z.forget(e)
	}
}

// removeOldest removes the one answer that was not asked for the longest, of
// those that nobody is busy with. z.mu is held, but not all the time.
func (z *Zone) removeOldest() bool {
	e := z.order.newer
	for tries := 0; e != &z.order && tries < 20; tries++ {
		if e.holds == 0 {
			z.remove(e)
			return true
		}
		e = e.newer
	}
	return false
}

// expire removes answers that nobody asked for. It returns how long to wait
// until there may be more to do: 0 when the stretch is over.
func (z *Zone) expire(s *stretch) time.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	const most = 10 * time.Second
	for {
		e := z.order.newer
		if e == &z.order {
			return most
		}
		if left := time.Duration(e.expires-now()) * time.Second; left > 0 {
			return min(left, most)
		}
		if e.holds > 0 { // it is used, however slowly
			z.touch(e)
		} else {
			z.remove(e)
		}
		if s.over() {
			return 0
		}
	}
}

// shrink removes answers while there are too many or they are too large. It
// returns how long to wait until there may be more to do: 0 when the stretch is
// over.
func (z *Zone) shrink(s *stretch) time.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	for z.tooLarge() {
		if !z.removeOldest() {
			return time.Second
		}
		if s.over() {
			return 0
		}
	}
	return 10 * time.Second
}

// tooLarge says whether something has to go. z.mu is held.
func (z *Zone) tooLarge() bool {
	switch {
	case len(z.entries) == 0:
		return false
	case z.opts.MaxSize > 0 && z.size >= z.opts.MaxSize, z.watermark > 0 && len(z.entries) >= z.watermark:
		return true
	case z.opts.MinFree == 0:
		return false
	}
	var st unix.Statfs_t
	return unix.Statfs(z.opts.Path, &st) == nil && int64(st.Bavail)*st.Bsize <= z.opts.MinFree
}

// manage removes what is too old or too much, until Stop.
func (z *Zone) manage() {
	for {
		s := newStretch(z.options().Manager)
		wait := z.expire(s)
		if wait > 0 {
			wait = min(wait, z.shrink(s))
		}
		if wait == 0 {
			wait = s.pace.Sleep
		}
		if !z.sleep(wait) {
			return
		}
	}
}

// sleep waits. False when the Zone was stopped.
func (z *Zone) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-z.stop:
		return false
	}
}

// stretch counts what is done before the next rest.
type stretch struct {
	pace  Pace
	files int
	began time.Time
}

func newStretch(p Pace) *stretch { return &stretch{pace: p, began: time.Now()} }

// over counts one more file, and says whether it is time to rest.
func (s *stretch) over() bool {
	s.files++
	return s.files >= s.pace.Files || time.Since(s.began) >= s.pace.Threshold
}

// quoteError says which call failed on which file, in nginx's way.
func quoteError(name string, err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return fmt.Sprintf("%q failed (%d: %s)", name, int(e), e)
	}
	return fmt.Sprintf("%q failed (%v)", name, err)
}
