package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"proxyctl/parser"
)

// Log files. One file is opened once, whatever number of directives, levels
// and generations name it; it is closed when the last of them is gone.

// logs are the open log files of the process, by path, and the clock whose
// times stand in their lines.
type logs struct {
	mu    sync.Mutex
	files map[string]*logFile
	clock logClock
	// early is the log of what happens before a configuration counts.
	early  atomic.Pointer[logFile]
	served atomic.Bool
	// console is where messages go too until the server serves, behind the name
	// of the program; nil afterwards.
	console atomic.Pointer[os.File]
	program string
}

// logFile is a file that lines are appended to. Safe for concurrent use.
type logFile struct {
	path string // "" for standard error
	file atomic.Pointer[os.File]

	// under logs.mu
	refs    int
	buffers []*logBuffer

	full      atomic.Int64 // the second in which the disk was found full
	complaint atomic.Int64 // the second in which a failed write was last logged
}

// get returns the file of a path without opening it.
func (s *logs) get(path string) *logFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[path]
	if f == nil {
		f = &logFile{path: path}
		if path == "" {
			f.file.Store(os.Stderr)
		}
		if s.files == nil {
			s.files = map[string]*logFile{}
		}
		s.files[path] = f
	}
	return f
}

// open takes part in a file, which is opened if nobody has it open yet.
func (s *logs) open(f *logFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.file.Load() == nil {
		file, err := appendTo(f.path)
		if err != nil {
			return err
		}
		f.file.Store(file)
	}
	f.refs++
	s.files[f.path] = f // it may have been forgotten between get and open
	return nil
}

// release gives a file back; the last one closes it.
func (s *logs) release(f *logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.refs--; f.refs > 0 {
		return
	}
	if s.files[f.path] == f {
		delete(s.files, f.path)
	}
	if f.path != "" {
		if file := f.file.Swap(nil); file != nil {
			_ = file.Close()
		}
	}
}

// forget drops the files that nobody has opened: those of configurations that
// were refused.
func (s *logs) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, f := range s.files {
		if f.refs == 0 {
			delete(s.files, path)
			if file := f.file.Swap(nil); file != nil && path != "" {
				_ = file.Close()
			}
		}
	}
}

// reopen opens every file anew under its path, so that renamed ones end
// (ngx_reopen_files). A file that cannot be opened is kept as it is. New files
// belong to the account that the server runs as.
func (s *logs) reopen(m *mainConf) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed []error
	for _, f := range s.sorted() {
		for _, b := range f.buffers {
			b.flush()
		}
		if f.path == "" || f.refs == 0 {
			continue
		}
		file, err := appendTo(f.path)
		if err != nil {
			failed = append(failed, SystemError("open()", f.path, err))
			continue
		}
		if m.UID > 0 {
			_ = file.Chown(m.UID, -1) // not for pipes and the like
		}
		if old := f.file.Swap(file); old != nil {
			_ = old.Close()
		}
	}
	return errors.Join(failed...)
}

// flush writes what the buffers hold.
func (s *logs) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		for _, b := range f.buffers {
			b.flush()
		}
	}
}

// openEarlyLog opens the error log that counts before a configuration does. It
// exists even when the configuration is refused.
func (o *Options) openEarlyLog() {
	s := &o.logs
	if o.DryRun || s.early.Load() != nil || s.served.Load() {
		return
	}
	path := o.errorLogPath()
	f := s.get(path)
	if err := s.open(f); err != nil {
		fmt.Fprintf(cmp.Or(o.Console, os.Stderr), "%s: [alert] could not open error log file: %v\n", o.Product.Name, SystemError("open()", path, err))
		f = s.get("")
		_ = s.open(f)
	}
	s.early.Store(f)
}

// note writes what was found in a configuration to the log of the time before
// one counts: warnings, and the first error.
func (s *logs) note(diags []*parser.Diagnostic) {
	e := s.earlyLog()
	for _, d := range diags {
		level := logEmerg
		switch d.Severity {
		case parser.Warning:
			level = logWarn
		case parser.Note:
			continue
		case parser.Error:
		}
		text := d.Message
		if !d.At.IsZero() {
			text += fmt.Sprintf(" in %s:%d", d.At.Source.Name, d.At.Line())
		}
		e.quiet(level, text)
		if level == logEmerg {
			return
		}
	}
}

// errorLogPath is the path of the error log that nobody has named; "" is
// standard error.
func (o *Options) errorLogPath() string {
	if o.ErrorLog == "" || o.ErrorLog == "stderr" {
		return ""
	}
	return o.prefixed(o.ErrorLog)
}

// earlyLog is the error log of the time before a configuration counts.
func (s *logs) earlyLog() *errorLog {
	e := &errorLog{logs: s}
	if f := s.early.Load(); f != nil {
		e.add(logTarget{level: logNotice, file: f})
	}
	return e
}

// serving ends that time: messages no longer go to standard error as well.
func (s *logs) serving() {
	s.served.Store(true)
	s.console.Store(nil)
	if f := s.early.Swap(nil); f != nil {
		s.release(f)
	}
}

// takeCrashes has the Go runtime write what it says of a crash to the error
// log as well: standard error of a daemon leads nowhere.
func (e *errorLog) takeCrashes() {
	for i := range e.targets {
		if f := e.targets[i].file; f != nil && f.path != "" {
			if file := f.file.Load(); file != nil {
				_ = debug.SetCrashOutput(file, debug.CrashOptions{})
			}
			return
		}
	}
}

func (s *logs) sorted() []*logFile {
	out := make([]*logFile, 0, len(s.files))
	for _, f := range s.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *logFile) int { return cmp.Compare(a.path, b.path) })
	return out
}

// appendTo opens a file as nginx opens its logs.
func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// write appends one or more whole lines by one write. While the disk is full
// nothing is tried for the rest of the second, as nginx does.
func (f *logFile) write(p []byte, now int64) error {
	if f.full.Load() == now {
		return nil
	}
	for {
		file := f.file.Load()
		if file == nil {
			return nil
		}
		_, err := file.Write(p)
		if errors.Is(err, fs.ErrClosed) && f.file.Load() != file {
			continue // reopened in between
		}
		if errors.Is(err, syscall.ENOSPC) {
			f.full.Store(now)
		}
		return err
	}
}

// logClock makes the texts of the current second once.
type logClock struct{ now atomic.Pointer[logTimes] }

// logTimes are one second's texts.
type logTimes struct {
	second int64
	error  string // 2006/01/02 15:04:05
	access string // 02/Jan/2006:15:04:05 -0700
	iso    string // 2006-01-02T15:04:05-07:00
	syslog string // Jan  2 15:04:05
}

// at gives the texts of a time.
func (c *logClock) at(t time.Time) *logTimes {
	second := t.Unix()
	if n := c.now.Load(); n != nil && n.second == second {
		return n
	}
	local := t.Local()
	n := &logTimes{
		second: second,
		error:  local.Format("2006/01/02 15:04:05"),
		access: local.Format("02/Jan/2006:15:04:05 -0700"),
		iso:    local.Format("2006-01-02T15:04:05-07:00"),
		syslog: local.Format("Jan _2 15:04:05"),
	}
	c.now.Store(n)
	return n
}
