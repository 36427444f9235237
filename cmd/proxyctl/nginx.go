package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// The paths of nginx's own packages.
const (
	defaultPrefix    = "/etc/nginx"
	defaultConf      = "/etc/nginx/nginx.conf"
	defaultErrorLog  = "/var/log/nginx/error.log"
	defaultAccessLog = "/var/log/nginx/access.log"
	defaultPID       = "/run/nginx.pid"
	// defaultUser serves requests when root starts the server and the
	// configuration does not say who.
	defaultUser = "nobody"
)

// nginxOptions is nginx's command line.
type nginxOptions struct {
	help, version, configure bool
	test, dump, quiet        bool
	signal                   string
	prefix                   string
	prefixGiven              bool
	errorLog                 string
	conf                     string
	directives               string
}

// nginxMain is the whole program when it is called as nginx. It returns the
// exit status.
func nginxMain(args []string, stdout, stderr io.Writer) int {
	var o nginxOptions
	if err := o.parse(args); err != nil {
		fmt.Fprintln(stderr, "nginx: "+err.Error())
		return 1
	}
	if o.version {
		printNginxVersion(stderr, o.configure)
		if o.help {
			printNginxHelp(stderr)
		}
		if !o.test {
			return 0
		}
	}
	s := o.settings()
	acme := acmeFromEnvironment().asNginx()
	s.onDemandAsk = acme.ask
	var err error
	if s.acme, err = acme.options(); err != nil {
		fmt.Fprintln(stderr, "nginx: "+err.Error())
		return 1
	}
	p := newProcess(s, stderr)
	switch {
	case o.test:
		return p.test(o.quiet, o.dump, stdout)
	case o.signal != "":
		return p.signal(o.signal)
	}
	return p.serve()
}

// parse reads the options as nginx does: one-letter flags may be run together,
// and a value may follow its letter directly.
func (o *nginxOptions) parse(args []string) error {
	for i := 0; i < len(args); i++ {
		flags, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			return fmt.Errorf("invalid option: %q", args[i])
		}
		for flags != "" {
			c := flags[0]
			flags = flags[1:]
			if into, wants := o.valued(c); into != nil {
				if flags == "" {
					i++
					if i == len(args) {
						return fmt.Errorf("option \"-%c\" requires %s", c, wants)
					}
					flags = args[i]
				}
				*into = flags
				if err := o.given(c); err != nil {
					return err
				}
				break
			}
			if err := o.flag(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// given looks at the value of a letter at once, as nginx does.
func (o *nginxOptions) given(c byte) error {
	switch c {
	case 'p':
		o.prefixGiven = true
	case 's':
		switch o.signal {
		case "stop", "quit", "reopen", "reload":
		default:
			return fmt.Errorf("invalid option: \"-s %s\"", o.signal)
		}
	}
	return nil
}

// valued gives the place of a letter that takes a value.
func (o *nginxOptions) valued(c byte) (into *string, wants string) {
	switch c {
	case 'p':
		return &o.prefix, "directory name"
	case 'e':
		return &o.errorLog, "file name"
	case 'c':
		return &o.conf, "file name"
	case 'g':
		return &o.directives, "parameter"
	case 's':
		return &o.signal, "parameter"
	}
	return nil, ""
}

func (o *nginxOptions) flag(c byte) error {
	switch c {
	case '?', 'h':
		o.version, o.help = true, true
	case 'v':
		o.version = true
	case 'V':
		o.version, o.configure = true, true
	case 't':
		o.test = true
	case 'T':
		o.test, o.dump = true, true
	case 'q':
		o.quiet = true
	default:
		return fmt.Errorf("invalid option: \"%c\"", c)
	}
	return nil
}

// settings resolves the paths: a relative -c is relative to the prefix, and
// with -p the logs are too.
func (o *nginxOptions) settings() settings {
	s := settings{
		product: nginxProduct(), prefix: defaultPrefix, conf: defaultConf, directives: o.directives,
		errorLog: defaultErrorLog, accessLog: defaultAccessLog, pid: defaultPID, daemon: true,
		tempPath: packagedTempPath("/var/lib/nginx"),
	}
	if o.prefixGiven {
		s.prefix, s.tempPath = o.prefix, nil
		s.conf, s.errorLog, s.accessLog, s.pid = "conf/nginx.conf", "logs/error.log", "logs/access.log", "logs/nginx.pid"
	}
	if s.prefix != "" && !strings.HasSuffix(s.prefix, "/") {
		s.prefix += "/"
	}
	if o.conf != "" {
		s.conf = o.conf
	}
	if !filepath.IsAbs(s.conf) {
		s.conf = s.prefix + s.conf
	}
	if o.errorLog != "" {
		s.errorLog = o.errorLog
	}
	return s
}

// packagedTempPath gives the folders that nginx's packages are built with: those
// of distributions, where there is one of theirs, or of nginx itself.
func packagedTempPath(distribution string) func(kind string) string {
	if info, err := os.Stat(distribution); err == nil && info.IsDir() {
		return func(kind string) string {
			return filepath.Join(distribution, strings.TrimPrefix(kind, "client_"))
		}
	}
	return func(kind string) string {
		return filepath.Join("/var/cache/nginx", strings.TrimSuffix(kind, "_body")+"_temp")
	}
}

func printNginxHelp(w io.Writer) {
	fmt.Fprintf(w, `Usage: nginx [-?hvVtTq] [-s signal] [-p prefix]
             [-e filename] [-c filename] [-g directives]

Options:
  -?,-h          show this help
  -v             show the version
  -V             show the version and what is built in
  -t             check the configuration
  -T             check the configuration and print all of it
  -q             print errors only while checking
  -s signal      tell the running server: stop, quit, reopen, reload
  -p prefix      set the prefix of relative paths (default: %s/)
  -e filename    set the error log (default: %s)
  -c filename    set the configuration file (default: %s)
  -g directives  set directives of the main level

`, defaultPrefix, defaultErrorLog, defaultConf)
}

// test checks the configuration and says so in nginx's words.
func (p *process) test(quiet, dump bool, stdout io.Writer) int {
	file := p.parse()
	table, diags := p.load(file)
	late := slices.IndexFunc(diags, func(d *parser.Diagnostic) bool { return d.Late })
	if late < 0 {
		late = len(diags)
	}
	failed := p.sayNginx(diags[:late], quiet)
	if !failed {
		if !quiet {
			fmt.Fprintf(p.stderr, "nginx: the configuration file %s syntax is ok\n", p.conf)
		}
		failed = p.sayNginx(diags[late:], quiet)
	}
	if !failed {
		err := checkPID(table.Main.PID)
		if err == nil {
			err = table.CheckSockets()
		}
		if failed = err != nil; failed {
			p.fatal(err)
			proxy.NewRuntime(p.options).Note(proxy.LogEmerg, err)
		}
	}
	if failed {
		fmt.Fprintf(p.stderr, "nginx: configuration file %s test failed\n", p.conf)
		return 1
	}
	if !quiet {
		fmt.Fprintf(p.stderr, "nginx: configuration file %s test is successful\n", p.conf)
	}
	if dump {
		dumpSources(stdout, file)
	}
	return 0
}

// sayNginx prints diagnostics up to the first error, as nginx would have; it
// says whether there was one.
func (p *process) sayNginx(diags []*parser.Diagnostic, quiet bool) (failed bool) {
	for _, d := range diags {
		if d.Severity == parser.Note || quiet && d.Severity != parser.Error {
			continue
		}
		parser.WriteNginx(p.stderr, d)
		if d.Severity == parser.Error {
			return true
		}
	}
	return false
}

// dumpSources prints every file of a configuration, as nginx -T does.
func dumpSources(w io.Writer, file *parser.File) {
	for _, s := range parser.Sources(file) {
		fmt.Fprintf(w, "# configuration file %s:\n%s\n", s.Name, s.Text)
	}
}
