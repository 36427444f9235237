package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Applications behind FastCGI, uwsgi and SCGI, with a reader of their own for
// each protocol: what a server sends is held against the specification, not
// against the code that made it.

// cgiRequest is a request as an application sees it.
type cgiRequest struct {
	params []string // "NAME=value", in order
	body   string
	keep   bool
	note   string // what the protocol says besides
}

func (q *cgiRequest) param(name string) string {
	for _, p := range q.params {
		if value, ok := strings.CutPrefix(p, name+"="); ok {
			return value
		}
	}
	return ""
}

// application PROTOCOL PORT|unix:PATH [FILE]: an application that answers every
// request with its parameters and its body, or does what the lines of FILE say.
// PROTOCOL is fastcgi, uwsgi, scgi or http2 (see script_http2_test.go). The lines are
//
//	stdout TEXT    stderr TEXT    with \r \n \t \s \x00 \\ as escapes; the
//	               answer itself for protocols without records
//	padded TEXT    like stdout, with padding
//	bytes HEX      as they are
//	end            the end of the request
//	single         from here on each byte is sent by itself
//	drop           the connection is closed
//	hang           nothing until the other side closes
//	only PATH ...  the rest of the line, if DOCUMENT_URI is PATH
func scriptApplication(ts *testscript.TestScript, _ bool, args []string) {
	h := harnessOf(ts)
	network, address := "tcp", "127.0.0.1:"+h.translate(args[1])
	if path, ok := strings.CutPrefix(args[1], "unix:"); ok {
		network, address = "unix", ts.MkAbs(path)
	}
	var steps []string
	if len(args) > 2 {
		steps = strings.Split(strings.TrimSpace(ts.ReadFile(args[2])), "\n")
	}
	if args[0] == "http2" {
		go acceptHTTP2(h.listen(ts, network, address), steps)
		return
	}
	go acceptApplication(h.listen(ts, network, address), args[0], steps)
}

// acceptApplication serves the connections that come, until l is closed.
func acceptApplication(l net.Listener, protocol string, steps []string) {
	for number := 1; ; number++ {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveApplicationConn(c, protocol, number, steps)
	}
}

// serveApplicationConn answers the requests of one connection.
func serveApplicationConn(c net.Conn, protocol string, number int, steps []string) {
	defer c.Close()
	read := map[string]func(*bufio.Reader) (*cgiRequest, error){
		"fastcgi": readFastCGI, "uwsgi": readUWSGI, "scgi": readSCGI,
	}[protocol]
	r := bufio.NewReader(c)
	for {
		q, err := read(r)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_, _ = c.Write(stdoutRecord("Status: 500\r\n\r\n"+err.Error(), 0))
			}
			return
		}
		q.params = append(q.params, "CONNECTION="+strconv.Itoa(number))
		p := appPlayer{c: c, records: protocol == "fastcgi"}
		if p.play(q, steps); p.dropped || !q.keep {
			return
		}
	}
}

// appPlayer answers one request.
type appPlayer struct {
	c       net.Conn
	records bool
	single  bool
	dropped bool
}

func (p *appPlayer) play(q *cgiRequest, steps []string) {
	if steps == nil {
		p.do("stdout", "Content-Type: text/plain\r\n\r\n"+strings.Join(q.params, "\n")+"\n"+q.note+"body: "+q.body+"\n")
		p.do("end", "")
		return
	}
	for _, step := range steps {
		verb, text, _ := strings.Cut(step, " ")
		if verb == "only" { // for one path alone
			path, rest, _ := strings.Cut(text, " ")
			if q.param("DOCUMENT_URI") != path {
				continue
			}
			verb, text, _ = strings.Cut(rest, " ")
		}
		if p.do(verb, wireText(text)); p.dropped {
			return
		}
	}
}

func (p *appPlayer) do(verb, text string) {
	var out []byte
	switch verb {
	case "stdout":
		out = []byte(text)
		if p.records {
			out = nil
			for len(text) > 0xffff {
				out = append(out, stdoutRecord(text[:0xffff], 0)...)
				text = text[0xffff:]
			}
			out = append(out, stdoutRecord(text, 0)...)
		}
	case "padded":
		out = stdoutRecord(text, 200)
	case "stderr":
		out = stdoutRecord(text, 0)
		out[1] = 7
	case "bytes":
		out, _ = hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	case "end":
		if p.records {
			out = append(stdoutRecord("", 0), 1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
	case "single":
		p.single = true
	case "drop":
		p.dropped = true
	case "hang":
		_, _ = io.Copy(io.Discard, p.c)
		p.dropped = true
	}
	for size := len(out); len(out) > 0; out = out[size:] {
		if p.single {
			size = 1
		}
		if _, err := p.c.Write(out[:size]); err != nil {
			p.dropped = true
			return
		}
	}
}

func stdoutRecord(text string, padding int) []byte {
	out := []byte{1, 6, 0, 1, byte(len(text) >> 8), byte(len(text)), byte(padding), 0}
	return append(append(out, text...), make([]byte, padding)...)
}

// readFastCGI reads a request of FastCGI.
func readFastCGI(r *bufio.Reader) (*cgiRequest, error) {
	q := &cgiRequest{}
	var params, stdin []byte
	for begun := false; ; {
		var h [8]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return nil, err
		}
		content := make([]byte, int(h[4])<<8|int(h[5])+int(h[6]))
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, err
		}
		content = content[:len(content)-int(h[6])]
		switch {
		case h[0] != 1 || h[2] != 0 || h[3] != 1:
			return nil, fmt.Errorf("strange record %x", h)
		case (len(content)+int(h[6]))%8 != 0:
			return nil, fmt.Errorf("unaligned record %x", h)
		case h[1] == 1 && !begun && content[1] == 1:
			begun, q.keep = true, content[2] == 1
		case h[1] == 4 && begun:
			params = append(params, content...)
			if len(content) == 0 {
				if err := q.readPairs(params); err != nil {
					return nil, err
				}
			}
		case h[1] == 5 && begun && len(content) == 0:
			q.body = string(stdin)
			return q, nil
		case h[1] == 5 && begun:
			stdin = append(stdin, content...)
		default:
			return nil, fmt.Errorf("unexpected record %x", h)
		}
	}
}

// readPairs reads parameters of FastCGI.
func (q *cgiRequest) readPairs(b []byte) error {
	size := func() int {
		if len(b) > 3 && b[0]&0x80 != 0 {
			n := binary.BigEndian.Uint32(b) &^ (1 << 31)
			b = b[4:]
			return int(n)
		}
		if len(b) == 0 {
			return 0
		}
		n := b[0]
		b = b[1:]
		return int(n)
	}
	for len(b) > 0 {
		name, value := size(), 0
		value = size()
		if name+value > len(b) {
			return fmt.Errorf("a parameter of %d+%d bytes in %d", name, value, len(b))
		}
		q.params = append(q.params, string(b[:name])+"="+string(b[name:name+value]))
		b = b[name+value:]
	}
	return nil
}

// readUWSGI reads a request of uwsgi.
func readUWSGI(r *bufio.Reader) (*cgiRequest, error) {
	var h [4]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.LittleEndian.Uint16(h[1:3]))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	q := &cgiRequest{note: fmt.Sprintf("modifiers: %d %d\n", h[0], h[3])}
	for len(b) > 0 {
		var pair [2]string
		for i := range pair {
			if len(b) < 2 || len(b) < 2+int(binary.LittleEndian.Uint16(b)) {
				q.note += fmt.Sprintf("rest: %q\n", b)
				b = nil
				break
			}
			n := int(binary.LittleEndian.Uint16(b))
			pair[i], b = string(b[2:2+n]), b[2+n:]
		}
		if pair[0] != "" {
			q.params = append(q.params, pair[0]+"="+pair[1])
		}
	}
	return q, q.readBody(r)
}

// readSCGI reads a request of SCGI.
func readSCGI(r *bufio.Reader) (*cgiRequest, error) {
	text, err := r.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, ":"))
	if err != nil {
		return nil, err
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if b[n] != ',' || !bytes.HasPrefix(b, []byte("CONTENT_LENGTH\x00")) {
		return nil, fmt.Errorf("no netstring of SCGI: %q", b)
	}
	q := &cgiRequest{}
	for pair := range slices.Chunk(strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00"), 2) {
		q.params = append(q.params, strings.Join(pair, "="))
	}
	return q, q.readBody(r)
}

// readBody reads a body of the length that the parameters say.
func (q *cgiRequest) readBody(r *bufio.Reader) error {
	n, _ := strconv.Atoi(q.param("CONTENT_LENGTH"))
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	q.body = string(body)
	return err
}
