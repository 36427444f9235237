package sock

import (
	"errors"
	"net"
	"testing"
)

// pair returns both ends of a TCP connection over loopback.
func pair(t testing.TB, s *Sweeper) (a, b *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- nc
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, b = New(nc, s), New(<-accepted, s)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// echo serves b inside a Loop.
func echo(b *Conn) {
	buf := make([]byte, 4096)
	_ = b.Loop(func() bool {
		n, err := b.TryRead(buf)
		if errors.Is(err, ErrAgain) {
			return false
		}
		if err != nil {
			return true
		}
		if _, err := b.Write(buf[:n]); err != nil {
			return true
		}
		return false
	})
}

func BenchmarkPingPong(bench *testing.B) {
	s := NewSweeper()
	defer s.Stop()
	a, b := pair(bench, s)
	go echo(b)
	req, buf := make([]byte, 200), make([]byte, 4096)
	bench.ReportAllocs()
	for bench.Loop() {
		if _, err := a.Exchange(req, buf); err != nil {
			bench.Fatal(err)
		}
	}
}

// BenchmarkPingPongPlain is the same with net.Conn alone.
func BenchmarkPingPongPlain(bench *testing.B) {
	s := NewSweeper()
	defer s.Stop()
	ca, cb := pair(bench, s)
	a, b := ca.NetConn(), cb.NetConn()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := b.Read(buf)
			if err != nil {
				return
			}
			if _, err := b.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	req, buf := make([]byte, 200), make([]byte, 4096)
	bench.ReportAllocs()
	for bench.Loop() {
		if _, err := a.Write(req); err != nil {
			bench.Fatal(err)
		}
		if _, err := a.Read(buf); err != nil {
			bench.Fatal(err)
		}
	}
}
