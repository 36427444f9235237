package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"proxyctl/parser"
)

// TestUpstreamMistakes holds what nginx 1.31.5 says about upstream blocks.
func TestUpstreamMistakes(t *testing.T) {
	t.Parallel()
	learn := "sticky learn create=$cookie_a lookup=$cookie_a "
	for body, want := range map[string]string{
		`sticky cookie "";`:                           `"sticky" directive empty cookie name`,
		"sticky cookie a domain=;":                    `"sticky" directive no value for "domain"`,
		"sticky cookie a path=/ path=/;":              `"sticky" directive parameter "path" is duplicate`,
		"sticky cookie a expires=1x;":                 `"sticky" directive invalid "expires" parameter value`,
		"sticky cookie a expires=max expires=1;":      `"sticky" directive parameter "expires" is duplicate`,
		"sticky cookie a secure secure;":              `"sticky" directive parameter "secure" is duplicate`,
		"sticky cookie a samesite=foo;":               `"sticky" directive invalid "samesite" parameter value`,
		"sticky cookie a samesite=$arg_x;":            "",
		"sticky cookie a foo;":                        `unknown parameter "foo"`,
		"sticky cookie a; sticky cookie b;":           `"sticky" directive is duplicate`,
		"sticky cookie a; least_conn;":                "load balancing method redefined",
		"sticky foo a;":                               `unknown parameter "foo"`,
		"sticky route foo;":                           `invalid variable name "foo"`,
		"sticky learn zone=a:1m;":                     `"sticky" directive "lookup" parameter is not specified`,
		"sticky learn lookup=$cookie_a;":              `"sticky" directive "create" parameter is not specified`,
		"sticky learn lookup=cookie_a zone=a:1m;":     `"sticky" directive missing variable in the "lookup" parameter`,
		learn + "header;":                             `"sticky" directive "zone" parameter is not specified`,
		learn + "zone=a;":                             `"sticky" directive zone size is not specified`,
		learn + "zone=:1m;":                           `"sticky" directive zone name is not specified`,
		learn + "zone=a:1k;":                          `"sticky" directive zone is too small`,
		learn + "zone=a:1m zone=a:1m;":                `"sticky" directive duplicate zone`,
		learn + "zone=a:1m timeout=0;":                `"sticky" directive invalid timeout`,
		"zone a 1m; " + learn + "zone=a:1m;":          `the shared memory zone "a" is already declared for a different use`,
		"server 127.0.0.1:1 route=;":                  "route is empty",
		"server 127.0.0.1:1 slow_start=10s;":          `invalid parameter "slow_start=10s"`,
		"server a.test resolve;":                      `resolving names at run time requires upstream "u" in test.conf:1 to be in shared memory`,
		"zone u 64k; server a.test resolve;":          `no resolver defined to resolve names at run time in upstream "u" in test.conf:1`,
		"zone u 64k; server a.test service=http;":     `service upstream "a.test" requires "resolve" parameter`,
		"zone u 64k; server a.test service= resolve;": "service is empty",
		"server a.test:80 service=http resolve;":      `service upstream "a.test:80" may not have port`,
		"server 127.0.0.1 service=http resolve;":      `service upstream "127.0.0.1" requires domain name`,
		"server 127.0.0.2 resolve;":                   "",
		"resolver 127.0.0.1; resolver 127.0.0.1;":     `"resolver" directive is duplicate`,
		"resolver_timeout 1x;":                        `"resolver_timeout" directive invalid value`,
		"zone u;":                                     `zero size shared memory zone "u"`,
		"zone u 64k; zone u 128k;":                    `the size 131072 of shared memory zone "u" conflicts with already declared size 65536`,
		"zone u 64k; zone u;":                         "",
		"least_time foo;":                             `invalid value "foo"`,
		"least_time header foo;":                      `invalid parameter "foo"`,
		"least_time last_byte inflight;":              "",
		"random two least_time;":                      `invalid parameter "least_time"`,
		"queue 10;":                                   `unknown directive "queue"`,
		"ip_hash; server 127.0.0.1:2 backup;":         `balancing method does not support parameter "backup"`,
		"keepalive x;":                                `invalid value "x" in "keepalive" directive`,
		"server 127.0.0.1:1 weight=0;":                `invalid parameter "weight=0"`,
	} {
		_, diags := loadProxyTest(t, "upstream u { server 127.0.0.1:1; "+body+" }", "location / { proxy_pass http://u; }")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", body, got, want)
		}
	}
}

// asking sends a request and gives the address of the server that answered,
// and the cookie it got.
func (p *proxyTest) asking(line string, fields ...string) (addr, cookie string) {
	x, s := p.exchange(line, append([]string{"Host: h"}, fields...)...)
	defer x.release()
	p.do(x)
	return variableOf(x, "upstream_addr"), s.fields["set-cookie"]
}

// TestStickyCookie: the cookie names the server, and brings requests back.
func TestStickyCookie(t *testing.T) {
	t.Parallel()
	a, b := answering(t, okAnswer), answering(t, okAnswer)
	p := newProxyTest(t, fmt.Sprintf(`upstream u {
			server %s route=one; server %s;
			sticky cookie srv expires=1h domain=$arg_d httponly secure samesite=$arg_s path=/p;
		}
		upstream max { server %[1]s; sticky cookie srv expires=max; }
		upstream bare { server %[1]s; sticky cookie srv; }`, a.addr, b.addr), `
		location / { proxy_pass http://u; }
		location /max { proxy_pass http://max; }
		location /bare { proxy_pass http://bare; }`)
	seen := map[string]bool{}
	for range 2 {
		addr, cookie := p.asking("GET /?d=example.com&s=None")
		seen[addr] = true
		id := stickyID(addr)
		if addr == a.addr {
			id = "one"
		}
		value, attributes, _ := strings.Cut(cookie, "; ")
		if value != "srv="+id || !strings.HasSuffix(attributes, "; max-age=3600; domain=example.com; httponly; secure; samesite=None; path=/p") {
			t.Errorf("cookie of %s: %s", addr, cookie)
		}
		expires, _, _ := strings.Cut(attributes, "; ")
		at, err := time.Parse("expires=Mon, 02-Jan-06 15:04:05 GMT", expires)
		if err != nil || time.Until(at).Round(time.Minute) != time.Hour {
			t.Errorf("%s, %v", expires, err)
		}
		for range 3 {
			if again, _ := p.asking("GET /", "Cookie: "+value); again != addr {
				t.Errorf("%s went to %s", value, again)
			}
		}
	}
	if len(seen) != 2 {
		t.Error("requests without a cookie all go to", seen)
	}
	if _, cookie := p.asking("GET /?s=bad%0d%0aX:1"); !strings.Contains(cookie, "; secure; samesite=strict; path=") {
		t.Error(cookie)
	}
	if _, cookie := p.asking("GET /max"); cookie != "srv="+stickyID(a.addr)+"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000" {
		t.Error(cookie)
	}
	if _, cookie := p.asking("GET /bare"); cookie != "srv="+stickyID(a.addr) {
		t.Error(cookie)
	}
}

// TestStickyDrain: a draining server gets only those who ask for it.
func TestStickyDrain(t *testing.T) {
	t.Parallel()
	a, b := answering(t, okAnswer), answering(t, okAnswer)
	p := newProxyTest(t, fmt.Sprintf("upstream u { server %s route=a drain; server %s route=b; sticky route $arg_r $cookie_r; }", a.addr, b.addr),
		"location / { proxy_pass http://u; }")
	for _, tt := range []struct{ uri, cookie, want string }{
		{"/", "", b.addr}, {"/", "", b.addr}, {"/?r=a", "", a.addr}, {"/", "r=a", a.addr}, {"/?r=b", "r=a", b.addr}, {"/?r=x", "", b.addr},
	} {
		if got, _ := p.asking("GET "+tt.uri, "Cookie: "+tt.cookie); got != tt.want {
			t.Errorf("%+v went to %s", tt, got)
		}
	}
}

// TestStickyLearn: sessions stay with the server that began them, and move with
// the server that answers.
func TestStickyLearn(t *testing.T) {
	t.Parallel()
	a, b := answering(t, okAnswer), answering(t, okAnswer)
	for _, header := range []string{"", "header"} {
		p := newProxyTest(t, fmt.Sprintf("upstream u { server %s; server %s; sticky learn zone=s:32k create=$cookie_s lookup=$cookie_s %s; }", a.addr, b.addr, header),
			"location / { proxy_pass http://u; }")
		for _, name := range []string{"s=1", "s=2", "s=3"} {
			first, _ := p.asking("GET /", "Cookie: "+name)
			for range 3 {
				if again, _ := p.asking("GET /", "Cookie: "+name); again != first {
					t.Errorf("%s went to %s, then %s", name, first, again)
				}
			}
		}
	}
}

// TestUpstreamResolve follows what a name stands for: no server at first, then
// those of the name server, and the old ones while it fails.
func TestUpstreamResolve(t *testing.T) {
	t.Parallel()
	b := answering(t, okAnswer)
	_, port, _ := net.SplitHostPort(b.addr)
	names := newNameServer(t, "a.test. 60 A 127.0.0.1", fmt.Sprintf("_http._tcp.s.test. 60 SRV 1 1 %s a.test.", port))
	inHTTP := "resolver " + names.addr + ` valid=1s; resolver_timeout 1s;
		upstream u { zone z 64k; server a.test:` + port + ` resolve; }
		upstream s { zone s 64k; server s.test resolve service=http; }`
	const inServer = "location / { proxy_pass http://u; } location /s { proxy_pass http://s; }"
	p := newProxyTest(t, inHTTP, inServer)
	if addr, _ := p.asking("GET /"); addr != "u" || !strings.Contains(p.logged(), "no live upstreams while connecting to upstream") {
		t.Errorf("before: %s; %s", addr, p.logged())
	}
	p.table.begin()
	for _, uri := range []string{"/", "/s"} {
		waitFor(t, uri, func() bool { addr, _ := p.asking("GET " + uri); return addr == b.addr })
	}

	// a reload goes on with what is known
	names.records.Store(&[]string{})
	next := newProxyTest(t, inHTTP, inServer)
	next.table.inheritUpstreams(p.table)
	for _, uri := range []string{"/", "/s"} {
		if addr, _ := next.asking("GET " + uri); addr != b.addr {
			t.Errorf("after a reload: %s", addr)
		}
	}

	// a name that is gone leaves no server
	next.table.begin()
	waitFor(t, "gone", func() bool { addr, _ := next.asking("GET /"); return addr == "u" })
	waitFor(t, "log", func() bool {
		log := next.logged()
		return strings.Contains(log, "a.test could not be resolved (3: Host not found)") &&
			strings.Contains(log, "service http of s.test could not be resolved (3: Host not found)")
	})
	p.table.release()
	next.table.release()
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in vain:", what)
		}
	}
}

// TestUpstreamOffline: names of servers need not exist to look at a file.
func TestUpstreamOffline(t *testing.T) {
	t.Parallel()
	text := "events {} http { resolver dns.invalid; upstream u { zone z 64k; server a.invalid resolve; server b.invalid; } server { location / { proxy_pass http://u; } } }"
	table, diags := Load(parser.Parse(&parser.Source{Name: "t.conf", Text: []byte(text)}, parser.Options{}), &Options{Offline: true, DryRun: true})
	if table == nil {
		t.Fatal(diags)
	}
	table.release()
}
