package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
	"proxyctl/proxy/match"
	"proxyctl/proxy/pcre"
)

// ngx_http_referer_module: tells whether a request comes from a page that is
// allowed to link here.

func refererModule() Module {
	rows := []Command{{
		Name: "valid_referers", In: InServer | InLocation, Args: "1+", Repeat: true, Syntax: "none | blocked | server_names | string ...",
		Doc: "Sets the Referer values that are valid.", Set: setValidReferers,
	}}
	return Module{
		Name:     "ngx_http_referer_module",
		Commands: append(rows, Ignored(InServer|InLocation, "1", "look-up tables size themselves", "referer_hash_max_size", "referer_hash_bucket_size")...),
		Variables: []Variable{{
			Name: "invalid_referer", Changeable: true,
			Get: func(dst []byte, x *Exchange, _ string) ([]byte, bool) {
				if x.loc.Conf.Referer.invalid(x) {
					dst = append(dst, '1')
				}
				return dst, true
			},
		}},
		Finish: finishReferers,
	}
}

// refererConf is what the module knows at a level.
type refererConf struct {
	none, blocked, serverNames bool

	level       *Level // that has valid_referers
	names       *match.Names[*refererName]
	count       int
	builder     *match.NamesBuilder[*refererName]
	regexes     List[*pcre.Regexp]
	nameRegexes []*regex // of server_name
}

// refererName is a host and what its URI must begin with.
type refererName struct{ uri []byte }

func setValidReferers(l *Level, d *parser.Directive) error {
	c := &l.Conf.Referer
	if c.level != l {
		*c = refererConf{level: l, builder: match.NewNames[*refererName](), regexes: c.regexes, nameRegexes: c.nameRegexes}
	}
	for _, a := range d.Args {
		switch {
		case a.Value == "":
			return sayAt(a, "", "", "invalid referer \"%s\"", a.Value)
		case a.Value == "none":
			c.none = true
		case a.Value == "blocked":
			c.blocked = true
		case a.Value == "server_names":
			c.serverNames = true
		case a.Value == "~":
			return sayAt(a, "", "", "empty regex in \"%s\"", a.Value)
		case a.Value[0] == '~':
			re, err := pcre.Compile(a.Value[1:], pcre.Options{Caseless: true})
			if err != nil {
				return sayAt(a, "Y013", "", "%s", err.Error())
			}
			c.regexes.Add(l, re)
		default:
			host, uri := a.Value, ""
			if i := strings.IndexByte(host, '/'); i >= 0 {
				host, uri = host[:i], host[i:]
			}
			if err := c.add(host, uri, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *refererConf) add(host, uri string, a parser.Arg) error {
	existed, err := c.builder.Add(host, &refererName{[]byte(uri)})
	switch {
	case err != nil:
		return sayAt(a, "", "wildcards are *.example.com, .example.com and www.example.*", "invalid hostname or wildcard \"%s\"", host)
	case existed:
		return sayAt(a, "Y011", "", "conflicting parameter \"%s\"", host)
	}
	c.count++
	return nil
}

// finishReferers adds the server's names and builds the look-up.
func finishReferers(l *Level) error {
	c := &l.Conf.Referer
	if c.level != l {
		return nil
	}
	if c.serverNames && l.Server != nil {
		c.nameRegexes = nil
		names := l.Server.Names
		if len(names) == 0 {
			names = []serverName{{}}
		}
		for _, n := range names {
			if n.regex != nil {
				c.nameRegexes = append(c.nameRegexes, n.regex)
			} else if err := c.add(n.text, "", n.arg); err != nil {
				return err
			}
		}
	}
	if (c.none || c.blocked) && c.count == 0 {
		l.c.failLater(parser.Error, l.end, parser.Range{}, "", "add a name or server_names",
			"the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any valid referer")
	}
	c.names, c.builder = c.builder.Build(), nil
	return nil
}

// invalid says whether the referer is not one of the valid ones
// (ngx_http_referer_variable).
func (c *refererConf) invalid(x *Exchange) bool {
	if c.count == 0 && len(c.regexes.Items)+len(c.nameRegexes) == 0 {
		return false
	}
	v, ok := x.Header(http1.Referer)
	if !ok {
		return !c.none
	}
	rest, ok := cutScheme(v)
	if !ok {
		return !c.blocked
	}
	end := bytes.IndexAny(rest, "/:")
	if end < 0 {
		end = len(rest)
	}
	if end > 256 {
		return true
	}
	host := bytes.ToLower(rest[:end])
	if c.names != nil {
		if n, ok := c.names.Lookup(host); ok {
			return !hasURI(rest[end:], n.uri)
		}
	}
	for _, re := range c.nameRegexes {
		if matched, _ := re.Test(host); matched {
			return false
		}
	}
	for _, re := range c.regexes.Items {
		if matched, _ := re.Test(rest); matched {
			return false
		}
	}
	return true
}

// cutScheme cuts "http://" or "https://" off.
func cutScheme(v []byte) ([]byte, bool) {
	if len(v) >= len("http://i.ru") {
		for _, scheme := range []string{"http://", "https://"} {
			if equalFold(v[:len(scheme)], scheme) {
				return v[len(scheme):], true
			}
		}
	}
	return nil, false
}

// hasURI says whether what follows a host begins, behind a port, with a path.
func hasURI(rest, uri []byte) bool {
	if len(uri) == 0 {
		return true
	}
	i := bytes.IndexByte(rest, '/')
	return i >= 0 && bytes.HasPrefix(rest[i:], uri)
}
