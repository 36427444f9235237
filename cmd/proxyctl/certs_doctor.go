package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/certs"
)

func certsDoctorCommand(s *certsSettings) *cobra.Command {
	resolver, conf := "", ""
	cmd := &cobra.Command{
		Use:   "doctor [NAME...]",
		Short: "Find what keeps certificates from being obtained",
		Long: "Asks the DNS about each name, knocks at ports 80 and 443, asks the certificate authority what it wants,\n" +
			"looks at the clock, the storage and what was tried before. Nothing is ordered. Without names it looks at\n" +
			"those of the configuration. Exit status: 0 when nothing is wrong, 1 when something is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := s.options()
			if err != nil {
				return err
			}
			doctor := certs.Doctor{Options: o}
			if doctor.Resolver, err = resolverAddress(resolver); err != nil {
				return err
			}
			if conf == "" && len(args) == 0 && isFile(defaultConf) {
				conf = defaultConf
			}
			if conf != "" {
				if doctor.Sites, err = s.sitesOf(conf, cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			if len(args) == 0 {
				for _, site := range doctor.Sites {
					for _, n := range site.Names {
						if !slices.Contains(args, n) {
							args = append(args, n)
						}
					}
				}
			}
			ctx, cancel := untilInterrupted(cmd.Context())
			defer cancel()
			findings := doctor.Examine(ctx, args)
			w := cmd.OutOrStdout()
			err = s.print(w, findings, func() {
				for _, f := range findings {
					fmt.Fprintf(w, "%-8s %s: %s\n", f.Level, f.Subject, f.Text)
					if f.Advice != "" {
						fmt.Fprintf(w, "%s -> %s\n", strings.Repeat(" ", 8), f.Advice)
					}
				}
			})
			if err == nil && certs.Failed(findings) {
				return exitCode(1)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&resolver, "resolver", "", "name server to ask, ADDRESS[:PORT] (default: the system's)")
	cmd.Flags().StringVarP(&conf, "conf", "c", "", "configuration to take the names and the certificates from (default without names: "+defaultConf+")")
	return cmd
}

// resolverAddress gives an address its port.
func resolverAddress(text string) (string, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	if _, err := netip.ParseAddrPort(text); text != "" && err != nil {
		return "", fmt.Errorf("invalid --resolver %q: an address, or an address and a port", text)
	}
	return text, nil
}
