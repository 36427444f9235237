package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"proxyctl/proxy"
)

// request is one thing to ask both servers.
type request struct {
	proxy.Witness
	what   string // what is special about it; "" for the plain form
	text   string // as sent; made from the Witness
	raw    bool   // the text says more than the Witness
	body   string
	script script
}

// answer is what came of it.
type answer struct {
	text     []byte
	failure  string // instead of an answer
	tls      string // what was negotiated
	port     string // of the client
	upstream []upstreamRequest
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 4 << 20

// wire gives the text of a request.
func (r *request) wire() string {
	if r.raw {
		return r.text
	}
	var b strings.Builder
	version := "1.1"
	if r.Host == "" {
		version = "1.0"
	}
	b.WriteString(r.Method + " " + r.Target + " HTTP/" + version + "\r\n")
	if r.Host != "" {
		b.WriteString("Host: " + r.Host + "\r\n")
	}
	for _, f := range r.Fields {
		b.WriteString(f + "\r\n")
	}
	if r.body != "" {
		b.WriteString("Content-Length: " + strconv.Itoa(len(r.body)) + "\r\nContent-Type: application/x-www-form-urlencoded\r\n")
	}
	if !strings.Contains(strings.ToLower(b.String()), "\nconnection:") {
		b.WriteString("Connection: close\r\n")
	}
	return b.String() + "\r\n" + r.body
}

// name is the host name that a handshake asks for.
func (r *request) name() string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" || strings.ContainsAny(host, "[]_*/ ") {
		return ""
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	return strings.ToLower(host)
}

// ask sends a request and reads the answer.
func ask(r *request, patience time.Duration) answer {
	if r.what == whatHTTP2 {
		return askHTTP2(r, patience)
	}
	c, err := net.DialTimeout("tcp", r.To.Address.String(), patience)
	if err != nil {
		return answer{failure: "no connection: " + err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if r.To.ProxyProtocol {
		_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 49152 "+strconv.Itoa(int(r.To.Address.Port()))+"\r\n")
	}
	var a answer
	if local, ok := c.LocalAddr().(*net.TCPAddr); ok {
		a.port = strconv.Itoa(local.Port)
	}
	if r.To.TLS && r.what != whatPlainToTLS {
		t := tls.Client(c, &tls.Config{ServerName: r.name(), InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) // #nosec G402 -- which certificate is shown is compared, not trusted
		if err := t.Handshake(); err != nil {
			a.failure = "no TLS: " + withoutAddresses(err)
			return a
		}
		state := t.ConnectionState()
		sum := sha256.Sum256(state.PeerCertificates[0].Raw)
		a.tls = tls.VersionName(state.Version) + ", " + state.NegotiatedProtocol + ", certificate " + hex.EncodeToString(sum[:6])
		c = t
	}
	go func(text string) { _, _ = io.WriteString(c, text) }(r.wire())
	method := r.Method
	if r.what == whatTwo {
		method = untilEnd
	}
	a.text, err = readAnswer(c, method)
	switch {
	case len(a.text) > 0:
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.failure = "no answer"
	default:
		a.failure = "the connection is closed without an answer"
	}
	return a
}

func withoutAddresses(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// readAnswer reads until the connection ends or the answer is complete.
func readAnswer(c io.Reader, method string) ([]byte, error) {
	var all []byte
	buffer := make([]byte, 32<<10)
	for len(all) < maxAnswer {
		n, err := c.Read(buffer)
		all = append(all, buffer[:n]...)
		if err != nil || complete(all, method) {
			return all, err
		}
	}
	return all, nil
}

// untilEnd in the place of a method waits for the end of the connection.
const untilEnd = "\x00"

// complete says that an answer needs nothing more.
func complete(text []byte, method string) bool {
	if method == untilEnd {
		return false
	}
	head, body, found := bytes.Cut(text, []byte("\r\n\r\n"))
	if !found {
		return false
	}
	if bytes.HasPrefix(head, []byte("HTTP/1.1 100")) {
		return complete(body, method)
	}
	status := statusOf(head)
	if method == "HEAD" || status == "204" || status == "304" {
		return true
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "content-length":
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return err == nil && len(body) >= n
		case "transfer-encoding":
			return bytes.HasSuffix(body, []byte("\r\n0\r\n\r\n")) || bytes.Equal(body, []byte("0\r\n\r\n"))
		}
	}
	return false
}

func statusOf(head []byte) string {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	if f := bytes.Fields(line); len(f) > 1 && bytes.HasPrefix(f[0], []byte("HTTP/")) {
		return string(f[1])
	}
	return ""
}
