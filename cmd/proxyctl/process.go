package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"proxyctl/certs"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// settings are what the command line says about a server.
type settings struct {
	product    proxy.Product
	prefix     string // with a slash at the end
	conf       string // the configuration file
	directives string // of -g
	errorLog   string // -e
	accessLog  string // where access_log goes by default
	pid        string // where pid goes by default
	daemon     bool   // what daemon means when the file does not say
	dataDir    string // "" for the default
	acme       certs.ACME
	site       bool // the file may be a bare site
	local      *localMode
	out        io.Writer // where a site that is served says where to look; nil for nowhere
}

// process is one server process, from reading its configuration to its end.
type process struct {
	settings
	stderr  io.Writer
	options *proxy.Options
	runtime *proxy.Runtime
	certs   *certs.Manager
	control *control
	pidFile string
	context string // the block that a bare site file was put into
}

func newProcess(s settings, stderr io.Writer) *process {
	p := &process{settings: s, stderr: stderr}
	p.options = &proxy.Options{
		Product: s.product, Prefix: s.prefix, ConfDir: filepath.Dir(s.conf),
		ErrorLog: s.errorLog, AccessLog: s.accessLog, PID: s.pid, Daemon: s.daemon,
		CheckCertificates: p.checkCertificates,
	}
	if s.local != nil {
		s.local.apply(p.options)
	} else {
		p.options.User = defaultUser
	}
	return p
}

// parse reads the configuration file and, before it, the directives of -g.
func (p *process) parse() *parser.File {
	o := parser.Options{Dir: filepath.Dir(p.conf)}
	if p.local != nil {
		o.Missing = p.local.missing
	}
	file := parser.ParseFile(p.conf, o)
	if p.site {
		file, p.context = wrapSite(file)
	}
	if p.directives != "" {
		given := parser.Parse(&parser.Source{Name: "command line", Text: []byte(p.directives)}, o)
		body := *file.Body
		body.Items = append(given.Body.Items, body.Items...)
		file = &parser.File{Source: file.Source, Body: &body}
	}
	return file
}

// load compiles a parsed file.
func (p *process) load(file *parser.File) (*proxy.Table, []*parser.Diagnostic) {
	return proxy.Load(file, p.options)
}

// serve runs the server until a signal ends it. It returns the exit status.
func (p *process) serve() int {
	table, ok := p.loadFirst()
	if !ok {
		return 1
	}
	if table.Main.Daemon && !isDaemon() {
		return p.detach()
	}
	if err := p.start(table); err != nil {
		p.fatal(err)
		return 1
	}
	return p.wait()
}

// loadFirst loads the configuration of a server that is to be started.
func (p *process) loadFirst() (*proxy.Table, bool) {
	table, diags := p.load(p.parse())
	return table, !p.say(diags)
}

// say prints diagnostics in the style of the command that runs: one line each
// like nginx, or with the source under them.
func (p *process) say(diags []*parser.Diagnostic) (failed bool) {
	if !p.site {
		return p.sayNginx(diags, false)
	}
	parser.WriteText(p.stderr, diags, textOptions(p.stderr))
	for _, d := range diags {
		failed = failed || d.Severity == parser.Error
	}
	return failed
}

// fatal reports what keeps the server from starting.
func (p *process) fatal(err error) {
	fmt.Fprintf(p.stderr, "%s: [emerg] %v\n", p.product.Name, err)
}

// start binds the addresses, readies certificates and writes the pid file.
func (p *process) start(table *proxy.Table) error {
	p.runtime = proxy.NewRuntime(p.options)
	if err := p.readyCertificates(); err != nil {
		return err
	}
	if err := p.runtime.Start(table); err != nil {
		return err
	}
	if err := p.writePID(table.Main.PID); err != nil {
		p.runtime.Stop()
		return err
	}
	if err := p.runtime.DropRights(); err != nil {
		p.runtime.Stop()
		return err
	}
	p.certs.Begin()
	p.control = listenControl(p.runtime.Logf)
	p.ready()
	if p.out != nil {
		p.announce(table)
	}
	return nil
}

// wait serves until a signal ends the process.
func (p *process) wait() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGWINCH)
	defer p.cleanUp()
	for s := range signals {
		switch s {
		case syscall.SIGHUP:
			p.control.finished(p.runtime.AsRoot(p.reload))
		case syscall.SIGUSR1:
			_ = p.runtime.AsRoot(func() error {
				p.runtime.ReopenLogs()
				return nil
			})
		case syscall.SIGQUIT:
			p.shutdown(signals)
			return 0
		case syscall.SIGTERM, syscall.SIGINT:
			p.runtime.Stop()
			return 0
		}
	}
	return 0
}

// shutdown ends gracefully; a second signal ends at once.
func (p *process) shutdown(signals <-chan os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				cancel()
				return
			}
		}
	}()
	p.runtime.Shutdown(ctx)
}

// reload puts a new configuration in the place of the old one, or leaves
// everything as it is and says why.
func (p *process) reload() error {
	table, diags := p.load(p.parse())
	for _, d := range diags {
		level := proxy.LogWarn
		if d.Severity == parser.Error {
			level = proxy.LogEmerg
		}
		var line strings.Builder
		parser.WriteNginx(&line, d)
		text := strings.TrimSpace(line.String())
		_, text, _ = strings.Cut(text, "] ")
		p.runtime.Logf(level, "%s", text)
		if d.Severity == parser.Error {
			return errors.New(text)
		}
	}
	if err := p.runtime.Reload(table); err != nil {
		p.runtime.Logf(proxy.LogEmerg, "%v", err)
		return err
	}
	if path := table.Main.PID; path != p.pidFile {
		old := p.pidFile
		if err := p.writePID(path); err == nil {
			_ = os.Remove(old)
		}
	}
	return nil
}

func (p *process) writePID(path string) error {
	if path == "" {
		return nil
	}
	err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644)
	if err != nil {
		return proxy.SystemError("open()", path, err)
	}
	p.pidFile = path
	return nil
}

func (p *process) cleanUp() {
	if p.pidFile != "" {
		_ = p.runtime.AsRoot(func() error { return os.Remove(p.pidFile) })
	}
	p.control.close()
	p.certs.Close()
}

// testBindings does what nginx -t does beyond reading: it opens the pid file.
func (p *process) testBindings(table *proxy.Table) (failed bool) {
	path := table.Main.PID
	if path == "" {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		p.fatal(proxy.SystemError("open()", path, err))
		return true
	}
	_ = f.Close()
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		_ = os.Remove(path)
	}
	return false
}

// signal sends the running server what -s says.
func (p *process) signal(name string) int {
	table, diags := p.load(p.parse())
	if p.sayNginx(diags, false) {
		return 1
	}
	if err := sendSignal(table.Main.PID, name); err != nil {
		fmt.Fprintf(p.stderr, "%s: [error] %v\n", p.product.Name, err)
		return 1
	}
	return 0
}

// sendSignal tells the server whose pid file it is. A reload returns when the
// new configuration serves, or with the reason why it does not.
func sendSignal(pidFile, name string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return proxy.SystemError("open()", pidFile, err)
	}
	pid, err := strconv.Atoi(strings.TrimRight(string(text), "\r\n"))
	if err != nil || pid <= 0 {
		return fmt.Errorf("invalid PID number %q in %q", strings.TrimRight(string(text), "\r\n"), pidFile)
	}
	sig := map[string]syscall.Signal{"stop": syscall.SIGTERM, "quit": syscall.SIGQUIT, "reopen": syscall.SIGUSR1, "reload": syscall.SIGHUP}[name]
	var answer *reloadAnswer
	if name == "reload" {
		answer = awaitReload(pid)
		defer answer.close()
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("kill(%d, %d) failed (%d: %s)", pid, int(sig), proxy.Errno(err), proxy.SystemText(err))
	}
	return answer.wait(30 * time.Second)
}
