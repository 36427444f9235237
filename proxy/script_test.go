package proxy

import (
	"bytes"
	"testing"
)

// TestScriptsAllocate: a script costs no memory once the exchange has some.
func TestScriptsAllocate(t *testing.T) {
	for _, conf := range []string{
		`set $a b;`,
		`set $a "$host-$request_uri"; set $b $a;`,
		`if ($host = x) { set $a 1; }`,
		`if ($http_user_agent ~* ^(r[a-z]*)) { set $a $1; }`,
		`if ($request_method != GET) { return 405; }`,
		`rewrite ^/old/(.*)$ /new/$1 break;`,
		`rewrite ^/a/(.*)$ /b/$1?x=$1 break;`,
		`return 301 https://$host$request_uri;`,
		`rewrite ^/a/(.*)$ https://example.com/$1 permanent;`,
		`return 444;`,
		`if ($agent) { set $a 1; }`,
	} {
		p := newProxyTest(t, `map $http_user_agent $agent { default 0; ~curl 1; known 2; }`, conf)
		x, _ := p.exchange("GET /a/b?c=d", "Host: example.com", "User-Agent: Robot/2.0")
		x.slots = make([]slot, p.table.http.vars.slots)
		s := x.loc.Conf.Own.Script
		uri, args, arena := x.uri, x.args, make([]byte, 0, 4096)
		again := func() {
			x.uri, x.args, x.arena = uri, args, arena
			x.Out.Fields = x.Out.Fields[:0]
			clear(x.slots)
			s.run(x)
		}
		again()
		again()
		if n := testing.AllocsPerRun(50, again); n > 0 {
			t.Errorf("%s: %v allocations", conf, n)
		}
	}
}

func BenchmarkReturn(b *testing.B) {
	benchmarkScript(b, `return 301 https://$host$request_uri;`)
}

func BenchmarkSetIfRewrite(b *testing.B) {
	benchmarkScript(b, `set $a $host; if ($host = x) { return 404; } rewrite ^/a/(.*)$ /b/$1 break;`)
}

func benchmarkScript(b *testing.B, conf string) {
	r := prepare(b)
	table := r.load("events {} http { server { listen unix:%dir%/s; " + conf + " } }")
	p := &proxyTest{table: table, rt: r.Runtime}
	x, _ := p.exchange("GET /a/b?c=d", "Host: example.com")
	x.slots = make([]slot, table.http.vars.slots)
	uri, args, arena := x.uri, x.args, make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		x.uri, x.args, x.arena = uri, args, arena
		x.loc.Conf.Own.Script.run(x)
	}
}

func FuzzUnescapeRedirect(f *testing.F) {
	for _, s := range []string{"/a%20b%41?%41", "%", "%4", "%zz", "%3f%41", "%3F%0d%0a", "%25%32%35"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		in := bytes.Clone(s)
		out := unescapeRedirect(bytes.Clone(s))
		if len(out) > len(in) {
			t.Fatalf("%q grows to %q", in, out)
		}
		for _, c := range []byte("\r\n\x00 ") {
			if bytes.Count(out, []byte{c}) > bytes.Count(in, []byte{c}) {
				t.Fatalf("%q has a new %q in %q", in, c, out)
			}
		}
	})
}

func TestUnescapeRedirect(t *testing.T) {
	for in, want := range map[string]string{
		"/a": "/a", "%41": "A", "%7e": "~", "%7f": "%7f", "%20%25%0a": "%20%25%0a", "%4": "", "%": "", "%zz": "zz", "%4z1": "1",
		"?%41": "?%41", "%3f%41": "?%41", "%3F%41": "?%41", "%41%3f%41%41": "A?%41%41", "%c3%a4": "%c3%a4",
	} {
		if got := unescapeRedirect([]byte(in)); string(got) != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
