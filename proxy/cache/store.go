package cache

import (
	"fmt"
	"os"
)

// Writer is an answer on its way into a Zone. It belongs to one goroutine at a
// time, and ends with Commit or Discard.
type Writer struct {
	lookup *Lookup
	file   *os.File
	body   int64 // where the body begins
	size   int64 // of the file so far
	err    error
}

// Store begins to store an answer: its head, and what Meta says about it. file
// is an empty file to write to, which ends up under its final name; nil for one
// in the folder of the Zone. An error says that it cannot be stored.
func (l *Lookup) Store(head []byte, file *os.File) (*Writer, error) {
	if err := l.settle(); err != nil {
		return nil, err
	}
	if l.bodyStart = l.headStart + len(head); l.bodyStart > l.Room || l.bodyStart > 1<<16-1 {
		return nil, fmt.Errorf("the head of %d bytes leaves no room for the key", len(head))
	}
	if file == nil {
		var err error
		if file, err = createBeside(l.name()); err != nil {
			return nil, err
		}
	}
	b := l.header().append(nil)
	b = append(append(append(b, keyPrefix...), l.text...), '\n')
	b = append(b, head...)
	w := &Writer{lookup: l, file: file, body: int64(l.bodyStart)}
	if _, err := w.write(b); err != nil {
		w.Discard()
		return nil, err
	}
	return w, nil
}

func (l *Lookup) header() *header {
	h := &header{Meta: l.Meta, crc: l.crc, headStart: l.headStart, bodyStart: l.bodyStart}
	if len(h.Vary) > 0 {
		h.variant = l.vary(h.Vary)
	}
	return h
}

// settle finds the entry that the answer will belong to: that of the variant
// only as long as the answer still varies in the same way. A request that did
// not look before begins here.
func (l *Lookup) settle() error {
	if l.secondary && (len(l.Vary) == 0 || l.vary(l.Vary) != l.key) {
		l.leave()
		l.secondary, l.key = false, l.main
	}
	if l.entry == nil {
		if _, k := l.hold(); k == nil {
			return fmt.Errorf("the keys zone is full")
		}
	}
	return nil
}

// Write adds to the body. After an error nothing more is written, and Commit
// fails.
func (w *Writer) Write(p []byte) (int, error) { return w.write(p) }

func (w *Writer) write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	n, w.err = w.file.WriteAt(p, w.size)
	w.size += int64(n)
	return n, w.err
}

// ReadAt reads what of the body has been written.
func (w *Writer) ReadAt(p []byte, offset int64) (int, error) { return w.file.ReadAt(p, w.body+offset) }

// Size is how much of the body has been written, in bytes.
func (w *Writer) Size() int64 { return w.size - w.body }

// Commit makes the answer the one that the Zone has. The file can still be read
// until Close.
func (w *Writer) Commit() error {
	l := w.lookup
	if w.err == nil {
		w.err = move(w.file.Name(), l.name())
	}
	if w.err != nil {
		w.Discard()
		return w.err
	}
	var id fileID
	var size int64
	if info, err := w.file.Stat(); err == nil {
		id, _, size = inspect(info)
	}
	z, e := l.zone, l.entry
	z.mu.Lock()
	defer z.mu.Unlock()
	e.holds--
	e.fault = 0
	z.setFile(e, id, l.bodyStart, size, true)
	e.endUpdate()
	l.closed, l.updating = true, false
	return nil
}

// Discard removes what was written. Commit and Discard are for the goroutine
// that has the Lookup, and only one of them counts.
func (w *Writer) Discard() {
	if !w.lookup.closed {
		_ = os.Remove(w.file.Name())
		w.lookup.Close()
	}
}

// Close lets go of the file.
func (w *Writer) Close() { _ = w.file.Close() }

// Confirm writes new Meta into the file of the answer that was found, unless
// another has taken its place.
func (l *Lookup) Confirm() error {
	f, err := os.OpenFile(l.name(), os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if id, length, _ := inspect(info); id != l.id || length != l.length {
		return nil
	}
	_, err = f.WriteAt(l.header().append(nil), 0)
	return err
}
