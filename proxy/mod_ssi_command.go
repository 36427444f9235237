package proxy

import (
	"bytes"
	"errors"

	"proxyctl/proxy/pcre"
)

// Carrying commands out (ngx_http_ssi_filter_module.c).

// ssiBranch says which commands of an if may follow.
type ssiBranch uint8

const (
	outsideIf ssiBranch = iota
	insideIf
	insideElse
)

// ssiEncoding is how echo writes values.
type ssiEncoding uint8

const (
	encodeNothing ssiEncoding = iota
	encodeURL
	encodeEntities
)

// ssiArgs are the parameters of a command in the order of its row; nil: not
// given.
type ssiArgs [5][]byte

// ssiRow declares a command.
type ssiRow struct {
	params []string
	least  int // so many of params must be given
	// run carries the command out; false: it failed and has said why.
	run func(s *ssiPage, x *Exchange, a *ssiArgs) (bool, error)
	// branch: how far in an if it may stand at most.
	branch ssiBranch
}

// ssiRowOf finds the row of a command.
func ssiRowOf(name []byte) *ssiRow {
	switch string(name) {
	case "include":
		return &ssiRow{params: []string{"virtual", "file", "wait", "set", "stub"}, run: (*ssiPage).include}
	case "echo":
		return &ssiRow{params: []string{"var", "default", "encoding"}, least: 1, run: (*ssiPage).echo}
	case "config":
		return &ssiRow{params: []string{"errmsg", "timefmt"}, run: (*ssiPage).configure}
	case "set":
		return &ssiRow{params: []string{"var", "value"}, least: 2, run: (*ssiPage).set}
	case "if":
		return &ssiRow{params: []string{"expr"}, least: 1, run: (*ssiPage).choose}
	case "elif":
		return &ssiRow{params: []string{"expr"}, least: 1, run: (*ssiPage).choose, branch: insideIf}
	case "else":
		return &ssiRow{run: (*ssiPage).otherwise, branch: insideIf}
	case "endif":
		return &ssiRow{run: (*ssiPage).endIf, branch: insideElse}
	case "block":
		return &ssiRow{params: []string{"name"}, least: 1, run: (*ssiPage).beginBlock}
	case "endblock":
		return &ssiRow{run: (*ssiPage).endBlock}
	}
	return nil
}

// run carries out the command that has been read; false: it failed and has been
// logged.
func (s *ssiPage) run(x *Exchange) (bool, error) {
	row := ssiRowOf(s.command)
	if row == nil {
		if s.output {
			x.Logf(logError, "invalid SSI command: \"%s\"", s.command)
		}
		return !s.output, nil
	}
	if !s.output && string(s.command) != "endblock" {
		if s.block != nil {
			s.keepCommand(x)
			return true, nil
		}
		if row.branch == outsideIf {
			return true, nil
		}
	}
	if row.branch != outsideIf && (s.conditional == outsideIf || s.conditional > row.branch) {
		x.Logf(logError, "invalid context of SSI command: \"%s\"", s.command)
		return false, nil
	}
	var a ssiArgs
	if !s.arguments(x, row, &a) {
		return false, nil
	}
	return row.run(s, x, &a)
}

// keepCommand keeps a command for a block, as text.
func (s *ssiPage) keepCommand(x *Exchange) {
	s.keep(x, []byte(ssiOpening), s.command)
	for i := range s.params {
		s.keep(x, []byte(" "), s.params[i].name, []byte(`="`), s.params[i].value, []byte(`"`))
	}
	s.keep(x, []byte(" -->"))
}

// arguments puts the parameters in order.
func (s *ssiPage) arguments(x *Exchange, row *ssiRow, a *ssiArgs) bool {
	if s.many || len(s.params) > maxSSIParams {
		x.Logf(logError, "too many SSI command parameters: \"%s\"", s.command)
		return false
	}
	for i := range s.params {
		p := &s.params[i]
		at := 0
		for at < len(row.params) && row.params[at] != string(p.name) {
			at++
		}
		switch {
		case at == len(row.params):
			x.Logf(logError, "invalid parameter name: \"%s\" in \"%s\" SSI command", p.name, s.command)
			return false
		case a[at] != nil:
			x.Logf(logError, "duplicate \"%s\" parameter in \"%s\" SSI command", p.name, s.command)
			return false
		}
		a[at] = p.value[:len(p.value):len(p.value)]
		if a[at] == nil {
			a[at] = []byte{}
		}
	}
	for i, name := range row.params[:row.least] {
		if a[i] == nil {
			x.Logf(logError, "mandatory \"%s\" parameter is absent in \"%s\" SSI command", name, s.command)
			return false
		}
	}
	return true
}

// value appends a variable of the page, else of the configuration.
func (s *ssiPage) value(dst []byte, x *Exchange, name []byte) ([]byte, bool) {
	v, ok := x.ssiShared().value(name)
	if ok {
		return append(dst, v...), true
	}
	return x.appendVariable(dst, name)
}

// value gives a variable that pages have set, or a capture of the last regular
// expression. The name is in lower case.
func (h *ssiShared) value(name []byte) ([]byte, bool) {
	if len(name) == 1 && name[0] >= '0' && name[0] <= '9' {
		if i := 2 * int(name[0]-'0'); i < len(h.captures) {
			if h.captures[i] < 0 {
				return nil, true
			}
			return h.captured[h.captures[i]:h.captures[i+1]], true
		}
	}
	v, ok := h.values[string(name)]
	return v, ok
}

// evaluate replaces variables and takes backslashes before quotes and dollars
// away (ngx_http_ssi_evaluate_string).
func (s *ssiPage) evaluate(x *Exchange, text []byte) ([]byte, bool) {
	out := []byte{}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			if n := text[i+1]; n != '\\' && n != '\'' && n != '"' && n != '$' {
				out = append(out, '\\')
			}
			out = append(out, text[i+1])
			i += 2
		case c == '\\':
			i++
		case c == '$':
			name, n, bracket := ssiVariable(text[i+1:])
			if bracket {
				x.Logf(logError, "the closing bracket in \"%s\" variable is missing", name)
				return nil, false
			}
			if len(name) == 0 {
				x.Logf(logError, "invalid variable name in \"%s\"", text)
				return nil, false
			}
			out, _ = s.value(out, x, name)
			i += 1 + n
		default:
			out = append(out, c)
			i++
		}
	}
	return out, true
}

// ssiVariable reads a name behind "$", and says how long that is and whether a
// bracket is missing.
func ssiVariable(text []byte) (name []byte, n int, missing bool) {
	open := len(text) > 0 && text[0] == '{'
	if open {
		n = 1
	}
	start := n
	for n < len(text) && isNameByte(text[n]) {
		n++
	}
	name = bytes.ToLower(text[start:n])
	if open && len(text) > 1 {
		if n == len(text) || text[n] != '}' {
			return name, n, true
		}
		n++
	}
	return name, n, false
}

// include runs a subrequest.
func (s *ssiPage) include(x *Exchange, a *ssiArgs) (bool, error) {
	virtual, file, wait, set, stub := a[0], a[1], a[2], a[3], a[4]
	switch {
	case virtual != nil && file != nil:
		x.Logf(logError, "inclusion may be either virtual=\"%s\" or file=\"%s\"", virtual, file)
		return false, nil
	case virtual == nil && file == nil:
		x.Logf(logError, "no parameter in \"include\" SSI command")
		return false, nil
	case set != nil && stub != nil:
		x.Logf(logError, "\"set\" and \"stub\" cannot be used together in \"include\" SSI command")
		return false, nil
	case wait != nil && virtual == nil:
		x.Logf(logError, "\"wait\" cannot be used with file=\"%s\"", file)
		return false, nil
	case wait != nil && !equalFold(wait, "yes") && !equalFold(wait, "no"):
		x.Logf(logError, "invalid value \"%s\" in the \"wait\" parameter", wait)
		return false, nil
	case virtual == nil:
		virtual = file
	}
	uri, args, ok := s.target(x, virtual)
	if !ok {
		return false, nil
	}
	switch {
	case stub != nil:
		return s.includeOrStub(x, uri, args, stub)
	case set != nil:
		return s.includeInto(x, uri, args, bytes.ToLower(set))
	}
	return s.subrequestEnded(x.include(uri, args, nil))
}

// target evaluates the URI of an include; one without a slash is relative to
// the page's.
func (s *ssiPage) target(x *Exchange, text []byte) (uri, args []byte, ok bool) {
	uri, ok = s.evaluate(x, text)
	if !ok {
		return nil, nil, false
	}
	if len(uri) == 0 || uri[0] != '/' {
		uri = append(bytes.Clone(x.uri[:bytes.LastIndexByte(x.uri, '/')+1]), uri...)
	}
	whole := uri
	uri, args, ok = x.unsafeURI(whole)
	if !ok {
		x.Logf(logError, "unsafe URI \"%s\" was detected", whole)
	}
	return uri, args, ok
}

// subrequestEnded tells a subrequest that could not be made, which shows as a
// failed command, from one that took the client's connection with it.
func (s *ssiPage) subrequestEnded(err error) (bool, error) {
	if errors.Is(err, errNoSubrequest) {
		return false, nil
	}
	return true, err
}

// includeOrStub includes an answer, or a block when there is none.
func (s *ssiPage) includeOrStub(x *Exchange, uri, args, name []byte) (bool, error) {
	for _, b := range x.ssiShared().blocks {
		if b.name == string(name) {
			return s.subrequestEnded(x.include(uri, args, b.text))
		}
	}
	x.Logf(logError, "\"stub\"=\"%s\" for \"include\" not found", name)
	return false, nil
}

// includeInto puts an answer into a variable.
func (s *ssiPage) includeInto(x *Exchange, uri, args, name []byte) (bool, error) {
	sub, err := x.subrequest(uri, args, toMemory, nil)
	if err != nil {
		return s.subrequestEnded(err)
	}
	shared := x.ssiShared()
	if sub.Out.Status < 300 && sub.inner.stream.memory != nil {
		shared.values[string(name)] = sub.inner.stream.memory
	} else if _, has := shared.value(name); !has {
		shared.values[string(name)] = nil
	}
	x.endSubrequest(sub)
	return true, nil
}

// echo writes a variable.
func (s *ssiPage) echo(x *Exchange, a *ssiArgs) (bool, error) {
	value, found := s.value(nil, x, bytes.ToLower(a[0]))
	switch {
	case found:
	case a[1] != nil:
		value = a[1]
	default:
		value = []byte("(none)")
	}
	if len(value) == 0 {
		return true, nil
	}
	switch enc := string(a[2]); {
	case a[2] == nil:
	case enc == "none":
		s.encoding = encodeNothing
	case enc == "url":
		s.encoding = encodeURL
	case enc == "entity":
		s.encoding = encodeEntities
	default:
		x.Logf(logError, "unknown encoding \"%s\" in the \"echo\" command", enc)
	}
	switch s.encoding {
	case encodeURL:
		value = appendEscaped(nil, value, &escapeHTMLURL)
	case encodeEntities:
		value = appendEntities(nil, value)
	case encodeNothing:
	}
	return true, s.next(x, value, false)
}

// escapeHTMLURL is what echo escapes in URLs (NGX_ESCAPE_HTML).
var escapeHTMLURL = makeEscapes(`"#%'<>\^` + "`{|}")

// appendEntities escapes what has a meaning in HTML.
func appendEntities(dst, s []byte) []byte {
	for _, c := range s {
		switch c {
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '&':
			dst = append(dst, "&amp;"...)
		case '"':
			dst = append(dst, "&quot;"...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// configure is config.
func (s *ssiPage) configure(_ *Exchange, a *ssiArgs) (bool, error) {
	if a[0] != nil {
		s.message = bytes.Clone(a[0])
	}
	if a[1] != nil {
		s.timeFormat = string(a[1])
	}
	return true, nil
}

// set sets a variable of the page.
func (s *ssiPage) set(x *Exchange, a *ssiArgs) (bool, error) {
	value, ok := s.evaluate(x, a[1])
	if ok {
		x.ssiShared().values[string(bytes.ToLower(a[0]))] = value
	}
	return ok, nil
}

// choose is if and elif.
func (s *ssiPage) choose(x *Exchange, a *ssiArgs) (bool, error) {
	if string(s.command) == "if" && s.conditional != outsideIf {
		x.Logf(logError, "the \"if\" command inside the \"if\" command")
		return false, nil
	}
	if s.chosen {
		s.output = false
		return true, nil
	}
	holds, ok := s.holds(x, a[0])
	if !ok {
		return false, nil
	}
	s.output, s.chosen, s.conditional = holds, holds, insideIf
	return true, nil
}

// holds evaluates an expression: text, text = text, text = /regex/, and the
// same with "!=".
func (s *ssiPage) holds(x *Exchange, expr []byte) (holds, ok bool) {
	n := 0
	for n < len(expr) && (isNameByte(expr[n]) || bytes.IndexByte([]byte(`${}"'`), expr[n]) >= 0) {
		n++
	}
	left, ok := s.evaluate(x, bytes.ToLower(expr[:n]))
	if !ok {
		return false, false
	}
	rest := trimSpaces(expr[n:])
	if len(rest) == 0 {
		return len(left) > 0, true
	}
	rest, negative := bytes.CutPrefix(rest, []byte("!"))
	rest, equal := bytes.CutPrefix(rest, []byte("="))
	rest = trimSpaces(rest)
	isRegex := len(rest) > 1 && rest[0] == '/'
	if !equal || isRegex && rest[len(rest)-1] != '/' {
		x.Logf(logError, "invalid expression in \"%s\"", expr)
		return false, false
	}
	switch {
	case isRegex:
		rest = rest[1 : len(rest)-1]
	case len(rest) > 1 && rest[0] == '\\' && rest[1] == '/':
		rest = rest[1:]
	}
	right, ok := s.evaluate(x, rest)
	if !ok {
		return false, false
	}
	same := bytes.Equal(left, right)
	if isRegex {
		if same, ok = s.matches(x, right, left); !ok {
			return false, false
		}
	}
	return same != negative, true
}

// matches runs a regular expression and keeps its captures.
func (s *ssiPage) matches(x *Exchange, pattern, subject []byte) (matched, ok bool) {
	re, err := pcre.Compile(string(pattern), pcre.Options{})
	if err != nil {
		x.Logf(logError, "%s", err)
		return false, false
	}
	caps, matched, err := re.Search(subject, nil)
	if err != nil {
		x.Logf(logAlert, "pcre2_match() failed: %v on \"%s\" using \"%s\"", err, subject, pattern)
		return false, false
	}
	if !matched {
		return false, true
	}
	shared := x.ssiShared()
	shared.captured = subject
	for group, name := range re.Names() {
		if name == "" {
			continue
		}
		var value []byte
		if from := caps[2*group]; from >= 0 {
			value = subject[from:caps[2*group+1]]
		}
		shared.values[lower(name)] = value
	}
	for len(caps) > 2 && caps[len(caps)-2] < 0 { // the last groups took no part
		caps = caps[:len(caps)-2]
	}
	shared.captures = caps
	return true, true
}

// otherwise is else.
func (s *ssiPage) otherwise(*Exchange, *ssiArgs) (bool, error) {
	s.output, s.conditional = !s.chosen, insideElse
	return true, nil
}

func (s *ssiPage) endIf(*Exchange, *ssiArgs) (bool, error) {
	s.output, s.chosen, s.conditional = true, false, outsideIf
	return true, nil
}

func (s *ssiPage) beginBlock(x *Exchange, a *ssiArgs) (bool, error) {
	shared := x.ssiShared()
	s.block = &ssiBlock{name: string(a[0]), text: []byte{}}
	shared.blocks = append(shared.blocks, s.block)
	s.output = false
	return true, nil
}

func (s *ssiPage) endBlock(*Exchange, *ssiArgs) (bool, error) {
	s.output, s.block = true, nil
	return true, nil
}
