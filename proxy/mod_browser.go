package proxy

import (
	"bytes"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// ngx_http_browser_module: tells modern browsers from ancient ones.

func browserModule() Module {
	const in = inHTTPLevels
	is := func(name string, modern bool, value func(c *browserConf) string) Variable {
		return always(name, func(dst []byte, x *Exchange) []byte {
			if c := &x.loc.Conf.Browser; c.isModern(x) == modern {
				dst = append(dst, value(c)...)
			}
			return dst
		})
	}
	return Module{
		Name: "ngx_http_browser_module",
		Commands: []Command{
			{Name: "modern_browser", In: in, Args: "1,2", Repeat: true, Syntax: "browser version | unlisted", Doc: "Sets the version from which a browser is modern.", Set: setModernBrowser},
			{Name: "ancient_browser", In: in, Args: "1+", Repeat: true, Syntax: "string ...", Doc: "Sets what makes a browser ancient.", Set: setAncientBrowser},
			Text(Command{Name: "modern_browser_value", In: in, Repeat: true, Default: "1", Doc: "Sets the value of $modern_browser."}, func(c *Conf) *string { return &c.Browser.modernValue }),
			Text(Command{Name: "ancient_browser_value", In: in, Repeat: true, Default: "1", Doc: "Sets the value of $ancient_browser."}, func(c *Conf) *string { return &c.Browser.ancientValue }),
		},
		Variables: []Variable{
			is("modern_browser", true, func(c *browserConf) string { return c.modernValue }),
			is("ancient_browser", false, func(c *browserConf) string { return c.ancientValue }),
			always("msie", func(dst []byte, x *Exchange) []byte {
				if x.fromMSIE() {
					dst = append(dst, '1')
				}
				return dst
			}),
		},
		Init: func(c *Conf) { c.Browser.modernValue, c.Browser.ancientValue = "1", "1" },
	}
}

// browserConf is what the module knows at a level.
type browserConf struct {
	modern    List[modernBrowser]
	unlisted  bool // browsers that are not listed are modern
	ancient   List[string]
	netscape4 bool
	modernIn  *Level // that modern and unlisted were set in
	ancientIn *Level

	modernValue, ancientValue string
}

// modernBrowser is one modern_browser.
type modernBrowser struct {
	kind    int // index of browserKinds
	version uint64
}

// browserKind is how a browser names itself: word, behind skip bytes at least,
// followed by the version add bytes from its start.
type browserKind struct {
	name      string
	skip, add int
	word      string
}

// browserKinds are in the order in which they are looked for: others carry the
// words of those that stand further down, too.
func browserKinds() []browserKind {
	return []browserKind{
		{"opera", 0, len("Opera "), "Opera"},
		{"msie", len("Mozilla/4.0 (compatible; "), len("MSIE "), "MSIE "},
		{"gecko", len("Mozilla/5.0 ("), len("rv:"), "rv:"},
		{"safari", len("Mozilla/5.0 ("), len("Safari/"), "Safari/"},
		{"konqueror", len("Mozilla/5.0 (compatible; "), len("Konqueror/"), "Konqueror/"},
	}
}

// noOpera is a version that no Opera has: without a line of its own it counts
// as ancient, and not as what else it says it is.
const noOpera = 4001000000

func setModernBrowser(l *Level, d *parser.Directive) error {
	c := &l.Conf.Browser
	if c.modernIn != l {
		c.modernIn, c.unlisted, c.modern = l, false, List[modernBrowser]{}
	}
	if len(d.Args) == 1 {
		if d.Args[0].Value != "unlisted" {
			return sayAt(d.Args[0], "", "a browser and a version, or unlisted", "invalid parameter \"%s\"", d.Args[0].Value)
		}
		c.unlisted = true
		return nil
	}
	kinds := browserKinds()
	kind := slices.IndexFunc(kinds, func(k browserKind) bool { return strings.EqualFold(k.name, d.Args[0].Value) })
	if kind < 0 {
		return sayAt(d.Args[0], "", "opera, msie, gecko, safari or konqueror", "unknown browser name \"%s\"", d.Args[0].Value)
	}
	version, rest := readVersion([]byte(d.Args[1].Value))
	if len(rest) > 0 {
		return sayAt(d.Args[1], "", "", "invalid browser version \"%s\"", d.Args[1].Value)
	}
	if len(c.modern.Items) == 0 {
		c.modern.Add(l, modernBrowser{0, noOpera})
	}
	if kind == 0 && c.modern.Items[0].version == noOpera {
		c.modern.Items = slices.Delete(c.modern.Items, 0, 1)
	}
	c.modern.Add(l, modernBrowser{kind, version})
	slices.SortStableFunc(c.modern.Items, func(a, b modernBrowser) int { return a.kind - b.kind })
	return nil
}

// readVersion reads "major.minor..." as millions of the first number, tens of
// thousands of the second, and so on.
func readVersion(s []byte) (version uint64, rest []byte) {
	n, scale := uint64(0), uint64(1000000)
	for i, c := range s {
		switch {
		case c >= '0' && c <= '9':
			n = min(n*10+uint64(c-'0'), 1e9)
		case c == '.':
			version += n * scale
			n, scale = 0, scale/100
		default:
			return version + n*scale, s[i:]
		}
	}
	return version + n*scale, nil
}

func setAncientBrowser(l *Level, d *parser.Directive) error {
	c := &l.Conf.Browser
	if c.ancientIn != l {
		c.ancientIn, c.netscape4, c.ancient = l, false, List[string]{}
	}
	for _, a := range d.Args {
		if a.Value == "netscape4" {
			c.netscape4 = true
		} else {
			c.ancient.Add(l, a.Value)
		}
	}
	return nil
}

// isModern decides (ngx_http_browser).
func (c *browserConf) isModern(x *Exchange) bool {
	agent, ok := x.Header(http1.UserAgent)
	if !ok {
		return c.unlisted
	}
	kinds := browserKinds()
	for _, m := range c.modern.Items {
		k := &kinds[m.kind]
		if k.skip >= len(agent) {
			continue
		}
		i := bytes.Index(agent[k.skip:], []byte(k.word))
		if i < 0 || k.skip+i+k.add >= len(agent) {
			continue
		}
		version, _ := readVersion(agent[k.skip+i+k.add:])
		return version >= m.version
	}
	if len(c.modern.Items) > 0 && !c.unlisted {
		return false
	}
	const netscape = "Mozilla/4.72 "
	if c.netscape4 && len(agent) > len(netscape) && string(agent[:8]) == netscape[:8] && agent[8] > '0' && agent[8] < '5' {
		return false
	}
	for _, a := range c.ancient.Items {
		if bytes.Contains(agent, []byte(a)) {
			return false
		}
	}
	return c.unlisted
}
