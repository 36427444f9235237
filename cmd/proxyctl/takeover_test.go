package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// daemonServer is a server in the background whose binary can be exchanged:
// nginx, or this program under its name.
type daemonServer struct {
	t                testing.TB
	dir              string
	installed, ours  string
	port, sharedPort string
}

// startDaemon starts binary, which is one of installed and ours, under a
// configuration: %port%, %shared% and %dir% are filled in.
func startDaemon(t testing.TB, binary, conf string) *daemonServer {
	t.Helper()
	d := newDaemon(t, binary, conf)
	d.start()
	return d
}

func newDaemon(t testing.TB, binary, conf string) *daemonServer {
	t.Helper()
	d := &daemonServer{t: t, dir: t.TempDir(), port: strconv.Itoa(unusedPort(t)), sharedPort: strconv.Itoa(unusedPort(t))}
	d.installed, _ = realNginx()
	var err error
	if d.ours, err = exec.LookPath("nginx"); err != nil {
		t.Fatal(err)
	}
	if binary == "ours" {
		binary = d.ours
	}
	d.use(binary)
	d.configure(conf)
	if err := os.Mkdir(filepath.Join(d.dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *daemonServer) start() {
	d.t.Helper()
	if out, err := d.command().CombinedOutput(); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	d.await("it serves", func() bool { return d.pid("") != 0 })
	d.t.Cleanup(func() {
		for _, suffix := range []string{oldSuffix, ""} {
			if pid := d.pid(suffix); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGTERM)
				d.await("it ends", func() bool { return d.pid(suffix) == 0 })
			}
		}
		if d.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(d.dir, "logs/error.log"))
			d.t.Logf("%s", log)
		}
	})
}

func (d *daemonServer) command(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(d.dir, "nginx"), append([]string{"-p", d.dir, "-c", "nginx.conf", "-e", "logs/error.log"}, args...)...)
}

func (d *daemonServer) configure(conf string) {
	d.t.Helper()
	conf = strings.NewReplacer("%port%", d.port, "%shared%", d.sharedPort, "%dir%", d.dir).Replace(conf)
	if os.Geteuid() == 0 && !strings.HasPrefix(conf, "user ") {
		conf = "user root; " + conf // the folder is root's alone
	}
	conf = "pid logs/nginx.pid; error_log logs/error.log notice; " + conf
	if err := os.WriteFile(filepath.Join(d.dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// use exchanges the binary.
func (d *daemonServer) use(binary string) {
	d.t.Helper()
	next := filepath.Join(d.dir, "nginx.next")
	if err := errors.Join(os.Symlink(binary, next), os.Rename(next, filepath.Join(d.dir, "nginx"))); err != nil {
		d.t.Fatal(err)
	}
}

// pid reads the pid file with a suffix, 0 when there is none.
func (d *daemonServer) pid(suffix string) int {
	text, _ := os.ReadFile(filepath.Join(d.dir, "logs/nginx.pid"+suffix))
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

func (d *daemonServer) kill(pid int, s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemonServer) await(what string, done func() bool) {
	d.t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.t.Fatalf("waited in vain: %s", what)
}

func (d *daemonServer) awaitLog(text string) {
	d.t.Helper()
	d.await(text, func() bool { return d.logged(text) > 0 })
}

// logged counts a text in the error log.
func (d *daemonServer) logged(text string) int {
	log, _ := os.ReadFile(filepath.Join(d.dir, "logs/error.log"))
	return strings.Count(string(log), text)
}

// ask sends one request on a connection of its own and gives body or error.
func (d *daemonServer) ask(path string) string {
	c, err := net.Dial("tcp", "127.0.0.1:"+d.port)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
	answer, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return body
}

// replace starts binary by USR2 and ends the old one by QUIT.
func (d *daemonServer) replace(binary string) {
	d.t.Helper()
	old := d.pid("")
	d.use(binary)
	d.kill(old, syscall.SIGUSR2)
	d.await("the new binary serves", func() bool { return d.pid(oldSuffix) == old && d.pid("") != 0 })
	time.Sleep(100 * time.Millisecond) // both serve
	d.kill(old, syscall.SIGQUIT)
	d.await("the old binary ends", func() bool { return d.pid(oldSuffix) == 0 && parentOf(d.pid("")) != old })
	time.Sleep(100 * time.Millisecond)
}

// parentOf reads the parent of a process, 0 when it is not known.
func parentOf(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "\nPPid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.Atoi(line)
	return n
}

// load asks a server over TCP and unix sockets, on new and on kept
// connections, until it is told to stop.
type load struct {
	served, failed atomic.Int64
	first          atomic.Pointer[string] // what failed first
	stop           chan struct{}
	wg             sync.WaitGroup
}

func startLoad(d *daemonServer, paths ...string) *load {
	l := &load{stop: make(chan struct{})}
	dialer := func(network, address string) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return net.Dial(network, address) }
	}
	for _, dial := range []func(context.Context, string, string) (net.Conn, error){
		dialer("tcp", "127.0.0.1:"+d.port), dialer("tcp", "127.0.0.1:"+d.sharedPort), dialer("unix", filepath.Join(d.dir, "s")),
	} {
		for _, kept := range []bool{true, false} {
			for _, path := range paths {
				client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: !kept}, Timeout: 5 * time.Second}
				l.wg.Go(func() { l.run(client, path) })
			}
		}
	}
	return l
}

func (l *load) run(client *http.Client, path string) {
	for {
		select {
		case <-l.stop:
			client.CloseIdleConnections()
			return
		default:
		}
		if err := l.ask(client, path); err != nil {
			text := path + ": " + err.Error()
			l.first.CompareAndSwap(nil, &text)
			l.failed.Add(1)
		}
		l.served.Add(1)
		time.Sleep(time.Millisecond)
	}
}

func (l *load) ask(client *http.Client, path string) error {
	res, err := client.Get("http://a.test" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "answer")) {
		err = fmt.Errorf("status %d, body %q", res.StatusCode, body)
	}
	return err
}

// check ends the load and reports failures.
func (l *load) check(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if n := l.failed.Load(); n > 0 || l.served.Load() < 50 {
		first := ""
		if s := l.first.Load(); s != nil {
			first = *s
		}
		t.Errorf("%d of %d requests failed, first %s", n, l.served.Load(), first)
	}
}

const takeoverConf = `worker_processes 2; events {} http { access_log off;
	server { listen 127.0.0.1:%port%; listen 127.0.0.1:%shared% reuseport; listen unix:%dir%/s;
		location / { return 200 answer; }
		location /slow { proxy_pass http://%backend%; } } }`

// TestTakeoverOfNginx lets this program take the place of a running nginx, of itself,
// and nginx the place of this program: no request fails, in either direction.
func TestTakeoverOfNginx(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	slow := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(150 * time.Millisecond) // longer than both binaries serve together
		_, _ = io.WriteString(w, "answer, late")
	})}
	go func() { _ = slow.Serve(backend) }()
	t.Cleanup(func() { _ = slow.Close() })
	d := startDaemon(t, installed, strings.ReplaceAll(takeoverConf, "%backend%", backend.Addr().String()))
	l := startLoad(d, "/", "/slow")
	time.Sleep(100 * time.Millisecond)
	for _, binary := range []string{d.ours, d.ours, d.installed, d.ours} {
		d.replace(binary)
	}
	// What pkill(1) and pidof(8) look for.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", d.pid(""))); err == nil && string(name) != "nginx\n" {
		t.Errorf("the process is called %q", name)
	}
	l.check(t)
	d.kill(d.pid(""), syscall.SIGTERM)
	d.await("it ends", func() bool { return d.pid("") == 0 })
	if _, err := os.Stat(filepath.Join(d.dir, "s")); err == nil {
		t.Error("the unix socket is left at the end")
	}
}

// onBoth runs a test against this program and against an installed nginx.
func onBoth(t *testing.T, test func(t *testing.T, binary string)) {
	t.Run("ours", func(t *testing.T) { test(t, "ours") })
	t.Run("nginx", func(t *testing.T) {
		installed, err := realNginx()
		if err != nil {
			t.Skip(err)
		}
		test(t, installed)
	})
}

const plainConf = "events {} http { access_log off; server { listen 127.0.0.1:%port%; listen unix:%dir%/s; location / { return 200 answer; } } }"

// TestStopAccepting: after WINCH the process keeps its sockets and serves
// nobody; HUP makes it serve again.
func TestStopAccepting(t *testing.T) {
	onBoth(t, func(t *testing.T, binary string) {
		d := startDaemon(t, binary, plainConf)
		pid := d.pid("")
		d.await("it serves", func() bool { return d.ask("/") == "answer" }) // nginx writes its pid before
		d.kill(pid, syscall.SIGWINCH)
		d.awaitLog("exited with code 0")
		if got := d.ask("/"); !strings.Contains(got, "timeout") {
			t.Errorf("while nobody accepts: %q", got)
		}
		d.kill(pid, syscall.SIGHUP)
		d.await("it serves again", func() bool { return d.ask("/") == "answer" })
		if d.pid("") != pid {
			t.Error("another process serves")
		}
	})
}

// TestUpgradeTakenBack: the new binary is ended, and the old one, which served
// nobody in between, serves again.
func TestUpgradeTakenBack(t *testing.T) {
	onBoth(t, func(t *testing.T, binary string) {
		d := startDaemon(t, binary, plainConf)
		old := d.pid("")
		d.await("it serves", func() bool { return d.ask("/") == "answer" })
		d.kill(old, syscall.SIGUSR2)
		d.await("the new binary serves", func() bool { return d.pid(oldSuffix) == old && d.pid("") != 0 })
		fresh := d.pid("")
		d.kill(old, syscall.SIGWINCH)
		d.awaitLog("gracefully shutting down")
		for range 3 {
			if got := d.ask("/"); got != "answer" {
				t.Errorf("from the new binary: %q", got)
			}
		}
		for _, pid := range []int{old, fresh} { // both know that the other one is there
			d.kill(pid, syscall.SIGUSR2)
		}
		d.awaitLog("the changing binary signal is ignored")
		d.kill(old, syscall.SIGHUP)
		d.await("the old binary serves as well", func() bool { return d.logged("start worker processes") == 3 })
		d.kill(old, syscall.SIGWINCH)
		d.kill(fresh, syscall.SIGQUIT)
		d.await("the old binary has its pid file again", func() bool { return d.pid("") == old && d.pid(oldSuffix) == 0 })
		d.await("the old binary serves", func() bool { return d.ask("/") == "answer" })
		if _, err := os.Stat(filepath.Join(d.dir, "s")); err != nil {
			t.Errorf("the new binary has taken the socket's file along: %v", err)
		}
	})
}

// TestUpgradeFails: a new binary that cannot start changes nothing.
func TestUpgradeFails(t *testing.T) {
	onBoth(t, func(t *testing.T, binary string) {
		d := startDaemon(t, binary, plainConf)
		pid := d.pid("")
		d.configure("broken")
		for _, broken := range []string{binary, "/none"} { // no configuration, no binary
			if broken != "ours" {
				d.use(broken)
			}
			before := d.logged("changing binary\n")
			d.kill(pid, syscall.SIGUSR2)
			d.await("it tries", func() bool { return d.logged("changing binary\n") > before })
			d.await("the pid file is back", func() bool { return d.pid("") == pid && d.pid(oldSuffix) == 0 })
			if got := d.ask("/"); got != "answer" {
				t.Errorf("afterwards: %q", got)
			}
			time.Sleep(50 * time.Millisecond) // nginx renames the file before it is ready to try again
		}
		d.awaitLog("execve() failed while executing new binary process")
	})
}
