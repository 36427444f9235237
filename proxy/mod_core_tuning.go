package proxy

import (
	"strings"
	"time"

	"proxyctl/parser"
)

// Directives of the http core about how nginx uses memory and the system. What
// they ask for does not exist here, or is done anyway; they are checked as nginx
// does and have no effect.

func coreTuning() []Command {
	const (
		hash    = "look-up tables size themselves"
		memory  = "memory is managed by the Go runtime"
		threads = "files are read by goroutines and never block others"
		pieces  = "answers are sent when a buffer is full or complete"
		cached  = "a file is opened anew for each request, so that its changes are seen at once"
	)
	size := func(c *Conf) *int64 { return &c.Core.unused.size }
	number := func(c *Conf) *int { return &c.Core.unused.number }
	row := func(name string, in Context, def, reason string) Command {
		return Command{Name: name, In: in, Default: def, Doc: "Accepted without effect.", Status: NoEffect, Reason: reason}
	}
	rows := []Command{
		Number(row("server_names_hash_max_size", InHTTP|InStream, "512", hash), number),
		Number(row("server_names_hash_bucket_size", InHTTP|InStream, "32 | 64 | 128", hash), number),
		Number(row("variables_hash_max_size", InHTTP|InStream, "1024", hash), number),
		Number(row("variables_hash_bucket_size", InHTTP|InStream, "64", hash), number),
		Number(row("types_hash_max_size", inHTTPLevels, "1024", hash), number),
		Number(row("types_hash_bucket_size", inHTTPLevels, "64", hash), number),
		checkPool(Size(row("connection_pool_size", InHTTP|InServer, "512", memory), func(c *Conf) *int64 { return &c.Core.connectionPool })),
		checkPool(Size(row("request_pool_size", InHTTP|InServer, "4k", memory), size)),
		Offset(row("directio_alignment", inHTTPLevels, "512", threads), size),
		Size(row("read_ahead", inHTTPLevels, "0", threads), size),
		Size(row("sendfile_max_chunk", inHTTPLevels, "2m", threads), size),
		Size(row("postpone_output", inHTTPLevels, "1460", pieces), size),
		Seconds(row("open_file_cache_valid", inHTTPLevels, "60s", cached), func(c *Conf) *time.Duration { return &c.Core.unused.time }),
		Number(row("open_file_cache_min_uses", inHTTPLevels, "1", cached), number),
	}
	rows = append(rows, Ignored(inHTTPLevels, "flag", "segments are filled by writing head and body together", "tcp_nopush")...)
	rows = append(rows, Ignored(inHTTPLevels, "flag", "bodies are passed on in the pieces they are kept in", "client_body_in_single_buffer")...)
	rows = append(rows, Ignored(inHTTPLevels, "flag", threads, "aio_write")...)
	rows = append(rows, Ignored(inHTTPLevels, "flag", cached, "open_file_cache_errors", "open_file_cache_events")...)
	for _, r := range []Command{
		{Name: "aio", Args: "1", Syntax: "on | off | threads[=pool]", Default: "off", Reason: threads, Set: checkAIO},
		{Name: "directio", Args: "1", Syntax: "size | off", Default: "off", Reason: threads, Set: checkDirectIO},
		{Name: "send_lowat", Args: "1", Syntax: "size", Default: "0", Reason: pieces, Set: checkLowat},
		{Name: "open_file_cache", Args: "1,2", Syntax: "off | max=N [inactive=time]", Default: "off", Reason: cached, Set: checkFileCache},
	} {
		r.In, r.Status, r.Doc = inHTTPLevels, NoEffect, "Accepted without effect."
		rows = append(rows, r)
	}
	return rows
}

// unusedConf takes values that are only checked.
type unusedConf struct {
	size    int64
	number  int
	time    time.Duration
	buffers Buffers
}

// checkPool adds nginx's demands on the sizes of pools.
func checkPool(c Command) Command {
	const least, step = 112, 16
	set := c.Set
	c.Set = func(l *Level, d *parser.Directive) error {
		if err := set(l, d); err != nil {
			return err
		}
		switch n, _ := parseSize(d.Args[0].Value); {
		case n < least:
			return sayAt(d.Args[0], "", "", "the pool size must be no less than %d", least)
		case n%step != 0:
			return sayAt(d.Args[0], "", "", "the pool size must be a multiple of %d", step)
		}
		return nil
	}
	return c
}

func checkAIO(l *Level, d *parser.Directive) error {
	switch word, pool, _ := strings.Cut(d.Args[0].Value, "="); {
	case word == "threads":
		_, err := l.value(pool)
		return err
	case d.Args[0].Value == "on", d.Args[0].Value == "off":
		return nil
	}
	return errAt(d.Args[0], "", "on, off or threads", "invalid value")
}

func checkDirectIO(_ *Level, d *parser.Directive) error {
	if _, ok := parseOffset(d.Args[0].Value); !ok && d.Args[0].Value != "off" {
		return errAt(d.Args[0], "Y009", "a size or off", "invalid value")
	}
	return nil
}

func checkLowat(l *Level, d *parser.Directive) error {
	if _, ok := parseSize(d.Args[0].Value); !ok {
		return errAt(d.Args[0], "Y009", "sizes are digits and end in k or m", "invalid value")
	}
	l.warnAt(d, d.Args[0], "\"send_lowat\" is not supported, ignored")
	return nil
}

func checkFileCache(_ *Level, d *parser.Directive) error {
	on, limited := true, false
	for _, a := range d.Args {
		ok := true
		switch name, value, _ := strings.Cut(a.Value, "="); {
		case a.Value == "off":
			on = false
		case name == "max":
			var n int
			n, ok = parseNumber(value)
			ok, limited = ok && n > 0, true
		case name == "inactive":
			_, ok = parseTime(value, true)
		default:
			ok = false
		}
		if !ok {
			return sayAt(a, "", "max=number and inactive=time, or off", "invalid \"open_file_cache\" parameter %q", a.Value)
		}
	}
	if on && !limited {
		return say("\"open_file_cache\" must have the \"max\" parameter")
	}
	return nil
}
