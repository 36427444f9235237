package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"proxyctl/proxy"
)

// One binary takes the place of another while connections go on: USR2 starts
// the new one with the listening sockets, QUIT to the old one ends it. Each of
// both may be nginx.

// nginxEnv is the environment variable in which nginx hands its listening
// sockets on, "fd;fd;" (NGINX_VAR).
const nginxEnv = "NGINX"

// origin is what a process was when it began, before it changed anything.
type origin struct {
	parent   int
	daemon   bool // started by one that has read the command line
	terminal bool
	dir      string
	uid      int
	gid      int
	groups   []int
}

func findOrigin() origin {
	o := origin{parent: os.Getppid(), daemon: os.Getenv(daemonEnv) != "", terminal: hasTerminal(), uid: os.Geteuid(), gid: os.Getegid()}
	o.dir, _ = os.Getwd()
	o.groups, _ = os.Getgroups()
	_ = os.Unsetenv(daemonEnv)
	return o
}

// hasTerminal says whether the process belongs to a terminal that is there.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// inherited are the listening sockets that a process was started with.
type inherited struct {
	fds      []int
	replaces bool   // by the binary that this one replaces
	text     string // of the variable
	wrong    string // what of it is no number
}

// inheritedSockets reads the environment, and takes out of it what concerns
// this process alone.
func inheritedSockets() inherited {
	var h inherited
	text, given := os.LookupEnv(nginxEnv)
	switch {
	case given:
		_ = os.Unsetenv(nginxEnv)
		h = parseSockets(text)
		h.replaces = true
	case os.Getenv(daemonSockets) != "":
		h = parseSockets(os.Getenv(daemonSockets))
		_ = os.Unsetenv(daemonSockets)
	default:
		h.fds = systemdSockets()
	}
	for _, fd := range h.fds {
		syscall.CloseOnExec(fd)
	}
	return h
}

// parseSockets reads "fd;fd;". What follows the last separator does not count.
func parseSockets(text string) inherited {
	h := inherited{text: text}
	rest := text
	for {
		end := strings.IndexAny(rest, ";:")
		if end < 0 {
			break
		}
		fd, err := strconv.ParseUint(rest[:end], 10, 31)
		if err != nil {
			h.wrong = fmt.Sprintf("invalid socket number %q in NGINX environment variable, ignoring the rest of the variable", rest)
			return h
		}
		h.fds = append(h.fds, int(fd))
		rest = rest[end+1:]
	}
	if rest != "" {
		h.wrong = fmt.Sprintf("invalid socket number %q in NGINX environment variable, ignoring", rest)
	}
	return h
}

// inherit gives the sockets to the runtime.
func (p *process) inherit() {
	h := &p.inherited
	if h.replaces {
		p.runtime.Logf(proxy.LogNotice, "using inherited sockets from %q", h.text)
	}
	if h.wrong != "" {
		p.runtime.Logf(proxy.LogEmerg, "%s", h.wrong)
	}
	p.runtime.Inherit(h.fds, !h.replaces)
}

// daemonized says whether the process runs on its own, without a terminal.
func (p *process) daemonized() bool { return p.origin.daemon || p.inherited.replaces }

// mayNotChange: a process whose parent is still there may be the new binary of
// it, and one whose new binary runs has been replaced already.
func (p *process) mayNotChange() bool {
	return os.Getppid() == p.origin.parent || p.successor != nil
}

// successor is the process of a new binary.
type successor struct {
	pid  int
	wait chan syscall.WaitStatus
}

// exited delivers how the successor ended. Nil for none: it blocks.
func (s *successor) exited() <-chan syscall.WaitStatus {
	if s == nil {
		return nil
	}
	return s.wait
}

// changeBinary starts the program anew, under the name by which this process
// was started, beside this one.
func (p *process) changeBinary() {
	p.runtime.Logf(proxy.LogNotice, "changing binary")
	name, old := os.Args[0], p.pidFile+oldSuffix
	_ = p.runtime.AsRoot(func() error {
		if p.pidFile != "" {
			if err := os.Rename(p.pidFile, old); err != nil {
				p.alert(err, "rename() %s to %s failed before executing new binary process %q", p.pidFile, old, name)
				return nil
			}
		}
		p.keepSessions()
		pid, err := p.execSelf()
		if err != nil {
			p.alert(err, "execve() failed while executing new binary process %q", name)
			p.renameBack("an attempt to execute new binary process %q")
			return nil
		}
		p.runtime.Logf(proxy.LogNotice, "start new binary process %d", pid)
		p.runtime.HandedOver(true)
		p.successor = &successor{pid: pid, wait: make(chan syscall.WaitStatus, 1)}
		return nil
	})
	if s := p.successor; s != nil {
		go s.reap()
	}
}

// alert logs a failed call.
func (p *process) alert(err error, format string, a ...any) {
	p.runtime.Logf(proxy.LogAlert, "%s (%d: %s)", fmt.Sprintf(format, a...), proxy.Errno(err), proxy.SystemText(err))
}

// renameBack gives the pid file its name back.
func (p *process) renameBack(after string) {
	if p.pidFile == "" {
		return
	}
	old := p.pidFile + oldSuffix
	if err := os.Rename(old, p.pidFile); err != nil {
		p.alert(err, "rename() %s back to %s failed after "+after, old, p.pidFile, os.Args[0])
	}
}

// execSelf starts the program with the arguments, folder and account that this
// process began with, and with its listening sockets from descriptor 3 on.
//
// Unlike nginx, which keeps TZ and what env directives name, the whole
// environment goes on: it may say where certificates are kept.
func (p *process) execSelf() (pid int, err error) {
	fds, err := p.runtime.Sockets()
	if err != nil {
		return 0, err
	}
	files, variable := []uintptr{0, 1, 2}, nginxEnv+"="
	for _, fd := range fds {
		defer syscall.Close(fd)
		variable += strconv.Itoa(len(files)) + ";"
		files = append(files, uintptr(fd))
	}
	attr := syscall.ProcAttr{Dir: p.origin.dir, Env: append(os.Environ(), variable), Files: files, Sys: &syscall.SysProcAttr{}}
	if p.origin.uid == 0 {
		c := &syscall.Credential{Gid: uint32(p.origin.gid)}
		for _, g := range p.origin.groups {
			c.Groups = append(c.Groups, uint32(g))
		}
		attr.Sys.Credential = c
	}
	path, err := programPath()
	if err != nil {
		return 0, syscall.ENOENT
	}
	return syscall.ForkExec(path, os.Args, &attr)
}

// programPath is where the name leads by which the program was started.
//
// Unlike nginx, a program that was found in PATH is found there again.
func programPath() (string, error) {
	if strings.Contains(os.Args[0], "/") {
		return os.Args[0], nil
	}
	return exec.LookPath(os.Args[0])
}

// reap waits for the end of the process.
func (s *successor) reap() {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(s.pid, &status, 0, nil); err == nil || err != unix.EINTR {
			s.wait <- status
			return
		}
	}
}

// successorExited makes this process the only one again.
func (p *process) successorExited(status syscall.WaitStatus) {
	if status.Signaled() {
		p.runtime.Logf(proxy.LogAlert, "new binary process %d exited on signal %d", p.successor.pid, int(status.Signal()))
	} else {
		p.runtime.Logf(proxy.LogNotice, "new binary process %d exited with code %d", p.successor.pid, status.ExitStatus())
	}
	p.successor = nil
	p.runtime.HandedOver(false)
	_ = p.runtime.AsRoot(func() error {
		p.renameBack("the new binary process %q exited")
		return nil
	})
	if p.paused && p.abort == nil {
		p.resume()
	}
}
