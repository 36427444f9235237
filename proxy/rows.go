package proxy

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"proxyctl/parser"
)

// Row makers for the directives that only fill a field. Each takes the field as
// a function of the level's Conf.

// row is what the makers share: a Command still without its setter.
func (c Command) with(args Arity, syntax string, set func(*Level, *parser.Directive) error) Command {
	if c.Args == "" {
		c.Args = args
	}
	if c.Syntax == "" {
		c.Syntax = syntax
	}
	c.Set = set
	return c
}

// Flag makes a row for "on" or "off".
func Flag(c Command, field func(*Conf) *bool) Command {
	return c.with("flag", "on | off", func(l *Level, d *parser.Directive) error {
		v, err := parseFlag(d)
		if err != nil {
			return err
		}
		*field(l.Conf) = v
		return nil
	})
}

func parseFlag(d *parser.Directive) (bool, error) {
	switch v := d.Args[0].Value; strings.ToLower(v) {
	case "on":
		return true, nil
	case "off":
		return false, nil
	default:
		return false, sayAt(d.Args[0], "Y008", `write "on" or "off"`,
			"invalid value %q in %q directive, it must be \"on\" or \"off\"", v, d.Name.Value)
	}
}

// Size makes a row for a number of bytes with k or m.
func Size(c Command, field func(*Conf) *int64) Command {
	return c.with("1", "size", func(l *Level, d *parser.Directive) error {
		n, ok := parseSize(d.Args[0].Value)
		if !ok {
			return errAt(d.Args[0], "Y009", `sizes are digits and end in k or m: "10m"`, "invalid value")
		}
		*field(l.Conf) = n
		return nil
	})
}

// Offset makes a row for a number of bytes with k, m or g.
func Offset(c Command, field func(*Conf) *int64) Command {
	return c.with("1", "size", func(l *Level, d *parser.Directive) error {
		n, ok := parseOffset(d.Args[0].Value)
		if !ok {
			return errAt(d.Args[0], "Y009", `sizes are digits and end in k, m or g: "10m"`, "invalid value")
		}
		*field(l.Conf) = n
		return nil
	})
}

// Time makes a row for a time in milliseconds resolution.
func Time(c Command, field func(*Conf) *time.Duration) Command {
	return c.with("1", "time", func(l *Level, d *parser.Directive) error {
		t, ok := parseTime(d.Args[0].Value, false)
		if !ok {
			return errAt(d.Args[0], "Y010", `units are ms s m h d w: "5m"`, "invalid value")
		}
		*field(l.Conf) = t
		return nil
	})
}

// Seconds makes a row for a time in seconds resolution.
func Seconds(c Command, field func(*Conf) *time.Duration) Command {
	return c.with("1", "time", func(l *Level, d *parser.Directive) error {
		t, ok := parseTime(d.Args[0].Value, true)
		if !ok {
			return errAt(d.Args[0], "Y010", `units are s m h d w M y: "5m"`, "invalid value")
		}
		*field(l.Conf) = t
		return nil
	})
}

// Number makes a row for a plain number.
func Number(c Command, field func(*Conf) *int) Command {
	return c.with("1", "number", func(l *Level, d *parser.Directive) error {
		n, ok := parseNumber(d.Args[0].Value)
		if !ok {
			return errAt(d.Args[0], "Y009", "write digits only", "invalid number")
		}
		*field(l.Conf) = n
		return nil
	})
}

// NumberIn makes a row for a plain number between two others.
func NumberIn(c Command, least, most int, field func(*Conf) *int) Command {
	return c.with("1", "number", func(l *Level, d *parser.Directive) error {
		n, ok := parseNumber(d.Args[0].Value)
		if !ok {
			return errAt(d.Args[0], "Y009", "write digits only", "invalid number")
		}
		if n < least || n > most {
			return sayAt(d.Args[0], "Y009", "", "value must be between %d and %d", least, most)
		}
		*field(l.Conf) = n
		return nil
	})
}

// Text makes a row for a string without variables.
func Text(c Command, field func(*Conf) *string) Command {
	return c.with("1", "string", func(l *Level, d *parser.Directive) error {
		*field(l.Conf) = d.Args[0].Value
		return nil
	})
}

// Enum makes a row for one of several words; the field gets the word's index.
func Enum(c Command, words []string, field func(*Conf) *int) Command {
	return c.with("1", strings.Join(words, " | "), func(l *Level, d *parser.Directive) error {
		i, err := parseWord(d.Args[0], words)
		if err != nil {
			return err
		}
		*field(l.Conf) = i
		return nil
	})
}

// Bits makes a row for a set of words; bit i stands for words[i].
func Bits(c Command, words []string, field func(*Conf) *uint32) Command {
	return c.with("1+", strings.Join(words, " | ")+" ...", func(l *Level, d *parser.Directive) error {
		var set uint32
		for _, a := range d.Args {
			i, err := parseWord(a, words)
			if err != nil {
				return err
			}
			if set&(1<<i) != 0 {
				l.warnAt(d, a, "duplicate value %q", a.Value)
			}
			set |= 1 << i
		}
		*field(l.Conf) = set
		return nil
	})
}

func parseWord(a parser.Arg, words []string) (int, error) {
	for i, w := range words {
		if strings.EqualFold(a.Value, w) {
			return i, nil
		}
	}
	return 0, sayAt(a, "", "one of "+strings.Join(words, ", "), "invalid value %q", a.Value)
}

// ValueOf makes a row for a string with variables.
func ValueOf(c Command, field func(*Conf) **Value) Command {
	return c.with("1", "string", func(l *Level, d *parser.Directive) error {
		v, err := l.value(d.Args[0].Value)
		if err != nil {
			return err
		}
		*field(l.Conf) = v
		return nil
	})
}

// Strings makes a row for a list of plain strings, one per directive.
func Strings(c Command, field func(*Conf) *List[string]) Command {
	c.Repeat = true
	return c.with("1", "string", func(l *Level, d *parser.Directive) error {
		field(l.Conf).Add(l, d.Args[0].Value)
		return nil
	})
}

// Predicates makes a row for conditions, of which any one counts: all values but
// "" and "0" are true.
func Predicates(c Command, field func(*Conf) *List[*Value]) Command {
	c.Repeat = true
	return c.with("1+", "string ...", func(l *Level, d *parser.Directive) error {
		for _, a := range d.Args {
			v, err := l.value(a.Value)
			if err != nil {
				return err
			}
			field(l.Conf).Add(l, v)
		}
		return nil
	})
}

// Buffers is what "number size" says.
type Buffers struct {
	Number int
	Size   int64
}

// Buffer makes a row for "number size".
func Buffer(c Command, field func(*Conf) *Buffers) Command {
	return c.with("2", "number size", func(l *Level, d *parser.Directive) error {
		n, ok := parseNumber(d.Args[0].Value)
		size, okSize := parseSize(d.Args[1].Value)
		if !ok || !okSize || n == 0 || size == 0 {
			return errAt(d.Args[0], "Y009", "a number and a size: 4 8k", "invalid value")
		}
		*field(l.Conf) = Buffers{n, size}
		return nil
	})
}

// Ignored makes the rows of directives that are accepted and checked for their
// number of arguments only.
func Ignored(in Context, args Arity, reason string, names ...string) []Command {
	var out []Command
	for _, name := range names {
		out = append(out, Command{
			Name: name, In: in, Args: args, Status: NoEffect, Reason: reason,
			Doc: "Accepted without effect.",
			Set: func(_ *Level, d *parser.Directive) error {
				if args == "flag" {
					_, err := parseFlag(d)
					return err
				}
				return nil
			},
		})
	}
	return out
}

// List is the value of a directive that may stand several times. Its first use
// in a level replaces what was inherited, as nginx does.
type List[T any] struct {
	Items []T
	level *Level
}

// Add appends v to the list of level l.
func (s *List[T]) Add(l *Level, v T) {
	if s.level != l {
		s.level = l
		s.Items = nil
	}
	s.Items = append(s.Items, v)
}

// parseSize reads digits with an optional k or m (ngx_parse_size).
func parseSize(s string) (int64, bool) { return parseScaled(s, "km") }

// parseOffset reads digits with an optional k, m or g (ngx_parse_offset).
func parseOffset(s string) (int64, bool) { return parseScaled(s, "kmg") }

func parseScaled(s, units string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	shift := 0
	if i := strings.IndexByte(units, s[len(s)-1]|0x20); i >= 0 {
		shift = 10 * (i + 1)
		s = s[:len(s)-1]
	}
	n, ok := digits(s)
	if !ok || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}

func parseNumber(s string) (int, bool) {
	n, ok := digits(s)
	return int(n), ok
}

// leadingNumber reads the digits that b begins with.
func leadingNumber(b []byte) (n int64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if n > (math.MaxInt64-9)/10 {
			return 0, nil, false
		}
		n = n*10 + int64(b[i]-'0')
	}
	return n, b[i:], i > 0
}

// digits reads an unsigned decimal number; nothing but digits is allowed.
func digits(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' || n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseTime reads nginx's times: units in falling order, a bare number is in
// seconds; "ms" only in milliseconds resolution, "M" and "y" only in seconds
// (ngx_parse_time in src/core/ngx_parse.c).
func parseTime(s string, seconds bool) (time.Duration, bool) {
	const day = 24 * time.Hour
	units := []struct {
		name string
		unit time.Duration
		in   bool
	}{
		{"y", 365 * day, seconds},
		{"M", 30 * day, seconds},
		{"w", 7 * day, true},
		{"d", day, true},
		{"h", time.Hour, true},
		{"m", time.Minute, true},
		{"s", time.Second, true},
		{"ms", time.Millisecond, !seconds},
	}
	if s == "" {
		return 0, false
	}
	var total time.Duration
	next := 0
	for s != "" {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		n, ok := digits(s[:i])
		if !ok {
			return 0, false
		}
		s = s[i:]
		name := unitName(s)
		if name == "" { // a bare number, seconds, only at the end
			if s = strings.TrimLeft(s, " "); s != "" {
				return 0, false
			}
			name = "s"
		} else {
			s = strings.TrimLeft(s[len(name):], " ")
		}
		k := next
		for k < len(units) && units[k].name != name {
			k++
		}
		if k == len(units) || !units[k].in || n > int64((math.MaxInt64-total)/units[k].unit) {
			return 0, false
		}
		total += time.Duration(n) * units[k].unit
		next = k + 1
	}
	return total, true
}

func unitName(s string) string {
	if strings.HasPrefix(s, "ms") {
		return "ms"
	}
	if s != "" && strings.IndexByte("yMwdhms", s[0]) >= 0 {
		return s[:1]
	}
	return ""
}

// confError is a mistake found by a setter. A plain error is printed by the
// driver as `"name" directive TEXT`; a whole one is printed as it is.
type confError struct {
	text  string
	whole bool
	arg   parser.Arg // to underline; zero: the whole directive
	code  string
	hint  string
}

func (e *confError) Error() string { return e.text }

// say is a message that is printed as it is.
func say(format string, a ...any) error {
	return &confError{text: fmt.Sprintf(format, a...), whole: true}
}

// sayAt is say about one argument, with a rule and a hint.
func sayAt(arg parser.Arg, code, hint, format string, a ...any) error {
	return &confError{text: fmt.Sprintf(format, a...), whole: true, arg: arg, code: code, hint: hint}
}

// errAt is a message that follows `"name" directive`, about one argument.
func errAt(arg parser.Arg, code, hint, text string) error {
	return &confError{text: text, arg: arg, code: code, hint: hint}
}

var errDuplicate = errors.New("is duplicate")
