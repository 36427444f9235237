package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Upstreams that speak no HTTP: FastCGI, uwsgi, SCGI, memcached. What they get
// is written down in the form of a request of HTTP, so that it is compared alike.

// cgi is a request by variables.
type cgi struct {
	protocol string
	fields   []string
	values   map[string]string
	body     string
}

func newCGI(protocol string) *cgi { return &cgi{protocol: protocol, values: map[string]string{}} }

func (r *cgi) set(name, value string) {
	r.fields = append(r.fields, name+": "+strings.NewReplacer("\r", "\\r", "\n", "\\n").Replace(value))
	r.values[name] = value
}

func (r *cgi) head() string {
	return r.values["REQUEST_METHOD"] + " " + r.values["REQUEST_URI"] + " " + r.protocol + "\r\n" + strings.Join(append(r.fields, ""), "\r\n")
}

// answer is what the upstream says, with a Status field instead of a line.
func (r *cgi) answer(s script, name string) string {
	if s == scriptChunked || s == scriptUpgrade {
		s = scriptUnsized
	}
	text, _ := compose(s, r.values["REQUEST_METHOD"]+" / HTTP/1.0\r\nHost: "+r.values["HTTP_HOST"]+"\r\n", name)
	if rest, ok := strings.CutPrefix(text, "HTTP/1.1 "); ok {
		return "Status: " + rest
	}
	return text
}

// cgiExchange answers one request of the protocol that begins with a byte;
// known is false when that is none of these.
func (b *backends) cgiExchange(c net.Conn, in *bufio.Reader, name string) (again, known bool) {
	first, err := in.Peek(4)
	if err != nil {
		return false, len(first) > 0 && first[0] < ' '
	}
	var serve func(net.Conn, *bufio.Reader, string) (bool, error)
	switch {
	case first[0] == 1:
		serve = b.fastcgi
	case first[0] < ' ':
		serve = b.uwsgi
	case first[0] >= '0' && first[0] <= '9':
		serve = b.scgi
	case string(first) == "get ":
		serve = b.memcached
	default:
		return false, false
	}
	b.enter()
	defer b.leave()
	again, err = serve(c, in, name)
	return again && err == nil, true
}

const (
	fcgiBegin, fcgiEnd, fcgiParams, fcgiStdin, fcgiStdout = 1, 3, 4, 5, 6
)

func (b *backends) fastcgi(c net.Conn, in *bufio.Reader, name string) (again bool, err error) {
	r := newCGI("FastCGI")
	var params []byte
	var id uint16
	for {
		var h [8]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return false, err
		}
		id = binary.BigEndian.Uint16(h[2:])
		content := make([]byte, int(binary.BigEndian.Uint16(h[4:]))+int(h[6]))
		if _, err := io.ReadFull(in, content); err != nil {
			return false, err
		}
		content = content[:len(content)-int(h[6])]
		switch {
		case h[1] == fcgiBegin && len(content) >= 3:
			again = content[2]&1 != 0
		case h[1] == fcgiParams:
			params = append(params, content...)
		case h[1] == fcgiStdin && len(content) > 0:
			if len(r.body) < maxUpstreamBody {
				r.body += string(content)
			}
		case h[1] == fcgiStdin:
			if err := r.pairs(params); err != nil {
				return false, err
			}
			r.set("(the connection is kept)", strconv.FormatBool(again))
			return again, writeFastCGI(c, id, r.answer(b.saw(upstreamRequest{name, r.head(), r.body}), name))
		default:
			return false, fmt.Errorf("record %d", h[1])
		}
	}
}

// pairs reads names and values with their lengths before them.
func (r *cgi) pairs(p []byte) error {
	length := func() (n int, err error) {
		if len(p) > 0 && p[0] < 0x80 {
			n, p = int(p[0]), p[1:]
			return n, nil
		}
		if len(p) < 4 {
			return 0, io.ErrUnexpectedEOF
		}
		n, p = int(binary.BigEndian.Uint32(p)&0x7fffffff), p[4:]
		return n, nil
	}
	for len(p) > 0 {
		n, err1 := length()
		m, err2 := length()
		if err1 != nil || err2 != nil || n+m > len(p) {
			return io.ErrUnexpectedEOF
		}
		r.set(string(p[:n]), string(p[n:n+m]))
		p = p[n+m:]
	}
	return nil
}

func writeFastCGI(c io.Writer, id uint16, text string) error {
	record := func(kind byte, content string) []byte {
		h := []byte{1, kind, byte(id >> 8), byte(id), byte(len(content) >> 8), byte(len(content)), 0, 0}
		return append(h, content...)
	}
	var out []byte
	for len(text) > 0 {
		n := min(len(text), 60000)
		out = append(out, record(fcgiStdout, text[:n])...)
		text = text[n:]
	}
	out = append(append(out, record(fcgiStdout, "")...), record(fcgiEnd, "\x00\x00\x00\x00\x00\x00\x00\x00")...)
	_, err := c.Write(out)
	return err
}

func (b *backends) uwsgi(c net.Conn, in *bufio.Reader, name string) (bool, error) {
	var h [4]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return false, err
	}
	p := make([]byte, binary.LittleEndian.Uint16(h[1:]))
	if _, err := io.ReadFull(in, p); err != nil {
		return false, err
	}
	r := newCGI("uwsgi")
	r.set("(modifiers)", fmt.Sprint(h[0], " ", h[3]))
	next := func() (s string, ok bool) {
		if len(p) < 2 {
			return "", false
		}
		n := int(binary.LittleEndian.Uint16(p))
		if len(p) < 2+n {
			return "", false
		}
		s, p = string(p[2:2+n]), p[2+n:]
		return s, true
	}
	for len(p) > 0 {
		k, ok1 := next()
		v, ok2 := next()
		if !ok1 || !ok2 {
			return false, io.ErrUnexpectedEOF
		}
		r.set(k, v)
	}
	return false, b.finishCGI(c, in, name, r)
}

func (b *backends) scgi(c net.Conn, in *bufio.Reader, name string) (bool, error) {
	size, err := in.ReadString(':')
	if err != nil {
		return false, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil || n < 0 || n > 1<<20 {
		return false, fmt.Errorf("length %q", size)
	}
	p := make([]byte, n+1)
	if _, err := io.ReadFull(in, p); err != nil {
		return false, err
	}
	r := newCGI("SCGI")
	words := strings.Split(string(p[:n]), "\x00")
	for i := 0; i+1 < len(words); i += 2 {
		r.set(words[i], words[i+1])
	}
	return false, b.finishCGI(c, in, name, r)
}

// finishCGI reads the body and answers.
func (b *backends) finishCGI(c net.Conn, in *bufio.Reader, name string, r *cgi) error {
	n, _ := strconv.ParseInt(r.values["CONTENT_LENGTH"], 10, 64)
	body, err := io.ReadAll(io.LimitReader(in, min(n, maxUpstreamBody)))
	r.body = string(body)
	s := b.saw(upstreamRequest{name, r.head(), r.body})
	_, fail := io.WriteString(c, r.answer(s, name))
	return errors.Join(err, fail)
}

func (b *backends) memcached(c net.Conn, in *bufio.Reader, name string) (bool, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return false, err
	}
	line = strings.TrimRight(line, "\r\n")
	text := "END\r\n"
	switch s := b.saw(upstreamRequest{name, line + " memcached\r\n", ""}); s {
	case scriptMissing, scriptEmpty:
	case scriptBroken:
		text = "SERVER_ERROR out of order\r\n"
	case scriptGarbage:
		text = "nothing that memcached says\r\n"
	default:
		value := "a value of memcached"
		text = fmt.Sprintf("VALUE %s 0 %d\r\n%s\r\nEND\r\n", strings.TrimPrefix(line, "get "), len(value), value)
	}
	_, err = io.WriteString(c, text)
	return true, err
}
