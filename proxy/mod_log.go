package proxy

import (
	"compress/gzip"
	"strings"
	"time"

	"proxyctl/parser"
)

// Access logs: ngx_http_log_module. Formats are compiled to a list of steps;
// lines are made in one buffer and written by one write, or gathered in the
// buffer of the file.

func logModule() Module {
	return Module{
		Name: "ngx_http_log_module", Stream: "ngx_stream_log_module",
		Commands: []Command{
			{
				Name: "log_format", In: InHTTP | InStream, Args: "2+", Repeat: true, Syntax: "name [escape=default | json | none] string ...",
				Default: `combined "..."`, Doc: "Sets the format of access logs.", Set: setLogFormat,
			},
			{
				Name: "access_log", In: inHTTPLevels | InLocationIf | InLimitExcept | inStreamLevels, Args: "1+", Repeat: true,
				Syntax:  "path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off",
				Default: "logs/access.log combined", Differs: "a name that a variable makes leave its folder is not opened", DiffersIn: hasVariable, Doc: "Sets the access log.", Set: setAccessLog,
			},
			{
				Name: "open_log_file_cache", In: inHTTPLevels | inStreamLevels, Args: "1-4",
				Syntax:  "max=N [inactive=time] [min_uses=N] [valid=time] | off",
				Default: "off", Doc: "Keeps log files open whose names have variables.", Set: setLogFileCache,
			},
		},
		Init:   initLog,
		Finish: finishLog,
		Phase:  LogPhase,
		Handler: func(c *Conf) Handler {
			if c.Log.off || len(c.Log.logs) == 0 {
				return nil
			}
			return c.Log.handle
		},
	}
}

// logConf is what the module knows at a level.
type logConf struct {
	off   bool
	logs  []*accessLog
	level *Level // that said off or logs
	cache *logCache
	// byDefault: logs is the one that counts when nobody says anything.
	byDefault bool
}

// accessLog is one access_log directive.
type accessLog struct {
	format    *logFormat
	condition *Value
	// where to: one of the three
	sink   *logSink
	path   *Value
	syslog *syslogPeer
}

func initLog(c *Conf) { c.Log = logConf{byDefault: true} }

func setLogFormat(l *Level, d *parser.Directive) error {
	name := d.Args[0].Value
	if name == "combined" && !l.c.names.stream || l.c.names.formats[name] != nil {
		return sayAt(d.Args[0], "Y011", "give it another name", "duplicate \"log_format\" name \"%s\"", name)
	}
	f := &logFormat{name: name, place: d.End}
	args := d.Args[1:]
	if word, ok := strings.CutPrefix(args[0].Value, "escape="); ok {
		switch word {
		case "default":
		case "json":
			f.escape = escapeJSON
		case "none":
			f.escape = escapeNone
		default:
			return sayAt(args[0], "Y009", "default, json or none", "unknown log format escaping \"%s\"", word)
		}
		args = args[1:]
	}
	for _, a := range args {
		if err := f.compile(l.c, a); err != nil {
			return err
		}
	}
	l.c.names.formats[name] = f
	return nil
}

// format finds a format for a directive that stands at a place: one that is
// defined further down does not exist yet. Names are compared without case.
func (c *compiler) logFormat(name string, at parser.Range) *logFormat {
	if strings.EqualFold(name, "combined") && !c.names.stream {
		return c.combined()
	}
	for known, f := range c.names.formats {
		if strings.EqualFold(known, name) && parser.Compare(f.place, at) < 0 {
			return f
		}
	}
	return nil
}

// combined is the predefined format.
func (c *compiler) combined() *logFormat {
	f := c.names.formats["combined"]
	if f == nil {
		f = &logFormat{name: "combined"}
		_ = f.compile(c, parser.Arg{Value: combinedFormat})
		c.names.formats["combined"] = f
	}
	return f
}

func setAccessLog(l *Level, d *parser.Directive) error {
	c := &l.Conf.Log
	if c.level != l {
		*c = logConf{level: l, cache: c.cache}
	}
	path := d.Args[0].Value
	if path == "off" {
		c.off = true
		if len(d.Args) > 1 {
			return sayAt(d.Args[1], "Y007", "off stands alone", "invalid parameter \"%s\"", d.Args[1].Value)
		}
		return nil
	}
	log := &accessLog{}
	var file *logFile
	var err error
	switch {
	case strings.HasPrefix(path, "syslog:"):
		log.syslog, err = l.c.syslogPeer(d.Args[0])
	case strings.Contains(path, "$"):
		log.path, err = l.value(l.c.opts.prefixed(path))
	case path == "": // nginx takes a file without a name for standard error
		file = l.c.logFile("")
	default:
		file = l.c.logFile(l.c.opts.prefixed(path))
	}
	if err != nil {
		return err
	}
	name := "combined"
	switch {
	case len(d.Args) > 1:
		name = d.Args[1].Value
	case l.c.names.stream:
		return sayAt(d.Args[0], "", "name a log_format", "log format is not specified")
	}
	if log.format = l.c.logFormat(name, d.End); log.format == nil {
		return sayAt(d.Args[1], "", "log_format must stand above", "unknown log format \"%s\"", name)
	}
	o, err := log.options(l, d)
	if err != nil {
		return err
	}
	if err := log.connect(l.c, d, file, o); err != nil {
		return err
	}
	c.logs = append(c.logs, log)
	return nil
}

// options reads what follows the format.
func (g *accessLog) options(l *Level, d *parser.Directive) (bufferOptions, error) {
	var o bufferOptions
	for _, a := range d.Args[min(2, len(d.Args)):] {
		name, value, has := strings.Cut(a.Value, "=")
		switch {
		case name == "buffer" && has:
			n, ok := parseSize(value)
			if !ok || n == 0 {
				return o, sayAt(a, "Y009", "", "invalid buffer size \"%s\"", value)
			}
			o.size = n
		case name == "flush" && has:
			t, ok := parseTime(value, false)
			if !ok || t == 0 {
				return o, sayAt(a, "Y010", "", "invalid flush time \"%s\"", value)
			}
			o.flush = t
		case name == "gzip":
			if o.size == 0 {
				o.size = 64 << 10
			}
			o.gzip = gzip.BestSpeed
			if !has {
				continue
			}
			n, ok := parseNumber(value)
			if !ok || n < 1 || n > 9 {
				return o, sayAt(a, "Y009", "levels are 1 to 9", "invalid compression level \"%s\"", value)
			}
			o.gzip = n
		case name == "if" && has:
			v, err := l.value(value)
			if err != nil {
				return o, err
			}
			g.condition = v
		default:
			return o, sayAt(a, "", "", "invalid parameter \"%s\"", a.Value)
		}
	}
	return o, nil
}

// connect joins the log with its file.
func (g *accessLog) connect(c *compiler, d *parser.Directive, file *logFile, o bufferOptions) error {
	path := d.Args[0].Value
	switch {
	case o.flush != 0 && o.size == 0:
		return sayAt(d.Args[0], "", "add buffer=size", "no buffer is defined for access_log \"%s\"", path)
	case o.size != 0 && g.path != nil:
		return sayAt(d.Args[0], "", "", "buffered logs cannot have variables in name")
	case o.size != 0 && g.syslog != nil:
		return sayAt(d.Args[0], "", "", "logs to syslog cannot be buffered")
	case file == nil:
		return nil
	}
	g.sink = c.sink(file)
	if o.size == 0 {
		return nil
	}
	if b := g.sink.buffer; b != nil {
		if b.options != o {
			return sayAt(d.Args[0], "", "all logs to one file share its buffer",
				"access_log \"%s\" already defined with conflicting parameters", path)
		}
		return nil
	}
	g.sink.buffer = newLogBuffer(file, o)
	return nil
}

// finishLog gives the levels in which nobody has said anything the default
// log. What stands at the http level alone opens nothing.
func finishLog(l *Level) error {
	c := &l.Conf.Log
	path := l.c.opts.AccessLog
	if !c.byDefault || c.logs != nil || path == "" || l.Context == InHTTP || l.c.names.stream {
		return nil
	}
	c.logs = []*accessLog{{format: l.c.combined(), sink: l.c.sink(l.c.logFile(l.c.opts.prefixed(path)))}}
	return nil
}

func setLogFileCache(l *Level, d *parser.Directive) error {
	o := logCacheOptions{inactive: 10 * time.Second, valid: time.Minute, minUses: 1}
	off := false
	for _, a := range d.Args {
		name, value, has := strings.Cut(a.Value, "=")
		ok := true
		switch {
		case name == "max" && has:
			o.max, ok = parseNumber(value)
		case name == "min_uses" && has:
			o.minUses, ok = parseNumber(value)
		case name == "inactive" && has:
			o.inactive, ok = parseTime(value, true)
		case name == "valid" && has:
			o.valid, ok = parseTime(value, true)
		case a.Value == "off":
			off = true
		default:
			ok = false
		}
		if !ok {
			return sayAt(a, "", "", "invalid \"open_log_file_cache\" parameter \"%s\"", a.Value)
		}
	}
	l.Conf.Log.cache = nil
	if off {
		return nil
	}
	if o.max == 0 {
		return say("\"open_log_file_cache\" must have \"max\" parameter")
	}
	cache := newLogCache(o)
	l.c.table.onClose(cache.close)
	l.Conf.Log.cache = cache
	return nil
}

// lines gives what handle would write, with the log it goes to.
func (c *logConf) lines(x *Exchange) []string {
	now := time.Now()
	at := logMoment{now, x.table.opts.logs.clock.at(now)}
	var out []string
	for _, g := range c.logs {
		if g.condition != nil {
			if v := g.condition.String(x); v == "" || v == "0" {
				continue
			}
		}
		out = append(out, string(g.format.append(nil, x, &at)))
	}
	return out
}

// handle writes the lines of a request that has ended (ngx_http_log_handler).
func (c *logConf) handle(x *Exchange) Code {
	b := lines.Get().(*line)
	now := time.Now()
	b.at = logMoment{now, x.table.opts.logs.clock.at(now)}
	second := b.at.times.second
	for _, g := range c.logs {
		if g.condition != nil {
			b.buf = g.condition.Append(b.buf[:0], x)
			if len(b.buf) == 0 || len(b.buf) == 1 && b.buf[0] == '0' {
				continue
			}
		}
		b.buf = g.format.append(b.buf[:0], x, &b.at)
		if g.syslog != nil {
			if err := g.syslog.sendAccess(b.buf, b.at.times); err != nil {
				x.Logf(logWarn, "send() to syslog failed")
			}
			continue
		}
		b.buf = append(b.buf, '\n')
		if g.sink != nil {
			g.sink.write(x, b.buf, second)
			continue
		}
		c.writeNamed(x, g.path, b, now)
	}
	b.free()
	return OK
}
