package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

// certbotRoot is Certbot's configuration folder.
const certbotRoot = "/etc/letsencrypt"

func certsImportCommand(s *certsSettings) *cobra.Command {
	root := certbotRoot
	cmd := &cobra.Command{
		Use:   "import-certbot",
		Short: "Copy Certbot's accounts and certificates, to go on without it",
		Long: "Copies the certificates, their keys and the keys of the accounts into the data folder. Nothing is issued\n" +
			"and nothing in Certbot's folder is changed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := s.options()
			if err != nil {
				return err
			}
			list, err := certs.ImportCertbot(o, root)
			if err != nil {
				return err
			}
			failed := false
			w := cmd.OutOrStdout()
			err = s.print(w, list, func() {
				for _, i := range list {
					switch {
					case i.Error != "":
						fmt.Fprintf(w, "%s: not imported: %s\n", i.Name, i.Error)
					default:
						fmt.Fprintf(w, "%s: imported for %s, valid until %s\n", i.Name, joined(i.Names), day(i.NotAfter))
					}
					for _, note := range i.Notes {
						fmt.Fprintf(w, "  %s\n", note)
					}
				}
			})
			for _, i := range list {
				failed = failed || i.Error != ""
			}
			if err == nil && failed {
				return exitCode(1)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&root, "certbot", root, "Certbot's configuration folder")
	return cmd
}
