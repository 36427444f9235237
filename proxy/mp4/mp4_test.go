package mp4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// box makes a box of parts: strings, numbers of 32 bits, other boxes.
func box(name string, parts ...any) []byte {
	return appendBox(nil, name, func(dst []byte) []byte {
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				dst = append(dst, p...)
			case int:
				dst = binary.BigEndian.AppendUint32(dst, uint32(p))
			case []byte:
				dst = append(dst, p...)
			}
		}
		return dst
	})
}

func zeros(n int) []byte { return make([]byte, n) }

// sample is a file of ten seconds: a sample of ten bytes each second, four in a
// chunk, a key frame every third. change may alter the tables.
func sample(uniform, long, movieFirst bool, change func(tables [][]byte) [][]byte) []byte {
	const count = 10
	media := []byte{}
	for i := range count {
		media = fmt.Appendf(media, "sample%04d", i)
	}
	brand := box("ftyp", "isom", 0)
	movie := func(at int) []byte {
		sizes := box("stsz", 0, 0, count)
		if uniform {
			sizes = box("stsz", 0, 10, count)
		} else {
			for range count {
				sizes = binary.BigEndian.AppendUint32(sizes, 10)
			}
			binary.BigEndian.PutUint32(sizes, uint32(len(sizes)))
		}
		chunks := box("stco", 0, 3, at, at+40, at+80)
		if long {
			chunks = box("co64", 0, 3, 0, at, 0, at+40, 0, at+80)
		}
		tables := [][]byte{
			box("stsd", 0, 1, 8, "none"),
			box("stts", 0, 2, 6, 1000, 4, 1000),
			box("stss", 0, 4, 1, 4, 7, 10),
			box("ctts", 0, 2, 5, 1, 5, 2),
			box("stsc", 0, 2, 1, 4, 1, 3, 2, 1),
			sizes, chunks,
		}
		if change != nil {
			tables = change(tables)
		}
		return box("moov",
			box("mvhd", zeros(12), 1000, 10000, zeros(80)),
			box("trak",
				box("tkhd", zeros(20), 10000, zeros(60)),
				box("mdia", box("mdhd", zeros(12), 1000, 10000, 0), box("hdlr", 0),
					box("minf", box("vmhd", 0), box("dinf", 0), box("stbl", bytes.Join(tables, nil))))))
	}
	if movieFirst {
		n := len(brand) + len(movie(0)) + boxSize
		return bytes.Join([][]byte{brand, movie(n), box("mdat", media)}, nil)
	}
	return bytes.Join([][]byte{brand, box("free", 0), box("mdat", media), movie(len(brand) + 12 + boxSize)}, nil)
}

// play gives the samples of a piece as its own tables find them, and what of the
// tables has changed.
func play(t *testing.T, file []byte, c *Clip) string {
	t.Helper()
	piece := append(bytes.Clone(c.Head), file[c.From:c.To]...)
	f := &file2{}
	if err := boxes(piece, f.take); err != nil {
		t.Fatal(err)
	}
	out := ""
	for i, r := range f.runs {
		next := uint64(len(f.chunks)) + 1
		if i+1 < len(f.runs) {
			next = f.runs[i+1].chunk
		}
		for chunk := r.chunk; chunk < next; chunk++ {
			at := f.chunks[chunk-1]
			out += "["
			for range r.samples {
				out += strings.TrimLeft(string(piece[at+6:at+10]), "0") + "."
				at += 10
			}
			out += "]"
		}
	}
	return out + f.notes
}

// file2 is what a player reads.
type file2 struct {
	runs   []run
	chunks []uint64
	notes  string
}

func (f *file2) take(name string, _, data []byte) error {
	n := func(i int) uint64 { return uint64(binary.BigEndian.Uint32(data[4*i:])) }
	switch name {
	case "moov", "trak", "mdia", "minf", "stbl", "edts":
		return boxes(data, f.take)
	case "stsc":
		for i := range int(n(1)) {
			f.runs = append(f.runs, run{chunk: n(2 + 3*i), samples: n(3 + 3*i)})
		}
	case "stco":
		for i := range int(n(1)) {
			f.chunks = append(f.chunks, n(2+i))
		}
	case "co64":
		for i := range int(n(1)) {
			f.chunks = append(f.chunks, n(3+2*i))
		}
	case "stts", "ctts", "stss":
		f.notes += " " + name
		for i := 2; 4*i < len(data); i++ {
			f.notes += fmt.Sprintf(",%d", n(i))
		}
	case "stsz":
		f.notes += fmt.Sprintf(" sizes %d", n(2))
	case "mdhd":
		f.notes += fmt.Sprintf(" lasts %d", n(4))
	case "elst":
		f.notes += fmt.Sprintf(" skips %d", n(5))
	}
	return nil
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		start, length uint64
		key           bool
		want          string
	}{
		{0, 0, false, "[.1.2.3.][4.5.6.7.][8.9.] lasts 10000 stts,6,1000,4,1000 stss,1,4,7,10 ctts,5,1,5,2 sizes 10"},
		{2000, 0, false, "[2.3.][4.5.6.7.][8.9.] lasts 8000 stts,4,1000,4,1000 stss,2,5,8 ctts,3,1,5,2 sizes 8"},
		{8500, 0, false, "[8.9.] lasts 1500 stts,2,1000 stss,2 ctts,2,2 sizes 2"},
		{4000, 0, false, "[4.5.6.7.][8.9.] lasts 6000 stts,2,1000,4,1000 stss,3,6 ctts,1,1,5,2 sizes 6"},
		{0, 3000, false, "[.1.2.] lasts 3000 stts,3,1000 stss,1 ctts,3,1 sizes 3"},
		{1000, 2000, false, "[1.2.] lasts 2000 stts,2,1000 stss ctts,2,1 sizes 2"},
		{1000, 6000, false, "[1.2.3.][4.5.6.] lasts 6000 stts,5,1000,1,1000 stss,3,6 ctts,4,1,2,2 sizes 6"},
		{5000, 3000, false, "[5.6.7.] lasts 3000 stts,1,1000,2,1000 stss,2 ctts,3,2 sizes 3"},
		{5000, 3000, true, "[3.][4.5.6.7.] skips 2000 lasts 5000 stts,3,1000,2,1000 stss,1,4 ctts,2,1,3,2 sizes 5"},
		{8000, 0, true, "[6.7.][8.9.] skips 2000 lasts 4000 stts,4,1000 stss,1,4 ctts,4,2 sizes 4"},
	} {
		for _, kind := range []struct{ uniform, long, first bool }{{}, {uniform: true}, {long: true}, {first: true}} {
			file := sample(kind.uniform, kind.long, kind.first, nil)
			c, err := Cut(bytes.NewReader(file), int64(len(file)), &Options{tt.start, tt.length, tt.key, 1 << 20})
			if err != nil {
				t.Fatalf("%d+%d: %v", tt.start, tt.length, err)
			}
			if c == nil {
				if !kind.first || tt.start+tt.length > 0 {
					t.Errorf("%d+%d: the file as it is", tt.start, tt.length)
				}
				continue
			}
			if got := play(t, file, c); got != tt.want {
				t.Errorf("%d+%d %v %+v:\ngot  %s\nwant %s", tt.start, tt.length, tt.key, kind, got, tt.want)
			}
		}
	}
}

// TestMistakes: what does not fit is an error.
func TestMistakes(t *testing.T) {
	t.Parallel()
	with := func(i int, b []byte) []byte {
		return sample(false, false, false, func(tables [][]byte) [][]byte {
			tables[i] = b
			return tables
		})
	}
	whole := sample(false, false, false, nil)
	for want, file := range map[string][]byte{
		"mp4 start time exceeds file duration":             bytes.Replace(whole, []byte("\x00\x00\x03\xe8\x00\x00\x27\x10"), []byte("\x00\x00\x03\xe8\x00\x00\x00\x10"), 1),
		"no mp4 trak atoms were found":                     slice(whole, "trak", "junk"),
		"no mp4 mdat atom was found":                       slice(whole, "mdat", "junk"),
		"no mp4 stts atoms were found":                     slice(whole, "stts", "junk"),
		"no mp4 stsc atoms were found":                     slice(whole, "stsc", "junk"),
		"no mp4 stco atoms were found":                     slice(whole, "stco", "junk"),
		"mp4 compressed moov atom (cmov) is not supported": slice(whole, "trak", "cmov"),
		"start time is out mp4 stts samples":               with(1, box("stts", 0, 1, 1, 1000)),
		"start time is out mp4 stsc chunks":                with(4, box("stsc", 0, 1, 1, 1, 1)),
		"unordered mp4 stsc chunks":                        with(4, box("stsc", 0, 2, 3, 4, 1, 1, 2, 1)),
		"zero chunk":                                       with(4, box("stsc", 0, 1, 0, 4, 1)),
		"zero number of entries in stsc atom":              with(4, box("stsc", 0, 0)),
		"start time is out mp4 stsz samples":               with(5, box("stsz", 0, 10, 3)),
		"mp4 stts atom too small":                          with(1, box("stts", 0, 9, 6, 1000)),
		"duplicate mp4 stss atom":                          with(3, box("stss", 0, 0)),
		"mp4 stsd atom too small":                          with(0, box("stsd", 0)),
		"too large chunk offset":                           with(6, box("stco", 0, 3, 1<<30, 1<<30, 1<<30)),
		"mp4 atom too large:1073741824":                    with(2, append([]byte{0x40, 0, 0, 0}, "junk"...)),
		"mp4 atom is too small:5":                          with(2, append([]byte{0, 0, 0, 5}, "junk"...)),
		"mp4 file truncated":                               append(box("free"), 0, 0, 0),
		"mp4 ftyp atom is too large:2000":                  box("ftyp", zeros(2000)),
		"duplicate mp4 ftyp atom":                          append(box("ftyp"), whole...),
		"duplicate mp4 mdat atom":                          append(box("mdat"), whole...),
	} {
		if _, err := Cut(bytes.NewReader(file), int64(len(file)), &Options{Start: 5000, MaxMovie: 1 << 20}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := Cut(bytes.NewReader(whole), int64(len(whole)), &Options{Start: 5000, MaxMovie: 100}); err == nil || !strings.HasPrefix(err.Error(), "mp4 moov atom is too large:") {
		t.Error(err)
	}
	if _, err := Cut(bytes.NewReader(whole), int64(len(whole)), &Options{Start: 5000, Length: 1, MaxMovie: 1 << 20}); err == nil || err.Error() != "no data between start time and end time" {
		t.Error(err)
	}
}

func slice(b []byte, name, other string) []byte {
	return bytes.ReplaceAll(b, []byte(name), []byte(other))
}

// FuzzCut: whatever a file says, what comes of it lies within the file, and the new
// head is not larger than the old one but for what begins with a key frame.
func FuzzCut(f *testing.F) {
	for _, kind := range []struct{ uniform, long, first bool }{{}, {uniform: true}, {long: true}, {first: true}} {
		f.Add(sample(kind.uniform, kind.long, kind.first, nil), uint64(5000), uint64(0), false)
		f.Add(sample(kind.uniform, kind.long, kind.first, nil), uint64(1500), uint64(3000), true)
	}
	f.Fuzz(func(t *testing.T, file []byte, start, length uint64, key bool) {
		c, err := Cut(bytes.NewReader(file), int64(len(file)), &Options{start, length, key, 1 << 20})
		if err != nil || c == nil {
			return
		}
		if c.From < 0 || c.From >= c.To || c.To > int64(len(file)) {
			t.Fatalf("bytes %d to %d of %d", c.From, c.To, len(file))
		}
		if len(c.Head) > 4*len(file)+1<<10 {
			t.Fatalf("a head of %d bytes for a file of %d", len(c.Head), len(file))
		}
	})
}
