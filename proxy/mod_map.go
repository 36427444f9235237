package proxy

import (
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/match"
)

// ngx_http_map_module: variables whose values are looked up by the values of
// others.

func mapModule() Module {
	rows := []Command{{
		Name: "map", In: InHTTP | InStream, Args: "2", Block: true, Repeat: true, Syntax: "string $variable",
		Doc: "Defines a variable whose value depends on others.", Set: setMap,
	}}
	return Module{
		Name: "ngx_http_map_module", Stream: "ngx_stream_map_module",
		Commands: append(rows, Ignored(InHTTP|InStream, "1", "look-up tables size themselves",
			"map_hash_max_size", "map_hash_bucket_size")...),
	}
}

// valueMap is a map block. It is never written after compiling.
type valueMap struct {
	source    *Value
	exact     map[string]*mapValue // lower case
	longest   int                  // of the keys of exact
	hosts     *match.Names[*mapValue]
	regexes   []mapRegex
	byDefault *mapValue // nil: the empty string
	hostnames bool
}

// mapValue is what a map gives.
type mapValue struct {
	value  *Value
	static []byte // of a value without variables
}

type mapRegex struct {
	regex *regex
	value *mapValue
}

// mapBuilder reads the lines of a map.
type mapBuilder struct {
	*valueMap
	level *Level
	v     *variable
	names *match.NamesBuilder[*mapValue]
}

func setMap(l *Level, d *parser.Directive) error {
	source, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	name, err := variableName(d.Args[1])
	if err != nil {
		return err
	}
	m := &valueMap{source: source, exact: map[string]*mapValue{}}
	v, err := l.addVariable(name, m.fill)
	if err != nil {
		return err
	}
	v.volatile = false
	b := &mapBuilder{valueMap: m, level: l, v: v, names: match.NewNames[*mapValue]()}
	l.Entries(d, b.entry)
	if m.hostnames {
		m.hosts = b.names.Build()
	}
	return nil
}

// entry reads a line: a source value and a value, or a word that changes how
// the map works (ngx_http_map).
func (b *mapBuilder) entry(e *parser.Directive) error {
	key := e.Name.Value
	if len(e.Args) == 0 {
		switch key {
		case "hostnames":
			b.hostnames = true
			return nil
		case "volatile":
			b.v.volatile = true
			return nil
		}
	}
	if len(e.Args) != 1 {
		return sayAt(e.Name, "Y007", "a line is: source-value value;", "invalid number of the map parameters")
	}
	v, err := b.level.value(e.Args[0].Value)
	if err != nil {
		return err
	}
	value := &mapValue{value: v}
	if s, ok := v.Static(); ok {
		value.static = []byte(s)
	}
	switch {
	case key == "default":
		if b.byDefault != nil {
			return sayAt(e.Name, "Y011", "keep one", "duplicate default map parameter")
		}
		b.byDefault = value
		return nil
	case strings.HasPrefix(key, "~"):
		pattern, caseless := strings.CutPrefix(key[1:], "*")
		re, err := b.level.regex(pattern, caseless, e.Name)
		if err != nil {
			return err
		}
		b.regexes = append(b.regexes, mapRegex{re, value})
		return nil
	}
	return b.key(e.Name, strings.TrimPrefix(key, `\`), value)
}

// key enters a text, or a host name or wildcard after "hostnames".
func (b *mapBuilder) key(a parser.Arg, key string, value *mapValue) error {
	folded := foldASCII(key)
	if b.hostnames {
		existed, err := b.names.Add(key, value)
		if err != nil {
			return sayAt(a, "", "wildcards are *.example.com, .example.com and www.example.*", "invalid hostname or wildcard \"%s\"", key)
		}
		// what stands above "hostnames" counts too
		if b.exact[strings.TrimPrefix(folded, ".")] != nil && !strings.Contains(key, "*") {
			existed = true
		}
		if existed {
			return conflicting(a, folded)
		}
		return nil
	}
	if b.exact[folded] != nil {
		return conflicting(a, folded)
	}
	b.exact[folded] = value
	b.longest = max(b.longest, len(folded))
	return nil
}

func conflicting(a parser.Arg, key string) error {
	return sayAt(a, "Y011", "case does not count in source values", "conflicting parameter \"%s\"", key)
}

// foldASCII folds what lookup folds.
func foldASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// fill computes the variable (ngx_http_map_variable).
func (m *valueMap) fill(x *Exchange, s *slot) {
	s.state = slotFilling
	value := m.find(x)
	var b []byte
	switch {
	case value == nil:
	case value.static != nil:
		b = value.static
	default:
		b = value.value.Bytes(x)
	}
	s.value, s.state = b, slotSet
}

// find looks the source up: exact values and host names first, then regular
// expressions in the order of the file (ngx_http_map_find).
func (m *valueMap) find(x *Exchange) *mapValue {
	key := m.source.Append(x.borrow(), x)
	defer x.giveBack(key)
	if n := len(key); m.hostnames && n > 0 && key[n-1] == '.' {
		key = key[:n-1]
	}
	if v := m.lookup(key); v != nil {
		return v
	}
	if len(key) > 0 && len(m.regexes) > 0 {
		subject := x.keep(key) // captures refer to it
		for i := range m.regexes {
			if matched, err := x.searchRegex(m.regexes[i].regex, subject); err != nil {
				x.Logf(logAlert, "pcre2_match() failed: %v on \"%s\" using \"%s\"", err, subject, m.regexes[i].regex.String())
				break
			} else if matched {
				return m.regexes[i].value
			}
		}
	}
	return m.byDefault
}

// lookup finds a value without regard to case.
func (m *valueMap) lookup(key []byte) *mapValue {
	if len(key) <= m.longest {
		var folded [64]byte
		b := folded[:0]
		for _, c := range key {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			b = append(b, c)
		}
		if v := m.exact[string(b)]; v != nil {
			return v
		}
	}
	if m.hosts != nil {
		if v, ok := m.hosts.Lookup(key); ok {
			return v
		}
	}
	return nil
}
