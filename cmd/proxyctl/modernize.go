package main

import (
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

func modernizeCommand() *cobra.Command {
	diff, write, within := false, false, ""
	cmd := &cobra.Command{
		Use:   "modernize FILE...",
		Short: "Replace forms that nginx has retired",
		Long: "Lists what nginx has deprecated or removed and what takes its place: http2 in listen, ssl on,\n" +
			"server push, stapling without a responder, and so on. With --diff the changes are shown, with\n" +
			"-w they are written. Nothing but the named words changes; included files are edited too.\n\n" +
			"Exit status: 0 when there was nothing to do or it has been written, 1 when there is, 2 for a\n" +
			"wrong command line or files that cannot be read.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := expandFolders(args)
			if err != nil {
				return err
			}
			todo := false
			for _, name := range names {
				v := validation{context: within, offline: true}
				p, err := v.process(name, cmd.InOrStdin())
				if err != nil {
					return err
				}
				file := p.parse()
				if d := firstSyntaxError(file.Body); d != nil {
					return fmt.Errorf("%s cannot be edited: %w", name, d)
				}
				edits := proxy.Modernize(file, p.options.ConfDir)
				todo = todo || len(edits) > 0
				if err := applyEdits(cmd, edits, diff, write); err != nil {
					return err
				}
			}
			if !todo {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing is out of date")
				return nil
			}
			if !write {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&diff, "diff", false, "show the changes as a diff")
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the files in place")
	cmd.Flags().StringVar(&within, "context", "", "the block that the files belong into: main, http or server (default: found out)")
	return cmd
}

// applyEdits shows or writes edits, file by file.
func applyEdits(cmd *cobra.Command, edits []proxy.Edit, diff, write bool) error {
	out := cmd.OutOrStdout()
	var files []string
	texts := map[string]string{}
	byFile := map[string][]proxy.Edit{}
	for _, e := range edits {
		name := e.Range.Source.Name
		if byFile[name] == nil {
			files = append(files, name)
			texts[name] = string(e.Range.Source.Text)
		}
		// a file that is included twice is edited once
		if !slices.ContainsFunc(byFile[name], func(o proxy.Edit) bool {
			return o.Range.Start == e.Range.Start && o.Range.End == e.Range.End && o.Text == e.Text
		}) {
			byFile[name] = append(byFile[name], e)
		}
	}
	for _, name := range files {
		after, err := edited(texts[name], byFile[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := parser.Print(io.Discard, parseAlone(name, after)); err != nil {
			return fmt.Errorf("%s: not edited, because the result could not be read: %w", name, err)
		}
		if diff {
			writeDiff(out, relativePath(name), texts[name], after)
		} else {
			for _, e := range byFile[name] {
				fmt.Fprintf(out, "%s:%d: %s: %s [%s]\n", relativePath(name), e.Range.Line(), editTitle(e), e.Why, e.Code)
			}
		}
		if write {
			if _, err := os.Stat(name); err != nil {
				return err
			}
			if err := replaceFile(name, after); err != nil {
				return err
			}
		}
	}
	return nil
}

func editTitle(e proxy.Edit) string {
	before, after := strings.TrimSpace(e.Range.Text()), strings.TrimSpace(e.Text)
	switch {
	case after == "":
		return "remove " + oneLine(before)
	case before == "":
		return "add " + oneLine(after)
	}
	return oneLine(before) + " becomes " + oneLine(after)
}

// edited applies edits to a text, from its end to its start.
func edited(text string, edits []proxy.Edit) (string, error) {
	list := slices.Clone(edits)
	slices.SortStableFunc(list, func(a, b proxy.Edit) int { return b.Range.Start - a.Range.Start })
	last := len(text)
	for _, e := range list {
		if e.Range.End > last || e.Range.End > len(text) {
			return "", errors.New("two changes overlap")
		}
		text = text[:e.Range.Start] + e.Text + text[e.Range.End:]
		last = e.Range.Start
	}
	return text, nil
}
