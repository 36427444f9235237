package pcre

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// question is a pattern with subjects to ask PCRE2 about.
type question struct {
	pattern  string
	caseless bool
	subjects []string
}

// answer is what PCRE2 says: an error, or a result for each subject.
type answer struct {
	failure string // as "TEXT at OFFSET"
	results []string
}

// ask runs pcre2test, which Debian has in pcre2-utils. Two optimizations of
// PCRE2 10.42 miss matches and are off: at the start, (?=a)\s?a on "a"; and for
// possessive repeats, b{1,2}(?:ab)?+. on "bb".
func ask(t *testing.T, questions []question) []answer {
	t.Helper()
	path, err := exec.LookPath("pcre2test")
	if err != nil {
		t.Skip("pcre2test is not installed")
	}
	var in bytes.Buffer
	for _, q := range questions {
		fmt.Fprintf(&in, "/% x/hex,allcaptures,aftertext,no_start_optimize,no_auto_possess", q.pattern)
		if q.caseless {
			in.WriteString(",caseless")
		}
		in.WriteByte('\n')
		for _, s := range q.subjects {
			in.WriteString("    ")
			for i := range len(s) {
				fmt.Fprintf(&in, `\x%02x`, s[i])
			}
			if s == "" {
				in.WriteByte('\\') // the empty subject, to pcre2test
			}
			in.WriteByte('\n')
		}
		in.WriteByte('\n')
	}
	cmd := exec.Command(path, "-q")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pcre2test: %v", err)
	}
	return readAnswers(t, questions, string(out))
}

func readAnswers(t *testing.T, questions []question, out string) []answer {
	t.Helper()
	lines := strings.Split(out, "\n")
	at := 0
	answers := make([]answer, len(questions))
	for i := range questions {
		for !strings.HasPrefix(lines[at], "/") {
			at++
		}
		at++
		a := &answers[i]
		for ; lines[at] != "" && at < len(lines); at++ {
			line := lines[at]
			switch {
			case strings.HasPrefix(line, "Failed: ") && len(a.results) > 0:
				a.results[len(a.results)-1] = "No match\n" // not UTF-8
			case strings.HasPrefix(line, "Failed: "):
				_, text, _ := strings.Cut(line, "at offset ")
				offset, text, _ := strings.Cut(text, ": ")
				a.failure = text + " at " + offset
			case strings.HasPrefix(line, "    "):
				a.results = append(a.results, "")
			case len(a.results) > 0:
				a.results[len(a.results)-1] += line + "\n"
			default:
				t.Fatalf("pcre2test says %q", line)
			}
		}
	}
	return answers
}

// result is what a Regexp finds, in the words of pcre2test.
func result(r *Regexp, s string) string {
	caps, ok := r.Find([]byte(s), nil)
	if ok != r.Match([]byte(s)) {
		return "Match and Find differ"
	}
	if !ok {
		return "No match\n"
	}
	var b strings.Builder
	for i := 0; i < len(caps); i += 2 {
		if caps[i] < 0 {
			fmt.Fprintf(&b, "%2d: <unset>\n", i/2)
			continue
		}
		fmt.Fprintf(&b, "%2d: %s\n", i/2, printable(s[caps[i]:caps[i+1]], r.utf))
		if i == 0 {
			fmt.Fprintf(&b, " 0+ %s\n", printable(s[caps[1]:], r.utf))
		}
	}
	return b.String()
}

func printable(s string, utf bool) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := rune(s[0]), 1
		if utf {
			r, size = utf8.DecodeRuneInString(s)
		}
		switch {
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		case utf:
			fmt.Fprintf(&b, `\x{%02x}`, r)
		default:
			fmt.Fprintf(&b, `\x%02x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// compare checks that all patterns mean what PCRE2 says.
func compare(t *testing.T, questions []question) {
	t.Helper()
	skipped := 0
	for i, a := range ask(t, questions) {
		q := questions[i]
		r, err := Compile(q.pattern, Options{Caseless: q.caseless})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			if strings.HasSuffix(e.Text, "not supported") {
				skipped++
				continue
			}
			if got := fmt.Sprintf("%s at %d", e.Text, e.Offset); got != a.failure {
				t.Errorf("%q: got error %q, want %q", q.pattern, got, a.failure)
			}
			continue
		}
		if a.failure != "" {
			t.Errorf("%q: compiled, want error %q", q.pattern, a.failure)
			continue
		}
		for j, s := range q.subjects {
			if got, want := result(r, s), a.results[j]; got != want {
				t.Errorf("%q caseless %v on %q (plain %v, backtrack %v, literal %v, steps %v):\ngot\n%swant\n%s", q.pattern, q.caseless, s, r.plain, r.backtrack, r.literal != nil, r.steps != nil, got, want)
			}
		}
	}
	t.Logf("%d of %d patterns compared", len(questions)-skipped, len(questions))
}

// TestPCRE compares patterns as they occur in configurations.
func TestPCRE(t *testing.T) {
	subjects := []string{
		"", "/", "\n", "a", "/index.php", "/index.PHP", "/index.php\n", "/index.php/path/info", "/a.php.bak",
		"/images/logo.png", "/images/logo.jpeg", "/IMAGES/x.GIF", "/images/\xc3\xa9t\xc3\xa9.png", "/\xff\xfe.php", "/api/v1/users/42",
		"/api/v12/users/", "/user/bob/profile", "/user/b\nb/profile\n", "www.example.com", "example.com", "bot Googlebot/2.1", "MSIE 6.0",
		"/a/../b", "/.git/config", "/.well-known/acme-challenge/tok", "/wp-admin/admin-ajax.php", "/\xe2\x84\xaa\xc5\xbf", "k\xc5\xbfK",
		"abcabc", "aaa", "aab", "\x00", "12-34", "2024/11/24", "a\nb\nc", "a\nb\n", "foo bar", "foo\tbar", "x\xa0y", "x\x85y", "\r\n",
	}
	patterns := []string{
		`\.php$`, `^/images/`, `\.(png|jpe?g|gif)$`, `\.(?:png|jpg)$`, `^/$`, `^$`, ``, `/`, `^/index\.php(/|$)`, `^(.+\.php)(/.+)$`, `^(.+\.php)(.*)$`,
		`[^/]\.php(/|$)`, `^/api/v(\d+)/users/(\d*)$`, `^/user/([^/]+)/profile$`, `^/user/(.+)/profile\z`, `^/user/(.+)/profile\Z`, `^(www\.)?(.+)$`, `^(?<sub>\w+)\.example\.com$`,
		`^(?P<a>.)(?'b'.*)$`, `/\.(?!well-known)`, `(?<!\.bak)$`, `^(?!/api)`, `(a+)\1`, `^(a+)+$`, `(?i)googlebot|bingbot`, `MSIE [1-6]\.`, `(?>a+)b`, `a++b`, `a*+a`,
		`\bbot\b`, `\Bbot`, `\x00`, `\d{2}-\d{2}`, `^(\d{4})/(\d{2})/(\d{2})$`, `(?s)a.b`, `a.b`, `(?m)^b$`, `(?m)b$`, `^b$`, `$`, `^`, `\z`, `\Z`, `\n\z`, `\n$`, `.$`, `.*$`, `(.*)$`, `\s+`, `\S+$`, `\h`, `\H+`, `\v`, `\V+`, `\R`, `\N+`,
		`[[:alpha:]]+`, `[[:^alpha:]]+`, `[^[:space:]/]+`, `[\w.-]+`, `[]a]`, `[^]a]+`, `[a-]+`, `[\x80-\xff]+`, `[^\x80-\xff]+$`, `\xc3\xa9`, "\xc3\xa9", "[\xc3\xa9]", `\W`, `\Q.php\E$`, `\Q.ph\Ep+`, `(?x) \. ph p $ # comment`,
		`/index\K\.php`, `(a|ab)(c|bcd)?(abc)?`, `(?:a|ab)(?:c|bcd)`, `a??b`, `a{2}`, `a{2,}?`, `a{,2}`, `a{`, `a{1`, `x*`, `(x)?`, `(x)?a`, `(?:(a)|b)*`, `(a*)*`, `(a*)+`, `(a|b*)*`, `(|a)+`, `(|a)*`, `(a|)*c`, `(?U)a+`, `(?U)a+?`,
		`(a)(?(1)a|b)`, `(a)?(?(1)a|b)`, `(?(?=a)aa|.)`, `(?=(a+))a*b\1`, `(?<=/)\w+$`, `(?<=a|bc)c`, `(?<![a-z])\d`, `(\w)(\w)\2\1`, `(?:\w\w)?(\w+)`, `\k`, `(?<n>a)\k<n>`, `(?<n>a)\k{n}`, `(?P<n>a)(?P=n)`, `(a)\g1`, `(a)\g{-1}`,
		`(?1)(a)`, `(a|b)(?1)`, `(?<x>a.)(?&x)?`, `(?P>y)(?<y>b)`, `(?(DEFINE)(?<d>\d+))(?&d)-(?&d)`, `(?#c)a`, `a(?#c)+`, `(?i:A)a`, `(?i)a(?-i)a`, `((?i)A)a`, `A(?i)A|A`, `[\d\-]+`, `[+--]+`, `\p{L}+`, `\pL\PL`, `[\p{Lu}\d]+`, `\p{^L}+`,
		`(*FAIL)|a`, `(*UTF8)^.$`, `(*UTF8)/\x{e9}t`, `(*UTF).`, `\101`, `\x{41}`, `\o{101}`, `\cA`, `\e`, `\0`, `(a)\11`, `[\b]`, `[a-c[:digit:]x]+`, `^(?:a|aa)$`, `(ab)?(c)?$`, `(a|ab)$`, `(b|ab|c)$`, `^(a|ab)`, `^(ab|a)$`, `(a)?$`, `(?:a?)?$`,
		`\/`, `\-\.\_`, `\@`, `~^`, `^/(?:a|b(?:c|d))/`, `^/[^/]++/`, `^(?:/[^/]*)*$`, `^(/[^/]*)*$`, `(/[^/]*)*$`, `^((?:/\w*)*)\.php`, `(.)(.)?$`, `^.*/([^/]+)$`, `^(?<a>/[^?#]*)`, `a(?=b(?=c))`, `(?=)`, `(?!)`, `()`, `(?:)`, `()*a`, `(?:){3}a`, `((a)|(b))+`, `(?:(a)|(b))+`, `(a(b)?)+`, `(?:a(b)?)+`, `(a|(b))+c`,
	}
	var questions []question
	for _, p := range patterns {
		questions = append(questions, question{p, false, subjects}, question{p, true, subjects})
	}
	compare(t, questions)
}

// TestPCREErrors compares mistakes, their words and their places.
func TestPCREErrors(t *testing.T) {
	patterns := []string{
		`^*`, `$*`, `\b*`, `\A+`, `(?i)*`, `|*`, `a|*`, `(*)`, `a**`, `a+++`, `a{2}{3}`, `\K*`, `(?<=a+)b`, `x(?<=a*|b)c`, `(?<=(a|bc))d`, `(?<=(?:a|bc))d`, `(`, `(a`, `a)`, `((((a))`, `[a`, `[]`, `[^]`, `[b-a]`, `[z-a]b`, `[a-\d]`, `[\d-z]`, `[a-[:digit:]]`, `[[:digit:]-a]`, `[a--]`,
		`a\`, `[\`, `[a-z\`, `(?<n>a)(?<n>b)`, `(?<1n>a)`, `(?<n`, `(?<>a)`, `(?<n!>a)`, `(?Pz)`, `(?P`, `(?P<n`, `(?P>n)`, `(?z)`, `(?`, `(?<`, `(?'a`, `(?i`, `(?i-`, `(?i-z)`, `(?^`, `(?-`, `(?~a)`, `\1`, `(a)\2`, `\9`, `\81`, `\k<n>`, `\k`, `\k{n`, `\k<>`, `\k{1}`, `\g`, `\g{1`, `\g{-1}`, `\g0`, `\g2a`, `\g-1a`, `\g{2}a`, `\g{}`, `\g{a!}`, `\g<1>`, `\g<n>`, `\g'1`,
		`(?1)`, `(?2)(a)`, `(?&n)`, `(?&n`, `(?+1)`, `(?-1)`, `(?+0)`, `(?-0)`, `(?1x)`, `(?R`, `(?Rx)`, `(?+x)`, `a{2,1}`, `a{65536}`, `a{1,65536}`, `{2}`, `[[:foo:]]`, `[[:^foo:]]`, `[:alpha:]`, `[[.a.]]`, `[[=a=]]`, `[.a.]`, `\x{100}`, `\x{zz}`, `\x{`, `\x{}`, `\x{41`, `\o{8}`, `\o`, `\o{}`, `\c`, "\\c\xe9", `\u`, `\L`, `\N{x`, `\i`, `\y`, `\p`, `\p{Foo}`, `\p{L`, `\p1`, `[\R]`, `[\N]`, `[\B]`, `[\X]`, `[\Z]`, `(*FOO)a`, `a(*UTF)`, `(*THEN`,
		`(?(1)a)`, `(a)(?(1)a|b|c)`, `xx(?(7)a)d`, `(?(<n>)a)`, `(?(<n)a)`, `(?()a)`, `(?(a)b)`, `(?(1`, `(?(1a)b)`, `(?(-1)a)`, `(?(?:a)b)`, `(?(DEFINE)a|b)`, `(?#abc`, `\400`, `[\400]`, `(?=a\K)b`, `[\E]`, `[z-\Qa\E]`, `(?<abcdefghijklmnopqrstuvwxyzabcdefghijkl>a)`, `[[:alpha:`, `(a)?+?`, `a{1,2}{3}`, `(?x)( ?:a)`, `(?x)a b)`,
	}
	var questions []question
	for _, p := range patterns {
		questions = append(questions, question{pattern: p})
	}
	compare(t, questions)
}

// TestPCRERandom compares generated patterns, most of which are nonsense.
func TestPCRERandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	atoms := []string{"a", "b", "ab", ".", "[ab]", "[^a]", `\w`, `\d`, "/", `\.`, "é", "\n", `\s`, "(a)", "(b|a)", "(?:a|b)", "(a*)", "(?:ab)?", "x", "A", `\b`, "^", "$", `\n`, "[[:alpha:]]", `\x61`, "[a-c]", "|", "(ab|a)(b)?", `[^\n]`, "([^/]*)", "(a+)", "([^b]?)/"}
	quantifiers := []string{"", "", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0}"}
	extras := []string{"(?=a)", "(?!b)", "(?<=a)", "(?<!a)", `(a)\1`, "a++", "(?>a|ab)", `\K`, "(?i)", `\Z`, `\z`, `\B`, "(?s)."}
	letters := []string{"a", "b", "ab", "/", ".", "\n", "A", "x", "1", "é", "\xff", " "}
	const n = 800
	var questions []question
	for range n {
		var p strings.Builder
		if rnd.IntN(3) == 0 {
			p.WriteByte('^')
		}
		for range 1 + rnd.IntN(5) {
			if rnd.IntN(8) == 0 {
				p.WriteString(extras[rnd.IntN(len(extras))])
				continue
			}
			p.WriteString(atoms[rnd.IntN(len(atoms))])
			p.WriteString(quantifiers[rnd.IntN(len(quantifiers))])
		}
		q := question{pattern: p.String(), caseless: rnd.IntN(3) == 0}
		for range 12 {
			var s strings.Builder
			for range rnd.IntN(7) {
				s.WriteString(letters[rnd.IntN(len(letters))])
			}
			q.subjects = append(q.subjects, s.String())
		}
		questions = append(questions, q)
	}
	compare(t, questions)
}
