package mp4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// track is a trak box: what of it is kept as it is, and the tables that are cut.
type track struct {
	kept     map[string][]byte // whole boxes, by name
	tables   map[string]*table
	length   uint64 // in units of the movie
	media    times
	duration uint64 // of the media

	// what the cut comes to
	prefix     uint64 // units of the media before the start, back to a key frame
	first, end uint64 // samples
	runs       []run
	chunks     span // numbers of chunks, from 0
	lead       uint64
	rest       uint64 // samples of the last chunk that are wanted or lie before them
	from, to   int64
	placed     int // where in the new head the places of chunks are
}

// table is a box with a table.
type table struct {
	name   string
	before []byte // fields before the number of entries
	width  int    // of an entry
	rows   []byte
}

// run is chunks in a row with as many samples each.
type run struct{ chunk, chunks, samples, id uint64 }

// errBeforeStart is for tracks that have ended before the piece begins.
var errBeforeStart = errors.New("track ends before the start")

// readTrack reads a trak box; nil for a track that is left out.
func readTrack(m *movie, b []byte) (*track, error) {
	t := &track{kept: map[string][]byte{}, tables: map[string]*table{}}
	err := boxes(b, func(name string, box, data []byte) error {
		switch name {
		case "tkhd":
			return t.readHeader(m, box, data)
		case "mdia":
			return t.group(name, data, func(name string, box, data []byte) error { return t.readMedia(m.options, name, box, data) })
		}
		return nil
	})
	if errors.Is(err, errBeforeStart) {
		return nil, nil //nolint:nilnil // left out
	}
	return t, err
}

// keep notes a box, once.
func (t *track) keep(name string, box []byte) error {
	if t.kept[name] != nil {
		return fmt.Errorf("duplicate mp4 %s atom", name)
	}
	t.kept[name] = box
	return nil
}

// group reads a box that holds others; that it was there is noted.
func (t *track) group(name string, data []byte, take func(name string, box, data []byte) error) error {
	if err := t.keep(name, []byte{}); err != nil {
		return err
	}
	return boxes(data, take)
}

// readHeader reads tkhd.
func (t *track) readHeader(m *movie, box, data []byte) error {
	h, err := readTimes("tkhd", data, trackTimes)
	if err != nil {
		return err
	}
	if h.duration <= ticks(m.options.Start, m.scale) {
		return errBeforeStart
	}
	t.length = m.options.left(h.duration, m.scale)
	h.put(t.length)
	return t.keep("tkhd", box)
}

// readMedia reads a box in mdia.
func (t *track) readMedia(o *Options, name string, box, data []byte) (err error) {
	switch name {
	case "mdhd":
		if t.media, err = readTimes(name, data, mediaTimes); err != nil {
			return err
		}
		if t.media.duration <= ticks(o.Start, t.media.scale) {
			return errBeforeStart
		}
		t.duration = o.left(t.media.duration, t.media.scale)
		return t.keep(name, box)
	case "hdlr":
		return t.keep(name, box)
	case "minf":
		return t.group(name, data, func(name string, box, data []byte) error {
			switch name {
			case "vmhd", "smhd", "dinf":
				return t.keep(name, box)
			case "stbl":
				return t.group(name, data, t.readTable)
			}
			return nil
		})
	}
	return nil
}

// readTable reads a box in stbl.
func (t *track) readTable(name string, box, data []byte) error {
	widths := map[string]int{"stts": 8, "stss": 4, "ctts": 8, "stsc": 12, "stsz": 4, "stco": 4, "co64": 8}
	if name == "stsd" {
		if len(data) < 16 {
			return fmt.Errorf("mp4 %s atom too small", name)
		}
		return t.keep(name, box)
	}
	width := widths[name]
	if width == 0 {
		return nil
	}
	before := 4
	if name == "stsz" {
		before = 8 // the size of all samples, if it is the same
	}
	if len(data) < before+4 {
		return fmt.Errorf("mp4 %s atom too small", name)
	}
	entries := uint64(binary.BigEndian.Uint32(data[before:]))
	rows := data[before+4:]
	b := &table{name: name, before: data[:before], width: width}
	if name == "stsz" && b.uniform() > 0 {
		b.width, b.rows = 0, binary.BigEndian.AppendUint32(nil, uint32(entries)) // how many there are
	} else {
		if entries*uint64(width) > uint64(len(rows)) {
			return fmt.Errorf("mp4 %s atom too small", name)
		}
		b.rows = rows[:entries*uint64(width)]
	}
	if t.tables[name] != nil {
		return fmt.Errorf("duplicate mp4 %s atom", name)
	}
	t.tables[name] = b
	return nil
}

// uniform is the size of all samples; 0 when each has its own.
func (b *table) uniform() uint64 { return uint64(binary.BigEndian.Uint32(b.before[4:])) }

func (b *table) len() uint64 {
	if b.width == 0 {
		return uint64(binary.BigEndian.Uint32(b.rows))
	}
	return uint64(len(b.rows) / b.width)
}

// at gives the n-th number of an entry.
func (b *table) at(entry uint64, n int) uint64 {
	return uint64(binary.BigEndian.Uint32(b.rows[int(entry)*b.width+4*n:]))
}

// put writes the first number of an entry.
func (b *table) put(entry, value uint64) {
	binary.BigEndian.PutUint32(b.rows[int(entry)*b.width:], uint32(value))
}

// slice keeps the entries from one to another.
func (b *table) slice(from, to uint64) {
	if b.width == 0 {
		binary.BigEndian.PutUint32(b.rows, uint32(to-from))
		return
	}
	b.rows = b.rows[int(from)*b.width : int(to)*b.width]
}

// cut cuts all tables.
func (t *track) cut(o *Options, f *file) error {
	for _, name := range []string{"stts", "stsc", "stco"} {
		if t.tables[name] == nil && (name != "stco" || t.tables["co64"] == nil) {
			return fmt.Errorf("no mp4 %s atoms were found", name)
		}
	}
	if err := t.cutTimes(o); err != nil {
		return err
	}
	t.cutSync(o)
	t.cutOffsets(o)
	if err := t.cutChunks(o); err != nil {
		return err
	}
	before, last, err := t.cutSizes(o, uint64(f.size))
	if err != nil {
		return err
	}
	if t.kept["mdhd"] != nil {
		t.media.put(t.duration)
	}
	return t.locate(o, f, before, last)
}

// cutTimes finds the samples of the piece in stts.
func (t *track) cutTimes(o *Options) error {
	b := t.tables["stts"]
	entry, sample, rest, found := find(b, ticks(o.Start, t.media.scale))
	if !found {
		return errors.New("start time is out mp4 stts samples")
	}
	back, err := t.keyFrame(o, sample)
	if err != nil {
		return err
	}
	sample -= back
	for rest < back && entry > 0 {
		t.prefix += rest * b.at(entry, 1)
		back -= rest
		entry--
		rest = b.at(entry, 0)
	}
	back = min(back, rest)
	t.prefix += back * b.at(entry, 1)
	rest -= back
	t.duration += t.prefix
	b.put(entry, b.at(entry, 0)-rest)
	b.slice(entry, b.len())
	t.first, t.end = sample, math.MaxUint64
	if o.Length == 0 {
		return nil
	}
	entry, sample, rest, found = find(b, ticks(o.Length, t.media.scale)+t.prefix)
	t.end = t.first + sample
	if found {
		b.put(entry, rest)
		b.slice(0, entry+1)
	}
	return nil
}

// find finds the sample at a time: its entry in stts, its number, and how many of
// the entry lie before it. Without one the number is that of all.
func find(b *table, time uint64) (entry, sample, rest uint64, found bool) {
	for ; entry < b.len(); entry++ {
		count, duration := b.at(entry, 0), b.at(entry, 1)
		if time < count*duration {
			rest = time / duration
			return entry, sample + rest, rest, true
		}
		time -= count * duration
		sample += count
	}
	return entry, sample, 0, false
}

// keyFrame is how many samples before one the last key frame is.
func (t *track) keyFrame(o *Options, sample uint64) (back uint64, err error) {
	b := t.tables["stss"]
	if !o.KeyFrame || b == nil {
		return 0, nil
	}
	for i := range b.len() {
		sync := b.at(i, 0) // from 1
		if sync == 0 {
			return 0, errors.New("zero sync sample")
		}
		if sync > sample+1 {
			break
		}
		back = sample + 1 - sync
	}
	return back, nil
}

// cutSync cuts stss, whose numbers count from 1.
func (t *track) cutSync(o *Options) {
	b := t.tables["stss"]
	if b == nil {
		return
	}
	from, to := uint64(0), b.len()
	for from < to && b.at(from, 0) <= t.first {
		from++
	}
	if o.Length > 0 {
		for to = from; to < b.len() && b.at(to, 0) <= t.end; {
			to++
		}
	}
	b.slice(from, to)
	for i := range b.len() {
		b.put(i, b.at(i, 0)-t.first)
	}
}

// cutOffsets cuts ctts.
func (t *track) cutOffsets(o *Options) {
	b := t.tables["ctts"]
	if b == nil {
		return
	}
	skip := t.first
	from := uint64(0)
	for ; from < b.len() && skip >= b.at(from, 0); from++ {
		skip -= b.at(from, 0)
	}
	if from < b.len() {
		b.put(from, b.at(from, 0)-skip)
	}
	b.slice(from, b.len())
	if o.Length > 0 {
		wanted := t.end - t.first
		for i := range b.len() {
			if wanted < b.at(i, 0) {
				b.put(i, wanted)
				b.slice(0, i+1)
				break
			}
			wanted -= b.at(i, 0)
		}
	}
	if b.len() == 0 {
		delete(t.tables, "ctts")
	}
}

// offsets is the table of the chunks.
func (t *track) offsets() *table {
	if b := t.tables["co64"]; b != nil {
		return b
	}
	return t.tables["stco"]
}

// allRuns reads stsc: which chunks have how many samples.
func (t *track) allRuns() ([]run, error) {
	b := t.tables["stsc"]
	if b.len() == 0 {
		return nil, errors.New("zero number of entries in stsc atom")
	}
	runs := make([]run, 0, b.len()+2)
	for i := range b.len() {
		r := run{chunk: b.at(i, 0), samples: b.at(i, 1), id: b.at(i, 2)}
		next := t.offsets().len() + 1
		if i+1 < b.len() {
			next = b.at(i+1, 0)
		}
		switch {
		case next < r.chunk:
			return nil, errors.New("unordered mp4 stsc chunks")
		case r.chunk == 0:
			return nil, errors.New("zero chunk")
		}
		r.chunks = next - r.chunk
		runs = append(runs, r)
	}
	return runs, nil
}

// cutChunks finds the chunks that have the samples of the piece.
func (t *track) cutChunks(o *Options) error {
	all, err := t.allRuns()
	if err != nil {
		return err
	}
	from := uint64(0) // the first sample of the run
	t.chunks = span{-1, -1}
	for _, r := range all {
		to := from + r.chunks*r.samples
		if over, _ := bits.Mul64(r.chunks, r.samples); over > 0 || to < from {
			to = math.MaxUint64
		}
		if lo, hi := max(from, t.first), min(to, t.end); lo < hi {
			t.addRun(r, lo-from, hi-from)
		}
		from = to
	}
	switch {
	case t.first > from, t.first == from && t.end != t.first:
		return errors.New("start time is out mp4 stsc chunks")
	case o.Length > 0 && t.end > from:
		return errors.New("end time is out mp4 stsc chunks")
	}
	t.end = min(t.end, from)
	return nil
}

// addRun adds the samples from lo to hi of a run.
func (t *track) addRun(r run, lo, hi uint64) {
	first, lead := lo/r.samples, lo%r.samples
	last, rest := hi/r.samples, hi%r.samples
	if t.chunks.from < 0 {
		t.chunks.from, t.lead = int64(r.chunk-1+first), lead
	}
	t.chunks.to, t.rest = int64(r.chunk-1+last), r.samples
	if rest > 0 {
		t.chunks.to++
		t.rest = rest
	}
	add := func(chunks, samples uint64) {
		if chunks == 0 {
			return
		}
		next := uint64(1)
		if n := len(t.runs); n > 0 {
			next = t.runs[n-1].chunk + t.runs[n-1].chunks
		}
		t.runs = append(t.runs, run{next, chunks, samples, r.id})
	}
	if first == last {
		add(1, rest-lead)
		return
	}
	if lead > 0 {
		add(1, r.samples-lead)
		first++
	}
	add(last-first, r.samples)
	if rest > 0 {
		add(1, rest)
	}
}

// cutSizes cuts stsz, and gives the sizes of what lies before the piece in its
// first chunk, and of its last chunk up to its end. Unlike nginx, which leaves the
// table as it is then, it counts samples that are all of one size, too.
func (t *track) cutSizes(o *Options, most uint64) (before, last uint64, err error) {
	b := t.tables["stsz"]
	if b == nil {
		return 0, 0, nil
	}
	switch {
	case t.first >= b.len():
		return 0, 0, errors.New("start time is out mp4 stsz samples")
	case o.Length > 0 && t.end > b.len():
		return 0, 0, errors.New("end time is out mp4 stsz samples")
	}
	if before, err = t.sum(t.first-min(t.lead, t.first), t.first, most); err != nil {
		return 0, 0, err
	}
	end := b.len()
	if o.Length > 0 {
		end = t.end
		if last, err = t.sum(end-min(t.rest, end), end, most); err != nil {
			return 0, 0, err
		}
	}
	b.slice(t.first, end)
	return before, last, nil
}

// sum adds up the sizes of samples.
func (t *track) sum(from, to, most uint64) (n uint64, err error) {
	b := t.tables["stsz"]
	if b.width == 0 {
		n = (to - from) * b.uniform() // both of 32 bits
	} else {
		for i := from; i < to; i++ {
			n += b.at(i, 0)
		}
	}
	if n > most {
		return 0, errors.New("too large mp4 samples size")
	}
	return n, nil
}

// locate finds the bytes of the piece, and cuts the table of chunks.
func (t *track) locate(o *Options, f *file, before, last uint64) error {
	b := t.offsets()
	if t.chunks.from < 0 { // nothing is wanted
		b.rows = nil
		t.from, t.to = f.size, 0
		return nil
	}
	first, end := uint64(t.chunks.from), uint64(t.chunks.to)
	switch {
	case first >= b.len():
		return errors.New("start time is out mp4 stco chunks")
	case end > b.len():
		return errors.New("end time is out mp4 stco chunks")
	}
	if o.Length == 0 {
		end = b.len()
	}
	from, err := b.place(first, before, f.size)
	if err != nil {
		return err
	}
	t.from, t.to = from, f.media.to
	if o.Length > 0 {
		if t.to, err = b.place(end-1, last, f.size); err != nil {
			return err
		}
	}
	b.slice(first, end)
	b.putOffset(0, uint64(from))
	return nil
}

// offset is where a chunk is.
func (b *table) offset(chunk uint64) uint64 {
	if b.width == 8 {
		return binary.BigEndian.Uint64(b.rows[8*int(chunk):])
	}
	return b.at(chunk, 0)
}

func (b *table) putOffset(chunk, offset uint64) {
	if b.width == 8 {
		binary.BigEndian.PutUint64(b.rows[8*int(chunk):], offset)
		return
	}
	b.put(chunk, offset)
}

// place is so many bytes behind the beginning of a chunk, within the file.
func (b *table) place(chunk, behind uint64, size int64) (int64, error) {
	at := b.offset(chunk)
	if behind > uint64(size) || at > uint64(size)-behind || b.width == 4 && at+behind > math.MaxUint32 {
		return 0, errors.New("too large chunk offset")
	}
	return int64(at + behind), nil
}

// The order of boxes in a track, by what holds them.
var (
	tableOrder = []string{"stts", "stss", "ctts", "stsc", "stsz", "stco", "co64"}
	infoOrder  = []string{"vmhd", "smhd", "dinf"}
)

// append appends the new track.
func (t *track) append(dst []byte) []byte {
	return appendBox(dst, "trak", func(dst []byte) []byte {
		dst = t.appendEdit(append(dst, t.kept["tkhd"]...))
		return appendBox(dst, "mdia", func(dst []byte) []byte {
			dst = append(append(dst, t.kept["mdhd"]...), t.kept["hdlr"]...)
			return appendBox(dst, "minf", func(dst []byte) []byte {
				for _, name := range infoOrder {
					dst = append(dst, t.kept[name]...)
				}
				return appendBox(dst, "stbl", func(dst []byte) []byte {
					return t.appendTables(append(dst, t.kept["stsd"]...))
				})
			})
		})
	})
}

// appendBox appends a box whose data is appended by f.
func appendBox(dst []byte, name string, f func([]byte) []byte) []byte {
	at := len(dst)
	dst = f(append(append(dst, 0, 0, 0, 0), name...))
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// appendEdit has players skip what comes before the start.
func (t *track) appendEdit(dst []byte) []byte {
	if t.prefix == 0 {
		return dst
	}
	return appendBox(dst, "edts", func(dst []byte) []byte {
		return appendBox(dst, "elst", func(dst []byte) []byte {
			dst = append(dst, 1, 0, 0, 0, 0, 0, 0, 1) // version 1, one entry
			dst = binary.BigEndian.AppendUint64(dst, t.length)
			dst = binary.BigEndian.AppendUint64(dst, t.prefix)
			return append(dst, 0, 1, 0, 0) // at its own speed
		})
	})
}

func (t *track) appendTables(dst []byte) []byte {
	for _, name := range tableOrder {
		b := t.tables[name]
		if b == nil || name == "stco" && t.tables["co64"] != nil {
			continue
		}
		dst = appendBox(dst, name, func(dst []byte) []byte {
			dst = append(dst, b.before...)
			if name == "stsc" {
				return t.appendRuns(dst)
			}
			dst = binary.BigEndian.AppendUint32(dst, uint32(b.len()))
			if b.width == 0 {
				return dst
			}
			if b == t.offsets() {
				t.placed = len(dst)
			}
			return append(dst, b.rows...)
		})
	}
	return dst
}

// shift moves the places of chunks in the new head.
func (t *track) shift(head []byte, by int64) {
	b := t.offsets()
	b.rows = head[t.placed : t.placed+len(b.rows)]
	for i := range b.len() {
		b.putOffset(i, uint64(int64(b.offset(i))+by))
	}
}

func (t *track) appendRuns(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.runs)))
	for _, r := range t.runs {
		dst = binary.BigEndian.AppendUint32(dst, uint32(r.chunk))
		dst = binary.BigEndian.AppendUint32(dst, uint32(r.samples))
		dst = binary.BigEndian.AppendUint32(dst, uint32(r.id))
	}
	return dst
}
