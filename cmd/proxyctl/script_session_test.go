package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Commands for the stream block: bytes and datagrams instead of requests.

// talk [-keep | -udp] [-tls=NAME [-cert=NAME] [-resume] [-alpn=NAME,NAME]] PORT
// TEXT...: sends the texts on one connection, ends its own direction, and prints
// what comes back until the server closes; with -keep it does not end its direction.
// With -tls it speaks TLS; with ! the handshake must fail.
// With -udp each text is a datagram, and one is awaited for each; with ! none comes.
// Texts are written as files are for send, "" is none.
func scriptTalk(ts *testscript.TestScript, neg bool, args []string) {
	h := harnessOf(ts)
	var secure getFlags
	var name string
	network, keep := "tcp", false
	for strings.HasPrefix(args[0], "-") {
		switch flag, value, _ := strings.Cut(args[0], "="); flag {
		case "-keep":
			keep = true
		case "-udp":
			network = "udp"
		case "-tls":
			name = value
		case "-cert":
			secure.cert = value
		case "-resume":
			secure.resume = true
		case "-alpn":
			secure.alpn = strings.Split(value, ",")
		default:
			ts.Fatalf("talk has no flag %s", flag)
		}
		args = args[1:]
	}
	c, err := net.Dial(network, "127.0.0.1:"+h.translate(args[0]))
	ts.Check(err)
	defer c.Close()
	if network == "udp" {
		fmt.Fprint(ts.Stdout(), h.restore(h.datagrams(ts, c, neg, args[1:])))
		return
	}
	if name != "" {
		if c, err = h.secure(ts, c, name, secure); neg {
			if err == nil { // in TLS 1.3 the server has the last word
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
				ts.Fatalf("the handshake did not fail: %v", err)
			}
			return
		}
		ts.Check(err)
	}
	for _, text := range args[1:] {
		_, err := io.WriteString(c, wireText(text))
		ts.Check(err)
	}
	if !keep {
		ts.Check(c.(interface{ CloseWrite() error }).CloseWrite())
	}
	ts.Check(c.SetReadDeadline(time.Now().Add(10 * time.Second)))
	answer, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		ts.Fatalf("the connection did not end; it brought %q", answer)
	}
	fmt.Fprint(ts.Stdout(), h.restore(string(answer)))
}

// datagrams sends texts and gives what comes back, a line each.
func (h *harness) datagrams(ts *testscript.TestScript, c net.Conn, neg bool, texts []string) string {
	var out strings.Builder
	buf := make([]byte, 64<<10)
	for _, text := range texts {
		_, err := io.WriteString(c, wireText(text))
		ts.Check(err)
		patience := 10 * time.Second
		if neg {
			patience = 300 * time.Millisecond
		}
		ts.Check(c.SetReadDeadline(time.Now().Add(patience)))
		n, err := c.Read(buf)
		switch {
		case neg && err == nil:
			ts.Fatalf("%q was answered %q", text, buf[:n])
		case !neg && err != nil:
			ts.Fatalf("%q was not answered: %v", text, err)
		}
		fmt.Fprintf(&out, "%s\n", buf[:n])
	}
	return out.String()
}

// echo [-udp] PORT: an application that sends back what it gets, in capitals, on
// a connection until the client's direction ends; a datagram with its own port
// in front.
func scriptEcho(ts *testscript.TestScript, _ bool, args []string) {
	h := harnessOf(ts)
	if args[0] == "-udp" {
		h.echoDatagrams(ts, args[1])
		return
	}
	l := h.listen(ts, "tcp", "127.0.0.1:"+h.translate(args[0]))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					_, _ = c.Write(bytes.ToUpper(buf[:n]))
					if err != nil {
						return
					}
				}
			}()
		}
	}()
}

func (h *harness) echoDatagrams(ts *testscript.TestScript, port string) {
	var p net.PacketConn
	var err error
	for range 100 {
		if p, err = net.ListenPacket("udp", "127.0.0.1:"+h.translate(port)); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Check(err)
	h.closeLater(p)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(port+" "+strings.ToUpper(string(buf[:n]))), from)
		}
	}()
}

// streamModule says how an nginx serves the stream block: by itself (""), with a
// module that is loaded, or not at all.
var streamModule = sync.OnceValues(func() (load string, can bool) {
	installed, err := realNginx()
	if err != nil {
		return "", false
	}
	out, _ := exec.Command(installed, "-V").CombinedOutput()
	if !regexp.MustCompile(`--with-stream=dynamic`).Match(out) {
		return "", regexp.MustCompile(`--with-stream\b`).Match(out)
	}
	dir := "modules"
	if m := regexp.MustCompile(`--modules-path=(\S+)`).FindSubmatch(out); m != nil {
		dir = string(m[1])
	}
	path := dir + "/ngx_stream_module.so"
	if _, err := os.Stat(path); err != nil {
		return "", false
	}
	return "load_module " + path + ";", true
})
