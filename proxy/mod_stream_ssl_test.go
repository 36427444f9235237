package proxy

import (
	"slices"
	"strings"
	"testing"
)

// The messages are those of nginx 1.31.5 for a statement of the stream block.
func TestSessionTLSMistakes(t *testing.T) {
	const server = "server { listen 127.0.0.1:1 ssl; return x; %s }"
	p := prepare(t)
	long := strings.Repeat("x", 256)
	for conf, want := range map[string]string{
		"server { listen 127.0.0.1:1 ssl; return x; }":                                                  `no "ssl_certificate" is defined for the "listen ... ssl" directive`,
		"server { listen 127.0.0.1:1 ssl; return x; ssl_reject_handshake on; }":                         "",
		"server { listen 127.0.0.1:1 ssl; return x; ssl_certificate c; }":                               `no "ssl_certificate_key" is defined for certificate "c"`,
		"ssl_reject_handshake on; ssl_verify_client on; " + server:                                      "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
		"ssl_alpn " + long + ";":                                                                        `"ssl_alpn" directive protocol too long`,
		"ssl_alpn a; ssl_alpn b;":                                                                       `"ssl_alpn" directive is duplicate`,
		"ssl_handshake_timeout x;":                                                                      `"ssl_handshake_timeout" directive invalid value`,
		"ssl_buffer_size 4k;":                                                                           `"ssl_buffer_size" directive is not allowed here`,
		"ssl_early_data on;":                                                                            `"ssl_early_data" directive is not allowed here`,
		"ssl_session_cache shared:a:64k; ssl_ocsp_cache shared:a:64k;":                                  `the shared memory zone "a" is already declared for a different use`,
		"ssl_session_cache shared:a:64k; } http { ssl_session_cache shared:a:64k;":                      `the shared memory zone "a" is already declared for a different use`,
		"ssl_session_cache shared:a:64k; server { ssl_session_cache shared:a:32k; }":                    `the size 32768 of shared memory zone "a" conflicts with already declared size 65536`,
		"server { listen 127.0.0.1:1; proxy_pass 127.0.0.1:2; proxy_ssl on; proxy_ssl_verify on; }":     "no proxy_ssl_trusted_certificate for proxy_ssl_verify",
		"server { listen 127.0.0.1:1; proxy_pass 127.0.0.1:2; proxy_ssl on; proxy_ssl_certificate c; }": `no "proxy_ssl_certificate_key" is defined for certificate "c"`,
		"server { listen 127.0.0.1:1; proxy_pass 127.0.0.1:2; proxy_ssl_verify on; }":                   "",
		"proxy_ssl x;":                          `invalid value "x" in "proxy_ssl" directive, it must be "on" or "off"`,
		"proxy_ssl_alpn " + long + ";":          `"proxy_ssl_alpn" directive protocol too long`,
		"proxy_ssl_alpn a b; proxy_ssl_alpn c;": `"proxy_ssl_alpn" directive is duplicate`,
		"ssl_preread x;":                        `invalid value "x" in "ssl_preread" directive, it must be "on" or "off"`,
		"ssl_session_cache x;":                  `invalid session cache "x"`,
		"server { listen 127.0.0.1:1; return $ssl_client_s_dn_legacy; }": `unknown "ssl_client_s_dn_legacy" variable`,
	} {
		_, diags := p.parse("events {} stream { " + strings.ReplaceAll(conf, "%s", "") + " }")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != want {
			t.Errorf("%s\n%v, want %s", conf, diags, want)
		}
	}
}

func TestSessionALPN(t *testing.T) {
	for _, tt := range []struct{ ours, theirs, want []string }{
		{nil, []string{"h2"}, nil},
		{[]string{"h2"}, nil, []string{""}}, // which counts when they offer some
		{[]string{"h2", "x"}, []string{"x"}, []string{"h2", "x"}},
		{[]string{"h2"}, []string{"http/1.1"}, []string{""}},
	} {
		if got := sessionALPN(tt.ours, tt.theirs); !slices.Equal(got, tt.want) {
			t.Errorf("%q of %q: %q", tt.theirs, tt.ours, got)
		}
	}
}
