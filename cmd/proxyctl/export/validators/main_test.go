package validators

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// program is proxyctl, built from the module around this one.
var program string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "validators")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "proxyctl")
	build := exec.Command("go", "build", "-C", "../../../..", "-o", program, "./cmd/proxyctl")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building proxyctl: %v\n%s", err, out)
		return 1
	}
	// Caddy keeps certificates and its state there
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// export runs the command on a file, by default without leave to leave anything
// out; it returns what was written, or what was complained about.
func export(t *testing.T, target, conf string, partial ...string) (text, complaint string) {
	t.Helper()
	args := []string{"migrate", "export", "--to", target, filepath.Base(conf)}
	for _, p := range partial {
		args = append(args, "--partial", p)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Dir(conf)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case err == nil:
		return out.String(), ""
	case errors.As(err, &exit) && exit.ExitCode() == 1 && out.Len() == 0:
		return "", errs.String()
	default:
		t.Fatalf("%v: %v\n%s%s", args, err, out.String(), errs.String())
		return "", ""
	}
}
