// Command proxyctl serves nginx configuration files. Called by the name nginx
// it speaks nginx's own command line.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	if name := filepath.Base(os.Args[0]); name == "nginx" || strings.HasPrefix(name, "nginx-") {
		os.Exit(nginxMain(os.Args[1:], os.Stdout, os.Stderr))
	}
	err := rootCommand().Execute()
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "proxyctl: "+err.Error())
		os.Exit(2)
	}
}

// exitCode ends the process with a status after everything has been said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "proxyctl",
		Short: "Serve, check and inspect nginx configurations",
		Long: "proxyctl serves the nginx configuration you already have.\n\n" +
			"  proxyctl serve --local site.conf   try a site on this machine\n" +
			"  proxyctl validate site.conf        find everything wrong with it",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		serveCommand(), certsCommand(),
		validateCommand(), explainCommand(), fmtCommand(), diffCommand(), migrateCommand(),
		dumpCommand(), directivesCommand(), versionCommand(),
	)
	for _, c := range root.Commands() {
		if !c.Runnable() { // a group: what it does not know is a mistake
			c.Args = cobra.NoArgs
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	for _, s := range signals() {
		root.AddCommand(signalCommand(s))
	}
	return root
}
