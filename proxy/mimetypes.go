package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
)

// mimeTypes is a set of content types (ngx_http_types_slot).
type mimeTypes struct {
	any   bool
	names []string // lower case
	level *Level
}

// MIMETypes makes a row for a list of content types. def are those that count
// without the directive; the first of them counts in any case.
func MIMETypes(c Command, field func(*Conf) *mimeTypes, def ...string) Command {
	c.Repeat = true
	c.Default = strings.Join(def, " ")
	return c.with("1+", "mime-type ... | *", func(l *Level, d *parser.Directive) error {
		t := field(l.Conf)
		if t.level != l {
			*t = mimeTypes{level: l, names: def[:1:1]}
		}
		for _, a := range d.Args {
			t.add(l, d, a)
		}
		return nil
	})
}

func (t *mimeTypes) add(l *Level, d *parser.Directive, a parser.Arg) {
	if t.any {
		return
	}
	if a.Value == "*" {
		t.any = true
		return
	}
	name := lower(a.Value)
	for _, n := range t.names {
		if n == name {
			l.warnAt(d, a, "duplicate MIME type \"%s\"", name)
			return
		}
	}
	t.names = append(t.names, name)
}

// has says whether the answer is of one of the types
// (ngx_http_test_content_type).
func (t *mimeTypes) has(a *Answer) bool {
	if t.any {
		return true
	}
	ct := a.mimeType()
	if len(ct) == 0 {
		return false
	}
	for _, n := range t.names {
		if equalFold(ct, n) {
			return true
		}
	}
	return false
}

// mimeType is the type of the body without its charset.
func (a *Answer) mimeType() []byte {
	if a.typeLength > 0 && a.typeLength < len(a.ContentType) {
		return a.ContentType[:a.typeLength]
	}
	return a.ContentType
}

// setContentType takes a type over that may name a charset, as an upstream
// writes it (ngx_http_upstream_copy_content_type).
func (a *Answer) setContentType(value []byte) {
	a.ContentType, a.Charset, a.typeLength = value, nil, 0
	for i := 0; i < len(value); i++ {
		if value[i] != ';' {
			continue
		}
		rest := trimSpaces(value[i+1:])
		if len(rest) < len("charset=") || !equalFold(rest[:len("charset=")], "charset=") {
			continue
		}
		a.typeLength = i
		a.Charset = bytes.TrimSuffix(bytes.TrimPrefix(rest[len("charset="):], []byte(`"`)), []byte(`"`))
		return
	}
}
