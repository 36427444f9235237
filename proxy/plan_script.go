package proxy

import (
	"slices"
	"strconv"
	"strings"
)

// What return, rewrite, set and if come to. nginx runs them before it asks who
// may see what: an answer of theirs needs no leave.

// before reads what a server decides before it looks for a location.
func (p *planner) before(s *scope) []PlanRoute {
	var out []PlanRoute
	ended := "" // why later statements would not count
	for _, u := range s.own("return", "rewrite", "if", "break") {
		if ended != "" {
			p.unsaid(u, ended)
			continue
		}
		switch name := u.Name.Value; {
		case name == "break":
			ended = "what follows a break is never reached"
		case name == "return":
			out = append(out, p.plain(u, s, p.answer(u, s)))
			return out
		case name == "rewrite" && redirectOf(u) == 0:
			r := p.plain(u, s, nil)
			r.Rewrite = p.rewritten(u, s)
			out = append(out, r)
			if u.arg(2) != "" {
				ended = "the rewrite before it ends the script, for some"
			}
		case name == "rewrite":
			out = append(out, p.redirect(u, s))
		default:
			out = append(out, p.conditional(u)...)
		}
	}
	return out
}

// script is what the statements of a location come to.
type script struct {
	routes  []PlanRoute // for those that a condition holds for, without the location's path
	rewrite *PlanRewrite
	answer  *PlanAnswer // for all others
	variant *PlanRoute  // for these other fields are added
}

// scriptOf reads them; false when the location cannot be carried over.
func (p *planner) scriptOf(s *scope) (script, bool) {
	var out script
	for _, u := range s.own("return", "rewrite", "if", "break") {
		switch name := u.Name.Value; {
		case out.variant != nil:
			p.unsaid(u, "it stands behind a condition that changes fields")
			return out, false
		case out.rewrite != nil && name != "break":
			p.unsaid(u, "it is asked about a path that has been rewritten")
			return out, false
		case name == "break":
			return out, true
		case name == "return":
			out.answer = p.answer(u, s)
			return out, true
		case name == "rewrite" && redirectOf(u) != 0:
			out.routes = append(out.routes, p.redirect(u, s))
		case name == "rewrite" && u.arg(2) == "break":
			out.rewrite = p.rewritten(u, s)
		case name == "rewrite":
			p.unsaid(u, "after it nginx looks for a location once more: with \"break\" it would stay in this one")
			return out, false
		default:
			when, ok := p.condition(u)
			if ok && onlyFields(u.body) {
				out.variant = &PlanRoute{When: []PlanCondition{when}, Fields: p.fields(u.body, "add_header"), Text: u.said(), Place: when.Place}
				continue
			}
			routes := p.conditional(u)
			if routes == nil {
				return out, false
			}
			out.routes = append(out.routes, routes...)
		}
	}
	return out, true
}

// plain is a route of a statement.
func (p *planner) plain(u *use, s *scope, a *PlanAnswer) PlanRoute {
	return PlanRoute{Kind: Nameless, Answer: a, Fields: p.fields(s, "add_header"), Text: u.said(), Place: linePlace(u.Name.Range)}
}

// condition reads what if asks.
func (p *planner) condition(u *use) (PlanCondition, bool) {
	c, ok := conditionOf(u)
	if !ok || strings.HasPrefix(c.op, "-") || strings.HasPrefix(c.op, "!-") {
		p.unsaid(u, "conditions on files are not carried over")
		return PlanCondition{}, false
	}
	return PlanCondition{Variable: c.variable, Op: c.op, Value: p.text(u.in, c.value), Place: linePlace(u.Name.Range)}, true
}

// onlyFields reports whether a block adds fields to answers and does nothing else.
func onlyFields(s *scope) bool {
	return s.own("add_header") != nil && !slices.ContainsFunc(s.uses, func(u *use) bool {
		return u.Name.Value != "add_header" && !tuningDirectives[u.Name.Value]
	})
}

// conditional reads a condition whose block returns or redirects.
func (p *planner) conditional(u *use) []PlanRoute {
	when, ok := p.condition(u)
	if !ok {
		return nil
	}
	var out []PlanRoute
	for _, o := range u.body.uses {
		var r PlanRoute
		switch name := o.Name.Value; {
		case name == "return":
			r = p.plain(o, u.body, p.answer(o, u.body))
		case name == "rewrite" && redirectOf(o) != 0:
			r = p.redirect(o, u.body)
		case name == "add_header" || tuningDirectives[name]:
			continue
		default:
			p.unsaid(u, "of conditions those are carried over that return or redirect")
			return nil
		}
		r.When = append([]PlanCondition{when}, r.When...)
		r.Text = u.said() + " { " + o.said() + " }"
		out = append(out, r)
	}
	if out == nil {
		p.unsaid(u, "of conditions those are carried over that return or redirect")
	}
	return out
}

// redirectOf gives the status of a rewrite that answers; 0 for one that does not.
func redirectOf(u *use) int {
	switch {
	case u.arg(2) == "permanent":
		return 301
	case u.arg(2) == "redirect", isRedirect(u.arg(1)):
		return 302
	}
	return 0
}

// redirect reads a rewrite that answers.
func (p *planner) redirect(u *use, s *scope) PlanRoute {
	w := p.rewritten(u, s)
	r := p.plain(u, s, &PlanAnswer{Status: redirectOf(u), Text: w.To, Redirect: true, Arguments: w.Arguments, Place: w.Place})
	r.When = []PlanCondition{{Variable: "uri", Op: "~", Value: w.Expression, Place: w.Place}}
	return r
}

func (p *planner) rewritten(u *use, s *scope) *PlanRewrite {
	to, without := strings.CutSuffix(u.arg(1), "?")
	return &PlanRewrite{Expression: u.arg(0), To: p.text(s, to), Arguments: !without, Place: linePlace(u.Name.Range)}
}

// answer reads a return.
func (p *planner) answer(u *use, s *scope) *PlanAnswer {
	a := &PlanAnswer{Place: linePlace(u.Name.Range), Type: s.setting("default_type", "text/plain")}
	if isRedirect(u.arg(0)) && len(u.Args) == 1 {
		a.Status, a.Text, a.Redirect = 302, p.text(s, u.arg(0)), true
		return a
	}
	a.Status, _ = strconv.Atoi(u.arg(0))
	a.Text = p.text(s, u.arg(1))
	a.Redirect = isRedirectStatus(u.arg(0)) && len(u.Args) == 2
	return a
}

// text puts the values of variables that are set once and for all into a text of
// a block, and the names of the server.
func (p *planner) text(s *scope, text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	last := 0
	for _, r := range references(text) {
		if value, ok := p.constant(s, r.name); r.name != "" && ok {
			b.WriteString(text[last:r.start])
			b.WriteString(value)
			last = r.end
		}
	}
	return b.String() + text[last:]
}

// constant gives the value of a variable that one statement of the block, or of
// those around it, sets for all requests.
func (p *planner) constant(s *scope, name string) (string, bool) {
	server := s.around(InServer)
	if server == nil {
		return "", false
	}
	if name == "server_name" {
		names := namesOf(server)
		if len(names) > 0 && !strings.ContainsAny(names[0], "*~") {
			return strings.TrimPrefix(names[0], "."), true
		}
		return "", len(names) == 0
	}
	if name == "ssl_early_data" && s.setting(name, "off") == "off" {
		return "", true
	}
	var found *use
	for in := s; in != nil; in = in.up {
		for _, u := range in.own("set") {
			if lower(strings.TrimPrefix(u.arg(0), "$")) != name {
				continue
			} else if found != nil {
				return "", false
			}
			found = u
		}
	}
	if found == nil || found.in.in&(InServer|InLocation) == 0 {
		return "", false
	}
	for _, r := range references(found.arg(1)) {
		if !steadyVariables[r.name] && !strings.HasPrefix(r.name, "http_") {
			return "", false
		}
	}
	return found.arg(1), !p.setInCondition(server, name)
}

// steadyVariables are the same from the beginning of a request to its end.
var steadyVariables = wordSet(`host http_host scheme request_uri request_method remote_addr server_port server_addr`)

func (p *planner) setInCondition(server *scope, name string) bool {
	inside := false
	server.walk(func(u *use) {
		if u.Name.Value == "set" && u.in.in&(InServerIf|InLocationIf) != 0 && lower(strings.TrimPrefix(u.arg(0), "$")) == name {
			inside = true
		}
	})
	return inside
}

// fields reads a list of header fields that counts for a block.
func (p *planner) fields(s *scope, name string) []PlanField {
	var out []PlanField
	for _, u := range s.inherited(name) {
		out = append(out, PlanField{u.arg(0), p.text(s, u.arg(1)), linePlace(u.Name.Range), u.arg(2) == "always"})
	}
	return out
}

// limited reads limit_except where it refuses methods to everybody.
func (p *planner) limited(s *scope) ([]PlanRoute, bool) {
	u := s.one("limit_except")
	if u == nil {
		return nil, true
	}
	inner := u.body.uses
	if len(inner) != 1 || inner[0].said() != "deny all" {
		p.unsaid(u, "only \"deny all\" in it is carried over")
		return nil, false
	}
	var methods []string
	for i := range u.Args {
		methods = append(methods, u.arg(i))
	}
	if slices.Contains(methods, "GET") && !slices.Contains(methods, "HEAD") {
		methods = append(methods, "HEAD")
	}
	r := p.plain(u, s, &PlanAnswer{Status: 403, Place: linePlace(u.Name.Range)})
	for _, m := range methods {
		r.When = append(r.When, PlanCondition{Variable: "request_method", Op: "!=", Value: m, Place: r.Place})
	}
	return []PlanRoute{r}, true
}
