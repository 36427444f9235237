package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestSchemas holds what the commands write against what they say that they
// write: nothing of another kind, nothing that is not described.
func TestSchemas(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"fine.conf":    soundSite,
		"bad.conf":     "server {\n listen 80 443;\n include none.conf;\n locaton / { }\n fastcgi_pass x; add_header X $nobody;\n",
		"lints.conf":   "add_header X-Frame-Options DENY always;\nserver { listen 80; server_name a; location /i { alias /srv/i/; add_header A b; } }\nserver { listen 80; server_name a; ssl_protocols SSLv3; auth_ldap x; }\n",
		"include.conf": "server { listen 80; include part.conf; }\n",
		"part.conf":    "return 301 https://x$uri;\n",
		"explain.conf": "server { listen 80; location / { auth_request /a; proxy_pass http://127.0.0.1:1; }\nlocation /a { proxy_pass http://127.0.0.1:2; } location /r { return 200 hello; } location /n { return 444; } }\n",
		"empty.conf":   "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		schema  string
		command func() *cobra.Command
		args    []string
	}{
		{"validate", validateCommand, []string{"fine.conf", "bad.conf", "lints.conf", "include.conf", "empty.conf", "none.conf"}},
		{"validate", validateCommand, []string{"fine.conf"}},
		{"explain", explainCommand, []string{"-c", "explain.conf", "/"}},
		{"explain", explainCommand, []string{"-c", "explain.conf", "/r"}},
		{"explain", explainCommand, []string{"-c", "explain.conf", "/n"}},
		{"migrate-check", migrateCheckCommand, []string{"--nginx", "/nonexistent", "lints.conf"}},
		{"migrate-check", migrateCheckCommand, []string{"--nginx", "/nonexistent", "fine.conf"}},
		{"migrate-check", migrateCheckCommand, []string{"--nginx", "/nonexistent", "empty.conf"}},
	} {
		out, code := runCommand(t, tt.command(), "", "--format", "json-schema")
		var schema, value any
		if err := json.Unmarshal([]byte(out), &schema); err != nil || code != 0 {
			t.Fatalf("%s: exit %d, %v", tt.schema, code, err)
		}
		out, _ = runCommand(t, tt.command(), "", append([]string{"--format", "json"}, tt.args...)...)
		if err := json.Unmarshal([]byte(out), &value); err != nil {
			t.Errorf("%s %v: %v\n%s", tt.schema, tt.args, err, out)
			continue
		}
		c := schemaCheck{root: schema.(map[string]any)}
		c.check("", c.root, value)
		for _, problem := range c.problems {
			t.Errorf("%s %s: %s", tt.schema, strings.Join(tt.args, " "), problem)
		}
	}
}

// schemaCheck knows as much of JSON Schema as the schemas use, and takes a field
// that is not described for a mistake.
type schemaCheck struct {
	root     map[string]any
	problems []string
}

func (c *schemaCheck) fail(at, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("%s: ", at)+fmt.Sprintf(format, args...))
}

func (c *schemaCheck) check(at string, schema map[string]any, value any) {
	for word, says := range schema {
		switch word {
		case "$ref":
			name := strings.TrimPrefix(says.(string), "#/$defs/")
			c.check(at, c.root["$defs"].(map[string]any)[name].(map[string]any), value)
		case "type":
			c.kind(at, says, value)
		case "const":
			if !reflect.DeepEqual(says, value) {
				c.fail(at, "%v is not %v", value, says)
			}
		case "enum":
			if !slices.Contains(says.([]any), value) {
				c.fail(at, "%v is none of %v", value, says)
			}
		case "pattern":
			if s, _ := value.(string); !regexp.MustCompile(says.(string)).MatchString(s) {
				c.fail(at, "%q does not match %v", s, says)
			}
		case "minimum", "maximum":
			if n, _ := value.(float64); word == "minimum" && n < says.(float64) || word == "maximum" && n > says.(float64) {
				c.fail(at, "%v is beyond %v", n, says)
			}
		case "required":
			for _, name := range says.([]any) {
				if _, has := value.(map[string]any)[name.(string)]; !has {
					c.fail(at, "%v is missing", name)
				}
			}
		case "properties":
			c.fields(at, says.(map[string]any), value)
		case "items":
			list, _ := value.([]any)
			for i, item := range list {
				c.check(fmt.Sprintf("%s[%d]", at, i), says.(map[string]any), item)
			}
		case "$schema", "$defs", "title", "description":
		default:
			c.fail(at, "the test does not know %q", word)
		}
	}
}

func (c *schemaCheck) fields(at string, known map[string]any, value any) {
	object, _ := value.(map[string]any)
	for name, field := range object {
		schema, described := known[name].(map[string]any)
		if !described {
			c.fail(at, "%q is not described", name)
			continue
		}
		c.check(at+"."+name, schema, field)
	}
}

func (c *schemaCheck) kind(at string, want, value any) {
	got := "null"
	switch v := value.(type) {
	case string:
		got = "string"
	case bool:
		got = "boolean"
	case []any:
		got = "array"
	case map[string]any:
		got = "object"
	case float64:
		got = "number"
		if v == float64(int64(v)) {
			got = "integer"
		}
	}
	names, several := want.([]any)
	if !several {
		names = []any{want}
	}
	if !slices.Contains(names, any(got)) {
		c.fail(at, "%s in the place of %v", got, want)
	}
}
