package proxy

import (
	"bytes"
	"testing"
)

// TestParseURI holds normalization against what nginx's $uri and $args gave.
func TestParseURI(t *testing.T) {
	for _, tt := range []struct {
		target, path, args string
		merge              bool
		bad                bool
	}{
		{target: "/", path: "/"},
		{target: "/a/b?c=d", path: "/a/b", args: "c=d"},
		{target: "/a?b?c", path: "/a", args: "b?c"},
		{target: "/a//b", path: "/a/b", merge: true},
		{target: "/a//b", path: "/a//b"},
		{target: "/a/./b", path: "/a/b"},
		{target: "/a/../b", path: "/b"},
		{target: "/a/b/..", path: "/a/"},
		{target: "/a/.", path: "/a/"},
		{target: "/a/...", path: "/a/..."},
		{target: "/a/..b", path: "/a/..b"},
		{target: "/a/.b", path: "/a/.b"},
		{target: "/..", bad: true},
		{target: "/a/../../b", bad: true},
		{target: "/%2e%2e/a", bad: true},
		{target: "/a/%2e%2e/b", path: "/b"},
		{target: "/a%2Fb", path: "/a/b"},
		{target: "/a%2f%2fb", path: "/a/b", merge: true},
		{target: "/%41", path: "/A"},
		{target: "/a%3Fb", path: "/a?b"},
		{target: "/a%23b", path: "/a#b"},
		{target: "/a%25b", path: "/a%b"},
		{target: "/a%20b?c%20d", path: "/a b", args: "c%20d"},
		{target: "/a%00b", bad: true},
		{target: "/a%", bad: true},
		{target: "/a%4", bad: true},
		{target: "/a%zz", bad: true},
		{target: "/a#b", path: "/a"},
		{target: "/a?b#c", path: "/a", args: "b"},
		{target: "/a+b", path: "/a+b"},
		{target: "/%e4", path: "/\xe4"},
		{target: "//../a", path: "/a", merge: false},
		{target: "/a/..?x", path: "/", args: "x"},
	} {
		u, _ := parseURI([]byte(tt.target), tt.merge, nil)
		if u.ok == tt.bad {
			t.Errorf("%q: ok %v", tt.target, u.ok)
			continue
		}
		if u.ok && (string(u.path) != tt.path || string(u.args) != tt.args) {
			t.Errorf("%q: %q ? %q, want %q ? %q", tt.target, u.path, u.args, tt.path, tt.args)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/", "/a//b?c#d", "/a/./.../..", "?x", "/%"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, target []byte, merge bool) {
		if len(target) == 0 || target[0] != '/' || bytes.IndexByte(target, 0) >= 0 {
			return // the head parser lets none of these through
		}
		u, _ := parseURI(target, merge, nil)
		if !u.ok {
			return
		}
		if len(u.path) == 0 || u.path[0] != '/' {
			t.Errorf("%q: path %q does not begin with a slash", target, u.path)
		}
		if leavesRoot(u.path) {
			t.Errorf("%q: path %q climbs", target, u.path)
		}
		if merge && bytes.Contains(u.path, []byte("//")) {
			t.Errorf("%q: path %q has double slashes", target, u.path)
		}
		if bytes.IndexByte(u.path, 0) >= 0 {
			t.Errorf("%q: path %q has a NUL", target, u.path)
		}
	})
}

func TestParseHost(t *testing.T) {
	for _, tt := range []struct {
		host, name string
		port       uint16
		bad        bool
	}{
		{host: "example.com", name: "example.com"},
		{host: "EXAMPLE.com:8080", name: "example.com", port: 8080},
		{host: "example.com.", name: "example.com"},
		{host: "example.com.:80", name: "example.com", port: 80},
		{host: "[::1]:8080", name: "[::1]", port: 8080},
		{host: "[::1]", name: "[::1]"},
		{host: "a:", name: "a"},
		{host: "a_b~c", name: "a_b~c"},
		{host: "a..b", bad: true},
		{host: "a/b", bad: true},
		{host: "a b", bad: true},
		{host: "a\x00b", bad: true},
		{host: "a:b", bad: true},
		{host: "a:65536", bad: true},
		{host: "[::1", bad: true},
		{host: "[::1]x", bad: true},
		{host: "", bad: true},
		{host: ".", bad: true},
		{host: ":80", bad: true},
		{host: "a@b", bad: true},
		{host: "a:1:2", bad: true},
	} {
		h, _ := parseHost([]byte(tt.host), nil)
		if h.ok == tt.bad {
			t.Errorf("%q: ok %v", tt.host, h.ok)
			continue
		}
		if h.ok && (string(h.name) != tt.name || h.port != tt.port) {
			t.Errorf("%q: %q port %d, want %q port %d", tt.host, h.name, h.port, tt.name, tt.port)
		}
	}
}
