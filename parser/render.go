package parser

import "io"

// TextOptions say how WriteText writes.
type TextOptions struct {
	Color bool
	// Width is the number of columns to fit source lines into; 0 is 120.
	Width int
}

// WriteText writes problems for people.
func WriteText(w io.Writer, ds []*Diagnostic, o TextOptions) {
	for _, d := range ds {
		WriteNginx(w, d)
	}
}

// WriteNginx writes a problem as nginx does: "nginx: [emerg] TEXT in FILE:LINE".
func WriteNginx(w io.Writer, d *Diagnostic) {
	io.WriteString(w, "nginx: ["+d.Severity.nginx()+"] "+d.Error()+"\n")
}

// WriteJSON writes problems for programs.
func WriteJSON(w io.Writer, ds []*Diagnostic) error {
	return nil
}
