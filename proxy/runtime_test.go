package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"proxyctl/parser"
)

// running is a server under a configuration, in a folder of its own. Paths in
// the configuration are relative to the folder; %dir% stands for it.
type running struct {
	*Runtime
	t    testing.TB
	dir  string
	opts *Options
}

// run serves a configuration until the test ends.
func run(t testing.TB, conf string) *running {
	t.Helper()
	r := prepare(t)
	if err := r.Start(r.load(conf)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func prepare(t testing.TB) *running {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"logs", "html"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := &Options{
		Product: Product{Name: "nginx", Version: "1.31.5"}, Prefix: dir + "/", ConfDir: dir,
		ErrorLog: "logs/error.log", AccessLog: "logs/access.log",
	}
	rt := NewRuntime(o)
	o.logs.console.Store(nil)
	return &running{Runtime: rt, t: t, dir: dir, opts: o}
}

func (r *running) parse(conf string) (*Table, []*parser.Diagnostic) {
	conf = strings.ReplaceAll(conf, "%dir%", r.dir)
	file := parser.Parse(&parser.Source{Name: "nginx.conf", Text: []byte(conf)}, parser.Options{Dir: r.dir})
	return Load(file, r.opts)
}

func (r *running) load(conf string) *Table {
	r.t.Helper()
	table, diags := r.parse(conf)
	if table == nil {
		r.t.Fatal(diags[0].Message)
	}
	return table
}

// get asks for a path over a unix socket of the folder.
func (r *running) get(socket, path string) string {
	r.t.Helper()
	return r.ask(socket, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\nUser-Agent: t\r\nConnection: close\r\n\r\n")
}

func (r *running) ask(socket, request string) string {
	r.t.Helper()
	c := r.dial(socket)
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *running) dial(socket string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", filepath.Join(r.dir, socket))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *running) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// await reads a file until it holds text.
func (r *running) await(name, text string) string {
	r.t.Helper()
	for range 400 {
		if s := r.read(name); strings.Contains(s, text) {
			return s
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("%s: no %q in:\n%s", name, text, r.read(name))
	return ""
}

func site(body string) string {
	return "events {} http { server { listen unix:%dir%/s; server_name a.test; " + body + " } }"
}

func TestErrorLogLines(t *testing.T) {
	r := run(t, "error_log logs/e.log info; "+site("location / { root %dir%/html; } "))
	r.ask("s", "GET /none?a=1 HTTP/1.1\r\nHost: a.test:80\r\nReferer: http://from/\r\nConnection: close\r\n\r\n")
	r.ask("s", "GET /line%0afeed HTTP/1.0\r\n\r\n")
	r.await("logs/e.log", "line")
	pid := fmt.Sprint(os.Getpid())
	want := []string{
		`\[notice\] ` + pid + `#` + pid + `: nginx/1\.31\.5`,
		`\[notice\] ` + pid + `#` + pid + `: start worker processes`,
		`\[error\] ` + pid + `#` + pid + `: \*1 open\(\) "` + r.dir + `/html/none" failed \(2: No such file or directory\), client: unix:, server: a\.test, request: "GET /none\?a=1 HTTP/1\.1", host: "a\.test:80", referrer: "http://from/"`,
		`\[error\] ` + pid + `#` + pid + `: \*2 open\(\) "` + r.dir + `/html/line\\nfeed" failed \(2: No such file or directory\), client: unix:, server: a\.test, request: "GET /line%0afeed HTTP/1\.0"`,
	}
	got := strings.Split(strings.TrimSuffix(r.read("logs/e.log"), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("lines: %q", got)
	}
	for i, w := range want {
		if !regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ` + w + `$`).MatchString(got[i]) {
			t.Errorf("line %d:\n%s\nwant\n%s", i, got[i], w)
		}
	}
}

func TestErrorLogLevels(t *testing.T) {
	r := run(t, `error_log logs/all.log debug_http; error_log logs/warn.log warn; error_log logs/plain.log;
		events {} http { error_log logs/http.log info; server { listen unix:%dir%/s; error_log logs/server.log notice; } }`)
	main, server := r.table.Load().Main.ErrorLog, r.table.Load().Servers[0].Level.Conf.Core.ErrorLog
	for _, l := range []logLevel{logEmerg, logError, logWarn, logNotice, logInfo, logDebug} {
		main.logf(l, "main %s", l)
		server.logf(l, "server %s", l)
	}
	for name, want := range map[string]string{
		"all": "main debug", "warn": "main warn", "plain": "main error", "server": "server notice",
	} {
		lines := strings.Split(strings.TrimSpace(r.read("logs/"+name+".log")), "\n")
		if last := lines[len(lines)-1]; !strings.HasSuffix(last, want) {
			t.Errorf("%s: last line %q, want %q", name, last, want)
		}
	}
	if s := r.read("logs/http.log"); s != "" {
		t.Errorf("what a server replaces gets nothing: %q", s)
	}
}

func TestErrorLogLimit(t *testing.T) {
	r := run(t, site(""))
	r.Logf(logError, "%s", strings.Repeat("x", 5000))
	r.Logf(logError, "%s", strings.Repeat("\n", 5000))
	for line := range strings.Lines(r.read("logs/error.log")) {
		if len(line) != maxErrorLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestErrorLogMistakes(t *testing.T) {
	// What nginx 1.31.5 says.
	for conf, want := range map[string]string{
		"error_log l warn error;":                                 `duplicate log level "error"`,
		"error_log l loud;":                                       `invalid log level "loud"`,
		"error_log l debug_core warn;":                            `duplicate log level "warn"`,
		"error_log l warn debug_core;":                            `invalid log level "debug_core"`,
		"error_log syslog:;":                                      `unknown syslog parameter ""`,
		"error_log syslog:tag=a;":                                 `no syslog server specified`,
		"error_log syslog:server=;":                               `no host in syslog server ""`,
		"error_log syslog:server=a:b;":                            `invalid port in syslog server "a:b"`,
		"error_log syslog:server=[::1;":                           `invalid host in syslog server "[::1"`,
		"error_log syslog:server=unix:;":                          `no path in the unix domain socket in syslog server "unix:"`,
		"error_log syslog:server=::1;":                            `invalid port in syslog server "::1"`,
		"error_log syslog:tag=a-b;":                               `syslog "tag" only allows alphanumeric characters and underscore`,
		"error_log syslog:tag=a,tag=b;":                           `duplicate syslog "tag"`,
		"error_log syslog:facility=x;":                            `unknown syslog facility "x"`,
		"error_log syslog:severity=err;":                          `unknown syslog severity "err"`,
		"error_log syslog:severity=warn,severity=warn;":           `duplicate syslog "severity"`,
		"error_log syslog:server=127.0.0.1,server=127.0.0.1;":     `duplicate syslog "server"`,
		"error_log syslog:tag=123456789012345678901234567890123;": `syslog tag length exceeds 32`,
		"error_log none/e.log;":                                   `open() "%dir%/none/e.log" failed (2: No such file or directory)`,
	} {
		r := prepare(t)
		_, diags := r.parse(conf + " events {}")
		if len(diags) == 0 || diags[0].Message != strings.ReplaceAll(want, "%dir%", r.dir) {
			t.Errorf("%s: %v, want %s", conf, diags, want)
		}
	}
}

func TestReloadUnderLoad(t *testing.T) {
	conf := func(n int) string {
		return fmt.Sprintf("worker_processes 4; error_log logs/e.log notice; events {} http { access_log logs/a%d.log combined buffer=4k; server { listen unix:%%dir%%/s; listen unix:%%dir%%/g%d; location / { return 200 %d; } } }", n%3, n%2, n)
	}
	r := run(t, conf(0))
	var wrong atomic.Int64
	var served atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(r.dir, "s"))
		}}}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					client.CloseIdleConnections()
					return
				default:
				}
				res, err := client.Get("http://a.test/")
				if err != nil {
					wrong.Add(1)
					continue
				}
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					wrong.Add(1)
				}
				served.Add(1)
			}
		})
	}
	before := 0
	for n := 1; n <= 50; n++ {
		if err := r.Reload(r.load(conf(n))); err != nil {
			t.Fatal(err)
		}
		if n == 6 {
			time.Sleep(20 * time.Millisecond)
			before = descriptors(t)
		}
	}
	close(stop)
	wg.Wait()
	if wrong.Load() > 0 || served.Load() == 0 {
		t.Errorf("%d of %d requests failed", wrong.Load(), served.Load())
	}
	if got := r.get("s", "/"); !strings.HasSuffix(got, "\r\n\r\n50") {
		t.Errorf("answer of the last generation: %q", got)
	}
	for range 400 {
		if strings.Count(r.read("logs/e.log"), "exited with code 0") == 50 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n := strings.Count(r.read("logs/e.log"), "exited with code 0"); n != 50 {
		t.Errorf("%d generations ended", n)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d after 6 reloads", after, before)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "g1")); err == nil {
		t.Error("the socket of an old generation is left")
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(names)
}

func TestReloadFailure(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := run(t, site("location / { return 200 old; }"))
	bad := "events {} http { server { listen unix:%dir%/s; listen unix:%dir%/none/x; location / { return 200 new; } } }"
	err = r.Reload(r.load(bad))
	if want := "bind() to unix:" + r.dir + "/none/x failed (2: No such file or directory)"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := r.get("s", "/"); !strings.HasSuffix(got, "old") {
		t.Errorf("answer %q", got)
	}
	next := r.load("events {} http { server { listen " + taken.Addr().String() + "; } }")
	if _, err := bind(next.sockets[0], next); err == nil || err.Error() != "bind() to "+taken.Addr().String()+" failed (98: Address already in use)" {
		t.Errorf("error %v", err)
	}
}

func TestBindAgain(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(bindPause/2, func() { _ = taken.Close() })
	r := run(t, "events {} http { server { listen "+taken.Addr().String()+"; } }")
	if log := r.read("logs/error.log"); strings.Count(log, "failed (98: Address already in use)") != 1 {
		t.Errorf("one try failed: %s", log)
	}
}

// unusedAddress finds ports to listen on later: nobody makes connections from
// this address, which could have taken the port by then.
const unusedAddress = "127.0.0.2:0"

func TestReusePort(t *testing.T) {
	free, err := net.Listen("tcp4", unusedAddress)
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	conf := "worker_processes 3; events {} http { server { listen " + free.Addr().String() + " backlog=7; location / { return 200 ok; } } }"
	r := run(t, conf)
	if err := r.Reload(r.load(strings.Replace(conf, "backlog=7", "reuseport", 1))); err != nil {
		t.Fatal(err)
	}
	b := r.bound["tcp4 "+free.Addr().String()]
	if b == nil || len(b.listeners) != 3 {
		t.Fatalf("sockets: %+v, log: %s", b, r.read("logs/error.log"))
	}
	for range 10 {
		res, err := http.Get("http://" + free.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
}

// heldBackend answers when it is told to.
func heldBackend(t *testing.T) (address string, arrived, answer chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived, answer = make(chan struct{}, 1), make(chan struct{})
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = bufio.NewReader(c).ReadString('\n')
				arrived <- struct{}{}
				<-answer
				_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nlate")
			}()
		}
	}()
	return l.Addr().String(), arrived, answer
}

func TestDrain(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	r := run(t, "error_log logs/e.log notice; "+site("location / { proxy_pass http://"+backend+"; }"))
	got := make(chan string, 1)
	go func() { got <- r.get("s", "/") }()
	<-arrived
	if err := r.Reload(r.load("error_log logs/e.log notice; " + site("location / { return 200 new; }"))); err != nil {
		t.Fatal(err)
	}
	if s := r.get("s", "/"); !strings.HasSuffix(s, "new") {
		t.Errorf("a new connection: %q", s)
	}
	if log := r.read("logs/e.log"); strings.Contains(log, "exited") {
		t.Errorf("the old generation still serves: %s", log)
	}
	close(answer)
	if s := <-got; !strings.Contains(s, "late") {
		t.Errorf("the old request: %q", s)
	}
	r.await("logs/e.log", "exited with code 0")
}

func TestDrainTimeout(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	defer close(answer)
	r := run(t, "worker_shutdown_timeout 20ms; error_log logs/e.log notice; "+site("location / { proxy_pass http://"+backend+"; }"))
	old := r.dial("s")
	defer old.Close()
	_, _ = io.WriteString(old, "GET / HTTP/1.0\r\n\r\n")
	silent := r.dial("s")
	defer silent.Close()
	<-arrived
	r.awaitActive(2)
	if err := r.Reload(r.load("error_log logs/e.log notice; " + site("location / { return 200 new; }"))); err != nil {
		t.Fatal(err)
	}
	_ = old.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(old); len(b) > 0 || err != nil {
		t.Errorf("an old request after worker_shutdown_timeout: %q, %v", b, err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(silent); len(b) > 0 || err != nil {
		t.Errorf("an old connection without a request after worker_shutdown_timeout: %q, %v", b, err)
	}
	r.await("logs/e.log", "exited with code 0")
}

func TestShutdownFinishesRequests(t *testing.T) {
	backend, arrived, answer := heldBackend(t)
	r := run(t, site("location / { proxy_pass http://"+backend+"; }"))
	got := make(chan string, 1)
	go func() { got <- r.get("s", "/") }()
	<-arrived
	time.AfterFunc(50*time.Millisecond, func() { close(answer) })
	r.Shutdown(context.Background())
	if s := <-got; !strings.Contains(s, "late") {
		t.Errorf("a request in flight: %q", s)
	}
}

func TestShutdownWaits(t *testing.T) {
	r := run(t, "error_log logs/e.log notice; worker_shutdown_timeout 5s; "+site("location / { return 200 ok; }"))
	idle := r.dial("s")
	defer idle.Close()
	_, _ = io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	in := bufio.NewReader(idle)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	began := time.Now()
	r.Shutdown(context.Background())
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("an idle connection held it for %v", d)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the idle connection is open")
	}
	if _, err := os.Stat(filepath.Join(r.dir, "s")); err == nil {
		t.Error("the socket's file is left")
	}
	log := r.read("logs/e.log")
	for _, want := range []string{"gracefully shutting down\n", "exiting\n", "exit\n"} {
		if strings.Count(log, ": "+want) != 1 {
			t.Errorf("%q in\n%s", want, log)
		}
	}
}

func TestKeepaliveMinTimeout(t *testing.T) {
	r := run(t, site("keepalive_min_timeout 5s; location / { return 200 ok; }"))
	c := r.dial("s")
	defer c.Close()
	in := bufio.NewReader(c)
	ask := func(last bool) {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.Close != last {
			t.Error(res, err)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	ask(false)
	r.awaitStats("an idle connection", func(s Stats) bool { return s.Waiting == 1 })
	asked := make(chan bool)
	go func() {
		for !r.closing.Load() {
			time.Sleep(time.Millisecond)
		}
		ask(true)
		close(asked)
	}()
	r.Shutdown(context.Background())
	<-asked
}

func TestLimitOfConnections(t *testing.T) {
	r := run(t, "worker_processes 2; error_log logs/e.log warn; events { worker_connections 2; } http { server { listen unix:%dir%/s; location / { return 200 ok; } } }")
	idle := make([]net.Conn, 4)
	for i := range idle {
		idle[i] = r.dial("s")
		defer idle[i].Close()
		_, _ = io.WriteString(idle[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := bufio.NewReader(idle[i]).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitStats("four idle connections", func(s Stats) bool { return s.Waiting == 4 })
	if got := r.get("s", "/"); !strings.HasSuffix(got, "ok") {
		t.Errorf("an idle connection makes place: %q", got)
	}
	r.await("logs/e.log", "[warn] "+fmt.Sprint(os.Getpid())+"#"+fmt.Sprint(os.Getpid())+": 2 worker_connections are not enough, reusing connections\n")
	closed := 0
	for _, c := range idle {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := io.Copy(io.Discard, c); err == nil {
			closed++
		}
	}
	if closed != 1 {
		t.Errorf("%d connections made place", closed)
	}
}

func TestRelativePrefix(t *testing.T) {
	r := prepare(t)
	t.Chdir(filepath.Dir(r.dir))
	r.opts.Prefix = filepath.Base(r.dir)
	if err := os.WriteFile(filepath.Join(r.dir, "html/a"), []byte("file"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(r.load(site("access_log logs/$host.log; location / { root html; } location /v/ { root html/$arg_none; }"))); err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	if got := r.get("s", "/a"); !strings.HasSuffix(got, "file") {
		t.Errorf("a file below a relative prefix: %q", got)
	}
	r.get("s", "/v/x")
	r.await("logs/error.log", `open() "`+r.opts.Prefix+`/html//v/x" failed`)
	r.await("logs/a.test.log", "/v/x")
}

func TestStats(t *testing.T) {
	r := run(t, site("location / { return 200 ok; }"))
	for range 3 {
		r.get("s", "/")
	}
	open := r.dial("s")
	defer open.Close()
	want := Stats{Accepted: 4, Handled: 4, Requests: 3, Active: 1, Waiting: 1}
	r.awaitStats(fmt.Sprintf("%+v", want), func(s Stats) bool { return s == want })
}
