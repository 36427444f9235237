// Package match finds the entry for a name or a path in large sets: exact
// names, names with a wildcard label at either end, and exact and longest
// prefix matches of paths.
//
// Sets are built once by a builder and are immutable afterwards: look-ups need
// no lock and do not allocate.
package match

import (
	"bytes"
	"errors"
	"strings"
)

// ErrName is returned for a name that has a wildcard where none can be, an
// empty label in the middle or a NUL.
var ErrName = errors.New("invalid name or wildcard")

// Names finds the value of a dotted name. An exact name wins over the longest
// leading wildcard (*.example.com), that over the longest trailing one
// (www.example.*), as in ngx_hash_find_combined (ngx_hash.c).
type Names[T any] struct {
	exact map[string]T
	head  wildcards[T] // by what follows "*."
	tail  wildcards[T] // by what precedes ".*"
}

// wildcards is one kind of wildcard. Keys are between shortest and longest
// bytes long, so that an absurdly long name costs no more than a long key.
type wildcards[T any] struct {
	values            map[string]T
	shortest, longest int
}

// NamesBuilder collects the entries of a Names. It is not safe for concurrent
// use.
type NamesBuilder[T any] struct {
	names Names[T]
	// taken holds the exact names that are spoken for. It may hold more than
	// names.exact, see addHead.
	taken map[string]bool
}

// NewNames returns an empty builder.
func NewNames[T any]() *NamesBuilder[T] {
	return &NamesBuilder[T]{
		names: Names[T]{
			exact: map[string]T{},
			head:  wildcards[T]{values: map[string]T{}},
			tail:  wildcards[T]{values: map[string]T{}},
		},
		taken: map[string]bool{},
	}
}

// Add enters a name in one of the forms "a.b", "*.a.b", "a.b.*" and ".a.b",
// the last of which stands for "a.b" and "*.a.b". Upper case ASCII letters are
// folded. The first value of a name stays: existed says that this one was
// dropped. A form that is none of the above yields ErrName (ngx_hash_add_key).
func (b *NamesBuilder[T]) Add(name string, value T) (existed bool, err error) {
	name = strings.ToLower(name)
	if strings.Count(name, "*") > 1 || strings.Contains(name, "..") || strings.IndexByte(name, 0) >= 0 {
		return false, ErrName
	}
	switch {
	case len(name) > 1 && name[0] == '.':
		return b.addHead(name[1:], value, true), nil
	case len(name) > 2 && name[:2] == "*.":
		return b.addHead(name[2:], value, false), nil
	case len(name) > 2 && name[len(name)-2:] == ".*":
		return !b.names.tail.add(name[:len(name)-2], value), nil
	case strings.IndexByte(name, '*') >= 0:
		return false, ErrName
	}
	if b.taken[name] {
		return true, nil
	}
	b.taken[name] = true
	b.names.exact[name] = value
	return false, nil
}

// addHead enters "*.name", and "name" itself if bare is set. nginx drops both
// when either is there already, yet a name whose wildcard was the obstacle
// remains taken: after "*.a" and ".a" a plain "a" is dropped as well.
func (b *NamesBuilder[T]) addHead(name string, value T, bare bool) (existed bool) {
	if bare {
		if b.taken[name] {
			return true
		}
		b.taken[name] = true
	}
	if !b.names.head.add(name, value) {
		return true
	}
	if bare {
		b.names.exact[name] = value
	}
	return false
}

// Build returns the finished set. The builder must not be used afterwards.
func (b *NamesBuilder[T]) Build() *Names[T] {
	n := b.names
	b.names, b.taken = Names[T]{}, nil
	return &n
}

// Len returns the number of names and wildcards in the set; ".a" counts twice.
func (n *Names[T]) Len() int {
	return len(n.exact) + len(n.head.values) + len(n.tail.values)
}

// Lookup returns the value of a name. ASCII letters of either case are equal.
// It does not allocate unless name has upper case letters and more than 255
// bytes, which no DNS name has.
func (n *Names[T]) Lookup(name []byte) (value T, ok bool) {
	var folded [255]byte
	for i, c := range name {
		if c-'A' < 26 {
			name = fold(append(folded[:0], name...), i)
			break
		}
	}
	if value, ok = n.exact[string(name)]; ok {
		return value, true
	}
	if len(n.head.values) > 0 {
		if value, ok = n.head.suffix(name); ok {
			return value, true
		}
	}
	if len(n.tail.values) > 0 {
		return n.tail.prefix(name)
	}
	return value, false
}

func (w *wildcards[T]) add(key string, value T) (added bool) {
	if _, ok := w.values[key]; ok {
		return false
	}
	if len(w.values) == 0 || len(key) < w.shortest {
		w.shortest = len(key)
	}
	w.longest = max(w.longest, len(key))
	w.values[key] = value
	return true
}

// suffix finds the longest key that follows a dot at the end of name.
func (w *wildcards[T]) suffix(name []byte) (value T, ok bool) {
	if over := len(name) - w.longest - 1; over > 0 {
		name = name[over:]
	}
	for {
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			return value, false
		}
		if name = name[dot+1:]; len(name) < w.shortest {
			return value, false
		}
		if value, ok = w.values[string(name)]; ok {
			return value, true
		}
	}
}

// prefix finds the longest key that precedes a dot at the start of name.
func (w *wildcards[T]) prefix(name []byte) (value T, ok bool) {
	if len(name) > w.longest {
		name = name[:w.longest+1]
	}
	for {
		dot := bytes.LastIndexByte(name, '.')
		if dot < w.shortest {
			return value, false
		}
		name = name[:dot]
		if value, ok = w.values[string(name)]; ok {
			return value, true
		}
	}
}

// fold lowers the ASCII letters of name from i on, in place.
func fold(name []byte, i int) []byte {
	for ; i < len(name); i++ {
		if c := name[i]; c-'A' < 26 {
			name[i] = c | 0x20
		}
	}
	return name
}
