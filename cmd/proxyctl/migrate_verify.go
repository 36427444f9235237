package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/certs"
	"proxyctl/cmd/proxyctl/verify"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// verifying is what the command line of verify says.
type verifying struct {
	conf, prefix, program string
	log                   string
	logLines              int
	budget                time.Duration
	most                  int
	keep                  bool
	upstreams             string
	format                string
}

func migrateVerifyCommand() *cobra.Command {
	v := verifying{logLines: 10_000, budget: time.Minute, most: 50_000, format: "text"}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that this server answers as the nginx on this machine does",
		Long: "Starts the installed nginx and then this server under the same configuration, at spare\n" +
			"ports of this machine, asks both the same and compares status, fields, bodies and what\n" +
			"upstreams got. What is asked is made up from the configuration: every name, location,\n" +
			"expression, map and file, other methods, ranges, conditions, bad input; and the requests\n" +
			"of an access log, if one is given.\n\n" +
			"The running server is not touched, nor are its logs, its temporary files or its\n" +
			"upstreams: this command answers in their place, unless --upstreams says real. Limits\n" +
			"of rates are left out, for what they do depends on time; all that is left out is listed.\n" +
			"What is known to have changed between the installed version and nginx " + nginxVersion + ", and what\n" +
			"this server refuses on purpose, is named and not counted as a difference.\n\n" +
			"Exit status: 0 when nothing differs, 3 when something does, 1 when it could not be\n" +
			"found out, 2 for a wrong command line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if v.format != "text" && v.format != "json" {
				return fmt.Errorf("unknown format %q: text or json", v.format)
			}
			ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer cancel()
			report, err := v.run(ctx)
			if err != nil {
				return sayRefused(cmd, err)
			}
			out := cmd.OutOrStdout()
			if v.format == "json" {
				e := json.NewEncoder(out)
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				if err := e.Encode(report); err != nil {
					return err
				}
			} else {
				verify.Write(out, report, textOptions(out).Color)
			}
			if !report.Equal() {
				return exitCode(3)
			}
			return nil
		},
	}
	v.flags(cmd)
	cmd.Flags().StringVar(&v.format, "format", v.format, "text or json")
	return cmd
}

func (v *verifying) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&v.conf, "config", "c", "", "configuration, an nginx.conf or a site file (default: what nginx is built with)")
	flags.StringVarP(&v.prefix, "prefix", "p", "", "folder that relative paths of files start from (default: what nginx is built with)")
	flags.StringVar(&v.program, "nginx", "", "the nginx to compare with (default: found in PATH)")
	flags.StringVar(&v.log, "log", "", "access log whose requests are replayed, in a format of the configuration")
	flags.IntVar(&v.logLines, "log-lines", v.logLines, "how many of its newest lines are replayed at most")
	flags.DurationVar(&v.budget, "budget", v.budget, "how long it may take")
	flags.IntVar(&v.most, "max", v.most, "how many requests are made at most")
	flags.StringVar(&v.upstreams, "upstreams", "replaced", "replaced, or real: requests reach the upstreams of the configuration, only GET and HEAD are made")
	flags.BoolVar(&v.keep, "keep", false, "keep the configuration and the logs that were used")
}

// sayRefused tells what kept a command from being done, and the errors of a
// configuration that cannot be served.
func sayRefused(cmd *cobra.Command, err error) error {
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "proxyctl: %v\n", err)
	if refused := new(verify.Refused); errors.As(err, &refused) {
		parser.WriteText(w, errorsOf(refused.Diagnostics), textOptions(w))
		fmt.Fprintln(w, `"proxyctl migrate check" says more.`)
	}
	return exitCode(1)
}

func errorsOf(diags []*parser.Diagnostic) []*parser.Diagnostic {
	var out []*parser.Diagnostic
	for _, d := range diags {
		if d.Severity == parser.Error {
			out = append(out, d)
		}
	}
	return out
}

// run compares.
func (v *verifying) run(ctx context.Context) (*verify.Report, error) {
	o, err := v.options()
	if err != nil {
		return nil, err
	}
	return verify.Run(ctx, o)
}

// options finds out what is compared.
func (v *verifying) options() (*verify.Options, error) {
	if v.upstreams != "" && v.upstreams != "replaced" && v.upstreams != "real" {
		return nil, fmt.Errorf("unknown --upstreams %q: replaced or real", v.upstreams)
	}
	nginx := findNginx(v.program)
	switch {
	case nginx.Program == "" && v.program != "":
		return nil, fmt.Errorf("%s is no nginx that can be run", v.program)
	case nginx.Program == "":
		return nil, errors.New("no nginx is installed here: there is nothing to compare with (--nginx names one)")
	}
	conf := v.conf
	if conf == "" {
		conf = nginx.Conf
	}
	conf, err := filepath.Abs(conf)
	if err != nil {
		return nil, err
	}
	prefix := v.prefix
	if prefix == "" {
		prefix = nginx.Prefix
	}
	if prefix, err = filepath.Abs(prefix); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := v.process(conf, prefix)
	file := p.parse()
	cert, err := proxy.PretendCertificate()
	if err != nil {
		return nil, err
	}
	return &verify.Options{
		File: file, ConfDir: filepath.Dir(conf), Prefix: prefix, Version: nginx.Version, Without: nginx.Without,
		Nginx: verify.Program{Name: "nginx", Path: nginx.Program, Arg0: nginx.Program},
		Ours:  verify.Program{Name: "this server", Path: self, Arg0: "nginx", Env: []string{"PROXYCTL_ACME=off"}},
		Load: func(f *parser.File) (*proxy.Table, []*parser.Diagnostic) {
			p := v.process(conf, prefix)
			p.options.Certificate = pretend(cert)
			return p.load(f)
		},
		Log: v.log, LogLines: v.logLines, Budget: v.budget, MaxRequests: v.most, Keep: v.keep,
		RealUpstreams: v.upstreams == "real",
	}, nil
}

// process prepares for a configuration that is looked at, as nginx would see
// it.
func (v *verifying) process(conf, prefix string) *process {
	p := newProcess(settings{product: nginxProduct(), conf: conf, prefix: strings.TrimSuffix(prefix, "/") + "/", site: true, errorLog: "stderr"}, os.Stderr)
	p.options.DryRun, p.options.Offline = true, true
	p.options.CheckCertificates = nil
	p.acme.Takeover = certs.TakeoverAll // files of Certbot may be missing: so may its certificates
	return p
}
