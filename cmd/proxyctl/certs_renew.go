package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

// certsTimeout is how long an authority and a running server may take.
const certsTimeout = 6 * time.Minute

func certsRenewCommand(s *certsSettings) *cobra.Command {
	return &cobra.Command{
		Use:   "renew NAME|ID",
		Short: "Renew a certificate that was obtained, now",
		Long: "Has the running server renew a certificate, whatever is left of its lifetime, and says how it went.\n" +
			"Where no server runs it is renewed here, with ports 80 and 443 for as long as it takes.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.order(cmd, func(ctx context.Context, o certs.Options, say func(string)) (certs.Status, error) {
				return certs.Renew(ctx, o, args[0], say)
			})
		},
	}
}
