package main

import (
	"context"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

func certsObtainCommand(s *certsSettings) *cobra.Command {
	key := ""
	cmd := &cobra.Command{
		Use:   "obtain NAME...",
		Short: "Obtain one certificate for names before a server needs it",
		Long: "Obtains one certificate for all names and keeps it. A server block with just these names shows it from\n" +
			"its start; others show it until they have one of their own.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.order(cmd, func(ctx context.Context, o certs.Options, say func(string)) (certs.Status, error) {
				return certs.Obtain(ctx, o, args, key, say)
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "ecdsa:256", "ecdsa:256, ecdsa:384, ecdsa:521, rsa:2048, rsa:3072 or rsa:4096")
	return cmd
}
