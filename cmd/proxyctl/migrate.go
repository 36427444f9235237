package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/parser"
	"proxyctl/proxy"
)

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Find out what a move from nginx to this server takes",
	}
	cmd.AddCommand(migrateCheckCommand(), migrateVerifyCommand(), migrateTakeoverCommand(), migrateRollbackCommand(), modernizeCommand(), migrateExportCommand())
	return cmd
}

func migrateCheckCommand() *cobra.Command {
	format, html, program := "text", "", ""
	cmd := &cobra.Command{
		Use:   "check [FILE | FOLDER | -]",
		Short: "Report how a configuration of nginx would be served",
		Long: "Reads the configuration of the nginx on this machine, or the one given, and tells for each\n" +
			"directive whether it is served exactly as nginx does, differs (and how), has no effect\n" +
			"here, or is missing. Missing protection is an error. Nothing is changed or started.\n\n" +
			"An nginx on another machine or in a container tells what it reads, and what it is built\n" +
			"with, by itself:\n\n" +
			"    ssh HOST nginx -TV 2>&1 | proxyctl migrate check -\n" +
			"    docker exec NAME nginx -TV 2>&1 | proxyctl migrate check -\n\n" +
			"A file with what \"nginx -T\" has printed can be named, too.\n\n" +
			"Exit status: 0 when the configuration can be served as it is, 1 when not, 2 for a wrong\n" +
			"command line or when there is no configuration.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format == schemaFormat {
				return printSchema(cmd, "migrate-check")
			}
			found := findNginx(program)
			name := found.Conf
			if len(args) > 0 {
				name = args[0]
			}
			if name == "" && found.contained != 0 {
				return fmt.Errorf("the nginx that runs here (process %d) has files of its own, as in a container; have it tell them: docker exec NAME nginx -TV 2>&1 | proxyctl migrate check -", found.contained)
			}
			if name == "" {
				return errors.New("no nginx and no configuration found; name the file or its folder")
			}
			r, err := checkMigration(name, found, cmd.InOrStdin())
			if err != nil {
				return err
			}
			if html != "" {
				if err := writeFileWith(html, func(w io.Writer) error { return writeMigrationHTML(w, r) }); err != nil {
					return err
				}
			}
			switch out := cmd.OutOrStdout(); format {
			case "text":
				writeMigration(out, r, textOptions(out))
			case "json":
				e := json.NewEncoder(out)
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if err := e.Encode(r); err != nil {
					return err
				}
			case "html":
				if err := writeMigrationHTML(out, r); err != nil {
					return err
				}
			default:
				return fmt.Errorf("unknown format %q: text, json or html", format)
			}
			if !r.Ready {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "text, json (json-schema describes it) or html")
	cmd.Flags().StringVar(&html, "html", "", "also write the report as a page to a file")
	cmd.Flags().StringVar(&program, "nginx", "", "the nginx to ask for its version and paths (default: found in PATH)")
	return cmd
}

func writeFileWith(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// migration is the report of "migrate check". Its JSON form is stable:
// schema/migrate-check.json.
type migration struct {
	Version    int                  `json:"version"`
	File       string               `json:"file"`
	Nginx      installedNginx       `json:"nginx"`
	Ready      bool                 `json:"ready"`   // it can be served as it is
	Uses       int                  `json:"uses"`    // statements
	Covered    int                  `json:"covered"` // of these, served or without effect
	Files      []string             `json:"files"`   // of the configuration, as they are read
	Modules    []proxy.ModuleUse    `json:"modules"` // loaded, or of others and built in
	Directives []proxy.DirectiveUse `json:"directives"`
	Errors     []finding            `json:"errors"`
	Notes      []finding            `json:"notes"` // lints, and what newer versions do otherwise
}

// finding is a diagnostic as reports show it.
type finding struct {
	Code     string `json:"code,omitempty"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	Place    string `json:"place,omitempty"`
}

func checkMigration(name string, nginx installedNginx, stdin io.Reader) (*migration, error) {
	names, err := expandFolders([]string{name})
	if err != nil {
		return nil, err
	}
	r := &migration{Version: 1, Files: []string{}, Modules: []proxy.ModuleUse{}, Directives: []proxy.DirectiveUse{}, Errors: []finding{}, Notes: []finding{}, Nginx: nginx, File: strings.Join(names, ", ")}
	for _, n := range names {
		if err := r.read(n, stdin); err != nil {
			return nil, err
		}
	}
	if name == nginx.Conf {
		r.askNginx()
	}
	for _, d := range r.Directives {
		r.Uses += d.Count
		if d.Outcome != proxy.OutcomeUnsupported && d.Outcome != proxy.OutcomeUnknown {
			r.Covered += d.Count
		}
	}
	r.Ready = len(r.Errors) == 0
	return r, nil
}

// read looks at one file, or at those of a dump.
func (r *migration) read(name string, stdin io.Reader) error {
	d, rest, err := openDump(name, stdin)
	if err != nil {
		return err
	}
	if d != nil {
		name, rest = d.names[0], nil
		r.File = name
		r.Nginx = readVersion(d.said)
		r.Nginx.Conf, r.Nginx.Prefix = name, ""
	}
	v := validation{nginxVersion: r.Nginx.Version, offline: d != nil}
	p, err := v.process(name, rest)
	if err != nil {
		return err
	}
	if p.dump = d; d != nil {
		p.text = d.texts[name]
	}
	file := p.parse()
	_, diags := p.load(file)
	diags = proxy.Lint(file, diags, proxy.LintOptions{Version: v.nginxVersion, ConfDir: p.options.ConfDir, Offline: v.offline})
	if d != nil {
		diags = d.leaveOut(diags)
	}
	r.Files = append(r.Files, filesOf(file)...)
	r.Modules = append(r.Modules, proxy.Modules(file, r.Nginx.ThirdParty)...)
	r.Directives = append(r.Directives, proxy.Usage(file)...)
	r.sort(diags)
	return nil
}

// filesOf lists what a configuration was read from.
func filesOf(file *parser.File) []string {
	var out []string
	for _, s := range parser.Sources(file) {
		out = append(out, s.Name)
	}
	return out
}

// askNginx holds what was read against what nginx itself reads, and against what
// it has read before it serves.
func (r *migration) askNginx() {
	test, d := r.Nginx.test()
	r.Nginx.Test = test
	note := func(hint, format string, a ...any) {
		r.Notes = append(r.Notes, finding{Severity: parser.Warning.String(), Message: fmt.Sprintf(format, a...), Hint: hint})
	}
	switch {
	case test == nil, !test.OK && len(r.Mistakes()) > 0:
	case !test.OK:
		note("what runs was read before; it would not start anew", "nginx itself refuses these files: %s", test.Said)
	default:
		for _, name := range d.names {
			if !slices.Contains(r.Files, name) {
				note("", "nginx reads %s, this program does not", name)
			}
		}
		for _, name := range r.Files {
			if _, known := d.texts[name]; !known {
				note("", "nginx does not read %s, this program does", name)
			}
		}
	}
	if r.Nginx.Since == nil {
		return
	}
	for _, name := range r.Files {
		if info, err := os.Stat(name); err == nil && info.ModTime().After(r.Nginx.Since.Add(time.Second)) {
			note("nginx -t && nginx -s reload, then check again", "%s was changed after nginx has read it (%s): what runs may be another configuration", name, r.Nginx.Since.Format(time.DateTime))
		}
	}
}

// sort divides what was found into what keeps the file from being served and
// the rest. Missing directives are in the table already.
func (r *migration) sort(diags []*parser.Diagnostic) {
	for _, d := range diags {
		f := finding{Code: d.Code, Severity: d.Severity.String(), Message: d.Message, Hint: d.Hint}
		if at := placeOf(d); !at.IsZero() {
			f.Place = fmt.Sprintf("%s:%d", at.Source.Name, at.Line())
		}
		if d.Severity == parser.Error {
			r.Errors = append(r.Errors, f)
		} else {
			r.Notes = append(r.Notes, f)
		}
	}
}

// Share is how many of the statements have an outcome, in per cent. What is
// there at all is no 0, and what is missing somewhere leaves no 100.
func (r *migration) Share(outcome string) int {
	n := r.statements(outcome)
	switch n {
	case 0:
		return 0
	case r.Uses:
		return 100
	}
	return min(max(100*n/r.Uses, 1), 99)
}

func (r *migration) statements(outcome string) int {
	n := 0
	for _, d := range r.Directives {
		if d.Outcome == outcome {
			n += d.Count
		}
	}
	return n
}

// Missing lists the directives that are not served.
func (r *migration) Missing() []proxy.DirectiveUse {
	var out []proxy.DirectiveUse
	for _, d := range r.Directives {
		if d.Outcome == proxy.OutcomeUnsupported || d.Outcome == proxy.OutcomeUnknown {
			out = append(out, d)
		}
	}
	return out
}

// With lists the directives with an outcome.
func (r *migration) With(outcome string) []proxy.DirectiveUse {
	return slices.DeleteFunc(slices.Clone(r.Directives), func(d proxy.DirectiveUse) bool { return d.Outcome != outcome })
}

// Gaps lists the missing directives that protect something.
func (r *migration) Gaps() []proxy.DirectiveUse {
	return slices.DeleteFunc(r.Missing(), func(d proxy.DirectiveUse) bool { return !d.Security })
}

// Unguarded lists the other missing directives.
func (r *migration) Unguarded() []proxy.DirectiveUse {
	return slices.DeleteFunc(r.Missing(), func(d proxy.DirectiveUse) bool { return d.Security })
}

// Mistakes are the errors that are no missing directives.
func (r *migration) Mistakes() []findingAt {
	return grouped(slices.DeleteFunc(slices.Clone(r.Errors), func(f finding) bool {
		return f.Code == "Y005" || f.Code == "U001" && (strings.HasPrefix(f.Message, "directive ") || strings.HasPrefix(f.Message, "module "))
	}))
}

// Grouped are the notes, each once, but for those about versions.
func (r *migration) Grouped() []findingAt {
	return grouped(slices.DeleteFunc(slices.Clone(r.Notes), finding.aboutVersion))
}

// Changes are the notes about what newer versions of nginx do otherwise.
func (r *migration) Changes() []findingAt {
	return grouped(slices.DeleteFunc(slices.Clone(r.Notes), func(f finding) bool { return !f.aboutVersion() }))
}

func (f finding) aboutVersion() bool { return strings.HasPrefix(f.Code, "V") }

// findingAt is a finding with the number of places that it was made at.
type findingAt struct {
	finding
	Times int
}

// grouped puts findings that say the same together.
func grouped(list []finding) []findingAt {
	var out []findingAt
	index := map[finding]int{}
	for _, f := range list {
		key := f
		key.Place = ""
		i, known := index[key]
		if !known {
			i = len(out)
			index[key] = i
			out = append(out, findingAt{finding: f})
		}
		out[i].Times++
	}
	return out
}
