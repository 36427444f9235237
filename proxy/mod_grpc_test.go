package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// grpcTest is a server behind the module, and a client of HTTP/2.
type grpcTest struct {
	*running
	client   *http.Client
	received chan struct{} // something has come of a request
	left     chan struct{} // the server has been told that nobody waits any more
}

func newGRPCTest(t *testing.T) *grpcTest {
	t.Helper()
	g := &grpcTest{received: make(chan struct{}, 100), left: make(chan struct{}, 100)}
	addr, _ := newHTTP2Backend(t, g.serve)
	g.running = run(t, `events {} http { client_max_body_size 0; grpc_buffer_size 8k;
		server { listen unix:%dir%/g.sock; server_name a.test; http2 on;
			location / { grpc_pass `+addr+`; }
			location /full { grpc_send_timeout 300ms; grpc_pass `+addr+`; }
			location /patient { grpc_read_timeout 3s; grpc_pass `+addr+`; }
			location /impatient { grpc_read_timeout 200ms; grpc_pass `+addr+`; }
			location /limited { client_max_body_size 10; grpc_pass `+addr+`; } } }`)
	g.client = g.overHTTP2("g.sock")
	return g
}

func (g *grpcTest) serve(w http.ResponseWriter, r *http.Request) {
	defer r.Body.Close()
	flush := w.(http.Flusher).Flush
	w.Header().Set("Trailer", "Grpc-Status")
	switch {
	case strings.HasSuffix(r.URL.Path, "/wait"):
		flush()
		if strings.HasPrefix(r.URL.Path, "/half") {
			_, _ = io.ReadAll(r.Body)
		}
		g.received <- struct{}{}
		<-r.Context().Done()
		g.left <- struct{}{}
	case r.URL.Path == "/full":
		<-r.Context().Done()
		g.left <- struct{}{}
	case r.URL.Path == "/patient":
		p := make([]byte, 3)
		for n := 0; n < len(p); {
			m, err := r.Body.Read(p[n:])
			if n += m; err != nil {
				break
			}
			g.received <- struct{}{}
		}
		_, _ = w.Write(p)
	case r.URL.Path == "/early":
		_, _ = io.WriteString(w, "enough")
	default:
		flush()
		p := make([]byte, 32<<10)
		for {
			n, err := r.Body.Read(p)
			_, _ = w.Write(p[:n])
			flush()
			if err != nil {
				break
			}
		}
	}
	w.Header().Set("Grpc-Status", "0")
}

// post sends a body and returns the answer when its head has come.
func (g *grpcTest) post(ctx context.Context, path string, body io.Reader) *http.Response {
	g.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.test"+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp
}

// TestGRPCBothWays sends each message when the one before has come back.
func TestGRPCBothWays(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	out, in := io.Pipe()
	resp := g.post(t.Context(), "/echo", out)
	defer resp.Body.Close()
	message := make([]byte, 100)
	for i := range 300 {
		fmt.Fprintf(in, "%100d", i)
		if _, err := io.ReadFull(resp.Body, message); err != nil || string(message) != fmt.Sprintf("%100d", i) {
			t.Fatalf("%d: %q, %v", i, message, err)
		}
	}
	_ = in.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q, %v, %v", rest, err, resp.Trailer)
	}
}

// TestGRPCOverHTTP1 does the same with chunks.
func TestGRPCOverHTTP1(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	c := g.dial("g.sock")
	defer c.Close()
	fmt.Fprint(c, "POST /echo HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	message := make([]byte, 100)
	for i := range 100 {
		fmt.Fprintf(c, "64\r\n%100d\r\n", i)
		if _, err := io.ReadFull(resp.Body, message); err != nil || string(message) != fmt.Sprintf("%100d", i) {
			t.Fatalf("%d: %q, %v", i, message, err)
		}
	}
	fmt.Fprint(c, "0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	// the connection is of use for another request
	fmt.Fprint(c, "POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody")
	if resp, err = http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "body" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// TestGRPCLarge sends more than any window takes, both ways at once.
func TestGRPCLarge(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 512<<10)
	resp := g.post(t.Context(), "/echo", bytes.NewReader(want))
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); !bytes.Equal(got, want) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestGRPCCancel: the server hears of a client that has gone, whatever is going on.
func TestGRPCCancel(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path string
		body io.Reader
	}{
		"waiting":     {"/wait", nil},
		"half-closed": {"/half/wait", strings.NewReader("x")},
		"full":        {"/wait", endless{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGRPCTest(t)
			body := tt.body
			if body == nil {
				out, in := io.Pipe()
				defer func() { _ = in.Close() }()
				body = out
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp := g.post(ctx, tt.path, body)
			<-g.received
			cancel()
			_ = resp.Body.Close() // what the library needs while it sends
			<-g.left
		})
	}
}

// TestGRPCCut: so it does over HTTP/1.1, in the middle of a body and behind it.
func TestGRPCCut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ path, end string }{
		"middle": {"/wait", ""},
		"behind": {"/half/wait", "0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGRPCTest(t)
			c := g.dial("g.sock")
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", tt.path)
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil { //nolint:bodyclose // the connection is
				t.Error(err)
			}
			fmt.Fprintf(c, "1\r\nx\r\n%s", tt.end)
			<-g.received
			_ = c.Close()
			<-g.left
		})
	}
}

// TestGRPCEarly: an answer can end before its request, which is not read any
// more.
func TestGRPCEarly(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	for range 20 {
		resp := g.post(t.Context(), "/early", endless{})
		if body, err := io.ReadAll(resp.Body); string(body) != "enough" || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Fatalf("%q, %v, %v", body, err, resp.Trailer)
		}
		_ = resp.Body.Close()
	}
}

// TestGRPCFull: a server that makes no room in time is given up.
func TestGRPCFull(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	resp := g.post(t.Context(), "/full", endless{})
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Error(resp.Status)
	}
	<-g.left
	g.await("logs/error.log", "upstream timed out (110: Connection timed out) while sending request to upstream")
}

// TestGRPCPatience: the time for an answer begins when the request is out.
func TestGRPCPatience(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	c := g.dial("g.sock")
	defer c.Close()
	fmt.Fprint(c, "POST /patient HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nab")
	<-g.received
	time.Sleep(4 * time.Second) // longer than an answer may take
	fmt.Fprint(c, "c")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != "abc" || err != nil {
		t.Errorf("%s %q, %v; %s", resp.Status, body, err, g.read("logs/error.log"))
	}
}

// TestGRPCImpatient: between two reads it may be no longer.
func TestGRPCImpatient(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	resp := g.post(t.Context(), "/impatient/wait", endless{})
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer looks complete")
	}
	<-g.left
	g.await("logs/error.log", "upstream timed out (110: Connection timed out) while reading")
}

// TestGRPCTooLarge: the limit holds for bodies whose length is not known before.
func TestGRPCTooLarge(t *testing.T) {
	t.Parallel()
	g := newGRPCTest(t)
	c := g.dial("g.sock")
	defer c.Close()
	fmt.Fprint(c, "POST /limited HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n")
	g.await("logs/error.log", "client intended to send too large chunked body: 0+11 bytes")
}
