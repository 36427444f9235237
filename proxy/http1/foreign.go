package http1

// What other framings than this package's need to make a Request: HTTP/2.

// Classify makes a field of a name in lower case and a value.
func Classify(name, value []byte) Field {
	f := Field{Name: name, Value: value}
	all := uint8(0xff)
	for _, c := range name {
		all &= classes[c]
	}
	if all&isPlain == 0 {
		f.Odd, f.Underscore = true, all&isWord != 0
	} else {
		f.ID = Identify(name)
	}
	return f
}

// Take adds a field whose value has no CR, LF or NUL. fields bounds the number of
// fields whose names are not Odd; 0 for none. The error is a *ParseError.
func (r *Request) Take(f *Field, fields int) error {
	if err := r.note(f, &Limits{Fields: fields}); err != nil {
		return err
	}
	r.Fields = append(r.Fields, *f)
	return nil
}

// TakeLength reads the Content-Length field that has been taken, if any. The
// error is a *ParseError.
func (r *Request) TakeLength() error {
	if !r.Has(ContentLength) {
		return nil
	}
	n, ok := length(find(r.Fields, ContentLength).Value)
	if !ok {
		return refuse(400, "client sent invalid \"Content-Length\" header")
	}
	r.ContentLength = n
	return nil
}

// Value returns the value of the first field with an ID; nil when there is none.
func (r *Request) Value(id HeaderID) []byte { return find(r.Fields, id).Value }

// IsMethod says whether b may be a method, as nginx has it.
func IsMethod(b []byte) bool { return ofClass(b, isMethod) }

// IsTarget says whether the bytes of b may stand in a request target.
func IsTarget(b []byte) bool { return ofClass(b, isTarget) }

// IsScheme says whether b may be the scheme of a URI.
func IsScheme(b []byte) bool {
	return ofClass(b, isScheme) && b[0]|0x20 >= 'a' && b[0]|0x20 <= 'z'
}

func ofClass(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return len(b) > 0
}

// Printable makes a piece of input fit for a log line.
func Printable(b []byte) []byte { return printable(b) }
