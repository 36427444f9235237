package takeover

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// What is known of processes.

// oldSuffix marks the pid file of a master whose successor has been started.
const oldSuffix = ".oldbin"

// readPID reads a pid file; 0 when there is none or its process is gone.
func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 || !alive(pid) {
		return 0
	}
	return pid
}

// masters gives the old and the new master while both run.
func (p *Plan) masters() (old, next int) {
	old, next = readPID(p.PIDFile+oldSuffix), readPID(p.PIDFile)
	if old == next { // the file was moved back in between
		return 0, next
	}
	return old, next
}

// alive says whether a process runs. One that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return false
	}
	return field(pid, "State") != "Z (zombie)"
}

// field reads a line of a process's status.
func field(pid int, name string) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if n, value, ok := strings.Cut(line, ":"); ok && n == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// children gives the processes that a process has started.
func children(of int) []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", of, of))
	var list []int
	for f := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil && alive(pid) {
			list = append(list, pid)
		}
	}
	return list
}

// workers counts the children of a master that serve, but for its successor.
func workers(master, successor int) int {
	n := 0
	for _, pid := range children(master) {
		if pid != successor && !strings.Contains(title(pid), "is shutting down") {
			n++
		}
	}
	return n
}

// successors gives the children of a master that run another program.
func successors(master int) []int {
	own, err := os.Stat(exeOf(master))
	if err != nil {
		return nil
	}
	var list []int
	for _, pid := range children(master) {
		if other, err := os.Stat(exeOf(pid)); err == nil && !os.SameFile(own, other) {
			list = append(list, pid)
		}
	}
	return list
}

// title gives the command line of a process, or what it says in its place.
func title(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

func exeOf(pid int) string { return fmt.Sprintf("/proc/%d/exe", pid) }

// isOurs asks a program whether it is this one, in whatever version.
func isOurs(path string) (bool, error) {
	cmd := exec.Command(path, "-v")
	cmd.Args[0] = "nginx"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("%s -v: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return bytes.Contains(out, []byte("proxyctl/")), nil
}

// ourProcess says that a process runs this program.
func ourProcess(pid int) bool {
	ours, err := isOurs(exeOf(pid))
	return err == nil && ours
}

// Running describes a running master.
type Running struct {
	PID     int
	Title   string // what it says of itself: its arguments
	Program string // the path that it starts anew; not absolute if it was found in PATH
	Unit    string // of systemd; "" for none
	Ours    bool
}

// Describe looks at a process.
func Describe(pid int) (Running, error) {
	r := Running{PID: pid}
	r.Title = strings.TrimPrefix(title(pid), "nginx: master process ")
	r.Program, _, _ = strings.Cut(r.Title, " ")
	var err error
	if r.Ours, err = isOurs(exeOf(pid)); err != nil {
		return r, err
	}
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(groups)) {
		if name := filepath.Base(strings.TrimSpace(line)); strings.HasSuffix(name, ".service") && !strings.HasPrefix(name, "user@") {
			r.Unit = name
		}
	}
	return r, nil
}

// ReadPID gives the master that a pid file names: the new one while two run. 0
// for none.
func ReadPID(path string) int {
	if pid := readPID(path); pid != 0 {
		return pid
	}
	return readPID(path + oldSuffix)
}

// Both says that two masters run: an exchange was interrupted.
func Both(path string) bool { return readPID(path) != 0 && readPID(path+oldSuffix) != 0 }
