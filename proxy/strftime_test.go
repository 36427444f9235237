package proxy

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestStrftime holds every conversion against date(1), which uses strftime(3).
func TestStrftime(t *testing.T) {
	const format = "%a|%A|%b|%B|%c|%C|%d|%D|%e|%F|%g|%G|%h|%H|%I|%j|%k|%l|%m|%M|%n|%p|%P|%r|%R|%s|%S|%t|%T|%u|%U|%V|%w|%W|%x|%X|%y|%Y|%z|%%|%Ey|%Od"
	for _, at := range []string{"2026-01-01T00:00:00Z", "2024-12-31T12:05:09Z", "2021-01-03T13:00:00Z", "1999-07-04T23:59:59Z", "2023-02-05T11:11:11Z"} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("date", "-u", "-d", at, "+"+format)
		cmd.Env = []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil {
			t.Skip(err)
		}
		if got, want := string(appendStrftime(nil, format, when, "UTC")), strings.TrimSuffix(string(out), "\n"); got != want {
			t.Errorf("%s\n got %q\nwant %q", at, got, want)
		}
	}
	if got := string(appendStrftime(nil, "%Z %Q %", time.Unix(0, 0).UTC(), "GMT")); got != "GMT %Q %" {
		t.Errorf("%q", got)
	}
}
