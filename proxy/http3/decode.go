package http3

import (
	"os"

	"proxyctl/proxy/head"
)

var errTimeout = os.ErrDeadlineExceeded

// section is a field section that is being decoded (RFC 9204, section 4.5).
type section struct {
	table    *table
	required int // how many entries it needs
	base     int
	current  head.Field // that is being taken
}

// prefix reads what stands before the fields.
func (s *section) prefix(b []byte) (rest []byte, err error) {
	coded, rest, err := number(b, 8)
	if err != nil {
		return b, err
	}
	if len(rest) == 0 {
		return b, errMore
	}
	negative := rest[0]&0x80 != 0
	delta, rest, err := number(rest, 7)
	if err != nil {
		return b, err
	}
	if s.required, err = s.table.required(coded); err != nil {
		return b, err
	}
	if s.base = s.required + delta; negative {
		if s.base = s.required - delta - 1; s.base < 0 {
			return b, broken(DecompressionFailed, "client sent negative base")
		}
	}
	return rest, nil
}

// required finds out how many entries a section needs; the number comes without
// its multiples of what the table can hold twice (RFC 9204, section 4.5.1.1).
func (t *table) required(coded int) (int, error) {
	const most = tableSize / 32
	t.mu.Lock()
	defer t.mu.Unlock()
	if coded == 0 {
		return 0, nil
	}
	if coded > 2*most {
		return 0, errCount
	}
	highest := t.inserted() + most
	n := highest/(2*most)*(2*most) + coded - 1
	if n > highest {
		n -= 2 * most
	}
	if n <= 0 {
		return 0, errCount
	}
	return n, nil
}

var errCount = broken(DecompressionFailed, "client sent invalid required insert count")

// fields gives the fields to take. Text that is in no table is kept in *arena.
func (s *section) fields(b []byte, arena *[]byte, take func(*head.Field) error) error {
	for len(b) > 0 {
		f, rest, err := s.field(b, arena)
		if err == nil {
			s.current = f
			err = take(&s.current)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// field reads a field.
func (s *section) field(b []byte, arena *[]byte) (f head.Field, rest []byte, err error) {
	switch c := b[0]; {
	case c&0x80 != 0:
		return s.indexed(b, 6, c&0x40 != 0, false)
	case c&0x40 != 0:
		f, rest, err = s.indexed(b, 4, c&0x10 != 0, false)
	case c&0x20 != 0:
		return s.literal(b, arena)
	case c&0x10 != 0:
		return s.indexed(b, 4, false, true)
	default:
		f, rest, err = s.indexed(b, 3, false, true)
	}
	if err != nil {
		return f, b, err
	}
	value, rest, err := s.table.text(rest, 7, arena)
	if err != nil {
		return f, b, err
	}
	f.Renew(value)
	return f, rest, nil
}

// indexed finds the field of an index, which counts from the static table or, in
// the other one, from the base on or back.
func (s *section) indexed(b []byte, prefix uint8, static, on bool) (f head.Field, rest []byte, err error) {
	n, rest, err := number(b, prefix)
	switch {
	case err != nil:
		return f, b, err
	case static && n < len(staticTable):
		return staticTable[n], rest, nil
	case static:
		return f, b, errIndex
	case on:
		n += s.base
	default:
		n = s.base - n - 1
	}
	if n < 0 || n >= s.required {
		return f, b, errIndex
	}
	f, err = s.table.at(n)
	return f, rest, err
}

// literal reads a field that is spelled out.
func (s *section) literal(b []byte, arena *[]byte) (f head.Field, rest []byte, err error) {
	name, rest, err := s.table.text(b, 3, arena)
	if err != nil {
		return f, b, err
	}
	if len(name) == 0 {
		return f, b, broken(GeneralProtocolError, "client sent zero header name length")
	}
	value, rest, err := s.table.text(rest, 7, arena)
	if err != nil {
		return f, b, err
	}
	return head.NewField(name, value), rest, nil
}
