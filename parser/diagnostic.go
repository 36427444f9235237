package parser

import (
	"io"
	"strconv"
)

// Severity is how bad a problem is.
type Severity uint8

// The severities, which nginx calls emerg, warn and notice.
const (
	Error Severity = iota
	Warning
	Note
)

// String gives "error", "warning" or "note".
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "note"
}

// MarshalText makes the severity a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Diagnostic is one problem with its place. It is an error.
type Diagnostic struct {
	Severity Severity
	// Code is the id of the rule, such as "Y005"; may be empty.
	Code string
	// Message is nginx's own text where nginx has one, without its place.
	Message string
	// Hint says what to do; may be empty.
	Hint string
	// Range is what to underline.
	Range Range
	// At is the place that nginx names, that of the terminator as a rule; zero
	// when nginx names none.
	At Range
	// Late is true for what nginx meets after it has found the syntax ok.
	Late bool
	// Related are further places that explain the problem.
	Related []Related
}

// Related is a further place and what there is to say about it.
type Related struct {
	Range   Range
	Message string
}

// Error gives the message with its place as nginx writes it: "TEXT in FILE:LINE".
func (d *Diagnostic) Error() string { return d.Message + d.place() }

// place is what nginx puts behind a message (ngx_conf_log_error).
func (d *Diagnostic) place() string {
	switch {
	case d.At.Source == nil:
		return ""
	case d.At.Source.Name == CommandLine:
		return " in " + CommandLine
	}
	return " in " + d.At.Source.Name + ":" + strconv.Itoa(d.At.Line())
}

// maxMessage is the size in bytes to which nginx cuts a message, its place not
// counted (NGX_MAX_CONF_ERRSTR in ngx_conf_file.h).
const maxMessage = 1024

// WriteNginx writes a problem as nginx -t does: "nginx: [emerg] TEXT in FILE:LINE".
func WriteNginx(w io.Writer, d *Diagnostic) {
	level := "emerg"
	switch {
	case d.Code == codeUnreadable:
		level = "crit"
	case d.Severity == Warning:
		level = "warn"
	case d.Severity == Note:
		level = "notice"
	}
	text, place := d.Message, d.place()
	if place != "" && len(text) > maxMessage {
		text = text[:maxMessage]
	}
	_, _ = io.WriteString(w, "nginx: ["+level+"] "+text+place+"\n")
}

// underlined is the place to show: the Range, or else what nginx names.
func (d *Diagnostic) underlined() Range {
	if d.Range.IsZero() {
		return d.At
	}
	return d.Range
}
