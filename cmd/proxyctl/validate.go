package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"proxyctl/parser"
)

func validateCommand() *cobra.Command {
	format, offline := "text", false
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Report everything wrong with configuration files",
		Long: "Reports all errors and warnings of each file, with the text they are about and a hint.\n" +
			"A whole nginx.conf and a bare site file are both understood. Exit status: 0 when every\n" +
			"file can be served, 1 when not, 2 for a wrong command line.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []*parser.Diagnostic
			for _, name := range args {
				diags, err := validate(name, offline)
				if err != nil {
					return err
				}
				all = append(all, diags...)
			}
			if err := render(cmd.OutOrStdout(), all, format); err != nil {
				return err
			}
			errors, warnings := count(all)
			if format == "text" {
				fmt.Fprintln(cmd.OutOrStdout(), verdict(len(args), errors, warnings))
			}
			if errors > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "text, nginx or json")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not open certificate files and do not resolve names")
	return cmd
}

// validate loads one file as serve would, without starting anything.
func validate(name string, offline bool) ([]*parser.Diagnostic, error) {
	conf, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	p := newProcess(settings{
		product: proxyctlProduct(), conf: conf, prefix: filepath.Dir(conf) + "/", site: true,
		errorLog: "stderr", accessLog: "/dev/stdout",
	}, io.Discard)
	p.options.DryRun = true
	acme := acmeFromEnvironment()
	if p.acme, err = acme.options(); err != nil {
		return nil, err
	}
	if offline {
		p.options.CheckCertificates = nil
		p.options.Offline = true
	}
	_, diags := p.load(p.parse())
	return diags, nil
}

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
	default:
		return fmt.Errorf("unknown format %q: text, nginx or json", format)
	}
	return nil
}

func count(diags []*parser.Diagnostic) (errors, warnings int) {
	for _, d := range diags {
		switch d.Severity {
		case parser.Error:
			errors++
		case parser.Warning:
			warnings++
		case parser.Note:
		}
	}
	return errors, warnings
}

func verdict(files, errors, warnings int) string {
	what := "the file"
	if files > 1 {
		what = fmt.Sprintf("%d files", files)
	}
	if errors == 0 {
		return fmt.Sprintf("%s can be served (%d warnings)", what, warnings)
	}
	return fmt.Sprintf("%d errors, %d warnings", errors, warnings)
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
