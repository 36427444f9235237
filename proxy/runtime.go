package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/http2"
	"proxyctl/proxy/sock"
)

// Runtime is the serving process: its sockets, its connections, and the one
// pointer to the configuration that counts. Its methods may be called from any
// goroutine.
type Runtime struct {
	opts    *Options
	sweeper *sock.Sweeper
	table   atomic.Pointer[Table]
	closing atomic.Bool
	clients clientSet
	uids    uidSource
	// sessions are those of TLS, kept across generations.
	sessions sessionZones
	workers  http2.Workers

	mu     sync.Mutex // one Start, Reload, Pause, Shutdown or Stop at a time
	bound  map[string]*boundSocket
	paused context.CancelFunc // ends the wait for the last connection; nil while serving
	heir   atomic.Bool        // another process has the sockets too and keeps their files
	rights *rights            // what DropRights has left; nil before
	ended  bool
}

// NewRuntime makes a runtime that does not serve yet. Until it does, messages
// at warn and above go to the console as well.
func NewRuntime(o *Options) *Runtime {
	o.logs.program = o.Product.Name
	o.logs.console.Store(cmp.Or(o.Console, os.Stderr))
	o.openEarlyLog()
	return &Runtime{opts: o, sweeper: sock.NewSweeper(), bound: map[string]*boundSocket{}}
}

// acquire takes part in the table that counts now; the caller releases it.
func (r *Runtime) acquire() *Table {
	for {
		if t := r.table.Load(); t.acquire() {
			return t
		}
	}
}

// Logf logs a message of the process.
func (r *Runtime) Logf(level LogLevel, format string, a ...any) {
	if t := r.table.Load(); t != nil {
		t.Main.ErrorLog.logf(level, format, a...)
		return
	}
	r.opts.logs.earlyLog().logf(level, format, a...)
}

// Note logs what the console is told by somebody else.
func (r *Runtime) Note(level LogLevel, err error) {
	log := r.opts.logs.earlyLog()
	if t := r.table.Load(); t != nil {
		log = t.Main.ErrorLog
	}
	log.quiet(level, err.Error())
}

// Start binds every address of t and serves.
func (r *Runtime) Start(t *Table) error {
	if err := r.Bind(t); err != nil {
		return err
	}
	r.Serve()
	return nil
}

// Bind listens on every address of t: connections wait for Serve. The error
// says what could not be bound; nothing is bound then, and the error log has it
// already. The table belongs to the runtime from here on.
func (r *Runtime) Bind(t *Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table.Load() != nil || r.ended {
		return errors.New("the server has been started before")
	}
	log := t.Main.ErrorLog
	r.setLimits(&t.Main, log)
	opened, err := r.openAll(t, log)
	if err != nil {
		if in := new(InUse); errors.As(err, &in) { // each try has been logged
			err = &InUse{in.Address, "still could not bind()"}
		}
		log.quiet(logEmerg, err.Error())
		t.release()
		return err
	}
	t.makeTempFolders()
	if r.opts.UpdateCertificates != nil {
		r.opts.UpdateCertificates(t.certSites(), t.challengePorts())
	}
	log.logf(logNotice, "%s/%s", r.opts.Product.Name, r.opts.Product.Version)
	r.opts.inherited.closeRest(log)
	r.table.Store(t)
	t.begin()
	for _, b := range opened {
		r.bound[b.key] = b
	}
	return nil
}

// Serve accepts connections after Bind.
func (r *Runtime) Serve() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resume()
	r.Logf(logNotice, "start worker processes")
	r.opts.logs.serving()
	r.table.Load().Main.ErrorLog.takeCrashes()
}

// Reload serves t instead of the present table. Addresses that stay are kept
// open; requests in flight end under the table they began with. On an error
// everything is as before.
func (r *Runtime) Reload(t *Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.table.Load()
	if old == nil || r.ended {
		t.release()
		return errors.New("the server does not run")
	}
	old.Main.ErrorLog.logf(logNotice, "reconfiguring")
	if err := r.sameRights(&t.Main); err != nil {
		t.release()
		return err
	}
	err := t.inheritLimits(old)
	if err == nil {
		err = t.checkCaches(old)
	}
	if err != nil {
		old.Main.ErrorLog.logf(logEmerg, "%v", err)
		t.release()
		return err
	}
	var opened []*boundSocket
	err = r.asRoot(&old.Main, func() error {
		var err error
		opened, err = r.openAll(t, old.Main.ErrorLog)
		if err == nil {
			t.makeTempFolders()
		}
		return err
	})
	if err != nil {
		t.release()
		return err
	}
	if r.opts.UpdateCertificates != nil {
		r.opts.UpdateCertificates(t.certSites(), t.challengePorts())
	}
	pid := os.Getpid()
	old.onClose(func() {
		// The process that ends a generation in nginx is one of its workers.
		r.Logf(logNotice, "worker process %d exited with code 0", pid)
	})
	t.inheritUpstreams(old)
	t.inheritCaches(old)
	r.table.Store(t)
	t.begin()
	for _, b := range opened {
		r.bound[b.key] = b
	}
	r.closeVanished(t)
	r.sessions.retain(t)
	r.resume()
	r.clients.each(func(c *client) {
		if c.life.bound.Load() {
			c.retire()
		}
	})
	t.Main.setEnv()
	t.Main.ErrorLog.takeCrashes()
	r.drainWithin(old.Main.WorkerShutdownTimeout, func(c *client) bool { return c.life.table.Load() == old })
	old.release()
	return nil
}

// openAll binds the sockets of t that are not bound yet, all or none of them,
// and tells the others whom they now serve.
func (r *Runtime) openAll(t *Table, log *errorLog) ([]*boundSocket, error) {
	var missing []*socket
	named := map[string]bool{}
	for _, s := range t.sockets {
		if named[s.key()] { // by the http block and by that of stream
			err := &InUse{s.address, errorWithCode("bind() to "+s.fallback.address+" failed", unix.EADDRINUSE).Error()}
			log.logf(logEmerg, "%v", err)
			return nil, err
		}
		named[s.key()] = true
		if r.bound[s.key()] == nil {
			missing = append(missing, s)
		}
	}
	opened, err := bindAll(missing, t, log)
	if err != nil {
		return nil, err
	}
	for _, b := range opened {
		b.first.bound = b
		b.binding.Store(&binding{t, b.first})
	}
	for _, s := range t.sockets {
		if b := r.bound[s.key()]; b != nil {
			b.renew(s, &t.Main, log)
			s.bound = b
			b.binding.Store(&binding{t, s})
		}
	}
	return opened, nil
}

// closeVanished closes the sockets that t does not name, and the connections
// that came in by them once they are idle.
func (r *Runtime) closeVanished(t *Table) {
	for key, b := range r.bound {
		if slices.ContainsFunc(t.sockets, func(s *socket) bool { return s.key() == key }) {
			continue
		}
		delete(r.bound, key)
		b.close()
		if b.path != "" && !b.lasts {
			t.Main.ErrorLog.logf(logWarn, "deleting socket %s", b.path)
			b.remove()
		}
		r.clients.each(func(c *client) {
			if c.socket == b {
				c.life.end(false)
			}
		})
	}
}

// drainWithin ends what still belongs to an old generation when its
// worker_shutdown_timeout is over: requests, and connections that have not
// asked for anything since.
func (r *Runtime) drainWithin(limit time.Duration, old func(*client) bool) {
	if limit <= 0 {
		return
	}
	time.AfterFunc(limit, func() {
		r.clients.each(func(c *client) {
			if old(c) {
				c.life.end(true)
			}
		})
	})
}

// Shutdown ends gracefully: no new connections, idle ones are closed, requests
// in flight end, within worker_shutdown_timeout or until ctx is done.
func (r *Runtime) Shutdown(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if t == nil || r.ended {
		return
	}
	t.Main.ErrorLog.logf(logNotice, "gracefully shutting down")
	if limit := t.Main.WorkerShutdownTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	r.closeSockets()
	r.clients.each((*client).retire)
	r.clients.wait(ctx)
	r.end(t)
}

// Stop ends at once: connections are closed in the middle of requests.
func (r *Runtime) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.table.Load(); t != nil && !r.ended {
		r.closeSockets()
		r.end(t)
	}
}

// closeSockets closes all sockets. The files of unix sockets stay when another
// process listens on them: the heir of this one, or the one that this one was
// to replace and that still runs.
func (r *Runtime) closeSockets() {
	r.closing.Store(true)
	h := &r.opts.inherited
	_ = r.AsRoot(func() error {
		for key, b := range r.bound {
			delete(r.bound, key)
			b.close()
			if theirs := r.heir.Load() || b.inherited && os.Getppid() == h.parent; !theirs {
				b.remove()
			}
		}
		return nil
	})
}

// stopTime is how long connections may take to notice that they were closed.
const stopTime = 2 * time.Second

// end closes what is left and flushes the logs.
func (r *Runtime) end(t *Table) {
	r.ended = true
	r.clients.each(func(c *client) { c.life.end(true) })
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	r.clients.wait(ctx)
	r.sweeper.Stop()
	t.Main.ErrorLog.logf(logNotice, "exiting")
	t.Main.ErrorLog.logf(logNotice, "exit")
	r.opts.logs.flush()
	t.release()
}

// ReopenLogs opens all log files anew under their names.
func (r *Runtime) ReopenLogs() {
	t := r.table.Load()
	if t == nil {
		return
	}
	r.Logf(logNotice, "reopening logs")
	if err := r.asRoot(&t.Main, func() error { return r.opts.logs.reopen(&t.Main) }); err != nil {
		r.Logf(logEmerg, "%v", err)
	}
	t.Main.ErrorLog.takeCrashes()
}

// setLimits applies what the main level says about the process itself. What
// cannot be done is logged, as nginx does, and does not keep it from serving.
func (r *Runtime) setLimits(m *mainConf, log *errorLog) {
	limit := func(name string, which int, n int64) {
		if n < 0 {
			return
		}
		to := unix.Rlimit{Cur: uint64(n), Max: uint64(n)}
		if err := unix.Setrlimit(which, &to); err != nil {
			log.logf(logAlert, "%v", errorWithCode(fmt.Sprintf("setrlimit(%s, %d) failed", name, n), err))
		}
	}
	limit("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, int64(m.RlimitNofile))
	limit("RLIMIT_CORE", unix.RLIMIT_CORE, m.RlimitCore)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && uint64(m.WorkerConnections) > files.Cur {
		log.logf(logWarn, "%d worker_connections exceed open file resource limit: %d", m.WorkerConnections, files.Cur)
	}
	if m.WorkerPriority != 0 {
		setPriority(m.WorkerPriority, log)
	}
	m.setEnv()
	// Relative paths begin where the process began, as those of nginx's master do.
	if m.WorkingDirectory != "" && filepath.IsAbs(r.opts.Prefix) {
		if err := os.Chdir(m.WorkingDirectory); err != nil {
			log.logf(logAlert, "%v", errorWithCode(fmt.Sprintf("chdir(\"%s\") failed", m.WorkingDirectory), err))
		}
	}
}

// setEnv sets what the env directives give a value to, for the binary that may
// replace this one.
func (m *mainConf) setEnv() {
	for _, v := range m.Env {
		if name, value, ok := strings.Cut(v, "="); ok {
			_ = os.Setenv(name, value)
		}
	}
}

// Stats are the counters of connections and requests (ngx_http_stub_status).
type Stats struct {
	Accepted, Handled, Requests       int64
	Active, Reading, Writing, Waiting int64
}

// Stats counts what is going on.
func (r *Runtime) Stats() Stats { return r.clients.stats() }

// newClient makes the client of an accepted connection; nil when nothing
// listens for it any more.
func (r *Runtime) newClient(b *boundSocket, nc net.Conn) *client {
	at := b.binding.Load()
	c := &client{rt: r, conn: nc, socket: b, table: at.table, began: time.Now(), life: new(life)}
	c.life.table.Store(at.table)
	c.id = r.clients.accepted.Add(1)
	if at.socket.network == "unix" {
		c.unix, c.peerName = at.socket.path, "unix:"
		c.endpoint = at.socket.fallback
		return c
	}
	c.remote, c.local = addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr())
	c.peerName = c.remote.Addr().String()
	c.endpoint = at.socket.endpoint(c.local.Addr())
	return c
}
