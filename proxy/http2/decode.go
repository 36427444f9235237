package http2

import (
	"golang.org/x/net/http2/hpack"

	"proxyctl/proxy/head"
)

// decoder takes header blocks apart (RFC 7541). Fields of its tables are handed
// out as they are: what they point to is never written again.
type decoder struct {
	fieldSize int
	size      int // of the dynamic table
	most      int // that it may have
	table     int // that the other side may ask for
	entries   []head.Field
	scratch   []byte
	begun     bool       // the block has had a field
	current   head.Field // that is being taken
}

// staticTable holds the fields that both sides know, the first at 1. They are
// found out by asking hpack.
var staticTable = func() []head.Field {
	t := make([]head.Field, 1, 64)
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) { t = append(t, head.NewField([]byte(f.Name), []byte(f.Value))) })
	for i := byte(1); ; i++ {
		if _, err := d.Write([]byte{indexed | i}); err != nil {
			return t
		}
	}
}()

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
func (d *decoder) decode(b []byte, arena *[]byte, take func(*head.Field) error) (rest []byte, err error) {
	for len(b) > 0 {
		var e head.Field
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
func (d *decoder) at(n int) (head.Field, error) {
	switch {
	case n <= 0:
		return head.Field{}, errIndex
	case n < len(staticTable):
		return staticTable[n], nil
	case n-len(staticTable) >= len(d.entries):
		return head.Field{}, errIndex
	}
	return d.entries[len(d.entries)-1-(n-len(staticTable))], nil
}

// literal reads a field that is spelled out, or whose name alone is in a table.
func (d *decoder) literal(b []byte, prefix uint8, arena *[]byte) (e head.Field, rest []byte, err error) {
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
		e = named
		if value, b, err = d.text(b, arena); err == nil {
			e.Renew(value)
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
	return head.NewField(name, value), b, nil
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
		if *arena, ok = head.AppendDecoded(*arena, b[:n]); !ok {
			return nil, b, errHuffman
		}
	} else {
		*arena = append(*arena, b[:n]...)
	}
	return (*arena)[start:len(*arena):len(*arena)], b[n:], nil
}

// add puts a field into the dynamic table, in memory of its own, if it fits;
// else into *arena.
func (d *decoder) add(e head.Field, arena *[]byte) head.Field {
	d.evict(e.Size())
	fits := e.Size() <= d.most
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
	d.size += e.Size()
	d.entries = append(d.entries, e)
	return e
}

// evict makes room for n bytes in the dynamic table.
func (d *decoder) evict(n int) {
	gone := 0
	for gone < len(d.entries) && d.size+n > d.most {
		d.size -= d.entries[gone].Size()
		gone++
	}
	if gone > 0 {
		kept := copy(d.entries, d.entries[gone:])
		clear(d.entries[kept:])
		d.entries = d.entries[:kept]
	}
}

// readInt reads an integer with a prefix of some bits.
func readInt(b []byte, prefix uint8) (n int, rest []byte, err error) {
	n, rest, err = head.ReadInt(b, prefix)
	switch err {
	case nil:
		return n, rest, nil
	case head.ErrTruncated:
		return 0, b, errTruncated
	}
	return 0, b, errTooLong
}
