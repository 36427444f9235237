package takeover

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMovedBack: whoever looks at the two files while the old one is moved back
// sees the same process in both; it has no successor.
func TestMovedBack(t *testing.T) {
	p := &Plan{PIDFile: filepath.Join(t.TempDir(), "nginx.pid")}
	pid := os.Getpid()
	for _, name := range []string{p.PIDFile, p.PIDFile + oldSuffix} {
		if err := os.WriteFile(name, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if old, next := p.masters(); old != 0 || next != pid {
		t.Errorf("%d and %d, want 0 and %d", old, next, pid)
	}
}
