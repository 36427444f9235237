// Package takeover puts this program in the place of a running nginx, and
// nginx back into its own.
//
// The way is the one that nginx itself has for new binaries: the program at the
// path that the running master starts anew is exchanged, USR2 starts it with
// the listening sockets, WINCH leaves it alone with new connections, and QUIT
// ends the old one. Until QUIT everything can be taken back without a lost
// connection. What a step finds done already it leaves alone: who is
// interrupted, calls it again, in either direction.
package takeover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Plan is what is to be done, and with what.
type Plan struct {
	Binary string // what the running master starts anew, and everybody calls
	Self   string // this program
	// PIDFile is where masters write their numbers.
	PIDFile string
	State   string // the file that remembers what was there
	Facts   State  // what is there now
	// Check and Verify tell what keeps the configuration from being served;
	// nil leaves them out.
	Check, Verify func(context.Context) error
	Probes        []Probe
	// Divert tells the package manager that the file at Binary is another's;
	// nil where no package owns it.
	Divert func(on bool) error
	// Follows says whether the manager of services knows the process; nil where
	// there is none.
	Follows func(pid int) error
	// Restart restarts the service; nil where there is none.
	Restart func() error
	// Handover says that the running master can be told to start its successor.
	Handover bool
	// Idle says that nothing runs: there are files to be put back, and no more.
	Idle     bool
	Out      io.Writer
	Patience time.Duration // how long a program may take to start
	Drain    time.Duration // how long the end of requests is waited for
}

// keptSuffix marks the original beside the binary. dpkg-divert calls it so.
const keptSuffix = ".distrib"

func (p *Plan) kept() string { return p.Binary + keptSuffix }

// step is one thing to do.
type step struct {
	text string
	do   func(context.Context) error
}

// steps are the way from nginx to this program.
func (p *Plan) steps() []step {
	var list []step
	add := func(do func(context.Context) error, format string, a ...any) {
		list = append(list, step{fmt.Sprintf(format, a...), do})
	}
	if p.Check != nil {
		add(p.Check, "check that %s can be served", p.Facts.Conf)
	}
	if p.Verify != nil {
		add(p.Verify, "compare with nginx %s as \"migrate verify\" does", p.Facts.Version)
	}
	add(p.before, "%s", probing(p.Probes, "ask %s, to know what is answered now"))
	add(p.remember, "write down in %s what is there now", p.State)
	add(p.keep, "keep %s as %s", p.Binary, p.kept())
	if p.Divert != nil {
		add(func(context.Context) error { return p.Divert(true) }, "tell dpkg that updates of the package go to %s", p.kept())
	}
	add(func(context.Context) error { return p.install(p.Self) }, "put this program at %s", p.Binary)
	return append(list, p.exchange("this program", "nginx")...)
}

// back are the steps from this program to nginx.
func (p *Plan) back() []step {
	var list []step
	add := func(do func(context.Context) error, format string, a ...any) {
		list = append(list, step{fmt.Sprintf(format, a...), do})
	}
	if !p.Idle {
		add(p.before, "%s", probing(p.Probes, "ask %s, to know what is answered now"))
	}
	if exists(p.kept()) {
		add(func(context.Context) error { return p.install(p.kept()) }, "put nginx back at %s", p.Binary)
	} else if p.Idle {
		add(func(context.Context) error { return p.vacate() }, "remove this program from %s: there is no nginx to put back, its package has been removed", p.Binary)
	} else {
		add(func(context.Context) error { return fmt.Errorf("%s is gone", p.kept()) }, "put nginx back at %s", p.Binary)
	}
	if !p.Idle {
		list = append(list, p.exchange("nginx", "this program")...)
	}
	if p.Divert != nil {
		add(func(context.Context) error { return p.Divert(false) }, "tell dpkg that %s is the package's again", p.Binary)
	}
	add(func(context.Context) error { return p.forget() }, "remove %s and %s", p.kept(), p.State)
	return list
}

// exchange are the steps that put the program at Binary in the place of the one
// that runs.
func (p *Plan) exchange(next, last string) []step {
	if !p.Handover {
		if p.Restart == nil {
			return nil
		}
		return []step{
			{"restart the service " + p.Facts.Unit, func(context.Context) error { return p.Restart() }},
			{probing(p.Probes, "ask %s again"), p.after},
		}
	}
	list := []step{
		{fmt.Sprintf("signal USR2 to process %d: %s starts beside it with its sockets", p.Facts.PID, next), p.begin},
		{fmt.Sprintf("signal WINCH: only %s takes new connections", next), p.pause},
		{probing(p.Probes, "ask %s again"), p.after},
		{fmt.Sprintf("signal QUIT: %s ends when its requests have ended", last), p.end},
	}
	if p.Follows != nil {
		list = append(list, step{"see that the service " + p.Facts.Unit + " follows", p.followed})
	}
	return list
}

// followed notes whether the service has the new process. A takeover that has
// come so far is not taken back for it.
func (p *Plan) followed(ctx context.Context) error {
	var err error
	for range 20 {
		if err = p.Follows(readPID(p.PIDFile)); err == nil || sleep(ctx, 100*time.Millisecond) != nil {
			break
		}
	}
	if err != nil {
		fmt.Fprintf(p.Out, "     note: %v\n", err)
	}
	return nil
}

func probing(list []Probe, format string) string {
	n := fmt.Sprintf("%d addresses and names", len(list))
	if len(list) == 1 {
		n = "1 address"
	}
	return fmt.Sprintf(format, n)
}

// DryRun prints the steps of a takeover, or of a rollback.
func (p *Plan) DryRun(back bool) {
	p.title(back)
	steps := p.steps()
	if back {
		steps = p.back()
	}
	for i, s := range steps {
		fmt.Fprintf(p.Out, "%3d. %s\n", i+1, s.text)
	}
	fmt.Fprintln(p.Out, "\nNothing has been done: this was a dry run.")
}

func (p *Plan) title(back bool) {
	if back && p.Idle {
		fmt.Fprintf(p.Out, "Neither nginx nor this program runs: the files of nginx %s are put back.\n\n", p.Facts.Version)
		return
	}
	if back {
		fmt.Fprintf(p.Out, "nginx %s takes the place of this program again (process %d).\n\n", p.Facts.Version, p.Facts.PID)
		return
	}
	fmt.Fprintf(p.Out, "This program takes the place of nginx %s (process %d, %s).\n\n", p.Facts.Version, p.Facts.PID, p.Facts.how())
}

// Run takes over. When a step fails, everything is put back as it was.
func (p *Plan) Run(ctx context.Context) error { return p.run(ctx, false) }

// Rollback puts nginx back. When a step fails, this program goes on.
func (p *Plan) Rollback(ctx context.Context) error { return p.run(ctx, true) }

func (p *Plan) run(ctx context.Context, back bool) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	p.title(back)
	steps := p.steps()
	if back {
		steps = p.back()
	}
	for i, s := range steps {
		fmt.Fprintf(p.Out, "%3d. %s\n", i+1, s.text)
		err := ctx.Err()
		if err == nil {
			err = s.do(ctx)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(p.Out, "     failed: %v\n", err)
		if undo := p.undo(back); undo != nil {
			return fmt.Errorf("%w; and it could not be taken back: %w", err, undo)
		}
		return err
	}
	fmt.Fprintln(p.Out, "\nDone.")
	return nil
}

// undo makes the program serve alone that served before.
func (p *Plan) undo(back bool) error {
	changed := false
	if p.Handover {
		taken, err := p.takeBack()
		if err != nil {
			return err
		}
		changed = taken
	}
	ours, err := isOurs(p.Binary)
	switch {
	case err != nil:
		return err
	case back && !ours:
		err = p.install(p.Self)
	case !back && ours && exists(p.kept()):
		err = p.install(p.kept())
		if err == nil && p.Divert != nil {
			err = p.Divert(false)
		}
		if err == nil {
			err = p.forget()
		}
	default:
		if !back && !ours {
			_ = p.forget()
		}
		if changed {
			fmt.Fprintln(p.Out, "     taken back: what served before serves on")
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !p.Handover && p.Restart != nil {
		if err := p.Restart(); err != nil {
			return err
		}
	}
	fmt.Fprintln(p.Out, "     taken back: what served before serves on, and its program is in its place")
	return nil
}

// begin has the running master start the program at Binary.
func (p *Plan) begin(ctx context.Context) error {
	want, err := isOurs(p.Binary)
	if err != nil {
		return err
	}
	if old, next := p.masters(); old != 0 && next != 0 { // somebody was interrupted
		if ourProcess(old) == want {
			_, err = p.takeBack()
		}
		return err
	}
	old := readPID(p.PIDFile)
	if old == 0 {
		return fmt.Errorf("%s names no process that runs", p.PIDFile)
	}
	if runs, err := isOurs(exeOf(old)); err != nil {
		return err
	} else if runs == want {
		return nil // it is the one already
	}
	before := changeTime(p.PIDFile)
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("process %d: %w", old, err)
	}
	heard := false
	end := time.Now().Add(p.Patience)
	for time.Now().Before(end) {
		if o, next := p.masters(); o == old && next != 0 {
			return p.lives(ctx, next)
		}
		// A program that ends at once may have its predecessor's file moved back
		// before anybody has seen it elsewhere: that it was moved shows.
		heard = heard || changeTime(p.PIDFile) != before
		moved := exists(p.PIDFile + oldSuffix)
		if heard && !moved {
			return errEnded
		}
		heard = heard || moved
		if !heard && time.Until(end) < p.Patience/2 {
			return errors.New("the signal has no effect: the server runs in the foreground or changes its program already")
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("the new program does not serve after %v", p.Patience)
}

// lives watches a new process for a moment.
func (p *Plan) lives(ctx context.Context, pid int) error {
	for range 20 {
		if !alive(pid) {
			return errEnded
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// pause keeps the old program from taking new connections.
func (p *Plan) pause(ctx context.Context) error {
	old, next := p.masters()
	if old == 0 || next == 0 {
		return p.alone(next)
	}
	if err := syscall.Kill(old, syscall.SIGWINCH); err != nil {
		return fmt.Errorf("process %d: %w", old, err)
	}
	// Workers of nginx end with their requests; some may last.
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && workers(old, next) > 0; {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// alone says whether the one program that runs is the new one: it may have ended,
// with its predecessor serving on.
func (p *Plan) alone(pid int) error {
	if pid == 0 {
		return errEnded
	}
	want, err := isOurs(p.Binary)
	if err != nil {
		return err
	}
	runs, err := isOurs(exeOf(pid))
	if err == nil && runs != want {
		err = errEnded
	}
	return err
}

var errEnded = errors.New("the new program has ended before it served; the error log says why")

// end ends the old program.
func (p *Plan) end(ctx context.Context) error {
	old, next := p.masters()
	if old == 0 || next == 0 {
		return nil
	}
	if err := syscall.Kill(old, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d: %w", old, err)
	}
	for end := time.Now().Add(p.Drain); alive(old); {
		if time.Now().After(end) {
			fmt.Fprintf(p.Out, "     process %d still has requests, and ends with them\n", old)
			return nil
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return nil // it has been told
		}
	}
	return nil
}

// takeBack leaves the old program alone, if both run.
func (p *Plan) takeBack() (bool, error) {
	old, next := p.masters()
	if next == 0 && old != 0 { // it has started, and not come far
		for _, pid := range successors(old) {
			_ = syscall.Kill(pid, syscall.SIGTERM)
			next = pid
		}
	}
	if old == 0 || next == 0 {
		return false, nil
	}
	if workers(old, next) == 0 || ourProcess(old) { // it has been told WINCH
		_ = syscall.Kill(old, syscall.SIGHUP)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && workers(old, next) == 0 && !ourProcess(old); {
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(next, syscall.SIGQUIT)
	for end := time.Now().Add(p.Drain); alive(next); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			_ = syscall.Kill(next, syscall.SIGKILL)
			end = end.Add(time.Second)
		}
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if readPID(p.PIDFile) == old {
			return true, nil
		}
	}
	return true, fmt.Errorf("%s does not name process %d again", p.PIDFile, old)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// changeTime is when a file was last written, moved or made; the zero time when it
// is not there.
func changeTime(path string) syscall.Timespec {
	var s syscall.Stat_t
	if syscall.Stat(path, &s) != nil {
		return syscall.Timespec{}
	}
	return s.Ctim
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// how says by what means.
func (s *State) how() string {
	if s.Unit != "" {
		return "service " + s.Unit
	}
	if s.Args == "" {
		return "no service"
	}
	return strings.TrimSpace(s.Args)
}
