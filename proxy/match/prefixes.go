package match

import (
	"slices"
	"strings"
)

// Kind tells how an entry of Prefixes matched.
type Kind uint8

// The answers of Prefixes.Lookup, as those of ngx_http_core_find_static_location
// (ngx_http_core_module.c).
const (
	None     Kind = iota // no entry matches
	Exact                // the path is the text of an exact entry
	Prefix               // the value is that of the longest prefix entry
	Redirect             // the path lacks only the trailing slash of an entry that asked for this answer
)

// Prefixes finds the exact or longest prefix entry of a path. Case counts.
//
// The texts are sorted, so that all entries that are prefixes of a path are
// the last entry not above it, or that entry's parents: a binary search finds
// them.
type Prefixes[T any] struct {
	texts     []string
	nodes     []node[T] // by the indexes of texts
	redirects bool
}

// node is what stands for one text. At least one of exact, prefix and redirect
// is set.
type node[T any] struct {
	exact, prefix T
	hasExact      bool
	hasPrefix     bool
	redirect      bool
	parent        int // the longest other prefix entry that begins this text, or -1
}

// PrefixesBuilder collects the entries of a Prefixes. It is not safe for
// concurrent use.
type PrefixesBuilder[T any] struct {
	nodes map[string]*node[T]
}

// NewPrefixes returns an empty builder.
func NewPrefixes[T any]() *PrefixesBuilder[T] {
	return &PrefixesBuilder[T]{nodes: map[string]*node[T]{}}
}

// AddExact enters a text that matches only itself. The first value of a text
// stays: existed says that this one was dropped.
func (b *PrefixesBuilder[T]) AddExact(text string, value T) (existed bool) {
	n := b.node(text)
	if n.hasExact {
		return true
	}
	n.exact, n.hasExact = value, true
	return false
}

// AddPrefix enters a text that matches every path beginning with it. If
// redirect is set and the text ends in a slash, AddRedirect is done as well.
// The first value of a text stays: existed says that this one was dropped.
func (b *PrefixesBuilder[T]) AddPrefix(text string, value T, redirect bool) (existed bool) {
	n := b.node(text)
	if n.hasPrefix {
		return true
	}
	n.prefix, n.hasPrefix = value, true
	if redirect {
		b.AddRedirect(text)
	}
	return false
}

// AddRedirect makes the path that lacks only the trailing slash of text match
// with Redirect and the value of the exact entry for text, or else that of the
// prefix entry. It changes nothing if text has no entry in the end, or does not
// end in a slash.
func (b *PrefixesBuilder[T]) AddRedirect(text string) {
	if strings.HasSuffix(text, "/") {
		b.node(text).redirect = true
	}
}

func (b *PrefixesBuilder[T]) node(text string) *node[T] {
	n := b.nodes[text]
	if n == nil {
		n = new(node[T])
		b.nodes[text] = n
	}
	return n
}

// Build returns the finished set. The builder must not be used afterwards.
func (b *PrefixesBuilder[T]) Build() *Prefixes[T] {
	p := &Prefixes[T]{texts: make([]string, 0, len(b.nodes))}
	for text, n := range b.nodes {
		if n.hasExact || n.hasPrefix {
			p.texts = append(p.texts, text)
		}
	}
	slices.Sort(p.texts)
	p.nodes = make([]node[T], len(p.texts))
	open := -1 // the innermost prefix entry that may begin the next text
	for i, text := range p.texts {
		for open >= 0 && !strings.HasPrefix(text, p.texts[open]) {
			open = p.nodes[open].parent
		}
		n := *b.nodes[text]
		n.parent = open
		p.nodes[i] = n
		p.redirects = p.redirects || n.redirect
		if n.hasPrefix {
			open = i
		}
	}
	b.nodes = nil
	return p
}

// Len returns the number of different texts.
func (p *Prefixes[T]) Len() int { return len(p.texts) }

// Lookup finds the entry of path. It does not allocate.
func (p *Prefixes[T]) Lookup(path []byte) (value T, kind Kind) {
	i, found := p.search(path)
	if found {
		if n := &p.nodes[i]; n.hasExact {
			return n.exact, Exact
		} else if n.hasPrefix {
			return n.prefix, Prefix
		}
	}
	if p.redirects {
		if n := p.withSlash(path, i); n != nil {
			if n.hasExact {
				return n.exact, Redirect
			}
			return n.prefix, Redirect
		}
	}
	i--
	if i < 0 {
		return value, None
	}
	common := commonPrefix(p.texts[i], path)
	if !p.nodes[i].hasPrefix {
		i = p.nodes[i].parent
	}
	for i >= 0 && len(p.texts[i]) > common {
		i = p.nodes[i].parent
	}
	if i < 0 {
		return value, None
	}
	return p.nodes[i].prefix, Prefix
}

// search returns the index of the first text not below path, and whether it
// equals path.
func (p *Prefixes[T]) search(path []byte) (int, bool) {
	low, high := 0, len(p.texts)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if p.texts[mid] < string(path) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < len(p.texts) && p.texts[low] == string(path)
}

// withSlash returns the redirecting entry whose text is path and a slash. It
// can only be at from or later.
func (p *Prefixes[T]) withSlash(path []byte, from int) *node[T] {
	n := len(path)
	low, high := from, len(p.texts)
	if low == high || commonPrefix(p.texts[low], path) < n {
		return nil
	}
	for low < high {
		mid := int(uint(low+high) >> 1)
		if t := p.texts[mid]; commonPrefix(t, path) == n && (len(t) == n || t[n] < '/') {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(p.texts) || !p.nodes[low].redirect {
		return nil
	}
	if t := p.texts[low]; len(t) == n+1 && commonPrefix(t, path) == n {
		return &p.nodes[low]
	}
	return nil
}

// commonPrefix returns how many bytes at the start of both are equal.
func commonPrefix(text string, path []byte) int {
	n := min(len(text), len(path))
	for i := range n {
		if text[i] != path[i] {
			return i
		}
	}
	return n
}
