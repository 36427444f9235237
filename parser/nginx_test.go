package parser

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var mutations = flag.Int("mutations", 250, "how many mutated configurations to compare with nginx")

// reference runs the nginx of the machine.
type reference struct {
	binary, dir string
}

func newReference(t *testing.T) *reference {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("no nginx to compare with")
	}
	r := &reference{binary, t.TempDir()}
	if err := os.Mkdir(filepath.Join(r.dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// Debian's build writes its errors in the format of its log.
var emerg = regexp.MustCompile(`(?s)^.*?\[(?:emerg|crit)\] (?:\d+#\d+: )?`)

// verdict gives nginx's first error, "" when it accepts the file.
func (r *reference) verdict(t *testing.T, name string) string {
	cmd := exec.Command(r.binary, "-t", "-q", "-e", "stderr", "-p", r.dir, "-c", name, "-g", "pid "+r.dir+"/pid;")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	found := emerg.FindIndex(out)
	if found == nil {
		t.Fatalf("nginx failed without a message: %v\n%q", err, out)
	}
	text := out[found[1]:]
	if i := bytes.LastIndex(text, []byte("\nnginx: configuration file")); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSuffix(string(text), "\n")
}

func (r *reference) write(t *testing.T, name, text string) string {
	name = filepath.Join(r.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// scannerError tells nginx's messages about syntax from those about meaning.
var scannerError = regexp.MustCompile(`^(unexpected "(?s:.)" in |unexpected end of |too long parameter|open\(\) )`)

// unexpected "{" comes from the scanner and from handlers of map and its like.
func agrees(want string, f *File) error {
	d := firstProblem(f)
	got := ""
	if d != nil {
		got = d.Error()
	}
	switch {
	case want == got:
		return nil
	case want == "":
		return fmt.Errorf("nginx accepts it, we say %q", got)
	case strings.HasPrefix(want, `unexpected "{"`) && (d == nil || d.At.Line() >= lineOf(want)):
		return nil // may be about meaning
	case scannerError.MatchString(want):
		return fmt.Errorf("nginx says %q, we say %q", want, got)
	case d != nil && lineOf(want) > d.At.Line():
		return fmt.Errorf("nginx says %q, we see %q before", want, got)
	}
	return nil
}

func lineOf(message string) int {
	n := 0
	if i := strings.LastIndexByte(message, ':'); i >= 0 {
		_, _ = fmt.Sscan(message[i+1:], &n)
	}
	if n == 0 {
		return 1 << 30 // no place: found after reading
	}
	return n
}

const seedConfig = `# a file that uses all of the syntax
events { worker_connections 64; }
http {
    access_log off; log_format main '$host "$uri" ' # first
        "b\"c\\d\te
f" ${host}x;
    map $host $x {
        default "a b"; ~^\d+$ 'c;d'; "k{1}" ${uri}z;# c
        \include y; ')' 1; a\;b\ c\{ 2; $x${{ 3;
    }
    types { text/html htm html; 'text/x' x ; }
    map "$host" $y{a b;}
    add_header A "x" ;add_header B '' always;
}
`

// mutate changes a few bytes of a text, mostly to bytes that mean something.
func mutate(r *rand.Rand, text string) string {
	const bytes = "{}{};;\"\"''\\\\$$##)(\n \t\r\x00axn\xff"
	b := []byte(text)
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b))
		c := bytes[r.IntN(len(bytes))]
		switch r.IntN(4) {
		case 0:
			b = append(b[:at], b[at+1:]...)
		case 1:
			b[at] = c
		case 2:
			b = append(b[:at], append([]byte{c}, b[at:]...)...)
		case 3:
			n := min(len(b)-at, 1+r.IntN(40))
			b = append(b[:at], b[at+n:]...)
		}
	}
	return string(b)
}

func TestAgreesWithNginx(t *testing.T) {
	ref := newReference(t)
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for i := range *mutations {
		text := seedConfig
		if i > 0 {
			text = mutate(r, text)
		}
		name := ref.write(t, "t.conf", text)
		want := ref.verdict(t, name)
		if i == 0 && want != "" {
			t.Fatalf("nginx refuses the seed: %s", want)
		}
		if want != "" {
			refused++
		}
		if err := agrees(want, ParseFile(name, Options{})); err != nil {
			t.Errorf("%v\n%q", err, text)
		}
	}
	t.Logf("nginx refused %d of %d", refused, *mutations)
}

// longConfig makes a file whose long token or comment lies somewhere around
// the edges of nginx's read buffer.
func longConfig(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(3) {
		b.WriteString("#" + strings.Repeat("p", r.IntN(window-2)) + "\n")
	}
	b.WriteString(strings.Repeat(" ", r.IntN(50)) + "events {}\nhttp { map $host $x {\n")
	if left := window - b.Len()%window; r.IntN(2) == 0 && left > 8 {
		b.WriteString(strings.Repeat(" ", max(0, left-r.IntN(8))))
	}
	n := window - 8 + r.IntN(14)
	if r.IntN(4) == 0 {
		n = r.IntN(2 * window)
	}
	body := strings.Repeat("a", n)
	if r.IntN(4) == 0 {
		body = strings.Repeat("a\n", n/2)
	}
	bare := strings.ReplaceAll(body, "\n", "a")
	switch r.IntN(7) {
	case 0:
		b.WriteString(bare + " 1;")
	case 1:
		b.WriteString(`"` + body + `" 1;`)
	case 2:
		b.WriteString("'" + body + "'   1;")
	case 3:
		b.WriteString("#" + bare + "\n")
	case 4:
		b.WriteString("k #" + bare + "\n 1 ;")
	case 5:
		b.WriteString(`"` + body + `")` + bare + `;`)
	case 6:
		b.WriteString("k " + bare + `\` + "\n" + ";")
	}
	b.WriteString("\n}}\n")
	return b.String()
}

func TestWindowAgreesWithNginx(t *testing.T) {
	ref := newReference(t)
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range *mutations {
		text := longConfig(r)
		name := ref.write(t, "t.conf", text)
		want := ref.verdict(t, name)
		if want != "" {
			refused++
		}
		if err := agrees(want, ParseFile(name, Options{})); err != nil {
			at := strings.IndexByte(text, 'a')
			t.Errorf("%v\n%d bytes, %q", err, len(text), text[max(0, at-80):at])
		}
	}
	t.Logf("nginx refused %d of %d", refused, *mutations)
}

// Tokens decode to what nginx names when it does not know a directive.
func TestValuesAgreeWithNginx(t *testing.T) {
	ref := newReference(t)
	r := rand.New(rand.NewPCG(5, 6))
	compared := 0
	for range *mutations {
		token := make([]byte, 1+r.IntN(12))
		for i := range token {
			const bytes = "abtrn\\\\\\\"\"''${}()#;\t\r\xe9 "
			token[i] = bytes[r.IntN(len(bytes))]
		}
		text := string(token) + " x;\n"
		name := ref.write(t, "t.conf", text)
		want, ok := strings.CutPrefix(ref.verdict(t, name), `unknown directive "`)
		if !ok {
			continue
		}
		compared++
		f := ParseFile(name, Options{})
		got := f.Body.Items[0].Name.Value
		if i := strings.LastIndex(want, `" in `); i < 0 || want[:i] != got {
			t.Errorf("%q: nginx reads %q, we read %q", text, want, got)
		}
	}
	if compared < *mutations/4 {
		t.Errorf("only %d of %d compared", compared, *mutations)
	}
}
