package validators

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is what becomes of a configuration in a language.
type outcome struct {
	partial []string // what is left out so that there is an outcome
	refused []string // directives without which nothing is written
	why     string   // the reason for either
}

// TestExamples takes every example through every language: what is written is
// served the same way, or it is refused for the reason that stands here.
func TestExamples(t *testing.T) {
	type example struct {
		asks                    []string
		caddy, haproxy, gateway outcome
	}
	const loopback = "the loopback address is another one in a cluster"
	examples := map[string]example{
		"reverse-proxy": {
			asks: []string{
				"http://app.example.com/x?y", "http://app.example.com/docs/intro", "http://app.example.com/docs?a", "http://other.test/",
				"http://app.example.com//docs//a%20b?c=%20", "POST http://app.example.com/form\nX-Real-IP: 1.1.1.1\n\nbody", "http://app.example.com/docs/x?status=404",
			},
			gateway: outcome{
				partial: []string{"client_max_body_size", "proxy_set_header", "server"},
				why:     "a route limits no bodies and gives fields fixed values; " + loopback,
			},
		},
		"websocket": {
			asks:    []string{"http://chat.example.com/", "http://chat.example.com/ws/", "http://chat.example.com/ws"},
			gateway: outcome{partial: []string{"server"}, why: loopback},
		},
		"load-balancing": {
			asks:    []string{"http://any/", "http://any/x?status=404"},
			caddy:   outcome{partial: []string{"server"}, why: "Caddy has no backup servers"},
			gateway: outcome{partial: []string{"server", "add_header"}, why: "there are no backup servers, and fields have fixed values"},
		},
		"many-sites": {
			asks: []string{
				"http://www.example.com/", "http://blog.example.com/", "http://a.b.example.com/", "http://ann.users.example.org/", "http://nobody.test/",
				"http://WWW.example.com/x", "http://example.com/",
			},
			gateway: outcome{refused: []string{"return", "server_name"}, why: "a gateway answers nothing itself, and its hosts are no expressions"},
		},
		"path-routing": {
			asks: []string{
				"http://a/health", "http://a//health", "http://a/healthy", "http://a/api", "http://a/api?x", "http://a/users/7", "http://a/users/7/x", "http://a/users/x",
				"http://a/static/a.png", "http://a/a.PNG", "http://a/old/page", "http://a/old/page?a=b", "http://a/api/x", "http://a/api/", "http://a/STATIC/", "http://a/%75sers/8",
			},
			gateway: outcome{refused: []string{"location", "return", "rewrite", "server"}, why: "a gateway answers nothing itself, and knows no expressions"},
		},
		"certbot-site": {
			asks: []string{
				"http://example-demo.backend.com/a?b=c", "http://other.example/", "https://example-demo.backend.com/x?y",
			},
			gateway: outcome{partial: []string{"proxy_set_header", "server"}, why: "fields have fixed values; " + loopback},
		},
		"automatic-certificates": {
			asks: []string{
				"http://shop.example.com/a?b", "http://www.shop.example.com/", "https://shop.example.com/a?b", "https://www.shop.example.com/",
			},
			gateway: outcome{partial: []string{"server"}, why: loopback},
			haproxy: outcome{refused: []string{"ssl_certificate"}, why: "HAProxy obtains no certificates"},
		},
		"php-site": {
			asks: []string{
				"http://blog.example.com/", "http://blog.example.com/posts/7?a=b", "http://blog.example.com/index.php/more", "http://blog.example.com/index.php?x=%20y",
				"http://blog.example.com/style.css", "http://blog.example.com/missing.php", "http://blog.example.com/.git/config", "POST http://blog.example.com/index.php\n\nform=1",
			},
			haproxy: outcome{refused: []string{"root", "try_files"}, why: "HAProxy serves no files, and cannot ask whether there is one"},
			gateway: outcome{refused: []string{"location", "return", "root"}, why: "a gateway knows no expressions, serves no files and answers nothing itself"},
		},
	}
	entries, err := os.ReadDir("../../../../examples")
	if err != nil {
		t.Fatal(err)
	}
	api := newGatewayAPI(t)
	for _, e := range entries {
		x, ok := examples[e.Name()]
		if !ok {
			t.Errorf("%s: nothing is asked of this example", e.Name())
			continue
		}
		folder := filepath.Join("../../../../examples", e.Name())
		text, err := os.ReadFile(filepath.Join(folder, "nginx.conf"))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(e.Name(), func(t *testing.T) {
			judge(t, api, newSite(t, string(text), folder), x.asks, x.caddy, x.haproxy, x.gateway)
		})
	}
}

// judge takes a site through every language.
func judge(t *testing.T, api gatewayAPI, s *site, asks []string, caddy, haproxy, gateway outcome) {
	t.Run("caddyfile", func(t *testing.T) {
		compareServers(t, s, "caddyfile", caddy, asks, func(t *testing.T, text, _ string) {
			if strings.Contains(text, "https://") && !strings.Contains(text, "tls ") { // its own authority in the place of a public one
				text = strings.Replace(text, "{\n", "{\n\tlocal_certs\n\tskip_install_trust\n", 1)
			}
			serveCaddy(t, text)
		})
	})
	t.Run("haproxy", func(t *testing.T) {
		program, err := exec.LookPath("haproxy")
		if err != nil {
			t.Skip("haproxy is not installed")
		}
		compareServers(t, s, "haproxy", haproxy, asks, func(t *testing.T, text, port string) {
			file := filepath.Join(t.TempDir(), "haproxy.cfg")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`# cat (\S+) (\S+) > (\S+)`).FindAllStringSubmatch(text, -1) {
				run(t, "sh", "-c", "cat "+m[1]+" "+m[2]+" > "+m[3])
			}
			if out, err := exec.Command(program, "-c", "-f", file).CombinedOutput(); err != nil {
				t.Fatalf("haproxy -c: %v\n%s%s", err, out, text)
			}
			runUntilEnd(t, port, program, "-db", "-f", file)
		})
	})
	t.Run("gateway-api", func(t *testing.T) {
		path, _ := s.file(t)
		if err := os.WriteFile(path, []byte(s.original), 0o600); err != nil { // with its ports and addresses
			t.Fatal(err)
		}
		text, done := exported(t, "gateway-api", path, gateway)
		if done {
			return
		}
		for _, wrong := range api.check(text) {
			t.Error(wrong)
		}
		if t.Failed() {
			t.Log(text)
		}
	})
}

// exported exports a site as is expected; it reports whether that was to refuse.
func exported(t *testing.T, target, path string, want outcome) (string, bool) {
	t.Helper()
	text, complaint := export(t, target, path, want.partial...)
	var refused []string
	for _, m := range regexp.MustCompile(`(?m)error(?: \(protection\))?: (\S+)`).FindAllStringSubmatch(complaint, -1) {
		if !slices.Contains(refused, m[1]) {
			refused = append(refused, m[1])
		}
	}
	slices.Sort(refused)
	if diff := cmp.Diff(want.refused, refused); diff != "" {
		t.Fatalf("refused: %s\n%s", diff, complaint)
	}
	for _, p := range want.partial {
		if !regexp.MustCompile(`(?m)^# LEFT OUT: ` + p + `\b`).MatchString(text) {
			t.Errorf("%s was not left out\n%s", p, text)
		}
	}
	if (want.partial != nil || want.refused != nil) != (want.why != "") {
		t.Error("a refusal has a reason, and nothing else has one")
	}
	return text, refused != nil
}

// compareServers asks both servers the same.
func compareServers(t *testing.T, s *site, target string, want outcome, asks []string, serve func(t *testing.T, text, port string)) {
	t.Helper()
	path, ports := s.file(t)
	text, done := exported(t, target, path, want)
	if done {
		return
	}
	serve(t, text, ports["http"])
	ourFile, ourPorts := s.file(t)
	serveOurs(t, ourFile, ourPorts["http"])
	for _, a := range asks {
		ours, theirs := ask(t, ourPorts, a), ask(t, ports, a)
		if diff := cmp.Diff(ours, withoutAdditions(ours, theirs)); diff != "" {
			t.Errorf("%s: %s", a, diff)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func run(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", command, args, err, out)
	}
}
