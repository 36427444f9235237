package proxy

import (
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"time"

	"proxyctl/parser"
)

// The main level: ngx_core_module, ngx_conf_module, ngx_http_module's block,
// and modules of which only the directives exist here. ngx_errlog_module is in
// errlog.go, the events block in mod_events.go.

// mainConf is what the main and events levels say.
type mainConf struct {
	ErrorLog        *errorLog
	PID             string // absolute; "" for no pid file
	Daemon          bool
	MasterProcess   bool
	User, Group     string // "" when nobody is to be changed to
	UID, GID        int    // -1: stay who we are
	Groups          []int  // of User, with GID in the place of its own
	WorkerProcesses int
	// WorkerConnections is how many connections a worker of nginx may have;
	// here the process may have that many times WorkerProcesses from clients.
	WorkerConnections     int
	WorkerShutdownTimeout time.Duration // 0: for ever
	RlimitNofile          int           // -1: as it is
	RlimitCore            int64         // -1: as it is
	WorkerPriority        int
	WorkingDirectory      string
	Env                   []string // "NAME" and "NAME=value"

	lockFile        string
	timerResolution time.Duration
	debugPoints     int
	pcreJIT         bool
	sawEvents       bool
	sawHTTP         bool
	sawStream       bool
	events          eventsConf
	threadPools     map[string]bool
}

// maxConnections is the limit on client connections of the process.
func (m *mainConf) maxConnections() int64 {
	return int64(m.WorkerConnections) * int64(max(m.WorkerProcesses, 1))
}

// initMain sets the defaults of the main level and opens what must exist
// before the file is read.
func (c *compiler) initMain() {
	o := c.opts
	c.table.Main = mainConf{
		PID: o.PID, Daemon: o.Daemon, MasterProcess: true, WorkerProcesses: 1, WorkerConnections: 512,
		RlimitNofile: -1, RlimitCore: -1, UID: -1, GID: -1, events: eventsConf{workerAIO: 32, epollEvents: 512},
	}
	if c.table.Main.PID != "" {
		c.table.Main.PID = o.prefixed(o.PID)
	}
	o.logs.forget()
	o.openEarlyLog()
	// The last of all steps: files are opened when everything else is right.
	c.finish = append(c.finish, func() {
		c.finishMain()
		c.finish = append(c.finish, c.checkConnections, c.openLogs)
	})
}

// finishMain completes the main level. It runs before the bodies of blocks
// that inherit from it, and once more at the end for files without them.
func (c *compiler) finishMain() {
	m := &c.table.Main
	e := m.ErrorLog
	if e == nil {
		e = &errorLog{logs: &c.opts.logs}
		m.ErrorLog = e
	}
	if !e.hasFile() { // nginx always has one (ngx_log_open_default)
		e.add(logTarget{level: logError, file: c.logFile(c.opts.errorLogPath())})
	}
	if m.User == "" && m.UID < 0 && os.Geteuid() == 0 && c.opts.User != "" && !c.opts.DryRun {
		if err := m.become(c.opts.User, ownGroup(c.opts.User)); err != nil {
			c.failLater(parser.Error, parser.Range{}, parser.Range{}, "", "name an account by the user directive", "%s", err)
		}
	}
}

func mainModule() Module {
	return Module{Name: "ngx_core_module", Commands: append(mainCommands(), mainIgnored()...)}
}

func mainCommands() []Command {
	return []Command{
		Flag(Command{Name: "daemon", In: InMain, Default: "on", Doc: "Runs the server in the background."}, func(c *Conf) *bool { return &c.Main.Daemon }),
		{Name: "user", In: InMain, Args: "1,2", Syntax: "user [group]", Default: "nobody nobody", Differs: "an account that changes at a reload is refused: the process has given up the rights to change it", Doc: "Sets the account whose rights requests are served with.", Set: setUser},
		{
			Name: "worker_processes", In: InMain, Args: "1", Syntax: "number | auto", Default: "1",
			Differs: "one process with threads serves all; the number multiplies limits such as worker_connections",
			Doc:     "Multiplies worker_connections; one process uses all processors.", Set: setWorkerProcesses,
		},
		Time(Command{Name: "worker_shutdown_timeout", In: InMain, Doc: "Limits the time that requests have to end in at shutdown and after a reload."},
			func(c *Conf) *time.Duration { return &c.Main.WorkerShutdownTimeout }),
		Number(Command{Name: "worker_rlimit_nofile", In: InMain, Doc: "Sets how many files the process may have open."}, func(c *Conf) *int { return &c.Main.RlimitNofile }),
		Offset(Command{Name: "worker_rlimit_core", In: InMain, Doc: "Limits the size of core files."}, func(c *Conf) *int64 { return &c.Main.RlimitCore }),
		{Name: "worker_priority", In: InMain, Args: "1", Syntax: "number", Default: "0", Doc: "Sets the scheduling priority.", Set: setWorkerPriority},
		{Name: "pid", In: InMain, Args: "1", Syntax: "file", Default: "logs/nginx.pid", Doc: "Sets the file that holds the process number.", Set: setPID},
		Text(Command{Name: "working_directory", In: InMain, Syntax: "directory", Doc: "Sets the working directory."}, func(c *Conf) *string { return &c.Main.WorkingDirectory }),
		{
			Name: "env", In: InMain, Args: "1", Repeat: true, Syntax: "variable[=value]", Default: "TZ", Doc: "Keeps or sets a variable of the environment.",
			Set: func(l *Level, d *parser.Directive) error {
				l.Conf.Main.Env = append(l.Conf.Main.Env, d.Args[0].Value)
				return nil
			},
		},
		{Name: "load_module", In: InMain, Args: "1", Repeat: true, Syntax: "file", Doc: "Loads a module of nginx.", Set: loadModule},
	}
}

func mainIgnored() []Command {
	noEffect := func(c Command, reason string) Command {
		c.Status, c.Reason = NoEffect, reason
		c.Doc = "Accepted without effect."
		return c
	}
	return []Command{
		noEffect(Flag(Command{Name: "master_process", In: InMain, Default: "on"}, func(c *Conf) *bool { return &c.Main.MasterProcess }),
			"there is one process"),
		noEffect(Text(Command{Name: "lock_file", In: InMain, Syntax: "file", Default: "logs/nginx.lock"}, func(c *Conf) *string { return &c.Main.lockFile }),
			"one process needs no lock"),
		noEffect(Time(Command{Name: "timer_resolution", In: InMain}, func(c *Conf) *time.Duration { return &c.Main.timerResolution }),
			"the clock is read for free"),
		noEffect(Enum(Command{Name: "debug_points", In: InMain}, []string{"stop", "abort"}, func(c *Conf) *int { return &c.Main.debugPoints }),
			"for debugging nginx itself"),
		noEffect(Command{Name: "worker_cpu_affinity", In: InMain, Args: "1+", Syntax: "auto [mask] | mask ...", Set: setCPUAffinity},
			"one process uses all processors, and the Go runtime moves its threads"),
	}
}

// confModule is ngx_conf_module. The parser expands includes; the row is for
// the reference.
func confModule() Module {
	return Module{Name: "ngx_conf_module", Commands: []Command{
		{Name: "include", In: inAnywhere, Args: "1", Repeat: true, Syntax: "file | mask", Doc: "Reads another file, or all that match a mask."},
	}}
}

// regexModule is ngx_regex_module.
func regexModule() Module {
	c := Flag(Command{
		Name: "pcre_jit", In: InMain, Default: "off", Doc: "Accepted without effect.", Status: NoEffect,
		Reason: "expressions are compiled into Go's engine",
	}, func(c *Conf) *bool { return &c.Main.pcreJIT })
	return Module{Name: "ngx_regex_module", Commands: []Command{c}}
}

// threadPoolModule is ngx_thread_pool_module.
func threadPoolModule() Module {
	return Module{Name: "ngx_thread_pool_module", Commands: []Command{
		{
			Name: "thread_pool", In: InMain, Args: "2,3", Repeat: true, Syntax: "name threads=number [max_queue=number]", Default: "default threads=32 max_queue=65536",
			Doc: "Accepted without effect.", Status: NoEffect, Reason: "files are read by goroutines and never block others", Set: setThreadPool,
		},
	}}
}

// httpModule is ngx_http_module: the http block.
func httpModule() Module {
	return Module{Name: "ngx_http_module", Commands: []Command{
		{Name: "http", In: InMain, Args: "0", Block: true, Doc: "Holds the configuration of the HTTP server.", Set: setHTTP},
	}}
}

// setHTTP opens the http block. Its body is compiled when the main level is
// complete: an error_log counts for it even when it stands below.
func setHTTP(l *Level, d *parser.Directive) error {
	l.Conf.Main.sawHTTP = true
	l.Later(func() {
		conf := l.Conf.child(InHTTP)
		l.topBlock(InHTTP, &conf, d)
	})
	return nil
}

// topBlock compiles the http or the stream block.
func (l *Level) topBlock(in Context, conf *Conf, d *parser.Directive) {
	l.c.finishMain()
	for _, m := range l.c.modules {
		if m.Init != nil {
			m.Init(conf)
		}
	}
	l.c.body(l.c.level(in, l, conf), d.Block)
	l.AtFinish(l.c.resolveVariables)
}

// setUser is "user name [group]"; only root can become somebody else.
func setUser(l *Level, d *parser.Directive) error {
	if os.Geteuid() != 0 {
		l.warnAt(d, d.Args[0], "the \"user\" directive makes sense only if the master process runs with super-user privileges, ignored")
		return nil
	}
	group := ""
	if len(d.Args) > 1 {
		group = d.Args[1].Value
	}
	if err := l.Conf.Main.become(d.Args[0].Value, group); err != nil {
		return sayAt(d.Args[0], "", "name an account of this machine", "%s", err)
	}
	return nil
}

// become looks up an account and its group; the group of the same name when
// none is given.
func (m *mainConf) become(name, group string) error {
	if group == "" {
		group = name
	}
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("getpwnam(\"%s\") failed", name)
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("getgrnam(\"%s\") failed", group)
	}
	m.User, m.Group = name, group
	m.UID, _ = strconv.Atoi(u.Uid)
	m.GID, _ = strconv.Atoi(g.Gid)
	m.Groups = []int{m.GID}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && id != u.Gid && n != m.GID {
			m.Groups = append(m.Groups, n)
		}
	}
	return nil
}

// ownGroup names the group of an account, "" when it cannot be found.
func ownGroup(name string) string {
	u, err := user.Lookup(name)
	if err != nil {
		return ""
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return ""
	}
	return g.Name
}

func setWorkerProcesses(l *Level, d *parser.Directive) error {
	if d.Args[0].Value == "auto" {
		l.Conf.Main.WorkerProcesses = runtime.NumCPU()
		return nil
	}
	n, ok := parseNumber(d.Args[0].Value)
	if !ok {
		return errAt(d.Args[0], "Y009", "a number or auto", "invalid value")
	}
	l.Conf.Main.WorkerProcesses = n
	return nil
}

func setWorkerPriority(l *Level, d *parser.Directive) error {
	text := d.Args[0].Value
	unsigned := strings.TrimPrefix(text, "+")
	minus := strings.HasPrefix(text, "-")
	if minus {
		unsigned = text[1:]
	}
	n, ok := parseNumber(unsigned)
	if !ok {
		return errAt(d.Args[0], "Y009", "-20 to 20", "invalid number")
	}
	if minus {
		n = -n
	}
	l.Conf.Main.WorkerPriority = n
	return nil
}

func setPID(l *Level, d *parser.Directive) error {
	if d.Args[0].Value != "" {
		l.Conf.Main.PID = l.c.opts.prefixed(d.Args[0].Value)
	}
	return nil
}

// setCPUAffinity checks the masks as nginx does.
func setCPUAffinity(_ *Level, d *parser.Directive) error {
	masks := d.Args
	if masks[0].Value == "auto" {
		if len(masks) > 2 {
			return sayAt(masks[2], "Y007", "auto takes one mask at most", "invalid number of arguments in \"worker_cpu_affinity\" directive")
		}
		masks = masks[1:]
	}
	for _, a := range masks {
		if len(a.Value) > 1024 {
			return sayAt(a, "", "", "\"worker_cpu_affinity\" supports up to 1024 CPUs only")
		}
		for i := len(a.Value) - 1; i >= 0; i-- {
			if b := a.Value[i]; b != ' ' && b != '0' && b != '1' {
				return sayAt(a, "Y009", "masks are of 0 and 1", "invalid character \"%c\" in \"worker_cpu_affinity\"", b)
			}
		}
	}
	return nil
}

func setThreadPool(l *Level, d *parser.Directive) error {
	m := l.Conf.Main
	name := d.Args[0].Value
	if m.threadPools[name] {
		return sayAt(d.Args[0], "Y011", "", "duplicate thread pool \"%s\"", name)
	}
	threads := false
	for _, a := range d.Args[1:] {
		word, value, has := strings.Cut(a.Value, "=")
		n, ok := parseNumber(value)
		switch {
		case word == "threads" && has:
			if !ok || n == 0 {
				return sayAt(a, "Y009", "", "invalid threads value \"%s\"", a.Value)
			}
			threads = true
		case word == "max_queue" && has && !ok:
			return sayAt(a, "Y009", "", "invalid max_queue value \"%s\"", a.Value)
		}
	}
	if !threads {
		return sayAt(d.Args[0], "Y007", "add threads=number", "\"thread_pool\" must have \"threads\" parameter")
	}
	if m.threadPools == nil {
		m.threadPools = map[string]bool{}
	}
	m.threadPools[name] = true
	return nil
}

// loadModule accepts the module files of nginx, so that files of distributions
// load as they are: each of their directives is served or refused where it
// stands. What is in no file fails as dlopen(3) would.
func loadModule(l *Level, d *parser.Directive) error {
	if l.Conf.Main.sawEvents || l.Conf.Main.sawHTTP || l.Conf.Main.sawStream {
		return errAt(d.Name, "Y012", "put it above the blocks", "is specified too late")
	}
	a := d.Args[0]
	path := l.c.opts.prefixed(a.Value)
	name := strings.TrimSuffix(path[strings.LastIndexByte(path, '/')+1:], ".so")
	if _, err := os.Stat(path); err != nil && !l.c.opts.DryRun {
		e := errnoOf(err)
		return sayAt(a, "F001", "", "dlopen() \"%s\" failed (%s: cannot open shared object file: %s)", path, path, sysText(e))
	}
	if isOwnModule(name) {
		return nil
	}
	return sayAt(a, "U001", "modules of others cannot be loaded; remove the line if none of its directives is used",
		"module \"%s\" is not supported by proxyctl", name)
}
