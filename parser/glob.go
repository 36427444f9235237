package parser

import (
	"os"
	"slices"
	"strings"
)

// glob lists the files that match a pattern, sorted as bytes over the whole
// path, with the rules that nginx gets from glob(3) of the C library with no
// flags: a backslash quotes, a leading dot must be written, [!a] and [^a]
// exclude, directories that cannot be read match nothing. No match is no error.
func glob(pattern string) ([]string, error) {
	if i := strings.IndexByte(pattern, 0); i >= 0 {
		pattern = pattern[:i]
	}
	found := []string{""}
	for first := true; ; first = false {
		part, rest, more := strings.Cut(pattern, "/")
		var next []string
		for _, base := range found {
			if !first {
				base += "/"
			}
			next = step(next, base, part, more)
		}
		if found = next; !more || len(found) == 0 {
			break
		}
		pattern = rest
	}
	slices.Sort(found)
	return found, nil
}

// Among lists those of some files' names that a pattern matches, as it would in
// their folders.
func Among(pattern string, names []string) []string {
	parts := strings.Split(pattern, "/")
	var found []string
	for _, name := range names {
		i := 0
		for part := range strings.SplitSeq(name, "/") {
			if i == len(parts) || !matchPart(parts[i], part) {
				i = -1
				break
			}
			i++
		}
		if i == len(parts) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// matchPart matches a name against one part of a pattern, which may be a name.
func matchPart(pattern, name string) bool {
	if magic(pattern) {
		return fnmatch(pattern, name)
	}
	return unescape(pattern) == name
}

// step appends what one part of a pattern gives below base, which is "" or
// ends with a slash. dir tells that a slash follows.
func step(to []string, base, part string, dir bool) []string {
	if !magic(part) {
		name := base + unescape(part)
		if dir {
			return append(to, name) // whether it exists shows in the end
		}
		if _, err := os.Lstat(name); err == nil {
			to = append(to, name)
		}
		return to
	}
	folder := base
	if folder == "" {
		folder = "."
	}
	for _, name := range names(folder) {
		if !fnmatch(part, name) {
			continue
		}
		if dir {
			if info, err := os.Stat(base + name); err != nil || !info.IsDir() {
				continue
			}
		}
		to = append(to, base+name)
	}
	return to
}

// names lists a folder as the C library does, the folder itself and its parent
// among the rest: a pattern such as .* finds them, too.
func names(folder string) []string {
	dir, err := os.Open(folder)
	if err != nil {
		return nil
	}
	defer dir.Close()
	list, err := dir.Readdirnames(-1)
	if err != nil && len(list) == 0 {
		return nil
	}
	return append(list, ".", "..")
}

// magic reports whether a part of a pattern is more than a name: an unquoted
// star or question mark, or an opening bracket with a closing one behind it.
func magic(part string) bool {
	open := false
	for i := 0; i < len(part); i++ {
		switch part[i] {
		case '*', '?':
			return true
		case '\\':
			i++
		case '[':
			open = true
		case ']':
			if open {
				return true
			}
		}
	}
	return false
}

// unescape removes the backslashes that quote.
func unescape(part string) string {
	if strings.IndexByte(part, '\\') < 0 {
		return part
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '\\' && i+1 < len(part) {
			i++
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

// fnmatch matches a file name against one part of a pattern. Going back to the
// last star only keeps it from taking exponential time.
func fnmatch(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.HasPrefix(pattern, `\.`) {
		return false
	}
	p, n := 0, 0
	star, mark := -1, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, mark = p, n
			continue
		}
		if p < len(pattern) {
			if size, ok := matchByte(pattern[p:], name[n]); ok {
				p += size
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchByte matches one byte against the head of a pattern that is no star and
// gives the length of that head.
func matchByte(pattern string, c byte) (size int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		if size, in, valid := bracket(pattern, c); valid {
			return size, in
		}
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
		return 1, false
	}
	return 1, pattern[0] == c
}

// bracket matches a byte against the bracket expression that pattern begins
// with. It is not valid when nothing closes it: the bracket then is a plain byte.
func bracket(pattern string, c byte) (size int, in, valid bool) {
	i := 1
	not := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if not {
		i++
	}
	for first := true; ; first = false {
		if i >= len(pattern) {
			return 0, false, false
		}
		if pattern[i] == ']' && !first {
			return i + 1, in != not, true
		}
		if class, after, ok := class(pattern[i:]); ok {
			in = in || class(c)
			i += after
			continue
		}
		low, after, ok := member(pattern[i:])
		if !ok {
			return 0, false, false
		}
		i += after
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			if high, after, ok = member(pattern[i+1:]); !ok {
				return 0, false, false
			}
			i += 1 + after
		}
		in = in || low <= c && c <= high
	}
}

// member reads one byte of a bracket expression, which may be quoted or be
// written as the collating symbol [.x.] or the class [=x=].
func member(s string) (c byte, size int, ok bool) {
	if len(s) >= 5 && s[0] == '[' && (s[1] == '.' || s[1] == '=') && s[3] == s[1] && s[4] == ']' {
		return s[2], 5, true
	}
	if s[0] != '\\' {
		return s[0], 1, true
	}
	if len(s) == 1 {
		return 0, 0, false
	}
	return s[1], 2, true
}

// class reads a character class such as [:digit:].
func class(s string) (is func(byte) bool, size int, ok bool) {
	if !strings.HasPrefix(s, "[:") {
		return nil, 0, false
	}
	end := strings.Index(s, ":]")
	if end < 2 {
		return nil, 0, false
	}
	between := func(c, low, high byte) bool { return low <= c && c <= high }
	upper := func(c byte) bool { return between(c, 'A', 'Z') }
	lower := func(c byte) bool { return between(c, 'a', 'z') }
	digit := func(c byte) bool { return between(c, '0', '9') }
	alpha := func(c byte) bool { return upper(c) || lower(c) }
	alnum := func(c byte) bool { return alpha(c) || digit(c) }
	graph := func(c byte) bool { return between(c, '!', '~') }
	classes := map[string]func(byte) bool{
		"upper": upper, "lower": lower, "digit": digit, "alpha": alpha, "alnum": alnum, "graph": graph,
		"punct":  func(c byte) bool { return graph(c) && !alnum(c) },
		"print":  func(c byte) bool { return between(c, ' ', '~') },
		"space":  func(c byte) bool { return c == ' ' || between(c, '\t', '\r') },
		"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
		"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
		"xdigit": func(c byte) bool { return digit(c) || between(c, 'a', 'f') || between(c, 'A', 'F') },
	}
	is, ok = classes[s[2:end]]
	return is, end + 2, ok
}
