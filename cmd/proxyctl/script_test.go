package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "nginx" {
		main() // testscript would cut the path off the name, which a new binary is started by
		os.Exit(0)
	}
	testscript.Main(m, map[string]func(){"proxyctl": main, "nginx": main})
}

// TestScripts runs every script against this program under the name nginx.
func TestScripts(t *testing.T) {
	runScripts(t, "")
}

// TestScriptsOnNginx runs the same scripts against an installed nginx: what a
// script expects is nginx's behaviour, not ours. Lines about what came after
// Debian's nginx say so with [1.31], those about what nginx cannot do with [ours].
func TestScriptsOnNginx(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	runScripts(t, installed)
}

// realNginx finds an nginx that is not this program.
func realNginx() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, "nginx")
		out, err := exec.Command(path, "-v").CombinedOutput()
		if err == nil && bytes.HasPrefix(out, []byte("nginx version: ")) && !bytes.Contains(out, []byte("proxyctl")) {
			return path, nil
		}
	}
	return "", errors.New("nginx is not installed")
}

// versionOf gives the second number of an nginx's version.
func versionOf(nginx string) int {
	out, err := exec.Command(nginx, "-v").CombinedOutput()
	if m := regexp.MustCompile(`nginx/1\.(\d+)`).FindSubmatch(out); err == nil && m != nil {
		return number(string(m[1]))
	}
	return 0
}

func runScripts(t *testing.T, installed string) {
	mainline := installed == "" || versionOf(installed) >= 31
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			h := newHarness(env, installed)
			env.Values["harness"] = h
			env.Defer(h.stop)
			return h.renumber()
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "ours":
				return installed == "", nil
			case "nginx":
				return installed != "", nil
			case "1.31":
				return mainline, nil
			case "stream":
				_, can := streamModule()
				return installed == "" || can, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":       scriptStart,
			"signal":      scriptSignal,
			"ended":       scriptEnded,
			"backend":     scriptBackend,
			"application": scriptApplication,
			"send":        scriptSend,
			"talk":        scriptTalk,
			"echo":        scriptEcho,
			"get":         scriptGet,
			"log":         scriptLog,
			"run":         scriptRun,
			"await":       scriptAwait,

			"certificate": scriptCertificate,
			"revoke":      scriptRevoke,
			"ocsp":        scriptOCSP,
			"stapled":     scriptStapled,
		},
	})
}

// harness is what one script has started.
type harness struct {
	env       *testscript.Env
	installed string
	server    *exec.Cmd
	conf      string // that it was started with
	exited    chan error
	// background is the pid file of a server that runs on its own.
	background string
	ports      map[string]string // of the file, to those in use
	mu         sync.Mutex
	closes     []io.Closer
	left       net.Conn // by send -leave
	sessions   tls.ClientSessionCache
}

func newHarness(env *testscript.Env, installed string) *harness {
	return &harness{env: env, installed: installed, ports: map[string]string{}, sessions: tls.NewLRUClientSessionCache(0)}
}

// filePorts are the ports that scripts are written with: servers listen on
// 808x and 844x, applications on 500x.
var filePorts = regexp.MustCompile(`\b(808\d|844\d|500\d)\b`)

// renumber puts free ports in the place of those that configurations are
// written with, so that scripts can run side by side.
func (h *harness) renumber() error {
	return filepath.WalkDir(h.env.WorkDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".conf" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(h.translate(string(text))), 0o644)
	})
}

func (h *harness) translate(text string) string {
	return filePorts.ReplaceAllStringFunc(text, h.port)
}

// port gives the port in use for one of the script's.
func (h *harness) port(of string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.ports[of]; p != "" {
		return p
	}
	p := strconv.Itoa(unusedPort(h.env.T()))
	h.ports[of] = p
	return p
}

// restore writes the script's own ports and a fixed version, date and
// connection-dependent values into an answer, so that it can be compared.
func (h *harness) restore(text string) string {
	h.mu.Lock()
	for of, p := range h.ports {
		text = regexp.MustCompile(`\b`+p+`\b`).ReplaceAllString(text, of)
	}
	h.mu.Unlock()
	text = regexp.MustCompile(`nginx/1\.[0-9.]+`).ReplaceAllString(text, "nginx/1.31.5")
	return regexp.MustCompile(`(?m)^Date: .*GMT`).ReplaceAllString(text, "Date: now")
}

// closeLater closes something with the script.
func (h *harness) closeLater(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closes = append(h.closes, c)
}

func (h *harness) stop() {
	if h.server != nil && h.server.Process != nil {
		_ = h.server.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-h.exited:
			h.exited <- err
		case <-time.After(5 * time.Second):
			_ = h.server.Process.Kill()
		}
	}
	if text, err := os.ReadFile(h.background); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.closes {
		_ = c.Close()
	}
}

func harnessOf(ts *testscript.TestScript) *harness { return ts.Value("harness").(*harness) }

// start [FILE]: starts the server with a configuration and waits until it
// serves, or with ! until it refuses.
func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	h := harnessOf(ts)
	conf := "nginx.conf"
	if len(args) > 0 {
		conf = args[0]
	}
	dir := ts.MkAbs(".")
	for _, d := range []string{"logs", "temp"} {
		ts.Check(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	globals := "daemon off; pid logs/nginx.pid;"
	if load, can := streamModule(); h.installed != "" && can {
		globals = load + globals
	}
	program := h.program(ts)
	if os.Geteuid() == 0 {
		globals += " user root;" // the script's folder is root's alone
	}
	var out bytes.Buffer
	cmd := exec.Command(program, "-p", dir, "-c", filepath.Join(dir, conf), "-e", filepath.Join(dir, "logs/error.log"), "-g", globals)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, dir
	ts.Check(cmd.Start())
	h.server, h.exited, h.conf = cmd, make(chan error, 1), conf
	go func() { h.exited <- cmd.Wait() }()
	err := h.awaitPID(filepath.Join(dir, "logs/nginx.pid"))
	if neg {
		if err == nil {
			ts.Fatalf("the server started")
		}
		h.server, h.conf = nil, ""
		fmt.Fprint(ts.Stdout(), h.restore(out.String()))
		return
	}
	if err != nil {
		ts.Fatalf("%v\n%s", err, out.String())
	}
}

// program is what the script tests.
func (h *harness) program(ts *testscript.TestScript) string {
	if h.installed != "" {
		return h.installed
	}
	for _, d := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(d, "nginx"); isExecutable(p) {
			return p
		}
	}
	ts.Fatalf("nginx is not in PATH")
	return ""
}

// run ARG...: runs nginx's command line with the script's folder as prefix
// and logs/error.log as error log; with ! it must fail. A server that it leaves
// running is ended with the script when its pid file is logs/nginx.pid, which is
// nginx's default.
func scriptRun(ts *testscript.TestScript, neg bool, args []string) {
	h := harnessOf(ts)
	dir := ts.MkAbs(".")
	ts.Check(os.MkdirAll(filepath.Join(dir, "logs"), 0o755))
	h.background = filepath.Join(dir, "logs/nginx.pid")
	if os.Geteuid() == 0 && !slices.Contains(args, "-g") {
		globals := "user root;" // the script's folder is root's alone
		if load, can := streamModule(); h.installed != "" && can {
			globals = load + globals
		}
		args = append([]string{"-g", globals}, args...)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(h.program(ts), append([]string{"-p", dir, "-e", "logs/error.log"}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, dir
	err := cmd.Run()
	fmt.Fprint(ts.Stdout(), h.restore(out.String()))
	fmt.Fprint(ts.Stderr(), h.restore(errs.String()))
	if (err != nil) != neg {
		ts.Fatalf("nginx %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
}

// await FILE: until the file exists, with ! until it does not.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	for range 200 {
		info, err := os.Stat(ts.MkAbs(args[0]))
		written := err == nil && (info.Size() > 0 || filepath.Ext(args[0]) != ".pid") // its number is written after it is made
		if written != neg && (err != nil) == neg {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("waited in vain for %s", args[0])
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// awaitPID waits for the pid file: it is written when every address is bound.
func (h *harness) awaitPID(path string) error {
	for range 500 {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return nil
		}
		select {
		case err := <-h.exited:
			h.exited <- err
			return fmt.Errorf("the server ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("the server did not start")
}

// signal NAME: HUP, USR1, USR2, WINCH, QUIT, INT or TERM.
func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM,
		"USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH, "INT": syscall.SIGINT,
	}[args[0]]
	ts.Check(harnessOf(ts).server.Process.Signal(sig))
}

// ended: waits until the server has ended, with status 0.
func scriptEnded(ts *testscript.TestScript, _ bool, _ []string) {
	h := harnessOf(ts)
	select {
	case err := <-h.exited:
		ts.Check(err)
		h.server = nil
	case <-time.After(10 * time.Second):
		ts.Fatalf("the server did not end")
	}
}

// log [FILE] REGEXP: the error log, or another file, has a matching line;
// with ! none. Waits a moment for the line to be written.
func scriptLog(ts *testscript.TestScript, neg bool, args []string) {
	file := "logs/error.log"
	if len(args) == 2 {
		file, args = args[0], args[1:]
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var text []byte
	for range 40 {
		text, _ = os.ReadFile(ts.MkAbs(file))
		text = []byte(harnessOf(ts).restore(string(text)))
		if re.Match(text) {
			if neg {
				ts.Fatalf("%s has %q:\n%s", file, args[0], text)
			}
			return
		}
		if neg {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !neg {
		ts.Fatalf("%s has no %q:\n%s", file, args[0], text)
	}
}
