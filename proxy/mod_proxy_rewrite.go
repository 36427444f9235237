package proxy

import (
	"bytes"
	"strings"

	"proxyctl/parser"
)

// proxy_redirect, proxy_cookie_domain, proxy_cookie_path, proxy_cookie_flags:
// what servers say about themselves is put into the words of this one.

// rewriteRules are the rules of one of the directives. The first that matches
// counts.
type rewriteRules struct {
	off   bool
	rules []rewriteRule
	level *Level
}

// rewriteRule replaces what it matches.
type rewriteRule struct {
	regex       *regex
	pattern     *Value // a prefix, or a whole domain
	domain      bool
	replacement *Value
}

// rule begins a rule of this level; "off" stands alone.
func (r *rewriteRules) rule(l *Level, off bool) (*rewriteRule, error) {
	if r.level == l && (r.off || off) {
		return nil, errDuplicate
	}
	if r.level != l {
		*r = rewriteRules{level: l}
	}
	if off {
		r.off = true
		return nil, nil
	}
	r.rules = append(r.rules, rewriteRule{})
	return &r.rules[len(r.rules)-1], nil
}

// setProxyRedirect reads "default", "off" or "redirect replacement".
func setProxyRedirect(l *Level, d *parser.Directive) error {
	c, word := &l.Conf.Proxy, d.Args[0].Value
	if len(d.Args) == 1 && word != "off" && word != "default" {
		return sayAt(d.Args[0], "", `one argument is "default" or "off"`, "invalid parameter %q", word)
	}
	rule, err := c.redirects.rule(l, len(d.Args) == 1 && word == "off")
	if rule == nil || err != nil {
		return err
	}
	if len(d.Args) == 2 {
		return rule.set(l, d, regexPrefixed)
	}
	if c.passedIn != l {
		return say("\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive")
	}
	if c.target.value != nil {
		return say("\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables")
	}
	*rule = c.target.redirect()
	return nil
}

// redirect is what "default" means.
func (t *passTarget) redirect() rewriteRule {
	if len(t.vars.uri) > 0 {
		return rewriteRule{pattern: &Value{text: t.url}, replacement: &Value{text: string(t.vars.location)}}
	}
	return rewriteRule{pattern: &Value{text: t.url + "/"}, replacement: &Value{text: "/"}}
}

// defaultRedirect gives the level of a proxy_pass the default rule, unless it
// or a level around it has rules.
func (c *proxyConf) defaultRedirect() {
	if !c.redirects.off && c.redirects.rules == nil && c.target != nil && c.target.value == nil {
		c.redirects.rules = []rewriteRule{c.target.redirect()}
	}
}

// regexForm says how a directive marks regular expressions.
type regexForm uint8

const (
	regexPrefixed regexForm = iota // ~ and ~*
	regexCaseless                  // ~ ignores case
)

// set reads "pattern replacement".
func (r *rewriteRule) set(l *Level, d *parser.Directive, form regexForm) error {
	text := d.Args[0].Value
	var err error
	if pattern, isRegex := strings.CutPrefix(text, "~"); isRegex {
		caseless := form == regexCaseless
		if form == regexPrefixed {
			pattern, caseless = strings.CutPrefix(pattern, "*")
		}
		if r.regex, err = l.regex(pattern, caseless, d.Args[0]); err != nil {
			return err
		}
	} else {
		if r.domain {
			text = strings.TrimPrefix(text, ".")
		}
		if r.pattern, err = l.value(text); err != nil {
			return err
		}
	}
	text = d.Args[1].Value
	if r.domain && r.regex == nil {
		text = strings.TrimPrefix(text, ".")
	}
	r.replacement, err = l.value(text)
	return err
}

// cookieRule reads what proxy_cookie_domain and proxy_cookie_path share.
func (r *rewriteRules) cookieRule(l *Level, d *parser.Directive, form regexForm, domain bool) error {
	if len(d.Args) == 1 && d.Args[0].Value != "off" {
		return sayAt(d.Args[0], "", `one argument is "off"`, "invalid parameter %q", d.Args[0].Value)
	}
	rule, err := r.rule(l, len(d.Args) == 1)
	if rule == nil || err != nil {
		return err
	}
	rule.domain = domain
	return rule.set(l, d, form)
}

func setCookieDomain(l *Level, d *parser.Directive) error {
	return l.Conf.Proxy.domains.cookieRule(l, d, regexCaseless, true)
}

func setCookiePath(l *Level, d *parser.Directive) error {
	return l.Conf.Proxy.paths.cookieRule(l, d, regexPrefixed, false)
}

// rewrite applies the first rule that matches value[prefix:]. The result lives
// as long as the exchange.
func (r *rewriteRules) rewrite(x *Exchange, value []byte, prefix int) ([]byte, bool) {
	if r.off {
		return value, false
	}
	for i := range r.rules {
		if out, ok := r.rules[i].apply(x, value, prefix); ok {
			return out, true
		}
	}
	return value, false
}

func (r *rewriteRule) apply(x *Exchange, value []byte, prefix int) ([]byte, bool) {
	from, length := prefix, len(value)-prefix
	switch {
	case r.regex != nil:
		if !x.matchRegex(r.regex, value[prefix:]) {
			return nil, false
		}
	case r.domain:
		if length > 0 && value[prefix] == '.' {
			from, length = prefix+1, length-1
		}
		if !bytes.EqualFold(r.pattern.Bytes(x), value[from:]) {
			return nil, false
		}
	default:
		pattern := r.pattern.Bytes(x)
		if !bytes.HasPrefix(value[prefix:], pattern) {
			return nil, false
		}
		length = len(pattern)
	}
	start := len(x.arena)
	x.arena = append(x.arena, value[:from]...)
	x.arena = r.replacement.Append(x.arena, x)
	x.arena = append(x.arena, value[from+length:]...)
	return x.arena[start:len(x.arena):len(x.arena)], true
}

// cookieFlagRules are the rules of proxy_cookie_flags.
type cookieFlagRules struct {
	off   bool
	rules []cookieFlagRule
	level *Level
}

// cookieFlagRule sets flags of the cookies it matches.
type cookieFlagRule struct {
	regex *regex
	name  *Value
	flags []*Value
}

func setCookieFlags(l *Level, d *parser.Directive) error {
	c := &l.Conf.Proxy.flags
	if len(d.Args) == 1 && d.Args[0].Value != "off" {
		return sayAt(d.Args[0], "", `one argument is "off"`, "invalid parameter %q", d.Args[0].Value)
	}
	off := len(d.Args) == 1
	if c.level == l && (c.off || off) {
		return errDuplicate
	}
	if c.level != l {
		*c = cookieFlagRules{level: l}
	}
	if off {
		c.off = true
		return nil
	}
	rule := cookieFlagRule{}
	var err error
	if pattern, isRegex := strings.CutPrefix(d.Args[0].Value, "~"); isRegex {
		rule.regex, err = l.regex(pattern, true, d.Args[0])
	} else {
		rule.name, err = l.value(d.Args[0].Value)
	}
	if err != nil {
		return err
	}
	for _, a := range d.Args[1:] {
		v, err := l.value(a.Value)
		if err != nil {
			return err
		}
		rule.flags = append(rule.flags, v)
	}
	c.rules = append(c.rules, rule)
	return nil
}

// rewriteAddress applies proxy_redirect.
func (c *proxyConf) rewriteAddress(x *Exchange, value []byte, from int) ([]byte, bool) {
	return c.redirects.rewrite(x, value, from)
}

// changesCookies says whether Set-Cookie needs a look.
func (c *proxyConf) changesCookies() bool {
	return len(c.domains.rules)+len(c.paths.rules)+len(c.flags.rules) > 0
}

// cookiePart is the pair or an attribute of a Set-Cookie value.
type cookiePart struct {
	name, value []byte
	hasValue    bool
	dropped     bool
}

// rewriteCookie changes a Set-Cookie value (ngx_http_proxy_rewrite_cookie).
func (c *proxyConf) rewriteCookie(x *Exchange, value []byte) []byte {
	if !c.changesCookies() {
		return value
	}
	var room [8]cookiePart
	parts := parseCookie(room[:0], value)
	if !parts[0].hasValue {
		return value
	}
	changed := false
	for i := 1; i < len(parts); i++ {
		p := &parts[i]
		if !p.hasValue {
			continue
		}
		ok := false
		switch {
		case equalFold(p.name, "domain"):
			p.value, ok = c.domains.rewrite(x, p.value, 0)
		case equalFold(p.name, "path"):
			p.value, ok = c.paths.rewrite(x, p.value, 0)
		}
		changed = changed || ok
	}
	if flags := c.flags.find(x, parts[0].name); flags != 0 {
		parts = editCookieFlags(parts, flags)
		changed = true
	}
	if !changed {
		return value
	}
	start := len(x.arena)
	for i := range parts {
		if parts[i].dropped {
			continue
		}
		if i > 0 {
			x.arena = append(x.arena, "; "...)
		}
		x.arena = append(x.arena, parts[i].name...)
		if parts[i].hasValue {
			x.arena = append(append(x.arena, '='), parts[i].value...)
		}
	}
	return x.arena[start:len(x.arena):len(x.arena)]
}

// parseCookie splits at ";" and "=".
func parseCookie(parts []cookiePart, value []byte) []cookiePart {
	for more := true; more; {
		var item []byte
		item, value, more = bytes.Cut(value, []byte(";"))
		name, v, has := bytes.Cut(item, []byte("="))
		parts = append(parts, cookiePart{name: bytes.Trim(name, " "), value: bytes.Trim(v, " "), hasValue: has})
	}
	return parts
}

// The flags of a cookie, in the order of cookieFlagWords.
const (
	cookieSecure = 1 << iota
	cookieNoSecure
	cookieHTTPOnly
	cookieNoHTTPOnly
	cookieStrict
	cookieLax
	cookieNone
	cookieNoSameSite
)

func cookieFlag(word []byte) uint {
	for i, w := range [...]string{
		"secure", "nosecure", "httponly", "nohttponly", "samesite=strict", "samesite=lax", "samesite=none", "nosamesite",
	} {
		if equalFold(word, w) {
			return 1 << i
		}
	}
	return 0
}

// find gives the flags of the first rule for a cookie.
func (r *cookieFlagRules) find(x *Exchange, cookie []byte) uint {
	if r.off {
		return 0
	}
	for i := range r.rules {
		rule := &r.rules[i]
		if rule.regex != nil {
			if !x.matchRegex(rule.regex, cookie) {
				continue
			}
		} else if !bytes.EqualFold(rule.name.Bytes(x), cookie) {
			continue
		}
		flags := uint(0)
		for _, f := range rule.flags {
			flags |= cookieFlag(f.Bytes(x))
		}
		return flags
	}
	return 0
}

// editCookieFlags changes the flags that are there and adds the rest.
func editCookieFlags(parts []cookiePart, flags uint) []cookiePart {
	for i := 1; i < len(parts); i++ {
		p := &parts[i]
		switch {
		case equalFold(p.name, "secure"):
			p.dropped = flags&(cookieSecure|cookieNoSecure) == cookieNoSecure
			flags &^= cookieSecure
		case equalFold(p.name, "httponly"):
			p.dropped = flags&(cookieHTTPOnly|cookieNoHTTPOnly) == cookieNoHTTPOnly
			flags &^= cookieHTTPOnly
		case equalFold(p.name, "samesite"):
			word, bit := sameSite(flags)
			switch {
			case word != "" && !equalFold(p.value, word):
				*p = cookiePart{name: []byte("SameSite"), value: []byte(word), hasValue: true}
			case word == "" && flags&cookieNoSameSite != 0:
				p.dropped = true
			}
			flags &^= bit
		}
	}
	if flags&cookieSecure != 0 {
		parts = append(parts, cookiePart{name: []byte("Secure")})
	}
	if flags&cookieHTTPOnly != 0 {
		parts = append(parts, cookiePart{name: []byte("HttpOnly")})
	}
	if word, _ := sameSite(flags); word != "" {
		parts = append(parts, cookiePart{name: []byte("SameSite"), value: []byte(word), hasValue: true})
	}
	return parts
}

// sameSite gives the word of the strictest SameSite flag, and its bit.
func sameSite(flags uint) (string, uint) {
	switch {
	case flags&cookieStrict != 0:
		return "Strict", cookieStrict
	case flags&cookieLax != 0:
		return "Lax", cookieLax
	case flags&cookieNone != 0:
		return "None", cookieNone
	}
	return "", 0
}
