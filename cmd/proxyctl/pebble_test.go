package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// pebble is a certificate authority for tests, as Let's Encrypt makes it, with
// a name server beside it that says of every name that it is here.
type pebble struct {
	t          *testing.T
	dir        string
	config     map[string]any
	env        []string
	cmd        *exec.Cmd
	directory  string // URL
	management string
	rootFile   string // its own server is trusted by
	httpPort   int    // where it looks for HTTP-01
	tlsPort    int    // and for TLS-ALPN-01
	names      *nameServer
	log        output
}

// newPebble starts one; change may alter its configuration before.
func newPebble(t *testing.T, change func(config map[string]any), env ...string) *pebble {
	t.Helper()
	if _, err := exec.LookPath("pebble"); err != nil {
		t.Skip("pebble is not installed")
	}
	p := &pebble{t: t, dir: t.TempDir(), names: newNameServer(t), env: env}
	writeTestPair(t, p.dir, "localhost")
	p.rootFile = filepath.Join(p.dir, "c.pem")
	api, management := unusedPort(t), unusedPort(t)
	p.httpPort, p.tlsPort = unusedPort(t), unusedPort(t)
	p.directory = fmt.Sprintf("https://localhost:%d/dir", api)
	p.management = fmt.Sprintf("https://localhost:%d", management)
	p.config = map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", api), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
		"certificate": p.rootFile, "privateKey": filepath.Join(p.dir, "k.pem"),
		"httpPort": p.httpPort, "tlsPort": p.tlsPort,
	}
	if change != nil {
		change(p.config)
		p.httpPort, p.tlsPort = p.config["httpPort"].(int), p.config["tlsPort"].(int)
	}
	t.Cleanup(p.stop)
	p.start()
	return p
}

func (p *pebble) start() {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{"pebble": p.config})
	if err != nil {
		p.t.Fatal(err)
	}
	conf := filepath.Join(p.dir, "pebble.json")
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command("pebble", "-config", conf, "-dnsserver", p.names.address)
	p.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	p.cmd.Env = append(p.cmd.Env, p.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for range 200 {
		if resp, err := p.client().Get(p.directory); err == nil {
			_ = resp.Body.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	p.t.Fatalf("pebble does not answer: %s", p.log.String())
}

func (p *pebble) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *pebble) client() *http.Client {
	text, _ := os.ReadFile(p.rootFile)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// roots are what its certificates are trusted by.
func (p *pebble) roots() *x509.CertPool {
	p.t.Helper()
	resp, err := p.client().Get(p.management + "/roots/0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		p.t.Fatalf("no root: %s", text)
	}
	return pool
}

// environment tells a server to use this authority.
func (p *pebble) environment() []string {
	return []string{"PROXYCTL_ACME_CA=" + p.directory, "PROXYCTL_ACME_CA_ROOT=" + p.rootFile, "PROXYCTL_ACME_EMAIL=admin@site.test"}
}

// nameServer answers that every name is on 127.0.0.1, and takes dynamic
// updates of TXT records.
type nameServer struct {
	address string
	server  *dns.Server
	mu      sync.Mutex
	txt     map[string][]string
	updates int
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	var conn net.PacketConn
	var l net.Listener
	var err error
	for range 20 { // until one port is free for both
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			continue
		}
		if conn, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		_ = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{address: l.Addr().String(), txt: map[string][]string{}}
	secrets := map[string]string{"key.": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}
	accept := func(h dns.Header) dns.MsgAcceptAction {
		if op := int(h.Bits>>11) & 0xf; op == dns.OpcodeUpdate {
			return dns.MsgAccept
		}
		return dns.DefaultMsgAcceptFunc(h)
	}
	n.server = &dns.Server{PacketConn: conn, Handler: n, TsigSecret: secrets, MsgAcceptFunc: accept}
	tcp := &dns.Server{Listener: l, Handler: n, TsigSecret: secrets, MsgAcceptFunc: accept}
	go func() { _ = n.server.ActivateAndServe() }()
	go func() { _ = tcp.ActivateAndServe() }()
	t.Cleanup(func() { _ = n.server.Shutdown(); _ = tcp.Shutdown() })
	return n
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg)
	a.SetReply(q)
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.Opcode == dns.OpcodeUpdate {
		if q.IsTsig() == nil || w.TsigStatus() != nil {
			a.Rcode = dns.RcodeNotAuth
		} else {
			n.update(q)
			a.SetTsig("key.", dns.HmacSHA512, 300, time.Now().Unix())
		}
		_ = w.WriteMsg(a)
		return
	}
	for _, question := range q.Question {
		head := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: 1}
		switch question.Qtype {
		case dns.TypeA:
			a.Answer = append(a.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
		case dns.TypeSOA:
			if dns.CountLabel(question.Name) == 2 {
				a.Answer = append(a.Answer, &dns.SOA{Hdr: head, Ns: "ns." + question.Name, Mbox: "a." + question.Name})
				a.Authoritative = true
			}
		case dns.TypeTXT:
			for _, text := range n.txt[strings.ToLower(question.Name)] {
				a.Answer = append(a.Answer, &dns.TXT{Hdr: head, Txt: []string{text}})
			}
		}
	}
	_ = w.WriteMsg(a)
}

func (n *nameServer) update(q *dns.Msg) {
	n.updates++
	for _, rr := range q.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		name, text := strings.ToLower(txt.Hdr.Name), strings.Join(txt.Txt, "")
		var left []string
		for _, have := range n.txt[name] {
			if have != text {
				left = append(left, have)
			}
		}
		if txt.Hdr.Class == dns.ClassINET {
			left = append(left, text)
		}
		n.txt[name] = left
	}
}

// output is what a process writes, to be read while it does.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// server is this program, running.
type server struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	out  output
	done chan error
}

// startServer runs this program by a name in a folder with nginx.conf.
func startServer(t *testing.T, dir, name string, env []string, args ...string) *server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, done: make(chan error, 1)}
	s.cmd = exec.Command(program, args...)
	s.cmd.Env = append(append(os.Environ(), "PROXYCTL_DATA="+filepath.Join(dir, "data")), env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop(syscall.SIGTERM)
		if strings.Contains(s.out.String(), "DATA RACE") {
			t.Error("a data race")
		}
		if t.Failed() {
			t.Logf("output:\n%s\nerror log:\n%s", s.out.String(), s.errorLog())
		}
	})
	return s
}

func (s *server) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	select {
	case err := <-s.done:
		s.done <- err
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		s.t.Error("the server does not end")
	}
}

func (s *server) errorLog() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "error.log"))
	return string(text)
}

// awaitLog waits for a text in the error log.
func (s *server) awaitLog(text string, limit time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(s.errorLog(), text) {
			return
		}
	}
	s.t.Fatalf("not in the error log within %v: %q", limit, text)
}

// shown is the certificate that a server shows for a name.
func shown(port int, name string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// awaitTrusted waits until handshakes for a name succeed by roots.
func awaitTrusted(t *testing.T, roots *x509.CertPool, port int, name string, limit time.Duration) *x509.Certificate {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var c *tls.Conn
		c, err = tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: name, RootCAs: roots})
		if err == nil {
			_ = c.Close()
			return c.ConnectionState().PeerCertificates[0]
		}
	}
	t.Fatalf("%s is not trusted within %v: %v", name, limit, err)
	return nil
}

// siteConf is the article's site: plain HTTP redirected, files of Certbot that
// are not there.
func siteConf(t *testing.T, dir string, httpPort, tlsPort int, names, files string) string {
	t.Helper()
	plain := ""
	if httpPort != 0 {
		plain = fmt.Sprintf("server { listen 127.0.0.1:%d; server_name %s; return 301 https://$host$request_uri; }", httpPort, names)
	}
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log notice; user root;
events {}
http {
    access_log off;
    %[2]s
    server {
        listen 127.0.0.1:%[3]d ssl;
        server_name %[4]s;
        ssl_certificate %[5]s/fullchain.pem;
        ssl_certificate_key %[5]s/privkey.pem;
        location / { return 200 "served\n"; }
    }
}
`, dir, plain, tlsPort, names, files)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}
