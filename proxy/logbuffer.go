package proxy

import (
	"bytes"
	"compress/gzip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Where the lines of access logs go: files with and without a buffer, and files
// whose names have variables.

// logSink is a file as one generation writes to it. A buffer belongs to the
// file: every access_log of the generation with the same path goes through it,
// as in nginx.
type logSink struct {
	file   *logFile
	buffer *logBuffer
}

// write writes a line or puts it into the buffer.
func (s *logSink) write(x *Exchange, p []byte, now int64) {
	var err error
	if s.buffer != nil {
		err = s.buffer.write(p, now)
	} else {
		err = s.file.write(p, now)
	}
	if err != nil && s.file.mayComplain(now) {
		x.Logf(logAlert, "%s", SystemError("write() to", s.file.path, err))
	}
}

// mayComplain says whether a failed write is to be logged: once a minute.
func (f *logFile) mayComplain(now int64) bool {
	last := f.complaint.Load()
	return now-last >= int64(retryAfter/time.Second) && f.complaint.CompareAndSwap(last, now)
}

// bufferOptions are what access_log says about its buffer.
type bufferOptions struct {
	size  int64
	flush time.Duration // 0: only when full and at the end
	gzip  int           // level; 0: not compressed
}

// logBuffer gathers lines for one write. Safe for concurrent use.
type logBuffer struct {
	options bufferOptions
	file    *logFile

	mu      sync.Mutex
	lines   []byte
	timer   *time.Timer // runs while there is something to flush
	pending bool
	packed  bytes.Buffer
	gzip    *gzip.Writer
}

func newLogBuffer(f *logFile, o bufferOptions) *logBuffer {
	return &logBuffer{options: o, file: f}
}

// write adds a line. One that is longer than the buffer goes out by itself.
func (b *logBuffer) write(p []byte, now int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if int64(len(b.lines)+len(p)) > b.options.size {
		err = b.flushLocked(now)
	}
	if int64(len(p)) > b.options.size {
		return b.put(p, now)
	}
	if b.lines == nil {
		b.lines = make([]byte, 0, b.options.size)
	}
	b.lines = append(b.lines, p...)
	b.startTimer()
	return err
}

func (b *logBuffer) startTimer() {
	switch {
	case b.options.flush == 0 || b.pending:
	case b.timer == nil:
		b.pending = true
		b.timer = time.AfterFunc(b.options.flush, b.flush)
	default:
		b.pending = true
		b.timer.Reset(b.options.flush)
	}
}

// flush writes what has come together.
func (b *logBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.flushLocked(time.Now().Unix())
}

func (b *logBuffer) flushLocked(now int64) error {
	if b.pending {
		b.timer.Stop()
		b.pending = false
	}
	if len(b.lines) == 0 {
		return nil
	}
	err := b.put(b.lines, now)
	b.lines = b.lines[:0]
	return err
}

// put writes lines, compressed into a gzip member of their own: a file of
// several members is one that gunzip reads.
func (b *logBuffer) put(p []byte, now int64) error {
	if b.options.gzip == 0 {
		return b.file.write(p, now)
	}
	b.packed.Reset()
	if b.gzip == nil {
		b.gzip, _ = gzip.NewWriterLevel(&b.packed, b.options.gzip) // the level was checked
	} else {
		b.gzip.Reset(&b.packed)
	}
	_, _ = b.gzip.Write(p) // into memory
	_ = b.gzip.Close()
	return b.file.write(b.packed.Bytes(), now)
}

// logFile gives the file of a path; it is opened when the configuration has
// been read.
func (c *compiler) logFile(path string) *logFile {
	if s := c.table.logs[path]; s != nil {
		return s.file
	}
	f := c.opts.logs.get(path)
	c.table.logs[path] = &logSink{file: f}
	c.table.logPaths = append(c.table.logPaths, path)
	return f
}

// sink gives the file as this generation writes to it.
func (c *compiler) sink(f *logFile) *logSink { return c.table.logs[f.path] }

// openLogs opens the log files in the order in which they were named, once
// everything else is found right (ngx_init_cycle).
func (c *compiler) openLogs() {
	logs := &c.opts.logs
	if c.opts.DryRun || c.opts.NoLogs || c.errors > 0 {
		return
	}
	for _, path := range c.table.logPaths {
		sink := c.table.logs[path]
		if err := logs.open(sink.file); err != nil {
			c.failAtStart("F001", "does the folder exist, and may it be written to?",
				"%s", SystemError("open()", path, err))
			return
		}
		logs.attach(sink)
		c.table.onClose(func() { logs.detach(sink) })
	}
}

// attach lets the buffer of a sink be flushed when logs are reopened.
func (s *logs) attach(sink *logSink) {
	if sink.buffer == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sink.file.buffers = append(sink.file.buffers, sink.buffer)
}

// detach ends a generation's part in a file.
func (s *logs) detach(sink *logSink) {
	if sink.buffer != nil {
		sink.buffer.flush()
		s.mu.Lock()
		kept := sink.file.buffers[:0]
		for _, b := range sink.file.buffers {
			if b != sink.buffer {
				kept = append(kept, b)
			}
		}
		sink.file.buffers = kept
		s.mu.Unlock()
	}
	s.release(sink.file)
}

// writeNamed writes a line to a file whose name has variables
// (ngx_http_log_script_write). Nothing is logged under a root that does not
// exist, so that clients cannot make folders' worth of files by host names.
func (c *logConf) writeNamed(x *Exchange, path *Value, b *line, now time.Time) {
	root := x.documentRoot()
	var st unix.Stat_t
	if err := unix.Stat(string(root), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err == nil {
			err = unix.ENOTDIR
		}
		x.Logf(logError, "%s", errorWithCode("testing \""+string(root)+"\" existence failed", err))
		return
	}
	name := string(path.Bytes(x)) // below the prefix: that was added when it was read
	// Unlike nginx, a name that a client makes climb out of its folder is not
	// opened.
	if leavesRoot([]byte(name)) {
		x.Logf(logCrit, "unsafe log name %q", name)
		return
	}
	if err := c.cache.write(name, b.buf, now); err != nil {
		x.Logf(logCrit, "%s", err)
	}
}

// logCacheOptions are what open_log_file_cache says.
type logCacheOptions struct {
	max, minUses    int
	inactive, valid time.Duration
}

// logCache keeps files open whose names have variables. A nil one keeps none.
type logCache struct {
	options logCacheOptions
	mu      sync.Mutex
	entries map[string]*logEntry
	closed  bool
}

type logEntry struct {
	file    *os.File // nil: not used often enough yet
	info    os.FileInfo
	used    time.Time
	checked time.Time
	uses    int
}

func newLogCache(o logCacheOptions) *logCache {
	return &logCache{options: o, entries: map[string]*logEntry{}}
}

// write appends to a file by its name.
func (c *logCache) write(path string, p []byte, now time.Time) error {
	if c == nil {
		return appendOnce(path, p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	file, stays, err := c.open(path, now)
	if err != nil {
		return err
	}
	if !stays {
		defer file.Close()
	}
	if _, err := file.Write(p); err != nil {
		return SystemError("write() to", path, err)
	}
	return nil
}

// appendOnce opens a file for one write.
func appendOnce(path string, p []byte) error {
	f, err := appendTo(path)
	if err != nil {
		return SystemError("open()", path, err)
	}
	defer f.Close()
	if _, err := f.Write(p); err != nil {
		return SystemError("write() to", path, err)
	}
	return nil
}

// open gives the file of a name, and says whether it stays open: not if it is
// not used often enough. What cannot be opened takes nobody's place.
func (c *logCache) open(path string, now time.Time) (file *os.File, stays bool, err error) {
	c.expire(now)
	e := c.entries[path]
	if e != nil {
		e.used = now
		e.uses++
		if e.file != nil && now.Sub(e.checked) >= c.options.valid {
			e.check(path, now)
		}
		if e.file != nil {
			return e.file, true, nil
		}
	}
	if file, err = appendTo(path); err != nil {
		return nil, false, SystemError("open()", path, err)
	}
	if e == nil {
		if len(c.entries) >= c.options.max {
			c.dropOldest()
		}
		e = &logEntry{used: now, uses: 1}
		c.entries[path] = e
	}
	if e.uses < c.options.minUses || c.closed {
		return file, false, nil
	}
	e.file, e.checked = file, now
	e.info, _ = file.Stat()
	return file, true, nil
}

// check gives up a file that has been renamed or removed.
func (e *logEntry) check(path string, now time.Time) {
	e.checked = now
	if info, err := os.Stat(path); err != nil || e.info == nil || !os.SameFile(info, e.info) {
		_ = e.file.Close()
		e.file = nil
	}
}

// expire closes what has not been used for the time of inactive.
func (c *logCache) expire(now time.Time) {
	for path, e := range c.entries {
		if now.Sub(e.used) > c.options.inactive {
			c.drop(path, e)
		}
	}
}

func (c *logCache) dropOldest() {
	oldest := ""
	for path, e := range c.entries {
		if oldest == "" || e.used.Before(c.entries[oldest].used) {
			oldest = path
		}
	}
	if oldest != "" {
		c.drop(oldest, c.entries[oldest])
	}
}

func (c *logCache) drop(path string, e *logEntry) {
	if e.file != nil {
		_ = e.file.Close()
	}
	delete(c.entries, path)
}

func (c *logCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for path, e := range c.entries {
		c.drop(path, e)
	}
}
