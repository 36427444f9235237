package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// installedNginx is what "nginx -V" says.
type installedNginx struct {
	Program string   `json:"program,omitempty"`
	Version string   `json:"version,omitempty"`
	Conf    string   `json:"conf,omitempty"`
	Prefix  string   `json:"prefix,omitempty"`
	Modules []string `json:"modules,omitempty"` // added to those that nginx builds by default
	Without []string `json:"without,omitempty"` // of those, the ones that were left out

	confArgument string // --conf-path as given, or the default below the prefix
}

// findNginx asks the nginx that runs on this machine, or else the one that is
// installed.
func findNginx(program string) installedNginx {
	if program != "" {
		return askNginx(program)
	}
	if n := runningNginx("/proc"); n.Program != "" {
		return n
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin") {
		if n := askNginx(filepath.Join(dir, "nginx")); n.Program != "" {
			return n
		}
	}
	if isFile(defaultConf) {
		return installedNginx{Conf: defaultConf}
	}
	return installedNginx{}
}

// askNginx reads what "nginx -V" says; nothing when that is no nginx.
func askNginx(program string) installedNginx {
	out, err := exec.Command(program, "-V").CombinedOutput() // #nosec G204 -- the user's own nginx
	if err != nil || bytes.Contains(out, []byte("proxyctl/")) {
		return installedNginx{}
	}
	n := readVersion(string(out))
	if n.Version != "" {
		n.Program = program
	}
	return n
}

// runningNginx looks for the oldest master process of nginx, and for the
// configuration that its command line names.
func runningNginx(proc string) installedNginx {
	entries, _ := os.ReadDir(proc)
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		title, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		command, ok := bytes.CutPrefix(bytes.ReplaceAll(title, []byte{0}, []byte{' '}), []byte("nginx: master process "))
		if !ok {
			continue
		}
		program, err := os.Readlink(filepath.Join(dir, "exe"))
		program = strings.TrimSuffix(program, " (deleted)")
		if err != nil || !trusted(dir) || !trusted(program) {
			continue
		}
		n := askNginx(program)
		if n.Program == "" {
			continue
		}
		prefix, conf := commandLineFiles(strings.Fields(string(command)))
		if prefix != "" {
			n.Prefix = prefix
		}
		if conf == "" {
			conf = n.confArgument
		}
		if n.Conf = conf; !filepath.IsAbs(conf) {
			n.Conf = filepath.Join(n.Prefix, conf)
		}
		return n
	}
	return installedNginx{}
}

// trusted reports whether a process or file belongs to us or to root. Anybody
// can give a process the name of nginx's: a program of theirs is not run.
func trusted(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	return owner == 0 || int(owner) == os.Geteuid()
}

// commandLineFiles reads -p and -c.
func commandLineFiles(words []string) (prefix, conf string) {
	for i, w := range words {
		for option, into := range map[string]*string{"-p": &prefix, "-c": &conf} {
			switch value, ok := strings.CutPrefix(w, option); {
			case !ok || i == 0:
			case value != "":
				*into = value
			case i+1 < len(words):
				*into = words[i+1]
			}
		}
	}
	return prefix, conf
}

var (
	versionLine     = regexp.MustCompile(`nginx version: [^/]*/([0-9.]+)`)
	confArgument    = regexp.MustCompile(`--conf-path=(\S+)`)
	withoutArgument = regexp.MustCompile(`--without-(http_\w+_module)`)
	prefixOption    = regexp.MustCompile(`--prefix=(\S+)`)
	withArguments   = regexp.MustCompile(`--(?:with|add(?:-dynamic)?)-(?:module=(\S+)|((?:http|stream|mail)\w*_module|stream|mail))`)
)

func readVersion(text string) installedNginx {
	var n installedNginx
	if m := versionLine.FindStringSubmatch(text); m != nil {
		n.Version = m[1]
	}
	n.Prefix, n.confArgument = "/usr/local/nginx", "conf/nginx.conf"
	if prefix := prefixOption.FindStringSubmatch(text); prefix != nil {
		n.Prefix = prefix[1]
	}
	if conf := confArgument.FindStringSubmatch(text); conf != nil {
		n.confArgument = conf[1]
	}
	n.Conf = n.confArgument
	if !filepath.IsAbs(n.Conf) {
		n.Conf = filepath.Join(n.Prefix, n.Conf)
	}
	for _, m := range withArguments.FindAllStringSubmatch(text, -1) {
		name := m[2]
		if m[1] != "" {
			name = filepath.Base(strings.TrimRight(m[1], "/"))
		}
		if !slices.Contains(n.Modules, name) {
			n.Modules = append(n.Modules, name)
		}
	}
	for _, m := range withoutArgument.FindAllStringSubmatch(text, -1) {
		n.Without = append(n.Without, m[1])
	}
	return n
}
