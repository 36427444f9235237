package http1

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Field is one line of a head. The slices belong to the buffer it was read
// into.
type Field struct {
	Name, Value []byte
	ID          HeaderID
	// Odd: the name has a byte other than letters, digits and hyphens, which
	// nginx calls an invalid header and drops unless told otherwise. Such a field
	// may have a name that is no token (RFC 9110, section 5.6.2).
	Odd bool
	// Underscore: the name is Odd by underscores alone.
	Underscore bool
}

// Classes of bytes.
const (
	isPlain  = 1 << iota // letters, digits, hyphen
	isWord               // those and the underscore
	isName               // may stand in a field name, as nginx has it
	isTarget             // may stand in a request target
	isMethod             // may stand in a method
	isScheme             // may stand in a scheme
	isHost               // may stand in the host of a target, as nginx has it
)

var classes = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		upper := b >= 'A' && b <= 'Z'
		digit := b >= '0' && b <= '9'
		if upper || digit || b >= 'a' && b <= 'z' || b == '-' {
			t[c] |= isPlain | isWord | isScheme | isHost
		}
		if b > ' ' && b != 0x7f {
			t[c] |= isTarget
			if b != ':' {
				t[c] |= isName
			}
		}
		if upper || b == '_' || b == '-' {
			t[c] |= isMethod
		}
	}
	t['_'] |= isWord
	t['+'] |= isScheme
	t['.'] |= isScheme | isHost
	return t
}()

// parseField reads "name: value", a line without its end. bad is where the line
// offends, -1 if it does not.
//
// Unlike nginx, which takes a line without a colon for a field without a value,
// such a line is refused, and so are control characters other than the tab in
// values. Both are ways to make two servers see different fields.
func parseField(line []byte) (f Field, bad int) {
	i, all := 0, uint8(0xff)
	for i < len(line) {
		c := classes[line[i]]
		if c&isName == 0 {
			break
		}
		all &= c
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		return f, i
	}
	f.Name = line[:i]
	if all&isPlain == 0 {
		f.Odd, f.Underscore = true, all&isWord != 0
	} else {
		f.ID = Identify(f.Name)
	}
	start, end := i+1, len(line)
	for start < end && line[start] == ' ' {
		start++
	}
	for end > start && line[end-1] == ' ' {
		end--
	}
	f.Value = line[start:end]
	if c := control(f.Value); c >= 0 {
		return f, start + c
	}
	return f, -1
}

// control finds the first control character other than the tab, -1 if there is
// none. It looks at eight bytes at a time.
func control(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ ones*0x7f
		if ((x-ones*' ')&^x|(del-ones)&^del)&highs == 0 {
			continue
		}
		for j, c := range b[i : i+8] {
			if isControl(c) {
				return i + j
			}
		}
	}
	for ; i < len(b); i++ {
		if isControl(b[i]) {
			return i
		}
	}
	return -1
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// trimCR takes the CR of a line's end away.
func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// firstLine is the start of b up to its first CR or LF.
func firstLine(b []byte) []byte {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		return b[:i]
	}
	return b
}

// length reads the value of Content-Length: digits only.
func length(v []byte) (int64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' || n > (1<<63-1-9)/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// options are the words of Connection that the connection itself obeys.
type options struct {
	Close, KeepAlive, Upgrade bool
}

// read adds the words of one field.
//
// Unlike nginx, which looks for "close" and "keep-alive" anywhere in the value,
// whole words count (RFC 9110, section 7.6.1).
func (o *options) read(v []byte) {
	for len(v) > 0 {
		var word []byte
		if i := bytes.IndexByte(v, ','); i >= 0 {
			word, v = v[:i], v[i+1:]
		} else {
			word, v = v, nil
		}
		word = bytes.Trim(word, " \t")
		switch len(word) {
		case 5:
			o.Close = o.Close || equalFold(word, "close")
		case 7:
			o.Upgrade = o.Upgrade || equalFold(word, "upgrade")
		case 10:
			o.KeepAlive = o.KeepAlive || equalFold(word, "keep-alive")
		}
	}
}

// quoted is how many bytes of input a reason for the log may hold.
const quoted = 512

// printable makes a piece of input fit for a log line.
func printable(b []byte) []byte {
	out := make([]byte, 0, min(len(b), quoted))
	for _, c := range b[:min(len(b), quoted)] {
		if c < ' ' || c >= 0x7f {
			out = fmt.Appendf(out, "\\x%02x", c)
			continue
		}
		out = append(out, c)
	}
	return out
}

// invalidLine words a refused line as nginx does: up to the byte that offends.
func invalidLine(who string, line []byte, bad int) string {
	c := byte('\n')
	if bad < len(line) {
		c = line[bad]
	}
	return fmt.Sprintf("%s: \"%s\\x%02x...\"", who, printable(line[:bad]), c)
}

// find returns the first field with an ID.
func find(fields []Field, id HeaderID) *Field {
	for i := range fields {
		if fields[i].ID == id {
			return &fields[i]
		}
	}
	return &Field{}
}
