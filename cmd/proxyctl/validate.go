package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// validation is what the command line of validate says.
type validation struct {
	format        string
	context       string
	rules         string
	failOn        string
	baseline      string
	writeBaseline string
	offline       bool
	nginxVersion  string
}

func validateCommand() *cobra.Command {
	v := validation{format: "text", failOn: "error"}
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Report everything wrong with configuration files",
		Long: "Reports all errors of each file and what the rules find in it, with the text it is about\n" +
			"and a hint. A whole nginx.conf and a bare site file are both understood; of a folder\n" +
			"its nginx.conf is read, or else each file on its own; - is standard input.\n\n" +
			"\"proxyctl explain ID\" says more about a finding. A comment silences one:\n" +
			"  # proxyctl: ignore S012 the version is no secret here\n" +
			"behind a statement for its line, on a line of its own for the statement below.\n\n" +
			"Exit status: 0 when every file can be served, 1 when not, 2 for a wrong command line,\n" +
			"3 for findings at or above --fail-on.",
		Args: unlessSchema(&v.format, cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v.format == schemaFormat {
				return printSchema(cmd, "validate")
			}
			return v.run(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&v.format, "format", v.format, "text, json (json-schema describes it), sarif, github, errorformat or nginx")
	flags.StringVar(&v.context, "context", "", "the block that the files belong into: main, http or server (default: found out)")
	flags.StringVar(&v.rules, "rules", "", "rules to report, by id or beginning of one: S,C013 or -C031")
	flags.StringVar(&v.failOn, "fail-on", v.failOn, "least severity of findings that makes the exit status 3: error, warning or info")
	flags.StringVar(&v.baseline, "baseline", "", "file of findings that are known and not reported")
	flags.StringVar(&v.writeBaseline, "write-baseline", "", "write the findings to a file for --baseline")
	flags.StringVar(&v.nginxVersion, "nginx-version", "", "note what has changed its meaning since a version of nginx, such as 1.22")
	flags.BoolVar(&v.offline, "offline", false, "do not open certificate files and do not resolve names")
	return cmd
}

func (v *validation) run(cmd *cobra.Command, args []string) error {
	worst, err := v.severity()
	if err != nil {
		return err
	}
	if err := v.knownRules(); err != nil {
		return err
	}
	if strings.Trim(v.nginxVersion, "0123456789.") != "" {
		return fmt.Errorf("%q is no version of nginx; write 1.22 or 1.22.1", v.nginxVersion)
	}
	names, err := expandFolders(args)
	if err != nil {
		return err
	}
	var all []*parser.Diagnostic
	for _, name := range names {
		diags, err := v.file(name, cmd.InOrStdin())
		if err != nil {
			return err
		}
		all = append(all, diags...)
	}
	if all, err = v.known(all); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if err := render(out, all, v.format); err != nil {
		return err
	}
	t := tallyOf(all)
	if v.format == "text" {
		if len(all) > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, t.verdict(len(names)))
	}
	switch {
	case t.invalid > 0 || t.unserved > 0:
		return exitCode(1)
	case slices.ContainsFunc(all, func(d *parser.Diagnostic) bool { return d.Severity <= worst }):
		return exitCode(3)
	}
	return nil
}

// knownRules finds words of --rules that no rule begins with.
func (v *validation) knownRules() error {
	for word := range strings.SplitSeq(v.rules, ",") {
		word = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(word)), "-")
		if !slices.ContainsFunc(proxy.Rules(), func(r proxy.Rule) bool { return strings.HasPrefix(r.ID, word) }) {
			return fmt.Errorf("--rules: no rule's id begins with %q", word)
		}
	}
	return nil
}

// blockOf reads --context: a block, or the way to it, as in http,server.
func blockOf(context string) (string, error) {
	for _, way := range []string{"", "main", "http", "main,http", "server", "http,server", "main,http,server"} {
		if strings.ReplaceAll(context, " ", "") == way {
			return way[strings.LastIndexByte(way, ',')+1:], nil
		}
	}
	return "", fmt.Errorf("unknown context %q: main, http or server (http,server)", context)
}

func (v *validation) severity() (parser.Severity, error) {
	switch v.failOn {
	case "error":
		return parser.Error, nil
	case "warning":
		return parser.Warning, nil
	case "info", "note":
		return parser.Note, nil
	}
	return 0, fmt.Errorf("unknown severity %q: error, warning or info", v.failOn)
}

// wants tells whether a rule was asked for.
func (v *validation) wants(id string) bool {
	wanted, positive := false, false
	for word := range strings.SplitSeq(v.rules, ",") {
		word = strings.ToUpper(strings.TrimSpace(word))
		without, negative := strings.CutPrefix(word, "-")
		switch {
		case word == "":
		case negative && strings.HasPrefix(id, without):
			return false
		case !negative:
			positive = true
			wanted = wanted || strings.HasPrefix(id, word)
		}
	}
	return wanted || !positive
}

// expandFolders puts the files of folders in their place.
func expandFolders(args []string) ([]string, error) {
	var names []string
	for _, name := range args {
		info, err := os.Stat(name)
		if name == "-" || err == nil && !info.IsDir() || errors.Is(err, fs.ErrNotExist) {
			names = append(names, name) // reading it says what is wrong with it
			continue
		}
		if err != nil {
			return nil, err
		}
		if main := filepath.Join(name, "nginx.conf"); isFile(main) {
			names = append(names, main)
			continue
		}
		found, err := sitesIn(name)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	return names, nil
}

// sitesIn lists the configuration files of a folder such as sites-enabled.
func sitesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		ext := filepath.Ext(path)
		if isFile(path) && e.Name()[0] != '.' && !strings.HasSuffix(e.Name(), "~") && (ext == ".conf" || ext == "") {
			names = append(names, path)
		}
	}
	if names == nil {
		return nil, fmt.Errorf("%s holds no configuration: neither nginx.conf nor files that end in .conf", dir)
	}
	return names, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// file loads one file as serve would, without starting anything, and holds it
// against the rules.
func (v *validation) file(name string, stdin io.Reader) ([]*parser.Diagnostic, error) {
	p, err := v.process(name, stdin)
	if err != nil {
		return nil, err
	}
	file := p.parse()
	_, diags := p.load(file)
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > largeTable {
		runtime.GC() // the table is not needed any more: the rules take its memory
	}
	return proxy.Lint(file, diags, proxy.LintOptions{Rule: v.wants, Offline: v.offline, Version: v.nginxVersion, ConfDir: p.options.ConfDir}), nil
}

// largeTable is the memory from which on it is worth the time to get it back.
const largeTable = 128 << 20

// process prepares for a configuration that is looked at and not served.
func (v *validation) process(name string, stdin io.Reader) (*process, error) {
	within, err := blockOf(v.context)
	if err != nil {
		return nil, err
	}
	conf, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	p := newProcess(settings{
		product: proxyctlProduct(), conf: conf, prefix: filepath.Dir(conf) + "/", site: true, within: within,
		errorLog: "stderr", accessLog: "/dev/stdout",
	}, io.Discard)
	if name == "-" {
		p.conf = "<stdin>"
		if p.text, err = io.ReadAll(io.LimitReader(stdin, maxStdin)); err != nil {
			return nil, err
		}
	}
	p.options.DryRun = true
	acme := acmeFromEnvironment()
	p.onDemandAsk = acme.ask
	if p.acme, err = acme.options(); err != nil {
		return nil, err
	}
	if v.offline {
		p.options.CheckCertificates = nil
		p.options.Offline = true
	}
	return p, nil
}

// maxStdin is how much of standard input is read.
const maxStdin = 64 << 20

// render writes diagnostics in a format.
func render(w io.Writer, diags []*parser.Diagnostic, format string) error {
	switch format {
	case "text":
		parser.WriteText(w, diags, textOptions(w))
	case "nginx":
		for _, d := range diags {
			parser.WriteNginx(w, d)
		}
	case "json":
		return parser.WriteJSON(w, diags)
	case "sarif":
		return writeSARIF(w, diags)
	case "github":
		writeGitHub(w, diags)
	case "errorformat":
		writeErrorFormat(w, diags)
	default:
		return fmt.Errorf("unknown format %q: text, json, sarif, github, errorformat or nginx", format)
	}
	return nil
}

// tally counts findings by what follows from them.
type tally struct {
	invalid  int // nginx would refuse the file
	unserved int // nginx would not, this server does
	warnings int
	notes    int
}

func tallyOf(diags []*parser.Diagnostic) tally {
	var t tally
	for _, d := range diags {
		switch {
		case d.Severity == parser.Warning:
			t.warnings++
		case d.Severity == parser.Note:
			t.notes++
		case d.Code == "U001":
			t.unserved++
		default:
			t.invalid++
		}
	}
	return t
}

// verdict is the last line for people.
func (t tally) verdict(files int) string {
	what, is := "the file", "is"
	if files > 1 {
		what, is = fmt.Sprintf("%d files", files), "are"
	}
	rest := ""
	if t.warnings+t.notes > 0 {
		rest = "; " + plural(t.warnings, "warning") + ", " + plural(t.notes, "note")
	}
	unserved := plural(t.unserved, "directive") + " that nginx knows and this server does not serve yet"
	switch {
	case t.invalid > 0 && t.unserved > 0:
		return plural(t.invalid, "error") + ", and " + unserved + rest
	case t.invalid > 0:
		return plural(t.invalid, "error") + rest
	case t.unserved > 0:
		return what + " " + is + " valid for nginx, and cannot be served here: " + unserved + rest
	}
	return what + " can be served" + rest
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func dumpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dump FILE",
		Short: "Print a configuration with all files it includes",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			p := newProcess(settings{product: proxyctlProduct(), conf: conf, prefix: filepath.Dir(conf) + "/", site: true}, cmd.ErrOrStderr())
			p.options.DryRun = true
			file := p.parse()
			if _, diags := p.load(file); p.say(diags) {
				return exitCode(1)
			}
			dumpSources(cmd.OutOrStdout(), file)
			return nil
		},
	}
}
