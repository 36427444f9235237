package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

func certsListCommand(s *certsSettings) *cobra.Command {
	return &cobra.Command{
		Use:   "list [FILE]",
		Short: "List what the servers of a configuration show and what is kept",
		Long: "Lists the certificate of each server in FILE (default: " + defaultConf + " where it exists): from a file, obtained,\n" +
			"or none yet; and what else is kept in the data folder.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options()
			if err != nil {
				return err
			}
			var sites []certs.Site
			if _, err := os.Stat(defaultConf); len(args) == 0 && err == nil {
				args = []string{defaultConf}
			}
			if len(args) > 0 {
				if sites, err = s.sitesOf(args[0], cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			list, err := certs.List(sites, o)
			if err != nil {
				return err
			}
			if list == nil {
				list = []certs.Status{}
			}
			return s.print(cmd.OutOrStdout(), list, func() {
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
				fmt.Fprintln(t, "NAMES\tSOURCE\tISSUER\tEXPIRES\tRENEWAL\tSERVER")
				for i := range list {
					st := &list[i]
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", joined(st.Names), st.Source, dash(st.Issuer), day(st.NotAfter), st.Describe(time.Now()), dash(st.Place))
				}
				_ = t.Flush()
				for i := range list {
					if list[i].Error != "" {
						fmt.Fprintf(cmd.OutOrStdout(), "\n%s: %s\n", joined(list[i].Names), list[i].Error)
					}
					if list[i].MustStaple {
						fmt.Fprintf(cmd.OutOrStdout(), "\n%s: demands proofs that it is not revoked (must-staple); %s\n", joined(list[i].Names), proof(&list[i]))
					}
				}
			})
		},
	}
}

// proof says what there is of those that a certificate demands.
func proof(st *certs.Status) string {
	if st.Proof.IsZero() {
		return "none is kept here: see proxyctl certs doctor"
	}
	return "the one at hand is valid until " + day(st.Proof)
}

// joined shows a few names of many.
func joined(names []string) string {
	switch {
	case len(names) == 0:
		return "-"
	case len(names) > 3:
		return fmt.Sprintf("%s +%d", strings.Join(names[:3], ","), len(names)-3)
	}
	return strings.Join(names, ",")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}
