// Package mp4 cuts pieces of time out of MP4 files (ISO/IEC 14496-12): it makes a
// new head for a part of the media data, which itself is sent as it is. It knows
// nothing of configuration. Files are not trusted: every number in them is held
// against what is there.
package mp4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// Options say which piece is wanted, in milliseconds.
type Options struct {
	Start, Length uint64 // no length: to the end
	KeyFrame      bool   // the piece begins with the key frame before Start
	// MaxMovie is how many bytes of description are read into memory.
	MaxMovie int64
}

// Clip is a piece of a file: a head of its own, then bytes of the file.
type Clip struct {
	Head     []byte
	From, To int64
}

const (
	boxSize   = 8  // of a head of a box
	largeSize = 16 // of one with a size of 64 bits
	maxBrand  = 1024
)

// TooLarge says that the description of a file exceeds MaxMovie.
type TooLarge struct{ Size int64 }

func (e *TooLarge) Error() string { return fmt.Sprintf("mp4 moov atom is too large:%d", e.Size) }

// file is what is found of a file on its highest level.
type file struct {
	src      io.ReaderAt
	size     int64
	brand    []byte // ftyp, whole
	movie    []byte // what is in moov
	hasMovie bool
	media    span
	hasMedia bool
}

// span is a part of a file.
type span struct{ from, to int64 }

// Cut finds a piece of a file of some size. It is nil when the file can be sent as
// it is: all of it is wanted, and its description comes first.
func Cut(src io.ReaderAt, size int64, o *Options) (*Clip, error) {
	f := &file{src: src, size: size}
	whole, err := f.read(o)
	if whole || err != nil {
		return nil, err
	}
	m, err := readMovie(f.movie, o)
	if err != nil {
		return nil, err
	}
	switch {
	case len(m.tracks) == 0:
		return nil, errors.New("no mp4 trak atoms were found")
	case !f.hasMedia:
		return nil, errors.New("no mp4 mdat atom was found")
	}
	return f.clip(m)
}

// clip makes the piece.
func (f *file) clip(m *movie) (*Clip, error) {
	c := &Clip{From: f.size}
	for _, t := range m.tracks {
		if err := t.cut(m.options, f); err != nil {
			return nil, err
		}
		c.From, c.To = min(c.From, t.from), max(c.To, t.to)
	}
	switch {
	case c.To <= c.From:
		return nil, errors.New("no data between start time and end time")
	case c.From >= f.media.to:
		return nil, errors.New("start time is out mp4 mdat atom")
	}
	c.Head = append(make([]byte, 0, len(f.brand)+len(f.movie)+maxBrand), f.brand...)
	c.Head = appendBox(c.Head, "moov", func(dst []byte) []byte {
		dst = append(dst, m.header...)
		for _, t := range m.tracks {
			dst = t.append(dst)
		}
		return dst
	})
	if len(c.Head) > math.MaxUint32 {
		return nil, &TooLarge{int64(len(c.Head))}
	}
	c.Head = appendHead(c.Head, "mdat", c.To-c.From)
	for _, t := range m.tracks {
		t.shift(c.Head, int64(len(c.Head))-c.From)
	}
	return c, nil
}

// read looks through the boxes of the file until it has seen description and media.
func (f *file) read(o *Options) (whole bool, err error) {
	for at := int64(0); at < f.size && (!f.hasMovie || !f.hasMedia); {
		var head [largeSize]byte
		n, err := f.src.ReadAt(head[:min(largeSize, f.size-at)], at)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return false, err
		}
		name, headSize, size, err := parseHead(head[:n])
		if err != nil {
			return false, err
		}
		if size == 0 { // the last one
			return false, nil
		}
		if size > uint64(f.size-at) {
			return false, fmt.Errorf("mp4 atom too large:%d", size)
		}
		data := span{at + int64(headSize), at + int64(size)}
		switch name {
		case "ftyp":
			err = f.readBrand(data)
		case "moov":
			if !f.hasMedia && o.Start == 0 && o.Length == 0 {
				return true, nil
			}
			err = f.readMovie(data, o)
		case "mdat":
			if f.hasMedia {
				return false, errors.New("duplicate mp4 mdat atom")
			}
			f.media, f.hasMedia = data, true
		}
		if err != nil {
			return false, err
		}
		at = data.to
	}
	return false, nil
}

// parseHead reads the head of a box.
func parseHead(b []byte) (name string, headSize int, size uint64, err error) {
	if len(b) < boxSize {
		return "", 0, 0, errTruncated
	}
	name, headSize, size = string(b[4:8]), boxSize, uint64(binary.BigEndian.Uint32(b))
	switch {
	case size == 0:
		return name, headSize, 0, nil
	case size == 1 && len(b) < largeSize:
		return "", 0, 0, errTruncated
	case size == 1:
		headSize, size = largeSize, binary.BigEndian.Uint64(b[8:])
	}
	if size < uint64(headSize) {
		return "", 0, 0, fmt.Errorf("mp4 atom is too small:%d", size)
	}
	return name, headSize, size, nil
}

var errTruncated = errors.New("mp4 file truncated")

func (f *file) readBrand(data span) error {
	switch n := data.to - data.from; {
	case n > maxBrand:
		return fmt.Errorf("mp4 ftyp atom is too large:%d", n)
	case f.brand != nil:
		return errors.New("duplicate mp4 ftyp atom")
	}
	b, err := f.bytes(data)
	f.brand = append(appendHead(nil, "ftyp", int64(len(b))), b...)
	return err
}

func (f *file) readMovie(data span, o *Options) (err error) {
	switch n := data.to - data.from; {
	case f.hasMovie:
		return errors.New("duplicate mp4 moov atom")
	case n > o.MaxMovie:
		return &TooLarge{n}
	}
	f.hasMovie = true
	f.movie, err = f.bytes(data)
	return err
}

func (f *file) bytes(data span) ([]byte, error) {
	b := make([]byte, data.to-data.from)
	if n, err := f.src.ReadAt(b, data.from); n < len(b) {
		return nil, err
	}
	return b, nil
}

// appendHead appends the head of a box with n bytes of data.
func appendHead(dst []byte, name string, n int64) []byte {
	if n <= math.MaxUint32-boxSize {
		return append(binary.BigEndian.AppendUint32(dst, uint32(n+boxSize)), name...)
	}
	dst = append(binary.BigEndian.AppendUint32(dst, 1), name...)
	return binary.BigEndian.AppendUint64(dst, uint64(n+largeSize))
}

// boxes gives the boxes in b to take, each with its head.
func boxes(b []byte, take func(name string, box, data []byte) error) error {
	for len(b) > 0 {
		name, headSize, size, err := parseHead(b)
		if err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
		if size > uint64(len(b)) {
			return fmt.Errorf("mp4 atom too large:%d", size)
		}
		if err := take(name, b[:size], b[headSize:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// movie is the description of a file.
type movie struct {
	options *Options
	header  []byte // mvhd, whole
	scale   uint64 // units in a second
	tracks  []*track
}

func readMovie(b []byte, o *Options) (*movie, error) {
	m := &movie{options: o}
	return m, boxes(b, func(name string, box, data []byte) error {
		switch name {
		case "mvhd":
			return m.readHeader(box, data)
		case "trak":
			t, err := readTrack(m, data)
			if t != nil {
				m.tracks = append(m.tracks, t)
			}
			return err
		case "cmov":
			return errors.New("mp4 compressed moov atom (cmov) is not supported")
		}
		return nil
	})
}

// Where the times of headers are, by their version: the scale, 0 for none, and the
// duration, which has 32 or 64 bits. least is what the header must have.
type timeLayout struct{ scale, duration, least int }

var (
	movieTimes = [2]timeLayout{{12, 16, 100}, {20, 24, 112}}
	trackTimes = [2]timeLayout{{0, 20, 84}, {0, 28, 96}}
	mediaTimes = [2]timeLayout{{12, 16, 24}, {20, 24, 36}}
)

// times are those of a header.
type times struct {
	long     bool
	at       []byte // the duration
	duration uint64
	scale    uint64
}

// readTimes finds the times of a header.
func readTimes(name string, data []byte, layouts [2]timeLayout) (t times, err error) {
	tooSmall := fmt.Errorf("mp4 %s atom too small", name)
	if len(data) < layouts[0].least {
		return t, tooSmall
	}
	l := layouts[0]
	if t.long = data[0] != 0; t.long {
		if l = layouts[1]; len(data) < l.least {
			return t, tooSmall
		}
	}
	if l.scale > 0 {
		t.scale = uint64(binary.BigEndian.Uint32(data[l.scale:]))
	}
	t.at = data[l.duration:]
	if t.long {
		t.duration = binary.BigEndian.Uint64(t.at)
	} else {
		t.duration = uint64(binary.BigEndian.Uint32(t.at))
	}
	return t, nil
}

// put writes another duration.
func (t *times) put(duration uint64) {
	if t.long {
		binary.BigEndian.PutUint64(t.at, duration)
	} else {
		binary.BigEndian.PutUint32(t.at, uint32(duration))
	}
}

// ticks is a time in units of a scale, or as large as can be.
func ticks(ms, scale uint64) uint64 {
	hi, lo := bits.Mul64(ms, scale)
	if hi >= 1000 {
		return math.MaxUint64
	}
	n, _ := bits.Div64(hi, lo, 1000)
	return n
}

// left is what remains of a duration.
func (o *Options) left(duration, scale uint64) uint64 {
	duration -= ticks(o.Start, scale)
	if o.Length > 0 {
		duration = min(duration, ticks(o.Length, scale))
	}
	return duration
}

func (m *movie) readHeader(box, data []byte) error {
	if m.header != nil {
		return errors.New("duplicate mp4 mvhd atom")
	}
	t, err := readTimes("mvhd", data, movieTimes)
	if err != nil {
		return err
	}
	m.scale = t.scale
	if t.duration < ticks(m.options.Start, t.scale) {
		return errors.New("mp4 start time exceeds file duration")
	}
	t.put(m.options.left(t.duration, t.scale))
	m.header = box
	return nil
}
