package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"proxyctl/cmd/proxyctl/takeover"
	"proxyctl/cmd/proxyctl/verify"
	"proxyctl/parser"
	"proxyctl/proxy"
)

// takingOver is what the command line of takeover and rollback says.
type takingOver struct {
	verifying
	state      string
	dryRun     bool
	skipVerify bool
	restart    bool
	patience   time.Duration
	drain      time.Duration
}

const defaultTakeoverState = "/var/lib/proxyctl/takeover.json"

func (t *takingOver) common(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&t.dryRun, "dry-run", false, "print each step and do none")
	flags.BoolVar(&t.restart, "restart", false, "restart the service instead of handing the sockets over")
	flags.StringVar(&t.state, "state", defaultTakeoverState, "file that remembers what was there")
	flags.DurationVar(&t.patience, "start-timeout", 30*time.Second, "how long the next program may take until it serves")
	flags.DurationVar(&t.drain, "drain-timeout", 30*time.Second, "how long the end of the last program's requests is waited for")
}

func migrateTakeoverCommand() *cobra.Command {
	t := takingOver{verifying: verifying{logLines: 10_000, budget: time.Minute, most: 50_000}}
	cmd := &cobra.Command{
		Use:   "takeover",
		Short: "Put this program in the place of the running nginx, without a lost connection",
		Long: "Finds the running nginx by its configuration, checks that the configuration can be served,\n" +
			"compares both servers as \"migrate verify\" does, and then exchanges them: this program is\n" +
			"copied to the path of nginx's binary (the original stays beside it, with \".distrib\" behind\n" +
			"its name), nginx is told to start its successor with its own sockets (USR2), takes no new\n" +
			"connections (WINCH), and ends (QUIT) once this program answers at every address as nginx\n" +
			"did before. Until then everything is taken back by itself when something fails.\n\n" +
			"The service, its unit, its pid file and whoever calls \"nginx -t\" or \"nginx -s reload\" stay\n" +
			"as they are: this program has nginx's command line. Where dpkg owns the binary, it is told\n" +
			"by dpkg-divert, so that updates of the package go to the original and do not undo this.\n" +
			"Other package managers do undo it: call takeover again after an update of nginx.\n\n" +
			"A server in the foreground cannot hand over; its service is restarted instead (--restart).\n" +
			"An interrupted takeover is completed by calling it again, or taken back by rollback.\n\n" +
			"Exit status: 0 when this program serves, 1 when nginx still does, 2 for a wrong command line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.command(cmd, t.takeover) },
	}
	t.flags(cmd)
	t.common(cmd)
	cmd.Flags().BoolVar(&t.skipVerify, "skip-verify", false, "do not compare both servers first")
	return cmd
}

func migrateRollbackCommand() *cobra.Command {
	t := takingOver{}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Put nginx back in its place after a takeover",
		Long: "Puts nginx's binary back, has the running server start it with its sockets, and ends when\n" +
			"nginx answers at every address as before; dpkg is told that the binary is the package's\n" +
			"again. Works after a takeover that was interrupted, too, and where nothing runs or nginx's\n" +
			"package has been removed: then only files are put back.\n\n" +
			"Exit status: 0 when nginx serves, 1 when not, 2 for a wrong command line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.command(cmd, t.rollback) },
	}
	t.common(cmd)
	return cmd
}

// command runs one of both; signals interrupt it where that is safe.
func (t *takingOver) command(cmd *cobra.Command, run func(context.Context, *cobra.Command) error) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	if err := run(ctx, cmd); err != nil {
		return sayRefused(cmd, err)
	}
	return nil
}

func (t *takingOver) takeover(ctx context.Context, cmd *cobra.Command) error {
	facts, err := takeover.Load(t.state)
	if err != nil {
		return err
	}
	var nginx installedNginx
	if facts == nil {
		if facts, nginx, err = t.find(); err != nil {
			return err
		}
	}
	running, err := t.running(facts)
	if err != nil {
		return err
	}
	if running.Ours && !takeover.Both(facts.PIDFile) {
		fmt.Fprintf(cmd.OutOrStdout(), "This program serves already (process %d). \"proxyctl migrate rollback\" puts nginx back.\n", running.PID)
		return nil
	}
	p, err := t.plan(cmd, facts, running)
	if err != nil {
		return err
	}
	p.Check = func(context.Context) error { return t.check(facts, nginx, running) }
	if !t.skipVerify {
		p.Verify = func(ctx context.Context) error { return t.verify(ctx, cmd, facts) }
	}
	if t.dryRun {
		p.DryRun(false)
		return nil
	}
	return p.Run(ctx)
}

func (t *takingOver) rollback(ctx context.Context, cmd *cobra.Command) error {
	facts, err := takeover.Load(t.state)
	if err != nil {
		return err
	}
	if facts == nil {
		return fmt.Errorf("%s does not exist: there is no takeover to take back", t.state)
	}
	p, err := t.planBack(cmd, facts)
	if err != nil {
		return err
	}
	if t.dryRun {
		p.DryRun(true)
		return nil
	}
	return p.Rollback(ctx)
}

// planBack makes the steps' facts of a rollback. Where nothing runs, as when
// nginx's package was removed, the files are put back all the same.
func (t *takingOver) planBack(cmd *cobra.Command, facts *takeover.State) (*takeover.Plan, error) {
	if takeover.ReadPID(facts.PIDFile) != 0 {
		running, err := t.running(facts)
		if err != nil {
			return nil, err
		}
		return t.plan(cmd, facts, running)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &takeover.Plan{Binary: facts.Binary, Self: self, PIDFile: facts.PIDFile, State: t.state, Facts: *facts, Idle: true, Out: cmd.OutOrStdout()}
	if facts.Divert {
		p.Divert = func(on bool) error { return divert(p.Binary, on) }
	}
	return p, nil
}

// find gathers what is known of the nginx that serves.
func (t *takingOver) find() (*takeover.State, installedNginx, error) {
	nginx := findNginx(t.program)
	if nginx.Program == "" {
		return nil, nginx, errors.New("no nginx is found: none runs and none is in PATH (--nginx names it)")
	}
	if t.conf != "" {
		nginx.Conf = t.conf
	}
	if t.prefix != "" {
		nginx.Prefix = t.prefix
	}
	conf, err := filepath.Abs(nginx.Conf)
	if err != nil {
		return nil, nginx, err
	}
	nginx.Conf = conf
	t.conf, t.prefix = conf, nginx.Prefix
	p := t.process(conf, nginx.Prefix)
	p.options.PID = builtIn(nginx.Program, "pid-path")
	table, diags := p.load(p.parse())
	if table == nil {
		return nil, nginx, &verify.Refused{Diagnostics: diags}
	}
	return &takeover.State{Version: nginx.Version, Binary: nginx.Program, Conf: conf, Prefix: nginx.Prefix, PIDFile: table.Main.PID}, nginx, nil
}

// running describes the process that the pid file names.
func (t *takingOver) running(facts *takeover.State) (takeover.Running, error) {
	pid := takeover.ReadPID(facts.PIDFile)
	if pid == 0 {
		return takeover.Running{}, fmt.Errorf("%s names no process that runs: start nginx first", facts.PIDFile)
	}
	r, err := takeover.Describe(pid)
	if err != nil {
		return r, fmt.Errorf("process %d: %w", pid, err)
	}
	return r, nil
}

// plan makes the steps' facts.
func (t *takingOver) plan(cmd *cobra.Command, facts *takeover.State, running takeover.Running) (*takeover.Plan, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := t.process(facts.Conf, facts.Prefix)
	s.directives = directivesOf(running.Title)
	file := s.parse()
	table, diags := s.load(file)
	if table == nil {
		return nil, &verify.Refused{Diagnostics: errorsOf(diags)}
	}
	facts.PID, facts.Args = running.PID, running.Title
	if facts.Unit == "" {
		facts.Unit = running.Unit
	}
	p := &takeover.Plan{
		Binary: facts.Binary, Self: self, PIDFile: facts.PIDFile, State: t.state, Facts: *facts, Probes: probesOf(table),
		Out: cmd.OutOrStdout(), Patience: t.patience, Drain: t.drain,
		Handover: !t.restart && filepath.IsAbs(running.Program) && daemonWanted(file.Body, true),
	}
	if filepath.IsAbs(running.Program) {
		p.Binary = running.Program
		if facts.Binary == "" || running.Program != facts.Binary {
			p.Facts.Binary = running.Program
		}
	}
	if facts.Unit != "" {
		p.Restart = func() error { return systemctl("restart", facts.Unit) }
		p.Follows = func(pid int) error { return followsProcess(facts.Unit, pid) }
	}
	if owned := exec.Command("dpkg", "-S", p.Binary).Run() == nil; owned || facts.Divert {
		p.Divert = func(on bool) error { return divert(p.Binary, on) }
	}
	if base := filepath.Base(p.Binary); base != "nginx" && !strings.HasPrefix(base, "nginx-") {
		return nil, fmt.Errorf("%s: only a program called nginx can be replaced, for this one speaks nginx's command line under that name", p.Binary)
	}
	if !p.Handover && p.Restart == nil {
		return nil, errors.New("this nginx cannot hand its sockets over (it runs in the foreground or was started without its path), and it is no service of systemd that could be restarted: start this program in its place where nginx is started")
	}
	return p, nil
}

var directivesArgument = regexp.MustCompile(` -g (.*?)(?: -[cpe] |$)`)

// directivesOf gives what -g says in the title of a process.
func directivesOf(title string) string {
	if m := directivesArgument.FindStringSubmatch(title); m != nil {
		return m[1]
	}
	return ""
}

// builtIn gives an argument that a program was configured with.
func builtIn(program, name string) string {
	out, err := exec.Command(program, "-V").CombinedOutput() // #nosec G204 -- the user's own nginx
	if err != nil {
		return ""
	}
	if m := regexp.MustCompile(`--` + name + `=(\S+)`).FindStringSubmatch(string(out)); m != nil {
		return m[1]
	}
	return ""
}

func systemctl(args ...string) error {
	out, err := exec.Command("systemctl", args...).CombinedOutput() // #nosec G204 -- a unit's name as the system gives it
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func followsProcess(unit string, pid int) error {
	out, err := exec.Command("systemctl", "show", "-p", "MainPID", "--value", unit).Output() // #nosec G204 -- as above
	if err != nil {
		return fmt.Errorf("systemctl show %s: %w", unit, err)
	}
	if got := strings.TrimSpace(string(out)); got != strconv.Itoa(pid) {
		return fmt.Errorf("%s has process %s as its main one, not %d: PIDFile= in its unit should name the pid file", unit, got, pid)
	}
	return nil
}

// divert tells dpkg who the file belongs to.
func divert(binary string, on bool) error {
	args := []string{"--quiet", "--local", "--no-rename", "--divert", binary + ".distrib", "--add", binary}
	if !on {
		args[5] = "--remove"
	}
	out, err := exec.Command("dpkg-divert", args...).CombinedOutput() // #nosec G204 -- the path of nginx
	if err != nil {
		return fmt.Errorf("dpkg-divert: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// maxProbes is how many addresses and names are asked.
const maxProbes = 50

// probesOf gives one question for each address, and for each server by its name.
func probesOf(table *proxy.Table) []takeover.Probe {
	var out []takeover.Probe
	for _, w := range table.Probes() {
		p := takeover.Probe{Network: "tcp", Address: reachable(w.To.Address), Host: w.Host, TLS: w.To.TLS, Proxied: w.To.ProxyProtocol}
		if w.To.Network == "unix" {
			p.Network, p.Address = "unix", w.To.Path
		}
		if len(out) < maxProbes && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// reachable gives an address of this machine for any of an address.
func reachable(a netip.AddrPort) string {
	switch {
	case !a.IsValid() || !a.Addr().IsUnspecified():
		return a.String()
	case a.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port()).String()
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port()).String()
}

// check finds what verify does not see: what nginx is built with otherwise.
func (t *takingOver) check(facts *takeover.State, nginx installedNginx, running takeover.Running) error {
	s := t.process(facts.Conf, facts.Prefix)
	file := s.parse()
	if _, diags := s.load(file); len(errorsOf(diags)) > 0 {
		var text strings.Builder
		parser.WriteNginx(&text, errorsOf(diags)[0])
		return errors.New(strings.TrimSpace(text.String()))
	}
	if nginx.Program == "" {
		return nil // was checked when it was written down
	}
	words := strings.Fields(running.Title)
	prefix, conf := commandLineFiles(words)
	if prefix == "" {
		if own := builtIn(nginx.Program, "conf-path"); conf == "" && own != defaultConf {
			return fmt.Errorf("this nginx reads %s by itself, this program %s: start nginx with -c %s first", own, defaultConf, own)
		}
		if own := builtIn(nginx.Program, "pid-path"); own != defaultPID && !says(file.Body, "pid") {
			return fmt.Errorf("this nginx writes its pid to %s by itself, this program to %s: add \"pid %s;\" to the configuration first", own, defaultPID, own)
		}
		if strings.TrimSuffix(nginx.Prefix, "/") != defaultPrefix {
			if d := relativeTo(file.Body); d != nil {
				return fmt.Errorf("%s is relative to %s with this nginx, and to %s with this program: write the whole path first (%s:%d)", d.Args[0].Value, nginx.Prefix, defaultPrefix, d.Name.Range.Source.Name, d.Name.Range.Line())
			}
		}
	}
	if own := builtIn(nginx.Program, "user"); os.Geteuid() == 0 && own != "" && own != defaultUser && !says(file.Body, "user") {
		return fmt.Errorf("this nginx runs as %s by itself, this program as %s: add \"user %s;\" to the configuration first", own, defaultUser, own)
	}
	return nil
}

// says looks for a directive of the main level.
func says(body *parser.Block, name string) bool {
	for _, d := range body.Items {
		if d.Name.Value == name {
			return true
		}
		for _, f := range d.Files {
			if says(f.Body, name) {
				return true
			}
		}
	}
	return false
}

// relativeTo finds a path that begins at the prefix.
func relativeTo(body *parser.Block) *parser.Directive {
	for _, d := range body.Items {
		switch d.Name.Value {
		case "root", "alias", "access_log", "error_log", "pid", "load_module", "client_body_temp_path", "proxy_temp_path", "fastcgi_temp_path",
			"uwsgi_temp_path", "scgi_temp_path", "proxy_cache_path", "fastcgi_cache_path", "working_directory", "proxy_store":
			if len(d.Args) > 0 && !d.Name.Range.IsZero() {
				switch v := d.Args[0].Value; {
				case v == "off", v == "on", v == "stderr", strings.HasPrefix(v, "/"), strings.HasPrefix(v, "$"), strings.Contains(v, ":"):
				default:
					return d
				}
			}
		}
		for _, f := range d.Files {
			if found := relativeTo(f.Body); found != nil {
				return found
			}
		}
		if d.Block != nil {
			if found := relativeTo(d.Block); found != nil {
				return found
			}
		}
	}
	return nil
}

// verify compares both servers.
func (t *takingOver) verify(ctx context.Context, cmd *cobra.Command, facts *takeover.State) error {
	v := t.verifying
	v.conf, v.prefix = facts.Conf, facts.Prefix
	if v.program == "" {
		v.program = facts.Binary
		if facts.Kept != "" && isFile(facts.Kept) {
			v.program = facts.Kept
		}
	}
	r, err := v.run(ctx)
	if err != nil {
		return err
	}
	if !r.Equal() {
		verify.Write(cmd.OutOrStdout(), r, false)
		return errors.New("the two answer differently; --skip-verify takes over all the same")
	}
	fmt.Fprintf(cmd.OutOrStdout(), "     %d requests are answered alike\n", r.Compared)
	return nil
}
