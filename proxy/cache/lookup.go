package cache

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Outcome is what asking a Zone comes to.
type Outcome int

// The outcomes.
const (
	Miss     Outcome = iota // not there: whoever asks the server stores the answer
	Scarce                  // not there, and not to be stored
	Hit                     // there
	Expired                 // there, but too old; this request is to ask the server
	Updating                // there, but too old; another request asks the server
	Fault                   // the status of a failure is remembered
	Busy                    // another request fetches it: Wait, and Open again
)

// Lookup is one request's business with a Zone. It belongs to one goroutine;
// Close ends it.
type Lookup struct {
	Meta                      // of the answer found, or of the one to be stored
	Room        int           // how many bytes a file may have before the body
	MinUses     int           // how often an answer must have been asked for to be stored
	Lock        bool          // only one request fetches an answer
	LockTimeout time.Duration // how long others wait for it
	LockAge     time.Duration // after which one of them tries itself
	// Each calls f for the values of a field of the request, in order.
	Each func(name []byte, f func(value []byte))
	Log  Log

	zone      *Zone
	text      []byte
	crc       uint32
	key, main Key
	variant   Key
	headStart int

	entry     *entry
	secondary bool // key is that of a variant
	updating  bool // this request is the one that asks
	lockEnds  time.Time
	waitEnds  time.Time
	useWhile  bool // the answer found may be used while it is updated
	useIf     bool // or if asking fails
	closed    bool
	fault     int

	file      *os.File
	id        fileID
	length    int64
	bodyStart int
	beginning []byte // the file up to its body
}

// Lookup begins to look for the answer with a key, which must live as long as
// the Lookup.
func (z *Zone) Lookup(key []byte) *Lookup {
	l := &Lookup{zone: z, text: key, crc: sum(key), headStart: headerSize + len(keyPrefix) + len(key) + 1}
	l.LastModified = -1
	l.main = md5.Sum(key)
	l.key = l.main
	return l
}

// HeadStart is where the head of the answer begins in a file: Room must be
// larger.
func (l *Lookup) HeadStart() int { return l.headStart }

// Open looks for the answer.
func (l *Lookup) Open() Outcome {
	fresh, e := l.hold()
	if e == nil {
		return Scarce
	}
	if !fresh && e.fault != 0 {
		l.fault = e.fault
		return Fault
	}
	// an index that is not complete does not know what is on disk
	look, otherwise := e.exists, Miss
	switch {
	case !fresh && !e.exists && e.uses < l.MinUses:
		return Scarce
	case fresh:
		if look = e.cold; l.MinUses > 1 {
			otherwise = Scarce
		}
	}
	if look {
		switch err := l.read(e); {
		case err == nil:
			return l.judge()
		case errors.Is(err, errOtherVariant) && !l.secondary:
			l.leave()
			l.secondary, l.key = true, l.variant
			return l.Open()
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, errVersion):
			l.Log(Info, fmt.Sprintf("cache file %q %v", l.name(), err))
			return Miss
		case errors.Is(err, errUnreadable): // Unlike nginx, the request goes on.
			l.Log(Crit, "open() "+quoteError(l.name(), err))
			return Scarce
		default:
			l.Log(Crit, fmt.Sprintf("cache file %q %v", l.name(), err))
			return Miss
		}
	}
	if otherwise == Miss && l.Lock {
		return l.lock()
	}
	return otherwise
}

// known is a copy of what an entry said while the index was locked.
type known struct {
	fault, uses, bodyStart int
	exists, cold           bool
}

// hold finds the entry, or makes one. fresh says that it knew nothing; nil that
// there is no room for it.
func (l *Lookup) hold() (fresh bool, k *known) {
	z := l.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	e := l.entry
	if e == nil {
		if e = z.entries[l.key]; e == nil {
			if e = z.add(l.key); e == nil {
				z.opts.Log(Alert, "the keys zone is full")
				return false, nil
			}
			fresh = true
		}
		e.uses++
		e.holds++
		l.entry = e
	}
	if e.fault != 0 && e.valid < now() {
		z.setFile(e, fileID{}, 0, 0, false)
		e.fault, fresh = 0, true
	}
	z.touch(e)
	return fresh, &known{fault: e.fault, uses: e.uses, bodyStart: e.bodyStart, exists: e.exists, cold: z.cold}
}

// leave ends the hold on the entry without a trace.
func (l *Lookup) leave() {
	z := l.zone
	z.mu.Lock()
	defer z.mu.Unlock()
	if l.entry.holds--; l.updating {
		l.entry.endUpdate()
		l.updating = false
	}
	l.entry = nil
}

func (l *Lookup) name() string {
	o := l.zone.options()
	return o.name(l.key)
}

var (
	errOtherVariant = errors.New("has incorrect vary hash")
	errUnreadable   = errors.New("cannot be read")
)

// read opens the file and reads what is before its body.
func (l *Lookup) read(k *known) error {
	f, err := os.Open(l.name())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return fs.ErrNotExist
		}
		return errors.Join(errUnreadable, err)
	}
	if err := l.readFrom(f, k); err != nil {
		_ = f.Close()
		return err
	}
	l.file = f
	return nil
}

func (l *Lookup) readFrom(f *os.File, k *known) error {
	info, err := f.Stat()
	if err != nil {
		return errors.Join(errUnreadable, err)
	}
	room := l.Room
	if k.bodyStart > 0 {
		room = k.bodyStart
	}
	b := make([]byte, room)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(errUnreadable, err)
	}
	b = b[:n]
	var h header
	if err := h.parse(b); err != nil {
		return err
	}
	switch {
	case h.crc != l.crc || h.headStart != l.headStart || n < h.headStart ||
		!bytes.Equal(b[headerSize+len(keyPrefix):h.headStart-1], l.text):
		return errors.New("has md5 collision")
	case h.bodyStart > n:
		return errors.New("has too long header")
	}
	if len(h.Vary) > 0 {
		if l.variant = l.vary(h.Vary); l.variant != h.variant {
			return errOtherVariant
		}
	}
	var size int64
	l.id, l.length, size = inspect(info)
	l.Meta, l.bodyStart, l.beginning = h.Meta, h.bodyStart, b[:h.bodyStart]
	z := l.zone
	z.mu.Lock()
	if e := l.entry; !e.exists { // found before loading did
		z.setFile(e, l.id, l.bodyStart, size, true)
	}
	z.mu.Unlock()
	return nil
}

// judge says how fresh what was found is.
func (l *Lookup) judge() Outcome {
	t := now()
	if l.Valid >= t {
		return Hit
	}
	l.useWhile, l.useIf = l.Valid+l.Updating >= t, l.Valid+l.Error >= t
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	e := l.entry
	if e.updating {
		return Updating
	}
	e.updating, l.updating, l.lockEnds = true, true, e.lockEnds
	return Expired
}

// lock makes this request the one that fetches the answer, unless another one
// does.
func (l *Lookup) lock() Outcome {
	l.zone.mu.Lock()
	defer l.zone.mu.Unlock()
	e, t := l.entry, time.Now()
	if !e.updating || !t.Before(e.lockEnds) {
		e.updating, l.updating = true, true
		e.lockEnds = t.Add(l.LockAge)
		l.lockEnds = e.lockEnds
		return Miss
	}
	if l.LockTimeout == 0 || !l.waitEnds.IsZero() && !t.Before(l.waitEnds) {
		return Scarce
	}
	return Busy
}

// Wait waits until the request that fetches the answer has it, or has had its
// time, or this one has waited long enough.
func (l *Lookup) Wait() {
	if l.waitEnds.IsZero() {
		l.waitEnds = time.Now().Add(l.LockTimeout)
	}
	z := l.zone
	z.mu.Lock()
	e := l.entry
	if !e.updating {
		z.mu.Unlock()
		return
	}
	if e.updated == nil {
		e.updated = make(chan struct{})
	}
	updated, ends := e.updated, e.lockEnds
	z.mu.Unlock()
	if l.waitEnds.Before(ends) {
		ends = l.waitEnds
	}
	t := time.NewTimer(time.Until(ends))
	defer t.Stop()
	select {
	case <-updated:
	case <-z.stop:
	case <-t.C:
		if !time.Now().Before(l.waitEnds) {
			l.Log(Info, "cache lock timeout")
		}
	}
}

// Fault is the status that Open found remembered.
func (l *Lookup) Fault() int { return l.fault }

// StaleWhileUpdating says whether the answer itself allows to be used while it
// is updated.
func (l *Lookup) StaleWhileUpdating() bool { return l.useWhile }

// StaleIfError says whether the answer itself allows to be used when asking
// fails.
func (l *Lookup) StaleIfError() bool { return l.useIf }

// Head is the head of the answer that was found.
func (l *Lookup) Head() []byte { return l.beginning[l.headStart:] }

// Body is where the body of the answer is. The file belongs to the Lookup.
func (l *Lookup) Body() (f *os.File, offset, length int64) {
	return l.file, int64(l.bodyStart), l.length - int64(l.bodyStart)
}

// Name is the name of the answer's file.
func (l *Lookup) Name() string { return l.name() }

// vary makes the key of the variant for this request.
func (l *Lookup) vary(names []byte) (key Key) {
	h := md5.New()
	h.Write(l.main[:])
	for _, name := range words(bytes.ToLower(names)) {
		h.Write(name)
		h.Write([]byte(":"))
		l.hashField(h, name)
		h.Write([]byte("\r\n"))
	}
	h.Sum(key[:0])
	return key
}

// hashField adds the values of a field; those of lists of preferences without
// their spaces.
func (l *Lookup) hashField(h hash.Hash, name []byte) {
	several := false
	add := func(value []byte) {
		if several {
			h.Write([]byte(","))
		}
		h.Write(value)
		several = true
	}
	l.Each(name, func(value []byte) {
		switch string(name) {
		case "accept-charset", "accept-encoding", "accept-language":
			for _, word := range words(value) {
				add(word)
			}
		default:
			add(value)
		}
	})
}

// words takes a list apart at commas and spaces.
func words(list []byte) [][]byte {
	return bytes.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// Forget says that nothing is known of the answer found: what follows is about
// the one to come.
func (l *Lookup) Forget() { l.Valid, l.Updating, l.Error = 0, 0, 0 }

// Remember makes the Zone answer with a status until a time, for want of an
// answer.
func (l *Lookup) Remember(status int, until int64) { l.fault, l.Valid = status, until }

// Close ends the request's business.
func (l *Lookup) Close() {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	if l.closed || l.entry == nil {
		return
	}
	l.closed = true
	z, e := l.zone, l.entry
	z.mu.Lock()
	defer z.mu.Unlock()
	e.holds--
	if l.updating && e.lockEnds.Equal(l.lockEnds) {
		e.endUpdate()
	}
	l.updating = false
	switch {
	case l.fault != 0:
		e.fault = l.fault
		if l.Valid != 0 {
			e.valid = l.Valid
		}
	case !e.exists && e.holds == 0 && l.MinUses <= 1 && e.fault == 0:
		z.forget(e)
	}
}
