package proxy

import (
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/match"
	"proxyctl/proxy/pcre"
)

// Conf is all that a level knows, one typed field for each module. A block
// starts with a copy of its parent's and lays its own directives over it. After
// compiling it is never written again.
type Conf struct {
	Main      *mainConf
	Core      coreConf
	Rewrite   rewriteConf
	Headers   headersConf
	Log       logConf
	Access    accessConf
	RealIP    realipConf
	Index     indexConf
	Proxy     proxyConf
	FastCGI   lent[fastcgiConf]
	UWSGI     lent[uwsgiConf]
	SCGI      lent[cgiConf]
	Memcached lent[memcachedConf]
	Tunnel    lent[upstreamConf]
	GRPC      lent[grpcConf]

	Referer     refererConf
	SecureLink  secureLinkConf
	Browser     browserConf
	Autoindex   autoindexConf
	RandomIndex bool
	GzipStatic  int
	LimitReq    limitReqConf
	LimitConn   limitConnConf
	AuthBasic   authBasicConf
	AuthRequest authRequestConf
	Mirror      mirrorConf
	Slice       int64
	Addition    additionConf
	Gunzip      gunzipConf
	Userid      useridConf
	Sub         subConf
	SSI         ssiConf
	Charset     charsetConf
	Gzip        gzipModuleConf

	SSL   sslConf
	ACME  acmeConf
	HTTP2 http2Conf
	HTTP3 http3Conf
	DAV   davConf
	MP4   mp4Conf

	Stream      streamConf
	StreamProxy streamProxyConf
	StreamSet   []assignment
	Own         Own
}

// Own is what a level never inherits.
type Own struct {
	// Content answers the request instead of the content phase's handlers
	// (nginx: clcf->handler). An if or limit_except block keeps its location's.
	Content Handler
	// Script holds the rewrite directives of this level.
	Script *Script
	// TryFiles is what try_files says.
	TryFiles *tryFiles
}

// child gives the Conf that a block inside a level starts with.
func (c *Conf) child(ctx Context) Conf {
	n := *c
	content := n.Own.Content
	n.Own = Own{}
	if ctx&(InLocationIf|InLimitExcept) != 0 {
		n.Own.Content = content
	}
	return n
}

// Server is one compiled server block.
type Server struct {
	ID    string // stable name of the block: "file:line"
	Place parser.Range
	Names []serverName
	// Level is the server's own configuration: what counts outside of every
	// location, and what a connection uses before a request is known.
	Level   *Location
	named   map[string]*Location
	acme    *ACMEOrder // of acme_certificate; nil without
	listens []*listen
	block   *parser.Directive
	// connects says that clients may ask with CONNECT: there is a tunnel_pass.
	connects bool
}

// serverName is one argument of server_name.
type serverName struct {
	text  string // lower case; "" for the empty name
	regex *regex
	arg   parser.Arg
}

// Name returns what $server_name gives: the first name of server_name, that of
// ".example.com" without its dot.
func (s *Server) Name() string {
	if len(s.Names) == 0 {
		return ""
	}
	return strings.TrimPrefix(s.Names[0].text, ".")
}

// Location is one compiled location, server, if or limit_except level: what a
// request runs under.
type Location struct {
	Conf Conf
	Name string // as in the directive, without modifier
	Kind LocationKind
	// Place is the directive, for messages and traces.
	Place parser.Range

	regex        *regex
	server       *Server
	nested       []*Location // in the order of the file
	prefixes     *match.Prefixes[*Location]
	regexes      []*Location
	autoRedirect bool   // content wants "/name/" and gets "/name" (proxy_pass)
	escapedName  []byte // Name, escaped for that redirect
	handlers     [phaseCount][]Handler
	filters      []HeaderFilter
	limitExcept  *Location
	limitAllowed methodSet
}

// LocationKind tells the five kinds of location, and the levels without a name.
type LocationKind uint8

// The kinds.
const (
	PrefixLocation  LocationKind = iota
	ExactLocation                // =
	NoRegexLocation              // ^~
	RegexLocation                // ~ and ~*
	NamedLocation                // @name
	Nameless                     // a server, if or limit_except level
)

// regex is a compiled expression and the variables its named captures set.
type regex struct {
	*pcre.Regexp
	names    []capturedName
	caseless bool
}

type capturedName struct {
	group int
	v     *variable
}

// regex compiles an expression and defines variables for its named captures.
func (l *Level) regex(pattern string, caseless bool, arg parser.Arg) (*regex, error) {
	re, err := l.c.expression(pattern, caseless)
	if err != nil {
		return nil, sayAt(arg, "Y013", "", "%s", err.Error())
	}
	r := &regex{Regexp: re, caseless: caseless}
	for group, name := range re.Names() {
		if name == "" {
			continue
		}
		v, err := l.addVariable(name, missing)
		if err != nil {
			return nil, err
		}
		r.names = append(r.names, capturedName{group, v})
	}
	return r, nil
}

// expression compiles an expression once, however often it stands in the file.
func (c *compiler) expression(pattern string, caseless bool) (*pcre.Regexp, error) {
	key := patternKey{pattern, caseless}
	if re := c.expressions[key]; re != nil {
		return re, nil
	}
	re, err := pcre.Compile(pattern, pcre.Options{Caseless: caseless})
	if err == nil {
		c.expressions[key] = re
	}
	return re, err
}

// patternKey names an expression.
type patternKey struct {
	text     string
	caseless bool
}

// missing fills the variable of a capture that has not been set.
func missing(_ *Exchange, s *slot) { s.value, s.state = nil, slotMissing }

// link prepares a finished level for requests.
func (loc *Location) link(l *Level) {
	if loc == nil {
		return
	}
	for i := range l.c.modules {
		m := &l.c.modules[i]
		if !m.serves(l.Context) {
			continue
		}
		if m.Handler != nil {
			if h := m.Handler(&loc.Conf); h != nil {
				loc.handlers[m.Phase] = append(loc.handlers[m.Phase], h)
			}
		}
		if m.Header != nil {
			if f := m.Header(&loc.Conf); f != nil {
				loc.filters = append(loc.filters, f)
			}
		}
	}
}

// index builds the look-up of the locations inside this one.
func (loc *Location) index() {
	if len(loc.nested) == 0 {
		return
	}
	b := match.NewPrefixes[*Location]()
	for _, n := range loc.nested {
		switch n.Kind {
		case RegexLocation:
			loc.regexes = append(loc.regexes, n)
		case ExactLocation:
			b.AddExact(n.Name, n)
			if n.autoRedirect {
				b.AddRedirect(n.Name)
			}
		case PrefixLocation, NoRegexLocation:
			b.AddPrefix(n.Name, n, n.autoRedirect)
		case NamedLocation, Nameless:
		}
		n.index()
	}
	loc.prefixes = b.Build()
}
