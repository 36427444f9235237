package proxy

import (
	"bytes"
	"strconv"
	"strings"

	"proxyctl/parser"
)

// charset_map and what it does to bodies.

// charsetMaps are the maps of a configuration. It is never written after
// compiling.
type charsetMaps struct {
	names  []string // of all charsets, as first written
	all    []*charsetMap
	failed map[string]bool // pairs that have been complained about
}

// charsetMap recodes between two charsets, in both directions. If one is UTF-8,
// it is the second.
type charsetMap struct {
	first, second string
	there, back   [256]byte       // of two charsets of bytes
	sequences     [256]string     // to UTF-8
	unicode       map[uint32]byte // from UTF-8; nil without it
}

// spelling gives a charset's name as it was written first: nginx sends that.
func (m *charsetMaps) spelling(name string) string {
	for _, n := range m.names {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	m.names = append(m.names, name)
	return name
}

func (m *charsetMaps) knows(name []byte) bool {
	for _, n := range m.names {
		if equalFold(name, n) {
			return true
		}
	}
	return false
}

// find gives the map between two charsets.
func (m *charsetMaps) find(from, to []byte) *charsetMap {
	for _, c := range m.all {
		if equalFold(from, c.first) && equalFold(to, c.second) || equalFold(from, c.second) && equalFold(to, c.first) {
			return c
		}
	}
	return nil
}

// reported says whether a pair has been complained about before.
func (m *charsetMaps) reported(from, to string) bool {
	key := lower(from + "\x00" + to)
	if m.failed == nil {
		m.failed = map[string]bool{}
	}
	before := m.failed[key]
	m.failed[key] = true
	return before
}

func setCharsetMap(l *Level, d *parser.Directive) error {
	maps := l.Conf.Charset.maps
	from, to := d.Args[0].Value, d.Args[1].Value
	m := &charsetMap{first: maps.spelling(from), second: maps.spelling(to)}
	switch {
	case m.first == m.second:
		return sayAt(d.Args[1], "", "", "\"charset_map\" between the same charsets \"%s\" and \"%s\"", from, to)
	case strings.EqualFold(from, "utf-8"):
		return sayAt(d.Args[0], "", "swap the columns", "\"charset_map\" with \"utf-8\" charset should be given in the second column")
	case maps.find([]byte(from), []byte(to)) != nil:
		return sayAt(d.Args[0], "Y011", "one map serves both directions", "duplicate \"charset_map\" between \"%s\" and \"%s\"", from, to)
	}
	if strings.EqualFold(to, "utf-8") {
		m.unicode = map[uint32]byte{}
	}
	for i := range 256 {
		c := byte(i)
		if i >= 128 {
			c = '?'
		}
		m.there[i], m.back[i], m.sequences[i] = c, c, string(c)
	}
	maps.all = append(maps.all, m)
	l.Entries(d, m.entry)
	return nil
}

// entry reads a line: two codes in hexadecimal.
func (m *charsetMap) entry(e *parser.Directive) error {
	if len(e.Args) != 1 {
		return sayAt(e.Name, "Y007", "a line is: code code;", "invalid parameters number")
	}
	from, err := hexCode(e.Name)
	if err != nil {
		return err
	}
	a := e.Args[0]
	if m.unicode == nil {
		to, err := hexCode(a)
		if err != nil {
			return err
		}
		m.there[from], m.back[to] = to, from
		return nil
	}
	sequence := make([]byte, 0, 3)
	for i := 0; i < len(a.Value); i += 2 {
		n, err := strconv.ParseUint(a.Value[i:min(i+2, len(a.Value))], 16, 8)
		if err != nil || i+2 > len(a.Value) || i >= 6 {
			return invalidCode(a)
		}
		sequence = append(sequence, byte(n))
	}
	r, _ := decodeUTF8(sequence)
	if r > 0xffff {
		return invalidCode(a)
	}
	m.sequences[from], m.unicode[r] = string(sequence), from
	return nil
}

func hexCode(a parser.Arg) (byte, error) {
	n, err := strconv.ParseUint(a.Value, 16, 8)
	if err != nil {
		return 0, invalidCode(a)
	}
	return byte(n), nil
}

func invalidCode(a parser.Arg) error {
	return sayAt(a, "Y009", "codes are hexadecimal bytes", "invalid value \"%s\"", a.Value)
}

// What decodeUTF8 gives for what is no character.
const (
	utf8Invalid    = 0xffffffff
	utf8Incomplete = 0xfffffffe
)

// decodeUTF8 reads a character and says how many bytes it, or what is invalid,
// takes (ngx_utf8_decode).
func decodeUTF8(b []byte) (r uint32, n int) {
	if len(b) == 0 {
		return utf8Invalid, 0
	}
	least, more := uint32(0), 0
	switch c := b[0]; {
	case c < 0x80:
		return uint32(c), 1
	case c >= 0xf8 || c < 0xc2:
		return utf8Invalid, 1
	case c >= 0xf0:
		r, least, more = uint32(c&0x07), 0x10000, 3
	case c >= 0xe0:
		r, least, more = uint32(c&0x0f), 0x800, 2
	default:
		r, least, more = uint32(c&0x1f), 0x80, 1
	}
	if len(b) <= more {
		return utf8Incomplete, 0
	}
	for n = 1; n <= more; n++ {
		if b[n] < 0x80 {
			return utf8Invalid, n + 1
		}
		r = r<<6 | uint32(b[n]&0x3f)
	}
	if r < least || r > 0x10ffff {
		return utf8Invalid, n
	}
	return r, n
}

// recoder is the body filter.
type recoder struct {
	m       *charsetMap
	table   *[256]byte // of two charsets of bytes
	toUTF8  bool
	next    bodyWriter
	out     []byte
	partial []byte // the beginning of a character
}

func newRecoder(m *charsetMap, from []byte) *recoder {
	r := &recoder{m: m}
	forth := equalFold(from, m.first)
	switch {
	case m.unicode != nil:
		r.toUTF8 = forth
	case forth:
		r.table = &m.there
	default:
		r.table = &m.back
	}
	return r
}

func (r *recoder) install(next bodyWriter) bodyWriter {
	r.next = next
	return r.write
}

// recodePiece bounds the memory of a recoder.
const recodePiece = 8 << 10

func (r *recoder) write(x *Exchange, p []byte, last bool) error {
	for len(p) > recodePiece {
		if err := r.next(x, r.recode(p[:recodePiece]), false); err != nil {
			return err
		}
		p = p[recodePiece:]
	}
	return r.next(x, r.recode(p), last)
}

// recode gives p in the other charset, valid until the next call.
func (r *recoder) recode(p []byte) []byte {
	r.out = r.out[:0]
	switch {
	case r.table != nil:
		for _, c := range p {
			r.out = append(r.out, r.table[c])
		}
	case r.toUTF8:
		for _, c := range p {
			r.out = append(r.out, r.m.sequences[c]...)
		}
	default:
		r.fromUTF8(p)
	}
	return r.out
}

// fromUTF8 writes characters that the charset lacks as HTML does, and "?" for
// what is none.
func (r *recoder) fromUTF8(p []byte) {
	if len(r.partial) > 0 {
		p = append(r.partial, p...)
		r.partial = nil
	}
	for len(p) > 0 {
		if p[0] < 0x80 {
			r.out = append(r.out, p[0])
			p = p[1:]
			continue
		}
		c, n := decodeUTF8(p)
		switch {
		case c == utf8Incomplete:
			r.partial = bytes.Clone(p)
			return
		case c == utf8Invalid:
			r.out = append(r.out, '?')
		case r.m.unicode[c] != 0:
			r.out = append(r.out, r.m.unicode[c])
		default:
			r.out = append(strconv.AppendUint(append(r.out, "&#"...), uint64(c), 10), ';')
		}
		p = p[n:]
	}
}
