package sock

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// datagrams makes a listener and a client of it.
func datagrams(t *testing.T, address string) (*DatagramListener, *net.UDPConn) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewDatagramListener(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	to := l.Addr().(*net.UDPAddr)
	client, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.Port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	return l, client
}

// accepted accepts a connection, and checks its first datagram.
func accepted(t *testing.T, l *DatagramListener, want string) *DatagramConn {
	t.Helper()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := nc.(*DatagramConn)
	receives(t, c, want)
	return c
}

func receives(t *testing.T, c *DatagramConn, want string) {
	t.Helper()
	select {
	case d := <-c.Received():
		if string(d) != want {
			t.Fatalf("received %q, want %q", d, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%q has not come", want)
	}
}

func send(t *testing.T, c *net.UDPConn, datagrams ...string) {
	t.Helper()
	for _, d := range datagrams {
		if _, err := c.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatagrams(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		l, client := datagrams(t, address)
		send(t, client, "one", "two")
		c := accepted(t, l, "one")
		receives(t, c, "two")
		if c.LocalAddr().String() != client.RemoteAddr().String() || c.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("%s to %s, the client says %s to %s", c.RemoteAddr(), c.LocalAddr(), client.LocalAddr(), client.RemoteAddr())
		}
		buf := make([]byte, 16)
		for _, answer := range []string{"answer", ""} {
			if _, err := c.Write([]byte(answer)); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(buf); err != nil || string(buf[:n]) != answer {
				t.Errorf("the client got %q, %v", buf[:n], err)
			}
		}
		if !c.Finish() {
			t.Error("a connection that has received everything does not finish")
		}
		send(t, client, "three")
		_ = accepted(t, l, "three").Close()
	}
}

// TestDatagramsLeft belong to the connections that follow.
func TestDatagramsLeft(t *testing.T) {
	t.Parallel()
	l, client := datagrams(t, "127.0.0.1:0")
	send(t, client, "one", "two", "three")
	c := accepted(t, l, "one")
	for len(c.Received()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if c.Finish() {
		t.Error("a connection with datagrams finishes")
	}
	c.Leave()
	second := accepted(t, l, "two")
	receives(t, second, "three")
	l.Renew()
	send(t, client, "four")
	accepted(t, l, "four")
	if _, err := second.Write([]byte("late")); err != nil {
		t.Errorf("an old connection cannot be written to: %v", err)
	}
	_ = l.Close()
	select {
	case <-second.Done():
		t.Error("the listener ends connections that it does not know any more")
	default:
	}
}

// TestDatagramsPaused wait in the socket.
func TestDatagramsPaused(t *testing.T) {
	t.Parallel()
	l, client := datagrams(t, "127.0.0.1:0")
	for range 2 {
		_ = l.SetDeadline(past)
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		send(t, client, "waits")
		_ = l.SetDeadline(time.Time{})
		c := accepted(t, l, "waits")
		_ = c.Close()
		if _, err := c.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
	send(t, client, "x")
	c := accepted(t, l, "x")
	_ = l.Close()
	<-c.Done()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || !c.Shut() {
		t.Error(err)
	}
}
