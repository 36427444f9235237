// Package verify proves that this server answers as an nginx does: both serve
// the same configuration, one after the other at the same spare addresses, and
// are asked the same.
package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy"
)

// Options say what is compared, and with how much effort.
type Options struct {
	File    *parser.File
	ConfDir string // the folder of the configuration file
	Prefix  string // where relative paths of files begin
	Nginx   Program
	Version string   // of nginx
	Without []string // modules that nginx is built without
	Ours    Program
	// Load compiles a file as ours would.
	Load func(*parser.File) (*proxy.Table, []*parser.Diagnostic)
	// RealUpstreams has requests reach the upstreams of the configuration: only
	// GET and HEAD are sent.
	RealUpstreams bool
	// Log is an access log to be replayed; "" for none.
	Log         string
	LogLines    int           // at most, the newest
	Budget      time.Duration // for everything
	MaxRequests int
	Keep        bool // the scratch folder
}

// Refused is a configuration that cannot be served here.
type Refused struct{ Diagnostics []*parser.Diagnostic }

func (r *Refused) Error() string { return "this configuration cannot be served here" }

// comparison is one run.
type comparison struct {
	*Options
	scratch  string
	started  time.Time
	rewriter *rewriter
	backends *backends
	file     *parser.File // rewritten
	table    *proxy.Table
	original map[string]string // address that is listened on to the one it stands for
	listens  []string
	requests []*request
	parted   int // behind this request upstreams may be chosen otherwise
	report   *Report
}

// Run compares. A canceled context ends it with what is known until then.
func Run(ctx context.Context, o *Options) (*Report, error) {
	c := &comparison{Options: o, started: time.Now(), report: &Report{Nginx: o.Nginx.Path, Version: o.Version}}
	var err error
	if c.scratch, err = os.MkdirTemp("", "proxyctl-verify-"); err != nil {
		return nil, err
	}
	if o.Keep {
		c.report.Kept = c.scratch
	} else {
		defer func() { _ = os.RemoveAll(c.scratch) }()
	}
	cert, err := makePair(filepath.Join(c.scratch, "pair"))
	if err != nil {
		return nil, err
	}
	c.backends = newBackends(cert)
	defer c.backends.close()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	return c.report, c.run(ctx)
}

// prepare rewrites the configuration and makes it known.
func (c *comparison) prepare() error {
	if err := errors.Join(os.Chmod(c.scratch, 0o755), mirrorFolder(c.ConfDir, c.scratch)); err != nil { // #nosec G302 -- workers run as another account
		return err
	}
	c.rewriter = &rewriter{
		dir: filepath.Join(c.scratch, "run"), root: os.Geteuid() == 0, pair: filepath.Join(c.scratch, "pair"), backends: c.backends, real: c.RealUpstreams,
		readable: func(path string) bool {
			if !filepath.IsAbs(path) {
				path = filepath.Join(c.ConfDir, path)
			}
			return isReadable(path)
		},
	}
	c.file = c.rewriter.rewrite(c.File)
	table, diags := c.Load(c.file)
	if failed(diags) {
		return &Refused{diags}
	}
	ports := &portFinder{}
	var err error
	if c.original, err = listen(c.file.Body, table.ListenAddresses(), ports.next); err != nil {
		return err
	}
	if c.table, diags = c.Load(c.file); failed(diags) {
		return &Refused{diags}
	}
	if len(c.original) == 0 {
		return errors.New("the configuration listens nowhere: nothing to compare")
	}
	for a := range c.original {
		c.listens = append(c.listens, a)
	}
	body := c.file.Body
	c.rewriter.tempPaths(body, c.Without, isServed)
	if err := c.write(oursName, body); err != nil {
		return err
	}
	theirs := flatten(body)
	c.rewriter.tempPaths(theirs, c.Without, func(name string) bool { return !isServed(name) })
	return c.write(confName, theirs)
}

func isServed(name string) bool {
	for _, cmd := range proxy.Commands() {
		if cmd.Name == name {
			return cmd.Status != proxy.Unsupported
		}
	}
	return false
}

func (c *comparison) write(name string, body *parser.Block) error {
	f, err := os.OpenFile(filepath.Join(c.scratch, name), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	write(f, body, "")
	return f.Close()
}

func failed(diags []*parser.Diagnostic) bool {
	for _, d := range diags {
		if d.Severity == parser.Error {
			return true
		}
	}
	return false
}

// portFinder finds ports outside the range of outgoing connections.
type portFinder struct{ last int }

func (p *portFinder) next() (int, error) {
	if p.last == 0 {
		p.last = 12000 + os.Getpid()%8000
	}
	for range 20000 {
		p.last++
		if p.last >= 32000 {
			p.last = 12000
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p.last)); err == nil {
			_ = l.Close()
			return p.last, nil
		}
	}
	return 0, errors.New("no port is free")
}

// pass is one server's turn.
func (c *comparison) pass(ctx context.Context, p *Program, work func() error) error {
	dir := c.rewriter.dir
	if err := os.Mkdir(dir, 0o755); err != nil { // #nosec G301 -- workers run as another account
		return err
	}
	defer func() { _ = os.Rename(dir, dir+"-"+strconv.FormatInt(time.Now().UnixNano(), 36)) }()
	conf := confName
	if p == &c.Ours {
		conf = oursName
	}
	args := []string{"-c", filepath.Join(c.scratch, conf), "-p", c.Prefix, "-e", filepath.Join(dir, "start.log")}
	if p == &c.Nginx && proxy.OlderVersion(c.Version, "1.19.5") {
		args = args[:4]
	}
	r, err := startServer(ctx, p, args, c.listens)
	if err != nil {
		return err
	}
	defer r.stop()
	if err := work(); err != nil {
		return err
	}
	if !r.alive() {
		return fmt.Errorf("%s ended by itself: %s", p.Name, r.out.String())
	}
	return nil
}

// patience is how long an answer may take.
const patience = 3 * time.Second

// maxSlow is how many answers may not come in time.
const maxSlow = 8

func (c *comparison) ask(r *request) *answer {
	s := r.script
	if s == "" {
		s = scriptPlain
	}
	c.backends.begin(s)
	a := ask(r, patience)
	a.upstream = c.backends.take()
	a.samePort()
	a.compact()
	return &a
}

// samePort makes the client's port, which is another each time, the same.
func (a *answer) samePort() {
	if len(a.port) != 5 {
		return
	}
	const same = "PORT."
	a.text = bytes.ReplaceAll(a.text, []byte(a.port), []byte(same))
	for i := range a.upstream {
		a.upstream[i].Head = strings.ReplaceAll(a.upstream[i].Head, a.port, same)
	}
}

// maxKept is how much of an answer is kept.
const maxKept = 64 << 10

// compact replaces a long body by its sum.
func (a *answer) compact() {
	if len(a.text) > maxKept {
		sum := sha256.Sum256(a.text[maxKept:])
		a.text = fmt.Appendf(a.text[:maxKept:maxKept], "(and %d bytes more, %x)", len(a.text)-maxKept, sum[:8])
	}
}

// run asks both servers and compares.
func (c *comparison) run(ctx context.Context) error {
	var want, got []*answer
	share := c.Budget * 35 / 100
	err := c.pass(ctx, &c.Nginx, func() (err error) {
		want, err = c.first(ctx, c.started.Add(share))
		return err
	})
	if err != nil {
		return err
	}
	if err := c.pass(ctx, &c.Ours, func() (err error) {
		got, err = c.again(ctx, len(c.requests), c.started.Add(2*share))
		return err
	}); err != nil {
		return err
	}
	c.report.Compared = min(len(want), len(got))
	found := map[int][]difference{}
	last := -1
	c.parted = len(got)
	if c.rewriter.chance {
		c.parted = -1
	}
	for i := range got {
		if i > c.parted {
			c.sameUpstream(want[i])
			c.sameUpstream(got[i])
		}
		if d := compare(want[i], got[i]); d != nil {
			found[i], last = d, i
		}
		if i < c.parted && askedOtherwise(want[i], got[i]) {
			c.parted = i
		}
	}
	for i, p := range []*Program{&c.Nginx, &c.Ours} {
		if err := c.confirm(ctx, p, last+1, c.started.Add(c.Budget*time.Duration(90+5*i)/100), found, map[*Program][]*answer{&c.Nginx: want, &c.Ours: got}[p]); err != nil {
			return err
		}
	}
	c.describe(found, want)
	return ctx.Err()
}

// confirm asks a server the first n once more, and leaves out of what was found
// where it differs from itself: chance, a clock, or a machine that is busy.
func (c *comparison) confirm(ctx context.Context, p *Program, n int, until time.Time, found map[int][]difference, before []*answer) error {
	if len(found) == 0 || ctx.Err() != nil {
		return nil
	}
	var answers []*answer
	err := c.pass(ctx, p, func() (err error) {
		answers, err = c.again(ctx, n, until)
		return err
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	for i, list := range found {
		if i >= len(answers) {
			continue
		}
		if i > c.parted {
			c.sameUpstream(answers[i])
		}
		if list = c.stable(c.requests[i].Why+" "+c.requests[i].what, list, compare(before[i], answers[i])); len(list) > 0 {
			found[i] = list
		} else {
			delete(found, i)
		}
	}
	return nil
}

// stable leaves out in what a server differs from itself.
func (c *comparison) stable(what string, list, unstable []difference) []difference {
	var out []difference
	for _, d := range list {
		same := false
		for i := range unstable {
			same = same || unstable[i].what == d.what
		}
		if same {
			c.report.Unstable++
			if len(c.report.UnstableWhat) < 10 && !slices.Contains(c.report.UnstableWhat, d.what+", "+what) {
				c.report.UnstableWhat = append(c.report.UnstableWhat, d.what+", "+what)
			}
			continue
		}
		out = append(out, d)
	}
	return out
}

// first asks the first server: what there is to ask becomes known on the way.
func (c *comparison) first(ctx context.Context, until time.Time) ([]*answer, error) {
	var answers []*answer
	slow := 0
	one := func(r *request) (*answer, bool) {
		if c.RealUpstreams && !r.harmless() {
			return nil, false
		}
		if ctx.Err() != nil || len(c.requests) >= c.MaxRequests || time.Now().After(until) || slow > maxSlow {
			c.report.Skipped++
			return nil, false
		}
		began := time.Now()
		a := c.ask(r)
		if time.Since(began) > patience/2 {
			slow++
		}
		c.requests, answers = append(c.requests, r), append(answers, a)
		return a, true
	}
	var bad, late []*request
	type based struct {
		r *request
		a *answer
	}
	var bases []based
	addresses := map[netip.AddrPort]bool{}
	all := proxy.Witnesses(c.table, c.file)
	for _, w := range all {
		if !w.Base {
			continue
		}
		r := &request{Witness: w}
		if a, asked := one(r); asked {
			bases = append(bases, based{r, a})
		}
		if !addresses[w.To.Address] {
			addresses[w.To.Address] = true
			bad = append(bad, badInput(w)...)
		}
	}
	for _, w := range all {
		if !w.Base {
			one(&request{Witness: w})
		}
	}
	logged, err := c.replayed()
	if err != nil {
		return nil, err
	}
	for _, r := range logged {
		one(r)
	}
	var derived [][]*request // of each base
	for _, b := range bases {
		list := variants(b.r, b.a)
		derived = append(derived, slices.DeleteFunc(slices.Clone(list), func(r *request) bool { return r.script == scriptGarbage }))
		for _, r := range list {
			if r.script == scriptGarbage {
				late = append(late, r)
			}
		}
	}
	for i, left := 0, true; left; i++ { // each block gets its share of the time
		left = false
		for _, list := range derived {
			if i < len(list) {
				one(list[i])
				left = true
			}
		}
	}
	for _, r := range append(bad, late...) { // what may lead to another state
		one(r)
	}
	return answers, ctx.Err()
}

// harmless says that a request asks for something, and no more.
func (r *request) harmless() bool {
	text := r.wire()
	return (strings.HasPrefix(text, "GET ") || strings.HasPrefix(text, "HEAD ")) && strings.HasSuffix(text, "\r\n\r\n") && r.what != whatTwo
}

// again asks another server the first n of what was asked.
func (c *comparison) again(ctx context.Context, n int, until time.Time) ([]*answer, error) {
	var answers []*answer
	for _, r := range c.requests[:n] {
		if ctx.Err() != nil || time.Now().After(until) {
			break
		}
		answers = append(answers, c.ask(r))
	}
	return answers, ctx.Err()
}
