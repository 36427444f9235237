package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/cmd/proxyctl/export"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// exporting is what the command line of migrate export says.
type exporting struct {
	to, context string
	partial     []string
}

func migrateExportCommand() *cobra.Command {
	var e exporting
	cmd := &cobra.Command{
		Use:   "export --to LANGUAGE FILE",
		Short: "Say a configuration in the words of another server",
		Long: "Writes what a configuration does as a Caddyfile, for HAProxy, or for the Gateway API of\n" +
			"Kubernetes, each line with its source as a comment. What the other server has no words for\n" +
			"is an error, unless --partial names the directive: then it is left out, and said so at the\n" +
			"top; requests that it would have decided about are refused where that can be said.\n" +
			"Look at the result before you use it: the servers differ in what they do by themselves, such\n" +
			"as the pages of errors, the media types of files and the logs.\n\n" +
			"  proxyctl migrate export --to caddyfile /etc/nginx/nginx.conf >Caddyfile\n" +
			"  proxyctl migrate export --to haproxy --partial add_header,root site.conf\n\n" +
			"Exit status: 0 when everything was said or left out by --partial, 1 when not, 2 for a wrong\n" +
			"command line.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return e.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&e.to, "to", "", strings.Join(export.Targets(), ", "))
	flags.StringSliceVar(&e.partial, "partial", nil, "directives that may be left out, separated by commas")
	flags.StringVar(&e.context, "context", "", "the block that the file belongs into: main, http or server (default: found out)")
	return cmd
}

func (e *exporting) run(cmd *cobra.Command, name string) error {
	if !slices.Contains(export.Targets(), e.to) {
		return fmt.Errorf("--to %q: it is one of %s", e.to, strings.Join(export.Targets(), ", "))
	}
	table, file, err := e.load(cmd, name)
	if err != nil {
		return err
	}
	plan := proxy.MakePlan(table, file)
	if !slices.ContainsFunc(plan.Servers, func(s proxy.PlanServer) bool { return len(s.Listens) > 0 }) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: no server of HTTP listens on an address: there is nothing to say\n", relativePath(name))
		return exitCode(1)
	}
	text, unsaid := export.To(e.to, plan, relativePlace)
	var refused, left []proxy.Unsaid
	for _, u := range unsaid {
		list := &refused
		if slices.Contains(e.partial, u.Directive) {
			list = &left
		}
		if !slices.Contains(*list, u) { // it may be missing in several places
			*list = append(*list, u)
		}
	}
	if len(refused) > 0 {
		e.refuse(cmd.ErrOrStderr(), refused)
		return exitCode(1)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "# %s, from nginx's %s\n", map[string]string{
		"caddyfile": "A Caddyfile", "haproxy": "A configuration of HAProxy", "gateway-api": "Resources of the Gateway API",
	}[e.to], oneLine(relativePath(file.Source.Name)))
	for _, u := range left {
		fmt.Fprintf(out, "# LEFT OUT: %s (%s): %s\n", oneLine(said(u)), oneLine(relativePlace(u.Place)), u.Why)
	}
	if e.to != "caddyfile" { // "caddy fmt" wants none there
		fmt.Fprintln(out)
	}
	_, err = out.Write(text)
	return err
}

// load compiles the file; its mistakes are told as validate does.
func (e *exporting) load(cmd *cobra.Command, name string) (*proxy.Table, *parser.File, error) {
	v := validation{context: e.context, offline: true}
	p, err := v.process(name, cmd.InOrStdin())
	if err != nil {
		return nil, nil, err
	}
	cert, err := proxy.PretendCertificate()
	if err != nil {
		return nil, nil, err
	}
	p.options.Certificate = pretend(cert)
	file := p.parse()
	table, diags := p.load(file)
	if table == nil {
		_ = render(cmd.ErrOrStderr(), onlyErrors(diags), "text")
		return nil, nil, exitCode(1)
	}
	return table, file, nil
}

// said is a statement with its name.
func said(u proxy.Unsaid) string {
	return strings.TrimSpace(u.Directive + " " + strings.TrimSpace(strings.TrimPrefix(u.Text, u.Directive)))
}

// refuse lists what cannot be said, what protects first.
func (e *exporting) refuse(w io.Writer, list []proxy.Unsaid) {
	slices.SortStableFunc(list, func(a, b proxy.Unsaid) int { return count(b.Security) - count(a.Security) })
	var names []string
	for _, u := range list {
		kind := "error"
		if u.Security {
			kind = "error (protection)"
		}
		fmt.Fprintf(w, "%s: %s: %s cannot be said in %s: %s\n", oneLine(relativePlace(u.Place)), kind, oneLine(said(u)), e.to, u.Why)
		if !slices.Contains(names, u.Directive) {
			names = append(names, u.Directive)
		}
	}
	fmt.Fprintf(w, "\nNothing was written. To leave these out: --partial %s\n", strings.Join(names, ","))
}
