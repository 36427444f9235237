package proxy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The error log (src/core/ngx_log.c): its levels, the directive, and the lines.

// LogLevel is how grave a message is; a greater one is less grave.
type LogLevel uint8

type logLevel = LogLevel

const (
	logEmerg logLevel = iota + 1
	logAlert
	logCrit
	logError
	logWarn
	logNotice
	logInfo
	logDebug
)

// The levels that others log at.
const (
	LogEmerg  = logEmerg
	LogAlert  = logAlert
	LogCrit   = logCrit
	LogError  = logError
	LogWarn   = logWarn
	LogNotice = logNotice
	LogInfo   = logInfo
)

// String names the level as in the error_log directive.
func (l LogLevel) String() string {
	if l < logEmerg || l > logDebug {
		return "info"
	}
	return [...]string{"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"}[l-logEmerg]
}

// LevelByName gives the level of a name, LogInfo for an unknown one.
func LevelByName(name string) LogLevel {
	for l := logEmerg; l <= logDebug; l++ {
		if l.String() == name {
			return l
		}
	}
	return logInfo
}

// errorLog is where the messages of a configuration level go. It is complete
// when the level is.
type errorLog struct {
	logs    *logs
	targets []logTarget
	most    logLevel // the most that any target wants
	level   *Level
}

// logTarget is one error_log directive.
type logTarget struct {
	level  logLevel
	file   *logFile // nil for syslog
	syslog *syslogPeer
}

// errlogModule is ngx_errlog_module.
func errlogModule() Module {
	return Module{Name: "ngx_errlog_module", Commands: []Command{
		{
			Name: "error_log", In: InMain, Args: "1+", Repeat: true, Syntax: "file [level]", Default: "logs/error.log error",
			Doc: "Sets the error log.", Set: setErrorLog,
		},
	}}
}

// setErrorLog is the error_log directive of every level. Its first use in a
// level replaces what was inherited; further ones add to it.
func setErrorLog(l *Level, d *parser.Directive) error {
	log := &l.Conf.Core.ErrorLog
	if l.Context == InMain {
		log = &l.Conf.Main.ErrorLog
	}
	if *log == nil || (*log).level != l {
		*log = &errorLog{logs: &l.c.opts.logs, level: l}
	}
	var t logTarget
	var err error
	switch path := d.Args[0].Value; {
	case path == "stderr" || path == "":
		t.file = l.c.logFile("")
	case strings.HasPrefix(path, "memory:"):
		return sayAt(d.Args[0], "U001", "write to a file or to stderr", "the \"memory:\" error log is not supported by proxyctl")
	case strings.HasPrefix(path, "syslog:"):
		if t.syslog, err = l.c.syslogPeer(d.Args[0]); err != nil {
			return err
		}
	default:
		t.file = l.c.logFile(l.c.opts.prefixed(path))
	}
	if t.level, err = logLevels(d); err != nil {
		return err
	}
	(*log).add(t)
	return nil
}

// logLevels reads what follows the file: one level, or several of debugging.
// There is nothing to log below debug: the narrower ones say the same.
func logLevels(d *parser.Directive) (logLevel, error) {
	if len(d.Args) == 1 {
		return logError, nil
	}
	level, plain := logLevel(0), false
	for _, a := range d.Args[1:] {
		l := LevelByName(a.Value)
		switch {
		case l.String() == a.Value:
			if level != 0 {
				return 0, sayAt(a, "Y011", "one level says it: that one and all graver ones", "duplicate log level \"%s\"", a.Value)
			}
			level, plain = l, true
		case isDebugLevel(a.Value) && !plain:
			level = logDebug
		default:
			return 0, sayAt(a, "Y009", "one of debug, info, notice, warn, error, crit, alert, emerg", "invalid log level \"%s\"", a.Value)
		}
	}
	return level, nil
}

func isDebugLevel(name string) bool {
	switch name {
	case "debug_core", "debug_alloc", "debug_mutex", "debug_event", "debug_http", "debug_mail", "debug_stream":
		return true
	}
	return false
}

func (e *errorLog) add(t logTarget) {
	e.targets = append(e.targets, t)
	e.most = max(e.most, t.level)
}

// hasFile says whether messages reach a file (or standard error) at all.
func (e *errorLog) hasFile() bool {
	return slices.ContainsFunc(e.targets, func(t logTarget) bool { return t.file != nil })
}

// maxErrorLine is the size of a line of the error log with its line feed
// (nginx: NGX_MAX_ERROR_STR); what is longer is cut.
const maxErrorLine = 2048

// line is a message on its way to a log.
type line struct {
	buf     []byte
	message int // where the message begins, behind time, level and process
	at      logMoment
}

var lines = sync.Pool{New: func() any { return &line{buf: make([]byte, 0, 2*maxErrorLine)} }}

func (b *line) free() {
	if cap(b.buf) <= maxKept {
		lines.Put(b)
	}
}

// begin starts a line: "2006/01/02 15:04:05 [level] PID#TID: *CONN ". nginx's
// thread number is its process number.
func (b *line) begin(times *logTimes, level logLevel, connection uint64) {
	p := append(append(b.buf[:0], times.error...), " ["...)
	p = append(append(p, level.String()...), "] "...)
	p = strconv.AppendInt(p, int64(os.Getpid()), 10)
	p = strconv.AppendInt(append(p, '#'), int64(os.Getpid()), 10)
	p = append(p, ": "...)
	if connection != 0 {
		p = strconv.AppendUint(append(p, '*'), connection, 10)
		p = append(p, ' ')
	}
	b.buf, b.message = p, len(p)
}

// end cuts and ends the line.
//
// Unlike nginx, control characters are escaped: a decoded line feed in a path
// would let a client write lines of its own.
func (b *line) end() {
	b.buf = b.buf[:min(len(b.buf), maxErrorLine-1)]
	for i := b.message; i < len(b.buf); i++ {
		if c := b.buf[i]; c < ' ' || c == 0x7f {
			b.buf = slices.Replace(b.buf, i, i+1, '\\', 'x', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			i += 3
		}
	}
	b.buf = append(b.buf[:min(len(b.buf), maxErrorLine-1)], '\n')
}

// write sends a finished line to everybody who wants its level.
func (e *errorLog) write(b *line, level logLevel, times *logTimes) {
	stderr := false
	for i := range e.targets {
		t := &e.targets[i]
		switch {
		case t.level < level:
		case t.syslog != nil:
			t.syslog.sendError(b.buf[:len(b.buf)-1], level, times)
		default:
			_ = t.file.write(b.buf, times.second)
			stderr = stderr || t.file.path == ""
		}
	}
	if console := e.logs.console.Load(); console != nil && level <= logWarn && !stderr {
		_, _ = fmt.Fprintf(console, "%s: [%s] %s", e.logs.program, level, b.buf[b.message:])
	}
}

// quiet logs a message that has been shown already where it belongs: not on
// the console.
func (e *errorLog) quiet(level logLevel, text string) {
	if level > e.most {
		return
	}
	times := e.logs.clock.at(time.Now())
	b := lines.Get().(*line)
	b.begin(times, level, 0)
	b.buf = append(b.buf, text...)
	b.end()
	for i := range e.targets {
		if t := &e.targets[i]; t.level >= level && t.file != nil && t.file.path != "" {
			_ = t.file.write(b.buf, times.second)
		}
	}
	b.free()
}

// logf logs a message that belongs to no connection.
func (e *errorLog) logf(level logLevel, format string, a ...any) {
	if level > e.most {
		return
	}
	b := lines.Get().(*line)
	times := e.logs.clock.at(time.Now())
	b.begin(times, level, 0)
	b.buf = fmt.Appendf(b.buf, format, a...)
	b.end()
	e.write(b, level, times)
	b.free()
}

// Logf logs a message about the exchange: who asked for what on which server,
// as nginx adds it (ngx_http_log_error, ngx_http_log_error_handler).
func (x *Exchange) Logf(level logLevel, format string, a ...any) {
	if x.trace != nil {
		x.trace.logged(level, fmt.Sprintf(format, a...))
		return
	}
	e := x.loc.Conf.Core.ErrorLog
	if e == nil || level > e.most {
		return
	}
	b := lines.Get().(*line)
	times := e.logs.clock.at(time.Now())
	b.begin(times, level, x.client.id)
	b.buf = fmt.Appendf(b.buf, format, a...)
	b.buf = x.describe(b.buf)
	b.end()
	e.write(b, level, times)
	b.free()
}

// describe appends what nginx adds to every message about a request.
func (x *Exchange) describe(p []byte) []byte {
	if x.session != nil {
		return x.session.describe(p, x)
	}
	p = x.appendRemoteAddr(append(p, ", client: "...))
	p = append(append(p, ", server: "...), x.server.Name()...)
	if len(x.Req.Line) > 0 {
		p = append(append(append(p, ", request: \""...), x.Req.Line...), '"')
	}
	if x.inner.level > 0 {
		p = append(append(append(p, ", subrequest: \""...), x.uri...), '"')
	}
	if n := len(p); true {
		p = append(p, ", upstream: \""...)
		mark := len(p)
		if p = x.upstream.describe(p); len(p) == mark {
			p = p[:n]
		} else {
			p = append(p, '"')
		}
	}
	if host, ok := x.Header(http1.Host); ok {
		p = append(append(append(p, ", host: \""...), host...), '"')
	}
	if referer, ok := x.Header(http1.Referer); ok {
		p = append(append(append(p, ", referrer: \""...), referer...), '"')
	}
	return p
}

// logf logs a message about a connection that is not in a request: action says
// what was being done, "" for nothing (ngx_http_log_error without a request).
func (c *client) logf(level logLevel, action, format string, a ...any) {
	e := c.endpoint.fallback.Level.Conf.Core.ErrorLog
	if e == nil || level > e.most {
		return
	}
	text := fmt.Appendf(nil, format, a...)
	if action != "" {
		text = append(append(text, " while "...), action...)
	}
	text = append(append(text, ", client: "...), c.address()...)
	text = append(append(text, ", server: "...), c.endpoint.address...)
	c.logBare(level, string(text))
}

// logBare logs a message about a connection with nothing but its number.
func (c *client) logBare(level logLevel, text string) {
	e := c.endpoint.fallback.Level.Conf.Core.ErrorLog
	if e == nil || level > e.most {
		return
	}
	b := lines.Get().(*line)
	times := e.logs.clock.at(time.Now())
	b.begin(times, level, c.id)
	b.buf = append(b.buf, text...)
	b.end()
	e.write(b, level, times)
	b.free()
}

// address is the client's address as the error log shows it.
func (c *client) address() string {
	if c.peerName == "" {
		return "unix:"
	}
	return c.peerName
}

// errorWithCode words an error of the system as nginx appends it to a message:
// "text (13: Permission denied)".
func errorWithCode(text string, err error) error {
	e := errnoOf(err)
	if e == 0 {
		return errors.New(text)
	}
	return fmt.Errorf("%s (%d: %s)", text, int(e), sysText(e))
}
