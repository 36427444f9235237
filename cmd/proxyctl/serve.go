package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"proxyctl/parser"
	"proxyctl/proxy"
)

func serveCommand() *cobra.Command {
	var s settings
	var local bool
	var acme acmeSettings
	cmd := &cobra.Command{
		Use:   "serve FILE",
		Short: "Serve an nginx.conf or a site file",
		Long: "Serves a whole nginx.conf, or a bare site file: server blocks as they stand in sites-enabled.\n\n" +
			"With --local it can be tried on any machine: ports 80 and 443 become 8080 and 8443,\n" +
			"certificates that do not exist come from a local CA, and where nothing listens behind\n" +
			"proxy_pass a small demo app answers.\n\n" +
			"SIGHUP loads the configuration anew, SIGQUIT ends when all requests have ended, SIGUSR1\n" +
			"reopens the logs; the commands reload, quit, stop and reopen send them. As a service of\n" +
			"systemd, with \"pid /run/nginx.pid;\" in the configuration:\n\n" +
			"  [Service]\n" +
			"  Type=notify\n" +
			"  ExecStart=/usr/local/bin/proxyctl serve /etc/nginx/nginx.conf\n" +
			"  ExecReload=/usr/local/bin/proxyctl reload --pid /run/nginx.pid\n" +
			"  KillMode=mixed\n" +
			"  KillSignal=SIGQUIT\n\n" +
			"nginx's own unit works too, when this program stands in the place of its binary.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if s.acme, err = acme.options(); err != nil {
				return err
			}
			s.onDemandAsk = acme.ask
			s.product, s.conf, s.site = proxyctlProduct(), conf, true
			s.accessLog, s.errorLog = "/dev/stdout", "stderr"
			if s.prefix == "" {
				s.prefix = filepath.Dir(conf)
			}
			s.prefix = strings.TrimSuffix(s.prefix, "/") + "/"
			if local {
				s.local = newLocalMode(cmd.OutOrStdout())
			}
			s.out = cmd.OutOrStdout()
			if code := newProcess(s, cmd.ErrOrStderr()).serve(); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&local, "local", false, "try the site on this machine, without root and without its certificates")
	flags.StringVarP(&s.prefix, "prefix", "p", "", "folder that relative paths of files start from (default: the file's folder)")
	flags.StringVar(&s.dataDir, "data", "", "folder for certificates (default: $PROXYCTL_DATA, /var/lib/proxyctl or ~/.local/share/proxyctl)")
	acme.flags(flags)
	return cmd
}

// wrapSite gives a bare site file the blocks that nginx.conf would have around
// it: what it holds tells where it belongs, if given does not. context is the
// innermost of them.
func wrapSite(file *parser.File, given string) (wrapped *parser.File, context string) {
	if context = given; context == "" {
		context = siteContext(file)
	}
	switch context {
	case "http":
		return around(file, "http"), context
	case "server":
		return around(file, "http", "server"), context
	}
	return file, ""
}

// siteContext says which block the statements of a file belong into: "" for a
// whole nginx.conf, else "http" or "server".
func siteContext(file *parser.File) string {
	in := proxy.InMain | proxy.InHTTP | proxy.InServer
	rows := map[string]proxy.Context{}
	for _, c := range proxy.Commands() {
		rows[c.Name] |= c.In
	}
	for _, d := range file.Body.Items {
		if known := rows[d.Name.Value]; d.Err == nil && in&known != 0 {
			in &= known
		}
	}
	switch {
	case in&proxy.InMain != 0:
		return ""
	case in&proxy.InHTTP != 0:
		return "http"
	}
	return "server"
}

// around puts the statements of a file into blocks, outermost first, beside an
// empty events block.
func around(file *parser.File, blocks ...string) *parser.File {
	body := file.Body
	for i := len(blocks) - 1; i >= 0; i-- {
		block := &parser.Directive{Name: parser.Arg{Value: blocks[i]}, Block: body}
		body = &parser.Block{Items: []*parser.Directive{block}}
	}
	events := &parser.Directive{Name: parser.Arg{Value: "events"}, Block: &parser.Block{}}
	body.Items = append([]*parser.Directive{events}, body.Items...)
	return &parser.File{Source: file.Source, Body: body}
}

// textOptions fits messages to the terminal, if it is one.
func textOptions(w io.Writer) parser.TextOptions {
	f, ok := w.(*os.File)
	if !ok {
		return parser.TextOptions{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return parser.TextOptions{}
	}
	return parser.TextOptions{Color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", Width: int(size.Col), Wrap: size.Col >= 40}
}

// announce tells where to look once the server serves.
func (p *process) announce(table *proxy.Table) {
	if p.context != "" {
		fmt.Fprintf(p.out, "%s is a site file: served inside %s { }\n", filepath.Base(p.conf), p.context)
	}
	if p.local != nil {
		p.local.announce(table, p.certs.LocalRoot())
		return
	}
	var on []string
	for _, s := range table.Sites() {
		for _, l := range s.Listen {
			if a := l.Address.String(); l.Address.IsValid() && !slices.Contains(on, a) {
				on = append(on, a)
			}
		}
	}
	if len(on) > 0 {
		fmt.Fprintf(p.out, "Serving on %s\n", strings.Join(on, ", "))
	}
}
