package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyctl/cmd/proxyctl/takeover"
)

// takeoverServer is a running nginx that is to be replaced.
type takeoverServer struct {
	*daemonServer
	state, original string
}

func startTakeover(t *testing.T) *takeoverServer {
	t.Helper()
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	s := &takeoverServer{daemonServer: startDaemon(t, installed, plainConf), original: installed}
	s.sharedPort = s.port
	s.state = filepath.Join(s.dir, "state", "takeover.json")
	s.await("it serves", func() bool { return s.ask("/") == "answer" })
	return s
}

// migrate runs a command and gives what it says and its exit status.
func (s *takeoverServer) migrate(what string, args ...string) (string, int) {
	s.t.Helper()
	args = append([]string{"migrate", what, "--state", s.state}, args...)
	if what == "takeover" {
		args = append(args, "--nginx", s.installed, "-c", filepath.Join(s.dir, "nginx.conf"), "-p", s.dir)
	}
	out, err := exec.Command("proxyctl", args...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	return string(out), 0
}

// serves checks which program serves, alone, and that everything belongs to it.
func (s *takeoverServer) serves(ours bool) {
	s.t.Helper()
	r, err := takeover.Describe(s.pid(""))
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Ours != ours || s.pid(oldSuffix) != 0 {
		s.t.Errorf("ours serves: %v, with another: %v", r.Ours, s.pid(oldSuffix) != 0)
	}
	out, _ := exec.Command(filepath.Join(s.dir, "nginx"), "-v").CombinedOutput()
	if got := bytes.Contains(out, []byte("proxyctl/")); got != ours {
		s.t.Errorf("the binary is ours: %v\n%s", got, out)
	}
	for path, want := range map[string]bool{s.state: ours, filepath.Join(s.dir, "nginx.distrib"): ours} {
		if _, err := os.Lstat(path); (err == nil) != want {
			s.t.Errorf("%s is there: %v", path, !want)
		}
	}
	if got := s.ask("/"); got != "answer" {
		s.t.Errorf("it answers %q", got)
	}
}

// TestMigrateTakeover: nginx is replaced, and comes back, while clients ask.
func TestMigrateTakeover(t *testing.T) {
	s := startTakeover(t)
	l := startLoad(s.daemonServer, "/")
	if out, code := s.migrate("takeover", "--budget", "20s"); code != 0 {
		t.Fatalf("status %d\n%s", code, out)
	}
	s.serves(true)
	if out, code := s.migrate("takeover"); code != 0 || !strings.Contains(out, "serves already") {
		t.Errorf("again: status %d\n%s", code, out)
	}
	if out, code := s.migrate("rollback"); code != 0 {
		t.Fatalf("status %d\n%s", code, out)
	}
	s.serves(false)
	l.check(t)
	if out, code := s.migrate("rollback"); code != 1 || !strings.Contains(out, "no takeover to take back") {
		t.Errorf("again: status %d\n%s", code, out)
	}
	if link, err := os.Readlink(filepath.Join(s.dir, "nginx")); err != nil || link != s.original {
		t.Errorf("the binary is %s, %v", link, err)
	}
}

// TestMigrateRollbackIdle: where nothing runs, files are put back; where nginx is
// gone, so is this program.
func TestMigrateRollbackIdle(t *testing.T) {
	for name, removed := range map[string]bool{"stopped": false, "removed": true} {
		t.Run(name, func(t *testing.T) {
			s := startTakeover(t)
			if out, code := s.migrate("takeover", "--skip-verify"); code != 0 {
				t.Fatal(out)
			}
			pid := s.pid("")
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.await("it has ended", func() bool { return takeover.ReadPID(filepath.Join(s.dir, "logs", "nginx.pid")) == 0 })
			if removed {
				if err := os.Remove(filepath.Join(s.dir, "nginx.distrib")); err != nil {
					t.Fatal(err)
				}
			}
			if out, code := s.migrate("rollback"); code != 0 || !strings.Contains(out, "Neither nginx nor this program runs") {
				t.Fatalf("status %d\n%s", code, out)
			}
			for file, want := range map[string]bool{s.state: false, filepath.Join(s.dir, "nginx.distrib"): false, filepath.Join(s.dir, "nginx"): !removed} {
				if _, err := os.Lstat(file); (err == nil) != want {
					t.Errorf("%s is there: %v", file, !want)
				}
			}
		})
	}
}

// TestMigrateDryRun prints each step and does none.
func TestMigrateDryRun(t *testing.T) {
	s := startTakeover(t)
	shown := func(text string, pid int) string {
		text = strings.NewReplacer(s.dir, "DIR", fmt.Sprintf("process %d", pid), "process PID").Replace(text)
		version, _ := exec.Command(s.installed, "-v").CombinedOutput()
		return strings.ReplaceAll(text, strings.TrimSpace(strings.TrimPrefix(string(version), "nginx version: nginx/")), "VERSION")
	}
	check := func(what, want string, args ...string) {
		t.Helper()
		pid := s.pid("")
		out, code := s.migrate(what, append(args, "--dry-run")...)
		if got := shown(out, pid); code != 0 || got != want {
			t.Errorf("status %d\n%s", code, got)
		}
	}
	check("takeover", `This program takes the place of nginx VERSION (process PID, DIR/nginx -p DIR -c nginx.conf -e logs/error.log).

  1. check that DIR/nginx.conf can be served
  2. compare with nginx VERSION as "migrate verify" does
  3. ask 2 addresses and names, to know what is answered now
  4. write down in DIR/state/takeover.json what is there now
  5. keep DIR/nginx as DIR/nginx.distrib
  6. put this program at DIR/nginx
  7. signal USR2 to process PID: this program starts beside it with its sockets
  8. signal WINCH: only this program takes new connections
  9. ask 2 addresses and names again
 10. signal QUIT: nginx ends when its requests have ended

Nothing has been done: this was a dry run.
`)
	s.serves(false)
	if out, code := s.migrate("takeover", "--skip-verify"); code != 0 {
		t.Fatal(out)
	}
	check("rollback", `nginx VERSION takes the place of this program again (process PID).

  1. ask 2 addresses and names, to know what is answered now
  2. put nginx back at DIR/nginx
  3. signal USR2 to process PID: nginx starts beside it with its sockets
  4. signal WINCH: only nginx takes new connections
  5. ask 2 addresses and names again
  6. signal QUIT: this program ends when its requests have ended
  7. remove DIR/nginx.distrib and DIR/state/takeover.json

Nothing has been done: this was a dry run.
`)
	s.serves(true)
}

// impostor writes a program that passes for this one and does something else
// when it is to serve.
func (s *takeoverServer) impostor(does string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, "impostor")
	script := "#!/bin/sh\nif [ \"$1\" = -v ]; then echo 'nginx version: nginx/1 (proxyctl/0)' >&2; exit 0; fi\n" + does + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *takeoverServer) plan(self string) *takeover.Plan {
	var out bytes.Buffer
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(out.String())
		}
	})
	return &takeover.Plan{
		Binary: filepath.Join(s.dir, "nginx"), Self: self, PIDFile: filepath.Join(s.dir, "logs/nginx.pid"), State: s.state,
		Facts: takeover.State{PID: s.pid("")}, Probes: []takeover.Probe{{Network: "tcp", Address: "127.0.0.1:" + s.port}},
		Handover: true, Out: &out, Patience: 10 * time.Second, Drain: 10 * time.Second,
	}
}

// TestMigrateTakeoverFails: whatever goes wrong with the new program, nginx
// serves on, and nothing is left.
func TestMigrateTakeoverFails(t *testing.T) {
	tests := []struct{ name, does, want string }{
		{"it does not start", "exit 1", "ended before it served"},
		{"it hangs", "exec sleep 30", "does not serve after"},
		{"it answers otherwise", "exec OTHER/nginx -p DIR -c bad.conf -e logs/error.log", "worse than before"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := startTakeover(t)
			bad := strings.NewReplacer("%port%", s.port, "%dir%", s.dir, "return 200", "return 500").Replace("pid logs/nginx.pid; error_log logs/error.log notice; " + plainConf)
			other := filepath.Join(s.dir, "other")
			if err := errors.Join(os.WriteFile(filepath.Join(s.dir, "bad.conf"), []byte(bad), 0o644), os.Mkdir(other, 0o755), os.Symlink(s.ours, filepath.Join(other, "nginx"))); err != nil {
				t.Fatal(err)
			}
			p := s.plan(s.impostor(strings.NewReplacer("OTHER", other, "DIR", s.dir).Replace(tt.does)))
			if tt.name == "it hangs" {
				p.Patience, p.Drain = 2*time.Second, time.Second
			}
			before := s.pid("")
			if err := p.Run(context.Background()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			s.await("nginx is alone", func() bool { return s.pid("") == before && s.pid(oldSuffix) == 0 })
			s.serves(false)
		})
	}
}

// interrupter cancels once it has been told of a step.
type interrupter struct {
	at     string
	cancel context.CancelFunc
}

func (i *interrupter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), i.at) {
		i.cancel()
	}
	return len(p), nil
}

// TestMigrateCanceled: whoever is interrupted before the end leaves nginx
// serving, under load too.
func TestMigrateCanceled(t *testing.T) {
	s := startTakeover(t)
	l := startLoad(s.daemonServer, "/")
	before := s.pid("")
	for _, at := range []string{"keep ", "USR2", "WINCH", "QUIT"} {
		ctx, cancel := context.WithCancel(context.Background())
		p := s.plan(s.ours)
		p.Out = &interrupter{at, cancel}
		if err := p.Run(ctx); err == nil || err.Error() != "interrupted" {
			t.Errorf("%s: got %v", at, err)
		}
		cancel()
		s.await("nginx is alone", func() bool { return s.pid("") == before && s.pid(oldSuffix) == 0 })
		s.serves(false)
	}
	l.check(t)
}

// TestMigrateInterrupted: an exchange that was left in the middle can be
// completed and taken back.
func TestMigrateInterrupted(t *testing.T) {
	for _, tt := range []struct {
		what string
		ours bool
	}{{"takeover", true}, {"rollback", false}} {
		t.Run(tt.what, func(t *testing.T) {
			s := startTakeover(t)
			if out, code := s.migrate("takeover", "--skip-verify", "--dry-run"); code != 0 {
				t.Fatal(out)
			}
			// as far as a takeover comes that is killed after its eighth step
			state := fmt.Sprintf(`{"version":"1","binary":%q,"kept":%q,"conf":%q,"prefix":%q,"pidFile":%q}`,
				s.dir+"/nginx", s.dir+"/nginx.distrib", s.dir+"/nginx.conf", s.dir, s.dir+"/logs/nginx.pid")
			if err := errors.Join(os.MkdirAll(filepath.Dir(s.state), 0o755), os.WriteFile(s.state, []byte(state), 0o600), os.Link(s.dir+"/nginx", s.dir+"/nginx.distrib")); err != nil {
				t.Fatal(err)
			}
			s.use(s.ours)
			old := s.pid("")
			s.kill(old, syscall.SIGUSR2)
			s.await("both run", func() bool { return s.pid(oldSuffix) == old && s.pid("") != 0 })
			s.kill(old, syscall.SIGWINCH)
			if out, code := s.migrate(tt.what); code != 0 {
				t.Fatalf("status %d\n%s", code, out)
			}
			s.await("one is alone", func() bool { return s.pid(oldSuffix) == 0 && s.pid("") != 0 })
			s.serves(tt.ours)
		})
	}
}

// TestMigrateRestart: a server that cannot hand over is restarted by its
// service, and started again as it was when that fails.
func TestMigrateRestart(t *testing.T) {
	s := startTakeover(t)
	restarts := 0
	service := func() error {
		restarts++
		old := s.pid("")
		s.kill(old, syscall.SIGTERM)
		s.await("it ends", func() bool { return s.pid("") == 0 && syscall.Kill(old, 0) != nil })
		out, err := s.command().CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		s.await("it serves", func() bool { return s.pid("") != 0 && s.ask("/") == "answer" })
		return nil
	}
	p := s.plan(s.ours)
	p.Handover, p.Restart = false, service
	if err := p.Run(context.Background()); err != nil || restarts != 1 {
		t.Errorf("%v after %d restarts", err, restarts)
	}
	s.serves(true)
	if err := p.Rollback(context.Background()); err != nil || restarts != 2 {
		t.Errorf("%v after %d restarts", err, restarts)
	}
	s.serves(false)
	p = s.plan(s.impostor("exit 1"))
	p.Handover = false
	p.Restart = func() error {
		if restarts++; restarts == 3 {
			old := s.pid("")
			s.kill(old, syscall.SIGTERM)
			s.await("it ends", func() bool { return s.pid("") == 0 && syscall.Kill(old, 0) != nil })
			return errors.New("it does not start")
		}
		if out, err := s.command().CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		s.await("it serves", func() bool { return s.pid("") != 0 })
		return nil
	}
	if err := p.Run(context.Background()); err == nil || restarts != 4 {
		t.Errorf("%v after %d restarts", err, restarts)
	}
	s.serves(false)
}

// TestMigrateTakeoverRefuses: what cannot be done is not begun.
func TestMigrateTakeoverRefuses(t *testing.T) {
	s := startTakeover(t)
	distrib := filepath.Join(s.dir, "nginx.distrib")
	if err := os.WriteFile(distrib, []byte("another's"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := s.migrate("takeover", "--skip-verify"); code != 1 || !strings.Contains(out, "is there already") {
		t.Errorf("status %d\n%s", code, out)
	}
	if text, err := os.ReadFile(distrib); err != nil || string(text) != "another's" {
		t.Errorf("another's file is gone: %v", err)
	}
	_ = os.Remove(distrib)
	s.serves(false)
	s.configure(strings.Replace(plainConf, "location /", "perl_modules x; location /", 1))
	if out, code := s.migrate("takeover"); code != 1 || !strings.Contains(out, "perl") {
		t.Errorf("status %d\n%s", code, out)
	}
	s.configure(plainConf)
	s.serves(false)
}

// TestMigrateTakeoverChecks: what nginx is built with otherwise must be said in the
// configuration, where it counts.
func TestMigrateTakeoverChecks(t *testing.T) {
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	nginx := askNginx(installed)
	for conf, want := range map[string]string{
		"events {} pid /run/nginx.pid; http { server { root /srv; } }":               "",
		"events {} pid /run/nginx.pid; http { server { location / { root srv; } } }": "write the whole path first",
	} {
		file := writeConf(t, conf)
		err := (&takingOver{}).check(&takeover.State{Conf: file, Prefix: nginx.Prefix}, nginx, takeover.Running{Title: installed + " -c " + file})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			if strings.TrimSuffix(nginx.Prefix, "/") != defaultPrefix {
				t.Errorf("%s: %v", conf, err)
			}
		}
	}
	if got := directivesOf("/usr/sbin/nginx -g daemon on; master_process on;"); got != "daemon on; master_process on;" {
		t.Errorf("directives %q", got)
	}
	if got := directivesOf("/usr/sbin/nginx -g daemon on; -c /x -p /y"); got != "daemon on;" {
		t.Errorf("directives %q", got)
	}
}

// TestPackagedTempPath: in the place of a packaged nginx the folders of its
// package are used, and none is made beside its configuration.
func TestPackagedTempPath(t *testing.T) {
	dir := t.TempDir()
	for kind, want := range map[string][2]string{
		"client_body": {"body", "/var/cache/nginx/client_temp"},
		"proxy":       {"proxy", "/var/cache/nginx/proxy_temp"},
	} {
		if got := packagedTempPath(dir)(kind); got != filepath.Join(dir, want[0]) {
			t.Errorf("%s: %s", kind, got)
		}
		if got := packagedTempPath(filepath.Join(dir, "none"))(kind); got != want[1] {
			t.Errorf("%s: %s", kind, got)
		}
	}
	var o nginxOptions
	if o.settings().tempPath == nil {
		t.Error("no folders of a package")
	}
	if o.prefixGiven = true; o.settings().tempPath != nil {
		t.Error("with -p they are below that")
	}
}
