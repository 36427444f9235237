package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notifications stands in for systemd's socket.
type notifications struct {
	t *testing.T
	c *net.UnixConn
}

func listenNotifications(t *testing.T) *notifications {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &notifications{t, c}
}

// expect reads the next message, which must match.
func (n *notifications) expect(pattern string) {
	n.t.Helper()
	buf := make([]byte, 4096)
	_ = n.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	size, err := n.c.Read(buf)
	if got := string(buf[:size]); err != nil || !regexp.MustCompile("^"+pattern+"$").MatchString(got) {
		n.t.Fatalf("message %q, %v, want %s", got, err, pattern)
	}
}

// TestNotify: what a unit of Type=notify or Type=notify-reload waits for.
func TestNotify(t *testing.T) {
	n := listenNotifications(t)
	d := startDaemon(t, "ours", plainConf)
	pid := d.pid("")
	n.expect(fmt.Sprintf("MAINPID=%d\nREADY=1", pid))
	d.kill(pid, syscall.SIGHUP)
	n.expect(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	n.expect("READY=1\nSTATUS=serving")
	d.configure("broken on;")
	d.kill(pid, syscall.SIGHUP)
	n.expect(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	n.expect(`READY=1\nSTATUS=serving the old configuration: unknown directive "broken" in .*/nginx\.conf:1`)
	d.kill(pid, syscall.SIGQUIT)
	n.expect("STOPPING=1")

	d.await("it ends", func() bool { return d.pid("") == 0 })
	d.configure(plainConf)
	cmd := d.command("-g", "daemon off;")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.expect("READY=1")
	d.kill(cmd.Process.Pid, syscall.SIGTERM)
	n.expect("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSocketActivation: a server that is started with its sockets, in the
// foreground and in the background, serves from them and leaves their files.
func TestSocketActivation(t *testing.T) {
	for _, daemon := range []string{"off", "on"} {
		t.Run("daemon "+daemon, func(t *testing.T) {
			dir := t.TempDir()
			tcp, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			unix.SetUnlinkOnClose(false)
			other, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			program, _ := exec.LookPath("nginx")
			cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=3 exec "$0" -p `+dir+` -c nginx.conf -e logs/error.log -g "$1"`,
				program, "daemon "+daemon+";")
			for _, l := range []interface{ File() (*os.File, error) }{tcp.(*net.TCPListener), unix, other.(*net.TCPListener)} {
				f, err := l.File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
			_, _, _ = tcp.Close(), unix.Close(), other.Close()
			d := &daemonServer{t: t, dir: dir}
			_, d.port, _ = net.SplitHostPort(tcp.Addr().String())
			d.configure(plainConf)
			if err := os.Mkdir(dir+"/logs", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			d.await("it serves", func() bool { return d.pid("") != 0 })
			pid := d.pid("")
			if got := d.ask("/"); got != "answer" {
				t.Errorf("answer %q", got)
			}
			c, err := net.Dial("unix", dir+"/s")
			if err != nil {
				t.Error(err)
			} else {
				_ = c.Close()
			}
			d.awaitLog("the configuration does not listen on the inherited socket tcp4 " + other.Addr().String())
			d.kill(pid, syscall.SIGQUIT)
			d.await("it ends", func() bool { return d.pid("") == 0 })
			_ = cmd.Wait()
			if _, err := os.Stat(dir + "/s"); err != nil {
				t.Errorf("the socket's file: %v", err)
			}
		})
	}
}

func TestParseSockets(t *testing.T) {
	for text, want := range map[string]struct {
		fds   []int
		wrong string
	}{
		"":             {nil, ""},
		"3;":           {[]int{3}, ""},
		"3;4:15;":      {[]int{3, 4, 15}, ""},
		"3;4":          {[]int{3}, `"4" in NGINX environment variable, ignoring`},
		"3;x;5;":       {[]int{3}, `"x;5;" in NGINX environment variable, ignoring the rest of the variable`},
		";":            {nil, `";" in NGINX`},
		"-1;":          {nil, `"-1;" in NGINX`},
		"99999999999;": {nil, `"99999999999;" in NGINX`},
	} {
		h := parseSockets(text)
		if !slices.Equal(h.fds, want.fds) || (h.wrong == "") != (want.wrong == "") || !strings.Contains(h.wrong, want.wrong) {
			t.Errorf("%q: %v %q", text, h.fds, h.wrong)
		}
	}
}
