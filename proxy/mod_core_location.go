package proxy

import (
	"strings"

	"proxyctl/parser"
)

// location, limit_except and internal: what counts for which URI.

// setLocation opens a location. Its place among its siblings is known at once,
// its body is compiled when the level around it is complete.
func setLocation(l *Level, d *parser.Directive) error {
	loc, err := l.newLocation(d)
	if err != nil {
		return err
	}
	outer := l.Location
	if err := outer.accepts(loc, l.Context == InLocation); err != nil {
		return err
	}
	outer.nested = append(outer.nested, loc)
	if loc.Kind == NamedLocation {
		l.Server.named[loc.Name] = loc
	}
	l.Later(func() {
		loc.Conf = l.Conf.child(InLocation)
		loc.Conf.Core.Internal = false
		in := l.c.level(InLocation, l, &loc.Conf)
		in.Location = loc
		l.c.body(in, d.Block)
	})
	return nil
}

// newLocation reads the modifier and the name, which may be written together
// ("=/x", "~*\.php$").
func (l *Level) newLocation(d *parser.Directive) (*Location, error) {
	loc := &Location{server: l.Server, Place: d.Name.Range}
	name := d.Args[len(d.Args)-1]
	modifier := ""
	if len(d.Args) == 2 {
		modifier = d.Args[0].Value
		loc.Name = name.Value
	} else {
		modifier, loc.Name = splitModifier(name.Value)
	}
	switch modifier {
	case "":
		if strings.HasPrefix(loc.Name, "@") {
			loc.Kind = NamedLocation
		}
	case "=":
		loc.Kind = ExactLocation
	case "^~":
		loc.Kind = NoRegexLocation
	case "~", "~*":
		re, err := l.regex(loc.Name, modifier == "~*", name)
		if err != nil {
			return nil, err
		}
		loc.Kind, loc.regex = RegexLocation, re
	default:
		return nil, sayAt(d.Args[0], "", "modifiers are =, ~, ~* and ^~", "invalid location modifier %q", modifier)
	}
	loc.escapedName = appendEscaped(nil, []byte(loc.Name), &escapeURI)
	return loc, nil
}

func splitModifier(s string) (modifier, name string) {
	for _, m := range []string{"=", "^~", "~*", "~"} {
		if rest, ok := strings.CutPrefix(s, m); ok {
			return m, rest
		}
	}
	return "", s
}

// accepts says whether loc may stand inside this level (ngx_http_core_location
// and ngx_http_add_location).
func (outer *Location) accepts(loc *Location, nested bool) error {
	if nested {
		switch {
		case outer.Kind == ExactLocation:
			return say("location %q cannot be inside the exact location %q", loc.Name, outer.Name)
		case outer.Kind == NamedLocation:
			return say("location %q cannot be inside the named location %q", loc.Name, outer.Name)
		case loc.Kind == NamedLocation:
			return say("named location %q can be on the server level only", loc.Name)
		case loc.Kind != RegexLocation && !strings.HasPrefix(loc.Name, outer.Name):
			return say("location %q is outside location %q", loc.Name, outer.Name)
		}
	}
	for _, n := range outer.nested {
		// "= /a" and "/a" go together; two regular expressions always do
		same := n.Name == loc.Name && n.Kind != RegexLocation && loc.Kind != RegexLocation &&
			(n.Kind == ExactLocation) == (loc.Kind == ExactLocation)
		if same {
			return &confError{text: "duplicate location \"" + loc.Name + "\"", whole: true, code: "Y012"}
		}
	}
	return nil
}

// setLimitExcept opens a limit_except block: what counts for all other methods.
func setLimitExcept(l *Level, d *parser.Directive) error {
	allowed := methodSet(0)
	for _, a := range d.Args {
		bit := methodBit(a.Value)
		if bit == 0 {
			return sayAt(a, "", "", "invalid method %q", a.Value)
		}
		allowed |= bit
	}
	if allowed&methodBit("GET") != 0 {
		allowed |= methodBit("HEAD")
	}
	loc := &Location{Kind: Nameless, Name: l.Location.Name, server: l.Server, Place: d.Name.Range}
	outer := l.Location
	outer.limitExcept, outer.limitAllowed = loc, allowed
	l.Later(func() {
		loc.Conf = l.Conf.child(InLimitExcept)
		in := l.c.level(InLimitExcept, l, &loc.Conf)
		in.Location = loc
		l.c.body(in, d.Block)
	})
	return nil
}

func methodBit(name string) methodSet {
	for i, m := range methods {
		if strings.EqualFold(m, name) {
			return 1 << i
		}
	}
	return 0
}
