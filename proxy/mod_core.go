package proxy

import (
	"math"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The http core: ngx_http_core_module. Its rows are here; what its larger
// directives do is in mod_core_server.go (server, listen, server_name),
// mod_core_location.go (location, limit_except, internal), mod_core_file.go
// (root, alias, types), mod_core_error.go (error_page, redirects),
// mod_core_body.go (request bodies) and mod_core_variable.go.

// coreConf is what the http core knows at a level.
type coreConf struct {
	// connections and request heads
	HeaderTimeout        time.Duration
	HeaderBuffer         int64
	LargeBuffers         Buffers
	MaxHeaders           int
	IgnoreInvalidHeaders bool
	Underscores          bool
	MergeSlashes         bool
	connectionPool       int64
	unused               unusedConf
	SendTimeout          time.Duration
	ResetTimedOut        bool
	TCPNoDelay           bool
	LingeringClose       int
	LingeringTime        time.Duration
	LingeringTimeout     time.Duration
	timeouts             http1.Timeouts // of requests, from the above and the below

	KeepaliveTimeout    time.Duration
	KeepaliveHeader     time.Duration
	KeepaliveMinTimeout time.Duration
	KeepaliveTime       time.Duration
	KeepaliveRequests   int
	KeepaliveDisable    uint32

	// request bodies
	MaxBodySize  int64
	BodyBuffer   int64
	BodyTimeout  time.Duration
	BodyInFile   int
	BodyTempPath tempPath
	EarlyRead    List[*Value]

	// answers
	ServerTokens            int
	ChunkedTransferEncoding bool
	ErrorPages              List[errorPage]
	RecursiveErrorPages     bool
	AbsoluteRedirect        bool
	ServerNameInRedirect    bool
	PortInRedirect          bool
	MSIEPadding             bool
	MSIERefresh             bool
	LimitRate               *Value
	LimitRateAfter          *Value
	Satisfy                 int
	AuthDelay               time.Duration
	EarlyHints              List[*Value]
	Internal                bool

	// files
	Root            *Value // nil: "html" under the prefix
	Alias           bool   // Root replaces the location's name instead of preceding the URI
	aliasLength     int    // bytes of the URI that alias replaces; -1 in a regex location
	Types           *typeMap
	DefaultType     string
	ETag            bool
	IfModifiedSince int
	MaxRanges       int
	LogNotFound     bool
	LogSubrequest   bool

	SubrequestBuffer int64
	PostAction       string // "": none
	Sendfile         bool
	Symlinks         symlinkRule

	Gzip gzipConf

	ErrorLog *errorLog
	Names    nameService
}

// The words of server_tokens, satisfy and others, by index.
const (
	tokensOff = iota
	tokensOn
	tokensBuild
)

const (
	satisfyAll = iota
	satisfyAny
)

// The words of lingering_close, in the order of http1.Linger.
const (
	lingeringOff = iota
	lingeringOn
	lingeringAlways
)

const (
	imsOff = iota
	imsExact
	imsBefore
)

func initCore(c *Conf) {
	c.Core = coreConf{
		HeaderTimeout: 60 * time.Second, HeaderBuffer: 1 << 10, LargeBuffers: Buffers{4, 8 << 10},
		MaxHeaders: 1000, IgnoreInvalidHeaders: true, MergeSlashes: true, connectionPool: 512,
		SendTimeout: 60 * time.Second, TCPNoDelay: true,
		LingeringClose: lingeringOn, LingeringTime: 30 * time.Second, LingeringTimeout: 5 * time.Second,
		KeepaliveTimeout: 75 * time.Second, KeepaliveTime: time.Hour, KeepaliveRequests: 1000, KeepaliveDisable: 1 << 1,
		MaxBodySize: 1 << 20, BodyBuffer: 16 << 10, BodyTimeout: 60 * time.Second,
		ServerTokens: tokensOn, ChunkedTransferEncoding: true, AbsoluteRedirect: true, PortInRedirect: true,
		MSIEPadding: true, Satisfy: satisfyAll, Types: defaultTypes(), DefaultType: "text/plain",
		Sendfile: true, // Unlike nginx, where it has to be turned on.
		ETag:     true, IfModifiedSince: imsExact, MaxRanges: math.MaxInt32, LogNotFound: true,
		SubrequestBuffer: 4 << 10,
		Gzip:             gzipConf{Version: 1, Proxied: gzipProxiedOff}, ErrorLog: c.Main.ErrorLog,
		Names: nameService{timeout: defaultResolverTimeout},
	}
}

func coreModule() Module {
	return Module{
		Name: "ngx_http_core_module", Stream: "ngx_stream_core_module", Commands: coreCommands(), Variables: coreVariables(),
		Init: initCore, Finish: finishCore,
	}
}

func finishCore(l *Level) error {
	c := &l.Conf.Core
	if l.Context&inStreamAny != 0 {
		return nil
	}
	if c.LargeBuffers.Size < c.connectionPool {
		return say("the \"large_client_header_buffers\" size must be equal to or greater than \"connection_pool_size\"")
	}
	c.timeouts = http1.Timeouts{
		IdleTimeout: c.KeepaliveTimeout, BodyTimeout: c.BodyTimeout, SendTimeout: c.SendTimeout,
		Linger: http1.Linger(c.LingeringClose), LingerTime: c.LingeringTime, LingerTimeout: c.LingeringTimeout,
	}
	l.c.table.temps[c.bodyTemp(l.c.opts).path] = true
	return nil
}

func coreCommands() []Command {
	rows := []Command{
		{Name: "server", In: InHTTP, Args: "0", Block: true, Repeat: true, Doc: "Sets the configuration of a virtual server.", Set: setServer},
		{Name: "listen", In: InServer, Args: "1+", Repeat: true, Syntax: "address[:port] | port | unix:path [default_server] [ssl] [parameter=value ...]", Default: "*:80 | *:8000", Differs: "a PROXY header with a wrong checksum, an unknown command or text in the place of an address ends the connection", DiffersIn: hasWord("proxy_protocol"), Doc: "Sets an address on which the server accepts requests.", Set: setListen},
		{Name: "server_name", In: InServer | InStreamServer, Args: "1+", Repeat: true, Syntax: "name ...", Default: `""`, Doc: "Sets the names of the virtual server.", Set: setServerName},
		{Name: "location", In: InServer | InLocation, Args: "1,2", Block: true, Repeat: true, Syntax: "[ = | ~ | ~* | ^~ ] uri", Doc: "Sets configuration depending on the request URI.", Set: setLocation},
		{Name: "limit_except", In: InLocation, Args: "1+", Block: true, Syntax: "method ...", Doc: "Limits the methods allowed inside a location.", Set: setLimitExcept},
		{Name: "internal", In: InLocation, Args: "0", Repeat: true, Doc: "Lets a location be reached by internal requests only.", Set: func(l *Level, _ *parser.Directive) error {
			l.Conf.Core.Internal = true
			return nil
		}},
		{Name: "root", In: inHTTPLevels | InLocationIf, Args: "1", Syntax: "path", Default: "html", Doc: "Sets the folder that files are served from.", Set: setRoot},
		{Name: "alias", In: InLocation, Args: "1", Syntax: "path", Differs: "a path that leaves the folder by way of .. is answered 404", DiffersIn: mayLeaveFolder, Doc: "Replaces the location's name by a folder.", Set: setRoot},
		{Name: "types", In: inHTTPLevels, Args: "0", Block: true, Repeat: true, Doc: "Maps file name extensions to MIME types.", Set: setTypes},
		{Name: "error_page", In: inHTTPLevels | InLocationIf, Args: "2+", Repeat: true, Syntax: "code ... [=[response]] uri", Doc: "Sets the URI that is shown for errors.", Set: setErrorPage},
		{Name: "keepalive_timeout", In: inHTTPLevels, Args: "1,2", Syntax: "timeout [header_timeout]", Default: "75s", Doc: "Sets how long an idle client connection stays open.", Set: setKeepaliveTimeout},
		{
			Name: "keepalive_disable", In: inHTTPLevels, Args: "1,2", Syntax: "none | browser ...", Default: "msie6", Doc: "Disables keep-alive for misbehaving browsers.",
			Set: Bits(Command{}, []string{"none", "msie6", "safari"}, func(c *Conf) *uint32 { return &c.Core.KeepaliveDisable }).Set,
		},
		{
			Name: "client_body_temp_path", In: inHTTPLevels, Args: "1-4", Syntax: "path [level1 [level2 [level3]]]", Default: "client_body_temp", Differs: unmadeFolder, Doc: "Sets the folder for request bodies that do not fit in memory.",
			Set: setTempPath(func(c *Conf) *tempPath { return &c.Core.BodyTempPath }),
		},
		{Name: "limit_rate", In: inHTTPLevels | InLocationIf, Args: "1", Syntax: "rate", Default: "0", Doc: "Limits the rate of an answer, in bytes a second.", Set: setRate(func(c *Conf) **Value { return &c.Core.LimitRate })},
		{Name: "limit_rate_after", In: inHTTPLevels | InLocationIf, Args: "1", Syntax: "size", Default: "0", Doc: "Sets how much is sent before the rate is limited.", Set: setRate(func(c *Conf) **Value { return &c.Core.LimitRateAfter })},
		{Name: "disable_symlinks", In: inHTTPLevels, Args: "1,2", Syntax: "off | on | if_not_owner [from=part]", Default: "off", Doc: "Refuses symbolic links on the way to files.", Set: setDisableSymlinks},
		Predicates(Command{Name: "early_hints", In: inHTTPLevels, Doc: "Passes early hints of servers on to clients, when any of the strings is true."}, func(c *Conf) *List[*Value] { return &c.Core.EarlyHints }),
		Predicates(Command{Name: "client_body_early_read", In: InHTTP | InServer, Doc: "Reads the request body before anything else is done, when any of the strings is true."}, func(c *Conf) *List[*Value] { return &c.Core.EarlyRead }),
		Time(Command{Name: "auth_delay", In: inHTTPLevels, Default: "0", Doc: "Delays answers of 401."}, func(c *Conf) *time.Duration { return &c.Core.AuthDelay }),
		{Name: "error_log", In: inHTTPLevels | inStreamLevels, Args: "1+", Repeat: true, Syntax: "file [level]", Differs: "there are no debugging messages: debug says as much as info", DiffersIn: hasWord("debug", "debug_="), Doc: "Sets the error log.", Set: setErrorLog},

		Time(Command{Name: "client_header_timeout", In: InHTTP | InServer, Default: "60s", Doc: "Sets how long a request head may take."}, func(c *Conf) *time.Duration { return &c.Core.HeaderTimeout }),
		Size(Command{Name: "client_header_buffer_size", In: InHTTP | InServer, Default: "1k", Doc: "Sets the size of the first buffer for a request head."}, func(c *Conf) *int64 { return &c.Core.HeaderBuffer }),
		Buffer(Command{Name: "large_client_header_buffers", In: InHTTP | InServer, Default: "4 8k", Doc: "Sets how large a request head may be."}, func(c *Conf) *Buffers { return &c.Core.LargeBuffers }),
		Number(Command{Name: "max_headers", In: InHTTP | InServer, Default: "1000", Doc: "Sets how many fields a request may have."}, func(c *Conf) *int { return &c.Core.MaxHeaders }),
		Flag(Command{Name: "ignore_invalid_headers", In: InHTTP | InServer, Default: "on", Differs: "lines without a colon and values with control characters are refused all the same", DiffersIn: hasWord("off"), Doc: "Drops fields with invalid names."}, func(c *Conf) *bool { return &c.Core.IgnoreInvalidHeaders }),
		Flag(Command{Name: "underscores_in_headers", In: InHTTP | InServer, Default: "off", Doc: "Allows underscores in field names."}, func(c *Conf) *bool { return &c.Core.Underscores }),
		Flag(Command{Name: "merge_slashes", In: InHTTP | InServer, Default: "on", Doc: "Merges adjacent slashes of the URI."}, func(c *Conf) *bool { return &c.Core.MergeSlashes }),
		Offset(Command{Name: "client_max_body_size", In: inHTTPLevels, Default: "1m", Doc: "Sets how large a request body may be; 0 for any size."}, func(c *Conf) *int64 { return &c.Core.MaxBodySize }),
		Size(Command{Name: "client_body_buffer_size", In: inHTTPLevels, Default: "16k", Doc: "Sets how much of a request body is kept in memory."}, func(c *Conf) *int64 { return &c.Core.BodyBuffer }),
		Time(Command{Name: "client_body_timeout", In: inHTTPLevels, Default: "60s", Doc: "Sets the time between two reads of a request body."}, func(c *Conf) *time.Duration { return &c.Core.BodyTimeout }),
		Enum(Command{Name: "client_body_in_file_only", In: inHTTPLevels, Default: "off", Doc: "Saves request bodies in files."}, []string{"off", "on", "clean"}, func(c *Conf) *int { return &c.Core.BodyInFile }),
		Time(Command{Name: "send_timeout", In: inHTTPLevels, Default: "60s", Doc: "Sets the time between two writes to the client."}, func(c *Conf) *time.Duration { return &c.Core.SendTimeout }),
		Flag(Command{Name: "reset_timedout_connection", In: inHTTPLevels, Default: "off", Doc: "Resets connections that timed out."}, func(c *Conf) *bool { return &c.Core.ResetTimedOut }),
		Flag(Command{Name: "tcp_nodelay", In: inHTTPLevels | inStreamLevels, Default: "on", Doc: "Sends small pieces at once."}, func(c *Conf) *bool { return &c.Core.TCPNoDelay }),
		Enum(Command{Name: "lingering_close", In: inHTTPLevels, Default: "on", Doc: "Controls how connections with unread data are closed."}, []string{"off", "on", "always"}, func(c *Conf) *int { return &c.Core.LingeringClose }),
		Time(Command{Name: "lingering_time", In: inHTTPLevels, Default: "30s", Doc: "Sets how long unread data is discarded."}, func(c *Conf) *time.Duration { return &c.Core.LingeringTime }),
		Time(Command{Name: "lingering_timeout", In: inHTTPLevels, Default: "5s", Doc: "Sets how long to wait for more unread data."}, func(c *Conf) *time.Duration { return &c.Core.LingeringTimeout }),
		Time(Command{Name: "keepalive_time", In: inHTTPLevels, Default: "1h", Doc: "Sets how long a connection may be kept alive."}, func(c *Conf) *time.Duration { return &c.Core.KeepaliveTime }),
		Time(Command{Name: "keepalive_min_timeout", In: inHTTPLevels, Default: "0", Doc: "Sets how long an idle connection stays open at shutdown."}, func(c *Conf) *time.Duration { return &c.Core.KeepaliveMinTimeout }),
		Number(Command{Name: "keepalive_requests", In: inHTTPLevels, Default: "1000", Doc: "Sets how many requests one connection may carry."}, func(c *Conf) *int { return &c.Core.KeepaliveRequests }),
		Enum(Command{Name: "server_tokens", In: inHTTPLevels, Default: "on", Doc: "Shows or hides the version in answers."}, []string{"off", "on", "build"}, func(c *Conf) *int { return &c.Core.ServerTokens }),
		Flag(Command{Name: "chunked_transfer_encoding", In: inHTTPLevels, Default: "on", Doc: "Allows chunked answers."}, func(c *Conf) *bool { return &c.Core.ChunkedTransferEncoding }),
		Flag(Command{Name: "recursive_error_pages", In: inHTTPLevels, Default: "off", Doc: "Allows an error page to have an error page."}, func(c *Conf) *bool { return &c.Core.RecursiveErrorPages }),
		Text(Command{Name: "post_action", In: inHTTPLevels | InLocationIf, Syntax: "uri | @name", Doc: "Processes the request once more, with this URI, when it has been answered."}, func(c *Conf) *string { return &c.Core.PostAction }),
		Flag(Command{Name: "absolute_redirect", In: inHTTPLevels, Default: "on", Doc: "Makes redirects absolute."}, func(c *Conf) *bool { return &c.Core.AbsoluteRedirect }),
		Flag(Command{Name: "server_name_in_redirect", In: inHTTPLevels, Default: "off", Doc: "Uses the first server name in redirects."}, func(c *Conf) *bool { return &c.Core.ServerNameInRedirect }),
		Flag(Command{Name: "port_in_redirect", In: inHTTPLevels, Default: "on", Doc: "Puts the port into redirects."}, func(c *Conf) *bool { return &c.Core.PortInRedirect }),
		Flag(Command{Name: "msie_padding", In: inHTTPLevels, Default: "on", Doc: "Pads error pages for browsers that hide short ones."}, func(c *Conf) *bool { return &c.Core.MSIEPadding }),
		Flag(Command{Name: "msie_refresh", In: inHTTPLevels, Default: "off", Doc: "Redirects MSIE by a refresh page."}, func(c *Conf) *bool { return &c.Core.MSIERefresh }),
		Enum(Command{Name: "satisfy", In: inHTTPLevels, Default: "all", Doc: "Asks for all or any one of the access modules."}, []string{"all", "any"}, func(c *Conf) *int { return &c.Core.Satisfy }),
		Text(Command{Name: "default_type", In: inHTTPLevels, Syntax: "mime-type", Default: "text/plain", Doc: "Sets the type of answers without a known extension."}, func(c *Conf) *string { return &c.Core.DefaultType }),
		Flag(Command{Name: "etag", In: inHTTPLevels, Default: "on", Doc: "Sends an ETag for files."}, func(c *Conf) *bool { return &c.Core.ETag }),
		Enum(Command{Name: "if_modified_since", In: inHTTPLevels, Default: "exact", Doc: "Sets how If-Modified-Since is compared."}, []string{"off", "exact", "before"}, func(c *Conf) *int { return &c.Core.IfModifiedSince }),
		Number(Command{Name: "max_ranges", In: inHTTPLevels, Default: "unlimited", Doc: "Limits the ranges of one request."}, func(c *Conf) *int { return &c.Core.MaxRanges }),
		Flag(Command{Name: "log_not_found", In: inHTTPLevels, Default: "on", Doc: "Logs files that do not exist."}, func(c *Conf) *bool { return &c.Core.LogNotFound }),
		Flag(Command{Name: "log_subrequest", In: inHTTPLevels, Default: "off", Doc: "Logs subrequests."}, func(c *Conf) *bool { return &c.Core.LogSubrequest }),
		Size(Command{Name: "subrequest_output_buffer_size", In: inHTTPLevels, Default: "4k", Doc: "Sets how large the answer of a subrequest may be that is kept in memory."}, func(c *Conf) *int64 { return &c.Core.SubrequestBuffer }),
		Flag(Command{Name: "sendfile", In: inHTTPLevels | InLocationIf, Default: "on", Doc: "Sends files by sendfile(2)."}, func(c *Conf) *bool { return &c.Core.Sendfile }),
	}
	rows = append(rows, resolverRows()...)
	return append(append(rows, gzipCoreCommands()...), coreTuning()...)
}

// setKeepaliveTimeout reads "timeout [header_timeout]".
func setKeepaliveTimeout(l *Level, d *parser.Directive) error {
	c := &l.Conf.Core
	t, ok := parseTime(d.Args[0].Value, false)
	if !ok {
		return errAt(d.Args[0], "Y010", "units are ms s m h d w", "invalid value")
	}
	c.KeepaliveTimeout, c.KeepaliveHeader = t, 0
	if len(d.Args) == 1 {
		return nil
	}
	if c.KeepaliveHeader, ok = parseTime(d.Args[1].Value, true); !ok {
		return errAt(d.Args[1], "Y010", "units are s m h d w M y", "invalid value")
	}
	return nil
}

// setRate reads a size that may hold variables.
func setRate(field func(*Conf) **Value) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		v, err := l.value(d.Args[0].Value)
		if err != nil {
			return err
		}
		if text, static := v.Static(); static {
			if _, ok := parseSize(text); !ok {
				return errAt(d.Args[0], "Y009", "sizes are digits and end in k or m", "invalid value")
			}
		}
		*field(l.Conf) = v
		return nil
	}
}

// tempPath is a folder for temporary files and the lengths of its sub-folders.
type tempPath struct {
	path   string
	levels []int
}

// setTempPath reads "path [level1 [level2 [level3]]]".
func setTempPath(field func(*Conf) *tempPath) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		p := tempPath{path: l.c.opts.prefixed(d.Args[0].Value)}
		deep := 0
		for _, a := range d.Args[1:] {
			n, ok := parseNumber(a.Value)
			if deep += n; !ok || n < 1 || deep > tempNameSize {
				return errAt(a, "Y009", "levels are numbers of digits out of ten", "invalid value")
			}
			p.levels = append(p.levels, n)
		}
		*field(l.Conf) = p
		return nil
	}
}
