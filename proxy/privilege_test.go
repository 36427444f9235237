package proxy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDropRights runs in a process of its own: rights do not come back.
func TestDropRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	if os.Getenv("PROXY_TEST_RIGHTS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDropRights$", "-test.v")
		cmd.Env = append(os.Environ(), "PROXY_TEST_RIGHTS=1")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := prepare(t)
	secret := filepath.Join(r.dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := "user nobody nogroup; " + site("location / { return 200 ok; }")
	if err := r.Start(r.load(conf)); err != nil {
		t.Fatal(err)
	}
	if err := r.DropRights(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		r.Stop()
		_ = syscall.Setresuid(0, 0, 0) // for the cleanup of the folder
	}()
	open := func() error {
		f, err := os.Open(secret)
		if err == nil {
			_ = f.Close()
		}
		return err
	}
	for range 50 { // on several threads
		done := make(chan error)
		go func() { done <- open() }()
		if err := <-done; !errors.Is(err, unix.EACCES) {
			t.Fatalf("opening what belongs to root: %v", err)
		}
		if err := r.AsRoot(open); err != nil {
			t.Fatalf("as root: %v", err)
		}
	}
	if err := r.AsRoot(func() error {
		return r.Reload(r.load(strings.Replace(conf, "/s;", "/s; listen unix:%dir%/s2; proxy_temp_path other_temp;", 1)))
	}); err != nil {
		t.Fatal(err)
	}
	got := ""
	_ = r.AsRoot(func() error { got = r.get("s2", "/"); return nil })
	if !strings.HasSuffix(got, "ok") {
		t.Errorf("answer %q", got)
	}
	for _, folder := range []string{"client_body_temp", "proxy_temp", "other_temp"} {
		var st unix.Stat_t
		stat := func() error { return unix.Stat(filepath.Join(r.dir, folder), &st) }
		if err := r.AsRoot(stat); err != nil || int(st.Uid) != r.table.Load().Main.UID || st.Mode&0o777 != 0o700 {
			t.Errorf("%s belongs to %d, mode %o, %v", folder, st.Uid, st.Mode&0o777, err)
		}
	}
	r.ReopenLogs()
	var st unix.Stat_t
	stat := func() error { return unix.Stat(filepath.Join(r.dir, "logs/access.log"), &st) }
	if err := r.AsRoot(stat); err != nil || int(st.Uid) != r.table.Load().Main.UID {
		t.Errorf("the reopened log belongs to %d, %v", st.Uid, err)
	}
}
