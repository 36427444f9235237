package proxy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy/pcre"
)

// Lints are what nginx accepts and an operator would not want: holes, mistakes
// that only show under load, forms that newer versions drop. They read the
// survey of a configuration (survey.go) and its regular expressions as trees,
// never the text. One file holds the rules of one topic: lint_<topic>.go.

// Rule is something that a configuration is held against.
type Rule struct {
	ID    string // "S012"
	Name  string // "server-tokens"
	Level string // error, high, medium, warning, low or info
	Title string // one line
	Doc   string // paragraphs: why it matters, what to do
}

// Severity is how findings under the rule are reported.
func (r *Rule) Severity() parser.Severity {
	switch r.Level {
	case "error":
		return parser.Error
	case "low", "info":
		return parser.Note
	}
	return parser.Warning
}

// ruleText describes all rules.
//
//go:embed lint-rules.md
var ruleText string

// Rules lists all rules in the order of their ids: those of Lint, and those
// under which the parser and the compiler report mistakes.
func Rules() []Rule {
	var out []Rule
	for section := range strings.SplitSeq("\n"+ruleText, "\n## ") {
		head, body, _ := strings.Cut(section, "\n")
		f := strings.Fields(head)
		if len(f) != 3 {
			continue // what stands before the first rule
		}
		title, doc, _ := strings.Cut(strings.TrimSpace(body), "\n")
		out = append(out, Rule{ID: f[0], Name: f[1], Level: f[2], Title: title, Doc: strings.TrimSpace(doc)})
	}
	slices.SortFunc(out, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// lintRule is the check of one rule.
type lintRule struct {
	id    string
	check func(*linter)
}

// lintRules is the one list of all checks. Where several rules speak of the
// same mistake, the more telling one comes first and the others look.
func lintRules() []lintRule {
	return slices.Concat(textRules(), securityRules(), headerRules(), accessRules(), serverRules(),
		locationRules(), rewritingRules(), proxyRules(), retiredRules(), versionRules())
}

// LintOptions say what is looked for.
type LintOptions struct {
	// Rule selects rules by their id; nil is all.
	Rule func(id string) bool
	// Offline opens no files that the configuration only names.
	Offline bool
	// Version is that of the nginx the file was written for; "" for today's.
	Version string
	// ConfDir is where relative paths of certificates begin.
	ConfDir string
}

// Lint holds a parsed configuration against the rules and returns all there is
// to say, in reading order. known is what Load said about the file: where Lint
// can name the rule, the place or a remedy of such a message, it does.
func Lint(file *parser.File, known []*parser.Diagnostic, o LintOptions) []*parser.Diagnostic {
	if slices.ContainsFunc(known, func(d *parser.Diagnostic) bool { return d.Code == tooLarge }) {
		return known
	}
	l := newLinter(file, known, o)
	for _, r := range lintRules() {
		if o.Rule == nil || o.Rule(r.id) {
			l.rule = r.id
			r.check(l)
		}
	}
	l.placeKnown()
	all := unignored(slices.Concat(known, l.found), newIgnores(file))
	slices.SortStableFunc(all, func(a, b *parser.Diagnostic) int { return parser.Compare(place(a), place(b)) })
	return once(all)
}

// once leaves one of the findings that a file gets again each time it is
// included.
func once(all []*parser.Diagnostic) []*parser.Diagnostic {
	type said struct {
		file, code, message string
		start, end          int
	}
	seen := map[said]bool{}
	return slices.DeleteFunc(all, func(d *parser.Diagnostic) bool {
		at := place(d)
		if at.IsZero() {
			return false
		}
		key := said{at.Source.Name, d.Code, d.Message, at.Start, at.End}
		again := seen[key]
		seen[key] = true
		return again
	})
}

func newLinter(file *parser.File, known []*parser.Diagnostic, o LintOptions) *linter {
	l := &linter{
		LintOptions: o, byName: map[string][]*use{}, levels: map[string]parser.Severity{},
		patterns: map[patternKey]*pattern{}, finds: map[[2]*pattern]foundText{}, covers: map[[2]*pattern]bool{},
	}
	l.root = survey(file, commandsByName())
	l.root.walk(func(u *use) { l.byName[u.Name.Value] = append(l.byName[u.Name.Value], u) })
	for _, r := range Rules() {
		l.levels[r.ID] = r.Severity()
	}
	l.known = known
	l.define()
	return l
}

// linter is a configuration under inspection.
type linter struct {
	LintOptions
	root     *scope
	rule     string // at work
	byName   map[string][]*use
	levels   map[string]parser.Severity
	known    []*parser.Diagnostic
	found    []*parser.Diagnostic
	patterns map[patternKey]*pattern
	finds    map[[2]*pattern]foundText
	covers   map[[2]*pattern]bool
	sets     map[string][]*use    // set directives by the variable's name
	maps     map[string]*use      // map and the like by the variable they define
	captures map[string][]capture // named groups
}

// all gives the well-formed statements of some names, in reading order for each
// name.
func (l *linter) all(names ...string) []*use {
	var out []*use
	for _, n := range names {
		for _, u := range l.byName[n] {
			if u.row != nil && u.row.Args.Allows(len(u.Args)) && u.row.Block == (u.body != nil) {
				out = append(out, u)
			}
		}
	}
	return out
}

// servers gives the http server blocks.
func (l *linter) servers() []*scope { return l.serversIn(InServer) }

// serversIn gives the server blocks of some contexts.
func (l *linter) serversIn(in Context) []*scope {
	var out []*scope
	for _, u := range l.all("server") {
		if u.body != nil && u.body.in&in != 0 {
			out = append(out, u.body)
		}
	}
	return out
}

// finding is a Diagnostic that is not an error to handle.
type finding parser.Diagnostic

// say reports a finding about a part of a statement.
func (l *linter) say(at parser.Range, hint, format string, args ...any) *finding {
	d := &parser.Diagnostic{
		Severity: l.levels[l.rule], Code: l.rule, Message: fmt.Sprintf(format, args...), Hint: hint, Range: at, At: at,
	}
	l.found = append(l.found, d)
	return (*finding)(d)
}

// past reports what counts for nginx before a version only: to others it is a
// note.
func (l *linter) past(version string, at parser.Range, hint, format string, args ...any) *finding {
	d := l.say(at, hint, format, args...)
	if l.Version == "" || !OlderVersion(l.Version, version) {
		d.Severity = parser.Note
	}
	return d
}

// adopt gives a message of Load about a statement, one that holds some words,
// the rule at work and a hint; nil when there is none without a rule.
func (l *linter) adopt(u *use, words, hint string) *parser.Diagnostic {
	for _, d := range l.known {
		if d.Code == "" && d.At == u.End && strings.Contains(d.Message, words) {
			d.Code = l.rule
			if hint != "" {
				d.Hint = hint
			}
			return d
		}
	}
	return nil
}

// told reports whether something was said about a statement under a rule.
func (l *linter) told(u *use, rule string) bool {
	about := func(d *parser.Diagnostic) bool {
		return d.Code == rule && (d.At == u.End || d.Range.Start == u.Name.Range.Start && d.Range.Source == u.Name.Range.Source)
	}
	return slices.ContainsFunc(l.known, about) || slices.ContainsFunc(l.found, about)
}

// whole is the place of a statement without its terminator.
func (u *use) whole() parser.Range {
	r := u.Name.Range
	for _, a := range u.Args {
		if a.Range.Source == r.Source && a.Range.End > r.End {
			r.End = a.Range.End
		}
	}
	return r
}

// place is that of an argument, or of the name where there is none.
func (u *use) place(i int) parser.Range {
	if i >= 0 && i < len(u.Args) && !u.Args[i].Range.IsZero() {
		return u.Args[i].Range
	}
	return u.Name.Range
}

// related points to another statement.
func related(u *use, message string) parser.Related {
	return parser.Related{Range: u.whole(), Message: message}
}

// pattern is a regular expression of the configuration.
type pattern struct {
	patternKey
	compiled, analyzed bool
	re                 *pcre.Regexp
	tree               *pcre.Syntax
}

func (l *linter) pattern(text string, caseless bool) *pattern {
	key := patternKey{text, caseless}
	p := l.patterns[key]
	if p == nil {
		p = &pattern{patternKey: key}
		l.patterns[key] = p
	}
	return p
}

// regexp gives what matches; nil when it does not compile.
func (p *pattern) regexp() *pcre.Regexp {
	if !p.compiled {
		p.compiled = true
		if re, err := pcre.Compile(p.text, pcre.Options{Caseless: p.caseless}); err == nil {
			p.re = re
		}
	}
	return p.re
}

// syntax gives the tree; nil when the expression cannot be analyzed.
func (p *pattern) syntax() *pcre.Syntax {
	if !p.analyzed {
		p.analyzed = true
		if tree, err := pcre.Analyze(p.text, p.caseless); err == nil {
			p.tree = tree
		}
	}
	return p.tree
}

// find is pcre.Find for two expressions, or one, asked once.
func (l *linter) find(a, b *pattern) (string, pcre.Verdict) {
	key := [2]*pattern{a, b}
	f, known := l.finds[key]
	if !known {
		match := []*pcre.Syntax{a.syntax()}
		if b != nil {
			match = append(match, b.syntax())
		}
		f.text, f.verdict = pcre.Find(match, nil)
		l.finds[key] = f
	}
	return f.text, f.verdict
}

type foundText struct {
	text    string
	verdict pcre.Verdict
}

// matches reports whether the expression is known to match s.
func (p *pattern) matches(s string) bool {
	return p != nil && p.regexp() != nil && p.regexp().Match([]byte(s))
}

// capture is where the text of a group comes from.
type capture struct {
	pattern *pattern
	group   int
	decoded bool // the subject was a decoded URI
}

// define finds what the file's variables are made from.
func (l *linter) define() {
	l.sets, l.maps, l.captures = map[string][]*use{}, map[string]*use{}, map[string][]capture{}
	for _, u := range l.all("set") {
		name := lower(strings.TrimPrefix(u.arg(0), "$"))
		l.sets[name] = append(l.sets[name], u)
	}
	for _, u := range l.all("map", "geo", "split_clients") {
		if n := len(u.Args); n > 0 && u.body != nil {
			l.maps[lower(strings.TrimPrefix(u.arg(n-1), "$"))] = u
		}
	}
	l.root.walk(func(u *use) {
		c := l.regexOf(u)
		if c == nil || !strings.Contains(c.pattern.text, "(?") || c.pattern.regexp() == nil {
			return // no named groups
		}
		for group, name := range c.pattern.regexp().Names() {
			if name != "" {
				l.captures[name] = append(l.captures[name], capture{c.pattern, group, c.decoded})
			}
		}
	})
}

// regexOf gives the expression that a statement matches with, or nil.
func (l *linter) regexOf(u *use) *capture {
	switch u.Name.Value {
	case "location":
		if r := routeOf(u); r.kind == RegexLocation {
			return &capture{pattern: l.pattern(r.name, r.caseless), decoded: true}
		}
	case "rewrite":
		if len(u.Args) > 1 {
			return &capture{pattern: l.pattern(u.arg(0), false), decoded: true}
		}
	case "if":
		if c, ok := conditionOf(u); ok && strings.Contains(c.op, "~") {
			return &capture{pattern: l.pattern(c.value, strings.Contains(c.op, "*")), decoded: isURI(c.variable)}
		}
	}
	return nil
}

// isURI tells the variables that hold the decoded path.
func isURI(name string) bool { return name == "uri" || name == "document_uri" }

// capturesAt gives the expression whose groups $1 to $9 are in a statement, or
// nil when it is not known.
func (l *linter) capturesAt(u *use) *capture {
	for s := u.in; s != nil && s.in&(InLocation|InLocationIf|InServer|InServerIf) != 0; {
		var last *capture
		for _, before := range s.uses {
			if before == u {
				break
			}
			if before.Name.Value == "rewrite" {
				last = l.regexOf(before)
			}
		}
		switch {
		case last != nil:
			return last
		case s.open == nil:
			return nil
		}
		if c := l.regexOf(s.open); c != nil || s.in == InLocation {
			return c
		}
		u, s = s.open, s.up
	}
	return nil
}

// condition is what if tests.
type statedCondition struct{ variable, op, value string }

// conditionOf reads "($variable op value)".
func conditionOf(u *use) (statedCondition, bool) {
	var words []string
	for i, a := range u.Args {
		w := a.Value
		if i == 0 {
			w = strings.TrimPrefix(w, "(")
		}
		if i == len(u.Args)-1 {
			w = strings.TrimSuffix(w, ")")
		}
		if w != "" || a.Value == "" { // what is left of a brace is no word
			words = append(words, w)
		}
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], "$") || len(words) == 2 || len(words) > 3 {
		return statedCondition{}, false
	}
	c := statedCondition{variable: lower(words[0][1:])}
	if len(words) == 3 {
		c.op, c.value = words[1], words[2]
	}
	return c, true
}
