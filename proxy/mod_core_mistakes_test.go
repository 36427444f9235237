package proxy

import "testing"

// The messages are those of nginx 1.31.5 for a statement of a server block.
func TestServerMistakes(t *testing.T) {
	for conf, want := range map[string]string{
		"try_files a;":                                `invalid number of arguments in "try_files" directive`,
		"try_files a =x;":                             `invalid code "=x"`,
		"try_files a =1000;":                          `invalid code "=1000"`,
		"try_files a b; try_files a b;":               `"try_files" directive is duplicate`,
		"location / { if ($uri) { try_files a b; } }": `"try_files" directive is not allowed here`,
	} {
		_, diags := prepare(t).parse("events {} http { server { " + conf + " } }")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != want {
			t.Errorf("%s\n%v, want %s", conf, diags, want)
		}
	}
}
