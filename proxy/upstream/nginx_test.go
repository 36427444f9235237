package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scenario is an upstream block, requests to it, and which servers nginx asks
// for them. Servers in capitals refuse connections.
type scenario struct {
	name    string
	method  string // the directive
	servers string // as "a weight=5; b"
	keys    []string
	want    string // by request; servers tried in vain first, joined by ">"
}

func keys(n int) []string {
	ks := make([]string, n)
	for i := range ks {
		ks[i] = fmt.Sprint("key", i)
	}
	return ks
}

func addresses() []string {
	as := []string{""}
	for i := range 12 {
		as = append(as, fmt.Sprintf("10.%d.%d.%d", i, i*7, i*5), fmt.Sprintf("2001:db8::%x:%x", i*99, i))
	}
	return as
}

// scenarios are recorded from nginx 1.31.5; TestNginx compares them with the
// nginx that is installed.
func scenarios() []scenario {
	return []scenario{
		{"smooth", "", "a weight=5; b; c", keys(14), "a a b a c a a a a b a c a a"},
		{"equal", "", "a; b; c", keys(7), "a b c a b c a"},
		{"failing", "", "a weight=3; B weight=2; c", keys(24), "a B>a c a a a c a a a c a a a c a a a c a a a c a"},
		{"failing often", "", "a weight=3; B weight=6 max_fails=3; c", keys(24), "B>a a B>c a B>a c a a a c a a a c a a a c a a a c a a"},
		{"never disabled", "", "a; B max_fails=0; c", keys(12), "a B>c c a B>c a c B>a c a B>c a"},
		{"down", "", "a; b down; c weight=2", keys(9), "c a c c a c c a c"},
		{"all failing", "", "A; B", keys(4), "A>B - - -"},
		{"single failing", "", "A", keys(3), "A A A"},
		{"backup", "", "A; b backup; c backup", keys(5), "A>b c b c b"},
		{"backup failing", "", "A; B backup; c backup", keys(5), "A>B>c c c c c"},
		{"many", "", "a; b; c; d; e; f; g weight=2; h", keys(20), "g a b c d e f h g g a b c d e f h g g a"},
		{"least_conn", "least_conn", "a weight=2; b; c", keys(9), "a b c a a b c a a"},
		{"least_conn failing", "least_conn", "a weight=2; B; c; d backup", keys(9), "a B>c a a c a a c a"},
		{"hash", "hash $arg_k", "a; b; c weight=3; d", keys(40), "d c c c c d c c a b c b c d b a b a b c b a d c c d a c c c c d a d b a d c b c"},
		{"hash failing", "hash $arg_k", "a; B max_fails=0; c weight=3; D", keys(40), "D>B>c c c c c c c c a B>c c B>a c a B>c a B>c a B>a c B>a a c c c c a c c c c a a c B>c a a c B>c c"},
		{"hash empty", "hash $arg_none", "a; b; c", keys(6), "a b c a b c"},
		{"consistent", "hash $arg_k consistent", "a; b; c weight=3; d", keys(40), "c b c c d b c c c c c c b c d c d b c c b c a b d c c c c b b c b c c c d c c a"},
		{"consistent failing", "hash $arg_k consistent", "a; B max_fails=0; c weight=3; D", keys(40), "c c c c D>a c c B>c c c c c B>a c c B>c B>c B>c c c c c a B>c c B>c c c c c c c c c c c B>c c c B>a"},
		{"consistent empty", "hash $arg_none consistent", "a; b; c", keys(6), "a b c a b c"},
		{"ip_hash", "ip_hash", "a; b; c weight=3; d down", addresses(), "b c b c c c c c b c b c b c a c a c c c a c a c c"},
		{"ip_hash failing", "ip_hash", "a; B; c weight=3", addresses(), "a a c a a a a a a a a a a a a a a a a a a a B>c a a"},
	}
}

// peersOf reads the servers of a scenario.
func (s scenario) peersOf() []Peer {
	var peers []Peer
	for server := range strings.SplitSeq(s.servers, "; ") {
		name, options, _ := strings.Cut(server, " ")
		address := name + ".sock"
		p := Peer{Name: "unix:" + address, Server: "unix:" + address, Network: "unix", Address: address, Weight: 1, MaxFails: 1, FailTimeout: 10 * time.Second}
		for o := range strings.FieldsSeq(options) {
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "weight":
				p.Weight = int(value[0] - '0')
			case "max_fails":
				p.MaxFails = int(value[0] - '0')
			case "backup":
				p.Backup = true
			case "down":
				p.Down = true
			}
		}
		peers = append(peers, p)
	}
	return peers
}

func (s scenario) methodOf() Method {
	switch {
	case s.method == "":
		return RoundRobin
	case s.method == "least_conn":
		return LeastConn
	case s.method == "ip_hash":
		return IPHash
	case strings.HasSuffix(s.method, "consistent"):
		return ConsistentHash
	}
	return Hash
}

// keyOf is what the group's method asks for.
func (s scenario) keyOf(key string) []byte {
	switch {
	case strings.Contains(s.method, "none"):
		return nil
	case s.method == "ip_hash" && key == "":
		return nil
	case s.method == "ip_hash":
		return netip.MustParseAddr(key).AsSlice()
	}
	return []byte(key)
}

// walk makes the requests of a scenario.
func (s scenario) walk(t *testing.T) string {
	g, err := NewGroup("g", s.peersOf(), s.methodOf())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	var all []string
	var a Attempt
	for _, key := range s.keys {
		var tried []string
		a.Start(g, s.keyOf(key))
		for {
			p, err := a.Next(now)
			if err != nil {
				tried = append(tried, "-")
				break
			}
			name := strings.TrimSuffix(p.Address, ".sock")
			tried = append(tried, name)
			ok := name >= "a"
			a.Done(p, ok, now)
			if ok || a.Tries() == 0 {
				break
			}
		}
		all = append(all, strings.Join(tried, ">"))
	}
	return strings.Join(all, " ")
}

func TestSequences(t *testing.T) {
	for _, s := range scenarios() {
		if got := s.walk(t); got != s.want {
			t.Errorf("%s:\ngot  %s\nwant %s", s.name, got, s.want)
		}
	}
}

// TestNginx asks the installed nginx.
func TestNginx(t *testing.T) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(nginxConf(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-p", dir, "-e", "stderr", "-c", conf)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "front"))
		},
	}}
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", filepath.Join(dir, "front")); err == nil {
			c.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for i, s := range scenarios() {
		if got := s.request(t, client, i); got != s.want {
			t.Errorf("%s: nginx says\n%s\nwant\n%s", s.name, got, s.want)
		}
	}
}

// request makes the requests of scenario i to nginx.
func (s scenario) request(t *testing.T, client *http.Client, i int) string {
	var all []string
	for _, key := range s.keys {
		req, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("http://x/s%d?k=%s", i, key), nil)
		if s.method == "ip_hash" {
			req.URL.RawQuery = ""
			if key != "" {
				req.Header.Set("X-Real-IP", key)
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		tried := resp.Header.Get("U")
		tried = strings.NewReplacer("unix:", "", ".sock", "", ", ", ">", fmt.Sprint("g", i), "-").Replace(tried)
		all = append(all, tried)
	}
	return strings.Join(all, " ")
}

func nginxConf(dir string) string {
	var b strings.Builder
	b.WriteString("daemon off; master_process off; error_log /dev/null; pid nginx.pid; events {}\nhttp { access_log off;\n")
	for _, d := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "%s_temp_path %s/t;\n", d, dir)
	}
	b.WriteString("set_real_ip_from unix:; real_ip_header X-Real-IP;\n")
	locations := ""
	for i, s := range scenarios() {
		fmt.Fprintf(&b, "upstream g%d {\n", i)
		if s.method != "" {
			b.WriteString(s.method + ";\n")
		}
		for server := range strings.SplitSeq(s.servers, "; ") {
			name, options, _ := strings.Cut(server, " ")
			fmt.Fprintf(&b, "server unix:%s.sock %s;\n", name, options)
		}
		b.WriteString("}\n")
		locations += fmt.Sprintf("location = /s%d { proxy_pass http://g%d; add_header U $upstream_addr always; }\n", i, i)
	}
	for name := 'a'; name <= 'h'; name++ {
		fmt.Fprintf(&b, "server { listen unix:%c.sock; return 204; }\n", name)
	}
	fmt.Fprintf(&b, "server { listen unix:front;\n%s}}\n", locations)
	return b.String()
}
