package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

func certsExportCommand(s *certsSettings) *cobra.Command {
	root, lineage := certbotRoot, ""
	cmd := &cobra.Command{
		Use:   "export NAME|ID",
		Short: "Put a certificate that was obtained into Certbot's folders",
		Long: "Adds the certificate and its key to a lineage of Certbot as its newest version, under Certbot's own lock,\n" +
			"and makes the lineage where there is none. This is the one command that writes there.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options()
			if err != nil {
				return err
			}
			live, err := certs.Export(o, root, args[0], lineage)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/fullchain.pem\n%s/privkey.pem\n", live, live)
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "certbot", root, "Certbot's configuration folder")
	cmd.Flags().StringVar(&lineage, "cert-name", "", "name of the lineage (default: the certificate's first name)")
	return cmd
}
