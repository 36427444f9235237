package proxy

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// nameServer is a DNS server that knows what stands in a table; what does not,
// does not exist.
type nameServer struct {
	addr    string
	queries atomic.Int64
	records atomic.Pointer[[]string]
}

func newNameServer(t *testing.T, records ...string) *nameServer {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s := &nameServer{addr: c.LocalAddr().String()}
	s.records.Store(&records)
	go func() {
		var buf [512]byte
		for {
			n, from, err := c.ReadFrom(buf[:])
			if err != nil {
				return
			}
			var q dns.Msg
			if q.Unpack(buf[:n]) == nil {
				s.queries.Add(1)
				out, _ := s.answer(&q).Pack()
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	return s
}

func (s *nameServer) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Rcode = dns.RcodeNameError
	for _, text := range *s.records.Load() {
		rr, err := dns.NewRR(text)
		if err != nil || rr.Header().Name != q.Question[0].Name {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// TestResolverServes passes requests to names in variables.
func TestResolverServes(t *testing.T) {
	t.Parallel()
	b := answering(t, okAnswer)
	port := netip.MustParseAddrPort(b.addr).Port()
	names := newNameServer(t, "a.test. 60 A 127.0.0.1")
	portText := ":" + strings.TrimPrefix(b.addr, "127.0.0.1:")
	p := newProxyTest(t, "resolver "+names.addr+";", `
		location / { proxy_pass http://$http_b; }
		location /none/ { proxy_pass http://$http_b; resolver 127.0.0.1:1; resolver_timeout 50ms; }`)
	for _, tt := range []struct {
		path, b string
		status  int
		addr    string
		log     string
	}{
		{"/", "a.test" + portText, 200, b.addr, ""},
		{"/", "A.test." + portText, 200, b.addr, ""},
		{"/", "b.test" + portText, 502, "<none>", `b.test could not be resolved (3: Host not found), client: `},
		{"/none/", "c.test" + portText, 502, "<none>", `c.test could not be resolved (110: Operation timed out), client: `},
		{"/none/", "a.test:1", 502, "<none>", ` failed (111: Connection refused) while resolving, resolver: 127.0.0.1:1`},
	} {
		x, s := p.exchange("GET "+tt.path, "Host: h", "B: "+tt.b)
		p.do(x)
		if got := variableOf(x, "upstream_addr"); s.status != tt.status || got != tt.addr || !strings.Contains(p.logged(), tt.log) {
			t.Errorf("%s: status %d, address %s, want %d, %s\nlog %s", tt.b, s.status, got, tt.status, tt.addr, p.logged())
		}
		x.release()
	}
	if n := names.queries.Load(); n != 4 || port == 0 {
		t.Errorf("%d queries, want A and AAAA of two names", n)
	}
}

// TestResolverMistakes holds nginx's words for what is wrong.
func TestResolverMistakes(t *testing.T) {
	t.Parallel()
	for directive, want := range map[string]string{
		"resolver valid=1x 127.0.0.1;":               "invalid parameter: valid=1x",
		"resolver ipv4=no 127.0.0.1;":                "invalid parameter: ipv4=no",
		"resolver ipv6= 127.0.0.1;":                  "invalid parameter: ipv6=",
		"resolver valid=10s;":                        "no name servers defined",
		"resolver 127.0.0.1 ipv4=off ipv6=off;":      `"ipv4" and "ipv6" cannot both be "off"`,
		"resolver 127.0.0.1:99999;":                  `invalid port in resolver "127.0.0.1:99999"`,
		"resolver [::1;":                             `invalid host in resolver "[::1"`,
		"resolver unix:/tmp/x;":                      `invalid host in resolver "unix:/tmp/x"`,
		"resolver 127.0.0.1; resolver 127.0.0.2;":    `"resolver" directive is duplicate`,
		"resolver_timeout x;":                        `"resolver_timeout" directive invalid value`,
		"resolver 127.0.0.1 [::1]:5353 valid=0;":     "",
		"resolver 127.0.0.1; resolver_timeout 50ms;": "",
	} {
		_, diags := loadProxyTest(t, directive, "")
		got := ""
		if len(diags) > 0 {
			got = diags[0].Message
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", directive, got, want)
		}
	}
}
