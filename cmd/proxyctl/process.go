package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"proxyctl/certs"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// settings are what the command line says about a server.
type settings struct {
	product     proxy.Product
	prefix      string // with a slash at the end
	conf        string // the configuration file
	directives  string // of -g
	errorLog    string // -e
	accessLog   string // where access_log goes by default
	pid         string // where pid goes by default
	tempPath    func(kind string) string
	daemon      bool   // what daemon means when the file does not say
	dataDir     string // "" for the default
	acme        certs.ACME
	onDemandAsk string
	site        bool   // the file may be a bare site
	within      string // the block it belongs into: main, http or server; "" to find out
	text        []byte // the configuration when it comes from standard input
	dump        *dump  // its files when they come from "nginx -T"; nil for the disk
	local       *localMode
	out         io.Writer // where a site that is served says where to look; nil for nowhere
}

// process is one server process, from reading its configuration to its end.
type process struct {
	settings
	stderr  io.Writer
	options *proxy.Options
	runtime *proxy.Runtime
	certs   *certs.Manager
	said    map[string]bool // about the certificates of the configuration that is loaded
	control *control
	signals chan os.Signal
	pidFile string // "" while there is none
	context string // the block that a bare site file was put into

	origin    origin
	inherited inherited
	successor *successor         // the new binary, from USR2 until one of both ends
	paused    bool               // by WINCH
	abort     context.CancelFunc // ends a graceful end at once; nil while serving
	ended     chan struct{}      // closed at the end of a graceful end
}

func newProcess(s settings, stderr io.Writer) *process {
	p := &process{settings: s, stderr: stderr, ended: make(chan struct{})}
	p.options = &proxy.Options{
		Product: s.product, Prefix: s.prefix, ConfDir: filepath.Dir(s.conf),
		ErrorLog: s.errorLog, AccessLog: s.accessLog, PID: s.pid, Daemon: s.daemon, TempPath: s.tempPath,
		CheckCertificates: p.checkCertificates,
		LoadCertificate:   loadCertificate, MayMiss: p.mayMiss,
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
	o := parser.Options{Dir: filepath.Dir(p.conf), Missing: p.certbotFile}
	if p.dump != nil {
		o.ReadFile, o.Glob, o.Missing = p.dump.read, p.dump.glob, nil
	}
	var file *parser.File
	if p.text != nil {
		file = parser.Parse(&parser.Source{Name: p.conf, Text: p.text}, o)
	} else {
		file = parser.ParseFile(p.conf, o)
	}
	if p.site {
		file, p.context = wrapSite(file, p.within)
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
	signal.Ignore(syscall.SIGPIPE) // whoever reads the messages may go
	p.origin = findOrigin()
	p.inherited = inheritedSockets()
	file := p.parse()
	if p.origin.daemon {
		p.stderr = readyPipe()
	} else if !p.inherited.replaces && daemonWanted(file.Body, p.daemon) {
		return p.detach()
	}
	p.options.Console, _ = p.stderr.(*os.File)
	table, diags := p.load(file)
	if p.say(diags) {
		return 1
	}
	if err := p.start(table); err != nil {
		if who := occupant(err); who != "" {
			fmt.Fprintf(p.stderr, "%s: %s\n", p.product.Name, who)
		}
		p.fatal(err)
		return 1
	}
	return p.wait()
}

// daemonWanted looks for the daemon directive. Whether it is right is found
// out by the process that serves.
func daemonWanted(body *parser.Block, otherwise bool) bool {
	for _, d := range body.Items {
		if d.Name.Value == "daemon" && len(d.Args) == 1 {
			return d.Args[0].Value != "off"
		}
		for _, f := range d.Files {
			otherwise = daemonWanted(f.Body, otherwise)
		}
	}
	return otherwise
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

// start binds the addresses, readies certificates, writes the pid file, and
// serves with the rights of the user directive. From the pid file on, the
// process can be told something.
func (p *process) start(table *proxy.Table) error {
	p.runtime = proxy.NewRuntime(p.options)
	if err := p.readyCertificates(); err != nil {
		return err
	}
	p.runtime.RestoreSessions(p.certs.Take(p.sessionsFile()))
	p.inherit()
	if err := p.runtime.Bind(table); err != nil {
		return err
	}
	p.signals = listenSignals()
	p.control = listenControl(p.runtime.Logf)
	err := p.writePID(table.Main.PID)
	if err == nil {
		err = p.runtime.DropRights()
	}
	if err != nil {
		p.runtime.Note(proxy.LogEmerg, err)
		p.runtime.Stop()
		p.cleanUp()
		return err
	}
	p.certs.Begin()
	p.runtime.Serve()
	p.ready()
	if p.out != nil {
		p.announce(table)
	}
	return nil
}

// reload puts a new configuration in the place of the old one, or leaves
// everything as it is and says why.
func (p *process) reload() {
	waiting := p.control.begin()
	notifyReloading()
	err := p.runtime.AsRoot(p.reconfigure)
	waiting.finished(err)
	notifyReloaded(err)
}

func (p *process) reconfigure() error {
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
	old, moved := p.pidFile, table.Main.PID != p.pidFile
	err := error(nil)
	if moved {
		err = p.writePID(table.Main.PID)
	}
	if err == nil {
		err = p.runtime.Reload(table)
	}
	switch {
	case err != nil:
		p.runtime.Logf(proxy.LogEmerg, "%v", err)
		if moved && p.pidFile != old {
			removePID(p.pidFile)
			p.pidFile = old
		}
		if who := occupant(err); who != "" {
			err = fmt.Errorf("%w: %s", err, who)
		}
		return err
	case moved:
		removePID(old)
	}
	p.paused = false
	return nil
}

// cleanUp is the last that a server does.
func (p *process) cleanUp() {
	_ = p.runtime.AsRoot(func() error {
		removePID(p.currentPID())
		return nil
	})
	p.control.close()
	if p.successor == nil {
		p.keepSessions()
	}
	p.certs.Close()
}

// sessionsFile is where TLS sessions are handed on: servers of one configuration
// know each other by its name.
func (p *process) sessionsFile() string {
	sum := sha256.Sum256([]byte(p.conf))
	return "sessions/" + hex.EncodeToString(sum[:8])
}

// keepSessions hands TLS sessions to the process that follows.
func (p *process) keepSessions() {
	if sessions := p.runtime.Sessions(); sessions != nil {
		_ = p.certs.Put(p.sessionsFile(), sessions) // without it there are full handshakes
	}
}
