package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"proxyctl/cmd/proxyctl/verify"
)

// verifyHere runs "migrate verify" on a file and gives its report.
func verifyHere(t *testing.T, conf string, args ...string) (*verify.Report, int) {
	t.Helper()
	installed, err := realNginx()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("proxyctl", append([]string{"migrate", "verify", "--nginx", installed, "-c", conf, "-p", t.TempDir(), "--format", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	code := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "TMPDIR=")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	r := new(verify.Report)
	if err := json.Unmarshal(out, r); err != nil {
		t.Fatalf("%v, status %d\n%s%s", err, code, out, said.String())
	}
	return r, code
}

func writeConf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "nginx.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestVerifyExamples: the sites that others try first are served as the
// installed nginx serves them.
func TestVerifyExamples(t *testing.T) {
	for _, name := range []string{"certbot-site", "load-balancing", "many-sites", "path-routing", "reverse-proxy", "websocket"} {
		t.Run(name, func(t *testing.T) {
			r, code := verifyHere(t, "../../examples/"+name+"/nginx.conf")
			for _, d := range r.Differences {
				t.Errorf("%s: nginx %q, here %q\n%s", d.What, d.Nginx, d.Here, d.Try)
			}
			if code != 0 || r.Servers.Reached != r.Servers.Of || r.Locations.Reached != r.Locations.Of || r.Compared < 50 {
				t.Errorf("status %d, %d requests, servers %v, locations %v: %v", code, r.Compared, r.Servers, r.Locations, r.NotReached)
			}
		})
	}
}
