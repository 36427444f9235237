package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"proxyctl/proxy"
)

// migrationPage is one page without anything to fetch.
//
//go:embed migrate.html
var migrationPage string

func writeMigrationHTML(w io.Writer, r *migration) error {
	page, err := template.New("migrate").Funcs(template.FuncMap{
		"byReason": byReason, "place": relativePlace, "others": otherPlaces, "count": plural, "module": moduleText,
		"rule": ruleOf, "paragraphs": func(text string) []string { return strings.Split(text, "\n\n") },
		"tone": func(severity string) string {
			return map[string]string{"error": "bad-text", "warning": "warn-text"}[severity]
		},
	}).Parse(migrationPage)
	if err != nil {
		return err
	}
	return page.Execute(w, r)
}

// ruleOf finds a rule by its id; nil for none.
func ruleOf(id string) *proxy.Rule {
	rules := proxy.Rules()
	if i := slices.IndexFunc(rules, func(r proxy.Rule) bool { return r.ID == id }); i >= 0 {
		return &rules[i]
	}
	return nil
}

// Current is the version of nginx that this server is like.
func (r *migration) Current() string { return nginxVersion }

// part is a stretch of the bar.
type part struct {
	Class, Text string
	Count       int
}

// Parts divides the statements by what becomes of them.
func (r *migration) Parts() []part {
	var out []part
	for _, p := range []part{
		{Class: "exact", Text: fmt.Sprintf("%d %% served exactly", r.Share(proxy.OutcomeExact)), Count: r.statements(proxy.OutcomeExact)},
		{Class: "differs", Text: "%d with a difference", Count: r.statements(proxy.OutcomeDiffers)},
		{Class: "idle", Text: "%d without effect", Count: r.statements(proxy.OutcomeNoEffect)},
		{Class: "missing", Text: "%d missing", Count: r.statements(proxy.OutcomeUnsupported) + r.statements(proxy.OutcomeUnknown)},
	} {
		if p.Class != "exact" {
			p.Text = fmt.Sprintf(p.Text, p.Count)
		}
		if p.Count > 0 {
			out = append(out, p)
		}
	}
	return out
}
