package proxy

import (
	"bytes"
	"strings"

	"proxyctl/proxy/http1"
)

// Names and values of fields on their way to servers and back.

// fieldSet is a set of field names.
type fieldSet struct {
	ids   [4]uint64 // by http1.HeaderID
	names []string  // those without an id
}

func (s *fieldSet) add(name string) {
	if id := http1.Identify([]byte(name)); id != 0 {
		s.ids[id>>6] |= 1 << (id & 63)
		return
	}
	s.names = append(s.names, name)
}

func (s *fieldSet) remove(name string) {
	if id := http1.Identify([]byte(name)); id != 0 {
		s.ids[id>>6] &^= 1 << (id & 63)
		return
	}
	for i, n := range s.names {
		if strings.EqualFold(n, name) {
			s.names = append(s.names[:i:i], s.names[i+1:]...)
			return
		}
	}
}

func (s *fieldSet) has(f *http1.Field) bool {
	if f.ID != 0 {
		return s.ids[f.ID>>6]&(1<<(f.ID&63)) != 0
	}
	for _, n := range s.names {
		if len(n) == len(f.Name) && equalFold(f.Name, n) {
			return true
		}
	}
	return false
}

// hiddenFields makes the set of fields of answers that are not passed on.
func hiddenFields(defaults, hide, pass []string) fieldSet {
	var s fieldSet
	for _, name := range defaults {
		s.add(name)
	}
	for _, name := range hide {
		s.add(name)
	}
	for _, name := range pass {
		s.remove(name)
	}
	return s
}

// safeName keeps line ends out of a field name.
func safeName(name string) string {
	return string(guardLine([]byte(name)))
}

// guardLine blanks what would end a line or a string. Unlike nginx, which
// passes line ends on when a variable holds them.
func guardLine(b []byte) []byte {
	for i, c := range b {
		if c == '\r' || c == '\n' || c == 0 {
			b[i] = ' '
		}
	}
	return b
}

// hasToken looks for a word in a list separated by commas.
func hasToken(list []byte, word string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, comma)
		if equalFold(bytes.Trim(item, " \t"), word) {
			return true
		}
	}
	return false
}

func hasTokenBytes(list, word []byte) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, comma)
		if item = bytes.Trim(item, " \t"); len(item) == len(word) && bytes.EqualFold(item, word) {
			return true
		}
	}
	return false
}

var comma = []byte(",")
