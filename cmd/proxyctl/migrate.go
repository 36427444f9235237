package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

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
		Use:   "check [FILE | FOLDER]",
		Short: "Report how a configuration of nginx would be served",
		Long: "Reads the configuration of the nginx on this machine, or the one given, and tells for each\n" +
			"directive whether it is served exactly as nginx does, differs (and how), has no effect\n" +
			"here, or is missing. Missing protection is an error. Nothing is changed or started.\n\n" +
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
	v := validation{nginxVersion: nginx.Version}
	r := &migration{Version: 1, Directives: []proxy.DirectiveUse{}, Nginx: nginx, File: strings.Join(names, ", ")}
	for _, n := range names {
		p, err := v.process(n, stdin)
		if err != nil {
			return nil, err
		}
		file := p.parse()
		_, diags := p.load(file)
		all := proxy.Lint(file, diags, proxy.LintOptions{Version: v.nginxVersion, ConfDir: p.options.ConfDir})
		r.Directives = append(r.Directives, proxy.Usage(file)...)
		r.sort(all)
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

// sort divides what was found into what keeps the file from being served and
// the rest. Missing directives are in the table already.
func (r *migration) sort(diags []*parser.Diagnostic) {
	r.Errors, r.Notes = append([]finding{}, r.Errors...), append([]finding{}, r.Notes...)
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
	return grouped(slices.DeleteFunc(slices.Clone(r.Errors), func(f finding) bool { return f.Code == "U001" || f.Code == "Y005" }))
}

// Grouped are the notes, each once.
func (r *migration) Grouped() []findingAt { return grouped(r.Notes) }

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
