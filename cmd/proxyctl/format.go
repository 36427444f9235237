package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/parser"
)

// formatting is what the command line of fmt says.
type formatting struct {
	check, diff, write bool
}

func fmtCommand() *cobra.Command {
	var f formatting
	cmd := &cobra.Command{
		Use:   "fmt FILE...",
		Short: "Lay out configuration files evenly",
		Long: "Writes one directive a line, four spaces a level, blank lines no more than one at a time.\n" +
			"Words, comments and their order stay as they are; what is included is left alone.\n" +
			"The result is read back each time and compared: a file whose meaning would change is\n" +
			"refused. Without -w, --check or --diff it goes to standard output; - is standard input.\n\n" +
			"Exit status: 0 when all is well, 1 when a file cannot be read as a configuration or, with\n" +
			"--check and --diff, is laid out otherwise, 2 for a wrong command line.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.check, "check", false, "name the files that would change, and change none")
	flags.BoolVar(&f.diff, "diff", false, "show what would change, and change nothing")
	flags.BoolVarP(&f.write, "write", "w", false, "write the files in place")
	return cmd
}

func (f *formatting) run(cmd *cobra.Command, args []string) error {
	names, err := expandFolders(args)
	if err != nil {
		return err
	}
	differs, failed := false, false
	for _, name := range names {
		changed, err := f.file(cmd, name)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "proxyctl: %v\n", err)
			failed = true
		}
		differs = differs || changed
	}
	if failed || differs && (f.check || f.diff) {
		return exitCode(1)
	}
	return nil
}

// file lays out one file; changed tells whether it was laid out otherwise.
func (f *formatting) file(cmd *cobra.Command, name string) (changed bool, err error) {
	var text []byte
	if name == "-" {
		if f.write {
			return false, errors.New("standard input cannot be written in place")
		}
		text, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxStdin))
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return false, err
	}
	formatted, err := formatText(name, string(text))
	if err != nil {
		return false, err
	}
	changed = formatted != string(text)
	out := cmd.OutOrStdout()
	switch {
	case f.diff:
		writeDiff(out, name, string(text), formatted)
	case f.check && changed:
		fmt.Fprintln(out, name)
	case f.check:
	case f.write && changed:
		err = replaceFile(name, formatted)
	case f.write:
	default:
		_, err = io.WriteString(out, formatted)
	}
	return changed, err
}

// formatText lays out a text and proves that nothing else has changed.
func formatText(name, text string) (string, error) {
	before := parseAlone(name, text)
	var b strings.Builder
	if err := parser.Print(&b, before); err != nil {
		return "", err
	}
	formatted := b.String()
	after := parseAlone(name, formatted)
	if err := parser.Same(before, after); err != nil {
		return "", fmt.Errorf("%s: not formatted, because it would not mean the same: %w", name, err)
	}
	b.Reset()
	if err := parser.Print(&b, after); err != nil || b.String() != formatted {
		return "", fmt.Errorf("%s: not formatted, because the layout would not last", name)
	}
	return formatted, nil
}

// parseAlone parses a text without what it includes.
func parseAlone(name, text string) *parser.File {
	return parser.Parse(&parser.Source{Name: name, Text: []byte(text)}, parser.Options{
		Glob:     func(string) ([]string, error) { return nil, nil },
		ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist },
	})
}

// replaceFile writes a file in one step, with the rights it had. Of a symbolic
// link the target is written.
func replaceFile(name, text string) error {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".proxyctl-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, tmp.Close(), keepOwner(tmp.Name(), info)); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
