package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"proxyctl/certs"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// certsSettings are what all commands about certificates take.
type certsSettings struct {
	acme    acmeSettings
	dataDir string
	json    bool
}

func certsCommand() *cobra.Command {
	var s certsSettings
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Show, obtain and move certificates",
		Long: "Certificates are served from the files that the configuration names. Where these are missing or\n" +
			"long overdue the server obtains them itself; these commands show and steer that.",
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&s.dataDir, "data", "", "folder for certificates (default: $PROXYCTL_DATA, /var/lib/proxyctl or ~/.local/share/proxyctl)")
	flags.BoolVar(&s.json, "json", false, "print JSON")
	s.acme.flags(flags)
	cmd.AddCommand(certsListCommand(&s), certsRenewCommand(&s), certsObtainCommand(&s), certsImportCommand(&s), certsDoctorCommand(&s), certsExportCommand(&s))
	return cmd
}

// options are those of the package that does the work.
func (s *certsSettings) options() (certs.Options, error) {
	acme, err := s.acme.options()
	o := certs.Options{DataDir: s.dataDir, ACME: acme}
	if o.DataDir == "" {
		o.DataDir = certs.DefaultDataDir()
	}
	return o, err
}

// sitesOf reads the servers of a configuration that need certificates.
func (s *certsSettings) sitesOf(name string, stderr io.Writer) ([]certs.Site, error) {
	conf, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	acme, err := s.acme.options()
	if err != nil {
		return nil, err
	}
	p := newProcess(settings{
		product: proxyctlProduct(), conf: conf, prefix: filepath.Dir(conf) + "/", site: true, acme: acme, dataDir: s.dataDir,
		errorLog: "stderr", accessLog: "/dev/stdout",
	}, stderr)
	p.options.DryRun = true
	var sites []certs.Site
	p.options.CheckCertificates = func(found []proxy.CertSite) []proxy.CertProblem {
		sites = certSites(found)
		return nil
	}
	_, diags := p.load(p.parse())
	for _, d := range diags {
		if d.Severity == parser.Error {
			p.say(diags)
			return nil, exitCode(1)
		}
	}
	return sites, nil
}

// print writes a value as JSON, or has text write it for people.
func (s *certsSettings) print(w io.Writer, v any, text func()) error {
	if !s.json {
		text()
		return nil
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// untilInterrupted is a context that ends with Ctrl-C.
func untilInterrupted(parent context.Context) (context.Context, context.CancelFunc) {
	if parent == nil {
		parent = context.Background()
	}
	return signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
}

// order has a certificate obtained within certsTimeout, unless it is interrupted,
// and says how it went.
func (s *certsSettings) order(cmd *cobra.Command, do func(ctx context.Context, o certs.Options, say func(string)) (certs.Status, error)) error {
	o, err := s.options()
	if err != nil {
		return err
	}
	ctx, cancel := untilInterrupted(cmd.Context())
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, certsTimeout)
	defer cancel()
	st, err := do(ctx, o, func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) })
	return s.outcome(cmd.OutOrStdout(), st, err)
}

// outcome says how obtaining went.
func (s *certsSettings) outcome(w io.Writer, st certs.Status, err error) error {
	if err != nil {
		return err
	}
	return s.print(w, st, func() {
		fmt.Fprintf(w, "%s: valid until %s, from %s (%s)\n", joined(st.Names), day(st.NotAfter), st.Issuer, st.ID)
	})
}
