package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// Formats of findings for other programs, and the list of known findings.

// placeOf is what a finding is about, or what nginx names.
func placeOf(d *parser.Diagnostic) parser.Range {
	if d.Range.IsZero() {
		return d.At
	}
	return d.Range
}

// relativePath names a file from the working folder where it lies below it.
func relativePath(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		return name
	}
	if rel, err := filepath.Rel(dir, name); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.ToSlash(rel)
	}
	return name
}

// writeErrorFormat writes a line each, as compilers do:
// "file:line:column: severity: message [ID]". Editors read it.
func writeErrorFormat(w io.Writer, diags []*parser.Diagnostic) {
	for _, d := range diags {
		place, code := "", ""
		if r := placeOf(d); !r.IsZero() {
			place = fmt.Sprintf("%s:%d:%d: ", relativePath(r.Source.Name), r.Line(), r.Column())
		}
		if d.Code != "" {
			code = " [" + d.Code + "]"
		}
		fmt.Fprintf(w, "%s%s: %s%s\n", place, d.Severity, oneLine(d.Message), code)
	}
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// writeGitHub writes workflow commands, which GitHub shows beside the lines of
// a change.
func writeGitHub(w io.Writer, diags []*parser.Diagnostic) {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	for _, d := range diags {
		kind := d.Severity.String()
		if d.Severity == parser.Note {
			kind = "notice"
		}
		at := ""
		if r := placeOf(d); !r.IsZero() {
			at = fmt.Sprintf("file=%s,line=%d,col=%d,", property.Replace(relativePath(r.Source.Name)), r.Line(), r.Column())
		}
		title := d.Code
		if title == "" {
			title = "nginx"
		}
		text := d.Message
		if d.Hint != "" {
			text += "\n" + d.Hint
		}
		fmt.Fprintf(w, "::%s %stitle=%s::%s\n", kind, at, property.Replace(title), data.Replace(text))
	}
}

// The parts of SARIF 2.1.0 that writeSARIF fills.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
	Columns string        `json:"columnKind"`
}

type sarifTool struct {
	Driver struct {
		Name           string      `json:"name"`
		Version        string      `json:"semanticVersion"`
		InformationURI string      `json:"informationUri,omitempty"`
		Rules          []sarifRule `json:"rules"`
	} `json:"driver"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifRule struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Short      sarifText      `json:"shortDescription"`
	Full       sarifText      `json:"fullDescription"`
	Default    sarifDefault   `json:"defaultConfiguration"`
	Properties map[string]any `json:"properties,omitempty"`
}

type sarifDefault struct {
	Level string `json:"level"`
}

type sarifResult struct {
	RuleID      string            `json:"ruleId,omitempty"`
	RuleIndex   *int              `json:"ruleIndex,omitempty"`
	Level       string            `json:"level"`
	Message     sarifText         `json:"message"`
	Locations   []sarifLocation   `json:"locations,omitempty"`
	Related     []sarifLocation   `json:"relatedLocations,omitempty"`
	Fingerprint map[string]string `json:"partialFingerprints,omitempty"`
}

type sarifLocation struct {
	Physical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region sarifRegion `json:"region"`
	} `json:"physicalLocation"`
	Message *sarifText `json:"message,omitempty"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn"`
	EndLine     int `json:"endLine"`
	EndColumn   int `json:"endColumn"`
}

// writeSARIF writes one run with all rules. Columns count code points.
func writeSARIF(w io.Writer, diags []*parser.Diagnostic) error {
	run := sarifRun{Results: []sarifResult{}, Columns: "unicodeCodePoints"}
	run.Tool.Driver.Name, run.Tool.Driver.Version = "proxyctl", proxyctlProduct().Version
	index := map[string]int{}
	for i, r := range proxy.Rules() {
		index[r.ID] = i
		rule := sarifRule{ID: r.ID, Name: r.Name, Short: sarifText{r.Title}, Full: sarifText{r.Doc}, Default: sarifDefault{r.Severity().String()}}
		if score, ok := map[string]string{"high": "8.0", "medium": "5.0", "low": "2.0"}[r.Level]; ok {
			rule.Properties = map[string]any{"security-severity": score, "tags": []string{"security"}}
		}
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
	}
	for _, d := range diags {
		text := d.Message
		if d.Hint != "" {
			text += ". " + d.Hint
		}
		result := sarifResult{RuleID: d.Code, Level: d.Severity.String(), Message: sarifText{text}, Fingerprint: map[string]string{"line/v1": fingerprint(d)}}
		if i, ok := index[d.Code]; ok {
			result.RuleIndex = &i
		}
		if r := placeOf(d); !r.IsZero() {
			result.Locations = []sarifLocation{sarifPlace(r, "")}
		}
		for _, r := range d.Related {
			result.Related = append(result.Related, sarifPlace(r.Range, r.Message))
		}
		run.Results = append(run.Results, result)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func sarifPlace(r parser.Range, message string) sarifLocation {
	var l sarifLocation
	l.Physical.Artifact.URI = sarifURI(r.Source.Name)
	column := func(off int) int {
		start := off - (r.Source.Column(off) - 1)
		return len([]rune(string(r.Source.Text[start:off]))) + 1
	}
	l.Physical.Region = sarifRegion{r.Line(), column(r.Start), r.Source.Line(r.End), column(r.End)}
	if message != "" {
		l.Message = &sarifText{message}
	}
	return l
}

// sarifURI is relative where it can be; spaces and the like are escaped.
func sarifURI(name string) string {
	rel := relativePath(name)
	var b strings.Builder
	if strings.HasPrefix(rel, "/") {
		b.WriteString("file://")
	}
	for _, c := range []byte(rel) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/-._~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// fingerprint names a finding in a way that survives edits elsewhere in the
// file: the rule, the file and the text it is about.
func fingerprint(d *parser.Diagnostic) string {
	file, text := "", ""
	if r := placeOf(d); !r.IsZero() {
		file, text = relativePath(r.Source.Name), strings.Join(strings.Fields(r.Text()), " ")
	}
	return strings.Join([]string{d.Code, file, text, oneLine(d.Message)}, "\t")
}

// known removes the findings of the baseline, each as often as it stands there,
// and writes a new one if that was asked for. Errors are always reported.
func (v *validation) known(diags []*parser.Diagnostic) ([]*parser.Diagnostic, error) {
	if v.writeBaseline != "" {
		var lines []string
		for _, d := range diags {
			if d.Severity != parser.Error {
				lines = append(lines, fingerprint(d)+"\n")
			}
		}
		slices.Sort(lines)
		if err := os.WriteFile(v.writeBaseline, []byte(strings.Join(lines, "")), 0o644); err != nil {
			return nil, err
		}
	}
	if v.baseline == "" {
		return diags, nil
	}
	f, err := os.Open(v.baseline)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; --write-baseline makes one", v.baseline)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	count := map[string]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		count[lines.Text()]++
	}
	var rest []*parser.Diagnostic
	for _, d := range diags {
		if key := fingerprint(d); d.Severity != parser.Error && count[key] > 0 {
			count[key]--
			continue
		}
		rest = append(rest, d)
	}
	return rest, lines.Err()
}
