package proxy

import "testing"

func TestMapOnTheWire(t *testing.T) {
	const answer = `return 200 "[$m]";`
	testWire(t, []wireCase{
		{name: "exact", http: `map $arg_k $m { a 1; B 2; default 3; }`, server: answer, request: "GET /?k=A", want: "200\n[1]"},
		{name: "exact folded", http: `map $arg_k $m { a 1; B 2; default 3; }`, server: answer, request: "GET /?k=b", want: "200\n[2]"},
		{name: "default", http: `map $arg_k $m { a 1; default 3; }`, server: answer, request: "GET /?k=x", want: "200\n[3]"},
		{name: "no default", http: `map $arg_k $m { a 1; }`, server: answer, request: "GET /?k=x", want: "200\n[]"},
		{name: "empty source", http: `map $arg_k $m { "" none; default 3; ~.* no; }`, server: answer, request: "GET /", want: "200\n[none]"},
		{name: "empty source no regex", http: `map $arg_k $m { default 3; ~^ no; }`, server: answer, request: "GET /", want: "200\n[3]"},
		{name: "several variables", http: `map "$arg_k:$host" $m { a:a.test 1; }`, server: answer, request: "GET /?k=a", want: "200\n[1]"},
		{name: "regex in order", http: `map $uri $m { ~^/a 1; ~b 2; /ab 0; }`, server: answer, request: "GET /abc", want: "200\n[1]"},
		{name: "exact before regex", http: `map $uri $m { ~^/a 1; /ab 0; }`, server: answer, request: "GET /ab", want: "200\n[0]"},
		{name: "regex captures", http: `map $uri $m { ~*^/A/(?<rest>.*)$ "$rest-$1"; }`, server: answer, request: "GET /a/b", want: "200\n[b-b]"},
		{name: "escaped", http: `map $arg_k $m { \~a 1; \default 2; \hostnames 3; }`, server: answer, request: "GET /?k=~a", want: "200\n[1]"},
		{name: "escaped default", http: `map $arg_k $m { \~a 1; \default 2; }`, server: answer, request: "GET /?k=default", want: "200\n[2]"},
		{name: "value with variables", http: `map $arg_k $m { a "$host $uri"; }`, server: answer, request: "GET /x?k=a", want: "200\n[a.test /x]"},
		{name: "map of map", http: `map $arg_k $m { default $n; } map $uri $n { /x 5; }`, server: answer, request: "GET /x", want: "200\n[5]"},
		{name: "text before map", http: `map $arg_k $m { default "<$n>"; } map $uri $n { default "$host"; }`, server: `return 200 "one $m two $n";`, request: "GET /x", want: "200\none <a.test> two a.test"},
		{name: "hostnames", http: `map $arg_k $m { hostnames; .a.test 1; *.b.test 2; www.c.* 3; a.test.x 4; default 0; }`, server: `set $m2 $m; return 200 $m2;`, request: "GET /?k=x.A.test.", want: "200\n1"},
		{name: "hostnames tail", http: `map $arg_k $m { hostnames; .a.test 1; www.c.* 3; default 0; }`, server: answer, request: "GET /?k=www.c.org", want: "200\n[3]"},
		{name: "hostnames none", http: `map $arg_k $m { hostnames; *.a.test 1; default 0; }`, server: answer, request: "GET /?k=a.test", want: "200\n[0]"},
		{name: "cached", http: `map $uri $m { default $uri; }`, server: `set $a $m; rewrite ^ /z; return 200 "$a $m";`, request: "GET /x", want: "200\n/x /x"},
		{name: "volatile", http: `map $uri $m { volatile; default $uri; }`, server: `set $a $m; rewrite ^ /z; return 200 "$a $m";`, request: "GET /x", want: "200\n/x /z"},
		{name: "set over map", http: `map $uri $m { default 1; }`, server: `set $a $m; set $m 2; return 200 "$a $m";`, request: "GET /x", want: "200\n1 2"},
		{name: "last of two", http: `map $uri $m { default 1; } map $uri $m { default 2; }`, server: answer, request: "GET /x", want: "200\n[2]"},
		{name: "long source", http: `map_hash_bucket_size 256; map $arg_k $m { aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg 1; }`, server: answer, request: "GET /?k=AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEEEEEEEEEEFFFFFFFFFFGGGGGGGGGG", want: "200\n[1]"},
	})
}

// TestMapCircle: nginx gives up after 100 rounds, with what has come together.
func TestMapCircle(t *testing.T) {
	r := run(t, `events {} http { map $uri $a { default "a$b"; } map $uri $b { default "b$a"; } map $uri $v { volatile; default "v$v"; }
		server { listen unix:%dir%/s; return 200 "$a $v"; } }`)
	if got := answered(t, &wireCase{request: "GET /"}, r.get("s", "/")); got != "200\nab v" {
		t.Errorf("got %q", got)
	}
}

func TestMapErrors(t *testing.T) {
	testErrors(t, []errorCase{
		{`map $uri $m { a 1; A 2; }`, `conflicting parameter "a"`},
		{`map $uri $m { a; }`, `invalid number of the map parameters`},
		{`map $uri $m { a 1 2; }`, `invalid number of the map parameters`},
		{`map $uri $m { default 1; default 2; }`, `duplicate default map parameter`},
		{`map $uri m { a 1; }`, `invalid variable name "m"`},
		{`map $uri $ { a 1; }`, `invalid variable name "$"`},
		{`map $uri $host { a 1; }`, `the duplicate "host" variable`},
		{`map $uri $m { hostnames; *.*.a 1; }`, `invalid hostname or wildcard "*.*.a"`},
		{`map $uri $m { hostnames; .a 1; a 2; }`, `conflicting parameter "a"`},
		{`map $uri $m { a 1; hostnames; .A 2; }`, `conflicting parameter ".a"`},
		{`map $uri $m { a $; }`, `invalid variable name`},
		{`map $nothing $m { a 1; } server { return 200 $m; }`, `unknown "nothing" variable`},
		{`map $uri $m { a ${b; }`, `the closing bracket in "b" variable is missing`},
	})
}
