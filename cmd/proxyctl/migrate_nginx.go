package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// installedNginx is what "nginx -V" says.
type installedNginx struct {
	Program string   `json:"program,omitempty"`
	Version string   `json:"version,omitempty"`
	Conf    string   `json:"conf,omitempty"`
	Prefix  string   `json:"prefix,omitempty"`
	Modules []string `json:"modules,omitempty"` // added to those that nginx builds by default
	Without []string `json:"without,omitempty"` // of those, the ones that were left out
	// ThirdParty are those of Modules that are not nginx's own.
	ThirdParty []string   `json:"thirdParty,omitempty"`
	Test       *nginxTest `json:"test,omitempty"`
	Since      *time.Time `json:"since,omitempty"` // when it has read its configuration

	confArgument string   // --conf-path as given, or the default below the prefix
	master       int      // its process, if it runs
	options      []string // what its command line says about its configuration
	contained    int      // the process of one that runs and cannot be asked from here
}

// nginxTest is what "nginx -T" says.
type nginxTest struct {
	OK    bool     `json:"ok"`
	Said  string   `json:"said,omitempty"`  // why not
	Files []string `json:"files,omitempty"` // what it reads
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

// timeToTest bounds what "nginx -T" may take: it opens files and asks for names.
const timeToTest = 30 * time.Second

// test has nginx read its configuration anew; nil when it cannot be asked, as for
// who may not read what it reads.
func (n *installedNginx) test() (*nginxTest, *dump) {
	if n.Program == "" || n.Conf == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeToTest)
	defer cancel()
	options := n.options
	if options == nil {
		options = []string{"-c", n.Conf}
	}
	cmd := exec.CommandContext(ctx, n.Program, append([]string{"-T"}, options...)...) // #nosec G204 -- the user's own nginx
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		text := oneLine(lastLines(said.String()))
		if text == "" || strings.Contains(text, "(13: ") || strings.Contains(text, "(1: ") {
			return nil, nil
		}
		return &nginxTest{Said: text}, nil
	}
	d, ok, err := readDump(out)
	if err != nil || !ok {
		return nil, nil
	}
	return &nginxTest{OK: true, Files: d.names}, d
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
	contained := 0
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		title, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		command, ok := bytes.CutPrefix(bytes.ReplaceAll(title, []byte{0}, []byte{' '}), []byte("nginx: master process "))
		if !ok {
			continue
		}
		if !sameRoot(proc, dir) {
			contained = pid
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
		n.master, n.options, n.Since = pid, optionsOf(strings.TrimSpace(string(command))), readingTime(proc, pid)
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
	return installedNginx{contained: contained}
}

// sameRoot says that a process sees the file system that we see; it may also be
// that this cannot be known.
func sameRoot(proc, dir string) bool {
	theirs, err := os.Stat(filepath.Join(dir, "root"))
	if err != nil {
		return true
	}
	ours, err := os.Stat(filepath.Join(proc, "self", "root"))
	return err != nil || os.SameFile(ours, theirs)
}

// optionsOf gives the options of a command line that tell which configuration is
// read. The title of a process has lost its quotes: what -g says ends where the
// next option begins.
func optionsOf(command string) []string {
	prefix, conf := commandLineFiles(strings.Fields(command))
	var out []string
	for _, o := range [][2]string{{"-p", prefix}, {"-c", conf}, {"-g", directivesOf(" " + command)}} {
		if o[1] != "" {
			out = append(out, o[0], o[1])
		}
	}
	return out
}

// readingTime is when a master has last read its configuration: its oldest worker
// that is not about to end was started right then.
func readingTime(proc string, master int) *time.Time {
	stats, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	var oldest uint64
	for _, name := range stats {
		title, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		text, _ := os.ReadFile(name) // #nosec G304 -- below /proc
		f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(f) < 20 || string(f[1]) != strconv.Itoa(master) || !bytes.HasPrefix(title, []byte("nginx: worker process")) || bytes.Contains(title, []byte("shutting down")) {
			continue
		}
		if began, err := strconv.ParseUint(string(f[19]), 10, 64); err == nil && (oldest == 0 || began < oldest) {
			oldest = began
		}
	}
	text, _ := os.ReadFile(filepath.Join(proc, "stat"))
	boot := regexp.MustCompile(`(?m)^btime (\d+)$`).FindSubmatch(text)
	if oldest == 0 || boot == nil {
		return nil
	}
	seconds, _ := strconv.ParseInt(string(boot[1]), 10, 64)
	const ticks = 100                                                               // of a second, on Linux always (USER_HZ)
	since := time.Unix(seconds, 0).Add(time.Duration(oldest) * time.Second / ticks) // #nosec G115 -- a machine's age
	return &since
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
			if !slices.Contains(n.ThirdParty, name) {
				n.ThirdParty = append(n.ThirdParty, name)
			}
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
