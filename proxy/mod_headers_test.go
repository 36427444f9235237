package proxy

import (
	"testing"
	"time"

	"proxyctl/proxy/sock"
)

func TestHeadersOnTheWire(t *testing.T) {
	const file = "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT\nETag: \"6553f100-4\""
	testWire(t, []wireCase{
		{name: "add", server: `add_header X-A "a $uri"; add_header x-a two; return 200 x;`, request: "GET /p", want: "200\nX-A: a /p\nx-a: two\nx"},
		{name: "empty", server: `add_header X-A ""; add_header X-B $arg_b; return 200 x;`, request: "GET /p", want: "200\nx"},
		{name: "not on errors", server: `add_header X-A 1; add_header X-B 2 always; return 404;`, request: "GET /p", want: "404\nX-B: 2"},
		{name: "on redirects", server: `add_header X-A 1; return 308 /q;`, request: "GET /p", want: "308\nLocation: http://a.test/q\nX-A: 1"},
		{name: "line feeds", server: `add_header X-A $uri; return 200 x;`, request: "GET /a%0d%0aX-Evil:1", want: "200\nX-A: /aX-Evil:1\nx", unlike: "200\nX-A: /a\nX-Evil:1\nx"},
		{name: "inherited", http: `add_header X-H 1;`, server: `location / { return 200 x; }`, request: "GET /", want: "200\nX-H: 1\nx"},
		{name: "replaced", http: `add_header X-H 1;`, server: `add_header X-S 2; location / { add_header X-L 3; return 200 x; }`, request: "GET /", want: "200\nX-L: 3\nx"},
		{name: "merged", http: `add_header X-H 1; add_header_inherit merge;`, server: `add_header X-S 2; location / { add_header X-L 3; return 200 x; }`, request: "GET /", want: "200\nX-L: 3\nX-S: 2\nX-H: 1\nx"},
		{name: "not inherited", http: `add_header X-H 1;`, server: `add_header_inherit off; location / { return 200 x; }`, request: "GET /", want: "200\nx"},
		{name: "merge in if", server: `location / { add_header X-L 3; add_header_inherit merge; if ($uri) { add_header X-I 4; return 200 x; } }`, request: "GET /", want: "200\nX-I: 4\nX-L: 3\nx"},

		{name: "cache control twice", server: `add_header Cache-Control a; add_header Cache-Control b; return 200 x;`, request: "GET /", want: "200\nCache-Control: a\nCache-Control: b\nx"},
		{name: "expires and cache control", server: `expires max; add_header Cache-Control public; return 200 x;`, request: "GET /", want: "200\nExpires: Thu, 31 Dec 2037 23:55:55 GMT\nCache-Control: max-age=315360000\nCache-Control: public\nx"},
		{name: "etag", server: `add_header ETag '"x"'; add_header Etag '"y"';`, request: "GET /file.txt", want: "200\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\nEtag: \"y\"\nfile"},
		{name: "etag off", server: `add_header ETag "";`, request: "GET /file.txt", want: "200\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\nfile"},
		{name: "last modified off", server: `add_header Last-Modified "";`, request: "GET /file.txt", want: "200\nETag: \"6553f100-4\"\nfile"},
		{name: "last modified", server: `etag off; add_header Last-Modified "Wed, 15 Nov 2023 22:13:20 GMT";`, request: "GET /file.txt", want: "200\nLast-Modified: Wed, 15 Nov 2023 22:13:20 GMT\nfile"},
		{name: "last modified text", server: `etag off; add_header last-modified never;`, request: "GET /file.txt", want: "200\nlast-modified: never\nfile"},
		{name: "last modified of text", server: `add_header Last-Modified "Wed, 15 Nov 2023 22:13:20 GMT" always; return 404 x;`, request: "GET /", want: "404\nLast-Modified: Wed, 15 Nov 2023 22:13:20 GMT\nx"},

		{name: "expires epoch", server: `expires epoch; return 200 x;`, request: "GET /", want: "200\nExpires: Thu, 01 Jan 1970 00:00:01 GMT\nCache-Control: no-cache\nx"},
		{name: "expires off", http: `expires max;`, server: `expires off; return 200 x;`, request: "GET /", want: "200\nx"},
		{name: "expires error", server: `expires max; return 404 x;`, request: "GET /", want: "404\nx"},
		{name: "expires modified", server: `expires modified +1d;`, request: "GET /file.txt", want: "200\n" + file + "\nExpires: Wed, 15 Nov 2023 22:13:20 GMT\nCache-Control: no-cache\nfile"},
		{name: "expires variable", server: `expires $arg_e; return 200 x;`, request: "GET /?e=max", want: "200\nExpires: Thu, 31 Dec 2037 23:55:55 GMT\nCache-Control: max-age=315360000\nx"},
		{name: "expires variable off", server: `expires $arg_e; return 200 x;`, request: "GET /?e=off", want: "200\nx"},
		{name: "expires variable bad", server: `expires $arg_e; return 200 x;`, request: "GET /?e=soon", want: "200\nx"},
		{name: "expires variable modified", server: `expires modified $arg_e;`, request: "GET /file.txt?e=2d", want: "200\n" + file + "\nExpires: Thu, 16 Nov 2023 22:13:20 GMT\nCache-Control: no-cache\nfile"},
		{name: "not modified", server: `add_header X-A 1; expires epoch;`, request: "GET /file.txt\nIf-None-Match: \"6553f100-4\"", want: "304\n" + file + "\nExpires: Thu, 01 Jan 1970 00:00:01 GMT\nCache-Control: no-cache\nX-A: 1"},

		{name: "trailer", server: `add_trailer X-T "t $status"; add_trailer X-E ""; return 200 x;`, request: "GET /", want: "200\ntrailer X-T: t 200\nx"},
		{name: "trailer of file", server: `add_trailer X-T t;`, request: "GET /file.txt", want: "200\n" + file + "\ntrailer X-T: t\nfile"},
		{name: "trailer after ranges", server: `add_trailer X-T "$sent_http_accept_ranges"; etag off;`, request: "GET /file.txt", want: "200\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\ntrailer X-T: bytes\nfile"},
		{name: "trailer on error", server: `add_trailer X-T t; return 404 x;`, request: "GET /", want: "404\nx"},
		{name: "trailer always", server: `add_trailer X-T t always; return 404 x;`, request: "GET /", want: "404\ntrailer X-T: t\nx"},
		{name: "trailer HTTP/1.0", server: `add_trailer X-T t; return 200 x;`, request: "GET / HTTP/1.0", want: "200\nx"},
		{name: "trailer HEAD", server: `add_trailer X-T t; return 200 x;`, request: "HEAD /", want: "200"},
	})
}

// TestExpiresTimes are those that depend on the clock.
func TestExpiresTimes(t *testing.T) {
	now := time.Now()
	tests := []struct {
		e       expiry
		age     int64
		control string
	}{
		{expiry{kind: expiresAccess, time: 60}, 60, "max-age=60"},
		{expiry{kind: expiresAccess}, 0, "max-age=0"},
		{expiry{kind: expiresModified}, 0, "max-age=0"},
		{expiry{kind: expiresAccess, time: -60}, -60, "no-cache"},
	}
	sweeper := sock.NewSweeper()
	defer sweeper.Stop()
	for _, tt := range tests {
		x := &Exchange{client: &client{rt: &Runtime{sweeper: sweeper}}}
		x.Out.reset()
		until, control := tt.e.fromTime(x, tt.e.time < 0)
		at, ok := parseHTTPTime(until)
		if d := at - now.Unix() - tt.age; !ok || d < 0 || d > 5 {
			t.Errorf("%+v: %s", tt.e, until)
		}
		if string(control) != tt.control {
			t.Errorf("%+v: %s", tt.e, control)
		}
	}
	day := time.Date(2024, 5, 31, 12, 0, 0, 0, time.Local)
	for seconds, want := range map[int64]time.Time{
		13 * 3600: day.Add(time.Hour),
		12 * 3600: day.AddDate(0, 0, 1),
		11 * 3600: day.AddDate(0, 0, 1).Add(-time.Hour),
		24 * 3600: day.Add(12 * time.Hour),
	} {
		if got := nextTime(day, seconds); got != want.Unix() {
			t.Errorf("@%d: %s", seconds, time.Unix(got, 0))
		}
	}
}

func TestHeadersErrors(t *testing.T) {
	testErrors(t, []errorCase{
		{`expires soon;`, `"expires" directive invalid value`},
		{`expires later 1d;`, `"expires" directive invalid value`},
		{`expires modified @1h;`, `"expires" directive daily time cannot be used with "modified" parameter`},
		{`expires modified epoch;`, `"expires" directive invalid value`},
		{`expires @25h;`, `"expires" directive daily time value must be less than 24 hours`},
		{`expires 1h; expires 2h;`, `"expires" directive is duplicate`},
		{`expires @24h;`, ``},
		{`expires -1;`, ``},
		{`add_header a b c;`, `invalid parameter "c"`},
		{`add_header a ${b;`, `the closing bracket in "b" variable is missing`},
		{`add_header_inherit yes;`, `invalid value "yes"`},
		{`add_header_inherit on; add_header_inherit on;`, `"add_header_inherit" directive is duplicate`},
	})
}
