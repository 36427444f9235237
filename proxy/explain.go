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
	Host   string         // name and port as a browser would send them; "" for none
	Target string         // path and arguments as sent
	Fields []string       // further fields, "Name: value"
	To     netip.AddrPort // the address asked; an unspecified IP is any with the port
	From   netip.Addr     // the client's address
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
	err = x.ask(ours, q)
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
	for _, s := range t.sockets {
		if s.network == "unix" {
			continue
		}
		known = append(known, s.address.String())
		if s.address.Port() != to.Port() {
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
	slices.Sort(known)
	return nil, to, fmt.Errorf("nothing listens on port %d; the configuration listens on %s", to.Port(), strings.Join(known, ", "))
}

// timeToExplain bounds the whole of it.
const timeToExplain = 10 * time.Second

// ask sends the request and reads the answer.
func (x *Explanation) ask(nc net.Conn, q *Question) error {
	_ = nc.SetDeadline(time.Now().Add(timeToExplain))
	head := q.head()
	x.Request = strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	if q.TLS {
		host, _, _ := strings.Cut(q.Host, ":")
		nc = tls.Client(nc, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) // #nosec G402 -- both ends are this process
	}
	go func() { _, _ = io.WriteString(nc, head) }()
	answer, err := io.ReadAll(io.LimitReader(nc, 1<<20))
	if len(answer) == 0 {
		if x.Passed != nil || err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	return x.answer(answer)
}

// answer takes an answer apart.
func (x *Explanation) answer(text []byte) error {
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	for line := range strings.SplitSeq(string(head), "\r\n") {
		x.Head = append(x.Head, line)
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), &http.Request{Method: strings.Fields(x.Request[0])[0]})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	x.Status = r.StatusCode
	body, _ := io.ReadAll(io.LimitReader(r.Body, 400))
	x.Body = string(body)
	return nil
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
