package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// server is a DNS server by UDP and TCP on one port. answer fills in the reply,
// or returns nil for silence; over is "udp" or "tcp".
type server struct {
	address netip.AddrPort
	queries atomic.Int64
	answer  func(q *dns.Msg, over string) []byte
}

func newServer(t *testing.T, answer func(q *dns.Msg, over string) []byte) *server {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: netip.MustParseAddrPort(tcp.Addr().String()), answer: answer}
	t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	go func() {
		var buf [4096]byte
		for {
			n, from, err := udp.ReadFrom(buf[:])
			if err != nil {
				return
			}
			if out := s.reply(buf[:n], "udp"); out != nil {
				_, _ = udp.WriteTo(out, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			var buf [4096]byte
			n, _ := c.Read(buf[:])
			if out := s.reply(buf[2:n], "tcp"); out != nil {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
			}
			_ = c.Close()
		}
	}()
	return s
}

func (s *server) reply(p []byte, over string) []byte {
	s.queries.Add(1)
	var q dns.Msg
	if q.Unpack(p) != nil {
		return nil
	}
	return s.answer(&q, over)
}

// zone answers from records; a name without any does not exist. "!name" is
// answered with SERVFAIL.
func zone(t *testing.T, lines ...string) func(*dns.Msg, string) []byte {
	t.Helper()
	known := map[string][]dns.RR{}
	failing := map[string]bool{}
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "!"); ok {
			failing[name] = true
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		known[rr.Header().Name] = append(known[rr.Header().Name], rr)
	}
	return func(q *dns.Msg, _ string) []byte {
		m := new(dns.Msg).SetReply(q)
		name, kind := q.Question[0].Name, q.Question[0].Qtype
		for _, rr := range known[name] {
			if t := rr.Header().Rrtype; t == kind || t == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		if known[name] == nil {
			m.Rcode = dns.RcodeNameError
		}
		if failing[name] {
			m.Rcode = dns.RcodeServerFailure
		}
		out, err := m.Pack()
		if err != nil {
			return nil
		}
		return out
	}
}

func (s *server) resolver(t *testing.T, change func(*Config)) *Resolver {
	t.Helper()
	c := Config{Servers: []netip.AddrPort{s.address}, IPv4: true, IPv6: true, Log: t.Logf}
	if change != nil {
		change(&c)
	}
	r := New(c)
	t.Cleanup(r.Close)
	return r
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestLookup(t *testing.T) {
	t.Parallel()
	s := newServer(t, zone(t,
		"both.test. 60 A 192.0.2.1", "both.test. 60 A 192.0.2.2", "both.test. 60 AAAA 2001:db8::1",
		"six.test. 60 AAAA 2001:db8::6", "empty.test. 60 TXT x",
		"alias.test. 60 CNAME hop.test.", "hop.test. 60 CNAME six.test.", "loop.test. 60 CNAME loop.test.",
		"nowhere.test. 60 CNAME gone.test.", "root.test. 60 CNAME .", "!broken.test.", "broken.test. 60 A 192.0.2.9",
	))
	r := s.resolver(t, nil)
	for name, want := range map[string]string{
		"both.test":             "192.0.2.1 192.0.2.2 2001:db8::1",
		"BOTH.test.":            "192.0.2.1 192.0.2.2 2001:db8::1",
		"six.test":              "2001:db8::6",
		"alias.test":            "2001:db8::6",
		"192.0.2.77":            "192.0.2.77",
		"empty.test":            "3: Host not found",
		"gone.test":             "3: Host not found",
		"nowhere.test":          "3: Host not found",
		"root.test":             "3: Host not found",
		"loop.test":             "3: Host not found",
		"broken.test":           "2: Server failure",
		"a..test":               "3: Host not found",
		"":                      "3: Host not found",
		"back\\slash.test":      "3: Host not found",
		strings.Repeat("x", 64): "3: Host not found",
	} {
		if got := asked(within(t, 5*time.Second), r, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// asked gives addresses or error as text; the addresses sorted, as their order
// is random once they are known.
func asked(ctx context.Context, r *Resolver, name string) string {
	addrs, err := r.Lookup(ctx, nil, name)
	if err != nil {
		return err.Error()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return strings.Trim(fmt.Sprint(addrs), "[]")
}

func TestOneKind(t *testing.T) {
	t.Parallel()
	s := newServer(t, zone(t, "both.test. 60 A 192.0.2.1", "both.test. 60 AAAA 2001:db8::1"))
	four := s.resolver(t, func(c *Config) { c.IPv6 = false })
	six := s.resolver(t, func(c *Config) { c.IPv4 = false })
	if got := asked(within(t, time.Second), four, "both.test"); got != "192.0.2.1" {
		t.Error("ipv6=off:", got)
	}
	if got := asked(within(t, time.Second), six, "both.test"); got != "2001:db8::1" {
		t.Error("ipv4=off:", got)
	}
}

// TestCache: what is known is not asked for again until its time is over, and
// costs no memory; failures are not kept.
func TestCache(t *testing.T) {
	s := newServer(t, zone(t, "a.test. 60 A 192.0.2.1", "a.test. 60 A 192.0.2.2", "now.test. 0 A 192.0.2.3"))
	r := s.resolver(t, func(c *Config) { c.IPv6 = false })
	ctx := within(t, 5*time.Second)
	for range 3 {
		asked(ctx, r, "a.test")
	}
	if n := s.queries.Load(); n != 1 {
		t.Errorf("%d queries for one name", n)
	}
	var buf [8]netip.Addr
	if n := testing.AllocsPerRun(100, func() {
		if got, ok := r.Cached(buf[:0], "a.test"); !ok || len(got) != 2 {
			t.Error("not cached")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for range 2 {
		asked(ctx, r, "gone.test")
	}
	if n := s.queries.Load(); n != 3 {
		t.Errorf("%d queries: a failure is kept", n)
	}
	r.entries[nameKey("a.test")].result.valid = time.Now().Unix() - 1
	if _, ok := r.Cached(nil, "a.test"); ok {
		t.Error("an old answer counts")
	}
	asked(ctx, r, "a.test")
	if n := s.queries.Load(); n != 4 {
		t.Errorf("%d queries: an old answer is not renewed", n)
	}
}

// TestRotation: all addresses are given each time, and each of them is first
// at some time.
func TestRotation(t *testing.T) {
	t.Parallel()
	res := result{four: 3}
	for i := range 5 {
		res.addrs = append(res.addrs, netip.AddrFrom4([4]byte{byte(i)}))
	}
	first := map[netip.Addr]bool{}
	for range 500 {
		got := res.appendRotated(nil)
		first[got[0]] = true
		slices.SortFunc(got, netip.Addr.Compare)
		if !slices.Equal(got, res.addrs) {
			t.Fatal(got)
		}
	}
	if len(first) != 5 {
		t.Errorf("only %d are ever first", len(first))
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t, zone(t, "a.test. 60 A 192.0.2.1"))
	r := s.resolver(t, nil)
	r.mu.Lock()
	for i := range maxEntries {
		e := &entry{key: key{name: fmt.Sprint(i)}, settled: true, used: time.Now().Unix()}
		e.place = r.order.PushFront(e)
		r.entries[e.key] = e
	}
	r.mu.Unlock()
	asked(within(t, time.Second), r, "a.test")
	if len(r.entries) > maxEntries || r.entries[key{name: "0"}] != nil || r.entries[key{name: "1"}] == nil {
		t.Errorf("%d names are kept", len(r.entries))
	}
}

// TestShared: many who wait for one name ask once; the last to go ends it.
func TestShared(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	answer := zone(t, "slow.test. 60 A 192.0.2.1")
	s := newServer(t, func(q *dns.Msg, over string) []byte {
		if q.Question[0].Name == "never.test." {
			return nil
		}
		<-open
		return answer(q, over)
	})
	r := s.resolver(t, func(c *Config) { c.IPv6 = false })
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := asked(within(t, 5*time.Second), r, "slow.test"); got != "192.0.2.1" {
				t.Error(got)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(open)
	wg.Wait()
	if n := s.queries.Load(); n != 1 {
		t.Errorf("%d queries", n)
	}
	if got := asked(within(t, 20*time.Millisecond), r, "never.test"); got != "110: Operation timed out" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := r.Lookup(ctx, nil, "never.test"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[key{name: "never.test"}] != nil {
		t.Error("a question that nobody wants answered goes on")
	}
}

// TestTruncated: what does not fit is asked for by TCP.
func TestTruncated(t *testing.T) {
	t.Parallel()
	answer := zone(t, "big.test. 60 A 192.0.2.1")
	s := newServer(t, func(q *dns.Msg, over string) []byte {
		p := answer(q, over)
		if over == "udp" {
			p[2] |= 2
			p = p[:len(p)-3]
		}
		return p
	})
	r := s.resolver(t, func(c *Config) { c.IPv6 = false })
	if got := asked(within(t, 2*time.Second), r, "big.test"); got != "192.0.2.1" {
		t.Error(got)
	}
}

// TestForged: answers with another number, another question or that are no
// answers do not count; the right one behind them does.
func TestForged(t *testing.T) {
	t.Parallel()
	evil, good := zone(t, "a.test. 60 A 203.0.113.1", "b.test. 60 A 203.0.113.1"), zone(t, "a.test. 60 A 192.0.2.1")
	for i, forge := range []func(q *dns.Msg){
		func(q *dns.Msg) { q.Id++ },
		func(q *dns.Msg) { q.Question[0].Name = "b.test." },
	} {
		n := 0
		s := newServer(t, func(q *dns.Msg, over string) []byte {
			if n++; n > 1 {
				return good(q, over)
			}
			again := *q
			again.Question = slices.Clone(q.Question)
			forge(&again)
			return evil(&again, over)
		})
		r := s.resolver(t, func(c *Config) { c.IPv6 = false })
		if got := asked(within(t, 100*time.Millisecond), r, "a.test"); got != "110: Operation timed out" {
			t.Errorf("%d: %s", i, got)
		}
		if got := asked(within(t, 2*time.Second), r, "a.test"); got != "192.0.2.1" {
			t.Errorf("%d: %s", i, got)
		}
	}
}

// TestNextServer: a server that is not there does not cost any time.
func TestNextServer(t *testing.T) {
	t.Parallel()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(gone.LocalAddr().String())
	_ = gone.Close()
	s := newServer(t, zone(t, "a.test. 60 A 192.0.2.1", "b.test. 60 A 192.0.2.2"))
	r := s.resolver(t, func(c *Config) { c.Servers = []netip.AddrPort{dead, s.address} })
	for _, name := range []string{"a.test", "b.test"} {
		if got := asked(within(t, 2*time.Second), r, name); !strings.HasPrefix(got, "192.0.2.") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	s := newServer(t, zone(t,
		"_http._tcp.test. 60 SRV 2 5 82 b.test.", "_http._tcp.test. 60 SRV 1 0 81 a.test.", "_http._tcp.test. 60 SRV 1 1 83 gone.test.",
		"a.test. 20 A 192.0.2.1", "b.test. 60 A 192.0.2.2", "b.test. 60 A 192.0.2.3",
		"_x._udp.test. 60 CNAME _http._tcp.test.", "_dead._tcp.test. 60 SRV 1 1 1 gone.test.", "_none._tcp.test. 60 TXT x",
	))
	r := s.resolver(t, nil)
	ctx := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 5*time.Second)
	}
	for service, want := range map[string]string{
		"http":    "[{192.0.2.1:81 a.test 1 1} {192.0.2.2:82 b.test 2 5} {192.0.2.3:82 b.test 2 5}] [{gone.test 3: Host not found}] <nil>",
		"_x._udp": "[{192.0.2.1:81 a.test 1 1} {192.0.2.2:82 b.test 2 5} {192.0.2.3:82 b.test 2 5}] [{gone.test 3: Host not found}] <nil>",
		"dead":    "[] [{gone.test 3: Host not found}] 3: Host not found",
		"none":    "[] [] 3: Host not found",
	} {
		got, err := r.Service(ctx, service, "test")
		slices.SortFunc(got.Targets, func(a, b Target) int { return a.Address.Compare(b.Address) })
		if text := fmt.Sprint(got.Targets, got.Failed, err); text != want {
			t.Errorf("%s: %s\nwant %s", service, text, want)
		}
		if left := got.Valid - time.Now().Unix(); service == "http" && (left < 18 || left > 20) {
			t.Errorf("counts for %d seconds", left)
		}
	}
}

// FuzzResponse: no message from the network breaks anything.
func FuzzResponse(f *testing.F) {
	for _, line := range []string{
		"a.test. 60 A 192.0.2.1", "a.test. 60 AAAA 2001:db8::1", "a.test. 60 CNAME b.test.", "a.test. 60 SRV 1 2 3 b.test.", "a.test. 60 TXT x",
	} {
		rr, _ := dns.NewRR(line)
		m := new(dns.Msg).SetQuestion("a.test.", rr.Header().Rrtype)
		m.Response, m.Compress, m.Answer = true, true, []dns.RR{rr, rr}
		p, _ := m.Pack()
		f.Add(p, false)
		f.Add(p, true)
	}
	f.Fuzz(func(t *testing.T, p []byte, tcp bool) {
		res, err := parseResponse(p, tcp)
		if err != nil {
			return
		}
		if n := len(res.addrs) + len(res.srvs); n > len(p)/10 {
			t.Errorf("%d records in %d bytes", n, len(p))
		}
		if res.code == 0 && !res.truncated && res.name == "" {
			t.Error("an answer without a question")
		}
	})
}
