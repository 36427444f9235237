package proxy

import (
	"io/fs"
	"strings"

	"proxyctl/parser"
)

// ngx_http_rewrite_module: set, if, rewrite, return and break. The directives
// of a level are compiled to a Script (script.go), in the order of the file,
// with the bodies of if blocks in their place.

func rewriteModule() Module {
	const in = InServer | InServerIf | InLocation | InLocationIf
	flags := InHTTP | in
	return Module{
		Name: "ngx_http_rewrite_module",
		Commands: []Command{
			{
				Name: "rewrite", In: in, Args: "2,3", Repeat: true, Syntax: "regex replacement [last | break | redirect | permanent]",
				Differs: "control characters in a Location that variables or captures make are escaped", DiffersIn: hasWord("redirect", "permanent"),
				Doc: "Changes the URI of requests that match.", Set: setRewrite,
			},
			{
				Name: "return", In: in, Args: "1,2", Repeat: true, Syntax: "code [text] | code URL | URL",
				Differs: "control characters in a Location that variables make are escaped", DiffersIn: hasDecoded,
				Doc: "Stops processing and answers.", Set: setReturn,
			},
			{Name: "break", In: in, Args: "0", Repeat: true, Doc: "Stops processing rewrite directives.", Set: setBreak},
			{
				Name: "if", In: InServer | InLocation, Args: "1+", Block: true, Repeat: true, Syntax: "(condition)",
				Doc: "Applies directives when a condition holds.", Set: setIf,
			},
			{Name: "set", In: in, Args: "2", Repeat: true, Syntax: "$variable value", Doc: "Sets a variable.", Set: setSet},
			Flag(Command{Name: "rewrite_log", In: flags, Default: "off", Doc: "Logs what rewrite directives do, at level notice."},
				func(c *Conf) *bool { return &c.Rewrite.Log }),
			Flag(Command{Name: "uninitialized_variable_warn", In: flags, Default: "on", Doc: "Logs warnings about variables that were never set."},
				func(c *Conf) *bool { return &c.Rewrite.UninitializedWarn }),
		},
		Init: func(c *Conf) { c.Rewrite.UninitializedWarn = true },
	}
}

// rewriteConf is what the module knows at a level, beside its Script.
type rewriteConf struct {
	Log               bool
	UninitializedWarn bool
}

// steps gives the script of the level, made at its first directive, for one
// step to be added.
func (l *Level) steps() *Script {
	if l.script == nil {
		l.script = &Script{}
		l.Conf.Own.Script = l.script
	}
	l.script.said = append(l.script.said, l.c.now)
	return l.script
}

func setBreak(l *Level, _ *parser.Directive) error {
	l.steps().add(func(x *Exchange) (Code, bool) {
		if x.uriChanged {
			x.locationValid, x.uriChanged = false, false
		}
		return Declined, true
	})
	return nil
}

func setReturn(l *Level, d *parser.Directive) error {
	code := d.Args[0]
	status, ok := parseNumber(code.Value)
	r := &returnAnswer{status: status}
	target := ""
	switch {
	case ok && status > 999, !ok && (len(d.Args) != 1 || !isRedirect(code.Value)):
		return sayAt(code, "", `a status: "return 404", or a URL: "return https://example.com/"`, "invalid return code \"%s\"", code.Value)
	case !ok:
		r.status, target = 302, code.Value
	case len(d.Args) == 2:
		target = d.Args[1].Value
	}
	if target != "" {
		v, err := l.value(target)
		if err != nil {
			return err
		}
		r.text = v
	}
	l.steps().add(r.run)
	return nil
}

// isRedirect tells a target that is a URL of its own.
func isRedirect(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "$scheme")
}

func setRewrite(l *Level, d *parser.Directive) error {
	replacement := d.Args[1].Value
	if replacement == "" {
		return sayAt(d.Args[1], "", "", "empty replacement")
	}
	re, err := l.regex(d.Args[0].Value, false, d.Args[0])
	if err != nil {
		return err
	}
	r := &uriRewrite{re: re}
	var dropped bool
	replacement, dropped = strings.CutSuffix(replacement, "?")
	r.addArgs = !dropped
	if isRedirect(replacement) {
		r.status, r.stop = 302, true
	}
	if len(d.Args) == 3 {
		if err := r.flag(d.Args[2]); err != nil {
			return err
		}
	}
	if err := r.compile(l, replacement); err != nil {
		return err
	}
	l.steps().add(r.run)
	return nil
}

func (r *uriRewrite) flag(a parser.Arg) error {
	switch a.Value {
	case "last":
	case "break":
		r.breaks = true
	case "redirect":
		r.status = 302
	case "permanent":
		r.status = 301
	default:
		return sayAt(a, "", "one of last, break, redirect, permanent", "invalid parameter \"%s\"", a.Value)
	}
	r.stop = true
	return nil
}

// compile takes the replacement apart: a new URI's arguments begin at its
// first "?", in a redirect all is one text.
func (r *uriRewrite) compile(l *Level, replacement string) error {
	path, args, hasArgs := strings.Cut(replacement, "?")
	r.hasArgs = hasArgs
	if r.status != 0 {
		path = replacement
	}
	var err error
	if r.uri, err = l.scriptText(path); err != nil {
		return err
	}
	if r.status == 0 && hasArgs {
		r.args, err = l.scriptText(args)
	}
	return err
}

func setSet(l *Level, d *parser.Directive) error {
	v, err := l.assigned(d.Args[0])
	if err != nil {
		return err
	}
	if v.slot >= 0 && v.fill == nil {
		v.fill = l.c.names.vars.weak(v.name)
	}
	value, err := l.scriptText(d.Args[1].Value)
	if err != nil {
		return err
	}
	l.steps().add(func(x *Exchange) (Code, bool) {
		v.set(x, value.bytes(x))
		return Declined, false
	})
	return nil
}

// weak gives what a variable that set defines holds before set is reached, when
// the name also has a built-in meaning by its prefix: "set $http_x_id new"
// leaves the header readable until then (nginx: NGX_HTTP_VAR_WEAK).
func (vs *variables) weak(name string) func(*Exchange, *slot) {
	p := vs.prefixed(name)
	if p == nil {
		return nil
	}
	rest := name[len(p.Name):]
	return func(x *Exchange, s *slot) {
		b, found := p.Get(x.borrow(), x, rest)
		s.value, s.state = x.keep(b), slotMissing
		if found {
			s.state = slotSet
		}
		x.giveBack(b)
	}
}

// setIf compiles the condition in its place; the body inherits the finished
// level around it.
func setIf(l *Level, d *parser.Directive) error {
	test, err := l.condition(d)
	if err != nil {
		return err
	}
	inner := &Script{}
	loc := &Location{Kind: Nameless, Name: l.Location.Name, server: l.Server, Place: d.Name.Range}
	in := InServerIf
	if l.Context == InLocation {
		in = InLocationIf
	}
	l.steps().add(func(x *Exchange) (Code, bool) {
		switch holds, err := test(x); {
		case err != nil:
			return 500, true
		case !holds:
			return Declined, false
		}
		if in == InLocationIf {
			x.loc = loc
			x.enter()
		}
		return inner.exec(x)
	})
	l.script.ifs = append(l.script.ifs, loc)
	l.Later(func() {
		loc.Conf = l.Conf.child(in)
		body := l.c.level(in, l, &loc.Conf)
		body.Location, body.script = loc, inner
		l.c.body(body, d.Block)
	})
	return nil
}

// condition is a compiled condition of if. An error ends the request.
type condition func(x *Exchange) (bool, error)

// condition reads the words between the parentheses, which may be written
// together with them (ngx_http_rewrite_if_condition).
func (l *Level) condition(d *parser.Directive) (condition, error) {
	words := append([]parser.Arg(nil), d.Args...)
	first, last := 0, len(words)-1
	if !strings.HasPrefix(words[0].Value, "(") {
		return nil, invalidCondition(words[0])
	}
	if words[0].Value == "(" {
		first++
	} else {
		words[0].Value = words[0].Value[1:]
	}
	if !strings.HasSuffix(words[last].Value, ")") {
		return nil, invalidCondition(words[last])
	}
	if words[last].Value == ")" {
		last--
	} else {
		words[last].Value = strings.TrimSuffix(words[last].Value, ")")
	}
	if first > last {
		return nil, invalidCondition(words[first])
	}
	words = words[first : last+1]
	word := words[0].Value
	switch {
	case len(word) > 1 && word[0] == '$':
		return l.variableCondition(words)
	case len(word) == 2 && word[0] == '-', len(word) == 3 && word[:2] == "!-":
		return l.fileCondition(words)
	}
	return nil, invalidCondition(words[0])
}

func invalidCondition(a parser.Arg) error {
	return sayAt(a, "", `conditions are ($variable), ($variable = text), ($variable ~ regex) and (-f file)`, "invalid condition \"%s\"", a.Value)
}

// variableCondition is $variable alone or compared.
func (l *Level) variableCondition(words []parser.Arg) (condition, error) {
	name := words[0].Value[1:]
	if len(words) != 1 && len(words) != 3 {
		return nil, invalidCondition(words[0])
	}
	v := l.c.names.vars.use(name)
	if len(words) == 1 {
		return func(x *Exchange) (bool, error) {
			b, _ := v.get(x.borrow(), x)
			holds := isTrue(b)
			x.giveBack(b)
			return holds, nil
		}, nil
	}
	op := words[1].Value
	switch op {
	case "=", "!=":
		return l.equality(v, words[2].Value, op == "=")
	case "~", "~*", "!~", "!~*":
		re, err := l.regex(words[2].Value, strings.HasSuffix(op, "*"), words[2])
		if err != nil {
			return nil, err
		}
		return matching(v, re, op[0] != '!'), nil
	}
	return nil, sayAt(words[1], "", "one of = != ~ ~* !~ !~*", "unexpected \"%s\" in condition", op)
}

func (l *Level) equality(v *variable, s string, want bool) (condition, error) {
	other, err := l.scriptText(s)
	if err != nil {
		return nil, err
	}
	return func(x *Exchange) (bool, error) {
		b, _ := v.get(x.borrow(), x)
		holds := other.equals(x, b) == want
		x.giveBack(b)
		return holds, nil
	}, nil
}

func matching(v *variable, re *regex, want bool) condition {
	return func(x *Exchange) (bool, error) {
		b, _ := v.get(x.borrow(), x)
		subject := b
		if re.Captures() > 0 {
			subject = x.keep(b)
		}
		matched, err := x.scriptMatch(re, subject)
		x.giveBack(b)
		return matched == want, err
	}
}

// fileCondition is a test of a file.
func (l *Level) fileCondition(words []parser.Arg) (condition, error) {
	op := words[0].Value
	if len(words) != 2 {
		return nil, invalidCondition(words[0])
	}
	path, err := l.scriptText(words[1].Value)
	if err != nil {
		return nil, err
	}
	want := op[0] != '!'
	var test func(mode fs.FileMode) bool
	switch op[len(op)-1] {
	case 'f':
		test = fs.FileMode.IsRegular
	case 'd':
		test = fs.FileMode.IsDir
	case 'e':
		test = func(mode fs.FileMode) bool { return mode.IsRegular() || mode.IsDir() }
	case 'x':
		test = func(mode fs.FileMode) bool { return mode&0o100 != 0 }
	default:
		return nil, invalidCondition(words[0])
	}
	return func(x *Exchange) (bool, error) {
		mode, found := x.fileMode(path.bytes(x))
		return (found && test(mode)) == want, nil
	}, nil
}
