package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// runCommand runs a command and gives its output and exit status.
func runCommand(t *testing.T, cmd *cobra.Command, stdin string, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	var code exitCode
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &code):
		return out.String(), int(code)
	}
	return out.String() + err.Error(), 2
}

const (
	soundSite  = "server { listen 8080; return 204; }\n"
	warnedSite = "server { listen 8080; location /a { return 302 https://x.test$uri; } }\n"
	notedSite  = "server { listen 8080; server_tokens on; return 204; }\n"
	brokenSite = "server { listen 8080; retrun 204; }\n"
)

func TestValidateExitStatus(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sound, warned := write("sound.conf", soundSite), write("warned.conf", warnedSite)
	passed := write("passed.conf", "server { listen 8080; location / { proxy_pass http://127.0.0.1:9; } }\n")
	noted, broken := write("noted.conf", notedSite), write("broken.conf", brokenSite)
	for _, tt := range []struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		{args: []string{sound}, want: "the file can be served"},
		{args: []string{warned}, want: "warning[S002]"},
		{args: []string{warned, "--fail-on", "warning"}, code: 3},
		{args: []string{noted, "--fail-on", "warning"}, want: "note[S012]"},
		{args: []string{noted, "--fail-on", "info"}, code: 3},
		{args: []string{broken}, code: 1, want: `did you mean "return"?`},
		{args: []string{warned, "--rules", "C,D"}, want: "the file can be served\n"},
		{args: []string{warned, "--rules", "-S002"}, want: "the file can be served\n"},
		{args: []string{"-"}, stdin: warnedSite, want: "<stdin>:1:"},
		{args: []string{"--context", "server", "-"}, stdin: "return 204;", want: "can be served"},
		{args: []string{"--context", "http,server", "-"}, stdin: "return 204;", want: "can be served"},
		{args: []string{"--context", "server,http", "-"}, stdin: "return 204;", code: 2},
		{args: []string{"--rules", "S002,X9", "-"}, stdin: "return 204;", code: 2},
		{args: []string{dir}, code: 1, want: "1 error"},
		{args: []string{sound, warned}, want: "2 files can be served"},
		{args: []string{filepath.Join(dir, "none.conf")}, code: 1, want: "No such file"},
		{args: []string{"-"}, stdin: "", code: 1, want: "error"},
		{args: []string{"-"}, stdin: "\x7fELF\x02\x01\x00\x00\xff\xfe{{{;;;", code: 1, want: "error"},
		{args: []string{"-"}, stdin: "server {\n listen 80;\n location / {", code: 1, want: "never closed"},
		{args: []string{passed, "--nginx-version", "1.22"}, want: "note[V001]"},
		{args: []string{passed, "--nginx-version", "1.31.5"}, want: "the file can be served\n"},
		{args: []string{passed, "--nginx-version", "new"}, code: 2},
		{args: []string{sound, "--format", "xml"}, code: 2, want: "unknown format"},
		{args: []string{sound, "--fail-on", "x"}, code: 2},
		{args: []string{sound, "--context", "x"}, code: 2},
	} {
		out, code := runCommand(t, validateCommand(), tt.stdin, tt.args...)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: exit %d, want %d and %q in\n%s", tt.args, code, tt.code, tt.want, out)
		}
	}
}

func TestValidateFormats(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("a.conf", []byte("server {\n    listen 8080;\n    location /ä { return 302 https://x.test$uri; }\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"errorformat": `a.conf:3:31: warning: $uri is decoded: %0d%0a in the path becomes a line of the answer [S002]`,
		"github":      `::warning file=a.conf,line=3,col=31,title=S002::$uri is decoded: %250d%250a in the path becomes a line of the answer%0A$request_uri is the path`,
		"nginx":       "nginx: [warn] $uri is decoded: %0d%0a in the path becomes a line of the answer in " + dir + "/a.conf:3",
	} {
		if out, code := runCommand(t, validateCommand(), "", "--format", format, "a.conf"); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, no %q in\n%s", format, code, want, out)
		}
	}
	out, _ := runCommand(t, validateCommand(), "", "--format", "sarif", "a.conf")
	var log sarifLog
	if err := json.Unmarshal([]byte(out), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	result := run.Results[0]
	region := result.Locations[0].Physical.Region
	// the place counts characters, not bytes
	if log.Version != "2.1.0" || result.RuleID != "S002" || run.Tool.Driver.Rules[*result.RuleIndex].ID != "S002" ||
		region.StartLine != 3 || region.StartColumn != 30 || result.Locations[0].Physical.Artifact.URI != "a.conf" {
		t.Errorf("%+v", result)
	}
}

func TestBaseline(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("a.conf", []byte(warnedSite), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, code := runCommand(t, validateCommand(), "", "--baseline", "known", "a.conf"); code != 2 {
		t.Errorf("a baseline that is missing: exit %d\n%s", code, out)
	}
	runCommand(t, validateCommand(), "", "--write-baseline", "known", "a.conf")
	// what moved is still known, what is new is not
	moved := "# a line more\n" + warnedSite + notedSite
	if err := os.WriteFile("a.conf", []byte(strings.Replace(moved, "8080", "8081", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := runCommand(t, validateCommand(), "", "--baseline", "known", "--fail-on", "info", "a.conf")
	if code != 3 || strings.Contains(out, "S002") || !strings.Contains(out, "S012") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestFmtCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	const messy, neat = "server{listen 8080;}", "server {\n    listen 8080;\n}\n"
	if err := os.WriteFile("a.conf", []byte(messy), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--check", "a.conf"}, 1, "a.conf\n"},
		{[]string{"--diff", "a.conf"}, 1, "-server{listen 8080;}\n\\ No newline at end of file\n+server {\n"},
		{[]string{"a.conf"}, 0, neat},
		{[]string{"-w", "a.conf"}, 0, ""},
		{[]string{"--check", "a.conf"}, 0, ""},
		{[]string{"none.conf"}, 1, "no such file"},
	} {
		out, code := runCommand(t, fmtCommand(), "", tt.args...)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%v: exit %d, want %d and %q in\n%s", tt.args, code, tt.code, tt.want, out)
		}
	}
	text, err := os.ReadFile("a.conf")
	if err != nil || string(text) != neat {
		t.Errorf("%v: %q", err, text)
	}
	if info, _ := os.Stat("a.conf"); info.Mode().Perm() != 0o640 {
		t.Errorf("rights are now %v", info.Mode())
	}
	if out, code := runCommand(t, fmtCommand(), messy, "-"); code != 0 || out != neat {
		t.Errorf("standard input: exit %d\n%s", code, out)
	}
}
