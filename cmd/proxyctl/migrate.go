package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	cmd.AddCommand(migrateCheckCommand(), migrateVerifyCommand(), modernizeCommand())
	return cmd
}

func migrateCheckCommand() *cobra.Command {
	format, html, program := "text", "", ""
	cmd := &cobra.Command{
		Use:   "check [FILE | FOLDER]",
		Short: "Report how a configuration of nginx would be served",
		Long: "Reads the configuration of the nginx on this machine, or the one given, and tells for each\n" +
			"directive whether it is served as nginx does, has no effect here, or is missing. Missing\n" +
			"protection is an error. Nothing is changed and nothing is started.\n\n" +
			"Exit status: 0 when the configuration can be served as it is, 1 when not, 2 for a wrong\n" +
			"command line or when there is no configuration.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
				writeMigration(out, r, textOptions(out).Color)
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
	cmd.Flags().StringVar(&format, "format", format, "text, json or html")
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

// installedNginx is what "nginx -V" says.
type installedNginx struct {
	Program string   `json:"program,omitempty"`
	Version string   `json:"version,omitempty"`
	Conf    string   `json:"conf,omitempty"`
	Prefix  string   `json:"prefix,omitempty"`
	Modules []string `json:"modules,omitempty"` // added to those that nginx builds by default
	Without []string `json:"without,omitempty"` // of those, the ones that were left out
}

// findNginx asks the nginx on this machine, if there is one.
func findNginx(program string) installedNginx {
	candidates := []string{program}
	if program == "" {
		candidates = nil
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin") {
			candidates = append(candidates, filepath.Join(dir, "nginx"))
		}
	}
	for _, path := range candidates {
		out, err := exec.Command(path, "-V").CombinedOutput()
		if err != nil || strings.Contains(string(out), "proxyctl/") {
			continue
		}
		if n := readVersion(string(out)); n.Version != "" {
			n.Program = path
			return n
		}
	}
	if isFile(defaultConf) {
		return installedNginx{Conf: defaultConf}
	}
	return installedNginx{}
}

var (
	versionLine     = regexp.MustCompile(`nginx version: [^/]*/([0-9.]+)`)
	confArgument    = regexp.MustCompile(`--conf-path=(\S+)`)
	prefixOption    = regexp.MustCompile(`--prefix=(\S+)`)
	withoutArgument = regexp.MustCompile(`--without-(http_\w+_module)`)
	withArguments   = regexp.MustCompile(`--(?:with|add(?:-dynamic)?)-(?:module=(\S+)|((?:http|stream|mail)\w*_module|stream|mail))`)
)

func readVersion(text string) installedNginx {
	var n installedNginx
	if m := versionLine.FindStringSubmatch(text); m != nil {
		n.Version = m[1]
	}
	if m := prefixOption.FindStringSubmatch(text); m != nil {
		n.Prefix = m[1]
	}
	switch conf, prefix := confArgument.FindStringSubmatch(text), prefixOption.FindStringSubmatch(text); {
	case conf != nil:
		n.Conf = conf[1]
	case prefix != nil:
		n.Conf = prefix[1] + "/conf/nginx.conf"
	}
	for _, m := range withArguments.FindAllStringSubmatch(text, -1) {
		name := m[2]
		if m[1] != "" {
			name = filepath.Base(strings.TrimRight(m[1], "/"))
		}
		if !slices.Contains(n.Modules, name) {
			n.Modules = append(n.Modules, name)
		}
	}
	for _, m := range withoutArgument.FindAllStringSubmatch(text, -1) {
		n.Without = append(n.Without, m[1])
	}
	return n
}

// migration is the report of "migrate check". Its JSON form is stable: fields
// may be added.
type migration struct {
	File       string               `json:"file"`
	Nginx      installedNginx       `json:"nginx"`
	Ready      bool                 `json:"ready"`   // it can be served as it is
	Uses       int                  `json:"uses"`    // statements
	Covered    int                  `json:"covered"` // of these, exact or without effect
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
	r := &migration{Nginx: nginx, File: strings.Join(names, ", ")}
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
		if d.Outcome == proxy.OutcomeExact || d.Outcome == proxy.OutcomeNoEffect {
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

// Coverage is the share of statements that mean here what they mean to nginx,
// in per cent.
func (r *migration) Coverage() int {
	if r.Uses == 0 {
		return 0
	}
	return 100 * r.Covered / r.Uses
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

// Served counts the directives with an outcome.
func (r *migration) Served(outcome string) int {
	n := 0
	for _, d := range r.Directives {
		n += count(d.Outcome == outcome)
	}
	return n
}

// Gaps lists the missing directives that protect something.
func (r *migration) Gaps() []proxy.DirectiveUse {
	return slices.DeleteFunc(r.Missing(), func(d proxy.DirectiveUse) bool { return !d.Security })
}

// Mistakes are the errors that are no missing directives.
func (r *migration) Mistakes() []finding {
	return slices.DeleteFunc(slices.Clone(r.Errors), func(f finding) bool { return f.Code == "U001" || f.Code == "Y005" })
}

// writeMigration prints the report for people.
func writeMigration(w io.Writer, r *migration, color bool) {
	tint := func(code, s string) string {
		if color {
			return "\x1b[" + code + "m" + s + "\x1b[0m"
		}
		return s
	}
	fmt.Fprintln(w, tint("1", r.File))
	if r.Nginx.Version != "" {
		fmt.Fprintf(w, "written for nginx %s (%s)\n", r.Nginx.Version, r.Nginx.Program)
	}
	fmt.Fprintf(w, "%d statements, %d%% mean here what they mean to nginx\n\n", r.Uses, r.Coverage())
	section := func(title string, code string, list []proxy.DirectiveUse) {
		if len(list) == 0 {
			return
		}
		fmt.Fprintln(w, tint(code, title))
		for _, d := range list {
			fmt.Fprintf(w, "  %-28s %5d×  %s\n", d.Name, d.Count, relativePlace(d.First))
			reason := d.Reason
			if d.Module != "" && !strings.Contains(reason, d.Module) {
				reason = strings.TrimSpace(reason + " (" + d.Module + ")")
			}
			fmt.Fprintf(w, "  %-28s         %s\n", "", reason)
		}
		fmt.Fprintln(w)
	}
	section("Missing protection: without it strangers could do more", "1;31", r.Gaps())
	rest := slices.DeleteFunc(r.Missing(), func(d proxy.DirectiveUse) bool { return d.Security })
	section("Not served here", "1;31", rest)
	if list := r.Mistakes(); len(list) > 0 {
		fmt.Fprintln(w, tint("1;31", "Mistakes"))
		writeFindings(w, list)
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w, tint("1;33", "Worth a look (proxyctl explain ID says more)"))
		writeFindings(w, r.Notes)
	}
	fmt.Fprintf(w, "%d directives are served exactly, %d have no effect here.\n", r.Served(proxy.OutcomeExact), r.Served(proxy.OutcomeNoEffect))
	if r.Ready {
		fmt.Fprintln(w, tint("1;32", "This configuration can be served as it is."))
	} else {
		fmt.Fprintln(w, tint("1;31", "This configuration cannot be served yet."))
	}
}

func writeFindings(w io.Writer, list []finding) {
	for _, f := range list {
		fmt.Fprintf(w, "  %-5s %s  %s\n", f.Code, oneLine(f.Message), relativePlace(f.Place))
		if f.Hint != "" {
			fmt.Fprintf(w, "        %s\n", oneLine(f.Hint))
		}
	}
	fmt.Fprintln(w)
}
