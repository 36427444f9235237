package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"proxyctl/parser"
	"proxyctl/proxy/http1"
)

// The messages are those of nginx 1.31.5.
func TestAccessLogMistakes(t *testing.T) {
	for conf, want := range map[string]string{
		"access_log off x;":                                      `invalid parameter "x"`,
		"access_log l nope;":                                     `unknown log format "nope"`,
		"access_log l combined flush=1s;":                        `no buffer is defined for access_log "l"`,
		"access_log l$host combined buffer=1k;":                  `buffered logs cannot have variables in name`,
		"access_log syslog:server=127.0.0.1 combined buffer=1k;": `logs to syslog cannot be buffered`,
		"access_log l combined gzip=10;":                         `invalid compression level "10"`,
		"access_log l combined buffer=x;":                        `invalid buffer size "x"`,
		"access_log l combined flush=0;":                         `invalid flush time "0"`,
		"access_log l combined zzz;":                             `invalid parameter "zzz"`,
		"log_format a '$';":                                      `invalid parameter "$"`,
		"log_format a '${x';":                                    `the closing bracket in "x" variable is missing`,
		"log_format a '${';":                                     `invalid parameter "${"`,
		"log_format a '$-';":                                     `invalid parameter "$-"`,
		"log_format combined x;":                                 `duplicate "log_format" name "combined"`,
		"log_format a x; log_format a x;":                        `duplicate "log_format" name "a"`,
		"log_format a escape=x y;":                               `unknown log format escaping "x"`,
		"access_log l late; log_format late x;":                  `unknown log format "late"`,
		"server { access_log l late; } log_format late x;":       `unknown log format "late"`,
		"access_log l combined buffer=4k; server { access_log l combined buffer=8k; }": `access_log "l" already defined with conflicting parameters`,
		"open_log_file_cache max=0;":       `"open_log_file_cache" must have "max" parameter`,
		"open_log_file_cache inactive=1s;": `"open_log_file_cache" must have "max" parameter`,
		"open_log_file_cache max=x;":       `invalid "open_log_file_cache" parameter "max=x"`,
		"log_format a '$nope';":            `unknown "nope" variable`,
	} {
		r := prepare(t)
		_, diags := r.parse("events {} http { " + conf + " }")
		if len(diags) == 0 || diags[0].Message != want {
			t.Errorf("%s\n%v, want %s", conf, diags, want)
		}
	}
	r := prepare(t)
	r.load("events {} http { log_format A x; access_log logs/l a; access_log logs/l COMBINED; open_log_file_cache off max=1; }")
}

func TestLogEscaping(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	v := &variable{get: func(dst []byte, _ *Exchange) ([]byte, bool) { return append(dst, all...), true }}
	none := &variable{get: func(dst []byte, _ *Exchange) ([]byte, bool) { return append(dst, "left over"...), false }}
	for _, c := range []struct {
		escape     escaping
		want, none string
	}{
		{escapeDefault, defaultEscaped(), "-"}, // recorded from nginx 1.31.5, as far as a request can carry the bytes
		{escapeJSON, jsonEscaped(), ""},
		{escapeNone, string(all), ""},
	} {
		f := &logFormat{escape: c.escape, steps: []logStep{{text: "<"}, {v: v}, {text: ">"}}}
		if got := string(f.append(nil, nil, nil)); got != "<"+c.want+">" {
			t.Errorf("escape %d: %q, want %q", c.escape, got, c.want)
		}
		f.steps[1].v = none
		if got := string(f.append(nil, nil, nil)); got != "<"+c.none+">" {
			t.Errorf("escape %d: %q for a missing value", c.escape, got)
		}
	}
}

func defaultEscaped() string {
	var b strings.Builder
	for i := range 256 {
		switch {
		case i < 32 || i > 126 || i == '"' || i == '\\':
			b.WriteString("\\x" + strings.ToUpper(string("0123456789abcdef"[i>>4])+string("0123456789abcdef"[i&15])))
		default:
			b.WriteByte(byte(i))
		}
	}
	return b.String()
}

func jsonEscaped() string {
	return `\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000B\f\r\u000E\u000F\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017` +
		`\u0018\u0019\u001A\u001B\u001C\u001D\u001E\u001F !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_` +
		"`abcdefghijklmnopqrstuvwxyz{|}~\x7f" + string(func() (b []byte) {
		for i := 0x80; i < 256; i++ {
			b = append(b, byte(i))
		}
		return b
	}())
}

func TestAccessLogLines(t *testing.T) {
	r := run(t, `events {} http {
		log_format a '$remote_addr|$status|$http_x|$arg_q';
		log_format j escape=json '{"x":"$http_x","none":"$http_none"}';
		log_format times '$time_local|$time_iso8601|$msec|$request_time|$pipe|$uri';
		server { listen unix:%dir%/s;
			access_log logs/combined.log; access_log logs/a.log a; access_log logs/j.log j;
			access_log logs/times.log times; access_log logs/if.log combined if=$arg_q;
			location / { return 200 ok; }
			location /off { access_log off; return 200 ok; }
			location /own { access_log logs/own.log a; return 204; }
			location /both { access_log logs/own.log a; access_log off; return 204; } } }`)
	r.ask("s", "GET /?q=1 HTTP/1.1\r\nHost: a\r\nX: a\"b\\c\xff\r\nReferer: r\r\nUser-Agent: u\r\nConnection: close\r\n\r\n")
	r.get("s", "/off")
	r.get("s", "/own")
	r.get("s", "/both")
	r.get("s", "/?q=0")
	r.await("logs/combined.log", "q=0")
	if got, want := r.read("logs/a.log"), "unix:|200|a\\x22b\\x5Cc\\xFF|1\nunix:|200|-|0\n"; got != want {
		t.Errorf("a.log %q, want %q", got, want)
	}
	if got, want := r.read("logs/own.log"), "unix:|204|-|-\n"; got != want {
		t.Errorf("own.log %q, want %q", got, want)
	}
	if got, want := r.read("logs/j.log"), "{\"x\":\"a\\\"b\\\\c\xff\",\"none\":\"\"}\n{\"x\":\"\",\"none\":\"\"}\n"; got != want {
		t.Errorf("j.log %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"combined": `^unix: - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /\?q=1 HTTP/1\.1" 200 2 "r" "u"\n`,
		"if":       `^unix: - - \[[^]]+\] "GET /\?q=1 HTTP/1\.1" 200 2 "r" "u"\n$`,
		"times":    `^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d\|\d{10}\.\d{3}\|0\.\d{3}\|\.\|/\n`,
	} {
		if got := r.read("logs/" + name + ".log"); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s.log %q, want %s", name, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "logs/access.log")); err == nil {
		t.Error("the default log is opened though nobody uses it")
	}
}

func TestAccessLogSizes(t *testing.T) {
	r := run(t, "events {} http { "+
		"log_format b '$status $request_length $pipe $request'; log_format s '$bytes_sent $body_bytes_sent'; "+
		"server { listen unix:%dir%/s; access_log logs/b.log b; access_log logs/s.log s; location / { return 200 ok; } } }")
	answer := r.ask("s", "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	second := r.ask("s", "HEAD /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	r.get("s", "/end")
	r.await("logs/b.log", "/end")
	// As nginx 1.31.5 writes for the same requests.
	want := "200 28 . GET /a HTTP/1.1\n200 47 p GET /b HTTP/1.1\n200 48 . HEAD /c HTTP/1.1\n"
	if got := r.read("logs/b.log"); !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var all, body [3]int
	if _, err := fmt.Sscan(r.read("logs/s.log"), &all[0], &body[0], &all[1], &body[1], &all[2], &body[2]); err != nil {
		t.Fatal(err)
	}
	if all[0]+all[1] != len(answer) || all[2] != len(second) || body != [3]int{2, 2, 0} {
		t.Errorf("sizes %v %v, answers of %d and %d bytes", all, body, len(answer), len(second))
	}
}

func TestAccessLogBuffers(t *testing.T) {
	r := run(t, `events {} http { log_format u '$uri'; server { listen unix:%dir%/s; location / { return 200 ok; }
		access_log logs/size.log u buffer=8; access_log logs/flush.log u buffer=4k flush=20ms; access_log logs/gz.log u gzip=9; } }`)
	r.get("s", "/a")
	r.get("s", "/b")
	r.get("s", "/c")
	r.await("logs/flush.log", "/c\n")
	if got := r.read("logs/size.log"); got != "/a\n/b\n" {
		t.Errorf("a buffer of 8: %q", got)
	}
	r.get("s", "/long/line/first")
	r.await("logs/size.log", "/long/line/first\n")
	if got := r.read("logs/gz.log"); got != "" {
		t.Errorf("%d bytes before the buffer is full", len(got))
	}
	r.ReopenLogs()
	r.get("s", "/d")
	r.Stop()
	if got := r.read("logs/size.log"); got != "/a\n/b\n/c\n/long/line/first\n/d\n" {
		t.Errorf("at the end: %q", got)
	}
	z, err := gzip.NewReader(strings.NewReader(r.read("logs/gz.log")))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); string(got) != "/a\n/b\n/c\n/long/line/first\n/d\n" || err != nil {
		t.Errorf("two members: %q, %v", got, err)
	}
}

func TestReopenLogs(t *testing.T) {
	r := run(t, site("location / { return 200 ok; }"))
	r.get("s", "/one")
	r.await("logs/access.log", "/one")
	for _, name := range []string{"access", "error"} {
		if err := os.Rename(filepath.Join(r.dir, "logs", name+".log"), filepath.Join(r.dir, "logs", name+".1")); err != nil {
			t.Fatal(err)
		}
	}
	r.ReopenLogs()
	r.Logf(logError, "after")
	r.get("s", "/two")
	r.await("logs/access.log", "/two")
	r.await("logs/error.log", "after")
	if old := r.read("logs/access.1"); !strings.Contains(old, "/one") || strings.Contains(old, "/two") {
		t.Errorf("the renamed log: %q", old)
	}
}

func TestAccessLogNames(t *testing.T) {
	for _, cache := range []string{"", "open_log_file_cache max=1 valid=1h inactive=1h;"} {
		r := run(t, "events {} http { log_format u '$uri'; "+cache+" server { listen unix:%dir%/s; root %dir%/html; access_log logs/$arg_n.log u; location / { return 200 ok; } location /gone { root %dir%/gone; return 200 ok; } } }")
		for _, u := range []string{"/1?n=a", "/2?n=b", "/3?n=a", "/4?n=../../x", "/gone?n=c", "/5?n=a"} {
			r.get("s", u)
		}
		r.await("logs/a.log", "/5\n")
		if a, b := r.read("logs/a.log"), r.read("logs/b.log"); a != "/1\n/3\n/5\n" || b != "/2\n" {
			t.Errorf("a: %q, b: %q", a, b)
		}
		log := r.read("logs/error.log")
		for _, want := range []string{"[crit]", "unsafe log name", "testing \"" + r.dir + "/gone\" existence failed (2: No such file or directory)"} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in %s", want, log)
			}
		}
		for _, name := range []string{"logs/c.log", "x.log"} {
			if _, err := os.Stat(filepath.Join(r.dir, name)); err == nil {
				t.Errorf("%s exists", name)
			}
		}
	}
}

func TestSyslog(t *testing.T) {
	dir := t.TempDir()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	local, err := net.ListenPacket("unixgram", dir+"/log")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = local.Close() }()
	r := run(t, `error_log syslog:server=unix:`+dir+`/log,tag=err,facility=local0,nohostname warn;
		events {} http { log_format u '$uri'; access_log syslog:server=`+udp.LocalAddr().String()+`,severity=debug u;
		server { listen unix:%dir%/s; location / { return 200 ok; } } }`)
	r.get("s", "/x")
	r.Logf(logWarn, "hello")
	r.Logf(logInfo, "unheard")
	r.Logf(logCrit, "world")
	const stamp = `[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d`
	for _, c := range []struct {
		from net.PacketConn
		want string
	}{
		{udp, `^<191>` + stamp + ` ` + regexp.QuoteMeta(hostname()) + ` nginx: /x$`},
		{local, `^<132>` + stamp + ` err: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[warn\] \d+#\d+: hello$`},
		{local, `^<130>` + stamp + ` err: .*\[crit\] \d+#\d+: world$`},
	} {
		_ = c.from.SetReadDeadline(time.Now().Add(2 * time.Second))
		var b [4096]byte
		n, _, err := c.from.ReadFrom(b[:])
		if err != nil || !regexp.MustCompile(c.want).Match(b[:n]) {
			t.Errorf("%q, %v, want %s", b[:n], err, c.want)
		}
	}
}

func TestAccessLogAllocations(t *testing.T) {
	r := run(t, "events {} http { server { listen unix:%dir%/s; access_log logs/plain.log; access_log logs/buffer.log combined buffer=64k; location / { return 200 ok; } } }")
	x := testExchange(r)
	log := &x.loc.Conf.Log
	if n := testing.AllocsPerRun(200, func() { log.handle(x) }); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
	if got := r.read("logs/plain.log"); bytes.Count([]byte(got), []byte("\n")) != 201 {
		t.Errorf("lines: %q", got)
	}
}

// FuzzLogFormat holds that any format either is refused or makes lines, and
// that escaped values neither end a line nor a quoted string.
func FuzzLogFormat(f *testing.F) {
	f.Add("$remote_addr - ${status} x", []byte("a\"\\\n\x00\xff"))
	f.Add("${", []byte(""))
	f.Add("$-$$1", []byte("\x7f"))
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		c := &compiler{names: newNames(false)}
		format := &logFormat{}
		if format.compile(c, parser.Arg{Value: text}) == nil {
			for _, s := range format.steps {
				if s.text == "" && s.special == nil && s.v == nil {
					t.Errorf("%q: an empty step", text)
				}
			}
		}
		v := &variable{get: func(dst []byte, _ *Exchange) ([]byte, bool) { return append(dst, value...), true }}
		for _, e := range []escaping{escapeDefault, escapeJSON} {
			format := &logFormat{escape: e, steps: []logStep{{text: "\""}, {v: v}, {text: "\""}}}
			line := format.append(nil, nil, nil)
			if bytes.IndexByte(line, '\n') >= 0 {
				t.Errorf("%q has a line feed", line)
			}
			if e == escapeDefault && bytes.Count(line, []byte{'"'}) != 2 {
				t.Errorf("%q has a quote", line)
			}
			var text string
			if e == escapeJSON && utf8.Valid(value) && (json.Unmarshal(line, &text) != nil || text != string(value)) {
				t.Errorf("%q is not %q in JSON", line, value)
			}
		}
	})
}

func BenchmarkAccessLog(b *testing.B) {
	r := run(b, "events {} http { server { listen unix:%dir%/s; access_log logs/buffer.log combined buffer=64k; location / { return 200 ok; } } }")
	x := testExchange(r)
	log := &x.loc.Conf.Log
	b.ReportAllocs()
	for b.Loop() {
		log.handle(x)
	}
}

// testExchange is an exchange that no connection carries.
func testExchange(r *running) *Exchange {
	table := r.acquire()
	server := table.Servers[0]
	x := newExchange(&client{rt: r.Runtime, peerName: "192.0.2.1", id: 7, life: new(life)}, nil, table)
	x.Req = requestOf("GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: \"agent\"\r\n\r\n")
	x.server, x.loc = server, server.Level
	x.Out.Status = 200
	return x
}

func requestOf(head string) *http1.Request {
	var req http1.Request
	if _, err := req.Parse([]byte(head), &http1.Limits{Line: 8 << 10, Head: 32 << 10, Fields: 100}); err != nil {
		panic(err)
	}
	return &req
}
