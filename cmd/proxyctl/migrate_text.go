package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// migrationText writes the report of "migrate check" for people.
type migrationText struct {
	io.Writer
	color bool
	width int
}

func (t *migrationText) tint(code, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

const (
	tintBad  = "1;31"
	tintNote = "1;33"
	tintGood = "1;32"
	tintHead = "1"
)

func writeMigration(w io.Writer, r *migration, o parser.TextOptions) {
	t := &migrationText{Writer: w, color: o.Color, width: min(max(o.Width, 0), 100)}
	if t.width == 0 {
		t.width = 80
	}
	t.head(r)
	t.directives("Missing protection: without it strangers could do more", tintBad, r.Gaps())
	t.directives("Not served here", tintBad, r.Unguarded())
	t.findings("Mistakes", tintBad, r.Mistakes())
	t.directives("Served, with a difference", tintNote, r.With(proxy.OutcomeDiffers))
	t.directives("Without effect here", tintHead, r.With(proxy.OutcomeNoEffect))
	t.findings("Changed since nginx "+r.Nginx.Version, tintNote, r.Changes())
	t.findings("Worth a look (proxyctl explain ID says more)", tintNote, r.Grouped())
	t.modules(r)
	if r.Ready {
		fmt.Fprintln(t, t.tint(tintGood, "This configuration can be served as it is."))
	} else {
		fmt.Fprintln(t, t.tint(tintBad, "This configuration cannot be served yet."))
	}
}

func (t *migrationText) head(r *migration) {
	fmt.Fprintln(t, t.tint(tintHead, oneLine(r.File)))
	if r.Nginx.Version != "" {
		program := ""
		if r.Nginx.Program != "" {
			program = " (" + r.Nginx.Program + ")"
		}
		fmt.Fprintf(t, "written for nginx %s%s, %s\n", r.Nginx.Version, oneLine(program), plural(len(r.Files), "file"))
	}
	parts := []string{fmt.Sprintf("%d%% served exactly", r.Share(proxy.OutcomeExact))}
	for _, of := range [][2]string{
		{proxy.OutcomeDiffers, "with a difference"},
		{proxy.OutcomeNoEffect, "without effect"},
		{proxy.OutcomeUnsupported, "not served"},
		{proxy.OutcomeUnknown, "unknown"},
	} {
		if n := r.statements(of[0]); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, of[1]))
		}
	}
	fmt.Fprintf(t, "\n%s: %s\n\n", plural(r.Uses, "statement"), strings.Join(parts, ", "))
}

func (t *migrationText) modules(r *migration) {
	own := r.Nginx.Own()
	if len(own)+len(r.Modules) == 0 {
		return
	}
	fmt.Fprintln(t, t.tint(tintHead, "Modules"))
	for _, m := range r.Modules {
		fmt.Fprintln(t, "  "+oneLine(m.Name))
		t.paragraph(moduleText(m), 6)
	}
	if len(own) > 0 {
		t.paragraph("this nginx is built with "+strings.Join(own, ", "), 2)
	}
	fmt.Fprintln(t)
}

// Own lists the modules that are nginx's.
func (n *installedNginx) Own() []string {
	return slices.DeleteFunc(slices.Clone(n.Modules), func(name string) bool { return slices.Contains(n.ThirdParty, name) })
}

// moduleText says what a module means to a configuration.
func moduleText(m proxy.ModuleUse) string {
	from := "a module that nginx is built with, and not nginx's own"
	switch {
	case m.Own:
		from = "a module of nginx, loaded in " + relativePlace(m.Place)
	case m.Place != "":
		from = "a module that is not nginx's own, loaded in " + relativePlace(m.Place)
	}
	switch {
	case m.Uses == 0 && m.Own:
		return from + "; none of its directives is used"
	case m.Uses == 0:
		return from + "; no directive of it is known to be used"
	}
	return fmt.Sprintf("%s; used %s: %s", from, times(m.Uses), strings.Join(m.Directives, ", "))
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// directives writes a list of them, with how often and where they stand.
func (t *migrationText) directives(title, color string, list []proxy.DirectiveUse) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(t, t.tint(color, title))
	for _, group := range byReason(list) {
		for _, d := range group.Uses {
			fmt.Fprintln(t, strings.TrimRight(fmt.Sprintf("  %-28s %s %s", oneLine(d.Name), oneLine(relativePlace(d.First)), otherPlaces(d.Count)), " "))
		}
		t.paragraph(group.Reason, 6)
	}
	fmt.Fprintln(t)
}

// useGroup is the directives of which the same is to be said.
type useGroup struct {
	Reason string
	Uses   []proxy.DirectiveUse
}

func byReason(list []proxy.DirectiveUse) []useGroup {
	var out []useGroup
	for _, d := range list {
		reason := reasonOf(d)
		i := slices.IndexFunc(out, func(g useGroup) bool { return g.Reason == reason })
		if i < 0 {
			i = len(out)
			out = append(out, useGroup{Reason: reason})
		}
		out[i].Uses = append(out[i].Uses, d)
	}
	return out
}

// otherPlaces says where else something stands that was found some times.
func otherPlaces(times int) string {
	if times < 2 {
		return ""
	}
	return "and " + plural(times-1, "other place")
}

func reasonOf(d proxy.DirectiveUse) string {
	if d.Module != "" && d.Outcome == proxy.OutcomeUnknown {
		return "of the module " + d.Module + ", which is not nginx's own"
	}
	return d.Reason
}

func (t *migrationText) findings(title, color string, list []findingAt) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(t, t.tint(color, title))
	for _, f := range list {
		if head := strings.TrimRight(fmt.Sprintf("  %-5s %s %s", f.Code, oneLine(relativePlace(f.Place)), otherPlaces(f.Times)), " "); head != "" {
			fmt.Fprintln(t, head)
		}
		t.paragraph(f.Message, 8)
		if f.Hint != "" {
			t.paragraph(f.Hint, 8)
		}
	}
	fmt.Fprintln(t)
}

// paragraph writes text indented and broken into lines.
func (t *migrationText) paragraph(text string, indent int) {
	for line := range strings.SplitSeq(wrap(oneLine(text), t.width-indent), "\n") {
		fmt.Fprintf(t, "%*s%s\n", indent, "", line)
	}
}
