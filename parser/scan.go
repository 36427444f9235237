package parser

// window is the size of nginx's read buffer (NGX_CONF_BUFFER in
// ngx_conf_file.c). A token or comment must fit into it, counted from where
// nginx notes its start.
const window = 4096

// ending tells what ended a run of the scanner.
type ending uint8

const (
	atSemicolon ending = iota
	atBrace            // an opening brace
	atClose            // a closing brace where a statement could begin
	atEnd              // the end of the file where a statement could begin
	atCut              // a closing brace inside a statement
	atFault            // a fault behind which nothing can be read
)

// fault is a syntax error of the scanner.
type fault struct {
	kind faultKind
	// at is the byte, or the end of the file, at which nginx gives up.
	at int
	// token is where the token that is to blame starts, at the open quote for
	// a string that does not end; it is at when there is none.
	token int
	// quote is the quote of an open string, 0 outside of one.
	quote byte
}

type faultKind uint8

const (
	noFault    faultKind = iota
	emptyFault           // ";" or "{" with no word before it
	closeFault           // "}" inside a statement
	afterFault           // something glued to a closing quote
	endFault             // the end of the file inside a statement
	longFault            // a token or comment longer than the window
)

// fatal reports whether nothing sensible can be read behind the fault.
func (f *fault) fatal() bool {
	return f.kind == endFault || f.kind == longFault || f.kind == afterFault && f.quote != 0
}

// scanner splits a text into statements exactly as nginx does
// (ngx_conf_read_token in ngx_conf_file.c), its read buffer included: whether
// a long token is accepted depends on where it lies in the buffer.
type scanner struct {
	src  *Source
	text string
	pos  int // next byte to read
	base int // the buffer holds text[base:last]
	last int
	// start is nginx's mark of the current token. It moves with every byte
	// outside of tokens and comments.
	start int

	args  []Arg // words of the current statement; args[0] is its name
	end   Range // its terminator
	fault fault // the first fault in it
}

func newScanner(src *Source) *scanner {
	s := &scanner{src: src, text: src.content()}
	if src.Name == CommandLine {
		s.last = len(s.text) // read from memory: no buffer to overflow
	}
	return s
}

// read takes the next byte. It fails at the end of the file and when the
// buffer is full of one token.
func (s *scanner) read() (byte, bool) {
	if s.pos >= s.last && !s.refill() {
		return 0, false
	}
	c := s.text[s.pos]
	s.pos++
	return c, true
}

// refill moves the buffer so that it begins with the current token.
func (s *scanner) refill() bool {
	if s.last == len(s.text) || s.pos-s.start == window {
		return false
	}
	s.base = s.start
	s.last = min(len(s.text), s.base+window)
	return true
}

// statement reads up to the end of one statement and leaves its words in
// args. Where the statement's end can be told it reads on after a fault, which
// it leaves in fault.
func (s *scanner) statement() ending {
	s.args, s.fault, s.start = s.args[:0], fault{}, s.pos
	for {
		c, ok := s.read()
		if !ok {
			return s.stopped(0, false)
		}
		s.start = s.pos - 1
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case ';', '{', '}':
			return s.terminator(c)
		case '#':
			if !s.comment() {
				return s.stopped(0, false)
			}
			continue
		case '"', '\'':
			s.start = s.pos
			if !s.quoted(c) {
				return s.stopped(c, true)
			}
			c, ok = s.afterQuote()
		default:
			c, ok = s.bare(c)
		}
		switch {
		case !ok:
			return s.stopped(0, true)
		case s.fault.fatal():
			return s.broken()
		case c == ';' || c == '{' || c == '}':
			return s.terminator(c)
		}
	}
}

// comment reads up to the LF, which is white space again. A backslash has no
// meaning here.
func (s *scanner) comment() bool {
	for {
		c, ok := s.read()
		if !ok {
			return false
		}
		if c == '\n' {
			s.start = s.pos - 1
			return true
		}
	}
}

// quoted reads the rest of a string up to its closing quote.
func (s *scanner) quoted(q byte) bool {
	for {
		c, ok := s.read()
		if ok && c == '\\' {
			_, ok = s.read()
		} else if ok && c == q {
			s.word(s.start, s.pos-1, s.start-1, s.pos)
			return true
		}
		if !ok {
			return false
		}
	}
}

// afterQuote looks at the byte behind a closing quote: white space, a
// terminator, or ")", which starts the next token (so that if ($a = "b") works).
func (s *scanner) afterQuote() (byte, bool) {
	c, ok := s.read()
	if !ok {
		return 0, false
	}
	switch c {
	case ' ', '\t', '\r', '\n', ';', '{', '}':
		return c, true
	case ')':
		s.start = s.pos - 1
		return s.bare(c)
	}
	opening := s.args[len(s.args)-1].Range
	spans := s.src.Line(opening.Start) != s.src.Line(opening.End-1)
	q := byte(0)
	if spans {
		q = s.text[opening.Start]
	}
	s.fail(afterFault, s.pos-1, opening.Start, q)
	if spans {
		return ' ', true
	}
	return s.skip()
}

// skip passes over what is glued to a string, to the end of the line at most.
func (s *scanner) skip() (byte, bool) {
	for {
		s.start = s.pos
		c, ok := s.read()
		if !ok {
			return 0, false
		}
		if c == ';' || c == '{' || c == '\n' {
			return c, true
		}
	}
}

// bare reads the rest of an unquoted token and returns the byte that ends it.
func (s *scanner) bare(c byte) (byte, bool) {
	variable := c == '$'
	ok := true
	if c == '\\' {
		_, ok = s.read()
	}
	for ok {
		if c, ok = s.read(); !ok {
			break
		}
		switch c {
		case '{':
			if variable {
				continue // the brace of ${name}; nginx takes any number of them
			}
			fallthrough
		case ' ', '\t', '\r', '\n', ';':
			s.word(s.start, s.pos-1, s.start, s.pos-1)
			return c, true
		case '\\':
			_, ok = s.read()
		}
		variable = c == '$'
	}
	return 0, false
}

// word keeps the token text[from:to], which is written in text[start:end].
func (s *scanner) word(from, to, start, end int) {
	s.args = append(s.args, Arg{decode(s.text[from:to]), Range{s.src, start, end}})
}

// terminator judges a byte that ends statements.
func (s *scanner) terminator(c byte) ending {
	at := s.pos - 1
	s.end = Range{s.src, at, s.pos}
	switch {
	case c == '}' && len(s.args) == 0:
		return atClose
	case c == '}':
		s.fail(closeFault, at, at, 0)
		return atCut
	case len(s.args) == 0:
		s.fail(emptyFault, at, at, 0)
	}
	if c == '{' {
		return atBrace
	}
	return atSemicolon
}

// stopped says why no byte could be read. quote is that of the open string,
// open tells whether a token was being read.
func (s *scanner) stopped(quote byte, open bool) ending {
	token := s.start
	if quote != 0 {
		token--
	}
	if n := len(s.args); n > 0 && s.args[n-1].Range.End == s.pos {
		open = false // right behind a closing quote
	}
	switch {
	case s.last < len(s.text):
		s.fail(longFault, s.start, token, quote)
	case len(s.args) == 0 && !open:
		s.end = Range{s.src, s.pos, s.pos}
		return atEnd
	case open:
		s.fail(endFault, s.pos, token, quote)
	default:
		s.fail(endFault, s.pos, s.pos, 0)
	}
	return s.broken()
}

// broken ends a statement behind which nothing can be read. A first fault that
// was not fatal stays the one to report.
func (s *scanner) broken() ending {
	s.end = Range{s.src, s.fault.at, min(s.fault.at+1, len(s.text))}
	return atFault
}

// fail notes a fault. The first of a statement counts: others follow from it.
func (s *scanner) fail(kind faultKind, at, token int, quote byte) {
	if s.fault.kind == noFault {
		s.fault = fault{kind, at, token, quote}
	}
}
