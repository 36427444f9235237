package proxy

import "testing"

// The messages are those of nginx 1.31.5 for a statement of a server block.
func TestServerMistakes(t *testing.T) {
	for conf, want := range map[string]string{
		"try_files a;":              `invalid number of arguments in "try_files" directive`,
		"try_files a =x;":           `invalid code "=x"`,
		"try_files a =1000;":        `invalid code "=1000"`,
		"connection_pool_size 100;": `the pool size must be no less than 112`,
		"request_pool_size 120;":    `the pool size must be a multiple of 16`,
		"aio x;":                    `"aio" directive invalid value`,
		"aio on; aio off;":          `"aio" directive is duplicate`,
		"aio threads=pool;":         "",
		"aio threads=$host;":        "",
		"directio x;":               `"directio" directive invalid value`,
		"directio 4m; directio_alignment 4k; read_ahead 1;": "",
		"directio off; open_file_cache off;":                "",
		"sendfile_max_chunk 1g;":                            `"sendfile_max_chunk" directive invalid value`,
		"postpone_output x;":                                `"postpone_output" directive invalid value`,
		"types_hash_max_size x;":                            `"types_hash_max_size" directive invalid number`,
		"output_buffers 1 0;":                               `"output_buffers" directive invalid value`,
		"send_lowat x;":                                     `"send_lowat" directive invalid value`,
		"send_lowat 1;":                                     `"send_lowat" is not supported, ignored`,
		"open_file_cache max=0;":                            `invalid "open_file_cache" parameter "max=0"`,
		"open_file_cache inactive=1;":                       `"open_file_cache" must have the "max" parameter`,
		"open_file_cache max=1 inactive=x;":                 `invalid "open_file_cache" parameter "inactive=x"`,
		"open_file_cache_errors x;":                         `invalid value "x" in "open_file_cache_errors" directive, it must be "on" or "off"`,
		"open_file_cache_valid 1ms;":                        `"open_file_cache_valid" directive invalid value`,
		"disable_symlinks from=a;":                          `"disable_symlinks" must have "off", "on" or "if_not_owner" parameter`,
		"disable_symlinks on off;":                          `duplicate parameters "on off"`,
		"disable_symlinks off from=a;":                      `"from=" cannot be used with "off" parameter`,
		"disable_symlinks x;":                               `invalid parameter "x"`,
		"auth_delay x;":                                     `"auth_delay" directive invalid value`,
		"early_hints;":                                      `invalid number of arguments in "early_hints" directive`,
		"early_hints $http_x 1;":                            "",
		"if ($uri) { early_hints 1; }":                      `"early_hints" directive is not allowed here`,
		"try_files a b; try_files a b;":                     `"try_files" directive is duplicate`,
		"location / { if ($uri) { try_files a b; } }":       `"try_files" directive is not allowed here`,
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
