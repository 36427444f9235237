package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"proxyctl/proxy"
)

func directivesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "directives [NAME]",
		Short: "Show the directives of nginx and how they are served",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if len(args) == 0 {
				listDirectives(out)
				return nil
			}
			if !showDirective(out, args[0]) {
				return fmt.Errorf("nginx has no directive %q", args[0])
			}
			return nil
		},
	}
}

// listDirectives prints a line for each directive.
func listDirectives(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range proxy.Commands() {
		status := c.Status.String()
		if c.Differs != "" {
			status += ", differs"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Name, status, c.ModuleName(), c.In)
	}
	_ = t.Flush()
}

// showDirective prints what the rows of one name say.
func showDirective(w io.Writer, name string) bool {
	found := false
	for _, c := range proxy.Commands() {
		if c.Name != name {
			continue
		}
		if found {
			fmt.Fprintln(w)
		}
		found = true
		fmt.Fprintf(w, "%s\n", c.Usage())
		for _, line := range [][2]string{
			{"", c.Doc},
			{"default", c.Default},
			{"context", c.In.String()},
			{"takes", c.Args.String()},
			{"module", c.ModuleName()},
			{"status", c.Status.String()},
			{"reason", c.Reason},
			{"differs", c.Differs},
		} {
			switch {
			case line[1] == "":
			case line[0] == "":
				fmt.Fprintf(w, "  %s\n", line[1])
			default:
				fmt.Fprintf(w, "  %-8s %s\n", line[0], line[1])
			}
		}
	}
	return found
}
