package cache

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func testOptions(dir string) Options {
	p := Pace{Files: 100, Threshold: time.Second, Sleep: time.Millisecond}
	return Options{Path: dir, Levels: []int{1, 2}, Entries: 1000, Inactive: time.Hour, Loader: p, Manager: p}
}

func testZone(t *testing.T, change func(o *Options)) *Zone {
	t.Helper()
	o := testOptions(t.TempDir())
	if change != nil {
		change(&o)
	}
	o.Log = func(s Severity, text string) { t.Logf("%d: %s", s, text) }
	return NewZone(o)
}

// look begins a request for an answer; fields are "Name: value".
func look(t *testing.T, z *Zone, key string, fields ...string) *Lookup {
	t.Helper()
	l := z.Lookup([]byte(key))
	l.Room, l.MinUses = 4096, 1
	l.Log = z.opts.Log
	l.Each = func(name []byte, f func([]byte)) {
		for _, field := range fields {
			if n, v, _ := strings.Cut(field, ": "); strings.EqualFold(n, string(name)) {
				f([]byte(v))
			}
		}
	}
	t.Cleanup(l.Close)
	return l
}

// put stores an answer.
func put(t *testing.T, l *Lookup, body string) {
	t.Helper()
	if l.Valid == 0 {
		l.Valid = now() + 60
	}
	w, err := l.Store([]byte("HTTP/1.1 200 OK\r\n\r\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, l *Lookup, o Outcome) {
	t.Helper()
	if got := l.Open(); got != o {
		t.Fatalf("outcome %d, want %d", got, o)
	}
}

func bodyOf(t *testing.T, l *Lookup) string {
	t.Helper()
	f, offset, length := l.Body()
	b := make([]byte, length)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStoreAndFind(t *testing.T) {
	z := testZone(t, nil)
	l := look(t, z, "http://a/b")
	want(t, l, Miss)
	l.ETag, l.LastModified, l.Date = []byte(`"x"`), 17, 18
	put(t, l, "the body")
	l = look(t, z, "http://a/b")
	want(t, l, Hit)
	if bodyOf(t, l) != "the body" || string(l.Head()) != "HTTP/1.1 200 OK\r\n\r\n" || string(l.ETag) != `"x"` || l.LastModified != 17 || l.Date != 18 {
		t.Errorf("%q %q %+v", bodyOf(t, l), l.Head(), l.Meta)
	}
	key := md5.Sum([]byte("http://a/b"))
	digits := hex.EncodeToString(key[:])
	path := filepath.Join(z.opts.Path, digits[31:], digits[29:31], digits)
	b, err := os.ReadFile(path)
	if err != nil || string(b[336:]) != "\nKEY: http://a/b\nHTTP/1.1 200 OK\r\n\r\nthe body" || b[0] != 5 {
		t.Errorf("%q, %v", b, err)
	}
}

// TestVariants: answers that vary have a file for each variant.
func TestVariants(t *testing.T) {
	z := testZone(t, nil)
	ask := func(language string) *Lookup { return look(t, z, "k", "Accept-Language: "+language) }
	l := ask("de")
	want(t, l, Miss)
	l.Vary = []byte("Accept-Language")
	put(t, l, "deutsch")
	l = ask("en, fr")
	want(t, l, Miss)
	l.Vary = []byte("Accept-Language")
	put(t, l, "english")
	for language, body := range map[string]string{"de": "deutsch", "en,fr": "english", "en fr": "english"} {
		l := ask(language)
		want(t, l, Hit)
		if got := bodyOf(t, l); got != body {
			t.Errorf("%s: %q", language, got)
		}
	}
	// what varies no more takes the place of the first
	l = ask("it")
	want(t, l, Miss)
	l.Vary = nil
	put(t, l, "for all")
	l = ask("es")
	want(t, l, Hit)
	if got := bodyOf(t, l); got != "for all" {
		t.Errorf("%q", got)
	}
}

func TestExpiry(t *testing.T) {
	z := testZone(t, nil)
	l := look(t, z, "k")
	want(t, l, Miss)
	l.Valid, l.Updating = now()-1, 60
	put(t, l, "old")
	first, second := look(t, z, "k"), look(t, z, "k")
	want(t, first, Expired)
	want(t, second, Updating)
	if !first.StaleWhileUpdating() || first.StaleIfError() {
		t.Error("stale while updating only")
	}
	first.Close()
	third := look(t, z, "k")
	want(t, third, Expired)
	third.Valid = now() + 10
	if err := third.Confirm(); err != nil {
		t.Fatal(err)
	}
	want(t, look(t, z, "k"), Hit)
}

func TestMinUsesAndFaults(t *testing.T) {
	z := testZone(t, nil)
	z.cold = false
	for _, o := range []Outcome{Scarce, Scarce, Miss} {
		l := look(t, z, "k")
		l.MinUses = 3
		want(t, l, o)
		l.Close()
	}
	l := look(t, z, "f")
	want(t, l, Miss)
	l.Remember(502, now()+60)
	l.Close()
	if l = look(t, z, "f"); l.Open() != Fault || l.Fault() != 502 {
		t.Error("the failure is not remembered")
	}
	l.Close()
	z.entries[l.key].valid = now() - 1
	want(t, look(t, z, "f"), Miss)
}

// TestLock: one fetches, the others wait for what it stores.
func TestLock(t *testing.T) {
	z := testZone(t, nil)
	ask := func() *Lookup {
		l := look(t, z, "k")
		l.Lock, l.LockTimeout, l.LockAge = true, 10*time.Second, 10*time.Second
		return l
	}
	first := ask()
	want(t, first, Miss)
	var waiting sync.WaitGroup
	for range 3 {
		l := ask()
		want(t, l, Busy)
		waiting.Go(func() {
			l.Wait()
			if o := l.Open(); o != Hit {
				t.Errorf("outcome %d", o)
			}
		})
	}
	impatient := ask()
	impatient.LockTimeout = time.Millisecond
	want(t, impatient, Busy)
	impatient.Wait()
	want(t, impatient, Scarce)
	put(t, first, "x")
	waiting.Wait()
}

// TestLockAge: who takes too long loses the lock to another.
func TestLockAge(t *testing.T) {
	z := testZone(t, nil)
	first, second := look(t, z, "k"), look(t, z, "k")
	for _, l := range []*Lookup{first, second} {
		l.Lock, l.LockTimeout, l.LockAge = true, 10*time.Second, 20*time.Millisecond
	}
	want(t, first, Miss)
	for o := second.Open(); o == Busy; o = second.Open() {
		second.Wait()
	}
	first.Close()
	if !z.entries[second.key].updating {
		t.Error("the first has ended the second's lock")
	}
}

func TestRemoval(t *testing.T) {
	z := testZone(t, func(o *Options) { o.Entries = 8 })
	z.cold = false
	for i := range 20 {
		l := look(t, z, fmt.Sprint(i))
		want(t, l, Miss)
		put(t, l, "x")
	}
	files := func() (n int) {
		_ = filepath.WalkDir(z.opts.Path, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return nil
		})
		return n
	}
	if len(z.entries) > 8 || files() != len(z.entries) || z.watermark == 0 {
		t.Errorf("%d entries, %d files", len(z.entries), files())
	}
	z.opts.MaxSize = z.size / 2
	z.shrink(newStretch(z.opts.Manager))
	if z.size >= z.opts.MaxSize || files() != len(z.entries) || files() == 0 {
		t.Errorf("%d bytes of %d, %d entries, %d files", z.size, z.opts.MaxSize, len(z.entries), files())
	}
	held := look(t, z, "19")
	want(t, held, Hit)
	for _, e := range z.entries {
		e.expires = now() - 1
	}
	z.expire(newStretch(z.opts.Manager))
	if len(z.entries) != 1 || files() != 1 {
		t.Errorf("%d entries, %d files are left", len(z.entries), files())
	}
}

// TestLoading: another process finds what is there, and looks at the disk until
// it has.
func TestLoading(t *testing.T) {
	z := testZone(t, nil)
	for i := range 5 {
		l := look(t, z, fmt.Sprint(i))
		want(t, l, Miss)
		put(t, l, "x")
	}
	stranger := filepath.Join(z.opts.Path, "README")
	small := filepath.Join(z.opts.Path, strings.Repeat("a", 32))
	for _, name := range []string{stranger, small} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := NewZone(z.opts)
	want(t, look(t, again, "3"), Hit)
	want(t, look(t, again, "9"), Miss)
	again.Start()
	for range 1000 {
		again.mu.Lock()
		cold := again.cold
		again.mu.Unlock()
		if !cold {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	again.Stop()
	if again.cold || len(again.entries) != 6 || again.size != z.size {
		t.Errorf("cold %v, %d entries, %d bytes of %d", again.cold, len(again.entries), again.size, z.size)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error("what is not the cache's is gone")
	}
	if _, err := os.Stat(small); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a broken file is left")
	}
}

// TestBroken: a file that makes no sense is a miss, and overwritten.
func TestBroken(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"cut":          func(b []byte) []byte { return b[:340] },
		"version":      func(b []byte) []byte { b[0] = 4; return b },
		"key":          func(b []byte) []byte { b[342] ^= 1; return b },
		"vary length":  func(b []byte) []byte { b[187] = 200; return b },
		"head length":  func(b []byte) []byte { b[54], b[55] = 1, 0; return b },
		"body start":   func(b []byte) []byte { b[56], b[57] = 255, 255; return b },
		"body before":  func(b []byte) []byte { b[56], b[57] = 10, 0; return b },
		"etag length":  func(b []byte) []byte { b[58] = 255; return b },
		"almost empty": func(b []byte) []byte { return b[:1] },
	} {
		z := testZone(t, nil)
		l := look(t, z, "k")
		want(t, l, Miss)
		put(t, l, "x")
		b, err := os.ReadFile(l.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.Name(), damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		l = look(t, z, "k")
		if o := l.Open(); o != Miss {
			t.Errorf("%s: outcome %d", name, o)
			continue
		}
		put(t, l, "y")
		l = look(t, z, "k")
		want(t, l, Hit)
	}
}

// FuzzHeader: no file makes reading it fail otherwise than by an error.
func FuzzHeader(f *testing.F) {
	h := header{Meta: Meta{ETag: []byte("e"), Vary: []byte("v")}, headStart: 350, bodyStart: 400}
	f.Add(h.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		if h.parse(b) == nil && (h.headStart < headerSize || h.bodyStart < h.headStart) {
			t.Error("the parts lie in each other")
		}
	})
}
