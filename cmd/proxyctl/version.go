package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"proxyctl/proxy"
)

// version is proxyctl's own.
const version = "0.1.0"

// nginxVersion is the nginx whose behaviour and directives are followed.
const nginxVersion = "1.31.5"

// proxyctlProduct is how answers name the server.
func proxyctlProduct() proxy.Product {
	return proxy.Product{Name: "proxyctl", Version: version}
}

// nginxProduct is how answers name the server that is called as nginx.
func nginxProduct() proxy.Product {
	return proxy.Product{Name: "nginx", Version: nginxVersion, Build: "proxyctl/" + version}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "proxyctl %s%s\nconfiguration of nginx %s\nbuilt with %s\n", version, revision(), nginxVersion, runtime.Version())
			return nil
		},
	}
}

// revision names the commit the program was built from, when it is known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return " (" + s.Value[:12] + ")"
		}
	}
	return ""
}

// printNginxVersion is what nginx -v and -V print. Tools read the number, the
// OpenSSL line and the configure arguments from it.
func printNginxVersion(w io.Writer, configure bool) {
	fmt.Fprintf(w, "nginx version: nginx/%s (proxyctl/%s)\n", nginxVersion, version)
	if !configure {
		return
	}
	fmt.Fprintf(w, "built with OpenSSL 3.0.0 compatible crypto/tls of %s\n", runtime.Version())
	fmt.Fprintln(w, "TLS SNI support enabled")
	fmt.Fprintf(w, "configure arguments: --build=proxyctl/%s --prefix=%s --conf-path=%s --error-log-path=%s --http-log-path=%s --pid-path=%s %s\n",
		version, defaultPrefix, defaultConf, defaultErrorLog, defaultAccessLog, defaultPID, proxy.ConfigureArguments())
}
