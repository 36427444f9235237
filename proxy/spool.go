package proxy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Answers that wait for their client: as long as the client takes an answer as
// fast as it comes, it is read and written in turn. When a write does not come
// back, a reader goes on with the server's side alone, into memory and then
// into a file, so that the server is free soon (ngx_event_pipe.c).

// spoolFrom is from which size an answer may be too much for a client's socket.
const spoolFrom = 64 << 10

// spoolPatience is how long a write may take before the reader starts.
const spoolPatience = 20 * time.Millisecond

// spool is an answer on its way. The exchange's goroutine writes, and reads as
// long as there is no reader.
type spool struct {
	x     *Exchange
	c     *upstreamConf
	rate  limiter
	timer *time.Timer

	mu      sync.Mutex
	changed sync.Cond
	armed   bool // a write is going on; the reader may start
	reading bool // the reader has the server's side
	stopped bool // the client's side failed
	ended   bool // the reader is done
	err     error
	memory  [][]byte // not yet written, in order; before what is in the file
	size    int64    // of memory
	file    *os.File
	path    string
	fault   error // of the file, which is not used then
	in, out int64 // bytes put into the file and taken out of it

	store keptAnswer // of an answer that is kept: the file to put bytes into
}

// keptAnswer is the file of an answer that is kept in a cache, or stored.
type keptAnswer interface {
	io.Writer
	io.ReaderAt
	Size() int64
}

// spoolAnswer passes a large body on.
func (x *Exchange) spoolAnswer(rate limiter) Code {
	s := &spool{x: x, c: x.upstream.conf, rate: rate}
	switch u := &x.upstream; {
	case u.stored != nil:
		s.store = u.stored
	case u.cache != nil && u.cache.writer != nil:
		s.store = u.cache.writer
	}
	if x.headerOnly {
		return s.storeRest(Done)
	}
	s.changed.L = &s.mu
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	for {
		n, err := s.read(*pooled)
		if err != nil && !errors.Is(err, io.EOF) {
			return x.bodyBroken(err)
		}
		last := err != nil
		if last {
			x.endAnswer()
		} else {
			s.arm()
		}
		werr := x.WriteBody((*pooled)[:n], last)
		if last {
			return s.finish(werr)
		}
		if s.disarm() {
			return s.drain(werr)
		}
		if werr != nil {
			return s.storeRest(Abort)
		}
	}
}

// storeRest reads on for the cache alone, and returns code.
func (s *spool) storeRest(code Code) Code {
	if s.store == nil {
		return code
	}
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	for {
		_, err := s.read(*pooled)
		if errors.Is(err, io.EOF) {
			s.x.endAnswer()
			return code
		}
		if err != nil && s.x.isMethod("HEAD") && s.x.upstream.state().length == 0 { // no body, as it should be
			return code
		}
		if err != nil {
			return s.x.bodyBroken(err)
		}
	}
}

func (s *spool) finish(err error) Code {
	if err != nil {
		return Abort
	}
	return Done
}

// read takes the next piece from the server.
func (s *spool) read(buf []byte) (int, error) {
	if s.rate.bytes > 0 {
		buf = buf[:min(s.rate.wait(math.MaxInt), len(buf))]
	}
	n, err := s.x.upstream.conn.ReadBody(buf)
	s.rate.count(n)
	s.x.upstream.state().length += int64(n)
	if s.store != nil && n > 0 {
		if _, werr := s.store.Write(buf[:n]); werr != nil && s.fault == nil {
			s.fault = werr
			s.x.Logf(logCrit, "the answer is not kept: %v", werr)
		}
	}
	return n, err
}

// arm lets the reader start if the coming write takes too long.
func (s *spool) arm() {
	s.mu.Lock()
	s.armed = true
	s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(spoolPatience, s.run)
	} else {
		s.timer.Reset(spoolPatience)
	}
}

// disarm says after a write whether the reader has started.
func (s *spool) disarm() bool {
	s.timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	return s.reading
}

// run is the reader.
func (s *spool) run() {
	s.mu.Lock()
	if !s.armed || s.reading {
		s.mu.Unlock()
		return
	}
	s.reading = true
	if s.store != nil {
		s.in = s.store.Size()
		s.out = s.in
	}
	s.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := s.read(buf)
		if n > 0 && !s.put(buf[:n]) {
			err = errors.New("stopped")
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// end notes that the reader is done, and lets the server go.
func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, io.EOF) {
		s.x.endAnswer()
	}
	s.ended, s.err = true, err
	s.changed.Broadcast()
}

// put stores a piece, and waits when there is no room. False when nobody wants
// it any more.
func (s *spool) put(p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil { // it is there already, and wanted even if the client is gone
		s.in += int64(len(p))
		s.changed.Broadcast()
		return s.fault == nil
	}
	memory := int64(s.c.buffers.Number) * s.c.buffers.Size
	for !s.stopped {
		if s.file == nil && s.size+int64(len(p)) <= max(memory, int64(len(p))) {
			s.memory = append(s.memory, append([]byte(nil), p...))
			s.size += int64(len(p))
			s.changed.Broadcast()
			return true
		}
		if s.fault == nil && s.in+int64(len(p)) <= s.c.maxTempSize && s.putFile(p) {
			s.changed.Broadcast()
			return true
		}
		s.changed.Wait()
	}
	return false
}

// putFile appends to the file. When that fails, memory has to do.
func (s *spool) putFile(p []byte) bool {
	if s.file == nil {
		f, path, err := s.c.tempPath.create(true)
		if err != nil {
			s.fault = err
			return false
		}
		s.file, s.path = f, path
	}
	n, err := s.file.WriteAt(p, s.in)
	if err != nil {
		s.fault = SystemError("pwrite()", s.path, err)
		return false
	}
	s.in += int64(n)
	return true
}

// drain writes what the reader brings, until the end.
func (s *spool) drain(err error) Code {
	x := s.x
	warned := false
	buf := make([]byte, 32<<10)
	for err == nil {
		p, last, readErr := s.take(buf)
		if readErr != nil {
			s.close()
			return x.bodyBroken(readErr)
		}
		if !warned {
			warned = s.logFile()
		}
		err = x.WriteBody(p, last)
		if last {
			s.close()
			return s.finish(err)
		}
	}
	if !warned {
		s.logFile()
	}
	s.close()
	return Abort
}

// logFile tells about the file, once it is used.
func (s *spool) logFile() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.store != nil:
	case s.fault != nil:
		s.x.Logf(logCrit, "%s while reading upstream", s.fault)
	case s.file != nil:
		s.x.Logf(logWarn, "an upstream response is buffered to a temporary file %s while reading upstream", s.path)
	default:
		return false
	}
	return true
}

// take waits for the next piece; last comes with an empty one.
func (s *spool) take(buf []byte) (p []byte, last bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case len(s.memory) > 0:
			p, s.memory = s.memory[0], s.memory[1:]
			s.size -= int64(len(p))
			s.changed.Broadcast()
			return p, false, nil
		case s.out < s.in:
			var from io.ReaderAt = s.file
			if s.store != nil {
				from = s.store
			}
			n, err := from.ReadAt(buf[:min(int64(len(buf)), s.in-s.out)], s.out)
			if n == 0 {
				return nil, false, fmt.Errorf("temporary file: %w", err)
			}
			if s.out += int64(n); s.out == s.in && s.store == nil { // begin again at the start of the file
				s.in, s.out = 0, 0
			}
			s.changed.Broadcast()
			return buf[:n], false, nil
		case s.ended && errors.Is(s.err, io.EOF):
			return nil, true, nil
		case s.ended:
			return nil, false, s.err
		}
		s.changed.Wait()
	}
}

// close ends the reader, and waits for it.
func (s *spool) close() {
	s.mu.Lock()
	s.stopped = true
	if !s.ended && s.store == nil {
		s.x.upstream.conn.Abort()
	}
	s.changed.Broadcast()
	for !s.ended {
		s.changed.Wait()
	}
	s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close()
	}
}

// Temporary files of bodies in both directions.

// makeTempFolders makes the folders for temporary files, and gives them to the
// account that requests are served with: later only root could. Unlike nginx,
// which does not start then, a failure is only told about, and a folder that is
// missing is made when it is needed.
func (t *Table) makeTempFolders() {
	if os.Geteuid() != 0 || t.Main.UID < 0 {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(t.temps)) {
		_ = os.MkdirAll(filepath.Dir(path), 0o755) // #nosec G301 -- as packages make it; what is wrong the next line tells
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Main.ErrorLog.logf(logError, "%s", SystemError("mkdir()", path, err))
			continue
		}
		if err := os.Chown(path, t.Main.UID, -1); err != nil {
			t.Main.ErrorLog.logf(logError, "%s", SystemError("chown()", path, err))
		}
	}
}

// create opens a new file in the folder, which it makes when it is missing:
// nginx makes it when it starts. unlink removes the name at once, so that
// nothing is left behind whatever happens.
func (p tempPath) create(unlink bool) (*os.File, string, error) {
	for range 100 {
		name := p.name(rand.Uint64N(1e10))
		open := func() (*os.File, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) }
		f, err := open()
		if errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return nil, name, SystemError("mkdir()", filepath.Dir(name), err)
			}
			f, err = open()
		}
		switch {
		case err == nil:
			if unlink {
				_ = os.Remove(name)
			}
			return f, name, nil
		case errors.Is(err, fs.ErrExist):
		default:
			return nil, name, SystemError("open()", name, err)
		}
	}
	return nil, p.path, fmt.Errorf("no free name for a temporary file in %q", p.path)
}

// tempNameSize is the number of digits in the name of a temporary file.
const tempNameSize = 10

// name gives the path of file number n: ten digits, below folders named after
// the last of them (ngx_create_hashed_filename).
func (p tempPath) name(n uint64) string {
	file := fmt.Sprintf("%0*d", tempNameSize, n)
	path, end := p.path, len(file)
	for _, level := range p.levels {
		path = filepath.Join(path, file[end-level:end])
		end -= level
	}
	return filepath.Join(path, file)
}
