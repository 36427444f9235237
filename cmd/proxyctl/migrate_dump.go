package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"proxyctl/parser"
)

// dump is a configuration as "nginx -T" has printed it, perhaps on another
// machine: every file once, in the order in which nginx opened them.
type dump struct {
	said  string // in front of it: what "nginx -V" and the test say
	names []string
	texts map[string][]byte
}

// dumpMark is the line in front of each file (main in nginx.c).
var dumpMark = regexp.MustCompile(`(?m)^# configuration file (/[^\r\n]*|[A-Za-z]:[^\r\n]*):\r?\n`)

// dumpHead is what may stand before the first mark: words of nginx, not of a
// configuration.
var dumpHead = regexp.MustCompile(`^(?:(?:nginx: .*|nginx version: .*|built .*|TLS SNI .*|configure arguments: .*|\d{4}/\d\d/\d\d .*)?\r?\n)*$`)

// readDump takes a text apart; ok is false when it is no dump. A test that has
// failed is an error: there is nothing behind what it says.
func readDump(text []byte) (d *dump, ok bool, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	marks := dumpMark.FindAllSubmatchIndex(text, -1)
	if len(marks) == 0 {
		if said := string(text); strings.HasPrefix(said, "nginx: ") || strings.HasPrefix(said, "nginx version: ") {
			return nil, false, fmt.Errorf("nginx has printed no configuration, but: %s", oneLine(lastLines(said)))
		}
		return nil, false, nil
	}
	if !dumpHead.Match(text[:marks[0][0]]) {
		return nil, false, nil
	}
	d = &dump{said: string(text[:marks[0][0]]), texts: map[string][]byte{}}
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		name := string(text[m[2]:m[3]])
		if _, known := d.texts[name]; known {
			continue
		}
		d.names = append(d.names, name)
		// A line's end was added behind each.
		body, _ := bytes.CutSuffix(text[m[1]:end], []byte("\n"))
		d.texts[name] = body
	}
	return d, true, nil
}

// lastLines leaves out what "nginx -V" says.
func lastLines(said string) string {
	var out []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "nginx: ") || strings.Contains(line, "[emerg]") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	if out == nil {
		return strings.TrimSpace(said)
	}
	return strings.Join(out, " ")
}

// openDump reads what a name stands for: a dump, or else, where it is standard
// input, what is to be read in its place.
func openDump(name string, stdin io.Reader) (d *dump, rest io.Reader, err error) {
	var text []byte
	if name == "-" {
		if text, err = io.ReadAll(io.LimitReader(stdin, maxStdin)); err != nil {
			return nil, nil, err
		}
	} else if text, err = beginsWithMark(name); text == nil {
		return nil, stdin, err
	}
	d, _, err = readDump(text)
	return d, bytes.NewReader(text), err
}

// maxDumpHead is how far in front of its first file a dump is looked for: what
// "nginx -V" says fits.
const maxDumpHead = 16 << 10

// beginsWithMark reads a file that looks like a dump; nil for another one. What
// cannot be read is told by whoever reads it as a configuration.
func beginsWithMark(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil //nolint:nilerr // as said
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, maxDumpHead))
	if err != nil || !dumpMark.Match(head) && !bytes.HasPrefix(head, []byte("nginx: ")) {
		return nil, nil //nolint:nilerr // as said
	}
	rest, err := io.ReadAll(io.LimitReader(f, maxStdin))
	return append(head, rest...), err
}

// glob gives the files that a pattern stood for when they were printed.
func (d *dump) glob(pattern string) ([]string, error) { return parser.Among(pattern, d.names), nil }

func (d *dump) read(name string) ([]byte, error) {
	if text, ok := d.texts[name]; ok {
		return text, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
}

// elsewhere matches what is wrong with a configuration only because it is looked
// at on another machine.
var elsewhere = regexp.MustCompile(`(?i)no such file or directory|getpwnam\(|getgrnam\(`)

// leaveOut takes what cannot be known here out of the diagnostics of a dump.
func (d *dump) leaveOut(diags []*parser.Diagnostic) []*parser.Diagnostic {
	var out []*parser.Diagnostic
	n := 0
	for _, x := range diags {
		if elsewhere.MatchString(x.Message) && x.Code != "Y015" && x.Code != "Y016" {
			n++
			continue
		}
		out = append(out, x)
	}
	if n > 0 {
		out = append(out, &parser.Diagnostic{
			Severity: parser.Note, Message: plural(n, "name") + " of files and accounts could not be looked at: what they stand for is on another machine",
			Hint: "\"proxyctl validate\" looks at certificates, keys and the like there",
		})
	}
	return out
}
