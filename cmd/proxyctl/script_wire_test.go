package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"proxyctl/proxy"
)

// backend [-mute | -deaf | -lines] PORT [FILE]: an application that answers every request
// with what it received, or with the raw bytes of FILE and a closed connection.
// With -mute it takes connections and reads and answers nothing, with -deaf it
// does not even take them. With -lines each line that it reads is a request: the
// answer is the paragraph of FILE that begins with it, without it.
func scriptBackend(ts *testscript.TestScript, _ bool, args []string) {
	h := harnessOf(ts)
	mode := ""
	if strings.HasPrefix(args[0], "-") {
		mode, args = args[0], args[1:]
	}
	if mode == "-deaf" {
		h.deafen(ts, number(h.translate(args[0])))
		return
	}
	address := "127.0.0.1:" + h.translate(args[0])
	if path, unix := strings.CutPrefix(args[0], "unix:"); unix {
		address = ts.MkAbs(path)
	}
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	l := h.listen(ts, network, address)
	var raw []byte
	if len(args) > 1 {
		raw = []byte(h.translate(wireText(ts.ReadFile(args[1]))))
	}
	go func() {
		for {
			c, err := l.Accept()
			switch {
			case err != nil:
				return
			case mode == "-lines":
				go answerLines(c, string(raw))
			case mode == "-mute":
				h.closeLater(c)
			default:
				go serveBackend(c, raw)
			}
		}
	}()
}

// answerLines answers each line.
func answerLines(c net.Conn, answers string) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		for p := range strings.SplitSeq(answers, "\r\n\r\n") {
			if answer, ok := strings.CutPrefix(p, line); ok {
				_, _ = io.WriteString(c, answer+"\r\n")
			}
		}
	}
}

// deafen listens with a queue for one connection, and fills it: the kernel drops
// who comes next.
func (h *harness) deafen(ts *testscript.TestScript, port int) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	ts.Check(err)
	h.closeLater(os.NewFile(uintptr(fd), "deaf"))
	ts.Check(syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	ts.Check(syscall.Listen(fd, 0))
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	ts.Check(err)
	h.closeLater(c)
}

// listen opens a listener that ends with the script. Tests of another process
// that look for a free port may hold this one for a moment.
func (h *harness) listen(ts *testscript.TestScript, network, address string) net.Listener {
	var l net.Listener
	var err error
	for range 100 {
		if l, err = net.Listen(network, address); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Check(err)
	h.closeLater(l)
	return l
}

// serveBackend answers the requests of one connection.
func serveBackend(c net.Conn, raw []byte) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		head, body, err := readMessage(r)
		if err != nil {
			return
		}
		if raw != nil {
			_, _ = c.Write(raw)
			return
		}
		seen := strings.ReplaceAll(head, "\r\n", "\n") + body
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(seen), seen)
	}
}

// readMessage reads a head and the body it announces.
func readMessage(r *bufio.Reader) (head, body string, err error) {
	length, chunked := 0, false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return head, "", err
		}
		head += line
		lower := strings.ToLower(strings.TrimSpace(line))
		if v, ok := strings.CutPrefix(lower, "content-length:"); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
		chunked = chunked || lower == "transfer-encoding: chunked"
		if lower == "" {
			break
		}
	}
	if chunked {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return head, body, err
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
			data := make([]byte, n+2)
			if _, err := io.ReadFull(r, data); err != nil || n == 0 {
				return head, body, err
			}
			body += string(data[:n])
		}
	}
	data := make([]byte, length)
	_, err = io.ReadFull(r, data)
	return head, string(data), err
}

var wireEscape = regexp.MustCompile(`\\(x[0-9a-f]{2}|[rnts\\])`)

// wireText makes CRLF line ends of a script file's, and reads \r, \n, \t, \s
// (space), \xff and \\ as escapes. The last line end is dropped: write a blank line to end a head.
func wireText(s string) string {
	s = strings.TrimSuffix(s, "\n")
	s = strings.ReplaceAll(s, "\n", "\r\n")
	return wireEscape.ReplaceAllStringFunc(s, func(e string) string {
		switch e[1] {
		case 'x':
			n, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(n)})
		case 's':
			return " "
		}
		return strings.NewReplacer("r", "\r", "n", "\n", "t", "\t").Replace(e[1:])
	})
}

// send [-end | -gone | -abort | -leave] PORT FILE...: sends the raw requests of the
// files on one connection and prints everything that comes back until the server
// closes or falls silent. Standard error tells how the connection is then: "open",
// "half-closed" (the server reads on), "closed" or "reset". With -end it waits
// until nothing more comes, with -gone until the server does not read either; with
// -abort it goes at once. With -leave the connection stays as it is, nothing read;
// send [-end | -gone] -again FILE... waits until something has come on it and goes on.
func scriptSend(ts *testscript.TestScript, _ bool, args []string) {
	h := harnessOf(ts)
	var flags []string
	for strings.HasPrefix(args[0], "-") {
		flags, args = append(flags, args[0]), args[1:]
	}
	port, c, first := "", h.left, make([]byte, 64<<10)
	if slices.Contains(flags, "-again") {
		ts.Check(c.SetReadDeadline(time.Now().Add(10 * time.Second)))
		n, err := c.Read(first)
		ts.Check(err)
		first = first[:n]
	} else {
		var err error
		c, err = net.Dial("tcp", "127.0.0.1:"+h.translate(args[0]))
		ts.Check(err)
		port, first, args = args[0], nil, args[1:]
	}
	var request string
	for _, f := range args {
		request += h.translate(wireText(ts.ReadFile(f)))
	}
	_, err := io.WriteString(c, request)
	if slices.Contains(flags, "-leave") {
		ts.Check(err)
		h.left = c
		h.closeLater(c)
		return
	}
	defer c.Close()
	if slices.Contains(flags, "-abort") {
		return
	}
	wait := untilSilent
	switch {
	case slices.Contains(flags, "-end"):
		wait = untilEnd
	case slices.Contains(flags, "-gone"):
		wait = untilGone
	}
	answer, end := read(c, wait, len(first) > 0)
	if end == "open" && wait != untilSilent || end == "half-closed" && wait == untilGone {
		ts.Fatalf("the connection did not end; it brought %q", answer)
	}
	if len(flags) == 0 {
		h.agree(ts, answer, port, &proxy.Question{Raw: request}, "")
	}
	fmt.Fprint(ts.Stdout(), h.restore(strings.ReplaceAll(string(first), "\r\n", "\n")+answer))
	fmt.Fprintln(ts.Stderr(), end)
}

// What read waits for.
const (
	untilSilent = iota // nothing has come for a while after something has
	untilEnd           // nothing comes any more
	untilGone          // nothing is read any more either
)

// read reads what comes and says how the connection is afterwards.
func read(c net.Conn, wait int, begun bool) (answer, end string) {
	var out bytes.Buffer
	buf := make([]byte, 64<<10)
	for end == "" {
		patience := 10 * time.Second
		if begun && wait == untilSilent {
			patience = 300 * time.Millisecond
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		out.Write(buf[:n])
		begun = true
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			end = "open"
		case errors.Is(err, io.EOF):
			end = endOf(c, wait == untilGone)
		default:
			end = "reset"
		}
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), end
}

// endOf finds out whether the other side, which has said that nothing comes any
// more, still reads: else it resets the connection at the first byte. Waiting for
// that it tries more and more seldom, because each byte prolongs the other's
// patience.
func endOf(c net.Conn, wait bool) string {
	for pause := 5 * time.Millisecond; pause < 4*time.Second; pause *= 2 {
		if _, err := c.Write([]byte{' '}); err != nil {
			return "closed"
		}
		if pause > 50*time.Millisecond && !wait {
			break
		}
		time.Sleep(pause)
	}
	return "half-closed"
}
