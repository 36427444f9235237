package proxy

import (
	"fmt"
	"strconv"
	"strings"
)

// Value is a text with variables, compiled (nginx: complex value). Safe for
// concurrent use.
type Value struct {
	text  string // when there are no variables
	parts []part
}

// part is literal text, a variable, or a capture of the last regular expression.
type part struct {
	text    string
	v       *variable
	capture int // 1..9; 0 for none
}

// value compiles text with $name, ${name} and $1..$9.
func (l *Level) value(text string) (*Value, error) {
	if strings.IndexByte(text, '$') < 0 {
		return &Value{text: text}, nil
	}
	v := &Value{}
	for text != "" {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			v.parts = append(v.parts, part{text: text})
			break
		}
		if i > 0 {
			v.parts = append(v.parts, part{text: text[:i]})
		}
		p, rest, err := l.reference(text[i+1:])
		if err != nil {
			return nil, err
		}
		v.parts = append(v.parts, p)
		text = rest
	}
	return v, nil
}

// reference compiles what follows a "$".
func (l *Level) reference(s string) (part, string, error) {
	name, capture, rest, err := readReference(s)
	switch {
	case err != nil:
		return part{}, "", err
	case capture != 0:
		return part{capture: capture}, rest, nil
	}
	return part{v: l.c.use(name)}, rest, nil
}

// readReference reads the name of a variable, or the number of a capture, that
// follows a "$" (ngx_http_script_compile).
func readReference(s string) (name string, capture int, rest string, err error) {
	if s == "" {
		return "", 0, "", say("invalid variable name")
	}
	if s[0] >= '1' && s[0] <= '9' {
		return "", int(s[0] - '0'), s[1:], nil
	}
	start := 0
	if s[0] == '{' {
		start = 1
	}
	end := start
	for end < len(s) && isNameByte(s[end]) {
		end++
	}
	name, rest = s[start:end], s[end:]
	if start == 1 {
		if rest == "" || rest[0] != '}' {
			return "", 0, "", sayBracket(name)
		}
		rest = rest[1:]
	}
	switch {
	case name == "":
		return "", 0, "", say("invalid variable name")
	case len(name) == 1 && name[0] >= '1' && name[0] <= '9':
		return "", int(name[0] - '0'), rest, nil
	}
	return name, 0, rest, nil
}

func sayBracket(name string) error {
	return say("the closing bracket in %q variable is missing", name)
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// Static returns the text of a Value without variables.
func (v *Value) Static() (string, bool) {
	return v.text, v.parts == nil
}

// source gives the text that was compiled.
func (v *Value) source() string {
	text := v.text
	for _, p := range v.parts {
		switch {
		case p.v != nil:
			text += "$" + p.v.name
		case p.capture != 0:
			text += "$" + strconv.Itoa(p.capture)
		default:
			text += p.text
		}
	}
	return text
}

// Append evaluates the value for x and appends it to dst.
func (v *Value) Append(dst []byte, x *Exchange) []byte {
	if v.parts == nil {
		return append(dst, v.text...)
	}
	for i := range v.parts {
		dst = v.parts[i].append(dst, x)
	}
	return dst
}

func (p *part) append(dst []byte, x *Exchange) []byte {
	switch {
	case p.v != nil:
		dst, _ = p.v.get(dst, x)
		return dst
	case p.capture != 0:
		return append(dst, x.capture(p.capture)...)
	default:
		return append(dst, p.text...)
	}
}

// maxDepth is how deep values may be nested in variables: beyond it there is a
// circle (nginx: ngx_http_variable_depth).
const maxDepth = 100

// Bytes evaluates the value into memory that lives as long as the exchange.
func (v *Value) Bytes(x *Exchange) []byte {
	if x.depth >= maxDepth {
		x.Logf(logError, "cycle while evaluating variable")
		return nil
	}
	b := v.Append(x.borrow(), x)
	out := x.keep(b)
	x.giveBack(b)
	return out
}

// String evaluates the value into a string of its own.
func (v *Value) String(x *Exchange) string {
	if v.parts == nil {
		return v.text
	}
	return string(v.Bytes(x))
}

// GoString shows the value for debugging.
func (v *Value) GoString() string { return fmt.Sprintf("Value(%q, %d parts)", v.text, len(v.parts)) }

// isTrue says what counts as true: anything but "" and "0".
func isTrue(b []byte) bool { return len(b) > 0 && (len(b) != 1 || b[0] != '0') }

// anyTrue says whether one of the conditions holds (ngx_http_test_predicates).
func (x *Exchange) anyTrue(conditions []*Value) bool {
	for _, v := range conditions {
		b := v.Append(x.borrow(), x)
		holds := isTrue(b)
		x.giveBack(b)
		if holds {
			return true
		}
	}
	return false
}
