package http2

import (
	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/http1"
)

// decoder takes header blocks apart (RFC 7541). Fields of its tables are handed
// out as they are: what they point to is never written again.
type decoder struct {
	fieldSize int
	size      int // of the dynamic table
	most      int // that it may have
	table     int // that the other side may ask for
	entries   []entry
	scratch   []byte
	begun     bool  // the block has had a field
	current   entry // that is being taken
}

// entry is a field of a table, and what has been found out about it.
type entry struct {
	http1.Field
	bad fault
}

// fault says what is malformed about a field.
type fault uint8

const (
	fine fault = iota
	badName
	badValue
)

// entryOverhead is what an entry counts beside its text (RFC 7541, section 4.1).
const entryOverhead = 32

func (e *entry) size() int { return len(e.Name) + len(e.Value) + entryOverhead }

// staticTable holds the fields that both sides know, the first at 1. They are
// found out by asking hpack.
var staticTable = func() []entry {
	t := make([]entry, 1, 64)
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) { t = append(t, newEntry([]byte(f.Name), []byte(f.Value))) })
	for i := byte(1); ; i++ {
		if _, err := d.Write([]byte{indexed | i}); err != nil {
			return t
		}
	}
}()

func newEntry(name, value []byte) entry {
	e := entry{Field: http1.Classify(name, value)}
	switch {
	case malformedName(name):
		e.bad = badName
	case malformedValue(value):
		e.bad = badValue
	}
	return e
}

// malformedName holds a name against RFC 9113, section 8.2.1. Unlike nginx, which
// lets them pass for invalid headers, names with bytes outside of ASCII are
// malformed.
func malformedName(name []byte) bool {
	for i, c := range name {
		if c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' || c == ':' && (i > 0 || len(name) == 1) {
			return true
		}
	}
	return false
}

// malformedValue holds a value against the same section. Unlike nginx, which
// passes them on, values that begin or end with white space are malformed.
func malformedValue(value []byte) bool {
	for _, c := range value {
		if c == 0 || c == '\r' || c == '\n' {
			return true
		}
	}
	n := len(value)
	return n > 0 && (space(value[0]) || space(value[n-1]))
}

func space(c byte) bool { return c == ' ' || c == '\t' }

// The ways in which a block can be wrong.
var (
	errTruncated = broken(FrameSizeError, "client sent header block with incorrect length")
	errTooLong   = broken(CompressionError, "client sent header block with too long value")
	errIndex     = broken(CompressionError, "client sent invalid hpack table index")
	errHuffman   = broken(CompressionError, "client sent invalid encoded header field")
	errTableSize = broken(CompressionError, "client sent invalid table size update")
	errFieldSize = broken(EnhanceYourCalm, "client sent too large header field")
	errNoName    = broken(ProtocolError, "client sent zero header name length")
)

// decode gives the fields of a block to take as far as b goes. Text that is in no
// table is kept in *arena. What is left begins a field that is not whole; the
// error is errTruncated then. Any error but that ends the connection.
func (d *decoder) decode(b []byte, arena *[]byte, take func(*entry) error) (rest []byte, err error) {
	for len(b) > 0 {
		var e entry
		var next []byte
		switch c := b[0]; {
		case c&0xe0 == tableSizeZero:
			if next, err = d.resize(b); err != nil {
				return b, err
			}
			b = next
			continue
		case c&indexed != 0:
			var n int
			if n, next, err = readInt(b, 7); err == nil {
				e, err = d.at(n)
			}
		case c&indexedName != 0:
			d.scratch = d.scratch[:0]
			if e, next, err = d.literal(b, 6, &d.scratch); err == nil {
				e = d.add(e, arena)
			}
		default:
			e, next, err = d.literal(b, 4, arena)
		}
		d.begun = true
		if err == nil {
			d.current = e
			err = take(&d.current)
		}
		if err != nil {
			return b, err
		}
		b = next
	}
	return nil, nil
}

// resize reads a new size of the dynamic table. Unlike nginx, which takes it
// anywhere, it must come before the fields.
func (d *decoder) resize(b []byte) (rest []byte, err error) {
	n, rest, err := readInt(b, 5)
	if err != nil {
		return b, err
	}
	if n > d.table || d.begun {
		return b, errTableSize
	}
	d.most = n
	d.evict(0)
	return rest, nil
}

// at gives the field with an index.
func (d *decoder) at(n int) (entry, error) {
	switch {
	case n <= 0:
		return entry{}, errIndex
	case n < len(staticTable):
		return staticTable[n], nil
	case n-len(staticTable) >= len(d.entries):
		return entry{}, errIndex
	}
	return d.entries[len(d.entries)-1-(n-len(staticTable))], nil
}

// literal reads a field that is spelled out, or whose name alone is in a table.
func (d *decoder) literal(b []byte, prefix uint8, arena *[]byte) (e entry, rest []byte, err error) {
	n, b, err := readInt(b, prefix)
	if err != nil {
		return e, b, err
	}
	var name, value []byte
	if n > 0 {
		named, err := d.at(n)
		if err != nil {
			return e, b, err
		}
		e.Field, e.bad = named.Field, fine
		if named.bad == badName {
			e.bad = badName
		}
		if e.Value, b, err = d.text(b, arena); err == nil && e.bad == fine && malformedValue(e.Value) {
			e.bad = badValue
		}
		return e, b, err
	}
	if name, b, err = d.text(b, arena); err != nil {
		return e, b, err
	}
	if len(name) == 0 {
		return e, b, errNoName
	}
	if value, b, err = d.text(b, arena); err != nil {
		return e, b, err
	}
	return newEntry(name, value), b, nil
}

// text reads a string and keeps it in *arena.
func (d *decoder) text(b []byte, arena *[]byte) (s, rest []byte, err error) {
	if len(b) == 0 {
		return nil, b, errTruncated
	}
	coded := b[0]&huffman != 0
	n, b, err := readInt(b, 7)
	switch {
	case err != nil:
		return nil, b, err
	case n > d.fieldSize:
		return nil, b, errFieldSize
	case n > len(b):
		return nil, b, errTruncated
	}
	start := len(*arena)
	if coded {
		var ok bool
		if *arena, ok = appendDecoded(*arena, b[:n]); !ok {
			return nil, b, errHuffman
		}
	} else {
		*arena = append(*arena, b[:n]...)
	}
	return (*arena)[start:len(*arena):len(*arena)], b[n:], nil
}

// add puts a field into the dynamic table, in memory of its own, if it fits;
// else into *arena.
func (d *decoder) add(e entry, arena *[]byte) entry {
	d.evict(e.size())
	fits := e.size() <= d.most
	var memory []byte
	if fits {
		memory = make([]byte, 0, len(e.Name)+len(e.Value))
	} else {
		memory = *arena
	}
	start := len(memory)
	memory = append(append(memory, e.Name...), e.Value...)
	end := start + len(e.Name)
	e.Name, e.Value = memory[start:end:end], memory[end:len(memory):len(memory)]
	if !fits {
		*arena = memory
		return e
	}
	d.size += e.size()
	d.entries = append(d.entries, e)
	return e
}

// evict makes room for n bytes in the dynamic table.
func (d *decoder) evict(n int) {
	gone := 0
	for gone < len(d.entries) && d.size+n > d.most {
		d.size -= d.entries[gone].size()
		gone++
	}
	if gone > 0 {
		kept := copy(d.entries, d.entries[gone:])
		clear(d.entries[kept:])
		d.entries = d.entries[:kept]
	}
}

// intOctets is how many bytes of an integer nginx reads.
const intOctets = 4

// readInt reads an integer with a prefix of some bits (RFC 7541, section 5.1).
func readInt(b []byte, prefix uint8) (n int, rest []byte, err error) {
	most := 1<<prefix - 1
	if len(b) == 0 {
		return 0, b, errTruncated
	}
	n = int(b[0]) & most
	if n < most {
		return n, b[1:], nil
	}
	for i := 1; ; i++ {
		switch {
		case i == intOctets:
			return 0, b, errTooLong
		case i == len(b):
			return 0, b, errTruncated
		}
		n += int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			return n, b[i+1:], nil
		}
	}
}
