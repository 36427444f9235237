package proxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"proxyctl/proxy/sock"
)

// Question is a request to be explained.
type Question struct {
	Method string
	TLS    bool
	Host   string   // name and port as a browser would send them; "" for none
	Target string   // path and arguments as sent
	Fields []string // further fields, "Name: value"
	// Raw is the whole request as it is sent, in place of the method, the target
	// and the fields. It begins with the header of the PROXY protocol where the
	// listener has that.
	Raw string
	// Certificate is what the client shows when it is asked for one.
	Certificate *tls.Certificate
	To          netip.AddrPort // the address asked; an unspecified IP is any with the port
	From        netip.Addr     // the client's address
}

// Explanation is what became of a Question.
type Explanation struct {
	Request []string `json:"request"` // the head that was sent
	Trace
	// Status and the rest are the answer; Status is 0 when an upstream answers
	// or the connection is closed without a word.
	Status int      `json:"status,omitempty"`
	Head   []string `json:"head,omitempty"`
	Body   string   `json:"body,omitempty"` // its beginning
}

// Explain asks a table a question. The request runs through the same code as
// one from the network, over a pipe, up to the point where an upstream would be
// connected to. The table must not be used for anything else.
func Explain(t *Table, q *Question) (*Explanation, error) {
	r := &Runtime{opts: t.opts, sweeper: sock.NewSweeper()}
	r.table.Store(t)
	e, bound, err := t.listening(q.To)
	if err != nil {
		return nil, err
	}
	if q.TLS != e.options.ssl && q.TLS {
		return nil, fmt.Errorf("%s speaks no TLS: try http://", e.address)
	}
	x := &Explanation{}
	t.traced()
	ours, theirs := net.Pipe()
	defer ours.Close()
	c := &client{
		rt: r, life: new(life), id: 1, conn: theirs, remote: netip.AddrPortFrom(q.From, 49152), local: bound,
		endpoint: e, table: t, began: time.Now(), peerName: q.From.String(), trace: &x.Trace,
	}
	x.step("listen", e.listens[0].place.Name.Range, "%s", e.address)
	text := q.Raw
	switch {
	case text == "":
		text = q.head()
	case e.options.proxyProtocol:
		f, size, err := parseProxyHeader([]byte(text))
		if err != nil {
			x.logged(logError, err.Error())
			return x, nil
		}
		c.forwarded, text = f, text[size:]
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := sock.New(theirs, r.sweeper)
		if e.options.ssl {
			c.serveTLS(s)
		} else {
			c.servePlain(s, nil)
		}
		_ = s.Close()
	}()
	err = x.ask(ours, q, text)
	_ = ours.Close()
	<-done
	if x.Passed != nil { // what is logged depends on the upstream's answer
		x.Logs = nil
	}
	return x, err
}

// listening finds what listens on an address.
func (t *Table) listening(to netip.AddrPort) (*endpoint, netip.AddrPort, error) {
	var known []string
	sessions := false
	for _, s := range t.sockets {
		if s.network == "unix" || s.options.quic { // what is asked goes over TCP
			continue
		}
		same := s.address.Port() == to.Port()
		if s.fallback.stream {
			sessions = sessions || same
			continue
		}
		known = append(known, s.address.String())
		if !same {
			continue
		}
		if a := s.address.Addr(); to.Addr().IsUnspecified() || a == to.Addr() || a.IsUnspecified() && a.Is4() == to.Addr().Is4() {
			local := to
			if to.Addr().IsUnspecified() {
				local = s.address
			}
			return s.endpoint(local.Addr()), local, nil
		}
	}
	if sessions {
		return nil, to, fmt.Errorf("port %d belongs to the stream block, which passes bytes on and knows no requests", to.Port())
	}
	slices.Sort(known)
	return nil, to, fmt.Errorf("nothing listens on port %d; the configuration listens on %s", to.Port(), strings.Join(known, ", "))
}

// timeToExplain bounds the whole of it.
const timeToExplain = 10 * time.Second

// ask sends the request and reads the answer.
func (x *Explanation) ask(nc net.Conn, q *Question, text string) error {
	_ = nc.SetDeadline(time.Now().Add(timeToExplain))
	done := make(chan struct{})
	defer close(done)
	nc = readAhead(nc, done)
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	x.Request = strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n")
	if q.TLS {
		host, _, _ := strings.Cut(q.Host, ":")
		config := &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}} // #nosec G402 -- both ends are this process
		if q.Certificate != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return q.Certificate, nil }
		}
		nc = tls.Client(nc, config)
	}
	go func() { _, _ = io.WriteString(nc, text) }()
	method, _, _ := strings.Cut(x.Request[0], " ")
	err := x.answer(bufio.NewReader(io.LimitReader(nc, 1<<20)), method)
	if x.Passed != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// aheadConn is a pipe's end that reads before it is asked to. A pipe keeps
// nothing, and there are handshakes in which both sides write first.
type aheadConn struct {
	net.Conn
	arrived chan []byte
	rest    []byte
	err     error // once arrived is closed
}

// readAhead reads until done.
func readAhead(nc net.Conn, done <-chan struct{}) *aheadConn {
	c := &aheadConn{Conn: nc, arrived: make(chan []byte, 16)}
	go func() {
		defer close(c.arrived)
		for c.err == nil {
			p := make([]byte, 16<<10)
			var n int
			n, c.err = nc.Read(p)
			select {
			case c.arrived <- p[:n]:
			case <-done:
				c.err = net.ErrClosed
			}
		}
	}()
	return c
}

// Read implements io.Reader.
func (c *aheadConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var ok bool
		if c.rest, ok = <-c.arrived; !ok {
			return 0, c.err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// answer reads an answer and takes it apart. Those that come before it (100, 103)
// are passed over.
func (x *Explanation) answer(r *bufio.Reader, method string) error {
	for x.Status < 200 && x.Status != 101 {
		var head bytes.Buffer
		x.Head = nil
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			head.WriteString(line)
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				break
			}
			x.Head = append(x.Head, line)
		}
		if len(x.Head) == 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := fmt.Sscanf(x.Head[0], "HTTP/1.1 %d", &x.Status); err != nil {
			return err
		}
		if x.Status >= 200 {
			x.readBody(bufio.NewReader(io.MultiReader(&head, r)), method)
		}
	}
	return nil
}

// readBody keeps the beginning of a body, and reads it all: what is logged tells
// how much was sent.
func (x *Explanation) readBody(r *bufio.Reader, method string) {
	answer, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return
	}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 400))
	x.Body = string(body)
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
}

// head is the request on the wire.
func (q *Question) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.Method, q.Target)
	named := func(name string) bool {
		return slices.ContainsFunc(q.Fields, func(f string) bool {
			n, _, _ := strings.Cut(f, ":")
			return strings.EqualFold(strings.TrimSpace(n), name)
		})
	}
	if q.Host != "" && !named("Host") {
		fmt.Fprintf(&b, "Host: %s\r\n", q.Host)
	}
	for _, f := range q.Fields {
		fmt.Fprintf(&b, "%s\r\n", f)
	}
	if !named("Connection") {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// PretendCertificate makes a certificate for handshakes within the process.
func PretendCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
