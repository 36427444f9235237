package sock

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echoServer answers every connection with what it sent, until the client ends.
func echoServer(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skip(err) // no IPv6 here
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestDial(t *testing.T) {
	s := sweeper(t)
	for _, at := range [][2]string{{"tcp", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"unix", filepath.Join(t.TempDir(), "s")}} {
		t.Run(at[0]+at[1], func(t *testing.T) {
			address := echoServer(t, at[0], at[1])
			controlled := false
			d := Dialer{Sweeper: s, Timeout: time.Second, Control: func(int) error { controlled = true; return nil }}
			c, err := d.Dial(at[0], address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if !c.Raw() || !controlled {
				t.Errorf("raw %v, controlled %v", c.Raw(), controlled)
			}
			if got := c.RemoteAddr().String(); got != address {
				t.Errorf("remote address %s, want %s", got, address)
			}
			if at[0] == "tcp" && c.LocalAddr().(*net.TCPAddr).Port == 0 {
				t.Errorf("local address %s", c.LocalAddr())
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

func TestDialFrom(t *testing.T) {
	s := sweeper(t)
	address := echoServer(t, "tcp", "127.0.0.1:0")
	d := Dialer{Sweeper: s, Timeout: time.Second, Local: netip.MustParseAddrPort("127.0.0.9:0")}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != "127.0.0.9" {
		t.Errorf("connected from %s", got)
	}
	d.Local = netip.MustParseAddrPort("192.0.2.1:0")
	if _, err := d.Dial("tcp", address); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address of others: %v", err)
	}
}

func TestDialFails(t *testing.T) {
	s := sweeper(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	refused := errors.New("refused")
	for _, c := range []struct {
		name, network, address string
		dialer                 Dialer
		want                   error
	}{
		{"nobody listens", "tcp", nobody, Dialer{}, syscall.ECONNREFUSED},
		{"no such socket", "unix", filepath.Join(t.TempDir(), "none"), Dialer{}, syscall.ENOENT},
		{"no address", "tcp", "localhost:80", Dialer{}, nil},
		{"socket not to be had", "tcp", nobody, Dialer{Control: func(int) error { return refused }}, refused},
		{"full", "tcp", full(t), Dialer{Timeout: time.Millisecond}, os.ErrDeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.dialer.Sweeper = s
			conn, err := c.dialer.Dial(c.network, c.address)
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// full listens with no place left for another connection: the system lets
// further ones wait.
func full(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port)).String()
	for range 3 {
		if c, err := net.DialTimeout("tcp", address, 50*time.Millisecond); err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
	}
	return address
}

func TestDialedReset(t *testing.T) {
	s := sweeper(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := Dialer{Sweeper: s, Timeout: time.Second}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c.Reset()
	_ = c.Close()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end read %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read from a closed connection")
	}
}
