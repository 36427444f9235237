package pcre

import (
	"testing"
	"time"
)

func analyze(t *testing.T, pattern string) *Syntax {
	t.Helper()
	s, err := Analyze(pattern, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"^/api", "^/api/v2", true},
		{"^/api/v2", "^/api", false},
		{`\.php$`, `^/x/[a-z]+\.php$`, true},
		{`\.php$`, `\.php`, false},
		{`\.(png|jpe?g)$`, `/img/.*\.jpg$`, true},
		{`\.(png|jpg)$`, `\.jpeg$`, false},
		{"", "^/anything$", true},
		{"/", "^/anything$", true},
		{"^/a{2,3}b", "^/aab$", true},
		{"^/a{3}b", "^/aab$", false},
		{`^/v\d+/`, `^/v[12]/x`, true},
		{`^/(?!x)`, `^/y`, false}, // not known
		{`^/y`, `^/y(?!x)`, true},
		{`^/a(?:/|$)`, `^/a$`, true},
		{`^/a(?:/|$)`, `^/ab`, false},
		{`(^|/)a$`, `^a$`, true},
	} {
		if got := Covers(analyze(t, tt.a), analyze(t, tt.b)); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		match, avoid []string
		want         string
		verdict      Verdict
	}{
		{[]string{"^/static/", `\.png$`}, nil, "/static/.png", Found},
		{[]string{"^foo/", "^/"}, nil, "", None},
		{[]string{`\.php`}, []string{`\.php$`}, ".phpx", Found},
		{[]string{"^$"}, nil, "", Found},
		{[]string{"^/a", "b$"}, []string{"ab"}, "/axb", Found},
	} {
		var match, avoid []*Syntax
		for _, p := range tt.match {
			match = append(match, analyze(t, p))
		}
		for _, p := range tt.avoid {
			avoid = append(avoid, analyze(t, p))
		}
		got, verdict := Find(match, avoid)
		if got != tt.want || verdict != tt.verdict {
			t.Errorf("Find(%q, %q) = %q, %v", tt.match, tt.avoid, got, verdict)
		}
	}
}

// A pattern made to take long is given up.
func TestFindIsBounded(t *testing.T) {
	hard := analyze(t, "^(a{0,40}|b{0,40}|[ab]{0,40}x){0,40}c$")
	start := time.Now()
	if _, v := Find([]*Syntax{hard}, []*Syntax{analyze(t, "c")}); v == Found {
		t.Error("what is impossible was found")
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestGroups(t *testing.T) {
	s := analyze(t, `^/(a|b)/([^/]*)/(?<rest>.*)(?=x)`)
	if !s.GroupFixed(1) || s.GroupFixed(2) || s.GroupFixed(9) {
		t.Error("fixed groups")
	}
	if s.GroupHas(1, '\n') || !s.GroupHas(2, '\n') || s.GroupHas(3, '\n') || !s.GroupHas(3, '\r') {
		t.Error("what groups can hold")
	}
	if s.exact {
		t.Error("look-around is not exact")
	}
}

// FuzzFind holds the automaton against the engine: what Find makes up must
// match.
func FuzzFind(f *testing.F) {
	for _, p := range []string{"^/a(b|c)*d$", `\.php$`, "a{2,5}|^x", "(?:^|/)y$", "[^a]b?"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		if len(pattern) > 40 {
			return
		}
		s, err := Analyze(pattern, false)
		if err != nil {
			return
		}
		r, err := Compile(pattern, Options{})
		if err != nil {
			return
		}
		text, verdict := Find([]*Syntax{s}, nil)
		if verdict == Found && s.exact && !r.Match([]byte(text)) {
			t.Errorf("%q does not match %q", pattern, text)
		}
	})
}
