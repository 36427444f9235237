package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sweeper returns one that stops with the test.
func sweeper(t testing.TB) *Sweeper {
	s := NewSweeper()
	t.Cleanup(s.Stop)
	return s
}

// pipe returns both ends of a connection without descriptors.
func pipe(t testing.TB, s *Sweeper) (a, b *Conn) {
	na, nb := net.Pipe()
	a, b = New(na, s), New(nb, s)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// unixPair returns both ends of a connection over a unix socket.
func unixPair(t testing.TB, s *Sweeper) (a, b *Conn) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	na, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nb, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = New(na, s), New(nb, s)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// kinds runs a test over each kind of connection.
func kinds(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	for name, make := range map[string]func(testing.TB, *Sweeper) (*Conn, *Conn){"tcp": pair, "unix": unixPair, "pipe": pipe} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := make(t, sweeper(t))
			f(t, a, b)
		})
	}
}

func TestReadWrite(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("0123456789"), 1<<19)
	kinds(t, func(t *testing.T, a, b *Conn) {
		a.SetTimeout(5 * time.Second)
		b.SetTimeout(5 * time.Second)
		go func() {
			if n, err := a.Write(text); n != len(text) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			if n, err := a.Writev(text, text); n != 2*len(text) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			if n, err := a.Writev(nil, []byte("x")); n != 1 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			_ = a.Close()
		}()
		got, err := io.ReadAll(b)
		want := append(bytes.Repeat(text, 3), 'x')
		if !bytes.Equal(got, want) || err != nil {
			t.Errorf("read %d bytes of %d, %v", len(got), len(want), err)
		}
	})
}

func TestExchange(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), 8<<20)
	kinds(t, func(t *testing.T, a, b *Conn) {
		a.SetTimeout(5 * time.Second)
		go func() {
			for _, n := range []int{5, len(large), 1} {
				got := make([]byte, n)
				if _, err := io.ReadFull(b, got); err != nil {
					t.Error(err)
					return
				}
				if _, err := b.Write([]byte("answer")); err != nil {
					t.Error(err)
					return
				}
			}
			_ = b.Close()
		}()
		buf := make([]byte, 100)
		for _, n := range []int{5, len(large), 1} {
			if n, err := a.Exchange(large[:n], buf); string(buf[:n]) != "answer" || err != nil {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
		}
		if n, err := a.Exchange([]byte("x"), buf); err == nil {
			t.Errorf("after the end: %q", buf[:n])
		}
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, a, b *Conn) {
		const d = 150 * time.Millisecond
		buf := make([]byte, 10)
		large := make([]byte, 32<<20)
		for name, do := range map[string]func() error{
			"read":     func() error { _, err := a.Read(buf); return err },
			"exchange": func() error { _, err := a.Exchange(large[:100], buf); return err },
			"write":    func() error { _, err := a.Write(large); return err },
		} {
			a.SetTimeout(d)
			began := time.Now()
			err := do()
			if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < d || took > time.Second {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		}
		// What has expired does not stay so.
		go func() { _, _ = io.Copy(io.Discard, b) }()
		a.SetTimeout(time.Second)
		if _, err := a.Write(large[:1000]); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestReadUntil(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, a, b *Conn) {
		a.SetTimeout(5 * time.Second)
		a.ReadUntil(200 * time.Millisecond)
		go func() {
			for {
				if _, err := b.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		began, err := time.Now(), error(nil)
		for buf := make([]byte, 10); err == nil; {
			_, err = a.Read(buf)
		}
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < 200*time.Millisecond || took > 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		a.ReadUntil(0)
		if _, err := a.Read(make([]byte, 10)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestExactDeadline(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, a, b *Conn) {
		_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		_ = a.SetDeadline(time.Time{})
		go func() { _, _ = b.Write([]byte("x")) }()
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestAbort(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, a, _ *Conn) {
		a.SetTimeout(5 * time.Second)
		time.AfterFunc(30*time.Millisecond, a.Abort)
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, ErrAborted) {
			t.Errorf("read: %v", err)
		}
		if _, err := a.Write(make([]byte, 32<<20)); !errors.Is(err, ErrAborted) {
			t.Errorf("write: %v", err)
		}
		if err := a.SetDeadline(time.Time{}); err != nil || !a.Aborted() {
			t.Errorf("deadline: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, ErrAborted) {
			t.Errorf("read again: %v", err)
		}
	})
}

func TestGone(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(testing.TB, *Sweeper) (*Conn, *Conn){"tcp": pair, "unix": unixPair} {
		a, b := make(t, sweeper(t))
		if a.Gone() || a.Readable() {
			t.Errorf("%s: gone at once", name)
		}
		_, _ = b.Write([]byte("x"))
		time.Sleep(10 * time.Millisecond)
		if a.Gone() || !a.Readable() {
			t.Errorf("%s: gone is %v, readable %v", name, a.Gone(), a.Readable())
		}
		told := int32(0)
		a.Watch(func() { atomic.AddInt32(&told, 1) })
		time.Sleep(250 * time.Millisecond)
		if atomic.LoadInt32(&told) != 0 {
			t.Errorf("%s: told too early", name)
		}
		_ = b.Close()
		time.Sleep(350 * time.Millisecond)
		if atomic.LoadInt32(&told) != 1 || !a.Gone() {
			t.Errorf("%s: told %d times", name, told)
		}
		a.Unwatch()
		a.Watch(func() { atomic.AddInt32(&told, 1) })
		a.Unwatch()
		time.Sleep(250 * time.Millisecond)
		if atomic.LoadInt32(&told) != 1 {
			t.Errorf("%s: told after Unwatch", name)
		}
		_ = a.Close()
		if !a.Gone() {
			t.Errorf("%s: closed and not gone", name)
		}
	}
}

// TestLoopEnd: an end that comes together with the last bytes is noticed by a
// step that does not read again.
func TestLoopEnd(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	a, b := pair(t, s)
	_, _ = b.Write([]byte("hello"))
	_ = b.CloseWrite()
	time.Sleep(20 * time.Millisecond)
	var got []string
	buf := make([]byte, 100)
	began := time.Now()
	err := a.Loop(func() bool {
		n, err := a.TryRead(buf)
		if err != nil {
			got = append(got, err.Error())
			return !errors.Is(err, ErrAgain)
		}
		got = append(got, string(buf[:n]))
		a.Idle(5 * time.Second)
		return false
	})
	if strings.Join(got, " ") != "hello EOF" || err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("got %q, %v after %v", got, err, time.Since(began))
	}
}

func TestLoopIdle(t *testing.T) {
	t.Parallel()
	a, b := pair(t, sweeper(t))
	go func() {
		for range 10 {
			_, _ = b.Write([]byte("x"))
			time.Sleep(200 * time.Millisecond)
		}
	}()
	n := 0
	began := time.Now()
	err := a.Loop(func() bool {
		m, err := a.TryRead(make([]byte, 10))
		if err == nil {
			a.Busy()
			n += m
		}
		a.Idle(time.Second)
		return err != nil && !errors.Is(err, ErrAgain)
	})
	if d := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || n != 10 || d < 2500*time.Millisecond || d > 10*time.Second {
		t.Errorf("%d bytes, %v after %v", n, err, d)
	}
}

func TestTryWrite(t *testing.T) {
	a, b := pair(t, sweeper(t))
	p := make([]byte, 1<<20)
	total := 0
	for {
		n, err := a.TryWrite(p)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n == 0 {
			break
		}
	}
	_ = a.Close()
	got, err := io.Copy(io.Discard, b)
	if int(got) != total || err != nil {
		t.Errorf("%d of %d bytes, %v", got, total, err)
	}
}

func TestSweeper(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	var conns []*Conn
	for range 50 {
		a, b := net.Pipe()
		conns = append(conns, New(a, s), New(b, s))
	}
	count := func() (n int) {
		for i := range s.shards {
			s.shards[i].mu.Lock()
			n += len(s.shards[i].conns)
			s.shards[i].mu.Unlock()
		}
		return n
	}
	if n := count(); n != 100 {
		t.Errorf("%d connections", n)
	}
	for i := range conns {
		_ = conns[i*37%100].Close()
		_ = conns[i*37%100].Close()
	}
	if n := count(); n != 0 {
		t.Errorf("%d connections left", n)
	}
	before := s.Now()
	time.Sleep(250 * time.Millisecond)
	if d := time.Duration(s.Now() - before); d < 100*time.Millisecond || d > time.Second {
		t.Errorf("the clock moved by %v", d)
	}
	if date, err := time.Parse(time.RFC1123, string(s.AppendDate(nil))); err != nil || time.Since(date) > 3*time.Second {
		t.Errorf("date %v, %v", date, err)
	}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	kinds(t, func(t *testing.T, client, a *Conn) {
		b, server := pair(t, a.sweeper)
		tunnel := NewTunnel(a, b)
		tunnel.FromA, tunnel.FromB, tunnel.HalfClose = []byte("early "), []byte("first "), true
		firsts := 0
		tunnel.BA.First = func() { firsts++ }
		done := make(chan struct{})
		go func() {
			tunnel.Run()
			_ = a.Close()
			_ = b.Close()
			close(done)
		}()
		_, half := a.nc.(halfCloser)
		large := strings.Repeat("x", 3<<20)
		go func() {
			_, _ = io.WriteString(server, large)
			_ = server.CloseWrite()
		}()
		got := make([]byte, len("first ")+len(large))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "first "+large {
			t.Fatalf("client got %d bytes, %v", len(got), err)
		}
		if half { // the other direction is still open
			_, _ = io.WriteString(client, "late")
			_ = client.CloseWrite()
			if got, err := io.ReadAll(server); err != nil || string(got) != "early late" {
				t.Errorf("server got %q, %v", got, err)
			}
		}
		<-done
		up, down := &tunnel.AB, &tunnel.BA
		if half && (up.ReadErr != nil || up.WriteErr != nil || up.Out() != 10 || tunnel.Ended() != up) || down.Out() != int64(len(got)) || down.In() != down.Out() || firsts != 1 {
			t.Errorf("up %d %v %v, down %d, first bytes %d times", up.Out(), up.ReadErr, up.WriteErr, down.Out(), firsts)
		}
	})
}

// TestTunnelEnds: without half closed connections the end of one direction is
// that of both, when all of it has been written.
func TestTunnelEnds(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	client, a := pair(t, s)
	b, server := pair(t, s)
	tunnel := NewTunnel(a, b)
	done := make(chan struct{})
	go func() {
		tunnel.Run()
		_ = a.Close()
		_ = b.Close()
		close(done)
	}()
	_, _ = io.WriteString(client, "all of it")
	_ = client.CloseWrite()
	if got, err := io.ReadAll(server); err != nil || string(got) != "all of it" {
		t.Errorf("server got %q, %v", got, err)
	}
	<-done
	if tunnel.Ended() != &tunnel.AB || tunnel.TimedOut() || tunnel.Aborted() {
		t.Error("the end of the client is not that of the tunnel")
	}
}

// ending notes what is done to the connection that it embeds, as TLS over it would.
type ending struct {
	*Conn
	ended atomic.Bool
}

func (e *ending) NetConn() net.Conn { return e }

func (e *ending) CloseWrite() error {
	if e.Aborted() {
		return net.ErrClosed
	}
	e.ended.Store(true)
	return nil
}

// TestTunnelSaysItsEnd: over TLS the end is said before the connection ends.
func TestTunnelSaysItsEnd(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	client, a := pair(t, s)
	b, server := pair(t, s)
	_ = server
	over := &ending{Conn: b}
	tunnel := NewTunnel(a, over)
	_ = client.CloseWrite()
	tunnel.Run()
	if !over.ended.Load() || !b.Aborted() || raw(over) != b {
		t.Errorf("the end was said: %v; the connection below was ended: %v", over.ended.Load(), b.Aborted())
	}
}

// TestTunnelRate: a second's worth goes at once, the rest at the rate.
func TestTunnelRate(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	client, a := pair(t, s)
	b, server := pair(t, s)
	tunnel := NewTunnel(a, b)
	tunnel.AB.Rate, tunnel.Idle = 1000, time.Second // being held back is not idleness
	done := make(chan struct{})
	go func() {
		tunnel.Run()
		close(done)
	}()
	began := time.Now()
	go func() { _, _ = client.Write(make([]byte, 2500)) }()
	if _, err := io.ReadFull(server, make([]byte, 2500)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d < time.Second {
		t.Errorf("2500 bytes at 1000 a second took %v", d)
	}
	tunnel.Abort()
	<-done
	if !tunnel.Aborted() {
		t.Error("the tunnel does not know that it was aborted")
	}
}

func TestTunnelIdle(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	_, a := pair(t, s)
	b, server := pair(t, s)
	go func() {
		for range 10 {
			_, _ = server.Write([]byte("x"))
			time.Sleep(200 * time.Millisecond)
		}
	}()
	began := time.Now()
	tunnel := NewTunnel(a, b)
	tunnel.Idle = time.Second
	tunnel.Run()
	if d := time.Since(began); !tunnel.TimedOut() || tunnel.BA.Out() != 10 || d < 2500*time.Millisecond {
		t.Errorf("%d bytes, timed out: %v after %v", tunnel.BA.Out(), tunnel.TimedOut(), d)
	}
}

// TestAllocs: what happens for every request allocates nothing.
func TestAllocs(t *testing.T) {
	a, b := pair(t, sweeper(t))
	go echo(b)
	req, buf := make([]byte, 200), make([]byte, 4096)
	for name, do := range map[string]func(){
		"exchange":    func() { _, _ = a.Exchange(req, buf) },
		"writev":      func() { _, _ = a.Writev(req, req); _, _ = io.ReadFull(a, buf[:400]) },
		"try":         func() { _, _ = a.TryWrite(req); _, _ = a.Read(buf) },
		"readable":    func() { _ = a.Readable() },
		"set timeout": func() { a.SetTimeout(time.Second) },
	} {
		if n := testing.AllocsPerRun(100, do); n >= 1 && !racing {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestSplice(t *testing.T) {
	s := sweeper(t)
	text := bytes.Repeat([]byte("0123456789"), 1<<18)
	for _, make := range []func(testing.TB, *Sweeper) (*Conn, *Conn){pair, unixPair} {
		from, src := make(t, s)
		dst, to := pair(t, s)
		for _, c := range []*Conn{src, dst} {
			c.SetTimeout(5 * time.Second)
		}
		go func() {
			for at := 0; at < len(text); at += 1 << 16 {
				_, _ = from.Write(text[at:min(at+1<<16, len(text))])
			}
			_, _ = from.Write([]byte("more"))
			_ = from.CloseWrite()
		}()
		got := collect(t, to)
		if n, err := dst.Splice(src, int64(len(text))); n != int64(len(text)) || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if n, err := dst.Splice(src, 100); n != 4 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = dst.CloseWrite()
		if b := <-got; !bytes.Equal(b, append(text[:len(text):len(text)], "more"...)) {
			t.Errorf("%d bytes came out", len(b))
		}
	}
	if n := len(s.pipes.idle); n != 1 {
		t.Errorf("%d pipes are kept", n)
	}
}

// collect reads all of c in the background.
func collect(t *testing.T, c *Conn) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	return got
}

func TestSpliceTimeout(t *testing.T) {
	t.Parallel()
	s := sweeper(t)
	from, src := pair(t, s)
	dst, to := pair(t, s)
	src.SetTimeout(150 * time.Millisecond)
	dst.SetTimeout(150 * time.Millisecond)
	if n, err := dst.Splice(src, 10); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing comes: %d, %v", n, err)
	}
	go func() { _, _ = from.Write(make([]byte, 32<<20)) }()
	if n, err := dst.Splice(src, 32<<20); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads: %d, %v", n, err)
	}
	if n := len(s.pipes.idle); n != 0 {
		t.Errorf("%d pipes are kept, with something in them", n)
	}
	_ = to.Close()
	from.Abort()
}

// TestPeekMore waits for more than is there, and notices an end.
func TestPeekMore(t *testing.T) {
	t.Parallel()
	a, b := pair(t, sweeper(t))
	buf := make([]byte, 16)
	_, _ = io.WriteString(b, "one")
	if n, err := a.PeekMore(buf, 0); err != nil || string(buf[:n]) != "one" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, _ = io.WriteString(b, "two")
	}()
	if n, err := a.PeekMore(buf, 3); err != nil || string(buf[:n]) != "onetwo" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = b.CloseWrite()
	}()
	if n, err := a.PeekMore(buf, 6); err != io.EOF {
		t.Errorf("after the end: %q, %v", buf[:n], err)
	}
	if n, err := a.Read(buf); err != nil || string(buf[:n]) != "onetwo" {
		t.Errorf("what was looked at: %q, %v", buf[:n], err)
	}
}
