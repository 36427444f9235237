package pcre

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func compile(t testing.TB, pattern string, caseless bool) *Regexp {
	t.Helper()
	r, err := Compile(pattern, Options{Caseless: caseless})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNames(t *testing.T) {
	r := compile(t, `^(?<a>.)(.)(?P<b>\.)(?'c'x)?$`, false)
	if got := fmt.Sprintf("%d %q", r.Captures(), r.Names()); got != `4 ["" "a" "" "b" "c"]` {
		t.Error(got)
	}
	caps, ok := r.Find([]byte("ab."), []int{7})
	if got := fmt.Sprint(caps, ok); got != "[7 0 3 0 1 1 2 2 3 -1 -1] true" {
		t.Error(got)
	}
	if r.String() != `^(?<a>.)(.)(?P<b>\.)(?'c'x)?$` {
		t.Error(r.String())
	}
}

// TestEngines pins down which engine runs what.
func TestEngines(t *testing.T) {
	tests := []struct {
		pattern         string
		literal, linear bool
	}{
		{`\.php$`, true, true},
		{`^/images/`, true, true},
		{`\.(png|jpe?g|gif)$`, true, true},
		{`^/(?:a|b)/c$`, true, true},
		{`/x/`, true, true},
		{`^/api/v\d+/`, false, true},
		{`^(.+\.php)(/.+)$`, false, true},
		{`(a*)*`, false, false},
		{`^(?!/a)`, false, false},
		{`(a)\1`, false, false},
		{`[^/]++`, false, false},
		{`(?:a{500}){3}`, false, false}, // beyond Go's limit
	}
	for _, tt := range tests {
		r := compile(t, tt.pattern, false)
		if (r.literal != nil) != tt.literal || r.Linear() != tt.linear {
			t.Errorf("%s: literal %v, linear %v", tt.pattern, r.literal != nil, r.Linear())
		}
	}
}

// TestShortcuts compares the literal forms and the filters with the engines
// they stand in for.
func TestShortcuts(t *testing.T) {
	patterns := []string{
		`\.php$`, `\.php\z`, `^/a`, `^/a$`, `^$`, `$`, ``, `/`, `\.(png|jpe?g|gif)$`, `^(/a|/ab)`, `^(/ab|/a)`, `(b|ab|c)$`, `(a)?$`, `(?:a??b)?$`, `(a(b)?)?$`, `^(?:(a)|(b))c`,
		`^/a/.*\.php$`, `^/a.b$`, `x$`, `[ab]x$`, `^ab[cd]`, `^/(\w*)(\n?)$`, `^/(\w+?)$`, `^/([^/]*?)$`, `^/(a?)(b?)`, `^/(a??)b`, `^(/a{1,2})b`, `^(/.*?)`, `^/(a*)a`, `^([^x]+)\z`, "\n$", "a\n$", `\n\z`,
	}
	subjects := []string{"", "\n", "/", "/a", "/A", "/a\n", "/ab", "/abc", "x.php", "x.PHP\n", "x.php\n\n", ".png", "jpeg", ".jpeg", "ab", "b", "c", "xab\n", "ac", "bc", "/a/x.php", "/a/\xff.php\n", "/a\nb", "/axb", "abc", "bx", "a\n", "a\n\n"}
	for _, p := range patterns {
		for _, caseless := range []bool{false, true} {
			short, long := compile(t, p, caseless), compile(t, p, caseless)
			if long.literal == nil && long.steps == nil && len(long.filter.begin.bytes) == 0 && len(long.filter.end.bytes) == 0 && p != `^/(a*)a` {
				t.Errorf("%q has no shortcut", p)
			}
			long.literal, long.steps, long.filter = nil, nil, filter{}
			for _, s := range subjects {
				if got, want := result(short, s), result(long, s); got != want {
					t.Errorf("%q caseless %v on %q:\ngot\n%swant\n%s", p, caseless, s, got, want)
				}
			}
		}
	}
}

func TestTimeLimit(t *testing.T) {
	r, err := Compile(`^(?=(a+)+$)`, Options{TimeLimit: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := []byte(strings.Repeat("a", 40) + "!")
	if ok, err := r.Test(s); ok || !errors.Is(err, ErrTimeout) {
		t.Error(ok, err)
	}
	if _, ok, err := r.Search(s, nil); ok || !errors.Is(err, ErrTimeout) {
		t.Error(ok, err)
	}
	if r.Match(s) {
		t.Error("match")
	}
	// Groups that regexp2 cannot find in time come from Go's engine.
	r, err = Compile(`^(a*)*$`, Options{TimeLimit: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.Match(s) {
		t.Error("match")
	}
	if _, ok, err := r.Search(s, nil); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestErrorForm(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{`a)b`, `pcre2_compile() failed: unmatched closing parenthesis in "a)b" at ")b"`},
		{`(a`, `pcre2_compile() failed: missing closing parenthesis in "(a"`},
		{`^*x`, `pcre2_compile() failed: quantifier does not follow a repeatable item in "^*x" at "*x"`},
		{`(?R)`, `pcre2_compile() failed: recursive pattern calls are not supported in "(?R)"`},
		{`((?1))`, `pcre2_compile() failed: recursive pattern calls are not supported in "((?1))"`},
		{strings.Repeat("(", 300), `pcre2_compile() failed: parentheses are too deeply nested in "` + strings.Repeat("(", 300) + `" at "` + strings.Repeat("(", 50) + `"`},
	}
	for _, tt := range tests {
		if _, err := Compile(tt.pattern, Options{}); err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.pattern, err, tt.want)
		}
	}
}

// TestBounds feeds patterns that would take too much memory or stack.
func TestBounds(t *testing.T) {
	for _, p := range []string{
		strings.Repeat("a", maxPattern+1),
		strings.Repeat("()", maxGroups+1),
		strings.Repeat("(?:", 100000),
		// Every group calls the one before twice.
		`(a{9})` + strings.Repeat(`((?-1)(?-2))`, 1) + strings.Repeat(`((?-2)(?-2))`, 40),
	} {
		if _, err := Compile(p, Options{}); err == nil {
			t.Errorf("%.20q... of %d bytes compiled", p, len(p))
		}
	}
}

func TestAllocs(t *testing.T) {
	caps := make([]int, 0, 32)
	tests := []struct {
		pattern, subject string
		match, find      float64
	}{
		{`\.(png|jpg)$`, "/images/a.jpg", 0, 0},
		{`^/images/`, "/images/a.jpg", 0, 0},
		{`^/a/(\d+)/(.*)$`, "/a/12/xyz", 0, 0},
		{`^/a/(\d+)/(.*)$`, "/b/12/xyz", 0, 0},
		{`^/a/(\d+)/(.*)$`, "/a/12/\xc3\xa9", 0, 0},
		{`^(.+\.php)(/.+)$`, "/x.php/y", 1, 2}, // the engine pools memory
		{`^(.+\.php)(/.+)$`, "/x.php/\xc3\xa9", 1, 3},
	}
	for _, tt := range tests {
		if racing && tt.match > 0 {
			continue
		}
		r, s := compile(t, tt.pattern, false), []byte(tt.subject)
		if n := testing.AllocsPerRun(100, func() { r.Match(s) }); n > tt.match {
			t.Errorf("%s: Match allocates %v", tt.pattern, n)
		}
		if n := testing.AllocsPerRun(100, func() { caps, _ = r.Find(s, caps[:0]) }); n > tt.find {
			t.Errorf("%s: Find allocates %v", tt.pattern, n)
		}
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	r := compile(t, `^/(\w+)/((?:é)+)$`, true)
	t.Run("group", func(t *testing.T) {
		for i := range 8 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				s := []byte("/x/" + strings.Repeat("é", i+1) + "\n")
				for range 100 {
					if caps, ok := r.Find(s, nil); !ok || !bytes.Equal(s[caps[4]:caps[5]], s[3:len(s)-1]) {
						t.Fatal(caps, ok)
					}
				}
			})
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, p := range []string{`^/(a|b)*\.php$`, `(?<n>a)\k<n>(?1)`, `[[:alpha:]\d-]`, `(?(1)a|b)(x)`, `(*UTF)\p{L}`, `\Qa\E+`, `(?x) a # b`, `(?i)[^é]`} {
		f.Add(p, "/a.php\n", false)
		f.Add(p, "\xff", true)
	}
	f.Fuzz(func(t *testing.T, pattern, subject string, caseless bool) {
		r, err := Compile(pattern, Options{Caseless: caseless, TimeLimit: time.Millisecond})
		if err != nil {
			if e := new(Error); !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(pattern) {
				t.Fatal(err)
			}
			return
		}
		s := []byte(subject)
		caps, ok := r.Find(s, nil)
		if !ok {
			return
		}
		if len(caps) != 2*(r.Captures()+1) {
			t.Fatalf("%d offsets for %d groups", len(caps), r.Captures())
		}
		for i := 0; i < len(caps); i += 2 {
			if caps[i] == -1 && caps[i+1] == -1 && i > 0 {
				continue
			}
			if caps[i] < 0 || caps[i] > caps[i+1] || caps[i+1] > len(s) {
				t.Fatalf("offsets %v in %d bytes", caps, len(s))
			}
		}
	})
}

// BenchmarkLast is a request that is tried against 1,000 expressions and
// matches the last.
func BenchmarkLast(b *testing.B) {
	for _, form := range []string{`^/app%d/`, `\.x%d$`, `^/app%d/(\d+)/view$`, `/x%d/[a-z]+`} {
		b.Run(form, func(b *testing.B) {
			var all []*Regexp
			for i := range 1000 {
				all = append(all, compile(b, fmt.Sprintf(form, i), false))
			}
			s := []byte("/app999/42/view")
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range all {
					if r.Match(s) {
						break
					}
				}
			}
		})
	}
}

func BenchmarkFind(b *testing.B) {
	for _, p := range []string{`^(.+\.php)(/.+)$`, `^/a/(\d+)/(.*)$`, `\.(php|html)`} {
		r, s := compile(b, p, false), []byte("/a/12/index.php/x/y")
		var caps []int
		b.Run(p, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				caps, _ = r.Find(s, caps[:0])
			}
		})
	}
}
