package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"proxyctl/parser"
)

// What every module that passes requests on has in its configuration: the
// directives that differ in their prefix alone (nginx: ngx_http_upstream_conf_t
// and the rows that each of its modules repeats).

// upstreamConf is what a level says about passing requests on.
type upstreamConf struct {
	target   *passTarget // where the pass directive points; if and limit_except keep their location's
	passedIn *Level      // the level of the pass directive

	wire                                     wireKind // spoken with servers
	connectTimeout, sendTimeout, readTimeout time.Duration
	nextTimeout                              time.Duration
	nextTries                                int
	next                                     uint32
	bufferSize                               int64
	buffers                                  Buffers
	busySize, tempWriteSize, maxTempSize     int64
	busySet, tempWriteSet, maxTempSet        bool
	tempPath                                 tempPath
	buffering, requestBuffering              bool
	passHeaders, passBody, passTrailers      bool
	interceptErrors, ignoreClientAbort       bool
	intercept404                             bool // answered with a page of this server
	forceRanges, socketKeepalive             bool
	keepConn                                 bool // ask applications to keep connections open
	unbuffered                               bool // whatever servers say
	rcvbuf, sndbuf, sendLowat                int64
	ignore                                   uint32
	hide, pass                               List[string]
	hidden                                   fieldSet
	limitRate                                *Value
	bind                                     *upstreamBind
	cache                                    cacheConf
	store                                    storeConf
	tls                                      upstreamTLSConf
	prefix                                   string // of the directives
	key                                      string // names the level: its kept connections are its own
}

// The bits of next_upstream, in the order of nextWords.
const (
	nextError = 1 << iota
	nextTimeout
	nextInvalidHeader
	nextNonIdempotent
	next500
	next503
	next403
	next404
	next429
	nextUpdating
	nextOff
	next502 // the last two are for servers of HTTP alone
	next504
	nextNoLive // never configured
)

func nextWords() []string {
	return []string{
		"error", "timeout", "invalid_header", "non_idempotent", "http_500", "http_503", "http_403", "http_404", "http_429",
		"updating", "off", "http_502", "http_504",
	}
}

// The bits of ignore_headers, in the order of ignoreWords.
const (
	ignoreRedirect = 1 << iota
	ignoreAccelExpires
	ignoreLimitRate
	ignoreBuffering
	ignoreCharset
	ignoreExpires
	ignoreCacheControl
	ignoreSetCookie
	ignoreVary
)

func ignoreWords() []string {
	return []string{
		"X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset",
		"Expires", "Cache-Control", "Set-Cookie", "Vary",
	}
}

// upstreamDefaults is what nginx's modules start with.
func upstreamDefaults(wire wireKind) upstreamConf {
	return upstreamConf{
		wire:           wire,
		connectTimeout: time.Minute, sendTimeout: time.Minute, readTimeout: time.Minute,
		next: nextError | nextTimeout, bufferSize: 4 << 10, buffers: Buffers{8, 4 << 10},
		buffering: true, requestBuffering: true, passHeaders: true, passBody: true,
		cache: cacheDefaults(), store: storeConf{access: 0o600}, tls: defaultUpstreamTLS(),
	}
}

// upstreamRows makes the rows that all pass directives share, under their
// prefix. of gives their conf of a level, next the words of next_upstream.
func upstreamRows(prefix string, next []string, of func(*Conf) *upstreamConf) []Command {
	row := func(name, defaults, doc string) Command {
		return Command{Name: prefix + "_" + name, In: inHTTPLevels, Default: defaults, Doc: doc}
	}
	flag := func(c Command, field func(u *upstreamConf) *bool) Command {
		return Flag(c, func(c *Conf) *bool { return field(of(c)) })
	}
	wait := func(c Command, field func(u *upstreamConf) *time.Duration) Command {
		return Time(c, func(c *Conf) *time.Duration { return field(of(c)) })
	}
	size := func(c Command, field func(u *upstreamConf) *int64) Command {
		return Size(c, func(c *Conf) *int64 { return field(of(c)) })
	}
	field := func(c Command, field func(u *upstreamConf) *List[string]) Command {
		c.Syntax = "field"
		return Strings(c, func(c *Conf) *List[string] { return field(of(c)) })
	}
	sizeOrUnset := func(c Command, field func(u *upstreamConf) (*int64, *bool)) Command {
		return sizeOrUnset(c, func(c *Conf) (*int64, *bool) { return field(of(c)) })
	}
	return []Command{
		row("bind", "", "Sets the local address of connections.").with("1,2", "address [transparent] | off", setUpstreamBind(of)),
		row("temp_path", prefix+"_temp", "Sets the folder for answers that do not fit in memory.").unlike(unmadeFolder, nil).with("1-4", "path [level1 [level2 [level3]]]",
			setTempPath(func(c *Conf) *tempPath { return &of(c).tempPath })),
		row("limit_rate", "0", "Limits how fast answers are read, in bytes a second.").with("1", "rate",
			setRate(func(c *Conf) **Value { return &of(c).limitRate })),

		field(row("hide_header", "", "Hides a field of answers."), func(u *upstreamConf) *List[string] { return &u.hide }),
		field(row("pass_header", "", "Passes a field of answers that is hidden by default."), func(u *upstreamConf) *List[string] { return &u.pass }),
		Bits(row("ignore_headers", "", "Ignores fields of answers that have a meaning here."), ignoreWords(), func(c *Conf) *uint32 { return &of(c).ignore }),
		Bits(row("next_upstream", "error timeout", "Sets when the next server is asked."), next, func(c *Conf) *uint32 { return &of(c).next }),
		Number(row("next_upstream_tries", "0", "Limits how many servers are asked; 0 for all."), func(c *Conf) *int { return &of(c).nextTries }),
		wait(row("next_upstream_timeout", "0", "Limits how long servers are asked in turn; 0 for no limit."), func(u *upstreamConf) *time.Duration { return &u.nextTimeout }),

		Buffer(row("buffers", "8 4k", "Sets how much of an answer is kept in memory."), func(c *Conf) *Buffers { return &of(c).buffers }),
		size(row("buffer_size", "4k", "Sets how large the head of an answer may be."), func(u *upstreamConf) *int64 { return &u.bufferSize }),
		sizeOrUnset(row("busy_buffers_size", "8k", "Sets how much of the buffers may be busy with sending."), func(u *upstreamConf) (*int64, *bool) { return &u.busySize, &u.busySet }),
		sizeOrUnset(row("temp_file_write_size", "8k", "Sets how much is written to a temporary file at once."), func(u *upstreamConf) (*int64, *bool) { return &u.tempWriteSize, &u.tempWriteSet }),
		sizeOrUnset(row("max_temp_file_size", "1024m", "Limits the temporary file of an answer."), func(u *upstreamConf) (*int64, *bool) { return &u.maxTempSize, &u.maxTempSet }),
		size(row("socket_rcvbuf", "0", "Sets the receive buffer of connections."), func(u *upstreamConf) *int64 { return &u.rcvbuf }),
		size(row("socket_sndbuf", "0", "Sets the send buffer of connections."), func(u *upstreamConf) *int64 { return &u.sndbuf }),

		wait(row("connect_timeout", "60s", "Sets how long connecting may take."), func(u *upstreamConf) *time.Duration { return &u.connectTimeout }),
		wait(row("send_timeout", "60s", "Sets the time between two writes to the server."), func(u *upstreamConf) *time.Duration { return &u.sendTimeout }),
		wait(row("read_timeout", "60s", "Sets the time between two reads from the server."), func(u *upstreamConf) *time.Duration { return &u.readTimeout }),

		flag(row("buffering", "on", "Reads answers as fast as the server sends them."), func(u *upstreamConf) *bool { return &u.buffering }),
		flag(row("request_buffering", "on", "Reads the whole request body before it is passed on."), func(u *upstreamConf) *bool { return &u.requestBuffering }),
		flag(row("pass_request_headers", "on", "Passes on the fields of the client."), func(u *upstreamConf) *bool { return &u.passHeaders }),
		flag(row("pass_request_body", "on", "Passes on the body of the client.").unlike("Content-Length is left out with the body", hasWord("off")), func(u *upstreamConf) *bool { return &u.passBody }),
		flag(row("intercept_errors", "off", "Answers errors of the server with error_page."), func(u *upstreamConf) *bool { return &u.interceptErrors }),
		flag(row("ignore_client_abort", "off", "Goes on when the client goes away."), func(u *upstreamConf) *bool { return &u.ignoreClientAbort }),
		flag(row("force_ranges", "off", "Answers Range for any answer."), func(u *upstreamConf) *bool { return &u.forceRanges }),
		flag(row("socket_keepalive", "off", "Turns on TCP keepalive for connections."), func(u *upstreamConf) *bool { return &u.socketKeepalive }),
	}
}

// someUpstreamRows makes those of the rows that a module with few of them has.
func someUpstreamRows(prefix string, of func(*Conf) *upstreamConf, names ...string) []Command {
	return slices.DeleteFunc(upstreamRows(prefix, nil, of), func(c Command) bool {
		return !slices.Contains(names, strings.TrimPrefix(c.Name, prefix+"_"))
	})
}

// nextUpstreamRow makes the row of next_upstream for modules with words of their
// own, which stand for bits.
func nextUpstreamRow(prefix string, words []string, bits []uint32, of func(*Conf) *upstreamConf) Command {
	c := Bits(Command{Name: prefix + "_next_upstream", In: inHTTPLevels, Default: "error timeout", Doc: "Sets when the next server is asked."},
		words, func(c *Conf) *uint32 { return &of(c).next })
	set := c.Set
	c.Set = func(l *Level, d *parser.Directive) error {
		if err := set(l, d); err != nil {
			return err
		}
		u := of(l.Conf)
		said := u.next
		u.next = 0
		for i, bit := range bits {
			if said&(1<<i) != 0 {
				u.next |= bit
			}
		}
		return nil
	}
	return c
}

// sendLowatRow makes the row of send_lowat, which some of the modules have.
func sendLowatRow(prefix string, of func(*Conf) *upstreamConf) Command {
	c := Size(Command{
		Name: prefix + "_send_lowat", In: inHTTPLevels, Default: "0", Doc: "Accepted without effect.",
		Status: NoEffect, Reason: "Linux has no such option, nginx ignores it there too",
	}, func(c *Conf) *int64 { return &of(c).sendLowat })
	set := c.Set
	c.Set = func(l *Level, d *parser.Directive) error {
		err := set(l, d)
		if err == nil {
			l.warnAt(d, d.Args[0], "%q is not supported, ignored", d.Name.Value)
		}
		return err
	}
	return c
}

// sizeOrUnset is a size whose default depends on other directives.
func sizeOrUnset(c Command, field func(*Conf) (*int64, *bool)) Command {
	row := Size(c, func(c *Conf) *int64 { v, _ := field(c); return v })
	set := row.Set
	row.Set = func(l *Level, d *parser.Directive) error {
		_, given := field(l.Conf)
		*given = true
		return set(l, d)
	}
	return row
}

// finish derives what depends on several directives (the merge_loc_conf of
// nginx's modules). hidden are the fields of answers that are not passed on by
// default.
func (u *upstreamConf) finish(l *Level, prefix string, hidden []string) error {
	if u.next&nextOff != 0 {
		u.next = nextOff
	}
	if u.passedIn != l && l.Context&(InLocationIf|InLimitExcept) == 0 {
		u.target = nil
	}
	if err := u.finishBuffers(prefix); err != nil {
		return err
	}
	if u.tempPath.path == "" {
		u.tempPath = tempPath{path: l.c.opts.tempPath(prefix), levels: []int{1, 2}}
	}
	if !u.unbuffered {
		l.c.table.temps[u.tempPath.path] = true
	}
	u.cache.finish()
	u.finishStore(l)
	u.prefix = prefix
	u.hidden = hiddenFields(hidden, u.hide.Items, u.pass.Items)
	if u.target != nil {
		u.key = fmt.Sprintf("%s %p", prefix, l.Conf)
	}
	return nil
}

// finishBuffers fills in the sizes that depend on others, and checks them.
func (u *upstreamConf) finishBuffers(prefix string) error {
	if u.buffers.Number < 2 {
		return say("there must be at least 2 \"%s_buffers\"", prefix)
	}
	if u.unbuffered { // there is no directive for them
		u.buffers.Size = max(u.buffers.Size, u.bufferSize)
	}
	size := max(u.bufferSize, u.buffers.Size)
	largest := "the maximum of the value of \"" + prefix + "_buffer_size\" and one of the \"" + prefix + "_buffers\""
	if !u.busySet {
		u.busySize = 2 * size
	}
	if u.busySize < size {
		return say("\"%s_busy_buffers_size\" must be equal to or greater than %s", prefix, largest)
	}
	if u.busySize > int64(u.buffers.Number-1)*u.buffers.Size {
		return say("\"%s_busy_buffers_size\" must be less than the size of all \"%s_buffers\" minus one buffer", prefix, prefix)
	}
	if !u.tempWriteSet {
		u.tempWriteSize = 2 * size
	}
	if u.tempWriteSize < size {
		return say("\"%s_temp_file_write_size\" must be equal to or greater than %s", prefix, largest)
	}
	if !u.maxTempSet {
		u.maxTempSize = 1 << 30
	}
	if u.maxTempSize != 0 && u.maxTempSize < size {
		return say("\"%s_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to or greater than %s", prefix, largest)
	}
	return nil
}

// accelFields are the fields of answers that are said to this server.
func accelFields() []string {
	return []string{"X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset"}
}

// upstreamBind is what bind says.
type upstreamBind struct {
	value       *Value // with variables
	address     netip.AddrPort
	transparent bool
}

// setUpstreamBind reads "address [transparent]" or "off".
func setUpstreamBind(field func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		u, text := field(l.Conf), d.Args[0].Value
		if len(d.Args) == 1 && text == "off" {
			u.bind = nil
			return nil
		}
		v, err := l.value(text)
		if err != nil {
			return err
		}
		b := &upstreamBind{value: v}
		if _, static := v.Static(); static {
			b.value = nil
			var ok bool
			if b.address, ok = parseBind(text); !ok {
				return sayAt(d.Args[0], "", "an IP address of this machine, with or without port", "invalid address %q", text)
			}
		}
		if len(d.Args) == 2 {
			if d.Args[1].Value != "transparent" {
				return sayAt(d.Args[1], "", `the only parameter is "transparent"`, "invalid parameter %q", d.Args[1].Value)
			}
			b.transparent = true
		}
		u.bind = b
		return nil
	}
}

func parseBind(text string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(a, 0), true
	}
	a, err := netip.ParseAddrPort(text)
	return a, err == nil
}
