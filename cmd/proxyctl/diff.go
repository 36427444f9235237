package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/parser"
	"proxyctl/proxy"
)

func diffCommand() *cobra.Command {
	format, within := "text", ""
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show what two configurations mean differently",
		Long: "Compares what counts in each server and location after inheritance, and not how it is\n" +
			"written: layout, comments, includes, the order of servers and a directive that moves\n" +
			"further out without effect make no difference.\n\n" +
			"Exit status: 0 when both mean the same, 1 when not, 2 when one cannot be read.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var files [2]*parser.File
			for i, name := range args {
				v := validation{context: within, offline: true}
				p, err := v.process(name, cmd.InOrStdin())
				if err != nil {
					return err
				}
				files[i] = p.parse()
				if d := firstSyntaxError(files[i].Body); d != nil {
					return fmt.Errorf("%s cannot be compared: %w", name, d)
				}
			}
			found := proxy.Compare(files[0], files[1])
			switch format {
			case "text":
				writeDifferences(cmd.OutOrStdout(), found, textOptions(cmd.OutOrStdout()).Color)
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if found == nil {
					found = []proxy.Difference{}
				}
				if err := e.Encode(found); err != nil {
					return err
				}
			default:
				return fmt.Errorf("unknown format %q: text or json", format)
			}
			if len(found) > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "text or json")
	cmd.Flags().StringVar(&within, "context", "", "the block that the files belong into: main, http or server (default: found out)")
	return cmd
}

// firstSyntaxError finds what keeps a file from being read whole.
func firstSyntaxError(b *parser.Block) *parser.Diagnostic {
	for _, d := range b.Items {
		if d.Err != nil {
			return d.Err
		}
		for _, f := range d.Files {
			if e := firstSyntaxError(f.Body); e != nil {
				return e
			}
		}
		if d.Block != nil {
			if e := firstSyntaxError(d.Block); e != nil {
				return e
			}
		}
	}
	return nil
}

// writeDifferences prints the differences under the blocks they are in.
func writeDifferences(w io.Writer, found []proxy.Difference, color bool) {
	tint := func(code, s string) string {
		if color {
			return "\x1b[" + code + "m" + s + "\x1b[0m"
		}
		return s
	}
	if len(found) == 0 {
		fmt.Fprintln(w, "both mean the same")
		return
	}
	where := "-"
	for _, d := range found {
		if at := strings.Join(d.Where, ", "); at != where {
			where = at
			if at == "" {
				at = "everywhere"
			}
			fmt.Fprintln(w, tint("1", oneLine(at)))
		}
		name := ""
		if strings.HasPrefix(d.What, "unknown names") || strings.HasPrefix(d.What, "order of") {
			name = d.What + ": "
		}
		for _, line := range d.Before {
			fmt.Fprintf(w, "  %s  %s\n", tint("31", "- "+oneLine(name+line)), tint("2", relativePlace(d.OldPlace)))
		}
		for _, line := range d.After {
			fmt.Fprintf(w, "  %s  %s\n", tint("32", "+ "+oneLine(name+line)), tint("2", relativePlace(d.NewPlace)))
		}
	}
}
