package parser

import (
	"encoding/json"
	"io"
)

// The shape that WriteJSON writes. It is stable: fields may be added, none is
// renamed or removed while the version stays.
type jsonReport struct {
	Version     int              `json:"version"`
	Diagnostics []jsonDiagnostic `json:"diagnostics"`
}

type jsonDiagnostic struct {
	Severity Severity      `json:"severity"`
	Code     string        `json:"code,omitempty"`
	Message  string        `json:"message"`
	Hint     string        `json:"hint,omitempty"`
	Range    *jsonRange    `json:"range,omitempty"`
	At       *jsonPlace    `json:"at,omitempty"`
	Related  []jsonRelated `json:"related,omitempty"`
	Included []jsonPlace   `json:"includedFrom,omitempty"`
}

type jsonRange struct {
	File  string       `json:"file"`
	Start jsonPosition `json:"start"`
	End   jsonPosition `json:"end"`
}

type jsonPosition struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Offset int `json:"offset"`
}

type jsonPlace struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

type jsonRelated struct {
	Message string     `json:"message"`
	Range   *jsonRange `json:"range,omitempty"`
}

// WriteJSON writes problems for programs, as one object:
//
//	{
//	  "version": 1,
//	  "diagnostics": [{
//	    "severity": "error",              error, warning or note
//	    "code": "Y015",                   absent when there is none
//	    "message": "...",                 without its place
//	    "hint": "...",                    absent when there is none
//	    "range": {                        what is to blame; absent when there is no place
//	      "file": "/etc/nginx/nginx.conf",
//	      "start": {"line": 3, "column": 9, "offset": 31},
//	      "end": {"line": 3, "column": 18, "offset": 40}
//	    },
//	    "at": {"file": "...", "line": 3}, the place nginx names; absent when it names none
//	    "related": [{"message": "...", "range": {...}}],
//	    "includedFrom": [{"file": "...", "line": 60}]
//	  }]
//	}
//
// Lines and columns count from 1, offsets from 0, columns and offsets in bytes;
// end is behind the last byte. includedFrom lists the include statements that
// lead to the file of range, the nearest first. Bytes that are not UTF-8 come
// out as U+FFFD.
func WriteJSON(w io.Writer, ds []*Diagnostic) error {
	report := jsonReport{Version: 1, Diagnostics: make([]jsonDiagnostic, 0, len(ds))}
	for _, d := range ds {
		j := jsonDiagnostic{Severity: d.Severity, Code: d.Code, Message: d.Message, Hint: d.Hint, Range: rangeJSON(d.Range)}
		if !d.At.IsZero() {
			at := placeJSON(d.At)
			j.At = &at
		}
		for _, r := range d.Related {
			j.Related = append(j.Related, jsonRelated{r.Message, rangeJSON(r.Range)})
		}
		for up := d.underlined().Source; up != nil && up.IncludedAt.Source != nil; up = up.IncludedAt.Source {
			j.Included = append(j.Included, placeJSON(up.IncludedAt))
		}
		report.Diagnostics = append(report.Diagnostics, j)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

func placeJSON(r Range) jsonPlace { return jsonPlace{r.Source.Name, r.Line()} }

func rangeJSON(r Range) *jsonRange {
	if r.IsZero() {
		return nil
	}
	position := func(off int) jsonPosition {
		return jsonPosition{r.Source.Line(off), r.Source.Column(off), off}
	}
	return &jsonRange{r.Source.Name, position(r.Start), position(r.End)}
}
