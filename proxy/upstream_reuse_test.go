package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

const invitingAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"

// patient has the kept connections of p live as long as a slow machine needs.
func (p *proxyTest) patient() *proxyTest {
	for _, g := range p.table.http.groups {
		g.idle.Timeout, g.idle.Time = time.Hour, time.Hour
	}
	return p
}

// TestReuse holds which requests share a connection to a server that proxy_pass
// names by its address: two of the same kind, one after the other.
func TestReuse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer     string
		request    string
		fields     string
		directives string
		conns      int64
	}{
		"GET":                    {conns: 1},
		"HEAD":                   {request: "HEAD /", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n", conns: 1},
		"chunked":                {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: Keep-Alive\r\n\r\n2\r\nok\r\n0\r\n\r\n", conns: 1},
		"basic":                  {fields: "Authorization: Basic YTpi", conns: 1},
		"not found":              {answer: strings.Replace(invitingAnswer, "200 OK", "404 Not Found", 1), conns: 1},
		"not invited":            {answer: okAnswer, conns: 2},
		"until the end":          {answer: "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nok", conns: 2},
		"more than said":         {answer: invitingAnswer + "HTTP/1.1 200 OK\r\n\r\n", conns: 2},
		"POST":                   {request: "POST /", conns: 2},
		"DELETE":                 {request: "DELETE /", conns: 2},
		"method of proxy_method": {directives: "proxy_method POST;", conns: 2},
		"with a body":            {directives: "proxy_set_body hello;", conns: 2},
		"bound to who asked":     {fields: "Authorization: Negotiate YII=", conns: 2},
		"bound by the answer":    {answer: strings.Replace(invitingAnswer, "Connection", "WWW-Authenticate: NTLM\r\nConnection", 1), conns: 2},
		"says who asks":          {directives: "proxy_set_header Authorization $http_x;", conns: 2},
		"says its length":        {directives: "proxy_set_header Content-Length $http_x;", conns: 2},
		"from an address":        {directives: "proxy_bind 127.0.0.1;", conns: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.answer == "" {
				tt.answer = invitingAnswer
			}
			if tt.request == "" {
				tt.request = "GET /"
			}
			b := newBackend(t, func(c net.Conn, r *bufio.Reader, _ int64) {
				for readRequestOf(r) != "" {
					_, _ = io.WriteString(c, tt.answer)
					if strings.Contains(tt.answer, "keep-alive\r\n\r\nok") && !strings.Contains(tt.answer, "Length") {
						return
					}
				}
			})
			p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; "+tt.directives+" }").patient()
			for range 2 {
				x, s := p.exchange(tt.request, "Host: h", tt.fields)
				p.do(x)
				if want := variableOf(x, "upstream_status"); fmt.Sprint(s.status) != want {
					t.Errorf("answered %d, the server %s", s.status, want)
				}
				x.release()
			}
			if n := b.conns.Load(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
		})
	}
}

// TestReuseOfClosed: what a server did to a kept connection is not the next
// client's trouble.
func TestReuseOfClosed(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(c net.Conn, r *bufio.Reader, did chan<- bool){
		"closed": func(c net.Conn, _ *bufio.Reader, did chan<- bool) {
			_ = c.Close()
			did <- true
		},
		"closed when asked": func(_ net.Conn, r *bufio.Reader, did chan<- bool) {
			did <- true
			readRequestOf(r)
		},
		"said more meantime": func(c net.Conn, r *bufio.Reader, did chan<- bool) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nfoul")
			did <- true
			readRequestOf(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kept, did := make(chan bool), make(chan bool)
			b := newBackend(t, func(c net.Conn, r *bufio.Reader, n int64) {
				readRequestOf(r)
				_, _ = io.WriteString(c, invitingAnswer)
				if n == 1 {
					<-kept
					then(c, r, did)
				}
			})
			p := newProxyTest(t, "", "location / { proxy_pass http://"+b.addr+"; }").patient()
			for n := range 2 {
				x, s := p.exchange("GET /", "Host: h")
				p.do(x)
				if s.status != 200 || s.out.String() != "ok" {
					t.Errorf("%d %q", s.status, s.out.String())
				}
				x.release()
				if n == 0 {
					kept <- true
					<-did
				}
			}
		})
	}
}

// TestReuseLeavesRoom: a server that serves one connection at a time, to its
// end, gets around to everybody.
func TestReuseLeavesRoom(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for r := bufio.NewReader(c); readRequestOf(r) != ""; {
				_, _ = io.WriteString(c, invitingAnswer)
			}
			_ = c.Close()
		}
	}()
	p := newProxyTest(t, "", "location / { proxy_pass http://"+l.Addr().String()+"; }")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, line := range []string{"GET /", "POST /", "GET /"} {
				x, s := p.exchange(line, "Host: h")
				p.do(x)
				if s.status != 200 {
					t.Errorf("%s: %d", line, s.status)
				}
				x.release()
			}
		})
	}
	all.Wait()
}

// TestQueue: new connections of which none gets an answer say that a server has
// no place left.
func TestQueue(t *testing.T) {
	t.Parallel()
	const soon, late = int64(patience) / 2, int64(patience) * 2
	var q queue
	q.enter(0)
	q.enter(soon)
	if q.stuck(soon) || !q.stuck(late) {
		t.Error("stuck before its time, or not at all")
	}
	q.answered(late)
	if q.stuck(late + soon) {
		t.Error("stuck though one has been answered")
	}
	if !q.stuck(late + late) {
		t.Error("not stuck though one still waits")
	}
	q.leave()
	if q.stuck(late + late) {
		t.Error("stuck though nobody waits")
	}
}
