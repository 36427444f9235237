package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// explaining is what the command line of explain says.
type explaining struct {
	conf, context string
	method        string
	fields        []string
	from, resolve string
	raw           string
	cert, key     string
	format        string
}

func explainCommand() *cobra.Command {
	e := explaining{method: "GET", from: "192.0.2.1", format: "text"}
	cmd := &cobra.Command{
		Use:   "explain URL | ID | DIRECTIVE | $VARIABLE",
		Short: "Show what happens to a request, or what a finding, directive or variable is",
		Long: "For a URL, or a path on the first server: which server and location take it and why, what\n" +
			"is rewritten, who refuses it, what the upstream would get and what would be logged. The\n" +
			"request runs through the code that serves, and no upstream is connected to.\n\n" +
			"  proxyctl explain -c site.conf https://example.com/app/x\n" +
			"  proxyctl explain -c site.conf -X POST -H 'Cookie: a=b' --from 10.1.2.3 /login\n" +
			"  proxyctl explain S001\n" +
			"  proxyctl explain proxy_pass",
		Args: unlessSchema(&e.format, cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.format == schemaFormat {
				return printSchema(cmd, "explain")
			}
			return e.run(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&e.conf, "config", "c", defaultConf, "configuration, an nginx.conf or a site file")
	flags.StringVar(&e.context, "context", "", "the block that the file belongs into: main, http or server (default: found out)")
	flags.StringVarP(&e.method, "request", "X", e.method, "method")
	flags.StringArrayVarP(&e.fields, "header", "H", nil, "header field to send, as \"Name: value\"")
	flags.StringVar(&e.raw, "raw", "", "file with the whole request as it is sent, head and body; the URL tells where to; - is standard input")
	flags.StringVar(&e.cert, "cert", "", "certificate that the client shows when it is asked for one")
	flags.StringVar(&e.key, "key", "", "key of that certificate (default: in the same file)")
	flags.StringVar(&e.from, "from", e.from, "address of the client")
	flags.StringVar(&e.resolve, "resolve", "", "address of this server that is asked, as IP or IP:PORT")
	flags.StringVar(&e.format, "format", e.format, "text or json (json-schema describes it)")
	return cmd
}

func (e *explaining) run(cmd *cobra.Command, what string) error {
	out := cmd.OutOrStdout()
	if e.format != "text" && e.format != "json" {
		return fmt.Errorf("unknown format %q: text or json", e.format)
	}
	if strings.Contains(what, "://") || strings.HasPrefix(what, "/") {
		return e.url(cmd, what)
	}
	if name, ok := strings.CutPrefix(what, "$"); ok {
		if !showVariable(out, name) {
			return fmt.Errorf("no variable %q: nginx and its modules define none of this name (a file may, by set, map or a named group)", what)
		}
		return nil
	}
	if showRule(out, what) || showDirective(out, what) || showVariable(out, what) {
		return nil
	}
	return fmt.Errorf("%q is no URL, rule, directive or variable; a URL begins with http:// or https://, a path with /", what)
}

// showRule prints what is known about a rule of validate.
func showRule(w io.Writer, id string) bool {
	for _, r := range proxy.Rules() {
		if !strings.EqualFold(r.ID, id) && r.Name != id {
			continue
		}
		fmt.Fprintf(w, "%s %s (%s)\n\n%s\n\n%s\n", r.ID, r.Name, r.Level, r.Title, wrap(r.Doc, 80))
		return true
	}
	return false
}

// wrap breaks paragraphs into lines of a width.
func wrap(text string, width int) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString("\n\n")
		}
		column := 0
		for word := range strings.FieldsSeq(paragraph) {
			if n := len([]rune(word)); column > 0 && column+1+n > width {
				b.WriteByte('\n')
				column = 0
			} else if column > 0 {
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += len([]rune(word))
		}
	}
	return b.String()
}

// showVariable prints where a variable comes from.
func showVariable(w io.Writer, name string) bool {
	name = strings.ToLower(name)
	for _, v := range proxy.Variables() {
		switch {
		case v.Prefix && strings.HasPrefix(name, v.Name):
			fmt.Fprintf(w, "$%sNAME, any name that begins so\n", v.Name)
		case !v.Prefix && v.Name == name:
			fmt.Fprintf(w, "$%s\n", name)
		default:
			continue
		}
		fmt.Fprintf(w, "  module   %s\n", v.Module)
		if v.Set {
			fmt.Fprintln(w, "  the set directive can assign it")
		}
		return true
	}
	return false
}

// url explains a request.
func (e *explaining) url(cmd *cobra.Command, url string) error {
	table, err := e.load(cmd)
	if err != nil {
		return err
	}
	q, err := e.question(table, url)
	if err != nil {
		return err
	}
	if err := e.attachments(cmd, q); err != nil {
		return err
	}
	x, err := proxy.Explain(table, q)
	if err != nil {
		return err
	}
	if e.format == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(explanationJSON{1, x})
	}
	writeExplanation(cmd.OutOrStdout(), x, textOptions(cmd.OutOrStdout()))
	return nil
}

// explanationJSON is an explanation for programs: schema/explain.json.
type explanationJSON struct {
	Version int `json:"version"`
	*proxy.Explanation
}

// attachments reads the files that belong to the request.
func (e *explaining) attachments(cmd *cobra.Command, q *proxy.Question) error {
	if e.raw != "" {
		if cmd.Flags().Changed("request") || cmd.Flags().Changed("header") {
			return errors.New("--raw is the whole request: it goes with neither -X nor -H")
		}
		in := cmd.InOrStdin()
		if e.raw != "-" {
			f, err := os.Open(e.raw)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(io.LimitReader(in, maxStdin))
		if err != nil {
			return err
		}
		if q.Raw = string(text); q.Raw == "" {
			return errors.New("--raw names an empty file")
		}
	}
	if e.cert == "" {
		return nil
	}
	key := e.key
	if key == "" {
		key = e.cert
	}
	pair, err := tls.LoadX509KeyPair(e.cert, key)
	q.Certificate = &pair
	return err
}

// load compiles the configuration without touching anything.
func (e *explaining) load(cmd *cobra.Command) (*proxy.Table, error) {
	v := validation{context: e.context, offline: true}
	p, err := v.process(e.conf, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	cert, err := proxy.PretendCertificate()
	if err != nil {
		return nil, err
	}
	p.options.Certificate = pretend(cert)
	table, diags := p.load(p.parse())
	if table == nil {
		_ = render(cmd.ErrOrStderr(), onlyErrors(diags), "text")
		return nil, exitCode(1)
	}
	return table, nil
}

// pretend shows one certificate to everybody.
func pretend(cert *tls.Certificate) func(string, *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(string, *tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
}

func onlyErrors(diags []*parser.Diagnostic) []*parser.Diagnostic {
	return slices.DeleteFunc(slices.Clone(diags), func(d *parser.Diagnostic) bool { return d.Severity != parser.Error })
}

// question reads the URL and the options.
func (e *explaining) question(table *proxy.Table, url string) (*proxy.Question, error) {
	q := &proxy.Question{Method: strings.ToUpper(e.method), Fields: e.fields}
	for _, f := range e.fields {
		if name, _, ok := strings.Cut(f, ":"); !ok || name == "" || strings.ContainsAny(f, "\r\n") {
			return nil, fmt.Errorf("header %q is not \"Name: value\"", f)
		}
	}
	if strings.ContainsAny(url+q.Method, " \r\n\t") {
		return nil, errors.New("a URL and a method hold no spaces; write %20")
	}
	scheme, rest, absolute := strings.Cut(url, "://")
	port := uint16(80)
	if !absolute {
		if err := firstServer(table, q, &port); err != nil {
			return nil, err
		}
		rest = q.Host + url
	} else {
		switch strings.ToLower(scheme) {
		case "http":
		case "https":
			q.TLS, port = true, 443
		default:
			return nil, fmt.Errorf("unknown scheme %q: http or https", scheme)
		}
	}
	q.Host, q.Target = rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		q.Host, q.Target = rest[:i], rest[i:]
	}
	q.Target, _, _ = strings.Cut(q.Target, "#") // browsers keep it to themselves
	if !strings.HasPrefix(q.Target, "/") {
		q.Target = "/" + q.Target
	}
	return q, e.addresses(q, port)
}

// firstServer takes name and port of the first server for a bare path.
func firstServer(table *proxy.Table, q *proxy.Question, port *uint16) error {
	sites := table.Sites()
	if len(sites) == 0 || len(sites[0].Listen) == 0 {
		return errors.New("the configuration has no server that listens on a port")
	}
	s := sites[0]
	*port, q.TLS = s.Listen[0].Address.Port(), s.Listen[0].TLS
	q.Host = "localhost"
	if len(s.Names) > 0 && s.Names[0] != "" && !strings.ContainsAny(s.Names[0], "*~_$") {
		q.Host = strings.TrimPrefix(s.Names[0], ".")
	}
	if *port != 80 && *port != 443 {
		q.Host += ":" + strconv.Itoa(int(*port))
	}
	return nil
}

// addresses finds which address is asked, from where.
func (e *explaining) addresses(q *proxy.Question, port uint16) error {
	host := q.Host
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		n, err := strconv.ParseUint(host[i+1:], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("port %q is none", host[i+1:])
		}
		host, port = host[:i], uint16(n)
	}
	to := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		to = netip.AddrPortFrom(a, port)
	}
	if e.resolve != "" {
		if a, err := netip.ParseAddrPort(e.resolve); err == nil {
			to = a
		} else if a, err := netip.ParseAddr(e.resolve); err == nil {
			to = netip.AddrPortFrom(a, port)
		} else {
			return fmt.Errorf("--resolve %q is no address", e.resolve)
		}
	}
	from, err := netip.ParseAddr(e.from)
	if err != nil {
		return fmt.Errorf("--from %q is no address", e.from)
	}
	q.To, q.From = to, from
	return nil
}

// writeExplanation prints a trace for people.
func writeExplanation(w io.Writer, x *proxy.Explanation, o parser.TextOptions) {
	tint := func(code, s string) string {
		if !o.Color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	for i, line := range x.Request {
		mark := "  "
		if i == 0 {
			mark = "> "
		}
		fmt.Fprintln(w, mark+oneLine(line))
	}
	fmt.Fprintln(w)
	for _, s := range x.Steps {
		fmt.Fprintf(w, "%s  %s", tint("1;34", fmt.Sprintf("%-14s", s.What)), tint("1", oneLine(s.Text)))
		if s.Place != "" {
			fmt.Fprintf(w, "  %s", tint("2", relativePlace(s.Place)))
		}
		fmt.Fprintln(w)
		for _, d := range s.Details {
			text := oneLine(d)
			if o.Wrap {
				text = strings.ReplaceAll(wrap(text, o.Width-16), "\n", "\n"+strings.Repeat(" ", 16))
			}
			fmt.Fprintf(w, "%16s%s\n", "", text)
		}
	}
	fmt.Fprintln(w)
	passed := func(p *proxy.TracePass) {
		with := ""
		if p.TLS {
			with = " over TLS"
		}
		fmt.Fprintf(w, "%s%s gets\n", tint("1", oneLine(p.Server)), with)
		for _, line := range p.Head {
			fmt.Fprintln(w, "  "+oneLine(line))
		}
	}
	for _, p := range x.Asked {
		if !p.Action {
			passed(p)
			fmt.Fprint(w, "and is taken to answer 200.\n\n")
		}
	}
	switch {
	case x.Passed != nil:
		passed(x.Passed)
		fmt.Fprintln(w, "and its answer is passed on.")
	case x.Status == 0:
		fmt.Fprintln(w, "The connection is closed without an answer.")
	default:
		for i, line := range x.Head {
			mark := "  "
			if i == 0 {
				mark = "< "
			}
			fmt.Fprintln(w, mark+oneLine(line))
		}
		if x.Body != "" {
			first, _, more := strings.Cut(strings.TrimSpace(x.Body), "\n")
			if more || len(first) > 76 {
				first = short(first, 76)
			}
			fmt.Fprintln(w, "\n  "+oneLine(first))
		}
		for _, line := range x.Logs {
			fmt.Fprintf(w, "\n%s %s\n", tint("1;34", "access log"), oneLine(line))
		}
	}
	for _, p := range x.Asked {
		if p.Action {
			fmt.Fprint(w, "\nAfter that ")
			passed(p)
		}
	}
}

func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s + " ..."
}

// relativePlace shortens the file of a "file:line".
func relativePlace(place string) string {
	i := strings.LastIndexByte(place, ':')
	if i < 0 {
		return place
	}
	rel := relativePath(place[:i])
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		rel = strings.Replace(rel, home+"/", "~/", 1)
	}
	return rel + place[i:]
}
